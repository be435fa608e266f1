-- The reports at their edges: tables without leads, models that changed after the
-- fact, days that are not 24 hours long, and what can be asked wrongly.

CREATE EXTENSION lifecycle;
SELECT no_plan();

\ir ../lib/failure.sql
\ir ../lib/replay.sql
\ir ../lib/reports.sql

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
    ($$SET LOCAL ROLE report_reader; SELECT lifecycle.flow('days', '2026-01-01', '2026-01-02')$$, E'42501: permission denied for table days_history\nDETAIL: The report reads the history of public.days.\nHINT: GRANT SELECT ON public.days_history TO report_reader;')
) AS v (statement, expected);
DROP ROLE report_reader;

SELECT * FROM finish();
