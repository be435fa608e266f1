/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  Statements that are prepared once for a program, and live as long as it is
 *	  compiled.
 *
 * Their tables are small when they are planned first, and grow while sessions of
 * a pool live on: so they are planned to find rows by their keys, and never with
 * the values at hand.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

/*
 * Plan the statement by its keys, however small the tables are.
 */
static void
plan_for_growth(SPIPlanPtr statement)
{
	int			level = NewGUCNestLevel();
	CachedPlan *plan;

	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	plan = SPI_plan_get_cached_plan(statement);
	if (plan != NULL)
		ReleaseCachedPlan(plan, CurrentResourceOwner);
	AtEOXact_GUC(false, level);
}

/*
 * See to it that the statement is prepared; "sql" is needed only where it is
 * not.  The caller has become the role that it runs as.  SPI is connected.
 */
void
lc_plan_prepare(LcProgram *program, LcPlan plan, const char *sql, int nargs, Oid *types)
{
	if (program->plans[plan] == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare_cursor(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);

		if (prepared == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
		if (SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not keep a plan");
		program->plans[plan] = prepared;
		plan_for_growth(prepared);
	}
	else if (!SPI_plan_is_valid(program->plans[plan]))
		plan_for_growth(program->plans[plan]);
}

/*
 * Run a statement of the program as the given role, on what is committed now.
 * SPI is connected; the result is in SPI_tuptable.
 */
uint64
lc_plan_execute(LcProgram *program, LcPlan plan, const char *sql, Oid owner, int nargs,
				Oid *types, Datum *values)
{
	Snapshot	snapshot;
	Oid			userid;
	int			sec_context;
	int			result;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	lc_plan_prepare(program, plan, sql, nargs, types);
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	result = SPI_execute_snapshot(program->plans[plan], values, NULL, snapshot, InvalidSnapshot,
								  false, true, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
	UnregisterSnapshot(snapshot);
	SetUserIdAndSecContext(userid, sec_context);
	return SPI_processed;
}
