-- After track(): untrack(), taking up an old history, and what becomes of a
-- tracked table that is dropped, renamed or altered.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

-- ---- untrack() keeps columns and history ----

CREATE TABLE leads (id int PRIMARY KEY, name text);
SELECT lifecycle.track('leads');
INSERT INTO leads SELECT n, 'lead ' || n FROM generate_series(1, 5) AS n;
UPDATE leads SET lifecycle_status = 'mql' WHERE id <= 3;
SELECT lifecycle.untrack('leads');
SELECT is_empty($$SELECT tgname FROM pg_trigger WHERE tgrelid = 'leads'::regclass$$, 'the triggers are gone');
SELECT is_empty('SELECT * FROM lifecycle.program', 'and the program');
SELECT columns_are('leads', ARRAY['id', 'name', 'lifecycle_status', 'lifecycle_since', 'lifecycle_seq', 'demographic_score'], 'the columns stay');
SELECT is((SELECT count(*) FROM leads_history), 8::bigint, 'and the history');
SELECT throws_ok('DELETE FROM leads_history', '42501', 'history "leads_history" cannot be written', 'under its guard');
SELECT is(failure($$SELECT lifecycle.untrack('leads')$$),
          E'55000: table "public.leads" is not tracked\nHINT: The tracked tables are the rows of lifecycle.program.', 'it is not tracked any more');
SELECT is(failure('SELECT lifecycle.untrack(NULL)'), '22004: lead_table and drop_data must not be null', 'NULL is no table');
SELECT is(failure($$SELECT lifecycle.untrack('leads', NULL)$$), '22004: lead_table and drop_data must not be null', 'and no answer');
SELECT is(failure($$SELECT * FROM lifecycle.verify('leads')$$),
          E'55000: table "public.leads" is not tracked\nHINT: SELECT lifecycle.track(''public.leads'');', 'reports say so, too');

-- ---- the old history is taken up ----

INSERT INTO leads (id, name) VALUES (6, 'while away');
INSERT INTO leads (id, lifecycle_status) VALUES (7, 'sal');
DELETE FROM leads WHERE id = 1;
DELETE FROM leads WHERE id = 5;
UPDATE leads SET lifecycle_status = 'known' WHERE id = 2;
SELECT lives_ok($$SELECT lifecycle.track('leads')$$, 'a history that untrack() left is taken up');
SELECT results_eq($$SELECT "check", lead, detail FROM lifecycle.verify('leads') WHERE "check" = 'status' ORDER BY lead$$,
    $$VALUES ('status', '1', 'the lead is gone, but its last move was to mql'),
             ('status', '2', 'the lead is known, but its last move was to mql'),
             ('status', '5', 'the lead is gone, but its last move was to known')$$,
    'verify() tells what happened while nobody looked; new leads are no fault');
INSERT INTO leads (id) VALUES (1);
SELECT results_eq('SELECT seq, from_status, to_status, cause, cycle FROM leads_history WHERE lead = 1 ORDER BY seq',
    $$VALUES (1, NULL, 'known', 'entry', 1), (2, 'known', 'mql', 'write', 1), (3, 'mql', NULL, 'delete', 1), (4, NULL, 'known', 'entry', 2)$$,
    'a lead that comes back has left first');
UPDATE leads SET lifecycle_status = 'sal' WHERE id = 3;
UPDATE leads SET lifecycle_status = 'mql' WHERE id = 6;
UPDATE leads SET lifecycle_status = 'sql' WHERE id = 7;
SELECT results_eq('SELECT lead, seq, to_status, cause FROM leads_history WHERE lead IN (3, 6, 7) ORDER BY lead, seq',
    $$VALUES (3, 1, 'known', 'entry'), (3, 2, 'mql', 'write'), (3, 3, 'sal', 'write'), (6, 1, 'mql', 'entry'),
             (7, 1, 'known', 'backfill'), (7, 2, 'sal', 'backfill'), (7, 3, 'sql', 'write')$$, 'the others go on, or enter');
INSERT INTO leads (id) VALUES (5);
UPDATE leads SET lifecycle_status = 'mql' WHERE id = 2;
SELECT results_eq($$SELECT lead FROM lifecycle.verify('leads') WHERE "check" = 'gap'$$, 'SELECT NULL::text WHERE false', 'and no history has a gap');

-- ---- drop_data ----

SELECT lifecycle.untrack('leads', drop_data => true);
SELECT columns_are('leads', ARRAY['id', 'name'], 'drop_data: the columns go');
SELECT hasnt_table('leads_history'::name, 'and the history');
SELECT hasnt_table('leads_refused'::name, 'and the table of refused moves');
SELECT is((SELECT count(*) FROM leads), 7::bigint, 'the leads stay');
CREATE TABLE deals (id int PRIMARY KEY, stage text);
SELECT lifecycle.track('deals', status_column => 'stage');
INSERT INTO deals VALUES (1, 'sal');
SELECT lifecycle.untrack('deals', drop_data => true);
SELECT results_eq('SELECT * FROM deals', $$VALUES (1, 'sal')$$, 'a status column that was there stays');
CREATE TABLE own (id int PRIMARY KEY, lifecycle_status lifecycle.lifecycle_status);
SELECT lifecycle.track('own'); SELECT lifecycle.untrack('own'); SELECT lifecycle.track('own'); SELECT lifecycle.untrack('own', true);
SELECT columns_are('own', ARRAY['id', 'lifecycle_status'], 'also one of the name and type of ours, and tracked twice');
CREATE TABLE added (id int PRIMARY KEY);
SELECT lifecycle.track('added'); SELECT lifecycle.untrack('added'); SELECT lifecycle.track('added'); SELECT lifecycle.untrack('added', true);
SELECT columns_are('added', ARRAY['id'], 'one that was added goes, though tracked twice');

-- what is not the history that was left is not taken up
CREATE TABLE other (id int PRIMARY KEY);
SELECT lifecycle.track('other', on_illegal => 'keep'); SELECT lifecycle.untrack('other');
DROP TABLE other_refused; CREATE VIEW other_refused AS SELECT 1 AS x;
SELECT throws_ok($$SELECT lifecycle.track('other')$$, '42P07', NULL, 'a view is no table of refused moves');
DROP VIEW other_refused; CREATE TABLE other_refused (x int);
SELECT throws_ok($$SELECT lifecycle.track('other')$$, '42P07', NULL, 'nor is any table');
DROP TABLE other_refused;
SELECT lives_ok($$SELECT lifecycle.track('other', on_illegal => 'keep')$$, 'where there is none, one is made');
SELECT lifecycle.untrack('other');
ALTER TABLE other ALTER id TYPE bigint;
SELECT throws_ok($$SELECT lifecycle.track('other')$$, '42P07', NULL, 'a history for keys of another type is not taken up');

-- ---- a tracked table is dropped ----

CREATE SCHEMA s;
CREATE TABLE s.leads (id int PRIMARY KEY);
SELECT lifecycle.track('s.leads');
SELECT is(failure('DROP TABLE s.leads_history'),
          E'2BP01: cannot drop a table that lifecycle writes for tracked table "leads"\nHINT: Call lifecycle.untrack(''s.leads'') first.',
          'the history of a tracked table is not dropped');
SELECT is(failure('DROP TABLE s.leads_refused CASCADE'),
          E'2BP01: cannot drop a table that lifecycle writes for tracked table "leads"\nHINT: Call lifecycle.untrack(''s.leads'') first.',
          'nor is its table of refused moves');
SELECT lives_ok('INSERT INTO s.leads VALUES (1)', 'and both still work');
BEGIN;
DROP TABLE s.leads;
SELECT is_empty($$SELECT * FROM lifecycle.program WHERE prefix = 'leads'$$, 'a dropped table takes its program along');
ROLLBACK;
SELECT lives_ok('INSERT INTO s.leads VALUES (2)', 'and comes back with it');
DROP TABLE s.leads;
SELECT is((SELECT count(*) FROM s.leads_history), 2::bigint, 'the history outlives the leads');
CREATE TABLE s.leads (id int PRIMARY KEY);
SELECT lifecycle.track('s.leads');
INSERT INTO s.leads VALUES (2), (3);
SELECT results_eq('SELECT lead, seq, coalesce(to_status, ''-'') FROM s.leads_history ORDER BY lead, seq',
                  $$VALUES (1, 1, 'known'), (2, 1, 'known'), (2, 2, '-'), (2, 3, 'known'), (3, 1, 'known')$$, 'and is taken up by the table that comes after');
CREATE TABLE s.more (id int PRIMARY KEY);
SELECT lifecycle.track('s.more');
SET client_min_messages = error;
SELECT lives_ok('DROP SCHEMA s CASCADE', 'a schema goes with all that is in it');
SELECT is_empty($$SELECT * FROM lifecycle.program$$, 'and leaves no program');

-- ---- it is renamed and altered ----

CREATE TABLE people (id int PRIMARY KEY, stage text, name varchar(10), note text);
SELECT lifecycle.track('people', status_column => 'stage', on_illegal => 'keep', source => 'name');
INSERT INTO people VALUES (1, 'mql', 'x', '1');
CREATE SCHEMA elsewhere;
ALTER TABLE people RENAME TO contacts;
ALTER TABLE contacts SET SCHEMA elsewhere;
ALTER SCHEMA elsewhere RENAME TO crm;
SELECT lives_ok($$UPDATE crm.contacts SET stage = 'sal'$$, 'table and schema may be renamed');
SELECT is((SELECT count(*) FROM people_history), 2::bigint, 'the history keeps its name and goes on');
ALTER TABLE people_history RENAME TO moves;
SELECT lives_ok($$UPDATE crm.contacts SET stage = 'sql'$$, 'and may be renamed as well');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.contacts')$$, 'all is well');
-- event triggers do not fire in a replica, or where they are switched off
SELECT is(failure(format('SET LOCAL session_replication_role = replica; ALTER TABLE crm.contacts RENAME COLUMN %s TO gone; SET LOCAL session_replication_role = origin; UPDATE crm.contacts SET note = note', c.name)),
          format(E'55000: column "%s" of tracked table "contacts" does not exist\n'
                 'HINT: Give the column its name back, or call lifecycle.untrack() and lifecycle.track() again.', c.name),
          c.name || ' renamed unseen: the next write says what is missing')
FROM unnest(ARRAY['id', 'stage', 'lifecycle_since', 'lifecycle_seq', 'demographic_score']) AS c (name);
SET session_replication_role = replica;
ALTER TABLE crm.contacts RENAME COLUMN stage TO gone;
SET session_replication_role = origin;
SELECT throws_ok($$INSERT INTO crm.contacts (id) VALUES (2)$$, '55000', 'column "stage" of tracked table "contacts" does not exist', 'an INSERT, too');
SET session_replication_role = replica;
ALTER TABLE crm.contacts RENAME COLUMN gone TO stage;
SET session_replication_role = origin;
SELECT lives_ok($$INSERT INTO crm.contacts (id) VALUES (2)$$, 'and the hint helps');
SELECT lives_ok(format('ALTER TABLE crm.contacts ALTER %s', a.change), 'columns of the user''s own change: ' || a.change)
FROM unnest(ARRAY['note TYPE int USING note::int', 'name TYPE text', 'stage TYPE varchar(30)', 'stage TYPE text COLLATE "C"']) AS a (change);
SELECT lives_ok($$UPDATE crm.contacts SET stage = 'customer' WHERE id = 1$$, 'and writes go on');
SELECT is(failure('ALTER TABLE crm.contacts ALTER stage TYPE int USING 1'),
          E'0A000: cannot change the type of column "stage" of tracked table "crm.contacts" to integer\n'
          'DETAIL: A status column is an enum, text or character varying.', 'a status column stays one');
ALTER EVENT TRIGGER lifecycle_follow_begin DISABLE;
ALTER TABLE crm.contacts ALTER stage TYPE int USING 1;
ALTER EVENT TRIGGER lifecycle_follow_begin ENABLE;
SELECT is(failure($$UPDATE crm.contacts SET note = 2$$) LIKE '%status column "stage"% is of type integer%', true, 'one that became none unseen is an error');
ALTER TABLE crm.contacts ALTER stage TYPE text USING CASE id WHEN 1 THEN 'customer' ELSE 'known' END;
SELECT lives_ok($$UPDATE crm.contacts SET note = 3$$, 'until it is one again');

-- the type of the key
ALTER TABLE crm.contacts ALTER id TYPE text;
SELECT is(failure($$UPDATE crm.contacts SET note = 2$$),
          E'55000: column "lead" of table "public.moves" is not of type text\n'
          'DETAIL: It holds the keys of table "crm.contacts".\nHINT: ALTER TABLE public.moves ALTER COLUMN lead TYPE text.',
          'the history must follow the type of the key');
ALTER TABLE public.moves ALTER COLUMN lead TYPE text;
SELECT is(failure($$UPDATE crm.contacts SET note = 2$$),
          E'55000: column "lead" of table "public.people_refused" is not of type text\n'
          'DETAIL: It holds the keys of table "crm.contacts".\nHINT: ALTER TABLE public.people_refused ALTER COLUMN lead TYPE text.',
          'so must the table of refused moves');
ALTER TABLE public.people_refused ALTER COLUMN lead TYPE text;
SELECT lives_ok($$UPDATE crm.contacts SET stage = 'known' WHERE id = '1'; INSERT INTO crm.contacts (id) VALUES ('three')$$, 'and the hints help');
SELECT results_eq('SELECT lead, to_status FROM people_refused', $$VALUES ('1', 'known')$$, 'the refused move is noted');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.contacts')$$, 'all is well');
ALTER TABLE people_refused ALTER at TYPE text;
SELECT throws_ok($$UPDATE crm.contacts SET stage = 'known' WHERE id = '1'$$, '55000', NULL, 'a table of refused moves that we cannot write is an error');
ALTER TABLE people_refused ALTER at TYPE timestamptz USING at::timestamptz;
SELECT lives_ok($$UPDATE crm.contacts SET stage = 'known' WHERE id = '1'$$, 'until it is right again');

-- a key that is NULL
CREATE TABLE loose (id text NOT NULL UNIQUE, name text);
SELECT lifecycle.copy_model('standard', 'strict');
UPDATE lifecycle.stage SET reason_required = true WHERE model = 'strict' AND status = 'lost';
SELECT lifecycle.track('loose', 'strict', key => 'id');
SELECT is(failure($$INSERT INTO loose VALUES (NULL, 'x')$$) ~ '^23502: ', true, 'a key that is NULL is refused');
SELECT is(failure($$INSERT INTO loose VALUES (NULL, 'x', 'lost')$$) ~ '^23502: ', true, 'also where a reason is missing as well');
INSERT INTO loose VALUES ('a');
ALTER TABLE loose ALTER id DROP NOT NULL;
SELECT is(failure($$INSERT INTO loose VALUES (NULL, 'x')$$) ~ '^23502: ', true, 'even where the column has become nullable');
SELECT is(failure($$INSERT INTO loose VALUES (NULL, 'x', 'lost')$$) ~ '^23502: ', true, 'again with a reason missing');
SELECT is(failure($$UPDATE loose SET id = NULL$$) ~ '^(23502|0A000): ', true, 'a key does not become NULL');
ALTER TABLE loose DISABLE TRIGGER USER;
INSERT INTO loose VALUES (NULL, 'smuggled in');
ALTER TABLE loose ENABLE TRIGGER USER;
SELECT is(failure($$UPDATE loose SET lifecycle_status = 'mql' WHERE id IS NULL$$),
          E'23502: key of a lead of table "public.loose" must not be null\nHINT: Set column "id".\nCOLUMN: id', 'one that was smuggled in does not move');
SELECT lives_ok($$DELETE FROM loose WHERE id IS NULL$$, 'but can be removed');
SELECT is((SELECT lifecycle_status::text FROM loose WHERE id = 'a'), 'known', 'the others are as they were');

-- ---- the extension is dropped and made again, in one session ----

SELECT throws_ok('DROP EXTENSION lifecycle', '2BP01', NULL, 'the extension of tracked tables does not go by itself');
DROP EXTENSION lifecycle CASCADE;
SELECT lives_ok($$UPDATE crm.contacts SET stage = 'anything' WHERE id = '1'$$, 'with CASCADE the tables are ordinary ones');
SELECT columns_are('crm', 'contacts', ARRAY['id', 'stage', 'name', 'note', 'lifecycle_since', 'lifecycle_seq', 'demographic_score'], 'and keep their columns');
SELECT is((SELECT count(*) > 0 FROM moves), true, 'and their histories');
CREATE EXTENSION lifecycle;
CREATE TABLE anew (id int PRIMARY KEY);
SELECT lifecycle.track('anew');
INSERT INTO anew VALUES (1);
UPDATE anew SET lifecycle_status = 'mql';
SELECT is_empty($$SELECT * FROM lifecycle.verify('anew')$$, 'a new extension works in the same session');
SELECT is(lifecycle.is_valid_transition('mql', 'sal'), true, 'with its models');
SELECT lifecycle.copy_model('standard', 'mine');
INSERT INTO lifecycle.transition VALUES ('mine', 'customer', 'known');
SELECT is(lifecycle.is_valid_transition('customer', 'known', 'mine'), true, 'and their changes');

SELECT * FROM finish();
