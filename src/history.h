/*-------------------------------------------------------------------------
 *
 * history.h
 *	  What history.c, which knows of statements, has of history_table.c, which
 *	  knows of rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_HISTORY_H
#define LIFECYCLE_HISTORY_H

#include "lifecycle.h"

#include "access/genam.h"
#include "access/skey.h"

/* A history that is open. */
typedef struct LcHistoryTable
{
	LcAppender *appender;
	AttrNumber	attno[LC_HISTORY_COLUMNS];
	Relation	pkey;
	IndexScanDesc scan;			/* on the primary key, opened at first look-up */
	ScanKeyData by_seq[2];
	ScanKeyData any_seq[2];
	TupleTableSlot *found;
	Datum		session_user_name;
} LcHistoryTable;

extern void lc_history_table_learn(LcProgram *program);
extern LcHistoryTable *lc_history_table_open_known(Oid relid, const AttrNumber *attno, bool has_triggers, bool has_constraints);
extern LcHistoryTable *lc_history_table_open(LcProgram *program);
extern void lc_history_table_close(LcHistoryTable *h);
extern void lc_history_table_fill(LcHistoryTable *h, TupleTableSlot *slot, const LcMove *move);
extern void lc_history_table_insert(LcHistoryTable *h, TupleTableSlot **slots, int n);
extern bool lc_history_table_find(LcHistoryTable *h, Datum lead, int32 seq, LcLastMove *last);
extern bool lc_history_table_greatest(LcHistoryTable *h, LcProgram *program, MemoryContext cxt, Datum *lead);

#endif							/* LIFECYCLE_HISTORY_H */
