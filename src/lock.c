/*-------------------------------------------------------------------------
 *
 * lock.c
 *	  The leads' rows, locked for what signals do to them.
 *
 * The lock is FOR NO KEY UPDATE, which foreign keys do not mind, and it is the
 * only one that writers of leads and signals share.  Rows are found as they are
 * committed now, in every isolation level; where another transaction changed one
 * while it was waited for, REPEATABLE READ and SERIALIZABLE fail as they would for
 * a SELECT ... FOR NO KEY UPDATE.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

static void
reject_concurrent_change(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
}

/*
 * Lock the row of the key.  Gives a copy of it as it is now, or NULL; "again" is
 * set where the row went while it was waited for, and another may have come.
 */
static HeapTuple
lock_row(LcProgram *program, LcKeyScan *scan, Datum key, Snapshot snapshot, bool *again)
{
	lc_key_scan_find(scan, key);
	while (lc_key_scan_next(scan))
	{
		ItemPointerData tid = scan->slot->tts_tid;
		TM_FailureData failure;
		bool		isnull;
		Datum		found;

		switch (table_tuple_lock(scan->rel, &tid, snapshot, scan->slot, GetCurrentCommandId(true),
								 LockTupleNoKeyExclusive, LockWaitBlock,
								 TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure))
		{
			case TM_Ok:
				if (failure.traversed)
					reject_concurrent_change();
				found = slot_getattr(scan->slot, program->key, &isnull);
				if (!isnull && DatumGetBool(FunctionCall2Coll(&program->key_equal, program->key_collation,
															  found, key)))
					return ExecCopySlotHeapTuple(scan->slot);
				break;
			case TM_Deleted:
			case TM_Updated:
				reject_concurrent_change();
				*again = true;
				break;
			case TM_SelfModified:
				break;
			default:
				elog(ERROR, "unexpected result of locking a row of \"%s\"", RelationGetRelationName(scan->rel));
		}
	}
	return NULL;
}

/* The same by statement, of tables that are more than one. */
static void
lock_by_statement(LcProgram *program, Datum *keys, int n, HeapTuple *rows)
{
	LcKeyOrder	order = lc_key_order(program);
	Oid			type = get_array_type(program->key_type);
	Datum		value = PointerGetDatum(lc_key_array(program, keys, n));
	Relation	rel = RelationIdGetRelation(program->root);
	char	   *sql = NULL;
	uint64		found;

	if (program->plans[LC_PLAN_LOCK] == NULL)
	{
		char	   *alias = lc_row_alias(program->root);
		char	   *key = psprintf("%s.%s", alias,
								   quote_identifier(get_attname(program->root, program->key, false)));

		sql = psprintf("SELECT %s FROM %s %s WHERE %s ORDER BY %s FOR NO KEY UPDATE", alias, program->name, alias,
					   lc_key_condition(program, key, "ANY ($1)"), key);
	}
	found = lc_plan_execute(program, LC_PLAN_LOCK, sql, program->owner, 1, &type, &value);
	for (uint64 r = 0; r < found; r++)
	{
		HeapTuple	row = palloc(sizeof(HeapTupleData));
		bool		isnull;
		Datum		key;
		Datum	   *place;

		lc_row_tuple(row, program->root,
					 DatumGetHeapTupleHeader(SPI_getbinval(SPI_tuptable->vals[r], SPI_tuptable->tupdesc, 1, &isnull)));
		key = heap_getattr(row, program->key, RelationGetDescr(rel), &isnull);
		place = bsearch_arg(&key, keys, n, sizeof(Datum), lc_key_compare, &order);
		if (place != NULL)
			rows[place - keys] = row;
	}
	RelationClose(rel);
}

/*
 * Lock the leads of the keys, which are in their order, each there once.  Gives
 * their rows as they are now, NULL where no lead has the key.  SPI is connected,
 * and the result is its.
 */
HeapTuple *
lc_lock_leads(LcProgram *program, Datum *keys, int n)
{
	HeapTuple  *rows = palloc0(n * sizeof(HeapTuple));
	Snapshot	snapshot;
	LcKeyScan	scan;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (get_rel_relkind(program->root) != RELKIND_RELATION || has_subclass(program->root) ||
		!lc_key_scan_begin(&scan, program->root, program->key, 1, RowShareLock, snapshot))
	{
		UnregisterSnapshot(snapshot);
		lock_by_statement(program, keys, n, rows);
		return rows;
	}
	for (int i = 0; i < n; i++)
	{
		bool		again = false;

		CHECK_FOR_INTERRUPTS();
		rows[i] = lock_row(program, &scan, keys[i], snapshot, &again);
		if (rows[i] == NULL && again)
		{
			lc_key_scan_end(&scan);
			UnregisterSnapshot(snapshot);
			snapshot = RegisterSnapshot(GetLatestSnapshot());
			if (!lc_key_scan_begin(&scan, program->root, program->key, 1, RowShareLock, snapshot))
				elog(ERROR, "the key of \"%s\" has no index any more", program->name);
			i--;
		}
	}
	lc_key_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return rows;
}
