-- The views beside a lead table: what they show, whose they are, who may read
-- them, and what becomes of them.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();
SET TimeZone = 'UTC';

CREATE ROLE view_owner;
CREATE ROLE view_reader;
CREATE ROLE view_columns;
CREATE ROLE view_nobody;
CREATE ROLE view_granted;
CREATE SCHEMA crm AUTHORIZATION view_owner;
GRANT USAGE ON SCHEMA crm TO PUBLIC;
-- what a careless owner grants on everything that he makes
ALTER DEFAULT PRIVILEGES FOR ROLE view_owner GRANT ALL ON TABLES TO view_nobody;
SET ROLE view_owner;
CREATE TABLE crm.leads (id int PRIMARY KEY, source text, secret text);
REVOKE ALL ON crm.leads FROM view_nobody;
GRANT SELECT, UPDATE ON crm.leads TO view_reader;
GRANT SELECT (id, source) ON crm.leads TO view_columns;
RESET ROLE;
SELECT lifecycle.copy_model('etumos', 'ours');
UPDATE lifecycle.stage SET label = 'Marketing''s own' WHERE model = 'ours' AND status = 'mql';
SELECT lifecycle.track('crm.leads', model => 'ours', source => 'source');

-- ---- whose they are, and who may read them ----

CREATE FUNCTION grants_on(relation regclass) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(g.grantee::regrole || ' ' || g.privilege_type, ', ' ORDER BY g.grantee::regrole::text, g.privilege_type)
    FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
    WHERE c.oid = relation AND g.grantee <> c.relowner
$$;
SELECT is((SELECT c.relowner::regrole::text FROM pg_class c WHERE c.oid = v.name::regclass), 'view_owner', v.name || ' belongs to the owner of the leads')
FROM unnest(ARRAY['crm.leads_lifecycle', 'crm.leads_funnel', 'crm.leads_funnel_monthly']) AS v (name);
SELECT is(grants_on(v.name::regclass), 'view_reader SELECT', v.name || ' may be read by who may read the leads')
FROM unnest(ARRAY['crm.leads_lifecycle', 'crm.leads_funnel', 'crm.leads_funnel_monthly']) AS v (name);
SELECT is(grants_on(t.name::regclass), NULL, t.name || ' may not') FROM unnest(ARRAY['crm.leads_history', 'crm.leads_flow', 'crm.leads_flow_pending', 'crm.leads_refused']) AS t (name);
SELECT results_eq($$SELECT overview::text, funnel::text, funnel_monthly::text FROM lifecycle.program$$,
    $$VALUES ('crm.leads_lifecycle', 'crm.leads_funnel', 'crm.leads_funnel_monthly')$$, 'the program knows them');
SELECT is((SELECT count(*) FROM pg_class c WHERE c.oid IN ('crm.leads_lifecycle'::regclass, 'crm.leads_funnel'::regclass, 'crm.leads_funnel_monthly'::regclass)
             AND obj_description(c.oid) LIKE '%kept by lifecycle%'
             AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL)), 3::bigint, 'and every column says what it is');
SELECT is(failure('SELECT * FROM crm.leads_lifecycle', 'view_reader'), 'no error', 'a reader of leads reads the view');
SELECT is(failure('SELECT * FROM crm.leads_lifecycle', 'view_nobody'), '42501: permission denied for view leads_lifecycle', 'nobody else does');
SET ROLE view_owner;
GRANT SELECT ON crm.leads_lifecycle TO view_columns;
RESET ROLE;
SELECT is(failure('SELECT * FROM crm.leads_lifecycle', 'view_columns'), '42501: permission denied for table leads', 'the view gives nobody rights on the leads');
GRANT SELECT (lifecycle_status, lifecycle_since, lifecycle_seq, demographic_score) ON crm.leads TO view_columns;
SELECT is(failure('SELECT * FROM crm.leads_lifecycle', 'view_columns'), 'no error', 'but reads their key and our columns only');

-- ---- what <prefix>_lifecycle shows ----

INSERT INTO crm.leads (id, source) VALUES (1, 'web'), (2, 'web'), (3, NULL), (4, '');
UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id IN (1, 2);
UPDATE crm.leads SET lifecycle_status = 'recycled' WHERE id = 2;
DELETE FROM crm.leads WHERE id = 4;
SELECT results_eq('SELECT lead, status, rank, label, seq, demographic_score, behavior_score, marketing FROM crm.leads_lifecycle ORDER BY lead',
    $$VALUES (1, 'mql', 2, 'Marketing''s own', 2, 0::float8, 0::float8, 'nurture'), (2, 'recycled', NULL, 'Recycled', 3, 0, 0, 'nurture'),
             (3, 'mal', 1, (SELECT label FROM lifecycle.stage WHERE model = 'ours' AND status = 'mal'), 1, 0, 0, 'nurture')$$, 'each lead: where it is');
BEGIN;
SELECT results_eq('SELECT since, time_in_status FROM crm.leads_lifecycle WHERE lead = 1',
                  'SELECT lifecycle_since, now() - lifecycle_since FROM crm.leads WHERE id = 1', 'and since when');
ROLLBACK;
CREATE FUNCTION plan_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    lines text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
        lines := lines || line || E'\n';
    END LOOP;
    RETURN lines;
END $$;
SELECT ok(plan_of('SELECT * FROM crm.leads_lifecycle WHERE lead = 1') ~ 'Index Cond: \(id = 1\)', 'one lead is found by its index');

-- ---- the behaviour score ----

SET ROLE view_owner;
CREATE TABLE crm.visits (id int, lead int, at timestamptz DEFAULT now());
CREATE INDEX ON crm.visits (lead);
GRANT SELECT ON crm.leads_lifecycle TO view_granted;
SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'lead', 'at');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('crm.visits', 'any', 'true', '7');
INSERT INTO crm.visits VALUES (1, 1), (2, 1), (3, 2);
RESET ROLE;
SELECT results_eq('SELECT lead, behavior_score FROM crm.leads_lifecycle ORDER BY lead', 'VALUES (1, 14::float8), (2, 7), (3, 0)', 'after the first track_signal() the score is shown');
SELECT is(grants_on('crm.leads_behavior'), 'view_reader SELECT', 'whoever may read the leads may read the points');
SELECT is(grants_on('crm.leads_lifecycle'), 'view_columns SELECT, view_granted SELECT, view_reader SELECT', 'who could read the view still can');
SELECT is(failure('SELECT * FROM crm.leads_lifecycle', 'view_reader'), 'no error', 'a reader of leads reads the scores');
SELECT is(failure('SELECT * FROM crm.leads_lifecycle', 'view_columns'), '42501: permission denied for table leads_behavior', 'others do not');
SELECT is(failure('SELECT lead, status FROM crm.leads_lifecycle WHERE lead = 1', 'view_reader'), 'no error', 'one lead');
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT ok(plan_of('SELECT * FROM crm.leads_lifecycle WHERE lead = 1') ~ 'leads_behavior_pkey[^\n]*\n *Index Cond: \(lead = l.id\)', 'the points of a lead are found by their index');
RESET enable_seqscan; RESET enable_bitmapscan;
SELECT ok(plan_of('SELECT lead, status FROM crm.leads_lifecycle') !~ 'behavior', 'and not looked at where nobody asks');
CREATE TABLE crm.more_visits (id int, lead int, at timestamptz DEFAULT now());
CREATE INDEX ON crm.more_visits (lead);
SELECT lives_ok($$SELECT lifecycle.track_signal('crm.more_visits', 'crm.leads', 'lead', 'at')$$, 'another signal table changes nothing');

-- ---- DDL ----

SELECT is(failure(d.statement),
          E'2BP01: cannot drop a table that lifecycle writes for tracked table "leads"\nHINT: Call lifecycle.untrack(''crm.leads'') first.', d.statement)
FROM unnest(ARRAY['DROP VIEW crm.leads_lifecycle', 'DROP MATERIALIZED VIEW crm.leads_funnel', 'DROP MATERIALIZED VIEW crm.leads_funnel_monthly CASCADE',
                  'DROP TABLE crm.leads_flow CASCADE', 'DROP TABLE crm.leads_flow_pending CASCADE', 'DROP TABLE crm.leads_behavior CASCADE']) AS d (statement);
SELECT is(failure(d.statement, 'view_owner'), 'no error', d.statement)
FROM unnest(ARRAY['ALTER TABLE crm.leads ALTER lifecycle_status TYPE text', 'ALTER TABLE crm.leads ALTER lifecycle_status TYPE text COLLATE "C"',
                  'ALTER TABLE crm.leads ALTER lifecycle_status TYPE varchar(40), ALTER secret TYPE varchar(10)', 'ALTER TABLE crm.leads RENAME id TO "Key"']) AS d (statement);
SELECT is((SELECT string_agg(lead || ' ' || status || ' ' || behavior_score, ', ' ORDER BY lead) FROM crm.leads_lifecycle), '1 mql 14, 2 recycled 7, 3 mal 0', 'columns that it reads may change');
SELECT is(failure('ALTER TABLE crm.leads ALTER lifecycle_status TYPE int USING 1', 'view_owner') ~ '^0A000', true, 'but for what they may not');
SELECT is((SELECT count(status) FROM crm.leads_lifecycle), 3::bigint, 'which leaves the view');
CREATE VIEW crm.my_leads AS SELECT * FROM crm.leads_lifecycle;
SELECT is(failure('ALTER TABLE crm.leads ALTER "Key" TYPE bigint'),
          E'2BP01: cannot change the type of the key of tracked table "crm.leads", since other objects depend on view "crm.leads_lifecycle"\n'
          'DETAIL: view crm.my_leads depends on view crm.leads_lifecycle\nHINT: Drop these first.', 'the key''s type changes where nothing is built on it');
SELECT is(failure('ALTER TABLE crm.leads ALTER lifecycle_status TYPE text'), 'no error', 'other types regardless');
DROP VIEW crm.my_leads;
SELECT is(failure('ALTER TABLE crm.leads ALTER "Key" TYPE bigint', 'view_owner'), 'no error', 'the hint helps');
SELECT is((SELECT string_agg(lead || ' ' || status, ', ' ORDER BY lead) FROM crm.leads_lifecycle), '1 mql, 2 recycled, 3 mal', 'the view goes on');
SELECT is(failure(format('ALTER TABLE crm.%s ALTER lead TYPE bigint', t.name), 'view_owner'), 'no error', t.name) FROM unnest(ARRAY['leads_history', 'leads_refused', 'leads_behavior']) AS t (name);
SELECT is((SELECT string_agg(lead || ' ' || status || ' ' || behavior_score, ', ' ORDER BY lead) FROM crm.leads_lifecycle), '1 mql 14, 2 recycled 7, 3 mal 0', 'as it was');
SELECT col_type_is('crm', 'leads_lifecycle', 'lead', 'bigint', 'with the new type');
SELECT is(grants_on('crm.leads_lifecycle'), 'view_columns SELECT, view_granted SELECT, view_reader SELECT', 'the same readers');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'crm'::regnamespace AND relkind = 'v'), 1::bigint, 'and nothing beside it');
SELECT is((SELECT overview FROM lifecycle.program), 'crm.leads_lifecycle'::regclass, 'known to the program');

ALTER VIEW crm.leads_lifecycle RENAME TO "Where, 'now'";
ALTER MATERIALIZED VIEW crm.leads_funnel RENAME TO "How far";
ALTER MATERIALIZED VIEW crm.leads_funnel_monthly SET SCHEMA public;
SELECT is(failure($$SELECT lifecycle.refresh('crm.leads')$$, 'view_owner'), 'no error', 'renamed and moved, they are refreshed');
SELECT is((SELECT reached FROM crm."How far" WHERE segment IS NULL AND status = 'mal'), 4::bigint, 'and filled');
SELECT is(failure('ALTER TABLE crm.leads ALTER lifecycle_status TYPE varchar(40)', 'view_owner'), 'no error', 'and found');

-- ---- untrack() ----

CREATE VIEW crm.report AS SELECT * FROM crm."How far";
SELECT is(failure($$SELECT lifecycle.untrack('crm.leads')$$),
          E'2BP01: view "crm."How far"" cannot be dropped, since other objects depend on it\nDETAIL: view crm.report depends on materialized view crm."How far"\n'
          'HINT: Drop these first; lifecycle.track() makes the view anew, but not what is built on it.', 'what users built on a view is not taken along');
SELECT is((SELECT count(*) FROM lifecycle.program), 1::bigint, 'and the table is tracked as before');
DROP VIEW crm.report;
SELECT lives_ok($$SELECT lifecycle.untrack('crm.leads')$$, 'untrack()');
SELECT is_empty($$SELECT oid::regclass FROM pg_class WHERE relkind IN ('v', 'm') AND (relnamespace = 'crm'::regnamespace OR relname ~ 'funnel')$$, 'takes the views along');
SET ROLE view_owner;
SELECT lives_ok($$SELECT lifecycle.track('crm.leads', model => 'ours', source => 'source')$$, 'track() makes them anew');
RESET ROLE;
SELECT is((SELECT reached FROM crm.leads_funnel WHERE segment IS NULL AND status = 'mal'), 4::bigint, 'of the history that it takes up');
SELECT is((SELECT count(*) FROM crm.leads_lifecycle WHERE behavior_score = 0), 3::bigint, 'without signals there is no score');
SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'lead', 'at');
SELECT is((SELECT sum(behavior_score) FROM crm.leads_lifecycle), 21::float8, 'until there are some');
SELECT lifecycle.untrack('crm.leads', drop_data => true);
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'crm'::regnamespace AND relkind IN ('r', 'v', 'm')), 3::bigint, 'and nothing stays with drop_data');

-- ---- names ----

CREATE TABLE crm.a (id int PRIMARY KEY);
SELECT is(failure(format('CREATE %s crm.a_%s AS SELECT 1 AS x; SELECT lifecycle.track(''crm.a'')', c.kind, c.name)),
          format(E'42P07: relation "crm.a_%s" already exists\nDETAIL: It is not a history that lifecycle.untrack() of crm.a left.\nHINT: Choose other names with prefix => ''...''.', c.name),
          'taken by a user: ' || c.kind || ' ' || c.name)
FROM (VALUES ('TABLE', 'lifecycle'), ('VIEW', 'funnel'), ('MATERIALIZED VIEW', 'funnel_monthly')) AS c (kind, name);
SELECT lifecycle.track('crm.a'); SELECT lifecycle.untrack('crm.a');
CREATE MATERIALIZED VIEW crm.a_funnel AS SELECT 1 AS x;
SELECT is(failure($$SELECT lifecycle.track('crm.a')$$) LIKE '42P07: relation "crm.a_funnel" already exists%', true, 'also where there is a history');
DROP MATERIALIZED VIEW crm.a_funnel;
CREATE TABLE crm.b (id int PRIMARY KEY);
SELECT is(failure(format('SELECT lifecycle.track(%L, prefix => %L)', 'crm.b', repeat('p', 49))),
          format(E'42622: name "%s_funnel_monthly" is too long\nHINT: Give a shorter one: prefix => ''...''.', repeat('p', 49)), 'a prefix has 48 bytes');
SELECT lives_ok(format('SELECT lifecycle.track(%L, prefix => %L)', 'crm.b', repeat('p', 48)), 'which is all');
CREATE SCHEMA "My ""Schema""";
CREATE TABLE "My ""Schema"""."The 'Leads' %s $1" ("The ""Key""" uuid PRIMARY KEY DEFAULT gen_random_uuid(), "Stage %" varchar(20));
SELECT lives_ok($$SELECT lifecycle.track('"My ""Schema"""."The ''Leads'' %s $1"', status_column => 'Stage %')$$, 'names that need quotes');
INSERT INTO "My ""Schema"""."The 'Leads' %s $1" DEFAULT VALUES;
SELECT is(failure($$SELECT lifecycle.refresh('"My ""Schema"""."The ''Leads'' %s $1"')$$), 'no error', 'refreshed');
SELECT is((SELECT status FROM "My ""Schema"""."The 'Leads' %s $1_lifecycle"), 'known', 'and read');
SELECT is((SELECT closing FROM "My ""Schema"""."The 'Leads' %s $1_funnel_monthly" WHERE status = 'known'), 1::bigint, 'all of them');
SELECT is(failure($$ALTER TABLE "My ""Schema"""."The 'Leads' %s $1" ALTER "Stage %" TYPE text$$), 'no error', 'and altered');
SELECT lives_ok($$SELECT lifecycle.untrack('"My ""Schema"""."The ''Leads'' %s $1"')$$, 'and dropped');

-- ---- tables that are dropped ----

CREATE TABLE crm.gone (id int PRIMARY KEY);
SELECT lifecycle.track('crm.gone');
INSERT INTO crm.gone VALUES (1);
CREATE VIEW crm.on_gone AS SELECT * FROM crm.gone_funnel;
SELECT is(failure('DROP TABLE crm.gone') ~ '^2BP01: cannot drop table crm.gone because other objects depend on it\nDETAIL: view crm.on_gone depends on materialized view crm.gone_funnel', true, 'what users built is in the way');
DROP VIEW crm.on_gone;
SELECT lives_ok('DROP TABLE crm.gone', 'ours is not');
SELECT is_empty($$SELECT oid::regclass FROM pg_class WHERE relname IN ('gone_lifecycle', 'gone_funnel', 'gone_funnel_monthly')$$, 'the views go with the leads');
CREATE TABLE crm.gone (id int PRIMARY KEY);
SELECT lives_ok($$SELECT lifecycle.track('crm.gone')$$, 'and come with others');
SELECT is((SELECT reached FROM crm.gone_funnel WHERE status = 'known' AND segment IS NULL), 1::bigint, 'whose history goes on');

-- ---- row security, partitions ----

SET ROLE view_owner;
CREATE TABLE crm.guarded (id int PRIMARY KEY, owner name);
REVOKE ALL ON crm.guarded FROM view_nobody;
GRANT SELECT ON crm.guarded TO view_reader, PUBLIC;
ALTER TABLE crm.guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON crm.guarded USING (owner = current_user);
SELECT lifecycle.track('crm.guarded');
INSERT INTO crm.guarded VALUES (1, 'view_reader'), (2, 'view_owner');
SELECT lifecycle.refresh();
RESET ROLE;
SELECT is(grants_on('crm.guarded_lifecycle'), '- SELECT, view_reader SELECT', 'a view of leads with row security is granted, to PUBLIC, too');
SELECT is(grants_on('crm.guarded_funnel'), NULL, 'but not what they add up to');
SELECT is(grants_on('crm.guarded_funnel_monthly'), NULL, 'nor by month');
SET ROLE view_reader;
SELECT results_eq('SELECT lead FROM crm.guarded_lifecycle', 'VALUES (1)', 'the view obeys the policies');
RESET ROLE;
CREATE TABLE crm.split (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE crm.low PARTITION OF crm.split FOR VALUES FROM (0) TO (10);
SELECT lifecycle.track('crm.split');
INSERT INTO crm.split VALUES (1);
CREATE TABLE crm.high PARTITION OF crm.split FOR VALUES FROM (10) TO (20);
INSERT INTO crm.split VALUES (11);
SELECT lifecycle.refresh('crm.split');
SELECT results_eq('SELECT lead, status FROM crm.split_lifecycle ORDER BY lead', $$VALUES (1, 'known'), (11, 'known')$$, 'the leads of all partitions');
SELECT is((SELECT reached FROM crm.split_funnel WHERE segment IS NULL AND status = 'known'), 2::bigint, 'and their funnel');
SELECT lives_ok('DROP TABLE crm.low', 'a partition goes');
SELECT is_empty($$SELECT * FROM lifecycle.verify('crm.split') WHERE "check" = 'flow'$$, 'and is no matter of the flow');
SELECT is(failure('SELECT lifecycle.track(''crm.split_lifecycle'')') ~ '^42809: cannot track "crm.split_lifecycle", which is a view', true, 'a view is no table of leads');

-- a row of lifecycle.program is not a way to have others refresh what one does not own
SELECT is(failure($$SELECT lifecycle.register_views('crm.split', 'crm.split_lifecycle', 'crm.guarded_funnel', 'crm.split_funnel_monthly')$$, 'view_owner') ~ '^42501: must be owner', true, 'views are registered by who owns all');
SELECT * FROM finish();
