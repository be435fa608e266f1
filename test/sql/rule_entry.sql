-- What rules make of a lead that comes in: its score, its status by level and
-- precedence, and the rule in its history, whichever way it comes.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE TABLE leads (id int PRIMARY KEY, email text UNIQUE, title text, a int, b int, c numeric, at timestamptz);
SELECT lifecycle.track('leads');
-- The score of a lead, where it entered, and by which rule, as the row and its history say.
CREATE FUNCTION entry(of int) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', l.demographic_score::text, h.to_status, h.cause, coalesce(h.rule, '-'),
                     CASE WHEN l.lifecycle_status::text <> h.to_status OR l.lifecycle_seq <> h.seq OR l.lifecycle_since <> h.at
                               OR l.demographic_score <> h.demographic_score OR h.behavior_score <> 0 THEN 'row and history differ' END)
    FROM leads l LEFT JOIN leads_history h ON h.lead = l.id AND h.seq = l.lifecycle_seq WHERE l.id = of
$$;

-- ---- the score, by every way of writing ----

INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES
    ('leads', 'chief', $$title ~* '\m(vp|chief|head)\M'$$, '20'),
    ('leads', 'free mail', $$email LIKE '%@gmail.com'$$, '-20'),
    ('leads', 'size', 'a > 0', 'a * 0.5'),
    ('leads', 'nothing', 'b > 0', 'NULL'),
    ('leads', 'off', 'true', '1000');
UPDATE lifecycle.rule SET enabled = false WHERE name = 'off';
INSERT INTO leads (id, email, title, a, b) VALUES (1, 'x@y.com', 'VP Sales', 3, 1), (2, 'x@gmail.com', 'Intern', 0, 0), (3, NULL, NULL, NULL, NULL);
SELECT results_eq('SELECT entry(n) FROM generate_series(1, 3) AS n', $$VALUES ('21.5 known entry -'), ('-20 known entry -'), ('0 known entry -')$$,
    'INSERT: the sum of the points of what holds; NULL is "does not hold", NULL points are none');
COPY leads (id, email, title, a) FROM STDIN;
4	c@gmail.com	Head of IT	2
5	\N	\N	\N
\.
SELECT results_eq('SELECT entry(n) FROM generate_series(4, 5) AS n', $$VALUES ('1 known entry -'), ('0 known entry -')$$, 'COPY');
INSERT INTO leads (id, a) SELECT g, g FROM generate_series(6, 7) AS g;
SELECT results_eq('SELECT entry(n) FROM generate_series(6, 7) AS n', $$VALUES ('3 known entry -'), ('3.5 known entry -')$$, 'INSERT … SELECT');
MERGE INTO leads l USING (VALUES (7, 70), (8, 8)) AS w (id, a) ON w.id = l.id
WHEN MATCHED THEN UPDATE SET a = w.a WHEN NOT MATCHED THEN INSERT (id, a) VALUES (w.id, w.a);
INSERT INTO leads (id, a) VALUES (8, 80), (9, 9) ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a;
SELECT results_eq('SELECT id, demographic_score FROM leads WHERE id BETWEEN 7 AND 9 ORDER BY id', 'VALUES (7, 35::float8), (8, 40), (9, 4.5)', 'MERGE and INSERT … ON CONFLICT DO UPDATE, both arms');
CREATE TEMP TABLE returned (id int, score float8);
WITH w AS (INSERT INTO leads (id, a) VALUES (10, 10) RETURNING id, demographic_score) INSERT INTO returned SELECT * FROM w;
SELECT results_eq('SELECT * FROM returned', 'VALUES (10, 5::float8)', 'RETURNING gives the score');
INSERT INTO leads (id, a, demographic_score) VALUES (11, 1, 99);
SELECT is(entry(11), '0.5 known entry -', 'a score that the write brings along is put aside');
UPDATE leads SET title = 'chief', a = 4 WHERE id = 3;
SELECT is((SELECT demographic_score FROM leads WHERE id = 3), 22::float8, 'UPDATE counts anew');
UPDATE leads SET title = NULL WHERE id = 3;
SELECT is((SELECT demographic_score FROM leads WHERE id = 3), 2::float8, 'points go when the rule does not hold any more');
SELECT is((SELECT count(*) FROM leads_history WHERE lead = 3), 1::bigint, 'a score is no move');
SELECT is((SELECT demographic_score FROM leads_history WHERE lead = 3), 0::float8, 'a move keeps the score that it was made with');
UPDATE leads SET lifecycle_status = 'mql' WHERE id = 3;
SELECT is((SELECT demographic_score FROM leads_history WHERE lead = 3 AND seq = 2), 2::float8, 'the next one has the score of its time');
UPDATE leads SET a = 8, lifecycle_status = 'sal' WHERE id = 3;
SELECT is((SELECT demographic_score FROM leads_history WHERE lead = 3 AND seq = 3), 4::float8, 'that of the same statement included');
DELETE FROM lifecycle.rule;

-- fractions are added in the order of the names, wherever they come from
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES
    ('leads', 'ä', 'true', '1e16'), ('leads', 'Z', 'true', '0.9'), ('leads', 'b', 'true', '-1e16'), ('leads', 'a', 'true', '0.9');
INSERT INTO leads (id) VALUES (20);
SELECT is((SELECT demographic_score FROM leads WHERE id = 20), 0.9::float8 + 0.9::float8 - 1e16::float8 + 1e16::float8, 'a sum is made in the order of the names, byte by byte');
UPDATE lifecycle.rule SET name = '0' WHERE name = 'ä';
INSERT INTO leads (id) VALUES (21);
SELECT is((SELECT demographic_score FROM leads WHERE id = 21), 1e16::float8 + 0.9::float8 + 0.9::float8 - 1e16::float8, 'another name, another place');
SELECT isnt((SELECT demographic_score FROM leads WHERE id = 20), (SELECT demographic_score FROM leads WHERE id = 21), 'which can be seen in the sum');
DELETE FROM lifecycle.rule;

-- ---- the status, by level ----

INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('leads', 'a', 'a > 0', 'a');
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('leads', 'score', 'demographic_score >= 25 AND behavior_score >= 0', 'mql');
INSERT INTO leads (id, a) VALUES (30, 24), (31, 25), (32, NULL);
SELECT results_eq('SELECT entry(n) FROM generate_series(30, 32) AS n', $$VALUES ('24 known entry -'), ('25 mql entry score'), ('0 known entry -')$$, 'a rule whose condition holds decides the entry, by its score as well');
INSERT INTO leads (id, a, lifecycle_status) VALUES (33, 25, 'known'), (34, 25, NULL), (35, 25, 'sal'), (36, 25, 'customer'), (37, 25, 'mql');
SELECT results_eq('SELECT entry(n) FROM generate_series(33, 37) AS n', $$VALUES ('25 mql entry score'), ('25 mql entry score'), ('25 sal entry -'), ('25 customer entry -'), ('25 mql entry -')$$,
    'the model''s first status and NULL are no status; any other is taken, and no rule is named');
ALTER TABLE leads ALTER COLUMN lifecycle_status SET DEFAULT 'known';
INSERT INTO leads (id, a) VALUES (38, 25);
ALTER TABLE leads ALTER COLUMN lifecycle_status SET DEFAULT 'sal';
INSERT INTO leads (id, a) VALUES (39, 25);
ALTER TABLE leads ALTER COLUMN lifecycle_status DROP DEFAULT;
SELECT results_eq('SELECT entry(n) FROM generate_series(38, 39) AS n', $$VALUES ('25 mql entry score'), ('25 sal entry -')$$, 'a column default is like a write');
COPY leads (id, a) FROM STDIN;
40	25
41	2
\.
MERGE INTO leads l USING (VALUES (41, 25), (42, 25), (43, 1)) AS w (id, a) ON w.id = l.id
WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (id, a) VALUES (w.id, w.a);
INSERT INTO leads (id, a) VALUES (44, 25), (44, 1) ON CONFLICT (id) DO NOTHING;
SELECT results_eq('SELECT entry(n) FROM generate_series(40, 44) AS n',
    $$VALUES ('25 mql entry score'), ('2 known entry -'), ('25 mql entry score'), ('1 known entry -'), ('25 mql entry score')$$, 'COPY, MERGE and ON CONFLICT DO NOTHING enter by rules');
DELETE FROM leads WHERE id = 44;
INSERT INTO leads (id, a) VALUES (44, 25);
SELECT results_eq('SELECT seq, cycle, to_status, cause, rule FROM leads_history WHERE lead = 44 ORDER BY seq',
    $$VALUES (1, 1, 'mql', 'entry', 'score'), (2, 1, NULL, 'delete', NULL), (3, 2, 'mql', 'entry', 'score')$$, 'a key that comes back enters by rules again');
DELETE FROM lifecycle.rule;

-- ---- precedence ----

CREATE FUNCTION winner(rules jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    INSERT INTO lifecycle.rule (on_table, name, condition, status, priority, only_from, enabled)
    SELECT 'leads', r ->> 'name', coalesce(r ->> 'if', 'true'), r ->> 'status', coalesce((r ->> 'priority')::int, 0),
           (r ->> 'only_from')::text[], coalesce((r ->> 'enabled')::boolean, true)
    FROM jsonb_array_elements(rules) AS r;
    INSERT INTO leads (id, a) VALUES (-1, 1);
    SELECT entry(-1) INTO said;
    DELETE FROM lifecycle.rule;
    DELETE FROM leads WHERE id = -1;
    RETURN said;
END $$;
SELECT is(winner(e.rules::jsonb), e.entry, e.what)
FROM (VALUES
    ('[{"name": "a", "status": "mql"}, {"name": "b", "status": "sal"}]', '0 sal entry b', 'the furthest along the path'),
    ('[{"name": "b", "status": "sal"}, {"name": "a", "status": "mql"}]', '0 sal entry b', 'in whatever order they were written'),
    ('[{"name": "a", "status": "mql"}, {"name": "b", "status": "mql"}]', '0 mql entry a', 'of two that ask for the same, the first name'),
    ('[{"name": "a", "status": "mql"}, {"name": "B", "status": "mql"}]', '0 mql entry B', 'names are compared byte by byte'),
    ('[{"name": "a", "status": "opportunity"}, {"name": "b", "status": "disqualified"}]', '0 disqualified entry b', 'a detour before the path'),
    ('[{"name": "a", "status": "customer"}, {"name": "b", "status": "disqualified"}]', '0 customer entry a', 'but after the path''s last status'),
    ('[{"name": "b", "status": "recycled"}, {"name": "a", "status": "lost"}, {"name": "c", "status": "disqualified"}]', '0 lost entry a', 'among detours, the first name'),
    ('[{"name": "a", "status": "customer"}, {"name": "b", "status": "mal", "priority": 1}]', '0 mal entry b', 'the higher priority before everything'),
    ('[{"name": "a", "status": "customer", "priority": -1}, {"name": "b", "status": "mal"}]', '0 mal entry b', 'it may be negative'),
    ('[{"name": "a", "status": "customer", "priority": -2147483648}, {"name": "b", "status": "mal", "priority": 2147483647}]', '0 mal entry b', 'or extreme'),
    ('[{"name": "a", "status": "sal", "if": "a = 2"}, {"name": "b", "status": "mql"}]', '0 mql entry b', 'of those that hold'),
    ('[{"name": "a", "status": "sal", "if": "b = 1"}, {"name": "b", "status": "mql"}]', '0 mql entry b', 'NULL does not hold'),
    ('[{"name": "a", "status": "sal", "enabled": false}, {"name": "b", "status": "mql"}]', '0 mql entry b', 'of those that are enabled'),
    ('[{"name": "a", "status": "sal", "only_from": "{known}"}, {"name": "b", "status": "mql"}]', '0 mql entry b', 'a rule with only_from takes no part'),
    ('[{"name": "a", "status": "sal", "only_from": "{known,mal,engaged,mql,sal,sql,opportunity,customer,recycled,disqualified,lost}"}]', '0 known entry -', 'whatever is in it'),
    ('[{"name": "a", "status": "known"}]', '0 known entry a', 'a rule may ask for the first status'),
    ('[{"name": "a", "status": "lost"}]', '0 lost entry a', 'entry is legal to any status'),
    ('[{"name": "a", "status": "mql", "if": "false"}]', '0 known entry -', 'and where none holds, the model''s first')
) AS e (rules, entry, what);

-- a status that the model lacks now
SELECT lifecycle.copy_model('standard', 'mine');
INSERT INTO lifecycle.stage (model, status, rank, label) VALUES ('mine', 'archived', NULL, 'Archived');
CREATE TABLE mine (id int PRIMARY KEY, stage text, a int);
SELECT lifecycle.track('mine', 'mine', status_column => 'stage');
INSERT INTO lifecycle.rule (on_table, name, condition, status, priority) VALUES ('mine', 'archive', 'a = 1', 'archived', 9), ('mine', 'good', 'a > 0', 'mql', 0);
INSERT INTO mine (id, a) VALUES (1, 1);
DELETE FROM mine;
DELETE FROM lifecycle.stage WHERE model = 'mine' AND status = 'archived';
INSERT INTO mine (id, a) VALUES (2, 1);
SELECT results_eq('SELECT lead, to_status, cause, rule FROM mine_history WHERE to_status IS NOT NULL ORDER BY lead',
    $$VALUES (1, 'archived', 'entry', 'archive'), (2, 'mql', 'entry', 'good')$$, 'a rule whose status is not in the model any more is passed over');
SELECT is(failure($$UPDATE lifecycle.rule SET enabled = false WHERE name = 'archive'$$), 'no error', 'and can be switched off');
SELECT matches(failure($$UPDATE lifecycle.rule SET enabled = true WHERE name = 'archive'$$), '^22023: "archived" is not a status of model "mine"', 'but not on');
SELECT is(failure($$INSERT INTO mine (id, stage) VALUES (3, 'nonsense')$$) LIKE '23514: "nonsense" is not a status of model "mine"%', true, 'a status that the model lacks is refused');
BEGIN;
SET LOCAL lifecycle.on_illegal = 'keep';
INSERT INTO mine (id, stage, a) VALUES (3, 'nonsense', 1), (4, 'nonsense', NULL);
COMMIT;
SELECT results_eq('SELECT id, stage, (SELECT rule FROM mine_history h WHERE h.lead = id) FROM mine WHERE id > 2 ORDER BY id', $$VALUES (3, 'mql', 'good'), (4, 'known', NULL)$$,
    'with keep, the rules say where such a lead enters');
SELECT results_eq('SELECT lead, from_status, to_status FROM mine_refused ORDER BY lead', $$VALUES (3, NULL::text, 'nonsense'), (4, NULL, 'nonsense')$$, 'and it is noted');

-- ---- an entry by a first status that is written later; backfill ----

CREATE TABLE old (id int PRIMARY KEY, stage text, a int);
INSERT INTO old VALUES (1, NULL, 30), (2, NULL, 30), (3, 'sal', 30), (4, NULL, 1), (5, NULL, 30);
SELECT lifecycle.track('old', status_column => 'stage');
INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES ('old', 'p', 'a > 0', 'a', NULL), ('old', 's', 'demographic_score >= 25', NULL, 'mql');
UPDATE old SET stage = 'engaged' WHERE id = 1;
SELECT results_eq($$SELECT l.stage, l.demographic_score, h.cause, h.rule FROM old l JOIN old_history h ON h.lead = l.id WHERE id = 1$$, $$VALUES ('engaged', 30::float8, 'entry', NULL::text)$$,
    'a lead older than track() enters where it is written to, with its score');
UPDATE old SET a = 40 WHERE id = 2;
SELECT results_eq('SELECT stage, demographic_score, lifecycle_seq FROM old WHERE id = 2', $$VALUES (NULL::text, 40::float8, NULL::int)$$, 'a rule does not bring in a lead that is outside of the program');
CALL lifecycle.backfill('old');
SELECT results_eq('SELECT id, stage, demographic_score FROM old ORDER BY id', $$VALUES (1, 'engaged', 30::float8), (2, 'mql', 40), (3, 'sal', 30), (4, 'known', 1), (5, 'mql', 30)$$,
    'backfill() gives every lead its score, and those without a status the one that the rules say');
SELECT results_eq('SELECT lead, seq, from_status, to_status, cause FROM old_history WHERE lead > 1 ORDER BY lead, seq',
    $$VALUES (2, 1, NULL::text, 'known', 'backfill'), (2, 2, 'known', 'mql', 'backfill'), (3, 1, NULL, 'known', 'backfill'), (3, 2, 'known', 'sal', 'backfill'), (4, 1, NULL, 'known', 'backfill'),
             (5, 1, NULL, 'known', 'backfill'), (5, 2, 'known', 'mql', 'backfill')$$, 'with cause backfill');

-- ---- cause and rule get from the decision to the history ----

INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('leads', 'rule A', 'title = ''A''', 'mql'), ('leads', 'rule B', 'title = ''B''', 'engaged'), ('leads', 'rule C', 'title = ''C''', 'mql');
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.b = -1 THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER aaa BEFORE INSERT OR UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION suppress();
INSERT INTO leads (id, title, b) VALUES (50, 'A', -1), (50, 'B', 0), (51, 'A', 0), (52, 'B', -1);
DROP TRIGGER aaa ON leads;
CREATE TRIGGER zzz BEFORE INSERT OR UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION suppress();
INSERT INTO leads (id, title, b) VALUES (53, 'A', -1), (53, 'B', 0), (54, 'A', 0), (55, 'B', -1), (56, 'x', 0);
SELECT results_eq('SELECT lead, to_status, cause, rule FROM leads_history WHERE lead BETWEEN 50 AND 56 ORDER BY lead',
    $$VALUES (50, 'engaged', 'entry', 'rule B'), (51, 'mql', 'entry', 'rule A'), (53, 'engaged', 'entry', 'rule B'), (54, 'mql', 'entry', 'rule A'), (56, 'known', 'entry', NULL)$$,
    'of a row that a trigger suppressed nothing is told, and of the one with its key that was stored the right rule');
INSERT INTO leads (id, title, b) VALUES (57, 'A', -1), (57, 'C', 0), (58, 'C', -1), (58, 'x', 0);
SELECT results_eq('SELECT lead, to_status, cause, rule FROM leads_history WHERE lead IN (57, 58) ORDER BY lead',
    $$VALUES (57, 'mql', 'entry', 'rule C'), (58, 'known', 'entry', NULL)$$, 'also where both rules ask for one status, and where none does');
DROP TRIGGER zzz ON leads;
INSERT INTO leads (id, email, title) VALUES (60, 'taken', 'x');
INSERT INTO leads (id, email, title) VALUES (61, 'taken', 'A'), (61, 'free', 'B'), (61, 'other', 'C'), (62, 'own', 'A'), (60, 'new', 'A') ON CONFLICT DO NOTHING;
SELECT results_eq('SELECT lead, to_status, cause, rule FROM leads_history WHERE lead BETWEEN 60 AND 62 ORDER BY lead',
    $$VALUES (60, 'known', 'entry', NULL), (61, 'engaged', 'entry', 'rule B'), (62, 'mql', 'entry', 'rule A')$$, 'one key several times in an INSERT … ON CONFLICT DO NOTHING: the rule is that of the row that was stored');
INSERT INTO leads (id, title) VALUES (60, 'A') ON CONFLICT (id) DO UPDATE SET lifecycle_status = 'sal';
INSERT INTO leads (id, title) VALUES (62, 'C') ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title, lifecycle_status = 'sal';
INSERT INTO leads (id, title) VALUES (61, 'A') ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title;
SELECT results_eq('SELECT lead, to_status, cause, rule FROM leads_history WHERE lead BETWEEN 60 AND 62 AND seq > 1 ORDER BY lead',
    $$VALUES (60, 'sal', 'write', NULL), (61, 'mql', 'rule', 'rule A'), (62, 'sal', 'write', NULL)$$, 'ON CONFLICT DO UPDATE: the entry that was not made leaves no trace');
WITH gone AS (DELETE FROM leads WHERE id = 62 RETURNING id) INSERT INTO leads (id, title) SELECT id, 'C' FROM gone;
SELECT results_eq('SELECT seq, to_status, cause, rule FROM leads_history WHERE lead = 62 ORDER BY seq',
    $$VALUES (1, 'mql', 'entry', 'rule A'), (2, 'sal', 'write', NULL), (3, NULL, 'delete', NULL), (4, 'mql', 'entry', 'rule C')$$, 'DELETE and INSERT of one key in one statement');
WITH a AS (INSERT INTO leads (id, title) VALUES (70, 'A')), b AS (INSERT INTO leads (id, title) VALUES (71, 'B')), u AS (UPDATE leads SET title = 'C' WHERE id = 60)
INSERT INTO leads (id, title) SELECT 72, 'C';
SELECT results_eq('SELECT lead, seq, to_status, cause, rule FROM leads_history WHERE lead BETWEEN 70 AND 72 OR lead = 60 AND seq > 2 ORDER BY lead, seq',
    $$VALUES (70, 1, 'mql', 'entry', 'rule A'), (71, 1, 'engaged', 'entry', 'rule B'), (72, 1, 'mql', 'entry', 'rule C')$$, 'four statements in one, by writable CTEs');
SELECT is_empty($$SELECT * FROM lifecycle.verify('leads') WHERE "check" <> 'stale'$$, 'and the history is whole');

-- Partitions with other orders of columns; written at the top and by themselves; batched and not
CREATE TABLE parts (id int, title text, a int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE part_0 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE part_1 (a int, dropped text, title text, id int NOT NULL PRIMARY KEY);
ALTER TABLE part_1 DROP COLUMN dropped;
ALTER TABLE parts ATTACH PARTITION part_1 FOR VALUES FROM (100) TO (200);
SELECT lifecycle.track('parts');
CREATE TABLE part_2 (lifecycle_seq int, demographic_score float8, title text, lifecycle_since timestamptz, id int NOT NULL PRIMARY KEY, lifecycle_status lifecycle.lifecycle_status, a int);
ALTER TABLE parts ATTACH PARTITION part_2 FOR VALUES FROM (200) TO (300);
INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES
    ('parts', 'p', 'a > 0', 'a * length(title)', NULL), ('parts', 'vp', 'title = ''vp'' AND a > 0', NULL, 'mql'), ('parts', 'score', 'demographic_score > 100', NULL, 'sal');
CREATE FUNCTION live() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO parts (id, title, a) SELECT g, CASE g % 3 WHEN 0 THEN 'vp' ELSE 'x' END, g % 7 - 1 FROM generate_series(0, 299, 10) AS g;
    INSERT INTO part_0 (id, title, a) VALUES (1, 'vp', 1), (2, 'vp', 60);
    INSERT INTO part_1 (id, title, a) VALUES (101, 'vp', 1), (102, 'vp', 60);
    INSERT INTO part_2 (id, title, a) VALUES (201, 'vp', 1), (202, 'vp', 60);
    UPDATE parts SET a = a + 30, title = 'vp' WHERE id % 20 = 0;
    UPDATE part_1 SET title = 'director of revenue', a = 9 WHERE id IN (110, 130);
    UPDATE part_2 SET title = 'director of revenue', a = 9 WHERE id IN (210, 230);
END $$;
SET lifecycle.batch_history = on;
SELECT live();
DELETE FROM parts;
SET lifecycle.batch_history = off;
SELECT live();
RESET lifecycle.batch_history;
SELECT results_eq('SELECT p.id, p.lifecycle_status::text, p.demographic_score, h.cause, h.rule FROM parts p JOIN parts_history h ON h.lead = p.id AND h.seq = p.lifecycle_seq WHERE p.id % 100 < 3 AND p.id % 100 > 0 ORDER BY id',
    $$VALUES (1, 'mql', 2::float8, 'entry', 'vp'), (2, 'sal', 120, 'entry', 'score'), (101, 'mql', 2, 'entry', 'vp'), (102, 'sal', 120, 'entry', 'score'), (201, 'mql', 2, 'entry', 'vp'), (202, 'sal', 120, 'entry', 'score')$$,
    'rules judge the rows of all partitions, whatever the order of their columns');
SELECT results_eq('SELECT p.id, p.lifecycle_status::text, p.demographic_score, h.cause, h.rule FROM parts p JOIN parts_history h ON h.lead = p.id AND h.seq = p.lifecycle_seq WHERE p.id IN (20, 110, 130, 140, 210, 230, 240) ORDER BY id',
    $$VALUES (20, 'mql', 70::float8, 'rule', 'vp'), (110, 'sal', 171, 'rule', 'score'), (130, 'sal', 171, 'rule', 'score'), (140, 'mql', 58, 'rule', 'vp'),
             (210, 'sal', 171, 'rule', 'score'), (230, 'sal', 171, 'rule', 'score'), (240, 'mql', 62, 'entry', 'vp')$$,
    'so do UPDATEs of the top and of single partitions');
SELECT is_empty($$SELECT * FROM lifecycle.verify('parts')$$, 'and the history is whole');
SELECT is_empty($$WITH h AS (SELECT cycle, lead, row_number() OVER (PARTITION BY lead, cycle ORDER BY seq) AS n, from_status, to_status, cause, rule, demographic_score FROM parts_history WHERE cause <> 'delete')
                  (SELECT lead, n, from_status, to_status, cause, rule, demographic_score FROM h WHERE cycle = 1 EXCEPT SELECT lead, n, from_status, to_status, cause, rule, demographic_score FROM h WHERE cycle = 2)
                  UNION ALL (SELECT lead, n, from_status, to_status, cause, rule, demographic_score FROM h WHERE cycle = 2 EXCEPT SELECT lead, n, from_status, to_status, cause, rule, demographic_score FROM h WHERE cycle = 1)$$,
    'batched or move by move: the same causes, rules and scores');

SELECT * FROM finish();
