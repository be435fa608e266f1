/*-------------------------------------------------------------------------
 *
 * report.c
 *	  The reports over moves that the flow answers, flow and conversion, and what
 *	  the reports of C have in common.
 *
 * Who may read the flow, the materialized view that shows it, or the history, may
 * see the sums.  What the flow cannot answer exactly (other time zones, parts of
 * days) is asked of the history, with the rights of the caller (sql/report.sql).
 *
 *-------------------------------------------------------------------------
 */
#include "report.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(lifecycle_flow);
PG_FUNCTION_INFO_V1(lifecycle_conversion);

/* Whether the moment begins a day of the program; which one. */
bool
lc_report_begins_day(LcProgram *program, TimestampTz at, DateADT *day)
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
Oid
lc_report_table(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not tracked", "(null)"),
				 errhint("Name the lead table.")));
	return PG_GETARG_OID(0);
}

/* Whether the caller may see sums: by the right to the flow, or to what shows it. */
bool
lc_report_may_see(LcProgram *program)
{
	return pg_class_aclcheck(program->flow, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		(OidIsValid(program->funnel) &&
		 pg_class_aclcheck(program->funnel, GetUserId(), ACL_SELECT) == ACLCHECK_OK) ||
		pg_class_aclcheck(program->history, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/*
 * Give what a function of ours finds in the history.
 */
void
lc_report_give_history(ReturnSetInfo *rsinfo, const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	if (SPI_execute_with_args(sql, nargs, types, values, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
}

void
lc_report_put_rate(Datum *values, bool *nulls, int column, int64 above, int64 below)
{
	values[column] = Float8GetDatum((float8) above / (float8) below);
	nulls[column] = below == 0;
}

/* The index of the stage in the model; -1 for a status that the model lacks. */
int
lc_report_stage(LcProgram *program, const char *status, int length)
{
	LcModel    *model = program->model;

	for (int i = 0; i < model->nstages; i++)
	{
		text	   *label = model->stages[i].label;

		if (VARSIZE_ANY_EXHDR(label) == length && memcmp(VARDATA_ANY(label), status, length) == 0)
			return i;
	}
	return -1;
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
	stage = lc_report_stage(s->program, VARDATA_ANY(status), VARSIZE_ANY_EXHDR(status));
	if (stage >= 0)
		return stage;
	for (int i = 0; i < s->nother; i++)
	{
		if (lc_cell_compare_texts(s->other[i], status) == 0)
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
	return lc_cell_compare_texts(status_name(s, i), status_name(s, j));
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
	const LcPeriod *period;
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
add_moves(const LcCount *counts, int n, bool merged, void *arg)
{
	Flow	   *f = arg;
	const LcPeriod *p = f->period;
	int			low = 0;
	int			high = p->nbounds;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (p->bounds[middle] <= counts[0].day)
			low = middle + 1;
		else
			high = middle;
	}
	for (int i = 0; i < n; i++)
	{
		const LcCount *c = &counts[i];

		if (c->from_status != NULL)
			step_of(f, c->from_status, low)->outflow += c->sums[S_N];
		if (c->to_status != NULL)
		{
			Step	   *s = step_of(f, c->to_status, low);

			s->inflow += c->sums[S_N];
			s->inflow_new += c->sums[S_NEW];
			s->inflow_again += c->sums[S_AGAIN];
		}
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
	program = lc_program_pin_tracked(lc_report_table(fcinfo));
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
	days = lc_cell_compare_texts(tz, program->tz) == 0 && lc_report_may_see(program);
	bounds = palloc((n + 1) * sizeof(DateADT));
	for (int i = 0; days && i <= n; i++)
		days = lc_report_begins_day(program, i < n ? DatumGetTimestampTz(starts[i]) : PG_GETARG_TIMESTAMPTZ(2), &bounds[i]);
	if (days && n > 0)
	{
		LcPeriod		p = {program, K_MOVE, bounds, n + 1, true, false};
		Flow		f = {0};

		f.statuses.program = program;
		f.period = &p;
		f.nsteps = n + 1;
		lc_period_read(&p, add_moves, &f);
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
		lc_report_give_history(rsinfo, "SELECT * FROM lifecycle.steps_of_history($1, $2, $3)", 3, types, values, NULL);
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

/* Where that passage is counted, from 0. */
static Passage *
passage_of(Conversion *c, int from, int to)
{
	for (int k = 0; k < c->npassages; k++)
	{
		if (c->passages[k].from == from && c->passages[k].to == to)
			return &c->passages[k];
	}
	if (c->npassages == c->room)
	{
		c->room = Max(64, 2 * c->room);
		c->passages = c->passages == NULL ? palloc(c->room * sizeof(Passage)) :
			repalloc(c->passages, c->room * sizeof(Passage));
	}
	c->passages[c->npassages].from = from;
	c->passages[c->npassages].to = to;
	c->passages[c->npassages].moves = 0;
	return &c->passages[c->npassages++];
}

static void
add_passages(const LcCount *counts, int n, bool merged, void *arg)
{
	Conversion *c = arg;

	for (int i = 0; i < n; i++)
	{
		int			from = status_of(&c->statuses, counts[i].from_status);
		int			to = status_of(&c->statuses, counts[i].to_status);

		if (status_count(&c->statuses) > c->nentered)
		{
			int			room = status_count(&c->statuses) + LC_MAX_STAGES;

			c->entered = c->entered == NULL ? palloc(room * sizeof(int64)) : repalloc(c->entered, room * sizeof(int64));
			memset(c->entered + c->nentered, 0, (room - c->nentered) * sizeof(int64));
			c->nentered = room;
		}
		if (to >= 0)
			c->entered[to] += counts[i].sums[S_ENTERED];
		if (from >= 0)
			passage_of(c, from, to)->moves += counts[i].sums[S_LEFT];
	}
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
	program = lc_program_pin_tracked(lc_report_table(fcinfo));
	SPI_connect();
	if (lc_report_may_see(program) && lc_report_begins_day(program, since, &days[0]) && lc_report_begins_day(program, until, &days[1]))
	{
		Conversion	c = {0};
		LcPeriod		p = {program, K_MOVE, days, 2, false, false};

		c.statuses.program = program;
		if (days[0] < days[1])
			lc_period_read(&p, add_passages, &c);
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
			lc_report_put_rate(values, nulls, 3, q->moves, c.entered[q->from]);
			lc_report_put_rate(values, nulls, 4, q->moves, left);
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
		lc_report_give_history(rsinfo, "SELECT c.* FROM lifecycle.program_of($1) AS p,"
					 " lifecycle.conversion_of_history(p, lifecycle.readable_history(p), $2, $3) AS c", 3, types, values, NULL);
	}
	SPI_finish();
	lc_program_unpin(program);
	return (Datum) 0;
}
