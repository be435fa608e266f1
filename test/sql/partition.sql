-- Partitioned lead tables: exactly one right move of each write, through the
-- tracked table, at a table in between and at a leaf; with tables attached,
-- created and detached later; whoever owns what; with batching and without.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();
\getenv directory TMPDIR
\set file :directory '/partition.copy'
\set one :directory '/partition_one.copy'

-- ---- the same writes into tables that are partitioned in all ways ----

-- In each schema a table "leads" with the keys 1 to 60; "leaf" is where lead 11
-- is, "upper" a table between it and "leads" where there is one.
CREATE SCHEMA plain; CREATE SCHEMA ranges; CREATE SCHEMA hashes; CREATE SCHEMA lists; CREATE SCHEMA deep; CREATE SCHEMA late; CREATE SCHEMA single;
CREATE TABLE plain.leads (id int PRIMARY KEY, source text, amount numeric);
CREATE TABLE ranges.leads (LIKE plain.leads INCLUDING INDEXES) PARTITION BY RANGE (id);
CREATE TABLE ranges.first PARTITION OF ranges.leads FOR VALUES FROM (MINVALUE) TO (10);
CREATE TABLE ranges.leaf PARTITION OF ranges.leads FOR VALUES FROM (10) TO (20);
CREATE TABLE ranges.others PARTITION OF ranges.leads DEFAULT;
CREATE TABLE hashes.leads (LIKE plain.leads INCLUDING INDEXES) PARTITION BY HASH (id);
CREATE TABLE hashes.p0 PARTITION OF hashes.leads FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE hashes.p1 PARTITION OF hashes.leads FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE hashes.p2 PARTITION OF hashes.leads FOR VALUES WITH (MODULUS 3, REMAINDER 2);
CREATE TABLE lists.leads (LIKE plain.leads INCLUDING INDEXES) PARTITION BY LIST (id);
CREATE TABLE lists.leaf PARTITION OF lists.leads FOR VALUES IN (3, 11, 12);
CREATE TABLE lists.others PARTITION OF lists.leads DEFAULT;
-- columns in another order, with gaps
CREATE TABLE deep.leads (gone int, id int PRIMARY KEY, source text, amount numeric) PARTITION BY RANGE (id);
ALTER TABLE deep.leads DROP COLUMN gone;
CREATE TABLE deep.upper (amount numeric, gone int, source text, id int PRIMARY KEY) PARTITION BY LIST (id);
ALTER TABLE deep.upper DROP COLUMN gone;
CREATE TABLE deep.leaf (gone text, id int PRIMARY KEY, gone2 text, amount numeric, source text);
ALTER TABLE deep.leaf DROP COLUMN gone, DROP COLUMN gone2;
ALTER TABLE deep.upper ATTACH PARTITION deep.leaf FOR VALUES IN (11, 12, 13);
CREATE TABLE deep.others PARTITION OF deep.upper DEFAULT;
ALTER TABLE deep.leads ATTACH PARTITION deep.upper FOR VALUES FROM (10) TO (30);
CREATE TABLE deep.rest PARTITION OF deep.leads DEFAULT;
CREATE TABLE late.leads (LIKE plain.leads INCLUDING INDEXES) PARTITION BY RANGE (id);
CREATE TABLE single.leads (LIKE plain.leads INCLUDING INDEXES) PARTITION BY RANGE (id);
CREATE TABLE single.leaf PARTITION OF single.leads DEFAULT;

SELECT lifecycle.track((n || '.leads')::regclass, source => 'source', value => 'amount') FROM unnest('{plain,ranges,hashes,lists,deep,late,single}'::text[]) AS n;
-- all partitions of this one come when it is tracked; the leaf has its columns in another order
CREATE TABLE late.upper (demographic_score float8, lifecycle_seq int, amount numeric, source text, lifecycle_status lifecycle.lifecycle_status,
                         id int PRIMARY KEY, lifecycle_since timestamptz) PARTITION BY RANGE (id);
ALTER TABLE late.leads ATTACH PARTITION late.upper FOR VALUES FROM (0) TO (40);
CREATE TABLE late.leaf PARTITION OF late.upper FOR VALUES FROM (5) TO (20);
CREATE TABLE late.lower (lifecycle_since timestamptz, gone int, id int PRIMARY KEY, lifecycle_status lifecycle.lifecycle_status,
                         source text, amount numeric, lifecycle_seq int, demographic_score float8);
ALTER TABLE late.lower DROP COLUMN gone;
ALTER TABLE late.upper ATTACH PARTITION late.lower DEFAULT;
CREATE SCHEMA made_at_once CREATE TABLE rest PARTITION OF late.leads DEFAULT;
SELECT is_empty(format('SELECT * FROM lifecycle.verify(%L)', n || '.leads'), n || ': all triggers are there')
FROM unnest('{plain,ranges,hashes,lists,deep,late,single}'::text[]) AS n;

CREATE TABLE leaf_of (space text, leaf regclass);
DO $$
DECLARE
    space text;
BEGIN
    FOREACH space IN ARRAY '{plain,ranges,hashes,lists,deep,late,single}'::text[] LOOP
        EXECUTE format('WITH new AS (INSERT INTO %I.leads (id) VALUES (11) RETURNING tableoid) INSERT INTO leaf_of SELECT %1$L, tableoid FROM new', space);
    END LOOP;
END
$$;

-- One statement, in each schema: through its "leads", and where a lead's own
-- leaf is asked for, there.
CREATE FUNCTION everywhere(statement text) RETURNS SETOF text
    LANGUAGE plpgsql
AS $$
DECLARE
    where_ text;
    leaf regclass;
BEGIN
    FOREACH where_ IN ARRAY '{plain,ranges,hashes,lists,deep,late,single}'::text[] LOOP
        PERFORM set_config('search_path', where_ || ', public', true);
        SELECT l.leaf INTO leaf FROM leaf_of l WHERE l.space = where_;
        EXECUTE replace(statement, 'leaf', leaf::text);
        RETURN NEXT format('%s: %s', where_, statement);
    END LOOP;
END
$$;
CREATE FUNCTION told(space text) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    story text;
BEGIN
    EXECUTE format('SELECT string_agg((h.lead, h.seq, h.cycle, h.from_status, h.to_status, h.cause, h.source, h.value, h.reached)::text,
                                      E''\n'' ORDER BY h.lead, h.seq) FROM %I.leads_history h', space) INTO story;
    RETURN story;
END
$$;
COPY (SELECT g, 'copied', g FROM generate_series(31, 40) AS g) TO :'file';
COPY (SELECT 11, 'copied', 11) TO :'one';

CREATE FUNCTION play(batch text, statements text[]) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM set_config('lifecycle.batch_history', batch, true);
    PERFORM everywhere(s.statement) FROM unnest(statements) WITH ORDINALITY AS s (statement, n) ORDER BY s.n;
END
$$;
SELECT lives_ok(format('SELECT play(%L, %L)', batch, ARRAY[
    'INSERT INTO leads (id, source, amount) SELECT g, ''web'', g FROM generate_series(1, 30) AS g ON CONFLICT DO NOTHING',
    'INSERT INTO leaf (id, source) VALUES (11, ''again'') ON CONFLICT (id) DO UPDATE SET source = EXCLUDED.source, lifecycle_status = ''mql''',
    'UPDATE leads SET lifecycle_status = ''mal'' WHERE id % 2 = 0',
    'UPDATE leads SET lifecycle_status = ''mql'', amount = 7 WHERE id > 5',
    'UPDATE leaf SET lifecycle_status = ''sal'' WHERE id = 11',
    'UPDATE leads SET lifecycle_seq = 99, lifecycle_since = NULL, source = ''changed''',
    'DELETE FROM leads WHERE id IN (2, 12, 22)',
    'DELETE FROM leaf WHERE id = 11',
    'INSERT INTO leaf (id, lifecycle_status) VALUES (11, ''sql'')',
    'COPY leads (id, source, amount) FROM ' || quote_literal(:'file'),
    'DELETE FROM leaf WHERE id = 11',
    'COPY leaf (id, source, amount) FROM ' || quote_literal(:'one'),
    'DELETE FROM leads WHERE id = 12',
    'MERGE INTO leads l USING (SELECT g AS id FROM generate_series(9, 45, 3) AS g) AS v ON v.id = l.id
        WHEN MATCHED AND l.id > 35 THEN DELETE
        WHEN MATCHED THEN UPDATE SET lifecycle_status = ''customer''
        WHEN NOT MATCHED THEN INSERT (id, source) VALUES (v.id, ''merged'')',
    'INSERT INTO leads (id, source) SELECT g, ''late'' FROM generate_series(1, 50, 7) AS g ON CONFLICT (id) DO UPDATE SET lifecycle_status = ''disqualified''
        WHERE leads.lifecycle_status IN (''known'', ''mal'')',
    'WITH gone AS (DELETE FROM leads WHERE id = 11 RETURNING id) INSERT INTO leaf (id, source) SELECT id, ''back'' FROM gone',
    'UPDATE leads SET lifecycle_status = ''customer'' FROM generate_series(15, 17) AS g WHERE id = g',
    'TRUNCATE leads',
    'INSERT INTO leads (id) SELECT g FROM generate_series(1, 60) AS g ON CONFLICT DO NOTHING',
    'DELETE FROM leads'
]), 'batch_history = ' || batch || ': all writes work everywhere')
FROM unnest('{on,off}'::text[]) AS batch;
SELECT is(told(n), told('plain'), n || ' has the history of a plain table') FROM unnest('{ranges,hashes,lists,deep,late,single}'::text[]) AS n;
SELECT cmp_ok(length(told('plain')), '>', 5000, 'which is long');
SELECT is_empty(format('SELECT * FROM lifecycle.verify(%L)', n || '.leads'), n || ': verify() finds nothing')
FROM unnest('{plain,ranges,hashes,lists,deep,late,single}'::text[]) AS n;
SELECT is((SELECT count(*) FROM (SELECT seq, row_number() OVER (PARTITION BY lead ORDER BY ctid) AS written FROM deep.leads_history) AS o WHERE seq <> written),
          0::bigint, 'moves are written in their order');

-- reports read the whole of it
INSERT INTO deep.leads (id) SELECT generate_series(1, 20);
UPDATE deep.leads SET lifecycle_status = 'mql' WHERE id BETWEEN 8 AND 12;
SELECT is((SELECT string_agg(status || ' ' || closing, ', ' ORDER BY status) FROM lifecycle.flow('deep.leads', now() - interval '1 day', now() + interval '1 day', '2 days')
           WHERE closing > 0 AND status IN ('known', 'mql')), 'known 15, mql 5', 'flow() counts the leads of all partitions');
SELECT cmp_ok((SELECT reached FROM lifecycle.funnel('deep.leads') WHERE status = 'mql'), '>=', 5::bigint, 'and funnel()');
SELECT set_has($$SELECT lifecycle.next_statuses('deep.leads', 'mql')$$, $$VALUES ('sal')$$, 'next_statuses() knows the table');
SELECT is(failure($$SELECT lifecycle.next_statuses('deep.leaf', 'mql')$$),
          E'55000: table "deep.leaf" is not tracked\nHINT: SELECT lifecycle.track(''deep.leaf'');', 'reports are asked of the tracked table');
TRUNCATE deep.leaf;
TRUNCATE deep.upper;
SELECT is((SELECT count(*) FROM deep.leads_history h WHERE h.to_status IS NULL AND h.recorded_at = (SELECT max(recorded_at) FROM deep.leads_history WHERE lead = h.lead) AND h.lead BETWEEN 10 AND 20),
          11::bigint, 'TRUNCATE of a leaf and of a table in between removes the leads that are there');
TRUNCATE ONLY deep.rest;
SELECT is(failure('TRUNCATE ONLY deep.leads'), E'42809: cannot truncate only a partitioned table\nHINT: Do not specify the ONLY keyword, or use TRUNCATE ONLY on the partitions directly.',
          'TRUNCATE ONLY is for leaves');
SELECT is_empty($$SELECT * FROM lifecycle.verify('deep.leads')$$, 'verify() finds nothing');

-- ---- refusals ----

INSERT INTO deep.leads (id) VALUES (1), (11);
SELECT is(failure(s), E'0A000: key of lead 11 of table "deep.leads" cannot be changed\nDETAIL: The history of the lead is kept under its key.\n'
                      'HINT: DELETE the lead and INSERT it under the other key.\nCOLUMN: id\nCONSTRAINT: lifecycle_key', s)
FROM unnest(ARRAY['UPDATE deep.leads SET id = 5 WHERE id = 11', 'UPDATE deep.leads SET id = 12 WHERE id = 11', 'UPDATE deep.leaf SET id = 12 WHERE id = 11']) AS s;
SELECT is(failure($$UPDATE deep.leaf SET lifecycle_status = 'customer' WHERE id = 11; UPDATE deep.leaf SET lifecycle_status = 'known' WHERE id = 11$$),
          E'23514: lead 11 of table "deep.leads" cannot move from "customer" to "known"\nDETAIL: Model "standard" has no such transition.\n'
          'HINT: From "customer" a lead can become: recycled.\nCOLUMN: lifecycle_status\nCONSTRAINT: lifecycle_transition', 'an illegal move at a leaf names the tracked table');
SELECT is(failure($$SELECT lifecycle.track('deep.leaf')$$), E'42809: cannot track "deep.leaf", which is a partition\nHINT: Track the partitioned table.', 'a partition is not tracked by itself');
SELECT is(failure($$SELECT lifecycle.track('deep.upper')$$), E'42809: cannot track "deep.upper", which is a partition\nHINT: Track the partitioned table.', 'nor a table in between');
CREATE TABLE tracked (id int PRIMARY KEY, source text, amount numeric);
SELECT lifecycle.track('tracked', source => 'source', value => 'amount');
SELECT is(failure('ALTER TABLE single.leads DETACH PARTITION single.leaf; ALTER TABLE single.leads ATTACH PARTITION tracked FOR VALUES FROM (0) TO (10)'),
          E'55000: table "public.tracked" is tracked and cannot become a partition of tracked table "single.leads"\nDETAIL: A lead has one history.\n'
          'HINT: SELECT lifecycle.untrack(''public.tracked''); its history stays, and its leads enter that of "single.leads" as they are.',
          'a tracked table does not become a partition of another');
CREATE TABLE refuge (LIKE tracked INCLUDING INDEXES) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE unlogged PARTITION OF refuge DEFAULT;
SELECT is(failure('ALTER TABLE single.leads DETACH PARTITION single.leaf; ' || s),
          E'42809: unlogged table "' || n || E'" cannot be a partition of tracked table "single.leads"\nDETAIL: Its leads would be gone after a crash, and their history would not.\n'
          'HINT: ALTER TABLE ' || n || ' SET LOGGED;', 'an unlogged table does not become a partition: ' || s)
FROM (VALUES ('ALTER TABLE refuge DETACH PARTITION unlogged; ALTER TABLE single.leads ATTACH PARTITION unlogged DEFAULT', 'public.unlogged'),
             ('ALTER TABLE single.leads ATTACH PARTITION refuge DEFAULT', 'public.unlogged'),
             ('CREATE UNLOGGED TABLE single.fleeting PARTITION OF single.leads FOR VALUES FROM (0) TO (10)', 'single.fleeting')) AS f (s, n);
SELECT is((SELECT count(*) FROM pg_inherits WHERE inhparent = 'single.leads'::regclass), 1::bigint, 'nothing of it stays');
DROP TABLE refuge;
CREATE TABLE above (LIKE tracked INCLUDING INDEXES) PARTITION BY RANGE (id);
ALTER TABLE above ATTACH PARTITION tracked FOR VALUES FROM (0) TO (10);
CREATE TABLE beside PARTITION OF above DEFAULT;
SELECT is(failure($$ALTER TABLE single.leads DETACH PARTITION single.leaf; ALTER TABLE single.leads ATTACH PARTITION above DEFAULT$$) LIKE '55000: table "public.tracked" is tracked%', true,
          'nor below one');
SELECT is(failure($$SELECT lifecycle.track('above', prefix => 'above')$$),
          E'55000: cannot track "public.above", which has partitions that are tracked by themselves\nDETAIL: A lead has one history.\n'
          'HINT: Call lifecycle.untrack() on them first; their histories stay.', 'and the table above is not tracked while it is');
INSERT INTO above (id) VALUES (1), (2), (11);
UPDATE above SET lifecycle_status = 'mql';
UPDATE tracked SET lifecycle_status = 'sal' WHERE id = 1;
TRUNCATE above;
SELECT results_eq('SELECT lead, seq, to_status, cause FROM tracked_history ORDER BY lead, seq',
    $$VALUES (1, 1, 'known', 'entry'), (1, 2, 'mql', 'write'), (1, 3, 'sal', 'write'), (1, 4, NULL, 'delete'),
             (2, 1, 'known', 'entry'), (2, 2, 'mql', 'write'), (2, 3, NULL, 'delete')$$,
    'a tracked table that is a partition of one that is not stays tracked by itself');
SELECT is_empty($$SELECT * FROM lifecycle.verify('tracked')$$, 'verify() finds nothing');

-- ---- attached, detached, attached again ----

CREATE TABLE leads (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
SELECT lifecycle.track('leads');
CREATE TABLE old (name text, id int PRIMARY KEY, demographic_score float8, lifecycle_seq int, lifecycle_since timestamptz, lifecycle_status lifecycle.lifecycle_status);
INSERT INTO old (id, lifecycle_status) VALUES (1, NULL), (2, 'known'), (3, 'sal');
ALTER TABLE leads ATTACH PARTITION old FOR VALUES FROM (1) TO (10);
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'leads that come with a partition are not in the history, which is no fault');
UPDATE leads SET lifecycle_status = 'customer';
DELETE FROM old WHERE id = 2;
SELECT results_eq('SELECT lead, seq, to_status, cause FROM leads_history ORDER BY lead, seq',
    $$VALUES (1, 1, 'customer', 'entry'), (2, 1, 'known', 'backfill'), (2, 2, 'customer', 'write'), (2, 3, NULL, 'delete'),
             (3, 1, 'known', 'backfill'), (3, 2, 'sal', 'backfill'), (3, 3, 'customer', 'write')$$, 'they enter with their first move');

CREATE FUNCTION triggers_of(relation regclass) RETURNS bigint
    LANGUAGE sql RETURN (SELECT count(*) FROM pg_trigger WHERE tgrelid = relation AND NOT tgisinternal);
SELECT is(triggers_of('old'), 7::bigint, 'an attached leaf has our triggers');
BEGIN;
UPDATE old SET lifecycle_status = 'recycled' WHERE id = 1;
ALTER TABLE leads DETACH PARTITION old;
SELECT is(triggers_of('old'), 0::bigint, 'a detached one has none');
SELECT lives_ok($$UPDATE old SET lifecycle_status = 'mql' WHERE id = 1$$, 'and is an ordinary table');
UPDATE old SET lifecycle_status = 'disqualified' WHERE id = 3;
DELETE FROM old WHERE id = 1;
SELECT results_eq($$SELECT "check", lead, detail FROM lifecycle.verify('leads') WHERE "check" = 'status'$$,
    $$VALUES ('status', '1', 'the lead is gone, but its last move was to recycled'), ('status', '3', 'the lead is gone, but its last move was to customer')$$,
    'verify() tells that its leads are gone');
ALTER TABLE leads ATTACH PARTITION old FOR VALUES FROM (1) TO (20);
UPDATE leads SET lifecycle_status = 'sql' WHERE id = 3;
INSERT INTO old (id) VALUES (1);
SELECT results_eq('SELECT lead, seq, to_status, cause FROM leads_history WHERE lead = 1 AND seq > 1 OR lead = 3 AND seq > 3 ORDER BY lead, seq',
    $$VALUES (1, 2, 'recycled', 'write'), (1, 3, NULL, 'delete'), (1, 4, 'known', 'entry'),
             (3, 4, 'disqualified', 'backfill'), (3, 5, 'sql', 'write')$$, 'attached again, they go on from where they are found');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'and verify() finds nothing');
ROLLBACK;
SELECT is(triggers_of('old'), 7::bigint, 'a detachment that is rolled back changes nothing');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');

-- the leads of a partition that is archived for good leave first
CREATE TABLE archived PARTITION OF leads FOR VALUES FROM (100) TO (200);
INSERT INTO archived (id) SELECT generate_series(100, 110);
CREATE TABLE kept AS SELECT * FROM archived;
TRUNCATE archived;
ALTER TABLE leads DETACH PARTITION archived;
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'a partition that is emptied and detached leaves removals');
ALTER TABLE leads ATTACH PARTITION archived FOR VALUES FROM (100) TO (200);
ALTER TABLE leads DETACH PARTITION archived CONCURRENTLY;
SELECT is(triggers_of('archived'), 0::bigint, 'detached concurrently, it has none of our triggers');
SELECT lives_ok('INSERT INTO archived (id) VALUES (100)', 'and is an ordinary table');
DROP TABLE archived, kept;

-- a whole branch
CREATE TABLE branch PARTITION OF leads FOR VALUES FROM (1000) TO (2000) PARTITION BY HASH (id);
CREATE TABLE twig0 PARTITION OF branch FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE twig1 PARTITION OF branch FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT is(triggers_of('branch'), 6::bigint, 'a table in between needs no trigger for TRUNCATE');
SELECT is(triggers_of('twig1'), 7::bigint, 'its partitions do');
INSERT INTO branch (id) SELECT generate_series(1000, 1010);
ALTER TABLE leads DETACH PARTITION branch;
SELECT is(triggers_of('branch') + triggers_of('twig0') + triggers_of('twig1'), 0::bigint, 'a branch is detached with all below');
SELECT lives_ok($$UPDATE twig0 SET lifecycle_status = NULL; TRUNCATE branch$$, 'and ordinary tables again');
ALTER TABLE leads ATTACH PARTITION branch FOR VALUES FROM (1000) TO (2000);
SELECT is(triggers_of('branch') + triggers_of('twig0') + triggers_of('twig1'), 20::bigint, 'attached, all have them');
INSERT INTO leads (id) SELECT generate_series(1000, 1010);
SELECT is((SELECT count(*) FROM leads_history WHERE lead = 1005), 3::bigint, 'what comes back has left');
TRUNCATE branch;
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');

-- other DDL on partitions goes on as ever
SELECT lives_ok(s, s) FROM unnest(ARRAY[
    'ALTER TABLE leads ADD COLUMN more int', 'ALTER TABLE leads RENAME COLUMN name TO title', 'ALTER TABLE leads ALTER COLUMN title TYPE varchar(100)',
    'ALTER TABLE twig0 RENAME TO twig', 'CREATE SCHEMA elsewhere', 'ALTER TABLE twig SET SCHEMA elsewhere', 'CREATE TABLE nothing ()', 'CREATE TABLE part_of_nothing (LIKE nothing)',
    'ALTER TABLE leads RENAME TO people', 'INSERT INTO elsewhere.twig (id) SELECT id FROM (SELECT generate_series(1000, 1010) AS id) AS g WHERE satisfies_hash_partition(''branch''::regclass, 2, 0, id)',
    'ALTER TABLE people RENAME TO leads', 'CREATE TABLE twice PARTITION OF leads FOR VALUES FROM (5000) TO (6000)',
    'CREATE TABLE IF NOT EXISTS twice PARTITION OF leads FOR VALUES FROM (5000) TO (6000)', 'DROP TABLE twice']) AS s;
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'verify() finds nothing');

-- ---- a trigger that is missing ----

DROP TRIGGER lifecycle_before_statement ON twig1;
DROP TRIGGER lifecycle_after_statement ON twig1;
DROP TRIGGER lifecycle_truncate ON twig1;
INSERT INTO twig1 (id) SELECT id FROM (SELECT generate_series(1000, 1010) AS id) AS g WHERE satisfies_hash_partition('branch'::regclass, 2, 1, id);
UPDATE twig1 SET lifecycle_status = 'mql';
UPDATE leads SET lifecycle_status = 'sal' WHERE id >= 1000 AND lifecycle_status = 'mql';
SELECT results_eq($$SELECT "check", detail FROM lifecycle.verify('leads') ORDER BY detail$$,
    $$VALUES ('trigger', 'trigger lifecycle_after_statement on public.twig1 is missing'), ('trigger', 'trigger lifecycle_before_statement on public.twig1 is missing'),
             ('trigger', 'trigger lifecycle_truncate on public.twig1 is missing')$$, 'verify() says what is missing; the history is right without');
SELECT lives_ok($$SELECT lifecycle.follow_partition('twig1')$$, 'it can be added');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'and verify() finds nothing');

-- ---- users' triggers on one leaf ----

CREATE TABLE seen (n serial, lead int, moves bigint, total bigint);
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO seen (lead, moves, total)
    SELECT NEW.id, count(*) FILTER (WHERE h.lead = NEW.id), count(*) FROM leads_history h WHERE h.lead BETWEEN 1000 AND 1999;
    RETURN NULL;
END
$$;
TRUNCATE branch;
INSERT INTO branch (id) SELECT generate_series(1000, 1010);
SELECT count(*) AS before FROM leads_history WHERE lead BETWEEN 1000 AND 1999 \gset
CREATE TRIGGER look AFTER UPDATE ON twig1 FOR EACH ROW EXECUTE FUNCTION look();
SELECT count(*) AS there FROM twig1 \gset
UPDATE leads SET lifecycle_status = 'mql' WHERE id BETWEEN 1000 AND 1999;
SELECT is((SELECT count(*)::int FROM seen), :there, 'a trigger on one leaf fires for its leads');
SELECT ok((SELECT bool_and(s.moves = (SELECT count(*) FROM leads_history h WHERE h.lead = s.lead)) FROM seen s), 'and finds each move recorded');
UPDATE leads SET title = 'no move' WHERE id BETWEEN 1000 AND 1999;
SELECT is((SELECT count(*)::int FROM leads_history WHERE lead BETWEEN 1000 AND 1999), :before + 11, 'exactly one move each');
-- a trigger that writes leads of another leaf
CREATE FUNCTION push() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE leads SET lifecycle_status = 'sal' WHERE lifecycle_status = 'mql' AND tableoid <> TG_RELID AND id >= 1000;
    RETURN NULL;
END
$$;
CREATE TRIGGER push AFTER UPDATE ON twig1 FOR EACH STATEMENT EXECUTE FUNCTION push();
CREATE TRIGGER push_row AFTER UPDATE ON twig1 FOR EACH ROW EXECUTE FUNCTION push();
UPDATE leads SET lifecycle_status = 'sql' WHERE id BETWEEN 1000 AND 1999;
UPDATE twig1 SET lifecycle_status = 'recycled';
UPDATE leads SET lifecycle_status = 'mql' WHERE lifecycle_status = 'recycled';
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'triggers on one leaf that write leads of another: verify() finds nothing');
SELECT is((SELECT count(*) FROM (SELECT seq, row_number() OVER (PARTITION BY lead ORDER BY ctid) AS written FROM leads_history WHERE lead >= 1000) AS o WHERE seq <> written),
          0::bigint, 'and the moves are in their order');
DROP TABLE branch CASCADE;

-- ---- privileges ----

CREATE ROLE partition_owner; CREATE ROLE partition_writer; CREATE ROLE partition_other;
CREATE SCHEMA owned AUTHORIZATION partition_owner;
GRANT USAGE, CREATE ON SCHEMA owned TO partition_other; GRANT USAGE ON SCHEMA owned TO partition_writer;
SET ROLE partition_owner;
CREATE TABLE owned.leads (id int PRIMARY KEY, name text, twice text GENERATED ALWAYS AS (name || name) STORED) PARTITION BY RANGE (id);
CREATE TABLE owned.low PARTITION OF owned.leads FOR VALUES FROM (0) TO (10);
CREATE TABLE owned.high PARTITION OF owned.leads FOR VALUES FROM (10) TO (20);
CREATE FUNCTION owned.who(name text) RETURNS text LANGUAGE sql STABLE RETURN current_user::text || name;
SELECT lifecycle.track('owned.leads', source => 'owned.who(name)', actor => 'twice');
GRANT INSERT, UPDATE, DELETE, SELECT ON owned.leads TO partition_writer;
RESET ROLE;
ALTER TABLE owned.high OWNER TO partition_other;
SELECT is(failure(s, 'partition_writer'), 'no error', 'with rights on the tracked table alone: ' || s)
FROM unnest(ARRAY['INSERT INTO owned.leads (id, name) VALUES (1, ''x''), (11, ''y'')', 'UPDATE owned.leads SET lifecycle_status = ''mql''',
                  'DELETE FROM owned.leads WHERE id = 1', 'INSERT INTO owned.leads (id, name) VALUES (11, ''z'') ON CONFLICT (id) DO UPDATE SET lifecycle_status = ''sal''']) AS s;
SELECT is(failure('UPDATE owned.high SET name = NULL', 'partition_writer'), '42501: permission denied for table high', 'but not at a leaf');
SELECT is(failure('UPDATE owned.high SET lifecycle_status = ''sql''', 'partition_other'), 'no error', 'the owner of a leaf writes it');
SELECT results_eq('SELECT lead, seq, to_status, source, actor FROM owned.leads_history ORDER BY lead, seq',
    $$VALUES (1, 1, 'known', 'partition_ownerx', 'xx'), (1, 2, 'mql', 'partition_ownerx', 'xx'), (1, 3, NULL, 'partition_ownerx', 'xx'),
             (11, 1, 'known', 'partition_ownery', 'yy'), (11, 2, 'mql', 'partition_ownery', 'yy'), (11, 3, 'sal', 'partition_ownery', 'yy'),
             (11, 4, 'sql', 'partition_ownery', 'yy')$$, 'expressions run as the owner of the tracked table');
SELECT is(failure(s, 'partition_other'), e, 'the owner of a leaf cannot: ' || s)
FROM (VALUES ($$SET LOCAL lifecycle.at = '2020-01-01'; UPDATE owned.high SET lifecycle_status = 'customer'$$,
              E'42501: permission denied to set "lifecycle.at" for table "owned.leads"\nDETAIL: Only members of role "partition_owner", which owns the table, may say when a move happened.\nHINT: Without it, a move happens now.'),
             ('DELETE FROM owned.leads_history', '42501: permission denied for table leads_history'),
             ($$SELECT lifecycle.announce('owned.high', 'backfill')$$, E'42501: must be owner of table leads\nHINT: Let a member of role partition_owner do it.'),
             ($$SELECT lifecycle.announce('owned.leads', 'rescore', 'x')$$, E'42501: must be owner of table leads\nHINT: Let a member of role partition_owner do it.'),
             ($$SELECT lifecycle.correct('owned.high', 11, 'known', 'x')$$, E'42501: must be owner of table leads\nHINT: Let a member of role partition_owner do it.'),
             ($$SELECT lifecycle.erase('owned.high', 11)$$, E'42501: must be owner of table leads\nHINT: Let a member of role partition_owner do it.'),
             ($$SELECT lifecycle.import_history('owned.high', 'SELECT 11 AS lead, ''known'' AS status, now() AS at')$$, E'42501: must be owner of table leads\nHINT: Let a member of role partition_owner do it.')) AS f (s, e);
SELECT is(failure('CREATE TABLE owned.theirs (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE owned.theirs1 PARTITION OF owned.theirs DEFAULT; ALTER TABLE owned.theirs DETACH PARTITION owned.theirs1',
                  'partition_other'), 'no error', 'DDL of others is none of our business');
-- a leaf of another role is detached: its triggers cannot be dropped, and it says so
SET client_min_messages = error;
SET ROLE partition_owner;
ALTER TABLE owned.leads DETACH PARTITION owned.high;
RESET ROLE;
RESET client_min_messages;
SELECT is(failure('UPDATE owned.high SET name = NULL', 'partition_other'),
          E'39P01: trigger "lifecycle_before_statement" on table "high" belongs to the program of another table\nHINT: Triggers of lifecycle are made by lifecycle.track().',
          'triggers left on a detached leaf of another role raise an error');
SELECT is(failure($$SELECT lifecycle.untrack('owned.high')$$, 'partition_other'), 'no error', 'its owner takes them off');
SELECT is(failure('UPDATE owned.high SET name = NULL', 'partition_other'), 'no error', 'and it is an ordinary table');
ALTER TABLE owned.leads ATTACH PARTITION owned.high FOR VALUES FROM (10) TO (20);
SELECT is_empty($$SELECT * FROM lifecycle.verify('owned.leads')$$, 'attached by a superuser, it is complete');
-- whoever may not use the schema is left in peace
REVOKE USAGE ON SCHEMA lifecycle FROM PUBLIC;
SELECT is(failure('CREATE TABLE owned.theirs2 PARTITION OF owned.theirs DEFAULT; ALTER TABLE owned.theirs DETACH PARTITION owned.theirs2', 'partition_other'), 'no error', 'without USAGE on our schema, too');
GRANT USAGE ON SCHEMA lifecycle TO PUBLIC;

-- generation expressions of another role's leaf do not run as the owner of the tracked table
CREATE FUNCTION owned.spy(name text) RETURNS text LANGUAGE sql IMMUTABLE RETURN 'spy ' || name;
SELECT is(failure($$
    CREATE TABLE owned.spied (id int PRIMARY KEY, name text, made text GENERATED ALWAYS AS (owned.spy(name)) STORED) PARTITION BY RANGE (id);
    CREATE TABLE owned.leaf PARTITION OF owned.spied DEFAULT;
    SELECT lifecycle.track('owned.spied', source => 'made');
    INSERT INTO owned.spied (id, name) VALUES (1, 'a')$$, 'partition_owner'), 'no error', 'an expression reads a generated column');
ALTER TABLE owned.leaf OWNER TO partition_other;
SELECT is(failure('INSERT INTO owned.spied (id, name) VALUES (20, ''a'')'),
          E'42501: partition "leaf" does not belong to the owner of its tracked table\nDETAIL: An expression of the program reads a generated column of the partition, and would call functions that another role chose.\nHINT: ALTER TABLE owned.leaf OWNER TO partition_owner.',
          'the owner of a leaf does not become the owner of the tracked table');

-- a change of owner is obeyed at once, also at the leaves
CREATE ROLE partition_heir;
GRANT USAGE ON SCHEMA owned TO partition_heir;
INSERT INTO owned.low (id, name) VALUES (3, 'before');
ALTER TABLE owned.leads OWNER TO partition_heir;
INSERT INTO owned.low (id, name) VALUES (4, 'after');
SELECT results_eq('SELECT lead, source FROM owned.leads_history WHERE lead IN (3, 4) ORDER BY lead', $$VALUES (3, 'partition_ownerbefore'), (4, 'partition_heirafter')$$,
                  'the expressions run as the new owner');

-- ---- untrack() ----

SELECT lifecycle.untrack('deep.leads');
SELECT is_empty($$SELECT t.tgname FROM lifecycle.tables_of('deep.leads') AS r JOIN pg_trigger t ON t.tgrelid = r.relation WHERE NOT t.tgisinternal$$, 'untrack() takes all triggers off all partitions');
SELECT lives_ok($$INSERT INTO deep.leads (id) VALUES (55); UPDATE deep.leaf SET lifecycle_status = 'known'; TRUNCATE deep.leads$$, 'they are ordinary tables again');
SELECT lifecycle.track('deep.leads', source => 'source', value => 'amount');
INSERT INTO deep.leaf (id) VALUES (11);
SELECT is((SELECT cause FROM deep.leads_history WHERE lead = 11 ORDER BY seq DESC LIMIT 1), 'entry', 'the history is taken up again');
SELECT lifecycle.untrack('deep.leads', drop_data => true);
SELECT columns_are('deep', 'leaf', ARRAY['id', 'amount', 'source'], 'drop_data takes our columns off all');
SELECT hasnt_table('deep', 'leads_history', 'and the history');
DROP TABLE late.leads CASCADE;
SELECT is_empty($$SELECT FROM lifecycle.program p WHERE p.prefix = 'leads' AND p.lead_table NOT IN (SELECT oid FROM pg_class)$$, 'a dropped table takes its program along');

DROP OWNED BY partition_owner, partition_writer, partition_other, partition_heir CASCADE;
DROP ROLE partition_owner, partition_writer, partition_other, partition_heir;
SELECT * FROM finish();
