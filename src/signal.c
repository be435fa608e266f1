/*-------------------------------------------------------------------------
 *
 * signal.c
 *	  What rows of other tables mean for leads: points, and statuses that they
 *	  ask for.
 *
 * AFTER ROW takes down what a row that was stored, changed or taken away comes
 * to, by the rules of its table.  AFTER STATEMENT has it put into effect
 * (effect.c).
 *
 * Writes without a statement trigger around them, straight into a partition that
 * lacks it, are put into effect row by row.
 *
 * What is taken down belongs to the subtransaction of the statement.
 *
 *-------------------------------------------------------------------------
 */
#include "effect.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(lifecycle_signal_statement);
PG_FUNCTION_INFO_V1(lifecycle_signal_after_row);
PG_FUNCTION_INFO_V1(lifecycle_signal_truncate);

static LcSignalFrame *frames = NULL;

/* Whether sums were made anew in this transaction. */
static bool recomputed = false;

/* ---- frames ---- */

static LcSignalFrame *
push_frame(LcProgram *signal)
{
	MemoryContext cxt = AllocSetContextCreate(TopTransactionContext, "lifecycle signals",
											  ALLOCSET_SMALL_SIZES);
	LcSignalFrame	   *frame = MemoryContextAllocZero(cxt, sizeof(LcSignalFrame));

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
void
lc_signal_note_recomputation(const LcSignalFrame *except)
{
	recomputed = true;
	for (LcSignalFrame *f = frames; f != NULL; f = f->outer)
	{
		if (f != except)
			f->anew = true;
	}
}

static void
drop_frame(LcSignalFrame *frame)
{
	LcSignalFrame	  **link = &frames;

	while (*link != frame)
		link = &(*link)->outer;
	*link = frame->outer;
	MemoryContextDelete(frame->cxt);
}

/* The innermost frame of the table, if it is of this subtransaction. */
static LcSignalFrame *
frame_of(LcProgram *signal)
{
	LcSignalFrame	   *f = frames;

	while (f != NULL && f->signal_id != signal->id)
		f = f->outer;
	return f != NULL && f->owner == GetCurrentSubTransactionId() ? f : NULL;
}

void
lc_signal_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent)
{
	LcSignalFrame	   *next;

	for (LcSignalFrame *f = frames; f != NULL; f = next)
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
 * Read the row.  One that is dated after "latest", or not at all, counts as of
 * then.  Which rules it keeps from firing is found where it may cease to.
 */
void
lc_signal_read(LcProgram *signal, TupleTableSlot *slot, bool may_go, TimestampTz latest, LcSignalRow *row)
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
	if (isnull || row->at > latest)
		row->at = latest;
	if (row->at == DT_NOBEGIN)
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

/* A row that this statement writes: it arrives with its transaction. */
static void
read_written(LcProgram *signal, TupleTableSlot *slot, bool may_go, LcSignalRow *row)
{
	lc_signal_read(signal, slot, may_go, GetCurrentTransactionStartTimestamp(), row);
}

static void
take_down(LcSignalFrame *frame, LcProgram *signal, const LcSignalRow *row, LcEffect effect, const LcRule *rule,
		  float8 points)
{
	MemoryContext old = MemoryContextSwitchTo(frame->cxt);
	LcEntry	   *entry;

	if (frame->nentries == frame->room)
	{
		frame->room = Max(16, 2 * frame->room);
		frame->entries = frame->entries == NULL ? palloc(frame->room * sizeof(LcEntry)) :
			repalloc_huge(frame->entries, frame->room * sizeof(LcEntry));
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
row_went(LcSignalFrame *frame, LcProgram *signal, const LcSignalRow *row)
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
row_came(LcSignalFrame *frame, LcProgram *signal, const LcSignalRow *row, const LcSignalRow *before)
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
row_changed(LcSignalFrame *frame, LcProgram *signal, const LcSignalRow *old, const LcSignalRow *new)
{
	bool		same_lead = !old->lead_isnull && !new->lead_isnull &&
		DatumGetBool(FunctionCall2Coll(&signal->key_equal, signal->key_collation, old->lead, new->lead));

	if (!same_lead)
		row_went(frame, signal, old);
	row_came(frame, signal, new, same_lead ? old : NULL);
}

/* A row that an UPDATE took out of its partition came to no other. */
static void
flush_moved(LcSignalFrame *frame)
{
	LcSignalRow *moved = frame->moved;

	frame->moved = NULL;
	if (moved != NULL)
		row_went(frame, frame->moved_from, moved);
}

/*
 * The statement is through: put what it did into effect.
 */
static void
end_frame(LcSignalFrame *frame)
{
	ListCell   *cell;

	flush_moved(frame);
	if (frame->nentries > 0)
		lc_effect_apply(frame);
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
		LcSignalFrame	   *frame = frame_of(signal);

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
	LcSignalFrame	   *frame;
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
		LcSignalRow *moved = frame->moved;

		frame->moved = NULL;
		read_written(signal, trigdata->tg_trigslot, moved != NULL, &new);
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
			read_written(signal, trigdata->tg_trigslot, true, frame->moved);
			if (!list_member_ptr(frame->signals, signal))
				frame->signals = lappend(frame->signals, lc_program_pin_again(signal));
			frame->moved_from = signal;
			MemoryContextSwitchTo(cxt);
		}
		else
		{
			read_written(signal, trigdata->tg_trigslot, true, &old);
			row_went(frame, signal, &old);
		}
	}
	else
	{
		read_written(signal, trigdata->tg_trigslot, true, &old);
		read_written(signal, trigdata->tg_newslot, true, &new);
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
	LcSignalFrame	   *frame;
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
		read_written(signal, slot, true, &row);
		row_went(frame, signal, &row);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	lc_program_unpin(signal);
	return PointerGetDatum(NULL);
}
