/*-------------------------------------------------------------------------
 *
 * flow.h
 *	  What writers, refresh() and reports share of <prefix>_flow, and of what is
 *	  pending: what is counted, and how it lies in the rows (cell.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_FLOW_H
#define LIFECYCLE_FLOW_H

#include "lifecycle.h"

#include "utils/date.h"
#include "utils/uuid.h"

/* Columns of <prefix>_flow; <prefix>_flow_pending has those from F_KIND on. */
typedef enum LcFlowColumn
{
	F_SPAN, F_KEY, F_KIND, F_DAY, F_SOURCE, F_COHORT, F_FROM_STATUS, F_TO_STATUS, F_REACHED,
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

/* Where in a row counts are read. */
typedef struct LcCellReader
{
	LcCount		count;			/* the one that was read last */
	int			n;
	int			i;
	int			ntexts;
	int			nsums;
	struct
	{
		text	  **at;			/* where in the count */
		char	   *element;
		const bits8 *present;
	}			texts[F_N - F_FROM_STATUS];
	struct
	{
		LcFlowSum	sum;
		const int64 *values;
	}			sums[LC_FLOW_SUMS];
} LcCellReader;

/* An array that grows, or what of it is there. */
typedef struct LcCellArray
{
	char	   *data;			/* NULL: none */
	Size		used;
	Size		room;
} LcCellArray;

/* What is written of a row. */
typedef struct LcCellWriter
{
	int			n;
	LcCellArray arrays[LC_FLOW_COLUMNS - F_FROM_STATUS];
	LcCellArray present[F_N - F_FROM_STATUS];	/* as in the bitmap of an array */
	bool		has_nulls[F_N - F_FROM_STATUS];
	bool		has_values[LC_FLOW_COLUMNS - F_FROM_STATUS];	/* neither 0 nor NULL */
} LcCellWriter;

/* A source and a cohort as they are counted, and what their cells are found by. */
typedef struct LcSegment
{
	text	   *source;
	bool		cohort_isnull;
	int32		cohort;
	pg_uuid_t	key;
} LcSegment;

typedef struct LcSegments LcSegments;

extern const char *const lc_flow_kinds[LC_FLOW_KINDS];

extern DateADT lc_flow_month_of(DateADT day);

extern int	lc_cell_compare_texts(const text *a, const text *b);
extern text *lc_cell_copy_text(MemoryContext cxt, const text *value);
extern bool lc_cell_is_other(const text *source);
extern bool lc_cell_is_nothing(const LcCount *count);
extern int	lc_cell_compare(const LcCount *a, const LcCount *b);
extern int	lc_cell_compare_within(const LcCount *a, const LcCount *b);
extern void lc_cell_find_columns(Relation rel, LcFlowColumn first, AttrNumber *attno);
extern int	lc_cell_kind(TupleTableSlot *slot, const AttrNumber *attno);
extern Relation lc_cell_open_index(Relation rel);
extern void lc_cell_begin_read(LcCellReader *reader, Relation rel, TupleTableSlot *slot, const AttrNumber *attno,
							   LcFlowKind kind);
extern bool lc_cell_next(LcCellReader *reader);
extern int	lc_cell_read(Relation rel, TupleTableSlot *slot, const AttrNumber *attno, LcFlowKind kind, LcCount **counts);
extern void lc_cell_begin_write(LcCellWriter *writer, LcFlowKind kind, int about);
extern void lc_cell_put(LcCellWriter *writer, const LcCount *count);
extern void lc_cell_store(LcCellWriter *writer, TupleTableSlot *slot, const AttrNumber *attno, const char *span,
						  const pg_uuid_t *key, const LcCount *cell, bool same_texts);

extern LcSegments *lc_segment_begin(void);
extern const LcSegment *lc_segment_of(LcSegments *segments, const text *source, bool cohort_isnull, int32 cohort);

#endif							/* LIFECYCLE_FLOW_H */
