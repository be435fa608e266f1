/*-------------------------------------------------------------------------
 *
 * standing.c
 *	  What the rows of signal tables come to by today's rules, whatever was put
 *	  into effect when they were written: points made anew, and the rules that
 *	  still ask for a status.  For rescore() and verify().
 *
 * Points are compared before anything is locked, and only leads whose points
 * differ are locked, in the order of the key, and compared again.  As everywhere
 * the rows are read as the owner of their table, on what is committed now.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(lifecycle_stale_behavior);
PG_FUNCTION_INFO_V1(lifecycle_rescore_behavior);
PG_FUNCTION_INFO_V1(lifecycle_judge_signals);
PG_FUNCTION_INFO_V1(lifecycle_behavior_score_from_signals);

/* How far sums may be apart, relative to what they are sums of. */
#define TOLERANCE 1e-9

/* ---- points made anew ---- */

/* A lead's points as they are stored, and as its rows give them. */
typedef struct Comparison
{
	LcBehavior *stored;
	LcBehavior	today;
	TimestampTz restart;		/* as the history says */
	bool		differs;		/* in points */
	bool		lacks_restart;
} Comparison;

static float8
worth_at(const LcScore *sum, TimestampTz at)
{
	return lc_decay(sum->points, (float8) (at - sum->at), sum->half_life);
}

/* The sum of that half-life, or NULL. */
static const LcScore *
sum_of(const LcBehavior *behavior, float8 half_life)
{
	for (int i = 0; i < behavior->n; i++)
	{
		if (behavior->sums[i].half_life == half_life)
			return &behavior->sums[i];
	}
	return NULL;
}

/*
 * Compare what is stored of the lead with what its rows give.  SPI is connected;
 * the result is in the memory that is current.
 */
static void
compare_lead(LcProgram *program, Datum lead, LcBehavior *stored, Comparison *c)
{
	LcBehavior	magnitude = {0};

	memset(c, 0, sizeof(Comparison));
	c->stored = stored;
	c->restart = lc_history_restart(program, lead, DT_NOEND);
	c->lacks_restart = stored->known && stored->since < c->restart;
	c->today.since = Max(stored->since, c->restart);
	c->today.known = stored->known;
	/* half-lives that have no points left stay */
	for (int i = 0; i < stored->n; i++)
		lc_behavior_add(&c->today, stored->sums[i].half_life, 0, stored->sums[i].at);
	lc_signal_recompute(program, lead, DT_NOEND, &c->today, &magnitude);
	for (int i = 0; i < c->today.n; i++)
	{
		const LcScore *today = &c->today.sums[i];
		const LcScore *was = sum_of(stored, today->half_life);
		const LcScore *size = sum_of(&magnitude, today->half_life);
		TimestampTz at = was == NULL ? today->at : Max(today->at, was->at);
		float8		before = was == NULL ? 0 : worth_at(was, at);
		float8		now = worth_at(today, at);

		if (!(fabs(before - now) <= TOLERANCE * (size == NULL ? fabs(now) : worth_at(size, at))))
			c->differs = true;
	}
}

/* The keys that an array of texts names, in the order of the key, each once. */
static Datum *
keys_of(LcProgram *program, ArrayType *array, int *n)
{
	LcKeyOrder	order = lc_key_order(program);
	Datum	   *texts;
	Datum	   *keys;
	bool	   *nulls;
	int			ntexts;
	int			nkeys = 0;
	Oid			in;
	Oid			ioparam;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &ntexts);
	getTypeInputInfo(program->key_type, &in, &ioparam);
	keys = palloc(Max(ntexts, 1) * sizeof(Datum));
	for (int i = 0; i < ntexts; i++)
	{
		if (!nulls[i])
			keys[nkeys++] = OidInputFunctionCall(in, TextDatumGetCString(texts[i]), ioparam, -1);
	}
	qsort_arg(keys, nkeys, sizeof(Datum), lc_key_compare, &order);
	*n = 0;
	for (int i = 0; i < nkeys; i++)
	{
		if (*n == 0 || lc_key_compare(&keys[*n - 1], &keys[i], &order) != 0)
			keys[(*n)++] = keys[i];
	}
	return keys;
}

/*
 * The program of the table that is the first argument, pinned; NULL where it has
 * no signals.
 */
static LcProgram *
program_with_signals(Oid relid)
{
	LcProgram  *program = lc_program_pin_tracked(relid);

	if (OidIsValid(program->behavior))
		return program;
	lc_program_unpin(program);
	return NULL;
}

/* Refuse who may not read the points. */
static void
require_readable(LcProgram *program)
{
	if (pg_class_aclcheck(program->behavior, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(program->behavior));
}

/* A lead that was looked at needs no memory any more. */
static MemoryContext
lead_context(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "lifecycle points of a lead", ALLOCSET_SMALL_SIZES);
}

/*
 * stale_behavior(lead_table, keys): the half-lives of which the leads of these
 * keys have other points stored than their rows give, and those that lack a
 * restart.  Locks nothing, writes nothing.
 */
Datum
lifecycle_stale_behavior(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	LcProgram  *program;
	LcBehavior *stored;
	Datum	   *keys;
	int			n;
	MemoryContext cxt;

	InitMaterializedSRF(fcinfo, 0);
	program = program_with_signals(PG_GETARG_OID(0));
	if (program == NULL)
		return (Datum) 0;
	require_readable(program);
	SPI_connect();
	keys = keys_of(program, PG_GETARG_ARRAYTYPE_P(1), &n);
	stored = n > 0 ? lc_behavior_read(program, keys, n) : NULL;
	cxt = lead_context();
	for (int i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		Comparison	c;

		CHECK_FOR_INTERRUPTS();
		compare_lead(program, keys[i], &stored[i], &c);
		if (c.differs || c.lacks_restart)
		{
			Datum		values[4];
			bool		nulls[4] = {false, false, false, false};

			values[0] = CStringGetTextDatum(lc_program_key_text(program, keys[i], false));
			values[1] = Float8GetDatum(lc_behavior_at(c.stored, now));
			values[2] = Float8GetDatum(lc_behavior_at(&c.today, now));
			values[3] = TimestampTzGetDatum(c.restart);
			nulls[3] = !c.lacks_restart;
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	SPI_finish();
	lc_program_unpin(program);
	return (Datum) 0;
}

/*
 * rescore_behavior(lead_table, keys): stores what the rows of the leads of these
 * keys give, where that is something else than what is stored.  Keys that no
 * lead has get a row of points where they have signals, so that the lead finds
 * them when it comes.  Gives the number of leads written.
 */
Datum
lifecycle_rescore_behavior(PG_FUNCTION_ARGS)
{
	LcProgram  *program;
	LcBehavior *stored;
	LcBehavior **changed;
	Datum	   *keys;
	Datum	   *stale;
	Datum	   *unknown;
	HeapTuple  *leads;
	int			n;
	int			nstale = 0;
	int			nunknown = 0;
	int			nchanged = 0;
	MemoryContext cxt;

	lc_require_owner(PG_GETARG_OID(0));
	program = program_with_signals(PG_GETARG_OID(0));
	if (program == NULL)
		PG_RETURN_INT64(0);
	SPI_connect();
	keys = keys_of(program, PG_GETARG_ARRAYTYPE_P(1), &n);
	stale = palloc(Max(n, 1) * sizeof(Datum));
	stored = n > 0 ? lc_behavior_read(program, keys, n) : NULL;
	cxt = lead_context();
	for (int i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		Comparison	c;

		CHECK_FOR_INTERRUPTS();
		compare_lead(program, keys[i], &stored[i], &c);
		if (c.differs || c.lacks_restart || (PG_GETARG_BOOL(2) && !c.stored->known))
			stale[nstale++] = keys[i];
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	MemoryContextDelete(cxt);
	if (nstale > 0)
	{
		leads = lc_lock_leads(program, stale, nstale);
		unknown = palloc(nstale * sizeof(Datum));
		for (int i = 0; i < nstale; i++)
		{
			if (leads[i] == NULL)
				unknown[nunknown++] = stale[i];
		}
		if (nunknown > 0)
			lc_behavior_hold(program, unknown, nunknown);
		/* others may have written before the locks were had */
		stored = lc_behavior_read(program, stale, nstale);
		changed = palloc(nstale * sizeof(LcBehavior *));
		for (int i = 0; i < nstale; i++)
		{
			Comparison	c;

			compare_lead(program, stale[i], &stored[i], &c);
			if (c.differs || c.lacks_restart)
			{
				stale[nchanged] = stale[i];
				changed[nchanged] = palloc(sizeof(LcBehavior));
				*changed[nchanged++] = c.today;
			}
		}
		lc_behavior_write(program, stale, changed, nchanged);
	}
	SPI_finish();
	lc_program_unpin(program);
	PG_RETURN_INT64(nchanged);
}

/* ---- signals that ask for a status still ---- */

typedef struct Standing
{
	LcProgram  *program;
	Datum		lead;
	int			from;
	TimestampTz since;
	TimestampTz moment;
	LcRule	   *winner;
} Standing;

static void
consider_standing(LcProgram *signal, TupleTableSlot *slot, const LcSignalRow *row, void *arg)
{
	Standing   *s = arg;

	for (int i = 0; i < signal->rules->nstatus; i++)
	{
		const LcRule *rule = signal->rules->status[i];

		if (row->facts.holds == NULL || !row->facts.holds[i] ||
			(s->from < 0 ? rule->has_only_from :
			 (rule->only_from >> s->from & 1) == 0 ||
			 !lc_model_move_is_legal(s->program->model, s->from, rule->stage)) ||
			!lc_signal_may_ask(rule, row->at, s->since, s->moment) ||
			(s->winner != NULL && lc_rules_compare(s->program->model, s->winner, rule) <= 0))
			continue;
		if (rule->unless_other != NULL &&
			!lc_signal_fires_unless_other(s->program, signal, rule, s->lead, s->since, s->moment))
			continue;
		if (s->winner == NULL)
			s->winner = palloc(sizeof(LcRule));
		*s->winner = *rule;
		s->winner->name = pstrdup(rule->name);
	}
}

/*
 * The rule of a signal table that holds for some row of the lead, which is at
 * the given stage, and may move it; or, of a lead that enters, says on which
 * status; or NULL.  In the memory that is current; of
 * what the rule refers to only the name may be used.
 */
const LcRule *
lc_signal_standing(LcProgram *program, Datum lead, int from, TimestampTz moment)
{
	MemoryContext cxt = CurrentMemoryContext;
	Standing	s = {0};
	LcRule	   *winner = NULL;
	LcBehavior *behavior;

	if (program->nsignals == 0)
		return NULL;
	SPI_connect();
	behavior = lc_behavior_read(program, &lead, 1);
	s.program = program;
	s.lead = lead;
	s.from = from;
	s.since = Max(behavior->since, lc_history_restart(program, lead, DT_NOEND));
	s.moment = moment;
	for (int i = 0; i < program->nsignals; i++)
	{
		LcProgram  *signal = lc_signal_pin(program->signals[i]);

		if (signal == NULL)
			continue;
		if (signal->rules->nstatus > 0)
			lc_signal_walk(program, program->signals[i], lead, consider_standing, &s);
		lc_program_unpin(signal);
	}
	if (s.winner != NULL)
	{
		winner = MemoryContextAlloc(cxt, sizeof(LcRule));
		*winner = *s.winner;
		winner->name = MemoryContextStrdup(cxt, s.winner->name);
	}
	SPI_finish();
	return winner;
}

/*
 * The rule that rescore() moves the lead by: of those of its row and those of
 * its signals the one that comes first; or NULL.
 */
const LcRule *
lc_standing(LcProgram *program, TupleTableSlot *row, Datum lead, float8 score, int from,
			TimestampTz moment)
{
	const LcRule *own = lc_rules_standing(program, row, score, lc_behavior_of(program, lead, moment),
										  from, moment);
	const LcRule *signal = from < 0 ? NULL : lc_signal_standing(program, lead, from, moment);

	if (own == NULL || (signal != NULL && lc_rules_compare(program->model, signal, own) < 0))
		return signal;
	return own;
}

/* ---- what each rule of a signal table makes of a lead's rows ---- */

/* What the rows of a lead come to by one rule. */
typedef struct Tally
{
	int64		rows;
	float8		points;
	TimestampTz last;
	bool		asks;
} Tally;

typedef struct Tallies
{
	TimestampTz since;
	TimestampTz now;
	Tally	   *points;			/* of each rule with points */
	Tally	   *status;
} Tallies;

static void
add_to_tally(Tally *tally, TimestampTz at)
{
	tally->last = tally->rows == 0 ? at : Max(tally->last, at);
	tally->rows++;
}

static void
tally_row(LcProgram *signal, TupleTableSlot *slot, const LcSignalRow *row, void *arg)
{
	Tallies    *t = arg;

	for (int i = 0; row->facts.points != NULL && i < signal->rules->npoints; i++)
	{
		if (row->facts.points[i] == 0)
			continue;
		add_to_tally(&t->points[i], row->at);
		if (row->at > t->since)
			t->points[i].points += lc_decay(row->facts.points[i], (float8) (t->now - row->at),
											lc_half_life(signal->rules->points[i]->half_life));
	}
	for (int i = 0; row->facts.holds != NULL && i < signal->rules->nstatus; i++)
	{
		if (!row->facts.holds[i])
			continue;
		add_to_tally(&t->status[i], row->at);
		if (lc_signal_may_ask(signal->rules->status[i], row->at, t->since, t->now))
			t->status[i].asks = true;
	}
}

static void
give_tally(ReturnSetInfo *rsinfo, LcProgram *signal, const LcRule *rule, const Tally *tally)
{
	Datum		values[6];
	bool		nulls[6] = {false, false, false, false, false, false};

	values[0] = ObjectIdGetDatum(signal->root);
	values[1] = CStringGetTextDatum(rule->name);
	values[2] = Int64GetDatum(tally->rows);
	values[3] = Float8GetDatum(tally->points);
	nulls[3] = rule->points == NULL;
	values[4] = TimestampTzGetDatum(tally->last);
	nulls[4] = tally->rows == 0;
	values[5] = BoolGetDatum(tally->asks);
	nulls[5] = rule->points != NULL;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * judge_signals(lead_table, signal_table, lead): what the lead's rows in one
 * signal table come to, by each of its enabled rules.
 */
Datum
lifecycle_judge_signals(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LcProgram  *program;
	LcProgram  *signal;
	LcBehavior *behavior;
	Tallies		t;
	Datum		lead;

	InitMaterializedSRF(fcinfo, 0);
	program = program_with_signals(PG_GETARG_OID(0));
	if (program == NULL)
		return (Datum) 0;
	require_readable(program);
	signal = lc_signal_pin(PG_GETARG_OID(1));
	if (signal == NULL || signal->lead_table != program->root)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table with OID %u has no signals of these leads", PG_GETARG_OID(1))));
	lead = lc_operation_key(fcinfo, 2, program);
	SPI_connect();
	behavior = lc_behavior_read(program, &lead, 1);
	t.since = Max(behavior->since, lc_history_restart(program, lead, DT_NOEND));
	t.now = GetCurrentTransactionStartTimestamp();
	t.points = palloc0((signal->rules->npoints + 1) * sizeof(Tally));
	t.status = palloc0((signal->rules->nstatus + 1) * sizeof(Tally));
	lc_signal_walk(program, signal->root, lead, tally_row, &t);
	for (int i = 0; i < signal->rules->npoints; i++)
		give_tally(rsinfo, signal, signal->rules->points[i], &t.points[i]);
	for (int i = 0; i < signal->rules->nstatus; i++)
		give_tally(rsinfo, signal, signal->rules->status[i], &t.status[i]);
	SPI_finish();
	lc_program_unpin(signal);
	lc_program_unpin(program);
	return (Datum) 0;
}

/*
 * behavior_score_from_signals(lead_table, lead, at): the score that the rows
 * that are there give for an instant.
 */
Datum
lifecycle_behavior_score_from_signals(PG_FUNCTION_ARGS)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(2);
	LcProgram  *program = lc_program_pin_tracked(PG_GETARG_OID(0));
	Datum		lead;
	LcBehavior *behavior;
	float8		score;

	if (OidIsValid(program->behavior))
		require_readable(program);
	lead = lc_operation_key(fcinfo, 1, program);
	SPI_connect();
	behavior = palloc0(sizeof(LcBehavior));
	behavior->since = lc_history_restart(program, lead, at);
	lc_signal_recompute(program, lead, at, behavior, NULL);
	score = lc_behavior_at(behavior, at);
	SPI_finish();
	lc_program_unpin(program);
	PG_RETURN_FLOAT8(score);
}
