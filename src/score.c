/*-------------------------------------------------------------------------
 *
 * score.c
 *	  The decay of points: what they are worth after some time, and when they
 *	  will be worth less than something.
 *
 * Points w of the time t are worth w * 2^(-(T - t) / h) at T, with the half-life
 * h.  So a sum of points with one half-life is again a number of points of one
 * time: adding, and looking at it later, needs nothing else of what it is the
 * sum of.  And of two such sums the greater one stays the greater: log2 of the
 * sum plus t / h, which does not change as time passes, puts them in order.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <math.h>

#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(lifecycle_decayed);
PG_FUNCTION_INFO_V1(lifecycle_decayed_sum_add);

/*
 * The half-life in microseconds; 0 where points do not decay.  Months count 30
 * days, days 24 hours, as everywhere where an interval becomes a number.
 */
float8
lc_half_life(const Interval *half_life)
{
	float8		usec;

	if (half_life == NULL || LcIntervalIsInfinite(half_life))
		return 0;
	usec = (float8) half_life->time +
		((float8) half_life->day + (float8) half_life->month * DAYS_PER_MONTH) * USECS_PER_DAY;
	if (usec <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("half-life must be greater than zero"),
				 errhint("Leave it NULL for points that do not decay.")));
	return usec;
}

/*
 * What points are worth when that many microseconds have passed.
 */
float8
lc_decay(float8 points, float8 usec, float8 half_life)
{
	return half_life == 0 || points == 0 ? points : points * exp2(-usec / half_life);
}

/*
 * Add points to a sum of the same half-life.  The sum takes the later of the
 * two times, so that no number grows.
 */
void
lc_score_add(LcScore *sum, float8 points, TimestampTz at)
{
	if (sum->at == 0 && sum->points == 0)
	{
		sum->points = points;
		sum->at = at;
	}
	else if (at > sum->at)
	{
		sum->points = lc_decay(sum->points, (float8) (at - sum->at), sum->half_life) + points;
		sum->at = at;
	}
	else
		sum->points += lc_decay(points, (float8) (sum->at - at), sum->half_life);
}

/*
 * decayed(points, age, half_life)
 */
Datum
lifecycle_decayed(PG_FUNCTION_ARGS)
{
	Interval   *age;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	age = PG_GETARG_INTERVAL_P(1);
	PG_RETURN_FLOAT8(lc_decay(PG_GETARG_FLOAT8(0),
							  (float8) age->time + ((float8) age->day + (float8) age->month * DAYS_PER_MONTH) * USECS_PER_DAY,
							  lc_half_life(PG_ARGISNULL(2) ? NULL : PG_GETARG_INTERVAL_P(2))));
}

/*
 * decayed_sum_add(sum, points, at, half_life, as_of): the transition function
 * of the aggregate.  What has not happened yet does not count.
 */
Datum
lifecycle_decayed_sum_add(PG_FUNCTION_ARGS)
{
	float8		sum = PG_GETARG_FLOAT8(0);
	TimestampTz at;
	TimestampTz as_of;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(4))
		PG_RETURN_FLOAT8(sum);
	at = PG_GETARG_TIMESTAMPTZ(2);
	as_of = PG_GETARG_TIMESTAMPTZ(4);
	if (TIMESTAMP_NOT_FINITE(at) || TIMESTAMP_NOT_FINITE(as_of))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("points cannot decay from or to an infinite time")));
	if (at > as_of)
		PG_RETURN_FLOAT8(sum);
	PG_RETURN_FLOAT8(sum + lc_decay(PG_GETARG_FLOAT8(1), (float8) (as_of - at),
									lc_half_life(PG_ARGISNULL(3) ? NULL : PG_GETARG_INTERVAL_P(3))));
}
