-- When a move happened, who made it and why: lifecycle.at and its bounds, the
-- settings that live as long as a transaction, "entered", recorded_at.

CREATE EXTENSION lifecycle;
CREATE TABLE leads (id int PRIMARY KEY, created timestamptz, changed_by text, name text);
SELECT lifecycle.track('leads');
CREATE TABLE dated (id int PRIMARY KEY, created timestamptz, changed_by text);
SELECT lifecycle.track('dated', entered => 'created', actor => 'changed_by');
\ir ../lib/failure.sql

-- Fresh connections: settings given before the library is loaded. What was SET
-- by an earlier transaction of the session is not there; what this one sets is.
\c
SET lifecycle.at = '2020-01-01';
SET lifecycle.actor = 'somebody before';
SET lifecycle.reason = 'no more';
SET lifecycle.on_illegal = 'keep';
INSERT INTO leads (id) VALUES (1);
\c
BEGIN;
SET LOCAL lifecycle.at = '2020-01-02';
SET LOCAL lifecycle.actor = 'replay';
SET LOCAL lifecycle.reason = 'history';
INSERT INTO leads (id) VALUES (2);
COMMIT;
INSERT INTO leads (id) VALUES (3);
\c
BEGIN;
SET lifecycle.at = '2020-01-03';
INSERT INTO leads (id) VALUES (4);
COMMIT;
INSERT INTO leads (id) VALUES (5);
\c
SET lifecycle.on_illegal = 'keep';
SELECT failure($$UPDATE leads SET lifecycle_status = 'lost' WHERE id = 1$$) AS error_before_load \gset
\c
SET lifecycle.at = 'whenever';
INSERT INTO leads (id) VALUES (6);

SELECT no_plan();
SELECT results_eq('SELECT lead, CASE WHEN at < ''2021-01-01'' THEN at::date END, actor, reason FROM leads_history ORDER BY lead',
    $$VALUES (1, NULL::date, NULL, NULL), (2, '2020-01-02', 'replay', 'history'), (3, NULL, NULL, NULL), (4, '2020-01-03', NULL, NULL), (5, NULL, NULL, NULL), (6, NULL, NULL, NULL)$$,
    'before the library is loaded: settings of an earlier transaction do not count, those of this one do, by SET LOCAL and by SET');
SELECT matches(:'error_before_load'::text, '^23514', 'nor does lifecycle.on_illegal');

-- The same once it is loaded
SET lifecycle.at = '2020-02-01';
SET lifecycle.actor = 'somebody before';
SET lifecycle.reason = 'no more';
SET lifecycle.on_illegal = 'keep';
INSERT INTO leads (id) VALUES (11);
SELECT throws_ok($$UPDATE leads SET lifecycle_status = 'lost' WHERE id = 11$$, '23514', NULL, 'a session''s on_illegal is ignored');
BEGIN;
INSERT INTO leads (id) VALUES (12);
SET LOCAL lifecycle.at = '2020-02-02';
SET LOCAL lifecycle.actor = 'outer';
INSERT INTO leads (id) VALUES (13);
SAVEPOINT a;
SET LOCAL lifecycle.at = '2020-02-03';
SET LOCAL lifecycle.actor = 'inner';
SET LOCAL lifecycle.reason = 'inner';
INSERT INTO leads (id) VALUES (14);
ROLLBACK TO SAVEPOINT a;
INSERT INTO leads (id) VALUES (15);
SAVEPOINT b;
SET LOCAL lifecycle.at = '2020-02-04';
RELEASE SAVEPOINT b;
INSERT INTO leads (id) VALUES (16);
SET LOCAL lifecycle.at = '';
INSERT INTO leads (id) VALUES (17);
SET LOCAL lifecycle.at = '2020-02-05';
RESET lifecycle.at;
INSERT INTO leads (id) VALUES (18);
COMMIT;
BEGIN;
SET lifecycle.at = '2020-02-06';
INSERT INTO leads (id) VALUES (19);
ROLLBACK;
INSERT INTO leads (id) VALUES (20);
SELECT results_eq('SELECT lead, CASE WHEN at < ''2021-01-01'' THEN at::date END, actor, reason FROM leads_history WHERE lead BETWEEN 11 AND 20 ORDER BY lead',
    $$VALUES (11, NULL::date, NULL, NULL), (12, NULL, NULL, NULL), (13, '2020-02-02', 'outer', NULL), (15, '2020-02-02', 'outer', NULL),
             (16, '2020-02-04', 'outer', NULL), (17, NULL, 'outer', NULL), (18, NULL, 'outer', NULL), (20, NULL, NULL, NULL)$$,
    'a setting counts in the transaction that set it; savepoints give back the earlier one');
RESET lifecycle.on_illegal; RESET lifecycle.at; RESET lifecycle.actor; RESET lifecycle.reason;

-- Bounds of lifecycle.at
CREATE FUNCTION at(setting text, statement text) RETURNS text LANGUAGE sql AS $$
    SELECT failure(format('SET LOCAL lifecycle.at = %L; %s', setting, statement))
$$;
BEGIN;
SET LOCAL lifecycle.at = '2020-03-02';
INSERT INTO leads (id) VALUES (30);
COMMIT;
SELECT is(at('2020-03-01', $$UPDATE leads SET lifecycle_status = 'mql' WHERE id = 30$$),
'22023: lead 30 of table "public.leads" cannot move before its last move
DETAIL: "lifecycle.at" is 2020-03-01 00:00:00+00, the last move was at 2020-03-02 00:00:00+00.
HINT: Replay the moves of a lead in the order in which they happened.', 'not before the last move');
SELECT matches(at('2020-03-01', $$DELETE FROM leads WHERE id = 30$$), '^22023: lead 30 .* cannot move before its last move', 'nor can a removal be');
SELECT is(at('2020-03-02', $$UPDATE leads SET lifecycle_status = 'mql' WHERE id = 30$$), 'no error', 'at the same time is fine');
SELECT matches(at('2999-01-01', 'INSERT INTO leads (id) VALUES (31)'),
E'^22023: "lifecycle.at" is in the future\nDETAIL: "lifecycle.at" is 2999-01-01 00:00:00\\+00, the clock says 20.*\nHINT: A move happens now or has happened.$', 'not later than the clock');
SELECT matches(at(setting, 'INSERT INTO leads (id) VALUES (31)'), '^22023: "lifecycle.at" is in the future', setting || ' is no time of a move')
FROM (VALUES ('infinity'), ('-infinity')) AS v (setting);
SELECT is(at('last week', 'INSERT INTO leads (id) VALUES (31)'), '22007: invalid input syntax for type timestamp with time zone: "last week"', 'garbage is the type''s own error');
SELECT is(at('2020-02-30', 'INSERT INTO leads (id) VALUES (31)'), '22008: date/time field value out of range: "2020-02-30"', 'and so is a day that is not');
SELECT is(at('last week', $$UPDATE leads SET name = 'x' WHERE id = 30$$), 'no error', 'it is parsed at use: a write that moves nobody does not care');
SELECT is(at('2020-03-01', $$INSERT INTO leads (id) VALUES (30) ON CONFLICT DO NOTHING$$), 'no error', 'nor does ON CONFLICT DO NOTHING of a lead that moved later');
BEGIN;
SET LOCAL timezone = 'America/New_York';
SET LOCAL lifecycle.at = '2020-03-10 12:00';
INSERT INTO leads (id) VALUES (32);
COMMIT;
SELECT is((SELECT at FROM leads_history WHERE lead = 32), '2020-03-10 16:00+00'::timestamptz, 'a time without zone is that of the session');

-- Only members of the owner
CREATE ROLE tapb_owner;
CREATE ROLE tapb_member IN ROLE tapb_owner;
CREATE ROLE tapb_clerk;
ALTER TABLE dated OWNER TO tapb_owner;
GRANT USAGE ON SCHEMA public TO tapb_owner, tapb_clerk;
GRANT SELECT, INSERT, UPDATE, DELETE ON dated TO tapb_clerk;
SELECT is(failure($$SET LOCAL ROLE tapb_clerk; SET LOCAL lifecycle.at = '2020-01-01'; INSERT INTO dated (id) VALUES (1)$$),
'42501: permission denied to set "lifecycle.at" for table "public.dated"
DETAIL: Only members of role "tapb_owner", which owns the table, may say when a move happened.
HINT: Without it, a move happens now.', 'others may not say when a move happened');
SELECT is(failure($$SET LOCAL ROLE tapb_clerk; SET LOCAL lifecycle.actor = 'me'; SET LOCAL lifecycle.reason = 'because'; INSERT INTO dated (id) VALUES (1)$$), 'no error', 'but who and why');
SELECT is(failure($$SET LOCAL ROLE tapb_member; SET LOCAL lifecycle.at = '2020-01-01'; INSERT INTO dated (id) VALUES (2)$$), 'no error', 'members of the owner may');
SELECT is((SELECT session_user_name FROM dated_history WHERE lead = 1), session_user::text, 'session_user_name is who is connected, whatever SET ROLE says');
DROP OWNED BY tapb_clerk, tapb_member;
ALTER TABLE dated OWNER TO postgres;
REVOKE USAGE ON SCHEMA public FROM tapb_owner;
DROP OWNED BY tapb_owner;
DROP ROLE tapb_clerk, tapb_member, tapb_owner;

-- Entry: greatest(entered, last move of the key); NULL and future mean now
BEGIN;
SET LOCAL lifecycle.actor = 'setting';
INSERT INTO dated VALUES (10, NULL, 'Ann'), (11, '2020-01-01', NULL), (12, '2999-01-01', 'Ann'), (13, 'infinity', 'Ann'), (14, '-infinity', 'Ann');
SELECT results_eq('SELECT lead, CASE WHEN at = now() THEN ''now'' ELSE at::date::text END, entered_at = at, actor FROM dated_history WHERE lead BETWEEN 10 AND 14 ORDER BY lead',
    $$VALUES (10, 'now', true, 'Ann'), (11, '2020-01-01', true, NULL), (12, 'now', true, 'Ann'), (13, 'now', true, 'Ann'), (14, 'now', true, 'Ann')$$,
    '"entered" in the past is the entry; NULL, future and no time at all are now; the actor''s expression goes before the setting, also where it gives NULL');
UPDATE dated SET created = '2010-01-01', lifecycle_status = 'mql' WHERE id = 11;
SELECT results_eq('SELECT seq, at = now(), entered_at::date FROM dated_history WHERE lead = 11 ORDER BY seq', $$VALUES (1, false, '2020-01-01'::date), (2, true, '2020-01-01')$$,
    'a later move happens now, and the first entry stays what it was');
COMMIT;
DELETE FROM dated WHERE id = 11;
INSERT INTO dated VALUES (11, '2020-06-01', 'Ann');
SELECT results_eq('SELECT seq, to_status, at >= lag(at) OVER (ORDER BY seq), entered_at::date FROM dated_history WHERE lead = 11 ORDER BY seq',
    $$VALUES (1, 'known', NULL, '2020-01-01'::date), (2, 'mql', true, '2020-01-01'), (3, NULL, true, '2020-01-01'), (4, 'known', true, '2020-01-01')$$,
    'a key that comes back enters at the earliest with its last move');
SELECT is((SELECT l.at - m.at FROM dated_history l JOIN dated_history m USING (lead) WHERE lead = 11 AND l.seq = 4 AND m.seq = 3), interval '0', 'exactly then');
BEGIN;
SET LOCAL lifecycle.at = '2021-05-05';
INSERT INTO dated VALUES (20, '2021-05-01'), (21, '2021-05-06'), (22, NULL);
COMMIT;
SELECT results_eq('SELECT lead, at::date FROM dated_history WHERE lead BETWEEN 20 AND 22 ORDER BY lead', $$VALUES (20, '2021-05-01'::date), (21, '2021-05-05'), (22, '2021-05-05')$$,
    'in a replay, now is lifecycle.at');

-- Moves of one transaction, and a clock that was ahead
BEGIN;
INSERT INTO leads (id) VALUES (40);
UPDATE leads SET lifecycle_status = 'mql' WHERE id = 40;
UPDATE leads SET lifecycle_status = 'sal' WHERE id = 40;
SELECT results_eq('SELECT seq, to_status, at = now() FROM leads_history WHERE lead = 40 ORDER BY seq', $$VALUES (1, 'known', true), (2, 'mql', true), (3, 'sal', true)$$,
    'moves of one transaction have one time, and numbers in their order');
SELECT ok(bool_and(recorded_at >= at AND recorded_at <= clock_timestamp() AND recorded_at >= now()), 'recorded_at is the clock when it was written') FROM leads_history WHERE lead = 40;
COMMIT;
SELECT ok(bool_and(recorded_at > '2026-01-01' AND at < '2021-01-01'), 'a replay is recorded now') FROM leads_history WHERE lead IN (2, 4);
-- the last move lies ahead of now(), as where another server's clock was fast
ALTER TABLE leads_history DISABLE TRIGGER USER;
ALTER TABLE leads DISABLE TRIGGER USER;
UPDATE leads_history SET at = '2999-01-01', entered_at = '2999-01-01', cycle_since = '2999-01-01' WHERE lead = 3;
UPDATE leads SET lifecycle_since = '2999-01-01' WHERE id = 3;
ALTER TABLE leads_history ENABLE TRIGGER USER;
ALTER TABLE leads ENABLE TRIGGER USER;
SELECT FROM lifecycle.rebuild_flow('leads');
SELECT lives_ok($$UPDATE leads SET lifecycle_status = 'mql' WHERE id = 3$$, 'a lead whose last move lies ahead of the clock can move');
DELETE FROM leads WHERE id = 3;
SELECT lives_ok('INSERT INTO leads (id) VALUES (3)', 'and come back');
SELECT results_eq('SELECT seq, at FROM leads_history WHERE lead = 3 ORDER BY seq', $$SELECT n, '2999-01-01'::timestamptz FROM generate_series(1, 4) AS n$$,
    'a move is never before the last one: at is the later of now() and that');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');
SELECT is_empty($$SELECT * FROM lifecycle.verify('dated')$$, 'here neither');

SELECT * FROM finish();
