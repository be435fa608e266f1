-- The expressions of a program: what is taken, what is refused and where the
-- mistake is; whose names, whose rights, and whose code they are.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE TABLE leads (
    id int PRIMARY KEY, name text, amount numeric, n int, at timestamptz, plain timestamp, day date, data jsonb,
    doubled text GENERATED ALWAYS AS (name || name) STORED,
    later timestamptz GENERATED ALWAYS AS (plain AT TIME ZONE 'UTC') STORED
);
-- What an expression of that kind becomes, or how it is refused.
CREATE FUNCTION taken(what text, expression text) RETURNS text
    LANGUAGE sql BEGIN ATOMIC SELECT lifecycle.canonical('leads', what, expression); END;

-- ---- what is taken ----

SELECT is(taken(e.what, e.expression), e.canonical, format('%s: %s', e.what, e.expression))
FROM (VALUES
    ('entered', 'at', 'at'), ('entered', $$plain AT TIME ZONE 'UTC'$$, $$(plain AT TIME ZONE 'UTC'::text)$$),
    ('entered', 'NULL', 'NULL::timestamp with time zone'), ('entered', $$ '2026-01-01 00:00+00' $$, $$'2026-01-01 00:00:00+00'::timestamp with time zone$$),
    ('source', 'name', 'name'), ('source', 'name::varchar(5)', '(name)::character varying(5)'), ('source', 'n', 'n'),
    ('source', $$ data->>'utm' $$, $$(data ->> 'utm'::text)$$), ('source', 'doubled', 'doubled'),
    ('value', 'amount * 2', $$(amount * (2)::numeric)$$), ('value', 'n', 'n'), ('value', '1.5::float8', '(1.5)::double precision'),
    ('actor', 'lower(name) -- a comment', 'lower(name)'), ('reason', 'leads.name', 'name'), ('reason', 'public.leads.name', 'name'),
    ('cohort', 'n % 2', '(n % 2)'), ('cohort', 'lifecycle.cohort(name, 4)', $$lifecycle.cohort(name, 4)$$),
    ('cohort', '2::bigint', '(2)::bigint'),
    ('source', $$CASE WHEN n > 1 THEN 'a' ELSE name END$$, $$CASE WHEN (n > 1) THEN 'a'::text ELSE name END$$)
) AS e (what, expression, canonical);
SELECT is(taken('source', NULL), NULL, 'no expression stays none');

-- ---- what is refused ----

CREATE FUNCTION several() RETURNS SETOF text LANGUAGE sql STABLE AS $$SELECT 'x'$$;
CREATE FUNCTION roll() RETURNS text LANGUAGE sql VOLATILE AS $$SELECT random()::text$$;
CREATE TABLE governed (id int PRIMARY KEY, name text);
SELECT lifecycle.track('governed');
SELECT is(failure(format('SELECT lifecycle.canonical(%L, %L, %L)', e.on_table, e.what, e.expression)), replace(e.error, '|', E'\n'), format('%s: %s', e.what, e.expression))
FROM (VALUES
    ('leads', 'entered', 'plain', '42804: expression for "entered" gives timestamp without time zone, not timestamp with time zone|DETAIL: Which instant that is would depend on the time zone of each session.'
        '|HINT: Name the time zone, as in: (plain) AT TIME ZONE ''UTC''.'),
    ('leads', 'entered', 'day', '42804: expression for "entered" gives date, not timestamp with time zone|DETAIL: Which instant that is would depend on the time zone of each session.'
        '|HINT: Name the time zone, as in: ((day)::timestamp) AT TIME ZONE ''UTC''.'),
    ('leads', 'entered', 'n', '42804: expression for "entered" gives integer, not timestamp with time zone|HINT: Cast the expression to timestamp with time zone.'),
    ('leads', 'value', 'name', '42804: expression for "value" gives text, not numeric|HINT: Cast the expression to numeric.'),
    ('leads', 'cohort', 'name', '42804: expression for "cohort" gives text, not integer|HINT: Cast the expression to integer.'),
    ('leads', 'source', '(SELECT 1)', '0A000: cannot use a subquery in this expression|DETAIL: The expression sees one row and nothing else.'),
    ('leads', 'source', 'EXISTS (SELECT FROM leads)', '0A000: cannot use a subquery in this expression|DETAIL: The expression sees one row and nothing else.'),
    ('leads', 'value', 'max(amount)', '42803: cannot use an aggregate function in this expression|DETAIL: The expression sees one row and nothing else.'),
    ('leads', 'value', 'rank() OVER ()', '42P20: cannot use a window function in this expression|DETAIL: The expression sees one row and nothing else.'),
    ('leads', 'value', 'generate_series(1, n)', '0A000: cannot use a set-returning function in this expression'),
    ('leads', 'source', 'several()', '0A000: cannot use a set-returning function in this expression'),
    ('leads', 'value', 'random()', '42P17: cannot use a volatile function in this expression|DETAIL: The same row must give the same answer.'),
    ('leads', 'source', 'name || roll()', '42P17: cannot use a volatile function in this expression|DETAIL: The same row must give the same answer.'),
    ('leads', 'entered', 'clock_timestamp()', '42P17: cannot use a volatile function in this expression|DETAIL: The same row must give the same answer.'),
    ('leads', 'source', '$1', '42P02: there is no parameter $1'),
    ('leads', 'source', 'leads::text', '0A000: cannot use the whole row in this expression|DETAIL: Name the columns that it reads.'),
    ('leads', 'source', 'ctid::text', '0A000: cannot use a system column in this expression'),
    ('leads', 'source', 'tableoid::regclass::text', '0A000: cannot use a system column in this expression'),
    ('leads', 'source', 'nosuch', '42703: column "nosuch" does not exist'),
    ('leads', 'source', 'nosuch(name)', '42883: function nosuch(text) does not exist|HINT: No function matches the given name and argument types. You might need to add explicit type casts.'),
    ('leads', 'source', 'name, name', '42601: an expression over one row is expected|DETAIL: The text holds a query, or more than one expression.'),
    ('leads', 'source', 'name FROM leads', '42601: an expression over one row is expected|DETAIL: The text holds a query, or more than one expression.'),
    ('leads', 'source', 'name LIMIT 1', '42601: an expression over one row is expected|DETAIL: The text holds a query, or more than one expression.'),
    ('leads', 'source', 'name AS source', '42601: an expression over one row is expected|DETAIL: The expression has a column alias.'),
    ('leads', 'source', 'name; DROP TABLE leads', '42601: syntax error at or near ";"'),
    ('leads', 'source', ') + (', '42601: syntax error at or near ")"'),
    ('leads', 'source', '''', '42601: unterminated quoted string at or near "''"'),
    ('leads', 'value', '1 / 0', '22012: division by zero'),
    ('leads', 'nonsense', 'name', '22023: a program has no expression "nonsense"'),
    ('governed', 'source', 'lifecycle_status::text', '42P10: cannot use a column that lifecycle keeps in this expression|DETAIL: The status, its time and its number are what a write leads to, not what it is judged by.'),
    ('governed', 'entered', 'lifecycle_since', '42P10: cannot use a column that lifecycle keeps in this expression|DETAIL: The status, its time and its number are what a write leads to, not what it is judged by.'),
    ('governed', 'cohort', 'lifecycle_seq', '42P10: cannot use a column that lifecycle keeps in this expression|DETAIL: The status, its time and its number are what a write leads to, not what it is judged by.')
) AS e (on_table, what, expression, error);
SELECT isnt(failure(format('SELECT lifecycle.canonical(''leads'', ''source'', %L)', e.expression)), 'no error', format('no expression: "%s"', e.expression))
FROM unnest(ARRAY['', ' ', '-- nothing', '*', 'DEFAULT', 'name ORDER BY 1', 'DISTINCT name', 'name UNION SELECT name']) AS e (expression);
SELECT matches(failure_context($$SELECT lifecycle.canonical('leads', 'value', '1 / 0')$$), '^expression for "value" of table "leads"', 'the context names the expression');
SELECT is(failure($$SELECT lifecycle.track('leads', value => 'amount + nosuch')$$), '42703: column "nosuch" does not exist', 'track() refuses the same');
-- the position of the mistake, as psql shows it
\set shown `psql -X -d :'DBNAME' -c "SELECT lifecycle.canonical('leads', 'value', 'amount + nosuch')" 2>&1`
SELECT is(:'shown'::text,
          E'ERROR:  column "nosuch" does not exist\nLINE 1: amount + nosuch\n                 ^\nQUERY:  amount + nosuch\nCONTEXT:  expression for "value" of table "leads"',
          'the mistake is pointed at inside the expression''s own text');

-- ---- names ----

CREATE SCHEMA app; CREATE SCHEMA evil;
CREATE FUNCTION app.channel(text) RETURNS text LANGUAGE sql STABLE AS $$SELECT 'app:' || $1$$;
CREATE FUNCTION evil.channel(text) RETURNS text LANGUAGE sql STABLE AS $$SELECT 'evil:' || $1$$;
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql STABLE AS $$SELECT 'evil:' || $1$$;
CREATE FUNCTION evil.concat_text(text, text) RETURNS text LANGUAGE sql STABLE AS $$SELECT 'evil'::text$$;
CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.concat_text);
CREATE TABLE named (id int PRIMARY KEY, name text);
SET search_path = app, public;
SELECT lifecycle.track('named', source => 'channel(name)', actor => $$ lower(name) || '!' $$);
SET search_path = evil, public, pg_catalog;
INSERT INTO named VALUES (1, 'X');
RESET search_path;
SELECT is((SELECT source FROM lifecycle.program WHERE lead_table = 'named'::regclass), 'app.channel(name)', 'what is stored is qualified');
SELECT results_eq('SELECT source, actor FROM named_history', $$VALUES ('app:X', 'x!')$$, 'a later search_path changes nothing');
SELECT throws_ok($$SELECT lifecycle.canonical('leads', 'source', 'channel(name)')$$, '42883', 'function channel(text) does not exist', 'without it the name means nothing');
-- event triggers do not fire in a replica, or where they are switched off
SET session_replication_role = replica;
ALTER TABLE named RENAME COLUMN name TO title;
SET session_replication_role = origin;
SELECT is(failure($$INSERT INTO named VALUES (2, 'Y')$$), '42703: column "name" does not exist', 'a column that was renamed unseen is an error that says so');
SELECT matches(failure_context($$INSERT INTO named VALUES (2, 'Y')$$), '^expression for "(source|actor)" of table "named"', 'and where');
SET session_replication_role = replica;
ALTER TABLE named RENAME COLUMN title TO name;
SET session_replication_role = origin;
SELECT lives_ok($$INSERT INTO named VALUES (2, 'Y')$$, 'with its name it works again');

-- ---- rights ----

CREATE ROLE expression_owner; CREATE ROLE expression_writer;
CREATE SCHEMA own AUTHORIZATION expression_owner;
GRANT USAGE ON SCHEMA own TO expression_writer;
CREATE FUNCTION run_as(as_role name, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', as_role);
    EXECUTE statement;
    RESET ROLE;
END$$;
SELECT run_as('expression_owner', $outer$
    CREATE FUNCTION own.who(text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN current_user || ' ' || current_setting('search_path'); END$$;
    CREATE FUNCTION own.secret(text) RETURNS text LANGUAGE sql STABLE AS $$SELECT $1 || current_user$$;
    CREATE FUNCTION own.attempt(text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN EXECUTE $1; RETURN 'escaped'; END$$;
    CREATE FUNCTION own.escape(text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN own.attempt($1); END$$;
    REVOKE ALL ON FUNCTION own.who(text), own.secret(text), own.attempt(text), own.escape(text) FROM PUBLIC;
    CREATE TABLE own.seen (who name, how text);
    GRANT INSERT ON own.seen TO PUBLIC;
    CREATE FUNCTION own.spy(text, how text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO own.seen VALUES (current_user, how); RETURN true; END$$;
    CREATE DOMAIN own.d1 AS text CHECK (own.spy(VALUE, 'populate'));
    CREATE DOMAIN own.d2 AS text CHECK (own.spy(VALUE, 'array'));
    CREATE DOMAIN own.d3 AS text CHECK (own.spy(VALUE, 'row'));
    CREATE TYPE own.c1 AS (x own.d1);
    CREATE TYPE own.c3 AS (x own.d3);
    CREATE TABLE own.leads (id int PRIMARY KEY, name text);
    CREATE TABLE own.domains (id int PRIMARY KEY, name text);
    CREATE TABLE own.reader (id int PRIMARY KEY, name text);
    CREATE TABLE own.plain (id int PRIMARY KEY, name text);
    CREATE TABLE own.escapes (id int PRIMARY KEY, name text);
    GRANT ALL ON own.leads, own.domains, own.reader, own.plain, own.escapes TO expression_writer;
    SELECT lifecycle.track('own.leads', source => 'own.who(name)', actor => 'own.secret(name)');
    SELECT lifecycle.track('own.escapes', source => 'own.escape(name)');
    SELECT lifecycle.track('own.domains', source => '(jsonb_populate_record(NULL::own.c1, jsonb_build_object(''x'', name))).x',
                           actor => '((''{'' || name || ''}'')::own.d2[])[1]', reason => '((''('' || name || '')'')::own.c3)::text');
    SELECT lifecycle.track('own.reader', source => 'table_to_xml(name::regclass, true, false, '''')::text');
    SELECT lifecycle.track('own.plain', source => 'upper(name)', actor => 'session_user');
$outer$);
SELECT run_as('expression_writer', $$INSERT INTO own.leads VALUES (1, 'x ')$$);
SELECT results_eq('SELECT source, actor FROM own.leads_history', $$VALUES ('expression_owner pg_catalog, pg_temp', 'x expression_owner')$$,
                  'functions run as the owner of the table, under a pinned search_path, whoever writes');
INSERT INTO own.leads VALUES (2, 'x ');
SELECT is((SELECT actor FROM own.leads_history WHERE lead = 2), 'x expression_owner', 'also where a superuser does');
SELECT throws_ok(format('INSERT INTO own.escapes VALUES (1, %L)', e.statement), '42501', e.message, 'inside: ' || e.statement)
FROM (VALUES ('SET ROLE expression_writer', 'cannot set parameter "role" within security-restricted operation'),
             ('RESET SESSION AUTHORIZATION', 'cannot set parameter "session_authorization" within security-restricted operation'),
             ('CREATE TEMP TABLE x ()', 'cannot create temporary table within security-restricted operation'),
             ('SELECT * FROM public.leads', 'permission denied for table leads')) AS e (statement, message);
INSERT INTO own.domains VALUES (1, 'x');
SELECT results_eq('SELECT DISTINCT how, who::text COLLATE "default" FROM own.seen WHERE who <> ''expression_owner''', 'SELECT NULL::text, NULL::text WHERE false',
                  'nor does the code behind a domain, an array or a row run as the superuser that writes');
SELECT results_eq('SELECT DISTINCT how FROM own.seen ORDER BY 1', ARRAY['array', 'populate', 'row'], 'but it does run');
CREATE TABLE public.secret (pin text);
SELECT failure($$SELECT xmlcomment('x')$$) = 'no error' AS has_xml \gset
\if :has_xml
    SELECT throws_ok($$INSERT INTO own.reader VALUES (1, 'public.secret')$$, '42501', 'permission denied for table secret',
                     'nor is a table read that the owner may not read');
\else
    SELECT skip('the server is built without libxml, so that no built-in function reads a table', 1);
\endif
SELECT run_as('expression_writer', $$INSERT INTO own.plain VALUES (1, 'x')$$);
SELECT results_eq('SELECT source, actor = session_user FROM own.plain_history', $$VALUES ('X', true)$$, 'built-in functions do for a writer without any right');

-- ---- functions change ----

CREATE OR REPLACE FUNCTION app.channel(text) RETURNS text LANGUAGE sql STABLE AS $$SELECT 'new:' || $1$$;
INSERT INTO named VALUES (3, 'X');
SELECT is((SELECT source FROM named_history WHERE lead = 3), 'new:X', 'a function that is replaced is followed');
SET session_replication_role = replica;
DROP FUNCTION app.channel(text);
SET session_replication_role = origin;
SELECT is(failure($$INSERT INTO named VALUES (4, 'X')$$), E'42883: function app.channel(text) does not exist\n'
          'HINT: No function matches the given name and argument types. You might need to add explicit type casts.', 'one that is dropped unseen is an error');
SELECT matches(failure_context($$INSERT INTO named VALUES (4, 'X')$$), '^expression for "source" of table "named"', 'that names the expression and the table');
CREATE FUNCTION app.channel(text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF $1 = 'bad' THEN
        RAISE EXCEPTION 'no channel for %', $1 USING ERRCODE = 'ZZ001';
    END IF;
    RETURN $1;
END$$;
SELECT lives_ok($$INSERT INTO named VALUES (4, 'X')$$, 'one that is made again is found again');
SELECT is(failure($$INSERT INTO named VALUES (5, 'bad')$$), 'ZZ001: no channel for bad', 'an error of the function is the error of the write');
SELECT matches(failure_context($$INSERT INTO named VALUES (5, 'bad')$$), 'expression for "source" of table "named"', 'in context');
SELECT lives_ok($$INSERT INTO named VALUES (5, 'good')$$, 'and later writes work again');
SELECT run_as('expression_owner', 'REVOKE ALL ON FUNCTION own.secret(text) FROM expression_owner');
SELECT is(failure($$INSERT INTO own.leads VALUES (3, 'x')$$), '42501: permission denied for function secret', 'the owner''s own right to EXECUTE is asked, even of a superuser''s write');

-- a function that writes the table whose row it judges
CREATE TABLE echo (id int PRIMARY KEY, name text);
CREATE FUNCTION answer(int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF $1 < 5 THEN
        INSERT INTO public.echo VALUES ($1 + 1, 'echo') ON CONFLICT DO NOTHING;
    END IF;
    RETURN 'heard ' || $1;
END$$;
CREATE FUNCTION quiet(int) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN public.answer($1); END$$;
SELECT lifecycle.track('echo', source => 'quiet(id)', actor => 'quiet(id)');
INSERT INTO echo VALUES (3);
SELECT results_eq('SELECT lead, seq, source, actor FROM echo_history ORDER BY lead',
                  $$VALUES (3, 1, 'heard 3', 'heard 3'), (4, 1, 'heard 4', 'heard 4'), (5, 1, 'heard 5', 'heard 5')$$,
                  'an expression whose function writes its own table gives each lead its own values');
SELECT lives_ok($$INSERT INTO echo VALUES (20)$$, 'and later writes work');
SELECT is_empty($$SELECT * FROM lifecycle.verify('echo')$$, 'with a whole history');

-- ---- values ----

CREATE TABLE made (
    id int PRIMARY KEY, name text, at timestamp,
    source text GENERATED ALWAYS AS ('from ' || name) STORED,
    entered timestamptz GENERATED ALWAYS AS ((at - interval '1 day') AT TIME ZONE 'UTC') STORED,
    why text GENERATED ALWAYS AS (nullif(name, 'x')) STORED
);
SELECT lifecycle.copy_model('standard', 'strict');
UPDATE lifecycle.stage SET reason_required = true WHERE model = 'strict' AND status = 'lost';
SELECT lifecycle.track('made', 'strict', source => 'source', entered => 'entered', reason => 'why', value => 'length(source)');
INSERT INTO made (id, name, at) VALUES (1, 'y', '2020-01-02');
SELECT results_eq('SELECT source, at, reason, value FROM made_history', $$VALUES ('from y', timestamptz '2020-01-01 00:00+00', 'y', 6::numeric)$$,
                  'stored generated columns have the value that they are going to have');
SELECT is(failure($$INSERT INTO made (id, name, lifecycle_status) VALUES (2, 'x', 'lost')$$) LIKE '23502: lead 2 of table "public.made" needs a reason to become "lost"%', true,
          'a generated reason that is NULL is none');
SELECT lives_ok($$INSERT INTO made (id, name, lifecycle_status) VALUES (2, 'z', 'lost')$$, 'another is one');
CREATE TABLE nothing (id int PRIMARY KEY, t text, ts timestamptz, v numeric, c int);
SELECT lifecycle.track('nothing', entered => 'ts', source => 't', value => 'v', actor => 't', reason => 't', cohort => 'c');
INSERT INTO nothing VALUES (1);
INSERT INTO nothing VALUES (2, '', 'infinity', 'NaN', -1);
SELECT results_eq('SELECT source, value, actor, reason, cohort, at = recorded_at OR at <= recorded_at FROM nothing_history ORDER BY lead',
                  $$VALUES (NULL::text, NULL::numeric, NULL::text, NULL::text, NULL::int, true), ('', 'NaN', '', '', -1, true)$$,
                  'NULL is kept as NULL, and nobody enters in the future');

-- ---- cohort() ----

SELECT is(lifecycle.cohort('lead', 1000, 'salt'),
          ((('x' || encode(substr(sha256(convert_to('salt' || U&'\001F' || 'lead', 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint::numeric
           + CASE WHEN ('x' || encode(substr(sha256(convert_to('salt' || U&'\001F' || 'lead', 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint < 0 THEN 18446744073709551616 ELSE 0 END)::numeric % 1000)::int,
          'cohort() is the documented hash, modulo the number of cohorts');
SELECT results_eq($$SELECT DISTINCT lifecycle.cohort(n::text, 3) FROM generate_series(1, 100) AS n ORDER BY 1$$, ARRAY[0, 1, 2], 'every group gets leads');
SELECT is(lifecycle.cohort('lead', 1), 0, 'one group is everybody''s');
SELECT is(lifecycle.cohort(NULL, 2), NULL, 'no lead, no group');
SELECT throws_ok(format('SELECT lifecycle.cohort(''x'', %s)', n), '22023', NULL, n || ' groups are refused') FROM unnest(ARRAY[0, -1, -2147483648]) AS n;

SELECT * FROM finish();
