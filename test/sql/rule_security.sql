-- Rules as a way to somebody else's rights: who may write them, as whom they
-- run, and what they cannot reach; from a role that may only INSERT leads, from
-- one that owns nothing, and from the owner of the table against all others.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE ROLE rs_owner;
CREATE ROLE rs_member IN ROLE rs_owner;
CREATE ROLE rs_writer;
CREATE ROLE rs_nobody;
CREATE ROLE rs_mallory;
CREATE FUNCTION run_as(as_role name, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', as_role);
    EXECUTE statement;
    RESET ROLE;
END $$;
CREATE SCHEMA own AUTHORIZATION rs_owner;
CREATE SCHEMA mal AUTHORIZATION rs_mallory;
GRANT USAGE ON SCHEMA own TO PUBLIC;
GRANT USAGE ON SCHEMA mal TO PUBLIC;
CREATE TABLE secret (pin text);
INSERT INTO secret VALUES ('1234');
SELECT run_as('rs_owner', $$
    CREATE TABLE own.leads (id int PRIMARY KEY, t text, n int, j jsonb);
    CREATE TABLE own.seen (how text, who name, path text);
    REVOKE ALL ON own.leads, own.seen FROM PUBLIC;
    GRANT INSERT ON own.leads TO rs_writer;
    SELECT lifecycle.track('own.leads');
    INSERT INTO own.leads VALUES (1, 'a', 1), (2, 'b', 2)
$$);

-- ---- who may write rules ----

SELECT run_as('rs_owner', $$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('own.leads', 'owned', 't = ''a''', '1')$$);
SELECT lives_ok($$SELECT run_as('rs_member', 'UPDATE lifecycle.rule SET points = ''2'' WHERE name = ''owned''')$$, 'a member of the role that owns the table writes its rules');
SELECT run_as('rs_mallory', $$CREATE TABLE mal.leads (id int PRIMARY KEY, t text); CREATE TABLE mal.fake (id int, lifecycle_seq int)$$);
SELECT run_as('rs_mallory', $$SELECT lifecycle.track('mal.leads')$$);
SELECT run_as('rs_mallory', $$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('mal.leads', 'mallory''s', 'true', '1')$$);
SELECT is(failure(s.statement, r.role), E'42501: must be owner of table leads\nDETAIL: Rules run with the rights of the owner of their table.\n'
          'HINT: Let a member of the role that owns the table write its rules.', r.role || ': ' || s.statement)
FROM (VALUES
    ($$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('own.leads', 'x', 'true', '1')$$),
    ($$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('own.leads', 'owned', 'true', '1') ON CONFLICT (on_table, name) DO UPDATE SET points = '9'$$),
    ($$UPDATE lifecycle.rule SET points = '9' WHERE name = 'owned'$$),
    ($$UPDATE lifecycle.rule SET enabled = false WHERE name = 'owned'$$),
    ($$UPDATE lifecycle.rule SET on_table = 'mal.leads' WHERE name = 'owned'$$),
    ($$UPDATE lifecycle.rule SET on_table = 'mal.fake' WHERE name = 'owned'$$),
    ($$DELETE FROM lifecycle.rule WHERE name = 'owned'$$)
) AS s (statement), (VALUES ('rs_writer'::name), ('rs_nobody'), ('rs_mallory')) AS r (role);
SELECT is(failure(s.statement, 'rs_mallory'), s.error, 'the owner of another table: ' || s.statement)
FROM (VALUES
    ($$UPDATE lifecycle.rule SET on_table = 'own.leads' WHERE name = 'mallory''s'$$,
     E'42501: must be owner of table leads\nDETAIL: Rules run with the rights of the owner of their table.\nHINT: Let a member of the role that owns the table write its rules.'),
    ($$UPDATE lifecycle.rule SET on_table = 'pg_class' WHERE name = 'mallory''s'$$,
     E'42501: must be owner of table pg_class\nDETAIL: Rules run with the rights of the owner of their table.\nHINT: Let a member of the role that owns the table write its rules.'),
    ($$UPDATE lifecycle.rule SET on_table = 0 WHERE name = 'mallory''s'$$, '42P01: relation with OID 0 does not exist'),
    ($$TRUNCATE lifecycle.rule$$, '42501: permission denied for table rule'),
    ($$ALTER TABLE lifecycle.rule DISABLE TRIGGER ALL$$, '42501: must be owner of table rule'),
    ($$CREATE TRIGGER mine BEFORE INSERT ON lifecycle.rule EXECUTE FUNCTION lifecycle.configuration_changed()$$, '42501: permission denied for table rule'),
    ($$CREATE TRIGGER mine BEFORE INSERT ON mal.fake FOR EACH ROW EXECUTE FUNCTION lifecycle.rule_changes()$$, 'no error'),
    ($$INSERT INTO mal.fake VALUES (1, 1)$$, '39P01: function "rule_changes" was not fired BEFORE ... FOR EACH ROW of lifecycle.rule')
) AS s (statement, error);
SELECT is(points, '2', 'and nothing of it was stored') FROM lifecycle.rule WHERE name = 'owned';
-- what conditions ask for is no secret: everybody may read all rules
SELECT is(failure('SELECT * FROM lifecycle.rule', 'rs_nobody'), 'no error', 'everybody may read rules');

-- ---- as whom they run ----

SELECT run_as('rs_owner', $outer$
    CREATE FUNCTION own.note(how text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$BEGIN
        INSERT INTO own.seen VALUES (how, current_user, current_setting('search_path')); RETURN true; END$$;
    CREATE FUNCTION own.spy(how text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN RETURN own.note(how); END$$;
    CREATE FUNCTION own.spied(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN own.note('operator'); END$$;
    CREATE OPERATOR own.= (FUNCTION = own.spied, LEFTARG = text, RIGHTARG = text);
    CREATE DOMAIN own.d AS text CHECK (own.spy('domain'));
    CREATE TYPE own.c AS (x own.d);
    CREATE TYPE own.p AS (x int);
    CREATE FUNCTION own.to_bool(own.p) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN RETURN own.note('cast'); END$$;
    CREATE CAST (own.p AS boolean) WITH FUNCTION own.to_bool(own.p);
    CREATE FUNCTION own.inlined(text) RETURNS boolean LANGUAGE sql STABLE AS $$SELECT own.spy('inlined ' || $1)$$;
    INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES
        ('own.leads', 'function', $$own.spy('function')$$, '1'),
        ('own.leads', 'operator', $$t OPERATOR(own.=) 'a'$$, '1'),
        ('own.leads', 'inlined', $$own.inlined(t)$$, '1'),
        ('own.leads', 'domain', $$t::own.d IS NOT NULL$$, '1'),
        ('own.leads', 'array', $$('{' || t || '}')::own.d[] IS NOT NULL$$, '1'),
        ('own.leads', 'row', $$('(' || t || ')')::own.c IS NOT NULL$$, '1'),
        ('own.leads', 'populate', $$jsonb_populate_record(NULL::own.c, j) IS NOT NULL$$, '1'),
        ('own.leads', 'cast', $$ROW(n)::own.p::boolean$$, '1'),
        ('own.leads', 'points', 'true', $$CASE WHEN own.spy('points') THEN 1 ELSE 0 END$$);
    INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('own.leads', 'status', $$own.spy('status') AND n > 100$$, 'mql')
$outer$);
SELECT current_setting('server_version_num')::int >= 170000 AS has_json_value \gset
\if :has_json_value
    SELECT run_as('rs_owner', $outer$
        INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES
            ('own.leads', 'json_value', $$JSON_VALUE(j, '$.x' RETURNING own.d) IS NOT NULL$$, '1'),
            ('own.leads', 'json_query', $$JSON_QUERY(j, '$' RETURNING own.c) IS NOT NULL$$, '1'),
            ('own.leads', 'json_query of an array', $$JSON_QUERY(j, '$.a' RETURNING own.d[]) IS NOT NULL$$, '1')$outer$);
\endif
SELECT run_as('rs_owner', 'DELETE FROM own.seen');
INSERT INTO own.leads VALUES (3, 'a', 3, '{"x": "y", "a": ["z"]}');
UPDATE own.leads SET n = 101, t = 'c' WHERE id = 3;
SELECT run_as('rs_writer', $$INSERT INTO own.leads VALUES (4, 'a', 4, '{"x": "y", "a": ["z"]}')$$);
SELECT results_eq('SELECT DISTINCT who::text COLLATE "default" FROM own.seen', ARRAY['rs_owner'], 'all code that rules reach runs as the owner of the table, even where a superuser writes');
SELECT set_eq('SELECT DISTINCT how FROM own.seen', ARRAY['function', 'operator', 'inlined a', 'inlined c', 'domain', 'cast', 'points', 'status'], 'and all of it does run');
SELECT results_eq('SELECT DISTINCT path FROM own.seen', ARRAY['pg_catalog, pg_temp'], 'under a pinned search_path');
SELECT is(failure('SELECT * FROM own.leads', 'rs_writer'), '42501: permission denied for table leads', 'who may only INSERT leads got nothing by it');
SELECT is(failure('SELECT * FROM own.leads_history', 'rs_writer'), '42501: permission denied for table leads_history', 'nor the history');
DELETE FROM lifecycle.rule WHERE on_table = 'own.leads'::regclass;

-- ---- what the owner's code cannot do inside ----

SELECT run_as('rs_owner', $outer$
    CREATE TABLE own.statements (id int, statement text);
    CREATE TABLE own.deferred (id int);
    CREATE FUNCTION own.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM own.note('late'); RETURN NULL; END$$;
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON own.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION own.late();
    CREATE FUNCTION own.execute(statement text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$BEGIN
        IF statement LIKE 'do %' THEN EXECUTE substr(statement, 4); END IF; RETURN true; END$$;
    CREATE FUNCTION own.quiet(statement text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN RETURN own.execute(statement); END$$;
    CREATE FUNCTION own.definer(statement text) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$BEGIN EXECUTE statement; RETURN true; END$$;
    INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('own.leads', 'escape', 'own.quiet(t)', '1')
$outer$);
SELECT run_as('rs_mallory', $outer$
    CREATE TABLE mal.seen (who name);
    CREATE FUNCTION mal.definer() RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$BEGIN RETURN current_user = 'rs_mallory'; END$$
$outer$);
SELECT is(split_part(failure(format('INSERT INTO own.leads (id, t) VALUES (100, %L)', 'do ' || e.statement)), E'\n', 1), e.error, 'inside of a rule: ' || e.statement)
FROM (VALUES
    ('SET ROLE rs_mallory', '42501: cannot set parameter "role" within security-restricted operation'),
    ('RESET ROLE', '42501: cannot set parameter "role" within security-restricted operation'),
    ('SET LOCAL SESSION AUTHORIZATION postgres', '42501: cannot set parameter "session_authorization" within security-restricted operation'),
    ($$SELECT set_config('role', 'none', true)$$, '42501: cannot set parameter "role" within security-restricted operation'),
    ('SET session_replication_role = replica', '42501: permission denied to set parameter "session_replication_role"'),
    ('CREATE TEMP TABLE x ()', '42501: cannot create temporary table within security-restricted operation'),
    ('DECLARE c CURSOR WITH HOLD FOR SELECT 1', '42501: cannot create a cursor WITH HOLD within security-restricted operation'),
    ('INSERT INTO own.deferred VALUES (1)', '42501: cannot fire deferred trigger within security-restricted operation'),
    ('SELECT * FROM public.secret', '42501: permission denied for table secret'),
    ($$SELECT own.definer('SET ROLE postgres')$$, '42501: cannot set parameter "role" within security-definer function'),
    ($$SELECT own.definer('SELECT * FROM public.secret')$$, '42501: permission denied for table secret'),
    ('CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION own.late()', '42501: permission denied to create event trigger "e"'),
    ('ALTER TABLE own.leads ADD COLUMN x int', '55006: cannot ALTER TABLE "leads" because it is being used by active queries in this session'),
    ('DROP TABLE own.leads', '55006: cannot DROP INDEX "leads_pkey" because it is being used by active queries in this session'),
    ('TRUNCATE own.leads', '55006: cannot TRUNCATE "leads" because it is being used by active queries in this session'),
    ($$SELECT lifecycle.untrack('own.leads')$$, '55000: table "leads" has triggers of lifecycle, but its program is missing'),
    ('DELETE FROM own.leads_history', '42501: history "leads_history" cannot be written'),
    ('INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES (''mal.leads'', ''x'', ''true'', ''1'')', '42501: must be owner of table leads'),
    ('SELECT lifecycle.behavior_score()', '0A000: lifecycle.behavior_score() without arguments can only be used in the condition of a rule with a status'),
    ('ROLLBACK', '0A000: EXECUTE of transaction commands is not implemented')
) AS e (statement, error);
SELECT is(current_user::text, session_user::text, 'after all these errors we are who we were');
SELECT is(current_setting('search_path'), '"$user", public', 'with our search_path');
SELECT is(failure(format('INSERT INTO own.leads (id, t) VALUES (%s, %L)', 200 + e.n, 'do ' || e.statement)), 'no error', 'harmless: ' || e.statement)
FROM (VALUES
    (1, $$SELECT set_config('search_path', 'mal', false)$$),
    (2, $$SET lifecycle.actor = 'somebody else'$$),
    (3, $$SELECT set_config('lifecycle.on_illegal', 'keep', false)$$),
    (4, $$UPDATE lifecycle.rule SET points = '5' WHERE name = 'escape'$$),
    (5, $$DELETE FROM lifecycle.rule WHERE name = 'no such rule'$$),
    (6, $$ALTER FUNCTION own.quiet(text) COST 77$$),
    (7, $$SELECT mal.definer()$$)
) AS e (n, statement);
SELECT is(current_setting('search_path'), '"$user", public', 'what a rule sets is gone with it: search_path');
SELECT is(coalesce(current_setting('lifecycle.actor', true), ''), '', 'and who the actor is');

-- ---- a rule that writes the table it judges ----

SELECT is(left(failure($$INSERT INTO own.leads (id, t) VALUES (300, 'do INSERT INTO own.leads (id, t) VALUES (300, ''x'')')$$), 5), '23505', 'the same key: the second is refused');
SELECT is(failure($$INSERT INTO own.leads (id, t) VALUES (301, 'do INSERT INTO own.leads (id, t) VALUES (302, ''x'')')$$), 'no error', 'another key: both are written');
SELECT is(failure($$INSERT INTO own.leads (id, t) VALUES (303, 'do ALTER FUNCTION own.quiet(text) COST 5; INSERT INTO own.leads (id, t) VALUES (304, ''do ALTER FUNCTION own.quiet(text) COST 6''); UPDATE own.leads SET t = ''y'' WHERE id = 304')$$),
          'no error', 'also where the rule is out of date while it runs');
SELECT is(left(failure($$UPDATE own.leads SET t = 'do UPDATE own.leads SET n = 7 WHERE id = 301' WHERE id = 301$$), 5), '27000', 'the very row that is judged: refused');
SELECT is(left(failure($$DO $do$BEGIN EXECUTE 'CREATE OR REPLACE FUNCTION own.execute(statement text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $f$BEGIN
              INSERT INTO own.leads (id, t) SELECT max(id) + 1, ''x'' FROM own.leads; RETURN true; END$f$'; INSERT INTO own.leads (id, t) VALUES (310, 'x'); END$do$ $$), 5), '54001', 'without end: the stack has one');
UPDATE lifecycle.rule SET enabled = false WHERE name = 'escape';
SELECT is_empty($$SELECT * FROM lifecycle.verify('own.leads') WHERE "check" <> 'stale'$$, 'the history is whole after all this');
SELECT results_eq('SELECT id, demographic_score FROM own.leads WHERE id IN (301, 302, 303, 304) ORDER BY id', 'VALUES (301, 5::float8), (302, 5), (303, 5), (304, 5)', 'and each has its score');
DELETE FROM lifecycle.rule WHERE on_table = 'own.leads'::regclass;

-- ---- what a writer can choose ----

SELECT run_as('rs_owner', $$
    INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('own.leads', 'digits', 't ~ ''^\d+$''', '1'), ('own.leads', 'null', '(t = NULL) IS TRUE', '2'),
        ('own.leads', 'lower', 'lower(t) = ''a''', '4'), ('own.leads', 'user', 'current_user = ''rs_owner''', '8')$$);
SELECT run_as('rs_mallory', $outer$
    CREATE FUNCTION mal.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'a'$$;
    CREATE FUNCTION mal.always(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT true$$;
    CREATE OPERATOR mal.= (FUNCTION = mal.always, LEFTARG = text, RIGHTARG = text);
    CREATE OPERATOR mal.~ (FUNCTION = mal.always, LEFTARG = text, RIGHTARG = text)
$outer$);
-- so that the session compiles them anew
UPDATE lifecycle.rule SET priority = priority;
SET search_path = mal, pg_catalog, public;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET transform_null_equals = on;
SET DateStyle = 'SQL, DMY';
SET ROLE rs_writer;
INSERT INTO own.leads (id, t) VALUES (401, 'ddd'), (402, '1'), (403, NULL), (404, 'A');
RESET ROLE;
RESET search_path;
RESET standard_conforming_strings;
RESET escape_string_warning;
RESET transform_null_equals;
RESET DateStyle;
SELECT results_eq('SELECT id, demographic_score FROM own.leads WHERE id > 400 ORDER BY id', 'VALUES (401, 8::float8), (402, 9), (403, 8), (404, 12)',
                  'functions, operators and settings of the writer''s session change no rule');

-- ---- row security, and what a NOTICE tells ----

SELECT run_as('rs_owner', $$ALTER TABLE own.leads ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON own.leads FOR INSERT TO rs_writer WITH CHECK (id > 500)$$);
SELECT is(failure($$INSERT INTO own.leads (id) VALUES (499)$$, 'rs_writer'), '42501: new row violates row-level security policy for table "leads"', 'policies hold for who writes');
SELECT is(failure($$INSERT INTO own.leads (id) VALUES (501)$$, 'rs_writer'), 'no error', 'and let through what they let through');

-- ---- a partition of somebody else's ----

SELECT run_as('rs_owner', $$
    CREATE TABLE own.parted (id int PRIMARY KEY, t text, g text GENERATED ALWAYS AS (upper(t)) STORED) PARTITION BY RANGE (id);
    CREATE TABLE own.part PARTITION OF own.parted FOR VALUES FROM (0) TO (1000);
    SELECT lifecycle.track('own.parted');
    INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES
        ('own.parted', 'who', 'current_user = ''rs_owner''', '1'), ('own.parted', 'generated', 'g = ''X''', '2')
$$);
ALTER TABLE own.part OWNER TO rs_mallory;
SELECT is(failure($$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('own.part', 'x', 'true', '1')$$, 'rs_mallory'),
          E'42809: table "own.part" is a partition\nHINT: Rules stand on the tracked table: own.parted.', 'the owner of a partition writes no rules for it');
INSERT INTO own.parted (id, t) VALUES (1, 'x');
SELECT is(demographic_score, 3::float8, 'in a partition, rules run as the owner of the tracked table') FROM own.parted WHERE id = 1;

SELECT * FROM finish();
DROP OWNED BY rs_owner, rs_member, rs_writer, rs_nobody, rs_mallory CASCADE;
DROP ROLE rs_owner, rs_member, rs_writer, rs_nobody, rs_mallory;
