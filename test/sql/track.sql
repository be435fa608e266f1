-- track(): which tables it takes, empty or populated, with every type of key
-- and status column and with odd names; how a program is changed afterwards.
-- What it refuses is in track_refused.sql.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

-- ---- an empty table ----

CREATE TABLE leads (id int PRIMARY KEY, name text);
SELECT lifecycle.track('leads');
SELECT results_eq(
    $$SELECT attname::text COLLATE "default", atttypid::regtype::text, attnotnull FROM pg_attribute
      WHERE attrelid = 'leads'::regclass AND attnum > 2 ORDER BY attnum$$,
    $$VALUES ('lifecycle_status', 'lifecycle.lifecycle_status', false), ('lifecycle_since', 'timestamp with time zone', false),
             ('lifecycle_seq', 'integer', false), ('demographic_score', 'double precision', false)$$,
    'four columns are added');
SELECT columns_are('leads_history', ARRAY['lead', 'seq', 'cycle', 'from_status', 'from_since', 'to_status', 'at', 'cause', 'rule',
    'actor', 'session_user_name', 'reason', 'demographic_score', 'behavior_score', 'source', 'cohort', 'value', 'entered_at',
    'cycle_since', 'reached', 'recorded_at'], 'the history has its columns');
SELECT col_is_pk('leads_history', ARRAY['lead', 'seq'], 'and its primary key');
SELECT columns_are('leads_refused', ARRAY['lead', 'from_status', 'to_status', 'at', 'actor'], 'so has the table of refused moves');
SELECT results_eq(
    $$SELECT lead_table::text, model, key::text COLLATE "default", status_column::text COLLATE "default", prefix::text COLLATE "default", history::text, refused::text, status_added, on_illegal, tz
      FROM lifecycle.program$$,
    $$VALUES ('leads', 'standard', 'id', 'lifecycle_status', 'leads', 'leads_history', 'leads_refused', true, 'error', 'UTC')$$,
    'the program row says what is tracked');
INSERT INTO leads VALUES (1, 'x');
SELECT results_eq('SELECT lead, seq, cycle, from_status, to_status, cause, reached FROM leads_history',
                  $$VALUES (1, 1, 1, NULL::text, 'known', 'entry', '{known}'::text[])$$, 'a lead enters');
SELECT is((SELECT lifecycle_seq FROM leads), 1, 'its row has the number of its move');

-- ---- a populated table ----

CREATE TABLE old (id int PRIMARY KEY, name text, created_at timestamptz NOT NULL);
INSERT INTO old SELECT n, 'lead ' || n, '2020-01-01 00:00+00'::timestamptz + n * interval '1 day' FROM generate_series(1, 4) AS n;
SELECT lifecycle.track('old', entered => 'created_at');
SELECT is((SELECT count(*) FROM old WHERE lifecycle_status IS NULL AND lifecycle_seq IS NULL), 4::bigint, 'rows are not touched');
SELECT is_empty('SELECT * FROM old_history', 'and the history is empty');
UPDATE old SET name = 'other' WHERE id = 1;
SELECT is_empty('SELECT * FROM old_history', 'a write that sets no status makes no move');
UPDATE old SET lifecycle_status = 'sal' WHERE id = 2;
SELECT results_eq('SELECT lead, seq, from_status, to_status, at, cause FROM old_history',
                  $$VALUES (2, 1, NULL::text, 'sal', timestamptz '2020-01-03 00:00+00', 'entry')$$,
                  'a NULL lead enters by an explicit write, when the program says that it did');
DELETE FROM old WHERE id = 3;
SELECT is((SELECT count(*) FROM old_history), 1::bigint, 'one that never entered leaves no trace');
UPDATE old SET lifecycle_status = NULL WHERE id = 4;
SELECT is((SELECT lifecycle_seq FROM old WHERE id = 4), NULL, 'NULL to NULL is no move');
SELECT is(failure('UPDATE old SET lifecycle_status = NULL WHERE id = 2'),
          E'23502: status of lead 2 of table "public.old" cannot become null\nDETAIL: The lead is "sal".\n'
          'HINT: A lead leaves the program by DELETE.\nCOLUMN: lifecycle_status\nCONSTRAINT: lifecycle_status', 'no way back to NULL');
SELECT is_empty($$SELECT * FROM lifecycle.verify('old')$$, 'and all is well');

-- with statuses of the user's own
CREATE TABLE deals (id int PRIMARY KEY, stage text NOT NULL DEFAULT 'known', created_at timestamptz NOT NULL, utm text);
INSERT INTO deals SELECT n, (ARRAY['known', 'mql', 'lost', 'sql', 'mql', 'recycled'])[n], '2021-01-01 00:00+00'::timestamptz, 'utm ' || n
FROM generate_series(1, 6) AS n;
SELECT lifecycle.track('deals', status_column => 'stage', entered => 'created_at', source => 'utm');
SELECT is((SELECT status_added FROM lifecycle.program WHERE lead_table = 'deals'::regclass), false, 'a column that was there is not added');
SELECT is_empty($$SELECT * FROM lifecycle.verify('deals')$$, 'leads that are older than track() are no fault');
UPDATE deals SET utm = utm WHERE id = 5;
UPDATE deals SET stage = 'mal' WHERE id = 1;
UPDATE deals SET stage = 'sal' WHERE id = 2;
UPDATE deals SET stage = 'mql' WHERE id = 3;
DELETE FROM deals WHERE id = 4;
SELECT throws_ok($$UPDATE deals SET stage = 'known' WHERE id = 6$$, '23514',
                 'lead 6 of table "public.deals" cannot move from "recycled" to "known"', 'their first move is judged');
SELECT results_eq(
    $$SELECT lead, seq, cycle, from_status, to_status, cause, at = '2021-01-01 00:00+00', source, reached FROM deals_history ORDER BY lead, seq$$,
    $$VALUES (1, 1, 1, NULL, 'known', 'backfill', true, 'utm 1', '{known}'::text[]),
             (1, 2, 1, 'known', 'mal', 'write', false, 'utm 1', '{known,mal}'),
             (2, 1, 1, NULL, 'known', 'backfill', true, 'utm 2', '{known}'),
             (2, 2, 1, 'known', 'mql', 'backfill', false, 'utm 2', '{known,mql}'),
             (2, 3, 1, 'mql', 'sal', 'write', false, 'utm 2', '{known,mql,sal}'),
             (3, 1, 1, NULL, 'known', 'backfill', true, 'utm 3', '{known}'),
             (3, 2, 1, 'known', 'lost', 'backfill', false, 'utm 3', '{known,lost}'),
             (3, 3, 2, 'lost', 'mql', 'write', false, 'utm 3', '{mql,NULL,known,lost}')$$,
    'with its first move a lead is brought into the history: entry on the first status, what it was found in, the move');
SELECT results_eq('SELECT id, stage, lifecycle_seq FROM deals ORDER BY id',
                  $$VALUES (1, 'mal', 2), (2, 'sal', 3), (3, 'mql', 3), (5, 'mql', NULL), (6, 'recycled', NULL)$$,
                  'the rows have the numbers of their moves');
SELECT is_empty($$SELECT * FROM lifecycle.verify('deals')$$, 'and verify() agrees');
INSERT INTO deals VALUES (4, 'sql', now(), 'again');
SELECT is((SELECT cause FROM deals_history WHERE lead = 4), 'entry', 'a key of which the history knows nothing enters anew');

-- many at once, in one statement
CREATE TABLE many (id int PRIMARY KEY, stage text NOT NULL);
INSERT INTO many SELECT n, CASE WHEN n % 2 = 0 THEN 'known' ELSE 'mql' END FROM generate_series(1, 2500) AS n;
SELECT lifecycle.track('many', status_column => 'stage');
UPDATE many SET stage = 'sql';
SELECT results_eq('SELECT cause, to_status, count(*)::int FROM many_history GROUP BY 1, 2 ORDER BY 1, 2',
                  $$VALUES ('backfill', 'known', 2500), ('backfill', 'mql', 1250), ('write', 'sql', 2500)$$, 'in one statement as well');
SELECT is_empty($$SELECT * FROM lifecycle.verify('many')$$, 'without a gap');

-- ---- status columns ----

CREATE TYPE steps AS ENUM ('lost', 'recycled', 'disqualified', 'customer', 'opportunity', 'sql', 'sal', 'mql', 'engaged', 'mal', 'known', 'spare');
CREATE DOMAIN short AS int CHECK (VALUE > 0);
CREATE FUNCTION goes_through_with(status_type text) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    name text := 'status ' || status_type;
    found text;
    history regclass;
BEGIN
    EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, stage %s)', name, status_type);
    PERFORM lifecycle.track(format('%I', name)::regclass, status_column => 'stage');
    EXECUTE format('INSERT INTO %I VALUES (1), (2)', name);
    EXECUTE format('UPDATE %I SET stage = %L', name, 'mql');
    EXECUTE format('UPDATE %I SET stage = %L', name, 'disqualified');
    EXECUTE format('DELETE FROM %I', name);
    SELECT p.history INTO history FROM lifecycle.program p WHERE p.lead_table = format('%I', name)::regclass;
    EXECUTE format('SELECT string_agg(coalesce(to_status, ''-''), '' '' ORDER BY seq) FROM %s WHERE lead = 2', history) INTO found;
    RETURN found || coalesce((SELECT string_agg(v.detail, ' ') FROM lifecycle.verify(format('%I', name)::regclass) AS v), '');
END
$$;
SELECT is(goes_through_with(t.type), 'known mql disqualified -', 'a status column may be ' || t.type)
FROM unnest(ARRAY['lifecycle.lifecycle_status', 'steps', 'text', 'varchar', 'varchar(12)', 'text COLLATE "C"',
                  'text NOT NULL DEFAULT ''known''']) AS t (type);
SELECT is(failure($$INSERT INTO "status steps" VALUES (1, 'spare')$$),
          E'23514: "spare" is not a status of model "standard"\nDETAIL: Table "public.\"status steps\"" follows model "standard".\n'
          'HINT: The statuses are: known, mal, engaged, mql, sal, sql, opportunity, customer, disqualified, lost, recycled.\n'
          'COLUMN: stage\nCONSTRAINT: lifecycle_status', 'a label beyond the model is refused');
SELECT throws_ok($$INSERT INTO "status steps" VALUES (1, 'bogus')$$, '22P02', 'invalid input value for enum steps: "bogus"',
                 'what is no label is the enum''s own error');
INSERT INTO "status steps" VALUES (1, 'mql');
ALTER TYPE steps RENAME VALUE 'mql' TO 'MQL';
SELECT throws_ok($$INSERT INTO "status steps" VALUES (2, 'MQL')$$, '23514', '"MQL" is not a status of model "standard"',
                 'a label that was renamed is the old status no longer');
ALTER TYPE steps RENAME VALUE 'MQL' TO 'mql';
SELECT lives_ok($$INSERT INTO "status steps" VALUES (3, 'mql')$$, 'and is it again under its old name');

-- ---- keys ----

CREATE TYPE grade AS ENUM ('A', 'B', 'C');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE keys (type text, value text, other text);
INSERT INTO keys VALUES
    ('int', '1', '2'), ('smallint', '1', '2'), ('bigint', '9000000000000000000', '2'),
    ('uuid', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12'),
    ('text', 'it''s "one"', ''), ('varchar', 'ü', 'u'), ('varchar(20)', 'x', 'y'), ('char(5)', 'x', 'y'), ('date', '2026-01-01', 'infinity'),
    ('timestamptz', '2026-01-01 00:00+00', '-infinity'), ('numeric', '1.50', 'NaN'), ('short', '7', '8'), ('grade', 'B', 'C'),
    ('bytea', '\x00ff', '\x'), ('int[]', '{1,2}', '{}'), ('int4range', '[1,5)', 'empty'), ('pair', '(1,x)', '(,)'), ('boolean', 't', 'f'),
    ('double precision', 'NaN', '-0'), ('name', 'n', 'm'), ('jsonb', '{"a": 1}', 'null'), ('inet', '10.0.0.1', '::1'), ('"char"', 'a', 'b'),
    ('text COLLATE "C"', 'a', 'b');
DO $$BEGIN
    CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    INSERT INTO keys VALUES ('text COLLATE any_case', 'Ab', 'c');
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END$$;
DO $$BEGIN
    CREATE EXTENSION citext;
    INSERT INTO keys VALUES ('citext', 'Ab', 'c');
EXCEPTION WHEN feature_not_supported OR undefined_file THEN
    NULL;
END$$;
SELECT skip('the server has no ' || n.name, 1)
FROM (VALUES ('citext', 'citext'), ('text COLLATE any_case', 'ICU')) AS n (type, name)
WHERE n.type NOT IN (SELECT type FROM keys);
CREATE FUNCTION tracks_key(type text, value text, other text) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    t text := format('%I', 'key ' || type);
    h text := format('%I', 'key ' || type || '_history');
    is_lead text := format('h.lead = %L::%s', value, split_part(type, ' COLLATE', 1));
    found text;
BEGIN
    EXECUTE format('CREATE TABLE %s (name text, id %s PRIMARY KEY)', t, type);
    PERFORM lifecycle.track(t::regclass, on_illegal => 'keep');
    EXECUTE format('INSERT INTO %s VALUES (''a'', %L), (''b'', %L)', t, value, other);
    EXECUTE format('UPDATE %s SET lifecycle_status = ''customer'' WHERE name = ''a''', t);
    EXECUTE format('UPDATE %s SET lifecycle_status = ''known'' WHERE name = ''a''', t);
    EXECUTE format('DELETE FROM %s WHERE name = ''a''', t);
    EXECUTE format('INSERT INTO %s VALUES (''c'', %L)', t, value);
    EXECUTE format('UPDATE %s SET lifecycle_status = ''sql'', id = id', t);
    EXECUTE format('TRUNCATE %s', t);
    EXECUTE format('SELECT string_agg(concat_ws('':'', cycle, coalesce(to_status, ''-'')), '' '' ORDER BY seq) FROM %s h WHERE %s', h, is_lead) INTO found;
    EXECUTE format('SELECT concat_ws('' '', %L::text, bool_and(r.lead = h.lead)::text) FROM %s r, %s h WHERE %s', found,
                   format('%I', 'key ' || type || '_refused'), h, is_lead) INTO found;
    RETURN found || coalesce((SELECT string_agg(v.detail, ' ') FROM lifecycle.verify(t::regclass) AS v), '');
END
$$;
SELECT is(tracks_key(k.type, k.value, k.other), '1:known 1:customer 1:- 2:known 2:sql 2:- true', 'a key may be ' || k.type)
FROM keys AS k ORDER BY k.type;
SELECT is(failure($$INSERT INTO "key short" VALUES ('x', 0)$$),
          E'23514: value for domain short violates check constraint "short_check"\nCONSTRAINT: short_check', 'the domain of a key keeps its word');

-- a key by name, beside a primary key of two columns
CREATE TABLE two (a int, b int, email text NOT NULL UNIQUE, PRIMARY KEY (a, b));
SELECT lifecycle.track('two', key => 'email', prefix => 'zwei', tz => 'Europe/Berlin');
INSERT INTO two VALUES (1, 1, 'x@example.com');
SELECT results_eq('SELECT lead, to_status FROM zwei_history', $$VALUES ('x@example.com', 'known')$$, 'the named column is the key, the prefix names the history');
SELECT has_table('zwei_refused'::name, 'and the table of refused moves');
SELECT is((SELECT tz FROM lifecycle.program WHERE lead_table = 'two'::regclass), 'Europe/Berlin', 'the time zone is kept');
SELECT is(failure($$UPDATE two SET email = 'y@example.com'$$),
          E'0A000: key of lead x@example.com of table "public.two" cannot be changed\nDETAIL: The history of the lead is kept under its key.\n'
          'HINT: DELETE the lead and INSERT it under the other key.\nCOLUMN: email\nCONSTRAINT: lifecycle_key', 'a key is not changed');
-- toasted, compressed and large keys
CREATE TABLE large (id text PRIMARY KEY, blob text);
ALTER TABLE large ALTER id SET STORAGE EXTENDED;
SELECT lifecycle.track('large', source => 'blob', actor => 'blob', reason => 'blob');
INSERT INTO large SELECT repeat('k', 60000), string_agg(md5(n::text), '') FROM generate_series(1, 10000) AS n;
UPDATE large SET lifecycle_status = 'mql';
DELETE FROM large;
SELECT results_eq('SELECT DISTINCT length(lead), length(source), length(actor), length(reason) FROM large_history',
                  'VALUES (60000, 320000, 320000, 320000)', 'keys and sources of any size are kept');
SELECT is((SELECT count(*) FROM large_history), 3::bigint, 'with each of the moves');
SELECT is_empty($$SELECT * FROM lifecycle.verify('large')$$, 'whole');

-- dropped columns before, between and after ours; columns with a default that no row holds
CREATE TABLE holes (gone1 int, id int PRIMARY KEY, gone2 text, stage text, gone3 numeric);
ALTER TABLE holes DROP gone1, DROP gone2;
INSERT INTO holes VALUES (1, 'mql'), (2, 'known');
SELECT lifecycle.track('holes', status_column => 'stage');
ALTER TABLE holes DROP gone3, ADD late text DEFAULT 'late', ADD gone4 int DEFAULT 4;
UPDATE holes SET stage = 'sal' WHERE id = 1;
ALTER TABLE holes DROP gone4, ADD later int NOT NULL DEFAULT 5;
UPDATE holes SET stage = 'sql';
INSERT INTO holes (id) VALUES (3);
SELECT results_eq('SELECT id, stage, late, later, lifecycle_seq FROM holes ORDER BY id',
                  $$VALUES (1, 'sql', 'late', 5, 4), (2, 'sql', 'late', 5, 2), (3, 'known', 'late', 5, 1)$$, 'columns come and go');
SELECT is_empty($$SELECT * FROM lifecycle.verify('holes')$$, 'and the history stays whole');
SELECT format('CREATE TABLE wide (%s, id int PRIMARY KEY)', string_agg(format('c%s int', n), ', ')) FROM generate_series(1, 1000) AS n \gexec
SELECT lifecycle.track('wide', value => 'c500 + c1000');
INSERT INTO wide (id, c1, c500, c1000) VALUES (1, 1, 20, 22);
UPDATE wide SET lifecycle_status = 'mql', c1000 = 30;
SELECT results_eq('SELECT to_status, value FROM wide_history ORDER BY seq', $$VALUES ('known', 42::numeric), ('mql', 50)$$,
                  'a table may have 1,000 columns');

-- ---- odd names ----

CREATE SCHEMA "Ein ""Schema""";
CREATE TABLE "Ein ""Schema"""."Die ''Leads''; %I %s $1 \n" ("The ""Key"" %" int PRIMARY KEY, "Stand \ der Dinge" text, "select" text);
SELECT lifecycle.track('"Ein ""Schema"""."Die ''''Leads''''; %I %s $1 \n"', status_column => 'Stand \ der Dinge', source => '"select"');
INSERT INTO "Ein ""Schema"""."Die ''Leads''; %I %s $1 \n" VALUES (1, 'mql', 'here');
SELECT results_eq($$SELECT lead, to_status, source FROM "Ein ""Schema"""."Die ''Leads''; %I %s $1 \n_history"$$,
                  $$VALUES (1, 'mql', 'here')$$, 'any name that PostgreSQL takes is fine');
SELECT is_empty($$SELECT * FROM lifecycle.verify('"Ein ""Schema"""."Die ''''Leads''''; %I %s $1 \n"')$$, 'for verify(), too');
SELECT lives_ok($$SELECT lifecycle.untrack('"Ein ""Schema"""."Die ''''Leads''''; %I %s $1 \n"', drop_data => true)$$, 'and for untrack()');
SELECT hasnt_table('Ein "Schema"'::name, 'Die ''Leads''; %I %s $1 \n_history'::name, 'which drops the right tables');
CREATE TABLE plain (id int PRIMARY KEY);
SELECT lives_ok(format('SELECT lifecycle.track(%L, prefix => %L)', 'plain', repeat('p', 48)), 'a prefix may have 48 bytes');
SELECT has_table((repeat('p', 48) || '_history')::name, 'and the history has its whole name');
SELECT has_materialized_view((repeat('p', 48) || '_funnel_monthly')::name, 'as has what has the longest');
CREATE TABLE umlaut (id int PRIMARY KEY);
SELECT lives_ok(format('SELECT lifecycle.track(%L, prefix => %L)', 'umlaut', repeat('ü', 24)), 'of whatever letters');
SELECT has_table((repeat('ü', 24) || '_history')::name, 'counted in bytes');

-- ---- called again ----

CREATE TABLE again (id int PRIMARY KEY, utm text, "Created" timestamptz);
SELECT lifecycle.track('again', source => ' utm||''x'' ', entered => '"Created"');
SELECT is(failure($$SELECT lifecycle.track('again', source => '(utm || ''x'')', entered => '"Created"')$$), 'no error',
          'the same arguments again, in other words: nothing happens');
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'again'::regclass), 7::bigint, 'and there are no triggers twice');
SELECT is(failure($$SELECT lifecycle.track('again', 'marketo', entered => '"Created"', on_illegal => 'keep')$$),
          E'42710: table "public.again" is tracked already, in another way\n'
          'DETAIL: model is ''standard'', not ''marketo''; source is ''(utm || ''''x''''::text)'', not null; on_illegal is ''error'', not ''keep''.\n'
          'HINT: UPDATE lifecycle.program SET ... WHERE lead_table = ''public.again''::regclass; key, status_column and prefix change by '
          'lifecycle.untrack() and lifecycle.track(), which keeps the history.', 'others: what differs, and how to change it');

-- ---- the program is changed by UPDATE ----

INSERT INTO again VALUES (1, 'a');
UPDATE lifecycle.program SET source = 'upper(utm)' WHERE lead_table = 'again'::regclass;
INSERT INTO again VALUES (2, 'b');
SELECT results_eq('SELECT lead, source FROM again_history ORDER BY lead', $$VALUES (1, 'ax'), (2, 'B')$$, 'an expression is obeyed at the next statement');
SELECT is(failure($$UPDATE lifecycle.program SET model = 'etumos' WHERE lead_table = 'again'::regclass$$),
          E'23514: table "public.again" has rows with a status that model "etumos" lacks\nDETAIL: The statuses are: known.\n'
          'HINT: Make a model of your own with lifecycle.copy_model() and add them to it, or change the rows.',
          'a model is refused as track() would refuse it');
UPDATE again SET lifecycle_status = 'mql';
UPDATE lifecycle.program SET model = 'etumos' WHERE lead_table = 'again'::regclass;
INSERT INTO again VALUES (3, 'c');
SELECT is((SELECT lifecycle_status::text FROM again WHERE id = 3), 'mal', 'so is a model');
UPDATE again SET lifecycle_status = 'customer' WHERE id = 3;
UPDATE lifecycle.program SET on_illegal = 'keep' WHERE lead_table = 'again'::regclass;
SELECT lives_ok($$UPDATE again SET lifecycle_status = 'mal' WHERE id = 3$$, 'and on_illegal');
SELECT results_eq('SELECT lead, from_status, to_status FROM again_refused', $$VALUES (3, 'customer', 'mal')$$, 'the move is noted');
BEGIN;
UPDATE lifecycle.program SET source = '''never''' WHERE lead_table = 'again'::regclass;
INSERT INTO again VALUES (4, 'd');
ROLLBACK;
INSERT INTO again VALUES (5, 'e');
SELECT is((SELECT source FROM again_history WHERE lead = 5), 'E', 'a change that is rolled back is forgotten');
SELECT is(failure(format('UPDATE lifecycle.program SET %s WHERE lead_table = ''again''::regclass', c.change)),
          format(E'0A000: column "%s" of a program cannot be changed\nHINT: Call lifecycle.untrack() and lifecycle.track() again; the history stays.',
                 split_part(c.change, ' ', 1)), 'what cannot be changed: ' || c.change)
FROM unnest(ARRAY['lead_table = ''leads''::regclass', 'key = ''utm''', 'status_column = ''utm''', 'prefix = ''x''', 'key = NULL',
                  'history = ''leads_history''::regclass', 'refused = ''leads_refused''::regclass', 'status_added = false']) AS c (change);
SELECT throws_ok($$UPDATE lifecycle.program SET source = 'nonsense' WHERE lead_table = 'again'::regclass$$, '42703',
                 'column "nonsense" does not exist', 'an expression is checked');
SELECT throws_ok($$UPDATE lifecycle.program SET model = 'nobody' WHERE lead_table = 'again'::regclass$$, '42704', 'model "nobody" does not exist', 'so is the model');
SELECT throws_ok($$UPDATE lifecycle.program SET tz = 'Mars' WHERE lead_table = 'again'::regclass$$, '22023', 'time zone "Mars" not recognized', 'the time zone');
SELECT throws_ok($$UPDATE lifecycle.program SET on_illegal = 'maybe' WHERE lead_table = 'again'::regclass$$, '23514', NULL, 'and on_illegal');
INSERT INTO lifecycle.model VALUES ('empty'), ('foreign');
INSERT INTO lifecycle.stage (model, status, rank) VALUES ('foreign', 'neu', 1);
SELECT throws_ok($$UPDATE lifecycle.program SET model = 'empty' WHERE lead_table = 'again'::regclass$$, '55000',
                 'model "empty" has no stage with a rank', 'a model without a first stage is refused');
SELECT throws_ok($$UPDATE lifecycle.program SET model = 'foreign' WHERE lead_table = 'again'::regclass$$, '42804', NULL,
                 'and one whose statuses the column cannot hold');

SELECT * FROM finish();
