/*-------------------------------------------------------------------------
 *
 * import_query.c
 *	  The query of import_history(): checked, read once, its values converted, its
 *	  rows sorted; and what is reported of rows.
 *
 *-------------------------------------------------------------------------
 */
#include "import.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/typcache.h"

#define FETCHED_ROWS 1000		/* at a time */

/* The columns of the query that are looked for. */
typedef enum QueryColumn
{
	Q_LEAD, Q_STATUS, Q_AT, Q_ACTOR, Q_REASON, Q_COLUMNS
} QueryColumn;

static const char *const query_columns[Q_COLUMNS] = {"lead", "status", "at", "actor", "reason"};

/* How a value of the query becomes a key, or text. */
typedef struct Conversion
{
	Oid			from;			/* base type */
	bool		same;			/* nothing to do */
	bool		safe;			/* what it calls is built in */
	bool		has_cast;
	FmgrInfo	cast;			/* an implicit cast */
	FmgrInfo	out;			/* or by way of text */
	FmgrInfo	in;
	Oid			in_param;
} Conversion;

/* ---- the report ---- */

/*
 * Report a row: refused, or imported with a warning.  Values as the query gave
 * them; a text that is NULL is NULL.
 */
void
lc_import_report(LcImport *import, const char *lead, const char *status, TimestampTz at, bool at_isnull,
	   const char *problem, bool imported)
{
	Datum		values[5] = {0};
	bool		nulls[5] = {false};

	nulls[0] = lead == NULL;
	if (lead != NULL)
		values[0] = CStringGetTextDatum(lead);
	nulls[1] = status == NULL;
	if (status != NULL)
		values[1] = CStringGetTextDatum(status);
	nulls[2] = at_isnull;
	values[2] = TimestampTzGetDatum(at);
	values[3] = CStringGetTextDatum(problem);
	values[4] = BoolGetDatum(imported);
	tuplestore_putvalues(import->result, import->result_desc, values, nulls);
}

/* ---- values of the query ---- */

static void
find_conversion(Conversion *c, Oid type, Oid target)
{
	Oid			func;
	bool		varlena;

	memset(c, 0, sizeof(*c));
	c->from = getBaseType(type);
	switch (find_coercion_pathway(target, c->from, COERCION_IMPLICIT, &func))
	{
		case COERCION_PATH_RELABELTYPE:
			c->same = true;
			return;
		case COERCION_PATH_FUNC:
			if (get_func_nargs(func) == 1)
			{
				c->has_cast = true;
				c->safe = func < FirstNormalObjectId;
				fmgr_info(func, &c->cast);
				return;
			}
			break;
		default:
			break;
	}
	getTypeOutputInfo(c->from, &func, &varlena);
	fmgr_info(func, &c->out);
	getTypeInputInfo(target, &func, &c->in_param);
	fmgr_info(func, &c->in);
	c->safe = func < FirstNormalObjectId &&
		(target < FirstNormalObjectId || type_is_enum(target));
}

/* The value as a string: that of a number without zeros at its end. */
static char *
as_string(const Conversion *c, Datum value)
{
	if (c->from == NUMERICOID)
		return numeric_normalize(DatumGetNumeric(value));
	return OutputFunctionCall(unconstify(FmgrInfo *, &c->out), value);
}

static Datum
convert_hard(Conversion *c, Datum value, const char *string)
{
	if (c->has_cast)
		return FunctionCall1Coll(&c->cast, DEFAULT_COLLATION_OID, value);
	return InputFunctionCall(&c->in, unconstify(char *, string), c->in_param, -1);
}

/*
 * Turn the value into a key; false where it is none: what a data exception
 * (class 22) says.  Input functions of the server leave nothing behind when
 * they raise one; those of others get a subtransaction.
 */
static bool
convert_key(Conversion *c, Datum value, const char *string, Datum *key)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool converted = true;

	if (!c->safe)
		BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		*key = convert_hard(c, value, string);
		if (!c->safe)
			ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		FreeErrorData(error);
		if (!c->safe)
			RollbackAndReleaseCurrentSubTransaction();
		converted = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return converted;
}

/* A value as text; what is text already is not copied. */
static Datum
as_text(Conversion *c, Datum value)
{
	if (c->same)
		return PointerGetDatum(DatumGetTextPP(value));
	return convert_hard(c, value, c->has_cast ? NULL : as_string(c, value));
}

/* ---- the query ---- */

/*
 * Prepare the query, which must be one SELECT that writes nothing itself.
 */
static SPIPlanPtr
prepare_query(const char *query)
{
	SPIPlanPtr	plan = SPI_prepare(query, 0, NULL);
	List	   *sources;
	CachedPlanSource *source;
	Query	   *parsed;

	if (plan == NULL)
		elog(ERROR, "could not prepare the query: %s", SPI_result_code_string(SPI_result));
	sources = SPI_plan_get_plan_sources(plan);
	if (list_length(sources) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query of lifecycle.import_history() must be one SELECT"),
				 errdetail("It has %d statements.", list_length(sources)),
				 errhint("It gives columns lead, status and at.")));
	source = linitial(sources);
	parsed = list_length(source->query_list) == 1 ? linitial_node(Query, source->query_list) : NULL;
	if (parsed == NULL || parsed->commandType != CMD_SELECT || !SPI_is_cursor_plan(plan))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query of lifecycle.import_history() must be one SELECT"),
				 errdetail("It is: %s.", GetCommandTagName(source->commandTag)),
				 errhint("It gives columns lead, status and at.")));
	if (parsed->hasModifyingCTE)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query of lifecycle.import_history() must not write"),
				 errdetail("Its WITH contains INSERT, UPDATE, DELETE or MERGE."),
				 errhint("Write before or after the import, in the same transaction.")));
	return plan;
}

/*
 * Where the columns are, 0 where an optional one is missing.
 */
static void
find_query_columns(TupleDesc desc, AttrNumber *attno)
{
	Oid			type;

	for (int q = 0; q < Q_COLUMNS; q++)
	{
		attno[q] = 0;
		for (int i = 0; i < desc->natts; i++)
		{
			if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), query_columns[q]) != 0)
				continue;
			if (attno[q] != 0)
				ereport(ERROR,
						(errcode(ERRCODE_AMBIGUOUS_COLUMN),
						 errmsg("query of lifecycle.import_history() gives column \"%s\" twice",
								query_columns[q])));
			attno[q] = i + 1;
		}
		if (attno[q] == 0 && q <= Q_AT)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("query of lifecycle.import_history() gives no column \"%s\"",
							query_columns[q]),
					 errhint("It must give lead, status and at, and may give actor and reason: SELECT ... AS %s.",
							 query_columns[q])));
	}
	type = getBaseType(TupleDescAttr(desc, attno[Q_AT] - 1)->atttypid);
	if (type == TIMESTAMPOID || type == DATEOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"at\" of the query is of type %s, not timestamp with time zone",
						format_type_be(type)),
				 errdetail("Which instant that is would depend on the time zone of each session."),
				 errhint("Name the time zone, as in: at%s AT TIME ZONE 'UTC' AS at.",
						 type == DATEOID ? "::timestamp" : "")));
	if (type != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"at\" of the query is of type %s, not timestamp with time zone",
						format_type_be(type)),
				 errhint("Convert it, as in: at::timestamptz AS at.")));
}

/*
 * Read all rows of the query into a sort by lead, time and place.  A row whose
 * lead is no key of the table is reported right here.
 */
Tuplesortstate *
lc_import_read(LcImport *import, const char *query)
{
	TypeCacheEntry *type = lookup_type_cache(import->key_type, TYPECACHE_LT_OPR);
	AttrNumber	sort_columns[3] = {S_LEAD, S_AT, S_PLACE};
	Oid			operators[3];
	Oid			collations[3];
	bool		nulls_first[3] = {false, false, false};
	Tuplesortstate *sort;
	TupleTableSlot *slot;
	Portal		portal;
	AttrNumber	attno[Q_COLUMNS];
	Conversion	key;
	Conversion	text_of[Q_COLUMNS];
	MemoryContext row_cxt = AllocSetContextCreate(import->cxt, "lifecycle row of a query",
												  ALLOCSET_DEFAULT_SIZES);
	int64		place = 0;

	import->desc = CreateTemplateTupleDesc(S_COLUMNS);
	TupleDescInitEntry(import->desc, S_LEAD, "lead", import->key_type, -1, 0);
	TupleDescInitEntryCollation(import->desc, S_LEAD, import->program->key_collation);
	TupleDescInitEntry(import->desc, S_AT, "at", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(import->desc, S_PLACE, "place", INT8OID, -1, 0);
	TupleDescInitEntry(import->desc, S_STATUS, "status", TEXTOID, -1, 0);
	TupleDescInitEntry(import->desc, S_ACTOR, "actor", TEXTOID, -1, 0);
	TupleDescInitEntry(import->desc, S_REASON, "reason", TEXTOID, -1, 0);
	operators[0] = type->lt_opr;
	operators[1] = lookup_type_cache(TIMESTAMPTZOID, TYPECACHE_LT_OPR)->lt_opr;
	operators[2] = lookup_type_cache(INT8OID, TYPECACHE_LT_OPR)->lt_opr;
	collations[0] = import->program->key_collation;
	collations[1] = collations[2] = InvalidOid;
	sort = tuplesort_begin_heap(import->desc, 3, sort_columns, operators, collations, nulls_first,
								maintenance_work_mem, NULL, TUPLESORT_NONE);
	slot = MakeSingleTupleTableSlot(import->desc, &TTSOpsVirtual);

	portal = SPI_cursor_open(NULL, prepare_query(query), NULL, NULL, false);
	find_query_columns(portal->tupDesc, attno);
	find_conversion(&key, TupleDescAttr(portal->tupDesc, attno[Q_LEAD] - 1)->atttypid, import->key_type);
	for (int q = 0; q < Q_COLUMNS; q++)
	{
		if (q != Q_AT && attno[q] != 0)
			find_conversion(&text_of[q], TupleDescAttr(portal->tupDesc, attno[q] - 1)->atttypid, TEXTOID);
	}

	for (;;)
	{
		SPITupleTable *rows;
		uint64		n;
		MemoryContext old;

		SPI_cursor_fetch(portal, true, FETCHED_ROWS);
		rows = SPI_tuptable;
		n = SPI_processed;
		if (n == 0)
			break;
		old = MemoryContextSwitchTo(row_cxt);
		for (uint64 i = 0; i < n; i++)
		{
			Datum		values[Q_COLUMNS] = {0};
			bool		isnull[Q_COLUMNS];
			Datum		lead = (Datum) 0;

			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(row_cxt);
			for (int q = 0; q < Q_COLUMNS; q++)
			{
				isnull[q] = true;
				if (attno[q] != 0)
					values[q] = heap_getattr(rows->vals[i], attno[q], rows->tupdesc, &isnull[q]);
				if (!isnull[q] && q != Q_AT && q != Q_LEAD)
					values[q] = as_text(&text_of[q], values[q]);
			}
			if (!isnull[Q_LEAD] && key.same)
				lead = import->key_len == -1 ?
					PointerGetDatum(PG_DETOAST_DATUM_PACKED(values[Q_LEAD])) : values[Q_LEAD];
			if (isnull[Q_LEAD] ||
				(!key.same &&
				 !convert_key(&key, values[Q_LEAD],
							  key.has_cast ? NULL : as_string(&key, values[Q_LEAD]), &lead)))
			{
				lc_import_report(import,
					   isnull[Q_LEAD] ? NULL : TextDatumGetCString(as_text(&text_of[Q_LEAD], values[Q_LEAD])),
					   isnull[Q_STATUS] ? NULL : TextDatumGetCString(values[Q_STATUS]),
					   DatumGetTimestampTz(values[Q_AT]), isnull[Q_AT],
					   isnull[Q_LEAD] ? "lead is null" : "unknown lead", false);
				continue;
			}
			ExecClearTuple(slot);
			memset(slot->tts_isnull, false, S_COLUMNS * sizeof(bool));
			slot->tts_values[S_LEAD - 1] = lead;
			slot->tts_values[S_AT - 1] = values[Q_AT];
			slot->tts_isnull[S_AT - 1] = isnull[Q_AT];
			slot->tts_values[S_PLACE - 1] = Int64GetDatum(++place);
			slot->tts_values[S_STATUS - 1] = values[Q_STATUS];
			slot->tts_isnull[S_STATUS - 1] = isnull[Q_STATUS];
			slot->tts_values[S_ACTOR - 1] = values[Q_ACTOR];
			slot->tts_isnull[S_ACTOR - 1] = isnull[Q_ACTOR];
			slot->tts_values[S_REASON - 1] = values[Q_REASON];
			slot->tts_isnull[S_REASON - 1] = isnull[Q_REASON];
			ExecStoreVirtualTuple(slot);
			tuplesort_puttupleslot(sort, slot);
		}
		MemoryContextSwitchTo(old);
		SPI_freetuptable(rows);
	}
	SPI_cursor_close(portal);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(row_cxt);
	tuplesort_performsort(sort);
	return sort;
}
