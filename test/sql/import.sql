-- import_history(): what is imported, what is refused and said of it, what the
-- leads become, for whom and with which queries it works; and that imported
-- moves are what live writes would have made of them.

CREATE EXTENSION lifecycle;
\ir ../lib/failure.sql
SET TimeZone = 'UTC';
SET client_min_messages = warning;
SELECT no_plan();

CREATE VIEW long_ago AS SELECT timestamptz '2020-01-01 00:00+00' AS zero;
CREATE FUNCTION day(n int) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT timestamptz '2020-01-01 00:00+00' + n * interval '1 day' $$;

CREATE TABLE leads (id int PRIMARY KEY, name text, source text, worth numeric, editor text, why text, own text);
INSERT INTO leads (id, source, worth, editor, why, own) SELECT g, 'web', g * 10, 'row editor', 'row reason', NULL FROM generate_series(1, 9) AS g;
SELECT lifecycle.track('leads', source => 'source', value => 'worth', actor => 'editor', reason => 'why', cohort => 'id % 2');

-- ---- leads without a status ----

SELECT is_empty($$SELECT * FROM lifecycle.import_history('leads', $q$
    SELECT * FROM (VALUES (1, 'sal', day(3), 'ann', 'called'), (1, 'known', day(1), NULL, NULL), (2, 'mql', day(2), 'bob', ''), (1, 'mql', day(2), 'ann', NULL))
                  AS m (lead, status, at, actor, reason)$q$)$$, 'rows that are imported are not returned');
SELECT results_eq('SELECT lead, seq, cycle, from_status, from_since, to_status, at, cause, rule, actor, session_user_name, reason,
                          demographic_score, source, cohort, value, entered_at, cycle_since, reached FROM leads_history ORDER BY lead, seq',
    $$VALUES (1, 1, 1, NULL, NULL, 'known', day(1), 'import', NULL::text, NULL, session_user::text COLLATE "default", NULL, 0::float8, 'web', 1, 10::numeric, day(1), day(1), '{known}'::text[]),
             (1, 2, 1, 'known', day(1), 'mql', day(2), 'import', NULL, 'ann', session_user::text COLLATE "default", NULL, 0, 'web', 1, 10, day(1), day(1), '{known,mql}'),
             (1, 3, 1, 'mql', day(2), 'sal', day(3), 'import', NULL, 'ann', session_user::text COLLATE "default", 'called', 0, 'web', 1, 10, day(1), day(1), '{known,mql,sal}'),
             (2, 1, 1, NULL, NULL, 'mql', day(2), 'import', NULL, 'bob', session_user::text COLLATE "default", '', 0, 'web', 0, 20, day(2), day(2), '{mql}')$$,
    'the history is written in the order of time, with the row''s actor and reason');
SELECT results_eq('SELECT id, lifecycle_status::text, lifecycle_since, lifecycle_seq, demographic_score FROM leads WHERE id <= 3 ORDER BY id',
    $$VALUES (1, 'sal', day(3), 3, 0::float8), (2, 'mql', day(2), 1, 0), (3, NULL, NULL, NULL, NULL)$$, 'the leads follow');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');

-- ---- what is refused ----

SELECT results_eq($$SELECT * FROM lifecycle.import_history('leads', $q$
    SELECT * FROM (VALUES (3, 'known', day(1)), (99, 'mql', day(1)), (NULL, 'mql', day(2)), (3, 'prospect', day(2)), (3, NULL, day(2)),
                          (3, 'lost', NULL), (3, 'lost', 'infinity'), (3, 'lost', '-infinity'), (3, 'lost', 'today'::timestamptz + interval '10 years'),
                          (1, 'lost', day(2)), (1, 'sal', day(4)), (1, 'lost', day(3)))
                  AS m (lead, status, at)$q$) ORDER BY lead::int, at NULLS FIRST, status NULLS FIRST$$,
    $$VALUES ('1', 'lost', day(2), 'before the lead''s last move, at 2020-01-04 00:00:00+00', false),
             ('1', 'sal', day(4), 'model "standard" has no transition from "lost" to "sal"', true),
             ('3', 'lost', NULL, 'at is null', false),
             ('3', 'lost', '-infinity', 'at is not finite', false),
             ('3', NULL, day(2), 'status is null', false),
             ('3', 'prospect', day(2), '"prospect" is not a status of model "standard"', false),
             ('3', 'lost', 'today'::timestamptz + interval '10 years', 'at is in the future', false),
             ('3', 'lost', 'infinity', 'at is not finite', false),
             ('99', 'mql', day(1), 'unknown lead', false),
             (NULL, 'mql', day(2), 'lead is null', false)$$, 'each row that is not imported, and why; and each that the model would not have allowed');
SELECT results_eq($$SELECT problem, imported FROM lifecycle.import_history('leads', $q$
    SELECT 3 AS lead, s AS status, day(n::int) AS at FROM unnest('{known,mql,mql,mql,sal}'::text[]) WITH ORDINALITY AS m (s, n)$q$)$$,
    $$VALUES ('the lead is "known" already', false), ('the lead is "mql" already', false), ('the lead is "mql" already', false)$$, 'staying is no move');
SELECT results_eq($$SELECT imported, count(*) FROM lifecycle.import_history('leads', $q$SELECT lead, to_status AS status, at FROM leads_history$q$) GROUP BY 1$$,
    $$SELECT false, count(*) FROM leads_history$$, 'a second run refuses every row');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');

-- ---- ties ----

SELECT is_empty($$SELECT * FROM lifecycle.import_history('leads', $q$
    SELECT 4 AS lead, s AS status, day(1) AS at, n::text AS reason FROM unnest('{known,mal,engaged,mql,lost,mql,sal,recycled,mql,lost}'::text[]) WITH ORDINALITY AS m (s, n)$q$)
    WHERE problem !~ 'no transition'$$, 'rows of one time');
SELECT results_eq('SELECT seq, to_status, cycle, reason FROM leads_history WHERE lead = 4 ORDER BY seq',
    $$VALUES (1, 'known', 1, '1'), (2, 'mal', 1, '2'), (3, 'engaged', 1, '3'), (4, 'mql', 1, '4'), (5, 'lost', 1, '5'), (6, 'mql', 2, '6'),
             (7, 'sal', 2, '7'), (8, 'recycled', 2, '8'), (9, 'mql', 3, '9'), (10, 'lost', 3, '10')$$, 'are taken as they came');

-- ---- settings and expressions do not speak for the past ----

BEGIN;
SET LOCAL lifecycle.at = '2019-01-01';
SET LOCAL lifecycle.actor = 'me';
SET LOCAL lifecycle.reason = 'because';
SELECT is_empty($$SELECT * FROM lifecycle.import_history('leads', 'SELECT 5 AS lead, ''mql'' AS status, day(7) AS at, true AS nonsense')$$, 'other columns are ignored');
SELECT results_eq('SELECT at, actor, reason FROM leads_history WHERE lead = 5', 'SELECT day(7), NULL::text, NULL::text', 'no lifecycle.at, actor, reason, nor their expressions');
ROLLBACK;
SELECT is_empty('SELECT * FROM leads_history WHERE lead = 5', 'rolled back, nothing is left');

-- ---- writes go on ----

UPDATE leads SET lifecycle_status = 'opportunity' WHERE id = 1;
SELECT results_eq('SELECT seq, from_status, from_since, to_status, cause, actor FROM leads_history WHERE lead = 1 ORDER BY seq DESC LIMIT 1',
                  $$VALUES (6, 'sal', day(4), 'opportunity', 'write', 'row editor')$$, 'a live write continues what was imported');
SELECT results_eq($$SELECT problem ~ '^before the lead''s last move, at ' FROM lifecycle.import_history('leads', 'SELECT 1 AS lead, ''lost'' AS status, day(9) AS at')$$,
                  'VALUES (true)', 'and what is older than it cannot be imported any more');

-- ---- a lead that was removed ----

DELETE FROM leads WHERE id = 2;
SELECT results_eq($$SELECT problem FROM lifecycle.import_history('leads', 'SELECT 2 AS lead, ''lost'' AS status, now() AS at')$$, $$VALUES ('unknown lead')$$, 'is unknown');
INSERT INTO leads (id) VALUES (2);
SELECT results_eq($$SELECT problem ~ '^before' FROM lifecycle.import_history('leads', 'SELECT 2 AS lead, ''lost'' AS status, day(9) AS at')$$, 'VALUES (true)', 'and where it came back, its past is closed');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');

-- ---- leads older than track() that have a status ----

CREATE TABLE older (id int PRIMARY KEY, stage text);
INSERT INTO older VALUES (1, 'mql'), (2, 'sal'), (3, 'known'), (4, NULL);
SELECT lifecycle.track('older', status_column => 'stage');
SELECT is_empty($$SELECT * FROM lifecycle.import_history('older', $q$SELECT l.lead, m.* FROM generate_series(1, 2) AS l (lead), (VALUES ('known', day(1)), ('mql', day(2))) AS m (status, at)$q$)$$,
                'leads that had a status before track()');
SELECT results_eq('SELECT id, stage, lifecycle_since, lifecycle_seq FROM older ORDER BY id',
    $$VALUES (1, 'mql', day(2), 2), (2, 'sal', NULL::timestamptz, NULL::int), (3, 'known', NULL, NULL), (4, NULL, NULL, NULL)$$,
    'follow where the last imported status is theirs, and are left where it is not');
SELECT results_eq($$SELECT lead, detail FROM lifecycle.verify('older') WHERE "check" = 'status'$$, $$VALUES ('2', 'the lead is sal, but its last move was to mql')$$, 'which verify() says');
SELECT is_empty($$SELECT * FROM lifecycle.import_history('older', 'SELECT 2 AS lead, ''sal'' AS status, day(3) AS at')$$, 'another import may bring it up to date');
SELECT results_eq('SELECT stage, lifecycle_since, lifecycle_seq FROM older WHERE id = 2', $$VALUES ('sal', day(3), 3)$$, 'and it does');
SELECT is_empty($$SELECT * FROM lifecycle.import_history('older', 'SELECT 3 AS lead, ''mql'' AS status, day(3) AS at')$$, 'or a write');
UPDATE older SET stage = 'engaged' WHERE id = 3;
SELECT results_eq('SELECT seq, to_status, cause FROM older_history WHERE lead = 3 ORDER BY seq',
                  $$VALUES (1, 'mql', 'import'), (2, 'known', 'backfill'), (3, 'engaged', 'write')$$, 'which first brings in what the lead was');
SELECT is_empty($$SELECT * FROM lifecycle.verify('older')$$, 'then verify() finds nothing');

-- ---- the query ----

SELECT is(failure(format('SELECT * FROM lifecycle.import_history(%L, %L)', q.leads, q.query)), q.error, 'query: ' || coalesce(q.query, '(null)'))
FROM (VALUES
    ('leads', 'SELECT 1 AS lead, now() AS at',
     E'42703: query of lifecycle.import_history() gives no column "status"\nHINT: It must give lead, status and at, and may give actor and reason: SELECT ... AS status.'),
    ('leads', 'SELECT 1 AS lead, 2 AS lead, ''mql'' AS status, now() AS at', '42702: query of lifecycle.import_history() gives column "lead" twice'),
    ('leads', 'SELECT 1 AS lead, ''mql'' AS status, now()::timestamp AS at',
     E'42804: column "at" of the query is of type timestamp without time zone, not timestamp with time zone\nDETAIL: Which instant that is would depend on the time zone of each session.\nHINT: Name the time zone, as in: at AT TIME ZONE ''UTC'' AS at.'),
    ('leads', 'SELECT 1 AS lead, ''mql'' AS status, current_date AS at',
     E'42804: column "at" of the query is of type date, not timestamp with time zone\nDETAIL: Which instant that is would depend on the time zone of each session.\nHINT: Name the time zone, as in: at::timestamp AT TIME ZONE ''UTC'' AS at.'),
    ('leads', 'SELECT 1 AS lead, ''mql'' AS status, ''2020-01-01'' AS at',
     E'42804: column "at" of the query is of type text, not timestamp with time zone\nHINT: Convert it, as in: at::timestamptz AS at.'),
    ('leads', '', E'42601: query of lifecycle.import_history() must be one SELECT\nDETAIL: It has 0 statements.\nHINT: It gives columns lead, status and at.'),
    ('leads', 'SELECT 1; SELECT 2', E'42601: query of lifecycle.import_history() must be one SELECT\nDETAIL: It has 2 statements.\nHINT: It gives columns lead, status and at.'),
    ('leads', 'DELETE FROM leads RETURNING id AS lead', E'42601: query of lifecycle.import_history() must be one SELECT\nDETAIL: It is: DELETE.\nHINT: It gives columns lead, status and at.'),
    ('leads', 'SHOW work_mem', E'42601: query of lifecycle.import_history() must be one SELECT\nDETAIL: It is: SHOW.\nHINT: It gives columns lead, status and at.'),
    ('leads', 'WITH d AS (DELETE FROM leads RETURNING id) SELECT id AS lead FROM d',
     E'42601: query of lifecycle.import_history() must not write\nDETAIL: Its WITH contains INSERT, UPDATE, DELETE or MERGE.\nHINT: Write before or after the import, in the same transaction.'),
    ('leads', 'SELECT $1 AS lead', '42P02: there is no parameter $1'),
    ('leads', 'SELECT nothing FROM leads', '42703: column "nothing" does not exist'),
    ('leads', 'SELEC', '42601: syntax error at or near "SELEC"'),
    ('leads', 'SELECT 1 AS lead, ''mql'' AS status, now() / 0 AS at', E'42883: operator does not exist: timestamp with time zone / integer\nHINT: No operator matches the given name and argument types. You might need to add explicit type casts.'),
    ('leads', 'SELECT 1 / (g - 500) AS lead, ''mql'' AS status, now() AS at FROM generate_series(1, 1000) AS g', '22012: division by zero'),
    ('leads', NULL, '22004: lead_table and query must not be null'),
    (NULL, 'SELECT 1', '22004: lead_table and query must not be null'),
    ('long_ago', 'SELECT 1', E'55000: table "public.long_ago" is not tracked\nHINT: SELECT lifecycle.track(''public.long_ago'');')
) AS q (leads, query, error);
SELECT is(failure('SELECT * FROM lifecycle.import_history(4294967295::regclass, ''SELECT 1'')'), '42P01: relation with OID 4294967295 does not exist', 'no such table');
SELECT is_empty($$SELECT * FROM lifecycle.import_history('leads', 'SELECT 1 AS lead, ''mql'' AS status, now() AS at WHERE false')$$, 'no rows');
SELECT is_empty($$SELECT * FROM lifecycle.import_history('leads', 'WITH m (lead, status, at) AS (VALUES (6, ''mql''::lifecycle.lifecycle_status, day(1))) TABLE m -- end')$$, 'WITH, TABLE, an enum, a comment at the end');

-- ---- privileges ----

CREATE ROLE import_owner;
CREATE ROLE import_member IN ROLE import_owner;
CREATE ROLE import_other;
GRANT CREATE, USAGE ON SCHEMA public TO import_owner;
SET ROLE import_owner;
CREATE TABLE owned (id int PRIMARY KEY);
INSERT INTO owned VALUES (1), (2);
SELECT lifecycle.track('owned');
GRANT ALL ON owned TO import_other;
RESET ROLE;
GRANT ALL ON owned_history TO import_other;
SELECT is(failure($$SELECT * FROM lifecycle.import_history('owned', 'SELECT 1 AS lead, ''mql'' AS status, day(1) AS at')$$, 'import_other'), E'42501: must be owner of table owned\nHINT: Let a member of role import_owner do it.', 'only the owner');
SELECT is(failure($$SELECT * FROM lifecycle.import_history('owned', 'SELECT 1 AS lead, ''mql'' AS status, day(1) AS at')$$, 'import_owner'), 'no error', 'who is it');
SELECT is(failure($$SELECT * FROM lifecycle.import_history('owned', 'SELECT 2 AS lead, ''mql'' AS status, day(1) AS at')$$, 'import_member'), 'no error', 'or a member of it');
SELECT is(failure($$SELECT * FROM lifecycle.import_history('owned', 'SELECT id AS lead, ''mql'' AS status, day(1) AS at FROM leads')$$, 'import_owner'), '42501: permission denied for table leads', 'the query has the rights of the caller');
SELECT results_eq('SELECT lead, to_status, cause FROM owned_history ORDER BY lead', $$VALUES (1, 'mql', 'import'), (2, 'mql', 'import')$$, 'and it was done');
DROP OWNED BY import_owner, import_member, import_other;
DROP ROLE import_owner, import_member, import_other;

-- ---- types of keys, odd names ----

CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
CREATE SCHEMA "Odd ""Schema";
CREATE TYPE pair AS (a int, b int);
CREATE SCHEMA numbers;
CREATE DOMAIN numbers.even AS bigint CHECK (VALUE % 2 = 0);
CREATE TABLE kinds (n int, type text, a text, b text, no_key text);
INSERT INTO kinds VALUES
    (1, 'int', '1', '2', 'one'), (2, 'bigint', '9000000000', '2', '9e99'), (3, 'uuid', '6ecd8c99-4036-403d-bf84-cf8400f67836', '3f333df6-90a4-4fda-8dd3-9485d27cee36', 'x'),
    (4, 'text', 'a', 'B', 'c'), (5, 'varchar(9)', 'a', 'b', 'longer than nine'), (6, 'text COLLATE "C"', 'a', 'B', 'b'), (7, 'name', 'a', 'B', 'c'),
    (8, 'date', '2020-01-01', '2021-01-01', '2020-13-01'), (9, 'positive', '1', '2', '-1'), (10, 'colour', 'red', 'blue', 'pink'),
    (11, 'numeric', '1.50', '2', 'x'), (12, 'char(3)', 'a', 'b', 'c'), (13, 'numbers.even', '2', '4', '3'), (14, 'int[]', '{1,2}', '{}', '{'),
    (15, 'pair', '(1,2)', '(3,4)', '(1,x)'), (16, 'jsonb', '1', '2', '{'), (17, 'double precision', '0.5', '2', 'x'), (18, 'boolean', 'false', 'true', 'maybe'),
    (19, 'bytea', '\x00', '\x01', '\xz'), (20, 'inet', '10.0.0.1/32', '::1/128', '300.0.0.1');
CREATE FUNCTION import_kind(kinds) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    given text;
    query text;
BEGIN
    EXECUTE format($q$CREATE TABLE "Odd ""Schema"."Le'ads" ("the ""key" %s PRIMARY KEY, "Sta'tus" varchar(20))$q$, $1.type);
    EXECUTE format($q$INSERT INTO "Odd ""Schema"."Le'ads" VALUES (%L), (%L)$q$, $1.a, $1.b);
    PERFORM lifecycle.track('"Odd ""Schema"."Le''ads"', status_column => 'Sta''tus');
    -- as text, then in its own type
    SELECT string_agg(lead || ' ' || problem, '; ') INTO result
    FROM lifecycle.import_history('"Odd ""Schema"."Le''ads"', format('SELECT * FROM (VALUES (%L, ''mql'', day(2)), (%L, ''known'', day(1)), (%L, ''known'', day(1)), (%L, ''known'', day(1))) AS m (lead, status, at)',
                                  $1.a, $1.a, $1.b, $1.no_key));
    SELECT concat_ws('; ', result, string_agg(problem, '; ')) INTO result
    FROM lifecycle.import_history('"Odd ""Schema"."Le''ads"', 'SELECT "the ""key" AS lead, ''sal'' AS status, day(3) AS at FROM "Odd ""Schema"."Le''ads"') WHERE NOT imported;
    EXECUTE $q$SELECT string_agg(rtrim("the ""key"::text) || ' ' || "Sta'tus" || ' ' || lifecycle_seq, ', ' ORDER BY lifecycle_seq DESC) FROM "Odd ""Schema"."Le'ads"$q$ INTO given;
    SELECT concat_ws(E'\n', result, given, 'verify: ' || string_agg(v::text, ', ')) INTO result FROM lifecycle.verify('"Odd ""Schema"."Le''ads"') AS v;
    PERFORM lifecycle.untrack('"Odd ""Schema"."Le''ads"', drop_data => true);
    DROP TABLE "Odd ""Schema"."Le'ads";
    RETURN result;
END
$$;
SELECT is(import_kind(k), format(E'%s unknown lead\n%s sal 3, %s sal 2', k.no_key, k.a, k.b), 'key of type ' || k.type) FROM kinds AS k ORDER BY n;
DO $$
BEGIN
    CREATE COLLATION insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE cases (id text COLLATE insensitive PRIMARY KEY);
EXCEPTION WHEN feature_not_supported THEN
    NULL; -- the server is built without ICU
END
$$;
SELECT to_regclass('cases') IS NOT NULL AS has_icu \gset
\if :has_icu
    INSERT INTO cases VALUES ('anna'), ('Bob');
    SELECT lifecycle.track('cases');
    SELECT is_empty($$SELECT * FROM lifecycle.import_history('cases', 'SELECT * FROM (VALUES (''BOB'', ''sal'', day(3)), (''Anna'', ''known'', day(1)), (''bob'', ''mql'', day(2)), (''ANNA'', ''mql'', day(2))) AS m (lead, status, at)')$$,
                    'keys that are equal under their collation');
    SELECT results_eq('SELECT lead::text COLLATE "C", to_status, seq FROM cases_history ORDER BY 1 DESC, seq', $$VALUES ('anna' COLLATE "C", 'known', 1), ('anna', 'mql', 2), ('Bob', 'mql', 1), ('Bob', 'sal', 2)$$, 'are one lead, under the key that it has');
    SELECT is_empty($$SELECT * FROM lifecycle.verify('cases')$$, 'verify() finds nothing');
\else
    SELECT skip('the server is built without ICU, so that all collations tell keys apart in the same way', 3);
\endif
CREATE SCHEMA other;
DO $$
BEGIN
    CREATE EXTENSION citext SCHEMA other;
    CREATE TABLE by_citext (id other.citext PRIMARY KEY);
    INSERT INTO by_citext VALUES ('anna'), ('Bob');
EXCEPTION WHEN feature_not_supported OR undefined_file THEN
    NULL; -- the server comes without citext
END
$$;
SELECT to_regclass('by_citext') IS NOT NULL AS has_citext \gset
\if :has_citext
    SELECT lifecycle.track('by_citext');
    SELECT results_eq($$SELECT lead, problem FROM lifecycle.import_history('by_citext', 'SELECT * FROM (VALUES (''BOB'', ''sal'', day(3)), (''Anna'', ''known'', day(1)), (''bob'', ''mql'', day(2)), (''x'', ''mql'', day(2))) AS m (lead, status, at)')$$,
                      $$VALUES ('x', 'unknown lead')$$, 'a type of an extension whose operators are not on the search path');
    SELECT results_eq('SELECT lead::text COLLATE "C", to_status, seq FROM by_citext_history ORDER BY 1 DESC, seq', $$VALUES ('anna' COLLATE "C", 'known', 1), ('Bob', 'mql', 1), ('Bob', 'sal', 2)$$, 'its own equality counts');
\else
    SELECT skip('the server comes without citext', 2);
\endif
CREATE TABLE by_int (id int PRIMARY KEY);
INSERT INTO by_int SELECT generate_series(1, 9);
SELECT lifecycle.track('by_int');
SELECT results_eq($$SELECT lead, problem FROM lifecycle.import_history('by_int', 'SELECT l AS lead, ''mql'' AS status, day(1) AS at FROM unnest(ARRAY[1.0, 2.5, 99999999999]) AS l')$$,
    $$VALUES ('2.5', 'unknown lead'), ('99999999999', 'unknown lead')$$, 'a number that is no integer is no lead');
SELECT is_empty($$SELECT lead, problem FROM lifecycle.import_history('by_int', 'SELECT l AS lead, ''mql'' AS status, day(1) AS at FROM unnest(ARRAY[2, 3]::int8[]) AS l
    UNION ALL SELECT 4::int2, ''mql'', day(1)')$$, 'other integers are');
SELECT is_empty($$SELECT lead, problem FROM lifecycle.import_history('by_int', 'SELECT '' 5 '' AS lead, ''mql''::char(8) AS status, day(1) AS at, 7 AS actor, now() AS reason')$$, 'spaces do not matter');
SELECT bag_eq('SELECT lead FROM by_int_history', 'SELECT generate_series(1, 5)', 'they are all there');

-- ---- triggers ----

CREATE TABLE hooked (id int PRIMARY KEY, note text, touched int NOT NULL DEFAULT 0);
INSERT INTO hooked SELECT generate_series(1, 3000);
SELECT lifecycle.track('hooked');
CREATE TABLE seen (lead int, to_status text, cause text);
CREATE FUNCTION hook() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES (NEW.lead, NEW.to_status, NEW.cause);
    UPDATE hooked SET note = NEW.to_status WHERE id = NEW.lead;
    RETURN NULL;
END
$$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER hook AFTER INSERT ON hooked_history FOR EACH ROW EXECUTE FUNCTION hook();
CREATE TRIGGER touch BEFORE UPDATE OF lifecycle_status ON hooked FOR EACH ROW EXECUTE FUNCTION touch();
SELECT is_empty($$SELECT * FROM lifecycle.import_history('hooked', $q$SELECT g AS lead, s AS status, day(n::int) AS at FROM generate_series(1, 3000) AS g, unnest('{known,mql}'::text[]) WITH ORDINALITY AS m (s, n)$q$)$$,
                'with triggers on leads and history');
SELECT results_eq('SELECT cause, to_status, count(*) FROM seen GROUP BY 1, 2 ORDER BY 2', $$VALUES ('import', 'known', 3000::bigint), ('import', 'mql', 3000)$$, 'those on the history fire for each move');
SELECT results_eq('SELECT note, touched, lifecycle_status::text, lifecycle_seq, count(*) FROM hooked GROUP BY 1, 2, 3, 4', $$VALUES ('mql', 1, 'mql', 2, 3000::bigint)$$, 'those on the leads once for each lead');
SELECT is_empty($$SELECT * FROM lifecycle.verify('hooked')$$, 'verify() finds nothing');
CREATE OR REPLACE FUNCTION hook() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE hooked SET lifecycle_status = 'lost' WHERE id = NEW.lead; RETURN NULL; END $$;
DROP TRIGGER hook ON hooked_history;
CREATE TRIGGER hook AFTER INSERT ON hooked_history FOR EACH ROW WHEN (NEW.to_status = 'sal') EXECUTE FUNCTION hook();
SELECT is_empty($$SELECT * FROM lifecycle.import_history('hooked', $q$SELECT 1 AS lead, 'sal' AS status, day(9) AS at$q$)$$, 'a trigger that moves the lead on');
SELECT is_empty($$SELECT * FROM lifecycle.verify('hooked')$$, 'leaves a whole history');
SELECT results_eq('SELECT lifecycle_status::text FROM hooked WHERE id = 1', $$VALUES ('lost')$$, 'and has the last word');
DROP TRIGGER hook ON hooked_history;
CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
SELECT is(failure($$SELECT * FROM lifecycle.import_history('hooked', 'SELECT 2 AS lead, ''sal'' AS status, day(9) AS at')$$),
    E'27000: a trigger on table "public.hooked" suppressed the update of a lead whose history was imported\nHINT: Disable the trigger for the import.', 'a trigger that suppresses the row');
CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.lifecycle_status := 'lost'; RETURN NEW; END $$;
SELECT is(failure($$SELECT * FROM lifecycle.import_history('hooked', 'SELECT 2 AS lead, ''sal'' AS status, day(9) AS at')$$),
    E'27000: a trigger on table "public.hooked" changed the status of lead 2 while its history was imported\nHINT: Let the trigger leave status and columns of lifecycle alone, or disable it for the import.', 'a trigger that changes it');
DROP TRIGGER touch ON hooked;
CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lifecycle.import_history('hooked', format('SELECT %s AS lead, ''sal'' AS status, clock_timestamp() AS at', NEW.id));
    RETURN NULL;
END
$$;
CREATE TRIGGER a_touch AFTER UPDATE ON hooked FOR EACH ROW EXECUTE FUNCTION touch();
SELECT is(failure($$UPDATE hooked SET lifecycle_status = 'lost' WHERE id = 2$$),
    E'55000: cannot import history of lead 2 of table "public.hooked" while a statement that moves it is running\nHINT: Call lifecycle.import_history() after that statement, not in a trigger.', 'not from a trigger of the lead''s own move');
DROP TRIGGER a_touch ON hooked;
SELECT is_empty($$SELECT * FROM lifecycle.verify('hooked')$$, 'nothing is left of these');

-- ---- the same as live writes ----

SELECT lifecycle.copy_model('standard', 'free');
INSERT INTO lifecycle.transition SELECT 'free', a.status, b.status FROM lifecycle.stage a, lifecycle.stage b
WHERE a.model = 'free' AND b.model = 'free' AND a.status <> b.status ON CONFLICT DO NOTHING;
CREATE TABLE live (id int PRIMARY KEY, source text, worth numeric);
CREATE TABLE imported (LIKE live INCLUDING ALL);
SELECT setseed(0.42);
CREATE TABLE moves AS
SELECT l AS lead, n, status, day(0) + sum(wait) OVER (PARTITION BY l ORDER BY n) AS at, 'actor ' || n % 3 AS actor, nullif(n % 4, 0)::text AS reason
FROM (SELECT l, n, (SELECT array_agg(status ORDER BY status) FROM lifecycle.stage WHERE model = 'free' AND l + n > 0)[1 + floor(random() * 11)] AS status,
             floor(random() * 3) * interval '1 hour' AS wait
      FROM generate_series(1, 300) AS l, generate_series(1, 12) AS n) AS m;
DELETE FROM moves USING moves AS before WHERE before.lead = moves.lead AND before.n = moves.n - 1 AND before.status = moves.status;
DELETE FROM moves WHERE EXISTS (SELECT FROM (SELECT lead, n, status, lag(status) OVER (PARTITION BY lead ORDER BY n) AS p FROM moves) AS m WHERE m.lead = moves.lead AND m.n = moves.n AND m.p = m.status);
INSERT INTO imported SELECT g, nullif('source ' || g % 5, 'source 0'), g FROM generate_series(1, 300) AS g;
SELECT lifecycle.track(t, model => 'free', source => 'source', value => 'worth', cohort => 'lifecycle.cohort(id::text, 3)') FROM unnest('{live,imported}'::regclass[]) AS t;
DO $$
DECLARE
    m moves;
BEGIN
    FOR m IN SELECT * FROM moves ORDER BY at, lead, n LOOP
        PERFORM set_config('lifecycle.at', m.at::text, true), set_config('lifecycle.actor', m.actor, true),
                CASE WHEN m.reason IS NOT NULL THEN set_config('lifecycle.reason', m.reason, true) END;
        IF m.reason IS NULL THEN
            RESET lifecycle.reason;
        END IF;
        UPDATE live SET lifecycle_status = m.status::lifecycle.lifecycle_status WHERE id = m.lead;
        IF NOT FOUND THEN
            INSERT INTO live (id, source, worth, lifecycle_status)
            VALUES (m.lead, nullif('source ' || m.lead % 5, 'source 0'), m.lead, m.status::lifecycle.lifecycle_status);
        END IF;
    END LOOP;
END
$$;
SELECT is_empty($$SELECT * FROM lifecycle.import_history('imported', 'SELECT * FROM moves WHERE at < day(0) + interval ''5 hours'' ORDER BY md5(lead::text || at), n')$$, 'an import');
SELECT is_empty($$SELECT * FROM lifecycle.import_history('imported', 'SELECT * FROM moves WHERE at >= day(0) + interval ''5 hours'' ORDER BY md5(lead::text || at), n')$$, 'and its second part');
SELECT cmp_ok((SELECT max(cycle) FROM imported_history), '>', 2, 'there are leads with several cycles');
SELECT cmp_ok((SELECT count(*) FROM imported_history), '>', 2500::bigint, 'and many moves');
SELECT set_eq('SELECT lead, seq, cycle, from_status, from_since, to_status, at, rule, actor, reason, demographic_score, behavior_score, source, cohort, value, entered_at, cycle_since, reached::text FROM imported_history',
              'SELECT lead, seq, cycle, from_status, from_since, to_status, at, rule, actor, reason, demographic_score, behavior_score, source, cohort, value, entered_at, cycle_since, reached::text FROM live_history',
              'the history is that of the same moves written live');
SELECT set_eq('SELECT * FROM imported', 'SELECT * FROM live', 'so are the leads');
SELECT set_eq($$SELECT * FROM lifecycle.funnel('imported')$$, $$SELECT * FROM lifecycle.funnel('live')$$, 'and the funnel');
SELECT is_empty($$SELECT * FROM lifecycle.verify('imported')$$, 'verify() finds nothing');

-- one at a time gives the same
CREATE TABLE single (LIKE live);
ALTER TABLE single DROP COLUMN lifecycle_status, DROP COLUMN lifecycle_since, DROP COLUMN lifecycle_seq, DROP COLUMN demographic_score, ADD PRIMARY KEY (id);
INSERT INTO single SELECT id, source, worth FROM live;
SELECT lifecycle.track('single', model => 'free', source => 'source', value => 'worth', cohort => 'lifecycle.cohort(id::text, 3)');
SET lifecycle.batch_history = off;
SET work_mem = '64kB';
SET maintenance_work_mem = '1MB';
SELECT is_empty($$SELECT * FROM lifecycle.import_history('single', 'SELECT * FROM moves')$$, 'without batches, with little memory');
RESET lifecycle.batch_history;
SELECT set_eq('SELECT lead, seq, cycle, to_status, at, cause, actor, reason, reached::text FROM single_history', 'SELECT lead, seq, cycle, to_status, at, cause, actor, reason, reached::text FROM imported_history', 'the history is the same');

-- a lead with more moves than are held at a time
INSERT INTO by_int VALUES (100);
SELECT lifecycle.untrack('by_int', drop_data => true);
SELECT lifecycle.track('by_int', model => 'free');
SELECT is_empty($$SELECT * FROM lifecycle.import_history('by_int', 'SELECT 100 AS lead, (''{mql,lost,sal}''::text[])[1 + n % 3] AS status, day(0) + n * interval ''1 minute'' AS at, n AS reason FROM generate_series(1, 5001) AS n')$$, '5001 moves of one lead');
SELECT results_eq('SELECT count(*), max(seq), max(cycle), bool_and(seq::text = reason) FROM by_int_history', 'VALUES (5001::bigint, 5001, 1667, true)', 'are all there, in order');
SELECT is_empty($$SELECT * FROM lifecycle.verify('by_int')$$, 'verify() finds nothing');

SELECT * FROM finish();
