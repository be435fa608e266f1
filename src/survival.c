/*-------------------------------------------------------------------------
 *
 * survival.c
 *	  The estimate of Kaplan and Meier (Nonparametric estimation from incomplete
 *	  observations, Journal of the American Statistical Association 53, 1958): how
 *	  many have not come to an end after a time, of whom some are still under
 *	  way.
 *
 * S(t) is the product of (1 - d / n) over the times up to t at which d of the n
 * who were still under observation came to an end.  At a tie those who came to
 * an end go before those who left observation.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <float.h>

#include "common/int.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_survival_add);
PG_FUNCTION_INFO_V1(lifecycle_survival_add_at);
PG_FUNCTION_INFO_V1(lifecycle_survival_at);
PG_FUNCTION_INFO_V1(lifecycle_survival_median);

typedef struct Observation
{
	int64		usec;
	bool		ended;
} Observation;

typedef struct Survival
{
	Observation *observations;
	int64		n;
	int64		room;
	bool		has_at;
	int64		at;				/* the time that is asked for */
} Survival;

/* The length of an interval; a month has 30 days, as where intervals are compared. */
static int64
length_of(const Interval *interval)
{
	int64		days = interval->month * INT64CONST(30) + interval->day;
	int64		usec;

	if (LcIntervalIsInfinite(interval) || pg_mul_s64_overflow(days, USECS_PER_DAY, &usec) ||
		pg_add_s64_overflow(usec, interval->time, &usec))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("interval out of range")));
	return usec;
}

/*
 * Take an observation down.  Those with a NULL are none.
 */
static Survival *
add(FunctionCallInfo fcinfo)
{
	MemoryContext cxt;
	Survival   *s;

	if (!AggCheckCallContext(fcinfo, &cxt))
		elog(ERROR, "function called outside of an aggregate");
	s = PG_ARGISNULL(0) ? NULL : (Survival *) PG_GETARG_POINTER(0);
	if (s == NULL)
		s = MemoryContextAllocZero(cxt, sizeof(Survival));
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		return s;
	if (s->n == s->room)
	{
		s->room = Max(64, 2 * s->room);
		s->observations = s->observations == NULL ?
			MemoryContextAllocHuge(cxt, s->room * sizeof(Observation)) :
			repalloc_huge(s->observations, s->room * sizeof(Observation));
	}
	s->observations[s->n].usec = length_of(PG_GETARG_INTERVAL_P(1));
	s->observations[s->n++].ended = PG_GETARG_BOOL(2);
	return s;
}

Datum
lifecycle_survival_add(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(add(fcinfo));
}

Datum
lifecycle_survival_add_at(PG_FUNCTION_ARGS)
{
	Survival   *s = add(fcinfo);

	/* nothing is later than infinity, which is no number of microseconds */
	if (!PG_ARGISNULL(3) && !(LcIntervalIsInfinite(PG_GETARG_INTERVAL_P(3)) && PG_GETARG_INTERVAL_P(3)->month > 0))
	{
		s->has_at = true;
		s->at = length_of(PG_GETARG_INTERVAL_P(3));
	}
	PG_RETURN_POINTER(s);
}

/*
 * By time; at a tie those who came to an end go first.
 */
static inline int
compare_observations(const Observation *a, const Observation *b)
{
	if (a->usec != b->usec)
		return a->usec < b->usec ? -1 : 1;
	return (int) b->ended - (int) a->ended;
}

/* Unlike qsort(), this looks for interrupts: millions of rows take seconds. */
#define ST_SORT sort_observations
#define ST_ELEMENT_TYPE Observation
#define ST_COMPARE(a, b) compare_observations(a, b)
#define ST_SCOPE static
#define ST_CHECK_FOR_INTERRUPTS
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * Go through the times at which some came to an end, as far as "until".  Gives S
 * after the last of them.  Where "median" is given, stops as soon as S is at most
 * one half, with that time there.
 *
 * As long as nobody leaves observation, the product is the share of those who
 * are left, which is computed as such: only where somebody left before does
 * rounding come in.
 */
static float8
walk(Survival *s, bool bounded, int64 until, int64 *median, bool *found)
{
	float8		before = 1;		/* S when somebody left for the last time */
	int64		under = s->n;	/* who were there then */
	int64		left = s->n;	/* who are there now */
	float8		tolerance = 0;

	*found = false;
	sort_observations(s->observations, s->n);
	for (int64 i = 0; i < s->n; i++)
	{
		const Observation *o = &s->observations[i];

		if ((i & 0xffff) == 0)
			CHECK_FOR_INTERRUPTS();
		if (bounded && o->usec > until)
			break;
		if (o->ended)
		{
			left--;
			/* those of the same time come to an end at once */
			if (median != NULL && (i + 1 == s->n || s->observations[i + 1].usec != o->usec || !s->observations[i + 1].ended) &&
				before * (float8) left * 2 <= (float8) under * (1 + tolerance))
			{
				*median = o->usec;
				*found = true;
				break;
			}
		}
		else
		{
			if (left != under)
			{
				before *= (float8) left / (float8) under;
				tolerance += 4 * DBL_EPSILON;
			}
			under = --left;
		}
	}
	return under == 0 ? before : before * ((float8) left / (float8) under);
}

/*
 * survival(duration, ended, at): the share that has not come to an end by then.
 */
Datum
lifecycle_survival_at(PG_FUNCTION_ARGS)
{
	Survival   *s = PG_ARGISNULL(0) ? NULL : (Survival *) PG_GETARG_POINTER(0);
	bool		found;

	if (s == NULL || s->n == 0)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(walk(s, s->has_at, s->at, NULL, &found));
}

/*
 * survival_median(duration, ended): the least time by which at least half have
 * come to an end, or NULL.
 */
Datum
lifecycle_survival_median(PG_FUNCTION_ARGS)
{
	Survival   *s = PG_ARGISNULL(0) ? NULL : (Survival *) PG_GETARG_POINTER(0);
	int64		median = 0;
	bool		found = false;
	Interval   *result;

	if (s != NULL && s->n > 0)
		(void) walk(s, false, 0, &median, &found);
	if (!found)
		PG_RETURN_NULL();
	result = palloc0(sizeof(Interval));
	result->day = (int32) (median / USECS_PER_DAY);
	result->time = median % USECS_PER_DAY;
	PG_RETURN_INTERVAL_P(result);
}
