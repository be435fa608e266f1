/*-------------------------------------------------------------------------
 *
 * lead.c
 *	  The triggers of a lead table: what a write means for the lead.
 *
 * BEFORE ROW decides.  It holds the lead's row (that is the only lock), so
 * that the status, its time and its number in OLD are the lead's last move; it
 * puts the outcome into NEW.  AFTER ROW records the move that it finds between
 * OLD and NEW, once everything that may still change or suppress the row has
 * had its turn; it trusts nothing that BEFORE ROW did, since a trigger of a
 * user may fire between the two, and refuses what could not have come from it.
 *
 * AFTER triggers of an outer statement may still be due when a trigger of a
 * user writes the same lead again.  So BEFORE ROW first sees to it that the
 * move which made the row it finds is in the history, and AFTER ROW passes
 * over a move that is there already.  At no time is more than one move of a
 * lead due.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_lead_statement);
PG_FUNCTION_INFO_V1(lifecycle_lead_before_row);
PG_FUNCTION_INFO_V1(lifecycle_lead_after_row);
PG_FUNCTION_INFO_V1(lifecycle_lead_truncate);
PG_FUNCTION_INFO_V1(lifecycle_announce);

/* Whether the status column holds the same in both. */
static bool
same_status(LcProgram *program, const LcLead *a, const LcLead *b)
{
	if (a->status_isnull || b->status_isnull)
		return a->status_isnull && b->status_isnull;
	if (a->stage >= 0 || b->stage >= 0)
		return a->stage == b->stage;
	return strcmp(lc_program_status_label(program, a->status),
				  lc_program_status_label(program, b->status)) == 0;
}

/* ---- refusals ---- */

/*
 * The program that the trigger serves, pinned; the trigger must be of the kind
 * that track() makes, since anybody may make one of another kind.
 */
static LcProgram *
pin_for_trigger(FunctionCallInfo fcinfo, const char *function, const char *kind,
				bool (*fits) (TriggerEvent event))
{
	LcProgram  *program = lc_program_pin_for_trigger(fcinfo, function);

	if (!fits(((TriggerData *) fcinfo->context)->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not fired %s", function, kind),
				 errhint("Triggers of lifecycle are made by lifecycle.track().")));
	return program;
}

static bool
is_before_row(TriggerEvent event)
{
	return TRIGGER_FIRED_BEFORE(event) && TRIGGER_FIRED_FOR_ROW(event);
}

static bool
is_after_row(TriggerEvent event)
{
	return TRIGGER_FIRED_AFTER(event) && TRIGGER_FIRED_FOR_ROW(event);
}

static bool
is_statement(TriggerEvent event)
{
	return TRIGGER_FIRED_FOR_STATEMENT(event) && !TRIGGER_FIRED_BY_TRUNCATE(event);
}

static bool
is_before_truncate(TriggerEvent event)
{
	return TRIGGER_FIRED_BEFORE(event) && TRIGGER_FIRED_BY_TRUNCATE(event);
}

/*
 * Refuse a lead without a key, where the table should but does not.
 */
static void
require_key(LcProgram *program, Relation rel, const LcLead *lead)
{
	if (lead->key_isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("key of a lead of table \"%s\" must not be null", program->name),
				 errhint("Set column \"%s\".",
						 NameStr(TupleDescAttr(RelationGetDescr(rel), program->key - 1)->attname)),
				 errtablecol(rel, program->key)));
}

static bool
keeps_illegal(LcProgram *program)
{
	const char *setting = lc_setting_on_illegal();

	return setting != NULL ? strcmp(setting, "keep") == 0 : program->keep;
}

/*
 * A move is not let through.  With "keep" it is noted, and the caller puts the
 * status back; otherwise it is an error, in the form in which constraints
 * speak, which applications already show to their users.
 */
static void
refuse_move(LcProgram *program, Relation rel, TupleTableSlot *row, const LcLead *lead,
			int from, const char *from_status, const char *to_status)
{
	LcModel    *model = program->model;
	const char *key = lc_program_key_text(program, lead->key, lead->key_isnull);

	if (keeps_illegal(program))
	{
		bool		is_set;

		lc_history_refuse(program, lead->key, from_status, to_status,
						  lc_moment(program, &is_set), lc_actor(program, row));
		return;
	}
	if (to_status == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("status of lead %s of table \"%s\" cannot become null", key, program->name),
				 errdetail("The lead is \"%s\".", from_status),
				 errhint("A lead leaves the program by DELETE."),
				 errtablecol(rel, program->status),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "lifecycle_status")));
	if (lc_model_stage(model, to_status, strlen(to_status)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("\"%s\" is not a status of model \"%s\"", to_status, model->name),
				 errdetail("Table \"%s\" follows model \"%s\".", program->name, model->name),
				 errhint("The statuses are: %s.", lc_model_statuses(model, ~UINT64CONST(0))),
				 errtablecol(rel, program->status),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "lifecycle_status")));
	{
		char	   *next = from >= 0 ? lc_model_statuses(model, model->stages[from].next) : NULL;

		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("lead %s of table \"%s\" cannot move from \"%s\" to \"%s\"",
						key, program->name, from_status, to_status),
				 errdetail("Model \"%s\" has no such transition.", model->name),
				 next != NULL ?
				 errhint("From \"%s\" a lead can become: %s.", from_status, next) :
				 errhint("No transition leads away from \"%s\".", from_status),
				 errtablecol(rel, program->status),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "lifecycle_transition")));
	}
}

/* ---- BEFORE ROW: the decision ---- */

/* Put what we keep into the row that is about to be stored. */
static HeapTuple
store_decision(LcProgram *program, Relation rel, HeapTuple tuple, const LcLead *lead)
{
	int			cols[4];
	Datum		values[4];
	bool		nulls[4];

	cols[0] = program->status;
	values[0] = lead->status;
	nulls[0] = lead->status_isnull;
	cols[1] = program->since;
	values[1] = TimestampTzGetDatum(lead->since);
	nulls[1] = lead->since_isnull;
	cols[2] = program->seq;
	values[2] = Int32GetDatum(lead->seq);
	nulls[2] = lead->seq_isnull;
	cols[3] = program->score;
	values[3] = Float8GetDatum(lead->score);
	nulls[3] = lead->score_isnull;
	return heap_modify_tuple_by_cols(tuple, RelationGetDescr(rel), 4, cols, values, nulls);
}

static void
set_status(LcProgram *program, LcLead *lead, int stage)
{
	lead->stage = stage;
	lead->status = lc_program_status(program, stage);
	lead->status_isnull = false;
}

/*
 * When what is decided here would be true: never before the lead's last move.
 */
static TimestampTz
moment_of(LcProgram *program, const LcLead *lead)
{
	bool		is_set;
	TimestampTz at = lc_moment(program, &is_set);

	return lead != NULL && !lead->since_isnull ? Max(at, lead->since) : at;
}

/*
 * The rule that says where a lead enters, or NULL.  Points that others are about
 * to give it are waited for.
 */
static const LcRule *
rule_at_entry(LcProgram *program, TupleTableSlot *row, const LcLead *lead, TimestampTz moment)
{
	bool		has_points = lc_arrival_await_points(program, lead->key);
	const LcRule *signal = has_points ? lc_signal_standing(program, lead->key, LC_NO_STAGE, moment) : NULL;
	const LcRule *rule = lc_rules_at_entry(program, row, lead->score,
										   has_points ? lc_behavior_of(program, lead->key, moment) : 0,
										   moment);

	if (signal != NULL && (rule == NULL || lc_rules_compare(program->model, signal, rule) < 0))
		rule = signal;
	return rule;
}

/*
 * A new lead: its score, and the given status; where there is none, or the
 * model's first, which a column default cannot be told from, the status that
 * the rules say.
 */
static void
decide_insert(LcProgram *program, Relation rel, TupleTableSlot *row, LcLead *lead)
{
	TimestampTz moment = moment_of(program, NULL);
	const LcRule *rule = NULL;

	require_key(program, rel, lead);
	if (lead->stage == LC_UNKNOWN_STAGE)
		refuse_move(program, rel, row, lead, LC_NO_STAGE, NULL,
					lc_program_status_label(program, lead->status));
	lead->score = lc_rules_score(program, row, moment);
	lead->score_isnull = false;
	if (lead->stage < 0 || lead->stage == program->model->first)
	{
		rule = rule_at_entry(program, row, lead, moment);
		if (rule != NULL || lead->stage < 0)
			set_status(program, lead, rule != NULL ? rule->stage : program->model->first);
	}
	lc_decide_entry(program, row, lead);
	if (program->rules->nstatus > 0 || rule != NULL)
		lc_decision_note(program, lead, LC_BY_RULE, rule != NULL ? rule->name : NULL);
}

/*
 * A lead that is in the program moves on from where its row says that it is.
 */
static void
decide_move(LcProgram *program, Relation rel, TupleTableSlot *oldrow, const LcLead *old,
			LcLead *new, LcCause cause, const char *rule)
{
	LcLastMove	last;

	/* a correction may come from a status that the model no longer has */
	if (old->stage >= 0)
		lc_catch_up(program, rel, oldrow, old, &last);
	else if (!lc_history_last(program, old->key, &last) || last.to_status == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lead %s of table \"%s\" is not in the history",
						lc_program_key_text(program, old->key, false), program->name),
				 errdetail("Model \"%s\" does not have its status.", program->model->name)));
	lc_lead_set_move(new, last.seq + 1, lc_time_of_move(program, old->key, last.at));
	if (program->rules->nstatus > 0 || cause != LC_BY_WRITE)
		lc_decision_note(program, new, cause, rule);
}

/*
 * What the write asks for.  False where it asks for no other status, or for one
 * that is not let through: then the rules have their say.
 */
static bool
decide_explicit(LcProgram *program, Relation rel, TupleTableSlot *oldrow, TupleTableSlot *row,
				const LcLead *old, LcLead *new, bool judge)
{
	if (same_status(program, old, new))
		return false;
	if (new->stage < 0 ||
		(judge && !old->status_isnull &&
		 !lc_model_move_is_legal(program->model, old->stage, new->stage)))
	{
		refuse_move(program, rel, row, old, old->stage,
					old->status_isnull ? NULL : lc_program_status_label(program, old->status),
					new->status_isnull ? NULL : lc_program_status_label(program, new->status));
		new->status = old->status;
		new->status_isnull = old->status_isnull;
		new->stage = old->stage;
		return false;
	}
	if (old->status_isnull)
	{
		if (new->score_isnull)
		{
			new->score = lc_rules_score(program, row, moment_of(program, old));
			new->score_isnull = false;
		}
		lc_decide_entry(program, row, new);
		return true;
	}
	/* one of a lead that was never scored */
	if (new->score_isnull)
	{
		new->score = lc_rules_score(program, row, moment_of(program, old));
		new->score_isnull = false;
	}
	decide_move(program, rel, oldrow, old, new, LC_BY_WRITE, NULL);
	if (!judge)
		lc_history_note_correction(program, new->key, new->seq);
	return true;
}

/*
 * A lead is written.  "new" holds what the write wants, and, on return, what
 * becomes of it.
 */
static void
decide_update(LcProgram *program, Relation rel, TupleTableSlot *oldrow, TupleTableSlot *row,
			  const LcLead *old, LcLead *new, bool judge)
{
	bool		equal;

	require_key(program, rel, old);
	require_key(program, rel, new);
	equal = DatumGetBool(FunctionCall2Coll(&program->key_equal, program->key_collation,
										   old->key, new->key));
	if (!equal)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("key of lead %s of table \"%s\" cannot be changed",
						lc_program_key_text(program, old->key, old->key_isnull), program->name),
				 errdetail("The history of the lead is kept under its key."),
				 errhint("DELETE the lead and INSERT it under the other key."),
				 errtablecol(rel, program->key),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "lifecycle_key")));

	/* What is derived is ours, whatever the write puts there. */
	new->since = old->since;
	new->since_isnull = old->since_isnull;
	new->seq = old->seq;
	new->seq_isnull = old->seq_isnull;
	new->score = old->score;
	new->score_isnull = old->score_isnull;
	if (lc_rules_score_may_differ(program, oldrow, old, row))
	{
		new->score = lc_rules_score(program, row, moment_of(program, old));
		new->score_isnull = false;
	}
	if (decide_explicit(program, rel, oldrow, row, old, new, judge) || !judge)
		return;
	if (program->rules->nstatus > 0 && old->stage >= 0)
	{
		const LcRule *rule = lc_rules_fired(program, oldrow, old, row, new,
											moment_of(program, old));

		if (rule != NULL)
		{
			set_status(program, new, rule->stage);
			decide_move(program, rel, oldrow, old, new, LC_BY_RULE, rule->name);
		}
	}
}

/*
 * A lead is looked at by rescore(): its score becomes what the rules give now;
 * and, where it may move, it goes where a rule holds.
 */
static void
decide_rescore(LcProgram *program, Relation rel, TupleTableSlot *oldrow, TupleTableSlot *row,
			   const LcLead *old, LcLead *new, bool move)
{
	TimestampTz moment = moment_of(program, old);
	const LcRule *rule;

	require_key(program, rel, old);
	*new = *old;
	new->score = lc_rules_score(program, row, moment);
	new->score_isnull = false;
	if (!move || old->stage < 0)
		return;
	rule = lc_standing(program, row, old->key, new->score, old->stage, moment);
	if (rule != NULL)
	{
		set_status(program, new, rule->stage);
		decide_move(program, rel, oldrow, old, new, LC_BY_RESCORE, rule->name);
	}
}

/*
 * A lead goes where its signals led it, as was decided under its lock.  It stays
 * where a trigger of a user took it meanwhile, if no transition leads on.
 */
static void
decide_signal(LcProgram *program, Relation rel, TupleTableSlot *oldrow, const LcLead *old,
			  LcLead *new, const char *rule)
{
	if (old->stage < 0 || !lc_model_move_is_legal(program->model, old->stage, new->stage))
	{
		*new = *old;
		return;
	}
	new->since = old->since;
	new->since_isnull = old->since_isnull;
	new->seq = old->seq;
	new->seq_isnull = old->seq_isnull;
	new->score = old->score;
	new->score_isnull = old->score_isnull;
	decide_move(program, rel, oldrow, old, new, LC_BY_RULE, rule);
}

/*
 * A lead is brought into the history, by backfill(): with the status it has, or
 * without one with that of its last move, or else the one that the rules say;
 * its score is what they give.  And where the
 * history says something else than the row, it follows.  All is recorded here,
 * of the row that is found.  A lead whose status the model lacks stays out.
 */
static void
decide_backfill(LcProgram *program, Relation rel, TupleTableSlot *oldrow,
				const LcLead *old, LcLead *new)
{
	LcLastMove	last;

	require_key(program, rel, old);
	*new = *old;
	if (old->stage == LC_UNKNOWN_STAGE)
		return;
	new->score = lc_rules_score(program, oldrow, moment_of(program, old));
	new->score_isnull = false;
	if (old->status_isnull)
	{
		int			stage = LC_NO_STAGE;

		if (lc_history_last(program, old->key, &last) && last.to_status != NULL)
			stage = lc_model_stage(program->model, VARDATA_ANY(last.to_status),
								   VARSIZE_ANY_EXHDR(last.to_status));
		else
		{
			const LcRule *rule = lc_rules_at_entry(program, oldrow, new->score,
														 lc_behavior_of(program, old->key, moment_of(program, old)),
														 moment_of(program, old));

			if (rule != NULL)
				stage = rule->stage;
		}
		set_status(program, new, stage >= 0 ? stage : program->model->first);
	}
	lc_catch_up(program, rel, oldrow, new, &last);
	lc_lead_set_move(new, last.seq, last.at);
}

/*
 * BEFORE INSERT OR UPDATE OR DELETE FOR EACH ROW.  Its name makes it fire after
 * the BEFORE triggers of users: it judges the row that will be stored.
 */
Datum
lifecycle_lead_before_row(PG_FUNCTION_ARGS)
{
	LcProgram  *program = pin_for_trigger(fcinfo, "lead_before_row", "BEFORE ... FOR EACH ROW", is_before_row);
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	rel = trigdata->tg_relation;
	HeapTuple	result;

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		LcLead	lead;

		lc_lead_read(program, trigdata->tg_trigslot, &lead);
		decide_insert(program, rel, trigdata->tg_trigslot, &lead);
		result = store_decision(program, rel, trigdata->tg_trigtuple, &lead);
		if (program->rules->nstatus > 0)
			lc_decision_note_row(result);
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		LcLead	old;
		LcLastMove	last;

		lc_lead_read(program, trigdata->tg_trigslot, &old);
		if (!old.key_isnull && !old.seq_isnull && old.stage >= 0)
			lc_catch_up(program, rel, trigdata->tg_trigslot, &old, &last);
		result = trigdata->tg_trigtuple;
	}
	else
	{
		LcLead	old;
		LcLead	wanted;
		LcLead	new;
		const char *rule;

		lc_lead_read(program, trigdata->tg_trigslot, &old);
		lc_lead_read(program, trigdata->tg_newslot, &wanted);
		new = wanted;
		switch (lc_history_operation(program, NULL))
		{
			case LC_PUT_RIGHT:
				break;
			case LC_BACKFILL:
				decide_backfill(program, rel, trigdata->tg_trigslot, &old, &new);
				break;
			case LC_RESCORE:
			case LC_RESCORE_AND_MOVE:
				decide_rescore(program, rel, trigdata->tg_trigslot, trigdata->tg_newslot, &old, &new,
							   lc_history_operation(program, NULL) == LC_RESCORE_AND_MOVE);
				break;
			case LC_SIGNAL:
				lc_history_operation(program, &rule);
				decide_signal(program, rel, trigdata->tg_trigslot, &old, &new, rule);
				break;
			case LC_CORRECTION:
				decide_update(program, rel, trigdata->tg_trigslot, trigdata->tg_newslot, &old, &new, false);
				break;
			case LC_WRITE:
				decide_update(program, rel, trigdata->tg_trigslot, trigdata->tg_newslot, &old, &new, true);
				break;
		}
		if (same_status(program, &wanted, &new) &&
			wanted.since_isnull == new.since_isnull && wanted.since == new.since &&
			wanted.seq_isnull == new.seq_isnull && wanted.seq == new.seq &&
			wanted.score_isnull == new.score_isnull && wanted.score == new.score)
			result = trigdata->tg_newtuple;
		else
			result = store_decision(program, rel, trigdata->tg_newtuple, &new);
	}
	lc_program_unpin(program);
	return PointerGetDatum(result);
}

/* ---- AFTER ROW ---- */

/*
 * Record what happened between OLD and NEW.
 */
static void
record_update(LcProgram *program, Relation rel, TupleTableSlot *oldrow, TupleTableSlot *newrow)
{
	LcLead	old;
	LcLead	new;
	LcLastMove	last;
	bool		moved;
	LcOperation operation;
	const char *claimed = NULL;
	const char *cause;
	const char *rule;

	lc_lead_read(program, oldrow, &old);
	lc_lead_read(program, newrow, &new);
	require_key(program, rel, &old);
	require_key(program, rel, &new);
	moved = old.seq_isnull != new.seq_isnull || (!new.seq_isnull && old.seq != new.seq);
	if (same_status(program, &old, &new))
	{
		if (moved)
			lc_reject_interference(program, rel, &old, "A move was made, and the status set back.");
		if (old.since_isnull != new.since_isnull || (!new.since_isnull && old.since != new.since))
			lc_reject_interference(program, rel, &old, "The time or the number of the move was changed.");
		return;
	}
	if (!moved)
		lc_reject_interference(program, rel, &old, "A later trigger set another status.");
	if (lc_history_has_ahead(program, new.key, new.seq, false))
		return;
	if (old.status_isnull)
	{
		lc_record_entry(program, rel, newrow, &new, true);
		return;
	}
	operation = lc_history_operation(program, &claimed);
	if (operation != LC_CORRECTION && !lc_model_move_is_legal(program->model, old.stage, new.stage))
		lc_reject_interference(program, rel, &old, "The move that resulted is not legal.");
	lc_check_stored(program, rel, &new,
					lc_history_get(program, old.key, new.seq - 1, &last) ? &last : NULL);
	if (operation == LC_CORRECTION)
	{
		lc_record_correction(program, newrow, &new, &last, claimed);
		return;
	}
	cause = lc_decision_take(program, &new, new.seq, newrow, &rule);
	if (rule == NULL)
		lc_require_reason(program, rel, newrow, new.key, new.stage);
	lc_record_move(program, newrow, &new, &last, true, new.stage, new.seq, new.since, cause, rule, NULL);
}

/*
 * Record that a lead left the program.  One that never entered does not.
 */
static void
record_removal(LcProgram *program, TupleTableSlot *row)
{
	LcLead	old;
	LcLastMove	last;

	lc_lead_read(program, row, &old);
	if (old.key_isnull ||
		(!old.seq_isnull && lc_history_has_ahead(program, old.key, old.seq + 1, true)))
		return;
	/* without a number it is in the history only as an adopted one says so */
	if (lc_history_last(program, old.key, &last) && last.to_status != NULL &&
		!(old.seq_isnull && last.own))
		lc_record_move(program, row, &old, &last, true, LC_NO_STAGE, last.seq + 1,
					   lc_time_of_move(program, old.key, last.at), "delete", NULL, NULL);
}

/*
 * Record an entry.  Signals may have come since it was judged, whose writers did
 * not see the lead: then it moves on to where it would have entered.
 */
static void
record_insert(LcProgram *program, Relation rel, TupleTableSlot *row)
{
	LcLead		lead;
	const LcRule *winner = NULL;

	lc_lead_read(program, row, &lead);
	require_key(program, rel, &lead);
	if (lc_history_has_ahead(program, lead.key, lead.seq, false))
		return;
	if (lead.stage >= 0 && lc_arrival_await_points(program, lead.key))
	{
		const char *name;

		(void) lc_decision_take(program, &lead, lead.seq, row, &name);
		if (name != NULL || lead.stage == program->model->first)
			winner = rule_at_entry(program, row, &lead, moment_of(program, &lead));
		if (winner != NULL && name != NULL)
		{
			const LcRule *decided = NULL;

			for (int i = 0; i < program->rules->nstatus && decided == NULL; i++)
			{
				if (strcmp(program->rules->status[i]->name, name) == 0)
					decided = program->rules->status[i];
			}
			if (strcmp(winner->name, name) == 0 ||
				(decided != NULL && lc_rules_compare(program->model, winner, decided) >= 0))
				winner = NULL;
		}
	}
	lc_record_entry(program, rel, row, &lead, true);
	if (winner != NULL && winner->stage != lead.stage)
	{
		SPI_connect();
		lc_effect_move(program, lead.key, winner);
		SPI_finish();
	}
}

/*
 * AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW.
 */
Datum
lifecycle_lead_after_row(PG_FUNCTION_ARGS)
{
	LcProgram  *program = pin_for_trigger(fcinfo, "lead_after_row", "AFTER ... FOR EACH ROW", is_after_row);
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	rel = trigdata->tg_relation;

	LcOperation operation = lc_history_operation(program, NULL);

	if (operation == LC_PUT_RIGHT || operation == LC_BACKFILL)
	{
		/* no move, or one that is recorded */
	}
	else if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		record_insert(program, rel, trigdata->tg_trigslot);
	else if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		record_update(program, rel, trigdata->tg_trigslot, trigdata->tg_newslot);
	else
		record_removal(program, trigdata->tg_trigslot);
	lc_program_unpin(program);
	return PointerGetDatum(NULL);
}

/* ---- statements ---- */

/*
 * BEFORE and AFTER INSERT OR UPDATE OR DELETE FOR EACH STATEMENT: the frame in
 * which history.c may collect the statement's moves.
 */
Datum
lifecycle_lead_statement(PG_FUNCTION_ARGS)
{
	LcProgram  *program;

	/* a prepared statement takes no lock that would tell it of changed rules */
	if (CALLED_AS_TRIGGER(fcinfo) && TRIGGER_FIRED_BEFORE(((TriggerData *) fcinfo->context)->tg_event))
		AcceptInvalidationMessages();
	program = pin_for_trigger(fcinfo, "lead_statement", "FOR EACH STATEMENT", is_statement);
	if (TRIGGER_FIRED_BEFORE(((TriggerData *) fcinfo->context)->tg_event))
	{
		lc_history_begin_statement(program);
		lc_decision_begin_statement(lc_trigger_depth());
	}
	else
	{
		lc_decision_end_statement();
		lc_history_end_statement(program);
	}
	lc_program_unpin(program);
	return PointerGetDatum(NULL);
}

/*
 * BEFORE TRUNCATE: every lead is removed.  The table is locked against
 * everybody, so a latest snapshot sees all that will be gone.
 */
Datum
lifecycle_lead_truncate(PG_FUNCTION_ARGS)
{
	LcProgram  *program = pin_for_trigger(fcinfo, "lead_truncate", "BEFORE TRUNCATE", is_before_truncate);
	Relation	rel = ((TriggerData *) fcinfo->context)->tg_relation;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle truncate",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);

	lc_history_begin_statement(program);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		record_removal(program, slot);
		MemoryContextReset(cxt);
		CHECK_FOR_INTERRUPTS();
	}
	lc_history_end_statement(program);

	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	lc_program_unpin(program);
	return PointerGetDatum(NULL);
}

/*
 * announce(lead_table, operation, reason): the next statement of this
 * subtransaction on the table's leads is part of backfill() or rescore(), and
 * no write of a user.  Only for the table's owner, who could rewrite the past
 * of the table anyway.
 */
Datum
lifecycle_announce(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *name;
		LcOperation operation;
	}			operations[] =
	{
		{"backfill", LC_BACKFILL},
		{"rescore", LC_RESCORE},
		{"rescore and move", LC_RESCORE_AND_MOVE},
	};
	LcProgram  *program;
	char	   *name;

	program = lc_operation_program(fcinfo, 2, "lead_table and operation");
	name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	for (int i = 0; i < lengthof(operations); i++)
	{
		if (strcmp(operations[i].name, name) == 0)
		{
			lc_history_announce(program, operations[i].operation,
								PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2)));
			lc_program_unpin(program);
			PG_RETURN_VOID();
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no operation \"%s\"", name)));
}
