/*-------------------------------------------------------------------------
 *
 * merge.c
 *	  The merge of refresh(): what writers appended to <prefix>_flow is taken out,
 *	  and added to the cells of spans day, month, total and all.
 *
 * All is done under one snapshot and in one command, so that every other snapshot
 * sees it once.  Only one transaction merges a flow at a time; nobody else
 * changes what is merged, and writers and readers do not wait.  Rows are read
 * day by day in the order of the index, so that no more is in memory than what a
 * month and the totals have.
 *
 * Rows are changed past the executor: triggers and row security that the owner
 * put on the flow do not hold here.  Expressions of his indexes do, so refresh()
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
#include "common/cryptohash.h"
#include "common/int.h"
#include "common/sha2.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(lifecycle_flow_key);
PG_FUNCTION_INFO_V1(lifecycle_lock_flow);
PG_FUNCTION_INFO_V1(lifecycle_merge_flow);

/* ---- keys ---- */

static void
update(pg_cryptohash_ctx *ctx, const void *data, Size length)
{
	if (pg_cryptohash_update(ctx, data, length) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
}

/* The first 16 bytes of a SHA-256 over both, each preceded by whether it is there. */
static void
key_of(pg_uuid_t *key, const text *source, bool cohort_isnull, int32 cohort)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	char		bytes[6];

	if (ctx == NULL || pg_cryptohash_init(ctx) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	bytes[0] = cohort_isnull ? 0 : 1;
	for (int i = 0; i < 4; i++)
		bytes[1 + i] = cohort_isnull ? 0 : (char) ((uint32) cohort >> (8 * i));
	bytes[5] = source == NULL ? 0 : 1;
	update(ctx, bytes, sizeof(bytes));
	if (source != NULL)
		update(ctx, VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source));
	if (pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	pg_cryptohash_free(ctx);
	memcpy(key->data, digest, UUID_LEN);
}

/*
 * flow_key(source, cohort): what the cells of that source and cohort are found by.
 */
Datum
lifecycle_flow_key(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *key = palloc(sizeof(pg_uuid_t));

	key_of(key, PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0), PG_ARGISNULL(1), PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1));
	PG_RETURN_UUID_P(key);
}

/* ---- sources ---- */

/* The first sources by name, no more than are told apart. */
typedef struct Sources
{
	text	   *names[LC_FLOW_SOURCES];
	int			n;
	int			most;
} Sources;

static bool
has_source(const Sources *sources, const text *source)
{
	for (int i = 0; i < sources->n; i++)
	{
		if (lc_cell_compare_texts(sources->names[i], source) == 0)
			return true;
	}
	return false;
}

static void
add_source(Sources *sources, const text *source)
{
	int			i = sources->n;

	if (source == NULL || lc_cell_is_other(source) || has_source(sources, source))
		return;
	while (i > 0 && lc_cell_compare_texts(sources->names[i - 1], source) > 0)
		i--;
	if (i >= sources->most)
		return;
	if (sources->n < sources->most)
		sources->n++;
	memmove(&sources->names[i + 1], &sources->names[i], (sources->n - 1 - i) * sizeof(text *));
	sources->names[i] = (text *) DatumGetTextPCopy(PointerGetDatum(source));
}

/* ---- what is to be added ---- */

/* Counts of a span, together with the memory that they are in. */
typedef struct Sums
{
	MemoryContext cxt;
	LcCount    *counts;
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
	sums->counts = NULL;
	sums->n = sums->room = 0;
}

static text *
copy_text(MemoryContext cxt, const text *value)
{
	text	   *copy;

	if (value == NULL)
		return NULL;
	copy = MemoryContextAlloc(cxt, VARSIZE_ANY(value));
	memcpy(copy, value, VARSIZE_ANY(value));
	return copy;
}

static void
add_count(Sums *sums, const LcCount *count)
{
	LcCount    *c;

	if (sums->n == sums->room)
	{
		sums->room = Max(64, 2 * sums->room);
		sums->counts = sums->counts == NULL ? MemoryContextAlloc(sums->cxt, sums->room * sizeof(LcCount)) :
			repalloc_huge(sums->counts, sums->room * sizeof(LcCount));
	}
	c = &sums->counts[sums->n++];
	*c = *count;
	c->source = copy_text(sums->cxt, count->source);
	c->from_status = copy_text(sums->cxt, count->from_status);
	c->to_status = copy_text(sums->cxt, count->to_status);
	c->reached = copy_text(sums->cxt, count->reached);
}

static int
compare_counts(const void *a, const void *b)
{
	int			result = lc_cell_compare(a, b);

	return result != 0 ? result : lc_cell_compare_within(a, b);
}

/*
 * Sort them, and put those together that are counted together.
 */
static void
sum_up(Sums *sums)
{
	int64		kept = 0;

	qsort(sums->counts, sums->n, sizeof(LcCount), compare_counts);
	for (int64 i = 1; i < sums->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (compare_counts(&sums->counts[kept], &sums->counts[i]) != 0)
			sums->counts[++kept] = sums->counts[i];
		else
		{
			for (int s = 0; s < LC_FLOW_SUMS; s++)
			{
				if (pg_add_s64_overflow(sums->counts[kept].sums[s], sums->counts[i].sums[s], &sums->counts[kept].sums[s]))
					ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("bigint out of range")));
			}
		}
	}
	sums->n = Min(sums->n, kept + 1);
}

/* ---- cells ---- */

typedef struct Merge
{
	Relation	rel;
	Relation	index;
	AttrNumber	attno[LC_FLOW_COLUMNS];
	Snapshot	snapshot;
	CommandId	cid;
	EState	   *estate;
	ResultRelInfo *rri;
	TupleTableSlot *old_row;
	TupleTableSlot *new_row;
	MemoryContext cell;			/* of the one that is written just now */
	IndexScanDesc scan;			/* by all columns of the index */
	Sources		known;
	Sources		fresh;
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
delete_row(Merge *m, ItemPointer tid)
{
	TM_FailureData failure;

	require_ok(table_tuple_delete(m->rel, tid, m->cid, m->snapshot, InvalidSnapshot, true, &failure, false));
}

/*
 * Put the stored counts and those that are to be added together, both in order,
 * without what is nothing.
 */
static int
put_together(LcCount *stored, int nstored, LcCount *added, int nadded, LcCount **result)
{
	int			i = 0;
	int			j = 0;
	int			n = 0;

	while (i < nstored || j < nadded)
	{
		int			order = i == nstored ? 1 : j == nadded ? -1 : lc_cell_compare_within(&stored[i], &added[j]);
		LcCount    *c = order <= 0 ? &stored[i++] : &added[j++];

		if (order == 0)
		{
			for (int s = 0; s < LC_FLOW_SUMS; s++)
			{
				if (pg_add_s64_overflow(c->sums[s], added[j].sums[s], &c->sums[s]))
					ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("bigint out of range")));
			}
			j++;
		}
		if (!lc_cell_is_nothing(c))
			result[n++] = c;
	}
	return n;
}

/*
 * Add the counts, which are of one cell and in order, to the row of the span.
 */
static void
write_cell(Merge *m, const char *span, LcCount *added, int nadded)
{
	MemoryContext old = MemoryContextSwitchTo(m->cell);
	ScanKeyData keys[4];
	pg_uuid_t	key;
	LcCount    *stored = NULL;
	LcCount   **counts;
	int			nstored = 0;
	int			n;
	bool		found;

	key_of(&key, added->source, added->cohort_isnull, added->cohort);
	init_key(m, &keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(span));
	init_key(m, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(lc_flow_kinds[added->kind]));
	init_key(m, &keys[2], 3, BTEqualStrategyNumber, F_DATE_EQ, DateADTGetDatum(added->day));
	init_key(m, &keys[3], 4, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(&key));
	index_rescan(m->scan, keys, lengthof(keys), NULL, 0);
	/* the index keeps what it allocates now */
	MemoryContextSwitchTo(old);
	found = index_getnext_slot(m->scan, ForwardScanDirection, m->old_row);
	MemoryContextSwitchTo(m->cell);
	if (found)
		nstored = lc_cell_read(m->rel, m->old_row, m->attno, added->kind, &stored);
	counts = palloc((nstored + nadded) * sizeof(LcCount *));
	n = put_together(stored, nstored, added, nadded, counts);
	if (n == 0)
	{
		if (found)
			delete_row(m, &m->old_row->tts_tid);
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
		lc_cell_fill(m->new_row, m->attno, span, &key, counts, n);
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
write_span(Merge *m, const char *span, Sums *sums, Sums *next, DateADT day, bool segments)
{
	if (sums->n == 0)
		return;
	sum_up(sums);
	for (int64 first = 0, end; first < sums->n; first = end)
	{
		CHECK_FOR_INTERRUPTS();
		for (end = first + 1; end < sums->n; end++)
		{
			if (lc_cell_compare(&sums->counts[first], &sums->counts[end]) != 0)
				break;
		}
		for (int64 i = first; next != NULL && i < end; i++)
		{
			LcCount		c = sums->counts[i];

			c.day = day;
			if (!segments)
			{
				c.source = NULL;
				c.cohort_isnull = true;
				c.cohort = 0;
			}
			add_count(next, &c);
		}
		write_cell(m, span, &sums->counts[first], end - first);
	}
	clear_sums(sums);
}

/* ---- rows ---- */

/* Begin to read the rows of a span and a kind, by day. */
static IndexScanDesc
begin_rows(Merge *m, const char *span, LcFlowKind kind)
{
	IndexScanDesc scan = lc_index_beginscan(m->rel, m->index, m->snapshot, 2);
	ScanKeyData keys[2];

	init_key(m, &keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(span));
	init_key(m, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(lc_flow_kinds[kind]));
	index_rescan(scan, keys, 2, NULL, 0);
	return scan;
}

/*
 * Which sources are told apart: those that are, then the first by name of those
 * that come, as long as there is room.
 */
static void
find_sources(Merge *m)
{
	for (int pass = 0; pass < 2; pass++)
	{
		Sources    *sources = pass == 0 ? &m->known : &m->fresh;

		sources->most = pass == 0 ? LC_FLOW_SOURCES : LC_FLOW_SOURCES - m->known.n;
		for (LcFlowKind kind = K_FIRST; kind < LC_FLOW_KINDS; kind++)
		{
			IndexScanDesc scan = begin_rows(m, pass == 0 ? "total" : "new", kind);

			while (index_getnext_slot(scan, ForwardScanDirection, m->old_row))
			{
				bool		isnull;
				Datum		source = slot_getattr(m->old_row, m->attno[F_SOURCE], &isnull);

				CHECK_FOR_INTERRUPTS();
				if (!isnull && (pass == 0 || !has_source(&m->known, DatumGetTextPP(source))))
					add_source(sources, DatumGetTextPP(source));
			}
			index_endscan(scan);
		}
	}
	ExecClearTuple(m->old_row);
}

/*
 * Merge what was appended of one kind; how many rows that is.
 */
static int64
merge_kind(Merge *m, LcFlowKind kind)
{
	text	   *other = cstring_to_text(LC_OTHER_SOURCES);
	TupleTableSlot *slot = table_slot_create(m->rel, NULL);
	IndexScanDesc scan = begin_rows(m, "new", kind);
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow row", ALLOCSET_DEFAULT_SIZES);
	Sums		day;
	Sums		month;
	Sums		total;
	Sums		all;
	int64		taken = 0;
	bool		more = true;

	begin_sums(&day);
	begin_sums(&month);
	begin_sums(&total);
	begin_sums(&all);
	while (more)
	{
		LcCount    *counts = NULL;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		more = index_getnext_slot(scan, ForwardScanDirection, slot);
		if (more)
		{
			MemoryContext old = MemoryContextSwitchTo(row);

			n = lc_cell_read(m->rel, slot, m->attno, kind, &counts);
			MemoryContextSwitchTo(old);
		}
		if (day.n > 0 && (!more || (n > 0 && counts[0].day != day.counts[0].day)))
			write_span(m, "day", &day, &month, lc_flow_month_of(day.counts[0].day), true);
		if (month.n > 0 && (!more || (n > 0 && lc_flow_month_of(counts[0].day) != month.counts[0].day)))
			write_span(m, "month", &month, &total, DATEVAL_NOBEGIN, true);
		if (!more)
			break;
		for (int i = 0; i < n; i++)
		{
			if (counts[i].source != NULL && !has_source(&m->known, counts[i].source) && !has_source(&m->fresh, counts[i].source))
				counts[i].source = other;
			add_count(&day, &counts[i]);
		}
		delete_row(m, &slot->tts_tid);
		taken++;
		MemoryContextReset(row);
	}
	write_span(m, "total", &total, &all, DATEVAL_NOBEGIN, false);
	write_span(m, "all", &all, NULL, DATEVAL_NOBEGIN, false);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(row);
	MemoryContextDelete(day.cxt);
	MemoryContextDelete(month.cxt);
	MemoryContextDelete(total.cxt);
	MemoryContextDelete(all.cxt);
	return taken;
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

/*
 * Have what is compressed be so by LZ4 until the nest level ends, where the
 * server has it: the rows of months are large, and pglz would take as long as
 * all else.
 */
static void
compress_fast(void)
{
#ifdef USE_LZ4
	(void) set_config_option("default_toast_compression", "lz4", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
#endif
}

/*
 * merge_flow(flow): how many rows were merged.  The snapshot is taken when nobody
 * else merges any more.
 */
Datum
lifecycle_merge_flow(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	int64		merged = 0;
	Merge		m = {0};
	int			nest_level = NewGUCNestLevel();

	lock_flow(relid);
	compress_fast();
	m.rel = table_open(relid, RowExclusiveLock);
	if (m.rel->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a plain table", RelationGetRelationName(m.rel))));
	CheckCmdReplicaIdentity(m.rel, CMD_UPDATE);
	CheckCmdReplicaIdentity(m.rel, CMD_DELETE);
	lc_cell_find_columns(m.rel, m.attno);
	m.index = lc_cell_open_index(m.rel);
	m.estate = CreateExecutorState();
	m.rri = ExecGetTriggerResultRel(m.estate, relid, NULL);
	ExecOpenIndices(m.rri, false);
	m.old_row = table_slot_create(m.rel, NULL);
	m.new_row = table_slot_create(m.rel, NULL);
	m.cell = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow cell", ALLOCSET_DEFAULT_SIZES);

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	m.snapshot = GetActiveSnapshot();
	m.cid = GetCurrentCommandId(true);
	m.scan = lc_index_beginscan(m.rel, m.index, m.snapshot, 4);
	find_sources(&m);
	for (LcFlowKind kind = K_MOVE; kind < LC_FLOW_KINDS; kind++)
		merged += merge_kind(&m, kind);
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
	AtEOXact_GUC(true, nest_level);
	PG_RETURN_INT64(merged);
}
