-- Models: the shipped ones are exactly what the documentation lists and cannot
-- be changed; one's own are plain rows, and obeyed from the next statement on,
-- also inside a transaction and after its rollback.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

-- ---- the shipped models ----

SELECT enum_has_labels('lifecycle', 'lifecycle_status', ARRAY[
    'known', 'mal', 'engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer', 'recycled', 'disqualified', 'lost'
], 'the type has the statuses of the shipped models, path first');

SELECT results_eq('SELECT name FROM lifecycle.model ORDER BY name', ARRAY['etumos', 'marketo', 'standard'],
                  'three models are shipped');

CREATE TABLE listed (model text, from_status text, to_status text);
INSERT INTO listed
SELECT m.model, m.from_status, t.to_status
FROM (VALUES
    ('standard', 'known', '{mal,engaged,mql,sal,sql,opportunity,customer,disqualified}'::text[]),
    ('standard', 'mal', '{engaged,mql,sal,sql,opportunity,customer,disqualified}'),
    ('standard', 'engaged', '{mql,sal,sql,opportunity,customer,disqualified}'),
    ('standard', 'mql', '{sal,sql,opportunity,customer,recycled,disqualified,lost}'),
    ('standard', 'sal', '{sql,opportunity,customer,recycled,disqualified,lost}'),
    ('standard', 'sql', '{opportunity,customer,recycled,disqualified,lost}'),
    ('standard', 'opportunity', '{customer,lost}'),
    ('standard', 'customer', '{recycled}'),
    ('standard', 'recycled', '{engaged,mql,sal,sql,opportunity,customer,disqualified}'),
    ('standard', 'disqualified', '{sql,opportunity,customer,recycled}'),
    ('standard', 'lost', '{mql,sql,opportunity,customer,recycled,disqualified}'),
    ('marketo', 'known', '{engaged,mql,sal,sql,opportunity,customer,disqualified}'),
    ('marketo', 'engaged', '{mql,sal,sql,opportunity,customer,disqualified}'),
    ('marketo', 'mql', '{sal,sql,opportunity,customer,recycled,disqualified,lost}'),
    ('marketo', 'sal', '{sql,opportunity,customer,recycled,disqualified,lost}'),
    ('marketo', 'sql', '{opportunity,customer,recycled,disqualified,lost}'),
    ('marketo', 'opportunity', '{customer,lost}'),
    ('marketo', 'customer', '{recycled}'),
    ('marketo', 'recycled', '{engaged,mql,sal,sql,opportunity,customer,disqualified}'),
    ('marketo', 'disqualified', '{sql,opportunity,customer,recycled}'),
    ('marketo', 'lost', '{mql,sql,opportunity,customer,recycled,disqualified}'),
    ('etumos', 'mal', '{mql,sal,sql,customer,disqualified}'),
    ('etumos', 'mql', '{sal,sql,customer,recycled,disqualified,lost}'),
    ('etumos', 'sal', '{sql,customer,recycled,disqualified,lost}'),
    ('etumos', 'sql', '{customer,lost}'),
    ('etumos', 'customer', '{recycled}'),
    ('etumos', 'recycled', '{mal,mql,sal,sql,customer,disqualified}'),
    ('etumos', 'disqualified', '{sql,customer,recycled}'),
    ('etumos', 'lost', '{mql,sql,customer,recycled,disqualified}')
) AS m (model, from_status, to_statuses)
CROSS JOIN LATERAL unnest(m.to_statuses) AS t (to_status);

SELECT results_eq('SELECT model, count(*)::int FROM listed GROUP BY 1 ORDER BY 1',
                  $$VALUES ('etumos', 33), ('marketo', 51), ('standard', 59)$$,
                  'the list in this test has 33, 51 and 59 moves');
SELECT set_eq('SELECT model, from_status, to_status FROM lifecycle.transition', 'SELECT * FROM listed',
              'the shipped models allow the listed moves and no others');

SELECT results_eq(
    $$SELECT model, status, rank, label, marketing, resets_behavior FROM lifecycle.stage ORDER BY model, rank, status$$,
    $$VALUES
        ('etumos', 'mal', 1, 'Marketing accepted', 'nurture', false),
        ('etumos', 'mql', 2, 'MQL', 'nurture', false),
        ('etumos', 'sal', 3, 'Sales accepted', 'paused', false),
        ('etumos', 'sql', 4, 'SQL', 'suspended', false),
        ('etumos', 'customer', 5, 'Customer', 'nurture', false),
        ('etumos', 'disqualified', NULL::int, 'Disqualified', 'suspended', true),
        ('etumos', 'lost', NULL, 'Lost', 'nurture', true),
        ('etumos', 'recycled', NULL, 'Recycled', 'nurture', true),
        ('marketo', 'known', 1, 'Known', 'nurture', false),
        ('marketo', 'engaged', 2, 'Engaged', 'nurture', false),
        ('marketo', 'mql', 3, 'MQL', 'nurture', false),
        ('marketo', 'sal', 4, 'Sales accepted', 'paused', false),
        ('marketo', 'sql', 5, 'SQL', 'suspended', false),
        ('marketo', 'opportunity', 6, 'Opportunity', 'suspended', false),
        ('marketo', 'customer', 7, 'Customer', 'nurture', false),
        ('marketo', 'disqualified', NULL, 'Disqualified', 'suspended', true),
        ('marketo', 'lost', NULL, 'Lost', 'nurture', true),
        ('marketo', 'recycled', NULL, 'Recycled', 'nurture', true),
        ('standard', 'known', 1, 'Known', 'nurture', false),
        ('standard', 'mal', 2, 'Marketing accepted', 'nurture', false),
        ('standard', 'engaged', 3, 'Engaged', 'nurture', false),
        ('standard', 'mql', 4, 'MQL', 'nurture', false),
        ('standard', 'sal', 5, 'Sales accepted', 'paused', false),
        ('standard', 'sql', 6, 'SQL', 'suspended', false),
        ('standard', 'opportunity', 7, 'Opportunity', 'suspended', false),
        ('standard', 'customer', 8, 'Customer', 'nurture', false),
        ('standard', 'disqualified', NULL, 'Disqualified', 'suspended', true),
        ('standard', 'lost', NULL, 'Lost', 'nurture', true),
        ('standard', 'recycled', NULL, 'Recycled', 'nurture', true)$$,
    'the stages of the shipped models have the listed ranks, labels, marketing and restarts');
SELECT is_empty('SELECT * FROM lifecycle.stage WHERE reason_required OR sla IS NOT NULL OR sla_status IS NOT NULL',
                'no shipped stage wants a reason or has an SLA');

-- ---- they cannot be changed ----

SELECT is(failure(w.statement),
          E'42501: model "standard" is shipped with lifecycle and read-only\n'
          'HINT: Make one of your own: SELECT lifecycle.copy_model(''standard'', ''mine'').', 'refused: ' || w.statement)
FROM (VALUES
    ($$INSERT INTO lifecycle.model VALUES ('standard', 'again')$$),
    ($$UPDATE lifecycle.model SET description = 'x' WHERE name = 'standard'$$),
    ($$UPDATE lifecycle.model SET name = 'mine' WHERE name = 'standard'$$),
    ($$DELETE FROM lifecycle.model WHERE name = 'standard'$$),
    ($$TRUNCATE lifecycle.model CASCADE$$),
    ($$INSERT INTO lifecycle.stage (model, status) VALUES ('standard', 'x')$$),
    ($$UPDATE lifecycle.stage SET reason_required = true WHERE model = 'standard' AND status = 'lost'$$),
    ($$DELETE FROM lifecycle.stage WHERE model = 'standard' AND status = 'mal'$$),
    ($$TRUNCATE lifecycle.stage CASCADE$$),
    ($$INSERT INTO lifecycle.transition VALUES ('standard', 'customer', 'known')$$),
    ($$UPDATE lifecycle.transition SET to_status = 'known' WHERE model = 'standard' AND from_status = 'customer'$$),
    ($$DELETE FROM lifecycle.transition WHERE model = 'standard' AND from_status = 'customer'$$),
    ($$TRUNCATE lifecycle.transition$$)
) AS w (statement);
SELECT is(failure($$UPDATE lifecycle.transition SET model = 'etumos' WHERE model = 'marketo' AND from_status = 'lost'$$),
          E'42501: model "marketo" is shipped with lifecycle and read-only\n'
          'HINT: Make one of your own: SELECT lifecycle.copy_model(''marketo'', ''mine'').',
          'the message names the model that is written');

-- ---- is_valid_transition() ----

SELECT is_empty($$
    SELECT m.name, a.status, b.status
    FROM lifecycle.model m, unnest(enum_range(NULL::lifecycle.lifecycle_status)) AS a (status),
         unnest(enum_range(NULL::lifecycle.lifecycle_status)) AS b (status)
    WHERE lifecycle.is_valid_transition(a.status, b.status, m.name) IS DISTINCT FROM
          EXISTS (SELECT FROM listed l WHERE (l.model, l.from_status, l.to_status) = (m.name, a.status::text, b.status::text))
       OR lifecycle.is_valid_transition(a.status::text, b.status::text, m.name) IS DISTINCT FROM
          lifecycle.is_valid_transition(a.status, b.status, m.name)
$$, 'both forms of is_valid_transition() answer as listed for all 121 pairs of each model');
SELECT is(lifecycle.is_valid_transition('opportunity', 'lost'), true, 'the model is "standard" by default');
SELECT is(lifecycle.is_valid_transition('opportunity', 'opportunity'), false, 'staying is no move');
SELECT is(lifecycle.is_valid_transition('mql', 'sal', 'etumos'), true, 'a move that etumos allows');
SELECT is(lifecycle.is_valid_transition('known', 'mal', 'etumos'), false, 'a status that the model lacks leads nowhere');
SELECT is(lifecycle.is_valid_transition('mq', 'sal'), false, 'the beginning of a status is no status');
SELECT is(lifecycle.is_valid_transition('mqlx', 'sal'), false, 'nor is a longer text');
SELECT is(lifecycle.is_valid_transition('', ''), false, 'nor is the empty one');
SELECT is(lifecycle.is_valid_transition(repeat('mql', 100000), 'sal'), false, 'nor is a very long one');
SELECT is(lifecycle.is_valid_transition(NULL::text, 'sal'), NULL, 'from NULL: NULL');
SELECT is(lifecycle.is_valid_transition('mql'::lifecycle.lifecycle_status, NULL), NULL, 'to NULL: NULL');
SELECT is(lifecycle.is_valid_transition('mql', 'sal', NULL), NULL, 'without a model: NULL');
SELECT is(failure($$SELECT lifecycle.is_valid_transition('mql', 'sal', 'nobody')$$),
          E'42704: model "nobody" does not exist or has no stages\nHINT: The models are the rows of lifecycle.model.',
          'an unknown model is an error');
SELECT is(failure($$SELECT lifecycle.is_valid_transition('mql', 'sal', repeat('n', 300))$$),
          format(E'42704: model "%s" does not exist or has no stages\nHINT: The models are the rows of lifecycle.model.', repeat('n', 300)),
          'so is one whose name is longer than names can be');
SELECT throws_ok($$SELECT lifecycle.is_valid_transition('mql'::lifecycle.lifecycle_status, 'bogus')$$,
                 '22P02', NULL, 'the type refuses what is none of its labels');

-- ---- copy_model() ----

SELECT lives_ok($$SELECT lifecycle.copy_model('standard', 'mine')$$, 'a shipped model can be copied');
SELECT set_eq($$SELECT from_status, to_status FROM lifecycle.transition WHERE model = 'mine'$$,
              $$SELECT from_status, to_status FROM listed WHERE model = 'standard'$$, 'the copy has the same moves');
SELECT set_eq($$SELECT status, rank, label, marketing, resets_behavior, reason_required, sla, sla_status
                FROM lifecycle.stage WHERE model = 'mine'$$,
              $$SELECT status, rank, label, marketing, resets_behavior, reason_required, sla, sla_status
                FROM lifecycle.stage WHERE model = 'standard'$$, 'and the same stages');
SELECT is((SELECT description FROM lifecycle.model WHERE name = 'mine'),
          (SELECT description FROM lifecycle.model WHERE name = 'standard'), 'and the description');
UPDATE lifecycle.stage SET reason_required = true, sla = '2 days', sla_status = 'recycled' WHERE model = 'mine' AND status = 'mql';
SELECT lifecycle.copy_model('mine', 'Müllers "Modell"');
SELECT results_eq($$SELECT reason_required, sla, sla_status FROM lifecycle.stage WHERE model = 'Müllers "Modell"' AND status = 'mql'$$,
                  $$VALUES (true, interval '2 days', 'recycled')$$, 'a copy of one''s own model has all that was changed');
SELECT is(failure($$SELECT lifecycle.copy_model('nobody', 'x')$$),
          E'42704: model "nobody" does not exist\nHINT: The models are the rows of lifecycle.model.', 'an unknown model cannot be copied');
SELECT is(failure($$SELECT lifecycle.copy_model('standard', 'mine')$$),
          E'42710: model "mine" already exists\nHINT: Choose another name, or DELETE that model first.', 'a taken name is refused');
SELECT is(failure($$SELECT lifecycle.copy_model('mine', 'etumos')$$),
          E'42710: model "etumos" already exists\nHINT: Choose another name, or DELETE that model first.', 'so is a shipped one''s');
SELECT is(failure($$SELECT lifecycle.copy_model(NULL, 'x')$$), '22004: model and name must not be null', 'NULL is refused');
SELECT is(failure($$SELECT lifecycle.copy_model('mine', NULL)$$), '22004: model and name must not be null', 'twice');
SELECT throws_ok($$SELECT lifecycle.copy_model('mine', '')$$, '23514', NULL, 'a model has a name');
SELECT throws_ok($$SELECT lifecycle.copy_model('mine', repeat('n', 64))$$, '23514', NULL, 'of at most 63 bytes');

-- ---- what a model's rows must be ----

SELECT throws_ok(w.statement, w.sqlstate, NULL, 'refused: ' || w.statement)
FROM (VALUES
    ('23514', $$INSERT INTO lifecycle.stage (model, status) VALUES ('mine', '')$$),
    ('23514', $$INSERT INTO lifecycle.stage (model, status) VALUES ('mine', repeat('ß', 32))$$),
    ('23514', $$INSERT INTO lifecycle.stage (model, status) VALUES ('mine', E'a\tb')$$),
    ('23514', $$INSERT INTO lifecycle.stage (model, status, rank) VALUES ('mine', 'x', 0)$$),
    ('23505', $$INSERT INTO lifecycle.stage (model, status, rank) VALUES ('mine', 'x', 1)$$),
    ('23514', $$INSERT INTO lifecycle.stage (model, status, marketing) VALUES ('mine', 'x', 'stopped')$$),
    ('23514', $$INSERT INTO lifecycle.stage (model, status, sla) VALUES ('mine', 'x', '0 days')$$),
    ('23503', $$INSERT INTO lifecycle.stage (model, status, sla_status) VALUES ('mine', 'x', 'y')$$),
    ('23503', $$INSERT INTO lifecycle.stage (model, status) VALUES ('nobody', 'x')$$),
    ('23514', $$INSERT INTO lifecycle.transition VALUES ('mine', 'mql', 'mql')$$),
    ('23503', $$INSERT INTO lifecycle.transition VALUES ('mine', 'mql', 'nowhere')$$)
) AS w (sqlstate, statement);

INSERT INTO lifecycle.model VALUES ('wide');
SELECT lives_ok($$INSERT INTO lifecycle.stage (model, status, rank) SELECT 'wide', 's' || n, n FROM generate_series(1, 64) AS n$$,
                'a model may have 64 stages');
SELECT is(failure($$INSERT INTO lifecycle.stage (model, status) VALUES ('wide', 's65')$$),
          '54000: model "wide" has more than 64 stages', 'and not 65');
SELECT is(failure($$UPDATE lifecycle.stage SET model = 'wide' WHERE model = 'mine' AND status = 'lost'$$),
          '54000: model "wide" has more than 64 stages', 'also not by UPDATE');
INSERT INTO lifecycle.transition VALUES ('wide', 's1', 's64'), ('wide', 's64', 's1'), ('wide', 's64', 's63');
SELECT is(lifecycle.is_valid_transition('s1', 's64', 'wide'), true, 'a move to the 64th stage');
SELECT is(lifecycle.is_valid_transition('s64', 's63', 'wide'), true, 'and from it');
SELECT is(lifecycle.is_valid_transition('s63', 's64', 'wide'), false, 'but not what was not allowed');
CREATE TABLE wide (id int PRIMARY KEY, status text);
SELECT lifecycle.track('wide', 'wide', status_column => 'status');
INSERT INTO wide VALUES (1);
UPDATE wide SET status = 's64';
SELECT results_eq('SELECT to_status FROM wide_history ORDER BY seq', ARRAY['s1', 's64'], 'a lead goes to the 64th stage');
SELECT is(failure($$UPDATE wide SET status = 's2'$$),
          E'23514: lead 1 of table "public.wide" cannot move from "s64" to "s2"\nDETAIL: Model "wide" has no such transition.\n'
          'HINT: From "s64" a lead can become: s1, s63.\nCOLUMN: status\nCONSTRAINT: lifecycle_transition', 'and is held there');

-- ---- a model of one's own is obeyed from the next statement on ----

INSERT INTO lifecycle.model VALUES ('support', 'Made by plain INSERT');
INSERT INTO lifecycle.stage (model, status, rank) VALUES ('support', 'neu', 10), ('support', 'geprüft', 20), ('support', '成约', 30);
INSERT INTO lifecycle.stage (model, status) VALUES ('support', 'verloren');
INSERT INTO lifecycle.transition VALUES ('support', 'neu', 'geprüft'), ('support', 'geprüft', '成约');
CREATE TABLE cases (id int PRIMARY KEY, stand text);
SELECT lifecycle.track('cases', 'support', status_column => 'stand');
INSERT INTO cases VALUES (1, NULL), (2, 'geprüft'), (3, 'verloren'), (4, NULL);
SELECT results_eq('SELECT stand FROM cases ORDER BY id', ARRAY['neu', 'geprüft', 'verloren', 'neu'],
                  'leads enter on the lowest rank, or where they are said to be');
SELECT lives_ok($$UPDATE cases SET stand = '成约' WHERE id = 2$$, 'statuses may have any letters');
SELECT is(failure($$UPDATE cases SET stand = '成约' WHERE id = 1$$),
          E'23514: lead 1 of table "public.cases" cannot move from "neu" to "成约"\nDETAIL: Model "support" has no such transition.\n'
          'HINT: From "neu" a lead can become: geprüft.\nCOLUMN: stand\nCONSTRAINT: lifecycle_transition', 'and are shown so');
SELECT is(failure($$UPDATE cases SET stand = 'neu' WHERE id = 3$$),
          E'23514: lead 3 of table "public.cases" cannot move from "verloren" to "neu"\nDETAIL: Model "support" has no such transition.\n'
          'HINT: No transition leads away from "verloren".\nCOLUMN: stand\nCONSTRAINT: lifecycle_transition', 'a dead end says so');
SELECT is(failure($$UPDATE cases SET stand = 'alt' WHERE id = 1$$),
          E'23514: "alt" is not a status of model "support"\nDETAIL: Table "public.cases" follows model "support".\n'
          'HINT: The statuses are: neu, geprüft, 成约, verloren.\nCOLUMN: stand\nCONSTRAINT: lifecycle_status', 'an unknown status is refused');
INSERT INTO lifecycle.transition VALUES ('support', 'neu', '成约');
SELECT lives_ok($$UPDATE cases SET stand = '成约' WHERE id = 1$$, 'a transition that was added is obeyed at once');
DELETE FROM lifecycle.transition WHERE model = 'support' AND to_status = '成约';
SELECT throws_ok($$UPDATE cases SET stand = '成约' WHERE id = 4$$, '23514',
                 'lead 4 of table "public.cases" cannot move from "neu" to "成约"', 'so is one that was removed');
INSERT INTO lifecycle.stage (model, status, rank) VALUES ('support', 'roh', 5);
INSERT INTO cases VALUES (5);
SELECT is((SELECT stand FROM cases WHERE id = 5), 'roh', 'a new first stage is where the next lead enters');

-- inside one transaction, and after its rollback
BEGIN;
SELECT throws_ok($$UPDATE cases SET stand = 'verloren' WHERE id = 4$$, '23514',
                 'lead 4 of table "public.cases" cannot move from "neu" to "verloren"', 'before the change: refused');
INSERT INTO lifecycle.transition VALUES ('support', 'neu', 'verloren');
SELECT is(lifecycle.is_valid_transition('neu', 'verloren', 'support'), true, 'the change is seen in its transaction');
SELECT lives_ok($$UPDATE cases SET stand = 'verloren' WHERE id = 4$$, 'and obeyed there');
ROLLBACK;
SELECT is(lifecycle.is_valid_transition('neu', 'verloren', 'support'), false, 'after ROLLBACK the old rules are known again');
SELECT throws_ok($$UPDATE cases SET stand = 'verloren' WHERE id = 4$$, '23514',
                 'lead 4 of table "public.cases" cannot move from "neu" to "verloren"', 'and obeyed');

BEGIN;
SAVEPOINT change;
INSERT INTO lifecycle.transition VALUES ('support', 'neu', 'verloren');
UPDATE cases SET stand = 'verloren' WHERE id = 4;
SELECT is((SELECT stand FROM cases WHERE id = 4), 'verloren', 'obeyed in the subtransaction that changes the model');
ROLLBACK TO SAVEPOINT change;
SELECT is(lifecycle.is_valid_transition('neu', 'verloren', 'support'), false, 'after ROLLBACK TO SAVEPOINT the old rules again');
SELECT throws_ok($$UPDATE cases SET stand = 'verloren' WHERE id = 4$$, '23514',
                 'lead 4 of table "public.cases" cannot move from "neu" to "verloren"', 'in the same transaction');
COMMIT;
SELECT is_empty($$SELECT * FROM lifecycle.verify('cases')$$, 'the history is whole after all of it');

-- a model is renamed and removed
UPDATE lifecycle.model SET name = 'care' WHERE name = 'support';
SELECT is((SELECT model FROM lifecycle.program WHERE lead_table = 'cases'::regclass), 'care', 'a program follows the new name of its model');
SELECT throws_ok($$UPDATE cases SET stand = 'verloren' WHERE id = 4$$, '23514',
                 'lead 4 of table "public.cases" cannot move from "neu" to "verloren"', 'and obeys it');
SELECT throws_ok($$DELETE FROM lifecycle.model WHERE name = 'care'$$, '23503', NULL, 'a model in use cannot be deleted');
DELETE FROM lifecycle.model WHERE name = 'mine';
SELECT is((SELECT count(*) FROM lifecycle.stage WHERE model = 'mine'), 0::bigint, 'one that is not in use goes with its stages');
SELECT throws_ok($$SELECT lifecycle.is_valid_transition('mql', 'sal', 'mine')$$, '42704',
                 'model "mine" does not exist or has no stages', 'and is forgotten at once');

-- ---- next_statuses() ----

CREATE TABLE leads (id int PRIMARY KEY);
SELECT lifecycle.track('leads');
SELECT results_eq($$SELECT lifecycle.next_statuses('leads', 'lost')$$,
                  ARRAY['mql', 'sql', 'opportunity', 'customer', 'disqualified', 'recycled'], 'the path by rank, then detours by name');
SELECT results_eq($$SELECT lifecycle.next_statuses('leads', 'customer')$$, ARRAY['recycled'], 'one way on');
SELECT results_eq($$SELECT lifecycle.next_statuses('leads', NULL)$$,
                  ARRAY['known', 'mal', 'engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer', 'disqualified', 'lost', 'recycled'],
                  'from NULL any status may be entered');
SELECT is_empty($$SELECT lifecycle.next_statuses('cases', 'verloren')$$, 'from a dead end there is none');
SELECT is(failure($$SELECT lifecycle.next_statuses('leads', 'neu')$$),
          E'22023: "neu" is not a status of model "standard"\nHINT: The statuses are: known, mal, engaged, mql, sal, sql, '
          'opportunity, customer, disqualified, lost, recycled.', 'a status that the model lacks is an error');
SELECT is(failure($$SELECT lifecycle.next_statuses('listed', 'mql')$$),
          E'55000: table "public.listed" is not tracked\nHINT: SELECT lifecycle.track(''public.listed'');', 'so is a table that is not tracked');
SELECT is(failure($$SELECT lifecycle.next_statuses(NULL, 'mql')$$),
          E'55000: table "(null)" is not tracked\nHINT: Name the lead table.', 'and no table');

SELECT * FROM finish();
