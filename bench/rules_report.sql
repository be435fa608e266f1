-- What bench/rules measured, as Markdown.  A ratio is taken between two
-- variants of the same round, and given as median (min..max) over the rounds.
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION bench.ratios(measure text, variant text, reference text) RETURNS SETOF numeric
    LANGUAGE sql
AS $$
    SELECT (v.seconds / r.seconds)::numeric
    FROM bench.result v JOIN bench.result r USING (measure, round)
    WHERE v.measure = ratios.measure AND v.variant = ratios.variant AND r.variant = ratios.reference
$$;

CREATE FUNCTION bench.ratio(measure text, variant text, reference text) RETURNS text
    LANGUAGE sql
AS $$
    SELECT format('%s (%s..%s)', round(percentile_cont(0.5) WITHIN GROUP (ORDER BY q)::numeric, 2), round(min(q), 2), round(max(q), 2))
    FROM bench.ratios(measure, variant, reference) AS q
    HAVING count(*) > 0
$$;

-- (b): the fastest that PL/pgSQL can do, by median.
CREATE FUNCTION bench.best_plpgsql() RETURNS text
    LANGUAGE sql
AS $$
    SELECT r.variant FROM bench.result r
    WHERE r.measure = 'copy' AND r.variant LIKE 'plpgsql%'
    GROUP BY r.variant ORDER BY percentile_cont(0.5) WITHIN GROUP (ORDER BY r.seconds) LIMIT 1
$$;

CREATE TEMP TABLE title (place int, measure text, title text, unit text, reference text, versus text);
INSERT INTO title VALUES
    (1, 'copy', format('COPY of %s leads', :leads), 's', 'floor', 'time ÷ floor'),
    (2, 'execute', format('COPY of %s leads, against rules that are EXECUTEd', :loop_leads), 'µs a lead', 'lifecycle', 'time ÷ lifecycle'),
    (3, 'update', format('%s UPDATEs of one row in one transaction, of a column that no rule reads (processor only)', :single_leads), 'µs each', 'untracked', 'time ÷ untracked'),
    (4, 'single', format('The same by 4 clients of pgbench, each UPDATE a transaction (%s leads, %s s a round)', :single_leads, :seconds), 'µs each', 'untracked', 'time ÷ untracked'),
    (5, 'instructions', 'Instructions of one such transaction', 'instructions', 'untracked', '÷ untracked');

CREATE TEMP TABLE variant (place int, variant text, what text);
INSERT INTO variant VALUES
    (1, 'untracked', 'untracked: no decision, no history'),
    (2, 'untracked_too', 'untracked, a second time: what differs is noise'),
    (3, 'generated', 'd GENERATED column: the score only'),
    (4, 'floor', 'a floor: untracked, and one INSERT of the same history, decided before'),
    (5, 'no_rules', 'lifecycle without rules'),
    (6, 'lifecycle', 'lifecycle with 20 rules'),
    (7, 'plpgsql_expression', 'b PL/pgSQL, one expression for the score, history per statement'),
    (8, 'plpgsql_statement', 'b PL/pgSQL, IF per rule, history per statement'),
    (9, 'plpgsql_row', 'b PL/pgSQL, IF per rule, history per row'),
    (10, 'plpgsql_execute', 'c PL/pgSQL, loop over a table of rules with EXECUTE'),
    (11, 'plpgsql_execute_fields', 'the same, the columns rewritten as fields of a parameter');

SELECT format(E'## %s\n\n| variant | median %s | %s |%s\n|---|---|---|%s\n%s\n', t.title, t.unit, t.versus,
              CASE t.measure WHEN 'copy' THEN ' time ÷ lifecycle |' ELSE '' END, CASE t.measure WHEN 'copy' THEN '---|' ELSE '' END,
              string_agg(format('| %s | %s | %s |', v.what,
                                CASE t.unit WHEN 's' THEN round((m.seconds * :leads)::numeric, 2)
                                            WHEN 'instructions' THEN round(m.seconds::numeric)
                                            ELSE round((m.seconds * 1e6)::numeric, 2) END,
                                bench.ratio(t.measure, v.variant, t.reference))
                         || CASE t.measure WHEN 'copy' THEN format(' %s |', bench.ratio(t.measure, v.variant, 'lifecycle')) ELSE '' END,
                         E'\n' ORDER BY v.place))
FROM title t
CROSS JOIN variant v
JOIN LATERAL (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY r.seconds) AS seconds
              FROM bench.result r WHERE r.measure = t.measure AND r.variant = v.variant) AS m ON m.seconds IS NOT NULL
GROUP BY t.place, t.measure, t.title, t.unit, t.versus
ORDER BY t.place;

SELECT format(E'- b is "%s".', (SELECT v.what FROM variant v WHERE v.variant = bench.best_plpgsql()))
WHERE bench.best_plpgsql() IS NOT NULL;
SELECT '- Where the brackets of a ratio to "untracked, a second time" do not hold 1 tightly, the machine was too busy to say more.'
WHERE EXISTS (SELECT FROM bench.result r WHERE r.variant = 'untracked_too');

-- What is claimed.  The ratio is met or not by its median.
SELECT E'\n## Against the targets\n\n| target | measured | |\n|---|---|---|\n'
    || string_agg(format('| %s | %s | %s |', t.what, r.shown, CASE WHEN r.met THEN 'met' ELSE 'missed' END), E'\n' ORDER BY t.place)
FROM (VALUES
    (1, 'COPY with 20 rules and history: at most 1.6 × the floor (a)', 'copy', 'lifecycle', 'floor', NULL, 1.6),
    (2, 'at least 2 × as fast as PL/pgSQL (b)', 'copy', bench.best_plpgsql(), 'lifecycle', 2, NULL),
    (3, 'at least 15 × as fast as rules that are EXECUTEd (c)', 'execute', 'plpgsql_execute', 'lifecycle', 15, NULL),
    (4, 'single-row UPDATE of a column that no rule reads, 4 clients: at least 0.95 of the tps of untracked', 'single', 'untracked', 'lifecycle', 0.95, NULL)
) AS t (place, what, measure, variant, reference, least, most)
CROSS JOIN LATERAL (
    SELECT bench.ratio(t.measure, t.variant, t.reference) AS shown,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY q) >= coalesce(t.least, 0)
           AND percentile_cont(0.5) WITHIN GROUP (ORDER BY q) <= coalesce(t.most, 'infinity'::numeric) AS met
    FROM bench.ratios(t.measure, t.variant, t.reference) AS q
    HAVING count(*) > 0
) AS r
HAVING count(*) > 0;
