/*-------------------------------------------------------------------------
 *
 * flow.c
 *	  What reports sum: <prefix>_flow, an aggregate of the history that every
 *	  statement appends to, and that nobody waits for.
 *
 * Moves are counted by the day of the move.  What the leads have reached is
 * counted by the day of entry, as sets of statuses: a move that adds a status
 * takes one lead out of one set and puts it into another.  The two are never
 * crossed.  Sets are of three kinds, which add up to the units of a funnel:
 *
 *	  first		what leads reached in their first cycle
 *	  later		what they reached in each later cycle, by the day it began
 *	  ever		how what they ever reached differs from the first cycle: the set
 *				of the first cycle is taken away, the larger one is added
 *
 * What a statement counted is appended with the rows of history that it belongs
 * to, in the same subtransaction; refresh() merges it (sql/refresh.sql).  The
 * truth is at every instant the sum of what is there: rows are keyed by labels,
 * and never changed by writers.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datum.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_flow_day);

/* Columns of <prefix>_flow that writers fill. */
typedef enum FlowColumn
{
	F_SPAN, F_KIND, F_DAY, F_SOURCE, F_COHORT, F_FROM_STATUS, F_TO_STATUS, F_REACHED,
	F_N, F_N_NEW, F_N_AGAIN, F_N_LEFT, F_N_ENTERED
} FlowColumn;

const LcNeededColumn lc_flow_columns[LC_FLOW_COLUMNS] =
{
	{"span", TEXTOID}, {"kind", TEXTOID}, {"day", DATEOID}, {"source", TEXTOID}, {"cohort", INT4OID},
	{"from_status", TEXTOID}, {"to_status", TEXTOID}, {"reached", TEXTARRAYOID},
	{"n", INT8OID}, {"n_new", INT8OID}, {"n_again", INT8OID}, {"n_left", INT8OID}, {"n_entered", INT8OID},
};

/* What is counted together, and how much of it. */
typedef struct Count
{
	uint32		hash;
	char		status;			/* of the hash table's slot */
	const char *kind;
	DateADT		day;
	text	   *source;
	bool		cohort_isnull;
	int32		cohort;
	text	   *from_status;
	text	   *to_status;
	ArrayType  *reached;
	int64		n;
	int64		n_new;
	int64		n_again;
	int64		n_left;
	int64		n_entered;
} Count;

static uint32
hash_varlena(uint32 seed, const void *value)
{
	if (value == NULL)
		return hash_combine(seed, 0);
	return hash_combine(seed, hash_bytes((const unsigned char *) VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)));
}

static bool
same_varlena(const void *a, const void *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

static uint32
hash_of(const Count *c)
{
	uint32		hash = hash_combine((uint32) c->day, (uint32) c->kind[0]);

	hash = hash_combine(hash, c->cohort_isnull ? 0 : (uint32) c->cohort);
	hash = hash_varlena(hash, c->source);
	hash = hash_varlena(hash, c->from_status);
	hash = hash_varlena(hash, c->to_status);
	return hash_varlena(hash, c->reached);
}

static bool
same_count(const Count *a, const Count *b)
{
	return a->kind == b->kind && a->day == b->day && a->cohort_isnull == b->cohort_isnull &&
		(a->cohort_isnull || a->cohort == b->cohort) && same_varlena(a->source, b->source) &&
		same_varlena(a->from_status, b->from_status) && same_varlena(a->to_status, b->to_status) &&
		same_varlena(a->reached, b->reached);
}

/*
 * What a frame of history counted and has not written.
 */
struct LcFlow
{
	MemoryContext cxt;			/* of the struct */
	MemoryContext counted;		/* of what is in it */
	Oid			relid;
	AttrNumber	attno[LC_FLOW_COLUMNS];
	Count	   *counts;
	int			ncounts;
	int			room;
	int		   *slots;			/* places in counts, by hash; -1: none */
	int			nslots;			/* a power of two, twice the room */
};

/*
 * Begin to count the moves of a program, in the current memory context.
 */
LcFlow *
lc_flow_begin(LcProgram *program)
{
	LcFlow	   *flow = palloc0(sizeof(LcFlow));

	flow->cxt = CurrentMemoryContext;
	flow->counted = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow", ALLOCSET_SMALL_SIZES);
	flow->relid = program->flow;
	memcpy(flow->attno, program->flow_attno, sizeof(flow->attno));
	return flow;
}

/* Forget what was counted. */
void
lc_flow_clear(LcFlow *flow)
{
	MemoryContextReset(flow->counted);
	flow->counts = NULL;
	flow->slots = NULL;
	flow->ncounts = flow->room = flow->nslots = 0;
}

/* Make room for one more. */
static void
enlarge(LcFlow *flow)
{
	MemoryContext old = MemoryContextSwitchTo(flow->counted);

	flow->room = Max(8, 2 * flow->room);
	flow->nslots = 2 * flow->room;
	flow->counts = flow->counts == NULL ? palloc(flow->room * sizeof(Count)) :
		repalloc_huge(flow->counts, flow->room * sizeof(Count));
	if (flow->slots != NULL)
		pfree(flow->slots);
	flow->slots = MemoryContextAllocHuge(flow->counted, flow->nslots * sizeof(int));
	memset(flow->slots, 0xff, flow->nslots * sizeof(int));
	for (int i = 0; i < flow->ncounts; i++)
	{
		uint32		slot = flow->counts[i].hash & (flow->nslots - 1);

		while (flow->slots[slot] >= 0)
			slot = (slot + 1) & (flow->nslots - 1);
		flow->slots[slot] = i;
	}
	MemoryContextSwitchTo(old);
}

static void *
keep(LcFlow *flow, const void *value)
{
	void	   *copy;

	if (value == NULL)
		return NULL;
	copy = MemoryContextAlloc(flow->counted, VARSIZE_ANY(value));
	memcpy(copy, value, VARSIZE_ANY(value));
	return copy;
}

/*
 * Where the like of this one is counted, from 0.
 */
static Count *
count_of(LcFlow *flow, Count *key)
{
	uint32		slot;
	Count	   *c;

	if (flow->ncounts == flow->room)
		enlarge(flow);
	key->hash = hash_of(key);
	for (slot = key->hash & (flow->nslots - 1); flow->slots[slot] >= 0; slot = (slot + 1) & (flow->nslots - 1))
	{
		c = &flow->counts[flow->slots[slot]];
		if (c->hash == key->hash && same_count(c, key))
			return c;
	}
	flow->slots[slot] = flow->ncounts;
	c = &flow->counts[flow->ncounts++];
	*c = *key;
	c->source = keep(flow, key->source);
	c->from_status = keep(flow, key->from_status);
	c->to_status = keep(flow, key->to_status);
	c->reached = keep(flow, key->reached);
	return c;
}

/* ---- days ---- */

/* Days that were looked up, by the half day that the moment is in. */
#define KNOWN_DAYS 512

struct LcDays
{
	struct
	{
		TimestampTz start;
		TimestampTz end;		/* 0 with start 0: not known */
		DateADT		day;
	}			known[KNOWN_DAYS];
};

/*
 * When a day begins, as timestamp AT TIME ZONE says.
 */
TimestampTz
lc_flow_day_start(text *tz, DateADT day)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamp_zone, PointerGetDatum(tz),
												   TimestampGetDatum((Timestamp) day * USECS_PER_DAY)));
}

/*
 * The day that the moment is in: the one that has begun and not ended, however
 * the clocks are set.
 */
DateADT
lc_flow_day_of(text *tz, TimestampTz at, TimestampTz *start, TimestampTz *end)
{
	Timestamp	local = DatumGetTimestamp(DirectFunctionCall2(timestamptz_zone, PointerGetDatum(tz),
															  TimestampTzGetDatum(at)));
	DateADT		day = (DateADT) (local / USECS_PER_DAY);

	if (local < 0 && local % USECS_PER_DAY != 0)
		day--;
	*start = lc_flow_day_start(tz, day);
	*end = lc_flow_day_start(tz, day + 1);
	while (at < *start)
	{
		*end = *start;
		*start = lc_flow_day_start(tz, --day);
	}
	while (at >= *end)
	{
		*start = *end;
		*end = lc_flow_day_start(tz, ++day + 1);
	}
	return day;
}

/* The same in the program's time zone, remembered. */
static DateADT
day_of(LcProgram *program, TimestampTz at)
{
	int			slot = (int) (((uint64) at / (USECS_PER_DAY / 2)) % KNOWN_DAYS);
	TimestampTz start;
	TimestampTz end;
	DateADT		day;

	if (program->days == NULL)
		program->days = MemoryContextAllocZero(GetMemoryChunkContext(program), sizeof(LcDays));
	if (at >= program->days->known[slot].start && at < program->days->known[slot].end)
		return program->days->known[slot].day;
	day = lc_flow_day_of(program->tz, at, &start, &end);
	program->days->known[slot].start = start;
	program->days->known[slot].end = end;
	program->days->known[slot].day = day;
	return day;
}

/*
 * flow_day(at, tz): the day that the flow counts the moment under.
 */
Datum
lifecycle_flow_day(PG_FUNCTION_ARGS)
{
	TimestampTz start;
	TimestampTz end;

	PG_RETURN_DATEADT(lc_flow_day_of(PG_GETARG_TEXT_PP(1), PG_GETARG_TIMESTAMPTZ(0), &start, &end));
}

/* ---- sets ---- */

static int
compare_labels(const void *a, const void *b)
{
	text	   *x = DatumGetTextPP(*(const Datum *) a);
	text	   *y = DatumGetTextPP(*(const Datum *) b);
	int			nx = VARSIZE_ANY_EXHDR(x);
	int			ny = VARSIZE_ANY_EXHDR(y);
	int			result = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(nx, ny));

	return result != 0 ? result : nx - ny;
}

/*
 * The statuses that a history says were reached, in this cycle or ever, as a
 * set: in the order of their bytes.
 */
static ArrayType *
set_of(ArrayType *reached, bool ever)
{
	Datum	   *labels;
	bool	   *nulls;
	int			n;
	int			k = 0;

	deconstruct_array(reached, TEXTOID, -1, false, TYPALIGN_INT, &labels, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			labels[k++] = labels[i];
		else if (!ever)
			break;
	}
	qsort(labels, k, sizeof(Datum), compare_labels);
	return construct_array(labels, k, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * Take a lead out of one set and put it into another, where they differ; "from"
 * is NULL for a lead that was in none.
 */
static void
count_sets(LcFlow *flow, LcProgram *program, const LcMove *move, const char *kind, TimestampTz entered,
		   ArrayType *from, ArrayType *to)
{
	Count		key = {0};

	if (same_varlena(from, to))
		return;
	key.kind = kind;
	key.day = day_of(program, entered);
	key.source = move->source_isnull ? NULL : DatumGetTextPP(move->source);
	key.cohort_isnull = move->cohort_isnull;
	key.cohort = move->cohort;
	if (from != NULL)
	{
		key.reached = from;
		count_of(flow, &key)->n--;
	}
	key.reached = to;
	count_of(flow, &key)->n++;
}

/* Count a move, by its day. */
static Count *
count_move(LcFlow *flow, LcProgram *program, TimestampTz at, text *from_status, text *to_status)
{
	Count		key = {0};

	key.kind = "move";
	key.day = day_of(program, at);
	key.cohort_isnull = true;
	key.from_status = from_status;
	key.to_status = to_status;
	return count_of(flow, &key);
}

/*
 * Count a move that is about to be written to the history.
 */
void
lc_flow_count(LcFlow *flow, LcProgram *program, const LcMove *move)
{
	const LcCounted *is = &move->counted;
	bool		same_cycle = is->reached_before != NULL && is->cycle_before == move->cycle;
	Count	   *c = count_move(flow, program, move->at, move->from_status, move->to_status);

	c->n++;
	c->n_new += move->to_status != NULL && is->is_new;
	c->n_again += move->to_status != NULL && !is->is_new;
	c->n_left += is->leaves;
	c->n_entered += is->enters;
	if (is->voids)
	{
		c = count_move(flow, program, is->voided_at, is->voided_from, move->from_status);
		c->n_new -= is->voided_new;
		c->n_again -= !is->voided_new;
		c->n_left -= is->voided_left;
		c->n_entered -= is->voided_entered;
	}
	if (is->reached_before == move->reached)
		return;
	count_sets(flow, program, move, move->cycle == 1 ? "first" : "later",
			   move->cycle == 1 ? move->entered_at : move->cycle_since,
			   same_cycle ? set_of(is->reached_before, false) : NULL, set_of(move->reached, false));
	if (move->cycle > 1 && is->reached_before != NULL)
		count_sets(flow, program, move, "ever", move->entered_at,
				   set_of(is->reached_before, true), set_of(move->reached, true));
}

/* ---- writing ---- */

/* How many different things a statement counts at most before it writes them. */
#define MAX_COUNTS 10000

/* How many rows are inserted at a time. */
#define ROWS_AT_A_TIME 1000

bool
lc_flow_is_counting(const LcFlow *flow)
{
	return flow->ncounts > 0;
}

bool
lc_flow_is_large(const LcFlow *flow)
{
	return flow->ncounts >= MAX_COUNTS;
}

/*
 * Append what was counted.  It stays counted: a subtransaction that aborts takes
 * back what it wrote, and it is written again.
 */
void
lc_flow_write(LcFlow *flow)
{
	static const char *const kinds[] = {"move", "first", "later", "ever"};
	LcAppender *a;
	TupleTableSlot **slots;
	MemoryContext cxt;
	MemoryContext old;
	int			room = Min(flow->ncounts, ROWS_AT_A_TIME);
	int			made = 0;
	int			n = 0;
	text	   *span;
	text	   *kind_texts[lengthof(kinds)];
	const AttrNumber *at = flow->attno;

	if (flow->ncounts == 0)
		return;
	cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow rows", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	a = lc_append_open(flow->relid, false, false);
	slots = palloc(room * sizeof(TupleTableSlot *));
	span = cstring_to_text("new");
	for (int k = 0; k < lengthof(kinds); k++)
		kind_texts[k] = cstring_to_text(kinds[k]);
	for (int i = 0; i < flow->ncounts; i++)
	{
		const Count *c = &flow->counts[i];
		TupleTableSlot *slot;
		int			kind = 0;

		if (c->n == 0 && c->n_new == 0 && c->n_again == 0 && c->n_left == 0 && c->n_entered == 0)
			continue;
		while (strcmp(kinds[kind], c->kind) != 0)
			kind++;
		if (n == made)
			slots[made++] = table_slot_create(a->rel, NULL);
		slot = slots[n++];
		lc_append_prepare(a, slot);
		lc_append_set_text(slot, at[F_SPAN], span);
		lc_append_set_text(slot, at[F_KIND], kind_texts[kind]);
		lc_append_set(slot, at[F_DAY], DateADTGetDatum(c->day), false);
		lc_append_set_text(slot, at[F_SOURCE], c->source);
		lc_append_set(slot, at[F_COHORT], Int32GetDatum(c->cohort), c->cohort_isnull);
		lc_append_set_text(slot, at[F_FROM_STATUS], c->from_status);
		lc_append_set_text(slot, at[F_TO_STATUS], c->to_status);
		lc_append_set(slot, at[F_REACHED], PointerGetDatum(c->reached), c->reached == NULL);
		lc_append_set(slot, at[F_N], Int64GetDatum(c->n), false);
		lc_append_set(slot, at[F_N_NEW], Int64GetDatum(c->n_new), false);
		lc_append_set(slot, at[F_N_AGAIN], Int64GetDatum(c->n_again), false);
		lc_append_set(slot, at[F_N_LEFT], Int64GetDatum(c->n_left), false);
		lc_append_set(slot, at[F_N_ENTERED], Int64GetDatum(c->n_entered), false);
		ExecStoreVirtualTuple(slot);
		if (n == room)
		{
			lc_append_insert(a, slots, n);
			n = 0;
		}
	}
	if (n > 0)
		lc_append_insert(a, slots, n);
	for (int i = 0; i < made; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	lc_append_close(a);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}
