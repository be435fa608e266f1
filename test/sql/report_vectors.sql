-- The vectors of the definitions, to the number: six leads that live in January
-- 2026, and what each report says of them; balances, conversion by entry, times
-- in a status, mistakes. The reports say it, and the second opinion on them
-- (test/lib/reports.sql) says it, too.

CREATE EXTENSION lifecycle;
SELECT no_plan();

\ir ../lib/replay.sql
\ir ../lib/reports.sql

-- Who is asked, and the call of a report that asks him.
CREATE TABLE asked (who text);
INSERT INTO asked VALUES ('lifecycle'), ('naive');
CREATE FUNCTION report(who text, report text, arguments text DEFAULT '', leads text DEFAULT 'leads') RETURNS text LANGUAGE sql STABLE AS $$
    SELECT format('%I.%I(%s%s)', who, report,
                  CASE who WHEN 'naive' THEN format('%L, %L', p.history, p.model) ELSE quote_literal(leads) END, ', ' || nullif(arguments, ''))
    FROM lifecycle.program p WHERE p.lead_table = leads::regclass
$$;

CREATE TABLE leads (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('leads', model => 'etumos', source => 'origin', cohort => $$ nullif(ascii(right(id, 1)) % 3, 2) $$);
SELECT replay('leads', '
L1 mal 2026-01-01 web
L1 mql 2026-01-03
L1 sal 2026-01-04
L1 sql 2026-01-06
L1 customer 2026-01-20
L2 mal 2026-01-01 web
L2 sql 2026-01-05
L2 lost 2026-01-15
L2 sql 2026-01-18
L2 customer 2026-01-25
L3 mql 2026-01-02
L3 sal 2026-01-03
L3 recycled 2026-01-06
L3 mql 2026-01-16
L3 sal 2026-01-17
L4 mal 2026-01-02 ''''
L4 disqualified 2026-01-03
L4 - 2026-01-13
L5 sql 2026-01-04 fair
L5 customer 2026-01-10
L6 mal 2026-01-05
L6 mql 2026-01-09
L6 recycled 2026-01-12
L6 disqualified 2026-01-14');
SELECT is((SELECT count(*) FROM leads_history), 24::bigint, 'the six leads made 24 moves');
SELECT results_eq('SELECT lead, count(*), max(cycle) FROM leads_history GROUP BY lead ORDER BY lead',
    $$VALUES ('L1', 5::bigint, 1), ('L2', 5, 2), ('L3', 5, 2), ('L4', 3, 1), ('L5', 2, 1), ('L6', 4, 1)$$, 'in eight cycles');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');

-- ---- funnel: numbers of the path, inferred ones, and rates to four decimals ----

CREATE FUNCTION row_of(who text, what text, mode text, cycle text, leads text DEFAULT 'leads') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    EXECUTE format($q$
        SELECT string_agg(CASE %L WHEN 'reached' THEN reached::text WHEN 'inferred' THEN of_which_inferred::text
                                  WHEN 'next' THEN coalesce(round(next_step_rate::numeric, 4)::text, '-')
                                  ELSE coalesce(round(cumulative_rate::numeric, 4)::text, '-') END, ' ' ORDER BY rank)
        FROM %s WHERE rank IS NOT NULL $q$, what, report(who, 'funnel', format('mode => %L, cycle => %L', mode, cycle), leads)) INTO line;
    RETURN line;
END $$;
SELECT is(row_of(who, 'reached', mode, cycle), expected, format('%s: funnel %s, %s', who, mode, cycle))
FROM asked, (VALUES ('ever', 'ordered', '4 2 1 1 1'), ('ever', 'any', '4 3 2 3 3'), ('ever', 'filled', '6 5 4 3 3'),
             ('first', 'ordered', '4 2 1 1 1'), ('first', 'any', '4 3 2 3 2'), ('first', 'filled', '6 5 4 3 2'),
             ('every', 'ordered', '4 2 1 1 1'), ('every', 'any', '4 4 3 4 3'), ('every', 'filled', '8 7 6 4 3')) AS v (cycle, mode, expected);
SELECT is(row_of(who, 'inferred', 'filled', cycle), expected, format('%s: inferred, %s', who, cycle))
FROM asked, (VALUES ('ever', '2 2 2 0 0'), ('first', '2 2 2 0 0'), ('every', '4 3 3 0 0')) AS v (cycle, expected);
SELECT is(row_of(who, 'inferred', mode, cycle), '0 0 0 0 0', format('%s: nothing is inferred in mode %s, %s', who, mode, cycle))
FROM asked, (VALUES ('any'), ('ordered')) AS m (mode) CROSS JOIN (VALUES ('ever'), ('first'), ('every')) AS c (cycle);
SELECT is(row_of(who, 'next', 'filled', cycle), expected, format('%s: next step rates, %s', who, cycle))
FROM asked, (VALUES ('ever', '- 0.8333 0.8000 0.7500 1.0000'), ('first', '- 0.8333 0.8000 0.7500 0.6667'),
             ('every', '- 0.8750 0.8571 0.6667 0.7500')) AS v (cycle, expected);
SELECT is(row_of(who, 'cumulative', 'filled', cycle), expected, format('%s: cumulative rates, %s', who, cycle))
FROM asked, (VALUES ('ever', '1.0000 0.8333 0.6667 0.5000 0.5000'), ('first', '1.0000 0.8333 0.6667 0.5000 0.3333'),
             ('every', '1.0000 0.8750 0.7500 0.5000 0.3750')) AS v (cycle, expected);
SELECT results_eq('SELECT status, rank, reached, of_which_inferred, next_step_rate, cumulative_rate FROM ' || report(who, 'funnel', format('mode => %L', mode)) || ' WHERE rank IS NULL',
    $$VALUES ('disqualified', NULL::int, 2::bigint, 0::bigint, NULL::float8, NULL::float8), ('lost', NULL, 1, 0, NULL, NULL), ('recycled', NULL, 2, 0, NULL, NULL)$$,
    format('%s: detours are counted as visited, without rank and rates: %s', who, mode))
FROM asked, (VALUES ('filled'), ('any'), ('ordered')) AS m (mode);
SELECT results_eq('SELECT segment, status, rank FROM ' || report(who, 'funnel'),
    $$VALUES (NULL, 'mal', 1), (NULL, 'mql', 2), (NULL, 'sal', 3), (NULL, 'sql', 4), (NULL, 'customer', 5), (NULL, 'disqualified', NULL), (NULL, 'lost', NULL), (NULL, 'recycled', NULL)$$,
    who || ': the total is one segment, named NULL, path first')
FROM asked;

-- Segments: the source and cohort at the first entry
SELECT results_eq(format($$SELECT segment, string_agg(reached::text, ' ' ORDER BY rank) FROM %s WHERE rank IS NOT NULL GROUP BY segment ORDER BY segment COLLATE "C"$$, report(who, 'funnel', 'by => ''source''')),
    $$VALUES ('', '1 0 0 0 0'), ('(none)', '2 2 1 0 0'), ('fair', '1 1 1 1 1'), ('web', '2 2 2 2 2')$$, who || ': by source: NULL is (none), an empty text is itself')
FROM asked;
SELECT results_eq(format($$SELECT segment, count(*) FROM %s GROUP BY segment ORDER BY segment COLLATE "C"$$, report(who, 'funnel', 'by => ''source''')),
    $$VALUES ('', 8::bigint), ('(none)', 8), ('fair', 8), ('web', 8)$$, who || ': every stage has a row in every segment')
FROM asked;
SELECT results_eq(format($$SELECT segment, max(reached) FROM %s GROUP BY segment ORDER BY segment COLLATE "C"$$, report(who, 'funnel', 'by => ''cohort''')),
    $$SELECT coalesce(cohort::text, '(none)'), count(DISTINCT lead) FROM leads_history GROUP BY 1 ORDER BY coalesce(cohort::text, '(none)') COLLATE "C"$$, who || ': by cohort')
FROM asked;
SELECT ok((SELECT count(*) = 1 FROM lifecycle.funnel('leads', by => 'cohort') WHERE segment = '(none)' AND status = 'mal'), 'a lead without a cohort is in (none)');

-- since and until test the first entry, or the start of the cycle
SELECT is((SELECT string_agg(f.reached::text, ' ' ORDER BY rank) FROM lifecycle.funnel('leads', '2026-01-05', '2026-02-01', cycle => cycle) f WHERE rank IS NOT NULL), expected,
    'from 5 January: L6 entered; cycles begin for L2 and L3, too: ' || cycle)
FROM (VALUES ('ever', '1 1 0 0 0'), ('first', '1 1 0 0 0'), ('every', '3 3 2 1 1')) AS c (cycle, expected);
SELECT is((SELECT string_agg(f.reached::text, ' ' ORDER BY rank) FROM naive.funnel('leads_history', 'etumos', '2026-01-05', '2026-02-01', cycle => cycle) f WHERE rank IS NOT NULL), expected,
    'the second opinion from 5 January: ' || cycle)
FROM (VALUES ('ever', '1 1 0 0 0'), ('first', '1 1 0 0 0'), ('every', '3 3 2 1 1')) AS c (cycle, expected);
SELECT is((SELECT max(reached) FROM lifecycle.funnel('leads', '2026-01-02', '2026-01-04')), 2::bigint, 'since is inside, until is not');
SELECT is((SELECT sum(reached) FROM lifecycle.funnel('leads', '2027-01-01')), 0::numeric, 'nobody: every stage has a row, with zero');
SELECT ok((SELECT bool_and(next_step_rate IS NULL AND cumulative_rate IS NULL) FROM lifecycle.funnel('leads', '2027-01-01')), 'a rate over 0 is NULL');

-- A lead whose only move is an entry at sql
CREATE TABLE one (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('one', model => 'etumos');
SELECT replay('one', 'A sql 2026-01-01');
SELECT is(row_of(who, 'reached', mode, cycle, 'one'), expected, format('%s: an entry at sql, %s, %s', who, mode, cycle))
FROM asked, (VALUES ('any', '0 0 0 1 0'), ('ordered', '0 0 0 0 0'), ('filled', '1 1 1 1 0')) AS v (mode, expected) CROSS JOIN (VALUES ('ever'), ('first'), ('every')) AS c (cycle);
SELECT is(row_of(who, 'next', 'any', 'ever', 'one'), '- - - - 0.0000', who || ': rates over 0 are NULL, those of 0 are 0') FROM asked;

-- ---- flow ----

SELECT results_eq(format('SELECT status, opening, inflow, outflow, closing FROM %s', report(who, 'flow', $$'2026-01-01', '2026-01-08', '7 days'$$)),
    $$VALUES ('mal', 0::bigint, 4::bigint, 3::bigint, 1::bigint), ('mql', 0, 2, 2, 0), ('sal', 0, 2, 2, 0), ('sql', 0, 3, 0, 3), ('customer', 0, 0, 0, 0),
             ('disqualified', 0, 1, 0, 1), ('lost', 0, 0, 0, 0), ('recycled', 0, 1, 0, 1)$$, who || ': the first week, complete')
FROM asked;
SELECT results_eq(format('SELECT status, opening, inflow, outflow, closing FROM %s', report(who, 'flow', $$'2026-01-08', '2026-01-15', '7 days'$$)),
    $$VALUES ('mal', 1::bigint, 0::bigint, 1::bigint, 0::bigint), ('mql', 0, 1, 1, 0), ('sal', 0, 0, 0, 0), ('sql', 3, 0, 1, 2), ('customer', 0, 1, 0, 1),
             ('disqualified', 1, 1, 1, 1), ('lost', 0, 0, 0, 0), ('recycled', 1, 1, 1, 1)$$, who || ': the second week, complete')
FROM asked;
SELECT results_eq(format('SELECT bucket, sum(opening), sum(inflow), sum(outflow), sum(closing) FROM %s GROUP BY bucket ORDER BY bucket', report(who, 'flow', $$'2026-01-01', '2026-01-15', '7 days'$$)),
    $$VALUES ('2026-01-01'::timestamptz, 0::numeric, 13::numeric, 7::numeric, 6::numeric), ('2026-01-08', 6, 4, 5, 5)$$, who || ': and their totals; one lead was removed')
FROM asked;
SELECT results_eq(format('SELECT sum(inflow), sum(inflow_new), sum(inflow_again) FROM %s WHERE status = ''mql''', report(who, 'flow', $$'2026-01-01', '2026-02-01'$$)),
    $$VALUES (4::numeric, 3::numeric, 1::numeric)$$, who || ': four MQLs: three new, one again')
FROM asked;
SELECT is_empty(format($$SELECT * FROM %s WHERE closing <> opening + inflow - outflow OR inflow <> inflow_new + inflow_again$$, report(who, 'flow', $$'2025-12-31', '2026-02-01', '5 hours'$$)),
    who || ': closing = opening + inflow - outflow in every bucket')
FROM asked;
SELECT is_empty(format($$SELECT * FROM (SELECT opening, lag(closing) OVER (PARTITION BY status ORDER BY bucket) AS before FROM %s) AS f WHERE opening <> before$$, report(who, 'flow', $$'2025-12-31', '2026-02-01', '5 hours'$$)),
    who || ': each bucket opens as the last one closed')
FROM asked;
SELECT is((SELECT sum(closing) FROM lifecycle.flow('leads', '2026-01-31', '2026-02-01')), (SELECT count(*) FROM leads)::numeric, 'at last, as many leads as there are');
SELECT is((SELECT count(DISTINCT bucket) FROM lifecycle.flow('leads', '2026-01-01', '2026-01-03 12:00', '1 day', 'UTC')), 3::bigint, 'the last bucket may be cut');
SELECT is((SELECT sum(inflow) FROM lifecycle.flow('leads', '2026-01-01', '2026-01-03 00:00:00', '30 days')), 4::numeric, 'and counts only what is before its end');
SELECT is_empty($$SELECT * FROM lifecycle.flow('leads', '2026-01-02', '2026-01-02')$$, 'an empty span has no buckets');

-- The vector that a peer got wrong: 351, 90 in, 44 out
CREATE TABLE many (id int PRIMARY KEY, origin text);
SELECT lifecycle.track('many');
BEGIN;
SET LOCAL lifecycle.at = '2026-02-28 23:59:59';
INSERT INTO many (id, lifecycle_status) SELECT n, 'mql' FROM generate_series(1, 351) AS n;
SET LOCAL lifecycle.at = '2026-03-01';
INSERT INTO many (id, lifecycle_status) SELECT n, 'mql' FROM generate_series(352, 441) AS n;
SET LOCAL lifecycle.at = '2026-03-31 23:59:59';
UPDATE many SET lifecycle_status = 'sal' WHERE id <= 44;
SET LOCAL lifecycle.at = '2026-04-01';
UPDATE many SET lifecycle_status = 'sal' WHERE id BETWEEN 45 AND 60;
COMMIT;
SELECT results_eq(format('SELECT opening, inflow, outflow, closing FROM %s WHERE status = ''mql''', report(who, 'flow', $$'2026-03-01', '2026-04-01', '1 month'$$, 'many')),
    $$VALUES (351::bigint, 90::bigint, 44::bigint, 397::bigint)$$, who || ': 351 + 90 in - 44 out = 397')
FROM asked;

-- ---- conversion ----

SELECT results_eq(format('SELECT from_status, to_status, moves, round(period_rate::numeric, 4), round(exit_share::numeric, 4) FROM %s', report(who, 'conversion', $$'2026-01-01', '2026-02-01'$$)),
    $$VALUES ('mal', 'mql', 2::bigint, 0.5, 0.5), ('mal', 'sql', 1, 0.25, 0.25), ('mal', 'disqualified', 1, 0.25, 0.25),
             ('mql', 'sal', 3, 0.75, 0.75), ('mql', 'recycled', 1, 0.25, 0.25), ('sal', 'sql', 1, 0.3333, 0.5), ('sal', 'recycled', 1, 0.3333, 0.5),
             ('sql', 'customer', 3, 0.75, 0.75), ('sql', 'lost', 1, 0.25, 0.25), ('disqualified', NULL, 1, 0.5, 1), ('lost', 'sql', 1, 1, 1),
             ('recycled', 'mql', 1, 0.5, 0.5), ('recycled', 'disqualified', 1, 0.5, 0.5)$$, who || ': conversion in January, path first, then detours')
FROM asked;
SELECT results_eq(format('SELECT from_status, to_status, moves, period_rate, exit_share FROM %s', report(who, 'conversion', $$'2026-01-20', '2026-01-26'$$)),
    $$VALUES ('sql', 'customer', 2::bigint, NULL::float8, 1::float8)$$, who || ': a rate over no inflow is NULL')
FROM asked;
SELECT is_empty('SELECT * FROM ' || report(who, 'conversion', $$'2027-01-01', '2027-02-01'$$), who || ': nothing moved, no rows') FROM asked;
SELECT is_empty(format('SELECT * FROM %s WHERE from_status IS NULL', report(who, 'conversion', $$'-infinity', 'infinity'$$)), who || ': an entry converts nobody') FROM asked;

-- ---- entry conversion ----

CREATE TABLE entries (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('entries', model => 'etumos');
SELECT replay('entries', '
A mql 2026-01-01
A customer 2026-01-04
B mql 2026-01-02
B customer 2026-01-12
C mql 2026-01-03
C customer 2026-01-15
D mql 2026-01-04
D disqualified 2026-01-06
E mql 2026-01-15
E customer 2026-01-17
F mql 2026-01-22
F customer 2026-01-27
G mql 2026-01-25
H mql 2026-01-28');
CREATE FUNCTION entry_conversion(who text, arguments text, leads text DEFAULT 'entries') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    EXECUTE format($q$SELECT concat_ws(' ', n, converted, coalesce(matured::text, '-'), coalesce(round(rate::numeric, 6)::text, '-'),
                                       coalesce(round(matured_rate::numeric, 6)::text, '-'), coalesce(round(km_rate::numeric, 6)::text, '-')) FROM %s$q$,
                   report(who, 'entry_conversion', arguments, leads)) INTO line;
    RETURN line;
END $$;
SELECT is(entry_conversion(who, arguments), expected, format('%s: entry conversion: %s', who, why))
FROM asked, (VALUES
    ($$'mql', 'customer', '2026-01-01', '2026-02-01', '10 days', '2026-01-30'$$, '8 4 5 0.500000 0.600000 0.611111', 'within 10 days'),
    ($$'mql', 'customer', '2026-01-01', '2026-02-01', NULL, '2026-01-30'$$, '8 5 - 0.625000 - 0.805556', 'whenever'),
    ($$'mql', 'customer', '2026-01-01', '2026-02-01', '240 hours', '2026-01-30'$$, '8 4 5 0.500000 0.600000 0.611111', 'ten days of hours'),
    ($$'mql', 'sal', '2026-01-01', '2026-02-01', NULL, '2026-01-30'$$, '8 5 - 0.625000 - 0.805556', 'or further along the path'),
    ($$'mql', 'disqualified', '2026-01-01', '2026-02-01', '10 days', '2026-01-30'$$, '8 1 5 0.125000 0.200000 0.125000', 'to a detour, that one only'),
    ($$'mql', 'customer', '2026-01-02', '2026-01-04', '10 days', '2026-01-30'$$, '2 1 2 0.500000 0.500000 0.500000', 'since is inside, until is not'),
    ($$'mql', 'customer', '2026-01-01', '2026-02-01', '10 days', '2026-01-12'$$, '4 2 2 0.500000 1.000000 1.000000', 'seen up to and with as_of, and what was then'),
    ($$'mql', 'customer', '2026-01-01', '2026-02-01', '1 day', '2026-01-30'$$, '8 0 8 0.000000 0.000000 0.000000', 'nobody so fast'),
    ($$'mql', 'customer', '2026-01-28', '2026-02-01', '10 days', '2026-01-30'$$, '1 0 0 0.000000 - 0.000000', 'nobody matured'),
    ($$'sal', 'customer', '2026-01-01', '2026-02-01', '10 days', '2026-01-30'$$, '0 0 0 - - -', 'nobody there'),
    ($$'mql', 'customer', '2026-02-01', '2026-03-01', NULL, '2026-03-30'$$, '0 0 - - - -', 'nobody then')) AS v (arguments, expected, why);
-- the six leads: L2 is lost and comes back, L4 is removed; L3's second mql is not its first
SELECT is(entry_conversion(who, arguments, 'leads'), expected, format('%s: entry conversion of the six leads: %s', who, why))
FROM asked, (VALUES
    ($$'sql', 'customer', '2026-01-01', '2026-02-01', NULL, '2026-02-01'$$, '3 3 - 1.000000 - 1.000000', 'who was lost stayed at risk'),
    ($$'sql', 'customer', '2026-01-01', '2026-02-01', '14 days', '2026-02-01'$$, '3 2 3 0.666667 0.666667 0.666667', 'in two weeks'),
    ($$'disqualified', 'customer', '2026-01-01', '2026-02-01', '10 days', '2026-02-01'$$, '2 0 2 0.000000 0.000000 0.000000', 'who was removed counts'),
    ($$'mql', 'sal', '2026-01-05', '2026-02-01', NULL, '2026-02-01'$$, '1 0 - 0.000000 - 0.000000', 'the first entry of all')) AS v (arguments, expected, why);

-- ---- time in a status ----

CREATE FUNCTION days(t interval) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN coalesce(trim_scale(round(extract(epoch FROM t) / 86400, 4))::text, '-');
CREATE FUNCTION times(who text, arguments text, leads text DEFAULT 'leads') RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$SELECT concat_ws(' ', status, coalesce(rank::text, '-'), completed, inside, days(mean), days(p50), days(p75), days(p90), days(km_median)) FROM %s$q$,
                                report(who, 'time_in_status', arguments, leads));
END $$;
SELECT results_eq(format('SELECT * FROM times(%L, %L)', who, $$'2026-01-01', '2026-02-01', '2026-02-01'$$),
    $$VALUES ('mal 1 4 0 2.75 3 4 4 2'), ('mql 2 4 0 1.5 1 1.5 2.4 1'), ('sal 3 2 1 2.5 2.5 2.75 2.9 3'), ('sql 4 4 0 9.25 8.5 11 12.8 7'), ('customer 5 0 3 - - - - -'),
             ('disqualified - 0 1 - - - - -'), ('lost - 1 0 3 3 3 3 3'), ('recycled - 2 0 6 6 8 9.2 2')$$, who || ': the six leads; who was removed is in neither')
FROM asked;
SELECT results_eq(format('SELECT * FROM times(%L, %L)', who, $$'2026-01-05', '2026-01-16', '2026-01-11'$$),
    $$VALUES ('mal 1 1 0 4 4 4 4 4'), ('mql 2 0 1 - - - - -'), ('sal 3 0 0 - - - - -'), ('sql 4 0 2 - - - - -'), ('customer 5 0 1 - - - - -'),
             ('disqualified - 0 0 - - - - -'), ('lost - 0 0 - - - - -'), ('recycled - 0 1 - - - - -')$$, who || ': visits begun from the 5th, as they were on the 11th')
FROM asked;

CREATE TABLE stays (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('stays', model => 'etumos');
SELECT replay('stays', '
A1 mal 2020-01-01
A1 mql 2020-01-03
A2 mal 2020-01-01
A2 mql 2020-01-05
A3 mal 2020-01-01
A3 mql 2020-01-07
A4 mal 2020-01-01
A5 mal 2020-01-01
B1 mal 2021-01-01
B1 mql 2021-01-03
B2 mal 2021-01-04
B3 mal 2021-01-01
B3 mql 2021-01-03
B4 mal 2021-01-01
B4 mql 2021-01-04
B5 mal 2021-01-01
C1 mal 2022-01-01
C1 mql 2022-01-03
C2 mal 2022-01-01
C3 mal 2022-01-01
C4 mal 2022-01-01');
SELECT is((SELECT t FROM times(who, format('%L, %L, %L', since, since + interval '1 year', as_of), 'stays') AS t WHERE t LIKE 'mal %'), expected, format('%s: %s', who, why))
FROM asked, (VALUES
    ('2020-01-01'::timestamptz, '2020-01-11'::timestamptz, 'mal 1 3 2 4 4 5 5.6 6', 'completed 2, 4, 6, open 10, 10'),
    ('2021-01-01', '2021-01-06', 'mal 1 3 2 2.3333 2 2.5 2.8 3', 'completed 2, 2, 3, open 2, 5: ended before censored'),
    ('2022-01-01', '2022-01-10', 'mal 1 1 3 2 2 2 2 -', 'completed 2, open 9, 9, 9: no median')) AS v (since, as_of, expected, why);

-- Where all ended, half have by the k-th of 2k: a product of rounded fractions may say a little more than .5.
CREATE TABLE halves (id text PRIMARY KEY, origin text);
INSERT INTO halves (id) SELECT format('%s-%s', n, k) FROM generate_series(1, 40) AS n, generate_series(1, n) AS k;
SELECT lifecycle.track('halves', model => 'etumos');
SELECT is_empty($$SELECT * FROM lifecycle.import_history('halves', $q$
    SELECT format('%s-%s', n, k) AS lead, s.status, timestamptz '2020-01-01' + n * interval '7 days' + s.place * k * interval '1 hour' AS at
    FROM generate_series(1, 40) AS n, generate_series(1, n) AS k, (VALUES ('mql', 0), ('sal', 1)) AS s (status, place) $q$)$$, '40 groups that all leave mql are imported');
SELECT results_eq(format($$SELECT n, extract(epoch FROM t.km_median)::int / 3600 FROM generate_series(1, 40) AS n, (VALUES (timestamptz '2020-01-01')) AS e (epoch),
                           LATERAL %s AS t WHERE t.status = 'mql' ORDER BY n$$,
                         report(who, 'time_in_status', $$epoch + n * interval '7 days', epoch + n * interval '7 days 1 second', '2021-01-01'$$, 'halves')),
    'SELECT n, (n + 1) / 2 FROM generate_series(1, 40) AS n', who || ': where all left, the median is that of the k-th of 2k')
FROM asked;

-- ---- a mistake: known, sql, corrected to sal ----

CREATE TABLE wrong (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('wrong');
SELECT replay('wrong', '
M known 2026-01-01
M sql 2026-01-02');
BEGIN;
SET LOCAL lifecycle.at = '2026-01-03';
SELECT lifecycle.correct('wrong', 'M'::text, 'sal', 'wrong button');
COMMIT;
SELECT is(row_of(who, 'reached', 'filled', cycle, 'wrong'), '1 1 1 1 1 0 0 0', format('%s: the mistake was not reached, %s', who, cycle))
FROM asked, (VALUES ('ever'), ('first'), ('every')) AS c (cycle);
SELECT is(row_of(who, 'reached', mode, 'ever', 'wrong'), expected, format('%s: nor %s', who, mode))
FROM asked, (VALUES ('any', '1 0 0 0 1 0 0 0'), ('ordered', '1 0 0 0 0 0 0 0')) AS v (mode, expected);
SELECT is(row_of(who, 'inferred', 'filled', 'ever', 'wrong'), '0 1 1 1 0 0 0 0', who || ': what lies between is inferred') FROM asked;
SELECT results_eq(format('SELECT status, inflow, inflow_new, inflow_again, outflow, closing FROM %s WHERE inflow > 0', report(who, 'flow', $$'2026-01-01', '2026-01-04', '3 days'$$, 'wrong')),
    $$VALUES ('known', 1::bigint, 1::bigint, 0::bigint, 1::bigint, 0::bigint), ('sal', 1, 1, 0, 0, 1), ('sql', 1, 0, 0, 1, 0)$$,
    who || ': the flow has the mistake in and out, neither new nor again')
FROM asked;
SELECT is_empty('SELECT * FROM ' || report(who, 'conversion', $$'2026-01-01', '2026-02-01'$$, 'wrong'), who || ': neither the mistake nor the correction converts') FROM asked;
SELECT results_eq(format('SELECT * FROM times(%L, %L, %L) AS t WHERE t !~ '' 0 0 ''', who, $$'2026-01-01', '2026-02-01', '2026-01-13'$$, 'wrong'),
    $$VALUES ('known 1 1 0 1 1 1 1 1'), ('sal 5 0 1 - - - - -')$$, who || ': the mistake has no duration')
FROM asked;
SELECT is(entry_conversion(who, arguments, 'wrong'), expected, format('%s: entry conversion, %s', who, why))
FROM asked, (VALUES
    ($$'sql', 'customer', '2026-01-01', '2026-02-01', NULL, '2026-01-13'$$, '0 0 - - - -', 'never in sql'),
    ($$'known', 'sql', '2026-01-01', '2026-02-01', NULL, '2026-01-13'$$, '1 0 - 0.000000 - 0.000000', 'nor come to it'),
    ($$'known', 'sal', '2026-01-01', '2026-02-01', NULL, '2026-01-13'$$, '1 1 - 1.000000 - 1.000000', 'in sal, since it was corrected')) AS v (arguments, expected, why);

-- ---- what backfill guessed: counted, never measured ----

CREATE TABLE old (id text PRIMARY KEY, origin text, created timestamptz, lifecycle_status text);
INSERT INTO old VALUES ('O', 'web', '2026-01-01', 'mql'), ('P', 'web', '2026-01-01', 'mql');
SELECT lifecycle.track('old', model => 'etumos', entered => 'created', source => 'origin');
CALL lifecycle.backfill('old');
UPDATE old SET lifecycle_status = 'sal' WHERE id = 'O';
UPDATE old SET lifecycle_status = 'sql' WHERE id = 'O';
SELECT is(row_of(who, 'reached', 'any', 'ever', 'old'), '2 2 1 1 0', who || ': the funnel has what was guessed') FROM asked;
SELECT results_eq(format('SELECT status, inflow, outflow, closing FROM %s WHERE inflow > 0', report(who, 'flow', $$'2026-01-01', now() + interval '1 day', '100 years'$$, 'old')),
    $$VALUES ('mal', 2::bigint, 2::bigint, 0::bigint), ('mql', 2, 1, 1), ('sal', 1, 1, 0), ('sql', 1, 0, 1)$$, who || ': so has the flow')
FROM asked;
SELECT results_eq('SELECT from_status, to_status, moves, period_rate, exit_share FROM ' || report(who, 'conversion', $$'-infinity', 'infinity'$$, 'old'),
    $$VALUES ('sal', 'sql', 1::bigint, 1::float8, 1::float8)$$, who || ': conversion has neither end of a visit whose begin was guessed')
FROM asked;
SELECT results_eq(format('SELECT status, completed, inside FROM %s WHERE completed + inside > 0', report(who, 'time_in_status', $$'-infinity', 'infinity'$$, 'old')),
    $$VALUES ('sal', 1::bigint, 0::bigint), ('sql', 0, 1)$$, who || ': nor has the time in a status')
FROM asked;
SELECT is(entry_conversion(who, arguments, 'old'), expected, who || ': nor has the conversion by entry: ' || expected)
FROM asked, (VALUES ($$'mql', 'sql', '-infinity', 'infinity'$$, '0 0 - - - -'), ($$'sal', 'sql', '-infinity', 'infinity'$$, '1 1 - 1.000000 - 1.000000')) AS v (arguments, expected);

-- ---- a key that comes back: the lead that was removed is lost from sight ----

CREATE TABLE back (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('back', model => 'etumos');
SELECT replay('back', '
R mql 2026-01-01
R - 2026-01-05
R mql 2026-01-07
R customer 2026-01-08
S mql 2026-01-01
S customer 2026-01-03');
SELECT is(entry_conversion(who, $$'mql', 'customer', '2026-01-01', '2026-02-01', '10 days', '2026-01-30'$$, 'back'), '2 2 2 1.000000 1.000000 0.500000',
    who || ': it converted, in its next cycle; at risk it was until the removal')
FROM asked;
SELECT results_eq(format('SELECT status, completed, inside, days(mean), days(km_median) FROM %s WHERE completed + inside > 0', report(who, 'time_in_status', $$'2026-01-01', '2026-02-01', '2026-01-30'$$, 'back')),
    $$VALUES ('mql', 2::bigint, 0::bigint, '1.5', '2'), ('customer', 0, 2, '-', '-')$$, who || ': a removal completes no visit')
FROM asked;
SELECT results_eq(format('SELECT status, completed, inside, days(mean), days(km_median) FROM %s WHERE completed + inside > 0', report(who, 'time_in_status', $$'2026-01-01', '2026-01-02', '2026-01-04'$$, 'back')),
    $$VALUES ('mql', 1::bigint, 1::bigint, '2', '2')$$, who || ': it was inside until then')
FROM asked;

SELECT is_empty(format('SELECT * FROM lifecycle.verify(%L)', leads), leads || ': verify() finds nothing') FROM (VALUES ('leads'), ('one'), ('many'), ('wrong'), ('entries'), ('stays'), ('halves'), ('old'), ('back')) AS t (leads);

SELECT * FROM finish();
