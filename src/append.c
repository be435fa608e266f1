/*-------------------------------------------------------------------------
 *
 * append.c
 *	  Rows appended to a table of a user, without privilege checks and without
 *	  a plan: what the executor would do, as fast as COPY does it.
 *
 * Ordinary triggers, constraints, generated columns, identities and defaults of
 * the table are honoured, the triggers as the writer.  The guard of a history,
 * which refuses everybody's writes, is switched off in the copy of the trigger
 * list that the insertion uses, and nowhere else.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"

/*
 * The subtransaction in which BEFORE triggers of a history are firing right
 * now.  The row that they fire for is neither in the history nor not in it, so
 * no lead may move until they are done.
 */
static SubTransactionId firing_before = InvalidSubTransactionId;

/*
 * Whether the list has enabled triggers beside those of this extension.  The
 * list must be a copy: looking at the functions may reload the relation's own.
 */
bool
lc_has_users_triggers(TriggerDesc *triggers, bool after_only)
{
	if (triggers == NULL)
		return false;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		Trigger    *t = &triggers->triggers[i];

		if (t->tgenabled == TRIGGER_DISABLED)
			continue;
		if (after_only && (t->tgisinternal || !TRIGGER_FOR_AFTER(t->tgtype)))
			continue;
		if (get_func_namespace(t->tgfoid) != lc_schema())
			return true;
	}
	return false;
}

/*
 * Open the table for appending, in the current memory context.  The lock is
 * kept to the end of the transaction.
 */
LcAppender *
lc_append_open(Oid relid, bool has_triggers, bool has_constraints)
{
	LcAppender *a = palloc0(sizeof(LcAppender));
	TupleDesc	desc;

	a->rel = table_open(relid, RowExclusiveLock);
	if (a->rel->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a plain table", RelationGetRelationName(a->rel)),
				 errhint("Lifecycle writes plain tables only.")));
	a->estate = CreateExecutorState();
	/* the server allocates the struct: its size differs between minor releases */
	a->rri = ExecGetTriggerResultRel(a->estate, relid, NULL);
	ExecOpenIndices(a->rri, false);
	a->has_triggers = has_triggers;
	a->has_constraints = has_constraints;
	if (has_triggers)
	{
		/* the guard is for others; the list is this struct's own copy */
		for (int i = 0; i < a->rri->ri_TrigDesc->numtriggers; i++)
		{
			Trigger    *t = &a->rri->ri_TrigDesc->triggers[i];

			if (get_func_namespace(t->tgfoid) == lc_schema())
				t->tgenabled = TRIGGER_DISABLED;
		}
	}

	desc = RelationGetDescr(a->rel);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Node	   *expr;

		/* a default of the column, its identity, or a domain's default */
		if (att->attisdropped || att->attgenerated ||
			(!att->atthasdef && !att->attidentity && att->atttypid < FirstNormalObjectId))
			continue;
		if ((expr = build_column_default(a->rel, i + 1)) != NULL)
		{
			if (a->default_attno == NULL)
			{
				a->default_attno = palloc(desc->natts * sizeof(AttrNumber));
				a->default_state = palloc(desc->natts * sizeof(ExprState *));
			}
			a->default_attno[a->ndefaults] = i + 1;
			a->default_state[a->ndefaults++] = ExecPrepareExpr((Expr *) expr, a->estate);
		}
	}
	return a;
}

void
lc_append_close(LcAppender *a)
{
	ExecCloseIndices(a->rri);
	ExecResetTupleTable(a->estate->es_tupleTable, false);
	table_close(a->rri->ri_RelationDesc, NoLock);
	FreeExecutorState(a->estate);
	table_close(a->rel, NoLock);
	pfree(a);
}

/* An empty row to be filled in: NULLs, and the defaults of users' columns. */
void
lc_append_prepare(LcAppender *a, TupleTableSlot *slot)
{
	ExecClearTuple(slot);
	memset(slot->tts_values, 0, slot->tts_tupleDescriptor->natts * sizeof(Datum));
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (int i = 0; i < a->ndefaults; i++)
	{
		AttrNumber	attno = a->default_attno[i];

		slot->tts_values[attno - 1] =
			ExecEvalExprSwitchContext(a->default_state[i], GetPerTupleExprContext(a->estate),
									  &slot->tts_isnull[attno - 1]);
	}
}

/*
 * Insert the rows: what the executor would do with them, except for the
 * privilege check.  Rows are visible to the next command when this returns.
 */
void
lc_append_insert(LcAppender *a, TupleTableSlot **slots, int n)
{
	Relation	rel = a->rel;
	ResultRelInfo *rri = a->rri;
	TriggerDesc *triggers = a->has_triggers ? rri->ri_TrigDesc : NULL;
	TupleConstr *constr = a->has_constraints ? RelationGetDescr(rel)->constr : NULL;
	TransitionCaptureState *transition = NULL;
	CommandId	cid;

	if (triggers != NULL)
	{
		AfterTriggerBeginQuery();
		firing_before = GetCurrentSubTransactionId();
		ExecBSInsertTriggers(a->estate, rri);
		transition = MakeTransitionCaptureState(triggers, RelationGetRelid(rel), CMD_INSERT);
	}
	for (int i = 0; i < n; i++)
	{
		if (triggers != NULL && triggers->trig_insert_before_row &&
			!ExecBRInsertTriggers(a->estate, rri, slots[i]))
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("a trigger on \"%s\" suppressed a row", RelationGetRelationName(rel)),
					 errdetail("A move is recorded in the transaction that makes it, or not made."),
					 errhint("Raise an error in the trigger to refuse the move."),
					 errtable(rel)));
		slots[i]->tts_tableOid = RelationGetRelid(rel);
		if (constr != NULL && constr->has_generated_stored)
			ExecComputeStoredGenerated(rri, a->estate, slots[i], CMD_INSERT);
		if (constr != NULL)
			ExecConstraints(rri, slots[i], a->estate);
	}
	firing_before = InvalidSubTransactionId;
	cid = GetCurrentCommandId(true);
	if (n == 1)
		table_tuple_insert(rel, slots[0], cid, 0, NULL);
	else
	{
		BulkInsertState bulk = GetBulkInsertState();
		MemoryContext old = MemoryContextSwitchTo(GetPerTupleMemoryContext(a->estate));

		table_multi_insert(rel, slots, n, cid, 0, bulk);
		MemoryContextSwitchTo(old);
		FreeBulkInsertState(bulk);
	}
	for (int i = 0; i < n; i++)
	{
		List	   *recheck = NIL;

		if (rri->ri_NumIndices > 0)
			recheck = lc_insert_index_tuples(rri, slots[i], a->estate);
		if (triggers != NULL)
			ExecARInsertTriggers(a->estate, rri, slots[i], recheck, transition);
		list_free(recheck);
		ResetPerTupleExprContext(a->estate);
		CHECK_FOR_INTERRUPTS();
	}
	if (triggers != NULL)
	{
		ExecASInsertTriggers(a->estate, rri, transition);
		AfterTriggerEndQuery(a->estate);
	}
}

void
lc_append_set_text(TupleTableSlot *slot, AttrNumber attno, const text *value)
{
	slot->tts_values[attno - 1] = PointerGetDatum(value);
	slot->tts_isnull[attno - 1] = value == NULL;
}

void
lc_append_set(TupleTableSlot *slot, AttrNumber attno, Datum value, bool isnull)
{
	slot->tts_values[attno - 1] = value;
	slot->tts_isnull[attno - 1] = isnull;
}

/*
 * Whether BEFORE triggers are firing for a row that is about to be appended.
 */
bool
lc_append_is_firing(void)
{
	return firing_before != InvalidSubTransactionId;
}

/*
 * A subtransaction ends, or, with InvalidSubTransactionId, the transaction.
 */
void
lc_append_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent)
{
	if (mine == InvalidSubTransactionId || firing_before == mine)
		firing_before = commit ? parent : InvalidSubTransactionId;
}
