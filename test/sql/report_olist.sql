-- The reports over the funnel of a real marketplace: the figures that its files
-- give, by origin, by the month of the first contact, and in days to the win.
-- How the leads and wins come in, and what is refused, is olist.sql's.
--
-- Skipped without the files (test/lib/olist.sql).

\ir ../lib/olist.sql
\if :olist_is_there
\else
    \quit
\endif

CREATE EXTENSION lifecycle;
SELECT plan(16);
\ir ../lib/reports.sql

COPY leads FROM :'leads_file' (FORMAT csv, HEADER);
CREATE VIEW file_wins AS
SELECT d.mql_id, d.won_date AT TIME ZONE 'UTC' AS won_at, l.first_contact_date::timestamp AT TIME ZONE 'UTC' AS contacted_at
FROM deals d JOIN leads l USING (mql_id);
SELECT lifecycle.track('leads', source => 'origin');
SELECT is_empty($$ SELECT * FROM lifecycle.import_history('leads', $q$
    SELECT mql_id AS lead, 'known' AS status, first_contact_date::timestamp AT TIME ZONE 'UTC' AS at FROM leads $q$) $$,
    'the first contacts are imported');
SELECT is((SELECT count(*) FROM lifecycle.import_history('leads', $q$ SELECT mql_id AS lead, 'customer' AS status, won_at AS at FROM file_wins $q$)), 1::bigint,
    'so are the wins; the one that came before the first contact is refused');
SELECT lifecycle.refresh('leads');

-- ---- by origin ----

-- The publisher's counts; one of the wins came before the first contact.
CREATE TABLE origins (origin text, leads bigint, won bigint);
INSERT INTO origins VALUES ('organic_search', 2296, 271), ('paid_search', 1586, 195), ('social', 1350, 75), ('unknown', 1099, 179), ('direct_traffic', 499, 56),
    ('email', 493, 15), ('referral', 284, 24), ('other', 150, 4), ('display', 118, 6), ('other_publicities', 65, 3), ('(none)', 60, 14);
CREATE VIEW early AS SELECT coalesce(l.origin, '(none)') AS origin FROM file_wins w JOIN leads l USING (mql_id) WHERE w.won_at < w.contacted_at;
SELECT bag_eq($$ SELECT k.segment, k.reached, c.reached AS won, round(c.cumulative_rate::numeric, 12)
                 FROM lifecycle.funnel('leads', by => 'source') k JOIN lifecycle.funnel('leads', by => 'source') c USING (segment)
                 WHERE k.status = 'known' AND c.status = 'customer' $$,
              $$ SELECT origin, leads, won - (SELECT count(*) FROM early e WHERE e.origin = o.origin) AS won,
                        round((won - (SELECT count(*) FROM early e WHERE e.origin = o.origin))::numeric / leads, 12) FROM origins o $$,
              'leads and wins of each origin, and their share');
SELECT bag_eq(format('SELECT segment, status, rank, reached, of_which_inferred, round(next_step_rate::numeric, 9) AS next, round(cumulative_rate::numeric, 9) AS cumulative
                      FROM lifecycle.funnel(''leads'', mode => %L, by => ''source'')', mode),
              format('SELECT segment, status, rank, reached, of_which_inferred, round(next_step_rate::numeric, 9) AS next, round(cumulative_rate::numeric, 9) AS cumulative
                      FROM naive.funnel(''leads_history'', ''standard'', mode => %L, by => ''source'')', mode), 'every stage of every origin, as the second opinion has it: ' || mode)
FROM (VALUES ('filled'), ('any'), ('ordered')) AS m (mode);
SELECT is((SELECT round(cumulative_rate::numeric, 6) FROM lifecycle.funnel('leads') WHERE status = 'customer'), 0.105125, '841 of 8,000 are 10.5125 %');

-- ---- days to the win ----

-- Only who won left "known"; the rest is still there, long after.
CREATE TABLE times AS SELECT * FROM lifecycle.time_in_status('leads', '-infinity', 'infinity', '2019-12-31');
CREATE FUNCTION days(t interval) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN round(extract(epoch FROM t) / 86400, 4);
SELECT results_eq($$ SELECT completed, inside, days(mean), days(p50), km_median FROM times WHERE status = 'known' $$,
                  $$ VALUES (841::bigint, 7159::bigint, 49.1606, 14.7222, NULL::interval) $$, 'time to won: median 14.7222 days, mean 49.1606; most never win, so the median of all is not reached');
SELECT results_eq($$ SELECT days(p75), days(p90) FROM times WHERE status = 'known' $$,
                  $$ SELECT days(percentile_cont(0.75) WITHIN GROUP (ORDER BY won_at - contacted_at)), days(percentile_cont(0.9) WITHIN GROUP (ORDER BY won_at - contacted_at))
                     FROM file_wins WHERE won_at >= contacted_at $$, 'three quarters and nine tenths, as the files say');
SELECT results_eq($$ SELECT completed, inside FROM times WHERE status = 'customer' $$, $$ VALUES (0::bigint, 841::bigint) $$, 'a customer stays one');
SELECT results_eq($$ SELECT n, converted, matured, round(rate::numeric, 6), matured_rate, round(km_rate::numeric, 6)
                     FROM lifecycle.entry_conversion('leads', 'known', 'customer', '-infinity', 'infinity', as_of => '2019-12-31') $$,
                  $$ VALUES (8000::bigint, 841::bigint, NULL::bigint, 0.105125, NULL::float8, round(1 - (SELECT over / under FROM (
                         SELECT s.over, s.under FROM naive.survival((SELECT array_agg(coalesce(w.won_at, '2019-12-31') - l.first_contact_date::timestamp AT TIME ZONE 'UTC' ORDER BY l.mql_id)
                                                                     FROM leads l LEFT JOIN file_wins w ON w.mql_id = l.mql_id AND w.won_at >= w.contacted_at),
                                                                    (SELECT array_agg(w.mql_id IS NOT NULL ORDER BY l.mql_id)
                                                                     FROM leads l LEFT JOIN file_wins w ON w.mql_id = l.mql_id AND w.won_at >= w.contacted_at), NULL) AS s
                         ORDER BY s.t DESC LIMIT 1) AS s), 6)) $$, 'conversion from the first contact to the win');
SELECT results_eq($$ SELECT n, converted, matured, matured_rate FROM lifecycle.entry_conversion('leads', 'known', 'customer', '-infinity', 'infinity', '30 days', '2018-06-01') $$,
                  $$ SELECT count(*), count(*) FILTER (WHERE fast), count(*) FILTER (WHERE matured), count(*) FILTER (WHERE fast AND matured)::float8 / count(*) FILTER (WHERE matured)
                     FROM (SELECT w.won_at - w.contacted_at <= interval '30 days' AND w.won_at >= w.contacted_at AND w.won_at <= '2018-06-01' AS fast,
                                  timestamptz '2018-06-01' - l.first_contact_date::timestamp AT TIME ZONE 'UTC' >= interval '30 days' AS matured
                           FROM leads l LEFT JOIN file_wins w USING (mql_id) WHERE l.first_contact_date::timestamp AT TIME ZONE 'UTC' <= '2018-06-01') AS l $$,
                  'who won within a month, seen on 1 June 2018');
SELECT results_eq($$ SELECT from_status, to_status, moves, period_rate, exit_share FROM lifecycle.conversion('leads', '2018-01-01', '2018-02-01') $$,
                  $$ SELECT 'known', 'customer', w.n, w.n / l.n::float8, 1::float8
                     FROM (SELECT count(*) AS n FROM file_wins WHERE won_at >= '2018-01-01' AND won_at < '2018-02-01' AND won_at >= contacted_at) AS w,
                          (SELECT count(*) AS n FROM leads WHERE first_contact_date BETWEEN '2018-01-01' AND '2018-01-31') AS l $$,
                  'conversion in January: its wins over its first contacts');

-- ---- by the month of the first contact ----

SELECT results_eq($$ SELECT m.month, k.reached, c.reached, c.cumulative_rate
                     FROM (SELECT DISTINCT date_trunc('month', first_contact_date::timestamp AT TIME ZONE 'UTC', 'UTC') AS month FROM leads) AS m,
                          LATERAL (SELECT * FROM lifecycle.funnel('leads', m.month, m.month + interval '1 month')) AS k,
                          LATERAL (SELECT * FROM lifecycle.funnel('leads', m.month, m.month + interval '1 month')) AS c
                     WHERE k.status = 'known' AND c.status = 'customer' ORDER BY m.month $$,
                  $$ SELECT date_trunc('month', l.first_contact_date::timestamp AT TIME ZONE 'UTC', 'UTC'), count(*), count(w.mql_id), count(w.mql_id)::float8 / count(*)
                     FROM leads l LEFT JOIN file_wins w ON w.mql_id = l.mql_id AND w.won_at >= w.contacted_at GROUP BY 1 ORDER BY 1 $$,
                  'each month''s leads, and how many of them won');
SELECT is((SELECT sum(c.reached) FROM generate_series(timestamptz '2017-06-01', '2018-05-01', interval '1 month') AS m, LATERAL lifecycle.funnel('leads', m, m + interval '1 month') AS c WHERE c.status = 'customer'),
          841::numeric, 'together all that won');
SELECT is_empty($$ SELECT * FROM lifecycle.verify('leads') $$, 'verify() finds nothing');

SELECT * FROM finish();
