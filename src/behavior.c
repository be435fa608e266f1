/*-------------------------------------------------------------------------
 *
 * behavior.c
 *	  The points that signals gave the leads: <prefix>_behavior, a row for each
 *	  lead and half-life.
 *
 * Who writes points of a lead holds the lead's row; of a lead that is not there
 * (yet), its row here.  All is read with a latest snapshot: under REPEATABLE
 * READ, too, what counts is what others committed before the lock was had.
 * The statements are prepared once for a program, and run as the owner of the
 * leads, to whom the table belongs.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <math.h>

#include "access/xact.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/*
 * Run a statement of the program as the given role, on what is committed now.
 * SPI is connected; the result is in SPI_tuptable.
 */
uint64
lc_behavior_execute(LcProgram *program, LcPlan plan, const char *sql, Oid owner, int nargs,
					Oid *types, Datum *values)
{
	Snapshot	snapshot;
	Oid			userid;
	int			sec_context;
	int			result;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	if (program->plans[plan] == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(sql, nargs, types);

		if (prepared == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
		if (SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not keep a plan");
		program->plans[plan] = prepared;
	}
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

ArrayType *
lc_behavior_array(LcProgram *program, Datum *leads, int n)
{
	return construct_array(leads, n, program->key_type, program->key_length,
						   program->key_by_value, lookup_type_cache(program->key_type, 0)->typalign);
}

/*
 * The condition that the column is one of the keys in the array $1, whatever
 * the search path.
 */
char *
lc_behavior_is_lead(LcProgram *program, const char *column)
{
	TypeCacheEntry *type = lookup_type_cache(getBaseType(program->key_type), TYPECACHE_EQ_OPR);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(type->eq_opr));
	Form_pg_operator op;
	char	   *condition;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", type->eq_opr);
	op = (Form_pg_operator) GETSTRUCT(tuple);
	condition = psprintf("%s OPERATOR(%s.%s) ANY ($1)", column,
						 quote_identifier(get_namespace_name(op->oprnamespace)), NameStr(op->oprname));
	ReleaseSysCache(tuple);
	return condition;
}

static char *
table_name(LcProgram *program)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(program->behavior)),
									  get_rel_name(program->behavior));
}

static Oid
array_type(LcProgram *program)
{
	Oid			type = get_array_type(program->key_type);

	return OidIsValid(type) ? type : get_array_type(getBaseType(program->key_type));
}

/* ---- sums ---- */

/*
 * What the points are worth at the time.
 */
float8
lc_behavior_at(const LcBehavior *behavior, TimestampTz at)
{
	float8		score = 0;

	for (int i = 0; i < behavior->n; i++)
		score += lc_decay(behavior->sums[i].points, (float8) Max(at - behavior->sums[i].at, 0),
						  behavior->sums[i].half_life);
	return score;
}

/*
 * Add points of that half-life.  The array grows in the current memory.
 */
void
lc_behavior_add(LcBehavior *behavior, float8 half_life, float8 points, TimestampTz at)
{
	int			i = 0;

	while (i < behavior->n && behavior->sums[i].half_life != half_life)
		i++;
	if (i == behavior->n)
	{
		behavior->sums = behavior->n == 0 ? palloc(sizeof(LcScore)) :
			repalloc(behavior->sums, (behavior->n + 1) * sizeof(LcScore));
		behavior->sums[behavior->n].half_life = half_life;
		behavior->sums[behavior->n].points = 0;
		behavior->sums[behavior->n++].at = 0;
	}
	lc_score_add(&behavior->sums[i], points, at);
}

/* ---- reading ---- */

static int
position_of(LcProgram *program, FmgrInfo *compare, Datum *leads, int n, Datum lead)
{
	int			low = 0;
	int			high = n - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		int			c = DatumGetInt32(FunctionCall2Coll(compare, program->key_collation, lead, leads[middle]));

		if (c == 0)
			return middle;
		if (c < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return -1;
}

/*
 * The points of each of the leads, which are in the order of the key.  SPI is
 * connected; the result is in the memory that is current.
 */
LcBehavior *
lc_behavior_read(LcProgram *program, Datum *leads, int n)
{
	LcBehavior *behaviors = palloc0(n * sizeof(LcBehavior));
	FmgrInfo   *compare = &lookup_type_cache(getBaseType(program->key_type), TYPECACHE_CMP_PROC_FINFO)->cmp_proc_finfo;
	Oid			type = array_type(program);
	Datum		value = PointerGetDatum(lc_behavior_array(program, leads, n));
	uint64		rows;

	for (int i = 0; i < n; i++)
		behaviors[i].since = DT_NOBEGIN;
	rows = lc_behavior_execute(program, LC_PLAN_READ,
							   program->plans[LC_PLAN_READ] ? NULL :
							   psprintf("SELECT b.lead, b.half_life, b.points, b.at, b.since FROM %s b WHERE %s",
										table_name(program), lc_behavior_is_lead(program, "b.lead")),
							   program->owner, 1, &type, &value);
	for (uint64 r = 0; r < rows; r++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[r];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		int			i = position_of(program, compare, leads, n, SPI_getbinval(tuple, desc, 1, &isnull));
		Interval   *half_life = DatumGetIntervalP(SPI_getbinval(tuple, desc, 2, &isnull));
		float8		points = DatumGetFloat8(SPI_getbinval(tuple, desc, 3, &isnull));
		TimestampTz at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 4, &isnull));
		TimestampTz since = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 5, &isnull));

		if (i < 0)
			continue;
		behaviors[i].known = true;
		behaviors[i].since = Max(behaviors[i].since, since);
		lc_behavior_add(&behaviors[i],
						half_life->time == 0 && half_life->day == 0 && half_life->month == 0 ? 0 : lc_half_life(half_life),
						points, at);
	}
	SPI_freetuptable(SPI_tuptable);
	return behaviors;
}

/*
 * The behaviour score of a lead.
 */
float8
lc_behavior_score(LcProgram *program, Datum lead, TimestampTz moment)
{
	float8		score;

	if (!OidIsValid(program->behavior))
		return 0;
	SPI_connect();
	score = lc_behavior_at(lc_behavior_read(program, &lead, 1), moment);
	SPI_finish();
	return score;
}

/*
 * The same where the program's rules ask for it; else 0, at no cost.
 */
float8
lc_behavior_of(LcProgram *program, Datum lead, TimestampTz moment)
{
	return OidIsValid(program->behavior) && lc_rules_read_behavior(program) ?
		lc_behavior_score(program, lead, moment) : 0;
}

/* ---- writing ---- */

static Interval *
interval_of(float8 half_life)
{
	Interval   *interval = palloc0(sizeof(Interval));

	/* whole days read better, and equal the same number of hours */
	interval->day = (int32) floor(half_life / USECS_PER_DAY);
	interval->time = (int64) (half_life - (float8) interval->day * USECS_PER_DAY);
	return interval;
}

/* The order of a sum among those of its half-life, which time does not change. */
static bool
heat_of(const LcScore *sum, float8 *heat)
{
	if (!(sum->points > 0))
		return false;
	*heat = sum->half_life == 0 ? sum->points :
		log2(sum->points) + (float8) sum->at / sum->half_life;
	return true;
}

/*
 * Store the points of the leads.  SPI is connected.
 */
void
lc_behavior_write(LcProgram *program, Datum *leads, LcBehavior **behaviors, int n)
{
	Oid			types[6] = {InvalidOid, INTERVALARRAYOID, FLOAT8ARRAYOID, TIMESTAMPTZARRAYOID,
	FLOAT8ARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[6];
	Datum	   *columns[6];
	bool	   *heat_nulls;
	int			rows = 0;
	int			k = 0;
	int			dims[1];
	int			lbs[1] = {1};

	for (int i = 0; i < n; i++)
		rows += behaviors[i]->n;
	if (rows == 0)
		return;
	for (int c = 0; c < 6; c++)
		columns[c] = palloc(rows * sizeof(Datum));
	heat_nulls = palloc(rows * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		for (int j = 0; j < behaviors[i]->n; j++, k++)
		{
			const LcScore *sum = &behaviors[i]->sums[j];
			float8		heat = 0;

			columns[0][k] = leads[i];
			columns[1][k] = IntervalPGetDatum(interval_of(sum->half_life));
			columns[2][k] = Float8GetDatum(sum->points);
			columns[3][k] = TimestampTzGetDatum(sum->at);
			heat_nulls[k] = !heat_of(sum, &heat);
			columns[4][k] = Float8GetDatum(heat);
			columns[5][k] = TimestampTzGetDatum(behaviors[i]->since);
		}
	}
	dims[0] = rows;
	types[0] = array_type(program);
	values[0] = PointerGetDatum(lc_behavior_array(program, columns[0], rows));
	values[1] = PointerGetDatum(construct_array(columns[1], rows, INTERVALOID, sizeof(Interval), false, TYPALIGN_DOUBLE));
	values[2] = PointerGetDatum(construct_array(columns[2], rows, FLOAT8OID, sizeof(float8), true, TYPALIGN_DOUBLE));
	values[3] = PointerGetDatum(construct_array(columns[3], rows, TIMESTAMPTZOID, sizeof(TimestampTz), true, TYPALIGN_DOUBLE));
	values[4] = PointerGetDatum(construct_md_array(columns[4], heat_nulls, 1, dims, lbs, FLOAT8OID,
												   sizeof(float8), true, TYPALIGN_DOUBLE));
	values[5] = PointerGetDatum(construct_array(columns[5], rows, TIMESTAMPTZOID, sizeof(TimestampTz), true, TYPALIGN_DOUBLE));
	lc_behavior_execute(program, LC_PLAN_WRITE,
						program->plans[LC_PLAN_WRITE] ? NULL :
						psprintf("INSERT INTO %s AS b (lead, half_life, points, at, heat, since)"
								 " SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
								 " pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) AS u"
								 " ON CONFLICT (lead, half_life) DO UPDATE SET points = EXCLUDED.points, at = EXCLUDED.at,"
								 " heat = EXCLUDED.heat, since = EXCLUDED.since",
								 table_name(program)),
						program->owner, 6, types, values);
}

/*
 * Hold the rows here of leads that are not in the lead table, in the order of
 * the key: there is nothing else to hold.  SPI is connected.
 */
void
lc_behavior_hold(LcProgram *program, Datum *leads, int n)
{
	Oid			type = array_type(program);
	Datum		value = PointerGetDatum(lc_behavior_array(program, leads, n));

	lc_behavior_execute(program, LC_PLAN_BEGIN,
						program->plans[LC_PLAN_BEGIN] ? NULL :
						psprintf("INSERT INTO %s (lead, half_life, points, at)"
								 " SELECT u.u, '0', 0, pg_catalog.now() FROM pg_catalog.unnest($1) AS u"
								 " ON CONFLICT (lead, half_life) DO NOTHING", table_name(program)),
						program->owner, 1, &type, &value);
	lc_behavior_execute(program, LC_PLAN_HOLD,
						program->plans[LC_PLAN_HOLD] ? NULL :
						psprintf("SELECT FROM %s b WHERE %s AND b.half_life OPERATOR(pg_catalog.=) '0'::pg_catalog.interval"
								 " ORDER BY b.lead FOR NO KEY UPDATE",
								 table_name(program), lc_behavior_is_lead(program, "b.lead")),
						program->owner, 1, &type, &value);
	SPI_freetuptable(SPI_tuptable);
}

/*
 * A lead that had points begins anew.  Only signals dated after that still
 * count; there are such where a replay dates the restart back.  Its row is held.
 */
void
lc_behavior_restart(LcProgram *program, Datum lead, TimestampTz at)
{
	LcBehavior *behavior;
	bool		dated_after = false;

	SPI_connect();
	behavior = lc_behavior_read(program, &lead, 1);
	if (behavior->known)
	{
		behavior->since = Max(behavior->since, at);
		for (int i = 0; i < behavior->n; i++)
		{
			if (behavior->sums[i].at > at && behavior->sums[i].points != 0)
				dated_after = true;
			behavior->sums[i].points = 0;
			behavior->sums[i].at = at;
		}
		if (dated_after)
			lc_signal_restate(program, lead, behavior);
		lc_behavior_write(program, &lead, &behavior, 1);
	}
	SPI_finish();
}
