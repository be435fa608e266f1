-- What was measured, as Markdown.  A ratio is taken between two variants of
-- the same round, and given as median (min..max) over the rounds.
\pset format unaligned
\pset tuples_only on
\pset fieldsep ' '

CREATE FUNCTION bench.ratio(measure text, variant text, reference text) RETURNS text
    LANGUAGE sql
AS $$
    SELECT format('%s (%s..%s)', round(percentile_cont(0.5) WITHIN GROUP (ORDER BY q)::numeric, 2),
                  round(min(q)::numeric, 2), round(max(q)::numeric, 2))
    FROM (SELECT CASE WHEN ratio.measure LIKE 'single%' THEN r.seconds / v.seconds ELSE v.seconds / r.seconds END
          FROM bench.result v
          JOIN bench.result r USING (measure, round)
          WHERE v.measure = ratio.measure AND v.variant = ratio.variant AND r.variant = ratio.reference) AS s (q)
    HAVING count(*) > 0
$$;

-- The faster of the two PL/pgSQL variants, by median.
CREATE FUNCTION bench.best_plpgsql(measure text) RETURNS text
    LANGUAGE sql
AS $$
    SELECT r.variant FROM bench.result r
    WHERE r.measure = best_plpgsql.measure AND r.variant LIKE 'plpgsql%'
    GROUP BY r.variant ORDER BY percentile_cont(0.5) WITHIN GROUP (ORDER BY r.seconds) LIMIT 1
$$;

CREATE TEMP TABLE title (place int, measure text, title text, unit text, wal text);
INSERT INTO title VALUES
    (1, 'copy', format('COPY of %s leads', :leads), 's', 'MB'),
    (2, 'update_move', format('One UPDATE that moves %s of %s leads', :update_leads / 2, :update_leads), 's', 'MB'),
    (3, 'update_other', format('One UPDATE of another column of %s of %s leads', :update_leads / 2, :update_leads), 's', 'MB'),
    (4, 'loop_move', format('%s UPDATEs of one row in one transaction, each a move (processor only)', :loop_leads), 'µs each', 'bytes each'),
    (5, 'loop_other', format('%s UPDATEs of one row in one transaction, another column (processor only)', :loop_leads), 'µs each', 'bytes each'),
    (6, 'single_move', format('Single-row UPDATEs by 4 clients, each a move (%s leads, %s s a round)', :single_leads, :seconds), 'tps', 'bytes each'),
    (7, 'single_other', format('Single-row UPDATEs by 4 clients, another column (%s leads, %s s a round)', :single_leads, :seconds), 'tps', 'bytes each');

CREATE TEMP TABLE variant (place int, variant text, letter text, what text);
INSERT INTO variant VALUES
    (1, 'untracked', 'a', 'untracked'),
    (2, 'floor', 'b', 'floor: untracked and a set-based INSERT of the history'),
    (3, 'lifecycle', 'c', 'lifecycle'),
    (4, 'lifecycle_single', 'd', 'lifecycle, batching off'),
    (5, 'plpgsql_statement', 'e1', 'PL/pgSQL, history per statement'),
    (6, 'plpgsql_row', 'e2', 'PL/pgSQL, history per row'),
    (7, 'untracked_again', 'f', 'lifecycle, untracked again'),
    (8, 'disabled', 'g', 'lifecycle, triggers disabled');

SELECT format(E'## %s\n\n| variant | median %s | WAL %s | %s untracked | %s floor | %s best PL/pgSQL |\n|---|---|---|---|---|---|\n%s\n',
              t.title, t.unit, t.wal, x.word, x.word, x.word,
              string_agg(format('| %s %s | %s | %s | %s | %s | %s |', v.letter, v.what,
                                CASE t.unit WHEN 's' THEN round(m.seconds::numeric, 2)
                                            WHEN 'tps' THEN round((1 / m.seconds)::numeric)
                                            ELSE round((m.seconds * 1e6)::numeric, 2) END,
                                round((CASE t.wal WHEN 'MB' THEN m.wal / 1e6 ELSE m.wal END)::numeric),
                                bench.ratio(t.measure, v.variant, 'untracked'),
                                bench.ratio(t.measure, v.variant, 'floor'),
                                bench.ratio(t.measure, v.variant, bench.best_plpgsql(t.measure))),
                         E'\n' ORDER BY v.place))
FROM title t
CROSS JOIN LATERAL (SELECT CASE t.unit WHEN 'tps' THEN 'tps ÷' ELSE 'time ÷' END AS word) AS x
CROSS JOIN variant v
JOIN LATERAL (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY r.seconds) AS seconds,
                     percentile_cont(0.5) WITHIN GROUP (ORDER BY r.wal) AS wal
              FROM bench.result r WHERE r.measure = t.measure AND r.variant = v.variant) AS m ON m.seconds IS NOT NULL
GROUP BY t.place, t.title, t.unit, t.wal, x.word
ORDER BY t.place;

SELECT E'## Against the targets\n\n| target | measured |\n|---|---|\n'
    || format(E'| COPY with decision and history at most 1.6 × the floor | %s |\n', bench.ratio('copy', 'lifecycle', 'floor'))
    || format(E'| COPY at least 2 × as fast as the best PL/pgSQL (%s) | %s |\n', bench.best_plpgsql('copy'),
              bench.ratio('copy', bench.best_plpgsql('copy'), 'lifecycle'))
    || format(E'| single-row UPDATE of another column at 4 clients: at least 0.95 of the tps of untracked | %s |\n',
              bench.ratio('single_other', 'lifecycle', 'untracked'));
