/*-------------------------------------------------------------------------
 *
 * model.c
 *	  Which statuses a model has and which moves it allows, compiled to one
 *	  word of bits per status; and the set of statuses that a lead has reached.
 *
 * The tables lifecycle.stage and lifecycle.transition are the only truth.
 * They are read without privilege checks, with a latest snapshot: whoever may
 * write a lead obeys its model, and obeys it from the moment it is committed,
 * under REPEATABLE READ too.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_is_valid_transition);
PG_FUNCTION_INFO_V1(lifecycle_is_valid_transition_enum);
PG_FUNCTION_INFO_V1(lifecycle_reached_in_cycle);
PG_FUNCTION_INFO_V1(lifecycle_reached_add);

/* Columns of our tables, by number: they are ours and do not move. */
enum
{
	Anum_stage_model = 1,
	Anum_stage_status = 2,
	Anum_stage_rank = 3,
	Anum_stage_resets_behavior = 6,
	Anum_stage_reason_required = 7
};

enum
{
	Anum_transition_model = 1,
	Anum_transition_from = 2,
	Anum_transition_to = 3
};

/* What is_valid_transition() keeps for the session. */
typedef struct ModelCacheEntry
{
	char		name[NAMEDATALEN * 4];	/* hash key */
	uint64		generation;
	MemoryContext cxt;
	LcModel    *model;
} ModelCacheEntry;

static HTAB *model_cache = NULL;

static int
compare_stages(const void *a, const void *b)
{
	const LcStage *x = a;
	const LcStage *y = b;

	if (x->rank != y->rank)
	{
		if (x->rank == 0)
			return 1;
		if (y->rank == 0)
			return -1;
		return x->rank < y->rank ? -1 : 1;
	}
	return strcmp(x->status, y->status);
}

/* Whether a text column of the slot equals the string. */
static bool
column_is(TupleTableSlot *slot, AttrNumber attno, const char *value, int len)
{
	bool		isnull;
	text	   *t;

	t = (text *) DatumGetPointer(slot_getattr(slot, attno, &isnull));
	if (isnull)
		return false;
	t = DatumGetTextPP(PointerGetDatum(t));
	return VARSIZE_ANY_EXHDR(t) == len && memcmp(VARDATA_ANY(t), value, len) == 0;
}

/*
 * Read one configuration table and hand each row of the model to the callback.
 */
static void
scan_model_rows(const char *table, const char *model, LcModel *into,
				void (*take) (TupleTableSlot *slot, LcModel *into))
{
	Relation	rel = table_open(lc_watch_config(table), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(lc_latest_snapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			len = strlen(model);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		if (column_is(slot, Anum_stage_model, model, len))
			take(slot, into);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

static void
take_stage(TupleTableSlot *slot, LcModel *model)
{
	LcStage    *stage;
	bool		isnull;
	Datum		d;

	if (model->nstages == LC_MAX_STAGES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("model \"%s\" has more than %d stages", model->name, LC_MAX_STAGES)));
	stage = &model->stages[model->nstages++];
	memset(stage, 0, sizeof(LcStage));
	stage->status = TextDatumGetCString(slot_getattr(slot, Anum_stage_status, &isnull));
	stage->label = cstring_to_text(stage->status);
	stage->alone = lc_reached_of(stage->label);
	d = slot_getattr(slot, Anum_stage_rank, &isnull);
	stage->rank = isnull ? 0 : DatumGetInt32(d);
	stage->resets_behavior = DatumGetBool(slot_getattr(slot, Anum_stage_resets_behavior, &isnull));
	stage->reason_required = DatumGetBool(slot_getattr(slot, Anum_stage_reason_required, &isnull));
}

static void
take_transition(TupleTableSlot *slot, LcModel *model)
{
	bool		isnull;
	text	   *from = DatumGetTextPP(slot_getattr(slot, Anum_transition_from, &isnull));
	text	   *to = DatumGetTextPP(slot_getattr(slot, Anum_transition_to, &isnull));
	int			f = lc_model_stage(model, VARDATA_ANY(from), VARSIZE_ANY_EXHDR(from));
	int			t = lc_model_stage(model, VARDATA_ANY(to), VARSIZE_ANY_EXHDR(to));

	if (f >= 0 && t >= 0)
		model->stages[f].next |= UINT64CONST(1) << t;
}

/*
 * Compile a model into the given memory context.  A model without stages comes
 * back with none: whoever needs some says so.
 */
LcModel *
lc_model_load(const char *name, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LcModel    *model = palloc0(sizeof(LcModel));

	model->name = pstrdup(name);
	scan_model_rows("stage", name, model, take_stage);
	qsort(model->stages, model->nstages, sizeof(LcStage), compare_stages);
	model->first = model->nstages > 0 && model->stages[0].rank > 0 ? 0 : LC_NO_STAGE;
	scan_model_rows("transition", name, model, take_transition);
	MemoryContextSwitchTo(old);
	return model;
}

/*
 * The stage of a status, or LC_UNKNOWN_STAGE.  A walk over a few short strings
 * beats a hash at the sizes that models have.
 */
int
lc_model_stage(const LcModel *model, const char *status, int len)
{
	for (int i = 0; i < model->nstages; i++)
	{
		const char *s = model->stages[i].status;

		if (strncmp(s, status, len) == 0 && s[len] == '\0')
			return i;
	}
	return LC_UNKNOWN_STAGE;
}

/*
 * Whether the model allows the move.  Nothing leads from or to a status that
 * it lacks; staying is no move.
 */
bool
lc_model_move_is_legal(const LcModel *model, int from, int to)
{
	return from >= 0 && to >= 0 && (model->stages[from].next >> to & 1) != 0;
}

/*
 * The statuses of the mask, path first, for a hint; NULL where there is none.
 */
char *
lc_model_statuses(const LcModel *model, uint64 mask)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < model->nstages; i++)
	{
		if (mask >> i & 1)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "", model->stages[i].status);
	}
	return buf.len > 0 ? buf.data : NULL;
}

/*
 * "reached" is one array of labels: the statuses reached in this cycle, in the
 * order of their first visit; then, where there are any, a NULL and those that
 * only earlier cycles reached.  So it hangs on no enum and on no model, and
 * status = ANY (reached) asks whether the lead was ever there.
 */
static void
split_reached(ArrayType *reached, Datum **elements, bool **nulls, int *n, int *in_cycle)
{
	deconstruct_array(reached, TEXTOID, -1, false, TYPALIGN_INT, elements, nulls, n);
	for (*in_cycle = 0; *in_cycle < *n && !(*nulls)[*in_cycle]; (*in_cycle)++)
		;
}

static bool
same_label(Datum element, const text *label)
{
	text	   *t = DatumGetTextPP(element);

	return VARSIZE_ANY_EXHDR(t) == VARSIZE_ANY_EXHDR(label) &&
		memcmp(VARDATA_ANY(t), VARDATA_ANY(label), VARSIZE_ANY_EXHDR(t)) == 0;
}

/* The array that holds just the status. */
ArrayType *
lc_reached_of(text *label)
{
	Datum		d = PointerGetDatum(label);

	return construct_array(&d, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * Whether the status was ever reached.
 */
bool
lc_reached_has(ArrayType *reached, const text *label)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			in_cycle;

	split_reached(reached, &elements, &nulls, &n, &in_cycle);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i] && same_label(elements[i], label))
			return true;
	}
	return false;
}

/*
 * What is reached after a visit to the status began, in the same or in a new
 * cycle.  Gives back its argument where nothing changes.  Without a status: a
 * new cycle that has reached nothing yet.
 */
ArrayType *
lc_reached_add(ArrayType *reached, text *label, bool new_cycle)
{
	Datum	   *elements;
	bool	   *nulls;
	Datum	   *out;
	bool	   *outnulls;
	int			n;
	int			in_cycle;
	int			k = 0;
	int			lbound = 1;

	split_reached(reached, &elements, &nulls, &n, &in_cycle);
	if (!new_cycle)
	{
		for (int i = 0; i < in_cycle; i++)
		{
			if (same_label(elements[i], label))
				return reached;
		}
	}

	out = palloc((n + 2) * sizeof(Datum));
	outnulls = palloc0((n + 2) * sizeof(bool));
	if (!new_cycle)
	{
		for (int i = 0; i < in_cycle; i++)
			out[k++] = elements[i];
	}
	if (label != NULL)
		out[k++] = PointerGetDatum(label);
	outnulls[k++] = true;
	for (int i = new_cycle ? 0 : in_cycle; i < n; i++)
	{
		if (!nulls[i] && (label == NULL || !same_label(elements[i], label)))
			out[k++] = elements[i];
	}
	if (outnulls[k - 1])
		k--;
	return construct_md_array(out, outnulls, 1, &k, &lbound, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * Whether the cycle that the array speaks of has touched the path.
 */
bool
lc_model_touches_path(const LcModel *model, ArrayType *reached)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			in_cycle;

	split_reached(reached, &elements, &nulls, &n, &in_cycle);
	for (int i = 0; i < in_cycle; i++)
	{
		text	   *t = DatumGetTextPP(elements[i]);
		int			stage = lc_model_stage(model, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));

		if (stage >= 0 && model->stages[stage].rank > 0)
			return true;
	}
	return false;
}

/*
 * reached_in_cycle(reached): the part of the array that the cycle reached.
 */
Datum
lifecycle_reached_in_cycle(PG_FUNCTION_ARGS)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			in_cycle;

	split_reached(PG_GETARG_ARRAYTYPE_P(0), &elements, &nulls, &n, &in_cycle);
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, in_cycle, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * reached_add(reached, status, new_cycle): for those who check a history.
 */
Datum
lifecycle_reached_add(PG_FUNCTION_ARGS)
{
	PG_RETURN_ARRAYTYPE_P(lc_reached_add(PG_GETARG_ARRAYTYPE_P(0), PG_GETARG_TEXT_PP(1),
										 PG_GETARG_BOOL(2)));
}

/*
 * The compiled model of that name, kept for the session.  It must not be held
 * across anything that may read configuration again.
 */
static LcModel *
cached_model(const char *name)
{
	ModelCacheEntry *entry;
	bool		found;
	MemoryContext cxt;
	LcModel    *model;
	uint64		generation;

	if (strlen(name) >= sizeof(entry->name))
		return NULL;
	if (model_cache == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(entry->name);
		ctl.entrysize = sizeof(ModelCacheEntry);
		model_cache = hash_create("lifecycle models", 8, &ctl, HASH_ELEM | HASH_STRINGS);
	}
	entry = hash_search(model_cache, name, HASH_FIND, NULL);
	if (entry != NULL && entry->generation == lc_config_generation)
		return entry->model;

	/* read before the entry is touched: an error leaves the cache as it was */
	cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle model", ALLOCSET_SMALL_SIZES);
	generation = lc_config_generation;
	model = lc_model_load(name, cxt);
	if (model->nstages == 0)
	{
		MemoryContextDelete(cxt);
		hash_search(model_cache, name, HASH_REMOVE, NULL);
		return NULL;
	}
	entry = hash_search(model_cache, name, HASH_ENTER, &found);
	if (found && entry->cxt != NULL)
		MemoryContextDelete(entry->cxt);
	MemoryContextSetParent(cxt, CacheMemoryContext);
	entry->cxt = cxt;
	entry->model = model;
	entry->generation = generation;
	return model;
}

static Datum
is_valid_transition(const char *from, int fromlen, const char *to, int tolen, text *name)
{
	LcModel    *model = cached_model(text_to_cstring(name));

	if (model == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("model \"%s\" does not exist or has no stages", text_to_cstring(name)),
				 errhint("The models are the rows of lifecycle.model.")));
	return BoolGetDatum(lc_model_move_is_legal(model,
											   lc_model_stage(model, from, fromlen),
											   lc_model_stage(model, to, tolen)));
}

/*
 * is_valid_transition(from_status text, to_status text, model text): false
 * where the model lacks one of the two.
 */
Datum
lifecycle_is_valid_transition(PG_FUNCTION_ARGS)
{
	text	   *from = PG_GETARG_TEXT_PP(0);
	text	   *to = PG_GETARG_TEXT_PP(1);

	return is_valid_transition(VARDATA_ANY(from), VARSIZE_ANY_EXHDR(from),
							   VARDATA_ANY(to), VARSIZE_ANY_EXHDR(to),
							   PG_GETARG_TEXT_PP(2));
}

/*
 * The same for lifecycle_status, or any enum.
 */
Datum
lifecycle_is_valid_transition_enum(PG_FUNCTION_ARGS)
{
	char	   *from = DatumGetCString(DirectFunctionCall1(enum_out, PG_GETARG_DATUM(0)));
	char	   *to = DatumGetCString(DirectFunctionCall1(enum_out, PG_GETARG_DATUM(1)));

	return is_valid_transition(from, strlen(from), to, strlen(to), PG_GETARG_TEXT_PP(2));
}
