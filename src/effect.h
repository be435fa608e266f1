/*-------------------------------------------------------------------------
 *
 * effect.h
 *	  What a statement on a signal table did, from where it is taken down
 *	  (signal.c) to where it is put into effect (effect.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_EFFECT_H
#define LIFECYCLE_EFFECT_H

#include "lifecycle.h"

/* What a row did to a lead. */
typedef enum LcEffect
{
	POINTS_CAME,				/* rule gives points */
	POINTS_CHANGED,				/* the sum is to be made anew */
	ASKS,						/* rule asks for a status */
	LOOK_AGAIN					/* a row that kept rules from firing may be gone */
} LcEffect;

typedef struct LcEntry
{
	Datum		lead;
	LcEffect		effect;
	LcProgram  *signal;			/* pinned */
	const LcRule *rule;
	float8		half_life;
	float8		points;
	TimestampTz at;
} LcEntry;

/* What one statement did. */
typedef struct LcSignalFrame
{
	struct LcSignalFrame *outer;
	int32		signal_id;
	SubTransactionId owner;
	MemoryContext cxt;
	LcProgram  *leads;			/* pinned */
	List	   *signals;		/* pinned */
	LcEntry	   *entries;
	Size		nentries;
	Size		room;
	bool		anew;			/* sums were made anew in the meantime: rows that came are in them */
	bool		is_update;
	LcSignalRow *moved;			/* a row that an UPDATE takes out of its partition */
	LcProgram  *moved_from;		/* pinned; its table */
} LcSignalFrame;

extern void lc_signal_note_recomputation(const LcSignalFrame *except);
extern void lc_effect_apply(LcSignalFrame *frame);

#endif							/* LIFECYCLE_EFFECT_H */
