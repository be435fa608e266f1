/*-------------------------------------------------------------------------
 *
 * merge.c
 *	  The merge of refresh(): what writers appended to <prefix>_flow_pending is
 *	  taken out, and added to the cells of <prefix>_flow, of spans day, month, total
 *	  and all.
 *
 * All is done under one snapshot and in one command, so that every other snapshot
 * sees it once.  Only one transaction merges a flow at a time; nobody else
 * changes what is merged, and writers and readers do not wait.  What is pending is
 * sorted by day, in maintenance_work_mem and beyond that on disk, so that no more
 * is in memory than what a month and the totals have; the cells of a day are found
 * side by side with what is added to them, since both are in the order of their
 * keys.
 *
 * Rows are changed past the executor: triggers and row security that the owner
 * put on the tables do not hold here.  Expressions of his indexes do, so refresh()
 * calls this as the owner.
 *
 *-------------------------------------------------------------------------
 */
#include "flow.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(lifecycle_lock_flow);
PG_FUNCTION_INFO_V1(lifecycle_merge_flow);

/* ---- what is to be added ---- */

/* A count, and the segment that it is of. */
typedef struct Summand
{
	const LcSegment *segment;
	LcCount		count;
} Summand;

/* What a kind is to have more in a span on a day, with the memory that it is in. */
typedef struct Sums
{
	MemoryContext cxt;
	Summand   **summands;
	int64		n;
	int64		room;
} Sums;

static void
begin_sums(Sums *sums)
{
	memset(sums, 0, sizeof(Sums));
	sums->cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle sums", ALLOCSET_DEFAULT_SIZES);
}

static void
clear_sums(Sums *sums)
{
	MemoryContextReset(sums->cxt);
	sums->summands = NULL;
	sums->n = sums->room = 0;
}

/* Add a copy of the count, as one of that day and segment. */
static void
add_count(Sums *sums, DateADT day, const LcSegment *segment, const LcCount *count)
{
	Summand    *s;

	if (sums->n == sums->room)
	{
		sums->room = Max(64, 2 * sums->room);
		sums->summands = sums->summands == NULL ? MemoryContextAlloc(sums->cxt, sums->room * sizeof(Summand *)) :
			repalloc_huge(sums->summands, sums->room * sizeof(Summand *));
	}
	s = MemoryContextAlloc(sums->cxt, sizeof(Summand));
	sums->summands[sums->n++] = s;
	s->segment = segment;
	s->count = *count;
	s->count.day = day;
	s->count.source = segment->source;
	s->count.cohort_isnull = segment->cohort_isnull;
	s->count.cohort = segment->cohort;
	s->count.from_status = lc_cell_copy_text(sums->cxt, count->from_status);
	s->count.to_status = lc_cell_copy_text(sums->cxt, count->to_status);
	s->count.reached = lc_cell_copy_text(sums->cxt, count->reached);
}

/* The order of the index. */
static int
compare_summands(const void *a, const void *b)
{
	const Summand *x = *(Summand *const *) a;
	const Summand *y = *(Summand *const *) b;

	if (x->segment != y->segment)
		return memcmp(x->segment->key.data, y->segment->key.data, UUID_LEN);
	return lc_cell_compare_within(&x->count, &y->count);
}

static void
add_sums(LcCount *to, const LcCount *more)
{
	for (int s = 0; s < LC_FLOW_SUMS; s++)
	{
		if (pg_add_s64_overflow(to->sums[s], more->sums[s], &to->sums[s]))
			ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("bigint out of range")));
	}
}

/*
 * Sort them, and put those together that are counted together.
 */
static void
sum_up(Sums *sums)
{
	int64		kept = 0;

	qsort(sums->summands, sums->n, sizeof(Summand *), compare_summands);
	for (int64 i = 1; i < sums->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (compare_summands(&sums->summands[kept], &sums->summands[i]) != 0)
			sums->summands[++kept] = sums->summands[i];
		else
			add_sums(&sums->summands[kept]->count, &sums->summands[i]->count);
	}
	sums->n = Min(sums->n, kept + 1);
}

/* ---- cells ---- */

typedef struct Merge
{
	Relation	rel;
	Relation	index;
	AttrNumber	attno[LC_FLOW_COLUMNS];
	Relation	pending;
	AttrNumber	pending_attno[LC_FLOW_COLUMNS];
	Snapshot	snapshot;
	CommandId	cid;
	EState	   *estate;
	ResultRelInfo *rri;
	TupleTableSlot *old_row;
	TupleTableSlot *new_row;
	MemoryContext cell;			/* of the one that is written just now */
	LcSegments *segments;
	IndexScanDesc scan;			/* of the cells of a span, kind and day, in the order of their keys */
	ScanKeyData keys[4];		/* what it reads */
	MemoryContext bounds;		/* of what they refer to */
	bool		at_entry;		/* that is not read past */
	pg_uuid_t	entry;			/* its key */
} Merge;

static void
init_key(Merge *m, ScanKey key, int column, StrategyNumber strategy, RegProcedure procedure, Datum value)
{
	ScanKeyEntryInitialize(key, 0, column, strategy, InvalidOid, m->index->rd_indcollation[column - 1], procedure, value);
}

/*
 * Somebody changed the row since the snapshot was taken: in REPEATABLE READ
 * another merge, else a user who writes the flow by hand.
 */
static void
require_ok(TM_Result result)
{
	if (result == TM_Ok)
		return;
	if (result == TM_Deleted)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent delete")));
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent update")));
}

static void
delete_row(Merge *m, Relation rel, ItemPointer tid)
{
	TM_FailureData failure;

	require_ok(table_tuple_delete(rel, tid, m->cid, m->snapshot, InvalidSnapshot, true, &failure, false));
}

/* ---- finding cells ---- */

/* Entries of the index that are read past rather than to descend to the next one that is wanted. */
#define ENTRIES_PASSED 32

static void
next_entry(Merge *m)
{
	bool		isnull;

	m->at_entry = index_getnext_tid(m->scan, ForwardScanDirection) != NULL;
	if (m->at_entry)
		m->entry = *DatumGetUUIDP(index_getattr(m->scan->xs_itup, 4, m->scan->xs_itupdesc, &isnull));
}

/* Be at the first entry of the span, kind and day that has this key or a larger one. */
static void
descend(Merge *m, const pg_uuid_t *key)
{
	m->keys[3].sk_argument = UUIDPGetDatum(key);
	index_rescan(m->scan, m->keys, lengthof(m->keys), NULL, 0);
	next_entry(m);
}

/*
 * Begin with the cells of a span, kind and day, of which the first that is wanted
 * has the key.  From here until they are found the current memory must be one that
 * stays to the end of the merge: the index keeps what it allocates.
 */
static void
begin_cells(Merge *m, const char *span, LcFlowKind kind, DateADT day, const pg_uuid_t *key)
{
	MemoryContext old = MemoryContextSwitchTo(m->bounds);

	MemoryContextReset(m->bounds);
	init_key(m, &m->keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(span));
	init_key(m, &m->keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(lc_flow_kinds[kind]));
	MemoryContextSwitchTo(old);
	init_key(m, &m->keys[2], 3, BTEqualStrategyNumber, F_DATE_EQ, DateADTGetDatum(day));
	init_key(m, &m->keys[3], 4, BTGreaterEqualStrategyNumber, F_UUID_GE, UUIDPGetDatum(key));
	descend(m, key);
}

/*
 * Whether there is a cell with that key, which is larger than that of the last
 * one; it is in old_row then.  Only rows that are wanted are fetched.
 */
static bool
find_cell(Merge *m, const pg_uuid_t *key)
{
	int			passed = 0;

	while (m->at_entry)
	{
		int			order = memcmp(m->entry.data, key->data, UUID_LEN);

		/* there may be many versions of a row that a snapshot keeps */
		CHECK_FOR_INTERRUPTS();
		if (order > 0)
			return false;
		if (order == 0 && index_fetch_heap(m->scan, m->old_row))
			return true;
		if (order < 0 && ++passed > ENTRIES_PASSED)
		{
			descend(m, key);
			passed = 0;
		}
		else
			next_entry(m);
	}
	return false;
}

/* ---- writing cells ---- */

/*
 * Write the stored counts and those that are to be added, both in order, as one,
 * without what is nothing.  Whether it is the same that is counted as before.
 */
static bool
put_together(LcCellWriter *writer, LcCellReader *stored, bool found, Summand **added, int nadded)
{
	bool		more = found && lc_cell_next(stored);
	bool		same = true;
	int			j = 0;

	while (more || j < nadded)
	{
		int			order = !more ? 1 : j == nadded ? -1 : lc_cell_compare_within(&stored->count, &added[j]->count);
		LcCount    *c = order <= 0 ? &stored->count : &added[j]->count;

		if (order == 0)
			add_sums(c, &added[j]->count);
		if (!lc_cell_is_nothing(c))
			lc_cell_put(writer, c);
		same = same && (order <= 0) == !lc_cell_is_nothing(c);
		if (order >= 0)
			j++;
		if (order <= 0)
			more = lc_cell_next(stored);
	}
	return same;
}

/*
 * Add what is of one cell, in order, to the row of the span.
 */
static void
write_cell(Merge *m, const char *span, Summand **added, int nadded)
{
	const LcSegment *segment = added[0]->segment;
	LcCount    *cell = &added[0]->count;
	bool		found = find_cell(m, &segment->key);
	MemoryContext old = MemoryContextSwitchTo(m->cell);
	LcCellReader stored;
	LcCellWriter writer;
	bool		same;

	if (found)
		lc_cell_begin_read(&stored, m->rel, m->old_row, m->attno, cell->kind);
	lc_cell_begin_write(&writer, cell->kind, (found ? stored.n : 0) + nadded);
	same = put_together(&writer, &stored, found, added, nadded);
	if (writer.n == 0)
	{
		if (found)
			delete_row(m, m->rel, &m->old_row->tts_tid);
	}
	else
	{
		ExecClearTuple(m->new_row);
		if (found)
		{
			/* columns that are not ours stay what they are */
			slot_getallattrs(m->old_row);
			memcpy(m->new_row->tts_values, m->old_row->tts_values, m->new_row->tts_tupleDescriptor->natts * sizeof(Datum));
			memcpy(m->new_row->tts_isnull, m->old_row->tts_isnull, m->new_row->tts_tupleDescriptor->natts * sizeof(bool));
		}
		else
			memset(m->new_row->tts_isnull, true, m->new_row->tts_tupleDescriptor->natts * sizeof(bool));
		lc_cell_store(&writer, m->new_row, m->attno, span, &segment->key, cell, same);
		ExecStoreVirtualTuple(m->new_row);
		m->new_row->tts_tableOid = RelationGetRelid(m->rel);
		if (found)
		{
			TM_FailureData failure;
			LockTupleMode mode;
			LcUpdateIndexes indexes;

			require_ok(table_tuple_update(m->rel, &m->old_row->tts_tid, m->new_row, m->cid, m->snapshot, InvalidSnapshot,
										  true, &failure, &mode, &indexes));
			if (lc_needs_entries(indexes))
				list_free(lc_update_index_tuples(m->rri, m->new_row, m->estate, indexes));
		}
		else
		{
			table_tuple_insert(m->rel, m->new_row, m->cid, 0, NULL);
			list_free(lc_insert_index_tuples(m->rri, m->new_row, m->estate));
		}
		ExecClearTuple(m->new_row);
	}
	ExecClearTuple(m->old_row);
	MemoryContextSwitchTo(old);
	MemoryContextReset(m->cell);
	ResetPerTupleExprContext(m->estate);
}

/*
 * Write what a span is to have more, and hand it on to the next one, whose days
 * are others.
 */
static void
write_span(Merge *m, const char *span, Sums *sums, Sums *next, DateADT next_day, const LcSegment *next_segment)
{
	Summand   **s;

	if (sums->n == 0)
		return;
	sum_up(sums);
	s = sums->summands;
	begin_cells(m, span, s[0]->count.kind, s[0]->count.day, &s[0]->segment->key);
	for (int64 first = 0, end; first < sums->n; first = end)
	{
		CHECK_FOR_INTERRUPTS();
		for (end = first + 1; end < sums->n && s[end]->segment == s[first]->segment; end++)
			;
		for (int64 i = first; next != NULL && i < end; i++)
			add_count(next, next_day, next_segment != NULL ? next_segment : s[i]->segment, &s[i]->count);
		write_cell(m, span, &s[first], end - first);
	}
	clear_sums(sums);
}

/* ---- rows ---- */

/*
 * The sources that are told apart already stay so.
 */
static void
find_sources(Merge *m)
{
	for (LcFlowKind kind = K_FIRST; kind < LC_FLOW_KINDS; kind++)
	{
		IndexScanDesc scan = lc_index_beginscan(m->rel, m->index, m->snapshot, 2);
		ScanKeyData keys[2];

		init_key(m, &keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum("total"));
		init_key(m, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(lc_flow_kinds[kind]));
		index_rescan(scan, keys, 2, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, m->old_row))
		{
			bool		isnull;
			Datum		source = slot_getattr(m->old_row, m->attno[F_SOURCE], &isnull);

			CHECK_FOR_INTERRUPTS();
			if (!isnull)
				(void) lc_segment_of(m->segments, DatumGetTextPP(source), true, 0);
		}
		index_endscan(scan);
	}
	ExecClearTuple(m->old_row);
}

/*
 * Take out what is pending, into a sort by day for each kind; how many rows that
 * is.  Values that are stored out of line are read after they are deleted, which
 * they can be as long as this transaction runs.  Rows of no kind that there is
 * stay: verify() tells of them.
 */
static int64
take_pending(Merge *m, Tuplesortstate **sorts)
{
	TupleTableSlot *slot = table_slot_create(m->pending, NULL);
	TableScanDesc scan = table_beginscan(m->pending, m->snapshot, 0, NULL);
	Oid			before = lookup_type_cache(DATEOID, TYPECACHE_LT_OPR)->lt_opr;
	int64		taken = 0;

	for (LcFlowKind kind = K_MOVE; kind < LC_FLOW_KINDS; kind++)
	{
		Oid			collation = InvalidOid;
		bool		nulls_first = false;

		sorts[kind] = tuplesort_begin_heap(RelationGetDescr(m->pending), 1, &m->pending_attno[F_DAY], &before, &collation,
										   &nulls_first, maintenance_work_mem / LC_FLOW_KINDS, NULL, TUPLESORT_NONE);
	}
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		int			kind = lc_cell_kind(slot, m->pending_attno);

		CHECK_FOR_INTERRUPTS();
		if (kind < 0)
			continue;
		tuplesort_puttupleslot(sorts[kind], slot);
		delete_row(m, m->pending, &slot->tts_tid);
		taken++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return taken;
}

/*
 * Merge what was pending of one kind.
 */
static void
merge_kind(Merge *m, LcFlowKind kind, Tuplesortstate *sort)
{
	const LcSegment *none = lc_segment_of(m->segments, NULL, true, 0);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(m->pending), &TTSOpsMinimalTuple);
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow row", ALLOCSET_DEFAULT_SIZES);
	Sums		day;
	Sums		month;
	Sums		total;
	Sums		all;
	bool		more = true;

	begin_sums(&day);
	begin_sums(&month);
	begin_sums(&total);
	begin_sums(&all);
	tuplesort_performsort(sort);
	while (more)
	{
		const LcSegment *segment;
		LcCount    *counts = NULL;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		more = tuplesort_gettupleslot(sort, true, false, slot, NULL);
		if (more)
		{
			MemoryContext old = MemoryContextSwitchTo(row);

			n = lc_cell_read(m->pending, slot, m->pending_attno, kind, &counts);
			MemoryContextSwitchTo(old);
		}
		if (day.n > 0 && (!more || (n > 0 && counts->day != day.summands[0]->count.day)))
			write_span(m, "day", &day, &month, lc_flow_month_of(day.summands[0]->count.day), NULL);
		if (month.n > 0 && (!more || (n > 0 && lc_flow_month_of(counts->day) != month.summands[0]->count.day)))
			write_span(m, "month", &month, &total, DATEVAL_NOBEGIN, NULL);
		if (!more)
			break;
		if (n > 0)
			segment = lc_segment_of(m->segments, counts->source, counts->cohort_isnull, counts->cohort);
		for (int i = 0; i < n; i++)
			add_count(&day, counts[i].day, segment, &counts[i]);
		MemoryContextReset(row);
	}
	write_span(m, "total", &total, &all, DATEVAL_NOBEGIN, none);
	write_span(m, "all", &all, NULL, DATEVAL_NOBEGIN, NULL);
	tuplesort_end(sort);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(row);
	MemoryContextDelete(day.cxt);
	MemoryContextDelete(month.cxt);
	MemoryContextDelete(total.cxt);
	MemoryContextDelete(all.cxt);
}

/* ---- all of it ---- */

/*
 * Wait until nobody else merges the flow, and keep others from it until the
 * transaction ends.  The lock is one on the flow as an object, which conflicts
 * with nothing but itself: to have it, one must own the flow.
 */
static void
lock_flow(Oid relid)
{
	/* rather than an error about the mode of a lock */
	PreventCommandDuringRecovery("lifecycle.refresh()");
	lc_require_owner(relid);
	LockDatabaseObject(RelationRelationId, relid, 0, ShareUpdateExclusiveLock);
}

/*
 * lock_flow(flow)
 */
Datum
lifecycle_lock_flow(PG_FUNCTION_ARGS)
{
	lock_flow(PG_GETARG_OID(0));
	PG_RETURN_VOID();
}

/* Open a table whose rows are to be changed past the executor. */
static Relation
open_plain(Oid relid, bool is_updated)
{
	Relation	rel = table_open(relid, RowExclusiveLock);

	if (rel->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a plain table", RelationGetRelationName(rel))));
	if (is_updated)
		CheckCmdReplicaIdentity(rel, CMD_UPDATE);
	CheckCmdReplicaIdentity(rel, CMD_DELETE);
	return rel;
}

/*
 * merge_flow(flow, pending): how many rows were merged.  The snapshot is taken
 * when nobody else merges any more.
 */
Datum
lifecycle_merge_flow(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Tuplesortstate *sorts[LC_FLOW_KINDS];
	int64		merged;
	Merge		m = {0};

	lock_flow(relid);
	lc_require_owner(PG_GETARG_OID(1));
	m.pending = open_plain(PG_GETARG_OID(1), false);
	m.rel = open_plain(relid, true);
	lc_cell_find_columns(m.pending, F_KIND, m.pending_attno);
	lc_cell_find_columns(m.rel, F_SPAN, m.attno);
	m.index = lc_cell_open_index(m.rel);
	m.estate = CreateExecutorState();
	m.rri = ExecGetTriggerResultRel(m.estate, relid, NULL);
	ExecOpenIndices(m.rri, false);
	m.old_row = table_slot_create(m.rel, NULL);
	m.new_row = table_slot_create(m.rel, NULL);
	m.cell = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow cell", ALLOCSET_DEFAULT_SIZES);
	m.bounds = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow bounds", ALLOCSET_SMALL_SIZES);
	m.segments = lc_segment_begin();

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	m.snapshot = GetActiveSnapshot();
	m.cid = GetCurrentCommandId(true);
	m.scan = lc_index_beginscan(m.rel, m.index, m.snapshot, 4);
	m.scan->xs_want_itup = true;
	find_sources(&m);
	merged = take_pending(&m, sorts);
	for (LcFlowKind kind = K_MOVE; kind < LC_FLOW_KINDS; kind++)
		merge_kind(&m, kind, sorts[kind]);
	index_endscan(m.scan);
	PopActiveSnapshot();
	CommandCounterIncrement();

	ExecDropSingleTupleTableSlot(m.old_row);
	ExecDropSingleTupleTableSlot(m.new_row);
	index_close(m.index, NoLock);
	ExecCloseIndices(m.rri);
	ExecResetTupleTable(m.estate->es_tupleTable, false);
	table_close(m.rri->ri_RelationDesc, NoLock);
	FreeExecutorState(m.estate);
	table_close(m.rel, NoLock);
	table_close(m.pending, NoLock);
	PG_RETURN_INT64(merged);
}
