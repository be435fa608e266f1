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
#include "flow.h"

#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_flow_day);

static uint32
hash_text(uint32 seed, const text *value)
{
	if (value == NULL)
		return hash_combine(seed, 0);
	return hash_combine(seed, hash_bytes((const unsigned char *) VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)));
}

static uint32
hash_of(const LcCount *c)
{
	uint32		hash = hash_combine((uint32) c->day, (uint32) c->kind);

	hash = hash_combine(hash, c->cohort_isnull ? 0 : (uint32) c->cohort);
	hash = hash_text(hash, c->source);
	hash = hash_text(hash, c->from_status);
	hash = hash_text(hash, c->to_status);
	return hash_text(hash, c->reached);
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
	LcCount    *counts;
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
	flow->counts = flow->counts == NULL ? palloc(flow->room * sizeof(LcCount)) :
		repalloc_huge(flow->counts, flow->room * sizeof(LcCount));
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

static text *
keep(LcFlow *flow, const text *value)
{
	text	   *copy;

	if (value == NULL)
		return NULL;
	copy = MemoryContextAlloc(flow->counted, VARSIZE_ANY(value));
	memcpy(copy, value, VARSIZE_ANY(value));
	return copy;
}

/*
 * Where the like of this one is counted, from 0.
 */
static LcCount *
count_of(LcFlow *flow, LcCount *key)
{
	uint32		slot;
	LcCount    *c;

	if (flow->ncounts == flow->room)
		enlarge(flow);
	key->hash = hash_of(key);
	for (slot = key->hash & (flow->nslots - 1); flow->slots[slot] >= 0; slot = (slot + 1) & (flow->nslots - 1))
	{
		c = &flow->counts[flow->slots[slot]];
		if (c->hash == key->hash && lc_cell_compare(c, key) == 0 && lc_cell_compare_within(c, key) == 0)
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
static text *
set_of(ArrayType *reached, bool ever)
{
	Datum	   *labels;
	bool	   *nulls;
	text	   *set;
	char	   *end;
	Size		length = 0;
	int			n;
	int			k = 0;

	deconstruct_array(reached, TEXTOID, -1, false, TYPALIGN_INT, &labels, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
		{
			length += VARSIZE_ANY_EXHDR(DatumGetPointer(labels[i])) + 1;
			labels[k++] = labels[i];
		}
		else if (!ever)
			break;
	}
	if (k > 1)
		qsort(labels, k, sizeof(Datum), compare_labels);
	set = palloc(VARHDRSZ + length);
	end = VARDATA(set);
	for (int i = 0; i < k; i++)
	{
		const text *label = (const text *) DatumGetPointer(labels[i]);

		if (i > 0)
			*end++ = LC_SET_SEPARATOR;
		memcpy(end, VARDATA_ANY(label), VARSIZE_ANY_EXHDR(label));
		end += VARSIZE_ANY_EXHDR(label);
	}
	SET_VARSIZE(set, end - (char *) set);
	return set;
}

/*
 * Take a lead out of one set and put it into another, where they differ; "from"
 * is NULL for a lead that was in none.
 */
static void
count_sets(LcFlow *flow, LcProgram *program, const LcMove *move, LcFlowKind kind, TimestampTz entered,
		   text *from, text *to)
{
	LcCount		key = {0};

	if (lc_cell_compare_texts(from, to) == 0)
		return;
	key.kind = kind;
	key.day = day_of(program, entered);
	key.source = move->source_isnull ? NULL : DatumGetTextPP(move->source);
	key.cohort_isnull = move->cohort_isnull;
	key.cohort = move->cohort;
	if (from != NULL)
	{
		key.reached = from;
		count_of(flow, &key)->sums[S_N]--;
	}
	key.reached = to;
	count_of(flow, &key)->sums[S_N]++;
}

/* Count a move, by its day. */
static LcCount *
count_move(LcFlow *flow, LcProgram *program, TimestampTz at, text *from_status, text *to_status)
{
	LcCount		key = {0};

	key.kind = K_MOVE;
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
	LcCount    *c = count_move(flow, program, move->at, move->from_status, move->to_status);

	c->sums[S_N]++;
	c->sums[S_NEW] += move->to_status != NULL && is->is_new;
	c->sums[S_AGAIN] += move->to_status != NULL && !is->is_new;
	c->sums[S_LEFT] += is->leaves;
	c->sums[S_ENTERED] += is->enters;
	if (is->voids)
	{
		c = count_move(flow, program, is->voided_at, is->voided_from, move->from_status);
		c->sums[S_NEW] -= is->voided_new;
		c->sums[S_AGAIN] -= !is->voided_new;
		c->sums[S_LEFT] -= is->voided_left;
		c->sums[S_ENTERED] -= is->voided_entered;
	}
	if (is->reached_before == move->reached)
		return;
	count_sets(flow, program, move, move->cycle == 1 ? K_FIRST : K_LATER,
			   move->cycle == 1 ? move->entered_at : move->cycle_since,
			   same_cycle ? set_of(is->reached_before, false) : NULL, set_of(move->reached, false));
	if (move->cycle > 1 && is->reached_before != NULL)
		count_sets(flow, program, move, K_EVER, move->entered_at,
				   set_of(is->reached_before, true), set_of(move->reached, true));
}

/* ---- writing ---- */

/* How many different things a statement counts at most before it writes them. */
#define MAX_COUNTS 50000

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

static int
compare_counts(const void *a, const void *b)
{
	const LcCount *x = *(LcCount *const *) a;
	const LcCount *y = *(LcCount *const *) b;
	int			result = lc_cell_compare(x, y);

	return result != 0 ? result : lc_cell_compare_within(x, y);
}

/*
 * Append what was counted, a row for each cell.  It stays counted: a
 * subtransaction that aborts takes back what it wrote, and it is written again.
 */
void
lc_flow_write(LcFlow *flow)
{
	LcAppender *a;
	TupleTableSlot **slots;
	LcCount   **counts;
	MemoryContext rows;
	MemoryContext old;
	int			ncounts = 0;
	int			room;
	int			made = 0;
	int			n = 0;

	if (flow->ncounts == 0)
		return;
	old = MemoryContextSwitchTo(AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow", ALLOCSET_DEFAULT_SIZES));
	rows = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow rows", ALLOCSET_DEFAULT_SIZES);
	counts = MemoryContextAllocHuge(CurrentMemoryContext, flow->ncounts * sizeof(LcCount *));
	for (int i = 0; i < flow->ncounts; i++)
	{
		if (!lc_cell_is_nothing(&flow->counts[i]))
			counts[ncounts++] = &flow->counts[i];
	}
	qsort(counts, ncounts, sizeof(LcCount *), compare_counts);
	a = lc_append_open(flow->relid, false, false);
	room = Min(ncounts, ROWS_AT_A_TIME);
	slots = palloc((room + 1) * sizeof(TupleTableSlot *));
	for (int first = 0, next; first < ncounts; first = next)
	{
		for (next = first + 1; next < ncounts; next++)
		{
			if (lc_cell_compare(counts[first], counts[next]) != 0)
				break;
		}
		if (n == made)
			slots[made++] = table_slot_create(a->rel, NULL);
		MemoryContextSwitchTo(rows);
		lc_append_prepare(a, slots[n]);
		lc_cell_fill(slots[n], flow->attno, "new", NULL, counts + first, next - first);
		ExecStoreVirtualTuple(slots[n++]);
		MemoryContextSwitchTo(MemoryContextGetParent(rows));
		if (n == room || next == ncounts)
		{
			lc_append_insert(a, slots, n);
			MemoryContextReset(rows);
			n = 0;
		}
	}
	for (int i = 0; i < made; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	lc_append_close(a);
	MemoryContextDelete(MemoryContextSwitchTo(old));
}
