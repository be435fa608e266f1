/*-------------------------------------------------------------------------
 *
 * flow.c
 *	  What reports sum: an aggregate of the history that every statement appends
 *	  to, and that nobody waits for.
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
 * What a statement counted is appended to <prefix>_flow_pending with the rows of
 * history that it belongs to, in the same subtransaction; refresh() merges it into
 * <prefix>_flow (merge.c).  The truth is at every instant the sum of both: rows
 * are keyed by labels, and never changed by writers.
 *
 *-------------------------------------------------------------------------
 */
#include "flow.h"

#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_flow_day);

/* ---- counts ---- */

/* A text that keys refer to by its number; 0 is NULL. */
typedef struct Text
{
	text	   *value;
	int32		number;
	uint32		hash;
	char		status;
} Text;

#define SH_PREFIX texts
#define SH_ELEMENT_TYPE Text
#define SH_KEY_TYPE text *
#define SH_KEY value
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key))
#define SH_EQUAL(tb, a, b) (lc_cell_compare_texts(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* What is counted together: no padding, since it is compared as it lies there. */
typedef struct Key
{
	int32		kind;
	int32		day;
	int32		cohort_isnull;
	int32		cohort;
	int32		source;
	int32		from_status;
	int32		to_status;
	int32		reached;
} Key;

typedef struct Count
{
	Key			key;
	int64		sums[LC_FLOW_SUMS];
	uint32		hash;
	char		status;
} Count;

#define SH_PREFIX counts
#define SH_ELEMENT_TYPE Count
#define SH_KEY_TYPE Key
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) &(key), sizeof(Key))
#define SH_EQUAL(tb, a, b) (memcmp(&(a), &(b), sizeof(Key)) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/*
 * What a frame of history counted and has not written.
 */
struct LcFlow
{
	MemoryContext counted;		/* of the tables */
	Oid			relid;			/* what is pending */
	AttrNumber	attno[LC_FLOW_COLUMNS];
	texts_hash *texts;			/* NULL: nothing is counted */
	counts_hash *counts;
};

/*
 * Begin to count the moves of a program, in the current memory context.
 */
LcFlow *
lc_flow_begin(LcProgram *program)
{
	LcFlow	   *flow = palloc0(sizeof(LcFlow));

	flow->counted = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow", ALLOCSET_SMALL_SIZES);
	flow->relid = program->pending;
	memcpy(flow->attno, program->pending_attno, sizeof(flow->attno));
	return flow;
}

/* Forget what was counted. */
void
lc_flow_clear(LcFlow *flow)
{
	MemoryContextReset(flow->counted);
	flow->texts = NULL;
	flow->counts = NULL;
}

/* The number of the text, which is kept. */
static int32
number_of(LcFlow *flow, const text *value)
{
	Text	   *t;
	bool		found;

	if (value == NULL)
		return 0;
	t = texts_insert(flow->texts, unconstify(text *, value), &found);
	if (!found)
	{
		t->value = lc_cell_copy_text(flow->counted, value);
		t->number = flow->texts->members;
	}
	return t->number;
}

/*
 * The sums of what is counted like that, from 0; until the next one is asked for.
 */
static int64 *
sums_of(LcFlow *flow, LcFlowKind kind, DateADT day, const LcMove *cell, const text *from_status, const text *to_status,
		const text *reached)
{
	Key			key = {0};
	Count	   *c;
	bool		found;

	if (flow->counts == NULL)
	{
		flow->texts = texts_create(flow->counted, 8, NULL);
		flow->counts = counts_create(flow->counted, 8, NULL);
	}
	key.kind = kind;
	key.day = day;
	key.cohort_isnull = cell == NULL || cell->cohort_isnull;
	if (!key.cohort_isnull)
		key.cohort = cell->cohort;
	if (cell != NULL && !cell->source_isnull)
		key.source = number_of(flow, DatumGetTextPP(cell->source));
	key.from_status = number_of(flow, from_status);
	key.to_status = number_of(flow, to_status);
	key.reached = number_of(flow, reached);
	c = counts_insert(flow->counts, key, &found);
	if (!found)
		memset(c->sums, 0, sizeof(c->sums));
	return c->sums;
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

/* The first day of the month that the day is in; of no day of any, itself. */
DateADT
lc_flow_month_of(DateADT day)
{
	int			year;
	int			month;
	int			of_month;

	if (DATE_NOT_FINITE(day))
		return day;
	j2date(day + POSTGRES_EPOCH_JDATE, &year, &month, &of_month);
	return day - (of_month - 1);
}

/* ---- sets ---- */

static int
compare_labels(const void *a, const void *b)
{
	return lc_cell_compare_texts(DatumGetTextPP(*(const Datum *) a), DatumGetTextPP(*(const Datum *) b));
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

	if (ARR_NDIM(reached) == 1 && ARR_DIMS(reached)[0] == 1 && !ARR_HASNULL(reached))
		return (text *) ARR_DATA_PTR(reached);
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
		   const text *from, const text *to)
{
	DateADT		day;

	if (lc_cell_compare_texts(from, to) == 0)
		return;
	day = day_of(program, entered);
	if (from != NULL)
		sums_of(flow, kind, day, move, NULL, NULL, from)[S_N]--;
	sums_of(flow, kind, day, move, NULL, NULL, to)[S_N]++;
}

/*
 * Count a move that is about to be written to the history.
 */
void
lc_flow_count(LcFlow *flow, LcProgram *program, const LcMove *move)
{
	const LcCounted *is = &move->counted;
	bool		same_cycle = is->reached_before != NULL && is->cycle_before == move->cycle;
	int64	   *sums = sums_of(flow, K_MOVE, day_of(program, move->at), NULL, move->from_status, move->to_status, NULL);

	sums[S_N]++;
	sums[S_NEW] += move->to_status != NULL && is->is_new;
	sums[S_AGAIN] += move->to_status != NULL && !is->is_new;
	sums[S_LEFT] += is->leaves;
	sums[S_ENTERED] += is->enters;
	if (is->voids)
	{
		sums = sums_of(flow, K_MOVE, day_of(program, is->voided_at), NULL, is->voided_from, move->from_status, NULL);
		sums[S_NEW] -= is->voided_new;
		sums[S_AGAIN] -= !is->voided_new;
		sums[S_LEFT] -= is->voided_left;
		sums[S_ENTERED] -= is->voided_entered;
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
	return flow->counts != NULL;
}

bool
lc_flow_is_large(const LcFlow *flow)
{
	return flow->counts != NULL && flow->counts->members >= MAX_COUNTS;
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
 * What was counted and is not nothing, in the order of cells.
 */
static LcCount **
counts_in_order(LcFlow *flow, int *n)
{
	text	  **values = palloc0((flow->texts->members + 1) * sizeof(text *));
	LcCount    *counts = MemoryContextAllocHuge(CurrentMemoryContext, flow->counts->members * sizeof(LcCount));
	LcCount   **order = palloc(flow->counts->members * sizeof(LcCount *));
	texts_iterator t;
	counts_iterator c;
	Text	   *text;
	Count	   *counted;

	texts_start_iterate(flow->texts, &t);
	while ((text = texts_iterate(flow->texts, &t)) != NULL)
		values[text->number] = text->value;
	*n = 0;
	counts_start_iterate(flow->counts, &c);
	while ((counted = counts_iterate(flow->counts, &c)) != NULL)
	{
		LcCount    *count = &counts[*n];

		count->kind = counted->key.kind;
		count->day = counted->key.day;
		count->source = values[counted->key.source];
		count->cohort_isnull = counted->key.cohort_isnull;
		count->cohort = counted->key.cohort;
		count->from_status = values[counted->key.from_status];
		count->to_status = values[counted->key.to_status];
		count->reached = values[counted->key.reached];
		memcpy(count->sums, counted->sums, sizeof(count->sums));
		if (!lc_cell_is_nothing(count))
			order[(*n)++] = count;
	}
	qsort(order, *n, sizeof(LcCount *), compare_counts);
	return order;
}

/*
 * Append what was counted, a row for each cell.  It stays counted: a
 * subtransaction that aborts takes back what it wrote, and it is written again.
 */
void
lc_flow_write(LcFlow *flow)
{
	LcAppender *a;
	LcCellWriter writer;
	TupleTableSlot **slots;
	LcCount   **counts;
	MemoryContext rows;
	MemoryContext old;
	int			ncounts;
	int			room;
	int			made = 0;
	int			n = 0;

	if (flow->counts == NULL)
		return;
	old = MemoryContextSwitchTo(AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow", ALLOCSET_DEFAULT_SIZES));
	rows = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow rows", ALLOCSET_DEFAULT_SIZES);
	counts = counts_in_order(flow, &ncounts);
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
		lc_cell_begin_write(&writer, counts[first]->kind, next - first);
		for (int i = first; i < next; i++)
			lc_cell_put(&writer, counts[i]);
		lc_cell_store(&writer, slots[n], flow->attno, NULL, NULL, counts[first], false);
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
