-- What bench/reports measured, as Markdown.  A ratio is taken between two
-- measures of the same round, and given as median (min..max) over the rounds.
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION bench.ratios(measure text, moves bigint, name text, of_measure text, of_moves bigint, of_name text) RETURNS SETOF numeric
    LANGUAGE sql
AS $$
    SELECT (v.seconds / r.seconds)::numeric
    FROM bench.result v JOIN bench.result r USING (round)
    WHERE (v.measure, v.moves, v.name) = (ratios.measure, ratios.moves, ratios.name)
      AND (r.measure, r.moves, r.name) = (of_measure, of_moves, of_name)
$$;

CREATE FUNCTION bench.digits(r numeric) RETURNS numeric
    LANGUAGE sql
AS $$
    SELECT round(r, CASE WHEN r >= 100 THEN 0 WHEN r >= 10 THEN 1 ELSE 2 END)
$$;

CREATE FUNCTION bench.shown(q numeric[]) RETURNS text
    LANGUAGE sql
AS $$
    SELECT format('%s (%s..%s)', bench.digits(percentile_cont(0.5) WITHIN GROUP (ORDER BY r)::numeric), bench.digits(min(r)), bench.digits(max(r)))
    FROM unnest(q) AS r
    HAVING count(r) > 0
$$;

CREATE FUNCTION bench.median(measure text, moves bigint, name text) RETURNS numeric
    LANGUAGE sql
AS $$
    SELECT (percentile_cont(0.5) WITHIN GROUP (ORDER BY r.seconds))::numeric
    FROM bench.result r WHERE (r.measure, r.moves, r.name) = (median.measure, median.moves, median.name)
$$;

CREATE TEMP TABLE size AS
SELECT DISTINCT moves, dense_rank() OVER (ORDER BY moves) AS place FROM bench.result WHERE measure <> 'write' ORDER BY moves;
CREATE TEMP TABLE report AS
SELECT name, row_number() OVER (ORDER BY min(ctid)) AS place FROM bench.result WHERE measure = 'read' GROUP BY name;

SELECT format(E'## %s moves\n\n| report | median ms | ÷ leads_funnel | ÷ its time at %s | REFRESH ÷ it | with 10,000 rows not merged: median ms | ÷ leads_funnel |\n|---|---|---|---|---|---|---|\n%s\n',
              s.moves, f.moves,
              string_agg(format('| %s | %s | %s | %s | %s | %s | %s |', r.name, bench.digits(1000 * bench.median('read', s.moves, r.name)),
                                bench.shown(ARRAY(SELECT bench.ratios('read', s.moves, r.name, 'read', s.moves, 'leads_funnel'))),
                                bench.shown(ARRAY(SELECT bench.ratios('read', s.moves, r.name, 'read', f.moves, r.name))),
                                bench.digits(bench.median('read', s.moves, 'REFRESH over the history') / bench.median('read', s.moves, r.name)),
                                bench.digits(1000 * bench.median('tail', s.moves, r.name)),
                                bench.shown(ARRAY(SELECT bench.ratios('tail', s.moves, r.name, 'tail', s.moves, 'leads_funnel')))), E'\n' ORDER BY r.place))
FROM size s CROSS JOIN report r CROSS JOIN (SELECT min(moves) AS moves FROM size) AS f
GROUP BY s.moves, f.moves
ORDER BY s.moves;

SELECT format(E'## refresh()\n\n| moves | rows not merged | refresh() of them, ms | refresh() of nothing new, ms | REFRESH over the history, ms | REFRESH ÷ refresh() |\n|---|---|---|---|---|---|\n%s\n',
              string_agg(format('| %s | %s | %s | %s | %s | %s |', s.moves, round(bench.median('tail', s.moves, 'rows')),
                                bench.digits(1000 * bench.median('refresh', s.moves, 'refresh() after 10,000 moves')), bench.digits(1000 * bench.median('refresh', s.moves, 'refresh() of nothing new')),
                                bench.digits(1000 * bench.median('refresh', s.moves, 'REFRESH over the history')),
                                bench.shown(ARRAY(SELECT bench.ratios('refresh', s.moves, 'REFRESH over the history', 'refresh', s.moves, 'refresh() after 10,000 moves')))), E'\n' ORDER BY s.moves))
FROM size s WHERE EXISTS (SELECT FROM bench.result r WHERE r.measure = 'refresh')
HAVING count(*) > 0;

SELECT format(E'## One snapshot held over %s rounds of 2,000 moves and refresh(), %s moves; median ms\n\n| | before | held | held, the last quarter | after |\n|---|---|---|---|---|\n%s\n',
              :held_rounds, min(p.moves),
              string_agg(format('| %s | %s | %s | %s | %s |', p.name, p.before, p.held, p.held_long, p.after), E'\n' ORDER BY p.place))
FROM (SELECT r.name, r.moves, min(r.round) AS place,
             bench.digits(1000 * bench.median('before', r.moves, r.name)) AS before, bench.digits(1000 * bench.median('held', r.moves, r.name)) AS held,
             bench.digits(1000 * bench.median('held_long', r.moves, r.name)) AS held_long, bench.digits(1000 * bench.median('after', r.moves, r.name)) AS after
      FROM bench.result r WHERE r.measure = 'held' GROUP BY r.name, r.moves) AS p
HAVING count(*) > 0;

SELECT format(E'## Writers: single rows, pgbench, 8 clients\n\n| variant | median µs each | its rate ÷ that of lifecycle |\n|---|---|---|\n%s\n',
              string_agg(format('| %s | %s | %s |', v.what, bench.digits(1e6 * bench.median('write', :leads, v.name)),
                                bench.shown(ARRAY(SELECT bench.ratios('write', :leads, 'flow', 'write', :leads, v.name)))), E'\n' ORDER BY v.place))
FROM (VALUES (1, 'flow', 'lifecycle'), (2, 'history', 'lifecycle, history without flow'), (3, 'counters', 'PL/pgSQL: history, and two counters by status'),
             (4, 'untracked', 'untracked'), (5, 'untracked_too', 'untracked, a second time: what differs is noise')) AS v (place, name, what)
WHERE EXISTS (SELECT FROM bench.result r WHERE r.measure = 'write')
HAVING count(*) > 0;

-- What is claimed.  The ratio is met or not by its median.
SELECT E'## Against the targets\n\n| target | measured | |\n|---|---|---|\n'
    || string_agg(format('| %s | %s | %s |', t.what, bench.shown(t.q), CASE WHEN m.median >= coalesce(t.least, 0) AND m.median <= coalesce(t.most, 'infinity') THEN 'met' ELSE 'missed' END), E'\n' ORDER BY t.place, t.moves, t.what)
FROM (
    SELECT 1 AS place, s.moves, format('%s at %s moves: at most 5 × leads_funnel', c.name, s.moves) AS what,
           ARRAY(SELECT bench.ratios('read', s.moves, c.name, 'read', s.moves, 'leads_funnel')) AS q, NULL::numeric AS least, 5 AS most
    FROM size s CROSS JOIN (VALUES ('funnel()'), ('flow() by month, 24 months'), ('conversion(), two years')) AS c (name)
    UNION ALL
    SELECT 2, l.moves, format('%s at %s moves: at most 1.5 × its time at %s', c.name, l.moves, f.moves),
           ARRAY(SELECT bench.ratios('read', l.moves, c.name, 'read', f.moves, c.name)), NULL, 1.5
    FROM (SELECT min(moves) AS moves FROM size) AS f, (SELECT max(moves) AS moves FROM size) AS l, (VALUES ('funnel()'), ('flow() by month, 24 months'), ('conversion(), two years')) AS c (name)
    WHERE l.moves > f.moves
    UNION ALL
    SELECT 3, l.moves, format('%s at %s moves: at least 300 × faster than REFRESH', c.name, l.moves),
           ARRAY(SELECT bench.ratios('read', l.moves, 'REFRESH over the history', 'read', l.moves, c.name)), 300, NULL
    FROM (SELECT max(moves) AS moves FROM size) AS l, (VALUES ('funnel()'), ('flow() by month, 24 months'), ('conversion(), two years')) AS c (name)
    UNION ALL
    SELECT 4, l.moves, format('refresh() after 10,000 moves, at %s: at least 30 × faster than REFRESH', l.moves),
           ARRAY(SELECT bench.ratios('refresh', l.moves, 'REFRESH over the history', 'refresh', l.moves, 'refresh() after 10,000 moves')), 30, NULL
    FROM (SELECT max(moves) AS moves FROM size) AS l
    UNION ALL
    SELECT 5, 0, 'writers: at least 0.85 of the rate without flow', ARRAY(SELECT bench.ratios('write', :leads, 'history', 'write', :leads, 'flow')), 0.85, NULL
    UNION ALL
    SELECT 6, 0, 'writers: at least 2 × the rate with counters', ARRAY(SELECT bench.ratios('write', :leads, 'counters', 'write', :leads, 'flow')), 2, NULL
) AS t
CROSS JOIN LATERAL (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY r)::numeric AS median FROM unnest(t.q) AS r) AS m
WHERE m.median IS NOT NULL;
