-- correct(): any move, for a reason; the visit that it closes was never made.
-- Reasons and actors: what is asked for, what is a claim and what a fact.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE ROLE correct_owner;
CREATE ROLE correct_writer;
CREATE ROLE correct_member IN ROLE correct_owner;
CREATE SCHEMA crm AUTHORIZATION correct_owner;
GRANT USAGE ON SCHEMA crm TO correct_writer;
SET ROLE correct_owner;
CREATE TABLE crm.leads (id int PRIMARY KEY, name text, source text);
SELECT lifecycle.track('crm.leads', source => 'source', actor => 'name');
GRANT SELECT, INSERT, UPDATE ON crm.leads TO correct_writer;
RESET ROLE;

-- ---- the vector: known, sql by mistake, corrected to sal ----

BEGIN;
SET LOCAL lifecycle.at = '2026-01-01';
INSERT INTO crm.leads VALUES (1, 'ann', 'web');
SET LOCAL lifecycle.at = '2026-01-02';
UPDATE crm.leads SET lifecycle_status = 'sql' WHERE id = 1;
SET LOCAL lifecycle.at = '2026-01-03';
SELECT lifecycle.correct('crm.leads', 1, 'sal', 'wrong button');
COMMIT;
SELECT results_eq('SELECT seq, cycle, from_status, to_status, cause, actor, reason, reached, at::date FROM crm.leads_history ORDER BY seq',
    $$VALUES (1, 1, NULL, 'known', 'entry', 'ann', NULL, '{known}'::text[], '2026-01-01'::date),
             (2, 1, 'known', 'sql', 'write', 'ann', NULL, '{known,sql}', '2026-01-02'),
             (3, 1, 'sql', 'sal', 'correction', 'ann', 'wrong button', '{known,sal}', '2026-01-03')$$, 'a correction is a move with its reason');
SELECT results_eq($$SELECT status, reached FROM lifecycle.funnel('crm.leads') WHERE rank <= 6 ORDER BY rank$$,
    $$VALUES ('known', 1::bigint), ('mal', 1), ('engaged', 1), ('mql', 1), ('sal', 1), ('sql', 0)$$, 'the funnel does not have the visit that was void');
SELECT results_eq($$SELECT status, inflow, inflow_new, inflow_again, outflow, closing
                    FROM lifecycle.flow('crm.leads', '2026-01-01', '2026-01-04', '3 days') WHERE status IN ('known', 'sal', 'sql') ORDER BY rank$$,
    $$VALUES ('known', 1::bigint, 1::bigint, 0::bigint, 1::bigint, 0::bigint), ('sal', 1, 1, 0, 0, 1), ('sql', 1, 0, 0, 1, 0)$$,
    'the flow does; there it is neither new nor again');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'verify() finds nothing');
UPDATE crm.leads SET lifecycle_status = 'sql' WHERE id = 1;
SELECT results_eq($$SELECT sum(inflow_new), sum(inflow_again) FROM lifecycle.flow('crm.leads', '2026-01-01', now() + interval '1 day', '1 year') WHERE status = 'sql'$$,
                  'VALUES (1::numeric, 0::numeric)', 'who comes there later comes for the first time');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'nor then');

-- ---- any move, no cycle ----

INSERT INTO crm.leads VALUES (2, 'bob', 'web'), (3, 'cid', 'web');
UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id IN (2, 3);
UPDATE crm.leads SET lifecycle_status = 'recycled' WHERE id IN (2, 3);
UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id IN (2, 3);
SELECT lifecycle.correct('crm.leads', '2', 'recycled', 'was not back');
UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id = 2;
SELECT results_eq('SELECT seq, cycle, to_status, reached FROM crm.leads_history WHERE lead = 2 AND seq > 2 ORDER BY seq',
    $$VALUES (3, 1, 'recycled', '{known,mql,recycled}'::text[]), (4, 2, 'mql', '{mql,NULL,known,recycled}'),
             (5, 2, 'recycled', '{recycled,NULL,known,mql}'), (6, 2, 'mql', '{recycled,mql,NULL,known}')$$,
    'a cycle that only a mistake made touched no path, so that the next move begins none');
SELECT lifecycle.correct('crm.leads', 3, 'known', 'never one');
SELECT lifecycle.correct('crm.leads', 3, 'customer', 'a customer since');
SELECT lifecycle.correct('crm.leads', 3, 'lost', 'no');
SELECT results_eq('SELECT seq, cycle, from_status, to_status, cause, reached FROM crm.leads_history WHERE lead = 3 AND seq > 3 ORDER BY seq',
    $$VALUES (4, 2, 'recycled', 'mql', 'write', '{mql,NULL,known,recycled}'::text[]), (5, 2, 'mql', 'known', 'correction', '{known,NULL,mql,recycled}'),
             (6, 2, 'known', 'customer', 'correction', '{customer,NULL,known,mql,recycled}'), (7, 2, 'customer', 'lost', 'correction', '{lost,NULL,known,mql,recycled}')$$,
    'corrections of corrections: illegal moves, and what is reached is folded anew');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'verify() finds nothing');
ALTER TABLE crm.leads_history DISABLE TRIGGER lifecycle_guard;
BEGIN;
UPDATE crm.leads_history SET reached = '{lost,NULL,known,mql}' WHERE lead = 3 AND seq = 7;
SELECT results_eq($$SELECT "check", detail FROM lifecycle.verify('crm.leads') WHERE "check" <> 'trigger'$$,
                  $$VALUES ('cycle', 'move 7 says that {lost,NULL,known,mql} were reached')$$, 'what a correction says of what was reached is checked');
ROLLBACK;
ALTER TABLE crm.leads_history ENABLE TRIGGER lifecycle_guard;

-- in one transaction, and taken back with a savepoint
BEGIN;
INSERT INTO crm.leads VALUES (4, 'dan', NULL);
SAVEPOINT a;
SELECT lifecycle.correct('crm.leads', 4, 'customer', 'x');
ROLLBACK TO a;
UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id = 4;
SELECT lifecycle.correct('crm.leads', 4, 'mal', 'y');
COMMIT;
SELECT results_eq('SELECT seq, to_status, cause, reason FROM crm.leads_history WHERE lead = 4 ORDER BY seq',
    $$VALUES (1, 'known', 'entry', NULL), (2, 'mql', 'write', NULL), (3, 'mal', 'correction', 'y')$$, 'a correction that was rolled back left nothing');

-- ---- refused ----

CREATE TABLE crm.old (id int PRIMARY KEY, stage text, name text);
INSERT INTO crm.old VALUES (1, 'mql', NULL), (2, NULL, NULL);
SELECT lifecycle.track('crm.old', status_column => 'stage');
SELECT is(failure(f.statement, f.as_role), f.error, f.statement || coalesce(' as ' || f.as_role, ''))
FROM (VALUES
    ($$SELECT lifecycle.correct('crm.leads', 1, 'mql', 'x')$$, 'correct_writer',
     E'42501: must be owner of table leads\nHINT: Let a member of role correct_owner do it.'),
    ($$SELECT lifecycle.correct('crm.leads', 99, 'mql', 'x')$$, NULL, 'P0002: table "crm.leads" has no lead 99'),
    ($$SELECT lifecycle.correct('crm.leads', 'x', 'mql', 'x')$$, NULL, '22P02: invalid input syntax for type integer: "x"'),
    ($$SELECT lifecycle.correct('crm.leads', 1, 'hot', 'x')$$, NULL,
     E'22023: "hot" is not a status of model "standard"\nHINT: The statuses are: known, mal, engaged, mql, sal, sql, opportunity, customer, disqualified, lost, recycled.'),
    ($$SELECT lifecycle.correct('crm.leads', 1, 'sql', 'x')$$, NULL, '22023: lead 1 of table "crm.leads" is "sql" already'),
    ($$SELECT lifecycle.correct('crm.leads', 1, 'mql', NULL)$$, NULL, E'23502: a correction needs a reason\nHINT: Say what was wrong: it is kept in the history.'),
    ($$SELECT lifecycle.correct('crm.leads', 1, 'mql', E' \n')$$, NULL, E'23502: a correction needs a reason\nHINT: Say what was wrong: it is kept in the history.'),
    ($$SELECT lifecycle.correct('crm.leads', NULL::int, 'mql', 'x')$$, NULL, '22004: lead_table, lead and status must not be null'),
    ($$SELECT lifecycle.correct(NULL, 1, 'mql', 'x')$$, NULL, '22004: lead_table, lead and status must not be null'),
    ($$SELECT lifecycle.correct('crm.leads', 1, NULL, 'x')$$, NULL, '22004: lead_table, lead and status must not be null'),
    ($$SELECT lifecycle.correct('pg_class', 1, 'mql', 'x')$$, NULL,
     E'55000: table "pg_catalog.pg_class" is not tracked\nHINT: SELECT lifecycle.track(''pg_catalog.pg_class'');'),
    ($$SELECT lifecycle.correct('crm.old', 1, 'sal', 'x')$$, NULL,
     E'55000: lead 1 of table "crm.old" is not in the history yet\nDETAIL: There is no move that could be wrong.\nHINT: CALL lifecycle.backfill(''crm.old'');'),
    ($$SELECT lifecycle.correct('crm.old', 2, 'sal', 'x')$$, NULL,
     E'55000: lead 2 of table "crm.old" is not in the history yet\nDETAIL: There is no move that could be wrong.\nHINT: CALL lifecycle.backfill(''crm.old'');'),
    ($$SELECT lifecycle.correct('crm.leads', 4::smallint, 'sal', 'by a member')$$, 'correct_member', 'no error')
) AS f (statement, as_role, error);

-- ---- users' triggers ----

-- found by the path of the caller; one writes the lead again before ours records
CREATE TABLE crm.log (line text);
CREATE FUNCTION crm.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log VALUES (OLD.stage || '>' || NEW.stage || ' seq ' || NEW.lifecycle_seq);
    IF NEW.stage = 'mal' THEN UPDATE old SET stage = 'mql' WHERE id = NEW.id; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a_look AFTER UPDATE ON crm.old FOR EACH ROW WHEN (OLD.stage IS DISTINCT FROM NEW.stage) EXECUTE FUNCTION crm.look();
-- one that fires before our statement trigger and writes other leads: no correction of theirs
CREATE FUNCTION crm.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 AND current_setting('test.meddle', true) = 'on' THEN UPDATE old SET stage = 'mql' WHERE id = 2; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a_meddle BEFORE UPDATE ON crm.old FOR EACH STATEMENT EXECUTE FUNCTION crm.meddle();
SET search_path = crm, public;
SET client_min_messages = warning;
CALL lifecycle.backfill('old');
UPDATE old SET stage = 'customer' WHERE id = 1;
SET test.meddle = 'on';
SELECT lifecycle.correct('old', 1, 'mal', 'not won');
SET test.meddle = 'off';
SELECT results_eq('SELECT line FROM log WHERE line IS NOT NULL', $$VALUES ('mql>customer seq 3'), ('known>mql seq 2'), ('customer>mal seq 4'), ('mal>mql seq 5')$$, 'triggers see the correction');
SELECT results_eq('SELECT lead, seq, from_status, to_status, cause, reason FROM old_history WHERE cause <> ''backfill'' ORDER BY lead, seq',
    $$VALUES (1, 3, 'mql', 'customer', 'write', NULL), (1, 4, 'customer', 'mal', 'correction', 'not won'), (1, 5, 'mal', 'mql', 'write', NULL),
             (2, 2, 'known', 'mql', 'write', NULL)$$, 'what they write themselves is no correction, and the correction is one, whoever records it');
SELECT is_empty($$SELECT * FROM lifecycle.verify('old')$$, 'verify() finds nothing');
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER suppress BEFORE UPDATE ON old FOR EACH ROW EXECUTE FUNCTION suppress();
SELECT is(failure($$SELECT lifecycle.correct('old', 1, 'sal', 'x')$$),
          E'27000: lead 1 of table "crm.old" was not corrected\nDETAIL: A trigger suppressed the UPDATE.', 'a correction that is suppressed is an error');
DROP TRIGGER suppress ON old;
RESET search_path;

-- ---- reasons and actors ----

SELECT lifecycle.copy_model('standard', 'careful');
UPDATE lifecycle.stage SET reason_required = true WHERE model = 'careful' AND status IN ('lost', 'known');
CREATE TABLE crm.deals (id text PRIMARY KEY, stage text, by_whom text, why text);
INSERT INTO crm.deals VALUES ('a', 'lost', 'ann', NULL), ('b', NULL, 'bob', NULL);
SELECT lifecycle.track('crm.deals', model => 'careful', status_column => 'stage', actor => 'by_whom');
CALL lifecycle.backfill('crm.deals');
SELECT results_eq('SELECT lead, seq, to_status, cause, actor, reason FROM crm.deals_history ORDER BY lead, seq',
    $$VALUES ('a', 1, 'known', 'backfill', 'ann', NULL), ('a', 2, 'lost', 'backfill', 'ann', NULL), ('b', 1, 'known', 'backfill', 'bob', NULL)$$,
    'backfill asks for no reason');
UPDATE crm.deals SET stage = 'mql', by_whom = 'cid';
SELECT is(failure($$UPDATE crm.deals SET stage = 'lost' WHERE id = 'b'$$), 
          E'23502: lead b of table "crm.deals" needs a reason to become "lost"\nHINT: Give it with SET LOCAL lifecycle.reason = ''...'' in the same transaction.\nCOLUMN: stage\nCONSTRAINT: lifecycle_reason',
          'a write needs one');
SELECT lives_ok($$SELECT lifecycle.correct('crm.deals', 'b', 'lost', 'lost it was')$$, 'a correction brings its own');
BEGIN;
SET LOCAL lifecycle.reason = 'the setting';
SELECT lifecycle.correct('crm.deals', 'b'::text, 'known', 'the argument');
SELECT lifecycle.correct('crm.deals', 'b'::varchar, 'lost', 'the other');
COMMIT;
SELECT results_eq($$SELECT to_status, actor, reason FROM crm.deals_history WHERE cause = 'correction' ORDER BY seq$$,
    $$VALUES ('lost', 'cid', 'lost it was'), ('known', 'cid', 'the argument'), ('lost', 'cid', 'the other')$$, 'which goes before lifecycle.reason');
SET SESSION AUTHORIZATION correct_member;
SET ROLE correct_owner;
UPDATE crm.leads SET name = 'eve', lifecycle_status = 'customer' WHERE id = 1;
SELECT lifecycle.correct('crm.leads', 1, 'opportunity', 'not yet');
RESET SESSION AUTHORIZATION;
SELECT results_eq('SELECT to_status, actor, session_user_name FROM crm.leads_history WHERE lead = 1 AND seq > 4 ORDER BY seq',
    $$VALUES ('customer', 'eve', 'correct_member'), ('opportunity', 'eve', 'correct_member')$$, 'who was connected stands beside who says so, also under SET ROLE');

-- row security that the owner forced upon himself
ALTER TABLE crm.leads FORCE ROW LEVEL SECURITY; ALTER TABLE crm.leads ENABLE ROW LEVEL SECURITY;
SELECT is(failure($$SELECT lifecycle.correct('crm.leads', 1, 'customer', 'it is')$$, 'correct_owner'), 'no error', 'forced row security does not hide a lead');

SELECT * FROM finish();
