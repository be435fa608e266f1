-- Rules under load, in one backend: random expressions as rules and at work, then
-- rule changes, then evaluations. Memory must stay, and no error be internal.
-- Variables: expressions, changes, evaluations, seed; discard: debug_discard_caches;
-- timeout: of one expression; ours, resident: by how many kB what we keep and the
-- process may grow.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION lifecycle;
\ir ../lib/hostile.sql
\set generate 'perl ' :root '/test/lib/hostile_expressions.pl ' :expressions ' ' :seed
COPY hostile.expression FROM PROGRAM :'generate';
-- Fails the run where it grew by more than it may.
CREATE FUNCTION hostile.require_flat(what text, before hostile.memory, ours bigint, resident bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    now hostile.memory := hostile.memory();
BEGIN
    IF now.ours - before.ours > ours OR now.resident - before.resident > resident THEN
        RAISE EXCEPTION '%: memory grew from % to %', what, before, now;
    END IF;
    RETURN format('%s: contexts of ours %s kB, then %s kB; process %s kB, then %s kB', what, before.ours, now.ours, before.resident, now.resident);
END $$;

-- ---- expressions ----

-- a pattern may take for ever; that is its right, and ours to go on
SET statement_timeout = :'timeout';
\set ON_ERROR_STOP off
SET debug_discard_caches = :discard;
\o /dev/null
SELECT format('SELECT hostile.attempt(%s, %L)', n, (ARRAY['condition', 'points', 'status'])[1 + n % 3]) FROM hostile.expression ORDER BY n LIMIT :expressions / 10 \gexec
\o
SELECT hostile.memory() AS before \gset
\o /dev/null
SELECT format('SELECT hostile.attempt(%s, %L)', n, (ARRAY['condition', 'points', 'status'])[1 + n % 3]) FROM hostile.expression ORDER BY n OFFSET :expressions / 10 \gexec
\o
RESET statement_timeout;
\set ON_ERROR_STOP on
SELECT hostile.require_flat('expressions', :'before', :ours, :resident);
SELECT format('%s expressions: %s taken and at work, %s taken and failing at work, %s refused for %s reasons', count(*), count(*) FILTER (WHERE failed = '00000'),
              count(*) FILTER (WHERE failed <> '00000'), count(*) FILTER (WHERE failed IS NULL), count(DISTINCT refused)) FROM hostile.outcome;
DO $$
DECLARE
    bad record;
BEGIN
    SELECT o.*, left(e.expression, 300) AS expression INTO bad FROM hostile.outcome o JOIN hostile.expression e USING (n) WHERE o.refused LIKE 'XX%' OR o.failed LIKE 'XX%' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'internal error: %', bad;
    END IF;
    IF EXISTS (SELECT FROM lifecycle.verify('hostile.lead')) OR (SELECT count(*) FROM hostile.lead) <> 24 THEN
        RAISE EXCEPTION 'leads or history are not what they were';
    END IF;
END $$;

-- ---- changes of rules, each obeyed by the next write ----

CREATE TABLE hostile.changing (id int PRIMARY KEY, t text, n int);
SELECT lifecycle.track('hostile.changing') \g /dev/null
INSERT INTO lifecycle.rule (on_table, name, condition, points) SELECT 'hostile.changing', 'rule ' || i, format('t LIKE %L OR n > %s', '%' || i || '%', i), i::text FROM generate_series(1, 20) AS i;
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('hostile.changing', 'status', 'demographic_score > 100000000 AND hostile.strict_sql(n)', 'mql');
INSERT INTO hostile.changing VALUES (1, 'x', 100);
CREATE PROCEDURE hostile.change(n int, each_in_its_own boolean) LANGUAGE plpgsql AS $$
DECLARE
    score float8;
BEGIN
    FOR i IN 1..n LOOP
        UPDATE lifecycle.rule SET points = (1000 + i)::text, condition = format('t LIKE %L OR n > %s', '%' || i || '%', i % 50) WHERE on_table = 'hostile.changing'::regclass AND name = 'rule 1';
        UPDATE hostile.changing c SET n = 100 + i % 2 RETURNING demographic_score INTO score;
        IF score <> 1000 + i + 209 THEN
            RAISE EXCEPTION 'change %: the score is %', i, score;
        END IF;
        IF i % 100 = 0 THEN
            BEGIN
                UPDATE lifecycle.rule SET condition = '1 / (n - n) > 0' WHERE on_table = 'hostile.changing'::regclass AND name = 'rule 2';
                RAISE EXCEPTION 'a rule that divides by zero was taken';
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
        END IF;
        IF each_in_its_own THEN
            COMMIT;
        END IF;
    END LOOP;
END $$;
SET client_min_messages = error;
CALL hostile.change(greatest(100, :changes / 100), true);
SELECT hostile.memory() AS before \gset
CALL hostile.change(:changes, true);
SELECT hostile.require_flat(format('%s changes of a rule, a transaction each', :changes), :'before', :ours, :resident);
CALL hostile.change(greatest(100, :changes / 50), false);
SELECT hostile.require_flat(format('%s more in one transaction', greatest(100, :changes / 50)), :'before', :ours, :resident);

-- ---- evaluations: 50 rules on each row, with foreign code in one of them ----

DELETE FROM lifecycle.rule WHERE on_table = 'hostile.changing'::regclass;
INSERT INTO lifecycle.rule (on_table, name, condition, points)
SELECT 'hostile.changing', 'rule ' || i, CASE i % 5 WHEN 0 THEN format('t ~* %L', i || '$') WHEN 1 THEN format('t ILIKE %L', '%ä' || i || '%')
                                         WHEN 2 THEN format('upper(t) || %L = n::text', i) WHEN 3 THEN format('n > %s', i) ELSE format('t LIKE %L', i || '%') END, i::text
FROM generate_series(1, 49) AS i;
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('hostile.changing', 'foreign', 'hostile.stable(t) IS NULL', '1');
CREATE PROCEDURE hostile.evaluate(n bigint) LANGUAGE plpgsql AS $$BEGIN
    FOR i IN 1..greatest(1, n / 50 / 1000) LOOP
        INSERT INTO hostile.changing SELECT 1 + i * 1000 + k, CASE WHEN k % 7 = 0 THEN NULL ELSE repeat('ä' || k, k % 9) END, k FROM generate_series(1, 1000) AS k;
        DELETE FROM hostile.changing WHERE id > 1;
        TRUNCATE hostile.changing_history;
        COMMIT;
    END LOOP;
END $$;
SET session_replication_role = replica;     -- the guard of the history, which would fill the disk
ALTER TABLE hostile.changing ENABLE ALWAYS TRIGGER zz_lifecycle_before_row;
CALL hostile.evaluate(:evaluations / 20);
SELECT hostile.memory() AS before \gset
CALL hostile.evaluate(:evaluations);
SELECT hostile.require_flat(format('%s evaluations', :evaluations), :'before', :ours, :resident);
