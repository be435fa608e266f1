/*-------------------------------------------------------------------------
 *
 * import.c
 *	  import_history(): the dated moves that somebody else kept become history.
 *
 * The user's query is read once and its rows sorted by lead, time and place.
 * Then it goes lead by lead, in batches: lock the rows of the leads, read their
 * last moves, record what follows them, and let the rows follow by one UPDATE.
 *
 * Leads are locked in the order of their keys, FOR NO KEY UPDATE as any writer
 * of a lead does, before their last moves are read with a latest snapshot.  So
 * what is read stays true until the transaction ends, and imports and
 * backfills, which walk the keys in the same order, cannot deadlock with each
 * other.  Under REPEATABLE READ a lead that was changed since the snapshot is an
 * error 40001, as for an UPDATE.
 *
 * The query and the writes run as the caller, who owns the table or could act
 * as its owner; our own statements name every object with its schema and every
 * operator, since they run under the caller's search path, which triggers of
 * the lead table may need.
 *
 * Memory: sort and batch spill to disk; what else is held is bounded by the
 * leads of one batch.
 *
 *-------------------------------------------------------------------------
 */
#include "import.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(lifecycle_import_history);

#define BATCH_LEADS 1000		/* locked and updated at a time */
#define MOVES_IN_MEMORY 1000	/* of one lead, before what they left is freed */

/* A table that holds leads: the lead table, or a partition of it. */
typedef struct LeadTable
{
	Relation	rel;
	LcProgram  *program;
	TupleTableSlot *slot;
} LeadTable;

/* A lead of the batch. */
typedef struct ImportedLead
{
	Datum		key;
	int64		nrows;			/* that the query gave for it */
	LeadTable  *table;			/* NULL: no such lead */
	ItemPointerData tid;
	bool		has_last;
	LcLastMove	last;
	bool		follows;		/* its row is to be updated */
	int			stage;
} ImportedLead;

/* ---- our statements ---- */

/* The operator as SQL text that means it under any search path. */
static char *
qualified_operator(Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	result = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					  NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Prepare the two statements on the lead table.  They are planned without a
 * look at the arrays: for a few keys by the index, however many there are, since
 * the next batch comes from the next part of it.
 */
static void
prepare_statements(LcImport *import, Relation rel)
{
	LcProgram  *program = import->program;
	TupleDesc	desc = RelationGetDescr(rel);
	char	   *table = lc_table_name(RelationGetRelid(rel));
	const char *key = quote_identifier(NameStr(TupleDescAttr(desc, program->key - 1)->attname));
	const char *status = quote_identifier(NameStr(TupleDescAttr(desc, program->status - 1)->attname));
	char	   *equal = qualified_operator(lookup_type_cache(import->key_type, TYPECACHE_EQ_OPR)->eq_opr);
	char	   *collate = OidIsValid(program->key_collation) ?
		psprintf(" COLLATE %s", generate_collation_name(program->key_collation)) : pstrdup("");
	Oid			types[4];

	types[0] = import->one_by_one ? import->key_type : get_array_type(import->key_type);
	types[1] = get_array_type(program->status_type);
	types[2] = TIMESTAMPTZARRAYOID;
	types[3] = INT4ARRAYOID;
	import->lock = SPI_prepare_cursor(
		psprintf("SELECT l.%s, l.tableoid, l.ctid FROM %s AS l WHERE l.%s %s %s ($1%s)"
				 " ORDER BY l.%s FOR NO KEY UPDATE OF l",
				 key, table, key, equal, import->one_by_one ? "" : "ANY", collate, key),
		1, types, CURSOR_OPT_GENERIC_PLAN);
	import->update = SPI_prepare_cursor(
		psprintf("UPDATE %s AS l SET %s = u.status, lifecycle_since = u.since, lifecycle_seq = u.seq,"
				 " demographic_score = COALESCE(l.demographic_score, 0)"
				 " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)%s"
				 " WHERE l.%s %s %s%s"
				 " RETURNING l.%s, l.%s::pg_catalog.text OPERATOR(pg_catalog.=) u.status::pg_catalog.text"
				 " AND l.lifecycle_since OPERATOR(pg_catalog.=) u.since"
				 " AND l.lifecycle_seq OPERATOR(pg_catalog.=) u.seq",
				 table, status,
				 import->one_by_one ? ") AS u (status, since, seq)" :
				 ", pg_catalog.unnest($1)) AS u (status, since, seq, key)",
				 key, equal, import->one_by_one ? "$1" : "u.key", collate, key, status),
		4, types, CURSOR_OPT_GENERIC_PLAN);
	if (import->lock == NULL || import->update == NULL)
		elog(ERROR, "could not prepare statements on %s: %s", table, SPI_result_code_string(SPI_result));
}

static Datum
array_of(Datum *values, int n, Oid type)
{
	int16		len;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &len, &byval, &align);
	return PointerGetDatum(construct_array(values, n, type, len, byval, align));
}

/* The table that holds a lead, open, and its program, pinned, for all of the import. */
static LeadTable *
lead_table(LcImport *import, Oid relid)
{
	MemoryContext old;
	LeadTable  *table;
	ListCell   *cell;

	foreach(cell, import->tables)
	{
		table = lfirst(cell);
		if (RelationGetRelid(table->rel) == relid)
			return table;
	}
	old = MemoryContextSwitchTo(import->cxt);
	table = palloc(sizeof(LeadTable));
	table->rel = table_open(relid, RowExclusiveLock);
	table->program = lc_program_pin(relid);
	if (table->program == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not tracked", RelationGetRelationName(table->rel))));
	table->slot = table_slot_create(table->rel, NULL);
	import->tables = lappend(import->tables, table);
	MemoryContextSwitchTo(old);
	return table;
}

/* ---- a batch ---- */

/*
 * Lock the rows of the batch's leads, in the order of their keys, and note
 * where they are.
 */
static void
lock_leads(LcImport *import)
{
	Datum	   *keys = palloc(import->nleads * sizeof(Datum));
	Datum		argument;
	SPITupleTable *rows;
	int			n = 0;

	for (int i = 0; i < import->nleads; i++)
		keys[i] = import->leads[i].key;
	argument = import->one_by_one ? keys[0] : array_of(keys, import->nleads, import->key_type);
	if (SPI_execute_plan(import->lock, &argument, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock leads of table \"%s\"", import->program->name);
	rows = SPI_tuptable;
	/* both are in the order of the keys, and each row has its lead here */
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		key = SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull);

		while (n < import->nleads &&
			   !DatumGetBool(FunctionCall2Coll(&import->program->key_equal, import->program->key_collation,
											   import->leads[n].key, key)))
			n++;
		if (n == import->nleads)
			elog(ERROR, "rows of table \"%s\" are not in the order of their keys", import->program->name);
		import->leads[n].table =
			lead_table(import, DatumGetObjectId(SPI_getbinval(rows->vals[i], rows->tupdesc, 2, &isnull)));
		import->leads[n].tid =
			*(ItemPointer) DatumGetPointer(SPI_getbinval(rows->vals[i], rows->tupdesc, 3, &isnull));
		n++;
	}
	SPI_freetuptable(rows);
}

/* Copy what the last move holds into the current memory context. */
static void
keep_last(LcLastMove *last)
{
	if (last->to_status != NULL)
		last->to_status = DatumGetTextPCopy(PointerGetDatum(last->to_status));
	if (!last->source_isnull && last->source != (Datum) 0)
		last->source = PointerGetDatum(DatumGetTextPCopy(last->source));
	if (last->reached != NULL)
		last->reached = DatumGetArrayTypePCopy(PointerGetDatum(last->reached));
}

static bool
is_status(const text *a, const LcStage *stage)
{
	return a != NULL && VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(stage->label) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(stage->label), VARSIZE_ANY_EXHDR(a)) == 0;
}

/*
 * Why a row is refused, or NULL.
 */
static const char *
find_problem(LcImport *import, const ImportedLead *lead, LcModel *model, const char *status, int stage,
			 TimestampTz at, bool at_isnull)
{
	if (lead->table == NULL)
		return "unknown lead";
	if (status == NULL)
		return "status is null";
	if (stage < 0)
		return psprintf("\"%s\" is not a status of model \"%s\"", status, model->name);
	if (at_isnull)
		return "at is null";
	if (TIMESTAMP_NOT_FINITE(at))
		return "at is not finite";
	if (at > import->clock)
		return "at is in the future";
	if (lead->has_last && at < lead->last.at)
		return psprintf("before the lead's last move, at %s", timestamptz_to_str(lead->last.at));
	if (lead->has_last && is_status(lead->last.to_status, &model->stages[stage]))
		return psprintf("the lead is \"%s\" already", status);
	return NULL;
}

/*
 * The row of the lead as it was locked.  A trigger on the history may have
 * updated it since; what it was is still there, since only this transaction can
 * have done so.
 */
static void
fetch_row(ImportedLead *lead, LcLead *row)
{
	LeadTable  *table = lead->table;
	bool		isnull;

	if (!table_tuple_fetch_row_version(table->rel, &lead->tid, SnapshotAny, table->slot))
		elog(ERROR, "could not fetch a row of table \"%s\"", table->program->name);
	lc_lead_read(table->program, table->slot, row);
	if (!row->seq_isnull && row->seq > (lead->has_last ? lead->last.seq : 0) &&
		TransactionIdIsCurrentTransactionId(
			DatumGetTransactionId(slot_getsysattr(table->slot, MinTransactionIdAttributeNumber, &isnull))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot import history of lead %s of table \"%s\" while a statement that moves it is running",
						lc_program_key_text(table->program, row->key, row->key_isnull), table->program->name),
				 errhint("Call lifecycle.import_history() after that statement, not in a trigger.")));
}

/*
 * Record the lead's moves, which are the next rows of the store.
 */
static void
import_lead(LcImport *import, ImportedLead *lead, Tuplestorestate *store, TupleTableSlot *slot)
{
	LcProgram  *program = lead->table ? lead->table->program : import->program;
	LcModel    *model = program->model;
	LcLead		row = {0};
	bool		in_step = false;
	bool		moved = false;
	int			turn = 0;
	MemoryContext old = MemoryContextSwitchTo(import->lead_cxt[0]);

	if (lead->table != NULL)
	{
		fetch_row(lead, &row);
		/* does the row say what the history says, or nothing? */
		in_step = row.status_isnull ||
			(!row.seq_isnull && lead->has_last && lead->last.seq == row.seq &&
			 (row.stage < 0 || is_status(lead->last.to_status, &model->stages[row.stage])));
		if (row.score_isnull && row.status_isnull)
			row.score_isnull = false;
	}
	for (int64 i = 0; i < lead->nrows; i++)
	{
		bool		isnull[S_COLUMNS];
		Datum		d;
		char	   *status;
		TimestampTz at;
		int			stage;
		const char *problem;
		LcClaim		claim;

		CHECK_FOR_INTERRUPTS();
		if (!tuplestore_gettupleslot(store, true, false, slot))
			elog(ERROR, "rows of an import are missing");
		at = DatumGetTimestampTz(slot_getattr(slot, S_AT, &isnull[0]));
		d = slot_getattr(slot, S_STATUS, &isnull[1]);
		status = isnull[1] ? NULL : TextDatumGetCString(d);
		stage = status != NULL ? lc_model_stage(model, status, strlen(status)) : LC_NO_STAGE;
		problem = find_problem(import, lead, model, status, stage, at, isnull[0]);
		if (problem != NULL)
			lc_import_report(import, lc_program_key_text(import->program, lead->key, false), status, at, isnull[0],
				   problem, false);
		else
		{
			if (lead->has_last && lead->last.to_status != NULL)
			{
				text	   *from = lead->last.to_status;

				if (!lc_model_move_is_legal(model, lc_model_stage(model, VARDATA_ANY(from), VARSIZE_ANY_EXHDR(from)), stage))
					lc_import_report(import, lc_program_key_text(import->program, lead->key, false), status, at, false,
						   psprintf("model \"%s\" has no transition from \"%s\" to \"%s\"", model->name,
									text_to_cstring(from), status), true);
			}
			d = slot_getattr(slot, S_ACTOR, &isnull[0]);
			claim.actor = isnull[0] ? NULL : DatumGetTextPP(d);
			d = slot_getattr(slot, S_REASON, &isnull[0]);
			claim.reason = isnull[0] ? NULL : DatumGetTextPP(d);
			lc_record_move(program, lead->table->slot, &row, &lead->last, lead->has_last, stage,
						   lead->has_last ? lead->last.seq + 1 : 1, at, "import", NULL, &claim);
			lead->has_last = true;
			lead->stage = stage;
			moved = true;
		}
		if ((i + 1) % MOVES_IN_MEMORY == 0)
		{
			/* go on in the other context with what is still needed */
			turn = 1 - turn;
			MemoryContextSwitchTo(import->lead_cxt[turn]);
			if (lead->has_last)
				keep_last(&lead->last);
			ExecClearTuple(slot);	/* its tuple may be in the context that goes */
			MemoryContextReset(import->lead_cxt[1 - turn]);
		}
	}
	lead->follows = moved && (in_step || row.stage == lead->stage);
	if (lead->table != NULL)
		ExecClearTuple(lead->table->slot);
	ExecClearTuple(slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(import->lead_cxt[0]);
	MemoryContextReset(import->lead_cxt[1]);
}

/*
 * Let the rows of the leads follow, by one UPDATE that says that it is ours.  A
 * lead that a trigger on the history has moved on is left as that left it.
 */
static void
update_leads(LcImport *import)
{
	LcProgram  *program = import->program;
	Datum	   *columns[4];
	Datum		arguments[4];
	SPITupleTable *rows;
	uint64		n = 0;
	bool		isnull;

	for (int i = 0; i < 4; i++)
		columns[i] = palloc(import->nleads * sizeof(Datum));
	for (int i = 0; i < import->nleads; i++)
	{
		ImportedLead *lead = &import->leads[i];
		LcLastMove	now;

		if (!lead->follows ||
			(program->history_has_triggers &&
			 !(lc_history_last(program, lead->key, &now) && now.seq == lead->last.seq)))
			continue;
		columns[0][n] = lead->key;
		columns[1][n] = lc_program_status(program, lead->stage);
		columns[2][n] = TimestampTzGetDatum(lead->last.at);
		columns[3][n] = Int32GetDatum(lead->last.seq);
		n++;
	}
	if (n == 0)
		return;
	arguments[0] = import->one_by_one ? columns[0][0] : array_of(columns[0], n, import->key_type);
	arguments[1] = array_of(columns[1], n, program->status_type);
	arguments[2] = array_of(columns[2], n, TIMESTAMPTZOID);
	arguments[3] = array_of(columns[3], n, INT4OID);
	lc_history_announce(program, LC_PUT_RIGHT, NULL);
	if (SPI_execute_plan(import->update, arguments, NULL, false, 0) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not update leads of table \"%s\"", program->name);
	rows = SPI_tuptable;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		as_given = SPI_getbinval(rows->vals[i], rows->tupdesc, 2, &isnull);

		if (isnull || !DatumGetBool(as_given))
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("a trigger on table \"%s\" changed the status of lead %s while its history was imported",
							program->name, SPI_getvalue(rows->vals[i], rows->tupdesc, 1)),
					 errhint("Let the trigger leave status and columns of lifecycle alone, or disable it for the import.")));
	}
	if (SPI_processed != n)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger on table \"%s\" suppressed the update of a lead whose history was imported",
						program->name),
				 errhint("Disable the trigger for the import.")));
	SPI_freetuptable(rows);
}

static void
import_batch(LcImport *import, Tuplestorestate *store, TupleTableSlot *slot)
{
	LcProgram  *program = import->program;
	MemoryContext old = MemoryContextSwitchTo(import->batch_cxt);

	lock_leads(import);
	lc_history_begin_statement(program);
	/* all look-ups first: each would write what was collected before it */
	for (int i = 0; i < import->nleads; i++)
	{
		ImportedLead *lead = &import->leads[i];

		lead->has_last = lead->table != NULL && lc_history_last(program, lead->key, &lead->last);
	}
	for (int i = 0; i < import->nleads; i++)
		import_lead(import, &import->leads[i], store, slot);
	lc_history_end_statement(program);
	update_leads(import);

	tuplestore_clear(store);
	import->nleads = 0;
	MemoryContextSwitchTo(old);
	MemoryContextReset(import->batch_cxt);
}

/* Cut the sorted rows into batches of whole leads. */
static void
import_sorted(LcImport *import, Tuplesortstate *sort)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(import->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *stored = MakeSingleTupleTableSlot(import->desc, &TTSOpsMinimalTuple);
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	bool		more = tuplesort_gettupleslot(sort, true, false, slot, NULL);

	while (more)
	{
		bool		isnull;
		Datum		key = slot_getattr(slot, S_LEAD, &isnull);
		ImportedLead *lead = import->nleads > 0 ? &import->leads[import->nleads - 1] : NULL;

		if (lead == NULL ||
			!DatumGetBool(FunctionCall2Coll(&import->program->key_equal, import->program->key_collation,
											lead->key, key)))
		{
			MemoryContext old;

			if (import->nleads == (import->one_by_one ? 1 : BATCH_LEADS))
				import_batch(import, store, stored);
			lead = &import->leads[import->nleads++];
			memset(lead, 0, sizeof(*lead));
			old = MemoryContextSwitchTo(import->batch_cxt);
			lead->key = datumCopy(key, import->key_byval, import->key_len);
			MemoryContextSwitchTo(old);
		}
		lead->nrows++;
		tuplestore_puttupleslot(store, slot);
		CHECK_FOR_INTERRUPTS();
		more = tuplesort_gettupleslot(sort, true, false, slot, NULL);
	}
	if (import->nleads > 0)
		import_batch(import, store, stored);
	tuplestore_end(store);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(stored);
}

/* ---- the function ---- */

/*
 * import_history(lead_table regclass, query text): see the comment of the SQL
 * function.
 */
Datum
lifecycle_import_history(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LcImport		import = {0};
	Relation	rel;
	Tuplesortstate *sort;
	MemoryContext old;
	ListCell   *cell;

	import.program = lc_operation_program(fcinfo, 2, "lead_table and query");
	InitMaterializedSRF(fcinfo, 0);
	import.result = rsinfo->setResult;
	import.result_desc = rsinfo->setDesc;
	rel = relation_open(PG_GETARG_OID(0), RowExclusiveLock);
	import.key_type = getBaseType(import.program->key_type);
	import.one_by_one = !OidIsValid(get_array_type(import.key_type)) || type_is_rowtype(import.key_type);
	get_typlenbyval(import.key_type, &import.key_len, &import.key_byval);
	import.clock = GetCurrentTimestamp();

	SPI_connect();
	import.cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle import", ALLOCSET_DEFAULT_SIZES);
	import.batch_cxt = AllocSetContextCreate(import.cxt, "lifecycle batch of an import", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < 2; i++)
		import.lead_cxt[i] = AllocSetContextCreate(import.cxt, "lifecycle lead of an import", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(import.cxt);
	import.leads = palloc(BATCH_LEADS * sizeof(ImportedLead));
	sort = lc_import_read(&import, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	prepare_statements(&import, rel);
	import_sorted(&import, sort);
	tuplesort_end(sort);
	foreach(cell, import.tables)
	{
		LeadTable  *table = lfirst(cell);

		ExecDropSingleTupleTableSlot(table->slot);
		lc_program_unpin(table->program);
		table_close(table->rel, NoLock);
	}
	MemoryContextSwitchTo(old);
	SPI_finish();
	lc_program_unpin(import.program);
	relation_close(rel, NoLock);
	return (Datum) 0;
}
