-- The reports at their edges: tables without leads, models that changed after the
-- fact, histories kept in parts, days that are not 24 hours long, and what can be asked wrongly.

CREATE EXTENSION lifecycle;
SELECT no_plan();

\ir ../lib/failure.sql
\ir ../lib/replay.sql
\ir ../lib/reports.sql

-- Each report says what the second opinion says, row by row. A status that the
-- model does not have may be left out of a bucket in which it is nothing.
CREATE FUNCTION agrees(leads regclass, why text, reports text[] DEFAULT '{funnel,flow,conversion,entry_conversion,time_in_status}') RETURNS SETOF text LANGUAGE sql AS $$
    SELECT bag_eq(format('SELECT %s FROM lifecycle.%I(%L, %s) AS r WHERE %s', columns, report, leads, arguments, condition),
                  format('SELECT %s FROM naive.%I(%L, %L, %s) AS r WHERE %s', columns, report, p.history, p.model, arguments, condition),
                  format('%s: %s(%s)', why, report, arguments))
    FROM lifecycle.program p, (VALUES
        ('funnel', $q$'2026-01-01', '2026-02-01'$q$, 'segment, status, rank, reached, of_which_inferred, round(next_step_rate::numeric, 9) AS next, round(cumulative_rate::numeric, 9) AS cumulative', 'true'),
        ('funnel', $q$cycle => 'every', by => 'source'$q$, 'segment, status, rank, reached, of_which_inferred, round(next_step_rate::numeric, 9) AS next, round(cumulative_rate::numeric, 9) AS cumulative', 'true'),
        ('funnel', $q$mode => 'ordered', by => 'cohort'$q$, 'segment, status, rank, reached, of_which_inferred, round(next_step_rate::numeric, 9) AS next, round(cumulative_rate::numeric, 9) AS cumulative', 'true'),
        ('flow', $q$'2025-12-31', '2026-02-01', '1 week', 'UTC'$q$, 'r.*', $q$rank IS NOT NULL OR status IN ('recycled', 'disqualified', 'lost') OR opening + inflow > 0$q$),
        ('flow', $q$'2025-12-01', '2026-03-01', '1 month', 'UTC'$q$, 'r.*', $q$rank IS NOT NULL OR status IN ('recycled', 'disqualified', 'lost') OR opening + inflow > 0$q$),
        ('conversion', $q$'2026-01-01', '2026-02-01'$q$, 'from_status, to_status, moves, round(period_rate::numeric, 9) AS rate, round(exit_share::numeric, 9) AS share', 'true'),
        ('entry_conversion', $q$'mql', 'sql', '2026-01-01', '2026-02-01', '10 days', '2026-02-01'$q$, 'n, converted, matured, round(rate::numeric, 9) AS rate, round(matured_rate::numeric, 9) AS matured_rate, round(km_rate::numeric, 9) AS km_rate', 'true'),
        ('time_in_status', $q$'2026-01-01', '2026-02-01', '2026-02-01'$q$,
         (SELECT 'status, rank, completed, inside, ' || string_agg(format('round(extract(epoch FROM %1$s), 3) AS %1$s', c), ', ') FROM unnest('{mean,p50,p75,p90,km_median}'::text[]) AS c), 'true')
    ) AS v (report, arguments, columns, condition)
    WHERE p.lead_table = leads AND report = ANY (reports)
$$;

-- ---- none, one, and all gone ----

CREATE TABLE none (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('none', model => 'etumos', source => 'origin');
SELECT results_eq('SELECT segment, sum(reached), count(*), count(next_step_rate), count(cumulative_rate) FROM lifecycle.funnel(''none'') GROUP BY segment',
    'VALUES (NULL::text, 0::numeric, 8::bigint, 0::bigint, 0::bigint)', 'no leads: every stage, and nobody there');
SELECT is_empty('SELECT * FROM lifecycle.funnel(''none'', by => ''source'')', 'no leads, no segments');
SELECT results_eq($$SELECT count(*), sum(opening + inflow + inflow_new + inflow_again + outflow + closing) FROM lifecycle.flow('none', '2026-01-01', '2026-01-03')$$,
    'VALUES (16::bigint, 0::numeric)', 'every stage in every bucket');
SELECT agrees('none', 'no leads');
SELECT replay('none', 'A mal 2026-01-05 web');
SELECT agrees('none', 'one lead');
SELECT replay('none', '
B mql 2026-01-06
C mal 2026-01-07 ''''
C sql 2026-01-09
A - 2026-01-10
B - 2026-01-10
C - 2026-01-10');
SELECT agrees('none', 'all gone');
SELECT results_eq($$SELECT sum(opening), sum(inflow), sum(outflow), sum(closing) FROM lifecycle.flow('none', '2026-01-01', '2026-02-01', '1 month')$$,
    'VALUES (0::numeric, 4::numeric, 4::numeric, 0::numeric)', 'all gone: what came in went out');
SELECT results_eq($$SELECT segment, reached FROM lifecycle.funnel('none', by => 'source') WHERE status = 'mal' ORDER BY segment COLLATE "C"$$,
    $$VALUES ('', 1::bigint), ('(none)', 1), ('web', 1)$$, 'the funnel has them still; an empty source is not none');
TRUNCATE none;
SELECT agrees('none', 'an empty table emptied');
SELECT replay('none', '
A mql 2026-01-12 elsewhere
A sql 2026-01-13');
SELECT agrees('none', 'a key that came back');
SELECT results_eq($$SELECT segment, max(reached) FROM lifecycle.funnel('none', cycle => 'every', by => 'source') GROUP BY segment ORDER BY segment COLLATE "C"$$,
    $$VALUES ('', 1::bigint), ('(none)', 1), ('web', 2)$$, 'the source is that of the first entry, in every cycle');

-- ---- a model that changes after the fact ----

SELECT lifecycle.copy_model('etumos', 'own');
CREATE TABLE edited (id text PRIMARY KEY, origin text, lifecycle_status text);
SELECT lifecycle.track('edited', model => 'own', source => 'origin');
SELECT replay('edited', '
A mal 2026-01-01 web
A mql 2026-01-02
A sal 2026-01-03
A sql 2026-01-05
A customer 2026-01-09
B mal 2026-01-02
B sal 2026-01-04
B recycled 2026-01-06
B mql 2026-01-08
C sal 2026-01-03 fair
C sql 2026-01-04
C lost 2026-01-08
D mql 2026-01-04
D sal 2026-01-10
D sql 2026-01-12');
SELECT agrees('edited', 'as it was');
UPDATE lifecycle.stage SET rank = rank * 10 WHERE model = 'own';
INSERT INTO lifecycle.stage (model, status, rank) VALUES ('own', 'demo', 35);
INSERT INTO lifecycle.transition VALUES ('own', 'sal', 'demo'), ('own', 'mql', 'demo'), ('own', 'demo', 'sql');
SELECT agrees('edited', 'a stage more');
SELECT results_eq('SELECT status, rank, reached, of_which_inferred FROM lifecycle.funnel(''edited'') WHERE rank IS NOT NULL',
    $$VALUES ('mal', 10, 4::bigint, 2::bigint), ('mql', 20, 4, 1), ('sal', 30, 4, 0), ('demo', 35, 3, 3), ('sql', 40, 3, 0), ('customer', 50, 1, 0)$$,
    'who was further passed over the new stage');
SELECT replay('edited', '
B demo 2026-01-14
E mql 2026-01-15
E demo 2026-01-16');
SELECT agrees('edited', 'and it is used');
UPDATE lifecycle.stage SET status = 'accepted' WHERE model = 'own' AND status = 'sal';
SELECT agrees('edited', 'a stage renamed');
SELECT results_eq($$SELECT status, rank, inflow, outflow FROM lifecycle.flow('edited', '2026-01-01', '2026-02-01', '1 month') WHERE status IN ('sal', 'accepted')$$,
    $$VALUES ('accepted', 30, 0::bigint, 0::bigint), ('sal', NULL, 4, 4)$$, 'moves keep the name of their time, and that has no rank');
SELECT replay('edited', '
F mql 2026-01-16
F accepted 2026-01-17');
DELETE FROM lifecycle.stage WHERE model = 'own' AND status = 'recycled';
SELECT agrees('edited', 'a detour less');
SELECT is((SELECT count(*) FROM lifecycle.funnel('edited') WHERE status IN ('sal', 'recycled')), 0::bigint, 'what the model does not have is not in the funnel');
SELECT results_eq($$SELECT status, rank, inflow, outflow FROM lifecycle.flow('edited', '2026-01-01', '2026-02-01', '1 month') WHERE status IN ('sal', 'recycled')$$,
    $$VALUES ('recycled', NULL::int, 1::bigint, 1::bigint), ('sal', NULL, 4, 4)$$, 'it is in the flow');
UPDATE lifecycle.stage SET rank = CASE status WHEN 'mql' THEN 45 END WHERE model = 'own' AND status IN ('mql', 'demo');
SELECT agrees('edited', 'a stage of the path that is a detour now, and one further along');
SELECT is_empty($$SELECT * FROM lifecycle.flow('edited', '2025-12-31', '2026-02-01', '3 days') WHERE closing <> opening + inflow - outflow$$, 'closing = opening + inflow - outflow, all the same');

-- ---- a history that its owner keeps in parts ----

CREATE TABLE kept (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('kept', model => 'etumos', source => 'origin');
SELECT replay('kept', '
A mal 2026-01-01 web
A mql 2026-01-12
A sal 2026-01-13
B sql 2026-01-12 fair
B customer 2026-01-20');
-- as a partition of his archive
CREATE TABLE archive (LIKE kept_history INCLUDING CONSTRAINTS) PARTITION BY RANGE (at);
ALTER TABLE archive ATTACH PARTITION kept_history FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
SELECT replay('kept', 'B recycled 2026-01-21');
SELECT agrees('kept', 'a partition of an archive');
ALTER TABLE archive DETACH PARTITION kept_history;
-- its old rows in a table that inherits from it
CREATE TABLE kept_history_old () INHERITS (kept_history);
ALTER TABLE kept_history DISABLE TRIGGER lifecycle_guard;
WITH old AS (DELETE FROM ONLY kept_history WHERE at < '2026-01-12' RETURNING *) INSERT INTO kept_history_old SELECT * FROM old;
ALTER TABLE kept_history ENABLE TRIGGER lifecycle_guard;
SELECT replay('kept', 'A sql 2026-01-22');
SELECT agrees('kept', 'old moves in a table of their own');

-- ---- buckets by the calendar of a time zone ----

CREATE TABLE days (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('days', model => 'etumos');
SELECT replay('days', '
A mal 2026-01-01
B mal 2026-01-01
C mql 2026-01-02');
CREATE FUNCTION lengths(since timestamptz, until timestamptz, step interval, tz text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(to_char(bucket AT TIME ZONE tz, 'MM-DD HH24:MI') || coalesce(' +' || extract(epoch FROM next - bucket)::int / 3600, ''), ', ' ORDER BY bucket)
    FROM (SELECT bucket, lead(bucket) OVER (ORDER BY bucket) AS next FROM lifecycle.flow('days', since, until, step, tz) WHERE status = 'mal') AS b
$$;
SELECT is(lengths('2025-03-29 00:00+01', '2025-04-01 00:00+02', '1 day', 'Europe/Berlin'), '03-29 00:00 +24, 03-30 00:00 +23, 03-31 00:00', 'a day of 23 hours in spring');
SELECT is(lengths('2025-10-25 00:00+02', '2025-10-28 00:00+01', '1 day', 'Europe/Berlin'), '10-25 00:00 +24, 10-26 00:00 +25, 10-27 00:00', 'a day of 25 hours in autumn');
SELECT is(lengths('2026-03-07 00:00-05', '2026-03-10 00:00-04', '1 day', 'America/New_York'), '03-07 00:00 +24, 03-08 00:00 +23, 03-09 00:00', 'another day of 23 hours');
SELECT is(lengths('2025-11-01 00:00-04', '2025-11-04 00:00-05', '1 day', 'America/New_York'), '11-01 00:00 +24, 11-02 00:00 +25, 11-03 00:00', 'and one of 25');
SELECT is(lengths('2025-03-30 00:00+01', '2025-03-30 05:00+02', '1 hour', 'Europe/Berlin'), '03-30 00:00 +1, 03-30 01:00 +1, 03-30 03:00 +1, 03-30 04:00', 'there is no hour from two to three in spring');
SELECT is(lengths('2025-10-26 01:00+02', '2025-10-26 04:00+01', '1 hour', 'Europe/Berlin'), '10-26 01:00 +1, 10-26 02:00 +1, 10-26 02:00 +1, 10-26 03:00', 'there are two in autumn');
SELECT is(lengths('2025-10-25 12:00+02', '2025-10-28 00:00+01', '1 day 90 minutes', 'Europe/Berlin'), '10-25 12:00 +26, 10-26 13:30 +25, 10-27 15:00', 'a step of days and hours: first the days, then the hours');
SELECT is_empty($$SELECT * FROM (
        SELECT tz, step, b.bucket, n.opens FROM (VALUES ('Europe/Berlin'), ('America/New_York'), ('Australia/Lord_Howe'), ('UTC')) AS z (tz),
            (VALUES ('1 hour'::interval), ('1 day'), ('36 hours'), ('1 month'), ('1 month 3 days 7 hours'), ('45 minutes 30 seconds'), ('1 week')) AS s (step),
            (VALUES ('2024-03-29 01:30+00'::timestamptz), ('2025-10-25 23:30:15.25+00'), ('2024-12-31 12:00+00')) AS f (since),
            LATERAL (SELECT since + least(40 * step, interval '400 days') AS until) AS u,
            LATERAL (SELECT bucket, row_number() OVER (ORDER BY bucket) AS place FROM lifecycle.flow('days', since, until, step, tz) WHERE status = 'mal') AS b
            FULL JOIN LATERAL (SELECT opens, row_number() OVER (ORDER BY opens) AS place FROM naive.buckets(since, until, step, tz)) AS n USING (place)
    ) AS d WHERE bucket IS DISTINCT FROM opens$$, 'as the server would add them in a session there');
SELECT is(lengths('2025-01-31 00:00+01', '2025-05-15 00:00+02', '1 month', 'Europe/Berlin'), '01-31 00:00 +672, 02-28 00:00 +743, 03-31 00:00 +720, 04-30 00:00', 'months from the 31st keep to the end of the month');
SELECT is(lengths('2025-03-29 00:00+00', '2025-04-01 00:00+00', '1 day', 'UTC'), '03-29 00:00 +24, 03-30 00:00 +24, 03-31 00:00', 'UTC has no such days');
UPDATE lifecycle.program SET tz = 'Europe/Berlin' WHERE lead_table = 'days'::regclass;
SELECT results_eq($$SELECT count(DISTINCT bucket), max(bucket) FROM lifecycle.flow('days', '2025-10-26 00:00+02', '2025-10-28 00:00+01')$$,
    $$VALUES (2::bigint, '2025-10-27 00:00+01'::timestamptz)$$, 'by default the calendar is the program''s');
SELECT results_eq($$SELECT bucket, inflow FROM lifecycle.flow('days', '2025-12-31 00:00+01', '2026-01-02 00:00+01') WHERE status = 'mal' ORDER BY 1$$,
    $$VALUES ('2025-12-31 00:00+01'::timestamptz, 0::bigint), ('2026-01-01 00:00+01', 2)$$, 'a move falls into the day that it has there');

-- ---- what can be asked wrongly ----

CREATE ROLE report_reader;
SELECT is(failure(statement), expected, 'error: ' || split_part(expected, E'\n', 1))
FROM (VALUES
    ($$SELECT lifecycle.funnel('days', mode => 'best')$$, '22023: mode must be "filled", "any" or "ordered", not "best"'),
    ($$SELECT lifecycle.funnel('days', mode => NULL)$$, '22023: mode must be "filled", "any" or "ordered", not "null"'),
    ($$SELECT lifecycle.funnel('days', cycle => 'last')$$, '22023: cycle must be "ever", "first" or "every", not "last"'),
    ($$SELECT lifecycle.funnel('days', by => 'origin')$$, '22023: by must be "source", "cohort" or null, not "origin"'),
    ($$SELECT lifecycle.flow('days', '-infinity', '2026-01-01')$$, E'22023: since and until must be finite\nHINT: The report has a row for each step between them.'),
    ($$SELECT lifecycle.flow('days', '2026-01-01', NULL)$$, E'22023: since and until must be finite\nHINT: The report has a row for each step between them.'),
    ($$SELECT lifecycle.flow('days', '2026-01-01', '2026-01-02', '0')$$, '22023: step must be positive, not "00:00:00"'),
    ($$SELECT lifecycle.flow('days', '2026-01-01', '2026-01-02', '-1 day')$$, '22023: step must be positive, not "-1 days"'),
    ($$SELECT lifecycle.flow('days', '2026-01-01', '2026-01-02', NULL)$$, '22023: step must be positive, not "null"'),
    ($$SELECT lifecycle.flow('days', '2000-01-01', '2026-01-02', '1 minute')$$, E'54000: more than 100000 steps between 2000-01-01 00:00:00+00 and 2026-01-02 00:00:00+00\nHINT: Take a longer step.'),
    ($$SELECT lifecycle.flow('days', '2026-01-01', '2026-01-02', '1 day', 'Mars/Phobos')$$, '22023: time zone "Mars/Phobos" not recognized'),
    ($$SELECT lifecycle.flow('days', '2026-01-01', '2026-01-02', '1 hour', 'Mars/Phobos')$$, '22023: time zone "Mars/Phobos" not recognized'),
    ($$SELECT lifecycle.funnel('days_history')$$, E'55000: table "public.days_history" is not tracked\nHINT: SELECT lifecycle.track(''public.days_history'');'),
    ($$SELECT lifecycle.flow(NULL, '2026-01-01', '2026-01-02')$$, E'55000: table "(null)" is not tracked\nHINT: Name the lead table.'),
    ($$SET LOCAL ROLE report_reader; SELECT lifecycle.funnel('days')$$, E'42501: permission denied for table days_history\nDETAIL: The report reads the history of public.days.\nHINT: GRANT SELECT ON public.days_history TO report_reader;'),
    ($$SET LOCAL ROLE report_reader; SELECT lifecycle.flow('days', '2026-01-01', '2026-01-02')$$, E'42501: permission denied for table days_history\nDETAIL: The report reads the history of public.days.\nHINT: GRANT SELECT ON public.days_history TO report_reader;'),
    ($$SELECT * FROM lifecycle.conversion('days_history', '2026-01-01', '2026-01-02')$$, E'55000: table "public.days_history" is not tracked\nHINT: SELECT lifecycle.track(''public.days_history'');'),
    ($$SELECT * FROM lifecycle.entry_conversion(NULL, 'mal', 'mql', '2026-01-01', '2026-01-02')$$, E'55000: table "(null)" is not tracked\nHINT: Name the lead table.'),
    ($$SELECT * FROM lifecycle.entry_conversion('days', 'hot', 'mql', '2026-01-01', '2026-01-02')$$,
     E'22023: "hot" is not a status of model "etumos"\nHINT: The statuses are: mal, mql, sal, sql, customer, disqualified, lost, recycled.'),
    ($$SELECT * FROM lifecycle.entry_conversion('days', 'mql', 'hot', '2026-01-01', '2026-01-02')$$,
     E'22023: "hot" is not a status of model "etumos"\nHINT: The statuses are: mal, mql, sal, sql, customer, disqualified, lost, recycled.'),
    ($$SELECT * FROM lifecycle.entry_conversion('days', 'mal', 'mql', within => '-1 day')$$, '22023: within must not be negative, and is "-1 days"'),
    ($$SELECT * FROM lifecycle.entry_conversion('days', 'mal', 'mql', as_of => 'infinity')$$, '22023: as_of must be finite'),
    ($$SELECT * FROM lifecycle.time_in_status('days', as_of => NULL)$$, '22023: as_of must be finite'),
    ($$SELECT * FROM lifecycle.time_in_status('days_history', '2026-01-01', '2026-01-02')$$, E'55000: table "public.days_history" is not tracked\nHINT: SELECT lifecycle.track(''public.days_history'');'),
    ($$SET LOCAL ROLE report_reader; SELECT * FROM lifecycle.entry_conversion('days', 'mal', 'mql', '2026-01-01', '2026-01-02')$$,
     E'42501: permission denied for table days_history\nDETAIL: The report reads the history of public.days.\nHINT: GRANT SELECT ON public.days_history TO report_reader;'),
    ($$SET LOCAL ROLE report_reader; SELECT * FROM lifecycle.time_in_status('days', '2026-01-01', '2026-01-02')$$,
     E'42501: permission denied for table days_history\nDETAIL: The report reads the history of public.days.\nHINT: GRANT SELECT ON public.days_history TO report_reader;')
) AS v (statement, expected);
DROP ROLE report_reader;

SELECT * FROM finish();
