-- track_signal() and untrack_signal(): what they make, refuse, leave and take up
-- again; partitions; what becomes of signal tables that are dropped.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE SCHEMA crm;
CREATE TABLE crm.leads (id bigint PRIMARY KEY, name text);
CREATE TABLE crm.activities (id serial PRIMARY KEY, lead_id int, kind text, occurred_at timestamptz, local_time timestamp);
CREATE INDEX ON crm.activities (lead_id, kind);
CREATE TABLE crm.visits (visitor bigint NOT NULL, url text);
CREATE INDEX visits_visitor ON crm.visits USING hash (visitor);
SELECT lifecycle.track('crm.leads');

CREATE VIEW our_triggers AS
SELECT t.tgrelid::regclass AS on_table, t.tgname::text COLLATE "default" AS name, t.tgparentid <> 0 AS cloned, encode(t.tgargs, 'escape') AS argument
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND p.pronamespace = 'lifecycle'::regnamespace AND p.proname LIKE 'signal\_%';

-- ---- what it makes ----

SELECT is((SELECT behavior FROM lifecycle.program), NULL, 'a program without signals has no table of points');
SELECT lives_ok($$SELECT lifecycle.track_signal('crm.activities', 'crm.leads', lead => 'lead_id', at => 'occurred_at')$$, 'with a time of its own');
SELECT columns_are('crm', 'activities', ARRAY['id', 'lead_id', 'kind', 'occurred_at', 'local_time'], 'no column is added');
SELECT results_eq('SELECT signal_table, lead_table, lead, at FROM lifecycle.signal',
                  $$VALUES ('crm.activities'::regclass, 'crm.leads'::regclass, 'lead_id', 'occurred_at')$$, 'registered with canonical expressions');
SELECT results_eq('SELECT name, argument FROM our_triggers ORDER BY name',
    format($$VALUES ('lifecycle_signal_after_row', %1$L), ('lifecycle_signal_after_statement', %1$L), ('lifecycle_signal_after_truncate', %1$L),
                    ('lifecycle_signal_before_statement', %1$L), ('lifecycle_signal_truncate', %1$L)$$,
           (SELECT id || '\000' FROM lifecycle.signal)), 'the triggers name their signal table');
SELECT is((SELECT behavior FROM lifecycle.program), 'crm.leads_behavior'::regclass, 'the program has a table of points');
SELECT results_eq($$SELECT attname::text COLLATE "default", format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
                    WHERE attrelid = 'crm.leads_behavior'::regclass AND attnum > 0 ORDER BY attnum$$,
    $$VALUES ('lead', 'bigint', true), ('half_life', 'interval', true), ('points', 'double precision', true),
             ('at', 'timestamp with time zone', true), ('heat', 'double precision', false), ('since', 'timestamp with time zone', true)$$,
    'with these columns');
SELECT results_eq($$SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'crm.leads_behavior'::regclass ORDER BY 1$$,
    $$VALUES ('CREATE INDEX leads_behavior_half_life_heat_idx ON crm.leads_behavior USING btree (half_life, heat DESC NULLS LAST)'),
             ('CREATE UNIQUE INDEX leads_behavior_pkey ON crm.leads_behavior USING btree (lead, half_life)')$$, 'and these indexes');
SELECT is_empty($$SELECT attname FROM pg_attribute WHERE attrelid = 'crm.leads_behavior'::regclass AND attnum > 0 AND col_description(attrelid, attnum) IS NULL$$,
                'every column has a comment');
SELECT isnt(obj_description('crm.leads_behavior'::regclass, 'pg_class'), NULL, 'so has the table');

SELECT lives_ok($$SELECT lifecycle.track_signal('crm.activities', 'crm.leads', 'lead_id', ' ( "occurred_at" ) ')$$, 'again in the same way: nothing happens');
SELECT is((SELECT count(*) FROM lifecycle.signal), 1::bigint, 'one row');
SELECT is(failure($$SELECT lifecycle.track_signal('crm.activities', 'crm.leads', 'id')$$),
    E'42710: table "crm.activities" is tracked for signals already, in another way\n'
    'DETAIL: lead is lead_id, not id; at is occurred_at, not lifecycle_at.\n'
    'HINT: SELECT lifecycle.untrack_signal(''crm.activities''), which deletes its rules, and call lifecycle.track_signal() again.',
    'in another way: says what differs');

INSERT INTO crm.visits SELECT 1, '/' FROM generate_series(1, 3);
SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'visitor');
SELECT col_default_is('crm', 'visits', 'lifecycle_at', 'now()', 'without a time a column is added that has it');
SELECT is(col_description('crm.visits'::regclass, 3), 'When the signal arrived. Added by lifecycle.track_signal().', 'and says so');
SELECT is((SELECT count(*) FROM crm.visits WHERE lifecycle_at = now()), 0::bigint, 'rows that were there');
SELECT is((SELECT count(DISTINCT lifecycle_at) FROM crm.visits), 1::bigint, 'have the time of the call');
SELECT is((SELECT at FROM lifecycle.signal WHERE signal_table = 'crm.visits'::regclass), 'lifecycle_at', 'it is the expression');
SELECT lives_ok($$SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'visitor')$$, 'again: nothing happens');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'verify() is content');

-- ---- verify() ----

ALTER TABLE crm.visits DISABLE TRIGGER lifecycle_signal_after_row;
DROP TRIGGER lifecycle_signal_truncate ON crm.activities;
SELECT results_eq($$SELECT "check", lead, detail FROM lifecycle.verify('crm.leads') ORDER BY detail$$,
    $$VALUES ('trigger', NULL::text, 'trigger lifecycle_signal_after_row on crm.visits is disabled'),
             ('trigger', NULL, 'trigger lifecycle_signal_truncate on crm.activities is missing')$$, 'verify() sees what is missing on signal tables');
ALTER TABLE crm.visits ENABLE TRIGGER lifecycle_signal_after_row;
SELECT lives_ok($$SELECT lifecycle.add_statement_triggers('crm.activities', 'signal', (SELECT id FROM lifecycle.signal WHERE signal_table = 'crm.activities'::regclass))$$,
                'it can be put back');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'verify() is content again');

-- ---- what it refuses ----

CREATE TABLE parted (lead bigint, k int) PARTITION BY LIST (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE INDEX ON ONLY parted (lead);
CREATE TABLE lead_parts (id bigint PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE lead_part PARTITION OF lead_parts DEFAULT;
SELECT lifecycle.track('lead_parts');
CREATE VIEW a_view AS SELECT 1::bigint AS lead;
CREATE TEMP TABLE a_temp (lead bigint);
CREATE UNLOGGED TABLE an_unlogged (lead bigint);
CREATE TABLE a_child (k int) INHERITS (crm.leads);
DROP TABLE a_child;
CREATE TABLE a_parent (lead bigint);
CREATE TABLE a_child () INHERITS (a_parent);
CREATE TABLE untracked (id bigint PRIMARY KEY);
CREATE DOMAIN small AS int;
CREATE TABLE types (i2 int2, i4 int4, i8 int8, num numeric, vc varchar(3), t text, u uuid, ch char(3), d small, "odd ""name" bigint);
CREATE TABLE indexes (lead bigint, other bigint, third bigint, fourth text COLLATE "C");
CREATE INDEX ON indexes (other, lead);
CREATE INDEX partial ON indexes (lead) WHERE other > 0;
CREATE INDEX ON indexes ((third + 0));
CREATE INDEX ON indexes (third) INCLUDE (lead);
CREATE INDEX ON indexes USING brin (lead);
CREATE INDEX invalid_index ON indexes (other);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'invalid_index'::regclass;
DROP INDEX indexes_other_lead_idx;

SELECT is(replace(failure(format('SELECT lifecycle.track_signal(%s)', r.arguments)), 'public.', ''), r.error, r.arguments)
FROM (VALUES
    ($$NULL, 'crm.leads', 'x'$$, '22004: signal_table, lead_table and lead must not be null'),
    ($$'crm.visits', NULL, 'x'$$, '22004: signal_table, lead_table and lead must not be null'),
    ($$'crm.visits', 'crm.leads', NULL$$, '22004: signal_table, lead_table and lead must not be null'),
    ($$1::regclass, 'crm.leads', 'x'$$, '42P01: relation with OID 1 does not exist'),
    ($$1::regclass, 'crm.leads', 'x', 'y'$$, '42P01: relation with OID 1 does not exist'),
    ($$'crm.visits', 1::regclass, 'x'$$, '42P01: relation with OID 1 does not exist'),
    ($$'crm.visits', 'untracked', 'visitor'$$, E'55000: table "untracked" is not tracked\nHINT: SELECT lifecycle.track(''untracked'');'),
    ($$'indexes', 'lead_part', 'lead'$$, E'42809: table "lead_part" is a partition\nHINT: Signals belong to leads of the tracked table: lead_parts.'),
    ($$'crm.leads', 'crm.leads', 'id'$$, E'42809: table "crm.leads" cannot have signals for its own leads\nHINT: What the row of a lead says is for rules on the lead table.'),
    ($$'a_view', 'crm.leads', 'lead'$$, E'42809: cannot track "a_view", which is a view\nHINT: Track the table that the view reads.'),
    ($$'a_temp', 'crm.leads', 'lead'$$, E'42809: cannot track "a_temp", which is a temporary table\nDETAIL: Its signals would be gone with the session.'),
    ($$'an_unlogged', 'crm.leads', 'lead'$$, E'42809: cannot track "an_unlogged", which is an unlogged table\nDETAIL: Its signals would be gone after a crash, and their points would not.\nHINT: ALTER TABLE an_unlogged SET LOGGED;'),
    ($$'parted_1', 'crm.leads', 'lead'$$, E'42809: cannot track "parted_1", which is a partition\nHINT: Track the partitioned table.'),
    ($$'a_child', 'crm.leads', 'lead'$$, E'42809: cannot track "a_child", which inherits from another table\nDETAIL: Its signals are rows of that table as well.'),
    ($$'a_parent', 'crm.leads', 'lead'$$, E'42809: cannot track "a_parent", from which other tables inherit\nDETAIL: Writes to their rows would not be seen.'),
    ($$'partial', 'crm.leads', 'lead'$$, '42809: cannot track "partial", which is not a table'),
    ($$'pg_class', 'crm.leads', 'oid'$$, '42809: cannot track "pg_class", which is in schema "pg_catalog"'),
    ($$'lifecycle.rule', 'crm.leads', 'on_table'$$, '42809: cannot track "lifecycle.rule", which is in schema "lifecycle"'),
    ($$'crm.leads_history', 'crm.leads', 'lead'$$, '42809: cannot track "crm.leads_history", which lifecycle keeps for table "crm.leads"'),
    ($$'crm.leads_behavior', 'lead_parts', 'lead'$$, '42809: cannot track "crm.leads_behavior", which lifecycle keeps for table "crm.leads"'),
    ($$'lead_parts_refused', 'crm.leads', 'lead'$$, '42809: cannot track "lead_parts_refused", which lifecycle keeps for table "lead_parts"'),
    ($$'types', 'crm.leads', 'lead'$$, E'42703: column "lead" of table "types" does not exist\nHINT: Name the column that holds the key of the lead.'),
    ($$'types', 'crm.leads', 'ctid'$$, E'42703: column "ctid" of table "types" does not exist\nHINT: Name the column that holds the key of the lead.'),
    ($$'types', 'crm.leads', 'num'$$, E'42804: column "num" of table "types" is of type numeric, and the key of the leads of type bigint\nDETAIL: Not every value of the one is a value of the other.\nHINT: Give the column the type of the key.'),
    ($$'types', 'crm.leads', 't'$$, E'42804: column "t" of table "types" is of type text, and the key of the leads of type bigint\nDETAIL: Not every value of the one is a value of the other.\nHINT: Give the column the type of the key.'),
    ($$'types', 'crm.leads', 'i8'$$, E'42P16: no index of table "types" begins with column "i8"\nDETAIL: The signals of a lead are looked up by it.\nHINT: CREATE INDEX CONCURRENTLY ON types (i8);'),
    ($$'types', 'crm.leads', 'd'$$, E'42P16: no index of table "types" begins with column "d"\nDETAIL: The signals of a lead are looked up by it.\nHINT: CREATE INDEX CONCURRENTLY ON types (d);'),
    ($$'types', 'crm.leads', 'i2'$$, E'42P16: no index of table "types" begins with column "i2"\nDETAIL: The signals of a lead are looked up by it.\nHINT: CREATE INDEX CONCURRENTLY ON types (i2);'),
    ($$'types', 'crm.leads', 'odd "name'$$, E'42P16: no index of table "types" begins with column "odd "name"\nDETAIL: The signals of a lead are looked up by it.\nHINT: CREATE INDEX CONCURRENTLY ON types ("odd ""name");'),
    ($$'indexes', 'crm.leads', 'lead'$$, E'42P16: no index of table "indexes" begins with column "lead"\nDETAIL: Index "partial" does not have every row whose lead is not null.\nHINT: CREATE INDEX CONCURRENTLY ON indexes (lead);'),
    ($$'indexes', 'crm.leads', 'other'$$, E'55000: index "invalid_index" of table "indexes" is not valid\nDETAIL: The signals of a lead are looked up by it.\nHINT: REINDEX INDEX CONCURRENTLY invalid_index;'),
    ($$'parted', 'crm.leads', 'lead'$$, E'55000: index "parted_lead_idx" of table "parted" is not valid\nDETAIL: The signals of a lead are looked up by it.\nHINT: ALTER INDEX parted_lead_idx ATTACH PARTITION ...; for each partition that lacks it.'),
    ($$'parted', 'crm.leads', 'k'$$, E'42P16: no index of table "parted" begins with column "k"\nDETAIL: The signals of a lead are looked up by it.\nHINT: CREATE INDEX ON parted (k);'),
    ($$'crm.activities', 'crm.leads', 'lead_id', 'local_time'$$, E'42804: expression for "at" gives timestamp without time zone, not timestamp with time zone\nDETAIL: Which instant that is would depend on the time zone of each session.\nHINT: Name the time zone, as in: (local_time) AT TIME ZONE ''UTC''.'),
    ($$'crm.activities', 'crm.leads', 'lead_id', 'coalesce(occurred_at, now())'$$, E'42P17: cannot use the present time in this expression\nDETAIL: The same row must give the same answer.\nHINT: Leave out "at", and a column lifecycle_at that holds the time is added.'),
    ($$'crm.activities', 'crm.leads', 'lead_id', 'least(occurred_at, current_timestamp(0))'$$, E'42P17: cannot use the present time in this expression\nDETAIL: The same row must give the same answer.\nHINT: Leave out "at", and a column lifecycle_at that holds the time is added.'),
    ($$'crm.activities', 'crm.leads', 'lead_id', 'clock_timestamp()'$$, E'42P17: cannot use a volatile function in this expression\nDETAIL: The same row must give the same answer.'),
    ($$'crm.activities', 'crm.leads', 'lead_id', 'happened'$$, '42703: column "happened" does not exist')
) AS r (arguments, error);
-- what the error tells of a column of lifecycle_at that is not ours
CREATE TABLE taken (lead bigint, lifecycle_at date);
CREATE INDEX ON taken (lead) WHERE lead IS NOT NULL;
SELECT is(failure($$SELECT lifecycle.track_signal('taken', 'crm.leads', 'lead')$$),
    E'42701: column "lifecycle_at" of table "public.taken" is of type date\nDETAIL: Lifecycle keeps the time of each signal in a column of that name.\n'
    'HINT: Rename the column, or say when each signal happened: at => ''...''.', 'a column lifecycle_at of another type');
SELECT lives_ok($$SELECT lifecycle.track_signal('taken', 'crm.leads', 'lead', 'lifecycle_at::timestamp AT TIME ZONE ''UTC''')$$,
                'does not matter to who says when; an index without NULLs will do');
SELECT lifecycle.untrack_signal('taken');
SELECT is((SELECT count(*) FROM lifecycle.signal), 2::bigint, 'nothing is left of what was refused');
SELECT is_empty($$SELECT * FROM our_triggers WHERE on_table::text NOT LIKE 'crm.%'$$, 'no trigger either');

-- keys of other types
CREATE TABLE people (mail varchar(40) PRIMARY KEY);
SELECT lifecycle.track('people');
CREATE TABLE letters (mail text, code char(8));
CREATE INDEX ON letters (mail); CREATE INDEX ON letters (code);
SELECT lives_ok($$SELECT lifecycle.track_signal('letters', 'people', 'mail')$$, 'text for character varying');
SELECT is(failure($$SELECT lifecycle.untrack_signal('letters'); SELECT lifecycle.track_signal('letters', 'people', 'code')$$),
    E'42804: column "code" of table "letters" is of type character, and the key of the leads of type character varying\nDETAIL: Not every value of the one is a value of the other.\nHINT: Give the column the type of the key.',
    'but not character');
SELECT is((SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'people_behavior'::regclass AND attname = 'lead'),
          'character varying(40)', 'the table of points has the key''s very type');
CREATE TABLE numbers (id int PRIMARY KEY);
SELECT lifecycle.track('numbers');
CREATE TABLE of_numbers (n2 int2, n4 small, n8 int8);
CREATE INDEX ON of_numbers (n2); CREATE INDEX ON of_numbers (n4); CREATE INDEX ON of_numbers (n8);
SELECT is(failure($$SELECT lifecycle.track_signal('of_numbers', 'numbers', 'n8')$$),
    E'42804: column "n8" of table "of_numbers" is of type bigint, and the key of the leads of type integer\nDETAIL: Not every value of the one is a value of the other.\nHINT: Give the column the type of the key.',
    'bigint for integer is refused');
SELECT lives_ok($$SELECT lifecycle.track_signal('of_numbers', 'numbers', 'n2'); SELECT lifecycle.untrack_signal('of_numbers')$$, 'smallint is not');
SELECT lives_ok($$SELECT lifecycle.track_signal('of_numbers', 'numbers', 'n4')$$, 'nor a domain');

-- a table of leads may have the signals of others
CREATE TABLE deals (id int PRIMARY KEY, lead_id bigint, stage text);
CREATE INDEX ON deals (lead_id);
SELECT lifecycle.track('deals');
SELECT lives_ok($$SELECT lifecycle.track_signal('deals', 'crm.leads', 'lead_id')$$, 'a table may be both');
SELECT is_empty($$SELECT * FROM lifecycle.verify('deals') UNION ALL SELECT * FROM lifecycle.verify('crm.leads')$$, 'with the triggers of both');
SELECT lifecycle.untrack_signal('deals');
SELECT is_empty($$SELECT * FROM lifecycle.verify('deals')$$, 'those of the leads stay');
SELECT lifecycle.track_signal('deals', 'crm.leads', 'lead_id');
SELECT lifecycle.untrack('deals');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'and those of the signals');
SELECT columns_are('public', 'deals', ARRAY['id', 'lead_id', 'stage', 'lifecycle_status', 'lifecycle_since', 'lifecycle_seq', 'demographic_score', 'lifecycle_at'], 'columns stay');
SELECT lifecycle.untrack_signal('deals');
DROP TABLE deals;

-- ---- who may ----

CREATE ROLE signal_leads; CREATE ROLE signal_signals; CREATE ROLE signal_both IN ROLE signal_leads, signal_signals;
CREATE SCHEMA own;
GRANT ALL ON SCHEMA own TO signal_leads, signal_signals;
CREATE TABLE own.leads (id int PRIMARY KEY);
CREATE TABLE own.signals (lead int);
CREATE INDEX ON own.signals (lead);
ALTER TABLE own.leads OWNER TO signal_leads;
ALTER TABLE own.signals OWNER TO signal_signals;
SET ROLE signal_leads;
SELECT lifecycle.track('own.leads');
RESET ROLE;
SELECT is(failure($$SELECT lifecycle.track_signal('own.signals', 'own.leads', 'lead')$$, 'signal_leads'),
    E'42501: must be owner of table signals\nHINT: Let a member of role signal_signals call lifecycle.track_signal().', 'not the owner of the signals');
SELECT is(failure($$SELECT lifecycle.track_signal('own.signals', 'own.leads', 'lead', 'now()')$$, 'signal_leads'),
    '42501: must be owner of table signals', 'not even to say when');
SELECT is(failure($$SELECT lifecycle.track_signal('own.signals', 'own.leads', 'lead')$$, 'signal_signals'),
    E'42501: must be owner of table leads\nHINT: Let a member of role signal_leads call lifecycle.track_signal().', 'not the owner of the leads');
SELECT is(failure($$SELECT lifecycle.register_signal('own.signals', 'own.leads', 'own.leads_history', 'lead', 'x')$$, 'signal_signals'),
    '42501: must be owner of table leads', 'nor behind our back');
SELECT is(failure($$SELECT lifecycle.canonical_lead('own.signals', 'lead', 'int')$$, 'signal_leads'), '42501: must be owner of table signals', 'nor in parts');
SELECT is(failure($$INSERT INTO lifecycle.signal (signal_table, lead_table, lead, at) VALUES ('own.signals', 'own.leads', 'lead', 'x')$$, 'signal_both'),
    '42501: permission denied for table signal', 'nor by hand');
ALTER DEFAULT PRIVILEGES IN SCHEMA own GRANT ALL ON TABLES TO PUBLIC, signal_signals;
ALTER DEFAULT PRIVILEGES FOR ROLE signal_both IN SCHEMA own GRANT ALL ON TABLES TO PUBLIC, signal_signals;
SET ROLE signal_both;
SELECT lives_ok($$SELECT lifecycle.track_signal('own.signals', 'own.leads', 'lead')$$, 'a member of both roles may');
RESET ROLE;
SELECT table_owner_is('own', 'leads_behavior', 'signal_leads', 'the points belong to the owner of the leads');
SELECT is_empty($$SELECT g.* FROM pg_class c, aclexplode(c.relacl) AS g WHERE c.oid = 'own.leads_behavior'::regclass AND g.grantee <> c.relowner$$,
                'default privileges give nobody anything');
SELECT is(failure($$SELECT lifecycle.untrack_signal('own.signals')$$, 'signal_leads'),
    E'42501: must be owner of table signals\nHINT: Let a member of role signal_signals call lifecycle.untrack_signal().', 'untrack_signal() needs the owner');
SELECT is(failure($$SELECT lifecycle.unregister_signal('own.signals')$$, 'signal_leads'), '42501: must be owner of table signals', 'in parts as well');
SELECT is(failure($$SELECT lifecycle.untrack('own.leads')$$, 'signal_leads'),
    E'42501: must be owner of table signals\nHINT: Let a member of role signal_signals call lifecycle.untrack_signal().', 'so does untrack()');
SELECT is((SELECT count(*) FROM our_triggers WHERE on_table = 'own.signals'::regclass), 5::bigint, 'nothing was half done');
SELECT is(failure($$SELECT lifecycle.untrack_signal('own.signals')$$, 'signal_signals'), 'no error', 'the owner of the signals alone may end it');
SELECT is(failure($$UPDATE lifecycle.program SET behavior = NULL WHERE lead_table = 'own.leads'::regclass$$, 'signal_leads'),
    '42501: permission denied for table program', 'the program''s table of points cannot be changed');
SELECT is(failure($$UPDATE lifecycle.program SET behavior = NULL WHERE lead_table = 'own.leads'::regclass$$),
    E'0A000: column "behavior" of a program cannot be changed\nHINT: Call lifecycle.untrack() and lifecycle.track() again; the history stays.', 'not even by a superuser');
SELECT is(failure($$UPDATE lifecycle.program SET behavior = 'own.signals' WHERE lead_table = 'lead_parts'::regclass$$),
    E'0A000: column "behavior" of a program cannot be changed\nHINT: Call lifecycle.untrack() and lifecycle.track() again; the history stays.', 'who cannot make one up either');

-- ---- untrack_signal(), untrack() and back ----

SELECT is(failure('SELECT lifecycle.untrack_signal(NULL)'), '22004: signal_table must not be null', 'NULL is no table');
SELECT is(failure('SELECT lifecycle.untrack_signal(1)'), '42P01: relation with OID 1 does not exist', 'nor is this');
SELECT is(failure($$SELECT lifecycle.untrack_signal('crm.leads')$$),
    E'55000: table "crm.leads" is not tracked for signals\nHINT: The signal tables are the rows of lifecycle.signal.', 'a table of leads is no signal table');
INSERT INTO crm.leads_behavior VALUES (1, '14 days', 20, '2026-01-01', 1, '-infinity');
SELECT lifecycle.untrack_signal('crm.visits');
SELECT is_empty($$SELECT * FROM our_triggers WHERE on_table = 'crm.visits'::regclass$$, 'the triggers go');
SELECT is_empty($$SELECT * FROM lifecycle.signal WHERE signal_table = 'crm.visits'::regclass$$, 'and the registration');
SELECT has_column('crm', 'visits', 'lifecycle_at', 'the column stays');
ALTER TABLE crm.visits ALTER COLUMN lifecycle_at DROP DEFAULT;
SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'visitor');
SELECT col_default_is('crm', 'visits', 'lifecycle_at', 'now()', 'and is taken up again, with a default where it has none');
SELECT lifecycle.untrack('crm.leads');
SELECT is_empty($$SELECT * FROM our_triggers WHERE on_table::text LIKE 'crm.%'$$, 'untrack() takes the signal tables along');
SELECT is_empty($$SELECT * FROM lifecycle.signal WHERE signal_table::text LIKE 'crm.%'$$, 'registrations as well');
SELECT is((SELECT count(*) FROM crm.leads_behavior), 1::bigint, 'the points stay');
SELECT lifecycle.track('crm.leads');
SELECT is((SELECT behavior FROM lifecycle.program WHERE lead_table = 'crm.leads'::regclass), NULL, 'track() alone does not take them up');
SELECT lives_ok($$SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'visitor')$$, 'track_signal() does');
SELECT is((SELECT count(*) FROM crm.leads_behavior), 1::bigint, 'with what is in it');
SELECT lifecycle.untrack('crm.leads', drop_data => true);
SELECT hasnt_table('crm'::name, 'leads_behavior'::name, 'drop_data: the points go');
SELECT has_column('crm', 'visits', 'lifecycle_at', 'lifecycle_at does not');
CREATE TABLE crm.leads_behavior (lead bigint PRIMARY KEY, half_life interval, points float8, at timestamptz, heat float8, since timestamptz);
SELECT lifecycle.track('crm.leads');
SELECT is(failure($$SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'visitor')$$),
    E'42P07: relation "crm.leads_behavior" already exists\nDETAIL: It is not a table of points that lifecycle.untrack() of crm.leads left.\nHINT: ALTER TABLE crm.leads_behavior RENAME TO ...;',
    'anybody else''s table is not taken');
DROP TABLE crm.leads_behavior;
SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'visitor');
SELECT lifecycle.track_signal('crm.activities', 'crm.leads', 'lead_id', 'occurred_at');

-- ---- dropped tables ----

SELECT is(failure('DROP TABLE crm.leads_behavior CASCADE'),
    E'2BP01: cannot drop a table that lifecycle writes for tracked table "leads"\nHINT: Call lifecycle.untrack(''crm.leads'') first.', 'the points cannot be dropped');
SELECT is(failure('DROP TABLE crm.leads'),
    E'2BP01: cannot drop a lead table whose signals are in table "visits"\nHINT: Call lifecycle.untrack_signal(''crm.visits'') first.',
    'nor a lead table that has signal tables');
DROP TABLE crm.activities;
SELECT is((SELECT array_agg(signal_table::text) FROM lifecycle.signal WHERE lead_table = 'crm.leads'::regclass), '{crm.visits}', 'a signal table can: its registration goes');
SELECT lives_ok('DROP SCHEMA crm CASCADE', 'all together can go');
SELECT is_empty($$SELECT 1 FROM lifecycle.signal s WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.signal_table)$$, 'and nothing is left of it');

-- ---- DDL on what the registration names ----

CREATE TABLE named_leads (id int PRIMARY KEY);
SELECT lifecycle.track('named_leads');
CREATE TABLE named (lead_id int, seconds float8, kind text);
CREATE INDEX ON named (lead_id);
SELECT lifecycle.track_signal('named', 'named_leads', 'lead_id', 'to_timestamp(seconds)');
ALTER TABLE named RENAME lead_id TO "the lead";
ALTER TABLE named RENAME seconds TO s;
SELECT results_eq($$SELECT lead, at FROM lifecycle.signal WHERE signal_table = 'named'::regclass$$, $$VALUES ('"the lead"', 'to_timestamp(s)')$$, 'renamed columns are followed');
SELECT lives_ok($$SELECT lifecycle.track_signal('named', 'named_leads', 'the lead', 'to_timestamp(s)')$$, 'which is the same now');
SELECT is(failure('ALTER TABLE named DROP COLUMN "the lead"'),
    E'2BP01: cannot drop column "the lead" of table "public.named" because expression "lead" of signal table "public.named" reads it\nDETAIL: The lead is: "the lead"\nHINT: Call lifecycle.untrack_signal(''public.named'') first.',
    'they cannot be dropped');
SELECT is(failure('ALTER TABLE named DROP COLUMN s'),
    E'2BP01: cannot drop column "s" of table "public.named" because expression "at" of signal table "public.named" reads it\nDETAIL: The at is: to_timestamp(s)\nHINT: Call lifecycle.untrack_signal(''public.named'') first.',
    'nor what the time is made of');
SELECT lives_ok('ALTER TABLE named DROP COLUMN kind', 'others can');
ALTER TABLE named RENAME TO renamed;
SELECT is((SELECT count(*) FROM lifecycle.signal WHERE signal_table = 'renamed'::regclass), 1::bigint, 'the table may change its name');

-- ---- partitions ----

CREATE SCHEMA p;
CREATE TABLE p.leads (id int PRIMARY KEY);
SELECT lifecycle.track('p.leads');
CREATE TABLE p.acts (lead int, k int, t timestamptz) PARTITION BY RANGE (k);
CREATE INDEX ON p.acts (lead);
CREATE TABLE p.low PARTITION OF p.acts FOR VALUES FROM (0) TO (10);
CREATE TABLE p.high PARTITION OF p.acts FOR VALUES FROM (10) TO (20) PARTITION BY LIST (k);
CREATE TABLE p.twelve PARTITION OF p.high FOR VALUES IN (12);
SELECT lifecycle.track_signal('p.acts', 'p.leads', 'lead', 't');
CREATE VIEW counts AS
SELECT on_table::text, count(*) FILTER (WHERE name LIKE '%statement') AS statement, count(*) FILTER (WHERE name LIKE '%row') AS row,
       count(*) FILTER (WHERE name LIKE '%truncate') AS truncate
FROM our_triggers WHERE on_table::text LIKE 'p.%' GROUP BY on_table;
SELECT results_eq('SELECT * FROM counts ORDER BY on_table COLLATE "C"',
    $$VALUES ('p.acts', 2::bigint, 1::bigint, 0::bigint), ('p.high', 2, 1, 0), ('p.low', 2, 1, 2), ('p.twelve', 2, 1, 2)$$,
    'each table has its triggers, leaves two for TRUNCATE');
CREATE TABLE p.thirteen PARTITION OF p.high FOR VALUES IN (13);
CREATE TABLE p.more (t timestamptz, k int, lead int) PARTITION BY LIST (k);
CREATE TABLE p.most PARTITION OF p.more DEFAULT;
ALTER TABLE p.acts ATTACH PARTITION p.more FOR VALUES FROM (20) TO (30);
SELECT results_eq('SELECT * FROM counts ORDER BY on_table COLLATE "C"',
    $$VALUES ('p.acts', 2::bigint, 1::bigint, 0::bigint), ('p.high', 2, 1, 0), ('p.low', 2, 1, 2), ('p.more', 2, 1, 0),
             ('p.most', 2, 1, 2), ('p.thirteen', 2, 1, 2), ('p.twelve', 2, 1, 2)$$, 'those that come later as well');
SELECT is_empty($$SELECT * FROM lifecycle.verify('p.leads')$$, 'verify() misses none');
ALTER TABLE p.acts DETACH PARTITION p.high;
ALTER TABLE p.more DETACH PARTITION p.most;
SELECT results_eq('SELECT * FROM counts ORDER BY on_table COLLATE "C"',
    $$VALUES ('p.acts', 2::bigint, 1::bigint, 0::bigint), ('p.low', 2, 1, 2), ('p.more', 2, 1, 0)$$, 'what is detached loses them, on every level');
SELECT is(failure($$ALTER TABLE p.acts DETACH PARTITION p.low; ALTER TABLE p.low SET UNLOGGED; ALTER TABLE p.acts ATTACH PARTITION p.low FOR VALUES FROM (0) TO (10)$$),
    E'42809: unlogged table "p.low" cannot be a partition of tracked table "p.acts"\nDETAIL: Its signals would be gone after a crash, and their points would not.\nHINT: ALTER TABLE p.low SET LOGGED;',
    'an unlogged table is refused');
CREATE INDEX ON p.most (lead);
SELECT lifecycle.track_signal('p.most', 'p.leads', 'lead', 't');
SELECT is(failure($$ALTER TABLE p.acts ATTACH PARTITION p.most FOR VALUES FROM (40) TO (50)$$),
    E'55000: table "p.most" is tracked and cannot become a partition of tracked table "p.acts"\nDETAIL: A row is one signal.\nHINT: SELECT lifecycle.untrack_signal(''p.most'');',
    'so is one that has signals of its own');
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
SELECT is(failure('CREATE FOREIGN TABLE p.far PARTITION OF p.acts FOR VALUES FROM (50) TO (60) SERVER nowhere'),
    E'42809: foreign table "p.far" cannot be a partition of tracked table "p.acts"\nDETAIL: What others write there would not be seen.', 'and a foreign one');
CREATE FOREIGN TABLE p.near (lead int, k int, t timestamptz) SERVER nowhere;
SELECT is(failure('ALTER TABLE p.acts ATTACH PARTITION p.near FOR VALUES FROM (50) TO (60)'),
    E'42809: foreign table "p.near" cannot be a partition of tracked table "p.acts"\nDETAIL: What others write there would not be seen.', 'either way');
CREATE TABLE p.outer_acts (lead int, k int, t timestamptz) PARTITION BY RANGE (k);
ALTER TABLE p.outer_acts ATTACH PARTITION p.acts DEFAULT;
CREATE INDEX ON p.outer_acts (lead);
SELECT is(failure($$SELECT lifecycle.track_signal('p.outer_acts', 'p.leads', 'lead', 't')$$),
    E'55000: cannot track "p.outer_acts", which has partitions that are tracked by themselves\nDETAIL: A row is one signal.\nHINT: Call lifecycle.untrack_signal() on them first.',
    'partitions that are tracked by themselves');
ALTER TABLE p.outer_acts DETACH PARTITION p.acts;
SELECT is_empty($$SELECT * FROM lifecycle.verify('p.leads')$$, 'its triggers are its own and stay when it is detached');
SELECT lifecycle.untrack_signal('p.acts');
SELECT results_eq('SELECT on_table FROM counts', $$VALUES ('p.most')$$, 'untrack_signal() clears every level');

-- ---- locks ----

BEGIN;
SELECT lifecycle.track_signal('p.acts', 'p.leads', 'lead', 't');
SELECT array_agg(DISTINCT mode::text ORDER BY mode::text) AS modes FROM pg_locks
WHERE relation IN ('p.acts'::regclass, 'p.low'::regclass) AND pid = pg_backend_pid() \gset
ROLLBACK;
SELECT is(:'modes'::text, '{AccessShareLock,ShareRowExclusiveLock}', 'where no column is added, readers are not in the way');

SELECT * FROM finish();
