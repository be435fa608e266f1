/*-------------------------------------------------------------------------
 *
 * funnel.c
 *	  How far down the path the leads went: from the flow where it can tell, from
 *	  the history where it cannot; and, for the history, how far one lead went in
 *	  the order of the path.
 *
 *-------------------------------------------------------------------------
 */
#include "report.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(lifecycle_funnel);
PG_FUNCTION_INFO_V1(lifecycle_funnel_of_flow);
PG_FUNCTION_INFO_V1(lifecycle_in_order);

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
compare_segments(const void *a, const void *b)
{
	return lc_cell_compare_texts(((const Segment *) a)->name, ((const Segment *) b)->name);
}

static Segment *
segment_of(Funnel *f, const text *name)
{
	for (int i = 0; i < f->nsegments; i++)
	{
		if (name == NULL || lc_cell_compare_texts(f->segments[i].name, name) == 0)
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
add_sets(const LcCount *counts, int n, bool merged, void *arg)
{
	Funnel	   *f = arg;
	LcModel    *model = f->program->model;
	text	   *source = f->by == 's' ? counts[0].source : NULL;
	text	   *name = NULL;
	Segment    *s;

	if (f->by == 's')
		name = source != NULL ? source : cstring_to_text("(none)");
	else if (f->by == 'c')
		name = cstring_to_text(counts[0].cohort_isnull ? "(none)" : psprintf("%d", counts[0].cohort));
	s = segment_of(f, name);
	s->is_source = s->is_source || source != NULL;
	s->is_merged = s->is_merged || merged;
	if (merged && source != NULL && lc_cell_is_other(source))
		f->other = s->is_other = true;
	for (int i = 0; i < n; i++)
	{
		int64		units = counts[i].sums[S_N];
		const text *reached = counts[i].reached;
		const char *label = reached == NULL ? NULL : VARDATA_ANY(reached);
		const char *end = reached == NULL ? NULL : label + VARSIZE_ANY_EXHDR(reached);
		int			furthest = -1;

		s->units += units;
		while (label < end)
		{
			const char *separator = memchr(label, LC_SET_SEPARATOR, end - label);
			int			stage = lc_report_stage(f->program, label, (separator ? separator : end) - label);

			label = separator ? separator + 1 : end;
			if (stage < 0)
				continue;
			s->visited[stage] += units;
			/* stages of the path come first, by rank */
			if (model->stages[stage].rank > 0)
				furthest = Max(furthest, stage);
		}
		if (furthest >= 0)
			s->furthest[furthest] += units;
	}
}

/* Read the units of that kind of cycle. */
static void
read_funnel(Funnel *f, const char *cycle, DateADT since, DateADT until)
{
	DateADT		bounds[2] = {since, until};
	LcPeriod		p = {f->program, K_FIRST, bounds, 2, false, f->by != 0};

	lc_period_read(&p, add_sets, f);
	if (strcmp(cycle, "first") == 0)
		return;
	p.kind = strcmp(cycle, "ever") == 0 ? K_EVER : K_LATER;
	lc_period_read(&p, add_sets, f);
}

static void
put_stage(Datum *values, bool *nulls, int column, const LcStage *stage)
{
	values[column] = PointerGetDatum(stage->label);
	nulls[column] = false;
	values[column + 1] = Int32GetDatum(stage->rank);
	nulls[column + 1] = stage->rank == 0;
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
		lc_report_put_rate(values, nulls, 5, reached[i], on_path && i > 0 ? reached[i - 1] : 0);
		lc_report_put_rate(values, nulls, 6, reached[i], on_path ? reached[0] : 0);
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
	f.program = lc_program_pin_tracked(lc_report_table(fcinfo));
	f.by = by == NULL ? 0 : by[0];
	SPI_connect();
	if (strcmp(mode, "ordered") != 0 && lc_report_may_see(f.program) &&
		lc_report_begins_day(f.program, since, &days[0]) && lc_report_begins_day(f.program, until, &days[1]))
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
		lc_report_give_history(rsinfo, "SELECT * FROM lifecycle.funnel_of_history($1, $2, $3, $4, $5, $6)",
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
	(void) segment_of(f, cstring_to_text(LC_OTHER_SOURCES));
	qsort(f->segments, f->nsegments, sizeof(Segment), compare_segments);
	other = segment_of(f, cstring_to_text(LC_OTHER_SOURCES));
	for (int i = 0; i < f->nsegments; i++)
	{
		Segment    *s = &f->segments[i];

		if (!s->is_source || s->is_merged || s == other || named++ < LC_FLOW_SOURCES)
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
	total.program = sources.program = lc_program_pin_tracked(lc_report_table(fcinfo));
	if (!lc_report_may_see(total.program))
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

/*
 * Transition function of path_in_order(place): the place of the visit in the
 * path (1 is the first stage), in the order of the visits.  The state is how
 * many stages were visited in the order of the path, from the first on.
 */
Datum
lifecycle_in_order(PG_FUNCTION_ARGS)
{
	int32		done = PG_GETARG_INT32(0);

	if (!PG_ARGISNULL(1) && PG_GETARG_INT32(1) == done + 1)
		done++;
	PG_RETURN_INT32(done);
}
