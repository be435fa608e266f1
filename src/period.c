/*-------------------------------------------------------------------------
 *
 * period.c
 *	  A period of whole days, read from the flow.
 *
 * It is covered by the largest spans that fit: months, and days where a bound
 * lies within a month; all of time by the totals.  What is pending since the last
 * merge is added to whatever it belongs to.  All is read under the snapshot of the
 * query, past the executor: whoever may see sums need not be able to read the
 * tables.
 *
 *-------------------------------------------------------------------------
 */
#include "report.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static DateADT
next_month(DateADT month)
{
	return lc_flow_month_of(month + 31);
}

/* Whether the day is the first of its month, or no day of any. */
static bool
begins_month(DateADT day)
{
	return DATE_NOT_FINITE(day) || lc_flow_month_of(day) == day;
}

/* Whether one of the bounds lies within the month, so that its days are to be read. */
static bool
is_split(const LcPeriod *p, DateADT month)
{
	int			low = 0;
	int			high = p->nbounds;

	/* the first bound after the month's first day */
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (p->bounds[middle] <= month)
			low = middle + 1;
		else
			high = middle;
	}
	return low < p->nbounds && !DATE_NOT_FINITE(p->bounds[low]) && p->bounds[low] < next_month(month);
}

/*
 * Hand what is pending of the days, from the one on and before the other, to the
 * callback.
 */
static void
read_pending(const LcPeriod *p, DateADT from, DateADT to, LcFlowCallback callback, void *arg)
{
	Relation	rel = table_open(p->program->pending, AccessShareLock);
	AttrNumber	attno[LC_FLOW_COLUMNS];
	TableScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext row;
	MemoryContext old;

	lc_cell_find_columns(rel, F_KIND, attno);
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	row = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow row", ALLOCSET_DEFAULT_SIZES);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		DateADT		day;
		LcCount    *counts;
		int			n;

		CHECK_FOR_INTERRUPTS();
		if (lc_cell_kind(slot, attno) != (int) p->kind)
			continue;
		day = DatumGetDateADT(slot_getattr(slot, attno[F_DAY], &isnull));
		if (day < from || day >= to)
			continue;
		old = MemoryContextSwitchTo(row);
		n = lc_cell_read(rel, slot, attno, p->kind, &counts);
		MemoryContextSwitchTo(old);
		callback(counts, n, false, arg);
		MemoryContextReset(row);
	}
	MemoryContextDelete(row);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/*
 * Hand the cells of a span, from the one day on and before the other, to the
 * callback; of months, those that no bound splits.  They are found by the index
 * on (span, kind, day, key).
 */
static void
read_span(const LcPeriod *p, const char *span, DateADT from, DateADT to, LcFlowCallback callback, void *arg)
{
	bool		months = strcmp(span, "month") == 0;
	Relation	rel;
	Relation	index;
	AttrNumber	attno[LC_FLOW_COLUMNS];
	ScanKeyData keys[4];
	IndexScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext row;
	MemoryContext old;

	if (from >= to && !DATE_NOT_FINITE(from))
		return;
	rel = table_open(p->program->flow, AccessShareLock);
	lc_cell_find_columns(rel, F_SPAN, attno);
	index = lc_cell_open_index(rel);
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, index->rd_indcollation[0], F_TEXTEQ,
						   CStringGetTextDatum(span));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid, index->rd_indcollation[1], F_TEXTEQ,
						   CStringGetTextDatum(lc_flow_kinds[p->kind]));
	ScanKeyEntryInitialize(&keys[2], 0, 3, BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid, F_DATE_GE,
						   DateADTGetDatum(from));
	ScanKeyEntryInitialize(&keys[3], 0, 3, BTLessStrategyNumber, InvalidOid, InvalidOid, F_DATE_LT,
						   DateADTGetDatum(to));
	slot = table_slot_create(rel, NULL);
	scan = lc_index_beginscan(rel, index, GetActiveSnapshot(), lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	row = AllocSetContextCreate(CurrentMemoryContext, "lifecycle flow row", ALLOCSET_DEFAULT_SIZES);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		LcCount    *counts;
		int			n;

		CHECK_FOR_INTERRUPTS();
		if (months && is_split(p, DatumGetDateADT(slot_getattr(slot, attno[F_DAY], &isnull))))
			continue;
		old = MemoryContextSwitchTo(row);
		n = lc_cell_read(rel, slot, attno, p->kind, &counts);
		MemoryContextSwitchTo(old);
		callback(counts, n, true, arg);
		MemoryContextReset(row);
	}
	MemoryContextDelete(row);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(rel, NoLock);
}

/*
 * Hand what the flow has of the period to the callback: each row lies between
 * two bounds.
 */
void
lc_period_read(const LcPeriod *p, LcFlowCallback callback, void *arg)
{
	DateADT		first = p->bounds[0];
	DateADT		last = p->bounds[p->nbounds - 1];
	DateADT		day;

	if (p->all_before)
		first = DATEVAL_NOBEGIN;
	/* to DATEVAL_NOEND belong all days: it is no day itself */
	read_pending(p, first, last, callback, arg);
	if (DATE_IS_NOBEGIN(first) && DATE_IS_NOEND(last) && p->nbounds == 2)
	{
		read_span(p, p->segments ? "total" : "all", DATEVAL_NOBEGIN, DATEVAL_NOEND, callback, arg);
		return;
	}
	read_span(p, "month", begins_month(first) ? first : next_month(lc_flow_month_of(first)),
			  begins_month(last) ? last : lc_flow_month_of(last), callback, arg);
	for (int i = 0; i < p->nbounds; i++)
	{
		DateADT		from;

		day = p->bounds[i];
		if (begins_month(day))
			continue;
		/* months that are split, one after the other, are read at once */
		from = lc_flow_month_of(day);
		day = next_month(from);
		while (i + 1 < p->nbounds && !DATE_NOT_FINITE(p->bounds[i + 1]) &&
			   (p->bounds[i + 1] < day || (p->bounds[i + 1] < next_month(day) && !begins_month(p->bounds[i + 1]))))
		{
			i++;
			day = Max(day, next_month(lc_flow_month_of(p->bounds[i])));
		}
		read_span(p, "day", Max(from, first), Min(day, last), callback, arg);
	}
}
