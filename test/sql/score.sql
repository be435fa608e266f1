-- Decay: what points are worth, when they will be worth less than something, and
-- whose are worth most.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

-- ---- decayed() ----

SELECT is(lifecycle.decayed(25, '14 days', '14 days'), 12.5::float8, '25 points are half of it after a half-life');
SELECT is(lifecycle.decayed(25, '28 days', '14 days'), 6.25::float8, 'a quarter after two');
SELECT is(lifecycle.decayed(25, '0', '14 days'), 25::float8, 'all at once');
SELECT is(lifecycle.decayed(25, '-14 days', '14 days'), 50::float8, 'twice as much before');
SELECT is(lifecycle.decayed(25, '1000 years', NULL), 25::float8, 'without a half-life they do not decay');
SELECT is(lifecycle.decayed(25, '1 month', '30 days'), 12.5::float8, 'a month is 30 days');
SELECT is(lifecycle.decayed(25, '1 day', '24 hours'), 12.5::float8, 'a day 24 hours');
SELECT is(lifecycle.decayed(-8, '1 microsecond', '1 microsecond'), -4::float8, 'to the microsecond, with either sign');
SELECT is(lifecycle.decayed(25, '1000 years', '1 microsecond'), 0::float8, 'nothing is left at last');
SELECT is(round(lifecycle.decayed(20, '14 days', '7 days')::numeric, 2), 5.00, '20 points of 7 days after 14 days');
SELECT is(round(lifecycle.decayed(12, '14 days', '30 days')::numeric, 2), 8.68, 'are less than 12 points of 30 days');
SELECT is(lifecycle.decayed(NULL, '1 day', '1 day'), NULL, 'NULL points are NULL');
SELECT is(lifecycle.decayed(1, NULL, '1 day'), NULL, 'NULL age as well');
SELECT is(failure(format('SELECT lifecycle.decayed(1, %L, %L)', '1 day', h.half_life)),
          E'22023: half-life must be greater than zero\nHINT: Leave it NULL for points that do not decay.', 'half-life ' || h.half_life)
FROM (VALUES ('0'), ('-1 day'), ('1 day -24 hours')) AS h (half_life);

-- ---- decayed_sum() ----

CREATE TABLE points (lead int, points float8, at timestamptz, half_life interval);
INSERT INTO points VALUES
    (1, 25, '2026-01-01', '14 days'), (1, 10, '2026-01-15', '14 days'), (1, 5, '2026-01-15', NULL),
    (1, 1000, '2026-02-01', '14 days'), (1, NULL, '2026-01-01', '14 days'), (1, 7, NULL, '14 days'),
    (2, 20, '2026-01-01', '7 days'), (2, 12, '2026-01-01', '30 days');
SELECT is((SELECT lifecycle.decayed_sum(points, at, half_life, '2026-01-15') FROM points WHERE lead = 1), 27.5::float8,
          'what is dated later, or has no points or time, does not count');
SELECT is((SELECT round(lifecycle.decayed_sum(points, at, half_life, '2026-01-15')::numeric, 2) FROM points WHERE lead = 2), 13.68, 'two half-lives add up');
SELECT is((SELECT lifecycle.decayed_sum(points, at, half_life, '2026-01-15') FROM points WHERE lead = 3), 0::float8, 'nothing is 0');
SELECT is(failure($$SELECT lifecycle.decayed_sum(1, now(), '0', now())$$),
          E'22023: half-life must be greater than zero\nHINT: Leave it NULL for points that do not decay.', 'no half-life of 0');
SELECT is(failure($$SELECT lifecycle.decayed_sum(1, '-infinity', '1 day', now())$$), '22008: points cannot decay from or to an infinite time', 'no time without an end');
CREATE TABLE many AS
SELECT n AS id, (n % 97)::float8 AS points, timestamptz '2026-01-01 00:00+00' + n * interval '1 minute' AS at,
       CASE n % 3 WHEN 0 THEN interval '7 days' WHEN 1 THEN '30 days' END AS half_life
FROM generate_series(1, 50000) AS n;
ANALYZE many;
SET max_parallel_workers_per_gather = 0;
SELECT lifecycle.decayed_sum(points, at, half_life, '2026-03-01') AS serial FROM many \gset
SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
CREATE FUNCTION plan(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    lines text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
        lines := lines || line || E'\n';
    END LOOP;
    RETURN lines;
END
$$;
SELECT matches(plan($$SELECT lifecycle.decayed_sum(points, at, half_life, '2026-03-01') FROM many$$), 'Partial Aggregate', 'it can be computed in parallel');
SELECT cmp_ok((SELECT abs(lifecycle.decayed_sum(points, at, half_life, '2026-03-01') / :serial - 1) FROM many), '<', 1e-12::float8, 'to the same sum');
SELECT cmp_ok((SELECT abs(sum(lifecycle.decayed(points, timestamptz '2026-03-01' - at, half_life)) FILTER (WHERE at <= '2026-03-01') / :serial - 1) FROM many), '<', 1e-12::float8,
              'that decayed() gives');
RESET max_parallel_workers_per_gather; RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size;

-- ---- when it falls below ----

SELECT is(lifecycle.first_below(ARRAY[100], '{30 days}', 70, '2026-01-01 00:00+00') - '2026-01-01 00:00+00',
          make_interval(secs => 30 * 86400 * ln(100.0 / 70) / ln(2)::double precision), '100 points with 30 days fall below 70');
SELECT is(round((extract(epoch FROM lifecycle.first_below(ARRAY[100], '{30 days}', 70, '2026-01-01 00:00+00') - '2026-01-01 00:00+00') / 86400)::numeric, 2), 15.44, 'after 15.44 days');
SELECT is(lifecycle.first_below(ARRAY[100], '{30 days}', 25, '2026-01-01 00:00+00'), '2026-03-02 00:00+00', 'a quarter of it after two half-lives, exactly');
SELECT is(lifecycle.first_below(p.points, p.half_lives, p.value, '2026-01-01 00:00+00'), p.falls::timestamptz, p.what)
FROM (VALUES
    (ARRAY[10.0], '{1 day}'::interval[], 10.1, NULL, 'below already'),
    (ARRAY[10.0], '{1 day}', 10, '2026-01-01 00:00+00', 'the very value: at once'),
    (ARRAY[10.0], '{1 day}', 0, NULL, 'never below 0'),
    (ARRAY[10.0], '{1 day}', -1, NULL, 'nor below what is less'),
    (ARRAY[10.0], '{0}', 5, NULL, 'points that do not decay stay'),
    (ARRAY[10.0], '{0}', 10, NULL, 'where they are'),
    (ARRAY[10.0, 10], '{0, 1 day}', 10, NULL, 'and the others never come down to nothing'),
    (ARRAY[10.0, 10], '{0, 1 day}', 15, '2026-01-02 00:00+00', 'but to a half'),
    (ARRAY[10.0, 10], '{24:00, 1 day}', 5, '2026-01-03 00:00+00', 'the same half-life, said in two ways'),
    (ARRAY[-10.0, 10], '{1 day, 1 day}', 0, NULL, 'nothing is not below 0'),
    (ARRAY[-5.0], '{1 day}', -6, NULL, 'negative points rise'),
    (ARRAY[-5.0], '{1 day}', -5, NULL, 'and do not fall even from the very value'),
    (ARRAY[-5.0], '{1 day}', 0, NULL, 'they are below 0 already'),
    ('{}'::numeric[], '{}', 0, NULL, 'nothing stays nothing'),
    ('{}'::numeric[], '{}', -1, NULL, 'above what is less'),
    -- 16 * 2^-t - 8 * 4^-t: 8, then it rises to 8 and falls; with x = 2^-t: 16x - 8x^2 = 6 at x = 1/2
    (ARRAY[16.0, -8], '{1 day, 12 hours}', 6, '2026-01-02 00:00+00', 'negative points that go first'),
    (ARRAY[24.0, -20], '{1 day, 12 hours}', 4, '2026-01-03 07:43:34.587399+00', 'from the very value it may rise first'),
    (ARRAY[24.0, -20], '{1 day, 12 hours}', 4.1, NULL, 'what is below is below, even if it rises'),
    -- x = 2^-t: 6x^3 - 11x^2 + 6x - 1 + 1 = 1 at x = 1, 1/2, 1/3: touched and crossed several times
    (ARRAY[6.0, -11, 6], '{8 hours, 12 hours, 24 hours}', 1, '2026-01-01 00:00+00', 'several times: the first counts'),
    (ARRAY[100.0], '{1000000 years}', 1e-300, NULL, 'never within the time that there is')
) AS p (points, half_lives, value, falls, what);
SELECT is(failure($$SELECT lifecycle.first_below('{1}', '{1 day}', 'NaN', now())$$), '22023: points, half-lives, value and time must be known and finite', 'no number');
SELECT is(failure($$SELECT lifecycle.first_below('{NULL}', '{1 day}', 1, now())$$), '22023: points, half-lives, value and time must be known and finite', 'no points');
SELECT is(failure($$SELECT lifecycle.first_below('{1}', '{}', 1, now())$$), '2202E: there must be as many points as half-lives', 'no half-life');
SELECT is(failure($$SELECT lifecycle.first_below('{1}', '{-1 day}', 1, now())$$),
          E'22023: half-life must be greater than zero\nHINT: Leave it NULL for points that do not decay.', 'a negative one');
-- against a walk in small steps, with points of either sign
SELECT setseed(0.5);
CREATE TABLE mixtures AS
SELECT n, array_agg(round((random() * 40 - 12)::numeric, 1)::float8 ORDER BY h) AS points,
       array_agg(h ORDER BY h) AS half_lives, 5 AS value
FROM generate_series(1, 120) AS n, unnest('{0, 3 hours, 1 day, 4 days}'::interval[]) AS h GROUP BY n;
CREATE FUNCTION score(points float8[], half_lives interval[], age interval) RETURNS float8 LANGUAGE sql
AS $$SELECT sum(lifecycle.decayed(p, age, nullif(h, '0'))) FROM unnest(points, half_lives) AS s (p, h)$$;
CREATE TABLE falls AS
SELECT m.*, lifecycle.first_below(m.points, m.half_lives, m.value, 'epoch') - 'epoch' AS age, score(m.points, m.half_lives, '0') AS now FROM mixtures m;
SELECT cmp_ok((SELECT count(*) FROM falls WHERE age IS NOT NULL), '>', 30::bigint, 'many fall');
SELECT is_empty($$SELECT * FROM falls WHERE age IS NOT NULL AND NOT (
                      score(points, half_lives, age) <= value + 1e-9 AND score(points, half_lives, age + '1 second') < value
                      AND (age = '0' OR score(points, half_lives, age - interval '2 microseconds') > value - 1e-9))$$, 'each crosses the value where it is said to');
SELECT is_empty($$SELECT f.n, step FROM falls f, generate_series(0, 600) AS step
                  WHERE now >= value AND step * interval '40 minutes' < coalesce(age, '30 days')
                    AND score(points, half_lives, step * interval '40 minutes') < value - 1e-9$$, 'and not before');
SELECT is_empty('SELECT * FROM falls WHERE now < value AND age IS NOT NULL', 'NULL where it is below already');

-- ---- of leads ----

CREATE SCHEMA crm;
CREATE TABLE crm.leads (id bigint PRIMARY KEY);
SELECT lifecycle.track('crm.leads');
SELECT is(lifecycle.behavior_score('crm.leads', 1), 0::float8, 'without signals every score is 0');
SELECT is(lifecycle.behavior_falls_below('crm.leads', 1, 5), NULL, 'falls below nothing');
SELECT is_empty($$SELECT * FROM lifecycle.hottest('crm.leads')$$, 'and nobody is hot');
CREATE TABLE crm.acts (lead bigint, t timestamptz);
CREATE INDEX ON crm.acts (lead);
SELECT lifecycle.track_signal('crm.acts', 'crm.leads', 'lead', 't');
INSERT INTO crm.leads SELECT generate_series(1, 3);
CREATE FUNCTION heat(points float8, at timestamptz, half_life interval) RETURNS float8 LANGUAGE sql AS $$
    SELECT CASE WHEN points <= 0 THEN NULL WHEN half_life = '0' THEN points
                ELSE ln(points) / ln(2::float8) + extract(epoch FROM at)::float8 / extract(epoch FROM half_life)::float8 END $$;
INSERT INTO crm.leads_behavior (lead, half_life, points, at, heat)
SELECT p.lead, p.half_life, p.points, timestamptz '2026-01-01 00:00+00', heat(p.points, '2026-01-01 00:00+00', p.half_life)
FROM (VALUES (1, interval '7 days', 20), (2, '30 days', 12), (3, '7 days', -3), (3, '0', 4), (77, '0', 1000)) AS p (lead, half_life, points);
SELECT is(lifecycle.behavior_score('crm.leads', 1, '2026-01-15 00:00+00'), 5::float8, 'the key in its own type, or nearly');
SELECT is(lifecycle.behavior_score('crm.leads', 1::bigint, '2026-01-15 00:00+00'), 5::float8, 'in its own type');
SELECT is(lifecycle.behavior_score('crm.leads', '1', '2026-01-15 00:00+00'), 5::float8, 'as text');
SELECT is(round(lifecycle.behavior_score('crm.leads', 2, '2026-01-15 00:00+00')::numeric, 2), 8.68, 'another half-life');
SELECT is(lifecycle.behavior_score('crm.leads', 3, '2026-01-08 00:00+00'), 2.5::float8, 'half-lives are added up');
SELECT is(lifecycle.behavior_score('crm.leads', 2), lifecycle.decayed(12, now() - '2026-01-01 00:00+00', '30 days'), 'by default now');
SELECT is(lifecycle.behavior_score('crm.leads', 4), 0::float8, 'no points are 0');
SELECT is(lifecycle.behavior_falls_below('crm.leads', 3, 3.9999),
          lifecycle.first_below(ARRAY[lifecycle.decayed(-3, now() - '2026-01-01 00:00+00', '7 days'), 4], '{7 days, 0}', 3.9999, now()), 'when it falls');
BEGIN;
UPDATE crm.leads_behavior SET at = now(), points = 100 WHERE lead = 2;
SELECT lifecycle.behavior_falls_below('crm.leads', '2', 25) = now() + interval '60 days' AS falls,
       lifecycle.behavior_falls_below('crm.leads', 2, 100) = now() AS falls_now,
       lifecycle.behavior_falls_below('crm.leads', 2, 101) IS NULL AS is_below \gset
COMMIT;
SELECT is(ARRAY[:'falls', :'falls_now', :'is_below']::boolean[], '{t,t,t}', 'from now on');
SELECT is(failure(c.statement), c.error, c.statement)
FROM (VALUES
    ($$SELECT lifecycle.behavior_score('crm.leads', NULL::text)$$, '22004: lead and at must not be null'),
    ($$SELECT lifecycle.behavior_score('crm.leads', 1, NULL)$$, '22004: lead and at must not be null'),
    ($$SELECT lifecycle.behavior_score('crm.leads', 1, 'infinity')$$, '22023: a score is one of an instant, not of infinity'),
    ($$SELECT lifecycle.behavior_score('crm.leads', 'one')$$, '22P02: invalid input syntax for type bigint: "one"'),
    ($$SELECT lifecycle.behavior_score('crm.acts', 1)$$, E'55000: table "crm.acts" is not tracked\nHINT: SELECT lifecycle.track(''crm.acts'');'),
    ($$SELECT lifecycle.behavior_falls_below('crm.leads', 1, NULL)$$, '22004: lead and value must not be null'),
    ($$SELECT lifecycle.behavior_falls_below('crm.leads', 1, 'NaN')$$, '22023: value must be a number'),
    ($$SELECT * FROM lifecycle.hottest('crm.leads', -1)$$, '22023: n must not be negative or null'),
    ($$SELECT * FROM lifecycle.hottest('crm.leads', NULL)$$, '22023: n must not be negative or null')
) AS c (statement, error);
CREATE ROLE score_reader;
GRANT USAGE ON SCHEMA crm TO score_reader;
SELECT is(failure(c.statement, 'score_reader'),
    E'42501: permission denied for table leads_behavior\nDETAIL: It has the behaviour scores of the leads of crm.leads.\nHINT: GRANT SELECT ON crm.leads_behavior TO score_reader;', c.statement)
FROM (VALUES ($$SELECT lifecycle.behavior_score('crm.leads', 1)$$), ($$SELECT lifecycle.behavior_falls_below('crm.leads', 1, 1)$$),
             ($$SELECT * FROM lifecycle.hottest('crm.leads')$$)) AS c (statement);
GRANT SELECT ON crm.leads_behavior TO score_reader;
SELECT is(failure($$SELECT lifecycle.behavior_score('crm.leads', 1), lifecycle.behavior_falls_below('crm.leads', 1, 1)$$, 'score_reader'), 'no error', 'the hint helps');
GRANT SELECT (id) ON crm.leads TO score_reader;
SELECT is(failure($$SELECT * FROM lifecycle.hottest('crm.leads')$$, 'score_reader'), 'no error', 'who is hottest needs the keys as well');

-- ---- hottest() ----

SELECT results_eq($$SELECT lead FROM lifecycle.hottest('crm.leads')$$, $$VALUES ('2'), ('3'), ('1')$$, 'the hottest first, and only leads that exist');
SELECT results_eq($$SELECT lead FROM lifecycle.hottest('crm.leads', 1)$$, $$VALUES ('2')$$, 'not more than asked for');
SELECT is_empty($$SELECT * FROM lifecycle.hottest('crm.leads', 0)$$, 'nor fewer');
DELETE FROM crm.leads WHERE id = 2;
SELECT results_eq($$SELECT lead FROM lifecycle.hottest('crm.leads')$$, $$VALUES ('3'), ('1')$$, 'who was removed is not hot');
SELECT is((SELECT behavior_score FROM lifecycle.hottest('crm.leads') WHERE lead = '3'), lifecycle.behavior_score('crm.leads', 3), 'with the score of now');

TRUNCATE crm.leads_behavior;
INSERT INTO crm.leads SELECT generate_series(10, 5000);
SELECT setseed(0.25);
INSERT INTO crm.leads_behavior (lead, half_life, points, at, heat)
SELECT r.lead, r.half_life, r.points, r.at, heat(r.points, r.at, r.half_life)
FROM (SELECT n AS lead, h AS half_life, random() * 100 - 20 AS points, now() - random() * interval '60 days' AS at
      FROM generate_series(1, 5500) AS n, unnest('{0, 7 days, 30 days}'::interval[]) AS h WHERE random() < 0.6) AS r;
ANALYZE crm.leads_behavior; ANALYZE crm.leads;
-- the same in the plainest way
CREATE FUNCTION plainly(n int) RETURNS TABLE (lead text, behavior_score numeric) LANGUAGE sql AS $$
    SELECT b.lead::text, round(sum(lifecycle.decayed(b.points, now() - b.at, nullif(b.half_life, '0')))::numeric, 6)
    FROM crm.leads_behavior b JOIN crm.leads l ON l.id = b.lead GROUP BY b.lead
    HAVING sum(lifecycle.decayed(b.points, now() - b.at, nullif(b.half_life, '0'))) > 0
    ORDER BY 2 DESC, b.lead LIMIT n $$;
SELECT results_eq(format($$SELECT lead, round(behavior_score::numeric, 6) FROM lifecycle.hottest('crm.leads', %s)$$, n), format('SELECT * FROM plainly(%s)', n), 'three half-lives, some points negative: the first ' || n)
FROM unnest('{1,10,100,4000,10000}'::int[]) AS n;
DELETE FROM crm.leads_behavior WHERE half_life <> '7 days';
SELECT results_eq(format($$SELECT lead, round(behavior_score::numeric, 6) FROM lifecycle.hottest('crm.leads', %s)$$, n), format('SELECT * FROM plainly(%s)', n), 'one half-life: the first ' || n)
FROM unnest('{1,100,10000}'::int[]) AS n;
-- nobody of the first has a positive total
TRUNCATE crm.leads_behavior;
INSERT INTO crm.leads_behavior (lead, half_life, points, at, heat) SELECT n, '0', n, now(), n FROM generate_series(1, 5000) AS n;
INSERT INTO crm.leads_behavior (lead, half_life, points, at) SELECT n, '1000 years', -1e9, now() FROM generate_series(13, 5000) AS n;
SELECT results_eq($$SELECT lead, round(behavior_score) FROM lifecycle.hottest('crm.leads', 2)$$, $$VALUES ('12', 12::float8), ('11', 11)$$,
                  'however many have more against them than for them');

SELECT replace(replace(replace(replace(top, '$1', quote_literal('{7 days,30 days}') || '::interval[]'), '$2', '10::bigint'), '$3', 'now()'), '$4', '10') AS top, half_lives
FROM lifecycle.hottest_statements('crm.leads') \gset
SET jit = off;
DELETE FROM crm.leads_behavior;
INSERT INTO crm.leads_behavior (lead, half_life, points, at, heat)
SELECT n, h, n, now(), heat(n, now(), h) FROM generate_series(1, 5000) AS n, unnest('{7 days,30 days}'::interval[]) AS h;
ANALYZE crm.leads_behavior;
CREATE TABLE top_plan AS SELECT plan(:'top') AS plan;
SELECT matches((SELECT plan FROM top_plan), E'Limit\n\\s+->  Nested Loop[^\n]*\n\\s+->  Index Scan using leads_behavior_half_life_heat_idx', 'hottest() reads the index');
SELECT doesnt_match((SELECT plan FROM top_plan), 'Sort[^-]*->  (Seq|Index|Bitmap)', 'and sorts no table');
SELECT doesnt_match((SELECT plan FROM top_plan), 'Seq Scan', 'nor reads one');
SELECT matches(plan(:'half_lives'), 'Index Only Scan using leads_behavior_half_life_heat_idx|Index Scan using leads_behavior_half_life_heat_idx', 'it finds the half-lives there, too');

SELECT * FROM finish();
