/*-------------------------------------------------------------------------
 *
 * record.c
 *	  What a lead's row and its history owe each other: entries, moves that are
 *	  due, leads that were there before us, changes that nobody saw.
 *
 * Nothing here trusts that the row is what our BEFORE trigger made of it, or
 * that the history is where the row left it: triggers of users fire in between,
 * others wait for the same key, tables are restored without each other.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

/*
 * The transaction that last decided on an entry of a key with a history.  What
 * it found may be gone when the entry is recorded: another one erased the lead.
 */
static LocalTransactionId continued_in = InvalidLocalTransactionId;

/*
 * The lead enters the program with the status it has.  Its number continues
 * where the history of its key ends.  Where the history says that the lead is
 * still there, either this row is not going to be stored (ON CONFLICT), or a
 * removal that is not committed or not recorded yet has the next number, and a
 * time that we cannot know but that is not later than the clock.
 */
void
lc_decide_entry(LcProgram *program, TupleTableSlot *row, LcLead *lead)
{
	LcLastMove	last;

	if (lc_history_is_beyond(program, lead->key, false) ||
		!lc_history_last(program, lead->key, &last))
	{
		lc_lead_set_move(lead, 1, lc_time_of_entry(program, row, lead->key, NULL));
		return;
	}
	continued_in = LcLocalTransactionId();
	if (last.to_status == NULL)
		lc_lead_set_move(lead, last.seq + 1, lc_time_of_entry(program, row, lead->key, &last));
	else
	{
		bool		is_set;
		TimestampTz at = lc_moment(program, &is_set);

		lc_lead_set_move(lead, last.seq + 2, Max(last.at, is_set ? at : GetCurrentTimestamp()));
	}
}

/*
 * Refuse a move into a stage that wants a reason and got none.  Asked of the
 * row as it was stored; and of people, not of rules, which are their own reason.
 */
void
lc_require_reason(LcProgram *program, Relation rel, TupleTableSlot *row, Datum key, int stage)
{
	LcStage    *s = &program->model->stages[stage];
	text	   *reason;
	AttrNumber	column;

	if (!s->reason_required)
		return;
	reason = lc_reason(program, row);
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

/* The row that was stored is not one that our BEFORE trigger let through. */
void
lc_reject_interference(LcProgram *program, Relation rel, const LcLead *lead, const char *detail)
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
void
lc_check_stored(LcProgram *program, Relation rel, const LcLead *lead, const LcLastMove *last)
{
	if (lead->stage < 0)
		lc_reject_interference(program, rel, lead, "The new status is not one of the model.");
	if (lead->seq_isnull || lead->seq != (last ? last->seq : 0) + 1 || lead->since_isnull ||
		(lead->since > GetCurrentTimestamp() && (last == NULL || lead->since > last->at)) ||
		(last != NULL && lead->since < last->at))
		lc_reject_interference(program, rel, lead, "The time or the number of the move was changed.");
}

/*
 * Put the time and the number of the lead's row right, by an UPDATE of our own
 * with the rights of the owner.  False where a trigger of that UPDATE wrote the
 * lead first, and so brought it into the history.
 *
 * A partition is written through the tracked table: that table's owner need
 * have no right on it, and only the tracked table is sure to have the statement
 * trigger that takes up what was announced.  The key is there for pruning.
 */
static bool
put_right(LcProgram *program, Relation rel, TupleTableSlot *row, const LcLead *lead)
{
	Oid			types[5] = {INT4OID, TIMESTAMPTZOID, TIDOID, OIDOID, InvalidOid};
	Datum		values[5];
	Oid			userid;
	int			sec_context;
	bool		done;
	bool		is_partition = program->root != RelationGetRelid(rel);
	StringInfoData sql;

	values[0] = Int32GetDatum(lead->seq);
	values[1] = TimestampTzGetDatum(lead->since);
	values[2] = PointerGetDatum(&row->tts_tid);
	values[3] = ObjectIdGetDatum(RelationGetRelid(rel));
	values[4] = lead->key;
	types[4] = program->key_type;
	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s%s SET lifecycle_seq = $1, lifecycle_since = $2"
					 " WHERE ctid OPERATOR(pg_catalog.=) $3",
					 is_partition ? "" : "ONLY ", program->name);
	if (is_partition)
	{
		Form_pg_attribute key = TupleDescAttr(RelationGetDescr(rel), program->key - 1);

		appendStringInfoString(&sql, " AND tableoid OPERATOR(pg_catalog.=) $4 AND ");
		generate_operator_clause(&sql, quote_identifier(NameStr(key->attname)), key->atttypid,
								 lookup_type_cache(key->atttypid, TYPECACHE_EQ_OPR)->eq_opr,
								 "$5", program->key_type);
	}
	lc_history_announce(program, LC_PUT_RIGHT, NULL);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(program->owner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	SPI_connect();
	if (SPI_execute_with_args(sql.data, is_partition ? 5 : 3, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not put lead %s of table \"%s\" right",
			 lc_program_key_text(program, lead->key, lead->key_isnull), program->name);
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
 * lead that had it, or erased it, history and all; then the row's number and
 * time, which were decided before, are put right.  By now the key is ours, and the history of it stands still.
 */
void
lc_record_entry(LcProgram *program, Relation rel, TupleTableSlot *row, const LcLead *stored,
				bool is_current)
{
	LcLead	lead = *stored;
	LcLastMove	last;
	bool		has_last = !(is_current && lc_history_is_beyond(program, lead.key, true)) &&
		lc_history_last(program, lead.key, &last);
	int32		decided = lead.seq;
	int32		expected;
	const char *rule;

	expected = !has_last ? 1 : last.seq + (last.to_status == NULL ? 1 : 2);
	if (!lead.seq_isnull && !lead.since_isnull &&
		(has_last ? lead.seq != expected || lead.since < last.at :
		 lead.seq > expected && continued_in == LcLocalTransactionId()))
	{
		if (!is_current)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent entry and removal of a lead"),
					 errhint("The transaction might succeed if retried.")));
		lead.seq = expected;
		if (has_last)
			lead.since = Max(lead.since, last.at);
		if (!put_right(program, rel, row, &lead))
			return;
	}
	if (has_last && last.to_status != NULL)
	{
		bool		is_set;
		TimestampTz left = Max(lc_moment(program, &is_set), last.at);

		lc_history_note_ahead();
		lc_record_move(program, row, &lead, &last, true, LC_NO_STAGE, last.seq + 1,
					   Min(left, lead.since), "delete", NULL, NULL);
	}
	lc_check_stored(program, rel, &lead, has_last ? &last : NULL);
	(void) lc_decision_take(program, &lead, decided, row, &rule);
	if (rule == NULL)
		lc_require_reason(program, rel, row, lead.key, lead.stage);
	lc_record_move(program, row, &lead, &last, has_last, lead.stage, lead.seq, lead.since, "entry", rule, NULL);
}

/*
 * Record a correction.  The visit that it closes is void, so that what the lead
 * has reached is folded anew from what is left.  Its reason is the one that was
 * given for it; it counts for stages that require one.
 */
void
lc_record_correction(LcProgram *program, TupleTableSlot *row, const LcLead *lead, LcLastMove *last,
					 const char *reason)
{
	LcClaim		claim;

	claim.actor = lc_actor(program, row);
	claim.reason = reason ? cstring_to_text(reason) : NULL;
	last->reached = lc_history_reached(program, lead->key, last->seq);
	lc_record_move(program, row, lead, last, true, lead->stage, lead->seq, lead->since,
				   "correction", NULL, &claim);
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
record_due(LcProgram *program, Relation rel, TupleTableSlot *row, const LcLead *lead,
		   LcLastMove *last)
{
	int32		ahead = lead->seq - (last ? last->seq : 0);
	bool		is_there = last != NULL && last->to_status != NULL;
	const char *claimed;
	const char *cause;
	const char *rule;

	/* a move, an entry, or a removal and an entry may be due */
	if (lead->seq_isnull || lead->since_isnull || lead->stage < 0 ||
		(ahead != 1 && !(ahead == 2 && is_there)) || !is_own(row))
		return false;
	lc_history_note_ahead();
	if (ahead == 1 && is_there && lc_history_is_correction(program, lead->key, lead->seq, &claimed))
		lc_record_correction(program, row, lead, last, claimed);
	else if (ahead == 1 && is_there)
	{
		cause = lc_decision_take(program, lead, lead->seq, row, &rule);
		lc_record_move(program, row, lead, last, true, lead->stage, lead->seq, lead->since, cause, rule, NULL);
	}
	else
		lc_record_entry(program, rel, row, lead, false);
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
void
lc_catch_up(LcProgram *program, Relation rel, TupleTableSlot *row, const LcLead *lead,
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
	now = lc_time_of_move(program, lead->key, has_last ? last->at : DT_NOBEGIN);
	/* where the row knows since when it is what it is, believe it */
	if (!lead->since_isnull && lead->since <= now && (!has_last || lead->since >= last->at))
		now = lead->since;
	if ((!has_last || last->to_status == NULL) && !lead->seq_isnull && is_own(row))
	{
		const char *rule;

		/* overtaken on its way in, and met again before it was recorded */
		lc_history_note_ahead();
		(void) lc_decision_take(program, lead, lead->seq, row, &rule);
		lc_record_move(program, row, lead, last, has_last, lead->stage,
					   has_last ? last->seq + 1 : 1,
					   has_last ? Max(lead->since, last->at) : lead->since, "entry", rule, NULL);
	}
	else if (!has_last || last->to_status == NULL)
	{
		TimestampTz entered = now;

		if (program->entered != NULL)
			entered = Min(lc_time_of_entry(program, row, lead->key, has_last ? last : NULL), now);
		lc_record_move(program, row, lead, last, has_last, program->model->first,
					   has_last ? last->seq + 1 : 1, entered, "backfill", NULL, NULL);
	}
	if (VARSIZE_ANY_EXHDR(last->to_status) != VARSIZE_ANY_EXHDR(stage->label) ||
		memcmp(VARDATA_ANY(last->to_status), VARDATA_ANY(stage->label),
			   VARSIZE_ANY_EXHDR(stage->label)) != 0)
		lc_record_move(program, row, lead, last, true, lead->stage, last->seq + 1, now, "backfill", NULL, NULL);
}
