/*-------------------------------------------------------------------------
 *
 * import.h
 *	  What import.c and import_query.c share: an import, and the rows that are
 *	  sorted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_IMPORT_H
#define LIFECYCLE_IMPORT_H

#include "lifecycle.h"

#include "executor/spi.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

/* The columns of a row that is sorted. */
enum
{
	S_LEAD = 1, S_AT, S_PLACE, S_STATUS, S_ACTOR, S_REASON, S_COLUMNS = S_REASON
};

typedef struct LcImport
{
	LcProgram  *program;
	Oid			key_type;		/* base type of the key */
	bool		one_by_one;		/* its arrays cannot be unnested into keys */
	int16		key_len;
	bool		key_byval;
	TimestampTz clock;			/* nothing may be later */
	Tuplestorestate *result;
	TupleDesc	result_desc;
	TupleDesc	desc;			/* of the rows that are sorted */
	List	   *tables;
	SPIPlanPtr	lock;
	SPIPlanPtr	update;
	MemoryContext cxt;			/* of the whole import */
	MemoryContext batch_cxt;
	MemoryContext lead_cxt[2];	/* of one lead, used in turns */
	struct ImportedLead *leads;	/* of the batch */
	int			nleads;
} LcImport;

extern void lc_import_report(LcImport *import, const char *lead, const char *status, TimestampTz at, bool at_isnull,
							 const char *problem, bool imported);
extern Tuplesortstate *lc_import_read(LcImport *import, const char *query);

#endif							/* LIFECYCLE_IMPORT_H */
