-- What track() refuses: each with its SQLSTATE, message, detail and hint, and
-- with nothing left behind.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE TYPE few AS ENUM ('known', 'mql');
CREATE SCHEMA s;
SET search_path = public, s;
CREATE TABLE nokey (id int);
CREATE TABLE composite (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE nullable (id int UNIQUE);
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE);
CREATE TABLE indexes (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL, c int NOT NULL, d int NOT NULL);
CREATE UNIQUE INDEX ON indexes (a) WHERE a > 0;
CREATE UNIQUE INDEX ON indexes (abs(b));
CREATE UNIQUE INDEX ON indexes (c, b);
CREATE INDEX ON indexes (d);
CREATE TABLE both_ways (id int PRIMARY KEY, d int NOT NULL);
ALTER TABLE both_ways ADD UNIQUE (d) DEFERRABLE;
CREATE UNIQUE INDEX ON both_ways (d);
DO $$BEGIN
    CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE cases (id text COLLATE any_case NOT NULL);
    CREATE UNIQUE INDEX ON cases (id COLLATE "C");
EXCEPTION WHEN feature_not_supported THEN
    NULL; -- the server is built without ICU
END$$;
CREATE TABLE s.leads (id int PRIMARY KEY, number int, small varchar(8), letters char(12), status text, twice text GENERATED ALWAYS AS (status || 'x') STORED,
                      step few, steps lifecycle.lifecycle_status[]);
CREATE TABLE filled (id int PRIMARY KEY, status text);
INSERT INTO filled VALUES (1, 'known'), (2, 'warm'), (3, 'kalt'), (4, NULL), (5, 'warm'), (6, '');
CREATE TABLE ours (id int PRIMARY KEY, demographic_score int);
CREATE TABLE since (id int PRIMARY KEY, lifecycle_since timestamptz);
CREATE TABLE number (id int PRIMARY KEY, lifecycle_seq int);
CREATE TABLE status (id int PRIMARY KEY, lifecycle_status int);
CREATE TABLE taken1 (id int PRIMARY KEY); CREATE TABLE taken1_history (x int);
CREATE TABLE taken2 (id int PRIMARY KEY); CREATE VIEW taken2_refused AS SELECT 1 AS x;
CREATE TABLE taken3 (id int PRIMARY KEY); CREATE SEQUENCE taken3_history;
CREATE TABLE taken4 (id int PRIMARY KEY);
CREATE FUNCTION taken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER zz_lifecycle_before_row BEFORE INSERT ON taken4 FOR EACH ROW EXECUTE FUNCTION taken();
CREATE TABLE a_name_of_sixty_bytes_that_leaves_no_room_for_a_longer_one_xx (id int PRIMARY KEY);
CREATE TEMP TABLE temporary (id int PRIMARY KEY);
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE far_away (id int) SERVER nowhere;
CREATE VIEW seen AS SELECT * FROM s.leads;
CREATE MATERIALIZED VIEW stored AS SELECT * FROM s.leads;
CREATE TABLE parts (id int PRIMARY KEY, region int NOT NULL) PARTITION BY HASH (id);
CREATE TABLE part PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE by_region (id int NOT NULL, region int NOT NULL, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE half_indexed (id int NOT NULL) PARTITION BY HASH (id);
CREATE TABLE half PARTITION OF half_indexed FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE UNIQUE INDEX ON ONLY half_indexed (id);
CREATE TABLE with_foreign (id int NOT NULL) PARTITION BY HASH (id);
CREATE FOREIGN TABLE foreign_part PARTITION OF with_foreign FOR VALUES WITH (MODULUS 1, REMAINDER 0) SERVER nowhere;
CREATE TABLE with_unlogged (id int PRIMARY KEY) PARTITION BY HASH (id);
CREATE UNLOGGED TABLE unlogged_part PARTITION OF with_unlogged FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
CREATE SEQUENCE numbers; CREATE TYPE row_type AS (id int);
INSERT INTO lifecycle.model VALUES ('empty'), ('mine');
INSERT INTO lifecycle.stage (model, status, rank) VALUES ('mine', 'neu', 1), ('mine', 'alt', 2), ('mine', 'mql', 3);

-- All that a refused track() might leave.
CREATE TABLE before AS
SELECT 'column' AS kind, attrelid::regclass::text AS name, attname::text AS part FROM pg_attribute
WHERE attrelid > 16383 AND attrelid::regclass::text NOT LIKE 'pg_toast.%'
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname::text FROM pg_trigger
UNION ALL SELECT 'program', lead_table::text, '' FROM lifecycle.program;

SELECT is(failure(format('SELECT lifecycle.track(%s)', w.arguments)), replace(w.error, '|', E'\n'), 'refused: track(' || w.arguments || ')')
FROM (VALUES
    -- keys
    ($$'nokey'$$, '42P16: table "public.nokey" has no primary key|HINT: Add one, or name a unique column that is NOT NULL: lifecycle.track(..., key => ''id'').'),
    ($$'composite'$$, '42P16: primary key of table "public.composite" has more than one column|DETAIL: A lead is known by a key of one column.'
        '|HINT: Name a unique column that is NOT NULL: lifecycle.track(..., key => ''id'').'),
    ($$'nullable', key => 'id'$$, '42P16: key column "id" of table "public.nullable" is not declared NOT NULL|HINT: ALTER TABLE public.nullable ALTER COLUMN id SET NOT NULL;'),
    ($$'deferred'$$, '42P16: uniqueness of key column "id" of table "public.deferred" is deferrable|DETAIL: Until it is checked, two leads could have one key.|HINT: Make the constraint NOT DEFERRABLE.'),
    ($$'indexes', key => 'a'$$, '42P16: key column "a" of table "public.indexes" is not unique|DETAIL: No valid unique index covers this column alone and every row.|HINT: CREATE UNIQUE INDEX CONCURRENTLY ON public.indexes (a);'),
    ($$'indexes', key => 'b'$$, '42P16: key column "b" of table "public.indexes" is not unique|DETAIL: No valid unique index covers this column alone and every row.|HINT: CREATE UNIQUE INDEX CONCURRENTLY ON public.indexes (b);'),
    ($$'indexes', key => 'c'$$, '42P16: key column "c" of table "public.indexes" is not unique|DETAIL: No valid unique index covers this column alone and every row.|HINT: CREATE UNIQUE INDEX CONCURRENTLY ON public.indexes (c);'),
    ($$'indexes', key => 'd'$$, '42P16: key column "d" of table "public.indexes" is not unique|DETAIL: No valid unique index covers this column alone and every row.|HINT: CREATE UNIQUE INDEX CONCURRENTLY ON public.indexes (d);'),
    ($$'indexes', key => 'nosuch'$$, '42703: column "nosuch" of table "public.indexes" does not exist|HINT: The key is a column that is unique and NOT NULL.'),
    ($$'indexes', key => 'ctid'$$, '42703: column "ctid" of table "public.indexes" does not exist|HINT: The key is a column that is unique and NOT NULL.'),
    -- what is no plain table
    ($$'temporary'$$, '42809: cannot track "temporary", which is a temporary table|DETAIL: Its leads would be gone with the session.'),
    ($$'unlogged'$$, '42809: cannot track "public.unlogged", which is an unlogged table|DETAIL: Its leads would be gone after a crash, and their history would not.|HINT: ALTER TABLE public.unlogged SET LOGGED;'),
    ($$'far_away'$$, '42809: cannot track "public.far_away", which is a foreign table|HINT: Track the table on the server that it is on.'),
    ($$'seen'$$, '42809: cannot track "public.seen", which is a view|HINT: Track the table that the view reads.'),
    ($$'stored'$$, '42809: cannot track "public.stored", which is a view|HINT: Track the table that the view reads.'),
    ($$'by_region', key => 'id'$$, '42P16: key column "id" of table "public.by_region" is not unique|DETAIL: No valid unique index covers this column alone and every row.|HINT: A partitioned table of leads is partitioned by its key: CREATE UNIQUE INDEX ON public.by_region (id);'),
    ($$'half_indexed', key => 'id'$$, '42P16: key column "id" of table "public.half_indexed" is not unique|DETAIL: No valid unique index covers this column alone and every row.|HINT: A partitioned table of leads is partitioned by its key: CREATE UNIQUE INDEX ON public.half_indexed (id);'),
    ($$'with_foreign', key => 'id'$$, '42809: cannot track "public.with_foreign", which has foreign tables as partitions|HINT: Track the tables on the servers that they are on.'),
    ($$'with_unlogged'$$, '42809: cannot track "public.with_unlogged", which has unlogged tables as partitions|DETAIL: Their leads would be gone after a crash, and their history would not.'),
    ($$'part'$$, '42809: cannot track "public.part", which is a partition|HINT: Track the partitioned table.'),
    ($$'parent'$$, '42809: cannot track "public.parent", from which other tables inherit|DETAIL: Writes to their rows would not be seen.'),
    ($$'child'$$, '42809: cannot track "public.child", which inherits from another table|DETAIL: Its leads are rows of that table as well.'),
    ($$'parent_pkey'$$, '42809: cannot track "public.parent_pkey", which is not a table'),
    ($$'numbers'$$, '42809: cannot track "public.numbers", which is not a table'),
    ($$'row_type'$$, '42809: cannot track "public.row_type", which is not a table'),
    ($$'pg_class'$$, '42809: cannot track "pg_class", which is in schema "pg_catalog"'),
    ($$'lifecycle.model'$$, '42809: cannot track "lifecycle.model", which is in schema "lifecycle"'),
    ($$999999$$, '42P01: relation with OID 999999 does not exist'),
    -- status columns
    ($$'leads', status_column => 'nosuch'$$, '42703: column "nosuch" of table "s.leads" does not exist|HINT: Leave out status_column, and a column lifecycle_status is added.'),
    ($$'leads', status_column => 'number'$$, '42804: status column "number" of table "s.leads" is of type integer|DETAIL: A status column is an enum, text or character varying.|HINT: Leave out status_column, and a column lifecycle_status is added.'),
    ($$'leads', status_column => 'letters'$$, '42804: status column "letters" of table "s.leads" is of type character(12)|DETAIL: A status column is an enum, text or character varying.|HINT: Leave out status_column, and a column lifecycle_status is added.'),
    ($$'leads', status_column => 'steps'$$, '42804: status column "steps" of table "s.leads" is of type lifecycle.lifecycle_status[]|DETAIL: A status column is an enum, text or character varying.|HINT: Leave out status_column, and a column lifecycle_status is added.'),
    ($$'leads', status_column => 'twice'$$, '42P16: status column "twice" of table "s.leads" is a generated column|HINT: Leave out status_column, and a column lifecycle_status is added.'),
    ($$'leads', status_column => 'small'$$, '42804: type character varying(8) of status column "small" does not have all statuses of model "standard"|DETAIL: It lacks: opportunity, disqualified.|HINT: Make the column wider.'),
    ($$'leads', status_column => 'step'$$, '42804: type public.few of status column "step" does not have all statuses of model "standard"|DETAIL: It lacks: mal, engaged, sal, sql, opportunity, customer, disqualified, lost, recycled.'
        '|HINT: ALTER TYPE public.few ADD VALUE ..., or make a model of your own with lifecycle.copy_model().'),
    ($$'leads', 'mine'$$, '42804: type lifecycle.lifecycle_status does not have all statuses of model "mine"|DETAIL: It lacks: neu, alt.'
        '|HINT: Add a status column of your own to s.leads (text, character varying or an enum) and name it: status_column => ''...''.'),
    ($$'filled', status_column => 'status'$$, '23514: table "public.filled" has rows with a status that model "standard" lacks|DETAIL: The statuses are: , kalt, warm.'
        '|HINT: Make a model of your own with lifecycle.copy_model() and add them to it, or change the rows.'),
    ($$'leads', status_column => 'id'$$, '42804: status column "id" of table "s.leads" is of type integer|DETAIL: A status column is an enum, text or character varying.|HINT: Leave out status_column, and a column lifecycle_status is added.'),
    -- names that are taken
    ($$'ours'$$, '42701: column "demographic_score" of table "public.ours" already exists|DETAIL: Lifecycle keeps a column of that name and would overwrite what is in it.|HINT: ALTER TABLE public.ours RENAME COLUMN demographic_score TO ...;'),
    ($$'since'$$, '42701: column "lifecycle_since" of table "public.since" already exists|DETAIL: Lifecycle keeps a column of that name and would overwrite what is in it.|HINT: ALTER TABLE public.since RENAME COLUMN lifecycle_since TO ...;'),
    ($$'number'$$, '42701: column "lifecycle_seq" of table "public.number" already exists|DETAIL: Lifecycle keeps a column of that name and would overwrite what is in it.|HINT: ALTER TABLE public.number RENAME COLUMN lifecycle_seq TO ...;'),
    ($$'taken1'$$, '42P07: relation "public.taken1_history" already exists|DETAIL: It is not a history that lifecycle.untrack() of public.taken1 left.|HINT: Choose other names with prefix => ''...''.'),
    ($$'taken3'$$, '42P07: relation "public.taken3_history" already exists|DETAIL: It is not a history that lifecycle.untrack() of public.taken3 left.|HINT: Choose other names with prefix => ''...''.'),
    ($$'taken4'$$, '42710: trigger "zz_lifecycle_before_row" for relation "taken4" already exists'),
    ($$'taken1', prefix => 'taken3'$$, '42P07: relation "public.taken3_history" already exists|DETAIL: It is not a history that lifecycle.untrack() of public.taken1 left.|HINT: Choose other names with prefix => ''...''.'),
    ($$'a_name_of_sixty_bytes_that_leaves_no_room_for_a_longer_one_xx'$$,
        '42622: name "a_name_of_sixty_bytes_that_leaves_no_room_for_a_longer_one_xx_funnel_monthly" is too long|HINT: Give a shorter one: prefix => ''...''.'),
    ($$'leads', prefix => repeat('ü', 28)$$, '42622: name "üüüüüüüüüüüüüüüüüüüüüüüüüüüü_funnel_monthly" is too long|HINT: Give a shorter one: prefix => ''...''.'),
    -- the other arguments
    ($$'leads', 'nobody'$$, '42704: model "nobody" does not exist|HINT: The models are: empty, etumos, marketo, mine, standard.'),
    ($$'leads', 'empty'$$, '55000: model "empty" has no stage with a rank|HINT: A lead without a status enters on the stage of the lowest rank.'),
    ($$'leads', tz => 'Mars/Olympus'$$, '22023: time zone "Mars/Olympus" not recognized'),
    ($$'leads', on_illegal => 'Keep'$$, '22023: on_illegal must be "error" or "keep", not "Keep"'),
    ($$NULL$$, '22004: lead_table, model, status_column, on_illegal and tz must not be null'),
    ($$'leads', NULL$$, '22004: lead_table, model, status_column, on_illegal and tz must not be null'),
    ($$'leads', status_column => NULL$$, '22004: lead_table, model, status_column, on_illegal and tz must not be null'),
    ($$'leads', on_illegal => NULL$$, '22004: lead_table, model, status_column, on_illegal and tz must not be null'),
    ($$'leads', tz => NULL$$, '22004: lead_table, model, status_column, on_illegal and tz must not be null'),
    ($$'leads', source => 'nosuch'$$, '42703: column "nosuch" does not exist')
) AS w (arguments, error);

-- where only the gist of a line is promised
SELECT throws_ok($$SELECT lifecycle.track('status')$$, '42804', 'status column "lifecycle_status" of table "public.status" is of type integer',
                 'a column lifecycle_status of another type is no status column');
SELECT to_regclass('cases') IS NOT NULL AS has_icu \gset
\if :has_icu
    SELECT throws_ok($$SELECT lifecycle.track('cases', key => 'id')$$, '42P16', 'key column "id" of table "public.cases" is not unique',
                     'an index that takes two keys for different which the column takes for the same');
\else
    SELECT skip('the server is built without ICU, so that all collations tell keys apart in the same way', 1);
\endif
SELECT throws_ok($$SELECT lifecycle.track('taken2')$$, '42P07', 'relation "public.taken2_refused" already exists',
                 'a view in the place of the table of refused moves');

SELECT results_eq($$
    SELECT 'column' AS kind, attrelid::regclass::text AS name, attname::text AS part FROM pg_attribute
    WHERE attrelid > 16383 AND attrelid <> 'before'::regclass AND attrelid::regclass::text NOT LIKE 'pg_toast.%'
    UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname::text FROM pg_trigger
    UNION ALL SELECT 'program', lead_table::text, '' FROM lifecycle.program
    EXCEPT SELECT * FROM before$$, 'SELECT NULL::text, NULL::text, NULL::text WHERE false', 'nothing is left behind by any of them');

-- ---- the same tables, put right as the hint says ----

ALTER TABLE nullable ALTER COLUMN id SET NOT NULL;
ALTER TABLE unlogged SET LOGGED;
CREATE UNIQUE INDEX ON indexes (a);
DROP VIEW seen; DROP MATERIALIZED VIEW stored;
ALTER TABLE s.leads ALTER small TYPE varchar(12);
ALTER TABLE ours RENAME COLUMN demographic_score TO points;
SELECT lives_ok(format('SELECT lifecycle.track(%s)', w.arguments), 'put right: track(' || w.arguments || ')')
FROM (VALUES ($$'nullable', key => 'id'$$), ($$'unlogged'$$), ($$'indexes', key => 'a'$$), ($$'leads', status_column => 'small'$$), ($$'ours'$$),
             ($$'taken1', prefix => 'free'$$), ($$'both_ways', key => 'd'$$),
             ($$'a_name_of_sixty_bytes_that_leaves_no_room_for_a_longer_one_xx', prefix => 'short'$$)) AS w (arguments);

SELECT * FROM finish();
