/*-------------------------------------------------------------------------
 *
 * move.c
 *	  One move of a lead: when it happened, who made it and why, in which cycle
 *	  it is; from the lead's row and its last move to a row of history.
 *
 * What asks for a move and whether it may be made is not decided here.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

/*
 * What the row says of the lead.
 */
void
lc_lead_read(LcProgram *program, TupleTableSlot *slot, LcLead *lead)
{
	lead->key = slot_getattr(slot, program->key, &lead->key_isnull);
	lead->status = slot_getattr(slot, program->status, &lead->status_isnull);
	lead->stage = lc_program_stage(program, lead->status, lead->status_isnull);
	lead->since = DatumGetTimestampTz(slot_getattr(slot, program->since, &lead->since_isnull));
	lead->seq = DatumGetInt32(slot_getattr(slot, program->seq, &lead->seq_isnull));
	lead->score = DatumGetFloat8(slot_getattr(slot, program->score, &lead->score_isnull));
}

/*
 * Note in the row's state that a move was made.
 */
void
lc_lead_set_move(LcLead *lead, int32 seq, TimestampTz at)
{
	lead->seq = seq;
	lead->seq_isnull = false;
	lead->since = at;
	lead->since_isnull = false;
}

/* ---- time ---- */

/*
 * The instant at which this transaction's moves happen: now(), or the
 * lifecycle.at of a replay.  A date is a claim about the past of the table, so
 * only those who could rewrite that past anyway may make it; and nobody may
 * claim to know the future.
 */
TimestampTz
lc_moment(LcProgram *program, bool *is_set)
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
TimestampTz
lc_time_of_move(LcProgram *program, Datum key, TimestampTz last)
{
	bool		is_set;
	TimestampTz at = lc_moment(program, &is_set);

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
TimestampTz
lc_time_of_entry(LcProgram *program, TupleTableSlot *row, Datum key, const LcLastMove *last)
{
	bool		is_set;
	TimestampTz now = lc_moment(program, &is_set);
	bool		isnull;
	TimestampTz entered = DatumGetTimestampTz(lc_expr_eval(program->entered, row, &isnull));

	if (isnull || entered > now || TIMESTAMP_NOT_FINITE(entered))
		return last != NULL ? lc_time_of_move(program, key, last->at) : now;
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

text *
lc_actor(LcProgram *program, TupleTableSlot *row)
{
	return text_of(program->actor, lc_setting_actor(), row);
}

text *
lc_reason(LcProgram *program, TupleTableSlot *row)
{
	return text_of(program->reason, lc_setting_reason(), row);
}

/*
 * Whether the lead begins anew as far as its signals are concerned: it leaves
 * the path for a status that says so, or the program.  Corrections do not count.
 */
static bool
is_restart(LcProgram *program, const LcLastMove *last, bool has_last, int to, const char *cause)
{
	int			from;

	if (!OidIsValid(program->behavior) || !has_last || last->to_status == NULL ||
		strcmp(cause, "correction") == 0)
		return false;
	if (to < 0)
		return true;
	if (!program->model->stages[to].resets_behavior || program->model->stages[to].rank > 0)
		return false;
	from = lc_model_stage(program->model, VARDATA_ANY(last->to_status),
						  VARSIZE_ANY_EXHDR(last->to_status));
	return from >= 0 && program->model->stages[from].rank > 0;
}

/*
 * A correction voids the visit that the last move opened: what that move was to
 * the flow is to be taken back.  What is left of what the lead reached is in
 * last->reached.
 */
static void
count_voided(LcProgram *program, Datum lead, const LcLastMove *last, LcCounted *counted)
{
	LcLastMove	before;

	if (last->to_status == NULL)
		return;
	counted->voids = true;
	counted->voided_at = last->at;
	counted->voided_from = last->from_status;
	counted->voided_new = last->reached == NULL || !lc_reached_has(last->reached, last->to_status);
	counted->voided_entered = !last->correction && !last->backfill;
	counted->voided_left = counted->voided_entered && last->from_status != NULL &&
		!(lc_history_get(program, lead, last->seq - 1, &before) && before.backfill);
}

/*
 * Append the lead's next move to its history.  "last" is its last move, or
 * NULL; "to" is LC_NO_STAGE for a removal.  On return, where there was a last
 * move, it is the one just made.
 */
void
lc_record_move(LcProgram *program, TupleTableSlot *row, const LcLead *lead, LcLastMove *last,
			   bool has_last, int to, int32 seq, TimestampTz at, const char *cause,
			   const char *rule, const LcClaim *claim)
{
	LcModel    *model = program->model;
	LcMove		move = {0};
	text	   *label = to >= 0 ? model->stages[to].label : NULL;
	bool		corrects = strcmp(cause, "correction") == 0;
	bool		found = strcmp(cause, "backfill") == 0;

	move.lead = lead->key;
	move.seq = seq;
	move.to_status = label;
	move.at = at;
	move.cause = cause;
	move.rule = rule;
	move.actor = claim != NULL ? claim->actor : lc_actor(program, row);
	move.reason = claim != NULL ? claim->reason : lc_reason(program, row);
	move.demographic_score = lead->score;
	move.demographic_score_isnull = lead->score_isnull;
	move.behavior_score = lc_behavior_score(program, lead->key, at);
	move.value = lc_expr_eval(program->value, row, &move.value_isnull);

	move.counted.enters = label != NULL && !corrects && !found;
	move.counted.leaves = has_last && last->to_status != NULL && !corrects && !found && !last->backfill;
	move.counted.is_new = label != NULL &&
		!(has_last && last->reached != NULL && lc_reached_has(last->reached, label));
	if (has_last)
	{
		move.counted.reached_before = last->recorded;
		move.counted.cycle_before = last->cycle;
		if (corrects)
			count_voided(program, lead->key, last, &move.counted);
	}
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
			new_cycle = !corrects &&
				(from < 0 || model->stages[from].rank == 0) && model->stages[to].rank > 0 && lc_model_touches_path(model, last->reached);
		}
		if (new_cycle)
		{
			last->cycle++;
			last->cycle_since = at;
		}
		last->reached = last->reached == NULL ? model->stages[to].alone :
			lc_reached_add(last->reached, label, new_cycle);
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

	if (is_restart(program, last, has_last, to, cause))
		lc_behavior_restart(program, lead->key, at);

	last->seq = seq;
	last->correction = corrects;
	last->backfill = found;
	last->from_status = move.from_status;
	last->to_status = label;
	last->at = at;
	last->recorded = last->reached;
}

