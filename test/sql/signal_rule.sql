-- What a rule of a signal table may have, and what each refusal says.

\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE TABLE leads (id int PRIMARY KEY);
CREATE TABLE acts (lead int, kind text, rank int, at timestamptz);
CREATE INDEX ON acts (lead);
SELECT lifecycle.track('leads');
SELECT lifecycle.track_signal('acts', 'leads', 'lead', 'at');
INSERT INTO acts VALUES (1, 'visit', 0, now());

SELECT is(failure(format('INSERT INTO lifecycle.rule (on_table, name, condition, %s) VALUES (%L, %L, %L, %s)', r.columns, 'acts', 'r', 'kind = ''visit''', r.given)),
          '22023: rule "r" ' || r.message || E'\nHINT: ' || r.hint, r.message)
FROM (VALUES
    ('status, half_life', $$'mql', '1 day'$$, 'asks for a status and has a half_life', 'Points decay; leave out half_life. How old a signal may be says max_age.'),
    ('points, half_life', $$'1', '0'$$, 'has a half_life that is not greater than zero', 'Leave it NULL for points that do not decay.'),
    ('points, half_life', $$'1', '-1 day'$$, 'has a half_life that is not greater than zero', 'Leave it NULL for points that do not decay.'),
    ('points, max_age', $$'1', '1 day'$$, 'gives points and has a max_age', 'Points fade with their half_life; leave out max_age.'),
    ('status, max_age', $$'mql', '0'$$, 'has a max_age that is not greater than zero', 'Leave it NULL for signals of any age.'),
    ('points, unless_other', $$'1', 'true'$$, 'gives points and has unless_other', 'Each row gives its points; leave out unless_other.'),
    ('points, only_from', $$'1', '{mql}'$$, 'gives points and has only_from', 'The score of a lead does not depend on its status; leave out only_from.'),
    ('points, status', $$'1', 'mql'$$, 'gives both points and a status', 'Write two rules: one with points, one with a status.'),
    ('half_life', $$'1 day'$$, 'gives neither points nor a status', 'Set one of points and status.')
) AS r (columns, given, message, hint);
SELECT is(failure($$INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('acts', 'r', 'true', 'nosuch')$$),
          E'22023: "nosuch" is not a status of model "standard"\nDETAIL: Table "public.acts" follows model "standard".\nHINT: The statuses are: known, mal, engaged, mql, sal, sql, opportunity, customer, disqualified, lost, recycled.',
          'statuses are those of the leads'' model');
SELECT is(failure($$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('acts', 'r', $r$ behavior_score > 1 $r$, '1')$$),
          E'42P10: cannot use behavior_score in this expression\nDETAIL: Only the condition of a rule with a status can.', 'a signal is not judged by scores');
SELECT is(failure($$INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('acts', 'r', $r$ behavior_score > 1 $r$, 'mql')$$),
          E'42P10: cannot use behavior_score in this expression\nDETAIL: Only the condition of a rule with a status can.', 'nor where it asks for a status');
SELECT is(failure($$INSERT INTO lifecycle.rule (on_table, name, condition, status, unless_other) VALUES ('acts', 'r', 'true', 'mql', 'rank')$$),
          E'42804: unless_other of rule "r" gives integer, not boolean\nHINT: Cast the expression to boolean.', 'unless_other is a condition');
SELECT is(failure($$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('acts', 'r', '1 / rank > 0', '1')$$), '22012: division by zero', 'it is tried on rows that are there');
CREATE TABLE plain (lead int);
SELECT is(failure($$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('plain', 'r', 'true', '1')$$),
          E'55000: table "public.plain" is not tracked\nHINT: SELECT lifecycle.track(''public.plain'');', 'a table that is no signal table has no rules');
SELECT lives_ok($$INSERT INTO lifecycle.rule (on_table, name, condition, points, half_life) VALUES ('acts', 'visit', $r$ kind = 'visit' $r$, 'rank + 1', '7 days')$$, 'points that decay');
SELECT lives_ok($$INSERT INTO lifecycle.rule (on_table, name, condition, status, max_age, unless_other, only_from) VALUES ('acts', 'lost', $r$ kind = 'lost' $r$, 'lost', '1 year', $r$ kind = 'open' $r$, '{opportunity}')$$, 'a status with all that it can have');
SELECT results_eq('SELECT name, condition, points, unless_other, signal_table FROM lifecycle.rule ORDER BY name',
    $$VALUES ('lost', '(kind = ''lost''::text)', NULL, '(kind = ''open''::text)', 'acts'::regclass), ('visit', '(kind = ''visit''::text)', '(rank + 1)', NULL, 'acts')$$,
    'stored canonically, unless_other as well');
SELECT is(failure('SELECT lifecycle.behavior_score_from_signals(''plain'', ''1'', now())'),
          E'55000: table "public.plain" is not tracked\nHINT: SELECT lifecycle.track(''public.plain'');', 'nor has it scores');
SELECT is(failure('SELECT * FROM lifecycle.judge_signals(''leads'', ''plain'', ''1'')'), format('55000: table with OID %s has no signals of these leads', 'plain'::regclass::oid), 'nor rows to judge');

SELECT * FROM finish();
