-- import_history() of :moves moves, five for each lead, in no order, into an
-- empty history; against one INSERT ... SELECT with window functions
-- that makes the very same history rows, and one UPDATE of the leads. Prints the
-- seconds of both, in turns, and the median ratio. Both histories must be the same.
--
-- Called by bench/run with :moves and :rounds in a database of its own.
CREATE EXTENSION lifecycle;
SET jit = off;
-- the same memory for the sorts of both
SET work_mem = '64MB';
SET maintenance_work_mem = '64MB';
SET check_function_bodies = off;
CREATE TABLE old_moves AS
SELECT lead, (ARRAY['known', 'mql', 'recycled', 'mql', 'customer'])[n] AS status,
       timestamptz '2020-01-01 00:00+00' + (lead % 1000 + n) * interval '1 day' AS at, 'sales ' || lead % 50 AS actor
FROM generate_series(1, :moves / 5) AS lead, generate_series(1, 5) AS n
ORDER BY hashint8(lead * 5 + n);
CREATE TABLE result (round int, variant text, seconds float8);

CREATE PROCEDURE fresh(moves int) LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('leads') IS NOT NULL THEN
        PERFORM lifecycle.untrack('leads', drop_data => true);
        DROP TABLE leads, floor_leads, floor_history;
    END IF;
    CREATE TABLE leads (id int PRIMARY KEY, source text, email text);
    INSERT INTO leads SELECT g, 'source ' || g % 20, 'somebody.' || g || '@example.com' FROM generate_series(1, moves / 5) AS g;
    PERFORM lifecycle.track('leads', source => 'source');
    CREATE TABLE floor_leads (LIKE leads INCLUDING ALL);
    INSERT INTO floor_leads SELECT * FROM leads;
    CREATE TABLE floor_history (LIKE leads_history INCLUDING ALL);
END
$$;
CREATE PROCEDURE import_lifecycle() LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM lifecycle.import_history('leads', 'SELECT * FROM old_moves')) THEN
        RAISE 'bench: a row was refused or warned of';
    END IF;
END
$$;
CREATE PROCEDURE import_floor() LANGUAGE sql AS $$
    WITH moves AS (
        SELECT m.*, row_number() OVER w AS seq, lag(status) OVER w AS from_status, lag(at) OVER w AS from_since,
               first_value(at) OVER w AS entered_at,
               coalesce(lag(status) OVER w = 'recycled' AND status <> 'recycled', false) AS new_cycle
        FROM old_moves m WINDOW w AS (PARTITION BY lead ORDER BY at)
    ), cycles AS (
        SELECT m.*, 1 + count(*) FILTER (WHERE new_cycle) OVER (PARTITION BY lead ORDER BY seq) AS cycle,
               array_agg(status) OVER (PARTITION BY lead ORDER BY seq) AS statuses
        FROM moves m
    )
    INSERT INTO floor_history (lead, seq, cycle, from_status, from_since, to_status, at, cause, actor, session_user_name,
                               demographic_score, behavior_score, source, entered_at, cycle_since, reached, recorded_at)
    SELECT c.lead, c.seq, c.cycle, c.from_status, c.from_since, c.status, c.at, 'import', c.actor, session_user,
           0, 0, l.source, c.entered_at, min(c.at) OVER (PARTITION BY c.lead, c.cycle),
           CASE WHEN c.cycle = 1 THEN c.statuses ELSE c.statuses[4:] || ARRAY[NULL, 'known', 'recycled'] END,
           clock_timestamp()
    FROM cycles c JOIN floor_leads l ON l.id = c.lead;
    UPDATE floor_leads l
    SET lifecycle_status = h.to_status::lifecycle.lifecycle_status, lifecycle_since = h.at, lifecycle_seq = h.seq, demographic_score = 0
    FROM (SELECT DISTINCT ON (lead) lead, to_status, at, seq FROM floor_history ORDER BY lead, seq DESC) AS h
    WHERE h.lead = l.id;
$$;
CREATE PROCEDURE run(rounds int, moves int) LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz;
    variant text;
    differences bigint;
BEGIN
    FOR round IN 1 .. rounds LOOP
        CALL fresh(moves);
        COMMIT;
        ANALYZE old_moves, leads, floor_leads;
        COMMIT;
        FOREACH variant IN ARRAY CASE round % 2 WHEN 0 THEN ARRAY['lifecycle', 'floor'] ELSE ARRAY['floor', 'lifecycle'] END LOOP
            started := clock_timestamp();
            IF variant = 'floor' THEN CALL import_floor(); ELSE CALL import_lifecycle(); END IF;
            COMMIT;
            INSERT INTO result VALUES (round, variant, extract(epoch FROM clock_timestamp() - started));
        END LOOP;
        SELECT count(*) INTO differences FROM (
            (SELECT lead, seq, cycle, from_status, from_since, to_status, at, cause, actor, session_user_name, source, entered_at, cycle_since, reached FROM leads_history
             EXCEPT SELECT lead, seq, cycle, from_status, from_since, to_status, at, cause, actor, session_user_name, source, entered_at, cycle_since, reached FROM floor_history)
            UNION ALL (SELECT id, lifecycle_seq, 0, lifecycle_status::text, lifecycle_since, '', now(), '', '', '', source, now(), now(), '{}'::text[] FROM leads
             EXCEPT SELECT id, lifecycle_seq, 0, lifecycle_status::text, lifecycle_since, '', now(), '', '', '', source, now(), now(), '{}'::text[] FROM floor_leads)) AS d;
        IF differences > 0 OR (SELECT count(*) FROM leads_history) <> moves THEN
            RAISE 'bench: % rows of the histories differ', differences;
        END IF;
    END LOOP;
END
$$;

CALL run(:rounds, :moves);
SELECT format('| %s moves for %s leads | %s s | %s s | %s (%s..%s) |', :moves, :moves / 5,
              round(percentile_cont(0.5) WITHIN GROUP (ORDER BY f.seconds)::numeric, 2), round(percentile_cont(0.5) WITHIN GROUP (ORDER BY l.seconds)::numeric, 2),
              round(percentile_cont(0.5) WITHIN GROUP (ORDER BY l.seconds / f.seconds)::numeric, 2),
              round(min(l.seconds / f.seconds)::numeric, 2), round(max(l.seconds / f.seconds)::numeric, 2))
FROM result l JOIN result f USING (round) WHERE l.variant = 'lifecycle' AND f.variant = 'floor';
