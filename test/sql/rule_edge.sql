-- When an UPDATE moves a lead by a rule, and when it does not: edges and their
-- two sides, only_from, legality, explicit writes, the clock, and what is not
-- even looked at.
\ir ../lib/failure.sql
CREATE EXTENSION lifecycle;
SELECT no_plan();

CREATE TABLE leads (id int PRIMARY KEY, title text, note text, a int, b int, at timestamptz, doubled int GENERATED ALWAYS AS (a * 2) STORED);
SELECT lifecycle.track('leads');
-- The moves of a lead after its entry: status, and the rule or, without one, the cause.
CREATE FUNCTION moves(of int) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(CASE WHEN h.rule IS NULL THEN h.to_status || ' (' || h.cause || ')' ELSE h.to_status || ' ' || h.rule || CASE h.cause WHEN 'rule' THEN '' ELSE ' (' || h.cause || ')' END END, ', ' ORDER BY h.seq), '')
    FROM leads_history h WHERE h.lead = of AND h.from_status IS NOT NULL
$$;
-- What the statements make of a new lead of the given status, under the given rules.
CREATE FUNCTION lived(rules jsonb, entry text, statements text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    statement text;
    told text;
BEGIN
    EXECUTE format('INSERT INTO leads (id, a, b, lifecycle_status) VALUES (1, 0, 0, %L)', entry);
    INSERT INTO lifecycle.rule (on_table, name, condition, points, status, priority, only_from)
    SELECT 'leads', r ->> 'name', r ->> 'if', r ->> 'points', r ->> 'status', coalesce((r ->> 'priority')::int, 0), (r ->> 'only_from')::text[]
    FROM jsonb_array_elements(rules) AS r;
    FOREACH statement IN ARRAY statements LOOP
        IF statement LIKE 'a%' OR statement LIKE 'b%' OR statement LIKE 'note%' OR statement LIKE 'title%' OR statement LIKE 'lifecycle%' OR statement LIKE 'at %' THEN
            EXECUTE 'UPDATE leads SET ' || statement || ' WHERE id = 1';
        ELSE
            EXECUTE statement;
        END IF;
    END LOOP;
    SELECT moves(1) INTO told;
    DELETE FROM lifecycle.rule;
    RETURN told;
END $$;
-- each life begins with an empty history
CREATE FUNCTION anew() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lifecycle.untrack('leads', true);
    PERFORM lifecycle.track('leads');
END $$;
CREATE FUNCTION life(rules text, entry text, statements text[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM anew();
    TRUNCATE leads;
    RETURN lived(rules::jsonb, entry, statements);
END $$;

SELECT is(life(l.rules, l.entry, l.statements::text[]), l.moves, l.what)
FROM (VALUES
    -- edges
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', NULL, '{a = 1}', 'mql r', 'a condition that comes to hold moves the lead'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', NULL, '{note = ''x''}', '', 'one that does not hold does not'),
    ('[{"name": "r", "if": "a = 0", "status": "mql"}]', NULL, '{b = 1}', '', 'nor does one that held before'),
    ('[{"name": "r", "if": "a = 0 OR b = 1", "status": "mql"}]', NULL, '{b = 1}', '', 'for whatever reason'),
    ('[{"name": "r", "if": "a = 0", "status": "mql"}]', NULL, '{a = NULL,a = 0}', 'mql r', 'one that came to NULL and holds again does'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', NULL, '{a = NULL,a = 1}', 'mql r', 'from NULL to true is an edge'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', NULL, '{a = 1,lifecycle_status = ''recycled'',a = 2}', 'mql r, recycled (write)', 'it holds, and held before: no edge'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', NULL, '{a = 1,lifecycle_status = ''recycled'',a = 0,a = 2}', 'mql r, recycled (write), mql r', 'gone and come again: an edge'),
    ('[{"name": "r", "if": "true", "status": "mql"}]', NULL, '{a = 1,b = 1}', '', 'what always holds has no edge'),
    ('[{"name": "r", "if": "doubled > 2", "status": "mql"}]', NULL, '{a = 1,a = 2}', 'mql r', 'stored generated columns are judged as they will be stored'),
    -- scores
    ('[{"name": "p", "if": "a > 0", "points": "a"}, {"name": "r", "if": "demographic_score >= 5", "status": "mql"}]', NULL, '{a = 4,a = 5}', 'mql r', 'the score crosses'),
    ('[{"name": "p", "if": "a > 0", "points": "a"}, {"name": "r", "if": "demographic_score >= 5", "status": "mql"}]', NULL, '{a = 5,lifecycle_status = ''recycled'',a = 9}', 'mql r, recycled (write)', 'it is above, and was above: no edge'),
    ('[{"name": "p", "if": "a > 0", "points": "a"}, {"name": "r", "if": "demographic_score >= 5", "status": "mql"}]', NULL, '{a = 5,lifecycle_status = ''recycled'',a = 4,a = 9}', 'mql r, recycled (write), mql r', 'below and above again: an edge'),
    ('[{"name": "p", "if": "a > 0", "points": "a"}, {"name": "r", "if": "demographic_score >= 5 AND b = 1", "status": "mql"}]', NULL, '{a = 5,b = 1}', 'mql r', 'each of the two may come last'),
    ('[{"name": "p", "if": "a > 0", "points": "a"}, {"name": "r", "if": "demographic_score >= 5 AND b = 1", "status": "mql"}]', NULL, '{b = 1,a = 5}', 'mql r', 'or the other'),
    ('[{"name": "p", "if": "a > 0", "points": "a"}, {"name": "r", "if": "demographic_score < 5 AND b = 1", "status": "mql"}]', NULL, '{a = 9,b = 1,a = 0}', 'mql r', 'falling below is an edge as well'),
    ('[{"name": "r", "if": "demographic_score >= 5 AND b = 0", "status": "mql"}]', NULL, '{"INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES (''leads'', ''p'', ''a >= 0'', ''10'')",note = ''x''}', '', 'a new rule moves nobody by itself, nor does a write that it does not read'),
    ('[{"name": "r", "if": "demographic_score >= 5 AND b = 0", "status": "mql"}]', NULL, '{"INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES (''leads'', ''p'', ''a >= 0'', ''10'')",a = 1}', 'mql r', 'the score before is the stored one, however old: it crosses with the next write that counts it'),
    ('[{"name": "r", "if": "behavior_score >= 0 AND a > 0", "status": "mql"}, {"name": "s", "if": "behavior_score > 0 OR a > 1", "status": "sal"}]', NULL, '{a = 1,a = 2}', 'mql r, sal s', 'behavior_score is 0'),
    -- one move per statement; precedence
    ('[{"name": "r", "if": "a > 0", "status": "mql"}, {"name": "s", "if": "a > 0", "status": "sal"}]', NULL, '{a = 1,b = 1}', 'sal s', 'one move per statement, furthest along the path; the other has spent its edge'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}, {"name": "s", "if": "a > 1", "status": "sal"}]', NULL, '{a = 1,a = 2}', 'mql r, sal s', 'one after the other by two statements'),
    ('[{"name": "r", "if": "a > 0", "status": "mql", "priority": 1}, {"name": "s", "if": "a > 0", "status": "sal"}]', NULL, '{a = 1}', 'mql r', 'priority'),
    ('[{"name": "r", "if": "a > 0", "status": "disqualified"}, {"name": "s", "if": "a > 0", "status": "opportunity"}]', NULL, '{a = 1}', 'disqualified r', 'a detour before the path'),
    ('[{"name": "r", "if": "a > 0", "status": "disqualified"}, {"name": "s", "if": "a > 0", "status": "customer"}]', NULL, '{a = 1}', 'customer s', 'the last status of the path before a detour'),
    ('[{"name": "z", "if": "a > 0", "status": "mql"}, {"name": "Z", "if": "a > 0", "status": "mql"}]', NULL, '{a = 1}', 'mql Z', 'the first name'),
    ('[{"name": "r", "if": "a >= 0", "status": "sal", "priority": 9}, {"name": "s", "if": "a > 0", "status": "mql"}]', NULL, '{a = 1}', 'mql s', 'a rule that held before stands in nobody''s way'),
    -- only_from, legality
    ('[{"name": "r", "if": "a > 0", "status": "sal", "only_from": "{mql}"}]', NULL, '{a = 1}', '', 'only_from: not from elsewhere'),
    ('[{"name": "r", "if": "a > 0", "status": "sal", "only_from": "{mql}"}]', 'mql', '{a = 1}', 'sal r', 'only_from: from there'),
    ('[{"name": "r", "if": "a > 0", "status": "sal", "only_from": "{mql}", "priority": 5}, {"name": "s", "if": "a > 0", "status": "engaged"}]', NULL, '{a = 1}', 'engaged s', 'a rule that does not apply stands in nobody''s way'),
    ('[{"name": "r", "if": "a > 0", "status": "sal", "only_from": "{mql}"}]', NULL, '{a = 1,lifecycle_status = ''mql'',a = 2}', 'mql (write)', 'a rule that did not apply has spent its edge'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', 'customer', '{a = 1}', '', 'an illegal move is not made, and is no error'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', 'disqualified', '{a = 1,lifecycle_status = ''recycled'',a = 2,a = 0,a = 1}', 'recycled (write), mql r', 'and its edge is spent'),
    ('[{"name": "r", "if": "a > 0", "status": "mql", "priority": 5}, {"name": "s", "if": "a > 0", "status": "recycled"}]', 'customer', '{a = 1}', 'recycled s', 'a rule whose move is illegal stands in nobody''s way'),
    ('[{"name": "r", "if": "a > 0", "status": "mql", "priority": 5}, {"name": "s", "if": "a > 0", "status": "sal"}]', 'mql', '{a = 1}', 'sal s', 'nor does one that asks for where the lead is'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', 'mql', '{a = 1}', '', 'which is no move'),
    ('[{"name": "r", "if": "a > 0", "status": "known"}]', 'mql', '{a = 1}', '', 'backwards is not legal'),
    -- explicit writes
    ('[{"name": "r", "if": "a > 0", "status": "sal"}]', NULL, '{"a = 1, lifecycle_status = ''engaged''",b = 1}', 'engaged (write)', 'a status that the statement writes wins, and the edge is spent'),
    ('[{"name": "r", "if": "a > 0", "status": "sal"}]', NULL, '{"a = 1, lifecycle_status = ''sal''"}', 'sal (write)', 'also where the rule asks for the same'),
    ('[{"name": "r", "if": "a > 0", "status": "sal"}]', 'mql', '{"a = 1, lifecycle_status = ''mql'', lifecycle_seq = 7, lifecycle_since = NULL, demographic_score = 99"}', 'sal r', 'the status that the lead has is no write of one: an ORM that saves whole rows lets rules act'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', NULL, '{"UPDATE leads SET a = id","UPDATE leads SET a = 0, b = 1 WHERE id = 1","MERGE INTO leads l USING (VALUES (1)) AS w (id) ON w.id = l.id WHEN MATCHED THEN UPDATE SET lifecycle_status = ''recycled''","INSERT INTO leads (id, a) VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a"}',
        'mql r, recycled (write), mql r', 'UPDATE, MERGE, ON CONFLICT DO UPDATE'),
    -- keep
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', 'engaged', '{"SET LOCAL lifecycle.on_illegal = ''keep''","a = 1, lifecycle_status = ''known''"}', 'mql r', 'a status that keep refused leaves the decision to the rules'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', 'customer', '{"SET LOCAL lifecycle.on_illegal = ''keep''","a = 1, lifecycle_status = ''known''"}', '', 'which may not help either'),
    ('[{"name": "r", "if": "a > 0", "status": "mql"}]', 'engaged', '{"SET LOCAL lifecycle.on_illegal = ''keep''","a = 1, lifecycle_status = NULL"}', 'mql r', 'NULL is refused like that, too')
) AS l (rules, entry, statements, moves, what);
SELECT anew();
TRUNCATE leads;

-- ---- what is put back ----

INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES ('leads', 'p', 'a > 0', 'a', NULL), ('leads', 's', 'demographic_score >= 10', NULL, 'mql');
INSERT INTO leads (id, a) VALUES (1, 3), (2, 3);
UPDATE leads SET demographic_score = 500, lifecycle_seq = 9, lifecycle_since = 'infinity' WHERE id = 1;
SELECT results_eq('SELECT l.demographic_score, l.lifecycle_seq, l.lifecycle_since = h.at, l.lifecycle_status::text FROM leads l JOIN leads_history h ON h.lead = l.id AND h.seq = l.lifecycle_seq WHERE id = 1',
    $$VALUES (3::float8, 1, true, 'known')$$, 'a score that is written moves nobody: it is put back');
UPDATE leads SET a = 10, demographic_score = 0 WHERE id = 1;
SELECT results_eq('SELECT demographic_score, lifecycle_status::text FROM leads WHERE id = 1', $$VALUES (10::float8, 'mql')$$, 'the right one counts');
BEGIN;
SET LOCAL lifecycle.on_illegal = 'keep';
UPDATE leads SET a = 11, lifecycle_status = 'known' WHERE id = 1;
COMMIT;
SELECT results_eq('SELECT demographic_score, lifecycle_status::text, a FROM leads WHERE id = 1', $$VALUES (11::float8, 'mql', 11)$$, 'under keep the row is written and scored, and the status stays');
SELECT results_eq('SELECT lead, from_status, to_status FROM leads_refused', $$VALUES (1, 'mql', 'known')$$, 'and is noted');
SELECT is(failure($$UPDATE leads SET a = 0, lifecycle_status = 'known' WHERE id = 1$$) LIKE '23514: lead 1 of table "public.leads" cannot move from "mql" to "known"%', true, 'without keep it is an error');
DELETE FROM lifecycle.rule;

-- ---- time ----

-- now() in a condition is the time that the move gets
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES
    ('leads', 'fresh', 'title = ''fresh'' AND at > now() - interval ''30 days''', 'engaged'),
    ('leads', 'today', 'title = ''today'' AND (at AT TIME ZONE ''UTC'')::date = CURRENT_DATE', 'mql'),
    ('leads', 'stamp', 'title = ''stamp'' AND at = CURRENT_TIMESTAMP AND at AT TIME ZONE ''UTC'' = LOCALTIMESTAMP AND at = transaction_timestamp()', 'sal'),
    ('leads', 'age', 'title = ''age'' AND age(at) < interval ''1 year''', 'sql');
SET timezone = 'UTC';
BEGIN;
SET LOCAL lifecycle.at = '2020-06-15 12:00+00';
INSERT INTO leads (id, title, at) VALUES (10, 'fresh', '2020-06-01 12:00+00'), (11, 'fresh', '2020-05-01 12:00+00'), (12, 'today', '2020-06-15 23:00+00'), (13, 'today', now()), (14, 'stamp', '2020-06-15 12:00+00'),
    (15, 'age', '2020-05-15'), (16, 'age', '2018-01-01');
COMMIT;
SELECT results_eq('SELECT id, lifecycle_status::text, lifecycle_since FROM leads WHERE id BETWEEN 10 AND 14 ORDER BY id', $$
    VALUES (10, 'engaged', timestamptz '2020-06-15 12:00+00'), (11, 'known', '2020-06-15 12:00+00'), (12, 'mql', '2020-06-15 12:00+00'), (13, 'known', '2020-06-15 12:00+00'), (14, 'sal', '2020-06-15 12:00+00')$$,
    'in a replay, now(), CURRENT_DATE and their kin in a condition are the replay''s time');
SELECT results_eq('SELECT id, lifecycle_status::text FROM leads WHERE id IN (15, 16) ORDER BY id', $$VALUES (15, 'sql'), (16, 'known')$$, 'and so is what age() counts from');
BEGIN;
SET LOCAL lifecycle.at = '2020-07-20 12:00+00';
INSERT INTO leads (id, title, at) VALUES (17, 'x', '2020-07-01 12:00+00'), (18, 'x', '2020-06-01 12:00+00');
UPDATE leads SET title = 'fresh' WHERE id IN (17, 18);
COMMIT;
SELECT is(moves(17) || '; ' || moves(18), 'engaged fresh; ', 'at an UPDATE, too');
-- a lead whose last move is later than the replay's time is judged at the later one
BEGIN;
SET LOCAL lifecycle.at = '2020-09-01 12:00+00';
INSERT INTO leads (id, title, at) VALUES (19, 'x', '2020-09-01 12:00+00');
COMMIT;
SELECT is(failure($$SET LOCAL lifecycle.at = '2020-07-01 12:00+00'; UPDATE leads SET title = 'fresh' WHERE id = 19$$) LIKE '22023:%', true, 'no move before the last one');
-- the clock alone moves nothing: both sides are judged at the same moment
BEGIN;
SET LOCAL lifecycle.at = '2021-01-01 12:00+00';
INSERT INTO leads (id, title, at) VALUES (20, 'late', '2021-01-10 12:00+00');
COMMIT;
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('leads', 'came true', 'title = ''late'' AND at < now()', 'mql');
BEGIN;
SET LOCAL lifecycle.at = '2021-02-01 12:00+00';
UPDATE leads SET note = 'a year later' WHERE id = 20;
UPDATE leads SET title = 'late', a = 1 WHERE id = 20;
UPDATE leads SET at = at + interval '1 hour' WHERE id = 20;
COMMIT;
SELECT is(moves(20), '', 'what came true by time alone is no edge, whatever is written');
UPDATE leads SET at = now() + interval '1 day' WHERE id = 20;
UPDATE leads SET at = now() - interval '1 day' WHERE id = 20;
SELECT is(moves(20), 'mql came true', 'what comes true by a write is');
DELETE FROM lifecycle.rule;

-- ---- what is not evaluated ----

CREATE SEQUENCE asked;
CREATE FUNCTION ask(text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM nextval('public.asked'); RETURN $1 LIKE 'VP%'; END $$;
CREATE FUNCTION asked_by(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    before bigint := (SELECT last_value FROM asked);
BEGIN
    EXECUTE statement;
    RETURN (SELECT last_value FROM asked) - before;
END $$;
SELECT nextval('asked');
SELECT anew();
TRUNCATE leads;
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('leads', 'points', 'ask(title)', '10');
SELECT is(asked_by($$INSERT INTO leads (id, title, a) VALUES (1, 'VP', 0), (2, 'x', 0)$$), 2::bigint, 'INSERT asks a rule once a row');
SELECT is(asked_by(e.statement), e.times::bigint, e.what)
FROM (VALUES
    ('UPDATE leads SET note = ''x''', 0, 'UPDATE of a column that no rule reads asks none'),
    ('UPDATE leads SET lifecycle_status = ''mal''', 0, 'nor does that of a status'),
    ('UPDATE leads SET title = title, note = ''y''', 0, 'nor one that writes the same'),
    ('UPDATE leads SET title = title || '''', a = a + 0', 0, 'though it be made anew'),
    ('UPDATE leads SET title = ''VP of Sales'' WHERE id = 1', 1, 'a changed column asks once, of the new row'),
    ('UPDATE leads SET title = NULL WHERE id = 2', 1, 'and so does NULL'),
    ('UPDATE leads SET title = NULL WHERE id = 2', 0, 'but not twice'),
    ('UPDATE leads SET demographic_score = 5, lifecycle_seq = 5', 0, 'derived columns ask none'),
    ('DELETE FROM leads WHERE id = 2', 0, 'nor does DELETE')
) AS e (statement, times, what);
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES
    ('leads', 'customer', 'a = 1 AND ask(title)', 'customer'), ('leads', 'sal', 'demographic_score >= 1000 AND ask(title)', 'sal'), ('leads', 'mql', 'b = 1 AND ask(title)', 'mql');
SELECT is(asked_by(e.statement), e.times::bigint, e.what)
FROM (VALUES
    ('UPDATE leads SET note = ''z'' WHERE id = 1', 0, 'status rules: no column that one reads'),
    ('UPDATE leads SET b = 0 WHERE id = 1', 0, 'one that they read, and nothing holds'),
    ('UPDATE leads SET b = 1, a = 0 WHERE id = 1', 1, 'the new side once; the old one fails before it asks'),
    ('UPDATE leads SET a = 1 WHERE id = 1', 1, 'the rule that may not move the lead from there is not asked'),
    ('UPDATE leads SET b = 2 WHERE id = 1', 0, 'a customer is moved by none of them'),
    ('UPDATE leads SET lifecycle_status = ''recycled'', a = 0, b = 1 WHERE id = 1', 0, 'a status that is written asks no rule for one')
) AS e (statement, times, what);
SELECT is(moves(1), 'mal (write), mql mql, customer customer, recycled (write)', 'and the moves were right');
-- both sides, each once
TRUNCATE lifecycle.rule;
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('leads', 'a', 'ask(title)', 'mql'), ('leads', 'b', 'ask(title)', 'engaged');
SELECT is(asked_by($$UPDATE leads SET title = 'VP 2' WHERE id = 1$$), 4::bigint, 'two rules that hold now and held before: each once on each side');
SELECT is(asked_by($$UPDATE leads SET title = 'x' WHERE id = 1$$), 2::bigint, 'a rule that does not hold now is not asked of the old row');
SELECT is(asked_by($$UPDATE leads SET title = 'VP 3' WHERE id = 1$$), 2::bigint, 'the rule that fires is the last that is asked');
TRUNCATE lifecycle.rule;

-- large values that are stored out of line are not even fetched when nobody writes them
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('leads', 'long', 'length(title) > 100', '10');
INSERT INTO leads (id, title) SELECT 3, string_agg(md5(g::text), '') FROM generate_series(1, 5000) AS g;
UPDATE leads SET note = 'x' WHERE id = 3;
UPDATE leads SET title = title || 'x' WHERE id = 3;
UPDATE leads SET title = 'short' WHERE id = 3;
SELECT results_eq('SELECT demographic_score, count(*) OVER () FROM leads WHERE id = 3', 'VALUES (0::float8, 1::bigint)', 'long values are compared as they are');
DELETE FROM lifecycle.rule;

-- ---- leads older than track(), in a status column of the user's ----

CREATE TYPE phase AS ENUM ('lost', 'known', 'mal', 'engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer', 'recycled', 'disqualified');
CREATE TABLE old (id int PRIMARY KEY, phase phase, a int, phone text, note text);
INSERT INTO old VALUES (1, 'known', 30, NULL), (2, 'known', 30, NULL), (3, 'known', 30, NULL), (4, 'known', 1, NULL), (5, NULL, 30, NULL), (6, 'known', 30, NULL);
SELECT lifecycle.track('old', status_column => 'phase');
INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES
    ('old', 'p', 'a > 0', 'a', NULL), ('old', 'cross', 'demographic_score >= 25', NULL, 'mql'), ('old', 'phone', 'demographic_score >= 25 AND phone IS NOT NULL', NULL, 'sal'),
    ('old', 'poor', 'demographic_score < 10 AND phone IS NOT NULL', NULL, 'engaged');
UPDATE old SET a = 40 WHERE id = 1;
SELECT results_eq('SELECT phase::text, demographic_score, lifecycle_seq FROM old WHERE id = 1', $$VALUES ('known', 40::float8, NULL::int)$$,
    'a lead without a score had the one that its row gave: 30 before and 40 after is no crossing');
UPDATE old SET phone = '1' WHERE id = 2;
SELECT results_eq('SELECT phase::text, demographic_score FROM old WHERE id = 2', $$VALUES ('sal', 30::float8)$$, 'a column of a status rule only: judged with the score that its row gives');
UPDATE old SET phone = '1' WHERE id = 4;
SELECT results_eq('SELECT phase::text FROM old WHERE id = 4', $$VALUES ('engaged')$$, 'a low one, too');
UPDATE old SET a = 2 WHERE id = 3;
UPDATE old SET a = 25 WHERE id = 3;
SELECT results_eq('SELECT lead, seq, from_status, to_status, cause, rule FROM old_history WHERE lead IN (2, 3, 4) ORDER BY lead, seq',
    $$VALUES (2, 1, NULL::text, 'known', 'backfill', NULL::text), (2, 2, 'known', 'sal', 'rule', 'phone'), (3, 1, NULL, 'known', 'backfill', NULL), (3, 2, 'known', 'mql', 'rule', 'cross'),
             (4, 1, NULL, 'known', 'backfill', NULL), (4, 2, 'known', 'engaged', 'rule', 'poor')$$,
    'the first move by a rule brings such a lead into the history');
UPDATE old SET a = 50, phone = '1' WHERE id = 5;
SELECT results_eq('SELECT phase::text, lifecycle_seq FROM old WHERE id = 5', 'VALUES (NULL::text, NULL::int)', 'one without a status stays outside of the program');
UPDATE old SET phase = 'mal' WHERE id = 6;
SELECT results_eq('SELECT h.from_status, h.to_status, h.cause, h.rule, l.phase::text FROM old_history h JOIN old l ON l.id = h.lead WHERE lead = 6 AND seq = 2', $$VALUES ('known', 'mal', 'write', NULL::text, 'mal')$$, 'and a write moves it as ever');
SELECT is(failure($$INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('old', 'x', 'phase = ''mql''', '1')$$) LIKE '42P10: cannot use a column that lifecycle keeps%', true, 'a status column of the user''s is none of the rules'' either');
SELECT is_empty($$SELECT * FROM lifecycle.verify('old') WHERE "check" <> 'stale'$$, 'the history is whole');

-- a status rule whose status the model lacks meanwhile; text, and a model of one's own
SELECT lifecycle.copy_model('standard', 'own');
INSERT INTO lifecycle.stage (model, status, rank, label) VALUES ('own', 'parked', NULL, 'Parked');
INSERT INTO lifecycle.transition (model, from_status, to_status) VALUES ('own', 'known', 'parked'), ('own', 'parked', 'mql');
CREATE TABLE texts (id int PRIMARY KEY, stage text, a int);
SELECT lifecycle.track('texts', 'own', status_column => 'stage');
INSERT INTO texts VALUES (1, NULL, 0), (2, NULL, 0);
INSERT INTO lifecycle.rule (on_table, name, condition, status, priority, only_from) VALUES ('texts', 'park', 'a = 1', 'parked', 1, '{known}'), ('texts', 'good', 'a > 0', 'mql', 0, '{known,parked}');
UPDATE texts SET a = 1 WHERE id = 1;
UPDATE texts SET a = 0 WHERE id = 1;
UPDATE texts SET a = 2 WHERE id = 1;
DELETE FROM lifecycle.transition WHERE model = 'own' AND 'parked' IN (from_status, to_status);
UPDATE texts SET a = 1 WHERE id = 2;
SELECT results_eq('SELECT lead, to_status, rule FROM texts_history ORDER BY lead, seq', $$VALUES (1, 'known', NULL), (1, 'parked', 'park'), (1, 'mql', 'good'), (2, 'known', NULL), (2, 'mql', 'good')$$,
    'statuses of one''s own; a transition that is gone lets the next rule act');
UPDATE texts SET a = 0;
DELETE FROM lifecycle.stage WHERE model = 'own' AND status = 'parked';
INSERT INTO texts VALUES (3, NULL, 0);
UPDATE texts SET a = 1 WHERE id = 3;
SELECT is((SELECT string_agg(to_status || coalesce(' ' || rule, ''), ', ' ORDER BY seq) FROM texts_history WHERE lead = 3), 'known, mql good', 'and so does a status that is gone');
DELETE FROM lifecycle.rule;

-- ---- reasons, corrections ----

SELECT lifecycle.copy_model('standard', 'strict');
UPDATE lifecycle.stage SET reason_required = true WHERE model = 'strict' AND status = 'disqualified';
CREATE TABLE strict (id int PRIMARY KEY, a int, why text);
SELECT lifecycle.track('strict', 'strict', reason => 'why');
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('strict', '100% junk', 'a = 1', 'disqualified');
INSERT INTO strict VALUES (1, 0), (2, 1), (3, 0);
UPDATE strict SET a = 1 WHERE id = 1;
SELECT results_eq('SELECT id, lifecycle_status::text FROM strict WHERE id < 3 ORDER BY id', $$VALUES (1, 'disqualified'), (2, 'disqualified')$$, 'a rule that leads to where people need a reason needs none, at entry neither');
SELECT is(failure('UPDATE strict SET a = 1, lifecycle_status = ''disqualified'' WHERE id = 3') LIKE '23502: lead 3 of table "public.strict" needs a reason to become "disqualified"%', true,
          'who writes the status needs one, also where a rule would have led there');
UPDATE strict SET a = 1, why = 'spam' WHERE id = 3;
SELECT lifecycle.correct('strict', 3, 'known', 'no spam at all');
UPDATE strict SET why = NULL;
SELECT results_eq('SELECT to_status, cause, rule, reason FROM strict_history WHERE lead = 3 ORDER BY seq', $$VALUES ('known', 'entry', NULL::text, NULL::text), ('disqualified', 'rule', '100% junk', 'spam'), ('known', 'correction', NULL, 'no spam at all')$$,
    'where the row has a reason it is kept; and no rule takes a correction back');
DELETE FROM lifecycle.rule;

-- ---- triggers of users, statements inside statements ----

CREATE FUNCTION both_ways(what text, setup text, life text[], expected text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    mode text;
    statement text;
    said text;
BEGIN
    FOREACH mode IN ARRAY '{on,off}'::text[] LOOP
        BEGIN
            PERFORM set_config('lifecycle.batch_history', mode, true);
            TRUNCATE leads;
            PERFORM anew();
            INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES ('leads', 'p', 'a > 0', 'a', NULL), ('leads', 'engaged', 'a = 1', NULL, 'engaged'),
                ('leads', 'mql', 'demographic_score >= 10', NULL, 'mql'), ('leads', 'sal', 'b = 1', NULL, 'sal'), ('leads', 'sql', 'b = 2', NULL, 'sql');
            EXECUTE setup;
            FOREACH statement IN ARRAY life LOOP
                EXECUTE statement;
            END LOOP;
            SELECT string_agg(format('%s: %s', lead, told), '; ' ORDER BY lead) INTO said
            FROM (SELECT lead, string_agg(concat_ws(' ', coalesce(h.to_status, '-'), nullif(h.cause, 'rule'), CASE WHEN h.rule <> h.to_status OR h.cause <> 'rule' THEN h.rule WHEN h.rule IS NULL AND h.cause = 'rule' THEN 'no rule' END), ', ' ORDER BY h.seq) AS told
                  FROM leads_history h GROUP BY lead) AS s;
            SELECT said || coalesce(' VERIFY ' || string_agg(concat_ws(' ', v."check", v.lead, v.detail), ' '), '') INTO said FROM lifecycle.verify('leads') v;
            RAISE EXCEPTION USING ERRCODE = 'ZZ000';
        EXCEPTION WHEN SQLSTATE 'ZZ000' THEN NULL;
        WHEN OTHERS THEN said := SQLSTATE || ' ' || SQLERRM;
        END;
        RETURN NEXT is(said, expected, what || ', batch_history = ' || mode);
    END LOOP;
END $$;
CREATE FUNCTION on_lead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_ARGV[0] = 'suppress' THEN
        RETURN CASE WHEN NEW.note = 'suppress' THEN NULL ELSE NEW END;
    ELSIF TG_ARGV[0] = 'set a' THEN
        NEW.a := 10;
        RETURN NEW;
    ELSIF TG_ARGV[0] = 'set status' THEN
        IF NEW.note = 'status' THEN
            NEW.lifecycle_status := 'sal';
        END IF;
        RETURN NEW;
    ELSIF TG_ARGV[0] = 'again' THEN
        IF NEW.b IS DISTINCT FROM 1 AND NEW.lifecycle_status <> 'sal' THEN
            UPDATE leads SET b = 1 WHERE id = NEW.id;
        END IF;
    ELSIF TG_ARGV[0] = 'other' THEN
        UPDATE leads SET b = 2 WHERE id = NEW.id + 100;
    ELSIF TG_ARGV[0] = 'write other' THEN
        UPDATE leads SET lifecycle_status = 'customer' WHERE id = NEW.id + 100;
    ELSIF TG_ARGV[0] = 'in vain' THEN
        BEGIN
            UPDATE leads SET b = 2 WHERE id = NEW.id + 100;
            RAISE SQLSTATE 'ZZ001';
        EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
            UPDATE leads SET b = 1 WHERE id = NEW.id + 100;
        END;
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION on_move() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN UPDATE leads SET b = CASE WHEN id < 100 THEN 1 ELSE 2 END WHERE id IN (NEW.lead, NEW.lead + 100); RETURN NULL; END $$;
CREATE FUNCTION write_other(int) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$BEGIN UPDATE public.leads SET b = 1 WHERE id = $1 + 100; RETURN true; END $$;
CREATE FUNCTION quiet(int, int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN RETURN $1 > 100 OR $2 IS NULL OR public.write_other($1); END $$;
SELECT both_ways(e.what, e.setup, e.life, e.expected)
FROM (VALUES
    ('many rows of one UPDATE', '', ARRAY['INSERT INTO leads (id, a, b) SELECT g, 0, 0 FROM generate_series(1, 6) AS g',
        'UPDATE leads SET a = CASE WHEN id % 2 = 0 THEN 1 ELSE 10 END, b = CASE WHEN id = 3 THEN 1 WHEN id = 5 THEN 2 ELSE 0 END'],
        '1: known entry, mql; 2: known entry, engaged; 3: known entry, sal; 4: known entry, engaged; 5: known entry, sql; 6: known entry, engaged'),
    ('rules and writes in one UPDATE', '', ARRAY['INSERT INTO leads (id, a) SELECT g, CASE g WHEN 4 THEN 1 END FROM generate_series(1, 4) AS g',
        'UPDATE leads SET a = 10, lifecycle_status = CASE id WHEN 2 THEN ''sal'' ELSE lifecycle_status END'],
        '1: known entry, mql; 2: known entry, sal write; 3: known entry, mql; 4: engaged entry engaged, mql'),
    ('a BEFORE trigger sets what a rule reads', 'CREATE TRIGGER t BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION on_lead(''set a'')', ARRAY['INSERT INTO leads (id) VALUES (1)', 'UPDATE leads SET note = ''x'''], '1: known entry, mql'),
    ('a BEFORE trigger sets the status', 'CREATE TRIGGER t BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION on_lead(''set status'')', ARRAY['INSERT INTO leads (id) VALUES (1), (2)', 'UPDATE leads SET a = 10, note = ''status'' WHERE id = 1', 'UPDATE leads SET a = 10 WHERE id = 2'],
        '1: known entry, sal write; 2: known entry, mql'),
    ('rows that a trigger before ours suppresses', 'CREATE TRIGGER a BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION on_lead(''suppress'')', ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 4)', 'UPDATE leads SET a = id, b = id, note = CASE WHEN id % 2 = 1 THEN ''suppress'' END'],
        '1: known entry; 2: known entry, sql; 3: known entry; 4: known entry'),
    ('rows that a trigger behind ours suppresses', 'CREATE TRIGGER zzz BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION on_lead(''suppress'')',
        ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 4)', 'UPDATE leads SET a = 10, b = id, note = CASE WHEN id % 2 = 1 THEN ''suppress'' END', 'UPDATE leads SET a = 1', 'UPDATE leads SET lifecycle_status = ''sal'' WHERE id IN (1, 4)'],
        '1: known entry, engaged, sal write; 2: known entry, sql; 3: known entry, engaged; 4: known entry, mql, sal write'),
    ('an AFTER trigger writes the lead again', 'CREATE TRIGGER t AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION on_lead(''again'')', ARRAY['INSERT INTO leads (id) VALUES (1), (2), (3)', 'UPDATE leads SET a = 10'],
        '1: known entry, mql, sal; 2: known entry, mql, sal; 3: known entry, mql, sal'),
    ('an AFTER INSERT trigger writes the lead again', 'CREATE TRIGGER t AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION on_lead(''again'')', ARRAY['INSERT INTO leads (id, a) VALUES (1, 10), (2, 1), (3, 0)'],
        '1: mql entry mql, sal; 2: engaged entry engaged, sal; 3: known entry, sal'),
    ('an AFTER trigger that fires before ours', 'CREATE TRIGGER a AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION on_lead(''again'')', ARRAY['INSERT INTO leads (id) VALUES (1), (2)', 'UPDATE leads SET a = 10'],
        '1: known entry, mql, sal; 2: known entry, mql, sal'),
    ('a trigger on the history writes the lead and others', 'CREATE TRIGGER t AFTER INSERT ON leads_history FOR EACH ROW WHEN (NEW.lead < 100 AND NEW.seq = 2) EXECUTE FUNCTION on_move()',
        ARRAY['INSERT INTO leads (id) VALUES (1), (2), (101), (102)', 'UPDATE leads SET a = 10 WHERE id < 100'], '1: known entry, mql, sal; 2: known entry, mql, sal; 101: known entry, sql; 102: known entry, sql'),
    ('a rule whose function writes other leads', 'INSERT INTO lifecycle.rule (on_table, name, condition, points, status) VALUES (''leads'', ''p2'', ''quiet(id, a)'', ''0'', NULL), (''leads'', ''mal'', ''quiet(id, a) AND a = 2'', NULL, ''mal'')',
        ARRAY['INSERT INTO leads (id) VALUES (1), (2), (101), (102)', 'UPDATE leads SET a = CASE id WHEN 1 THEN 10 ELSE 2 END WHERE id < 100'],
        '1: known entry, mql; 2: known entry, mal; 101: known entry, sal; 102: known entry, sal'),
    ('a BEFORE trigger writes other leads', 'CREATE TRIGGER t BEFORE UPDATE ON leads FOR EACH ROW WHEN (NEW.id < 100) EXECUTE FUNCTION on_lead(''other'')', ARRAY['INSERT INTO leads (id) VALUES (1), (2), (101), (102)', 'UPDATE leads SET a = CASE id WHEN 1 THEN 10 ELSE 1 END WHERE id < 100'],
        '1: known entry, mql; 2: known entry, engaged; 101: known entry, sql; 102: known entry, sql'),
    ('a BEFORE trigger behind ours writes other leads', 'CREATE TRIGGER zzz BEFORE UPDATE ON leads FOR EACH ROW WHEN (NEW.id < 100) EXECUTE FUNCTION on_lead(''write other'')', ARRAY['INSERT INTO leads (id) VALUES (1), (2), (101), (102)', 'UPDATE leads SET a = CASE id WHEN 1 THEN 10 ELSE 1 END WHERE id < 100'],
        '1: known entry, mql; 2: known entry, engaged; 101: known entry, customer write; 102: known entry, customer write'),
    ('an AFTER trigger writes in vain', 'CREATE TRIGGER t AFTER UPDATE ON leads FOR EACH ROW WHEN (NEW.id < 100) EXECUTE FUNCTION on_lead(''in vain'')', ARRAY['INSERT INTO leads (id) VALUES (1), (2), (101), (102)', 'UPDATE leads SET a = CASE id WHEN 1 THEN 10 ELSE 1 END WHERE id < 100'],
        '1: known entry, mql; 2: known entry, engaged; 101: known entry, sal; 102: known entry, sal'),
    ('blocks with exception handlers', '', ARRAY['INSERT INTO leads (id) VALUES (1), (2)',
        'DO $$BEGIN FOR n IN 1..5 LOOP BEGIN UPDATE leads SET a = 10, b = n % 3; IF n < 5 THEN RAISE SQLSTATE ''ZZ001''; END IF; EXCEPTION WHEN SQLSTATE ''ZZ001'' THEN UPDATE leads SET a = n WHERE id = 1; END; END LOOP; END$$'],
        '1: known entry, engaged, sql; 2: known entry, sql'),
    ('MERGE with all its arms', '', ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 4)',
        'MERGE INTO leads l USING (SELECT generate_series(1, 6) AS id) AS w ON w.id = l.id WHEN MATCHED AND w.id = 1 THEN DELETE WHEN MATCHED AND w.id = 2 THEN UPDATE SET lifecycle_status = ''sal'', a = 10 WHEN MATCHED THEN UPDATE SET a = w.id * 3 WHEN NOT MATCHED THEN INSERT (id, a) VALUES (w.id, w.id * 2)'],
        '1: known entry, - delete; 2: known entry, sal write; 3: known entry; 4: known entry, mql; 5: mql entry mql; 6: mql entry mql'),
    ('writable CTEs', '', ARRAY['INSERT INTO leads (id) SELECT generate_series(1, 4)',
        'WITH u AS (UPDATE leads SET a = 10 WHERE id = 1), v AS (UPDATE leads SET b = 1 WHERE id = 2 RETURNING id), w AS (UPDATE leads SET lifecycle_status = ''lost'' FROM v WHERE false) UPDATE leads SET b = 2 WHERE id = 3'],
        '1: known entry, mql; 2: known entry, sal; 3: known entry, sql; 4: known entry')
) AS e (what, setup, life, expected);

SELECT * FROM finish();
