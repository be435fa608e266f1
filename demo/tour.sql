-- What `make demo` prints. To be read in a terminal of 100 columns.

\pset pager off
\pset linestyle unicode
\pset border 1
\pset footer off
\pset null ''
SET client_min_messages = warning;

-- A bar of block characters: value out of whole, at most width wide.
CREATE FUNCTION pg_temp.bar(value numeric, whole numeric, width int) RETURNS text
    LANGUAGE sql IMMUTABLE
RETURN (SELECT repeat('█', e.eighths / 8)
               || CASE WHEN e.eighths % 8 > 0 THEN substr('▏▎▍▌▋▊▉', e.eighths % 8, 1) ELSE '' END
        FROM (SELECT ceil(8 * width * value / nullif(whole, 0))::int AS eighths) AS e);

-- How long, in words.
CREATE FUNCTION pg_temp.stay(stay interval) RETURNS text
    LANGUAGE sql IMMUTABLE
RETURN CASE WHEN stay IS NULL THEN ''
            WHEN stay < interval '1 hour' THEN format('%s min', (extract(epoch FROM stay) / 60)::int)
            WHEN stay < interval '2 days' THEN format('%s h', (extract(epoch FROM stay) / 3600)::int)
            ELSE format('%s days', (extract(epoch FROM stay) / 86400)::int) END;

\echo
\echo :bold'A small CRM, one year':plain
\echo
\echo '  crm.leads is an ordinary table. One call put it under a lifecycle:'
\echo
\echo '      SELECT lifecycle.track(\'crm.leads\', entered => \'created_at\', source => \'source\', ...);'
\echo
\echo '  Then 2025 happened: COPY, INSERT, UPDATE and DELETE on the tables of the CRM. Nothing else.'
\t on
\pset format unaligned
SELECT format(E'  %s leads came, %s moves were recorded, %s leads were deleted and are not forgotten.',
              to_char(count(*) FILTER (WHERE seq = 1), 'FM999,999'), to_char(count(*), 'FM999,999'),
              count(*) FILTER (WHERE to_status IS NULL))
FROM crm.leads_history;
\pset format aligned
\t off

\echo
\echo :bold'The funnel':plain'   SELECT * FROM lifecycle.funnel(\'crm.leads\');'
\echo
SELECT s.label AS "stage", f.reached AS "leads",
       CASE WHEN f.rank IS NULL THEN translate(f.bar, '█▏▎▍▌▋▊▉', '▒▒▒▒▒▒▒▒') ELSE f.bar END AS " ",
       to_char(100 * f.next_step_rate, '9999990%') AS "of previous", to_char(100 * f.cumulative_rate, '990.0%') AS " of all",
       CASE WHEN f.rank IS NOT NULL THEN f.of_which_inferred END AS "inferred"
FROM (SELECT f.*, pg_temp.bar(f.reached, max(f.reached) OVER (), 34) AS bar FROM lifecycle.funnel('crm.leads') f) AS f
JOIN lifecycle.stage s ON s.model = 'standard' AND s.status = f.status
ORDER BY f.rank, f.reached DESC;
\echo '  A lead that skipped a stage on its way further counts there, too: inferred says how many did.'
\echo '  Recycled, disqualified and lost are detours: a lead can be on one and come back.'

\echo
\echo :bold'Where customers come from':plain'   lifecycle.funnel(\'crm.leads\', by => \'source\')'
\echo
SELECT f.segment AS "source",
       max(f.reached) FILTER (WHERE f.status = 'known') AS "leads",
       max(f.reached) FILTER (WHERE f.status = 'mql') AS "MQL",
       max(f.reached) FILTER (WHERE f.status = 'sql') AS "SQL",
       max(f.reached) FILTER (WHERE f.status = 'opportunity') AS "opportunities",
       max(f.reached) FILTER (WHERE f.status = 'customer') AS "customers",
       round(100 * max(f.cumulative_rate::numeric) FILTER (WHERE f.status = 'customer'), 1) AS "per 100 leads",
       pg_temp.bar(max(f.cumulative_rate::numeric) FILTER (WHERE f.status = 'customer'), 0.2, 18) AS " "
FROM lifecycle.funnel('crm.leads', by => 'source') f
GROUP BY f.segment
ORDER BY max(f.cumulative_rate) FILTER (WHERE f.status = 'customer') DESC;

\echo :bold'Month by month':plain'   lifecycle.flow(\'crm.leads\', \'2025-01-01\', \'2026-01-01\', step => \'1 month\')'
\echo
\echo '      │              MQL              │         Opportunity          │           Customer'
SELECT to_char(m.bucket, 'Mon') AS "    ",
       m.opening, m.inflow AS "in", m.outflow AS "out", m.closing AS "closing",
       o.opening, o.inflow AS "in", o.outflow AS "out", o.closing AS "closing",
       c.opening, c.inflow AS "in", c.outflow AS "out", c.closing AS "closing"
FROM lifecycle.flow('crm.leads', '2025-01-01', '2026-01-01', step => '1 month') m
JOIN lifecycle.flow('crm.leads', '2025-01-01', '2026-01-01', step => '1 month') o USING (bucket)
JOIN lifecycle.flow('crm.leads', '2025-01-01', '2026-01-01', step => '1 month') c USING (bucket)
WHERE m.status = 'mql' AND o.status = 'opportunity' AND c.status = 'customer'
ORDER BY m.bucket;
\echo '  In every row closing = opening + in - out, and the next month opens where this one closed.'

-- The lead whose story is told: came back after it was lost, and became a customer.
SELECT h.lead AS hero
FROM crm.leads_history h JOIN crm.leads l ON l.id = h.lead
WHERE h.to_status = 'customer' AND l.lifecycle_status = 'customer' AND h.cycle >= 2 AND 'lost' = ANY (h.reached)
ORDER BY h.seq DESC, h.lead
LIMIT 1 \gset
SELECT format('%s %s, %s at %s', l.first_name, l.last_name, l.title, a.name) AS hero_name
FROM crm.leads l JOIN crm.accounts a ON a.id = l.account_id WHERE l.id = :hero \gset

\echo
\echo :bold'One lead':plain'   SELECT * FROM crm.leads_history WHERE lead = ':hero' ORDER BY seq;'
\echo
\echo '  ':hero_name
\echo
SELECT to_char(h.at, 'DD Mon HH24:MI') AS "when", coalesce(h.from_status, '') AS "from",
       h.to_status AS "to", pg_temp.stay(h.at - h.from_since) AS "had stayed", h.cycle,
       h.actor AS "by", h.reason
FROM crm.leads_history h
WHERE h.lead = :hero
ORDER BY h.seq;

\echo :bold'Points for what people do':plain'   rules on crm.leads and crm.activities, see demo/track.sql'
\echo
\echo '  Who they are gives points that stay; what they do, points that halve every 14 days. One more rule:'
\echo
\echo '      INSERT INTO lifecycle.rule (on_table, name, condition, status, only_from) VALUES'
\echo '          (\'crm.leads\', \'interested\', \'demographic_score >= 20 AND behavior_score >= 50\', \'mql\','
\echo '           \'{known,mal,engaged}\');'
\echo
INSERT INTO lifecycle.rule (on_table, name, condition, status, only_from) VALUES
    ('crm.leads', 'interested', 'demographic_score >= 20 AND behavior_score >= 50', 'mql', '{known,mal,engaged}');
\echo '  Another week: twelve leads read the prices, some of them often.'
\echo
INSERT INTO crm.activities (lead_id, kind, page, at)
SELECT l.id, CASE n % 3 WHEN 2 THEN 'mail' ELSE 'visit' END, '/pricing', now() - (6 - n) * interval '1 day'
FROM (SELECT l.id, row_number() OVER (ORDER BY l.id DESC) AS place
      FROM crm.leads l WHERE l.lifecycle_status = 'engaged' ORDER BY l.id DESC LIMIT 12) AS l,
     generate_series(1, 6) AS n
WHERE n > l.place % 5
ORDER BY l.id, n;
INSERT INTO crm.activities (lead_id, kind)
SELECT h.lead::int, 'webinar' FROM lifecycle.hottest('crm.leads', 2) h;
\echo '      SELECT * FROM lifecycle.hottest(\'crm.leads\', 5);'
\echo
SELECT h.lead, format('%s %s, %s', l.first_name, l.last_name, l.title) AS "who", l.demographic_score AS "who they are",
       round(h.behavior_score::numeric, 1) AS "what they do", l.lifecycle_status AS "status",
       round(extract(epoch FROM lifecycle.behavior_falls_below('crm.leads', h.lead, 25) - now()) / 86400) || ' days' AS "below 25 in"
FROM lifecycle.hottest('crm.leads', 5) h JOIN crm.leads l ON l.id = h.lead::int
ORDER BY round(h.behavior_score::numeric, 1) DESC, l.id;
SELECT h.lead AS risen FROM crm.leads_history h WHERE h.rule = 'interested' ORDER BY h.lead LIMIT 1 \gset
\echo '  A score needs no job to fade and no index to be updated. Why is lead ':risen' an MQL?'
\echo
\echo '      SELECT * FROM lifecycle.explain(\'crm.leads\', ':risen');'
\echo
SELECT e.kind, e.name, e.on_table AS "on", e.holds, round(e.points::numeric, 1) AS points, substring(e.detail FROM '\d+ signals?|by rule "[^"]*"') AS detail
FROM lifecycle.explain('crm.leads', :risen) e
WHERE e.kind IN ('status', 'score', 'rule');

\echo :bold'A move that the model does not know':plain
\echo
\echo '  A careless sync writes an old status over a customer:'
\echo
\echo '      UPDATE crm.leads SET lifecycle_status = \'mql\' WHERE id = ':hero';'
\echo
UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id = :hero;
\echo
\t on
\pset format unaligned
SELECT format('  Nothing was lost: the lead is still %s, since %s, and has its %s moves.',
              l.lifecycle_status, to_char(l.lifecycle_since, 'DD Mon HH24:MI'),
              (SELECT count(*) FROM crm.leads_history h WHERE h.lead = l.id))
FROM crm.leads l WHERE l.id = :hero;
\pset format aligned
\t off
\echo
\echo '  A sync that must not fail says so; its row is written, the status stays, the move is noted:'
\echo
\echo '      BEGIN; SET LOCAL lifecycle.on_illegal = \'keep\'; UPDATE ...; COMMIT;'
\echo '      SELECT * FROM crm.leads_refused;'
\echo
BEGIN;
SET LOCAL lifecycle.on_illegal = 'keep';
UPDATE crm.leads SET lifecycle_status = 'mql', updated_by = 'careless sync' WHERE id = :hero;
COMMIT;
SELECT lead, from_status, to_status, actor FROM crm.leads_refused;

\echo :bold'Deals and leads':plain'   a hook opens a deal, rules follow those that are won or lost, see demo/track.sql'
\echo
SELECT o.stage AS "deal", count(*) AS "deals", to_char(sum(o.amount), '999,999,990') AS "      amount"
FROM crm.opportunities o
GROUP BY o.stage
ORDER BY array_position('{open,won,lost}', o.stage);

\echo :bold'Is all of it true?':plain'   SELECT * FROM lifecycle.verify(\'crm.leads\');'
\echo
\pset footer on
SELECT * FROM lifecycle.verify('crm.leads');
\echo '  No rows: no gap, no overlap, no lead whose status is not its last move, no count that is off.'
\echo
\echo :bold'Try it yourself':plain'   make shell, then for example'
\echo
\! sed 's/^/  /' try.sql
\echo
