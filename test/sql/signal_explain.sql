-- explain() and signals: the behaviour score and the rows that made it.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

SET client_min_messages = error;
CREATE TABLE leads (id bigint PRIMARY KEY);
CREATE TABLE acts (lead bigint, kind text, at timestamptz NOT NULL, n int DEFAULT 1);
CREATE INDEX ON acts (lead);
SELECT lifecycle.track('leads');
SELECT lifecycle.track_signal('acts', 'leads', 'lead', 'at');
INSERT INTO lifecycle.rule (on_table, name, condition, points, half_life, enabled) VALUES
    ('acts', 'visit', $$kind = 'visit'$$, '10', NULL, true), ('acts', 'mail', $$kind = 'mail'$$, '10', NULL, true), ('acts', 'off', 'true', '1', NULL, false);
INSERT INTO lifecycle.rule (on_table, name, condition, status, max_age) VALUES ('acts', 'raise', $$kind = 'raise'$$, 'mql', '1 day');
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('leads', 'hot', 'behavior_score >= 50', 'sal'), ('leads', 'warm', 'behavior_score >= 20', 'engaged');
INSERT INTO leads VALUES (1);
INSERT INTO acts VALUES (1, 'visit', '2026-01-01'), (1, 'visit', '2026-01-02 03:04:05.6'), (1, 'raise', '2026-01-01');
CREATE FUNCTION told() RETURNS SETOF text LANGUAGE sql SET timezone = 'UTC' AS $$
    SELECT concat_ws(' | ', kind, name, on_table, holds, points, detail) FROM lifecycle.explain('leads', 1) WHERE kind IN ('rule', 'score') OR name = 'mql' $$;
SELECT results_eq('SELECT told()', $$VALUES
    ('score | demographic_score | 0'),
    ('score | behavior_score | 20'),
    ('rule | mail | acts | f | 0 | no signals'),
    ('rule | off | acts | disabled'),
    ('rule | raise | acts | t | to mql; 1 signal, of 2026-01-01 00:00:00+00; too old, or from before the lead began anew'),
    ('rule | visit | acts | t | 20 | 2 signals, the last of 2026-01-02 03:04:05+00'),
    ('rule | hot | leads | f | to sal: does not hold'),
    ('rule | warm | leads | t | to engaged: the lead is there'),
    ('next | mql | f | rule "raise" waits for a row of public.acts')$$, 'the rows that made the score');
-- other signal tables, of this lead table and of another
CREATE TABLE deals (lead bigint, stage text);
CREATE INDEX ON deals (lead);
SELECT lifecycle.track_signal('deals', 'leads', 'lead');
CREATE TABLE other (id bigint PRIMARY KEY);
CREATE TABLE other_acts (lead bigint);
CREATE INDEX ON other_acts (lead);
SELECT lifecycle.track('other');
SELECT lifecycle.track_signal('other_acts', 'other', 'lead');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('deals', 'deal', 'true', '1'), ('other_acts', 'theirs', 'true', '1');
INSERT INTO other_acts VALUES (1);
SELECT results_eq($$SELECT name, on_table::text FROM lifecycle.explain('leads', 1) WHERE kind = 'rule' AND on_table <> 'leads'::regclass$$,
    $$VALUES ('deal', 'deals'), ('mail', 'acts'), ('off', 'acts'), ('raise', 'acts'), ('visit', 'acts')$$, 'each rule of the lead''s signal tables once, and of no other''s');
DELETE FROM lifecycle.rule WHERE name = 'deal';
UPDATE lifecycle.rule SET points = '11' WHERE name = 'visit';
SELECT is((SELECT s FROM told() s WHERE s LIKE '% behavior_score %'), 'score | behavior_score | 20 | stale: the signals give 22 today; CALL lifecycle.rescore(''public.leads'') stores it', 'stale points');
UPDATE lifecycle.rule SET points = '11 / n' WHERE name = 'visit';
ALTER TABLE acts DISABLE TRIGGER USER;
UPDATE acts SET n = 0;
SELECT results_eq($$SELECT s FROM told() s WHERE s LIKE '% | behavior_score%' OR s LIKE '% visit %'$$, $$VALUES
    ('score | behavior_score | 20'), ('rule | visit | acts | not known: a rule of the table fails: division by zero')$$, 'a rule that fails raises nothing');
CREATE ROLE signal_explain_reader;
GRANT SELECT ON leads TO signal_explain_reader;
SET ROLE signal_explain_reader;
SELECT results_eq($$SELECT s FROM told() s WHERE s LIKE '% | behavior_score%' OR s LIKE '% acts %'$$,
    $$VALUES ('score | behavior_score | needs SELECT on public.leads_behavior')$$, 'who may not read points');
RESET ROLE;
DROP OWNED BY signal_explain_reader;
DROP ROLE signal_explain_reader;
SELECT * FROM finish();
