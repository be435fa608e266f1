-- demographic_score(), entry_status() and explain(): what the rules say of a
-- row, and why a lead is where it is, without writing anything.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE ROLE explain_owner;
CREATE ROLE explain_reader;
CREATE ROLE "explain Nobody";
CREATE SCHEMA crm AUTHORIZATION explain_owner;
GRANT USAGE ON SCHEMA crm TO explain_reader, "explain Nobody";
SET client_min_messages = error;

SET ROLE explain_owner;
-- a column with the name of an alias
CREATE TABLE crm.leads (id int PRIMARY KEY, l int, title text, email text, employees int, divisor int DEFAULT 1, owner text);
INSERT INTO crm.leads (id, title) VALUES (0, 'VP Sales');
SELECT lifecycle.track('crm.leads', actor => 'owner');
GRANT SELECT ON crm.leads TO explain_reader;
INSERT INTO lifecycle.rule (on_table, name, condition, points, enabled) VALUES
    ('crm.leads', 'decision maker', $$title ~* '\m(vp|chief)\M'$$, '20', true),
    ('crm.leads', 'free mail', $$email LIKE '%@gmail.com'$$, '-20', true),
    ('crm.leads', 'size', 'employees > 5', 'employees / 10.0', false);
INSERT INTO lifecycle.rule (on_table, name, condition, status, only_from, priority, enabled) VALUES
    ('crm.leads', 'qualified', 'demographic_score >= 20', 'mql', NULL, 0, true),
    ('crm.leads', 'taken', 'owner IS NOT NULL', 'sal', '{mql}', 0, true),
    ('crm.leads', 'junk', $$email LIKE '%@example.com'$$, 'disqualified', NULL, 0, true),
    ('crm.leads', 'large', 'employees > 1000', 'opportunity', NULL, 5, true),
    ('crm.leads', 'won', 'employees > 1000', 'customer', NULL, 0, false);
INSERT INTO crm.leads (id, title, email, employees) VALUES (1, 'Chief', 'a@b.org', 7), (2, 'Clerk', 'x@gmail.com', 3), (3, NULL, NULL, NULL);
RESET ROLE;

-- ---- what the rules give a row ----

SELECT results_eq('SELECT id, lifecycle.demographic_score(l.*), lifecycle.entry_status(l.*) FROM crm.leads l ORDER BY id',
                  $$VALUES (0, 20::float8, 'mql'), (1, 20, 'mql'), (2, -20, 'known'), (3, 0, 'known')$$, 'a score and a status for each row');
UPDATE crm.leads SET lifecycle_status = 'sql' WHERE id = 1;
SELECT is((SELECT lifecycle.entry_status(l.*) FROM crm.leads l WHERE id = 1), 'mql', 'wherever the lead is');
SELECT is((SELECT demographic_score FROM crm.leads WHERE id = 0), NULL, 'nothing is written');
SELECT is(lifecycle.demographic_score(NULL::crm.leads), NULL, 'NULL has no score');
SELECT is(lifecycle.entry_status(NULL::crm.leads), NULL, 'and no status');
SELECT is((SELECT lifecycle.demographic_score(r) FROM (VALUES (1)) AS v LEFT JOIN crm.leads r ON r.id = 99), NULL, 'nor has the empty side of a join');
SELECT is(lifecycle.demographic_score(jsonb_populate_record(NULL::crm.leads, '{"id": 9, "title": "VP", "email": "x@gmail.com"}')), 0::float8, 'the row need not be stored');
SELECT is(lifecycle.entry_status(jsonb_populate_record(NULL::crm.leads, '{"email": "x@example.com"}')), 'disqualified', 'nor have a key');
CREATE DOMAIN crm.lead AS crm.leads;
SELECT is(lifecycle.demographic_score(jsonb_populate_record(NULL::crm.lead, '{"title": "VP"}')), 20::float8, 'a domain over the row type is that type');
DO $$
DECLARE r record; typed crm.leads;
BEGIN
    SELECT * INTO typed FROM crm.leads WHERE id = 0;
    typed.email := 'x@gmail.com';
    IF lifecycle.demographic_score(typed) <> 0 THEN RAISE 'wrong score'; END IF;
END $$;
SELECT pass('a variable of plpgsql');
PREPARE scores AS SELECT sum(lifecycle.demographic_score(r)) FROM crm.leads r;
SELECT results_eq('EXECUTE scores', 'VALUES (20::float8)', 'prepared');
UPDATE lifecycle.rule SET points = '25' WHERE name = 'decision maker';
SELECT results_eq('EXECUTE scores', 'VALUES (30::float8)', 'a prepared statement obeys the change of a rule');
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SELECT set_config(name, 'on', true) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT results_eq('SELECT sum(lifecycle.demographic_score(r)) FROM crm.leads r', 'VALUES (30::float8)', 'where queries are made parallel');
SELECT is((SELECT count(*) FROM lifecycle.explain('crm.leads', 1)), 16::bigint, 'explain() as well');
COMMIT;
UPDATE lifecycle.rule SET points = '20' WHERE name = 'decision maker';

-- ---- what is no row ----

CREATE VIEW crm.shown AS SELECT * FROM crm.leads;
CREATE TYPE crm.pair AS (id int, title text);
CREATE TABLE crm.other (id int PRIMARY KEY, title text);
INSERT INTO crm.other VALUES (1, 'VP');
SELECT is(failure('SELECT lifecycle.demographic_score(s) FROM crm.shown s'),
          E'42809: demographic_score needs a row of a tracked table\nDETAIL: The value is a row of view "crm.shown".\n'
          'HINT: Pass the whole row of the table, as in: SELECT lifecycle.demographic_score(l) FROM crm.leads l;', 'a row of a view has the type of the view');
SELECT is(failure('SELECT lifecycle.entry_status(ROW(1, 2))'),
          E'42809: entry_status needs a row of a tracked table\nDETAIL: The value is a record that belongs to no table.\n'
          'HINT: Pass the whole row of the table, as in: SELECT lifecycle.entry_status(l) FROM crm.leads l;', 'a record');
SELECT is(failure('SELECT lifecycle.entry_status(s) FROM (SELECT id, title FROM crm.leads) s'),
          E'42809: entry_status needs a row of a tracked table\nDETAIL: The value is a record that belongs to no table.\n'
          'HINT: Pass the whole row of the table, as in: SELECT lifecycle.entry_status(l) FROM crm.leads l;', 'a row of a subquery');
SELECT is(failure('SELECT lifecycle.demographic_score(ROW(1, 2)::crm.pair)'),
          E'42809: demographic_score needs a row of a tracked table\nDETAIL: The value is of type crm.pair.\n'
          'HINT: Pass the whole row of the table, as in: SELECT lifecycle.demographic_score(l) FROM crm.leads l;', 'a composite type');
SELECT is(failure('SELECT lifecycle.demographic_score(o) FROM crm.other o'),
          E'55000: table "crm.other" is not tracked\nHINT: SELECT lifecycle.track(''crm.other'');', 'a table that is not tracked');
SELECT is(failure('SELECT lifecycle.judge(o) FROM crm.other o'),
          E'55000: table "crm.other" is not tracked\nHINT: SELECT lifecycle.track(''crm.other'');', 'judge() says the same');
SELECT is(failure('SELECT lifecycle.demographic_score(NULL::crm.leads), lifecycle.demographic_score(jsonb_populate_record(NULL::crm.leads, ''{}''))', 'explain Nobody'),
          E'42501: permission denied for table leads\nHINT: GRANT SELECT ON crm.leads TO "explain Nobody";', 'who may not read the table cannot ask about its rows');
GRANT SELECT (id, title) ON crm.leads TO "explain Nobody";
SELECT is(failure('SELECT lifecycle.entry_status(jsonb_populate_record(NULL::crm.leads, ''{}''))', 'explain Nobody'),
          E'42501: permission denied for table leads\nHINT: GRANT SELECT ON crm.leads TO "explain Nobody";', 'nor who may read some columns');
SET ROLE explain_reader;
SELECT is((SELECT lifecycle.demographic_score(r) FROM crm.leads r WHERE id = 2), -20::float8, 'SELECT is enough');
RESET ROLE;

-- ---- explain() ----

CREATE FUNCTION told(lead int) RETURNS TABLE (line text) LANGUAGE sql AS $$
    SELECT concat_ws(' | ', kind, coalesce(name, '-'), on_table, coalesce(holds::text, '-'), coalesce(points::text, '-'),
                     regexp_replace(detail, 'since \d[^,]*,', 'since ...,'))
    FROM lifecycle.explain('crm.leads', lead) WITH ORDINALITY AS e (kind, name, on_table, holds, points, detail, n) ORDER BY n
$$;
SELECT results_eq('SELECT * FROM told(2)', $$VALUES
    ('status | known | - | - | since ..., move 1, entered'),
    ('score | demographic_score | - | -20'),
    ('score | behavior_score | - | 0 | no signals are tracked'),
    ('rule | decision maker | crm.leads | false | -'),
    ('rule | free mail | crm.leads | true | -20'),
    ('rule | junk | crm.leads | false | - | to disqualified: does not hold'),
    ('rule | large | crm.leads | false | - | to opportunity: does not hold'),
    ('rule | qualified | crm.leads | false | - | to mql: does not hold'),
    ('rule | size | crm.leads | false | - | disabled'),
    ('rule | taken | crm.leads | false | - | to sal: applies only from mql'),
    ('rule | won | crm.leads | false | - | disabled; to customer: does not hold'),
    ('next | mal | false | - | no rule asks for it: only a write leads there'),
    ('next | engaged | false | - | no rule asks for it: only a write leads there'),
    ('next | mql | false | - | rule "qualified" does not hold'),
    ('next | sal | false | - | rule "taken" does not apply from known: only a write leads there'),
    ('next | sql | false | - | no rule asks for it: only a write leads there'),
    ('next | opportunity | false | - | rule "large" does not hold'),
    ('next | customer | false | - | rule "won" is disabled: only a write leads there'),
    ('next | disqualified | false | - | rule "junk" does not hold')$$, 'a lead that entered by itself');
SELECT is((SELECT detail FROM lifecycle.explain('crm.leads', 1) WHERE kind = 'status'),
          (SELECT format('since %s, move 2, by a write', date_trunc('second', lifecycle_since)) FROM crm.leads WHERE id = 1), 'since when');
SELECT is((SELECT line FROM told(1) WHERE line LIKE 'rule | qualified%'), 'rule | qualified | crm.leads | true | - | to mql: no transition from sql to mql in model "standard"', 'a move that is not legal');
SELECT results_eq('SELECT * FROM told(0)', $$VALUES
    ('status | - | - | - | the lead has not entered; CALL lifecycle.backfill(''crm.leads'') brings it in'),
    ('score | demographic_score | - | - | not stored yet: the rules give 20; CALL lifecycle.rescore(''crm.leads'') stores it'),
    ('score | behavior_score | - | 0 | no signals are tracked'),
    ('rule | decision maker | crm.leads | true | 20'),
    ('rule | free mail | crm.leads | false | -'),
    ('rule | junk | crm.leads | false | - | to disqualified: does not hold'),
    ('rule | large | crm.leads | false | - | to opportunity: does not hold'),
    ('rule | qualified | crm.leads | true | - | to mql: counts when the lead enters'),
    ('rule | size | crm.leads | false | - | disabled'),
    ('rule | taken | crm.leads | false | - | to sal: takes no part in an entry'),
    ('rule | won | crm.leads | false | - | disabled; to customer: does not hold'),
    ('next | known | false | - | only a write lets the lead enter here'),
    ('next | mal | false | - | only a write lets the lead enter here'),
    ('next | engaged | false | - | only a write lets the lead enter here'),
    ('next | mql | true | - | CALL lifecycle.backfill(''crm.leads'') lets the lead enter here'),
    ('next | sal | false | - | only a write lets the lead enter here'),
    ('next | sql | false | - | only a write lets the lead enter here'),
    ('next | opportunity | false | - | only a write lets the lead enter here'),
    ('next | customer | false | - | only a write lets the lead enter here'),
    ('next | disqualified | false | - | only a write lets the lead enter here'),
    ('next | lost | false | - | only a write lets the lead enter here'),
    ('next | recycled | false | - | only a write lets the lead enter here')$$, 'a lead that is older than track()');

-- a rule whose edge is spent, and one behind it
INSERT INTO crm.leads (id, lifecycle_status, employees, email, owner) VALUES (4, 'mql', 2000, 'x@example.com', 'ann');
SELECT results_eq($$SELECT line FROM told(4) WHERE line ~ '^(status|next|rule . (junk|large|taken|qualified|won))'$$, $$VALUES
    ('status | mql | - | - | since ..., move 1, entered, actor ann'),
    ('rule | junk | crm.leads | true | - | to disqualified: holds already, behind rule "large"'),
    ('rule | large | crm.leads | true | - | to opportunity: holds already: moves the lead when a write makes it hold anew, or by CALL lifecycle.rescore(''crm.leads'', move => true)'),
    ('rule | qualified | crm.leads | false | - | to mql: the lead is there'),
    ('rule | taken | crm.leads | true | - | to sal: holds already, behind rule "large"'),
    ('rule | won | crm.leads | true | - | disabled; to customer: holds'),
    ('next | sal | true | - | rule "taken" holds already, behind rule "large"'),
    ('next | sql | false | - | no rule asks for it: only a write leads there'),
    ('next | opportunity | true | - | rule "large" holds already, see above'),
    ('next | customer | false | - | rule "won" is disabled: only a write leads there'),
    ('next | disqualified | true | - | rule "junk" holds already, behind rule "large"'),
    ('next | lost | false | - | no rule asks for it: only a write leads there'),
    ('next | recycled | false | - | no rule asks for it: only a write leads there')$$, 'rules that hold and have not moved the lead');

-- what moved the lead
INSERT INTO crm.leads (id, title) VALUES (5, 'VP');
SELECT is((SELECT line FROM told(5) LIMIT 1), 'status | mql | - | - | since ..., move 1, entered by rule "qualified"', 'entered by a rule');
UPDATE crm.leads SET owner = 'bob' WHERE id = 5;
SELECT is((SELECT line FROM told(5) LIMIT 1), 'status | sal | - | - | since ..., move 2, by rule "taken", actor bob', 'moved by a rule');
SELECT lifecycle.correct('crm.leads', 5, 'mql', 'not taken');
SELECT is((SELECT line FROM told(5) LIMIT 1), 'status | mql | - | - | since ..., move 3, corrected, actor bob', 'corrected');

-- several rules
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES
    ('crm.leads', 'large too', 'employees > 1000', 'opportunity'), ('crm.leads', 'largest', 'employees > 10000', 'opportunity');
SELECT is((SELECT detail FROM lifecycle.explain('crm.leads', 5) WHERE kind = 'next' AND name = 'opportunity'), 'rules "large", "large too" and 1 more do not hold', 'three rules that ask for the same');
DELETE FROM lifecycle.rule WHERE name = 'largest';
SELECT is((SELECT detail FROM lifecycle.explain('crm.leads', 5) WHERE kind = 'next' AND name = 'opportunity'), 'rules "large" and "large too" do not hold', 'and two');
DELETE FROM lifecycle.rule WHERE name = 'large too';

-- a stale score; rules with a status are judged by the stored one
UPDATE lifecycle.rule SET points = '12.5' WHERE name = 'decision maker';
SELECT results_eq($$SELECT name, holds, points, detail FROM lifecycle.explain('crm.leads', 5) WHERE name IN ('demographic_score', 'qualified', 'decision maker')$$, $$VALUES
    ('demographic_score', NULL, 20::float8, 'stale: the rules give 12.5 today; CALL lifecycle.rescore(''crm.leads'') stores it'),
    ('decision maker', true, 12.5, NULL),
    ('qualified', true, NULL, 'to mql: the lead is there')$$, 'a stale score');
UPDATE lifecycle.rule SET points = '20' WHERE name = 'decision maker';

-- rules that fail
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('crm.leads', 'ratio', '1 / divisor > 0', '1'), ('crm.leads', 'share', 'true', 'sqrt(employees)');
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('crm.leads', 'ratio to lost', '1 / divisor > 0', 'lost');
UPDATE lifecycle.rule SET enabled = false WHERE name LIKE 'ratio%' OR name = 'share';
UPDATE crm.leads SET divisor = 0, employees = -1 WHERE id = 5;
SELECT results_eq($$SELECT name, holds, points, detail FROM lifecycle.explain('crm.leads', 5) WHERE kind = 'score' OR name LIKE 'ratio%' OR name IN ('share', 'lost')$$, $$VALUES
    ('demographic_score', NULL::boolean, 20::float8, NULL),
    ('behavior_score', NULL, 0, 'no signals are tracked'),
    ('ratio', NULL, NULL, 'disabled; fails: division by zero'),
    ('ratio to lost', NULL, NULL, 'disabled; to lost: fails: division by zero'),
    ('share', NULL, NULL, 'disabled; fails: cannot take square root of a negative number'),
    ('lost', false, NULL, 'rule "ratio to lost" is disabled: only a write leads there')$$, 'a disabled rule that fails is told of');
-- enabled, and fails: as after a change of data behind our back
ALTER TABLE lifecycle.rule DISABLE TRIGGER checked;
UPDATE lifecycle.rule SET enabled = true WHERE name LIKE 'ratio%';
ALTER TABLE lifecycle.rule ENABLE TRIGGER checked;
SELECT results_eq($$SELECT name, holds, points, detail FROM lifecycle.explain('crm.leads', 5) WHERE kind = 'score' OR name LIKE 'ratio%' OR name = 'lost'$$, $$VALUES
    ('demographic_score', NULL::boolean, 20::float8, 'not known today: rule "ratio" fails'),
    ('behavior_score', NULL, 0, 'no signals are tracked'),
    ('ratio', NULL, NULL, 'fails: division by zero'),
    ('ratio to lost', NULL, NULL, 'to lost: fails: division by zero'),
    ('lost', false, NULL, 'rule "ratio to lost" fails')$$, 'one that is enabled is, too');
SELECT matches(failure($$SELECT lifecycle.demographic_score(r) FROM crm.leads r WHERE id = 5$$),
               $$^22012: division by zero\nHINT: To go on without the rule: UPDATE lifecycle.rule SET enabled = false WHERE on_table = 'crm.leads'::regclass AND name = 'ratio';$$,
               'for demographic_score() it is an error that says what to do');
-- without a stored score nothing can be judged by it
UPDATE crm.leads SET divisor = 0 WHERE false;
ALTER TABLE crm.leads DISABLE TRIGGER USER;
UPDATE crm.leads SET divisor = 0 WHERE id = 0;
ALTER TABLE crm.leads ENABLE TRIGGER USER;
SELECT results_eq($$SELECT name, holds, detail FROM lifecycle.explain('crm.leads', 0) WHERE name IN ('demographic_score', 'qualified', 'mql')$$, $$VALUES
    ('demographic_score', NULL, 'not known today: rule "ratio" fails'),
    ('qualified', NULL, 'to mql: cannot be judged without the score'),
    ('mql', false, 'only a write lets the lead enter here')$$, 'what needs the score cannot be judged without');
DELETE FROM lifecycle.rule WHERE name LIKE 'ratio%' OR name = 'share';
-- a rule that no longer compiles, as a restore may leave it
ALTER TABLE lifecycle.rule DISABLE TRIGGER checked;
INSERT INTO lifecycle.rule (on_table, name, condition, points, enabled) VALUES ('crm.leads', 'broken', '(crm.score(employees) > 0)', '1', false);
ALTER TABLE lifecycle.rule ENABLE TRIGGER checked;
SELECT results_eq($$SELECT holds, detail FROM lifecycle.explain('crm.leads', 5) WHERE name = 'broken'$$,
                  $$VALUES (NULL::boolean, 'disabled; fails: function crm.score(integer) does not exist')$$, 'a rule whose function is gone');
DELETE FROM lifecycle.rule WHERE name = 'broken';
-- what is no fault of a rule is raised
CREATE FUNCTION crm.cancel() RETURNS boolean STABLE LANGUAGE plpgsql AS $$ BEGIN RAISE 'stop' USING ERRCODE = 'query_canceled'; END $$;
INSERT INTO crm.leads (id) VALUES (50);
ALTER TABLE lifecycle.rule DISABLE TRIGGER checked;
INSERT INTO lifecycle.rule (on_table, name, condition, points, enabled) VALUES ('crm.leads', 'cancel', 'crm.cancel()', '1', false);
ALTER TABLE lifecycle.rule ENABLE TRIGGER checked;
\set ON_ERROR_STOP off
BEGIN;
SAVEPOINT a;
SELECT count(*) FROM lifecycle.explain('crm.leads', 5);
\set state :LAST_ERROR_SQLSTATE
ROLLBACK TO a;
SELECT is(:'state'::text, '57014', 'a cancel cancels');
COMMIT;
\set ON_ERROR_STOP on
DELETE FROM lifecycle.rule WHERE name = 'cancel';

-- a model that changes
SELECT lifecycle.copy_model('standard', 'mine');
UPDATE lifecycle.program SET model = 'mine' WHERE lead_table = 'crm.leads'::regclass;
UPDATE lifecycle.stage SET reason_required = true WHERE model = 'mine' AND status IN ('disqualified', 'lost');
SELECT results_eq($$SELECT detail FROM lifecycle.explain('crm.leads', 2) WHERE kind = 'next' AND name = 'disqualified'$$, $$VALUES ('rule "junk" does not hold; needs a reason')$$, 'a reason is needed');
DELETE FROM lifecycle.transition WHERE model = 'mine' AND 'sal' IN (from_status, to_status);
DELETE FROM lifecycle.stage WHERE model = 'mine' AND status = 'sal';
SELECT results_eq($$SELECT detail FROM lifecycle.explain('crm.leads', 2) WHERE name = 'taken'$$, $$VALUES ('to sal: model "mine" lacks that status')$$, 'a status that the model lacks');
DELETE FROM lifecycle.transition WHERE model = 'mine' AND 'mql' IN (from_status, to_status);
DELETE FROM lifecycle.stage WHERE model = 'mine' AND status = 'mql';
SELECT results_eq($$SELECT kind, name, regexp_replace(detail, '^since[^,]*,', '...') FROM lifecycle.explain('crm.leads', 5) WHERE kind IN ('status', 'next')$$,
                  $$VALUES ('status', 'mql', '... move 3, corrected, actor bob; model "mine" lacks it')$$, 'a lead whose status the model lacks');
UPDATE lifecycle.program SET model = 'standard' WHERE lead_table = 'crm.leads'::regclass;

-- ---- arguments and privileges ----

SELECT is(failure($$SELECT lifecycle.explain('crm.leads', 99)$$), 'P0002: table "crm.leads" has no lead 99', 'no such lead');
SELECT is(failure($$SELECT lifecycle.explain('crm.leads', 'x')$$), '22P02: invalid input syntax for type integer: "x"', 'no such key');
SELECT is(failure($$SELECT lifecycle.explain('crm.leads', NULL::int)$$), '22004: lead_table and lead must not be null', 'no key');
SELECT is(failure($$SELECT lifecycle.explain('crm.leads', NULL)$$), '22004: lead_table and lead must not be null', 'not even a typed one');
SELECT is(failure($$SELECT lifecycle.explain(NULL, 1)$$), '22004: lead_table and lead must not be null', 'no table');
SELECT is(failure($$SELECT lifecycle.explain('crm.other', 1)$$), E'55000: table "crm.other" is not tracked\nHINT: SELECT lifecycle.track(''crm.other'');', 'not tracked');
SELECT is(failure($$SELECT lifecycle.explain('crm.leads', 1)$$, 'explain Nobody'), E'42501: permission denied for table leads\nHINT: GRANT SELECT ON crm.leads TO "explain Nobody";', 'no SELECT');
SELECT results_eq($$SELECT * FROM lifecycle.explain('crm.leads', 1)$$, $$SELECT * FROM lifecycle.explain('crm.leads', '1')$$, 'the key as a text');
SELECT results_eq($$SELECT * FROM lifecycle.explain('crm.leads', 1)$$, $$SELECT * FROM lifecycle.explain('crm.leads', 1::bigint)$$, 'or of another type');
SET ROLE explain_reader;
SELECT matches((SELECT detail FROM lifecycle.explain('crm.leads', 5) WHERE kind = 'status'), '^since [^,]*, move 3$', 'who may not read the history is told what the row says');
RESET ROLE;
ALTER TABLE crm.leads ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON crm.leads TO explain_reader USING (id < 5);
SELECT is(failure($$SELECT lifecycle.explain('crm.leads', 5)$$, 'explain_reader'), 'P0002: table "crm.leads" has no lead 5', 'a lead that row security hides is not there');
SET default_transaction_read_only = on;
SELECT is((SELECT count(*) FROM lifecycle.explain('crm.leads', 1)), 16::bigint, 'nothing is written');
RESET default_transaction_read_only;

-- ---- odd names, other keys, partitions ----

CREATE TABLE crm."odd ""%s" ("the key" text, "my status" text, "a b" text, PRIMARY KEY ("the key")) PARTITION BY LIST ("the key");
CREATE TABLE crm."part 1" (extra int, "a b" text, "my status" text, "the key" text NOT NULL);
ALTER TABLE crm."part 1" DROP COLUMN extra;
ALTER TABLE crm."odd ""%s" ATTACH PARTITION crm."part 1" FOR VALUES IN ('', 'it''s', 'B');
SELECT lifecycle.track('crm."odd ""%s"', status_column => 'my status', prefix => 'odd');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('crm."odd ""%s"', 'it"s %s', '"a b" = ''x''', '1');
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('crm."odd ""%s"', 'Übergang', '"a b" = ''y''', 'mql');
INSERT INTO crm."odd ""%s" ("the key", "a b") VALUES ('', 'x'), ('it''s', 'y'), ('B', 'z');
SELECT results_eq('SELECT lifecycle.demographic_score(p), lifecycle.entry_status(p) FROM crm."part 1" p ORDER BY "the key" COLLATE "C"',
                  $$VALUES (1::float8, 'known'), (0, 'known'), (0, 'mql')$$, 'a row of a partition');
SELECT results_eq('SELECT lifecycle.demographic_score(p), lifecycle.entry_status(p) FROM crm."odd ""%s" p ORDER BY "the key" COLLATE "C"',
                  $$VALUES (1::float8, 'known'), (0, 'known'), (0, 'mql')$$, 'of the whole');
SELECT results_eq($$SELECT kind, name, holds, points, regexp_replace(detail, '^since[^,]*', '...') FROM lifecycle.explain('crm."odd ""%s"', 'it''s') WHERE kind <> 'next'$$, $$VALUES
    ('status', 'mql', NULL::boolean, NULL::float8, '..., move 1, entered by rule "Übergang"'),
    ('score', 'demographic_score', NULL, 0, NULL), ('score', 'behavior_score', NULL, 0, 'no signals are tracked'),
    ('rule', 'it"s %s', false, NULL, NULL), ('rule', 'Übergang', true, NULL, 'to mql: the lead is there')$$, 'odd names');
SELECT is((SELECT points FROM lifecycle.explain('crm."odd ""%s"', '') WHERE name = 'demographic_score'), 1::float8, 'an empty key');

-- many rules, none of which leaks: the second call finds the first one's memory free
INSERT INTO lifecycle.rule (on_table, name, condition, points, enabled)
SELECT 'crm."odd ""%s"', 'n' || g, format('"a b" ~ ''^z{%s}$''', g % 200), g::text, g % 2 = 0 FROM generate_series(1, 300) AS g;
SELECT is((SELECT count(*) FROM lifecycle.explain('crm."odd ""%s"', 'B') WHERE kind = 'rule'), 302::bigint, '302 rules');
SELECT sum(used_bytes) AS before FROM pg_backend_memory_contexts WHERE name = 'CachedExpression' \gset
SELECT count(*) FROM lifecycle.explain('crm."odd ""%s"', 'B');
SELECT is((SELECT sum(used_bytes) FROM pg_backend_memory_contexts WHERE name = 'CachedExpression'), :before::numeric, 'compiled forms are let go of');

SELECT * FROM finish();
