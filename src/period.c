/*-------------------------------------------------------------------------
 *
 * period.c
 *	  A period of whole days, read from the flow.
 *
 * It is covered by the largest spans that fit: months, and days where a bound
 * lies within a month; all of time by the totals.  What was appended since the
 * last merge is added to whatever it belongs to.  All is read under the snapshot
 * of the query, by the index on (span, kind, day, key), past the executor: whoever
 * may see sums need not be able to read the table.
 *
 *-------------------------------------------------------------------------
 */
#include "report.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

static const char *const flow_columns[R_COLUMNS] = {
	"day", "source", "cohort", "from_status", "to_status", "reached",
	"n", "n_new", "n_again", "n_left", "n_entered"
};

text *
lc_period_text(const LcFlowRow *row, int column)
{
	return row->nulls[column] ? NULL : DatumGetTextPP(row->values[column]);
}

int64
lc_period_count(const LcFlowRow *row, int column)
{
	return DatumGetInt64(row->values[column]);
}

/* The first day of the month that the day is in. */
static DateADT
month_of(DateADT day)
{
	int			year;
	int			month;
	int			of_month;

	j2date(day + POSTGRES_EPOCH_JDATE, &year, &month, &of_month);
	return day - (of_month - 1);
}

static DateADT
next_month(DateADT month)
{
	return month_of(month + 31);
}

/* Whether the day is the first of its month, or no day of any. */
static bool
begins_month(DateADT day)
{
	return DATE_NOT_FINITE(day) || month_of(day) == day;
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

/* Open the index of the flow on (span, kind, day, key). */
static Relation
open_flow_index(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisvalid && form->indnkeyatts >= 3 && index->rd_rel->relam == BTREE_AM_OID &&
			RelationGetIndexPredicate(index) == NIL &&
			form->indkey.values[0] == get_attnum(RelationGetRelid(rel), "span") &&
			form->indkey.values[1] == get_attnum(RelationGetRelid(rel), "kind") &&
			form->indkey.values[2] == get_attnum(RelationGetRelid(rel), "day"))
		{
			list_free(indexes);
			return index;
		}
		index_close(index, AccessShareLock);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has no index on (span, kind, day, key)", RelationGetRelationName(rel)),
			 errhint("CREATE UNIQUE INDEX ON %s (span, kind, day, key);",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												RelationGetRelationName(rel))),
			 errtable(rel)));
}

/*
 * Hand the rows of a span, from the one day on and before the other, to the
 * callback; of months, those that no bound splits.
 */
static void
read_span(const LcPeriod *p, const char *span, DateADT from, DateADT to, LcFlowCallback callback, void *arg)
{
	bool		months = strcmp(span, "month") == 0;
	Relation	rel;
	Relation	index;
	AttrNumber	attno[R_COLUMNS];
	ScanKeyData keys[4];
	IndexScanDesc scan;
	TupleTableSlot *slot;
	LcFlowRow		row;

	if (from >= to && !DATE_NOT_FINITE(from))
		return;
	rel = table_open(p->program->flow, AccessShareLock);
	index = open_flow_index(rel);
	for (int c = 0; c < R_COLUMNS; c++)
	{
		attno[c] = get_attnum(RelationGetRelid(rel), flow_columns[c]);
		if (attno[c] == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist", flow_columns[c],
							RelationGetRelationName(rel)),
					 errtable(rel)));
	}
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, index->rd_indcollation[0], F_TEXTEQ,
						   CStringGetTextDatum(span));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid, index->rd_indcollation[1], F_TEXTEQ,
						   CStringGetTextDatum(p->kind));
	ScanKeyEntryInitialize(&keys[2], 0, 3, BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid, F_DATE_GE,
						   DateADTGetDatum(from));
	ScanKeyEntryInitialize(&keys[3], 0, 3, BTLessStrategyNumber, InvalidOid, InvalidOid, F_DATE_LT,
						   DateADTGetDatum(to));
	row.merged = strcmp(span, "new") != 0;
	slot = table_slot_create(rel, NULL);
	scan = lc_index_beginscan(rel, index, GetActiveSnapshot(), lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		for (int c = 0; c < R_COLUMNS; c++)
		{
			row.values[c] = slot->tts_values[attno[c] - 1];
			row.nulls[c] = slot->tts_isnull[attno[c] - 1];
		}
		if (!months || !is_split(p, DatumGetDateADT(row.values[R_DAY])))
			callback(&row, arg);
	}
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
	read_span(p, "new", first, last, callback, arg);
	if (DATE_IS_NOBEGIN(first) && DATE_IS_NOEND(last) && p->nbounds == 2)
	{
		read_span(p, p->segments ? "total" : "all", DATEVAL_NOBEGIN, DATEVAL_NOEND, callback, arg);
		return;
	}
	read_span(p, "month", begins_month(first) ? first : next_month(month_of(first)),
			  begins_month(last) ? last : month_of(last), callback, arg);
	for (int i = 0; i < p->nbounds; i++)
	{
		DateADT		from;

		day = p->bounds[i];
		if (begins_month(day))
			continue;
		/* months that are split, one after the other, are read at once */
		from = month_of(day);
		day = next_month(from);
		while (i + 1 < p->nbounds && !DATE_NOT_FINITE(p->bounds[i + 1]) &&
			   (p->bounds[i + 1] < day || (p->bounds[i + 1] < next_month(day) && !begins_month(p->bounds[i + 1]))))
		{
			i++;
			day = Max(day, next_month(month_of(p->bounds[i])));
		}
		read_span(p, "day", Max(from, first), Min(day, last), callback, arg);
	}
}
