-- DDL under programs and rules: what is renamed is followed, what would break
-- an expression is refused, and the rest goes on.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE ROLE ddl_sales;
CREATE ROLE ddl_tools;
CREATE SCHEMA crm AUTHORIZATION ddl_sales;
CREATE SCHEMA tools AUTHORIZATION ddl_tools;
GRANT USAGE ON SCHEMA tools TO ddl_sales;

SET ROLE ddl_tools;
CREATE FUNCTION tools.channel(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'by ' || $1$$;
CREATE FUNCTION tools.channel(bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'number ' || $1$$;
CREATE FUNCTION tools.big(bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 > 100$$;
CREATE FUNCTION tools.near(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT abs($1 - $2) < 3$$;
CREATE OPERATOR tools.=~ (LEFTARG = int, RIGHTARG = int, FUNCTION = tools.near);
CREATE TYPE tools.heat AS ENUM ('hot', 'cold');
CREATE TYPE tools.place AS (city text, zip text);
CREATE DOMAIN tools.short AS text CHECK (length(VALUE) < 10);
CREATE COLLATION tools.exact (provider = libc, locale = 'C');
CREATE TEXT SEARCH CONFIGURATION tools.plain (COPY = pg_catalog.simple);

SET ROLE ddl_sales;
CREATE TABLE crm.leads (
    gone int, id int PRIMARY KEY, title text, amount numeric, n int, heat tools.heat, home tools.place, utm text, unused text
);
ALTER TABLE crm.leads DROP COLUMN gone;
SELECT lifecycle.track('crm.leads', source => 'tools.channel(utm)', value => 'amount * 2', reason => 'coalesce(title, utm)');
INSERT INTO lifecycle.rule (on_table, name, condition, points, status, enabled)
SELECT 'crm.leads', r.*
FROM (VALUES
    ('boss', $$(title ~* 'chief'::text)$$, '20', NULL, true),
    ('big', 'tools.big((n)::bigint)', '(n)::double precision', NULL, true),
    ('near', '(n OPERATOR(tools.=~) 7)', '1', NULL, true),
    ('hot', $$(heat = 'hot'::tools.heat)$$, '5', NULL, true),
    ('local', $$((home).city = 'Pisa'::text)$$, '5', NULL, true),
    ('short', $$((title)::tools.short IS NOT NULL)$$, '3', NULL, true),
    ('sorted', $$((title COLLATE tools.exact) < 'm'::text)$$, '3', NULL, true),
    ('found', $$(to_tsvector('tools.plain'::regconfig, title) @@ '''chief'''::tsquery)$$, '3', NULL, true),
    ('off', $$(utm = 'ads'::text)$$, NULL, 'mql', false)
) AS r (name, condition, points, status, enabled);
INSERT INTO crm.leads (id, title, amount, n, heat, utm) VALUES (1, 'Clerk', 10, 3, 'cold', 'ads');
RESET ROLE;

-- What is stored under a name.
CREATE VIEW stored AS
SELECT name, condition AS text FROM lifecycle.rule
UNION ALL SELECT name || ' points', points FROM lifecycle.rule
UNION ALL SELECT e.* FROM lifecycle.program p
    CROSS JOIN LATERAL (VALUES ('key', p.key::text), ('status', p.status_column::text), ('source', p.source), ('value', p.value), ('reason', p.reason)) AS e
    WHERE p.prefix = 'leads';
-- The texts, and names, that differ after a statement, as its actor sees it.
CREATE FUNCTION rewrites(as_role name, statement text) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    result text;
BEGIN
    CREATE TEMP TABLE before ON COMMIT DROP AS TABLE stored;
    result := failure(statement, as_role);
    IF result = 'no error' THEN
        SELECT coalesce(string_agg(s.name || ': ' || s.text, E'\n' ORDER BY s.name COLLATE "C", s.text COLLATE "C"), 'nothing') INTO result
        FROM stored s JOIN before b USING (name) WHERE b.text IS DISTINCT FROM s.text;
    END IF;
    DROP TABLE before;
    RETURN result;
END
$$;

-- ---- renamed and moved: followed ----

PREPARE add AS INSERT INTO crm.leads VALUES ($1, 'Clerk', 10, 3, 'cold', ROW('Pisa', '1'), 'web');
EXECUTE add(2);
SELECT is(rewrites(c.as_role, c.statement), c.result, c.statement)
FROM (VALUES
    ('ddl_sales', 'ALTER TABLE crm.leads RENAME COLUMN unused TO spare', 'nothing'),
    ('ddl_sales', 'ALTER TABLE crm.leads RENAME COLUMN title TO "Job ""Title"', $$boss: ("Job ""Title" ~* 'chief'::text)
found: (to_tsvector('tools.plain'::regconfig, "Job ""Title") @@ '''chief'''::tsquery)
reason: COALESCE("Job ""Title", utm)
short: (("Job ""Title")::tools.short IS NOT NULL)
sorted: (("Job ""Title" COLLATE tools.exact) < 'm'::text)$$),
    ('ddl_sales', 'ALTER TABLE crm.leads RENAME COLUMN n TO "select"', $$big: tools.big(("select")::bigint)
big points: ("select")::double precision
near: ("select" OPERATOR(tools.=~) 7)$$),
    ('ddl_sales', 'ALTER TABLE crm.leads RENAME COLUMN utm TO source', $$off: (source = 'ads'::text)
reason: COALESCE("Job ""Title", source)
source: tools.channel(source)$$),
    ('ddl_sales', 'ALTER TABLE crm.leads RENAME COLUMN id TO lead', 'key: lead'),
    ('ddl_sales', 'ALTER TABLE crm.leads RENAME COLUMN lifecycle_status TO stage', 'status: stage'),
    ('ddl_sales', 'EXECUTE add(3)', 'nothing'),
    ('ddl_sales', 'ALTER TABLE crm.leads RENAME TO people', 'nothing'),
    ('postgres', 'ALTER FUNCTION tools.channel(text) RENAME TO "Channel"', 'source: tools."Channel"(source)'),
    ('ddl_tools', 'ALTER FUNCTION tools.big(bigint) RENAME TO huge', 'big: tools.huge(("select")::bigint)'),
    ('ddl_tools', 'ALTER TYPE tools.heat RENAME VALUE ''hot'' TO ''it''''s hot''', $$hot: (heat = 'it''s hot'::tools.heat)$$),
    ('ddl_tools', 'ALTER TYPE tools.heat RENAME TO warmth', $$hot: (heat = 'it''s hot'::tools.warmth)$$),
    ('ddl_tools', 'ALTER TYPE tools.place RENAME ATTRIBUTE city TO town', $$local: ((home).town = 'Pisa'::text)$$),
    ('ddl_tools', 'ALTER DOMAIN tools.short RENAME TO brief', $$short: (("Job ""Title")::tools.brief IS NOT NULL)$$),
    ('ddl_tools', 'ALTER COLLATION tools.exact RENAME TO bytes', $$sorted: (("Job ""Title" COLLATE tools.bytes) < 'm'::text)$$),
    ('ddl_tools', 'ALTER TEXT SEARCH CONFIGURATION tools.plain RENAME TO words', $$found: (to_tsvector('tools.words'::regconfig, "Job ""Title") @@ '''chief'''::tsquery)$$),
    ('postgres', 'ALTER OPERATOR tools.=~ (int, int) SET SCHEMA crm', 'near: ("select" OPERATOR(crm.=~) 7)'),
    ('postgres', 'ALTER FUNCTION tools.huge(bigint) SET SCHEMA crm', 'big: crm.huge(("select")::bigint)'),
    ('postgres', 'ALTER TYPE tools.warmth SET SCHEMA crm', $$hot: (heat = 'it''s hot'::crm.warmth)$$),
    ('postgres', 'ALTER COLLATION tools.bytes SET SCHEMA crm', $$sorted: (("Job ""Title" COLLATE crm.bytes) < 'm'::text)$$),
    ('postgres', 'ALTER SCHEMA tools RENAME TO kit', $$found: (to_tsvector('kit.words'::regconfig, "Job ""Title") @@ '''chief'''::tsquery)
short: (("Job ""Title")::kit.brief IS NOT NULL)
source: kit."Channel"(source)$$),
    ('postgres', 'ALTER TABLE crm.people SET SCHEMA kit', 'nothing'),
    ('postgres', 'ALTER SCHEMA crm RENAME TO sales', $$big: sales.huge(("select")::bigint)
hot: (heat = 'it''s hot'::sales.warmth)
near: ("select" OPERATOR(sales.=~) 7)
sorted: (("Job ""Title" COLLATE sales.bytes) < 'm'::text)$$)
) AS c (as_role, statement, result);
SELECT is((SELECT string_agg(lead_table::text || ' ' || history::text, ',') FROM lifecycle.program), 'kit.people sales.leads_history', 'the tables are known under their new names');
SELECT results_eq('SELECT DISTINCT on_table::text FROM lifecycle.rule', ARRAY['kit.people'], 'to rules as well');
SELECT lives_ok($$UPDATE kit.people SET stage = 'mql', source = 'fair'$$, 'writes go on');
SELECT results_eq('SELECT lead, seq, source, value, to_status FROM sales.leads_history WHERE lead > 1 ORDER BY lead, seq',
                  $$VALUES (2, 1, 'by web', 20.0, 'known'), (2, 2, 'by web', 20.0, 'mql'), (3, 1, 'by web', 20.0, 'known'), (3, 2, 'by web', 20.0, 'mql')$$, 'and read what they read before');
SELECT is_empty($$SELECT * FROM lifecycle.verify('kit.people')$$, 'all is well');
SELECT is(failure($$UPDATE lifecycle.program SET key = 'source'$$),
          E'0A000: column "key" of a program cannot be changed\nHINT: Call lifecycle.untrack() and lifecycle.track() again; the history stays.',
          'users do not get through where we do');

-- what stands beside it is not touched
SELECT is(rewrites('ddl_tools', 'ALTER FUNCTION kit.channel(bigint) RENAME TO "Channel"'), 'nothing', 'a function of the same name as one that is used');
SELECT is(rewrites('ddl_tools', 'ALTER FUNCTION kit."Channel"(text) RENAME TO channel'), 'source: kit.channel(source)', 'the one that is used');
SELECT is(rewrites('ddl_tools', 'CREATE FUNCTION kit.channel(varchar) RETURNS text LANGUAGE sql IMMUTABLE AS $f$SELECT ''another''$f$'), 'nothing', 'another one is made');
CREATE TABLE other (id int PRIMARY KEY, source text, "select" int);
SELECT is(rewrites(NULL, 'ALTER TABLE other RENAME COLUMN source TO channel'), 'nothing', 'a column of that name in a table that is not tracked');
SELECT lifecycle.track('other', actor => 'channel');
SELECT is(rewrites('ddl_sales', 'ALTER TABLE kit.people RENAME COLUMN source TO utm'), $$off: (utm = 'ads'::text)
reason: COALESCE("Job ""Title", utm)
source: kit.channel(utm)$$, 'a column again');
SELECT is((SELECT actor FROM lifecycle.program WHERE lead_table = 'other'::regclass), 'channel', 'leaves those of other tables alone');

-- swapped: each name meant the other column
CREATE TABLE swapped (id int PRIMARY KEY, a text, b text);
SELECT lifecycle.track('swapped', source => 'a', reason => 'a || b');
ALTER TABLE swapped RENAME a TO c;
ALTER TABLE swapped RENAME b TO a;
ALTER TABLE swapped RENAME c TO b;
SELECT is((SELECT ROW(source, reason)::text FROM lifecycle.program WHERE lead_table = 'swapped'::regclass), '(b,"(b || a)")', 'two names that are swapped');

-- undone with the transaction or a part of it, and inside of functions
BEGIN;
ALTER TABLE swapped RENAME a TO x;
SAVEPOINT s;
ALTER TABLE swapped RENAME b TO y;
SELECT is((SELECT reason FROM lifecycle.program WHERE lead_table = 'swapped'::regclass), '(y || x)', 'followed in the same transaction');
ROLLBACK TO s;
SELECT is((SELECT reason FROM lifecycle.program WHERE lead_table = 'swapped'::regclass), '(b || x)', 'undone with the savepoint');
SELECT lives_ok($$INSERT INTO swapped VALUES (1, '1', '2')$$, 'and obeyed');
ROLLBACK;
SELECT is((SELECT reason FROM lifecycle.program WHERE lead_table = 'swapped'::regclass), '(b || a)', 'undone with the transaction');
DO $do$
BEGIN
    BEGIN
        ALTER TABLE swapped DROP COLUMN a;
    EXCEPTION WHEN dependent_objects_still_exist THEN
        ALTER TABLE swapped RENAME a TO z;
    END;
    INSERT INTO swapped VALUES (2, '3', '4');
    ALTER TABLE swapped RENAME z TO a;
END
$do$;
SELECT is((SELECT reason FROM lifecycle.program WHERE lead_table = 'swapped'::regclass), '(b || a)', 'in a block with an exception');
-- an event trigger of a user that runs DDL inside of DDL
CREATE FUNCTION meddle() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('ddl.meddle', true) = 'on' THEN
        PERFORM set_config('ddl.meddle', 'off', false);
        BEGIN
            ALTER TABLE swapped DROP COLUMN b;
        EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
        END;
        ALTER TABLE swapped RENAME b TO c;
    END IF;
END$$;
CREATE EVENT TRIGGER aa_meddle ON ddl_command_start EXECUTE FUNCTION meddle();
CREATE EVENT TRIGGER zz_meddle ON ddl_command_start EXECUTE FUNCTION meddle();
SET ddl.meddle = 'on';
ALTER TABLE swapped RENAME a TO d;
DROP EVENT TRIGGER aa_meddle;
ALTER TABLE swapped RENAME d TO a;
SET ddl.meddle = 'on';
ALTER EVENT TRIGGER zz_meddle DISABLE;
ALTER TABLE swapped RENAME c TO b;
ALTER EVENT TRIGGER zz_meddle ENABLE;
ALTER TABLE swapped RENAME a TO d;
DROP EVENT TRIGGER zz_meddle;
SELECT is((SELECT ROW(source, reason)::text FROM lifecycle.program WHERE lead_table = 'swapped'::regclass), '(c,"(c || d)")', 'DDL inside of DDL, before us and behind us');

-- whatever the settings of who renames
CREATE TABLE syntax (id int PRIMARY KEY, name text, n float8, at timestamptz);
SELECT lifecycle.track('syntax');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('syntax', 'all',
    $$name ~ '^\d+\.''' AND n > 0.1::float8 + 0.2::float8 AND at > timestamptz '2026-03-04 05:06+00' AND at - '2026-01-02' > interval '1 mon 2 days 03:04' AND nullif(n, NULL) = n$$, '1');
SELECT condition AS canonical FROM lifecycle.rule WHERE on_table = 'syntax'::regclass \gset
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET DateStyle = 'German, DMY';
SET IntervalStyle = 'sql_standard';
SET extra_float_digits = -12;
SET transform_null_equals = on;
ALTER TABLE syntax RENAME name TO title;
ALTER TABLE syntax RENAME title TO name;
RESET standard_conforming_strings;
RESET escape_string_warning;
RESET DateStyle;
RESET IntervalStyle;
RESET extra_float_digits;
RESET transform_null_equals;
SELECT is((SELECT condition FROM lifecycle.rule WHERE on_table = 'syntax'::regclass), :'canonical', 'constants stay what they are under any settings');

DROP TABLE syntax;

-- ---- ours ----

SELECT is(failure(format('ALTER TABLE kit.people RENAME COLUMN %I TO mine', c.name), 'ddl_sales'),
          format(E'0A000: cannot rename column "%s" of tracked table "kit.people"\nDETAIL: It is kept by lifecycle.\n'
                 'HINT: To be rid of it, call lifecycle.untrack(''kit.people'', drop_data => true), which drops the history as well.', c.name), c.name || ' keeps its name')
FROM unnest(ARRAY['lifecycle_since', 'lifecycle_seq', 'demographic_score']) AS c (name);
SELECT is(failure('ALTER TABLE kit.people ALTER demographic_score TYPE real'),
          E'0A000: cannot change the type of column "demographic_score" of tracked table "kit.people" to real\nDETAIL: It is kept by lifecycle.', 'and its type');
SELECT is(failure('ALTER TABLE kit.people ALTER stage DROP DEFAULT, ALTER stage TYPE int USING 1') ~ '^(0A000|42)', true, 'a status column stays one');
SELECT is(failure(format('ALTER TABLE kit.people DROP COLUMN %I CASCADE', c.name), 'ddl_sales'),
          format(E'2BP01: cannot drop column "%s" of table "kit.people" because lifecycle keeps the leads by it\n'
                 'HINT: Call lifecycle.untrack(''kit.people'') first.', c.name), c.name || ' cannot be dropped')
FROM unnest(ARRAY['lead', 'stage', 'lifecycle_since', 'lifecycle_seq', 'demographic_score']) AS c (name);

-- ---- dropped: refused ----

SELECT is(failure(d.statement, d.as_role), replace(format(E'2BP01: cannot drop %s because rule "%s" of table "kit.people" reads it|DETAIL: The condition is: %s|'
          'HINT: Change the rule first, or DELETE FROM lifecycle.rule WHERE on_table = ''kit.people''::regclass AND name = ''%s''.',
          d.dropped, d.rule, (SELECT r.condition FROM lifecycle.rule r WHERE r.name = d.rule), d.rule), '|', E'\n'), d.statement)
FROM (VALUES
    ('ddl_sales', 'ALTER TABLE kit.people DROP COLUMN "select"', 'column "select" of table "kit.people"', 'big'),
    ('ddl_sales', 'ALTER TABLE kit.people DROP COLUMN spare, DROP COLUMN heat CASCADE', 'column "heat" of table "kit.people"', 'hot'),
    ('postgres', 'DROP FUNCTION sales.huge(bigint)', 'function sales.huge(bigint)', 'big'),
    ('postgres', 'DROP FUNCTION sales.huge', 'function sales.huge(bigint)', 'big'),
    ('postgres', 'DROP ROUTINE sales.huge', 'function sales.huge(bigint)', 'big'),
    ('postgres', 'DROP OPERATOR sales.=~ (int, int)', 'operator sales.=~(integer,integer)', 'near'),
    ('ddl_tools', 'DROP FUNCTION kit.near CASCADE', 'operator sales.=~(integer,integer)', 'near'),
    ('ddl_tools', 'DROP DOMAIN kit.brief', 'type kit.brief', 'short'),
    ('postgres', 'DROP TYPE sales.warmth CASCADE', 'column "heat" of table "kit.people"', 'hot'),
    ('postgres', 'DROP COLLATION sales.bytes', 'collation sales.bytes', 'sorted'),
    ('ddl_tools', 'ALTER TYPE kit.place DROP ATTRIBUTE town CASCADE', 'column "town" of table "kit.place"', 'local'),
    ('ddl_tools', 'DROP TEXT SEARCH CONFIGURATION kit.words', 'text search configuration kit.words', 'found')
) AS d (as_role, statement, dropped, rule);
SELECT is(failure('DROP FUNCTION kit.channel(text)', 'ddl_tools'),
          E'2BP01: cannot drop function kit.channel(pg_catalog.text) because expression "source" of tracked table "kit.people" reads it\n'
          'DETAIL: The source is: kit.channel(utm)\n'
          'HINT: Change it first, or UPDATE lifecycle.program SET source = NULL WHERE lead_table = ''kit.people''::regclass.', 'an expression of the program holds on, too');
SELECT matches(failure('DROP SCHEMA sales CASCADE'), '^2BP01: cannot drop ', 'a schema whose objects are read is not');
BEGIN;
ALTER TABLE kit.people SET SCHEMA sales;
SELECT matches(failure('DROP OWNED BY ddl_tools CASCADE'), '^2BP01: cannot drop ', 'nor all that a role owns');
ROLLBACK;
BEGIN;
SELECT is(failure('DROP OWNED BY ddl_tools CASCADE'), 'no error', 'unless the table goes along');
SELECT is_empty($$SELECT FROM lifecycle.rule UNION ALL SELECT FROM lifecycle.program WHERE prefix = 'leads'$$, 'and its rules with it');
ROLLBACK;
SELECT is(failure('ALTER TABLE kit.people DROP COLUMN "Job ""Title"', 'ddl_sales') ~ '^2BP01: cannot drop column "Job "Title" of table "kit.people" because expression "reason"', true, 'quotes in the name');
SELECT is(failure('ALTER TABLE kit.people DROP COLUMN utm', 'ddl_sales') ~ '^2BP01', true, 'a column that two expressions read');
UPDATE lifecycle.program SET source = NULL, reason = NULL WHERE prefix = 'leads';
SELECT is(failure('ALTER TABLE kit.people DROP COLUMN utm', 'ddl_sales') ~ '^2BP01: cannot drop column "utm" of table "kit.people" because rule "off"', true, 'a disabled rule holds on');
DELETE FROM lifecycle.rule WHERE name = 'off';
SELECT is(failure('ALTER TABLE kit.people DROP COLUMN utm, DROP COLUMN spare', 'ddl_sales'), 'no error', 'the hints help');
SELECT is(failure('DROP FUNCTION kit.channel(text)', 'ddl_tools'), 'no error', 'for functions as well');
SELECT is(failure('ALTER TABLE other DROP COLUMN "select"'), 'no error', 'a column that nothing reads is dropped');
SELECT lives_ok($$INSERT INTO kit.people (lead, amount) VALUES (9, 1)$$, 'writes go on over dropped columns');

-- what the owner of the table may not call any more is not held back by him
SET ROLE ddl_tools;
CREATE FUNCTION kit.mine(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
RESET ROLE;
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('kit.people', 'mine', 'kit.mine("select")', '1');
SELECT is(failure('DROP FUNCTION kit.mine', 'ddl_tools') ~ '^2BP01', true, 'a function that somebody else''s rule calls');
SELECT is(rewrites('ddl_tools', 'ALTER FUNCTION kit.mine RENAME TO ours'), 'mine: kit.ours("select")', 'may be renamed');
SELECT is(failure('REVOKE EXECUTE ON FUNCTION kit.ours FROM PUBLIC', 'ddl_tools'), 'no error', 'and be taken back');
SELECT is(rewrites('ddl_tools', 'ALTER FUNCTION kit.ours RENAME TO mine'), 'mine: kit.mine("select")', 'is still followed');
SELECT is(failure('ALTER FUNCTION kit.mine VOLATILE', 'ddl_tools'), 'no error', 'is changed then');
SELECT is(failure('DROP FUNCTION kit.mine', 'ddl_tools'), 'no error', 'and dropped');
DELETE FROM lifecycle.rule WHERE name = 'mine';

-- ---- other types, other functions ----

SET ROLE ddl_tools;
CREATE FUNCTION kit.size(bigint) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
RESET ROLE;
INSERT INTO lifecycle.rule (on_table, name, condition, points)
VALUES ('kit.people', 'size', '(kit.size(("select")::bigint) > 0)', '1'), ('kit.people', 'cheap', '(amount < (5)::numeric)', '1');
CREATE FUNCTION kept() RETURNS text LANGUAGE sql AS $$SELECT string_agg(text, ';' ORDER BY name) FROM stored$$;
SELECT is(failure(c.statement, c.as_role), replace(c.result, '|', E'\n'), c.statement)
FROM (VALUES
    ('ddl_sales', 'ALTER TABLE kit.people ALTER "select" TYPE smallint, ALTER "select" DROP NOT NULL', 'no error'),
    ('ddl_sales', 'ALTER TABLE kit.people ALTER "select" TYPE int', 'no error'),
    ('ddl_sales', 'ALTER TABLE kit.people ALTER "select" TYPE text', '2BP01: ALTER TABLE would break rule "near" of table "kit.people"'
        '|DETAIL: operator does not exist: text sales.=~ integer'
        '|HINT: Change the rule first, or DELETE FROM lifecycle.rule WHERE on_table = ''kit.people''::regclass AND name = ''near''.'),
    ('ddl_sales', 'ALTER TABLE kit.people ALTER "Job ""Title" TYPE varchar(40)', 'no error'),
    ('ddl_sales', 'ALTER TABLE kit.people ALTER "Job ""Title" TYPE int USING 1', '2BP01: ALTER TABLE would break rule "boss" of table "kit.people"'
        '|DETAIL: operator does not exist: integer ~* text'
        '|HINT: Change the rule first, or DELETE FROM lifecycle.rule WHERE on_table = ''kit.people''::regclass AND name = ''boss''.'),
    ('ddl_sales', 'ALTER TABLE kit.people ALTER amount TYPE text', '2BP01: ALTER TABLE would break expression "value" of tracked table "kit.people"'
        '|DETAIL: operator does not exist: text * numeric'
        '|HINT: Change it first, or UPDATE lifecycle.program SET value = NULL WHERE lead_table = ''kit.people''::regclass.'),
    ('ddl_tools', 'ALTER FUNCTION kit.size(bigint) VOLATILE', '2BP01: ALTER FUNCTION would break rule "size" of table "kit.people"'
        '|DETAIL: cannot use a volatile function in this expression: The same row must give the same answer.'
        '|HINT: Change the rule first, or DELETE FROM lifecycle.rule WHERE on_table = ''kit.people''::regclass AND name = ''size''.'),
    ('ddl_tools', 'CREATE OR REPLACE FUNCTION kit.size(bigint) RETURNS int LANGUAGE sql AS ''SELECT 2''', '2BP01: CREATE FUNCTION would break rule "size" of table "kit.people"'
        '|DETAIL: cannot use a volatile function in this expression: The same row must give the same answer.'
        '|HINT: Change the rule first, or DELETE FROM lifecycle.rule WHERE on_table = ''kit.people''::regclass AND name = ''size''.'),
    ('ddl_tools', 'CREATE OR REPLACE FUNCTION kit.size(bigint) RETURNS int STABLE LANGUAGE sql AS ''SELECT 2''', 'no error'),
    ('ddl_tools', 'CREATE FUNCTION kit.size(int) RETURNS int LANGUAGE sql IMMUTABLE AS ''SELECT 3''', 'no error'),
    ('ddl_tools', 'ALTER TYPE kit.place ADD ATTRIBUTE street text', 'no error')
) AS c (as_role, statement, result);
SELECT is(rewrites('ddl_tools', 'ALTER FUNCTION kit.size(bigint) RENAME TO weight'), 'size: (kit.weight(("select")::bigint) > 0)', 'the right one of two functions is followed');

-- a call that would reach another function
CREATE FUNCTION kit.pick(VARIADIC int[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE FUNCTION kit.choose(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
GRANT EXECUTE ON FUNCTION kit.pick, kit.choose TO ddl_sales;
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('kit.people', 'defaults', 'kit.pick(VARIADIC ARRAY["select", 2])', '1');
SELECT is(rewrites(NULL, 'ALTER FUNCTION kit.choose RENAME TO pick'), 'nothing', 'a call that stays what it is');
CREATE FUNCTION kit.def(int, int DEFAULT 2) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE FUNCTION kit.only(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
UPDATE lifecycle.rule SET condition = 'kit.def("select")' WHERE name = 'defaults';
SELECT is(failure(c.statement) ~ E'^2BP01: .* would break rule "defaults" of table "kit.people"\nDETAIL: ', true, c.statement)
FROM unnest(ARRAY['ALTER FUNCTION kit.only RENAME TO def', 'CREATE FUNCTION kit.def(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS ''SELECT false''']) AS c (statement);
DELETE FROM lifecycle.rule WHERE name = 'defaults';

-- ---- partitions and generated columns ----

CREATE TABLE split (id int PRIMARY KEY, name text, a int, doubled int GENERATED ALWAYS AS (a * 2) STORED) PARTITION BY RANGE (id);
CREATE TABLE split_low PARTITION OF split FOR VALUES FROM (0) TO (10);
SELECT lifecycle.track('split', source => 'upper(name)', value => 'doubled');
CREATE TABLE split_high (doubled int GENERATED ALWAYS AS (a * 2) STORED, gone text, a int, name text, demographic_score float8,
    lifecycle_seq int, lifecycle_since timestamptz, lifecycle_status lifecycle.lifecycle_status, id int PRIMARY KEY);
ALTER TABLE split_high DROP COLUMN gone;
ALTER TABLE split ATTACH PARTITION split_high FOR VALUES FROM (10) TO (20);
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('split', 'named', '(name IS NOT NULL)', '(a)::double precision');
INSERT INTO split (id, name, a) VALUES (1, 'x', 1), (11, 'y', 2);
ALTER TABLE split RENAME a TO base;
ALTER TABLE split RENAME name TO label;
ALTER TABLE split RENAME doubled TO twice;
ALTER TABLE split RENAME lifecycle_status TO stage;
ALTER TABLE split RENAME id TO lead;
SELECT is((SELECT ROW(key, status_column, source, value)::text FROM lifecycle.program WHERE prefix = 'split'), '(lead,stage,"upper(label)",twice)', 'columns of a partitioned table are followed');
SELECT is((SELECT ROW(condition, points)::text FROM lifecycle.rule WHERE on_table = 'split'::regclass), '("(label IS NOT NULL)","(base)::double precision")', 'in rules, too');
INSERT INTO split (lead, label, base) VALUES (2, 'z', 3), (12, 'w', 4);
UPDATE split SET stage = 'mql', base = 10;
SELECT results_eq('SELECT lead, seq, source, value FROM split_history ORDER BY lead, seq',
                  $$VALUES (1, 1, 'X', 2::numeric), (1, 2, 'X', 20), (2, 1, 'Z', 6), (2, 2, 'Z', 20), (11, 1, 'Y', 4), (11, 2, 'Y', 20), (12, 1, 'W', 8), (12, 2, 'W', 20)$$,
                  'and read in every partition, whatever the order of its columns');
SELECT is(failure('ALTER TABLE split DROP COLUMN base CASCADE') ~ '^2BP01: cannot drop column "twice" of table "public.split" because expression "value"', true, 'a generated column that goes with another');
SELECT is(failure('ALTER TABLE split DROP COLUMN label') ~ '^2BP01: cannot drop column "label" of table "public.split" because expression "source"', true, 'a column of all partitions');
SELECT is(failure('ALTER TABLE split RENAME lifecycle_seq TO n') ~ '^0A000: cannot rename column "lifecycle_seq"', true, 'ours are ours');
SELECT is(failure('ALTER TABLE split DETACH PARTITION split_high; DROP TABLE split_high'), 'no error', 'a partition that leaves');
SELECT is_empty($$SELECT * FROM lifecycle.verify('split') WHERE "check" = 'trigger'$$, 'leaves the others as they were');
SELECT current_setting('server_version_num')::int >= 180000 AS has_virtual \gset
\if :has_virtual
CREATE TABLE computed (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL);
SELECT lifecycle.track('computed', value => 'twice');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('computed', 'twice', 'twice > 2', '(twice)::double precision');
ALTER TABLE computed RENAME a TO base;
ALTER TABLE computed RENAME twice TO doubled;
INSERT INTO computed VALUES (1, 5);
SELECT results_eq('SELECT l.demographic_score, h.value, l.doubled FROM computed l, computed_history h', $$VALUES (10::float8, 10::numeric, 10)$$,
                  'a virtual generated column, and what it reads, are followed');
SELECT is(failure('ALTER TABLE computed DROP COLUMN base CASCADE') ~ '^2BP01: cannot drop column "doubled" of table "public.computed" because expression "value"', true, 'and held');
SELECT is(failure('ALTER TABLE computed ALTER doubled SET EXPRESSION AS (base * 3)'), 'no error', 'its expression may change');
INSERT INTO computed VALUES (2, 5);
SELECT is((SELECT value FROM computed_history WHERE lead = 2), 15::numeric, 'and is followed');
\endif
-- above the tracked table
CREATE TABLE top (LIKE split INCLUDING GENERATED) PARTITION BY RANGE (lead);
SELECT is(failure('ALTER TABLE top ATTACH PARTITION split FOR VALUES FROM (0) TO (20)'), 'no error', 'a tracked table becomes a partition');
ALTER TABLE top RENAME label TO caption;
SELECT is((SELECT source FROM lifecycle.program WHERE prefix = 'split'), 'upper(caption)', 'and a column is renamed from above');
SELECT is(failure('ALTER TABLE top RENAME lifecycle_since TO since') ~ '^0A000: cannot rename column "lifecycle_since" of tracked table "public.split"', true, 'but not ours');

-- ---- rules go on ----

CREATE SCHEMA live;
CREATE FUNCTION live.sdr(int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 > 10';
CREATE TABLE live.leads (id int PRIMARY KEY, gone int, title text, owner int, shout text GENERATED ALWAYS AS (upper(title)) STORED);
ALTER TABLE live.leads DROP COLUMN gone;
SELECT lifecycle.track('live.leads', source => 'title');
INSERT INTO lifecycle.rule (on_table, name, condition, points, status)
VALUES ('live.leads', 'boss', $$shout ~ 'CHIEF'$$, '20', NULL),
       ('live.leads', 'good', 'demographic_score >= 20', NULL, 'mql'),
       ('live.leads', 'taken', 'live.sdr(owner) AND behavior_score >= 0', NULL, 'sal');
PREPARE judged AS INSERT INTO live.leads VALUES ($1, $2, $3) RETURNING lifecycle_status, demographic_score;
PREPARE given AS UPDATE live.leads SET owner = 11 WHERE id = $1 RETURNING lifecycle_status, demographic_score;
SELECT results_eq($$EXECUTE judged(1, 'chief', 1)$$, $$VALUES ('mql'::lifecycle.lifecycle_status, 20::float8)$$, 'rules judge');
ALTER TABLE live.leads RENAME title TO job;
ALTER TABLE live.leads RENAME shout TO loud;
ALTER TABLE live.leads RENAME owner TO holder;
ALTER TABLE live.leads RENAME holder TO owner;
SELECT results_eq($$EXECUTE judged(2, 'chief', 1)$$, $$VALUES ('mql'::lifecycle.lifecycle_status, 20::float8)$$, 'after columns were renamed');
ALTER FUNCTION live.sdr RENAME TO rep;
CREATE OR REPLACE FUNCTION live.rep(int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 > 100';
SELECT results_eq($$EXECUTE given(1)$$, $$VALUES ('mql'::lifecycle.lifecycle_status, 20::float8)$$, 'a function that was replaced is followed');
CREATE OR REPLACE FUNCTION live.rep(int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 > 10';
SELECT results_eq($$EXECUTE given(2)$$, $$VALUES ('sal'::lifecycle.lifecycle_status, 20::float8)$$, 'one that was renamed as well');
ALTER TABLE live.leads ALTER owner TYPE smallint, ALTER owner SET NOT NULL;
ALTER SCHEMA live RENAME TO life;
ALTER TABLE life.leads RENAME TO people;
ALTER TABLE life.people SET SCHEMA public;
SELECT results_eq($$INSERT INTO people VALUES (3, 'a chief', 12) RETURNING lifecycle_status, demographic_score$$,
                  $$VALUES ('sal'::lifecycle.lifecycle_status, 20::float8)$$, 'tables, schemas and types change');
SELECT results_eq('SELECT lead, to_status, rule, source FROM life.leads_history ORDER BY lead, seq',
                  $$VALUES (1, 'mql', 'good', 'chief'), (2, 'mql', 'good', 'chief'), (2, 'sal', 'taken', 'chief'), (3, 'sal', 'taken', 'a chief')$$, 'and the history names the rules');
SELECT is_empty($$SELECT * FROM lifecycle.verify('people')$$, 'all is well');
SELECT is(failure('ALTER TABLE people DROP COLUMN demographic_score') ~ '^2BP01', true, 'the score is ours');
SELECT is(failure('ALTER TABLE people ALTER loud DROP EXPRESSION; ALTER TABLE people ALTER job TYPE varchar(20)'), 'no error', 'a generated column that becomes an ordinary one');
SELECT results_eq($$INSERT INTO people VALUES (4, 'a chief', 1, '') RETURNING demographic_score$$, $$VALUES (0::float8)$$, 'is read as it is');

-- without event triggers: an error that says where
SET session_replication_role = replica;
ALTER TABLE people RENAME owner TO rep;
SET session_replication_role = origin;
SELECT is(failure($$INSERT INTO people VALUES (5, 'x', 1, '')$$) ~ '^42703: column "owner" does not exist', true, 'a column that was renamed unseen');
SELECT matches(failure_context($$INSERT INTO people VALUES (5, 'x', 1, '')$$), 'condition of rule "taken" of table "people"', 'in context');
SELECT is(failure('ALTER TABLE people RENAME job TO title'), 'no error', 'a rule that is broken already hinders nobody');
SELECT is(failure('ALTER TABLE people RENAME rep TO holder'), 'no error', 'whatever is done');
ALTER TABLE people RENAME holder TO owner;
SELECT lives_ok($$INSERT INTO people VALUES (5, 'x', 1, '')$$, 'with its name it works again');
SELECT is((SELECT source FROM lifecycle.program WHERE lead_table = 'people'::regclass), 'title', 'the others were followed');

-- an extension that is moved, and one that is dropped
SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext') AS has_citext \gset
\if :has_citext
CREATE SCHEMA kinds;
CREATE EXTENSION citext SCHEMA kinds;
CREATE TABLE mails (id int PRIMARY KEY, email text);
SELECT lifecycle.track('mails');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('mails', 'ours', $$email::kinds.citext OPERATOR(kinds.=) 'X@Y'::kinds.citext$$, '2');
ALTER EXTENSION citext SET SCHEMA public;
ALTER SCHEMA kinds RENAME TO no_kinds;
INSERT INTO mails VALUES (1, 'x@y');
SELECT is((SELECT demographic_score FROM mails), 2::float8, 'the objects of an extension that is moved are followed');
SELECT matches(failure('DROP EXTENSION citext'), '^2BP01: cannot drop .* because rule "ours" of table "public.mails" reads it', 'and held when it is dropped');
\endif

-- ---- what goes, takes its rules along ----

SELECT lifecycle.untrack('people');
SELECT is((SELECT count(*) FROM lifecycle.rule WHERE on_table = 'people'::regclass), 0::bigint, 'untrack() deletes the rules of the table');
SELECT is(failure('ALTER TABLE people DROP COLUMN loud, DROP COLUMN lifecycle_seq; DROP FUNCTION life.rep'), 'no error', 'which then hold nothing');
CREATE TABLE gone (id int PRIMARY KEY, name text);
SELECT lifecycle.track('gone', status_column => 'lifecycle_status', source => 'name');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('gone', 'named', 'name IS NOT NULL', '1');
INSERT INTO gone VALUES (1, 'x');
SELECT lives_ok($$SELECT lifecycle.untrack('gone', drop_data => true)$$, 'untrack() with drop_data works over rules');
SELECT columns_are('public', 'gone', ARRAY['id', 'name'], 'our columns are dropped');
SELECT lifecycle.track('gone', source => 'name');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('gone', 'named', 'name IS NOT NULL', '1');
SELECT is(failure('DROP TABLE gone'), 'no error', 'a tracked table with rules is dropped');
SELECT is_empty($$SELECT FROM lifecycle.rule WHERE name = 'named' AND on_table NOT IN (SELECT lead_table FROM lifecycle.program)$$, 'and its rules with it');
SELECT is(failure('DROP SCHEMA kit, sales CASCADE'), 'no error', 'two schemas that use each other go together');
SELECT is_empty($$SELECT FROM lifecycle.rule r LEFT JOIN pg_class c ON c.oid = r.on_table WHERE c.oid IS NULL$$, 'no rule is left of a table that is gone');
SELECT isnt_empty($$SELECT FROM lifecycle.rule$$, 'there are rules');
SELECT lives_ok('DROP EXTENSION lifecycle CASCADE', 'the extension is dropped under rules');
SELECT lives_ok('CREATE EXTENSION lifecycle', 'and made again');
SELECT lives_ok('ALTER TABLE other RENAME channel TO source; ALTER TABLE other DROP COLUMN source', 'DDL goes on');

DROP OWNED BY ddl_sales, ddl_tools CASCADE;
DROP ROLE ddl_sales, ddl_tools;
SELECT * FROM finish();
