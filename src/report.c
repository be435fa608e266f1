/*-------------------------------------------------------------------------
 *
 * report.c
 *	  The reports that the flow answers: funnel, flow and conversion of periods
 *	  that consist of whole days.
 *
 * A period is covered by the largest spans that fit: months, and days where a
 * boundary lies within a month; all of time by the totals.  What was appended
 * since the last merge is added to whatever it belongs to.  All is read under the
 * snapshot of the query, as the owner of the table; who may read the flow, the
 * materialized view that shows it, or the history, may see the sums.
 *
 * What the flow cannot answer exactly (other time zones, parts of days, visits in
 * order, sources that were put together) is asked of the history, with the rights
 * of the caller (sql/report.sql).
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/datetime.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(lifecycle_funnel);
PG_FUNCTION_INFO_V1(lifecycle_funnel_of_flow);
PG_FUNCTION_INFO_V1(lifecycle_flow);
PG_FUNCTION_INFO_V1(lifecycle_conversion);

/* Sources that a program's flow tells apart. */
#define MAX_SOURCES 64

/* Columns that are read of the flow. */
enum
{
	R_DAY, R_SOURCE, R_COHORT, R_FROM_STATUS, R_TO_STATUS, R_REACHED,
	R_N, R_N_NEW, R_N_AGAIN, R_N_LEFT, R_N_ENTERED,
	R_COLUMNS
};

static const char *const flow_columns[R_COLUMNS] = {
	"day", "source", "cohort", "from_status", "to_status", "reached",
	"n", "n_new", "n_again", "n_left", "n_entered"
};

/* A row of the flow. */
typedef struct FlowRow
{
	Datum		values[R_COLUMNS];
	bool		nulls[R_COLUMNS];
	bool		merged;
} FlowRow;

/* ---- reading the flow ---- */

/* Which rows a report wants: those of the days between the first and the last bound. */
typedef struct Period
{
	LcProgram  *program;
	const char *kind;
	DateADT    *bounds;			/* ascending; the ends may be infinite */
	int			nbounds;
	bool		all_before;		/* also what is before the first */
	bool		segments;		/* sources and cohorts apart */
} Period;

typedef void (*RowCallback) (const FlowRow *row, void *arg);

static text *
row_text(const FlowRow *row, int column)
{
	return row->nulls[column] ? NULL : DatumGetTextPP(row->values[column]);
}

static int64
row_count(const FlowRow *row, int column)
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
is_split(const Period *p, DateADT month)
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
read_span(const Period *p, const char *span, DateADT from, DateADT to, RowCallback callback, void *arg)
{
	bool		months = strcmp(span, "month") == 0;
	Relation	rel;
	Relation	index;
	AttrNumber	attno[R_COLUMNS];
	ScanKeyData keys[4];
	IndexScanDesc scan;
	TupleTableSlot *slot;
	FlowRow		row;

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
static void
read_period(const Period *p, RowCallback callback, void *arg)
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

/* Whether the moment begins a day of the program; which one. */
static bool
begins_day(LcProgram *program, TimestampTz at, DateADT *day)
{
	TimestampTz start;
	TimestampTz end;

	if (TIMESTAMP_IS_NOBEGIN(at))
	{
		*day = DATEVAL_NOBEGIN;
		return true;
	}
	if (TIMESTAMP_IS_NOEND(at))
	{
		*day = DATEVAL_NOEND;
		return true;
	}
	*day = lc_flow_day_of(program->tz, at, &start, &end);
	return start == at;
}

/* The table that the report is about. */
static Oid
lead_table(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not tracked", "(null)"),
				 errhint("Name the lead table.")));
	return PG_GETARG_OID(0);
}

/* Whether the caller may see sums: by the right to the flow, or to what shows it. */
static bool
may_see_sums(LcProgram *program)
{
	return pg_class_aclcheck(program->flow, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		(OidIsValid(program->funnel) &&
		 pg_class_aclcheck(program->funnel, GetUserId(), ACL_SELECT) == ACLCHECK_OK) ||
		pg_class_aclcheck(program->history, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/*
 * Give what a function of ours finds in the history.
 */
static void
give_history(ReturnSetInfo *rsinfo, const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	if (SPI_execute_with_args(sql, nargs, types, values, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
}

static void
put_rate(Datum *values, bool *nulls, int column, int64 above, int64 below)
{
	values[column] = Float8GetDatum((float8) above / (float8) below);
	nulls[column] = below == 0;
}

/* The index of the stage in the model; -1 for a status that the model lacks. */
static int
stage_of(LcProgram *program, const text *status)
{
	LcModel    *model = program->model;
	int			length = VARSIZE_ANY_EXHDR(status);

	for (int i = 0; i < model->nstages; i++)
	{
		text	   *label = model->stages[i].label;

		if (VARSIZE_ANY_EXHDR(label) == length && memcmp(VARDATA_ANY(label), VARDATA_ANY(status), length) == 0)
			return i;
	}
	return -1;
}

static void
put_stage(Datum *values, bool *nulls, int column, const LcStage *stage)
{
	values[column] = PointerGetDatum(stage->label);
	nulls[column] = false;
	values[column + 1] = Int32GetDatum(stage->rank);
	nulls[column + 1] = stage->rank == 0;
}

/* ---- funnel ---- */

/* How far the units of a segment came. */
typedef struct Segment
{
	text	   *name;			/* NULL: all */
	bool		is_other;
	bool		is_source;		/* a source that the leads have, told apart */
	bool		is_merged;
	int64		units;
	int64		visited[LC_MAX_STAGES];
	int64		furthest[LC_MAX_STAGES];	/* by the stage that is the last on the path */
} Segment;

typedef struct Funnel
{
	LcProgram  *program;
	char		by;				/* 's', 'c', or 0 */
	Segment    *segments;
	int			nsegments;
	int			room;
	bool		other;			/* sources were put together */
} Funnel;

static int
compare_text(const text *a, const text *b)
{
	int			na = VARSIZE_ANY_EXHDR(a);
	int			nb = VARSIZE_ANY_EXHDR(b);
	int			result = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(na, nb));

	return result != 0 ? result : na - nb;
}

static int
compare_segments(const void *a, const void *b)
{
	return compare_text(((const Segment *) a)->name, ((const Segment *) b)->name);
}

static Segment *
segment_of(Funnel *f, const text *name)
{
	for (int i = 0; i < f->nsegments; i++)
	{
		if (name == NULL || compare_text(f->segments[i].name, name) == 0)
			return &f->segments[i];
	}
	if (f->nsegments == f->room)
	{
		f->room = Max(16, 2 * f->room);
		f->segments = f->segments == NULL ? palloc(f->room * sizeof(Segment)) :
			repalloc_huge(f->segments, f->room * sizeof(Segment));
	}
	memset(&f->segments[f->nsegments], 0, sizeof(Segment));
	if (name != NULL)
	{
		f->segments[f->nsegments].name = palloc(VARSIZE_ANY_EXHDR(name) + VARHDRSZ);
		SET_VARSIZE(f->segments[f->nsegments].name, VARSIZE_ANY_EXHDR(name) + VARHDRSZ);
		memcpy(VARDATA(f->segments[f->nsegments].name), VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	}
	return &f->segments[f->nsegments++];
}

static void
add_set(const FlowRow *row, void *arg)
{
	Funnel	   *f = arg;
	LcModel    *model = f->program->model;
	int64		n = row_count(row, R_N);
	text	   *source = f->by == 's' ? row_text(row, R_SOURCE) : NULL;
	text	   *name = NULL;
	Segment    *s;
	Datum	   *labels;
	bool	   *nulls;
	int			nlabels;
	int			furthest = -1;

	if (f->by == 's')
		name = source != NULL ? source : cstring_to_text("(none)");
	else if (f->by == 'c')
	{
		name = row->nulls[R_COHORT] ? cstring_to_text("(none)") :
			cstring_to_text(psprintf("%d", DatumGetInt32(row->values[R_COHORT])));
	}
	s = segment_of(f, name);
	s->units += n;
	s->is_source = s->is_source || source != NULL;
	s->is_merged = s->is_merged || row->merged;
	if (row->merged && source != NULL && VARSIZE_ANY_EXHDR(source) == 7 && memcmp(VARDATA_ANY(source), "(other)", 7) == 0)
		f->other = s->is_other = true;
	deconstruct_array(DatumGetArrayTypeP(row->values[R_REACHED]), TEXTOID, -1, false, TYPALIGN_INT, &labels, &nulls, &nlabels);
	for (int k = 0; k < nlabels; k++)
	{
		int			stage = nulls[k] ? -1 : stage_of(f->program, DatumGetTextPP(labels[k]));

		if (stage < 0)
			continue;
		s->visited[stage] += n;
		/* stages of the path come first, by rank */
		if (model->stages[stage].rank > 0)
			furthest = Max(furthest, stage);
	}
	if (furthest >= 0)
		s->furthest[furthest] += n;
}

/* Read the units of that kind of cycle. */
static void
read_funnel(Funnel *f, const char *cycle, DateADT since, DateADT until)
{
	DateADT		bounds[2] = {since, until};
	Period		p = {f->program, "first", bounds, 2, false, f->by != 0};

	read_period(&p, add_set, f);
	if (strcmp(cycle, "first") == 0)
		return;
	p.kind = strcmp(cycle, "ever") == 0 ? "ever" : "later";
	read_period(&p, add_set, f);
}

static void
give_segment(ReturnSetInfo *rsinfo, Funnel *f, const Segment *s, bool filled)
{
	LcModel    *model = f->program->model;
	int64		reached[LC_MAX_STAGES];
	int64		beyond = 0;
	Datum		values[7];
	bool		nulls[7] = {false, false, false, false, false, false, false};

	for (int i = model->nstages - 1; i >= 0; i--)
	{
		bool		on_path = model->stages[i].rank > 0;

		if (on_path)
			beyond += s->furthest[i];
		reached[i] = on_path && filled ? beyond : s->visited[i];
	}
	for (int i = 0; i < model->nstages; i++)
	{
		bool		on_path = model->stages[i].rank > 0;

		values[0] = PointerGetDatum(s->name);
		nulls[0] = s->name == NULL;
		put_stage(values, nulls, 1, &model->stages[i]);
		values[3] = Int64GetDatum(reached[i]);
		values[4] = Int64GetDatum(on_path && filled ? reached[i] - s->visited[i] : 0);
		put_rate(values, nulls, 5, reached[i], on_path && i > 0 ? reached[i - 1] : 0);
		put_rate(values, nulls, 6, reached[i], on_path ? reached[0] : 0);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

static void
give_segments(ReturnSetInfo *rsinfo, Funnel *f, bool filled)
{
	if (f->by == 0)
		(void) segment_of(f, NULL);
	else
		qsort(f->segments, f->nsegments, sizeof(Segment), compare_segments);
	for (int i = 0; i < f->nsegments; i++)
	{
		if (f->by == 0 || f->segments[i].units != 0)
			give_segment(rsinfo, f, &f->segments[i], filled);
	}
}

static char *
choice(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/*
 * funnel(lead_table, since, until, mode, cycle, by)
 */
Datum
lifecycle_funnel(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz since = PG_ARGISNULL(1) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(1);
	TimestampTz until = PG_ARGISNULL(2) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(2);
	char	   *mode = choice(fcinfo, 3);
	char	   *cycle = choice(fcinfo, 4);
	char	   *by = choice(fcinfo, 5);
	Funnel		f = {0};
	DateADT		days[2];
	bool		answered = false;

	if (mode == NULL || (strcmp(mode, "filled") != 0 && strcmp(mode, "any") != 0 && strcmp(mode, "ordered") != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mode must be \"filled\", \"any\" or \"ordered\", not \"%s\"", mode ? mode : "null")));
	if (cycle == NULL || (strcmp(cycle, "ever") != 0 && strcmp(cycle, "first") != 0 && strcmp(cycle, "every") != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cycle must be \"ever\", \"first\" or \"every\", not \"%s\"", cycle ? cycle : "null")));
	if (by != NULL && strcmp(by, "source") != 0 && strcmp(by, "cohort") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("by must be \"source\", \"cohort\" or null, not \"%s\"", by)));
	InitMaterializedSRF(fcinfo, 0);
	f.program = lc_program_pin_tracked(lead_table(fcinfo));
	f.by = by == NULL ? 0 : by[0];
	SPI_connect();
	if (strcmp(mode, "ordered") != 0 && may_see_sums(f.program) &&
		begins_day(f.program, since, &days[0]) && begins_day(f.program, until, &days[1]))
	{
		if (days[0] < days[1])
			read_funnel(&f, cycle, days[0], days[1]);
		answered = !f.other;
		if (answered)
			give_segments(rsinfo, &f, mode[0] == 'f');
	}
	if (!answered)
	{
		Oid			types[6] = {REGCLASSOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID};
		Datum		values[6];

		for (int i = 0; i < 6; i++)
			values[i] = fcinfo->args[i].value;
		values[1] = TimestampTzGetDatum(since);
		values[2] = TimestampTzGetDatum(until);
		give_history(rsinfo, "SELECT * FROM lifecycle.funnel_of_history($1, $2, $3, $4, $5, $6)",
					 6, types, values, by == NULL ? "     n" : NULL);
	}
	SPI_finish();
	lc_program_unpin(f.program);
	return (Datum) 0;
}

/*
 * Put sources together beyond those that the flow tells apart, as a merge will:
 * those that it knows come first, then the others by name.
 */
static void
put_together(Funnel *f)
{
	int			named = 0;
	int			kept = 0;
	Segment    *other;

	for (int i = 0; i < f->nsegments; i++)
	{
		if (f->segments[i].is_source && f->segments[i].is_merged && !f->segments[i].is_other)
			named++;
	}
	(void) segment_of(f, cstring_to_text("(other)"));
	qsort(f->segments, f->nsegments, sizeof(Segment), compare_segments);
	other = segment_of(f, cstring_to_text("(other)"));
	for (int i = 0; i < f->nsegments; i++)
	{
		Segment    *s = &f->segments[i];

		if (!s->is_source || s->is_merged || s == other || named++ < MAX_SOURCES)
			continue;
		other->units += s->units;
		for (int k = 0; k < LC_MAX_STAGES; k++)
		{
			other->visited[k] += s->visited[k];
			other->furthest[k] += s->furthest[k];
		}
		s->units = 0;
	}
	for (int i = 0; i < f->nsegments; i++)
	{
		if (f->segments[i].units != 0)
			f->segments[kept++] = f->segments[i];
	}
	f->nsegments = kept;
}

/*
 * funnel_of_flow(lead_table): all of time, in total and by source.
 */
Datum
lifecycle_funnel_of_flow(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Funnel		total = {0};
	Funnel		sources = {0};

	InitMaterializedSRF(fcinfo, 0);
	total.program = sources.program = lc_program_pin_tracked(lead_table(fcinfo));
	if (!may_see_sums(total.program))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(total.program->flow));
	sources.by = 's';
	SPI_connect();
	read_funnel(&total, "ever", DATEVAL_NOBEGIN, DATEVAL_NOEND);
	give_segments(rsinfo, &total, true);
	read_funnel(&sources, "ever", DATEVAL_NOBEGIN, DATEVAL_NOEND);
	put_together(&sources);
	give_segments(rsinfo, &sources, true);
	SPI_finish();
	lc_program_unpin(total.program);
	return (Datum) 0;
}

/* ---- statuses of moves ---- */

/* The statuses that moves were between: the model's stages, then others as they came. */
typedef struct Statuses
{
	LcProgram  *program;
	text	  **other;
	int			nother;
} Statuses;

static int
status_of(Statuses *s, text *status)
{
	int			stage;

	if (status == NULL)
		return -1;
	stage = stage_of(s->program, status);
	if (stage >= 0)
		return stage;
	for (int i = 0; i < s->nother; i++)
	{
		if (compare_text(s->other[i], status) == 0)
			return s->program->model->nstages + i;
	}
	s->other = s->nother == 0 ? palloc(sizeof(text *)) : repalloc(s->other, (s->nother + 1) * sizeof(text *));
	s->other[s->nother] = (text *) DatumGetTextPCopy(PointerGetDatum(status));
	return s->program->model->nstages + s->nother++;
}

static int
status_count(const Statuses *s)
{
	return s->program->model->nstages + s->nother;
}

static text *
status_name(const Statuses *s, int i)
{
	int			nstages = s->program->model->nstages;

	return i < nstages ? s->program->model->stages[i].label : s->other[i - nstages];
}

static int
status_rank(const Statuses *s, int i)
{
	return i < s->program->model->nstages ? s->program->model->stages[i].rank : 0;
}

static int
compare_statuses(const void *a, const void *b, void *arg)
{
	const Statuses *s = arg;
	int			i = *(const int *) a;
	int			j = *(const int *) b;
	int			ri = status_rank(s, i);
	int			rj = status_rank(s, j);

	if (ri != rj)
		return ri == 0 ? 1 : rj == 0 ? -1 : ri - rj;
	return compare_text(status_name(s, i), status_name(s, j));
}

/* The statuses by rank, then detours and those that the model lacks by name. */
static int *
status_order(Statuses *s)
{
	int			n = status_count(s);
	int		   *order = palloc(n * sizeof(int));

	for (int i = 0; i < n; i++)
		order[i] = i;
	qsort_arg(order, n, sizeof(int), compare_statuses, s);
	return order;
}

/* ---- flow ---- */

/* What came and went in a status in a step; step 0 is all before the first. */
typedef struct Step
{
	int64		inflow;
	int64		inflow_new;
	int64		inflow_again;
	int64		outflow;
} Step;

typedef struct Flow
{
	Statuses	statuses;
	const Period *period;
	int			nsteps;			/* with step 0 */
	Step	  **steps;			/* of each status */
	int			room;
} Flow;

static Step *
step_of(Flow *f, text *status, int step)
{
	int			i = status_of(&f->statuses, status);

	if (i >= f->room)
	{
		int			room = Max(LC_MAX_STAGES, 2 * (i + 1));

		f->steps = f->steps == NULL ? palloc(room * sizeof(Step *)) : repalloc(f->steps, room * sizeof(Step *));
		memset(f->steps + f->room, 0, (room - f->room) * sizeof(Step *));
		f->room = room;
	}
	if (f->steps[i] == NULL)
		f->steps[i] = MemoryContextAllocExtended(CurrentMemoryContext, f->nsteps * sizeof(Step),
												 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	return &f->steps[i][step];
}

static void
add_move(const FlowRow *row, void *arg)
{
	Flow	   *f = arg;
	const Period *p = f->period;
	DateADT		day = DatumGetDateADT(row->values[R_DAY]);
	text	   *from = row_text(row, R_FROM_STATUS);
	text	   *to = row_text(row, R_TO_STATUS);
	int64		n = row_count(row, R_N);
	int			low = 0;
	int			high = p->nbounds;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (p->bounds[middle] <= day)
			low = middle + 1;
		else
			high = middle;
	}
	if (from != NULL)
		step_of(f, from, low)->outflow += n;
	if (to != NULL)
	{
		Step	   *s = step_of(f, to, low);

		s->inflow += n;
		s->inflow_new += row_count(row, R_N_NEW);
		s->inflow_again += row_count(row, R_N_AGAIN);
	}
}

static void
give_steps(ReturnSetInfo *rsinfo, Flow *f, Datum *starts)
{
	int		   *order = status_order(&f->statuses);
	int			n = status_count(&f->statuses);
	int64	   *closing = palloc0(n * sizeof(int64));
	Step		none = {0};

	for (int step = 0; step < f->nsteps; step++)
	{
		for (int k = 0; k < n; k++)
		{
			int			i = order[k];
			const Step *s = i < f->room && f->steps[i] != NULL ? &f->steps[i][step] : &none;
			int64		opening = closing[i];
			Datum		values[9];
			bool		nulls[9] = {false, false, false, false, false, false, false, false, false};

			closing[i] += s->inflow - s->outflow;
			if (step == 0)
				continue;
			values[0] = starts[step - 1];
			values[1] = PointerGetDatum(status_name(&f->statuses, i));
			values[2] = Int32GetDatum(status_rank(&f->statuses, i));
			nulls[2] = status_rank(&f->statuses, i) == 0;
			values[3] = Int64GetDatum(opening);
			values[4] = Int64GetDatum(s->inflow);
			values[5] = Int64GetDatum(s->inflow_new);
			values[6] = Int64GetDatum(s->inflow_again);
			values[7] = Int64GetDatum(s->outflow);
			values[8] = Int64GetDatum(closing[i]);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
}

/*
 * flow(lead_table, since, until, step, tz)
 */
Datum
lifecycle_flow(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			types[5] = {TIMESTAMPTZOID, TIMESTAMPTZOID, INTERVALOID, TEXTOID};
	Datum		values[5];
	char		nulls[5] = "    ";
	LcProgram  *program;
	text	   *tz;
	Datum	   *starts;
	int			n;
	bool		isnull;
	bool		days = true;
	DateADT    *bounds;
	Datum		array;

	InitMaterializedSRF(fcinfo, 0);
	program = lc_program_pin_tracked(lead_table(fcinfo));
	tz = PG_ARGISNULL(4) ? program->tz : PG_GETARG_TEXT_PP(4);
	SPI_connect();
	for (int i = 0; i < 3; i++)
	{
		values[i] = fcinfo->args[i + 1].value;
		nulls[i] = fcinfo->args[i + 1].isnull ? 'n' : ' ';
	}
	values[3] = PointerGetDatum(tz);
	if (SPI_execute_with_args("SELECT lifecycle.buckets($1, $2, $3, $4)", 4, types, values, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not compute the steps");
	array = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	deconstruct_array(DatumGetArrayTypeP(array), TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &starts, NULL, &n);
	days = compare_text(tz, program->tz) == 0 && may_see_sums(program);
	bounds = palloc((n + 1) * sizeof(DateADT));
	for (int i = 0; days && i <= n; i++)
		days = begins_day(program, i < n ? DatumGetTimestampTz(starts[i]) : PG_GETARG_TIMESTAMPTZ(2), &bounds[i]);
	if (days && n > 0)
	{
		Period		p = {program, "move", bounds, n + 1, true, false};
		Flow		f = {0};

		f.statuses.program = program;
		f.period = &p;
		f.nsteps = n + 1;
		read_period(&p, add_move, &f);
		give_steps(rsinfo, &f, starts);
	}
	else
	{
		types[0] = REGCLASSOID;
		types[1] = TIMESTAMPTZARRAYOID;
		types[2] = TIMESTAMPTZOID;
		values[0] = fcinfo->args[0].value;
		values[1] = array;
		values[2] = fcinfo->args[2].value;
		give_history(rsinfo, "SELECT * FROM lifecycle.steps_of_history($1, $2, $3)", 3, types, values, NULL);
	}
	SPI_finish();
	lc_program_unpin(program);
	return (Datum) 0;
}

/* ---- conversion ---- */

/* What went from one status to another. */
typedef struct Passage
{
	int			from;
	int			to;				/* -1: removed */
	int64		moves;
} Passage;

typedef struct Conversion
{
	Statuses	statuses;
	Passage    *passages;
	int			npassages;
	int			room;
	int64	   *entered;		/* of each status */
	int			nentered;
} Conversion;

static void
add_passage(const FlowRow *row, void *arg)
{
	Conversion *c = arg;
	text	   *from_status = row_text(row, R_FROM_STATUS);
	int			from = status_of(&c->statuses, from_status);
	int			to = status_of(&c->statuses, row_text(row, R_TO_STATUS));
	int			k = 0;

	if (status_count(&c->statuses) > c->nentered)
	{
		int			n = status_count(&c->statuses) + LC_MAX_STAGES;

		c->entered = c->entered == NULL ? palloc(n * sizeof(int64)) : repalloc(c->entered, n * sizeof(int64));
		memset(c->entered + c->nentered, 0, (n - c->nentered) * sizeof(int64));
		c->nentered = n;
	}
	if (to >= 0)
		c->entered[to] += row_count(row, R_N_ENTERED);
	if (from_status == NULL)
		return;
	while (k < c->npassages && (c->passages[k].from != from || c->passages[k].to != to))
		k++;
	if (k == c->npassages)
	{
		if (k == c->room)
		{
			c->room = Max(64, 2 * c->room);
			c->passages = c->passages == NULL ? palloc(c->room * sizeof(Passage)) :
				repalloc(c->passages, c->room * sizeof(Passage));
		}
		c->passages[k].from = from;
		c->passages[k].to = to;
		c->passages[k].moves = 0;
		c->npassages++;
	}
	c->passages[k].moves += row_count(row, R_N_LEFT);
}

static int
compare_passages(const void *a, const void *b, void *arg)
{
	const Passage *x = a;
	const Passage *y = b;
	int			result = compare_statuses(&x->from, &y->from, arg);

	if (result != 0 || x->to == y->to)
		return result;
	if (x->to < 0 || y->to < 0)
		return x->to < 0 ? 1 : -1;
	return compare_statuses(&x->to, &y->to, arg);
}

/*
 * conversion(lead_table, since, until)
 */
Datum
lifecycle_conversion(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz since = PG_ARGISNULL(1) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(1);
	TimestampTz until = PG_ARGISNULL(2) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(2);
	LcProgram  *program;
	DateADT		days[2];

	InitMaterializedSRF(fcinfo, 0);
	program = lc_program_pin_tracked(lead_table(fcinfo));
	SPI_connect();
	if (may_see_sums(program) && begins_day(program, since, &days[0]) && begins_day(program, until, &days[1]))
	{
		Conversion	c = {0};
		Period		p = {program, "move", days, 2, false, false};

		c.statuses.program = program;
		if (days[0] < days[1])
			read_period(&p, add_passage, &c);
		qsort_arg(c.passages, c.npassages, sizeof(Passage), compare_passages, &c.statuses);
		for (int i = 0; i < c.npassages; i++)
		{
			const Passage *q = &c.passages[i];
			int64		left = 0;
			Datum		values[5];
			bool		nulls[5] = {false, false, false, false, false};

			if (q->moves == 0)
				continue;
			for (int k = 0; k < c.npassages; k++)
			{
				if (c.passages[k].from == q->from)
					left += c.passages[k].moves;
			}
			values[0] = PointerGetDatum(status_name(&c.statuses, q->from));
			nulls[1] = q->to < 0;
			if (q->to >= 0)
				values[1] = PointerGetDatum(status_name(&c.statuses, q->to));
			values[2] = Int64GetDatum(q->moves);
			put_rate(values, nulls, 3, q->moves, c.entered[q->from]);
			put_rate(values, nulls, 4, q->moves, left);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	else
	{
		Oid			types[3] = {REGCLASSOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
		Datum		values[3];

		values[0] = fcinfo->args[0].value;
		values[1] = TimestampTzGetDatum(since);
		values[2] = TimestampTzGetDatum(until);
		give_history(rsinfo, "SELECT c.* FROM lifecycle.program_of($1) AS p,"
					 " lifecycle.conversion_of_history(p, lifecycle.readable_history(p), $2, $3) AS c", 3, types, values, NULL);
	}
	SPI_finish();
	lc_program_unpin(program);
	return (Datum) 0;
}
