-- backfill(): leads that are older than track() come in, each once; in batches,
-- for every type of key, with users' triggers, and again at any time.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE ROLE backfill_owner;
CREATE ROLE backfill_member IN ROLE backfill_owner;
CREATE ROLE backfill_writer;
CREATE SCHEMA crm AUTHORIZATION backfill_owner;
GRANT USAGE ON SCHEMA crm TO backfill_writer, backfill_member;
SET client_min_messages = error;

SET ROLE backfill_owner;
CREATE TABLE crm.leads (id int PRIMARY KEY, stage text, created_at timestamptz, origin text, amount numeric);
INSERT INTO crm.leads VALUES
    (1, NULL, '2025-01-01', 'web', 1), (2, 'known', '2025-02-01', NULL, 2), (3, 'customer', '2025-03-01', 'event', 3),
    (4, 'lost', NULL, 'web', NULL), (5, 'mql', '2999-01-01', 'web', 5), (6, 'mal', '-infinity', 'web', 6);
SELECT lifecycle.track('crm.leads', status_column => 'stage', entered => 'created_at', source => 'origin', value => 'amount');
RESET ROLE;
INSERT INTO crm.leads VALUES (7, 'mql', '2025-07-01', 'web', 7);
UPDATE crm.leads SET stage = 'sal' WHERE id = 5;

SET ROLE backfill_member;
CALL lifecycle.backfill('crm.leads', 2);
RESET ROLE;
SELECT results_eq($$SELECT lead, seq, cycle, from_status, to_status, cause, rule, reason, source, value, reached,
                           CASE WHEN at < '2026-01-01' THEN at::date::text ELSE 'now' END, entered_at = first_value(at) OVER (PARTITION BY lead ORDER BY seq)
                    FROM crm.leads_history ORDER BY lead, seq$$,
    $$VALUES (1, 1, 1, NULL, 'known', 'backfill', NULL::text, NULL::text, 'web', 1::numeric, '{known}'::text[], '2025-01-01', true),
             (2, 1, 1, NULL, 'known', 'backfill', NULL, NULL, NULL, 2, '{known}', '2025-02-01', true),
             (3, 1, 1, NULL, 'known', 'backfill', NULL, NULL, 'event', 3, '{known}', '2025-03-01', true),
             (3, 2, 1, 'known', 'customer', 'backfill', NULL, NULL, 'event', 3, '{known,customer}', 'now', true),
             (4, 1, 1, NULL, 'known', 'backfill', NULL, NULL, 'web', NULL, '{known}', 'now', true),
             (4, 2, 1, 'known', 'lost', 'backfill', NULL, NULL, 'web', NULL, '{known,lost}', 'now', true),
             (5, 1, 1, NULL, 'known', 'backfill', NULL, NULL, 'web', 5, '{known}', 'now', true),
             (5, 2, 1, 'known', 'mql', 'backfill', NULL, NULL, 'web', 5, '{known,mql}', 'now', true),
             (5, 3, 1, 'mql', 'sal', 'write', NULL, NULL, 'web', 5, '{known,mql,sal}', 'now', true),
             (6, 1, 1, NULL, 'known', 'backfill', NULL, NULL, 'web', 6, '{known}', 'now', true),
             (6, 2, 1, 'known', 'mal', 'backfill', NULL, NULL, 'web', 6, '{known,mal}', 'now', true),
             (7, 1, 1, NULL, 'mql', 'entry', NULL, NULL, 'web', 7, '{mql}', '2025-07-01', true)$$,
    'each enters at its time on the first status, and moves to where it is found');
SELECT is_empty('SELECT * FROM crm.leads WHERE stage IS NULL OR lifecycle_seq IS NULL OR lifecycle_since IS NULL', 'the rows say so');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'verify() finds nothing');
CREATE TABLE before AS SELECT ctid AS place, xmin::text AS writer, * FROM crm.leads;
CALL lifecycle.backfill('crm.leads');
SELECT results_eq('SELECT ctid, xmin::text, * FROM crm.leads ORDER BY id', 'SELECT * FROM before ORDER BY id', 'the second time it writes no row');
SELECT is((SELECT count(*) FROM crm.leads_history), 12::bigint, 'and no move');
UPDATE crm.leads SET stage = 'mql' WHERE id = 1;
SELECT results_eq('SELECT from_status, to_status, cause FROM crm.leads_history WHERE lead = 1 AND seq = 2', $$VALUES ('known', 'mql', 'write')$$, 'leads go on from there');

-- ---- whose row is not what the history says ----

SELECT lifecycle.untrack('crm.leads');
UPDATE crm.leads SET stage = 'opportunity' WHERE id = 2;
UPDATE crm.leads SET lifecycle_seq = 9 WHERE id = 3;
UPDATE crm.leads SET lifecycle_since = '2020-01-01' WHERE id = 4;
UPDATE crm.leads SET stage = NULL, lifecycle_seq = NULL WHERE id = 6;
INSERT INTO crm.leads (id, stage) VALUES (8, 'mql');
SELECT lifecycle.track('crm.leads', status_column => 'stage', entered => 'created_at', source => 'origin', value => 'amount');
CALL lifecycle.backfill('crm.leads', 1);
SELECT results_eq($$SELECT id, stage, lifecycle_seq FROM crm.leads ORDER BY id$$,
    $$VALUES (1, 'mql', 2), (2, 'opportunity', 2), (3, 'customer', 2), (4, 'lost', 2), (5, 'sal', 3), (6, 'mal', 2), (7, 'mql', 1), (8, 'mql', 2)$$,
    'the row, or where it says nothing the history, is brought up to the other');
SELECT is((SELECT count(*) FROM crm.leads_history WHERE cause = 'backfill'), 13::bigint, 'with the moves that were not seen, and no others');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'verify() finds nothing');

-- ---- refused ----

SELECT is(failure($$CALL lifecycle.backfill('crm.leads')$$),
          E'25001: lifecycle.backfill() cannot run inside a transaction block\nDETAIL: It commits after each batch.\n'
          'HINT: CALL it by itself: outside of BEGIN ... COMMIT, of functions and of blocks with EXCEPTION, and with autocommit on.', 'not in a block with EXCEPTION');
\set ON_ERROR_STOP off
\set ON_ERROR_ROLLBACK off
BEGIN;
CALL lifecycle.backfill('crm.leads');
\set state :LAST_ERROR_SQLSTATE
ROLLBACK;
SELECT is(:'state'::text, '25001', 'nor in a transaction block');
CREATE FUNCTION inside() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL lifecycle.backfill('crm.leads'); END $$;
SELECT inside();
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '2D000', 'nor in a function');
DO $$ BEGIN CALL lifecycle.backfill('crm.leads'); END $$;
SELECT is(:'SQLSTATE'::text, '00000', 'but in a DO block');
CALL lifecycle.backfill('crm.leads', 0);
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22023: batch must be at least 1, not 0', 'a batch holds something');
CALL lifecycle.backfill('crm.leads', NULL);
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22004: lead_table and batch must not be null', 'and is not NULL');
CALL lifecycle.backfill(NULL);
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22004: lead_table and batch must not be null', 'nor the table');
CALL lifecycle.backfill('before');
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '55000: table "public.before" is not tracked', 'which is tracked');
SET ROLE backfill_writer;
CALL lifecycle.backfill('crm.leads');
RESET ROLE;
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '42501: must be owner of table leads', 'and one''s own');
ALTER TABLE crm.leads ENABLE ROW LEVEL SECURITY;
ALTER TABLE crm.leads FORCE ROW LEVEL SECURITY;
SET ROLE backfill_owner;
CALL lifecycle.backfill('crm.leads');
RESET ROLE;
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '42501: row security hides leads of table "crm.leads" from their owner', 'forced row security would hide leads');
SET ROLE backfill_writer;
SELECT lifecycle.announce('crm.leads', 'backfill');
RESET ROLE;
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '42501', 'only the owner can announce anything');
SELECT lifecycle.announce('crm.leads', 'x');
SELECT is(:'LAST_ERROR_SQLSTATE' || ': ' || :'LAST_ERROR_MESSAGE', '22023: there is no operation "x"', 'and nothing unknown');
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK on

-- ---- a status that the model lacks ----

SELECT lifecycle.copy_model('standard', 'mine');
INSERT INTO lifecycle.stage (model, status, label) VALUES ('mine', 'parked', 'Parked');
CREATE TABLE crm.deals (id int PRIMARY KEY, stage text);
INSERT INTO crm.deals VALUES (1, 'parked'), (2, 'mql'), (3, 'parked');
SELECT lifecycle.track('crm.deals', model => 'mine', status_column => 'stage');
DELETE FROM lifecycle.stage WHERE model = 'mine' AND status = 'parked';
CALL lifecycle.backfill('crm.deals', 2);
SELECT results_eq('SELECT id, stage, lifecycle_seq FROM crm.deals ORDER BY id', $$VALUES (1, 'parked', NULL::int), (2, 'mql', 2), (3, 'parked', NULL)$$, 'stays out, and stays');
INSERT INTO lifecycle.stage (model, status, label) VALUES ('mine', 'parked', 'Parked');
CALL lifecycle.backfill('crm.deals');
SELECT results_eq('SELECT lead, to_status FROM crm.deals_history WHERE seq = 2 ORDER BY lead', $$VALUES (1, 'parked'), (2, 'mql'), (3, 'parked')$$, 'until the model has it');

-- ---- triggers and the path of the caller ----

CREATE TABLE crm.log (id int, seq int);
CREATE FUNCTION crm.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.id, NEW.lifecycle_seq); RETURN NEW; END $$;
CREATE TABLE crm.watched (id int PRIMARY KEY, name text);
INSERT INTO crm.watched VALUES (1, 'a'), (2, 'b');
CREATE TRIGGER look BEFORE UPDATE ON crm.watched FOR EACH ROW EXECUTE FUNCTION crm.look();
CREATE TRIGGER look_after AFTER UPDATE ON crm.watched FOR EACH ROW EXECUTE FUNCTION crm.look();
CREATE FUNCTION crm.hook() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.lead, -NEW.seq); RETURN NULL; END $$;
SELECT lifecycle.track('crm.watched');
CREATE TRIGGER hook AFTER INSERT ON crm.watched_history FOR EACH ROW EXECUTE FUNCTION crm.hook();
-- operators that must not be taken
CREATE FUNCTION crm.wrong(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR crm.> (FUNCTION = crm.wrong, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR crm.< (FUNCTION = crm.wrong, LEFTARG = int, RIGHTARG = int);
SET search_path = crm, pg_catalog, public;
CALL lifecycle.backfill('watched', 1);
SELECT is(current_setting('search_path'), 'crm, pg_catalog, public', 'the search path is as it was');
RESET search_path;
SELECT results_eq('SELECT id, seq FROM crm.log ORDER BY id, seq', 'VALUES (1, -1), (1, NULL::int), (1, 1), (2, -1), (2, NULL), (2, 1)  ORDER BY 1, 2', 'triggers fire, and find what they name');

-- ---- odd names, and every type of key ----

SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i') AS has_icu \gset
CREATE DOMAIN crm.code AS text CHECK (VALUE <> '');
CREATE TYPE crm.colour AS ENUM ('red', 'green', 'blue');
CREATE PROCEDURE fill(type text, keys text[], batch int) LANGUAGE plpgsql AS $$
DECLARE wrong text;
BEGIN
    EXECUTE format('CREATE TABLE crm."odd ''"" %%s" ("the ""key" %s PRIMARY KEY, "my status" text)', type);
    EXECUTE format('INSERT INTO crm."odd ''"" %%s" SELECT k::%s, CASE WHEN n %% 2 = 0 THEN ''mql'' END FROM unnest($1) WITH ORDINALITY AS u (k, n)',
                   regexp_replace(type, ' COLLATE.*', '')) USING keys;
    PERFORM lifecycle.track('crm."odd ''"" %s"', status_column => 'my status', prefix => 'odd');
    COMMIT;
    CALL lifecycle.backfill('crm."odd ''"" %s"', batch);
    SELECT string_agg(v::text, ', ') INTO wrong FROM lifecycle.verify('crm."odd ''"" %s"') v;
    EXECUTE 'SELECT concat_ws('' '', $1, count(DISTINCT lead), count(*)) FROM crm.odd_history' INTO wrong USING wrong;
    PERFORM lifecycle.untrack('crm."odd ''"" %s"', drop_data => true);
    DROP TABLE crm."odd '"" %s";
    INSERT INTO filled VALUES (type, batch, wrong, format('%s %s', cardinality(keys), cardinality(keys) + cardinality(keys) / 2));
END $$;
CREATE TABLE filled (type text, batch int, got text, wanted text);
CALL fill('smallint', '{-3,0,5,7,100}', 2);
CALL fill('bigint', '{-9223372036854775808,0,9223372036854775807}', 1);
CALL fill('numeric', '{NaN,Infinity,-Infinity,1.50,1.49,0}', 2);
CALL fill('numeric(6,2)', '{1.55,2.5,3}', 1);
CALL fill('float8', '{0.1,0.30000000000000004,NaN,1e300,-0}', 1);
CALL fill('text', '{a,B,"",Ä,z,"a b","''\""}', 2);
CALL fill('text COLLATE "C"', '{a,B,Ä,z,_}', 1);
\if :has_icu
CREATE COLLATION crm.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CALL fill('text COLLATE crm.blind', '{a,B,c,D}', 1);
\endif
CALL fill('varchar(3)', '{abc,abd,ab}', 1);
CALL fill('char(3)', '{abc,abd,a}', 1);
CALL fill('crm.code', '{x,y,z}', 2);
CALL fill('crm.colour', '{blue,red,green}', 1);
CALL fill('uuid', '{6d6b8a50-0000-4000-8000-000000000001,00000000-0000-4000-8000-000000000001,ffffffff-0000-4000-8000-000000000001}', 1);
CALL fill('timestamptz', '{2026-01-01,2026-01-01 00:00:00.000001,infinity,-infinity}', 1);
CALL fill('bytea', '{"\\x00","\\x0001","\\xff"}', 1);
CALL fill('inet', '{10.0.0.1,10.0.0.0/8,::1}', 1);
SELECT is(got, wanted, format('a key of type %s in batches of %s', type, batch)) FROM filled;

-- ---- many ----

CREATE TABLE crm.many (id uuid PRIMARY KEY, stage text);
INSERT INTO crm.many SELECT md5(g::text)::uuid, CASE WHEN g % 3 = 0 THEN 'mql' END FROM generate_series(1, 100000) AS g;
SELECT lifecycle.track('crm.many', status_column => 'stage');
CALL lifecycle.backfill('crm.many', 7777);
SELECT is((SELECT count(DISTINCT lead) || ' ' || count(*) FROM crm.many_history), '100000 133333', '100,000 leads');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.many')$$, 'verify() finds nothing');
SELECT is((SELECT count(DISTINCT xmin::text) FROM crm.many), 13::bigint, 'in 13 transactions');

SELECT * FROM finish();
