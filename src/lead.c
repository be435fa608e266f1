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
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_lead_statement);
PG_FUNCTION_INFO_V1(lifecycle_lead_before_row);
PG_FUNCTION_INFO_V1(lifecycle_lead_after_row);
PG_FUNCTION_INFO_V1(lifecycle_lead_truncate);

/* What we keep on a lead's row. */
typedef struct LeadState
{
	Datum		key;
	bool		key_isnull;
	Datum		status;
	bool		status_isnull;
	int			stage;
	TimestampTz since;
	bool		since_isnull;
	int32		seq;
	bool		seq_isnull;		/* the lead has not entered the program */
	float8		score;
	bool		score_isnull;
} LeadState;

static void
read_lead(LcProgram *program, TupleTableSlot *slot, LeadState *lead)
{
	lead->key = slot_getattr(slot, program->key, &lead->key_isnull);
	lead->status = slot_getattr(slot, program->status, &lead->status_isnull);
	lead->stage = lc_program_stage(program, lead->status, lead->status_isnull);
	lead->since = DatumGetTimestampTz(slot_getattr(slot, program->since, &lead->since_isnull));
	lead->seq = DatumGetInt32(slot_getattr(slot, program->seq, &lead->seq_isnull));
	lead->score = DatumGetFloat8(slot_getattr(slot, program->score, &lead->score_isnull));
}

/* Whether the status column holds the same in both. */
static bool
same_status(LcProgram *program, const LeadState *a, const LeadState *b)
{
	if (a->status_isnull || b->status_isnull)
		return a->status_isnull && b->status_isnull;
	if (a->stage >= 0 || b->stage >= 0)
		return a->stage == b->stage;
	return strcmp(lc_program_status_label(program, a->status),
				  lc_program_status_label(program, b->status)) == 0;
}

/* ---- time ---- */

/*
 * The instant at which this transaction's moves happen: now(), or the
 * lifecycle.at of a replay.  A date is a claim about the past of the table, so
 * only those who could rewrite that past anyway may make it; and nobody may
 * claim to know the future.
 */
static TimestampTz
moment(LcProgram *program, bool *is_set)
{
	const char *setting = lc_setting_at();
	TimestampTz at;
	TimestampTz clock;

	*is_set = setting != NULL;
	if (setting == NULL)
		return GetCurrentTransactionStartTimestamp();
	if (!is_member_of_role(GetUserId(), program->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set \"lifecycle.at\" for table \"%s\"", program->name),
				 errdetail("Only members of role \"%s\", which owns the table, may say when a move happened.",
						   GetUserNameFromId(program->owner, false)),
				 errhint("Without it, a move happens now.")));
	at = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(setting),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	clock = GetCurrentTimestamp();
	if (TIMESTAMP_NOT_FINITE(at) || at > clock)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"lifecycle.at\" is in the future"),
				 errdetail("\"lifecycle.at\" is %s, the clock says %s.",
						   pstrdup(timestamptz_to_str(at)), pstrdup(timestamptz_to_str(clock))),
				 errhint("A move happens now or has happened.")));
	return at;
}

/*
 * When a lead moves whose last move was at the given time: never before it.
 */
static TimestampTz
time_of_move(LcProgram *program, Datum key, TimestampTz last)
{
	bool		is_set;
	TimestampTz at = moment(program, &is_set);

	if (at >= last)
		return at;
	if (is_set)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lead %s of table \"%s\" cannot move before its last move",
						lc_program_key_text(program, key, false), program->name),
				 errdetail("\"lifecycle.at\" is %s, the last move was at %s.",
						   pstrdup(timestamptz_to_str(at)), pstrdup(timestamptz_to_str(last))),
				 errhint("Replay the moves of a lead in the order in which they happened.")));
	return last;
}

/*
 * When a lead enters: at the program's "entered", but not before the last move
 * of its key.  "entered" that is NULL or in the future means now.
 */
static TimestampTz
time_of_entry(LcProgram *program, TupleTableSlot *row, Datum key, const LcLastMove *last)
{
	bool		is_set;
	TimestampTz now = moment(program, &is_set);
	bool		isnull;
	TimestampTz entered = DatumGetTimestampTz(lc_expr_eval(program->entered, row, &isnull));

	if (isnull || entered > now || TIMESTAMP_NOT_FINITE(entered))
		return last != NULL ? time_of_move(program, key, last->at) : now;
	if (last != NULL && entered < last->at)
		return last->at;
	return entered;
}

/* ---- who and why ---- */

static text *
text_of(LcExpr *expr, const char *setting, TupleTableSlot *row)
{
	bool		isnull;
	Datum		d;

	if (expr == NULL)
		return setting != NULL ? cstring_to_text(setting) : NULL;
	d = lc_expr_eval(expr, row, &isnull);
	return isnull ? NULL : DatumGetTextPCopy(d);
}

static text *
actor_of(LcProgram *program, TupleTableSlot *row)
{
	return text_of(program->actor, lc_setting_actor(), row);
}

static text *
reason_of(LcProgram *program, TupleTableSlot *row)
{
	return text_of(program->reason, lc_setting_reason(), row);
}

/*
 * Refuse a move into a stage that wants a reason and got none.  Asked of the
 * row as it was stored.
 */
static void
require_reason(LcProgram *program, Relation rel, TupleTableSlot *row, Datum key, int stage)
{
	LcStage    *s = &program->model->stages[stage];
	text	   *reason;
	AttrNumber	column;

	if (!s->reason_required)
		return;
	reason = reason_of(program, row);
	if (reason != NULL && VARSIZE_ANY_EXHDR(reason) > 0)
		return;
	column = lc_expr_only_column(program->reason);
	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("lead %s of table \"%s\" needs a reason to become \"%s\"",
					lc_program_key_text(program, key, false), program->name, s->status),
			 program->reason != NULL ?
			 errdetail("The reason is: %s.", program->reason->source) : 0,
			 column != InvalidAttrNumber ?
			 errhint("Set column \"%s\" in the same statement.",
					 NameStr(TupleDescAttr(RelationGetDescr(rel), column - 1)->attname)) :
			 program->reason != NULL ?
			 errhint("Set what the reason is made of in the same statement.") :
			 errhint("Give it with SET LOCAL lifecycle.reason = '...' in the same transaction."),
			 errtablecol(rel, column != InvalidAttrNumber ? column : program->status),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "lifecycle_reason")));
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
require_key(LcProgram *program, Relation rel, const LeadState *lead)
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
refuse_move(LcProgram *program, Relation rel, TupleTableSlot *row, const LeadState *lead,
			int from, const char *from_status, const char *to_status)
{
	LcModel    *model = program->model;
	const char *key = lc_program_key_text(program, lead->key, lead->key_isnull);

	if (keeps_illegal(program))
	{
		bool		is_set;

		lc_history_refuse(program, lead->key, from_status, to_status,
						  moment(program, &is_set), actor_of(program, row));
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

/* ---- the record ---- */

/*
 * Append the lead's next move to its history.  "last" is its last move, or
 * NULL; "to" is LC_NO_STAGE for a removal.  On return, where there was a last
 * move, it is the one just made.
 */
static void
record_move(LcProgram *program, TupleTableSlot *row, const LeadState *lead, LcLastMove *last,
			bool has_last, int to, int32 seq, TimestampTz at, const char *cause)
{
	LcModel    *model = program->model;
	LcMove		move = {0};
	text	   *label = to >= 0 ? model->stages[to].label : NULL;

	move.lead = lead->key;
	move.seq = seq;
	move.to_status = label;
	move.at = at;
	move.cause = cause;
	move.actor = actor_of(program, row);
	move.reason = reason_of(program, row);
	move.demographic_score = lead->score;
	move.demographic_score_isnull = lead->score_isnull;
	move.value = lc_expr_eval(program->value, row, &move.value_isnull);

	if (!has_last)
	{
		last->cycle = 1;
		last->entered_at = at;
		last->cycle_since = at;
		last->reached = model->stages[to].alone;
		last->source = lc_expr_eval(program->source, row, &last->source_isnull);
		if (!last->source_isnull)
			last->source = PointerGetDatum(DatumGetTextPCopy(last->source));
		last->cohort = DatumGetInt32(lc_expr_eval(program->cohort, row, &last->cohort_isnull));
	}
	else if (label != NULL)
	{
		bool		new_cycle = true;

		/* an entry after a removal always begins one; a move may */
		if (last->to_status != NULL)
		{
			int			from = lc_model_stage(model, VARDATA_ANY(last->to_status),
											  VARSIZE_ANY_EXHDR(last->to_status));

			move.from_status = last->to_status;
			move.from_since = last->at;
			new_cycle = (from < 0 || model->stages[from].rank == 0) &&
				model->stages[to].rank > 0 && lc_model_touches_path(model, last->reached);
		}
		if (new_cycle)
		{
			last->cycle++;
			last->cycle_since = at;
		}
		last->reached = lc_reached_add(last->reached, label, new_cycle);
	}
	else
	{
		move.from_status = last->to_status;
		move.from_since = last->at;
	}
	move.cycle = last->cycle;
	move.source = last->source;
	move.source_isnull = last->source_isnull;
	move.cohort = last->cohort;
	move.cohort_isnull = last->cohort_isnull;
	move.entered_at = last->entered_at;
	move.cycle_since = last->cycle_since;
	move.reached = last->reached;
	lc_history_append(program, &move);

	last->seq = seq;
	last->to_status = label;
	last->at = at;
}

/* The row that was stored is not one that our BEFORE trigger let through. */
static void
reject_interference(LcProgram *program, Relation rel, const LeadState *lead, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("the status of lead %s of table \"%s\" was changed after its move was checked",
					lc_program_key_text(program, lead->key, lead->key_isnull), program->name),
			 errdetail("%s", detail),
			 errhint("Let BEFORE triggers that set the status have names that sort before \"zz_lifecycle_before_row\"."),
			 errtablecol(rel, program->status)));
}

/*
 * A status, its time and its number belong together, and follow the lead's last
 * move, which may lie ahead of a clock that was set back.
 */
static void
check_stored(LcProgram *program, Relation rel, const LeadState *lead, const LcLastMove *last)
{
	if (lead->stage < 0)
		reject_interference(program, rel, lead, "The new status is not one of the model.");
	if (lead->seq_isnull || lead->seq != (last ? last->seq : 0) + 1 || lead->since_isnull ||
		(lead->since > GetCurrentTimestamp() && (last == NULL || lead->since > last->at)) ||
		(last != NULL && lead->since < last->at))
		reject_interference(program, rel, lead, "The time or the number of the move was changed.");
}

/*
 * Put the time and the number of the lead's row right, by an UPDATE of our own
 * with the rights of the owner.  False where a trigger of that UPDATE wrote the
 * lead first, and so brought it into the history.
 */
static bool
put_right(LcProgram *program, Relation rel, TupleTableSlot *row, const LeadState *lead)
{
	Oid			types[3] = {INT4OID, TIMESTAMPTZOID, TIDOID};
	Datum		values[3];
	Oid			userid;
	int			sec_context;
	bool		done;
	char	   *table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												   RelationGetRelationName(rel));

	values[0] = Int32GetDatum(lead->seq);
	values[1] = TimestampTzGetDatum(lead->since);
	values[2] = PointerGetDatum(&row->tts_tid);
	lc_history_announce(program, LC_PUT_RIGHT);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(program->owner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	SPI_connect();
	if (SPI_execute_with_args(psprintf("UPDATE ONLY %s SET lifecycle_seq = $1, lifecycle_since = $2"
									   " WHERE ctid OPERATOR(pg_catalog.=) $3", table),
							  3, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not put lead %s of table \"%s\" right",
			 lc_program_key_text(program, lead->key, lead->key_isnull), table);
	done = SPI_processed > 0;
	SPI_finish();
	SetUserIdAndSecContext(userid, sec_context);
	return done;
}

/*
 * Record an entry.  Where the history says that the lead never left, its
 * removal is due to be recorded still, or it was taken out while our triggers
 * were off: it left at the latest when it entered again.  What it was worth when
 * it left is not known here; the row that came after it stands in.
 *
 * While the INSERT waited for the key, others may have moved and removed the
 * lead that had it; then the row's number and time, which were decided before,
 * are put right.  By now the key is ours, and the history of it stands still.
 */
static void
record_entry(LcProgram *program, Relation rel, TupleTableSlot *row, const LeadState *stored,
			 bool is_current)
{
	LeadState	lead = *stored;
	LcLastMove	last;
	bool		has_last = lc_history_last(program, lead.key, &last);

	if (has_last && !lead.seq_isnull && !lead.since_isnull &&
		(lead.seq != last.seq + (last.to_status == NULL ? 1 : 2) || lead.since < last.at))
	{
		if (!is_current)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent entry and removal of a lead"),
					 errhint("The transaction might succeed if retried.")));
		lead.seq = last.seq + (last.to_status == NULL ? 1 : 2);
		lead.since = Max(lead.since, last.at);
		if (!put_right(program, rel, row, &lead))
			return;
	}
	if (has_last && last.to_status != NULL)
	{
		bool		is_set;
		TimestampTz left = Max(moment(program, &is_set), last.at);

		lc_history_note_ahead();
		record_move(program, row, &lead, &last, true, LC_NO_STAGE, last.seq + 1,
					Min(left, lead.since), "delete");
	}
	check_stored(program, rel, &lead, has_last ? &last : NULL);
	require_reason(program, rel, row, lead.key, lead.stage);
	record_move(program, row, &lead, &last, has_last, lead.stage, lead.seq, lead.since, "entry");
}

/* Whether this transaction wrote the row. */
static bool
is_own(TupleTableSlot *row)
{
	bool		isnull;

	return TransactionIdIsCurrentTransactionId(
		DatumGetTransactionId(slot_getsysattr(row, MinTransactionIdAttributeNumber, &isnull)));
}

/*
 * See to it that the move which made the row as it is now is recorded, before
 * another one is made.  It is not only where the row was written by this very
 * transaction, and the AFTER trigger of that write is still to fire.  "last" is
 * the lead's last move, or NULL.
 */
static bool
record_due(LcProgram *program, Relation rel, TupleTableSlot *row, const LeadState *lead,
		   LcLastMove *last)
{
	int32		ahead = lead->seq - (last ? last->seq : 0);
	bool		is_there = last != NULL && last->to_status != NULL;

	/* a move, an entry, or a removal and an entry may be due */
	if (lead->seq_isnull || lead->since_isnull || lead->stage < 0 ||
		(ahead != 1 && !(ahead == 2 && is_there)) || !is_own(row))
		return false;
	lc_history_note_ahead();
	if (ahead == 1 && is_there)
		record_move(program, row, lead, last, true, lead->stage, lead->seq, lead->since, "write");
	else
		record_entry(program, rel, row, lead, false);
	return true;
}

/*
 * Make the history say what the row says, before the lead moves on from there:
 * record a move that is due; bring in a lead that is older than track(), as
 * entered on the model's first status and moved to where it is found; and where
 * the status was changed while our triggers were off, or history or leads come
 * from another backup, add the move that was not seen.  All of it is true
 * whatever becomes of the write that makes us look.  Gives the last move.
 */
static void
catch_up(LcProgram *program, Relation rel, TupleTableSlot *row, const LeadState *lead,
		 LcLastMove *last)
{
	bool		has_last = lc_history_last(program, lead->key, last);
	LcStage    *stage = &program->model->stages[lead->stage];
	TimestampTz now;

	if (record_due(program, rel, row, lead, has_last ? last : NULL))
	{
		(void) lc_history_last(program, lead->key, last);
		return;
	}
	now = time_of_move(program, lead->key, has_last ? last->at : DT_NOBEGIN);
	/* where the row knows since when it is what it is, believe it */
	if (!lead->since_isnull && lead->since <= now && (!has_last || lead->since >= last->at))
		now = lead->since;
	if ((!has_last || last->to_status == NULL) && !lead->seq_isnull && is_own(row))
	{
		/* overtaken on its way in, and met again before it was recorded */
		lc_history_note_ahead();
		record_move(program, row, lead, last, has_last, lead->stage,
					has_last ? last->seq + 1 : 1,
					has_last ? Max(lead->since, last->at) : lead->since, "entry");
	}
	else if (!has_last || last->to_status == NULL)
	{
		TimestampTz entered = now;

		if (program->entered != NULL)
			entered = Min(time_of_entry(program, row, lead->key, has_last ? last : NULL), now);
		record_move(program, row, lead, last, has_last, program->model->first,
					has_last ? last->seq + 1 : 1, entered, "backfill");
	}
	if (VARSIZE_ANY_EXHDR(last->to_status) != VARSIZE_ANY_EXHDR(stage->label) ||
		memcmp(VARDATA_ANY(last->to_status), VARDATA_ANY(stage->label),
			   VARSIZE_ANY_EXHDR(stage->label)) != 0)
		record_move(program, row, lead, last, true, lead->stage, last->seq + 1, now, "backfill");
}

/* ---- BEFORE ROW: the decision ---- */

/* Put what we keep into the row that is about to be stored. */
static HeapTuple
store_decision(LcProgram *program, Relation rel, HeapTuple tuple, const LeadState *lead)
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
set_status(LcProgram *program, LeadState *lead, int stage)
{
	lead->stage = stage;
	lead->status = lc_program_status(program, stage);
	lead->status_isnull = false;
}

static void
set_move(LeadState *lead, int32 seq, TimestampTz at)
{
	lead->seq = seq;
	lead->seq_isnull = false;
	lead->since = at;
	lead->since_isnull = false;
}

/*
 * The lead enters the program with the status it has.  Its number continues
 * where the history of its key ends.  Where the history says that the lead is
 * still there, either this row is not going to be stored (ON CONFLICT), or a
 * removal that is not committed or not recorded yet has the next number, and a
 * time that we cannot know but that is not later than the clock.
 */
static void
decide_entry(LcProgram *program, TupleTableSlot *row, LeadState *lead)
{
	LcLastMove	last;

	if (!lc_history_last(program, lead->key, &last))
		set_move(lead, 1, time_of_entry(program, row, lead->key, NULL));
	else if (last.to_status == NULL)
		set_move(lead, last.seq + 1, time_of_entry(program, row, lead->key, &last));
	else
	{
		bool		is_set;
		TimestampTz at = moment(program, &is_set);

		set_move(lead, last.seq + 2, Max(last.at, is_set ? at : GetCurrentTimestamp()));
	}
}

/*
 * A new lead: the given status where there is one, else the model's first.
 */
static void
decide_insert(LcProgram *program, Relation rel, TupleTableSlot *row, LeadState *lead)
{
	require_key(program, rel, lead);
	if (lead->stage == LC_UNKNOWN_STAGE)
		refuse_move(program, rel, row, lead, LC_NO_STAGE, NULL,
					lc_program_status_label(program, lead->status));
	if (lead->stage < 0)
		set_status(program, lead, program->model->first);
	lead->score = 0;
	lead->score_isnull = false;
	decide_entry(program, row, lead);
}

/*
 * A lead is written.  "new" holds what the write wants, and, on return, what
 * becomes of it.
 */
static void
decide_update(LcProgram *program, Relation rel, TupleTableSlot *oldrow, TupleTableSlot *row,
			  const LeadState *old, LeadState *new)
{
	bool		equal;

	require_key(program, rel, old);
	require_key(program, rel, new);
	equal =
		DatumGetBool(FunctionCall2Coll(&program->key_equal, program->key_collation,
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
	if (same_status(program, old, new))
		return;

	if (new->stage < 0 ||
		(!old->status_isnull && !lc_model_move_is_legal(program->model, old->stage, new->stage)))
	{
		refuse_move(program, rel, row, old, old->stage,
					old->status_isnull ? NULL : lc_program_status_label(program, old->status),
					new->status_isnull ? NULL : lc_program_status_label(program, new->status));
		new->status = old->status;
		new->status_isnull = old->status_isnull;
		new->stage = old->stage;
		return;
	}
	if (old->status_isnull)
	{
		if (new->score_isnull)
		{
			new->score = 0;
			new->score_isnull = false;
		}
		decide_entry(program, row, new);
	}
	else
	{
		LcLastMove	last;

		catch_up(program, rel, oldrow, old, &last);
		set_move(new, last.seq + 1, time_of_move(program, old->key, last.at));
	}
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
		LeadState	lead;

		read_lead(program, trigdata->tg_trigslot, &lead);
		decide_insert(program, rel, trigdata->tg_trigslot, &lead);
		result = store_decision(program, rel, trigdata->tg_trigtuple, &lead);
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		LeadState	old;
		LcLastMove	last;

		read_lead(program, trigdata->tg_trigslot, &old);
		if (!old.key_isnull && !old.seq_isnull && old.stage >= 0)
			catch_up(program, rel, trigdata->tg_trigslot, &old, &last);
		result = trigdata->tg_trigtuple;
	}
	else
	{
		LeadState	old;
		LeadState	wanted;
		LeadState	new;

		read_lead(program, trigdata->tg_trigslot, &old);
		read_lead(program, trigdata->tg_newslot, &wanted);
		new = wanted;
		if (lc_history_operation(program) != LC_PUT_RIGHT)
			decide_update(program, rel, trigdata->tg_trigslot, trigdata->tg_newslot, &old, &new);
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
	LeadState	old;
	LeadState	new;
	LcLastMove	last;
	bool		moved;

	read_lead(program, oldrow, &old);
	read_lead(program, newrow, &new);
	require_key(program, rel, &old);
	require_key(program, rel, &new);
	moved = old.seq_isnull != new.seq_isnull || (!new.seq_isnull && old.seq != new.seq);
	if (same_status(program, &old, &new))
	{
		if (moved)
			reject_interference(program, rel, &old, "A move was made, and the status set back.");
		if (old.since_isnull != new.since_isnull || (!new.since_isnull && old.since != new.since))
			reject_interference(program, rel, &old, "The time or the number of the move was changed.");
		return;
	}
	if (!moved)
		reject_interference(program, rel, &old, "A later trigger set another status.");
	if (lc_history_has_ahead(program, new.key, new.seq, false))
		return;
	if (old.status_isnull)
	{
		record_entry(program, rel, newrow, &new, true);
		return;
	}
	if (!lc_model_move_is_legal(program->model, old.stage, new.stage))
		reject_interference(program, rel, &old, "The move that resulted is not legal.");
	check_stored(program, rel, &new,
				 lc_history_get(program, old.key, new.seq - 1, &last) ? &last : NULL);
	require_reason(program, rel, newrow, new.key, new.stage);
	record_move(program, newrow, &new, &last, true, new.stage, new.seq, new.since, "write");
}

/*
 * Record that a lead left the program.  One that never entered does not.
 */
static void
record_removal(LcProgram *program, TupleTableSlot *row)
{
	LeadState	old;
	LcLastMove	last;

	read_lead(program, row, &old);
	if (old.key_isnull ||
		(!old.seq_isnull && lc_history_has_ahead(program, old.key, old.seq + 1, true)))
		return;
	/* without a number it is in the history only as an adopted one says so */
	if (lc_history_last(program, old.key, &last) && last.to_status != NULL &&
		!(old.seq_isnull && last.own))
		record_move(program, row, &old, &last, true, LC_NO_STAGE, last.seq + 1,
					time_of_move(program, old.key, last.at), "delete");
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

	if (lc_history_operation(program) == LC_PUT_RIGHT)
	{
		/* no move, and nothing that was not checked */
	}
	else if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		LeadState	lead;

		read_lead(program, trigdata->tg_trigslot, &lead);
		require_key(program, rel, &lead);
		if (!lc_history_has_ahead(program, lead.key, lead.seq, false))
			record_entry(program, rel, trigdata->tg_trigslot, &lead, true);
	}
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
	LcProgram  *program = pin_for_trigger(fcinfo, "lead_statement", "FOR EACH STATEMENT", is_statement);

	if (TRIGGER_FIRED_BEFORE(((TriggerData *) fcinfo->context)->tg_event))
		lc_history_begin_statement(program);
	else
		lc_history_end_statement(program);
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
