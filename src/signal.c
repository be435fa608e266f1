/*-------------------------------------------------------------------------
 *
 * signal.c
 *	  What rows of other tables mean for leads: points, and statuses that they
 *	  ask for.
 *
 * AFTER ROW takes down what a row that was stored, changed or taken away comes
 * to, by the rules of its table.  AFTER STATEMENT puts it into effect, lead by
 * lead in the order of the key, so that statements which meet do not deadlock:
 *
 * 1. The leads' rows are locked, before anything is written.  That is the only
 *    lock; of leads that are not there the row of points is held instead.
 * 2. The points are read, with a snapshot that is younger than the lock, and
 *    written.  Points that only come are added; where one went or changed, the
 *    sum is made anew of the rows that are there, so that it is always what
 *    they give.
 * 3. Leads that crossed something, or were asked for, move: by an UPDATE of
 *    their row, whose triggers write the history.
 *
 * Writes without a statement trigger around them, straight into a partition that
 * lacks it, are put into effect row by row.
 *
 * What is taken down belongs to the subtransaction of the statement.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(lifecycle_signal_statement);
PG_FUNCTION_INFO_V1(lifecycle_signal_after_row);
PG_FUNCTION_INFO_V1(lifecycle_signal_truncate);
PG_FUNCTION_INFO_V1(lifecycle_behavior_score_from_signals);

/* How many leads are locked and written at a time. */
#define LEADS_AT_A_TIME 1000

/* What a row did to a lead. */
typedef enum Effect
{
	POINTS_CAME,				/* rule gives points */
	POINTS_CHANGED,				/* the sum is to be made anew */
	ASKS,						/* rule asks for a status */
	LOOK_AGAIN					/* a row that kept rules from firing may be gone */
} Effect;

typedef struct Entry
{
	Datum		lead;
	Effect		effect;
	LcProgram  *signal;			/* pinned */
	const LcRule *rule;
	float8		half_life;
	float8		points;
	TimestampTz at;
} Entry;

/* A row, as its table's rules see it. */
typedef struct SignalRow
{
	Datum		lead;
	bool		lead_isnull;
	TimestampTz at;
	LcSignalFacts facts;		/* nothing in it where the time is -infinity */
	bool	   *keeps;			/* each rule with a status that it keeps from firing for others */
} SignalRow;

/* What one statement did. */
typedef struct Frame
{
	struct Frame *outer;
	int32		signal_id;
	SubTransactionId owner;
	MemoryContext cxt;
	LcProgram  *leads;			/* pinned */
	List	   *signals;		/* pinned */
	Entry	   *entries;
	Size		nentries;
	Size		room;
	bool		anew;			/* sums were made anew in the meantime: rows that came are in them */
	bool		is_update;
	LcSignalRow  *moved;			/* a row that an UPDATE takes out of its partition */
	LcProgram  *moved_from;		/* pinned; its table */
} Frame;

static Frame *frames = NULL;

/* Whether sums were made anew in this transaction. */
static bool recomputed = false;

/* ---- frames ---- */

static Frame *
push_frame(LcProgram *signal)
{
	MemoryContext cxt = AllocSetContextCreate(TopTransactionContext, "lifecycle signals",
											  ALLOCSET_SMALL_SIZES);
	Frame	   *frame = MemoryContextAllocZero(cxt, sizeof(Frame));

	frame->cxt = cxt;
	frame->signal_id = signal->id;
	frame->owner = GetCurrentSubTransactionId();
	frame->outer = frames;
	frames = frame;
	return frame;
}

/*
 * Sums of leads were made anew: the rows of statements that are not through yet
 * may be in them already, and must not be added once more.
 */
static void
note_recomputation(const Frame *except)
{
	recomputed = true;
	for (Frame *f = frames; f != NULL; f = f->outer)
	{
		if (f != except)
			f->anew = true;
	}
}

static void
drop_frame(Frame *frame)
{
	Frame	  **link = &frames;

	while (*link != frame)
		link = &(*link)->outer;
	*link = frame->outer;
	MemoryContextDelete(frame->cxt);
}

/* The innermost frame of the table, if it is of this subtransaction. */
static Frame *
frame_of(LcProgram *signal)
{
	Frame	   *f = frames;

	while (f != NULL && f->signal_id != signal->id)
		f = f->outer;
	return f != NULL && f->owner == GetCurrentSubTransactionId() ? f : NULL;
}

void
lc_signal_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent)
{
	Frame	   *next;

	for (Frame *f = frames; f != NULL; f = next)
	{
		next = f->outer;
		if (f->owner != mine)
			continue;
		if (commit)
			f->owner = parent;
		else
			drop_frame(f);
	}
}

void
lc_signal_end_transaction(void)
{
	frames = NULL;
	recomputed = false;
}

/* ---- taking down ---- */

/*
 * Read the row.  One that is dated in the future, or not at all, counts as of now.
 * Which rules it keeps from firing is found where it may cease to.
 */
static void
read_row(LcProgram *signal, TupleTableSlot *slot, bool judge, bool may_go, LcSignalRow *row)
{
	LcRuleSet  *rules = signal->rules;
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	bool		isnull;

	memset(row, 0, sizeof(LcSignalRow));
	row->lead = lc_expr_eval(signal->lead, slot, &row->lead_isnull);
	if (row->lead_isnull)
		return;
	row->lead = datumCopy(row->lead, signal->key_by_value, signal->key_length);
	row->at = DatumGetTimestampTz(lc_expr_eval(signal->at, slot, &isnull));
	if (isnull || row->at > now)
		row->at = now;
	if (row->at == DT_NOBEGIN || !judge)
		return;
	row->facts.points = palloc0((rules->npoints + 1) * sizeof(float8));
	row->facts.holds = palloc0((rules->nstatus + 1) * sizeof(bool));
	lc_rules_signal(signal, slot, now, &row->facts);
	if (!may_go)
		return;
	row->keeps = palloc0((rules->nstatus + 1) * sizeof(bool));
	for (int i = 0; i < rules->nstatus; i++)
	{
		if (rules->status[i]->unless_other != NULL)
			row->keeps[i] = lc_rules_unless(signal, rules->status[i], slot, now);
	}
}

static void
take_down(Frame *frame, LcProgram *signal, const LcSignalRow *row, Effect effect, const LcRule *rule,
		  float8 points)
{
	MemoryContext old = MemoryContextSwitchTo(frame->cxt);
	Entry	   *entry;

	if (frame->nentries == frame->room)
	{
		frame->room = Max(16, 2 * frame->room);
		frame->entries = frame->entries == NULL ? palloc(frame->room * sizeof(Entry)) :
			repalloc_huge(frame->entries, frame->room * sizeof(Entry));
	}
	if (frame->leads == NULL)
		frame->leads = lc_program_pin(signal->lead_table);
	/* rules that are taken down must outlive the row that they were asked for */
	if (!list_member_ptr(frame->signals, signal))
		frame->signals = lappend(frame->signals, lc_program_pin_again(signal));
	entry = &frame->entries[frame->nentries++];
	entry->lead = datumCopy(row->lead, signal->key_by_value, signal->key_length);
	entry->effect = effect;
	entry->signal = signal;
	entry->rule = rule;
	entry->half_life = rule != NULL ? lc_half_life(rule->half_life) : 0;
	entry->points = points;
	entry->at = row->at;
	MemoryContextSwitchTo(old);
}

static void
row_went(Frame *frame, LcProgram *signal, const LcSignalRow *row)
{
	if (row->lead_isnull)
		return;
	if (row->facts.has_points)
		take_down(frame, signal, row, POINTS_CHANGED, NULL, 0);
	for (int i = 0; row->keeps != NULL && i < signal->rules->nstatus; i++)
	{
		if (row->keeps[i])
			take_down(frame, signal, row, LOOK_AGAIN, signal->rules->status[i], 0);
	}
}

/* "before" is the row that it replaces, with the same lead, or NULL. */
static void
row_came(Frame *frame, LcProgram *signal, const LcSignalRow *row, const LcSignalRow *before)
{
	LcRuleSet  *rules = signal->rules;

	if (row->lead_isnull)
		return;
	if (row->facts.points == NULL)
	{
		if (before != NULL)
			row_went(frame, signal, before);
		return;
	}
	if (before != NULL && before->facts.points != NULL)
	{
		if ((row->facts.has_points || before->facts.has_points) &&
			(row->at != before->at ||
			 memcmp(row->facts.points, before->facts.points, rules->npoints * sizeof(float8)) != 0))
			take_down(frame, signal, row, POINTS_CHANGED, NULL, 0);
		for (int i = 0; i < rules->nstatus; i++)
		{
			if (before->keeps[i] && !row->keeps[i])
				take_down(frame, signal, row, LOOK_AGAIN, rules->status[i], 0);
		}
	}
	else
	{
		for (int i = 0; row->facts.has_points && i < rules->npoints; i++)
		{
			if (row->facts.points[i] != 0)
				take_down(frame, signal, row, POINTS_CAME, rules->points[i], row->facts.points[i]);
		}
	}
	for (int i = 0; i < rules->nstatus; i++)
	{
		if (row->facts.holds[i] && !(before != NULL && before->facts.holds != NULL && before->facts.holds[i]))
			take_down(frame, signal, row, ASKS, rules->status[i], 0);
	}
}

/* The one row became the other. */
static void
row_changed(Frame *frame, LcProgram *signal, const LcSignalRow *old, const LcSignalRow *new)
{
	bool		same_lead = !old->lead_isnull && !new->lead_isnull &&
		DatumGetBool(FunctionCall2Coll(&signal->key_equal, signal->key_collation, old->lead, new->lead));

	if (!same_lead)
		row_went(frame, signal, old);
	row_came(frame, signal, new, same_lead ? old : NULL);
}

/* A row that an UPDATE took out of its partition came to no other. */
static void
flush_moved(Frame *frame)
{
	LcSignalRow  *moved = frame->moved;

	frame->moved = NULL;
	if (moved != NULL)
		row_went(frame, frame->moved_from, moved);
}

/* ---- rows of a lead ---- */

/*
 * Hand each row that the signal table has of the lead to the callback, as of
 * now.  Read as the signal table's owner.
 */
void
lc_signal_walk(LcProgram *program, Oid signal_table, Datum lead, bool judge, LcSignalCallback callback,
			   void *arg)
{
	Relation	rel = table_open(signal_table, AccessShareLock);
	LcProgram  *signal = lc_signal_pin(signal_table);
	TupleTableSlot *slot;
	char	   *alias = pstrdup("s");
	Oid			type = get_array_type(program->key_type);
	Datum		value = PointerGetDatum(lc_behavior_array(program, &lead, 1));
	SPITupleTable *rows;
	uint64		n;

	if (signal == NULL)
	{
		table_close(rel, AccessShareLock);
		return;
	}
	while (get_attnum(signal_table, alias) != InvalidAttrNumber)
		alias = psprintf("%ss", alias);
	n = lc_behavior_execute(signal, LC_PLAN_SIGNALS,
							signal->plans[LC_PLAN_SIGNALS] ? NULL :
							psprintf("SELECT %s FROM %s %s WHERE %s", alias, signal->name, alias,
									 lc_behavior_is_lead(program, psprintf("%s.%s", alias, signal->lead->source))),
							signal->owner, 1, &type, &value);
	rows = SPI_tuptable;
	slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	for (uint64 i = 0; i < n; i++)
	{
		HeapTupleData tuple;
		HeapTupleHeader header;
		bool		isnull;
		LcSignalRow	row;

		CHECK_FOR_INTERRUPTS();
		header = DatumGetHeapTupleHeader(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull));
		tuple.t_len = HeapTupleHeaderGetDatumLength(header);
		ItemPointerSetInvalid(&tuple.t_self);
		tuple.t_tableOid = signal_table;
		tuple.t_data = header;
		ExecStoreHeapTuple(&tuple, slot, false);
		read_row(signal, slot, judge, false, &row);
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
		lc_signal_walk(program, program->signals[i], lead, true, recompute_row, &r);
}

/*
 * The same to be stored, not by a statement on signals.
 */
void
lc_signal_restate(LcProgram *program, Datum lead, LcBehavior *behavior)
{
	note_recomputation(NULL);
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

bool
lc_signal_fires_unless_other(LcProgram *program, LcProgram *signal, const LcRule *rule, Datum lead,
				   TimestampTz since, TimestampTz moment)
{
	Rivals		r = {0};

	r.rule = rule->name;
	r.since = since;
	r.moment = moment;
	lc_signal_walk(program, signal->root, lead, true, count_rival, &r);
	if (r.fulfilled == 0)
		return r.asking > 0;
	/* a row does not keep itself from firing */
	return r.fulfilled == 1 && r.asking_fulfilled == 1;
}

/* ---- putting into effect ---- */

/* A lead that the statement was about. */
typedef struct Affected
{
	Datum		key;
	Size		first;			/* entries */
	Size		n;
	bool		is_there;
	LcLead		lead;
	int			row;			/* of the result of locking */
	TimestampTz moment;
	float8		before;
	float8		after;
	bool		changed;
	const LcRule *winner;
} Affected;

/* The order of the key. */
typedef struct KeyOrder
{
	FmgrInfo   *compare;
	Oid			collation;
} KeyOrder;

static int
compare_entries(const void *a, const void *b, void *arg)
{
	const KeyOrder *order = arg;

	return DatumGetInt32(FunctionCall2Coll(order->compare, order->collation,
										   ((const Entry *) a)->lead, ((const Entry *) b)->lead));
}

/*
 * Lock the leads, in the order of the key.  Gives the rows, as they are now.
 */
SPITupleTable *
lc_signal_lock(LcProgram *program, Relation rel, Datum *keys, int n, uint64 *found)
{
	Oid			type = n == 1 ? program->key_type : get_array_type(program->key_type);
	Datum		value = n == 1 ? keys[0] : PointerGetDatum(lc_behavior_array(program, keys, n));
	LcPlan		plan = n == 1 ? LC_PLAN_LOCK_ONE : LC_PLAN_LOCK;
	char	   *sql = NULL;

	if (program->plans[plan] == NULL)
	{
		char	   *alias = pstrdup("l");
		const char *key = quote_identifier(get_attname(program->root, program->key, false));

		while (get_attnum(program->root, alias) != InvalidAttrNumber)
			alias = psprintf("%sl", alias);
		key = psprintf("%s.%s", alias, key);
		sql = n == 1 ?
			psprintf("SELECT %s FROM %s %s WHERE %s FOR NO KEY UPDATE", alias, program->name, alias,
					 lc_behavior_is_the_lead(program, key)) :
			psprintf("SELECT %s FROM %s %s WHERE %s ORDER BY %s FOR NO KEY UPDATE", alias, program->name, alias,
					 lc_behavior_is_lead(program, key), key);
	}
	*found = lc_behavior_execute(program, plan, sql, program->owner, 1, &type, &value);
	return SPI_tuptable;
}

static void
store_lead(SPITupleTable *rows, int i, Relation rel, TupleTableSlot *slot)
{
	bool		isnull;
	HeapTupleHeader header = DatumGetHeapTupleHeader(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull));
	HeapTuple	tuple = palloc0(sizeof(HeapTupleData));

	tuple->t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = RelationGetRelid(rel);
	tuple->t_data = header;
	ExecStoreHeapTuple(tuple, slot, false);
}

/*
 * Bring the points of the lead up to date, in memory.
 */
static void
apply_points(Frame *frame, LcProgram *program, Affected *a, LcBehavior *behavior)
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
	a->before = lc_behavior_at(behavior, a->moment);
	for (Size i = a->first; i < a->first + a->n; i++)
	{
		if (frame->entries[i].effect == POINTS_CHANGED ||
			(frame->anew && frame->entries[i].effect == POINTS_CAME))
			anew = true;
	}
	if (anew)
	{
		note_recomputation(frame);
		lc_signal_recompute(program, a->key, DT_NOEND, behavior, NULL);
		a->changed = true;
	}
	else
	{
		for (Size i = a->first; i < a->first + a->n; i++)
		{
			const Entry *e = &frame->entries[i];

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
consider(Frame *frame, LcProgram *program, Affected *a, const LcBehavior *behavior,
		 LcProgram *signal, const LcRule *rule, TimestampTz at, bool asks)
{
	if (rule->stage < 0 || (rule->only_from >> a->lead.stage & 1) == 0 ||
		!lc_model_move_is_legal(program->model, a->lead.stage, rule->stage) ||
		(a->winner != NULL && lc_rules_compare(program->model, a->winner, rule) <= 0))
		return;
	if (asks && !lc_signal_may_ask(rule, at, behavior->since, a->moment))
		return;
	if (rule->unless_other != NULL &&
		!lc_signal_fires_unless_other(program, signal, rule, a->key, behavior->since, a->moment))
		return;
	a->winner = rule;
}

/*
 * Which rule moves the lead, if any.
 */
static void
find_winner(Frame *frame, LcProgram *program, Affected *a, const LcBehavior *behavior,
			TupleTableSlot *row)
{
	a->winner = lc_rules_crossed(program, row, &a->lead, a->before, a->after, a->moment);
	for (Size i = a->first; i < a->first + a->n; i++)
	{
		const Entry *e = &frame->entries[i];

		if (e->effect == ASKS)
			consider(frame, program, a, behavior, e->signal, e->rule, e->at, true);
		else if (e->effect == LOOK_AGAIN)
			consider(frame, program, a, behavior, e->signal, e->rule, 0, false);
	}
}

/*
 * Let the rule move the lead, by an UPDATE of its row.  SPI is connected.
 */
void
lc_signal_move(LcProgram *program, Datum lead, const LcRule *rule)
{
	Oid			types[2];
	Datum		values[2];
	uint64		n;

	types[0] = get_array_type(program->key_type);
	values[0] = PointerGetDatum(lc_behavior_array(program, &lead, 1));
	types[1] = program->status_type;
	values[1] = lc_program_status(program, rule->stage);
	lc_history_announce(program, LC_SIGNAL, rule->name);
	n = lc_behavior_execute(program, LC_PLAN_MOVE,
							program->plans[LC_PLAN_MOVE] ? NULL :
							psprintf("UPDATE %s SET %s = $2 WHERE %s", program->name,
									 quote_identifier(get_attname(program->root, program->status, false)),
									 lc_behavior_is_lead(program, quote_identifier(get_attname(program->root, program->key, false)))),
							program->owner, 2, types, values);
	/* should our trigger not have fired, no later statement may take it up */
	if (n == 0)
		lc_history_announce(program, LC_WRITE, NULL);
}

/* The leads of a statement that are to be locked. */
typedef struct Locking
{
	LcProgram  *program;
	Relation	rel;
	TupleTableSlot *slot;
	Affected   *affected;
	Datum	   *keys;
	int			n;
	Datum	   *unknown;		/* keys that no lead has */
	int			nunknown;
	SPITupleTable *rows;		/* of those that are there, as they are now */
	TransactionId coming;		/* who is about to bring one */
} Locking;

/* Lock the leads that are there; find out which are not. */
static void
find_leads(Locking *l)
{
	LcProgram  *program = l->program;
	uint64		found;
	int			next = 0;

	l->nunknown = 0;
	l->rows = lc_signal_lock(program, l->rel, l->keys, l->n, &found);
	for (int i = 0; i < l->n; i++)
		l->affected[i].is_there = false;
	for (uint64 r = 0; r < found; r++)
	{
		LcLead		lead;

		store_lead(l->rows, r, l->rel, l->slot);
		lc_lead_read(program, l->slot, &lead);
		lead.key = datumCopy(lead.key, program->key_by_value, program->key_length);
		while (next < l->n && !DatumGetBool(FunctionCall2Coll(&program->key_equal, program->key_collation,
															  l->affected[next].key, lead.key)))
			next++;
		if (next == l->n)
			break;
		l->affected[next].is_there = true;
		l->affected[next].lead = lead;
		l->affected[next].row = r;
	}
	for (int i = 0; i < l->n; i++)
	{
		if (!l->affected[i].is_there)
			l->unknown[l->nunknown++] = l->affected[i].key;
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
 * Put into effect what the statement did to the leads, whose entries are in the
 * order of the key.
 */
static void
apply(Frame *frame, Affected *affected, int n)
{
	LcProgram  *program = frame->leads;
	Relation	rel = table_open(program->root, AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	Datum	   *keys = palloc(n * sizeof(Datum));
	LcBehavior *behaviors;
	Datum	   *changed_keys = palloc(n * sizeof(Datum));
	LcBehavior **changed = palloc(n * sizeof(LcBehavior *));
	int			nchanged = 0;
	Locking		locking = {0};

	for (int i = 0; i < n; i++)
		keys[i] = affected[i].key;
	locking.program = program;
	locking.rel = rel;
	locking.slot = slot;
	locking.affected = affected;
	locking.keys = keys;
	locking.n = n;
	locking.unknown = palloc(n * sizeof(Datum));
	lock_affected(&locking);

	behaviors = lc_behavior_read(program, keys, n);
	for (int i = 0; i < n; i++)
	{
		Affected   *a = &affected[i];
		bool		is_set;

		a->moment = lc_moment(program, &is_set);
		if (a->is_there && !a->lead.since_isnull)
			a->moment = Max(a->moment, a->lead.since);
		apply_points(frame, program, a, &behaviors[i]);
		if (a->is_there && a->lead.stage >= 0)
		{
			store_lead(locking.rows, a->row, rel, slot);
			lc_lead_read(program, slot, &a->lead);
			find_winner(frame, program, a, &behaviors[i], slot);
		}
		if (a->changed)
		{
			changed_keys[nchanged] = a->key;
			changed[nchanged++] = &behaviors[i];
		}
	}
	lc_behavior_write(program, changed_keys, changed, nchanged);
	for (int i = 0; i < n; i++)
	{
		if (affected[i].winner != NULL)
			lc_signal_move(program, affected[i].key, affected[i].winner);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

static void
end_frame(Frame *frame)
{
	ListCell   *cell;
	Size		i = 0;

	flush_moved(frame);
	if (frame->nentries > 0)
	{
		KeyOrder	order;

		order.compare = &lookup_type_cache(getBaseType(frame->leads->key_type), TYPECACHE_CMP_PROC_FINFO)->cmp_proc_finfo;
		order.collation = frame->leads->key_collation;
		qsort_arg(frame->entries, frame->nentries, sizeof(Entry), compare_entries, &order);
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
				while (i < frame->nentries && compare_entries(&frame->entries[a->first], &frame->entries[i], &order) == 0)
					i++;
				a->n = i - a->first;
			}
			apply(frame, affected, n);
			SPI_finish();
		}
	}
	foreach(cell, frame->signals)
		lc_program_unpin((LcProgram *) lfirst(cell));
	if (frame->leads != NULL)
		lc_program_unpin(frame->leads);
	drop_frame(frame);
}

/* ---- triggers ---- */

/*
 * BEFORE and AFTER INSERT OR UPDATE OR DELETE FOR EACH STATEMENT.
 */
Datum
lifecycle_signal_statement(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	LcProgram  *signal;

	if (CALLED_AS_TRIGGER(fcinfo) && TRIGGER_FIRED_BEFORE(trigdata->tg_event))
		AcceptInvalidationMessages();
	signal = lc_signal_pin_for_trigger(fcinfo, "signal_statement");
	if (!TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) || TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not fired %s", "signal_statement", "FOR EACH STATEMENT"),
				 errhint("Triggers of lifecycle are made by lifecycle.track_signal().")));
	if (TRIGGER_FIRED_BEFORE(trigdata->tg_event))
		push_frame(signal)->is_update = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);
	else
	{
		Frame	   *frame = frame_of(signal);

		if (frame != NULL)
			end_frame(frame);
	}
	lc_program_unpin(signal);
	return PointerGetDatum(NULL);
}

/*
 * AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW.
 */
Datum
lifecycle_signal_after_row(PG_FUNCTION_ARGS)
{
	LcProgram  *signal = lc_signal_pin_for_trigger(fcinfo, "signal_after_row");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Frame	   *frame;
	bool		own_frame;
	LcSignalRow	old;
	LcSignalRow	new;

	if (!TRIGGER_FIRED_AFTER(trigdata->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not fired %s", "signal_after_row", "AFTER ... FOR EACH ROW"),
				 errhint("Triggers of lifecycle are made by lifecycle.track_signal().")));
	frame = frame_of(signal);
	own_frame = frame == NULL;
	if (own_frame)
	{
		frame = push_frame(signal);
		/* it may have been an earlier row of the same statement that did it */
		frame->anew = recomputed;
	}
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		LcSignalRow  *moved = frame->moved;

		frame->moved = NULL;
		read_row(signal, trigdata->tg_trigslot, true, moved != NULL, &new);
		if (moved != NULL)
			row_changed(frame, signal, moved, &new);
		else
			row_came(frame, signal, &new, NULL);
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		flush_moved(frame);
		if (frame->is_update && trigdata->tg_relation->rd_rel->relispartition)
		{
			MemoryContext cxt = MemoryContextSwitchTo(frame->cxt);

			/* an UPDATE takes it to another partition: it comes back there next */
			frame->moved = palloc(sizeof(LcSignalRow));
			read_row(signal, trigdata->tg_trigslot, true, true, frame->moved);
			if (!list_member_ptr(frame->signals, signal))
				frame->signals = lappend(frame->signals, lc_program_pin_again(signal));
			frame->moved_from = signal;
			MemoryContextSwitchTo(cxt);
		}
		else
		{
			read_row(signal, trigdata->tg_trigslot, true, true, &old);
			row_went(frame, signal, &old);
		}
	}
	else
	{
		read_row(signal, trigdata->tg_trigslot, true, true, &old);
		read_row(signal, trigdata->tg_newslot, true, true, &new);
		row_changed(frame, signal, &old, &new);
	}
	if (own_frame)
		end_frame(frame);
	lc_program_unpin(signal);
	return PointerGetDatum(NULL);
}

/*
 * BEFORE and AFTER TRUNCATE: take down whose rows go, and, when all that one
 * TRUNCATE empties is empty, put it into effect.
 */
Datum
lifecycle_signal_truncate(PG_FUNCTION_ARGS)
{
	LcProgram  *signal = lc_signal_pin_for_trigger(fcinfo, "signal_truncate");
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	rel = trigdata->tg_relation;
	Frame	   *frame;
	TableScanDesc scan;
	TupleTableSlot *slot;
	Snapshot	snapshot;

	if (!TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not fired %s", "signal_truncate", "FOR TRUNCATE"),
				 errhint("Triggers of lifecycle are made by lifecycle.track_signal().")));
	if (TRIGGER_FIRED_AFTER(trigdata->tg_event))
	{
		frame = frame_of(signal);
		if (frame != NULL)
			end_frame(frame);
		lc_program_unpin(signal);
		return PointerGetDatum(NULL);
	}
	frame = push_frame(signal);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, snapshot, 0, NULL);
	slot = table_slot_create(rel, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		LcSignalRow	row;

		CHECK_FOR_INTERRUPTS();
		read_row(signal, slot, true, true, &row);
		row_went(frame, signal, &row);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	lc_program_unpin(signal);
	return PointerGetDatum(NULL);
}

/* ---- leads that come after their signals ---- */

typedef struct AtEntry
{
	LcProgram  *program;
	TimestampTz since;
	TimestampTz moment;
	LcRule	   *winner;
} AtEntry;

static void
consider_at_entry(LcProgram *signal, TupleTableSlot *slot, const LcSignalRow *row, void *arg)
{
	AtEntry    *a = arg;

	for (int i = 0; i < signal->rules->nstatus; i++)
	{
		const LcRule *rule = signal->rules->status[i];

		if (row->facts.holds == NULL || !row->facts.holds[i] || rule->has_only_from ||
			!lc_signal_may_ask(rule, row->at, a->since, a->moment) ||
			(a->winner != NULL && lc_rules_compare(a->program->model, a->winner, rule) <= 0))
			continue;
		if (a->winner == NULL)
			a->winner = palloc(sizeof(LcRule));
		*a->winner = *rule;
		a->winner->name = pstrdup(rule->name);
	}
}

/*
 * The rule by which signals that came before their lead say where it enters, or
 * NULL; in the memory that is current.  unless_other is not asked.
 */
const LcRule *
lc_signal_at_entry(LcProgram *program, Datum lead, TimestampTz moment)
{
	MemoryContext cxt = CurrentMemoryContext;
	LcBehavior *behavior;
	AtEntry		a = {0};
	LcRule	   *winner = NULL;

	if (!OidIsValid(program->behavior))
		return NULL;
	SPI_connect();
	behavior = lc_behavior_read(program, &lead, 1);
	if (behavior->known)
	{
		a.program = program;
		a.since = Max(behavior->since, lc_history_restart(program, lead, DT_NOEND));
		a.moment = moment;
		for (int i = 0; i < program->nsignals; i++)
			lc_signal_walk(program, program->signals[i], lead, true, consider_at_entry, &a);
		if (a.winner != NULL)
		{
			winner = MemoryContextAlloc(cxt, sizeof(LcRule));
			*winner = *a.winner;
			winner->name = MemoryContextStrdup(cxt, a.winner->name);
		}
	}
	SPI_finish();
	return winner;
}

/*
 * behavior_score_from_signals(lead_table, lead, at): the score that the rows
 * that are there give for an instant.
 */
Datum
lifecycle_behavior_score_from_signals(PG_FUNCTION_ARGS)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(2);
	LcProgram  *program = lc_program_pin(PG_GETARG_OID(0));
	Datum		lead;
	LcBehavior *behavior;
	float8		score;

	if (program == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table with OID %u is not tracked", PG_GETARG_OID(0))));
	if (OidIsValid(program->behavior) &&
		pg_class_aclcheck(program->behavior, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(program->behavior));
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
