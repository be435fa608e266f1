-- erase(): the person is gone, every number stays.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE ROLE erase_owner;
CREATE ROLE erase_writer;
CREATE SCHEMA crm AUTHORIZATION erase_owner;
GRANT USAGE ON SCHEMA crm TO erase_writer;
SET ROLE erase_owner;
CREATE TABLE crm.leads (id int PRIMARY KEY, name text, source text, amount numeric);
SELECT lifecycle.track('crm.leads', source => 'source', value => 'amount', actor => 'name', reason => 'name', on_illegal => 'keep',
                       cohort => 'lifecycle.cohort(id::text, 2)');
GRANT ALL ON crm.leads TO erase_writer;
RESET ROLE;

-- a year of moves, an irregular one
BEGIN;
SET LOCAL lifecycle.at = '2026-01-01';
INSERT INTO crm.leads SELECT g, 'person ' || g, (ARRAY['web', 'event', NULL])[1 + g % 3], g FROM generate_series(1, 40) AS g;
SET LOCAL lifecycle.at = '2026-02-01';
UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id % 2 = 0;
SET LOCAL lifecycle.at = '2026-03-01';
UPDATE crm.leads SET lifecycle_status = 'known' WHERE id % 4 = 0;
UPDATE crm.leads SET lifecycle_status = 'recycled' WHERE id % 6 = 0;
SET LOCAL lifecycle.at = '2026-04-01';
UPDATE crm.leads SET lifecycle_status = 'sal' WHERE id % 12 = 0;
SELECT lifecycle.correct('crm.leads', 12, 'customer', 'signed by person 12');
DELETE FROM crm.leads WHERE id IN (4, 5, 36);
SET LOCAL lifecycle.at = '2026-05-01';
INSERT INTO crm.leads VALUES (4, 'person 4', 'web');
COMMIT;
DELETE FROM crm.leads WHERE id IN (6, 12, 24);

-- every report, but for what the removal itself changes: these leads are gone already
CREATE TABLE numbers (moment text, report text, line text);
CREATE PROCEDURE note(moment text) LANGUAGE plpgsql AS $$
DECLARE
    how text; per text; grouping text;
BEGIN
    FOREACH how IN ARRAY '{filled,any,ordered}'::text[] LOOP
        FOREACH per IN ARRAY '{ever,first,every}'::text[] LOOP
            FOREACH grouping IN ARRAY '{source,cohort,NULL}'::text[] LOOP
                INSERT INTO numbers SELECT moment, concat_ws(' ', 'funnel', how, per, grouping), f::text
                FROM lifecycle.funnel('crm.leads', mode => how, cycle => per, by => grouping) f;
                INSERT INTO numbers SELECT moment, concat_ws(' ', 'funnel since', how, per, grouping), f::text
                FROM lifecycle.funnel('crm.leads', since => '2026-02-01', mode => how, cycle => per, by => grouping) f;
            END LOOP;
        END LOOP;
    END LOOP;
    INSERT INTO numbers SELECT moment, 'flow', f::text FROM lifecycle.flow('crm.leads', '2026-01-01', '2026-06-01', '1 month') f;
    INSERT INTO numbers SELECT moment, 'moves', concat_ws(' ', seq, cycle, from_status, from_since, to_status, at, cause, session_user_name,
                                                         source, cohort, value, entered_at, cycle_since, reached, recorded_at)
    FROM crm.leads_history;
END $$;
CALL note('before');
SELECT cmp_ok((SELECT count(*) FROM numbers), '>', 900::bigint, 'there are numbers to compare');

SELECT is((SELECT count(*) FROM crm.leads_refused WHERE lead IN (24, 12)), 2::bigint, 'refused moves are noted');
SELECT is(failure(format($$SELECT lifecycle.erase('crm.leads', %s)$$, id), 'erase_owner'), 'no error', 'erased ' || id)
FROM unnest(ARRAY['5', '''6''', '12', '24::bigint', '''36''::varchar']) AS id;
CALL note('after');
SELECT is_empty($$(SELECT report, line FROM numbers WHERE moment = 'before' EXCEPT ALL SELECT report, line FROM numbers WHERE moment = 'after')
                  UNION ALL
                  (SELECT report, line FROM numbers WHERE moment = 'after' EXCEPT ALL SELECT report, line FROM numbers WHERE moment = 'before')$$,
                'every report says the same afterwards, and every move what it said');
SELECT is_empty('SELECT * FROM crm.leads_history WHERE lead IN (5, 6, 12, 24, 36)', 'the keys are gone');
SELECT is((SELECT count(DISTINCT lead) FROM crm.leads_history WHERE lead < 0), 5::bigint, 'each lead got one of its own, negative');
SELECT is((SELECT count(*) FROM crm.leads_history WHERE lead < 0 AND (actor IS NOT NULL OR reason IS NOT NULL)), 0::bigint, 'actors and reasons are gone');
SELECT is((SELECT count(*) FROM crm.leads_history WHERE actor IS NULL AND lead > 0), 0::bigint, 'those of others stay');
SELECT is_empty('SELECT * FROM crm.leads_refused WHERE lead IN (12, 24)', 'so are the refused moves');
SELECT isnt_empty('SELECT * FROM crm.leads_refused', 'not those of others');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'verify() finds nothing');

-- with its row: it is removed as by DELETE, and nothing of before changes
SELECT lifecycle.erase('crm.leads', 4);
SELECT is_empty('SELECT * FROM crm.leads WHERE id = 4', 'the lead itself is deleted');
SELECT results_eq($$SELECT seq, from_status, to_status, cause, cycle FROM crm.leads_history h WHERE lead < 0 AND seq > 3
                    AND EXISTS (SELECT FROM crm.leads_history e WHERE e.lead = h.lead AND e.seq = 4 AND e.cause = 'entry') ORDER BY seq$$,
                  $$VALUES (4, NULL, 'known', 'entry', 2), (5, 'known', NULL, 'delete', 2)$$, 'its removal is recorded');
TRUNCATE numbers;
CALL note('then');
SELECT is((SELECT count(*) FROM numbers WHERE report LIKE 'funnel%'), 
          (SELECT count(*) FROM numbers WHERE moment = 'then' AND report LIKE 'funnel%'), 'the reports work');
-- the key is free for somebody else
INSERT INTO crm.leads (id, name) VALUES (4, 'another');
SELECT results_eq('SELECT seq, cycle, to_status FROM crm.leads_history WHERE lead = 4', $$VALUES (1, 1, 'known')$$, 'who comes under the key begins anew');
BEGIN;
UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id = 4;
SELECT lifecycle.erase('crm.leads', 4);
INSERT INTO crm.leads (id, name) VALUES (4, 'a third');
COMMIT;
SELECT results_eq('SELECT seq, cycle, to_status FROM crm.leads_history WHERE lead = 4', $$VALUES (1, 1, 'known')$$, 'also in one transaction');
BEGIN;
SELECT lifecycle.erase('crm.leads', 4);
ROLLBACK;
SELECT results_eq('SELECT seq, cycle, to_status FROM crm.leads_history WHERE lead = 4', $$VALUES (1, 1, 'known')$$, 'rolled back, nothing is erased');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.leads')$$, 'verify() finds nothing');

-- ---- refused ----

CREATE TABLE crm.odd (id date PRIMARY KEY);
SELECT lifecycle.track('crm.odd');
INSERT INTO crm.odd VALUES ('2026-01-01');
SELECT is(failure(f.statement, f.as_role), f.error, f.statement || coalesce(' as ' || f.as_role, ''))
FROM (VALUES
    ($$SELECT lifecycle.erase('crm.leads', 1)$$, 'erase_writer', E'42501: must be owner of table leads\nHINT: Let a member of role erase_owner do it.'),
    ($$SELECT lifecycle.erase('crm.leads', 99)$$, NULL, 'P0002: table "crm.leads" has no lead 99'),
    ($$SELECT lifecycle.erase('crm.leads', 12)$$, NULL, 'P0002: table "crm.leads" has no lead 12'),
    ($$SELECT lifecycle.erase('crm.leads', NULL::text)$$, NULL, '22004: lead_table and lead must not be null'),
    ($$SELECT lifecycle.erase('pg_class', 1)$$, NULL, E'55000: table "pg_catalog.pg_class" is not tracked\nHINT: SELECT lifecycle.track(''pg_catalog.pg_class'');'),
    ($$SELECT lifecycle.erase('crm.odd', date '2026-01-01')$$, NULL,
     E'0A000: cannot erase leads with a key of type date\nDETAIL: There is no random key of that type.\nHINT: Keys can be integers, numeric, text, character varying or uuid.')
) AS f (statement, as_role, error);
SELECT isnt_empty('SELECT * FROM crm.odd', 'and the lead is still there');

-- ---- every type of key ----

CREATE DOMAIN crm.code AS varchar(12);
CREATE FUNCTION erased(type text, key text, pattern text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    EXECUTE format('CREATE TABLE crm."odd ''"" table" ("the key" %s PRIMARY KEY, name text)', type);
    PERFORM lifecycle.track('crm."odd ''"" table"', actor => 'name', prefix => 'odd %s %I');
    EXECUTE format('INSERT INTO crm."odd ''"" table" VALUES (%L, ''x'')', key);
    EXECUTE format($q$UPDATE crm."odd '"" table" SET lifecycle_status = 'mql'$q$);
    PERFORM lifecycle.erase('crm."odd ''"" table"', key);
    SELECT concat_ws(' ', count(*), count(DISTINCT lead), bool_and(lead::text ~ pattern), count(actor)) INTO result FROM crm."odd %s %I_history";
    IF EXISTS (SELECT FROM lifecycle.verify('crm."odd ''"" table"')) THEN result := result || ' verify'; END IF;
    PERFORM lifecycle.untrack('crm."odd ''"" table"', drop_data => true);
    DROP TABLE crm."odd '"" table";
    RETURN result;
END $$;
SELECT is(erased(t.type, t.key, t.pattern), '3 1 t 0', 'a key of type ' || t.type)
FROM (VALUES ('smallint', '7', '^-\d{1,5}$'), ('int', '7', '^-\d+$'), ('bigint', '7', '^-\d+$'), ('numeric', '7.5', '^-\d{1,18}$'),
             ('numeric(6,2)', '7.5', '^-\d{1,4}\.00$'), ('text', 'x@example.com', '^erased-[0-9a-f-]{36}$'),
             ('varchar', 'x''"', '^erased-[0-9a-f-]{36}$'), ('varchar(20)', 'x', '^erased-[0-9a-f-]{13}$'), ('varchar(10)', 'x', '^[0-9a-f-]{10}$'),
             ('crm.code', 'x', '^[0-9a-f-]{12}$'), ('text COLLATE "C"', 'x', '^erased-'),
             ('uuid', '00000000-0000-0000-0000-000000000001', '^[0-9a-f]{8}-(?!0000)[0-9a-f-]{27}$')) AS t (type, key, pattern);
SELECT is(failure($$SELECT erased('numeric(2,2)', '0.5', '')$$),
          E'0A000: cannot erase leads with a key of type numeric(2,2)\nDETAIL: There is no negative whole number of that type.', 'a key without negative numbers');

-- ---- triggers and constraints of users ----

CREATE TABLE crm.people (id int PRIMARY KEY, name text);
SELECT lifecycle.track('crm.people');
CREATE TABLE crm.note (lead int, seq int, FOREIGN KEY (lead, seq) REFERENCES crm.people_history (lead, seq) ON UPDATE CASCADE);
ALTER TABLE crm.people_history ADD COLUMN parity int GENERATED ALWAYS AS (lead % 2) STORED;
INSERT INTO crm.people VALUES (1, 'x'), (2, 'y');
INSERT INTO crm.note VALUES (1, 1);
SELECT lifecycle.erase('crm.people', 1);
SELECT ok((SELECT lead < 0 FROM crm.note), 'a foreign key follows');
SELECT ok((SELECT bool_and(parity = lead % 2) FROM crm.people_history), 'a generated column, too');
CREATE FUNCTION crm.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER suppress BEFORE DELETE ON crm.people FOR EACH ROW EXECUTE FUNCTION crm.suppress();
SELECT is(failure($$SELECT lifecycle.erase('crm.people', 2)$$),
          E'27000: lead 2 of table "crm.people" was not erased\nDETAIL: A trigger suppressed the DELETE of its row.', 'a DELETE that is suppressed is an error');
DROP TRIGGER suppress ON crm.people;
CREATE TRIGGER suppress BEFORE UPDATE ON crm.people_history FOR EACH ROW EXECUTE FUNCTION crm.suppress();
SELECT is(failure($$SELECT lifecycle.erase('crm.people', 2)$$),
          '27000: a trigger on "people_history" kept the key of a lead that is erased', 'so is a trigger that keeps the key');
DROP TRIGGER suppress ON crm.people_history;
CREATE FUNCTION crm.early() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM lifecycle.erase('crm.people', NEW.id); RETURN NULL; END $$;
CREATE TRIGGER early AFTER UPDATE ON crm.people FOR EACH ROW EXECUTE FUNCTION crm.early();
SELECT is(failure($$UPDATE crm.people SET lifecycle_status = 'mql'$$),
          E'27000: cannot erase a lead of table "crm.people" while its leads are being written\nHINT: Call lifecycle.erase() outside of triggers.',
          'a trigger of the leads cannot erase one');
DROP TRIGGER early ON crm.people;
SELECT throws_ok('UPDATE crm.people_history SET reason = NULL', '42501', NULL, 'the guard stands as before');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.people')$$, 'verify() finds nothing');

SELECT * FROM finish();
