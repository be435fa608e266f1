/*-------------------------------------------------------------------------
 *
 * program_row.c
 *	  The rows of lifecycle.program and lifecycle.signal: read, compiled into what
 *	  the write path needs, and changed by their owners only.
 *
 * The rows are read and written here without privilege checks.  Who writes
 * leads needs no right on our tables; who registers must own every table that
 * the row names, since the write path will write there for anybody.
 *
 *-------------------------------------------------------------------------
 */
#include "program.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(lifecycle_program_changes);

/* Columns of lifecycle.program. */
enum
{
	Anum_program_id = 1,
	Anum_program_lead_table,
	Anum_program_model,
	Anum_program_key,
	Anum_program_status_column,
	Anum_program_prefix,
	Anum_program_history,
	Anum_program_refused,
	Anum_program_status_added,
	Anum_program_entered,
	Anum_program_source,
	Anum_program_value,
	Anum_program_actor,
	Anum_program_reason,
	Anum_program_cohort,
	Anum_program_on_illegal,
	Anum_program_tz,
	Anum_program_behavior,
	Anum_program_flow,
	Anum_program_flow_pending,
	Anum_program_overview,
	Anum_program_funnel,
	Anum_program_funnel_monthly
};

/* Columns of lifecycle.signal. */
enum
{
	Anum_signal_id = 1,
	Anum_signal_signal_table,
	Anum_signal_lead_table,
	Anum_signal_lead,
	Anum_signal_at
};

/* The expressions of a program, by column. */
static const struct
{
	AttrNumber	attno;
	const char *what;
	Oid			type;
	size_t		member;
}			expressions[] =
{
	{Anum_program_entered, "expression for \"entered\"", TIMESTAMPTZOID, offsetof(LcProgram, entered)},
	{Anum_program_source, "expression for \"source\"", TEXTOID, offsetof(LcProgram, source)},
	{Anum_program_value, "expression for \"value\"", NUMERICOID, offsetof(LcProgram, value)},
	{Anum_program_actor, "expression for \"actor\"", TEXTOID, offsetof(LcProgram, actor)},
	{Anum_program_reason, "expression for \"reason\"", TEXTOID, offsetof(LcProgram, reason)},
	{Anum_program_cohort, "expression for \"cohort\"", INT4OID, offsetof(LcProgram, cohort)},
};

#define PROGRAM_EXPR(program, i) \
	(*(LcExpr **) ((char *) (program) + expressions[i].member))

/*
 * A copy of the program row of the table, or NULL.  Read with a latest
 * snapshot: a program is in force from its commit on, for every transaction.
 */
HeapTuple
lc_program_row_find(Relation programs, Oid lead_table, int32 id)
{
	Snapshot	snapshot = RegisterSnapshot(lc_latest_snapshot());
	TableScanDesc scan = table_beginscan(programs, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(programs, NULL);
	HeapTuple	found = NULL;

	while (found == NULL && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		if (DatumGetObjectId(slot_getattr(slot, Anum_program_lead_table, &isnull)) == lead_table ||
			DatumGetInt32(slot_getattr(slot, Anum_program_id, &isnull)) == id)
			found = ExecCopySlotHeapTuple(slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * A copy of the row of the program that governs the table: its own, or that of
 * the nearest table that it is a partition of; or NULL.
 */
HeapTuple
lc_program_row_governing(Relation programs, Oid relid)
{
	HeapTuple	row = NULL;

	while (OidIsValid(relid) && (row = lc_program_row_find(programs, relid, 0)) == NULL)
		relid = lc_partition_parent(relid);
	return row;
}

/*
 * The column of that name, which must be of the type where one is given.
 */
static AttrNumber
require_column(Relation rel, const char *name, Oid type)
{
	AttrNumber	attno = get_attnum(RelationGetRelid(rel), name);

	if (attno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of tracked table \"%s\" does not exist",
						name, RelationGetRelationName(rel)),
				 errhint("Give the column its name back, or call lifecycle.untrack() and lifecycle.track() again."),
				 errtable(rel)));
	if (OidIsValid(type) && TupleDescAttr(RelationGetDescr(rel), attno - 1)->atttypid != type)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of tracked table \"%s\" is not of type %s",
						name, RelationGetRelationName(rel), format_type_be(type)),
				 errtablecol(rel, attno)));
	return attno;
}

/* A column of the program row as a C string, NULL where it is NULL. */
static char *
program_text(HeapTuple row, TupleDesc desc, AttrNumber attno)
{
	bool		isnull;
	Datum		d = heap_getattr(row, attno, desc, &isnull);

	return isnull ? NULL : TextDatumGetCString(d);
}

/* The owner of the table. */
static Oid
owner_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Which tables have signals of the program's leads.
 */
static void
learn_signals(LcProgram *program)
{
	Relation	signals = table_open(lc_watch_config("signal"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(lc_latest_snapshot());
	TableScanDesc scan = table_beginscan(signals, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(signals, NULL);
	List	   *found = NIL;
	ListCell   *cell;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		if (DatumGetObjectId(slot_getattr(slot, Anum_signal_lead_table, &isnull)) == program->root)
			found = lappend_oid(found, DatumGetObjectId(slot_getattr(slot, Anum_signal_signal_table, &isnull)));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(signals, AccessShareLock);
	program->signals = palloc((list_length(found) + 1) * sizeof(Oid));
	foreach(cell, found)
		program->signals[program->nsignals++] = lfirst_oid(cell);
}

/*
 * Compile the row for the relation, which is the tracked table or a partition
 * of it.  What a partition has of its own is where its columns are; its owner
 * has no say in how the tracked table is governed.  All that may fail comes
 * before the result is reachable from anywhere but the given context.
 */
LcProgram *
lc_program_row_compile(Relation rel, HeapTuple row, TupleDesc desc, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LcProgram  *program = palloc0(sizeof(LcProgram));
	bool		isnull;
	TypeCacheEntry *type;
	Oid			base;
	Oid			out;
	bool		varlena;
	char	   *on_illegal;

	program->cxt = cxt;
	program->relid = RelationGetRelid(rel);
	program->root = DatumGetObjectId(heap_getattr(row, Anum_program_lead_table, desc, &isnull));
	program->owner = owner_of(program->root);
	program->id = DatumGetInt32(heap_getattr(row, Anum_program_id, desc, &isnull));
	program->history = DatumGetObjectId(heap_getattr(row, Anum_program_history, desc, &isnull));
	program->refused = DatumGetObjectId(heap_getattr(row, Anum_program_refused, desc, &isnull));
	program->name = lc_table_name(program->root);

	program->key = require_column(rel, NameStr(*DatumGetName(heap_getattr(row, Anum_program_key, desc, &isnull))),
								  InvalidOid);
	program->status = require_column(rel, NameStr(*DatumGetName(heap_getattr(row, Anum_program_status_column, desc, &isnull))),
									 InvalidOid);
	program->since = require_column(rel, "lifecycle_since", TIMESTAMPTZOID);
	program->seq = require_column(rel, "lifecycle_seq", INT4OID);
	program->score = require_column(rel, "demographic_score", FLOAT8OID);

	program->key_type = TupleDescAttr(RelationGetDescr(rel), program->key - 1)->atttypid;
	program->key_collation = TupleDescAttr(RelationGetDescr(rel), program->key - 1)->attcollation;
	base = getBaseType(program->key_type);
	type = lookup_type_cache(base, TYPECACHE_EQ_OPR_FINFO);
	if (!OidIsValid(type->eq_opr_finfo.fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("type %s of the key has no equality operator", format_type_be(base))));
	fmgr_info_cxt(type->eq_opr_finfo.fn_oid, &program->key_equal, cxt);
	getTypeOutputInfo(program->key_type, &out, &varlena);
	fmgr_info_cxt(out, &program->key_out, cxt);
	get_typlenbyval(program->key_type, &program->key_length, &program->key_by_value);

	program->model = lc_model_load(program_text(row, desc, Anum_program_model), cxt);
	if (program->model->first == LC_NO_STAGE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("model \"%s\" of table \"%s\" has no stage with a rank",
						program->model->name, program->name)));

	program->status_type = TupleDescAttr(RelationGetDescr(rel), program->status - 1)->atttypid;
	program->status_is_enum = type_is_enum(program->status_type);
	if (!program->status_is_enum &&
		program->status_type != TEXTOID && program->status_type != VARCHAROID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("status column \"%s\" of table \"%s\" is of type %s",
						NameStr(TupleDescAttr(RelationGetDescr(rel), program->status - 1)->attname),
						program->name, format_type_be(program->status_type)),
				 errdetail("A status column is an enum, text or character varying.")));

	program->flow = DatumGetObjectId(heap_getattr(row, Anum_program_flow, desc, &isnull));
	program->pending = DatumGetObjectId(heap_getattr(row, Anum_program_flow_pending, desc, &isnull));
	program->funnel = DatumGetObjectId(heap_getattr(row, Anum_program_funnel, desc, &isnull));
	if (isnull)
		program->funnel = InvalidOid;
	program->tz = cstring_to_text(program_text(row, desc, Anum_program_tz));
	on_illegal = program_text(row, desc, Anum_program_on_illegal);
	program->keep = strcmp(on_illegal, "keep") == 0;
	for (int i = 0; i < lengthof(expressions); i++)
		PROGRAM_EXPR(program, i) =
			lc_expr_make(cxt, rel, expressions[i].what, program->owner,
						 program_text(row, desc, expressions[i].attno), expressions[i].type, NULL);
	/* also where there are none yet: this session must learn of the first one */
	(void) lc_watch_config("signal");
	program->behavior = DatumGetObjectId(heap_getattr(row, Anum_program_behavior, desc, &isnull));
	if (isnull)
		program->behavior = InvalidOid;
	else
		learn_signals(program);
	program->rules = lc_rules_load(program, rel, false);
	MemoryContextSwitchTo(old);
	return program;
}

/*
 * Compile the row of lifecycle.signal for the relation, which is the signal
 * table or a partition of it.  Its rules are judged by the model of the leads.
 */
LcProgram *
lc_signal_row_compile(Relation rel, HeapTuple row, TupleDesc desc, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LcProgram  *signal = palloc0(sizeof(LcProgram));
	Relation	programs = table_open(lc_watch_config("program"), AccessShareLock);
	HeapTuple	leads;
	Relation	lead_rel;
	HeapTuple	attribute;
	bool		isnull;

	signal->cxt = cxt;
	signal->is_signal = true;
	signal->relid = RelationGetRelid(rel);
	signal->id = DatumGetInt32(heap_getattr(row, Anum_signal_id, desc, &isnull));
	signal->root = DatumGetObjectId(heap_getattr(row, Anum_signal_signal_table, desc, &isnull));
	signal->owner = owner_of(signal->root);
	signal->name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(signal->root)),
											  get_rel_name(signal->root));
	signal->lead_table = DatumGetObjectId(heap_getattr(row, Anum_signal_lead_table, desc, &isnull));
	leads = lc_program_row_find(programs, signal->lead_table, 0);
	if (leads == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("signal table \"%s\" belongs to leads that are not tracked", signal->name),
				 errhint("SELECT lifecycle.untrack_signal(%s);", quote_literal_cstr(signal->name))));
	signal->model = lc_model_load(program_text(leads, RelationGetDescr(programs), Anum_program_model), cxt);

	/* the key's type as the leads have it */
	lead_rel = table_open(signal->lead_table, AccessShareLock);
	attribute = SearchSysCacheAttName(signal->lead_table,
									  NameStr(*DatumGetName(heap_getattr(leads, Anum_program_key,
																		 RelationGetDescr(programs), &isnull))));
	if (!HeapTupleIsValid(attribute))
		elog(ERROR, "key of table %u is missing", signal->lead_table);
	signal->key_type = ((Form_pg_attribute) GETSTRUCT(attribute))->atttypid;
	signal->key_collation = ((Form_pg_attribute) GETSTRUCT(attribute))->attcollation;
	ReleaseSysCache(attribute);
	table_close(lead_rel, AccessShareLock);
	get_typlenbyval(signal->key_type, &signal->key_length, &signal->key_by_value);
	fmgr_info_cxt(lookup_type_cache(getBaseType(signal->key_type), TYPECACHE_EQ_OPR_FINFO)->eq_opr_finfo.fn_oid,
				  &signal->key_equal, cxt);

	signal->lead = lc_expr_make(cxt, rel, "expression for \"lead\"", signal->owner,
								program_text(row, desc, Anum_signal_lead), signal->key_type, NULL);
	signal->at = lc_expr_make(cxt, rel, "expression for \"at\"", signal->owner,
							  program_text(row, desc, Anum_signal_at), TIMESTAMPTZOID, NULL);
	signal->rules = lc_rules_load(signal, rel, false);
	heap_freetuple(leads);
	table_close(programs, AccessShareLock);
	MemoryContextSwitchTo(old);
	return signal;
}

/* Let go of all that was compiled. */
void
lc_program_row_free(LcProgram *program)
{
	for (int i = 0; i < lengthof(expressions); i++)
		lc_expr_free(PROGRAM_EXPR(program, i));
	lc_expr_free(program->lead);
	lc_expr_free(program->at);
	lc_rules_free(program->rules);
	for (int i = 0; i < LC_PLANS; i++)
	{
		if (program->plans[i] != NULL)
			SPI_freeplan(program->plans[i]);
	}
	MemoryContextDelete(program->cxt);
}

/*
 * BEFORE UPDATE trigger of lifecycle.program: only the table's owner may
 * change what governs it, and what he changes is checked as track() would.
 */
Datum
lifecycle_program_changes(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	row;
	Oid			relid;
	Relation	rel;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		RelationGetRelid(trigdata->tg_relation) != lc_config_relid("program"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not fired BEFORE UPDATE FOR EACH ROW of lifecycle.program",
						"program_changes")));
	if (lc_follow_is_rewriting())
		return PointerGetDatum(trigdata->tg_newtuple);
	desc = RelationGetDescr(trigdata->tg_relation);
	row = trigdata->tg_newtuple;
	relid = DatumGetObjectId(heap_getattr(trigdata->tg_trigtuple, Anum_program_lead_table, desc, &isnull));
	lc_require_owner(relid);
	CacheInvalidateRelcacheByRelid(relid);
	for (int attno = 1; attno <= Anum_program_funnel_monthly; attno++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, attno - 1);
		bool		oldnull;
		Datum		old = heap_getattr(trigdata->tg_trigtuple, attno, desc, &oldnull);
		Datum		new = heap_getattr(row, attno, desc, &isnull);

		if (attno == Anum_program_model || (attno >= Anum_program_entered && attno <= Anum_program_tz))
			continue;
		if (oldnull && isnull)
			continue;
		if (oldnull || isnull || !DatumGetBool(OidFunctionCall2Coll(lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR_FINFO)->eq_opr_finfo.fn_oid,
														  DEFAULT_COLLATION_OID, old, new)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" of a program cannot be changed", NameStr(att->attname)),
					 errhint("Call lifecycle.untrack() and lifecycle.track() again; the history stays.")));
	}
	rel = table_open(relid, AccessShareLock);
	for (int i = 0; i < lengthof(expressions); i++)
	{
		int			attno = expressions[i].attno;
		char	   *old = program_text(trigdata->tg_trigtuple, desc, attno);
		char	   *new = program_text(row, desc, attno);

		if (new != NULL && (old == NULL || strcmp(old, new) != 0))
		{
			Datum		canonical = CStringGetTextDatum(lc_expr_canonical(rel, expressions[i].what, new,
																		  expressions[i].type, NULL));
			bool		notnull = false;

			row = heap_modify_tuple_by_cols(row, desc, 1, &attno, &canonical, &notnull);
		}
	}
	/* the lock is kept: columns that were named must not go, or change names, unseen */
	table_close(rel, NoLock);
	return PointerGetDatum(row);
}
