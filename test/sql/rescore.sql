-- rescore(): the scores that today's rules give, and on demand the moves that
-- they ask for; only what differs is written.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE ROLE rescore_owner;
CREATE ROLE rescore_member IN ROLE rescore_owner;
CREATE ROLE rescore_writer;
CREATE SCHEMA crm AUTHORIZATION rescore_owner;
GRANT CREATE ON SCHEMA public TO rescore_owner;
GRANT USAGE ON SCHEMA crm TO rescore_writer, rescore_member;
SET client_min_messages = error;

SET ROLE rescore_owner;
CREATE TABLE crm.leads (id int PRIMARY KEY, l text, title text, email text, updated_at timestamptz, stage text);
INSERT INTO crm.leads (id, title) VALUES (1, 'VP'), (2, 'clerk');
SELECT lifecycle.track('crm.leads', status_column => 'stage');
INSERT INTO crm.leads (id, title, email, stage) VALUES (3, 'VP', 'a@gmail.com', NULL), (4, 'clerk', 'b@gmail.com', NULL), (5, 'Chief', 'c@d.org', 'mql'), (6, NULL, NULL, 'lost');
CREATE TABLE before AS SELECT ctid AS place, xmin::text AS writer, * FROM crm.leads;
CREATE FUNCTION written() RETURNS int[] LANGUAGE sql AS $$
    SELECT coalesce(array_agg(id ORDER BY id) FILTER (WHERE (r.ctid, r.xmin::text) IS DISTINCT FROM (b.place, b.writer)), '{}')
    FROM crm.leads r FULL JOIN before b USING (id)
$$;
CREATE PROCEDURE look() LANGUAGE plpgsql AS $$
BEGIN TRUNCATE before; INSERT INTO before SELECT ctid AS place, xmin::text AS writer, * FROM crm.leads; END $$;
CREATE FUNCTION scores() RETURNS text LANGUAGE sql AS $$SELECT string_agg(coalesce(demographic_score::text, '-'), ' ' ORDER BY id) FROM crm.leads$$;
CREATE FUNCTION stages() RETURNS text LANGUAGE sql AS $$SELECT string_agg(coalesce(stage, '-') || coalesce(lifecycle_seq, 0), ' ' ORDER BY id) FROM crm.leads$$;
CREATE FUNCTION stale() RETURNS SETOF text LANGUAGE sql AS $$SELECT concat_ws(' ', "check", lead, detail) FROM lifecycle.verify('crm.leads')$$;

-- ---- scores ----

SELECT is(scores(), '- - 0 0 0 0', 'leads that are older have no score');
SELECT is_empty('SELECT stale()', 'and that is no fault');
CALL lifecycle.rescore('crm.leads');
SELECT is(written(), '{1,2}', 'they get one');
SELECT is(scores(), '0 0 0 0 0 0', 'which is 0 without rules');
SELECT is(stages(), '-0 -0 known1 known1 mql1 lost1', 'and do not enter');
CALL look();

INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES
    ('crm.leads', 'decision maker', $$title ~* '\m(vp|chief)\M'$$, '20'), ('crm.leads', 'free mail', $$email LIKE '%@gmail.com'$$, '-20.5');
SELECT results_eq('SELECT stale()', $$VALUES
    ('stale 1 the score is 0, but the rules give 20 today: CALL lifecycle.rescore(''crm.leads'')'),
    ('stale 3 the score is 0, but the rules give -0.5 today: CALL lifecycle.rescore(''crm.leads'')'),
    ('stale 4 the score is 0, but the rules give -20.5 today: CALL lifecycle.rescore(''crm.leads'')'),
    ('stale 5 the score is 0, but the rules give 20 today: CALL lifecycle.rescore(''crm.leads'')')$$, 'verify() finds what is stale');
RESET ROLE;
SET ROLE rescore_member;
CALL lifecycle.rescore('crm.leads', batch => 1);
RESET ROLE;
SET ROLE rescore_owner;
SELECT is(scores(), '20 0 -0.5 -20.5 20 0', 'rules were added');
SELECT is(written(), '{1,3,4,5}', 'rows that do not differ are not written');
SELECT is((SELECT count(DISTINCT xmin::text) FROM crm.leads WHERE id IN (1, 3, 4, 5)), 4::bigint, 'each batch is a transaction');
SELECT is_empty('SELECT stale()', 'nothing is stale');
SELECT is(stages(), '-0 -0 known1 known1 mql1 lost1', 'nobody moved');
SELECT is((SELECT count(*) FROM crm.leads_history), 4::bigint, 'nothing is recorded');
CALL look();
CALL lifecycle.rescore('crm.leads');
SELECT is(written(), '{}', 'the second time it writes nothing');

UPDATE lifecycle.rule SET points = '30' WHERE name = 'decision maker';
CALL lifecycle.rescore('crm.leads');
SELECT is(scores() || written()::text, '30 0 9.5 -20.5 30 0{1,3,5}', 'a rule was changed');
CALL look();
UPDATE lifecycle.rule SET enabled = false WHERE name = 'free mail';
CALL lifecycle.rescore('crm.leads');
SELECT is(scores() || written()::text, '30 0 30 0 30 0{3,4}', 'disabled');
CALL look();
DELETE FROM lifecycle.rule WHERE name = 'decision maker';
SELECT is((SELECT count(*) FROM stale()), 3::bigint, 'without rules scores are stale, too');
CALL lifecycle.rescore('crm.leads');
SELECT is(scores() || written()::text, '0 0 0 0 0 0{1,3,5}', 'deleted');
SELECT is_empty('SELECT stale()', 'nothing is stale');

-- ---- moves ----

UPDATE crm.leads SET title = 'VP' WHERE id IN (3, 5, 6);
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('crm.leads', 'decision maker', $$title = 'VP'$$, '20');
INSERT INTO lifecycle.rule (on_table, name, condition, status, only_from) VALUES
    ('crm.leads', 'qualified', 'demographic_score >= 20', 'mql', NULL), ('crm.leads', 'taken', 'demographic_score >= 20', 'sal', '{mql}'),
    ('crm.leads', 'first', 'true', 'known', NULL), ('crm.leads', 'off', 'true', 'lost', NULL);
UPDATE lifecycle.rule SET enabled = false WHERE name = 'off';
CALL lifecycle.rescore('crm.leads');
SELECT is(scores() || ' ' || stages(), '20 0 20 0 20 20 -0 -0 known1 known1 mql1 lost1', 'without "move" nobody moves, though rules hold');
CALL look();
CALL lifecycle.rescore('crm.leads', move => true);
SELECT is(stages(), '-0 -0 mql2 known1 sal2 mql2', 'with it who may goes where a rule holds, one move each');
SELECT is(written(), '{3,5,6}', 'nobody else is written');
SELECT results_eq('SELECT lead, seq, cycle, from_status, to_status, cause, rule, demographic_score FROM crm.leads_history WHERE seq = 2 ORDER BY lead', $$VALUES
    (3, 2, 1, 'known', 'mql', 'rescore', 'qualified', 20::float8), (5, 2, 1, 'mql', 'sal', 'rescore', 'taken', 20), (6, 2, 1, 'lost', 'mql', 'rescore', 'qualified', 20)$$,
    'the cause is rescore, the rule is named');
SELECT is_empty('SELECT stale()', 'verify() finds nothing');
SELECT matches((SELECT detail FROM lifecycle.explain('crm.leads', 5) WHERE kind = 'status'), ', move 2, by rescore\(\) and rule "taken"$', 'explain() says so');
CALL lifecycle.rescore('crm.leads', true, 2);
SELECT is(stages(), '-0 -0 sal3 known1 sal2 sal3', 'the next call makes the next move');
CALL look();
CALL lifecycle.rescore('crm.leads', true);
SELECT is(stages() || written()::text, '-0 -0 sal3 known1 sal2 sal3{}', 'until no rule may move anybody');

-- the new score decides in the same call
DELETE FROM lifecycle.rule WHERE status IS NOT NULL;
INSERT INTO lifecycle.rule (on_table, name, condition, status, only_from) VALUES ('crm.leads', 'qualified', 'demographic_score >= 50', 'mql', '{known,mal}');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('crm.leads', 'clerk', $$title = 'clerk'$$, '50');
CALL lifecycle.rescore('crm.leads', true);
SELECT is(scores() || ' ' || stages(), '20 50 20 50 20 20 -0 -0 sal3 mql2 sal2 sal3', 'a lead moves by its new score');
SELECT is((SELECT demographic_score FROM crm.leads_history WHERE lead = 4 AND seq = 2), 50::float8, 'with it in the history');

-- by the clock alone
DELETE FROM lifecycle.rule;
INSERT INTO lifecycle.rule (on_table, name, condition, status, only_from) VALUES
    ('crm.leads', 'silent', $$now() - updated_at > interval '90 days'$$, 'recycled', '{mql,sal}'),
    ('crm.leads', 'back', $$now() - updated_at > interval '300 days'$$, 'engaged', '{recycled}');
-- as if the time had passed since they were written
ALTER TABLE crm.leads DISABLE TRIGGER USER;
UPDATE crm.leads SET updated_at = CASE id WHEN 4 THEN now() WHEN 5 THEN now() - interval '100 days' ELSE now() - interval '400 days' END;
ALTER TABLE crm.leads ENABLE TRIGGER USER;
UPDATE crm.leads SET email = 'z';
SELECT is(stages(), '-0 -0 sal3 mql2 sal2 sal3', 'time alone moves nobody');
SELECT matches((SELECT detail FROM lifecycle.explain('crm.leads', 3) WHERE name = 'silent'), '^to recycled: holds already: moves the lead when .* or by CALL lifecycle.rescore\(''crm.leads'', move => true\)$', 'explain() says what would');
CALL lifecycle.rescore('crm.leads', true);
SELECT is(stages(), '-0 -0 recycled4 mql2 recycled3 recycled4', 'rescore() does');
CALL lifecycle.rescore('crm.leads', true);
SELECT is(stages(), '-0 -0 engaged5 mql2 recycled3 engaged5', 'and lets go of a lead that may come back');
SELECT is((SELECT cycle || ' ' || rule FROM crm.leads_history WHERE lead = 3 AND seq = 5), '2 back', 'which begins a cycle');
SELECT is_empty('SELECT stale()', 'verify() finds nothing');

-- a lead with a status that is older than track()
RESET ROLE;
DELETE FROM lifecycle.rule;
CREATE TABLE crm.old (id int PRIMARY KEY, stage text, n int);
INSERT INTO crm.old VALUES (1, 'mql', 1), (2, 'mql', 2), (3, 'known', 2), (4, NULL, 2);
SELECT lifecycle.track('crm.old', status_column => 'stage');
ALTER TABLE crm.old DISABLE TRIGGER USER;
UPDATE crm.old SET stage = 'odd' WHERE id = 3;
ALTER TABLE crm.old ENABLE TRIGGER USER;
INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES ('crm.old', 'n', 'true', 'n', NULL), ('crm.old', 'two', 'n = 2', NULL, 'sal');
CALL lifecycle.rescore('crm.old', true);
SELECT results_eq('SELECT id, stage, demographic_score, lifecycle_seq FROM crm.old ORDER BY id',
                  $$VALUES (1, 'mql', 1::float8, NULL), (2, 'sal', 2, 3), (3, 'odd', 2, NULL), (4, NULL, 2, NULL)$$, 'moves after it was entered; none of the rest enters');
SELECT results_eq('SELECT seq, to_status, cause, rule FROM crm.old_history ORDER BY seq', $$VALUES (1, 'known', 'backfill', NULL), (2, 'mql', 'backfill', NULL), (3, 'sal', 'rescore', 'two')$$, 'and the history says how');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.old')$$, 'verify() finds nothing');

-- a rule is reason enough; a rule that fails
SELECT lifecycle.copy_model('standard', 'mine');
ALTER TABLE crm.old DISABLE TRIGGER USER;
UPDATE crm.old SET stage = 'known' WHERE id = 3;
ALTER TABLE crm.old ENABLE TRIGGER USER;
UPDATE lifecycle.stage SET reason_required = true WHERE model = 'mine' AND status = 'lost';
UPDATE lifecycle.program SET model = 'mine' WHERE lead_table = 'crm.old'::regclass;
INSERT INTO lifecycle.rule (on_table, name, condition, status, priority) VALUES ('crm.old', 'lost', 'n = 2', 'lost', 1);
\set ON_ERROR_STOP off
CALL lifecycle.rescore('crm.old', true);
SELECT is((SELECT stage FROM crm.old WHERE id = 2), 'lost', 'a stage that asks people for a reason asks none of a rule');
SELECT is((SELECT rule FROM crm.old_history WHERE lead = 2 ORDER BY seq DESC LIMIT 1), 'lost', 'which stands in the history');
DELETE FROM lifecycle.rule WHERE name = 'lost';
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('crm.old', 'ratio', '1 / n > 0', '1');
ALTER TABLE crm.old DISABLE TRIGGER USER;
UPDATE crm.old SET n = 0 WHERE id = 2;
ALTER TABLE crm.old ENABLE TRIGGER USER;
CALL lifecycle.rescore('crm.old', batch => 1);
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22012: division by zero', 'a rule that fails stops it');
SELECT is((SELECT string_agg(demographic_score::text, ' ' ORDER BY id) FROM crm.old), '2 2 2 2', 'what was committed stays');
SELECT is(failure($$SELECT * FROM lifecycle.verify('crm.old')$$),
          E'22012: division by zero\nHINT: To go on without the rule: UPDATE lifecycle.rule SET enabled = false WHERE on_table = ''crm.old''::regclass AND name = ''ratio'';', 'and verify()');
UPDATE lifecycle.rule SET enabled = false WHERE name = 'ratio';
CALL lifecycle.rescore('crm.old');
SELECT is((SELECT string_agg(demographic_score::text, ' ' ORDER BY id) FROM crm.old), '1 0 2 2', 'without it, it comes to its end');

-- ---- refused ----

SELECT is(failure($$CALL lifecycle.rescore('crm.leads')$$),
          E'25001: lifecycle.rescore() cannot run inside a transaction block\nDETAIL: It commits after each batch.\n'
          'HINT: CALL it by itself: outside of BEGIN ... COMMIT, of functions and of blocks with EXCEPTION, and with autocommit on.', 'not in a block with EXCEPTION');
\set ON_ERROR_ROLLBACK off
BEGIN;
CALL lifecycle.rescore('crm.leads', true);
\set state :LAST_ERROR_SQLSTATE
ROLLBACK;
SELECT is(:'state'::text, '25001', 'nor in a transaction block');
CREATE FUNCTION inside() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL lifecycle.rescore('crm.leads'); END $$;
SELECT inside();
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '2D000', 'nor in a function');
CALL lifecycle.rescore('crm.leads', batch => 0);
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22023: batch must be at least 1, not 0', 'a batch holds something');
CALL lifecycle.rescore('crm.leads', batch => NULL);
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22004: lead_table and batch must not be null', 'and is not NULL');
CALL lifecycle.rescore('crm.leads', NULL);
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22004: move must not be null', 'nor "move"');
CALL lifecycle.rescore(NULL);
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22004: lead_table and batch must not be null', 'nor the table');
CALL lifecycle.rescore('before');
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '55000: table "public.before" is not tracked', 'which is tracked');
SET ROLE rescore_writer;
CALL lifecycle.rescore('crm.leads');
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '42501: must be owner of table leads', 'and one''s own');
SELECT lifecycle.announce('crm.leads', 'rescore');
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '42501', 'only the owner can announce anything');
CALL lifecycle.in_batches('crm.leads', 'rescore and move', 10, 'pg_catalog');
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '42501', 'nor call what does the work');
RESET ROLE;
ALTER TABLE crm.leads ENABLE ROW LEVEL SECURITY;
ALTER TABLE crm.leads FORCE ROW LEVEL SECURITY;
SET ROLE rescore_owner;
CALL lifecycle.rescore('crm.leads');
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '42501: row security hides leads of table "crm.leads" from their owner', 'forced row security would hide leads');
RESET ROLE;
ALTER TABLE crm.leads NO FORCE ROW LEVEL SECURITY;
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK on

-- ---- triggers and the path of the caller; partitions; many ----

CREATE TABLE crm.log (id int, score float8);
CREATE FUNCTION crm.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.id, NEW.demographic_score); RETURN NEW; END $$;
CREATE TABLE crm.parts (id int, x int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE crm.low PARTITION OF crm.parts FOR VALUES FROM (MINVALUE) TO (3);
CREATE TABLE crm.high (x int, id int NOT NULL);
ALTER TABLE crm.parts ATTACH PARTITION crm.high FOR VALUES FROM (3) TO (MAXVALUE);
SELECT lifecycle.track('crm.parts');
INSERT INTO crm.parts SELECT g, g FROM generate_series(1, 5) AS g;
CREATE TRIGGER look AFTER UPDATE ON crm.parts FOR EACH ROW EXECUTE FUNCTION crm.look();
INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES ('crm.parts', 'x', 'x > 1', 'x', NULL), ('crm.parts', 'q', 'demographic_score > 2', NULL, 'mql');
-- operators that must not be taken
CREATE FUNCTION crm.wrong(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION crm.wrong(float8, float8) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR crm.> (FUNCTION = crm.wrong, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR crm.= (FUNCTION = crm.wrong, LEFTARG = float8, RIGHTARG = float8);
SET search_path = crm, pg_catalog, public;
CALL lifecycle.rescore('parts', true, 1);
SELECT is(current_setting('search_path'), 'crm, pg_catalog, public', 'the search path is as it was');
RESET search_path;
SELECT results_eq('SELECT id, score FROM crm.log ORDER BY id', 'VALUES (2, 2::float8), (3, 3), (4, 4), (5, 5)', 'triggers fire, and find what they name');
SELECT results_eq('SELECT lead, rule FROM crm.parts_history WHERE to_status = ''mql'' ORDER BY lead', $$VALUES (3, 'q'), (4, 'q'), (5, 'q')$$, 'partitions');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.parts')$$, 'verify() finds nothing');

CREATE TABLE crm.many (id uuid PRIMARY KEY, n int);
SELECT lifecycle.track('crm.many');
INSERT INTO crm.many SELECT md5(g::text)::uuid, g FROM generate_series(1, 100000) AS g;
INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES ('crm.many', 'half', 'n % 2 = 0', '10', NULL), ('crm.many', 'q', 'demographic_score = 10 AND n % 4 = 0', NULL, 'mql');
CALL lifecycle.rescore('crm.many', true, 7777);
SELECT is((SELECT count(*) || ' ' || count(*) FILTER (WHERE cause = 'rescore') FROM crm.many_history), '125000 25000', '100,000 leads');
SELECT is((SELECT count(DISTINCT xmin::text) FROM crm.many), 14::bigint, 'in 13 transactions');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.many')$$, 'verify() finds nothing');

SELECT * FROM finish();
