/*-------------------------------------------------------------------------
 *
 * walk.c
 *	  The rows that signal tables have of a lead: what they add up to, and
 *	  whether one of them keeps a rule from firing for another.
 *
 * They are read as the owner of their table, on what is committed now, by the
 * index on the lead's column.
 *
 *-------------------------------------------------------------------------
 */
#include "effect.h"

#include <math.h>

#include "access/table.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/*
 * Hand each row that the signal table has of the lead to the callback, as of
 * now.  Read as the signal table's owner.  Others may have brought some since
 * this transaction began: they are not dated in the future, and keep their time.
 */
void
lc_signal_walk(LcProgram *program, Oid signal_table, Datum lead, LcSignalCallback callback, void *arg)
{
	Relation	rel = table_open(signal_table, AccessShareLock);
	LcProgram  *signal = lc_signal_pin(signal_table);
	TupleTableSlot *slot;
	char	   *sql = NULL;
	Oid			type = get_array_type(program->key_type);
	Datum		value = PointerGetDatum(lc_key_array(program, &lead, 1));
	SPITupleTable *rows;
	TimestampTz arrived;
	uint64		n;

	if (signal == NULL)
	{
		table_close(rel, AccessShareLock);
		return;
	}
	if (signal->plans[LC_PLAN_SIGNALS] == NULL)
	{
		char	   *alias = lc_row_alias(signal_table);

		sql = psprintf("SELECT %s FROM %s %s WHERE %s", alias, signal->name, alias,
					   lc_key_condition(program, psprintf("%s.%s", alias, signal->lead->source), "ANY ($1)"));
	}
	n = lc_plan_execute(signal, LC_PLAN_SIGNALS, sql, signal->owner, 1, &type, &value);
	rows = SPI_tuptable;
	arrived = GetCurrentTimestamp();
	slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	for (uint64 i = 0; i < n; i++)
	{
		HeapTupleData tuple;
		bool		isnull;
		LcSignalRow row;

		CHECK_FOR_INTERRUPTS();
		lc_row_store(slot, &tuple, signal_table,
					 DatumGetHeapTupleHeader(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull)));
		lc_signal_read(signal, slot, false, arrived, &row);
		if (!row.lead_isnull)
			callback(signal, slot, &row, arg);
		ExecClearTuple(slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	SPI_freetuptable(rows);
	lc_program_unpin(signal);
	table_close(rel, AccessShareLock);
}

typedef struct Recomputation
{
	TimestampTz until;
	LcBehavior *behavior;
	LcBehavior *magnitude;		/* the same of the points without their sign, or NULL */
} Recomputation;

static void
recompute_row(LcProgram *signal, TupleTableSlot *slot, const LcSignalRow *row, void *arg)
{
	Recomputation *r = arg;

	if (!row->facts.has_points || row->at <= r->behavior->since || row->at > r->until)
		return;
	for (int i = 0; i < signal->rules->npoints; i++)
	{
		float8		half_life = lc_half_life(signal->rules->points[i]->half_life);

		if (row->facts.points[i] == 0)
			continue;
		lc_behavior_add(r->behavior, half_life, row->facts.points[i], row->at);
		if (r->magnitude != NULL)
			lc_behavior_add(r->magnitude, half_life, fabs(row->facts.points[i]), row->at);
	}
}

/*
 * Make the sums of the lead anew, of all its rows up to that time.  Half-lives
 * that have none left stay, with no points.  Into "magnitude", if it is given,
 * go the same sums without signs: by them it is told what is rounding.  SPI is
 * connected.
 */
void
lc_signal_recompute(LcProgram *program, Datum lead, TimestampTz until, LcBehavior *behavior,
					LcBehavior *magnitude)
{
	Recomputation r;

	for (int i = 0; i < behavior->n; i++)
		behavior->sums[i].points = 0;
	r.until = until;
	r.behavior = behavior;
	r.magnitude = magnitude;
	for (int i = 0; i < program->nsignals; i++)
		lc_signal_walk(program, program->signals[i], lead, recompute_row, &r);
}

/*
 * The same to be stored, not by a statement on signals.
 */
void
lc_signal_restate(LcProgram *program, Datum lead, LcBehavior *behavior)
{
	lc_signal_note_recomputation(NULL);
	lc_signal_recompute(program, lead, DT_NOEND, behavior, NULL);
}

/* Whether the signal is young enough, and after the restart, to ask for a status. */
bool
lc_signal_may_ask(const LcRule *rule, TimestampTz at, TimestampTz since, TimestampTz moment)
{
	if (at <= since)
		return false;
	return rule->max_age == NULL ||
		at >= DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(moment),
													  IntervalPGetDatum(rule->max_age)));
}

/* Whether a rule with unless_other fires for a lead, all its rows considered. */
typedef struct Rivals
{
	const char *rule;
	TimestampTz since;
	TimestampTz moment;
	int			fulfilled;		/* rows that keep others from firing */
	int			asking;			/* rows that ask */
	int			asking_fulfilled;	/* both */
} Rivals;

static const LcRule *
rule_named(LcProgram *signal, const char *name, int *index)
{
	for (int i = 0; i < signal->rules->nstatus; i++)
	{
		if (strcmp(signal->rules->status[i]->name, name) == 0)
		{
			*index = i;
			return signal->rules->status[i];
		}
	}
	return NULL;
}

static void
count_rival(LcProgram *signal, TupleTableSlot *slot, const LcSignalRow *row, void *arg)
{
	Rivals	   *r = arg;
	int			i;
	const LcRule *rule = rule_named(signal, r->rule, &i);
	bool		fulfils;
	bool		asks;

	if (rule == NULL || row->facts.holds == NULL)
		return;
	fulfils = rule->unless_other != NULL && lc_rules_unless(signal, rule, slot, r->moment);
	asks = row->facts.holds[i] && lc_signal_may_ask(rule, row->at, r->since, r->moment);
	r->fulfilled += fulfils;
	r->asking += asks;
	r->asking_fulfilled += fulfils && asks;
}

/*
 * Whether the rule fires for the lead, all its rows in the table considered: one
 * asks, and no other keeps it from firing.
 */
bool
lc_signal_fires_unless_other(LcProgram *program, LcProgram *signal, const LcRule *rule, Datum lead,
							 TimestampTz since, TimestampTz moment)
{
	Rivals		r = {0};

	r.rule = rule->name;
	r.since = since;
	r.moment = moment;
	lc_signal_walk(program, signal->root, lead, count_rival, &r);
	if (r.fulfilled == 0)
		return r.asking > 0;
	/* a row does not keep itself from firing */
	return r.fulfilled == 1 && r.asking_fulfilled == 1;
}
