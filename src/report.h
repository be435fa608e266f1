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

#include "flow.h"

#include "funcapi.h"

/* Which rows a report wants: those of the days between the first and the last bound. */
typedef struct LcPeriod
{
	LcProgram  *program;
	LcFlowKind	kind;
	DateADT    *bounds;			/* ascending; the ends may be infinite */
	int			nbounds;
	bool		all_before;		/* also what is before the first */
	bool		segments;		/* sources and cohorts apart */
} LcPeriod;

/* What a report does with the counts of a cell, which refresh() has merged, or not yet. */
typedef void (*LcFlowCallback) (const LcCount *counts, int n, bool merged, void *arg);

extern void lc_period_read(const LcPeriod *p, LcFlowCallback callback, void *arg);

extern Oid	lc_report_table(FunctionCallInfo fcinfo);
extern bool lc_report_begins_day(LcProgram *program, TimestampTz at, DateADT *day);
extern bool lc_report_may_see(LcProgram *program);
extern void lc_report_give_history(ReturnSetInfo *rsinfo, const char *sql, int nargs, Oid *types, Datum *values,
								   const char *nulls);
extern void lc_report_put_rate(Datum *values, bool *nulls, int column, int64 above, int64 below);
extern int	lc_report_stage(LcProgram *program, const char *status, int length);

#endif							/* LIFECYCLE_REPORT_H */
