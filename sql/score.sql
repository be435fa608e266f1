-- The decay of points.

CREATE FUNCTION lifecycle.decayed(points double precision, age interval, half_life interval) RETURNS double precision
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_decayed';

COMMENT ON FUNCTION lifecycle.decayed(double precision, interval, interval) IS
'What points are worth at an age: points * 2^(-age / half_life). A half_life of NULL: they do not decay. Months count 30 days, days 24 hours. 25 points with a half-life of 14 days are 12.5 after 14 days and 6.25 after 28. Errors: 22023 a half-life that is not greater than zero.';

CREATE FUNCTION lifecycle.decayed_sum_add(
    sum double precision, points double precision, at timestamptz, half_life interval, as_of timestamptz)
    RETURNS double precision
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_decayed_sum_add';

COMMENT ON FUNCTION lifecycle.decayed_sum_add(double precision, double precision, timestamptz, interval, timestamptz) IS
'Transition function of lifecycle.decayed_sum(), which see.';

CREATE AGGREGATE lifecycle.decayed_sum(points double precision, at timestamptz, half_life interval, as_of timestamptz) (
    SFUNC = lifecycle.decayed_sum_add,
    STYPE = double precision,
    INITCOND = '0',
    COMBINEFUNC = pg_catalog.float8pl,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lifecycle.decayed_sum(double precision, timestamptz, interval, timestamptz) IS
'The sum of points, each dated at its time and decayed with its half-life, as of an instant; 0 for none. What is dated after as_of, and rows with a NULL in points, at or as_of, do not count. Errors: 22023 a half-life that is not greater than zero, 22008 an infinite time.';
