-- A real funnel gives the numbers that plain SQL over its files gives.
--
-- 8,000 leads of a marketplace come in by COPY, their 842 wins are replayed in
-- the order of time, each at its own lifecycle.at. funnel() by source and
-- flow() must then agree to the unit with what is computed here from the two
-- files alone; and the one deal that was won before the lead's first contact
-- must be refused, be reported, and harm nothing else.
--
-- Skipped without the files (test/lib/olist.sql).

\ir ../lib/olist.sql
\if :olist_is_there
\else
    \quit
\endif

CREATE EXTENSION lifecycle;
SELECT plan(23);

-- The same leads in a table that nobody tracks: what the files themselves say.
CREATE TABLE file_leads (LIKE leads);
COPY file_leads FROM :'leads_file' (FORMAT csv, HEADER);
CREATE VIEW file_wins AS
SELECT d.mql_id, coalesce(l.origin, '(none)') AS origin, d.won_date AT TIME ZONE 'UTC' AS won_at,
       l.first_contact_date::timestamp AT TIME ZONE 'UTC' AS contacted_at
FROM deals d JOIN file_leads l USING (mql_id);

-- ---- the leads come in ----

SELECT lifecycle.track('leads',
    entered => $$ first_contact_date::timestamp AT TIME ZONE 'UTC' $$,
    source  => $$ origin $$);
COPY leads (mql_id, first_contact_date, landing_page_id, origin) FROM :'leads_file' (FORMAT csv, HEADER);

SELECT is((SELECT count(*) FROM leads_history), 8000::bigint, 'COPY of 8,000 leads makes 8,000 moves');
SELECT is((SELECT count(*) FROM leads_history
           WHERE cause = 'entry' AND from_status IS NULL AND to_status = 'known' AND seq = 1 AND cycle = 1),
          8000::bigint, 'each of them is the entry of a lead on the first status');
SELECT is_empty(
    $$ SELECT h.lead, h.at
       FROM leads_history h JOIN file_leads f ON f.mql_id = h.lead
       WHERE h.at <> f.first_contact_date::timestamp AT TIME ZONE 'UTC' OR h.entered_at <> h.at $$,
    'every lead entered at midnight UTC of its first contact');
SELECT isnt((SELECT count(*) FROM file_leads WHERE origin IS NULL), 0::bigint,
            'some leads have no origin');
SELECT is((SELECT count(*) FROM file_leads WHERE origin = ''), 0::bigint,
          'and COPY reads an empty field as NULL, so none has an empty one');
SELECT bag_eq(
    $$ SELECT coalesce(origin, '(null)'), count(*) FROM file_leads GROUP BY 1 $$,
    $$ SELECT coalesce(source, '(null)'), count(*) FROM leads_history GROUP BY 1 $$,
    'the history has each lead''s origin as its source, NULL as NULL');

-- ---- the wins are replayed ----

CREATE TABLE refusals (mql_id text, state text, message text, detail text, hint text);
CREATE PROCEDURE replay_wins() LANGUAGE plpgsql AS $$
DECLARE
    win record;
    refusal refusals;
BEGIN
    FOR win IN SELECT mql_id, won_at FROM file_wins ORDER BY won_at, mql_id LOOP
        BEGIN
            PERFORM set_config('lifecycle.at', win.won_at::text, true);
            UPDATE leads SET lifecycle_status = 'customer' WHERE mql_id = win.mql_id;
        EXCEPTION WHEN invalid_parameter_value THEN
            refusal.mql_id := win.mql_id;
            GET STACKED DIAGNOSTICS
                refusal.state = RETURNED_SQLSTATE, refusal.message = MESSAGE_TEXT,
                refusal.detail = PG_EXCEPTION_DETAIL, refusal.hint = PG_EXCEPTION_HINT;
            INSERT INTO refusals VALUES (refusal.*);
        END;
    END LOOP;
END
$$;
CALL replay_wins();

SELECT is((SELECT count(*) FROM file_wins), 842::bigint, 'the files have 842 wins');
SELECT is((SELECT count(*) FROM leads_history WHERE to_status = 'customer'), 841::bigint, '841 of them are in the history');
SELECT set_eq($$ SELECT mql_id FROM refusals $$,
              $$ SELECT mql_id FROM file_wins WHERE won_at < contacted_at $$,
              'refused is the win that came before the lead''s first contact, and no other');
SELECT is((SELECT count(*) FROM refusals), 1::bigint, 'that is one');
SELECT is((SELECT state FROM refusals), '22023', 'its SQLSTATE is 22023');
SELECT is((SELECT message FROM refusals),
          (SELECT format('lead %s of table "public.leads" cannot move before its last move', mql_id)
           FROM file_wins WHERE won_at < contacted_at),
          'its message names the lead and the table');
SELECT is((SELECT detail FROM refusals),
          (SELECT format('"lifecycle.at" is %s, the last move was at %s.', won_at, contacted_at)
           FROM file_wins WHERE won_at < contacted_at),
          'its DETAIL gives both times');
SELECT is((SELECT hint FROM refusals), 'Replay the moves of a lead in the order in which they happened.',
          'its HINT says what to do');
SELECT is((SELECT lifecycle_status::text FROM leads WHERE mql_id = (SELECT mql_id FROM refusals)), 'known',
          'its lead stayed what it was');
SELECT bag_eq(
    $$ SELECT lead, at FROM leads_history WHERE to_status = 'customer' $$,
    $$ SELECT mql_id, won_at FROM file_wins WHERE won_at >= contacted_at $$,
    'every other win is in the history at its own time');

-- ---- the reports agree with the files ----

SELECT bag_eq(
    $$ SELECT segment, reached
       FROM lifecycle.funnel('leads', by => 'source') WHERE status = 'customer' $$,
    $$ SELECT coalesce(l.origin, '(none)'), count(w.mql_id) FILTER (WHERE w.won_at >= w.contacted_at)
       FROM file_leads l LEFT JOIN file_wins w USING (mql_id) GROUP BY 1 $$,
    'funnel() by source has the wins of each origin, to the unit');
SELECT bag_eq(
    $$ SELECT segment, reached
       FROM lifecycle.funnel('leads', by => 'source') WHERE status = 'known' $$,
    $$ SELECT coalesce(origin, '(none)'), count(*) FROM file_leads GROUP BY 1 $$,
    'and the leads of each origin');
SELECT results_eq(
    $$ SELECT status, reached, of_which_inferred, cumulative_rate
       FROM lifecycle.funnel('leads') WHERE rank IS NOT NULL ORDER BY rank $$,
    $$ VALUES ('known', 8000::bigint, 0::bigint, 1::double precision),
              ('mal', 841, 841, 841 / 8000::double precision), ('engaged', 841, 841, 841 / 8000::double precision),
              ('mql', 841, 841, 841 / 8000::double precision), ('sal', 841, 841, 841 / 8000::double precision),
              ('sql', 841, 841, 841 / 8000::double precision), ('opportunity', 841, 841, 841 / 8000::double precision),
              ('customer', 841, 0, 841 / 8000::double precision) $$,
    'in total 841 of 8,000 won, and the stages between are filled and said to be inferred');

-- From the first month to beyond the last, by calendar months of UTC.
CREATE TEMP TABLE flow AS
SELECT f.*
FROM (SELECT date_trunc('month', min(first_contact_date::timestamp AT TIME ZONE 'UTC'), 'UTC') AS since FROM file_leads) AS l,
     (SELECT date_trunc('month', max(won_at), 'UTC') + interval '1 month' AS until FROM file_wins) AS u,
     lifecycle.flow('leads', l.since, u.until, '1 month') AS f;
SELECT bag_eq(
    $$ SELECT bucket, inflow, inflow_again FROM flow WHERE status = 'customer' AND inflow > 0 $$,
    $$ SELECT date_trunc('month', won_at, 'UTC'), count(*), 0::bigint FROM file_wins WHERE won_at >= contacted_at GROUP BY 1 $$,
    'flow() has the wins of each month, all of them new');
SELECT is_empty(
    $$ SELECT * FROM (
           SELECT f.*, lag(closing, 1, 0::bigint) OVER (PARTITION BY status ORDER BY bucket) AS before FROM flow f
       ) AS f
       WHERE closing <> opening + inflow - outflow OR opening <> before OR inflow <> inflow_new + inflow_again $$,
    'every month begins with what the last one left: closing = opening + in - out');
SELECT results_eq(
    $$ SELECT sum(inflow)::bigint, sum(outflow)::bigint,
              sum(closing) FILTER (WHERE bucket = (SELECT max(bucket) FROM flow))::bigint FROM flow $$,
    $$ VALUES (8841::bigint, 841::bigint, 8000::bigint) $$,
    '8,000 entries and 841 wins came in, 841 went out, 8,000 are there');
SELECT is_empty($$ SELECT * FROM lifecycle.verify('leads') $$, 'verify() finds nothing');

SELECT * FROM finish();
