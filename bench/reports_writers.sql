-- Writers: what it costs to feed the flow, and what counters would cost.  To be
-- read after schema.sql and plpgsql.sql.

-- How many leads are in each status, one to a page.
CREATE TABLE bench.counter (status text PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 10);

-- In the order of the statuses, or two that move in opposite directions deadlock.
CREATE FUNCTION bench.count_row() RETURNS trigger
    LANGUAGE plpgsql
AS $$
DECLARE
    lower text := least(OLD.lifecycle_status::text, NEW.lifecycle_status::text);
    upper text := greatest(OLD.lifecycle_status::text, NEW.lifecycle_status::text);
BEGIN
    UPDATE bench.counter c SET n = c.n + CASE lower WHEN OLD.lifecycle_status::text THEN -1 ELSE 1 END WHERE c.status = lower;
    UPDATE bench.counter c SET n = c.n + CASE upper WHEN OLD.lifecycle_status::text THEN -1 ELSE 1 END WHERE c.status = upper;
    RETURN NULL;
END
$$;

CREATE FUNCTION bench.fresh_writers(variant text, leads bigint) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    DROP TABLE IF EXISTS public.leads, public.leads_history, public.leads_refused, public.leads_flow, public.leads_flow_pending CASCADE;
    PERFORM bench.fresh(CASE variant WHEN 'flow' THEN 'lifecycle' WHEN 'history' THEN 'lifecycle' WHEN 'counters' THEN 'plpgsql_row' ELSE 'untracked' END, leads, 70);
    IF variant = 'flow' THEN
        PERFORM lifecycle.rebuild_flow('public.leads');
    ELSIF variant = 'counters' THEN
        CREATE TRIGGER count_row AFTER UPDATE ON public.leads FOR EACH ROW
            WHEN (OLD.lifecycle_seq IS DISTINCT FROM NEW.lifecycle_seq) EXECUTE FUNCTION bench.count_row();
        TRUNCATE bench.counter;
        INSERT INTO bench.counter SELECT s.status, CASE s.status WHEN 'known' THEN leads ELSE 0 END FROM lifecycle.stage s WHERE s.model = 'standard';
    END IF;
END
$$;

-- Fails unless each move is in the history, and counted where moves are counted.
CREATE FUNCTION bench.prove_writers(variant text, leads bigint, moves bigint) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    wrong bigint := 0;
    recorded bigint;
BEGIN
    IF variant LIKE 'untracked%' THEN
        RETURN;
    END IF;
    SELECT count(*) INTO recorded FROM public.leads_history;
    IF variant = 'flow' THEN
        SELECT count(*) INTO wrong
        FROM (SELECT s.status, s.n FROM lifecycle.flow('public.leads', '2020-01-01', date_trunc('day', now(), 'UTC') + interval '2 days', '100 years') AS f
              CROSS JOIN LATERAL (VALUES (f.status, f.closing)) AS s (status, n)
              EXCEPT SELECT g.status, (SELECT count(*) FROM public.leads l WHERE l.lifecycle_status::text = g.status)
              FROM lifecycle.stage g WHERE g.model = 'standard') AS d;
    ELSIF variant = 'history' THEN
        SELECT count(*) INTO wrong FROM public.leads_flow_pending;
    ELSE
        SELECT count(*) INTO wrong FROM bench.counter c WHERE c.n <> (SELECT count(*) FROM public.leads l WHERE l.lifecycle_status::text = c.status);
    END IF;
    IF wrong > 0 OR recorded <> leads + moves THEN
        RAISE 'bench: % writing: % rows of history, expected %; % counts are wrong', variant, recorded, leads + moves, wrong;
    END IF;
END
$$;
