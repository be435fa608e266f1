-- Privileges: who writes leads needs nothing on our tables and gets nothing;
-- who owns a table of leads gets no way into its history, nor to anybody
-- else's; no trigger function of ours does harm wherever it is put.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE ROLE privilege_owner;
CREATE ROLE privilege_member IN ROLE privilege_owner;
CREATE ROLE privilege_writer;
CREATE ROLE privilege_other;
GRANT CREATE ON SCHEMA public TO privilege_owner, privilege_other;
-- what a careless owner grants on everything that he or the superuser makes
ALTER DEFAULT PRIVILEGES FOR ROLE privilege_owner GRANT ALL ON TABLES TO privilege_writer, PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE privilege_member GRANT ALL ON TABLES TO privilege_writer;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO privilege_writer;

-- As a role, run a statement that has to work.
CREATE FUNCTION run_as(as_role name, statement text) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', as_role);
    EXECUTE statement;
    RESET ROLE;
END
$$;
SELECT run_as('privilege_owner', $$
    CREATE TABLE leads (id int PRIMARY KEY, name text);
    CREATE TABLE by_superuser (id int PRIMARY KEY);
    CREATE TABLE by_member (id int PRIMARY KEY);
    CREATE TABLE "by\superuser_%" (id int PRIMARY KEY);
    CREATE TABLE free (id int PRIMARY KEY);
    REVOKE ALL ON leads, by_superuser, by_member, "by\superuser_%", free FROM privilege_writer, PUBLIC;
    GRANT INSERT, UPDATE, DELETE, SELECT ON leads TO privilege_writer;
$$);
SELECT run_as('privilege_owner', $$SELECT lifecycle.track('leads', on_illegal => 'keep')$$);
SELECT run_as('privilege_member', $$SELECT lifecycle.track('by_member')$$);
SELECT lifecycle.track('by_superuser');
SELECT lifecycle.track('"by\superuser_%"');

-- ---- whose are the tables ----

SELECT is((SELECT c.relowner::regrole::text FROM pg_class c WHERE c.oid = t.name::regclass), 'privilege_owner', t.name || ' belongs to the owner of the leads')
FROM unnest(ARRAY['leads_history', 'leads_refused', 'by_member_history', 'by_member_refused', 'by_superuser_history',
                  'by_superuser_refused', '"by\superuser_%_history"', '"by\superuser_%_refused"']) AS t (name);
SELECT is_empty(format($$SELECT g.grantee::regrole, g.privilege_type FROM pg_class c, aclexplode(c.relacl) AS g
                         WHERE c.oid = %L::regclass AND g.grantee <> c.relowner$$, t.name),
                'default privileges give nothing on ' || t.name)
FROM unnest(ARRAY['leads_history', 'leads_refused', 'by_member_history', 'by_member_refused', 'by_superuser_history',
                  'by_superuser_refused', '"by\superuser_%_history"', '"by\superuser_%_refused"']) AS t (name);

-- ---- a writer ----

SELECT is(failure(w.statement, 'privilege_writer'), 'no error', 'a writer can: ' || w.statement)
FROM (VALUES
    ($$INSERT INTO leads VALUES (1, 'a'), (2, 'b')$$),
    ($$UPDATE leads SET lifecycle_status = 'customer' WHERE id = 1$$),
    ($$UPDATE leads SET lifecycle_status = 'known' WHERE id = 1$$),
    ($$DELETE FROM leads WHERE id = 2$$),
    ($$INSERT INTO leads VALUES (2, 'again') ON CONFLICT (id) DO UPDATE SET name = 'again'$$),
    ($$SELECT lifecycle.next_statuses('leads', 'mql')$$)
) AS w (statement);
SELECT results_eq('SELECT lead, seq, cause FROM leads_history ORDER BY lead, seq',
                  $$VALUES (1, 1, 'entry'), (1, 2, 'write'), (2, 1, 'entry'), (2, 2, 'delete'), (2, 3, 'entry')$$, 'the moves of the writer are recorded');
SELECT is((SELECT count(*) FROM leads_refused), 1::bigint, 'and the refused one noted');
SELECT is(failure(w.statement, 'privilege_writer'), '42501: permission denied for ' || w.object, 'a writer cannot: ' || w.statement)
FROM (VALUES
    ('SELECT * FROM leads_history', 'table leads_history'),
    ('SELECT * FROM leads_refused', 'table leads_refused'),
    ('INSERT INTO leads_refused VALUES (1, NULL, NULL, now(), NULL)', 'table leads_refused'),
    ('INSERT INTO leads_history SELECT * FROM leads_history', 'table leads_history'),
    ('DELETE FROM leads_history', 'table leads_history'),
    ('UPDATE leads_history SET cause = ''x''', 'table leads_history'),
    ('TRUNCATE leads_history', 'table leads_history'),
    ('TRUNCATE leads', 'table leads'),
    ('DELETE FROM lifecycle.program', 'table program'),
    ('INSERT INTO lifecycle.model VALUES (''mine'')', 'table model'),
    ('SELECT lifecycle.copy_model(''standard'', ''mine'')', 'table model')
) AS w (statement, object);
SELECT is(failure('SELECT * FROM lifecycle.verify(''leads'')', 'privilege_writer'),
          E'42501: permission denied for table leads_history\nDETAIL: The report reads the history of public.leads.\n'
          'HINT: GRANT SELECT ON public.leads_history TO privilege_writer;', 'what reads the history says which GRANT is missing');

-- ---- not even the owner writes the history ----

SELECT is(failure(w.statement, w.as_role),
          E'42501: history "leads_history" cannot be written\nDETAIL: A move is recorded by the statement that makes it, and stays.\n'
          'HINT: Change the status of the lead instead.', format('%s as %s is refused', w.statement, w.as_role))
FROM (VALUES ('privilege_owner'), ('privilege_member'), (session_user::text)) AS r (as_role),
     LATERAL (VALUES
        (r.as_role, $$INSERT INTO leads_history SELECT * FROM leads_history$$),
        (r.as_role, $$INSERT INTO leads_history SELECT * FROM leads_history WHERE false$$),
        (r.as_role, $$UPDATE leads_history SET cause = 'write'$$),
        (r.as_role, $$DELETE FROM leads_history WHERE lead = 1$$),
        (r.as_role, $$TRUNCATE leads_history$$),
        (r.as_role, $$MERGE INTO leads_history h USING leads l ON h.lead = l.id WHEN MATCHED THEN DELETE$$),
        (r.as_role, $$WITH gone AS (DELETE FROM leads_history RETURNING *) SELECT * FROM gone$$)
     ) AS w (as_role, statement);
SELECT throws_ok($$COPY leads_history FROM '/dev/null'$$, '42501', 'history "leads_history" cannot be written', 'COPY into the history is refused');
-- a trigger that tries to slip in while our own INSERT is let through
SELECT run_as('privilege_owner', $outer$
    CREATE FUNCTION slip_in() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF pg_trigger_depth() < 3 THEN
            INSERT INTO leads_history SELECT * FROM leads_history WHERE false;
        END IF;
        RETURN NULL;
    END$$;
    CREATE TRIGGER a_slip BEFORE INSERT ON leads_history FOR EACH STATEMENT EXECUTE FUNCTION slip_in();
$outer$);
SELECT throws_ok($$INSERT INTO leads VALUES (3, 'c')$$, '42501', 'history "leads_history" cannot be written',
                 'a trigger on the history finds no gap before ours');
DROP TRIGGER a_slip ON leads_history;
CREATE TRIGGER z_slip AFTER INSERT ON leads_history FOR EACH STATEMENT EXECUTE FUNCTION slip_in();
SELECT throws_ok($$INSERT INTO leads VALUES (3, 'c')$$, '42501', 'history "leads_history" cannot be written', 'nor after it');
DROP TRIGGER z_slip ON leads_history;
SELECT is_empty('SELECT * FROM leads WHERE id = 3', 'and the lead is not written');

-- ---- other people's tables ----

SELECT run_as('privilege_other', $$CREATE TABLE mine (id int PRIMARY KEY); CREATE TABLE mine2 (id int PRIMARY KEY)$$);
SELECT is(failure(w.statement, 'privilege_other'), w.error, 'of others'' tables: ' || w.statement)
FROM (VALUES
    ($$SELECT lifecycle.track('free')$$, E'42501: must be owner of table free\nHINT: Let a member of role privilege_owner call lifecycle.track().'),
    ($$SELECT lifecycle.track('free', source => '1')$$, '42501: must be owner of table free'),
    ($$SELECT lifecycle.untrack('leads')$$, E'42501: must be owner of table leads\nHINT: Let a member of role privilege_owner call lifecycle.untrack().'),
    ($$SELECT lifecycle.canonical('leads', 'source', 'name')$$, '42501: must be owner of table leads'),
    ($$SELECT lifecycle.unregister_program('leads')$$, '42501: must be owner of table leads'),
    ($$SELECT lifecycle.register_program('free', 'standard', 'id', 'x', 'y', 'mine', 'mine2', true, NULL, NULL, NULL, NULL, NULL, NULL, 'error', 'UTC', 'mine2', 'mine2')$$,
     '42501: must be owner of table free'),
    ($$SELECT lifecycle.register_program('mine', 'standard', 'id', 'x', 'y', 'leads_history', 'mine2', true, NULL, NULL, NULL, NULL, NULL, NULL, 'error', 'UTC', 'mine2', 'mine2')$$,
     '42501: must be owner of table leads_history'),
    ($$SELECT lifecycle.register_program('mine', 'standard', 'id', 'x', 'y', 'mine2', 'leads_refused', true, NULL, NULL, NULL, NULL, NULL, NULL, 'error', 'UTC', 'mine2', 'mine2')$$,
     '42501: must be owner of table leads_refused'),
    ($$SELECT lifecycle.register_program('mine', 'standard', 'id', 'x', 'y', 'mine2', 'mine2', true, NULL, NULL, NULL, NULL, NULL, NULL, 'error', 'UTC', 'leads_flow', 'mine2')$$,
     '42501: must be owner of table leads_flow'),
    ($$SELECT lifecycle.register_program('mine', 'standard', 'id', 'x', 'y', 'mine2', 'mine2', true, NULL, NULL, NULL, NULL, NULL, NULL, 'error', 'UTC', 'mine2', 'leads_flow_pending')$$,
     '42501: must be owner of table leads_flow_pending'),
    ($$UPDATE lifecycle.program SET source = '1' WHERE lead_table = 'leads'::regclass$$, '42501: must be owner of table leads'),
    ($$UPDATE lifecycle.program SET lead_table = 'mine'::regclass$$, '42501: permission denied for table program'),
    ($$DELETE FROM lifecycle.program$$, '42501: permission denied for table program')
) AS w (statement, error);
SELECT is(failure($$UPDATE lifecycle.program SET source = 'name' WHERE lead_table = 'leads'::regclass$$, r.name), 'no error', r.name || ' may change the program')
FROM unnest(ARRAY['privilege_owner', 'privilege_member']) AS r (name);

-- register_program() takes nothing that a dump could not restore
SELECT is(failure(format('SELECT lifecycle.register_program(''mine'', %L, ''id'', ''id'', ''y'', ''mine2'', ''mine2'', true, NULL, NULL, NULL, NULL, NULL, NULL, %L, %L, ''mine2'', ''mine2'')',
                         w.model, w.on_illegal, w.tz), 'privilege_other') ~ ('^(' || w.sqlstate || '):'), true,
          format('register_program() refuses model %s, on_illegal %s, tz %s', w.model, w.on_illegal, w.tz))
FROM (VALUES ('nobody', 'error', 'UTC', '42704|23503'), ('standard', 'maybe', 'UTC', '22023|23514'), ('standard', 'error', 'Mars', '22023')) AS w (model, on_illegal, tz, sqlstate);

-- ---- trigger functions in the wrong place ----

INSERT INTO mine VALUES (1);
CREATE TEMP TABLE places AS
SELECT f.name AS function, t.name AS on_table, timing, event, level
FROM unnest(ARRAY['lead_statement', 'lead_before_row', 'lead_after_row', 'lead_truncate', 'guard_history', 'program_changes', 'configuration_changed']) AS f (name),
     unnest(ARRAY['mine', 'leads']) AS t (name),
     unnest(ARRAY['BEFORE', 'AFTER']) AS timing,
     unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS event,
     unnest(ARRAY['ROW', 'STATEMENT']) AS level
WHERE NOT (event = 'TRUNCATE' AND level = 'ROW');
-- Puts the function there as a trigger, fires it, and undoes both.
CREATE FUNCTION misplaced(function text, on_table regclass, timing text, event text, level text) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    program int := (SELECT p.id FROM lifecycle.program p WHERE p.lead_table = 'leads'::regclass);
BEGIN
    EXECUTE format('CREATE TRIGGER aa_wrong %s %s ON %s FOR EACH %s EXECUTE FUNCTION lifecycle.%I(%L)', timing, event, on_table, level, function, program);
    EXECUTE CASE event WHEN 'INSERT' THEN format('INSERT INTO %s (id) VALUES (77)', on_table)
                       WHEN 'UPDATE' THEN format('UPDATE %s SET id = id', on_table)
                       WHEN 'DELETE' THEN format('DELETE FROM %s', on_table)
                       ELSE format('TRUNCATE %s', on_table) END;
    RAISE EXCEPTION 'harmless' USING ERRCODE = 'ZZ000';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
SELECT is_empty($$
    SELECT p.*, misplaced(function, on_table, timing, event, level) FROM places p
    WHERE on_table = 'mine' AND function IN ('lead_statement', 'lead_before_row', 'lead_after_row', 'lead_truncate', 'program_changes')
      AND misplaced(function, on_table, timing, event, level) <> '39P01'
$$, 'on another table every trigger function of ours raises 39P01');
SELECT is_empty($$
    SELECT p.*, misplaced(function, on_table, timing, event, level) FROM places p
    WHERE on_table = 'leads' AND misplaced(function, on_table, timing, event, level) <> '39P01'
      AND CASE function
          WHEN 'lead_statement' THEN NOT (level = 'STATEMENT' AND event <> 'TRUNCATE')
          WHEN 'lead_before_row' THEN NOT (level = 'ROW' AND timing = 'BEFORE')
          WHEN 'lead_after_row' THEN NOT (level = 'ROW' AND timing = 'AFTER')
          WHEN 'lead_truncate' THEN NOT (timing = 'BEFORE' AND event = 'TRUNCATE')
          WHEN 'program_changes' THEN true
          ELSE false END
$$, 'so do they on the tracked table, where it is not the event that they are for');
SELECT is_empty($$
    SELECT p.*, misplaced(function, on_table, timing, event, level) FROM places p
    WHERE function = 'guard_history' AND misplaced(function, on_table, timing, event, level) NOT IN ('42501', '39P01')
$$, 'the guard lets nothing through wherever it stands');
SELECT is_empty($$
    SELECT p.*, misplaced(function, on_table, timing, event, level) FROM places p
    WHERE function = 'configuration_changed' AND misplaced(function, on_table, timing, event, level) NOT IN ('ZZ000', '39P01')
$$, 'configuration_changed() does no harm');
SELECT is(failure(format($$CREATE TRIGGER wrong BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION lifecycle.lead_before_row(%s);
                           INSERT INTO mine VALUES (5)$$, a.argument), 'privilege_other'), a.error, 'argument: ' || coalesce(a.argument, 'none'))
FROM (VALUES
    ('', E'39P01: function "lead_before_row" needs the number of a program as its one argument\nHINT: Triggers of lifecycle are made by lifecycle.track().'),
    ('1, 2', E'39P01: function "lead_before_row" needs the number of a program as its one argument\nHINT: Triggers of lifecycle are made by lifecycle.track().'),
    ('''x''', '22P02: invalid input syntax for type integer: "x"')
) AS a (argument, error);
SELECT is(failure(format($$CREATE TRIGGER wrong BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION lifecycle.lead_before_row(%L);
                           INSERT INTO mine VALUES (5)$$, (SELECT id FROM lifecycle.program WHERE lead_table = 'leads'::regclass)), 'privilege_other'),
          E'39P01: trigger "wrong" on table "mine" belongs to the program of another table\nHINT: Triggers of lifecycle are made by lifecycle.track().',
          'a trigger names a program of its own table');

-- ---- a program row that is missing ----

SELECT id FROM lifecycle.program WHERE lead_table = 'by_superuser'::regclass \gset
DELETE FROM lifecycle.program WHERE lead_table = 'by_superuser'::regclass;
SELECT is(failure('INSERT INTO by_superuser VALUES (1)'),
          format(E'55000: table "by_superuser" has triggers of lifecycle, but its program is missing\nDETAIL: Table lifecycle.program has no row with id %s.\n'
                 'HINT: Restore that row, or drop the triggers with lifecycle.untrack(''public.by_superuser'').', :id), 'is an error, never silence');
SELECT lives_ok($$SELECT lifecycle.untrack('by_superuser')$$, 'and the hint helps');
SELECT lives_ok('INSERT INTO by_superuser VALUES (1)', 'the table is an ordinary one again');

-- ---- row security ----

SELECT run_as('privilege_owner', $$
    CREATE POLICY own ON leads TO privilege_writer USING (name <> 'secret') WITH CHECK (name <> 'secret' AND lifecycle_status <> 'customer');
    ALTER TABLE leads ENABLE ROW LEVEL SECURITY;
$$);
INSERT INTO leads VALUES (10, 'secret');
SELECT is(failure($$INSERT INTO leads VALUES (11, 'secret')$$, 'privilege_writer'),
          '42501: new row violates row-level security policy for table "leads"', 'the writer''s policy is applied to a new lead');
SELECT is(failure($$UPDATE leads SET lifecycle_status = 'customer' WHERE id = 2$$, 'privilege_writer'),
          '42501: new row violates row-level security policy for table "leads"', 'to what a write makes of its status');
SELECT run_as('privilege_writer', $$UPDATE leads SET lifecycle_status = 'mql' WHERE id <> 1; DELETE FROM leads WHERE id = 10$$);
SELECT results_eq('SELECT id, lifecycle_status::text FROM leads ORDER BY id', $$VALUES (1, 'customer'), (2, 'mql'), (10, 'known')$$,
                  'and to what it can see');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'no move of a refused write is recorded');

-- ---- the extension's own objects ----

SELECT is_empty($$
    SELECT p.oid::regprocedure FROM pg_proc p
    WHERE p.pronamespace = 'lifecycle'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL$$, 'every function has a comment');
SELECT is_empty($$
    SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = 'lifecycle'::regnamespace AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
      AND NOT coalesce(p.proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}'
      -- a procedure that commits cannot have it; it says so itself, first in the body and after each COMMIT
      AND NOT (p.prokind = 'p' AND (p.prosrc LIKE '%COMMIT;%' OR p.prosrc LIKE '%CALL lifecycle.in_batches(%')
               AND p.prosrc ~ '\mBEGIN\s+(--[^\n]*\s+)?(\w+ := pg_catalog\.current_setting\(''search_path''\);\s+)?SET LOCAL search_path = pg_catalog, pg_temp;')$$,
    'every function that resolves names at run time has its search_path pinned');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'lifecycle'::regnamespace AND p.prosecdef$$,
                'none is SECURITY DEFINER');
SELECT is_empty($$
    SELECT c.oid::regclass, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'lifecycle'::regnamespace AND c.relkind IN ('r', 'v', 'm') AND col_description(c.oid, a.attnum) IS NULL$$,
    'every column of every table has a comment');
SELECT is_empty($$
    SELECT c.oid::regclass FROM pg_class c
    WHERE c.relnamespace = 'lifecycle'::regnamespace AND c.relkind IN ('r', 'v', 'm') AND obj_description(c.oid, 'pg_class') IS NULL$$,
    'and every table');
SELECT is_empty($$
    SELECT a.attrelid::regclass, a.attname FROM pg_attribute a
    WHERE a.attrelid = 'leads_history'::regclass AND a.attnum > 0 AND col_description(a.attrelid, a.attnum) IS NULL$$, 'every column of a history as well');
SELECT is_empty($$
    SELECT c.oid::regclass, g.privilege_type FROM pg_class c, aclexplode(c.relacl) AS g
    WHERE c.relnamespace = 'lifecycle'::regnamespace AND g.grantee = 0 AND g.privilege_type <> 'SELECT'
      AND (c.relname, g.privilege_type) NOT IN (('rule', 'INSERT'), ('rule', 'UPDATE'), ('rule', 'DELETE'))$$,
    'PUBLIC may read the configuration and write no whole table of it but the rules, whose trigger asks for the owner');
SELECT is(failure($$CREATE TABLE lifecycle.x ()$$, 'privilege_other'), '42501: permission denied for schema lifecycle', 'nor put anything into our schema');

SELECT * FROM finish();
