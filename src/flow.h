/*-------------------------------------------------------------------------
 *
 * flow.h
 *	  What writers, refresh() and reports share of <prefix>_flow: what is counted,
 *	  and how it lies in the rows (cell.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_FLOW_H
#define LIFECYCLE_FLOW_H

#include "lifecycle.h"

#include "utils/date.h"
#include "utils/uuid.h"

/* Columns of <prefix>_flow. */
typedef enum LcFlowColumn
{
	F_SPAN, F_KIND, F_DAY, F_KEY, F_SOURCE, F_COHORT, F_FROM_STATUS, F_TO_STATUS, F_REACHED,
	F_N, F_N_NEW, F_N_AGAIN, F_N_LEFT, F_N_ENTERED
} LcFlowColumn;

/* Columns that are sums: all from F_N on.  Only moves have more than the first. */
#define LC_FLOW_SUMS (LC_FLOW_COLUMNS - F_N)

typedef enum LcFlowSum
{
	S_N, S_NEW, S_AGAIN, S_LEFT, S_ENTERED
} LcFlowSum;

/* What is counted: moves, or what leads reached.  flow.c says what it means. */
typedef enum LcFlowKind
{
	K_MOVE, K_FIRST, K_LATER, K_EVER
} LcFlowKind;

#define LC_FLOW_KINDS (K_EVER + 1)

/* Sources that the flow of a program tells apart, and what the others are called. */
#define LC_FLOW_SOURCES 64
#define LC_OTHER_SOURCES "(other)"

/* Between the statuses of a set, which no status contains. */
#define LC_SET_SEPARATOR '\t'

/*
 * What is counted together, and how much of it.  Counts of the same kind, day,
 * source and cohort are a cell, which is a row of the flow.
 */
typedef struct LcCount
{
	LcFlowKind	kind;
	DateADT		day;
	text	   *source;
	bool		cohort_isnull;
	int32		cohort;
	text	   *from_status;
	text	   *to_status;
	text	   *reached;		/* statuses in the order of their bytes */
	int64		sums[LC_FLOW_SUMS];
} LcCount;

extern const char *const lc_flow_kinds[LC_FLOW_KINDS];

extern DateADT lc_flow_month_of(DateADT day);

extern int	lc_cell_compare_texts(const text *a, const text *b);
extern bool lc_cell_is_other(const text *source);
extern bool lc_cell_is_nothing(const LcCount *count);
extern int	lc_cell_compare(const LcCount *a, const LcCount *b);
extern int	lc_cell_compare_within(const LcCount *a, const LcCount *b);
extern void lc_cell_find_columns(Relation rel, AttrNumber *attno);
extern Relation lc_cell_open_index(Relation rel);
extern int	lc_cell_read(Relation rel, TupleTableSlot *slot, const AttrNumber *attno, LcFlowKind kind, LcCount **counts);
extern void lc_cell_fill(TupleTableSlot *slot, const AttrNumber *attno, const char *span, pg_uuid_t *key,
						 LcCount *const *counts, int n);

#endif							/* LIFECYCLE_FLOW_H */
