-- The funnel of olist.sql by import_history(): the same figures.
--
-- 8,000 leads of a marketplace are in a table before it is tracked; their first
-- contacts and 842 wins are imported by one query. The one deal that was won
-- before the lead's first contact is sorted before it: the lead enters as a
-- customer, and its first contact is a move back, of which import_history()
-- warns. So that it is refused as the live replay refuses it, the contacts are
-- imported first, the wins after them.
--
-- Skipped without the files (test/lib/olist.sql).

\ir ../lib/olist.sql
\if :olist_is_there
\else
    \quit
\endif

CREATE EXTENSION lifecycle;
SELECT plan(14);

COPY leads FROM :'leads_file' (FORMAT csv, HEADER);
CREATE VIEW file_wins AS
SELECT d.mql_id, coalesce(l.origin, '(none)') AS origin, d.won_date AT TIME ZONE 'UTC' AS won_at,
       l.first_contact_date::timestamp AT TIME ZONE 'UTC' AS contacted_at, d.sr_id
FROM deals d JOIN leads l USING (mql_id);

SELECT lifecycle.track('leads', source => $$ origin $$);
SELECT is_empty($$ SELECT * FROM lifecycle.import_history('leads', $q$
    SELECT mql_id AS lead, 'known' AS status, first_contact_date::timestamp AT TIME ZONE 'UTC' AS at FROM leads $q$) $$,
    '8,000 first contacts are imported');
CREATE TABLE report AS SELECT * FROM lifecycle.import_history('leads', $q$
    SELECT mql_id AS lead, 'customer' AS status, won_at AS at, sr_id AS actor FROM file_wins $q$);
SELECT is((SELECT count(*) FROM report), 1::bigint, 'of 842 wins one is reported');
SELECT results_eq($$ SELECT lead, status, at, problem, imported FROM report $$,
    $$ SELECT mql_id, 'customer', won_at, 'before the lead''s last move, at ' || contacted_at, false FROM file_wins WHERE won_at < contacted_at $$,
    'it is the one that came before the lead''s first contact, refused, with both times');
SELECT is((SELECT count(*) FROM leads_history WHERE to_status = 'customer'), 841::bigint, '841 are in the history');
SELECT bag_eq($$ SELECT lead, at, actor FROM leads_history WHERE to_status = 'customer' $$,
              $$ SELECT mql_id, won_at, sr_id FROM file_wins WHERE won_at >= contacted_at $$, 'each at its own time');
SELECT is((SELECT lifecycle_status::text FROM leads WHERE mql_id = (SELECT lead FROM report)), 'known', 'the lead of the other stayed what it was');
SELECT is_empty($$ SELECT * FROM leads l JOIN leads_history h ON h.lead = l.mql_id AND h.seq = l.lifecycle_seq
                   WHERE (l.lifecycle_status::text, l.lifecycle_since) IS DISTINCT FROM (h.to_status, h.at) $$, 'the leads followed');

SELECT bag_eq(
    $$ SELECT segment, reached FROM lifecycle.funnel('leads', by => 'source') WHERE status = 'customer' $$,
    $$ SELECT coalesce(l.origin, '(none)'), count(w.mql_id) FILTER (WHERE w.won_at >= w.contacted_at)
       FROM leads l LEFT JOIN file_wins w USING (mql_id) GROUP BY 1 $$,
    'funnel() by source has the wins of each origin, to the unit');
SELECT bag_eq(
    $$ SELECT segment, reached FROM lifecycle.funnel('leads', by => 'source') WHERE status = 'known' $$,
    $$ SELECT coalesce(origin, '(none)'), count(*) FROM leads GROUP BY 1 $$, 'and the leads of each origin');
SELECT results_eq(
    $$ SELECT status, reached, of_which_inferred FROM lifecycle.funnel('leads') WHERE rank IS NOT NULL ORDER BY rank $$,
    $$ VALUES ('known', 8000::bigint, 0::bigint), ('mal', 841, 841), ('engaged', 841, 841), ('mql', 841, 841), ('sal', 841, 841),
              ('sql', 841, 841), ('opportunity', 841, 841), ('customer', 841, 0) $$, 'in total 841 of 8,000 won');
CREATE TEMP TABLE flow AS
SELECT f.*
FROM (SELECT date_trunc('month', min(first_contact_date::timestamp AT TIME ZONE 'UTC'), 'UTC') AS since FROM leads) AS l,
     (SELECT date_trunc('month', max(won_at), 'UTC') + interval '1 month' AS until FROM file_wins) AS u,
     lifecycle.flow('leads', l.since, u.until, '1 month') AS f;
SELECT bag_eq(
    $$ SELECT bucket, inflow, inflow_again FROM flow WHERE status = 'customer' AND inflow > 0 $$,
    $$ SELECT date_trunc('month', won_at, 'UTC'), count(*), 0::bigint FROM file_wins WHERE won_at >= contacted_at GROUP BY 1 $$,
    'flow() has the wins of each month');
SELECT results_eq(
    $$ SELECT sum(inflow)::bigint, sum(outflow)::bigint,
              sum(closing) FILTER (WHERE bucket = (SELECT max(bucket) FROM flow))::bigint FROM flow $$,
    $$ VALUES (8841::bigint, 841::bigint, 8000::bigint) $$, '8,000 entries and 841 wins came in, 841 went out, 8,000 are there');
SELECT is_empty($$ SELECT * FROM lifecycle.verify('leads') $$, 'verify() finds nothing');
SELECT is((SELECT count(*) FROM lifecycle.import_history('leads', $q$ SELECT mql_id AS lead, 'customer' AS status, won_at AS at FROM file_wins $q$)
           WHERE NOT imported), 842::bigint, 'a second run imports nothing');
SELECT * FROM finish();
