/*-------------------------------------------------------------------------
 *
 * program.c
 *	  What is tracked and how: one row of lifecycle.program, compiled per
 *	  table and backend into what the write path needs.
 *
 * A compiled program is pinned while it is used.  Invalidation only marks it;
 * the next one to ask builds another and lets go of the old one, which is
 * freed with its last pin, or, where an error took the pin's holder away, at
 * the end of the transaction.
 *
 * The rows are read and written here without privilege checks.  Who writes
 * leads needs no right on our tables; who registers must own every table that
 * the row names, since the write path will write there for anybody.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(lifecycle_register_program);
PG_FUNCTION_INFO_V1(lifecycle_unregister_program);
PG_FUNCTION_INFO_V1(lifecycle_program_changes);
PG_FUNCTION_INFO_V1(lifecycle_tables_dropped);

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
	Natts_program = Anum_program_tz
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
	{Anum_program_entered, "entered", TIMESTAMPTZOID, offsetof(LcProgram, entered)},
	{Anum_program_source, "source", TEXTOID, offsetof(LcProgram, source)},
	{Anum_program_value, "value", NUMERICOID, offsetof(LcProgram, value)},
	{Anum_program_actor, "actor", TEXTOID, offsetof(LcProgram, actor)},
	{Anum_program_reason, "reason", TEXTOID, offsetof(LcProgram, reason)},
	{Anum_program_cohort, "cohort", INT4OID, offsetof(LcProgram, cohort)},
};

#define PROGRAM_EXPR(program, i) \
	(*(LcExpr **) ((char *) (program) + expressions[i].member))

typedef struct ProgramCacheEntry
{
	Oid			relid;			/* hash key */
	bool		stale;
	uint64		generation;
	LcProgram  *program;
} ProgramCacheEntry;

static HTAB *program_cache = NULL;

/* Programs that were replaced while somebody held a pin. */
static List *abandoned = NIL;

static void
free_program(LcProgram *program)
{
	for (int i = 0; i < lengthof(expressions); i++)
		lc_expr_free(PROGRAM_EXPR(program, i));
	MemoryContextDelete(program->cxt);
}

/* Take a program out of the cache; free it now or with its last pin. */
static void
abandon(LcProgram *program)
{
	if (program->pins > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		program->abandoned = true;
		abandoned = lappend(abandoned, program);
		MemoryContextSwitchTo(old);
	}
	else
		free_program(program);
}

void
lc_program_unpin(LcProgram *program)
{
	Assert(program->pins > 0);
	if (--program->pins == 0 && program->abandoned)
	{
		abandoned = list_delete_ptr(abandoned, program);
		free_program(program);
	}
}

/*
 * Nobody uses a program between transactions: whatever pins errors left are
 * void now.
 */
void
lc_program_end_transaction(void)
{
	HASH_SEQ_STATUS seq;
	ProgramCacheEntry *entry;
	ListCell   *cell;

	foreach(cell, abandoned)
		free_program((LcProgram *) lfirst(cell));
	list_free(abandoned);
	abandoned = NIL;
	if (program_cache == NULL)
		return;
	hash_seq_init(&seq, program_cache);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (entry->program != NULL)
			entry->program->pins = 0;
	}
}

/*
 * A relation changed (InvalidOid: any may have).  Called by the relcache
 * callback: marks and does nothing else.
 */
void
lc_program_invalidate(Oid relid)
{
	HASH_SEQ_STATUS seq;
	ProgramCacheEntry *entry;

	if (program_cache == NULL)
		return;
	hash_seq_init(&seq, program_cache);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (relid == InvalidOid || entry->relid == relid ||
			(entry->program != NULL &&
			 (entry->program->history == relid || entry->program->refused == relid)))
			entry->stale = true;
	}
}

/*
 * A copy of the program row of the table, or NULL.  Read with a latest
 * snapshot: a program is in force from its commit on, for every transaction.
 */
static HeapTuple
find_program_row(Relation programs, Oid lead_table, int32 id)
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

/*
 * Compile the row for the relation.  All that may fail comes before the
 * result is reachable from anywhere but the given context.
 */
static LcProgram *
build_program(Relation rel, HeapTuple row, TupleDesc desc, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LcProgram  *program = palloc0(sizeof(LcProgram));
	bool		isnull;
	TypeCacheEntry *type;
	Oid			base;
	Oid			out;
	bool		varlena;
	Relation	history;
	AttrNumber	lead;
	char	   *on_illegal;

	program->cxt = cxt;
	program->relid = RelationGetRelid(rel);
	program->owner = rel->rd_rel->relowner;
	program->id = DatumGetInt32(heap_getattr(row, Anum_program_id, desc, &isnull));
	program->history = DatumGetObjectId(heap_getattr(row, Anum_program_history, desc, &isnull));
	program->refused = DatumGetObjectId(heap_getattr(row, Anum_program_refused, desc, &isnull));
	program->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											   RelationGetRelationName(rel));

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

	history = try_table_open(program->history, AccessShareLock);
	if (history == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("history of table \"%s\" does not exist", program->name),
				 errhint("Call lifecycle.untrack() and lifecycle.track() to begin a new one.")));
	lead = get_attnum(program->history, "lead");
	if (lead <= 0 || TupleDescAttr(RelationGetDescr(history), lead - 1)->atttypid != program->key_type)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"lead\" of \"%s\" is not of type %s, as the key of \"%s\" is",
						RelationGetRelationName(history), format_type_be(program->key_type), program->name),
				 errhint("ALTER TABLE %s ALTER COLUMN lead TYPE %s.",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(history)),
													RelationGetRelationName(history)),
						 format_type_be(program->key_type))));
	table_close(history, AccessShareLock);

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

	on_illegal = program_text(row, desc, Anum_program_on_illegal);
	program->keep = strcmp(on_illegal, "keep") == 0;
	for (int i = 0; i < lengthof(expressions); i++)
		PROGRAM_EXPR(program, i) =
			lc_expr_make(cxt, rel, expressions[i].what,
						 program_text(row, desc, expressions[i].attno), expressions[i].type);
	MemoryContextSwitchTo(old);
	return program;
}

/*
 * The program of the table, pinned, or NULL where it has none.
 */
LcProgram *
lc_program_pin(Oid relid)
{
	ProgramCacheEntry *entry;
	bool		found;
	Relation	programs;
	Relation	rel;
	HeapTuple	row;
	MemoryContext cxt;
	LcProgram  *program;

	if (program_cache == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(ProgramCacheEntry);
		program_cache = hash_create("lifecycle programs", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(program_cache, &relid, HASH_ENTER, &found);
	if (!found)
	{
		entry->program = NULL;
		entry->stale = true;
	}
	if (entry->program != NULL && !entry->stale && entry->generation == lc_config_generation)
	{
		entry->program->pins++;
		return entry->program;
	}

	/* What is invalidated from here on makes the new program stale as well. */
	entry->stale = false;
	entry->generation = lc_config_generation;

	programs = table_open(lc_watch_config("program"), AccessShareLock);
	row = find_program_row(programs, relid, 0);
	if (row == NULL)
	{
		table_close(programs, AccessShareLock);
		if (entry->program != NULL)
			abandon(entry->program);
		hash_search(program_cache, &relid, HASH_REMOVE, NULL);
		return NULL;
	}
	rel = table_open(relid, AccessShareLock);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle program", ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		program = build_program(rel, row, RelationGetDescr(programs), cxt);
	}
	PG_CATCH();
	{
		entry->stale = true;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSetParent(cxt, CacheMemoryContext);
	MemoryContextCopyAndSetIdentifier(cxt, program->name);
	table_close(rel, AccessShareLock);
	table_close(programs, AccessShareLock);
	heap_freetuple(row);

	if (entry->program != NULL)
		abandon(entry->program);
	entry->program = program;
	program->pins = 1;
	return program;
}

/*
 * The program that a trigger of ours serves, pinned.  The trigger names it by
 * its argument, and the table must be that program's: anybody may put our
 * trigger functions on a table of his own.
 */
LcProgram *
lc_program_pin_for_trigger(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	LcProgram  *program;
	int32		id;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", function)));
	if (trigdata->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" needs the number of a program as its one argument", function),
				 errhint("Triggers of lifecycle are made by lifecycle.track().")));
	id = pg_strtoint32(trigdata->tg_trigger->tgargs[0]);
	program = lc_program_pin(RelationGetRelid(trigdata->tg_relation));
	if (program != NULL && program->id == id)
		return program;

	if (program == NULL)
	{
		Relation	programs = table_open(lc_config_relid("program"), AccessShareLock);
		bool		missing = find_program_row(programs, InvalidOid, id) == NULL;

		table_close(programs, AccessShareLock);
		if (missing)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" has triggers of lifecycle, but its program is missing",
							RelationGetRelationName(trigdata->tg_relation)),
					 errdetail("Table lifecycle.program has no row with id %d.", id),
					 errhint("Restore that row, or drop the triggers with lifecycle.untrack(%s).",
							 quote_literal_cstr(quote_qualified_identifier(get_namespace_name(RelationGetNamespace(trigdata->tg_relation)),
																		   RelationGetRelationName(trigdata->tg_relation)))),
					 errtable(trigdata->tg_relation)));
	}
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("trigger \"%s\" on table \"%s\" belongs to the program of another table",
					trigdata->tg_trigger->tgname,
					RelationGetRelationName(trigdata->tg_relation)),
			 errhint("Triggers of lifecycle are made by lifecycle.track()."),
			 errtable(trigdata->tg_relation)));
	return NULL;				/* keep compiler quiet */
}

/*
 * The stage of a value of the status column; LC_NO_STAGE for NULL,
 * LC_UNKNOWN_STAGE for what the model lacks.
 */
int
lc_program_stage(LcProgram *program, Datum status, bool isnull)
{
	LcModel    *model = program->model;
	int			stage;

	if (isnull)
		return LC_NO_STAGE;
	if (!program->status_is_enum)
	{
		text	   *t = DatumGetTextPP(status);

		return lc_model_stage(model, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
	}
	for (stage = 0; stage < model->nstages; stage++)
	{
		if (program->stage_oid[stage] == DatumGetObjectId(status))
			return stage;
	}
	{
		char	   *label = lc_program_status_label(program, status);

		stage = lc_model_stage(model, label, strlen(label));
		if (stage >= 0)
			program->stage_oid[stage] = DatumGetObjectId(status);
	}
	return stage;
}

/*
 * A value of the status column as a string, be it in the model or not.
 */
char *
lc_program_status_label(LcProgram *program, Datum status)
{
	if (program->status_is_enum)
		return DatumGetCString(DirectFunctionCall1(enum_out, status));
	return TextDatumGetCString(status);
}

/*
 * The value that the status column has for the stage.
 */
Datum
lc_program_status(LcProgram *program, int stage)
{
	LcStage    *s = &program->model->stages[stage];

	if (!program->status_is_enum)
		return PointerGetDatum(s->label);
	if (!OidIsValid(program->stage_oid[stage]))
	{
		program->stage_oid[stage] =
			GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
							ObjectIdGetDatum(program->status_type), CStringGetDatum(s->status));
		if (!OidIsValid(program->stage_oid[stage]))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("type %s of the status column of table \"%s\" has no value \"%s\"",
							format_type_be(program->status_type), program->name, s->status),
					 errhint("ALTER TYPE %s ADD VALUE %s.", format_type_be(program->status_type),
							 quote_literal_cstr(s->status))));
	}
	return ObjectIdGetDatum(program->stage_oid[stage]);
}

char *
lc_program_key_text(LcProgram *program, Datum key)
{
	return OutputFunctionCall(&program->key_out, key);
}

/* Refuse the caller who does not own the table. */
static void
require_owner(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)), name);
}

/*
 * register_program(...): write the program row for track(), which has checked
 * everything else.  Gives the program's id.  Without privilege checks on our
 * table, hence with one on every table that the row names.
 */
Datum
lifecycle_register_program(PG_FUNCTION_ARGS)
{
	Relation	programs;
	Datum		values[Natts_program] = {0};
	bool		nulls[Natts_program] = {0};
	HeapTuple	row;
	int32		id;

	/* the arguments are the columns after id, in order */
	for (int i = 0; i < Natts_program - 1; i++)
	{
		values[i + 1] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[i + 1] = PG_ARGISNULL(i);
	}
	for (int i = 1; i < Natts_program; i++)
	{
		if (nulls[i] && (i + 1 < Anum_program_entered || i + 1 > Anum_program_cohort))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of register_program must not be NULL", i)));
	}
	require_owner(DatumGetObjectId(values[Anum_program_lead_table - 1]));
	require_owner(DatumGetObjectId(values[Anum_program_history - 1]));
	require_owner(DatumGetObjectId(values[Anum_program_refused - 1]));

	programs = table_open(lc_config_relid("program"), RowExclusiveLock);
	id = (int32) nextval_internal(getIdentitySequence(
#if PG_VERSION_NUM >= 170000
													  programs,
#else
													  RelationGetRelid(programs),
#endif
													  Anum_program_id, false), false);
	values[Anum_program_id - 1] = Int32GetDatum(id);
	row = heap_form_tuple(RelationGetDescr(programs), values, nulls);
	CatalogTupleInsert(programs, row);
	CacheInvalidateRelcache(programs);
	table_close(programs, NoLock);
	CommandCounterIncrement();
	PG_RETURN_INT32(id);
}

static void
delete_program_row(Relation programs, HeapTuple row)
{
	CatalogTupleDelete(programs, &row->t_self);
	CacheInvalidateRelcache(programs);
}

/*
 * unregister_program(lead_table): delete the program row for untrack().
 */
Datum
lifecycle_unregister_program(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Relation	programs;
	HeapTuple	row;

	require_owner(relid);
	programs = table_open(lc_config_relid("program"), RowExclusiveLock);
	row = find_program_row(programs, relid, 0);
	if (row != NULL)
		delete_program_row(programs, row);
	table_close(programs, NoLock);
	CommandCounterIncrement();
	PG_RETURN_BOOL(row != NULL);
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

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not fired by UPDATE", "program_changes")));
	desc = RelationGetDescr(trigdata->tg_relation);
	row = trigdata->tg_newtuple;
	relid = DatumGetObjectId(heap_getattr(trigdata->tg_trigtuple, Anum_program_lead_table, desc, &isnull));
	require_owner(relid);
	for (int attno = 1; attno < Anum_program_entered; attno++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, attno - 1);
		bool		oldnull;
		Datum		old = heap_getattr(trigdata->tg_trigtuple, attno, desc, &oldnull);
		Datum		new = heap_getattr(row, attno, desc, &isnull);

		if (attno != Anum_program_model &&
			(isnull || !DatumGetBool(OidFunctionCall2Coll(lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR_FINFO)->eq_opr_finfo.fn_oid,
														  DEFAULT_COLLATION_OID, old, new))))
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
																		  expressions[i].type));
			bool		notnull = false;

			row = heap_modify_tuple_by_cols(row, desc, 1, &attno, &canonical, &notnull);
		}
	}
	table_close(rel, AccessShareLock);
	return PointerGetDatum(row);
}

/*
 * sql_drop event trigger.  A lead table that is gone takes its program with
 * it: the next table that got its OID would inherit it.  A history that is
 * gone while its lead table stays would leave every writer with an error, so
 * that is refused here, where it can be.
 */
Datum
lifecycle_tables_dropped(PG_FUNCTION_ARGS)
{
	Relation	programs;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;
	Oid			schema = get_namespace_oid("lifecycle", true);
	Oid			programs_relid = OidIsValid(schema) ? get_relname_relid("program", schema) : InvalidOid;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager", "tables_dropped")));
	if (!OidIsValid(programs_relid))
		PG_RETURN_NULL();

	programs = table_open(programs_relid, RowExclusiveLock);
	snapshot = RegisterSnapshot(lc_latest_snapshot());
	scan = table_beginscan(programs, snapshot, 0, NULL);
	slot = table_slot_create(programs, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Oid			lead_table = DatumGetObjectId(slot_getattr(slot, Anum_program_lead_table, &isnull));
		Oid			history = DatumGetObjectId(slot_getattr(slot, Anum_program_history, &isnull));
		Oid			refused = DatumGetObjectId(slot_getattr(slot, Anum_program_refused, &isnull));

		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(lead_table)))
		{
			HeapTuple	row = ExecCopySlotHeapTuple(slot);

			delete_program_row(programs, row);
		}
		else if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(history)) ||
				 !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(refused)))
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop a table that lifecycle writes for tracked table \"%s\"",
							get_rel_name(lead_table)),
					 errhint("Call lifecycle.untrack(%s, drop_data => true) instead.",
							 quote_literal_cstr(quote_qualified_identifier(get_namespace_name(get_rel_namespace(lead_table)),
																		   get_rel_name(lead_table))))));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(programs, NoLock);
	PG_RETURN_NULL();
}
