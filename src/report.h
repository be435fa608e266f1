/*-------------------------------------------------------------------------
 *
 * report.h
 *	  What the reports of C have in common: periods of the flow (period.c), who
 *	  may ask, and what the history answers (report.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_REPORT_H
#define LIFECYCLE_REPORT_H

#include "lifecycle.h"

#include "funcapi.h"
#include "utils/date.h"

/* Columns that are read of the flow. */
enum
{
	R_DAY, R_SOURCE, R_COHORT, R_FROM_STATUS, R_TO_STATUS, R_REACHED,
	R_N, R_N_NEW, R_N_AGAIN, R_N_LEFT, R_N_ENTERED,
	R_COLUMNS
};

/* A row of the flow. */
typedef struct LcFlowRow
{
	Datum		values[R_COLUMNS];
	bool		nulls[R_COLUMNS];
	bool		merged;
} LcFlowRow;

/* Which rows a report wants: those of the days between the first and the last bound. */
typedef struct LcPeriod
{
	LcProgram  *program;
	const char *kind;
	DateADT    *bounds;			/* ascending; the ends may be infinite */
	int			nbounds;
	bool		all_before;		/* also what is before the first */
	bool		segments;		/* sources and cohorts apart */
} LcPeriod;

typedef void (*LcFlowCallback) (const LcFlowRow *row, void *arg);

extern text *lc_period_text(const LcFlowRow *row, int column);
extern int64 lc_period_count(const LcFlowRow *row, int column);
extern void lc_period_read(const LcPeriod *p, LcFlowCallback callback, void *arg);

extern Oid	lc_report_table(FunctionCallInfo fcinfo);
extern bool lc_report_begins_day(LcProgram *program, TimestampTz at, DateADT *day);
extern bool lc_report_may_see(LcProgram *program);
extern void lc_report_give_history(ReturnSetInfo *rsinfo, const char *sql, int nargs, Oid *types, Datum *values,
								   const char *nulls);
extern void lc_report_put_rate(Datum *values, bool *nulls, int column, int64 above, int64 below);
extern int	lc_report_stage(LcProgram *program, const text *status);
extern int	lc_report_compare(const text *a, const text *b);

#endif							/* LIFECYCLE_REPORT_H */
