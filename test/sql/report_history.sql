-- What reports say from the history alone: conversion of parts of days, as its
-- helper counts it; statuses that the model no longer has; mistakes that are set
-- right one after the other, or after the moment of the report; what backfill
-- guessed; who left several times.

CREATE EXTENSION lifecycle;
SELECT no_plan();

\ir ../lib/failure.sql
\ir ../lib/replay.sql
\ir ../lib/reports.sql

CREATE FUNCTION converted(leads regclass, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity') RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(concat_ws(' ', c.from_status || '>' || coalesce(c.to_status, ''), c.moves, coalesce(trim_scale(round(c.period_rate::numeric, 4))::text, '-'),
                                trim_scale(round(c.exit_share::numeric, 4))), ', ' ORDER BY c.ordinality)
    FROM lifecycle.program p, lifecycle.conversion_of_history(p, p.history, since, until) WITH ORDINALITY AS c WHERE p.lead_table = leads
$$;
CREATE FUNCTION entered(leads regclass, from_status text, to_status text, within interval DEFAULT NULL, as_of timestamptz DEFAULT '2026-02-01') RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ', n, converted, coalesce(matured::text, '-'), coalesce(trim_scale(round(km_rate::numeric, 6))::text, '-'))
    FROM lifecycle.entry_conversion(leads, from_status, to_status, within => within, as_of => as_of)
$$;
CREATE FUNCTION stayed(leads regclass, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, as_of timestamptz DEFAULT '2026-02-01') RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(concat_ws(' ', status, completed, inside, coalesce(extract(day FROM mean)::text, '-'), coalesce(extract(day FROM km_median)::text, '-')), ', ' ORDER BY ordinality)
    FROM lifecycle.time_in_status(leads, since, until, as_of) WITH ORDINALITY
    WHERE completed + inside > 0
$$;

-- ---- the six leads ----

SELECT lifecycle.copy_model('etumos', 'own');
CREATE TABLE six (id text PRIMARY KEY, origin text, lifecycle_status text);
SELECT lifecycle.track('six', model => 'own');
SELECT replay('six', '
L1 mal 2026-01-01
L1 mql 2026-01-03
L1 sal 2026-01-04
L1 sql 2026-01-06
L1 customer 2026-01-20
L2 mal 2026-01-01
L2 sql 2026-01-05
L2 lost 2026-01-15
L2 sql 2026-01-18
L2 customer 2026-01-25
L3 mql 2026-01-02
L3 sal 2026-01-03
L3 recycled 2026-01-06
L3 mql 2026-01-16
L3 sal 2026-01-17
L4 mal 2026-01-02
L4 disqualified 2026-01-03
L4 - 2026-01-13
L5 sql 2026-01-04
L5 customer 2026-01-10
L6 mal 2026-01-05
L6 mql 2026-01-09
L6 recycled 2026-01-12
L6 disqualified 2026-01-14');
SELECT is(converted('six', since, until), 'mal>mql 2 0.5 0.5, mal>sql 1 0.25 0.25, mal>disqualified 1 0.25 0.25, mql>sal 3 0.75 0.75, mql>recycled 1 0.25 0.25, '
    'sal>sql 1 0.3333 0.5, sal>recycled 1 0.3333 0.5, sql>customer 3 0.75 0.75, sql>lost 1 0.25 0.25, disqualified> 1 0.5 1, lost>sql 1 1 1, '
    'recycled>mql 1 0.5 0.5, recycled>disqualified 1 0.5 0.5', format('conversion counted in the history, from %s', since))
FROM (VALUES (timestamptz '2026-01-01', timestamptz '2026-02-01'), ('-infinity', 'infinity')) AS v (since, until);
SELECT is(converted('six', '2026-01-03 00:00:00.000001', '2026-01-06'), 'mal>sql 1 1 1, mql>sal 1 - 1', 'since is inside, until is not, to the microsecond');
SELECT results_eq($$SELECT * FROM lifecycle.conversion('six', '2026-01-03 00:00:00.000001', '2026-01-06')$$,
    $$VALUES ('mal', 'sql', 1::bigint, 1::float8, 1::float8), ('mql', 'sal', 1, NULL, 1)$$, 'conversion() of a part of a day says so, too');
SELECT is(stayed('six', '2026-01-01', '2026-02-01'), stayed('six'), 'NULL is no bound');
SELECT is((SELECT concat_ws(' ', n, converted) FROM lifecycle.entry_conversion('six', 'mal', 'sql', NULL, NULL, NULL, '2026-02-01')), '4 2', 'nor is it there');

-- ---- statuses that the model no longer has ----

UPDATE lifecycle.stage SET status = 'accepted' WHERE model = 'own' AND status = 'sal';
DELETE FROM lifecycle.stage WHERE model = 'own' AND status = 'recycled';
SELECT results_eq($$SELECT status, rank, completed, inside, mean, p50, km_median FROM lifecycle.time_in_status('six', '2026-01-01', '2026-02-01', '2026-02-01') WHERE rank = 3 OR rank IS NULL$$,
    $$VALUES ('accepted', 3, 0::bigint, 0::bigint, NULL::interval, NULL::interval, NULL::interval), ('disqualified', NULL, 0, 1, NULL, NULL, NULL), ('lost', NULL, 1, 0, '3 days', '3 days', '3 days'),
             ('recycled', NULL, 2, 0, '6 days', '6 days', '2 days'), ('sal', NULL, 2, 1, '2 days 12:00', '2 days 12:00', '3 days')$$, 'who stayed there stayed there; it has no rank any more');
SELECT bag_eq($$SELECT status, rank FROM lifecycle.time_in_status('six', '2026-01-18', '2026-02-01', '2026-02-01')$$,
    $$SELECT status, rank FROM lifecycle.stage WHERE model = 'own'$$, 'without a visit in the period there is no row');
SELECT is(entered('six', 'mql', 'sal'), '3 2 - 0.666667', 'to a status that the model no longer has, that one alone');
SELECT is(entered('six', 'sal', 'sql'), '2 1 - 0.5', 'and from it');
SELECT is(entered('six', 'mal', 'recycled'), '4 1 - 0.25', 'one that was a detour');
SELECT is(entered('six', 'mal', 'accepted', '10 days'), '4 2 4 0.5', 'the path is that of today: who is further has come to the new name, too');
SELECT is(failure(format('SELECT lifecycle.entry_conversion(''six'', %L, %L)', f, t)),
    format(E'22023: "%s" is not a status of model "own"\nHINT: The statuses are: mal, mql, accepted, sql, customer, disqualified, lost.', bad), format('neither the model nor the history has it: %s', bad))
FROM (VALUES ('hot', 'mql', 'hot'), ('mql', 'SAL', 'SAL'), ('mql', NULL, 'null'), (NULL, 'mql', 'null')) AS v (f, t, bad);

-- ---- mistakes ----

CREATE TABLE wrong (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('wrong', model => 'etumos');
CREATE PROCEDURE correct(lead text, status text, at text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lifecycle.at', at, true), lifecycle.correct('wrong', lead, status, 'wrong button');
    COMMIT;
END $$;
-- sql and customer were both mistakes; mql was none
SELECT replay('wrong', '
M mal 2026-01-01
M sql 2026-01-03');
CALL correct('M', 'customer', '2026-01-04');
CALL correct('M', 'mql', '2026-01-05');
SELECT replay('wrong', 'M sal 2026-01-09');
-- the first mql of N was a mistake, the second was not
SELECT replay('wrong', '
N mql 2026-01-02');
CALL correct('N', 'mal', '2026-01-04');
SELECT replay('wrong', '
N mql 2026-01-10
N sal 2026-01-20');
SELECT is(converted('wrong'), 'mal>mql 1 1 1, mql>sal 2 2 1', 'two moves that were mistakes, and what set them right, convert nobody');
SELECT is(stayed('wrong'), 'mal 2 0 4 2, mql 2 0 7 4, sal 0 2 - -', 'nor have they a duration; what a correction opened has');
SELECT is(entered('wrong', 'mql', 'sal', '5 days'), '2 1 2 0.5', 'a lead enters when it is no mistake: by the correction, or later');
SELECT is(entered('wrong', 'mal', 'customer'), '2 0 - 0', 'it never became customer');
SELECT is(stayed('wrong', as_of => '2026-01-03'), 'mal 1 0 2 2', 'a mistake is one before it was set right, too');
SELECT is(entered('wrong', 'mal', 'sql', as_of => '2026-01-03'), '1 0 - 0', 'even on the day of it');
SELECT is((SELECT string_agg(n::text, ' ' ORDER BY place) FROM unnest('{sql,customer,mql}'::text[]) WITH ORDINALITY AS s (status, place),
           lifecycle.entry_conversion('wrong', s.status, 'customer', as_of => '2026-02-01')), '0 0 2', 'nobody was in sql, or became customer');
SELECT bag_eq($$SELECT status, completed, inside, mean, p50, p75, p90, km_median FROM lifecycle.time_in_status('wrong', as_of => '2026-01-15')$$,
    $$SELECT status, completed, inside, mean, p50, p75, p90, km_median FROM naive.time_in_status('wrong_history', 'etumos', '-infinity', 'infinity', '2026-01-15')$$, 'the second opinion says so, too');

-- ---- what backfill guessed ----

CREATE TABLE old (id text PRIMARY KEY, origin text, created timestamptz, lifecycle_status text);
INSERT INTO old VALUES ('O', NULL, '2026-01-01', 'mql'), ('P', NULL, '2026-01-01', 'mal'), ('Q', NULL, '2026-01-01', NULL);
SELECT lifecycle.track('old', model => 'etumos', entered => 'created');
CALL lifecycle.backfill('old');
UPDATE old SET lifecycle_status = 'sal' WHERE id = 'O';
UPDATE old SET lifecycle_status = 'recycled' WHERE id = 'O';
UPDATE old SET lifecycle_status = 'mql' WHERE id = 'O';
UPDATE old SET lifecycle_status = 'sal' WHERE id = 'O';
UPDATE old SET lifecycle_status = 'mql' WHERE id = 'P';
DELETE FROM old WHERE id = 'P';
INSERT INTO old VALUES ('R', NULL, '2026-01-01', 'mql');
UPDATE old SET lifecycle_status = 'sal' WHERE id = 'R';
-- inflow: mql 3 (O again, P, R), sal 3 (O, O again, R), recycled 1; O's and P's first exits are of guessed visits
SELECT is(converted('old'), 'mql>sal 2 0.6667 0.6667, mql> 1 0.3333 0.3333, sal>recycled 1 0.3333 1, recycled>mql 1 1 1', 'leaving what was guessed is no conversion, arriving from there is an arrival');
SELECT is((SELECT concat_ws(' ', n, converted) FROM lifecycle.entry_conversion('old', 'mql', 'sal')), '2 1', 'who was there by a guess has had his first entry; P and R enter');
SELECT is((SELECT concat_ws(' ', n, converted) FROM lifecycle.entry_conversion('old', 'sal', 'recycled')), '2 1', 'later entries are facts');
SELECT bag_eq($$SELECT from_status, to_status, moves, period_rate, exit_share FROM lifecycle.program p, lifecycle.conversion_of_history(p, p.history, '-infinity', 'infinity') WHERE lead_table = 'old'::regclass$$,
    $$SELECT * FROM lifecycle.conversion('old')$$, 'flow and history say the same');

-- ---- removed again and again ----

CREATE TABLE back (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('back', model => 'etumos');
SELECT replay('back', '
R mql 2026-01-01
R - 2026-01-03
R sal 2026-01-04
R - 2026-01-05
R customer 2026-01-09
S mql 2026-01-01
S - 2026-01-01
T mql 2026-01-01
T sal 2026-01-01');
SELECT is(entered('back', 'mql', 'sal', '2 days'), '3 1 3 0.333333', 'who came back too late; who stayed no time at all');
SELECT is(entered('back', 'mql', 'sal'), '3 2 - 0.333333', 'who came back did convert, but was lost from sight at the first removal');
SELECT is(stayed('back'), 'mql 1 0 0 -, sal 0 1 - -, customer 0 1 - -', 'removals complete no visit');
SELECT is(converted('back'), 'mql>sal 1 0.3333 0.3333, mql> 2 0.6667 0.6667, sal> 1 0.5 1', 'removals are exits, the last of each status');

-- ---- durations read well ----

CREATE TABLE long (id text PRIMARY KEY, origin text);
SELECT lifecycle.track('long', model => 'etumos');
SELECT replay('long', '
A mal 2026-01-01T00:00
A mql 2026-01-02T23:00
B mal 2026-01-01T00:00
B mql 2026-01-03T01:00
C mql 2026-01-01T00:00
C sal 2026-01-02T23:00
D mql 2026-01-01T00:00
D sal 2026-01-02T20:30');
SELECT results_eq($$SELECT status, mean::text, p50::text, p75::text FROM lifecycle.time_in_status('long', '2026-01-01', '2026-01-02', '2026-02-01') WHERE completed > 0$$,
    $$VALUES ('mal', '2 days', '2 days', '2 days 00:30:00'), ('mql', '1 day 21:45:00', '1 day 21:45:00', '1 day 22:22:30')$$, 'no 24 hours and more beside the days');

-- ---- whose rights ----

CREATE ROLE history_reader;
SELECT is(failure($$SET LOCAL ROLE history_reader; SELECT lifecycle.conversion('six', '2026-01-01 12:00')$$),
    E'42501: permission denied for table six_history\nDETAIL: The report reads the history of public.six.\nHINT: GRANT SELECT ON public.six_history TO history_reader;', 'conversion of a part of a day needs the history');
GRANT SELECT ON six_history TO history_reader;
SET ROLE history_reader;
SELECT is((SELECT n FROM lifecycle.entry_conversion('six', 'sal', 'sql')), 2::bigint, 'that is all it takes: a status that the model no longer has is looked for there');
SELECT is(lifecycle.survival_median(d * interval '1 day', d < 3), interval '2 days', 'anybody may estimate') FROM generate_series(1, 3) AS d;
RESET ROLE;
REVOKE SELECT ON six_history FROM history_reader;
DROP ROLE history_reader;

SELECT is_empty(format('SELECT * FROM lifecycle.verify(%L)', leads), leads || ': verify() finds nothing') FROM (VALUES ('wrong'), ('old'), ('back')) AS t (leads);

SELECT * FROM finish();
