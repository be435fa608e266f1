-- The vectors of the definitions: six leads that live in January 2026 by
-- ordinary writes, and what funnel() and flow() say of them, to the number.

CREATE EXTENSION lifecycle;
SELECT no_plan();

\ir ../lib/failure.sql

-- Replays moves: lead, status ('-' for a removal) and time, in the order of time.
CREATE FUNCTION replay(lead_table regclass, moves text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    m record;
    known boolean;
BEGIN
    FOR m IN SELECT split_part(l.line, ' ', 1) AS lead, split_part(l.line, ' ', 2) AS status, split_part(l.line, ' ', 3) AS at, split_part(l.line, ' ', 4) AS origin
             FROM string_to_table(moves, E'\n') WITH ORDINALITY AS l (line, place) WHERE l.line <> ''
             ORDER BY split_part(l.line, ' ', 3)::timestamptz, l.place LOOP
        PERFORM set_config('lifecycle.at', m.at, true);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE id = %L)', lead_table, m.lead) INTO known;
        EXECUTE CASE WHEN m.status = '-' THEN format('DELETE FROM %s WHERE id = %L', lead_table, m.lead)
                     WHEN known THEN format('UPDATE %s SET lifecycle_status = %L WHERE id = %L', lead_table, m.status, m.lead)
                     ELSE format('INSERT INTO %s (id, origin, lifecycle_status) VALUES (%L, %s, %L)', lead_table, m.lead,
                                 CASE m.origin WHEN '' THEN 'NULL' WHEN '''''' THEN '''''' ELSE quote_literal(m.origin) END, m.status) END;
    END LOOP;
END $$;

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

-- funnel(): numbers of the path, inferred ones, and rates to four decimals
CREATE FUNCTION row_of(what text, mode text, cycle text, leads text DEFAULT 'leads') RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(CASE what WHEN 'reached' THEN reached::text WHEN 'inferred' THEN of_which_inferred::text
                                WHEN 'next' THEN coalesce(round(next_step_rate::numeric, 4)::text, '-')
                                ELSE coalesce(round(cumulative_rate::numeric, 4)::text, '-') END, ' ' ORDER BY rank)
    FROM lifecycle.funnel(leads::regclass, mode => mode, cycle => cycle) WHERE rank IS NOT NULL
$$;
SELECT is(row_of('reached', mode, cycle), expected, format('funnel %s, %s', mode, cycle))
FROM (VALUES ('ever', 'ordered', '4 2 1 1 1'), ('ever', 'any', '4 3 2 3 3'), ('ever', 'filled', '6 5 4 3 3'),
             ('first', 'ordered', '4 2 1 1 1'), ('first', 'any', '4 3 2 3 2'), ('first', 'filled', '6 5 4 3 2'),
             ('every', 'ordered', '4 2 1 1 1'), ('every', 'any', '4 4 3 4 3'), ('every', 'filled', '8 7 6 4 3')) AS v (cycle, mode, expected);
SELECT is(row_of('inferred', 'filled', cycle), expected, 'inferred, ' || cycle)
FROM (VALUES ('ever', '2 2 2 0 0'), ('first', '2 2 2 0 0'), ('every', '4 3 3 0 0')) AS v (cycle, expected);
SELECT is(row_of('inferred', mode, cycle), '0 0 0 0 0', format('nothing is inferred in mode %s, %s', mode, cycle))
FROM (VALUES ('any'), ('ordered')) AS m (mode) CROSS JOIN (VALUES ('ever'), ('first'), ('every')) AS c (cycle);
SELECT is(row_of('next', 'filled', cycle), expected, 'next step rates, ' || cycle)
FROM (VALUES ('ever', '- 0.8333 0.8000 0.7500 1.0000'), ('first', '- 0.8333 0.8000 0.7500 0.6667'),
             ('every', '- 0.8750 0.8571 0.6667 0.7500')) AS v (cycle, expected);
SELECT is(row_of('cumulative', 'filled', cycle), expected, 'cumulative rates, ' || cycle)
FROM (VALUES ('ever', '1.0000 0.8333 0.6667 0.5000 0.5000'), ('first', '1.0000 0.8333 0.6667 0.5000 0.3333'),
             ('every', '1.0000 0.8750 0.7500 0.5000 0.3750')) AS v (cycle, expected);
SELECT results_eq(format('SELECT status, rank, reached, of_which_inferred, next_step_rate, cumulative_rate FROM lifecycle.funnel(''leads'', mode => %L) WHERE rank IS NULL', mode),
    $$VALUES ('disqualified', NULL::int, 2::bigint, 0::bigint, NULL::float8, NULL::float8), ('lost', NULL, 1, 0, NULL, NULL), ('recycled', NULL, 2, 0, NULL, NULL)$$,
    'detours are counted as visited, without rank and rates: ' || mode)
FROM (VALUES ('filled'), ('any'), ('ordered')) AS m (mode);
SELECT results_eq($$SELECT segment, status, rank FROM lifecycle.funnel('leads')$$,
    $$VALUES (NULL, 'mal', 1), (NULL, 'mql', 2), (NULL, 'sal', 3), (NULL, 'sql', 4), (NULL, 'customer', 5), (NULL, 'disqualified', NULL), (NULL, 'lost', NULL), (NULL, 'recycled', NULL)$$,
    'the total is one segment, named NULL, path first');

-- Segments: the source and cohort at the first entry
SELECT results_eq($$SELECT segment, string_agg(reached::text, ' ' ORDER BY rank) FROM lifecycle.funnel('leads', by => 'source') WHERE rank IS NOT NULL GROUP BY segment ORDER BY segment COLLATE "C"$$,
    $$VALUES ('', '1 0 0 0 0'), ('(none)', '2 2 1 0 0'), ('fair', '1 1 1 1 1'), ('web', '2 2 2 2 2')$$, 'by source: NULL is (none), an empty text is itself');
SELECT results_eq($$SELECT segment, count(*) FROM lifecycle.funnel('leads', by => 'source') GROUP BY segment ORDER BY segment COLLATE "C"$$,
    $$VALUES ('', 8::bigint), ('(none)', 8), ('fair', 8), ('web', 8)$$, 'every stage has a row in every segment');
SELECT results_eq($$SELECT segment, max(reached) FROM lifecycle.funnel('leads', by => 'cohort') GROUP BY segment ORDER BY segment COLLATE "C"$$,
    $$SELECT coalesce(cohort::text, '(none)'), count(DISTINCT lead) FROM leads_history GROUP BY 1 ORDER BY coalesce(cohort::text, '(none)') COLLATE "C"$$, 'by cohort');
SELECT ok((SELECT count(*) = 1 FROM lifecycle.funnel('leads', by => 'cohort') WHERE segment = '(none)' AND status = 'mal'), 'a lead without a cohort is in (none)');

-- since and until test the first entry, or the start of the cycle
SELECT results_eq($$SELECT cycle, (SELECT string_agg(f.reached::text, ' ' ORDER BY rank) FROM lifecycle.funnel('leads', '2026-01-05', '2026-02-01', cycle => cycle) f WHERE rank IS NOT NULL)
                    FROM (VALUES ('ever'), ('first'), ('every')) AS c (cycle)$$,
    $$VALUES ('ever', '1 1 0 0 0'), ('first', '1 1 0 0 0'), ('every', '3 3 2 1 1')$$,
    'from 5 January: L6 entered; cycles begin for L2 and L3, too');
SELECT is((SELECT max(reached) FROM lifecycle.funnel('leads', '2026-01-02', '2026-01-04')), 2::bigint, 'since is inside, until is not');
SELECT is((SELECT sum(reached) FROM lifecycle.funnel('leads', '2027-01-01')), 0::numeric, 'nobody: every stage has a row, with zero');
SELECT ok((SELECT bool_and(next_step_rate IS NULL AND cumulative_rate IS NULL) FROM lifecycle.funnel('leads', '2027-01-01')), 'a rate over 0 is NULL');

-- flow()
CREATE FUNCTION flow_of(since timestamptz, until timestamptz) RETURNS TABLE (line text) LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, opening, inflow, outflow, closing) FROM lifecycle.flow('leads', since, until, until - since)
$$;
SELECT results_eq($$SELECT * FROM flow_of('2026-01-01', '2026-01-08')$$,
    $$VALUES ('mal 0 4 3 1'), ('mql 0 2 2 0'), ('sal 0 2 2 0'), ('sql 0 3 0 3'), ('customer 0 0 0 0'), ('disqualified 0 1 0 1'), ('lost 0 0 0 0'), ('recycled 0 1 0 1')$$,
    'the first week, complete');
SELECT results_eq($$SELECT * FROM flow_of('2026-01-08', '2026-01-15')$$,
    $$VALUES ('mal 1 0 1 0'), ('mql 0 1 1 0'), ('sal 0 0 0 0'), ('sql 3 0 1 2'), ('customer 0 1 0 1'), ('disqualified 1 1 1 1'), ('lost 0 0 0 0'), ('recycled 1 1 1 1')$$,
    'the second week, complete');
SELECT results_eq($$SELECT bucket, sum(opening), sum(inflow), sum(outflow), sum(closing) FROM lifecycle.flow('leads', '2026-01-01', '2026-01-15', '7 days') GROUP BY bucket ORDER BY bucket$$,
    $$VALUES ('2026-01-01'::timestamptz, 0::numeric, 13::numeric, 7::numeric, 6::numeric), ('2026-01-08', 6, 4, 5, 5)$$, 'and their totals; one lead was removed');
SELECT results_eq($$SELECT sum(inflow), sum(inflow_new), sum(inflow_again) FROM lifecycle.flow('leads', '2026-01-01', '2026-02-01') WHERE status = 'mql'$$,
    $$VALUES (4::numeric, 3::numeric, 1::numeric)$$, 'four MQLs: three new, one again');
SELECT is_empty($$SELECT * FROM lifecycle.flow('leads', '2025-12-31', '2026-02-01', '5 hours') WHERE closing <> opening + inflow - outflow OR inflow <> inflow_new + inflow_again$$,
    'closing = opening + inflow - outflow in every bucket');
SELECT is_empty($$SELECT * FROM (SELECT opening, lag(closing) OVER (PARTITION BY status ORDER BY bucket) AS before FROM lifecycle.flow('leads', '2025-12-31', '2026-02-01', '5 hours')) AS f WHERE opening <> before$$,
    'each bucket opens as the last one closed');
SELECT is((SELECT sum(closing) FROM lifecycle.flow('leads', '2026-01-31', '2026-02-01')), (SELECT count(*) FROM leads)::numeric, 'at last, as many leads as there are');

-- A lead whose only move is an entry at sql
CREATE TABLE one (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('one', model => 'etumos');
SELECT replay('one', 'A sql 2026-01-01');
SELECT is(row_of('reached', mode, cycle, 'one'), expected, format('an entry at sql, %s, %s', mode, cycle))
FROM (VALUES ('any', '0 0 0 1 0'), ('ordered', '0 0 0 0 0'), ('filled', '1 1 1 1 0')) AS v (mode, expected) CROSS JOIN (VALUES ('ever'), ('first'), ('every')) AS c (cycle);
SELECT is(row_of('next', 'any', 'ever', 'one'), '- - - - 0.0000', 'rates over 0 are NULL, those of 0 are 0');

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
SELECT results_eq($$SELECT opening, inflow, outflow, closing FROM lifecycle.flow('many', '2026-03-01', '2026-04-01', '1 month') WHERE status = 'mql'$$,
    $$VALUES (351::bigint, 90::bigint, 44::bigint, 397::bigint)$$, '351 + 90 in - 44 out = 397');

-- Buckets by the calendar of a time zone
CREATE FUNCTION lengths(since timestamptz, until timestamptz, step interval, tz text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(to_char(bucket AT TIME ZONE tz, 'MM-DD HH24:MI') || coalesce(' +' || extract(epoch FROM next - bucket)::int / 3600, ''), ', ' ORDER BY bucket)
    FROM (SELECT bucket, lead(bucket) OVER (ORDER BY bucket) AS next FROM lifecycle.flow('leads', since, until, step, tz) WHERE status = 'mal') AS b
$$;
SELECT is(lengths('2025-03-29 00:00+01', '2025-04-01 00:00+02', '1 day', 'Europe/Berlin'), '03-29 00:00 +24, 03-30 00:00 +23, 03-31 00:00', 'a day of 23 hours in spring');
SELECT is(lengths('2025-10-25 00:00+02', '2025-10-28 00:00+01', '1 day', 'Europe/Berlin'), '10-25 00:00 +24, 10-26 00:00 +25, 10-27 00:00', 'a day of 25 hours in autumn');
SELECT is(lengths('2025-01-31 00:00+01', '2025-05-15 00:00+02', '1 month', 'Europe/Berlin'), '01-31 00:00 +672, 02-28 00:00 +743, 03-31 00:00 +720, 04-30 00:00', 'months from the 31st keep to the end of the month');
SELECT is(lengths('2025-03-29 00:00+00', '2025-04-01 00:00+00', '1 day', 'UTC'), '03-29 00:00 +24, 03-30 00:00 +24, 03-31 00:00', 'UTC has no such days');
UPDATE lifecycle.program SET tz = 'Europe/Berlin' WHERE lead_table = 'leads'::regclass;
SELECT results_eq($$SELECT count(DISTINCT bucket), max(bucket) FROM lifecycle.flow('leads', '2025-10-26 00:00+02', '2025-10-28 00:00+01')$$,
    $$VALUES (2::bigint, '2025-10-27 00:00+01'::timestamptz)$$, 'by default the calendar is the program''s');
SELECT results_eq($$SELECT bucket, inflow FROM lifecycle.flow('leads', '2025-12-31 00:00+01', '2026-01-02 00:00+01') WHERE status = 'mal' ORDER BY 1$$,
    $$VALUES ('2025-12-31 00:00+01'::timestamptz, 0::bigint), ('2026-01-01 00:00+01', 2)$$, 'a move falls into the day that it has there');
SELECT is((SELECT count(DISTINCT bucket) FROM lifecycle.flow('leads', '2026-01-01', '2026-01-03 12:00', '1 day', 'UTC')), 3::bigint, 'the last bucket may be cut');
SELECT is((SELECT sum(inflow) FROM lifecycle.flow('leads', '2026-01-01', '2026-01-03 00:00:00', '30 days')), 4::numeric, 'and counts only what is before its end');
SELECT is_empty($$SELECT * FROM lifecycle.flow('leads', '2026-01-02', '2026-01-02')$$, 'an empty span has no buckets');

-- What can be asked wrongly
CREATE ROLE tapb_reader;
SELECT is(failure(statement), expected, 'error: ' || split_part(expected, E'\n', 1))
FROM (VALUES
    ($$SELECT lifecycle.funnel('leads', mode => 'best')$$, '22023: mode must be "filled", "any" or "ordered", not "best"'),
    ($$SELECT lifecycle.funnel('leads', mode => NULL)$$, '22023: mode must be "filled", "any" or "ordered", not "null"'),
    ($$SELECT lifecycle.funnel('leads', cycle => 'last')$$, '22023: cycle must be "ever", "first" or "every", not "last"'),
    ($$SELECT lifecycle.funnel('leads', by => 'origin')$$, '22023: by must be "source", "cohort" or null, not "origin"'),
    ($$SELECT lifecycle.flow('leads', '-infinity', '2026-01-01')$$, E'22023: since and until must be finite\nHINT: The report has a row for each step between them.'),
    ($$SELECT lifecycle.flow('leads', '2026-01-01', NULL)$$, E'22023: since and until must be finite\nHINT: The report has a row for each step between them.'),
    ($$SELECT lifecycle.flow('leads', '2026-01-01', '2026-01-02', '0')$$, '22023: step must be positive, not "00:00:00"'),
    ($$SELECT lifecycle.flow('leads', '2026-01-01', '2026-01-02', '-1 day')$$, '22023: step must be positive, not "-1 days"'),
    ($$SELECT lifecycle.flow('leads', '2026-01-01', '2026-01-02', NULL)$$, '22023: step must be positive, not "null"'),
    ($$SELECT lifecycle.flow('leads', '2000-01-01', '2026-01-02', '1 minute')$$, E'54000: more than 100000 steps between 2000-01-01 00:00:00+00 and 2026-01-02 00:00:00+00\nHINT: Take a longer step.'),
    ($$SELECT lifecycle.flow('leads', '2026-01-01', '2026-01-02', '1 day', 'Mars/Phobos')$$, '22023: time zone "Mars/Phobos" not recognized'),
    ($$SELECT lifecycle.funnel('one_history')$$, E'55000: table "public.one_history" is not tracked\nHINT: SELECT lifecycle.track(''public.one_history'');'),
    ($$SELECT lifecycle.flow(NULL, '2026-01-01', '2026-01-02')$$, E'55000: table "(null)" is not tracked\nHINT: Name the lead table.'),
    ($$SET LOCAL ROLE tapb_reader; SELECT lifecycle.funnel('leads')$$, E'42501: permission denied for table leads_history\nDETAIL: The report reads the history of public.leads.\nHINT: GRANT SELECT ON public.leads_history TO tapb_reader;'),
    ($$SET LOCAL ROLE tapb_reader; SELECT lifecycle.flow('leads', '2026-01-01', '2026-01-02')$$, E'42501: permission denied for table leads_history\nDETAIL: The report reads the history of public.leads.\nHINT: GRANT SELECT ON public.leads_history TO tapb_reader;')
) AS v (statement, expected);
DROP ROLE tapb_reader;

SELECT * FROM finish();
