/*-------------------------------------------------------------------------
 *
 * behavior.c
 *	  The points that signals gave the leads: <prefix>_behavior, a row for each
 *	  lead and half-life.
 *
 * Who writes points of a lead holds the lead's row; of a lead that is not there
 * (yet), its row here.  All is read with a latest snapshot: under REPEATABLE
 * READ, too, what counts is what others committed before the lock was had.
 * Points are read by the primary key, and written where they were read, past the
 * executor: what was planned while the table was small would be a scan of all of
 * it for the rest of a session.  The statements for all else are prepared once
 * for a program, and run as the owner of the leads, to whom the table belongs.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <math.h>

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static char *
table_name(LcProgram *program)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(program->behavior)),
									  get_rel_name(program->behavior));
}

/* ---- sums ---- */

/*
 * What the points are worth at the time.
 */
float8
lc_behavior_at(const LcBehavior *behavior, TimestampTz at)
{
	float8		score = 0;

	for (int i = 0; i < behavior->n; i++)
		score += lc_decay(behavior->sums[i].points, (float8) Max(at - behavior->sums[i].at, 0),
						  behavior->sums[i].half_life);
	return score;
}

/*
 * Add points of that half-life.  The array grows in the current memory.
 */
void
lc_behavior_add(LcBehavior *behavior, float8 half_life, float8 points, TimestampTz at)
{
	int			i = 0;

	while (i < behavior->n && behavior->sums[i].half_life != half_life)
		i++;
	if (i == behavior->n)
	{
		behavior->sums = behavior->n == 0 ? palloc(sizeof(LcScore)) :
			repalloc(behavior->sums, (behavior->n + 1) * sizeof(LcScore));
		behavior->sums[behavior->n].half_life = half_life;
		behavior->sums[behavior->n].points = 0;
		ItemPointerSetInvalid(&behavior->sums[behavior->n].stored);
		behavior->sums[behavior->n].heat = get_float8_nan();
		behavior->sums[behavior->n++].at = 0;
	}
	lc_score_add(&behavior->sums[i], points, at);
}

/* ---- reading ---- */

/* Columns of <prefix>_behavior. */
enum
{
	B_LEAD,
	B_HALF_LIFE,
	B_POINTS,
	B_AT,
	B_HEAT,
	B_SINCE,
	B_COLUMNS
};

/*
 * Open the primary key (lead, half_life), and look the columns up.
 */
static Relation
open_primary_key(Relation rel, AttrNumber *attno)
{
	static const char *const names[] = {"lead", "half_life", "points", "at", "heat", "since"};
	Relation	pkey = NULL;

	for (int i = 0; i < B_COLUMNS; i++)
	{
		attno[i] = get_attnum(RelationGetRelid(rel), names[i]);
		if (attno[i] == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist", names[i],
							RelationGetRelationName(rel)),
					 errtable(rel)));
	}
	list_free(RelationGetIndexList(rel));
	if (OidIsValid(rel->rd_pkindex))
		pkey = index_open(rel->rd_pkindex, AccessShareLock);
	if (pkey == NULL || pkey->rd_index->indnkeyatts != 2 ||
		pkey->rd_index->indkey.values[0] != attno[B_LEAD] ||
		pkey->rd_index->indkey.values[1] != attno[B_HALF_LIFE])
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key (lead, half_life)", RelationGetRelationName(rel)),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (lead, half_life).",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel))),
				 errtable(rel)));
	return pkey;
}

/*
 * The points of each of the leads.  The result is in the memory that is current.
 */
LcBehavior *
lc_behavior_read(LcProgram *program, Datum *leads, int n)
{
	LcBehavior *behaviors = palloc0(n * sizeof(LcBehavior));
	Relation	rel = table_open(program->behavior, AccessShareLock);
	AttrNumber	attno[B_COLUMNS];
	Relation	pkey = open_primary_key(rel, attno);
	Oid			type = pkey->rd_opcintype[0];
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot	snapshot;
	IndexScanDesc scan;
	ScanKeyData key;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid, pkey->rd_indcollation[0],
						   get_opcode(get_opfamily_member(pkey->rd_opfamily[0], type, type, BTEqualStrategyNumber)),
						   (Datum) 0);
	scan = lc_index_beginscan(rel, pkey, snapshot, 1);
	for (int i = 0; i < n; i++)
	{
		LcBehavior *behavior = &behaviors[i];

		CHECK_FOR_INTERRUPTS();
		behavior->since = DT_NOBEGIN;
		key.sk_argument = leads[i];
		index_rescan(scan, &key, 1, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			bool		isnull;
			Interval   *half_life = DatumGetIntervalP(slot_getattr(slot, attno[B_HALF_LIFE], &isnull));
			float8		points = DatumGetFloat8(slot_getattr(slot, attno[B_POINTS], &isnull));
			TimestampTz at = DatumGetTimestampTz(slot_getattr(slot, attno[B_AT], &isnull));
			TimestampTz since = DatumGetTimestampTz(slot_getattr(slot, attno[B_SINCE], &isnull));
			int			before = behavior->n;

			behavior->known = true;
			behavior->since = Max(behavior->since, since);
			lc_behavior_add(behavior,
							half_life->time == 0 && half_life->day == 0 && half_life->month == 0 ? 0 : lc_half_life(half_life),
							points, at);
			if (behavior->n > before)
			{
				float8		heat = DatumGetFloat8(slot_getattr(slot, attno[B_HEAT], &isnull));

				behavior->sums[before].stored = slot->tts_tid;
				if (!isnull)
					behavior->sums[before].heat = heat;
			}
		}
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	index_close(pkey, NoLock);
	table_close(rel, NoLock);
	return behaviors;
}

/*
 * The behaviour score of a lead.
 */
float8
lc_behavior_score(LcProgram *program, Datum lead, TimestampTz moment)
{
	return OidIsValid(program->behavior) ?
		lc_behavior_at(lc_behavior_read(program, &lead, 1), moment) : 0;
}

/*
 * The same where the program's rules ask for it; else 0, at no cost.
 */
float8
lc_behavior_of(LcProgram *program, Datum lead, TimestampTz moment)
{
	return OidIsValid(program->behavior) && lc_rules_read_behavior(program) ?
		lc_behavior_score(program, lead, moment) : 0;
}

/* ---- writing ---- */

static Interval *
interval_of(float8 half_life)
{
	Interval   *interval = palloc0(sizeof(Interval));

	/* whole days read better, and equal the same number of hours */
	interval->day = (int32) floor(half_life / USECS_PER_DAY);
	interval->time = (int64) (half_life - (float8) interval->day * USECS_PER_DAY);
	return interval;
}

/*
 * How much hotter than it is a sum may be said to be.  Points that come mostly
 * stay within it, and the row stays where it is in the index: the update can be
 * heap-only.  hottest() reads on until nobody further down can be hotter.
 */
#define HEAT_ROOM 1.0

/*
 * The place of a sum in the order of those of its half-life, which time does not
 * change: the logarithm of its worth at a fixed time, or up to HEAT_ROOM more.
 * False where there is no worth.
 */
static bool
heat_of(const LcScore *sum, float8 *heat)
{
	float8		least;
	float8		most;

	if (!(sum->points > 0))
		return false;
	if (sum->half_life == 0)
	{
		least = sum->points;
		most = sum->points * exp2(HEAT_ROOM);
	}
	else
	{
		least = log2(sum->points) + (float8) sum->at / sum->half_life;
		most = least + HEAT_ROOM;
	}
	*heat = sum->heat >= least && sum->heat <= most ? sum->heat : most;
	return true;
}

/* A sum that is to be stored. */
typedef struct ToStore
{
	Datum		lead;
	const LcScore *sum;
	TimestampTz since;
} ToStore;

static void
values_of(const ToStore *s, Datum *values, bool *heat_isnull)
{
	float8		heat = 0;

	values[B_LEAD] = s->lead;
	values[B_HALF_LIFE] = IntervalPGetDatum(interval_of(s->sum->half_life));
	values[B_POINTS] = Float8GetDatum(s->sum->points);
	values[B_AT] = TimestampTzGetDatum(s->sum->at);
	*heat_isnull = !heat_of(s->sum, &heat);
	values[B_HEAT] = Float8GetDatum(heat);
	values[B_SINCE] = TimestampTzGetDatum(s->since);
}

/* Whether the table is as it was made, with nothing that the executor would look after. */
static bool
is_plain(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	return rel->rd_rel->relkind == RELKIND_RELATION && !rel->rd_rel->relispartition &&
		rel->trigdesc == NULL && rel->rd_rules == NULL && desc->natts == B_COLUMNS &&
		(desc->constr == NULL || (desc->constr->num_check == 0 && !desc->constr->has_generated_stored));
}

/*
 * Store a new row, unless there is one of that lead and half-life, as INSERT ...
 * ON CONFLICT DO NOTHING would.  False where there is.
 */
static bool
store_new(Relation rel, ResultRelInfo *rri, EState *estate, TupleTableSlot *slot, List *arbiters)
{
	uint32		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
	bool		conflict = false;

	table_tuple_insert_speculative(rel, slot, GetCurrentCommandId(true), 0, NULL, token);
	list_free(lc_insert_index_tuples_unless(rri, slot, estate, &conflict, arbiters));
	table_tuple_complete_speculative(rel, slot, token, !conflict);
	SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	return !conflict;
}

/*
 * Write the sums that were read from the table over what was read, and new ones.
 * Those that remain, since somebody else wrote them meanwhile, or since the table
 * is left to the executor, are put together at the beginning of the array; gives
 * their number.  "alone" says that nobody else was met.
 */
static int
store_in_place(LcProgram *program, ToStore *sums, int n, bool *alone)
{
	Relation	rel = table_open(program->behavior, RowExclusiveLock);
	EState	   *estate;
	ResultRelInfo *rri;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	CommandId	cid;
	AttrNumber	attno[B_COLUMNS];
	Relation	pkey;
	List	   *arbiters;
	int			left = 0;

	*alone = true;
	if (!is_plain(rel))
	{
		table_close(rel, NoLock);
		return n;
	}
	pkey = open_primary_key(rel, attno);
	arbiters = list_make1_oid(RelationGetRelid(pkey));
	index_close(pkey, NoLock);
	CheckCmdReplicaIdentity(rel, CMD_UPDATE);
	estate = CreateExecutorState();
	rri = ExecGetTriggerResultRel(estate, RelationGetRelid(rel), NULL);
	ExecOpenIndices(rri, true);
	slot = table_slot_create(rel, &estate->es_tupleTable);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	cid = GetCurrentCommandId(true);
	for (int i = 0; i < n; i++)
	{
		ItemPointerData tid = sums[i].sum->stored;
		MemoryContext old;
		Datum		values[B_COLUMNS];
		bool		heat_isnull;
		TM_Result	result;
		TM_FailureData failure;
		LockTupleMode mode;
		LcUpdateIndexes update;

		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
		ExecClearTuple(slot);
		values_of(&sums[i], values, &heat_isnull);
		for (int c = 0; c < B_COLUMNS; c++)
		{
			slot->tts_values[attno[c] - 1] = values[c];
			slot->tts_isnull[attno[c] - 1] = c == B_HEAT && heat_isnull;
		}
		ExecStoreVirtualTuple(slot);
		slot->tts_tableOid = RelationGetRelid(rel);
		if (!ItemPointerIsValid(&tid))
		{
			if (!store_new(rel, rri, estate, slot, arbiters))
				sums[left++] = sums[i];
			MemoryContextSwitchTo(old);
			ResetPerTupleExprContext(estate);
			continue;
		}
		result = table_tuple_update(rel, &tid, slot, cid, snapshot, InvalidSnapshot, true,
									&failure, &mode, &update);
		if (result != TM_Ok)
			sums[left++] = sums[i];
		else if (lc_needs_entries(update))
			list_free(lc_update_index_tuples(rri, slot, estate, update));
		MemoryContextSwitchTo(old);
		ResetPerTupleExprContext(estate);
	}
	UnregisterSnapshot(snapshot);
	ExecCloseIndices(rri);
	ExecResetTupleTable(estate->es_tupleTable, false);
	table_close(rri->ri_RelationDesc, NoLock);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	*alone = left == 0;
	return left;
}

/*
 * Store the points of the leads, which were read, and are held since.  False
 * where somebody else wrote some of them nevertheless: he did not find the lead,
 * and it came past our triggers, with a partition.  He is through now, and what
 * is stored is what was given here, without what he added.  SPI is connected.
 */
bool
lc_behavior_write(LcProgram *program, Datum *leads, LcBehavior **behaviors, int n)
{
	Oid			types[B_COLUMNS] = {InvalidOid, INTERVALARRAYOID, FLOAT8ARRAYOID, TIMESTAMPTZARRAYOID,
	FLOAT8ARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[B_COLUMNS];
	Datum	   *columns[B_COLUMNS];
	bool	   *heat_nulls;
	ToStore    *sums;
	int			rows = 0;
	int			k = 0;
	bool		alone;
	int			dims[1];
	int			lbs[1] = {1};

	for (int i = 0; i < n; i++)
		rows += behaviors[i]->n;
	if (rows == 0)
		return true;
	sums = palloc(rows * sizeof(ToStore));
	for (int i = 0; i < n; i++)
	{
		for (int j = 0; j < behaviors[i]->n; j++, k++)
		{
			sums[k].lead = leads[i];
			sums[k].sum = &behaviors[i]->sums[j];
			sums[k].since = behaviors[i]->since;
		}
	}
	rows = store_in_place(program, sums, rows, &alone);
	if (rows == 0)
		return true;
	for (int c = 0; c < B_COLUMNS; c++)
		columns[c] = palloc(rows * sizeof(Datum));
	heat_nulls = palloc(rows * sizeof(bool));
	for (int i = 0; i < rows; i++)
	{
		Datum		row[B_COLUMNS];

		values_of(&sums[i], row, &heat_nulls[i]);
		for (int c = 0; c < B_COLUMNS; c++)
			columns[c][i] = row[c];
	}
	dims[0] = rows;
	types[B_LEAD] = get_array_type(program->key_type);
	values[B_LEAD] = PointerGetDatum(lc_key_array(program, columns[B_LEAD], rows));
	values[B_HALF_LIFE] = PointerGetDatum(construct_array(columns[B_HALF_LIFE], rows, INTERVALOID, sizeof(Interval),
														  false, TYPALIGN_DOUBLE));
	values[B_POINTS] = PointerGetDatum(construct_array(columns[B_POINTS], rows, FLOAT8OID, sizeof(float8),
													   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[B_AT] = PointerGetDatum(construct_array(columns[B_AT], rows, TIMESTAMPTZOID, sizeof(TimestampTz),
												   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[B_HEAT] = PointerGetDatum(construct_md_array(columns[B_HEAT], heat_nulls, 1, dims, lbs, FLOAT8OID,
														sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[B_SINCE] = PointerGetDatum(construct_array(columns[B_SINCE], rows, TIMESTAMPTZOID, sizeof(TimestampTz),
													  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	lc_plan_execute(program, LC_PLAN_WRITE,
						program->plans[LC_PLAN_WRITE] ? NULL :
						psprintf("INSERT INTO %s AS b (lead, half_life, points, at, heat, since)"
								 " SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
								 " pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) AS u"
								 " ON CONFLICT (lead, half_life) DO UPDATE SET points = EXCLUDED.points, at = EXCLUDED.at,"
								 " heat = EXCLUDED.heat, since = EXCLUDED.since",
								 table_name(program)),
						program->owner, B_COLUMNS, types, values);
	return alone;
}

/*
 * Hold the rows here of leads that are not in the lead table, in the order of
 * the key: there is nothing else to hold.  SPI is connected.
 */
void
lc_behavior_hold(LcProgram *program, Datum *leads, int n)
{
	Oid			type = get_array_type(program->key_type);
	Datum		value = PointerGetDatum(lc_key_array(program, leads, n));

	lc_plan_execute(program, LC_PLAN_BEGIN,
						program->plans[LC_PLAN_BEGIN] ? NULL :
						psprintf("INSERT INTO %s (lead, half_life, points, at)"
								 " SELECT u.u, '0', 0, pg_catalog.now() FROM pg_catalog.unnest($1) AS u"
								 " ON CONFLICT (lead, half_life) DO NOTHING", table_name(program)),
						program->owner, 1, &type, &value);
	lc_plan_execute(program, LC_PLAN_HOLD,
						program->plans[LC_PLAN_HOLD] ? NULL :
						psprintf("SELECT FROM %s b WHERE %s AND b.half_life OPERATOR(pg_catalog.=) '0'::pg_catalog.interval"
								 " ORDER BY b.lead FOR NO KEY UPDATE",
								 table_name(program), lc_key_condition(program, "b.lead", "ANY ($1)")),
						program->owner, 1, &type, &value);
	SPI_freetuptable(SPI_tuptable);
}

/*
 * A lead that had points begins anew.  Only signals dated after that still
 * count; there are such where a replay dates the restart back.  Its row is held.
 */
void
lc_behavior_restart(LcProgram *program, Datum lead, TimestampTz at)
{
	LcBehavior *behavior;
	bool		dated_after = false;

	SPI_connect();
	behavior = lc_behavior_read(program, &lead, 1);
	if (behavior->known)
	{
		behavior->since = Max(behavior->since, at);
		for (int i = 0; i < behavior->n; i++)
		{
			if (behavior->sums[i].at > at && behavior->sums[i].points != 0)
				dated_after = true;
			behavior->sums[i].points = 0;
			behavior->sums[i].at = at;
		}
		if (dated_after)
			lc_signal_restate(program, lead, behavior);
		lc_behavior_write(program, &lead, &behavior, 1);
	}
	SPI_finish();
}
