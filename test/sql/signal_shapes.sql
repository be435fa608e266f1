-- How ORMs and integrations write: Odoo saves whole records, in lists of VALUES, under
-- REPEATABLE READ, with savepoints, and sends its own times without a time zone.

CREATE EXTENSION lifecycle;
SELECT no_plan();
SET client_min_messages = error;
SET default_transaction_isolation = 'repeatable read';

CREATE TABLE lead (id serial PRIMARY KEY, name text, title varchar(40), active bool DEFAULT true, stage_id int, create_date timestamp DEFAULT (now() AT TIME ZONE 'UTC'), write_date timestamp, write_uid int);
SELECT lifecycle.track('lead', entered => $$ create_date AT TIME ZONE 'UTC' $$, actor => 'write_uid::text');
CREATE TABLE activity (id serial PRIMARY KEY, lead_id int, ref varchar UNIQUE, kind varchar(20), points int, done timestamp DEFAULT (now() AT TIME ZONE 'UTC'), note text, write_date timestamp);
CREATE INDEX ON activity (lead_id);
SELECT lifecycle.track_signal('activity', 'lead', 'lead_id', $$ done AT TIME ZONE 'UTC' $$);
CREATE TABLE deal (id serial PRIMARY KEY, lead_id int REFERENCES lead ON DELETE CASCADE, stage text);
CREATE INDEX ON deal (lead_id);
SELECT lifecycle.track_signal('deal', 'lead', 'lead_id');
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('lead', 'chief', $$ title ILIKE '%chief%' $$, '5');
INSERT INTO lifecycle.rule (on_table, name, condition, points, half_life) VALUES
    ('activity', 'visit', $$ kind = 'visit' $$, 'points', '14 days'),
    ('activity', 'member', $$ kind = 'member' $$, 'points', NULL);
INSERT INTO lifecycle.rule (on_table, name, condition, status, unless_other) VALUES
    ('lead', 'warm', 'behavior_score >= 50', 'mql', NULL),
    ('activity', 'hand raise', $$ kind = 'hand raise' $$, 'mql', NULL),
    ('deal', 'open', $$ stage = 'open' $$, 'opportunity', NULL),
    ('deal', 'lost', $$ stage = 'lost' $$, 'lost', $$ stage IS DISTINCT FROM 'lost' $$);

CREATE FUNCTION agrees(leads int[], what text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT is((SELECT string_agg(format('%s: %s instead of %s', l, s.kept, s.made), ', ')
               FROM unnest(leads) AS l
               CROSS JOIN LATERAL (SELECT lifecycle.behavior_score('lead', l), lifecycle.behavior_score_from_signals('lead', l::text, now())) AS s (kept, made)
               WHERE abs(s.kept - s.made) > 1e-9 * greatest(abs(s.made), 1) OR s.kept IS NULL OR s.made IS NULL), NULL, what || ': the points are those of the rows')
    UNION ALL
    SELECT is((SELECT string_agg(format('%s %s: %s', v."check", v.lead, v.detail), E'\n') FROM lifecycle.verify('lead') AS v), NULL, what || ': verify() finds nothing')
$$;
CREATE FUNCTION score(a_lead int) RETURNS numeric LANGUAGE sql AS $$SELECT round(lifecycle.behavior_score('lead', a_lead)::numeric, 3)$$;
CREATE FUNCTION path(a_lead int) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(':', coalesce(to_status, 'removed'), cause, rule), ' ' ORDER BY seq) FROM lead_history WHERE lead = a_lead
$$;
-- Which version of the lead's row it is, and of the row of points.
CREATE FUNCTION version(a_lead int) RETURNS text LANGUAGE sql AS $$SELECT ctid || ' ' || xmin FROM lead WHERE id = a_lead$$;
CREATE FUNCTION points_version(a_lead int) RETURNS text LANGUAGE sql AS $$SELECT string_agg(ctid || ' ' || xmin, ',' ORDER BY half_life) FROM lead_behavior WHERE lead = a_lead$$;

-- ---- an activity that moves nobody does not write the lead ----

INSERT INTO lead (name, write_uid) SELECT 'lead ' || i, 7 FROM generate_series(1, 60) AS i;
SELECT version(1) AS was \gset
INSERT INTO activity (lead_id, kind, points) VALUES (1, 'visit', 3);
SELECT is(version(1), :'was', 'one row: the lead''s row is the same, by place and writer');
INSERT INTO activity (lead_id, kind, points) VALUES (1, 'visit', 3), (1, 'member', 4), (1, 'call', 5), (1, 'visit', 3);
SELECT is(version(1), :'was', 'several');
INSERT INTO activity (lead_id, kind, points) SELECT 1, 'visit', 1 FROM generate_series(1, 20);
SELECT is(version(1), :'was', 'many');
COPY activity (lead_id, kind, points) FROM stdin;
1	visit	2
1	member	2
1	call	9
\.
SELECT is(version(1), :'was', 'COPY');
UPDATE activity SET points = points + 1 WHERE lead_id = 1 AND kind = 'member';
DELETE FROM activity WHERE lead_id = 1 AND points = 3;
SELECT is(version(1), :'was', 'UPDATE and DELETE');
SELECT is(score(1), 27.000, 'though the points came and went');
SELECT is(path(1), 'known:entry', 'and nobody moved');
SELECT * FROM agrees('{1}', 'activities of one lead');

-- ---- a record that is saved as it was ----

INSERT INTO activity (lead_id, kind, points) VALUES (2, 'visit', 10), (2, 'hand raise', NULL), (2, 'member', 7);
SELECT lifecycle.correct('lead', 2, 'known', 'test');
SELECT version(2) AS was, points_version(2) AS points_were \gset
UPDATE activity SET lead_id = lead_id, ref = ref, kind = kind, points = points, done = done, note = note, write_date = write_date WHERE lead_id = 2;
UPDATE activity SET lead_id = lead_id, kind = kind, points = points, done = done, note = 'called', write_date = now() AT TIME ZONE 'UTC' WHERE lead_id = 2;
SELECT is(version(2), :'was', 'all columns written back: the lead is not written');
SELECT is(points_version(2), :'points_were', 'nor are its points');
SELECT is(path(2), 'known:entry mql:rule:hand raise known:correction', 'a hand raise that was there asks for nothing again');
SELECT * FROM agrees('{2}', 'all columns written back');

INSERT INTO activity (id, lead_id, kind, points) VALUES (1001, 3, 'visit', 20), (1002, 3, 'visit', 20), (1003, 4, 'visit', 20);
UPDATE activity AS a SET kind = v.kind, points = v.points, write_date = v.at::timestamp
FROM (VALUES (1001, 'visit', 26, '2026-01-01'), (1002, 'visit', 26, '2026-01-01'), (1003, 'member', 11, '2026-01-01')) AS v (id, kind, points, at) WHERE a.id = v.id;
SELECT is(path(3) || ', ' || path(4), 'known:entry mql:rule:warm, known:entry', 'UPDATE ... FROM (VALUES ...): two rows cross together');
SELECT * FROM agrees('{3,4}', 'UPDATE ... FROM (VALUES ...)');

-- The client read the lead before it moved, and saves what it knows of it.
UPDATE lead SET name = 'renamed', title = 'Chief of all', lifecycle_since = '2020-01-01', lifecycle_seq = 1, demographic_score = 77 WHERE id = 3;
SELECT results_eq('SELECT lifecycle_status::text, lifecycle_seq, demographic_score, lifecycle_since FROM lead WHERE id = 3',
    'SELECT to_status, seq, 5::float8, at FROM lead_history WHERE lead = 3 ORDER BY seq DESC LIMIT 1', 'derived columns that are stale are put right');
INSERT INTO activity (lead_id, kind, points) VALUES (3, 'visit', 1);
SELECT * FROM agrees('{3}', 'a lead saved with stale columns');

-- ---- INSERT ... RETURNING, ON CONFLICT, MERGE, COPY ----

SELECT results_eq($$WITH made AS (INSERT INTO activity (lead_id, kind, points) SELECT l, 'visit', 30 FROM generate_series(5, 8) AS l RETURNING id, lead_id) SELECT lead_id FROM made ORDER BY 1$$,
    'SELECT generate_series(5, 8)', 'INSERT ... RETURNING gives its rows');
INSERT INTO activity (lead_id, kind, points) VALUES (5, 'visit', 21) RETURNING id \gset
SELECT is(path(5) || ', ' || path(6), 'known:entry mql:rule:warm, known:entry', 'and its points count');
INSERT INTO activity (lead_id, ref, kind, points) VALUES (6, 'mail-1', 'visit', 5), (7, 'mail-2', 'visit', 5)
    ON CONFLICT (ref) DO UPDATE SET kind = excluded.kind, points = excluded.points;
INSERT INTO activity (lead_id, ref, kind, points) VALUES (6, 'mail-1', 'visit', 21), (7, 'mail-2', 'call', 20), (8, 'mail-3', 'visit', 5)
    ON CONFLICT (ref) DO UPDATE SET kind = excluded.kind, points = excluded.points;
INSERT INTO activity (lead_id, ref, kind, points) VALUES (8, 'mail-3', 'hand raise', 99) ON CONFLICT (ref) DO NOTHING;
SELECT is((SELECT array_agg(path(l)) FROM generate_series(6, 8) AS l), '{"known:entry mql:rule:warm",known:entry,known:entry}', 'ON CONFLICT DO UPDATE: what the row becomes counts, once; DO NOTHING counts nothing');
SELECT * FROM agrees('{5,6,7,8}', 'ON CONFLICT');

MERGE INTO activity AS a
USING (VALUES ('mail-1', 9, 'visit', 60), ('mail-2', 7, 'visit', 25), ('mail-3', 8, 'gone', 0), ('mail-4', 10, 'hand raise', 0), ('mail-5', 11, 'visit', 1)) AS v (ref, lead_id, kind, points)
ON a.ref = v.ref
WHEN MATCHED AND v.kind = 'gone' THEN DELETE
WHEN MATCHED THEN UPDATE SET lead_id = v.lead_id, kind = v.kind, points = v.points
WHEN NOT MATCHED AND v.lead_id = 11 THEN DO NOTHING
WHEN NOT MATCHED THEN INSERT (lead_id, ref, kind, points) VALUES (v.lead_id, v.ref, v.kind, v.points);
SELECT is((SELECT array_agg(path(l)) FROM generate_series(7, 11) AS l),
    '{"known:entry mql:rule:warm",known:entry,"known:entry mql:rule:warm","known:entry mql:rule:hand raise",known:entry}', 'MERGE updates, gives to another lead, deletes and inserts');
SELECT is(score(6) || ' ' || score(8), '30.000 30.000', 'what it took away is gone');
SELECT * FROM agrees('{6,7,8,9,10,11}', 'MERGE');

COPY activity (lead_id, ref, kind, points) FROM stdin;
12	copy-1	visit	25
13	copy-2	hand raise	\N
12	copy-3	visit	25
\N	copy-4	hand raise	\N
14	copy-5	visit	1
\.
SELECT is(path(12) || ', ' || path(13) || ', ' || path(14), 'known:entry mql:rule:warm, known:entry mql:rule:hand raise, known:entry', 'COPY crosses and asks');
UPDATE activity SET lead_id = 15 WHERE ref = 'copy-4';
SELECT is(path(15), 'known:entry mql:rule:hand raise', 'an activity that is matched with its lead later');
SELECT * FROM agrees('{12,13,14,15}', 'COPY');

-- ---- savepoints ----

BEGIN;
INSERT INTO activity (lead_id, kind, points) VALUES (16, 'visit', 30);
SAVEPOINT a;
INSERT INTO activity (lead_id, kind, points) VALUES (16, 'visit', 30), (17, 'hand raise', 0);
SELECT is(path(16) || ', ' || path(17), 'known:entry mql:rule:warm, known:entry mql:rule:hand raise', 'moved inside a savepoint');
ROLLBACK TO a;
SELECT is(score(16), 30.000, 'the points go back with it');
INSERT INTO activity (lead_id, kind, points) VALUES (16, 'visit', 10);
SAVEPOINT b;
DELETE FROM activity WHERE lead_id = 16;
SAVEPOINT c;
UPDATE activity SET points = 99 WHERE lead_id = 16;
INSERT INTO activity (lead_id, kind, points) VALUES (16, 'member', 45);
RELEASE c;
SELECT is(score(16), 45.000, 'taken away, and one more');
ROLLBACK TO b;
DO $$ BEGIN INSERT INTO activity (lead_id, ref, kind, points) VALUES (16, 'copy-1', 'visit', 50); EXCEPTION WHEN unique_violation THEN INSERT INTO activity (lead_id, kind, points) VALUES (16, 'visit', 9); END $$;
INSERT INTO activity (lead_id, kind, points) VALUES (17, 'visit', 1);
COMMIT;
SELECT is(score(16) || ' ' || path(16) || ', ' || path(17), '49.000 known:entry, known:entry', 'what stayed is what was not rolled back');
INSERT INTO activity (lead_id, kind, points) VALUES (16, 'visit', 1.5);
SELECT is(path(16), 'known:entry mql:rule:warm', 'and the next crosses');
SELECT * FROM agrees('{16,17}', 'savepoints');

-- ---- DELETE ... USING ----

INSERT INTO activity (lead_id, kind, points, note) SELECT l, 'visit', 10, 'list ' || n FROM generate_series(18, 20) AS l, generate_series(1, 4) AS n;
DELETE FROM activity AS a USING lead AS l, (VALUES ('list 1'), ('list 3')) AS v (note) WHERE a.lead_id = l.id AND l.id IN (18, 19) AND a.note = v.note;
SELECT is(score(18) || ' ' || score(19) || ' ' || score(20), '20.000 20.000 40.000', 'DELETE ... USING takes the points along');
SELECT * FROM agrees('{18,19,20}', 'DELETE ... USING');

-- ---- lead and activity in one statement, in one transaction ----

WITH l AS (INSERT INTO lead (id, name) VALUES (101, 'a'), (102, 'b') RETURNING id) INSERT INTO activity (lead_id, kind, points) SELECT id, 'visit', id - 50 FROM l;
WITH a AS (INSERT INTO activity (lead_id, kind, points) VALUES (103, 'visit', 51), (104, 'hand raise', 0), (105, 'visit', 1) RETURNING lead_id) INSERT INTO lead (id, name) SELECT lead_id, 'c' FROM a;
WITH l AS (INSERT INTO lead (id, name) VALUES (106, 'a') RETURNING id), d AS (INSERT INTO deal (lead_id, stage) SELECT id, 'open' FROM l RETURNING lead_id)
INSERT INTO activity (lead_id, kind, points) SELECT lead_id, 'visit', 60 FROM d;
SELECT is((SELECT array_agg((SELECT lifecycle_status FROM lead WHERE id = l)::text) FROM generate_series(101, 106) AS l), '{mql,mql,mql,mql,known,opportunity}', 'WITH: lead first and activity first');
SELECT is((SELECT array_agg(score(l)) FROM generate_series(101, 106) AS l), '{51.000,52.000,51.000,0.000,1.000,60.000}', 'each counts once');
SELECT * FROM agrees('{101,102,103,104,105,106}', 'lead and activity in one statement');

BEGIN;
INSERT INTO activity (lead_id, kind, points) VALUES (107, 'visit', 60), (108, 'visit', 30);
INSERT INTO lead (id, name) VALUES (107, 'a'), (108, 'b');
UPDATE lead SET stage_id = 1 WHERE id IN (107, 108);
INSERT INTO activity (lead_id, kind, points) VALUES (108, 'visit', 30);
COMMIT;
BEGIN;
INSERT INTO lead (id, name) VALUES (109, 'a'), (110, 'b');
UPDATE lead SET stage_id = 1, write_uid = 8 WHERE id IN (109, 110);
INSERT INTO activity (lead_id, kind, points) VALUES (109, 'visit', 60), (110, 'visit', 30);
UPDATE activity SET points = 60 WHERE lead_id = 110;
UPDATE activity SET points = 61 WHERE lead_id = 110;
COMMIT;
SELECT is((SELECT array_agg(path(l)) FROM generate_series(107, 110) AS l),
    '{mql:entry:warm,"known:entry mql:rule:warm","known:entry mql:rule:warm","known:entry mql:rule:warm"}', 'one transaction, activity first and lead first');
SELECT is((SELECT actor FROM lead_history WHERE lead = 109 AND seq = 2), '8', 'by whom the lead says');
SELECT * FROM agrees('{107,108,109,110}', 'one transaction');

-- ---- a merge of leads, as Odoo does it ----

INSERT INTO activity (lead_id, kind, points) VALUES (21, 'visit', 30), (22, 'visit', 15), (23, 'member', 15);
INSERT INTO deal (lead_id, stage) VALUES (24, 'open'), (24, 'lost');
BEGIN;
UPDATE lead SET name = 'survivor', write_uid = 9 WHERE id = 21;
UPDATE activity SET lead_id = 21 WHERE lead_id IN (22, 23);
DELETE FROM lead WHERE id IN (22, 23);
COMMIT;
SELECT is(path(21) || ', ' || path(22), 'known:entry mql:rule:warm, known:entry removed:delete', 'the survivor has what all had');
SELECT is(score(21) || ' ' || score(22) || ' ' || score(23), '60.000 0.000 0.000', 'and the others have nothing');
DELETE FROM lead WHERE id = 24;
SELECT is(path(24), 'known:entry opportunity:rule:open removed:delete', 'rows that go with their lead ask for nothing');
SELECT * FROM agrees('{21,22,23,24}', 'a merge of leads');

-- ---- ALTER COLUMN TYPE ----

SELECT score(1) AS was_worth \gset
ALTER TABLE activity ALTER COLUMN note TYPE varchar(200), ALTER COLUMN write_date TYPE timestamptz USING write_date AT TIME ZONE 'UTC', ALTER COLUMN lead_id TYPE bigint;
SELECT is(score(1), :was_worth, 'ALTER COLUMN TYPE takes no points');
INSERT INTO activity (lead_id, kind, points, note) VALUES (25, 'visit', 50, 'x'), (26, 'visit', 5, 'y');
UPDATE activity SET kind = kind, note = 'z' WHERE lead_id = 26;
DELETE FROM activity WHERE lead_id = 1 AND kind = 'member';
SELECT is(path(25) || ', ' || path(26), 'known:entry mql:rule:warm, known:entry', 'and the table goes on as a signal table');
SELECT * FROM agrees('{1,25,26}', 'ALTER COLUMN TYPE');
ALTER TABLE activity ADD COLUMN extra int DEFAULT 5, DROP COLUMN note;
INSERT INTO activity (lead_id, kind, points) VALUES (26, 'visit', 45.5);
SELECT is(path(26), 'known:entry mql:rule:warm', 'columns come and go');

SELECT * FROM agrees((SELECT array_agg(id) FROM lead), 'in the end');
SELECT * FROM finish();
