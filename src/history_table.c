/*-------------------------------------------------------------------------
 *
 * history_table.c
 *	  The table of a history: its columns, rows put in and found by the primary
 *	  key, everybody else kept out; and the table of the moves that were refused.
 *
 * Look-ups use SnapshotSelf: what is committed now, and all that this
 * transaction did, the running command included.  A transaction snapshot would
 * hide a move that was committed after it, under REPEATABLE READ until the
 * end.  Rows of a history do not change, so that there is nothing inconsistent
 * that such a scan could see.
 *
 *-------------------------------------------------------------------------
 */
#include "flow.h"
#include "history.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_guard_history);

/* Our columns of a history, in the order of LcMove. */
typedef enum HistoryColumn
{
	H_LEAD, H_SEQ, H_CYCLE, H_FROM_STATUS, H_FROM_SINCE, H_TO_STATUS, H_AT, H_CAUSE,
	H_RULE, H_ACTOR, H_SESSION_USER_NAME, H_REASON, H_DEMOGRAPHIC_SCORE, H_BEHAVIOR_SCORE,
	H_SOURCE, H_COHORT, H_VALUE, H_ENTERED_AT, H_CYCLE_SINCE, H_REACHED, H_RECORDED_AT
} HistoryColumn;

static const LcNeededColumn history_columns[LC_HISTORY_COLUMNS] =
{
	{"lead", InvalidOid}, {"seq", INT4OID}, {"cycle", INT4OID}, {"from_status", TEXTOID},
	{"from_since", TIMESTAMPTZOID}, {"to_status", TEXTOID}, {"at", TIMESTAMPTZOID},
	{"cause", TEXTOID}, {"rule", TEXTOID}, {"actor", TEXTOID}, {"session_user_name", TEXTOID},
	{"reason", TEXTOID}, {"demographic_score", FLOAT8OID}, {"behavior_score", FLOAT8OID},
	{"source", TEXTOID}, {"cohort", INT4OID}, {"value", NUMERICOID},
	{"entered_at", TIMESTAMPTZOID}, {"cycle_since", TIMESTAMPTZOID}, {"reached", TEXTARRAYOID},
	{"recorded_at", TIMESTAMPTZOID},
};

static const LcNeededColumn refused_columns[LC_REFUSED_COLUMNS] =
{
	{"lead", InvalidOid}, {"from_status", TEXTOID}, {"to_status", TEXTOID},
	{"at", TIMESTAMPTZOID}, {"actor", TEXTOID},
};

/*
 * Where the columns are that we write, which must be of the types that we
 * write: the owner can change them by DDL.
 */
static void
find_columns(LcProgram *program, Relation rel, const LcNeededColumn *needed, int n, AttrNumber *attno)
{
	char	   *name = lc_table_name(RelationGetRelid(rel));

	for (int i = 0; i < n; i++)
	{
		Oid			type = OidIsValid(needed[i].type) ? needed[i].type : program->key_type;

		attno[i] = get_attnum(RelationGetRelid(rel), needed[i].name);
		if (attno[i] <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of table \"%s\" does not exist", needed[i].name, name),
					 errdetail("Lifecycle writes it for table \"%s\".", program->name),
					 errhint("Give the column its name back."),
					 errtable(rel)));
		if (TupleDescAttr(RelationGetDescr(rel), attno[i] - 1)->atttypid != type)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of table \"%s\" is not of type %s",
							needed[i].name, name, format_type_be(type)),
					 OidIsValid(needed[i].type) ?
					 errdetail("Lifecycle writes it for table \"%s\".", program->name) :
					 errdetail("It holds the keys of table \"%s\".", program->name),
					 errhint("ALTER TABLE %s ALTER COLUMN %s TYPE %s.", name,
							 quote_identifier(needed[i].name), format_type_be(type)),
					 errtable(rel)));
	}
}

/*
 * Find out once per program what its tables are like.  A change of any of them
 * makes the program stale.
 */
void
lc_history_table_learn(LcProgram *program)
{
	Relation	refused = try_table_open(program->refused, RowExclusiveLock);
	Relation	rel = try_table_open(program->history, RowExclusiveLock);
	Relation	pending = try_table_open(program->pending, RowExclusiveLock);
	Relation	leads;
	TriggerDesc *triggers;
	TupleConstr *constr;

	if (refused == NULL || rel == NULL || pending == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("history of table \"%s\" does not exist", program->name),
				 errhint("Call lifecycle.untrack() and lifecycle.track() to begin a new one.")));
	find_columns(program, rel, history_columns, LC_HISTORY_COLUMNS, program->history_attno);
	find_columns(program, refused, refused_columns, LC_REFUSED_COLUMNS, program->refused_attno);
	find_columns(program, pending, &lc_flow_columns[F_KIND], LC_FLOW_COLUMNS - F_KIND,
				 &program->pending_attno[F_KIND]);
	table_close(pending, NoLock);
	table_close(refused, NoLock);
	triggers = CopyTriggerDesc(rel->trigdesc);
	program->history_has_triggers = lc_has_users_triggers(triggers, false);
	constr = RelationGetDescr(rel)->constr;
	program->users_look =
		(program->history_has_triggers && triggers->trig_insert_before_row) ||
		(constr != NULL && constr->num_defval > 0);
	/* what we write satisfies the constraints that track() made */
	program->history_has_constraints = constr != NULL &&
		(constr->num_check > 0 || constr->has_generated_stored ||
		 RelationGetDescr(rel)->natts > LC_HISTORY_COLUMNS);
	table_close(rel, NoLock);

	leads = table_open(program->relid, NoLock);
	program->users_look = program->users_look || lc_has_users_triggers(CopyTriggerDesc(leads->trigdesc), true);
	table_close(leads, NoLock);
	lc_partition_learn(program);
	program->history_known = true;
}

/* Open a history that is known: in the current memory context. */
LcHistoryTable *
lc_history_table_open_known(Oid relid, const AttrNumber *attno, bool has_triggers, bool has_constraints)
{
	LcHistoryTable *h = palloc0(sizeof(LcHistoryTable));

	h->appender = lc_append_open(relid, has_triggers, has_constraints);
	memcpy(h->attno, attno, sizeof(h->attno));
	h->session_user_name = CStringGetTextDatum(GetUserNameFromId(GetSessionUserId(), false));
	return h;
}

LcHistoryTable *
lc_history_table_open(LcProgram *program)
{
	if (!program->history_known)
		lc_history_table_learn(program);
	return lc_history_table_open_known(program->history, program->history_attno,
							  program->history_has_triggers, program->history_has_constraints);
}

void
lc_history_table_close(LcHistoryTable *h)
{
	if (h->scan != NULL)
	{
		index_endscan(h->scan);
		index_close(h->pkey, NoLock);
		ExecDropSingleTupleTableSlot(h->found);
	}
	lc_append_close(h->appender);
	pfree(h);
}

/* Put a copy of the move into the slot. */
void
lc_history_table_fill(LcHistoryTable *h, TupleTableSlot *slot, const LcMove *move)
{
	const AttrNumber *a = h->attno;

	lc_append_prepare(h->appender, slot);
	lc_append_set(slot, a[H_LEAD], move->lead, false);
	lc_append_set(slot, a[H_SEQ], Int32GetDatum(move->seq), false);
	lc_append_set(slot, a[H_CYCLE], Int32GetDatum(move->cycle), false);
	lc_append_set_text(slot, a[H_FROM_STATUS], move->from_status);
	lc_append_set(slot, a[H_FROM_SINCE], TimestampTzGetDatum(move->from_since), move->from_status == NULL);
	lc_append_set_text(slot, a[H_TO_STATUS], move->to_status);
	lc_append_set(slot, a[H_AT], TimestampTzGetDatum(move->at), false);
	lc_append_set_text(slot, a[H_CAUSE], cstring_to_text(move->cause));
	lc_append_set_text(slot, a[H_RULE], move->rule ? cstring_to_text(move->rule) : NULL);
	lc_append_set_text(slot, a[H_ACTOR], move->actor);
	lc_append_set(slot, a[H_SESSION_USER_NAME], h->session_user_name, false);
	lc_append_set_text(slot, a[H_REASON], move->reason);
	lc_append_set(slot, a[H_DEMOGRAPHIC_SCORE], Float8GetDatum(move->demographic_score),
				  move->demographic_score_isnull);
	lc_append_set(slot, a[H_BEHAVIOR_SCORE], Float8GetDatum(move->behavior_score), false);
	lc_append_set(slot, a[H_SOURCE], move->source, move->source_isnull);
	lc_append_set(slot, a[H_COHORT], Int32GetDatum(move->cohort), move->cohort_isnull);
	lc_append_set(slot, a[H_VALUE], move->value, move->value_isnull);
	lc_append_set(slot, a[H_ENTERED_AT], TimestampTzGetDatum(move->entered_at), false);
	lc_append_set(slot, a[H_CYCLE_SINCE], TimestampTzGetDatum(move->cycle_since), false);
	lc_append_set(slot, a[H_REACHED], PointerGetDatum(move->reached), false);
	lc_append_set(slot, a[H_RECORDED_AT], TimestampTzGetDatum(GetCurrentTimestamp()), false);
	ExecStoreVirtualTuple(slot);
	/* the values may be in memory that the next evaluation reuses */
	ExecMaterializeSlot(slot);
}

/*
 * Insert into the history.  Two moves of one lead with one number can only
 * meet where another transaction entered and removed the same key while this
 * one waited for it: then this transaction has come too late, and may retry.
 */
void
lc_history_table_insert(LcHistoryTable *h, TupleTableSlot **slots, int n)
{
	MemoryContext cxt = CurrentMemoryContext;

	PG_TRY();
	{
		lc_append_insert(h->appender, slots, n);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION || error->constraint_name == NULL ||
			h->appender->rel->rd_pkindex == InvalidOid ||
			strcmp(error->constraint_name, get_rel_name(h->appender->rel->rd_pkindex)) != 0)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent entry and removal of a lead"),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 errhint("The transaction might succeed if retried.")));
	}
	PG_END_TRY();
}

/* Copy out of the slot what the next move needs. */
static void
read_last(LcHistoryTable *h, TupleTableSlot *slot, LcLastMove *last)
{
	const AttrNumber *a = h->attno;
	bool		isnull;
	Datum		d;

	last->own = TransactionIdIsCurrentTransactionId(
		DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull)));
	d = slot_getattr(slot, a[H_CAUSE], &isnull);
	last->correction = strcmp(TextDatumGetCString(d), "correction") == 0;
	last->backfill = strcmp(TextDatumGetCString(d), "backfill") == 0;
	last->seq = DatumGetInt32(slot_getattr(slot, a[H_SEQ], &isnull));
	last->cycle = DatumGetInt32(slot_getattr(slot, a[H_CYCLE], &isnull));
	d = slot_getattr(slot, a[H_FROM_STATUS], &isnull);
	last->from_status = isnull ? NULL : DatumGetTextPCopy(d);
	d = slot_getattr(slot, a[H_TO_STATUS], &isnull);
	last->to_status = isnull ? NULL : DatumGetTextPCopy(d);
	last->at = DatumGetTimestampTz(slot_getattr(slot, a[H_AT], &isnull));
	d = slot_getattr(slot, a[H_SOURCE], &last->source_isnull);
	last->source = last->source_isnull ? (Datum) 0 : PointerGetDatum(DatumGetTextPCopy(d));
	last->cohort = DatumGetInt32(slot_getattr(slot, a[H_COHORT], &last->cohort_isnull));
	last->entered_at = DatumGetTimestampTz(slot_getattr(slot, a[H_ENTERED_AT], &isnull));
	last->cycle_since = DatumGetTimestampTz(slot_getattr(slot, a[H_CYCLE_SINCE], &isnull));
	last->reached = DatumGetArrayTypePCopy(slot_getattr(slot, a[H_REACHED], &isnull));
	last->recorded = last->reached;
}

/*
 * Open the scan by which moves are found: on the primary key, for one lead and
 * one number, or for one lead and any number.
 */
static void
open_scan(LcHistoryTable *h)
{
	Relation	rel = h->appender->rel;
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(h));
	Oid			family;
	Oid			type;
	Oid			equal;

	list_free(RelationGetIndexList(rel));
	if (OidIsValid(rel->rd_pkindex))
		h->pkey = index_open(rel->rd_pkindex, AccessShareLock);
	if (h->pkey == NULL || h->pkey->rd_index->indnkeyatts != 2 ||
		h->pkey->rd_index->indkey.values[0] != h->attno[H_LEAD] ||
		h->pkey->rd_index->indkey.values[1] != h->attno[H_SEQ])
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("history \"%s\" has no primary key (lead, seq)", RelationGetRelationName(rel)),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (lead, seq).",
						 lc_table_name(RelationGetRelid(rel))),
				 errtable(rel)));
	family = h->pkey->rd_opfamily[0];
	type = h->pkey->rd_opcintype[0];
	equal = get_opfamily_member(family, type, type, BTEqualStrategyNumber);
	ScanKeyEntryInitialize(&h->by_seq[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   h->pkey->rd_indcollation[0], get_opcode(equal), (Datum) 0);
	h->any_seq[0] = h->by_seq[0];
	ScanKeyInit(&h->by_seq[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(0));
	ScanKeyInit(&h->any_seq[1], 2, BTGreaterStrategyNumber, F_INT4GT, Int32GetDatum(0));
	h->scan = lc_index_beginscan(rel, h->pkey, SnapshotSelf, 2);
	h->found = table_slot_create(rel, NULL);
	MemoryContextSwitchTo(old);
}

/* Find the lead's move with that number, or, for 0, its last one. */
bool
lc_history_table_find(LcHistoryTable *h, Datum lead, int32 seq, LcLastMove *last)
{
	ScanKey		keys;
	bool		found;
	MemoryContext old;

	if (h->scan == NULL)
		open_scan(h);
	/* what the scan remembers between calls must live as long as the scan */
	old = MemoryContextSwitchTo(GetMemoryChunkContext(h));
	keys = seq > 0 ? h->by_seq : h->any_seq;
	keys[0].sk_argument = lead;
	if (seq > 0)
		keys[1].sk_argument = Int32GetDatum(seq);
	index_rescan(h->scan, keys, 2, NULL, 0);
	found = index_getnext_slot(h->scan, seq > 0 ? ForwardScanDirection : BackwardScanDirection,
							   h->found);
	MemoryContextSwitchTo(old);
	if (found)
		read_last(h, h->found, last);
	ExecClearTuple(h->found);
	return found;
}

/*
 * The greatest lead of the history, as the order of its primary key goes, copied
 * into that memory; false where there is none.  What is dead or not committed
 * counts, so that none can be greater.
 */
bool
lc_history_table_greatest(LcHistoryTable *h, LcProgram *program, MemoryContext cxt, Datum *lead)
{
	IndexScanDesc scan;
	bool		found;

	if (h->scan == NULL)
		open_scan(h);
	scan = lc_index_beginscan(h->appender->rel, h->pkey, SnapshotAny, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	found = index_getnext_slot(scan, BackwardScanDirection, h->found);
	if (found)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		bool		isnull;

		*lead = datumCopy(slot_getattr(h->found, h->attno[H_LEAD], &isnull), program->key_by_value, program->key_length);
		MemoryContextSwitchTo(old);
	}
	ExecClearTuple(h->found);
	index_endscan(scan);
	return found;
}

/*
 * Record a move that was not let through.
 */
void
lc_history_refuse(LcProgram *program, Datum lead, const char *from_status,
				  const char *to_status, TimestampTz at, text *actor)
{
	const AttrNumber *attno = program->refused_attno;
	LcAppender *a;
	TupleTableSlot *slot;
	Relation	rel;

	if (!program->history_known)
		lc_history_table_learn(program);
	rel = table_open(program->refused, RowExclusiveLock);
	a = lc_append_open(program->refused, lc_has_users_triggers(CopyTriggerDesc(rel->trigdesc), false), true);
	table_close(rel, NoLock);
	slot = table_slot_create(a->rel, NULL);
	lc_append_prepare(a, slot);
	lc_append_set(slot, attno[0], lead, false);
	lc_append_set_text(slot, attno[1], from_status ? cstring_to_text(from_status) : NULL);
	lc_append_set_text(slot, attno[2], to_status ? cstring_to_text(to_status) : NULL);
	lc_append_set(slot, attno[3], TimestampTzGetDatum(at), false);
	lc_append_set_text(slot, attno[4], actor);
	ExecStoreVirtualTuple(slot);
	lc_append_insert(a, &slot, 1);
	ExecDropSingleTupleTableSlot(slot);
	lc_append_close(a);
}

/* ---- the guard ---- */

/*
 * BEFORE STATEMENT trigger of a history: nobody writes it but we, and we do not
 * fire it.  Its owner can take the guard off, by DDL; by no ordinary write.
 */
Datum
lifecycle_guard_history(PG_FUNCTION_ARGS)
{
	Relation	rel;

	lc_require_trigger(fcinfo, "guard_history");
	rel = ((TriggerData *) fcinfo->context)->tg_relation;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("history \"%s\" cannot be written", RelationGetRelationName(rel)),
			 errdetail("A move is recorded by the statement that makes it, and stays."),
			 errhint("Change the status of the lead instead."),
			 errtable(rel)));
	return PointerGetDatum(NULL);
}
