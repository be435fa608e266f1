-- The estimate of Kaplan and Meier: vectors, ties, what is not known, halves that
-- are exactly halves, infinite times, groups at random beside exact fractions.

CREATE EXTENSION lifecycle;
SELECT plan(30);

\ir ../lib/failure.sql
\ir ../lib/reports.sql

-- 'n' for one that ended after n days, 'n+' for one that was under way then.
CREATE FUNCTION seen(line text) RETURNS TABLE (lasted interval, ended boolean) LANGUAGE sql IMMUTABLE AS $$
    SELECT rtrim(o, '+')::int * interval '1 day', o !~ '\+' FROM regexp_split_to_table(line, ' ') AS o
$$;

-- ---- vectors ----

SELECT is((SELECT lifecycle.survival_median(lasted, ended) FROM seen(line)), median, 'median of ' || line)
FROM (VALUES ('2 4 6 10+ 10+', interval '6 days'), ('2 2+ 2 3 5+', '3 days'),
             ('2 2 9+ 9+ 9+', NULL), ('5', '5 days'), ('5+', NULL), ('0 0 7+', '0'), ('1 3', '1 day'), ('3 1 2', '2 days'),
             ('4 4+', '4 days'), ('4+ 4', '4 days'), ('3+ 4', '4 days')) AS v (line, median);
SELECT is((SELECT round(lifecycle.survival(lasted, ended, at)::numeric, 9) FROM seen(line)), s, format('S of %s after %s', line, at))
FROM (VALUES ('2 4 6 10+ 10+', interval '1 day', 1), ('2 4 6 10+ 10+', '2 days', 0.8), ('2 4 6 10+ 10+', '5 days 23:59:59.999999', 0.6), ('2 4 6 10+ 10+', '6 days', 0.4),
             ('2 4 6 10+ 10+', NULL, 0.4), ('2 2+ 2 3 5+', '2 days', 0.6), ('2 2+ 2 3 5+', '3 days', 0.3)) AS v (line, at, s);
SELECT is((SELECT round(lifecycle.survival(lasted, ended, '1 month')::numeric, 9) FROM seen('30 31')), 0.5, 'a month is 30 days, as where intervals are compared');

-- ---- nothing, and what is not known ----

SELECT is((SELECT lifecycle.survival(lasted, ended, '1 day') FROM seen('1') WHERE false), NULL::double precision, 'S of nobody');
SELECT is((SELECT lifecycle.survival_median(lasted, ended) FROM seen('1') WHERE false), NULL::interval, 'median of nobody');
SELECT results_eq($$
    SELECT lifecycle.survival(d, e, '1 day'), lifecycle.survival_median(d, e)
    FROM (VALUES (interval '1 day', true), (NULL, true), ('1 day', NULL), ('2 days', false)) AS v (d, e) $$,
    $$VALUES (0.5::double precision, interval '1 day')$$, 'what is not known does not count');

-- ---- exactness ----

-- Of b * 4 all but a * 4 end; those but 2 * a leave; of these all but b end: S is a/b * b/2a.
SELECT is_empty($$
    SELECT a, b, lifecycle.survival_median(lasted, ended)
    FROM generate_series(2, 40) AS a, generate_series(a + 1, 2 * a - 1) AS b, LATERAL (
        SELECT interval '1 day' AS lasted, true AS ended FROM generate_series(1, (b - a) * 4)
        UNION ALL SELECT interval '2 days', false FROM generate_series(1, a * 4 - 2 * a)
        UNION ALL SELECT interval '3 days', true FROM generate_series(1, 2 * a - b)
        UNION ALL SELECT interval '4 days', false FROM generate_series(1, b)) AS s
    GROUP BY a, b HAVING lifecycle.survival_median(lasted, ended) IS DISTINCT FROM '3 days'$$, 'a half is a half, in whatever steps it is reached');

SELECT setseed(0.5);
CREATE TABLE at_random AS
SELECT g, floor(random() * g / 4) * interval '11 hours' AS lasted, random() < 0.6 AS ended FROM generate_series(1, 300) AS g, generate_series(1, g);
CREATE TABLE estimates AS
SELECT g, lifecycle.survival_median(lasted, ended) AS median, lifecycle.survival(lasted, ended, '5 days') AS s, lifecycle.survival(lasted, ended, NULL) AS last
FROM at_random GROUP BY g;
SELECT is_empty($$
    SELECT e.g, e.median
    FROM estimates e
    WHERE e.median IS DISTINCT FROM (
        SELECT min(k.t) FROM (SELECT array_agg(lasted) AS l, array_agg(ended) AS e FROM at_random r WHERE r.g = e.g) AS r,
                             naive.survival(r.l, r.e, NULL) AS k WHERE k.over * 2 <= k.under)$$, 'medians of groups at random');
SELECT is_empty($$
    SELECT e.g, e.s, e.last
    FROM estimates e, LATERAL (SELECT array_agg(lasted) AS l, array_agg(ended) AS e FROM at_random r WHERE r.g = e.g) AS r
    WHERE abs(e.s - coalesce((SELECT k.over / k.under FROM naive.survival(r.l, r.e, '5 days') AS k ORDER BY k.t DESC LIMIT 1), 1)) > 1e-12
       OR abs(e.last - coalesce((SELECT k.over / k.under FROM naive.survival(r.l, r.e, NULL) AS k ORDER BY k.t DESC LIMIT 1), 1)) > 1e-12$$, 'S of groups at random');

-- ---- beside other rows, and over many ----

SELECT results_eq($$
    SELECT round(lifecycle.survival(lasted, ended, NULL) OVER (ORDER BY lasted DESC)::numeric, 6) FROM seen('2 4 6 10+')$$,
    $$VALUES (1::numeric), (0.5), (0.333333), (0.25)$$, 'as a window is filled');
SELECT results_eq($$
    SELECT round(lifecycle.survival(i * interval '1 second', i % 2 = 0, '100000 seconds')::numeric, 3), lifecycle.survival_median(i * interval '1 second', true)
    FROM generate_series(200000, 1, -1) AS i$$, $$VALUES (0.707, interval '1 day 03:46:40')$$, 'over many rows');
SELECT set_eq($$SELECT proparallel::text, provolatile::text FROM pg_proc
    WHERE pronamespace = 'lifecycle'::regnamespace AND proname LIKE 'survival%'$$, $$VALUES ('s', 'i')$$, 'parallel workers may compute them');

-- ---- refused ----

SELECT is(failure($$SELECT lifecycle.survival_median(interval '2000000000 months', true)$$), '22008: interval out of range', 'what is too long');
-- Intervals are infinite from 17 on.
SELECT current_setting('server_version_num')::int >= 170000 AS infinite \gset
\if :infinite
SELECT is((SELECT round(lifecycle.survival(lasted, ended, 'infinity')::numeric, 9) FROM seen('2 4 6 10+ 10+')), 0.4, 'infinitely long after is after all');
\else
SELECT pass('no interval is infinite');
\endif

SELECT finish();
