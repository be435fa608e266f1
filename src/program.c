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
 *-------------------------------------------------------------------------
 */
#include "program.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_enum.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

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
		lc_program_row_free(program);
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
		lc_program_row_free(program);
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
		lc_program_row_free((LcProgram *) lfirst(cell));
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
			 (entry->program->history == relid || entry->program->refused == relid || entry->program->pending == relid ||
			  entry->program->root == relid || entry->program->lead_table == relid || lc_partition_is_below(entry->program, relid))))
			entry->stale = true;
	}
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
	row = lc_program_row_governing(programs, relid);
	if (row == NULL)
	{
		table_close(programs, AccessShareLock);
		hash_search(program_cache, &key, HASH_REMOVE, NULL);
		return NULL;
	}
	rel = table_open(relid, AccessShareLock);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle program", ALLOCSET_DEFAULT_SIZES);
	program = (is_signal ? lc_signal_row_compile : lc_program_row_compile) (rel, row, RelationGetDescr(programs), cxt);
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
		bool		missing = lc_program_row_find(programs, InvalidOid, id) == NULL;

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
