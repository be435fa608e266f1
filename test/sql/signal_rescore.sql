-- rescore() and signals: points made anew, of leads and of keys that no lead has
-- yet; statuses that rows of signal tables still ask for; what verify() finds.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE SCHEMA crm;
SET client_min_messages = error;
CREATE TABLE crm.leads (id bigint PRIMARY KEY, name text);
CREATE TABLE crm.activities (id serial PRIMARY KEY, lead_id int, kind text, at timestamptz NOT NULL DEFAULT now(), points float8 DEFAULT 10);
CREATE INDEX ON crm.activities (lead_id);
CREATE TABLE crm.deals (id serial PRIMARY KEY, lead bigint, stage text, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON crm.deals (lead);
-- rows that are older than track_signal()
INSERT INTO crm.activities (lead_id, kind, at) VALUES (1, 'visit', now() - interval '14 days'), (1, 'mail', now()), (9, 'visit', now() - interval '28 days');
SELECT lifecycle.track('crm.leads');
INSERT INTO crm.leads (id) VALUES (1), (2), (3), (4);
CREATE FUNCTION stale() RETURNS SETOF text LANGUAGE sql AS $$SELECT concat_ws(' ', "check", lead, regexp_replace(detail, '(\d\.\d{3,})', round(substring(detail from '\d\.\d{3,}')::numeric, 2)::float8::text)) FROM lifecycle.verify('crm.leads')$$;
CREATE FUNCTION scores() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(k || '=' || round(lifecycle.behavior_score('crm.leads', k)::numeric, 2)::float8, ' ' ORDER BY k) FROM unnest('{1,2,3,4,9}'::bigint[]) AS k $$;
CREATE FUNCTION stages() RETURNS text LANGUAGE sql AS $$SELECT string_agg(lifecycle_status || lifecycle_seq::text, ' ' ORDER BY id) FROM crm.leads$$;

-- ---- points ----

SELECT lifecycle.track_signal('crm.activities', 'crm.leads', 'lead_id', 'at');
SELECT lifecycle.track_signal('crm.deals', 'crm.leads', 'lead', 'at');
SELECT is_empty('SELECT stale()', 'without rules there is nothing to store');
INSERT INTO lifecycle.rule (on_table, name, condition, points, half_life) VALUES
    ('crm.activities', 'visit', $$kind = 'visit'$$, 'points', '14 days'), ('crm.activities', 'mail', $$kind = 'mail'$$, '3', NULL);
SELECT results_eq('SELECT stale()', $$VALUES
    ('stale 1 the behaviour score is 0, but the signals give 8 today: CALL lifecycle.rescore(''crm.leads'')'),
    ('stale 9 the behaviour score is 0, but the signals give 2.5 today: CALL lifecycle.rescore(''crm.leads'')')$$,
    'rows that are older than track_signal() and the rules');
CREATE TABLE before AS SELECT ctid AS place, xmin::text AS writer, xmax::text AS locker, id FROM crm.leads;
CALL lifecycle.rescore('crm.leads');
SELECT is(scores(), '1=8 2=0 3=0 4=0 9=2.5', 'have their points, also where there is no lead');
SELECT results_eq('SELECT ctid::text, xmin::text FROM crm.leads ORDER BY id', 'SELECT place::text, writer FROM before ORDER BY id', 'no lead is written');
SELECT results_eq('SELECT id FROM (SELECT id, xmax::text AS now FROM crm.leads) l JOIN before USING (id) WHERE now <> locker', 'VALUES (1::bigint)', 'and only the one that differed was locked');
SELECT is_empty('SELECT stale()', 'nothing is stale');
SELECT is(lifecycle.rescore_behavior('crm.leads', '{9,1,1,2,77}', false), 0::bigint, 'again: nothing to write');

UPDATE crm.leads_behavior SET points = points * (1 + 1e-8) WHERE lead = 1;
SELECT is((SELECT count(*) FROM stale()), 1::bigint, 'a ten-millionth off is stale');
UPDATE crm.leads_behavior SET points = points * (1 - 1e-8 + 1e-11) WHERE lead = 1;
SELECT is_empty('SELECT stale()', 'rounding is not');

UPDATE lifecycle.rule SET points = '30' WHERE name = 'mail';
DELETE FROM lifecycle.rule WHERE name = 'visit';
SELECT is((SELECT count(*) FROM stale()), 2::bigint, 'rules changed');
CALL lifecycle.rescore('crm.leads', batch => 1);
SELECT is(scores(), '1=30 2=0 3=0 4=0 9=0', 'points anew, in batches of one');
INSERT INTO crm.activities (lead_id, kind) VALUES (2, 'mail');
ALTER TABLE crm.activities DISABLE TRIGGER USER;
INSERT INTO crm.activities (lead_id, kind) VALUES (2, 'mail'), (3, 'mail');
ALTER TABLE crm.activities ENABLE TRIGGER USER;
CALL lifecycle.rescore('crm.leads', batch => 2);
SELECT is(scores(), '1=30 2=60 3=30 4=0 9=0', 'rows that were written behind our back');
SELECT lifecycle.untrack_signal('crm.activities');
SELECT is((SELECT count(*) FROM stale()), 3::bigint, 'after untrack_signal() the points are there');
CALL lifecycle.rescore('crm.leads');
SELECT is(scores(), '1=0 2=0 3=0 4=0 9=0', 'until they are made anew');

-- ---- moves ----

SELECT lifecycle.track_signal('crm.activities', 'crm.leads', 'lead_id', 'at');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('crm.activities', 'mail', $$kind = 'mail'$$, '30');
INSERT INTO lifecycle.rule (on_table, name, condition, status, only_from) VALUES ('crm.leads', 'hot', 'behavior_score >= 50', 'mql', '{known}');
CALL lifecycle.rescore('crm.leads');
SELECT is(stages(), 'known1 known1 known1 known1', 'without move nobody moves');
CALL lifecycle.rescore('crm.leads', move => true);
SELECT is(stages(), 'known1 mql2 known1 known1', 'who is above the threshold');
SELECT results_eq('SELECT lead, cause, rule, behavior_score FROM crm.leads_history WHERE seq = 2', $$VALUES (2::bigint, 'rescore', 'hot', 60::float8)$$, 'with the new score');

INSERT INTO crm.deals (lead, stage, at) VALUES (1, 'open', now() - interval '1 hour'), (3, 'lost', now()), (3, 'open', now()), (4, 'lost', now()), (2, 'old', now() - interval '100 days');
INSERT INTO lifecycle.rule (on_table, name, condition, status, only_from, unless_other, max_age) VALUES
    ('crm.deals', 'opened', $$stage = 'open'$$, 'opportunity', NULL, NULL, NULL),
    ('crm.deals', 'aged', $$stage = 'old'$$, 'sql', NULL, NULL, '30 days');
CALL lifecycle.rescore('crm.leads', move => true);
SELECT is(stages(), 'opportunity2 mql2 opportunity2 known1', 'rows that ask for a status; not those that are too old');
INSERT INTO lifecycle.rule (on_table, name, condition, status, unless_other) VALUES ('crm.deals', 'lost', $$stage = 'lost'$$, 'lost', $$stage <> 'lost'$$);
UPDATE crm.leads SET lifecycle_status = 'opportunity' WHERE id = 4;
CALL lifecycle.rescore('crm.leads', move => true);
SELECT is(stages(), 'opportunity2 mql2 opportunity2 lost3', 'nor those that another row keeps from it');
INSERT INTO lifecycle.rule (on_table, name, condition, status, priority) VALUES ('crm.leads', 'won', 'id = 1', 'customer', 0), ('crm.deals', 'first', $$lead = 1$$, 'lost', 1);
CALL lifecycle.rescore('crm.leads', move => true);
SELECT is(stages(), 'lost3 mql2 opportunity2 lost3', 'of rules of both tables the one that comes first');
DELETE FROM lifecycle.rule WHERE name IN ('won', 'first');
UPDATE lifecycle.rule SET condition = $$stage IN ('open', 'lost')$$ WHERE name = 'opened';
CALL lifecycle.rescore('crm.leads', move => true);
SELECT is(stages(), 'lost3 mql2 opportunity2 lost3', 'signals from before the restart ask for nothing');
SELECT is_empty('SELECT stale()', 'all is well');

-- ---- restarts ----

SELECT is(scores(), '1=0 2=60 3=30 4=0 9=0', 'a lost lead began anew');
UPDATE crm.leads_behavior SET since = '-infinity' WHERE lead = 1;
SELECT matches((SELECT string_agg(s, E'\n') FROM stale() AS s), '^stale 1 the points do not know that the lead began anew at [^\n]*: CALL lifecycle.rescore\(''crm.leads''\)$', 'a restart is missing');
CALL lifecycle.rescore('crm.leads');
SELECT is(scores(), '1=0 2=60 3=30 4=0 9=0', 'and is made up for');
SELECT is_empty('SELECT stale()', 'all is well');

-- a lead that went before it had points: what was dated before is nobody's
INSERT INTO crm.leads (id) VALUES (5);
DELETE FROM crm.leads WHERE id = 5;
INSERT INTO crm.activities (lead_id, kind, at) VALUES (5, 'mail', now() - interval '1 day');
SELECT is(lifecycle.behavior_score('crm.leads', 5), 0::float8, 'a late signal of a lead that is gone');
SELECT is_empty('SELECT stale()', 'all is well');

-- ---- leads that come after rescore() ----

ALTER TABLE crm.activities DISABLE TRIGGER USER;
INSERT INTO crm.activities (lead_id, kind, points) VALUES (8, 'hand raise', NULL), (8, 'mail', NULL), (8, 'mail', NULL), (7, 'hand raise', NULL);
ALTER TABLE crm.activities ENABLE TRIGGER USER;
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('crm.activities', 'hand raise', $$kind = 'hand raise'$$, 'sal');
CALL lifecycle.rescore('crm.leads');
INSERT INTO crm.leads (id) VALUES (7), (8);
SELECT results_eq('SELECT id, lifecycle_status::text, lifecycle.behavior_score(''crm.leads'', id) FROM crm.leads WHERE id >= 7 ORDER BY id',
                  $$VALUES (7::bigint, 'sal', 0::float8), (8, 'sal', 60)$$, 'find their signals');
SELECT is_empty('SELECT stale()', 'all is well');

-- ---- rights ----

CREATE ROLE signal_rescore_reader;
GRANT USAGE ON SCHEMA crm TO signal_rescore_reader;
GRANT SELECT ON crm.leads, crm.leads_history TO signal_rescore_reader;
SELECT is(failure($$SELECT lifecycle.rescore_behavior('crm.leads', '{1}', false)$$, 'signal_rescore_reader'), '42501: must be owner of table leads', 'who may make points anew');
SELECT is(failure($$SELECT * FROM lifecycle.stale_behavior('crm.leads', '{1}')$$, 'signal_rescore_reader'), '42501: permission denied for table leads_behavior', 'who may look');
SELECT is(failure($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'signal_rescore_reader'),
    E'42501: permission denied for table leads_behavior\nDETAIL: It has the behaviour scores of the leads of crm.leads.\nHINT: GRANT SELECT ON crm.leads_behavior TO signal_rescore_reader;', 'verify() says what is missing');
GRANT SELECT ON crm.leads_behavior TO signal_rescore_reader;
SELECT is(failure($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'signal_rescore_reader'), 'no error', 'signal tables that the caller may not read do not hinder it');
DROP OWNED BY signal_rescore_reader;
DROP ROLE signal_rescore_reader;
SELECT * FROM finish();
