-- Every way of writing a tracked table leaves exactly the moves that it made:
-- INSERT, COPY, UPDATE, MERGE, ON CONFLICT, writable CTEs, savepoints, foreign
-- keys, TRUNCATE, DELETE, keys that come back, large statements, two-phase
-- commit, and the same history with and without batching.

CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE TABLE accounts (id int PRIMARY KEY);
CREATE TABLE campaigns (id int PRIMARY KEY);
CREATE TABLE leads (
    id int PRIMARY KEY,
    name text,
    origin text,
    account int REFERENCES accounts ON DELETE CASCADE,
    campaign int REFERENCES campaigns ON DELETE SET NULL,
    parent_lead int REFERENCES leads ON DELETE CASCADE
);
SELECT lifecycle.track('leads', source => 'origin');
-- the first status as the column's default, as frameworks write it
ALTER TABLE leads ALTER COLUMN lifecycle_status SET DEFAULT 'known';

\ir ../lib/story.sql
CREATE FUNCTION stories() RETURNS TABLE (lead int, told text) LANGUAGE sql AS $$
    SELECT h.lead, story(h.lead) FROM leads_history h GROUP BY h.lead ORDER BY h.lead;
$$;

-- INSERT
INSERT INTO leads (id) VALUES (1), (2), (3);
SELECT results_eq('SELECT * FROM stories()', $$VALUES (1, 'known'), (2, 'known'), (3, 'known')$$,
    'INSERT of three rows: each lead enters on the first status');
SELECT results_eq(
    'SELECT l.lifecycle_status::text, l.lifecycle_seq, l.lifecycle_since = h.at, l.demographic_score, h.cause, h.rule, h.cycle, h.from_since
     FROM leads l JOIN leads_history h ON h.lead = l.id AND h.seq = l.lifecycle_seq WHERE l.id = 1',
    $$VALUES ('known', 1, true, 0::double precision, 'entry', NULL::text, 1, NULL::timestamptz)$$,
    'the row carries its status, time, number and score, and the history the same');

INSERT INTO leads (id, lifecycle_status) SELECT n, 'mql' FROM generate_series(4, 6) AS n;
SELECT is(story(5), 'mql', 'INSERT … SELECT with a status enters there');
CREATE TEMP TABLE returned (id int, status text, seq int, dated boolean);
WITH r AS (INSERT INTO leads (id) VALUES (7) RETURNING id, lifecycle_status, lifecycle_seq, lifecycle_since)
INSERT INTO returned SELECT id, lifecycle_status, lifecycle_seq, lifecycle_since = now() FROM r;
SELECT results_eq('SELECT * FROM returned', $$VALUES (7, 'known', 1, true)$$, 'RETURNING gives what was stored');
ALTER TABLE leads ALTER COLUMN id SET DEFAULT 8;
INSERT INTO leads DEFAULT VALUES;
SELECT is(story(8), 'known', 'INSERT … DEFAULT VALUES enters');
INSERT INTO leads (id, lifecycle_status) VALUES (9, NULL);
SELECT is(story(9), 'known', 'an explicit NULL is no status: the lead enters on the first');

-- Derived columns are ours.
INSERT INTO leads (id, lifecycle_seq, lifecycle_since, demographic_score) VALUES (10, 77, '1999-01-01', 12);
UPDATE leads SET lifecycle_seq = 99, lifecycle_since = NULL, demographic_score = 3, name = 'saved by an ORM' WHERE id = 9;
UPDATE leads SET lifecycle_seq = 5, lifecycle_since = 'infinity', lifecycle_status = 'mql' WHERE id = 8;
COPY leads (id, lifecycle_status, lifecycle_seq, lifecycle_since, demographic_score) FROM STDIN;
11	sal	42	1999-01-01	7
12	\N	\N	\N	\N
\.
SELECT results_eq(
    'SELECT l.id, l.lifecycle_status::text, l.lifecycle_seq, l.lifecycle_since = h.at, l.demographic_score, l.lifecycle_since > now() - interval ''1 day'', l.name
     FROM leads l JOIN leads_history h ON h.lead = l.id AND h.seq = l.lifecycle_seq WHERE l.id BETWEEN 8 AND 12 ORDER BY 1',
    $$VALUES (8, 'mql', 2, true, 0::float8, true, NULL), (9, 'known', 1, true, 0, true, 'saved by an ORM'),
             (10, 'known', 1, true, 0, true, NULL), (11, 'sal', 1, true, 0, true, NULL), (12, 'known', 1, true, 0, true, NULL)$$,
    'time, number and score that INSERT, UPDATE and COPY bring along are put back silently');
SELECT is((SELECT count(*) FROM leads_history WHERE lead = 9), 1::bigint, 'a write that does not move the lead adds nothing to the history');

-- UPDATE, UPDATE FROM, MERGE
UPDATE leads SET lifecycle_status = 'mql' WHERE id < 11;
SELECT is(story(1), 'known mql', 'UPDATE of many rows moves those that move');
SELECT is(story(4), 'mql', 'and records nothing for those that stay');
UPDATE leads l SET lifecycle_status = w.status::lifecycle.lifecycle_status
FROM (VALUES (1, 'sal'), (2, 'sql'), (2, 'sal'), (3, 'mql')) AS w (id, status)
WHERE w.id = l.id AND (w.id <> 2 OR w.status = 'sql');
SELECT results_eq('SELECT * FROM stories() WHERE lead <= 3',
    $$VALUES (1, 'known mql sal'), (2, 'known mql sql'), (3, 'known mql')$$, 'UPDATE … FROM moves each lead once');
MERGE INTO leads l
USING (VALUES (1, 'customer'), (2, NULL), (3, 'mql'), (13, 'engaged'), (14, 'mql')) AS w (id, status) ON w.id = l.id
WHEN MATCHED AND w.status IS NULL THEN DELETE
WHEN MATCHED THEN UPDATE SET lifecycle_status = w.status::lifecycle.lifecycle_status
WHEN NOT MATCHED THEN INSERT (id, lifecycle_status) VALUES (w.id, w.status::lifecycle.lifecycle_status);
SELECT results_eq('SELECT * FROM stories() WHERE lead <= 3 OR lead > 12',
    $$VALUES (1, 'known mql sal customer'), (2, 'known mql sql -'), (3, 'known mql'), (13, 'engaged'), (14, 'mql')$$,
    'one MERGE updates, deletes and inserts');

-- ON CONFLICT
INSERT INTO leads (id, lifecycle_status) VALUES (13, 'sql'), (15, 'mql'), (15, 'sql') ON CONFLICT DO NOTHING;
INSERT INTO leads AS l (id, name, lifecycle_status) VALUES (14, 'upserted', 'sal'), (16, 'upserted', 'sal')
ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, lifecycle_status = EXCLUDED.lifecycle_status;
INSERT INTO leads AS l (id, name) VALUES (14, 'again')
ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name || ' ' || EXCLUDED.lifecycle_status || ' ' || l.lifecycle_status;
INSERT INTO leads AS l (id) VALUES (14) ON CONFLICT (id) DO UPDATE SET
    lifecycle_seq = EXCLUDED.lifecycle_seq, lifecycle_since = EXCLUDED.lifecycle_since, lifecycle_status = 'sql';
SELECT results_eq('SELECT * FROM stories() WHERE lead > 12',
    $$VALUES (13, 'engaged'), (14, 'mql sal sql'), (15, 'mql'), (16, 'sal')$$,
    'ON CONFLICT records what was stored, once: neither an entry that was not made nor a number that was not had');
SELECT is((SELECT name FROM leads WHERE id = 14), 'again known sal', 'EXCLUDED holds our values: the first status where none was given');

-- Writable CTEs
WITH gone AS (DELETE FROM leads WHERE id = 14 RETURNING id)
INSERT INTO leads (id, lifecycle_status) SELECT id, 'mql' FROM gone;
SELECT is(story(14), 'mql sal sql - mql', 'DELETE and INSERT of one key in one statement: a removal and an entry');
SELECT results_eq('SELECT lifecycle_seq, lifecycle_since = (SELECT at FROM leads_history WHERE lead = 14 AND seq = 5) FROM leads WHERE id = 14',
    'VALUES (5, true)', 'and the row says the same as the history');
UPDATE leads SET lifecycle_status = 'sal' WHERE id = 14;
SELECT is(story(14), 'mql sal sql - mql sal', 'and moves on from there');
WITH moved AS (UPDATE leads SET lifecycle_status = 'sql' WHERE id = 14 RETURNING id)
INSERT INTO leads (id, lifecycle_status) SELECT id + 3, 'mql' FROM moved;
SELECT results_eq('SELECT * FROM stories() WHERE lead IN (14, 17)', $$VALUES (14, 'mql sal sql - mql sal sql'), (17, 'mql')$$,
    'UPDATE and INSERT in one statement');

CREATE TABLE deals (id int PRIMARY KEY, stage text);
SELECT lifecycle.track('deals', model => 'etumos', status_column => 'stage');
INSERT INTO deals (id) SELECT generate_series(1, 4);
WITH d AS (UPDATE deals SET stage = 'mql' WHERE id <= 2 RETURNING id)
UPDATE leads l SET lifecycle_status = 'sal' FROM d WHERE l.id = d.id + 3;
WITH l AS (UPDATE leads SET lifecycle_status = 'sal' WHERE id IN (6, 7) RETURNING id)
UPDATE deals d SET stage = 'mql' FROM l WHERE l.id = d.id + 3;
SELECT results_eq('SELECT id, story(id + 3), story(id, ''deals_history'') FROM deals ORDER BY id',
    $$VALUES (1, 'mql sal', 'mal mql'), (2, 'mql sal', 'mal mql'), (3, 'mql sal', 'mal mql'), (4, 'known mql sal', 'mal mql')$$,
    'one statement moves leads of two tracked tables, in both orders');
WITH a AS (UPDATE deals SET stage = 'sal' WHERE id = 1), b AS (DELETE FROM deals WHERE id = 2), c AS (INSERT INTO deals VALUES (5, 'sql'))
UPDATE deals SET stage = 'sal' WHERE id = 3;
SELECT results_eq('SELECT h.lead, story(h.lead, ''deals_history'') FROM deals_history h GROUP BY h.lead ORDER BY h.lead',
    $$VALUES (1, 'mal mql sal'), (2, 'mal mql -'), (3, 'mal mql sal'), (4, 'mal mql'), (5, 'sql')$$,
    'four writes of one table in one statement');

-- Savepoints and rollbacks
BEGIN;
UPDATE leads SET lifecycle_status = 'sql' WHERE id = 1 + 3;
SAVEPOINT a;
UPDATE leads SET lifecycle_status = 'opportunity' WHERE id = 4;
SAVEPOINT b;
UPDATE leads SET lifecycle_status = 'customer' WHERE id = 4;
ROLLBACK TO SAVEPOINT a;
UPDATE leads SET lifecycle_status = 'lost' WHERE id = 4;
RELEASE SAVEPOINT a;
COMMIT;
BEGIN;
UPDATE leads SET lifecycle_status = 'customer' WHERE id = 5;
DELETE FROM leads WHERE id = 6;
ROLLBACK;
SELECT results_eq('SELECT * FROM stories() WHERE lead BETWEEN 4 AND 6', $$VALUES (4, 'mql sal sql lost'), (5, 'mql sal'), (6, 'mql sal')$$,
    'what is rolled back, to a savepoint or as a whole, is not in the history');
DO $$
BEGIN
    FOR n IN 1..20 LOOP
        BEGIN
            UPDATE leads SET lifecycle_status = 'recycled' WHERE id = 5;
            UPDATE leads SET lifecycle_status = 'sal' WHERE id IN (5, 6);
            IF n <> 10 THEN RAISE EXCEPTION 'no'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
SELECT is(story(5), 'mql sal recycled sal', 'of twenty blocks with an exception handler, the one that succeeded is in the history');

-- Foreign keys
INSERT INTO accounts SELECT generate_series(1, 4);
INSERT INTO campaigns SELECT generate_series(1, 2);
INSERT INTO leads (id, account, campaign) SELECT 100 + n, 1 + n % 4, 1 + n % 2 FROM generate_series(0, 11) AS n;
INSERT INTO leads (id, parent_lead) VALUES (120, 100), (121, 120), (122, 121), (130, 101), (131, 130);
DELETE FROM campaigns;
SELECT results_eq('SELECT DISTINCT told FROM stories() WHERE lead >= 100', $$VALUES ('known')$$, 'ON DELETE SET NULL is no move');
UPDATE leads SET lifecycle_status = 'mql' WHERE id >= 100;
DELETE FROM accounts WHERE id IN (1, 2, 3);
SELECT results_eq('SELECT told, count(*) FROM stories() WHERE lead >= 100 GROUP BY told ORDER BY told',
    $$VALUES ('known mql', 3::bigint), ('known mql -', 14)$$,
    'one DELETE of three parents removes their leads, and leads below leads, each once');
SELECT is((SELECT count(*) FROM leads WHERE id >= 100), 3::bigint, 'those of the other parent stay');
SELECT is((SELECT array_agg(DISTINCT cause) FROM leads_history WHERE lead >= 100 AND to_status IS NULL), '{delete}', 'the cause is delete');

-- TRUNCATE
CREATE TABLE calls (id int PRIMARY KEY, lead int REFERENCES leads);
BEGIN;
TRUNCATE leads, calls;
SELECT is((SELECT count(*) FROM stories() WHERE told LIKE '%-'), (SELECT count(*) FROM stories()), 'TRUNCATE removes every lead');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'and the history agrees');
ROLLBACK;
BEGIN;
TRUNCATE accounts RESTART IDENTITY CASCADE;
SELECT is((SELECT count(*) FROM stories() WHERE told LIKE '%-'), (SELECT count(*) FROM stories()), 'also through CASCADE and with RESTART IDENTITY');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'and the history agrees there, too');
ROLLBACK;

-- Keys that come back
INSERT INTO leads (id, origin) VALUES (200, 'fair');
UPDATE leads SET lifecycle_status = 'mql' WHERE id = 200;
DELETE FROM leads WHERE id = 200;
INSERT INTO leads (id, origin, lifecycle_status) VALUES (200, 'web', 'sal');
DELETE FROM leads WHERE id = 200;
INSERT INTO leads (id, origin) VALUES (200, 'phone');
SELECT results_eq(
    'SELECT seq, cycle, from_status, to_status, cause, source, reached, entered_at = first_value(at) OVER w, cycle_since = first_value(at) OVER (PARTITION BY cycle ORDER BY seq),
            from_since IS NOT DISTINCT FROM CASE WHEN from_status IS NOT NULL THEN lag(at) OVER w END
     FROM leads_history WHERE lead = 200 WINDOW w AS (ORDER BY seq) ORDER BY seq',
    $$VALUES (1, 1, NULL, 'known', 'entry', 'fair', '{known}'::text[], true, true, true),
             (2, 1, 'known', 'mql', 'write', 'fair', '{known,mql}', true, true, true),
             (3, 1, 'mql', NULL, 'delete', 'fair', '{known,mql}', true, true, true),
             (4, 2, NULL, 'sal', 'entry', 'fair', '{sal,NULL,known,mql}', true, true, true),
             (5, 2, 'sal', NULL, 'delete', 'fair', '{sal,NULL,known,mql}', true, true, true),
             (6, 3, NULL, 'known', 'entry', 'fair', '{known,NULL,sal,mql}', true, true, true)$$,
    'a key that comes back continues its history in the next cycle; source and first entry stay');

-- Changed keys
CREATE TABLE prices (id numeric PRIMARY KEY, note text);
SELECT lifecycle.track('prices');
INSERT INTO prices VALUES (1.0), (2.0);
UPDATE prices SET id = 1.00, lifecycle_status = 'mql' WHERE id = 1;
UPDATE prices SET lifecycle_status = 'sal' WHERE id = 1;
SELECT results_eq('SELECT lead::text, to_status FROM prices_history WHERE lead = 1 ORDER BY seq',
    $$VALUES ('1.0', 'known'), ('1.00', 'mql'), ('1.00', 'sal')$$, 'another spelling of the same key is the same lead');
SELECT throws_ok('UPDATE prices SET id = 3 WHERE id = 2', '0A000', 'key of lead 2.0 of table "public.prices" cannot be changed', 'a changed key is refused');
SELECT throws_ok('UPDATE leads SET id = id + 1000', '0A000', NULL, 'also in bulk');

-- Prepared statements, functions, large statements
PREPARE move (int, lifecycle.lifecycle_status) AS UPDATE leads SET lifecycle_status = $2 WHERE id = $1;
INSERT INTO leads (id) VALUES (300);
EXECUTE move (300, 'mal'); EXECUTE move (300, 'engaged'); EXECUTE move (300, 'mql'); EXECUTE move (300, 'sal');
EXECUTE move (300, 'sql'); EXECUTE move (300, 'opportunity'); EXECUTE move (300, 'customer');
SELECT is(story(300), 'known mal engaged mql sal sql opportunity customer', 'a prepared statement, also with its generic plan');

-- The same life of two tables, the one written in batches, the other move by move.
CREATE SCHEMA batched;
CREATE SCHEMA single;
CREATE FUNCTION live() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    n int;
BEGIN
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE leads (id int PRIMARY KEY, origin text, parent int REFERENCES parents ON DELETE CASCADE);
    PERFORM lifecycle.track('leads', source => 'origin');
    INSERT INTO parents SELECT generate_series(0, 9);
    INSERT INTO leads (id, origin, parent) SELECT g, 'src ' || g % 7, g % 10 FROM generate_series(1, 10000) AS g;
    UPDATE leads SET lifecycle_status = 'mql' WHERE id % 3 > 0;
    UPDATE leads SET lifecycle_status = CASE WHEN id % 3 = 0 THEN 'engaged' ELSE 'recycled' END::lifecycle.lifecycle_status;
    DELETE FROM parents WHERE id < 3;
    INSERT INTO leads (id, origin, lifecycle_status) SELECT g, 'back', 'sal' FROM generate_series(1, 10000, 10) AS g;
    MERGE INTO leads l USING generate_series(1, 12000, 2) AS g (id) ON g.id = l.id
    WHEN MATCHED AND l.id % 5 = 0 THEN DELETE
    WHEN MATCHED AND l.lifecycle_status = 'recycled' THEN UPDATE SET lifecycle_status = 'mql'
    WHEN MATCHED THEN DO NOTHING
    WHEN NOT MATCHED THEN INSERT (id) VALUES (g.id);
    INSERT INTO leads (id, lifecycle_status) SELECT g, 'sql' FROM generate_series(9000, 13000) AS g
    ON CONFLICT (id) DO UPDATE SET lifecycle_status = 'disqualified' WHERE leads.lifecycle_status IN ('known', 'engaged', 'mql');
    FOR n IN 4000..4100 LOOP
        BEGIN
            UPDATE leads SET lifecycle_status = 'sql' WHERE id IN (n, n + 200) AND lifecycle_status <> 'sql';
            UPDATE leads SET lifecycle_status = 'customer' WHERE id = n;
            IF n % 4 = 0 THEN RAISE EXCEPTION 'no'; END IF;
        EXCEPTION WHEN raise_exception THEN
            UPDATE leads SET lifecycle_status = 'disqualified' WHERE id = n AND lifecycle_status IN ('engaged', 'mql');
        END;
    END LOOP;
    TRUNCATE leads;
    INSERT INTO leads (id) SELECT g FROM generate_series(1, 1500) AS g;
END $$;
BEGIN;
SET LOCAL lifecycle.batch_history = on;
SET LOCAL search_path = batched, public;
SELECT live();
SET LOCAL lifecycle.batch_history = off;
SET LOCAL search_path = single, public;
SELECT live();
SET LOCAL search_path = public;
COMMIT;
SELECT cmp_ok((SELECT count(*) FROM batched.leads_history), '>', 40000::bigint, 'a life of some ten thousand leads was recorded');
CREATE VIEW batched.moves AS SELECT to_jsonb(h) - 'recorded_at' AS move FROM batched.leads_history h;
CREATE VIEW single.moves AS SELECT to_jsonb(h) - 'recorded_at' AS move FROM single.leads_history h;
SELECT is_empty('(SELECT move FROM batched.moves EXCEPT ALL SELECT move FROM single.moves) UNION ALL
                 (SELECT move FROM single.moves EXCEPT ALL SELECT move FROM batched.moves)',
    'batched or move by move, the histories are the same');
SELECT is((SELECT count(*) FROM (SELECT seq, row_number() OVER (PARTITION BY lead ORDER BY ctid) AS written FROM batched.leads_history) AS o WHERE seq <> written),
    0::bigint, 'the moves of each lead were written in their order');
SELECT is_empty($$SELECT * FROM lifecycle.verify('batched.leads')$$, 'verify() is content with the one');
SELECT is_empty($$SELECT * FROM lifecycle.verify('single.leads')$$, 'and with the other');

-- Two-phase commit, transactions that only read, triggers that do not fire
BEGIN;
INSERT INTO leads (id) VALUES (400);
UPDATE leads SET lifecycle_status = 'mql' WHERE id = 400;
PREPARE TRANSACTION 'lifecycle';
SELECT is(story(400), NULL, 'a prepared transaction shows nothing yet');
COMMIT PREPARED 'lifecycle';
SELECT is(story(400), 'known mql', 'COMMIT PREPARED shows its moves');
BEGIN READ ONLY;
SELECT lives_ok('SELECT * FROM leads_history', 'a transaction that only reads may read');
SELECT throws_ok('UPDATE leads SET lifecycle_status = ''sal'' WHERE id = 400', '25006', 'cannot execute UPDATE in a read-only transaction', 'and may not move a lead');
COMMIT;
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'after all this, verify() finds nothing');
SET session_replication_role = replica;
INSERT INTO leads (id, lifecycle_status, lifecycle_seq, lifecycle_since) VALUES (401, 'mql', 1, now());
UPDATE leads SET lifecycle_status = 'known' WHERE id = 400;
RESET session_replication_role;
SELECT results_eq($$SELECT "check", lead FROM lifecycle.verify('leads') WHERE lead IS NOT NULL$$, $$VALUES ('status', '400'), ('status', '401')$$,
    'where a replica''s role kept our triggers from firing, verify() names the leads');

SELECT * FROM finish();
