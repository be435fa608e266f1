/*-------------------------------------------------------------------------
 *
 * crossing.c
 *	  When a score that decays will fall below a value.
 *
 * A score is a sum of points that halve in different times, some of which may be
 * negative, so that it may rise before it falls, and several times.  After t
 * microseconds it is, less the value,
 *
 *		w0 * 2^(-r0 * t) + w1 * 2^(-r1 * t) + ...		with r0 < r1 < ...
 *
 * where the value is one of the terms, with rate 0.  Multiplied with 2^(r0 * t),
 * which changes no sign, it begins with a constant, so that its derivative has a
 * term less.  Between two places where the derivative changes its sign it only
 * rises or only falls, and changes its own sign at most once.  So all changes of
 * sign are found from those of the derivative, one term after the other, by
 * bisection; there are fewer than terms.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(lifecycle_first_below);

/* Beyond the end of time, in microseconds. */
#define NEVER 1e19

typedef struct Term
{
	float8		weight;
	float8		rate;			/* halvings in a microsecond */
} Term;

/* A place where the sign changes, and what it is from there on. */
typedef struct Change
{
	float8		at;
	int			sign;
} Change;

static int
sign_of(float8 x)
{
	return x > 0 ? 1 : x < 0 ? -1 : 0;
}

static float8
sum_at(const Term *terms, int n, float8 t)
{
	float8		sum = 0;

	for (int i = 0; i < n; i++)
		sum += terms[i].rate == 0 ? terms[i].weight : terms[i].weight * exp2(-terms[i].rate * t);
	return sum;
}

/*
 * The first place between from and to, where the sign is the given one, at
 * which it is that.
 */
static float8
bisect(const Term *terms, int n, float8 from, float8 to, int sign)
{
	for (;;)
	{
		float8		middle = from + (to - from) / 2;

		if (middle <= from || middle >= to)
			return to;
		if (sign_of(sum_at(terms, n, middle)) == sign)
			to = middle;
		else
			from = middle;
	}
}

/*
 * All changes of sign of the sum after 0, in their order; there is room for one
 * less than terms.  Terms are sorted by rate, which differ, and no weight is 0.
 * Gives their number; *first is the sign that the sum begins with.
 */
static int
find_changes(const Term *terms, int n, Change *changes, int *first)
{
	Term	   *f;
	Term	   *derivative;
	Change	   *turns;
	int			nturns;
	int			ignored;
	int			sign;
	int			found = 0;
	float8		from = 0;

	if (n <= 1)
	{
		*first = n == 0 ? 0 : sign_of(terms[0].weight);
		return 0;
	}
	f = palloc(n * sizeof(Term));
	derivative = palloc((n - 1) * sizeof(Term));
	turns = palloc(n * sizeof(Change));
	for (int i = 0; i < n; i++)
	{
		f[i].weight = terms[i].weight;
		f[i].rate = terms[i].rate - terms[0].rate;
	}
	for (int i = 1; i < n; i++)
	{
		/* in proportion, so that many derivatives do not come to nothing */
		derivative[i - 1].weight = -f[i].weight * (f[i].rate / f[n - 1].rate);
		derivative[i - 1].rate = f[i].rate;
	}
	nturns = find_changes(derivative, n - 1, turns, &ignored);

	sign = sign_of(sum_at(f, n, 0));
	*first = sign;
	for (int i = 0; i <= nturns; i++)
	{
		float8		to;
		int			next;

		if (i < nturns)
		{
			to = turns[i].at;
			next = sign_of(sum_at(f, n, to));
		}
		else
		{
			next = sign_of(f[0].weight);
			for (to = Max(from, 1); to < NEVER && sign_of(sum_at(f, n, to)) != next; to *= 2)
				;
		}
		if (next == 0)
			continue;
		if (sign == 0)
			*first = next;
		else if (next != sign)
		{
			changes[found].at = to >= NEVER ? NEVER : bisect(f, n, from, to, next);
			changes[found++].sign = next;
		}
		sign = next;
		from = to;
	}
	pfree(f);
	pfree(derivative);
	pfree(turns);
	return found;
}

static int
compare_terms(const void *a, const void *b)
{
	float8		x = ((const Term *) a)->rate;
	float8		y = ((const Term *) b)->rate;

	return x < y ? -1 : x > y ? 1 : 0;
}

/*
 * first_below(points float8[], half_lives interval[], value float8, since
 * timestamptz): the first microsecond from since on at which the sum of the
 * points, which are as of since, is not above the value any more and about to be
 * below it; NULL where it is below already, or never will be.  A half-life of 0
 * is none.
 */
Datum
lifecycle_first_below(PG_FUNCTION_ARGS)
{
	ArrayType  *points_array = PG_GETARG_ARRAYTYPE_P(0);
	ArrayType  *half_lives_array = PG_GETARG_ARRAYTYPE_P(1);
	float8		value = PG_GETARG_FLOAT8(2);
	TimestampTz since = PG_GETARG_TIMESTAMPTZ(3);
	Datum	   *points;
	Datum	   *half_lives;
	int			npoints;
	int			nhalf_lives;
	Term	   *terms;
	Change	   *changes;
	int			n = 0;
	int			nchanges;
	int			first;
	float8		t = NEVER;

	if (isnan(value) || array_contains_nulls(points_array) || array_contains_nulls(half_lives_array) ||
		TIMESTAMP_NOT_FINITE(since))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("points, half-lives, value and time must be known and finite")));
	deconstruct_array(points_array, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &points, NULL, &npoints);
	deconstruct_array(half_lives_array, INTERVALOID, sizeof(Interval), false, TYPALIGN_DOUBLE,
					  &half_lives, NULL, &nhalf_lives);
	if (npoints != nhalf_lives)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("there must be as many points as half-lives")));

	terms = palloc((npoints + 1) * sizeof(Term));
	for (int i = 0; i < npoints; i++)
	{
		Interval   *h = DatumGetIntervalP(half_lives[i]);

		terms[i].weight = DatumGetFloat8(points[i]);
		terms[i].rate = h->month == 0 && h->day == 0 && h->time == 0 ? 0 : lc_half_life(h);
		if (terms[i].rate != 0)
			terms[i].rate = 1 / terms[i].rate;
	}
	terms[npoints].weight = -value;
	terms[npoints].rate = 0;
	pg_qsort(terms, npoints + 1, sizeof(Term), compare_terms);

	/* one term for each rate, and none that is nothing */
	for (int i = 0; i <= npoints; i++)
	{
		if (n > 0 && terms[n - 1].rate == terms[i].rate)
			terms[n - 1].weight += terms[i].weight;
		else
		{
			if (n > 0 && terms[n - 1].weight == 0)
				n--;
			terms[n++] = terms[i];
		}
	}
	if (n > 0 && terms[n - 1].weight == 0)
		n--;

	changes = palloc((n + 1) * sizeof(Change));
	if (sum_at(terms, n, 0) < 0)
		PG_RETURN_NULL();
	nchanges = find_changes(terms, n, changes, &first);
	if (first < 0)
		t = 0;
	for (int i = 0; t == NEVER && i < nchanges; i++)
	{
		if (changes[i].sign < 0)
			t = changes[i].at;
	}
	if (t >= (float8) END_TIMESTAMP - (float8) since)
		PG_RETURN_NULL();

	/* the very microsecond, by the sum itself */
	t = Max(ceil(t) - 2, 0);
	for (int i = 0; i < 4 && sum_at(terms, n, t) > 0; i++)
		t++;
	PG_RETURN_TIMESTAMPTZ(since + (int64) t);
}
