/*-------------------------------------------------------------------------
 *
 * effect.c
 *	  Signals put into effect: the points of leads, and their moves.
 *
 * What a statement did is applied lead by lead in the order of the key, so that
 * statements which meet do not deadlock:
 *
 * 1. The leads' rows are locked, before anything is written.  That is the only
 *    lock; of leads that are not there the row of points is held instead
 *    (arrival.c).
 * 2. The points are read, with a snapshot that is younger than the lock, and
 *    written.  Points that only come are added; where one went or changed, the
 *    sum is made anew of the rows that are there, so that it is always what
 *    they give.
 * 3. Leads that crossed something, or were asked for, move: by an UPDATE of
 *    their row, whose triggers write the history.
 *
 *-------------------------------------------------------------------------
 */
#include "effect.h"

#include "access/table.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

/* How many leads are locked and written at a time. */
#define LEADS_AT_A_TIME 1000

/* A lead that the statement was about. */
typedef struct Affected
{
	Datum		key;
	Size		first;			/* entries */
	Size		n;
	bool		is_there;
	LcLead		lead;
	TimestampTz moment;
	float8		before;
	float8		after;
	bool		changed;
	const LcRule *winner;
} Affected;

static int
compare_entries(const void *a, const void *b, void *order)
{
	return lc_key_compare(&((const LcEntry *) a)->lead, &((const LcEntry *) b)->lead, order);
}

/*
 * Bring the points of the lead up to date, in memory.  Where it is done again,
 * the score from before is known.
 */
static void
apply_points(LcSignalFrame *frame, LcProgram *program, Affected *a, LcBehavior *behavior, bool again)
{
	bool		anew = false;

	/* where it began anew while it had no points, only its history has that */
	if (a->is_there ? !behavior->known && (a->lead.seq_isnull || a->lead.seq > 1) :
		behavior->since == DT_NOBEGIN)
	{
		behavior->since = lc_history_restart(program, a->key, DT_NOEND);
		if (behavior->known && behavior->since != DT_NOBEGIN)
			a->changed = true;
	}
	if (!again)
		a->before = lc_behavior_at(behavior, a->moment);
	for (Size i = a->first; i < a->first + a->n; i++)
	{
		if (frame->entries[i].effect == POINTS_CHANGED ||
			(frame->anew && frame->entries[i].effect == POINTS_CAME))
			anew = true;
	}
	if (anew)
	{
		lc_signal_note_recomputation(frame);
		lc_signal_recompute(program, a->key, DT_NOEND, behavior, NULL);
		a->changed = true;
	}
	else
	{
		for (Size i = a->first; i < a->first + a->n; i++)
		{
			const LcEntry *e = &frame->entries[i];

			if (e->effect == POINTS_CAME && e->at > behavior->since)
			{
				lc_behavior_add(behavior, e->half_life, e->points, e->at);
				a->changed = true;
			}
		}
	}
	a->after = lc_behavior_at(behavior, a->moment);
}

/* Let the rule win where it may move the lead and comes before the winner. */
static void
consider(LcProgram *program, Affected *a, const LcBehavior *behavior, const LcEntry *e)
{
	const LcRule *rule = e->rule;

	if (rule->stage < 0 || (rule->only_from >> a->lead.stage & 1) == 0 ||
		!lc_model_move_is_legal(program->model, a->lead.stage, rule->stage) ||
		(a->winner != NULL && lc_rules_compare(program->model, a->winner, rule) <= 0))
		return;
	if (e->effect == ASKS && !lc_signal_may_ask(rule, e->at, behavior->since, a->moment))
		return;
	if (rule->unless_other != NULL &&
		!lc_signal_fires_unless_other(program, e->signal, rule, a->key, behavior->since, a->moment))
		return;
	a->winner = rule;
}

/*
 * Which rule moves the lead, if any.
 */
static void
find_winner(LcSignalFrame *frame, LcProgram *program, Affected *a, const LcBehavior *behavior,
			TupleTableSlot *row)
{
	a->winner = lc_rules_crossed(program, row, &a->lead, a->before, a->after, a->moment);
	for (Size i = a->first; i < a->first + a->n; i++)
	{
		const LcEntry *e = &frame->entries[i];

		if (e->effect == ASKS || e->effect == LOOK_AGAIN)
			consider(program, a, behavior, e);
	}
}

/*
 * Let the rule move the lead, by an UPDATE of its row.  SPI is connected.
 */
void
lc_effect_move(LcProgram *program, Datum lead, const LcRule *rule)
{
	Oid			types[2];
	Datum		values[2];
	uint64		n;

	types[0] = get_array_type(program->key_type);
	values[0] = PointerGetDatum(lc_key_array(program, &lead, 1));
	types[1] = program->status_type;
	values[1] = lc_program_status(program, rule->stage);
	lc_history_announce(program, LC_SIGNAL, rule->name);
	n = lc_plan_execute(program, LC_PLAN_MOVE,
							program->plans[LC_PLAN_MOVE] ? NULL :
							psprintf("UPDATE %s SET %s = $2 WHERE %s", program->name,
									 quote_identifier(get_attname(program->root, program->status, false)),
									 lc_key_condition(program, quote_identifier(get_attname(program->root, program->key, false)), "ANY ($1)")),
							program->owner, 2, types, values);
	/* should our trigger not have fired, no later statement may take it up */
	if (n == 0)
		lc_history_announce(program, LC_WRITE, NULL);
}

/* The leads of a statement that are to be locked. */
typedef struct Locking
{
	LcProgram  *program;
	Datum	   *keys;
	int			n;
	HeapTuple  *rows;			/* of those that are there, as they are now */
	Datum	   *unknown;		/* keys that no lead has */
	int			nunknown;
	TransactionId coming;		/* who is about to bring one */
} Locking;

/* Lock the leads that are there; find out which are not. */
static void
find_leads(Locking *l)
{
	l->nunknown = 0;
	l->rows = lc_lock_leads(l->program, l->keys, l->n);
	for (int i = 0; i < l->n; i++)
	{
		if (l->rows[i] == NULL)
			l->unknown[l->nunknown++] = l->keys[i];
	}
}

static bool
hold_unknown(void *arg)
{
	Locking    *l = arg;

	return lc_arrival_hold(l->program, l->unknown, l->nunknown, &l->coming);
}

static bool
lock_batch(void *arg)
{
	Locking    *l = arg;

	find_leads(l);
	return l->nunknown == 0 || hold_unknown(l);
}

/*
 * Lock the leads, and the points of those that are not there.
 */
static void
lock_affected(Locking *l)
{
	for (;;)
	{
		bool		done;

		l->coming = InvalidTransactionId;
		if (l->n > 1)
			done = lc_arrival_attempt(lock_batch, l);
		else
		{
			find_leads(l);
			done = l->nunknown == 0 || lc_arrival_attempt(hold_unknown, l);
		}
		if (done)
			return;
		if (TransactionIdIsValid(l->coming))
			XactLockTableWait(l->coming, NULL, NULL, XLTW_None);
	}
}

/*
 * Read the points of the leads, which are locked, judge what becomes of them, and
 * write them.  False where somebody else wrote points meanwhile (see
 * lc_behavior_write()).
 */
static bool
settle(LcSignalFrame *frame, Affected *affected, Locking *locking, TupleTableSlot *slot, bool again)
{
	LcProgram  *program = locking->program;
	int			n = locking->n;
	LcBehavior *behaviors = lc_behavior_read(program, locking->keys, n);
	Datum	   *changed_keys = palloc(n * sizeof(Datum));
	LcBehavior **changed = palloc(n * sizeof(LcBehavior *));
	int			nchanged = 0;

	for (int i = 0; i < n; i++)
	{
		Affected   *a = &affected[i];
		bool		is_set;

		a->is_there = locking->rows[i] != NULL;
		if (a->is_there)
		{
			ExecStoreHeapTuple(locking->rows[i], slot, false);
			lc_lead_read(program, slot, &a->lead);
		}
		a->moment = lc_moment(program, &is_set);
		if (a->is_there && !a->lead.since_isnull)
			a->moment = Max(a->moment, a->lead.since);
		apply_points(frame, program, a, &behaviors[i], again);
		if (a->is_there && a->lead.stage >= 0)
			find_winner(frame, program, a, &behaviors[i], slot);
		if (a->changed)
		{
			changed_keys[nchanged] = a->key;
			changed[nchanged++] = &behaviors[i];
		}
	}
	return lc_behavior_write(program, changed_keys, changed, nchanged);
}

/*
 * Put into effect what the statement did to the leads, whose entries are in the
 * order of the key.
 */
static void
apply(LcSignalFrame *frame, Affected *affected, int n)
{
	LcProgram  *program = frame->leads;
	Relation	rel = table_open(program->root, AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	Locking		locking = {0};
	bool		again = false;

	locking.program = program;
	locking.keys = palloc(n * sizeof(Datum));
	for (int i = 0; i < n; i++)
		locking.keys[i] = affected[i].key;
	locking.n = n;
	locking.unknown = palloc(n * sizeof(Datum));
	lock_affected(&locking);

	while (!settle(frame, affected, &locking, slot, again))
	{
		/* made anew of the rows that are there, his and ours, as often as it takes */
		frame->anew = true;
		again = true;
	}
	for (int i = 0; i < n; i++)
	{
		if (affected[i].winner != NULL)
			lc_effect_move(program, affected[i].key, affected[i].winner);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/*
 * Put into effect what a statement did.
 */
void
lc_effect_apply(LcSignalFrame *frame)
{
	LcKeyOrder	order = lc_key_order(frame->leads);
	Size		i = 0;

	qsort_arg(frame->entries, frame->nentries, sizeof(LcEntry), compare_entries, &order);
	while (i < frame->nentries)
	{
		Affected   *affected;
		int			n = 0;

		SPI_connect();
		affected = palloc0(LEADS_AT_A_TIME * sizeof(Affected));
		while (i < frame->nentries && n < LEADS_AT_A_TIME)
		{
			Affected   *a = &affected[n++];

			a->key = frame->entries[i].lead;
			a->first = i;
			while (i < frame->nentries &&
				   compare_entries(&frame->entries[a->first], &frame->entries[i], &order) == 0)
				i++;
			a->n = i - a->first;
		}
		apply(frame, affected, n);
		SPI_finish();
	}
}
