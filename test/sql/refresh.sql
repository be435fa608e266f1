-- refresh(): what it brings up to date, for whom, and what the flow and the
-- views say whatever was written in whatever way.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();
SET TimeZone = 'UTC';

CREATE ROLE refresh_owner;
CREATE ROLE refresh_member IN ROLE refresh_owner;
CREATE ROLE refresh_other;
GRANT CREATE ON SCHEMA public TO refresh_owner, refresh_other;
SET ROLE refresh_owner;
CREATE TABLE leads (id int PRIMARY KEY, source text, cohort int);
SELECT lifecycle.track('leads', model => 'etumos', source => 'source', cohort => 'cohort', on_illegal => 'keep');
RESET ROLE;
SET ROLE refresh_other;
CREATE TABLE others (id int PRIMARY KEY);
SELECT lifecycle.track('others');
INSERT INTO others VALUES (1);
RESET ROLE;

-- What <prefix>_funnel and <prefix>_funnel_monthly must be, by the reports.
CREATE FUNCTION funnel_differs(leads regclass) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH should AS (
            SELECT f.segment, f.status, f.rank, f.reached, f.of_which_inferred, round(f.next_step_rate::numeric, 4)::float8,
                   round(f.cumulative_rate::numeric, 4)::float8
            FROM (SELECT * FROM lifecycle.funnel_of_history(%1$L, '-infinity', 'infinity', 'filled', 'ever', NULL)
                  UNION ALL SELECT * FROM lifecycle.funnel_of_history(%1$L, '-infinity', 'infinity', 'filled', 'ever', 'source')) AS f
        ), has AS (
            SELECT segment, status, rank, reached, of_which_inferred, next_step_rate, cumulative_rate FROM %2$s
        )
        SELECT 'not in the view: ' || d::text FROM (SELECT * FROM should EXCEPT ALL SELECT * FROM has) AS d
        UNION ALL SELECT 'in the view: ' || d::text FROM (SELECT * FROM has EXCEPT ALL SELECT * FROM should) AS d$q$,
        leads::text, (SELECT p.funnel FROM lifecycle.program p WHERE p.lead_table = leads));
END $$;
CREATE FUNCTION months_differ(leads regclass) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    program lifecycle.program := lifecycle.program_of(leads);
    first timestamptz;
BEGIN
    EXECUTE format('SELECT date_trunc(''month'', min(at) AT TIME ZONE $1) AT TIME ZONE $1 FROM %s', program.history) INTO first USING program.tz;
    RETURN QUERY EXECUTE format($q$
        WITH months AS (
            SELECT m.bucket, m.status, m.rank, m.opening, m.inflow, m.inflow_new, m.inflow_again, m.outflow, m.closing
            FROM lifecycle.flow(%1$L, $1, now(), '1 month') AS m
        ), next AS (
            SELECT s.status, lead(s.status) OVER (ORDER BY s.rank) AS next_status FROM lifecycle.stage s WHERE s.model = $3 AND s.rank IS NOT NULL
        ), starts AS (
            SELECT b.bucket, lead(b.bucket, 1, 'infinity') OVER (ORDER BY b.bucket) AS until FROM (SELECT DISTINCT m.bucket FROM months m) AS b
        ), should AS (
            SELECT (m.bucket AT TIME ZONE $2)::date AS month, m.status, m.rank, m.opening, m.inflow, m.inflow_new, m.inflow_again, m.outflow, m.closing,
                   CASE WHEN n.next_status IS NOT NULL THEN
                       coalesce(round(c.period_rate::numeric, 4)::float8, CASE WHEN e.entered THEN 0 END) END AS period_rate
            FROM months m
            JOIN starts b USING (bucket)
            LEFT JOIN next n ON n.status = m.status
            LEFT JOIN LATERAL lifecycle.conversion_of_history($4, %3$L::regclass, m.bucket, b.until) AS c
                   ON c.from_status = m.status AND c.to_status = n.next_status
            CROSS JOIN LATERAL (
                SELECT count(*) > 0 AS entered
                FROM (SELECT h.*, lead(h.cause) OVER (PARTITION BY h.lead ORDER BY h.seq) AS next_cause FROM %3$s h) AS h
                WHERE h.to_status = m.status AND h.at >= m.bucket AND h.at < b.until AND h.cause NOT IN ('correction', 'backfill')
                  AND h.next_cause IS DISTINCT FROM 'correction') AS e
        ), has AS (
            SELECT month, status, rank, opening, inflow, inflow_new, inflow_again, outflow, closing, period_rate FROM %2$s
        )
        SELECT 'not in the view: ' || d::text FROM (SELECT * FROM should EXCEPT ALL SELECT * FROM has) AS d
        UNION ALL SELECT 'in the view: ' || d::text FROM (SELECT * FROM has EXCEPT ALL SELECT * FROM should) AS d$q$,
        leads::text, program.funnel_monthly, program.history)
    USING first, program.tz, program.model, program;
END $$;
-- Refreshes, asks verify(), and compares.
CREATE FUNCTION differs(leads regclass DEFAULT 'leads') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before text := (SELECT string_agg(v::text, E'\n') FROM lifecycle.verify(leads) AS v);
BEGIN
    PERFORM lifecycle.refresh(leads);
    RETURN concat_ws(E'\n', before, (SELECT string_agg(v::text, E'\n') FROM lifecycle.verify(leads) AS v),
                     (SELECT string_agg(d, E'\n') FROM funnel_differs(leads) AS d), (SELECT string_agg(d, E'\n') FROM months_differ(leads) AS d));
END $$;

-- ---- for whom ----

SELECT is((SELECT count(*) FROM leads_funnel), 8::bigint, 'before the first lead there is a funnel of nobody');
SELECT is_empty('SELECT * FROM leads_funnel_monthly', 'and no month');
INSERT INTO leads VALUES (1, 'web', 0), (2, NULL, 1), (3, '', NULL);
SELECT is((SELECT count(*) FROM leads_flow_pending) > 0, true, 'what is written is appended');
SELECT is(failure($$SELECT lifecycle.refresh('leads')$$, 'refresh_other'),
          E'42501: must be owner of table leads\nHINT: Let a member of role refresh_owner call lifecycle.refresh().', 'somebody else''s table');
SELECT is(failure($$SELECT lifecycle.refresh('leads_history')$$),
          E'55000: table "public.leads_history" is not tracked\nHINT: SELECT lifecycle.track(''public.leads_history'');', 'a table that is not tracked');
SELECT is(failure(format('SELECT lifecycle.%s', f.called), 'refresh_other'), '42501: must be owner of table ' || f.not_owned,
          f.called || ': nobody keeps others from merging, or merges')
FROM (VALUES ('lock_flow(''leads_flow'')', 'leads_flow'), ('merge_flow(''leads_flow'', ''leads_flow_pending'')', 'leads_flow'),
             ('merge_flow(''others_flow'', ''leads_flow_pending'')', 'leads_flow_pending')) AS f (called, not_owned);
SELECT is(failure(format('SELECT lifecycle.%s', f.called)), '42809: "others_funnel" is not a plain table', 'nor what is no flow: ' || f.called)
FROM unnest(ARRAY['merge_flow(''others_funnel'', ''others_flow_pending'')', 'merge_flow(''others_flow'', ''others_funnel'')']) AS f (called);
SELECT is(failure('SELECT lifecycle.refresh()', 'refresh_other'), 'no error', 'all that one owns');
SELECT is((SELECT array_agg(DISTINCT span ORDER BY span) FROM others_flow), '{all,day,month,total}', 'is merged');
SELECT is((SELECT reached FROM others_funnel WHERE segment IS NULL AND status = 'known'), 1::bigint, 'and refreshed');
SELECT is((SELECT count(*) FROM leads_flow), 0::bigint, 'what one does not own is left');
SELECT is(failure('SELECT lifecycle.refresh()', 'refresh_member'), 'no error', 'a member of the role does as the owner');
SELECT is((SELECT count(*) FROM leads_flow_pending), 0::bigint, 'which merges');
SELECT is(differs(), '', 'three leads');
SELECT set_eq('SELECT segment FROM leads_funnel', $$VALUES (NULL), (''), ('(none)'), ('web')$$, 'segments');
SELECT ok((SELECT bool_and(as_of = now()) FROM (SELECT as_of FROM leads_funnel UNION ALL SELECT as_of FROM leads_funnel_monthly) AS a) IS FALSE, 'as_of is the time of the refresh');
BEGIN;
SELECT lifecycle.refresh();
SELECT ok((SELECT bool_and(as_of = now()) FROM (SELECT as_of FROM leads_funnel UNION ALL SELECT as_of FROM leads_funnel_monthly) AS a), 'that of its transaction');
COMMIT;
-- what an owner hangs on his flow does not run as who refreshes everybody's
INSERT INTO leads VALUES (9);
SET ROLE refresh_owner;
CREATE FUNCTION spy(span text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
    IF current_user <> 'refresh_owner' THEN RAISE EXCEPTION 'ran as %', current_user; END IF;
    RETURN span;
END$$;
CREATE INDEX spy ON leads_flow (spy(span));
CREATE INDEX spy_pending ON leads_flow_pending (spy(kind)) WHERE cohort = 77;
CREATE TABLE ran_as (who name);
CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.ran_as VALUES (current_user); RETURN NULL; END$$;
CREATE TRIGGER spy AFTER INSERT OR DELETE ON leads_flow EXECUTE FUNCTION spy();
CREATE TRIGGER spy AFTER INSERT OR DELETE ON leads_flow_pending EXECUTE FUNCTION spy();
RESET ROLE;
SELECT is(failure('SELECT lifecycle.refresh()'), 'no error', 'the flow is merged as its owner');
SELECT is((SELECT count(*) FROM leads_flow_pending), 0::bigint, 'all of it');
SELECT is(failure($$SELECT lifecycle.rebuild_flow('leads')$$), 'no error', 'and rebuilt');
SELECT is(failure($$UPDATE lifecycle.program SET tz = 'Asia/Tokyo' WHERE lead_table = 'leads'::regclass$$), 'no error', 'also for other days');
SELECT is(failure($$UPDATE lifecycle.program SET tz = 'UTC' WHERE lead_table = 'leads'::regclass$$), 'no error', 'and for those of before');
SELECT results_eq('SELECT DISTINCT who FROM ran_as', $$VALUES ('refresh_owner'::name)$$, 'with his triggers');
DROP INDEX spy, spy_pending;
DROP TRIGGER spy ON leads_flow;
DROP TRIGGER spy ON leads_flow_pending;
SELECT is(failure($$SELECT lifecycle.rebuild_flow('leads')$$, 'refresh_other'),
          E'42501: must be owner of table leads\nHINT: Let a member of role refresh_owner call lifecycle.rebuild_flow().', 'nobody else rebuilds');

-- ---- whatever is written ----

SET lifecycle.at = '';
BEGIN; SET LOCAL lifecycle.at = '2026-01-01'; INSERT INTO leads SELECT g, 'source ' || g % 3, g % 2 FROM generate_series(11, 16) AS g; COMMIT;
BEGIN; SET LOCAL lifecycle.at = '2026-01-05'; UPDATE leads SET lifecycle_status = 'mql' WHERE id IN (11, 12, 13); COMMIT;
SELECT is(differs(), '', 'moves that are dated back');
BEGIN; SET LOCAL lifecycle.at = '2026-01-31 23:30'; UPDATE leads SET lifecycle_status = 'recycled' WHERE id IN (11, 12); COMMIT;
BEGIN; SET LOCAL lifecycle.at = '2026-02-03'; UPDATE leads SET lifecycle_status = 'mql' WHERE id = 11; COMMIT;
BEGIN; SET LOCAL lifecycle.at = '2026-03-03'; UPDATE leads SET lifecycle_status = 'sal' WHERE id IN (11, 13); UPDATE leads SET lifecycle_status = 'sql' WHERE id = 13; COMMIT;
SELECT is(differs(), '', 're-entry');
SELECT results_eq($$SELECT month, opening, inflow, inflow_new, inflow_again, outflow, closing, period_rate FROM leads_funnel_monthly WHERE status = 'mql' AND month <= '2026-04-01' ORDER BY month$$,
    $$VALUES ('2026-01-01'::date, 0::bigint, 3::bigint, 3::bigint, 0::bigint, 2::bigint, 1::bigint, 0::float8), ('2026-02-01', 1, 1, 0, 1, 0, 2, 0),
             ('2026-03-01', 2, 0, 0, 0, 2, 0, NULL), ('2026-04-01', 0, 0, 0, 0, 0, 0, NULL)$$, 'months');
SELECT is((SELECT max(month) FROM leads_funnel_monthly), date_trunc('month', now())::date, 'up to now');
DELETE FROM leads WHERE id = 12;
INSERT INTO leads VALUES (12, 'another', 1);
SELECT is(differs(), '', 'a removal, and the key comes back');
SELECT lifecycle.correct('leads', 13, 'sal', 'by mistake');
SELECT is(differs(), '', 'a correction');
SELECT lifecycle.correct('leads', 11, 'mal', 'by mistake'); UPDATE leads SET lifecycle_status = 'mql' WHERE id = 11; SELECT lifecycle.correct('leads', 11, 'mal', 'again');
SELECT is(differs(), '', 'one after the other');
SELECT lifecycle.erase('leads', 13);
SELECT lifecycle.erase('leads', 2);
SELECT is(differs(), '', 'a lead that is forgotten');
UPDATE leads SET lifecycle_status = 'mal' WHERE id = 15;
SELECT is(differs(), '', 'a move that is refused');
TRUNCATE leads;
SELECT is(differs(), '', 'TRUNCATE');
CREATE FUNCTION count_pending() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM leads_flow_pending$$;
BEGIN;
SAVEPOINT one;
INSERT INTO leads SELECT g FROM generate_series(1000, 1010) AS g;
UPDATE leads SET lifecycle_status = 'mql';
ROLLBACK TO one;
SELECT is(count_pending(), 0::bigint, 'a subtransaction that is rolled back leaves no row');
INSERT INTO leads VALUES (1);
COMMIT;
DO $$BEGIN
    INSERT INTO leads SELECT g FROM generate_series(2000, 2010) AS g;
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN NULL;
END$$;
SELECT is(count_pending(), 2::bigint, 'nor does a block that fails: an entry, and what was reached');
SELECT is(differs(), '', 'neither counts');
BEGIN;
SELECT lifecycle.refresh('leads');
INSERT INTO leads VALUES (31), (32);
SELECT lifecycle.refresh('leads');
ROLLBACK;
SELECT is(differs(), '', 'a refresh that is rolled back');

-- ---- a flow that somebody changed ----

CREATE FUNCTION after(change text, report text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE change;
    SELECT failure(report) INTO result;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = result;
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN SQLERRM;
END $$;
SELECT is(after(c.change, r.report), E'XX001: table "leads_flow" has a row whose arrays do not run side by side\n'
          'DETAIL: Somebody other than lifecycle wrote it.\nHINT: Call lifecycle.rebuild_flow().', c.change || ': ' || r.report)
FROM (VALUES ('UPDATE leads_flow SET n_left = n_left || 0::bigint WHERE kind = ''move'''), ('UPDATE leads_flow SET to_status = to_status[2:] WHERE kind = ''move'''),
             ('UPDATE leads_flow SET n[1] = NULL'), ('UPDATE leads_flow SET n = ''{}'''), ('UPDATE leads_flow SET n = array_fill(1, ''{1,1}'')')) AS c (change)
CROSS JOIN (VALUES ('SELECT * FROM lifecycle.conversion(''leads'')'), ('INSERT INTO leads VALUES (99); SELECT lifecycle.refresh(''leads'')')) AS r (report);
SELECT is(after('INSERT INTO leads VALUES (99); UPDATE leads_flow_pending SET n = ''{}''', r.report), E'XX001: table "leads_flow_pending" has a row whose arrays do not run side by side\n'
          'DETAIL: Somebody other than lifecycle wrote it.\nHINT: Call lifecycle.rebuild_flow().', 'pending: ' || r.report)
FROM unnest(ARRAY['SELECT * FROM lifecycle.conversion(''leads'')', 'SELECT lifecycle.refresh(''leads'')']) AS r (report);
SELECT is(after('UPDATE leads_flow SET n = ''{}''', 'SELECT lifecycle.rebuild_flow(''leads'')'), 'no error', 'which helps');
SELECT is(after(c.change, r.report), c.error, c.change || ': ' || r.report)
FROM (VALUES ('ALTER TABLE leads_flow RENAME n_left TO gone', E'42703: column "n_left" of relation "leads_flow" does not exist\nHINT: Give the column its name back.'),
             ('ALTER TABLE leads_flow ALTER cohort TYPE bigint', E'55000: column "cohort" of table "leads_flow" is not of type integer\nHINT: ALTER TABLE public.leads_flow ALTER COLUMN cohort TYPE integer.'),
             ('DROP INDEX leads_flow_span_kind_day_key_idx', E'55000: table "leads_flow" has no index on (span, kind, day, key)\nHINT: CREATE UNIQUE INDEX ON public.leads_flow (span, kind, day, key);'),
             ('DROP INDEX leads_flow_span_kind_day_key_idx; CREATE UNIQUE INDEX ON leads_flow (span, kind, day, key DESC)', E'55000: table "leads_flow" has no index on (span, kind, day, key)\nHINT: CREATE UNIQUE INDEX ON public.leads_flow (span, kind, day, key);'))
     AS c (change, error)
CROSS JOIN (VALUES ('SELECT * FROM lifecycle.conversion(''leads'')'), ('SELECT lifecycle.refresh(''leads'')')) AS r (report);
SELECT is(after(c.change, r.report), c.error, c.change || ': ' || r.report)
FROM (VALUES ('ALTER TABLE leads_flow_pending RENAME n_left TO gone', E'42703: column "n_left" of relation "leads_flow_pending" does not exist\nHINT: Give the column its name back.'),
             ('ALTER TABLE leads_flow_pending ALTER reached TYPE text', E'55000: column "reached" of table "leads_flow_pending" is not of type text[]\nHINT: ALTER TABLE public.leads_flow_pending ALTER COLUMN reached TYPE text[].'))
     AS c (change, error)
CROSS JOIN (VALUES ('SELECT * FROM lifecycle.conversion(''leads'')'), ('SELECT lifecycle.refresh(''leads'')')) AS r (report);
-- a session that wrote before learns of it
SELECT is(after(c.change, 'INSERT INTO leads VALUES (99)'), c.error, c.change || ': writers')
FROM (VALUES ('ALTER TABLE leads_flow_pending RENAME n_left TO gone', E'55000: column "n_left" of table "public.leads_flow_pending" does not exist\nDETAIL: Lifecycle writes it for table "public.leads".\nHINT: Give the column its name back.'),
             ('ALTER TABLE leads_flow_pending ALTER reached TYPE text', E'55000: column "reached" of table "public.leads_flow_pending" is not of type text[]\nDETAIL: Lifecycle writes it for table "public.leads".\nHINT: ALTER TABLE public.leads_flow_pending ALTER COLUMN reached TYPE text[].'))
     AS c (change, error);
SELECT is(after('INSERT INTO leads VALUES (99); ALTER TABLE leads_flow_pending ALTER kind DROP NOT NULL; UPDATE leads_flow_pending SET kind = ' || k.kind, r.report), 'no error', 'of kind ' || k.kind || ': ' || r.report)
FROM (VALUES ('NULL'), ('''none''')) AS k (kind)
CROSS JOIN (VALUES ('SELECT * FROM lifecycle.conversion(''leads'')'), ('SELECT lifecycle.refresh(''leads'')')) AS r (report);
-- what an owner adds stays
ALTER TABLE leads_flow ADD note text DEFAULT 'ours';
UPDATE leads_flow SET note = 'theirs' WHERE span = 'all';
INSERT INTO leads VALUES (98, 'noted');
SELECT lifecycle.refresh('leads');
SELECT is((SELECT string_agg(DISTINCT note, ',') FROM leads_flow WHERE span = 'all' AND kind IN ('move', 'first')), 'theirs', 'a column of the owner is kept');
SELECT is(differs(), '', 'and disturbs nothing');
ALTER TABLE leads_flow DROP note;
ALTER TABLE leads_flow_pending ADD note text DEFAULT 'ours';
INSERT INTO leads VALUES (96, 'noted');
SELECT is((SELECT string_agg(DISTINCT note, ',') FROM leads_flow_pending), 'ours', 'its default is honoured');
ALTER TABLE leads_flow_pending DROP note;
INSERT INTO leads VALUES (97, 'noted');
SELECT lifecycle.refresh('leads');
SELECT is(differs(), '', 'nor does one that is dropped');

-- ---- much in a row ----

-- Leads who reach any set of nine statuses: sets come, go, and stay with other numbers.
INSERT INTO lifecycle.model VALUES ('any way');
INSERT INTO lifecycle.stage (model, status, rank) SELECT 'any way', 'status number ' || n, n FROM generate_series(1, 9) AS n;
INSERT INTO lifecycle.transition
SELECT 'any way', a.status, b.status FROM lifecycle.stage a JOIN lifecycle.stage b ON b.model = a.model AND b.rank > a.rank WHERE a.model = 'any way';
CREATE TABLE many (id int PRIMARY KEY, source text, cohort int, status text);
SELECT lifecycle.track('many', model => 'any way', status_column => 'status', source => 'source', cohort => 'cohort');
CREATE FUNCTION walk(first int, step text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text := '';
BEGIN
    INSERT INTO many (id, source, cohort, status)
    SELECT first + g, 'source ' || g / 256, g % 3, 'status number ' || (SELECT min(n) FROM generate_series(1, 9) AS n WHERE g & (1 << n - 1) > 0) FROM generate_series(1, 511) AS g;
    FOR n IN 1 .. 9 LOOP
        UPDATE many SET status = 'status number ' || n
        WHERE id > first AND (id - first) & (1 << n - 1) > 0 AND status <> 'status number ' || n;
        IF step <> '' THEN
            EXECUTE 'SELECT $1 || ' || step INTO result USING result;
        END IF;
    END LOOP;
    RETURN result;
END $$;
SELECT is(walk(0, $$(SELECT coalesce(string_agg(v::text, E'\n'), '') FROM lifecycle.refresh('many') CROSS JOIN lifecycle.verify('many') AS v)$$), '', 'sets that come and go');
SELECT is((SELECT cardinality(reached) FROM many_flow WHERE span = 'all' AND kind = 'first'), 511, 'all of them are there');
SELECT is((SELECT pg_column_compression(reached) FROM many_flow WHERE span = 'all' AND kind = 'first'),
          (SELECT CASE WHEN 'lz4' = ANY (enumvals) THEN 'lz4' ELSE 'pglz' END FROM pg_settings WHERE name = 'default_toast_compression'), 'in little room');
SELECT is(differs('many'), '', 'and in the views');
SELECT is(walk(10000, ''), '', 'the same sets again');
SELECT is(differs('many'), '', 'stay with other numbers');
SELECT is((SELECT cardinality(reached)::text || ' ' || (SELECT DISTINCT e FROM unnest(n) AS e) FROM many_flow WHERE span = 'all' AND kind = 'first'), '511 2', 'of each of them');
ALTER TABLE many_flow_pending ALTER reached SET STORAGE EXTERNAL, SET (toast_tuple_target = 128);
SELECT lifecycle.rebuild_flow('many');
SELECT is((SELECT pg_relation_size(c.reltoastrelid) > 0 FROM pg_class c WHERE c.oid = 'many_flow_pending'::regclass), true, 'what is pending is stored out of line');
SELECT is(differs('many'), '', 'and merged');
DELETE FROM many WHERE id % 2 = 0;
SELECT is(differs('many'), '', 'what is removed stays counted');

-- ---- more sources than are told apart ----

CREATE TABLE from_everywhere (id int PRIMARY KEY, source text);
SELECT lifecycle.track('from_everywhere', source => 'source');
INSERT INTO from_everywhere VALUES (1, 'zz'), (2, '(other)'), (3, NULL), (4, 'zy');
SELECT lifecycle.refresh('from_everywhere');
INSERT INTO from_everywhere SELECT 100 + g, 'source ' || g FROM generate_series(1, 100) AS g;
SELECT lifecycle.refresh('from_everywhere');
SELECT is_empty($$SELECT * FROM lifecycle.verify('from_everywhere')$$, 'many sources');
SELECT is((SELECT count(*)::text || ' ' || count(*) FILTER (WHERE source IN ('zz', 'zy')) FROM from_everywhere_flow WHERE span = 'total' AND kind = 'first'), '66 2',
          '64 are told apart, those that were there for sure, beside (other) and none');
SELECT is((SELECT n FROM from_everywhere_flow WHERE span = 'total' AND kind = 'first' AND source = '(other)'), '{39}', 'the others are put together');
INSERT INTO from_everywhere VALUES (300, 'zz'), (301, 'new');
SELECT lifecycle.refresh('from_everywhere');
SELECT is_empty($$SELECT * FROM lifecycle.verify('from_everywhere')$$, 'that stays so');
SELECT is((SELECT n FROM from_everywhere_flow WHERE span = 'total' AND kind = 'first' AND source = '(other)'), '{40}', 'for those that come later');

-- ---- the same without batches ----

CREATE TABLE story (statement text, n int GENERATED ALWAYS AS IDENTITY);
INSERT INTO story (statement) VALUES
    ('INSERT INTO %s SELECT g, CASE WHEN g %% 4 > 0 THEN ''s'' || g %% 4 END, g %% 2 FROM generate_series(1, 40) AS g'),
    ('UPDATE %s SET lifecycle_status = ''mql'' WHERE id %% 3 = 0'), ('UPDATE %s SET lifecycle_status = ''sal'' WHERE id %% 6 = 0'),
    ('UPDATE %s SET lifecycle_status = ''recycled'' WHERE id %% 12 = 0'), ('UPDATE %s SET lifecycle_status = ''sql'' WHERE id %% 4 = 0'),
    ('SELECT lifecycle.correct(''%s'', 12, ''mal'', ''no'')'), ('DELETE FROM %s WHERE id %% 5 = 0'), ('INSERT INTO %s VALUES (5, ''again'', 3), (60, NULL, NULL)'),
    ('DO $d$BEGIN DELETE FROM %s; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END$d$');
CREATE TABLE in_batches (id int PRIMARY KEY, source text, cohort int);
CREATE TABLE one_by_one (id int PRIMARY KEY, source text, cohort int);
SELECT lifecycle.track(t.name::regclass, model => 'etumos', source => 'source', cohort => 'cohort') FROM unnest(ARRAY['in_batches', 'one_by_one']) AS t (name);
CREATE FUNCTION tell(leads regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s story;
BEGIN
    FOR s IN SELECT * FROM story ORDER BY n LOOP EXECUTE format(s.statement, leads); END LOOP;
END $$;
BEGIN;
SELECT tell('in_batches');
SET LOCAL lifecycle.batch_history = off;
SELECT tell('one_by_one');
COMMIT;
SELECT is(differs('in_batches'), '', 'in batches');
SELECT is(differs('one_by_one'), '', 'move by move');
SELECT set_eq('SELECT * FROM in_batches_flow', 'SELECT * FROM one_by_one_flow', 'the flow is the same');

-- ---- leads that are older, or come from elsewhere ----

CREATE TABLE old (id int PRIMARY KEY, source text, created timestamptz, status text);
INSERT INTO old SELECT g, 'o' || g % 70, timestamptz '2025-12-30' + g * interval '5 hours', CASE g % 3 WHEN 0 THEN 'mql' WHEN 1 THEN 'known' END FROM generate_series(1, 100) AS g;
SELECT lifecycle.track('old', status_column => 'status', source => 'source', entered => 'created');
SELECT lifecycle.import_history('old', $$SELECT * FROM (VALUES (2, 'known', timestamptz '2026-01-03'), (2, 'mql', '2026-01-04'), (5, 'mql', '2026-02-04'), (5, 'lost', '2026-02-05')) AS i (lead, status, at)$$);
SELECT is_empty($$SELECT * FROM lifecycle.verify('old')$$, 'import_history() is counted');
CALL lifecycle.backfill('old', batch => 30);
SELECT is_empty($$SELECT * FROM lifecycle.verify('old')$$, 'so is backfill()');
SELECT lifecycle.refresh('old');
SELECT is_empty($$SELECT * FROM lifecycle.verify('old')$$, 'merged, with more sources than are told apart');
SELECT is_empty($$SELECT * FROM months_differ('old')$$, 'by months');
SELECT is((SELECT count(DISTINCT segment) FROM old_funnel), 65::bigint, '64 of them, and the others');
SELECT results_eq('SELECT status, sum(reached), sum(of_which_inferred) FROM old_funnel WHERE segment IS NOT NULL GROUP BY status ORDER BY status',
                  'SELECT status, reached::numeric, of_which_inferred::numeric FROM lifecycle.funnel_of_history(''old'', ''-infinity'', ''infinity'', ''filled'', ''ever'', NULL) ORDER BY status', 'which are all');
UPDATE old SET status = 'sal' WHERE id IN (3, 66, 69);
INSERT INTO old VALUES (200, 'o999', now(), NULL);
SELECT is_empty($$SELECT * FROM lifecycle.verify('old')$$, 'also what is new of them');
SELECT lifecycle.refresh('old');
SELECT is_empty($$SELECT * FROM lifecycle.verify('old')$$, 'before and after');

-- ---- partitions ----

CREATE TABLE split (id int PRIMARY KEY, source text) PARTITION BY RANGE (id);
CREATE TABLE split_low PARTITION OF split FOR VALUES FROM (0) TO (100);
CREATE TABLE split_high PARTITION OF split DEFAULT;
SELECT lifecycle.track('split', source => 'source');
INSERT INTO split SELECT g, 'p' FROM generate_series(90, 110) AS g;
UPDATE split_low SET lifecycle_status = 'mql' WHERE id < 95;
DELETE FROM split WHERE id IN (99, 100);
SELECT is(differs('split'), '', 'leads in partitions');

-- ---- another time zone ----

SELECT lives_ok($$UPDATE lifecycle.program SET tz = 'Asia/Tokyo' WHERE lead_table = 'leads'::regclass$$, 'the owner gives a program another time zone');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'the flow has its days at once');
SELECT is(differs(), '', 'and so have the views');
SELECT is((SELECT inflow FROM leads_funnel_monthly WHERE status = 'recycled' AND month = '2026-02-01'), 2::bigint, 'in Tokyo it was February');
BEGIN;
UPDATE lifecycle.program SET tz = 'America/New_York' WHERE lead_table = 'leads'::regclass;
ROLLBACK;
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads')$$, 'rolled back with the transaction');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(failure($$UPDATE lifecycle.program SET tz = 'UTC' WHERE lead_table = 'leads'::regclass$$),
          E'0A000: the time zone of a program cannot be changed in a transaction that is REPEATABLE READ\n'
          'DETAIL: It would not see all moves that have to be counted by the new days.\nHINT: BEGIN ISOLATION LEVEL READ COMMITTED;', 'not by an old snapshot');
SELECT is(failure($$UPDATE lifecycle.program SET on_illegal = 'error' WHERE lead_table = 'leads'::regclass$$), 'no error', 'what has no days may change');
SELECT is(failure($$SELECT lifecycle.refresh()$$), 'no error', 'and refresh() may be called there');
COMMIT;
SELECT is(failure($$UPDATE lifecycle.program SET tz = 'UTC' WHERE lead_table = 'leads'::regclass$$, 'refresh_other') ~ '^42501', true, 'nobody else does');

-- a table that was untracked is refreshed no more
SELECT lifecycle.untrack('others');
SELECT lives_ok('SELECT lifecycle.refresh()', 'and does not keep the others from it');
SELECT * FROM finish();
