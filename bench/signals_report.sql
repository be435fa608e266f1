-- What bench/signals measured, as Markdown.  A ratio is taken between two
-- variants of the same round, and given as median (min..max) over the rounds.
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION bench.ratios(measure text, what text, variant text, reference text) RETURNS SETOF numeric
    LANGUAGE sql
AS $$
    SELECT (CASE what WHEN 'wal' THEN v.wal / r.wal WHEN 'cpu' THEN v.cpu / r.cpu ELSE v.seconds / r.seconds END)::numeric
    FROM bench.result v JOIN bench.result r USING (measure, round)
    WHERE v.measure = ratios.measure AND v.variant = ratios.variant AND r.variant = ratios.reference
$$;

CREATE FUNCTION bench.ratio(measure text, what text, variant text, reference text) RETURNS text
    LANGUAGE sql
AS $$
    SELECT format('%s (%s..%s)', round(percentile_cont(0.5) WITHIN GROUP (ORDER BY q)::numeric, 2), round(min(q), 2), round(max(q), 2))
    FROM bench.ratios(measure, what, variant, reference) AS q
    HAVING count(q) > 0
$$;

CREATE TEMP TABLE variant (place int, variant text, what text);
INSERT INTO variant VALUES
    (1, 'untracked', 'no extension: the activities only'),
    (2, 'untracked_too', 'the same, a second time: what differs is noise'),
    (3, 'lifecycle_points', 'lifecycle, no rule reads the score'),
    (4, 'lifecycle', 'lifecycle'),
    (5, 'narrow_statement', 'PL/pgSQL per statement, same layout'),
    (6, 'narrow_row', 'PL/pgSQL per row, same layout'),
    (7, 'wide_statement', 'PL/pgSQL per statement, score on the lead with an index'),
    (8, 'wide_row', 'PL/pgSQL per row, score on the lead with an index');

SELECT format(E'## %s activities in batches of %s, %s leads\n\n| variant | median s | time ÷ lifecycle | processor ÷ lifecycle | WAL, MB | WAL ÷ lifecycle |\n|---|---|---|---|---|---|\n%s\n',
              :activities, :batch, :leads,
              string_agg(format('| %s | %s | %s | %s | %s | %s |', v.what, round((m.seconds * :activities)::numeric, 2),
                                bench.ratio('batch', 'time', v.variant, 'lifecycle'), bench.ratio('batch', 'cpu', v.variant, 'lifecycle'), round((m.wal * :activities / 1e6)::numeric),
                                bench.ratio('batch', 'wal', v.variant, 'lifecycle')), E'\n' ORDER BY v.place))
FROM variant v
JOIN LATERAL (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY r.seconds) AS seconds, percentile_cont(0.5) WITHIN GROUP (ORDER BY r.wal) AS wal
              FROM bench.result r WHERE r.measure = 'batch' AND r.variant = v.variant) AS m ON m.seconds IS NOT NULL
HAVING count(*) > 0;

SELECT format(E'## Single rows of uniform leads, pgbench, 8 clients\n\n| variant | median µs each | rate ÷ no extension |\n|---|---|---|\n%s\n',
              string_agg(format('| %s | %s | %s |', v.what, round((m.seconds * 1e6)::numeric, 1),
                                bench.ratio('single', 'time', 'untracked', v.variant)), E'\n' ORDER BY v.place))
FROM variant v
JOIN LATERAL (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY r.seconds) AS seconds
              FROM bench.result r WHERE r.measure = 'single' AND r.variant = v.variant) AS m ON m.seconds IS NOT NULL
HAVING count(*) > 0;

-- What is claimed.  The ratio is met or not by its median.
SELECT E'## Against the targets\n\n| target | measured | |\n|---|---|---|\n'
    || string_agg(format('| %s | %s | %s |', t.what, r.shown, CASE WHEN r.met THEN 'met' ELSE 'missed' END), E'\n' ORDER BY t.place)
FROM (VALUES
    (1, 'at least 2.5 × as fast as PL/pgSQL per row on the same layout', 'batch', 'time', 'narrow_row', 'lifecycle', 2.5, NULL),
    (2, 'at least 4 × as fast as the score on the lead with an index, per row', 'batch', 'time', 'wide_row', 'lifecycle', 4, NULL),
    (3, 'at most 0.75 of its WAL', 'batch', 'wal', 'lifecycle', 'wide_row', NULL, 0.75),
    (4, 'single rows, 8 clients: at least 0.75 of the rate with no extension', 'single', 'time', 'untracked', 'lifecycle', 0.75, NULL)
) AS t (place, what, measure, quantity, variant, reference, least, most)
CROSS JOIN LATERAL (
    SELECT bench.ratio(t.measure, t.quantity, t.variant, t.reference) AS shown,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY q) >= coalesce(t.least, 0)
           AND percentile_cont(0.5) WITHIN GROUP (ORDER BY q) <= coalesce(t.most, 'infinity'::numeric) AS met
    FROM bench.ratios(t.measure, t.quantity, t.variant, t.reference) AS q
    HAVING count(*) > 0
) AS r
HAVING count(*) > 0;
