/*-------------------------------------------------------------------------
 *
 * program.c
 *	  What is tracked and how: one row of lifecycle.program, compiled per
 *	  table and backend into what the write path needs.
 *
 * A compiled program is pinned while it is used.  Invalidation only marks it;
 * the next one to ask builds another and lets go of the old one, which is
 * freed with its last pin.  Where an error takes a pin's holder away, the pin
 * goes with the subtransaction.
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
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/ruleutils.h"
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

/* A table can be tracked and have signals of other leads, at the same time. */
typedef struct ProgramKey
{
	Oid			relid;
	uint32		is_signal;
} ProgramKey;

typedef struct ProgramCacheEntry
{
	ProgramKey	key;			/* hash key */
	bool		stale;
	uint64		generation;
	LcProgram  *program;
} ProgramCacheEntry;

static HTAB *program_cache = NULL;

/* Programs that were replaced while somebody held a pin. */
static List *abandoned = NIL;

/* All pins there are, in the order in which they were taken. */
typedef struct Pin
{
	LcProgram  *program;
	SubTransactionId owner;
} Pin;

static Pin *pins = NULL;
static int	npins = 0;
static int	pins_room = 0;

static void
free_program(LcProgram *program)
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

/* Room for one pin more, had before there is anything to lose by an error. */
static void
reserve_pin(void)
{
	if (npins < pins_room)
		return;
	pins = pins == NULL ?
		MemoryContextAlloc(TopMemoryContext, 16 * sizeof(Pin)) :
		repalloc(pins, 2 * pins_room * sizeof(Pin));
	pins_room = Max(16, 2 * pins_room);
}

static LcProgram *
pin(LcProgram *program)
{
	pins[npins].program = program;
	pins[npins++].owner = GetCurrentSubTransactionId();
	program->pins++;
	return program;
}

/*
 * Pin a program once more that the caller has pinned, be it stale or not.
 */
LcProgram *
lc_program_pin_again(LcProgram *program)
{
	reserve_pin();
	return pin(program);
}

static void
let_go(LcProgram *program)
{
	Assert(program->pins > 0);
	if (--program->pins == 0 && program->abandoned)
	{
		abandoned = list_delete_ptr(abandoned, program);
		free_program(program);
	}
}

void
lc_program_unpin(LcProgram *program)
{
	int			i = npins - 1;

	while (i >= 0 && pins[i].program != program)
		i--;
	if (i < 0)
		elog(ERROR, "program of table %s is not pinned", program->name);
	memmove(&pins[i], &pins[i + 1], (--npins - i) * sizeof(Pin));
	let_go(program);
}

/*
 * A subtransaction ended.  Who pinned a program in one that was aborted is gone.
 */
void
lc_program_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent)
{
	for (int i = npins - 1; i >= 0 && pins[i].owner >= mine; i--)
	{
		if (pins[i].owner != mine)
			continue;
		if (commit)
			pins[i].owner = parent;
		else
		{
			LcProgram  *program = pins[i].program;

			memmove(&pins[i], &pins[i + 1], (--npins - i) * sizeof(Pin));
			let_go(program);
		}
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
	npins = 0;
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
		if (relid == InvalidOid || entry->key.relid == relid ||
			(entry->program != NULL &&
			 (entry->program->history == relid || entry->program->refused == relid ||
			  entry->program->root == relid || entry->program->lead_table == relid || lc_partition_is_below(entry->program, relid))))
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
 * A copy of the row of the program that governs the table: its own, or that of
 * the nearest table that it is a partition of; or NULL.
 */
static HeapTuple
find_governing_row(Relation programs, Oid relid)
{
	HeapTuple	row = NULL;

	while (OidIsValid(relid) && (row = find_program_row(programs, relid, 0)) == NULL)
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
static LcProgram *
build_signal(Relation rel, HeapTuple row, TupleDesc desc, MemoryContext cxt)
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
	leads = find_program_row(programs, signal->lead_table, 0);
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

/*
 * The program of the table, pinned, or NULL where it has none; as one of leads
 * or as one of signals.  A partition has that of the table that it is one of.
 */
static LcProgram *
pin_of(Oid relid, bool is_signal)
{
	ProgramKey	key;
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

		ctl.keysize = sizeof(ProgramKey);
		ctl.entrysize = sizeof(ProgramCacheEntry);
		program_cache = hash_create("lifecycle programs", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	reserve_pin();
	key.relid = relid;
	key.is_signal = is_signal;
	entry = hash_search(program_cache, &key, HASH_ENTER, &found);
	if (!found)
	{
		entry->program = NULL;
		entry->stale = true;
	}
	if (entry->program != NULL && !entry->stale && entry->generation == lc_config_generation)
		return pin(entry->program);

	/*
	 * What is invalidated from here on makes the new program stale as well.
	 * The old one goes first: an error on the way must not leave it in force.
	 */
	if (entry->program != NULL)
	{
		program = entry->program;
		entry->program = NULL;
		abandon(program);
	}
	entry->stale = false;
	entry->generation = lc_config_generation;

	programs = table_open(lc_watch_config(is_signal ? "signal" : "program"), AccessShareLock);
	row = find_governing_row(programs, relid);
	if (row == NULL)
	{
		table_close(programs, AccessShareLock);
		hash_search(program_cache, &key, HASH_REMOVE, NULL);
		return NULL;
	}
	rel = table_open(relid, AccessShareLock);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle program", ALLOCSET_DEFAULT_SIZES);
	program = (is_signal ? build_signal : build_program) (rel, row, RelationGetDescr(programs), cxt);
	MemoryContextSetParent(cxt, CacheMemoryContext);
	MemoryContextCopyAndSetIdentifier(cxt, program->name);
	table_close(rel, AccessShareLock);
	table_close(programs, AccessShareLock);
	heap_freetuple(row);

	entry->program = program;
	return pin(program);
}

LcProgram *
lc_program_pin(Oid relid)
{
	return pin_of(relid, false);
}

/*
 * The same of a signal table.
 */
LcProgram *
lc_signal_pin(Oid relid)
{
	return pin_of(relid, true);
}

/*
 * The program of the table, pinned; an error where it has none.
 */
LcProgram *
lc_program_pin_tracked(Oid relid)
{
	LcProgram  *program;

	/* who calls a function may hold no lock on the table yet */
	LockRelationOid(relid, AccessShareLock);
	program = lc_program_pin(relid);
	if (program == NULL)
	{
		char	   *name = lc_table_name(relid);

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not tracked", name),
				 errhint("SELECT lifecycle.track(%s);", quote_literal_cstr(name))));
	}
	return program;
}

/*
 * The program that a trigger of ours serves, pinned.  The trigger names it by
 * its argument, and the table must be that program's: anybody may put our
 * trigger functions on a table of his own.
 */
static LcProgram *
pin_for_trigger(FunctionCallInfo fcinfo, const char *function, bool is_signal)
{
	const char *track = is_signal ? "track_signal" : "track";
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	LcProgram  *program;
	int32		id;

	lc_require_trigger(fcinfo, function);
	if (trigdata->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" needs the number of a program as its one argument", function),
				 errhint("Triggers of lifecycle are made by lifecycle.%s().", track)));
	id = pg_strtoint32(trigdata->tg_trigger->tgargs[0]);
	program = pin_of(RelationGetRelid(trigdata->tg_relation), is_signal);
	if (program != NULL && program->id == id)
		return program;

	if (program == NULL)
	{
		Relation	programs = table_open(lc_config_relid(is_signal ? "signal" : "program"), AccessShareLock);
		bool		missing = find_program_row(programs, InvalidOid, id) == NULL;

		table_close(programs, AccessShareLock);
		if (missing)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" has triggers of lifecycle, but its program is missing",
							RelationGetRelationName(trigdata->tg_relation)),
					 errdetail("Table lifecycle.%s has no row with id %d.", is_signal ? "signal" : "program", id),
					 errhint("Restore that row, or drop the triggers with lifecycle.un%s(%s).", track,
							 quote_literal_cstr(lc_table_name(RelationGetRelid(trigdata->tg_relation)))),
					 errtable(trigdata->tg_relation)));
	}
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("trigger \"%s\" on table \"%s\" belongs to the program of another table",
					trigdata->tg_trigger->tgname,
					RelationGetRelationName(trigdata->tg_relation)),
			 errhint("Triggers of lifecycle are made by lifecycle.%s().", track),
			 errtable(trigdata->tg_relation)));
	return NULL;				/* keep compiler quiet */
}

LcProgram *
lc_program_pin_for_trigger(FunctionCallInfo fcinfo, const char *function)
{
	return pin_for_trigger(fcinfo, function, false);
}

LcProgram *
lc_signal_pin_for_trigger(FunctionCallInfo fcinfo, const char *function)
{
	return pin_for_trigger(fcinfo, function, true);
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

/*
 * The key of a lead as text, for messages.
 */
char *
lc_program_key_text(LcProgram *program, Datum key, bool isnull)
{
	return isnull ? pstrdup("(null)") : OutputFunctionCall(&program->key_out, key);
}

/*
 * The table as statements name it: qualified, and quoted where it must be.
 */
char *
lc_table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* Refuse the caller who does not own the table. */
void
lc_require_owner(Oid relid)
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
