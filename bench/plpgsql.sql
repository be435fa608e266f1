-- The same lifecycle by hand, as good as PL/pgSQL gets: what lifecycle is
-- compared with.
--
-- The same decisions (entry, legality, a key that comes back, derived columns
-- that are put back) and the same columns of history, cycle and reached
-- included.  Tuned: legality is a constant of the function; the BEFORE trigger
-- of UPDATE is not even called where nothing of ours is written; conditions
-- are single SQL expressions; no record variables; one SQL statement per
-- history row or statement.  It lacks what lifecycle has beyond that: settings
-- for time, actor and reason, "keep", leads older than the triggers,
-- concurrent entries of one key, removals, enums and keys of any type.

CREATE FUNCTION bench.reached_add(reached text[], status text, new_cycle boolean) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    cut int := coalesce(array_position(reached, NULL), cardinality(reached) + 1);
    before text[];
BEGIN
    IF new_cycle THEN
        before := array_remove(array_remove(reached, NULL), status);
        RETURN CASE WHEN cardinality(before) = 0 THEN ARRAY[status] ELSE ARRAY[status, NULL] || before END;
    END IF;
    IF status = ANY (reached[:cut - 1]) THEN
        RETURN reached;
    END IF;
    before := array_remove(reached[cut + 1:], status);
    RETURN CASE WHEN cardinality(before) = 0 THEN reached[:cut - 1] || status
                ELSE reached[:cut - 1] || ARRAY[status, NULL] || before END;
END
$$;

CREATE FUNCTION bench.before_insert() RETURNS trigger
    LANGUAGE plpgsql
AS $$
DECLARE
    last_seq int;
    last_at timestamptz;
BEGIN
    IF NEW.lifecycle_status IS NULL THEN
        NEW.lifecycle_status := 'known';
    END IF;
    NEW.demographic_score := 0;
    SELECT h.seq, h.at INTO last_seq, last_at
    FROM public.leads_history h WHERE h.lead = NEW.id ORDER BY h.seq DESC LIMIT 1;
    IF FOUND THEN
        NEW.lifecycle_seq := last_seq + 1;
        NEW.lifecycle_since := greatest(least(NEW.created_at, now()), last_at);
    ELSE
        NEW.lifecycle_seq := 1;
        NEW.lifecycle_since := least(NEW.created_at, now());
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION bench.before_update() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.id <> OLD.id THEN
        RAISE 'key of lead % cannot be changed', OLD.id USING ERRCODE = 'feature_not_supported';
    END IF;
    NEW.demographic_score := OLD.demographic_score;
    IF NEW.lifecycle_status = OLD.lifecycle_status THEN
        NEW.lifecycle_seq := OLD.lifecycle_seq;
        NEW.lifecycle_since := OLD.lifecycle_since;
        RETURN NEW;
    END IF;
    IF (CASE OLD.lifecycle_status
            WHEN 'known' THEN NEW.lifecycle_status IN ('mal', 'engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer', 'disqualified')
            WHEN 'mal' THEN NEW.lifecycle_status IN ('engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer', 'disqualified')
            WHEN 'engaged' THEN NEW.lifecycle_status IN ('mql', 'sal', 'sql', 'opportunity', 'customer', 'disqualified')
            WHEN 'mql' THEN NEW.lifecycle_status IN ('sal', 'sql', 'opportunity', 'customer', 'recycled', 'disqualified', 'lost')
            WHEN 'sal' THEN NEW.lifecycle_status IN ('sql', 'opportunity', 'customer', 'recycled', 'disqualified', 'lost')
            WHEN 'sql' THEN NEW.lifecycle_status IN ('opportunity', 'customer', 'recycled', 'disqualified', 'lost')
            WHEN 'opportunity' THEN NEW.lifecycle_status IN ('customer', 'lost')
            WHEN 'customer' THEN NEW.lifecycle_status = 'recycled'
            WHEN 'recycled' THEN NEW.lifecycle_status IN ('engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer', 'disqualified')
            WHEN 'disqualified' THEN NEW.lifecycle_status IN ('sql', 'opportunity', 'customer', 'recycled')
            ELSE NEW.lifecycle_status IN ('mql', 'sql', 'opportunity', 'customer', 'recycled', 'disqualified')
        END) THEN
        NEW.lifecycle_seq := OLD.lifecycle_seq + 1;
        NEW.lifecycle_since := greatest(now(), OLD.lifecycle_since);
        RETURN NEW;
    END IF;
    RAISE 'lead % cannot move from "%" to "%"', OLD.id, OLD.lifecycle_status, NEW.lifecycle_status
        USING ERRCODE = 'check_violation';
END
$$;

-- Row by row

CREATE FUNCTION bench.after_insert_row() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.lifecycle_seq = 1 THEN
        INSERT INTO public.leads_history (
            lead, seq, cycle, to_status, at, cause, actor, session_user_name, reason, demographic_score,
            behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
        VALUES (NEW.id, 1, 1, NEW.lifecycle_status, NEW.lifecycle_since, 'entry', NEW.updated_by, session_user,
                NEW.lost_reason, NEW.demographic_score, 0, coalesce(NEW.utm_source, 'direct'), NEW.id % 2,
                NEW.expected_revenue, NEW.lifecycle_since, NEW.lifecycle_since, ARRAY[NEW.lifecycle_status],
                clock_timestamp());
    ELSE
        INSERT INTO public.leads_history (
            lead, seq, cycle, to_status, at, cause, actor, session_user_name, reason, demographic_score,
            behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
        SELECT NEW.id, NEW.lifecycle_seq, l.cycle + 1, NEW.lifecycle_status, NEW.lifecycle_since, 'entry',
               NEW.updated_by, session_user, NEW.lost_reason, NEW.demographic_score, 0, l.source, l.cohort,
               NEW.expected_revenue, l.entered_at, NEW.lifecycle_since,
               bench.reached_add(l.reached, NEW.lifecycle_status::text, true), clock_timestamp()
        FROM public.leads_history l WHERE l.lead = NEW.id AND l.seq = NEW.lifecycle_seq - 1;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION bench.after_update_row() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.leads_history (
        lead, seq, cycle, from_status, from_since, to_status, at, cause, actor, session_user_name, reason,
        demographic_score, behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
    SELECT l.lead, NEW.lifecycle_seq, CASE WHEN m.new_cycle THEN l.cycle + 1 ELSE l.cycle END,
           l.to_status, l.at, NEW.lifecycle_status, NEW.lifecycle_since, 'write', NEW.updated_by, session_user,
           NEW.lost_reason, NEW.demographic_score, 0, l.source, l.cohort, NEW.expected_revenue, l.entered_at,
           CASE WHEN m.new_cycle THEN NEW.lifecycle_since ELSE l.cycle_since END,
           CASE WHEN m.new_cycle OR array_position(l.reached, NULL) IS NOT NULL
                THEN bench.reached_add(l.reached, NEW.lifecycle_status::text, m.new_cycle)
                WHEN NEW.lifecycle_status::text = ANY (l.reached) THEN l.reached
                ELSE l.reached || NEW.lifecycle_status::text END,
           clock_timestamp()
    FROM public.leads_history l
    CROSS JOIN LATERAL (SELECT
        l.to_status IN ('recycled', 'disqualified', 'lost')
        AND NEW.lifecycle_status NOT IN ('recycled', 'disqualified', 'lost')
        AND l.reached[:coalesce(array_position(l.reached, NULL) - 1, cardinality(l.reached))]
            && '{known,mal,engaged,mql,sal,sql,opportunity,customer}' AS new_cycle) AS m
    WHERE l.lead = NEW.id AND l.seq = OLD.lifecycle_seq;
    RETURN NULL;
END
$$;

-- Statement by statement, from the transition tables

CREATE FUNCTION bench.after_insert_statement() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.leads_history (
        lead, seq, cycle, to_status, at, cause, actor, session_user_name, reason, demographic_score,
        behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
    SELECT n.id, 1, 1, n.lifecycle_status, n.lifecycle_since, 'entry', n.updated_by, session_user, n.lost_reason,
           n.demographic_score, 0, coalesce(n.utm_source, 'direct'), n.id % 2, n.expected_revenue,
           n.lifecycle_since, n.lifecycle_since, ARRAY[n.lifecycle_status], clock_timestamp()
    FROM arrived n WHERE n.lifecycle_seq = 1;
    IF EXISTS (SELECT FROM arrived n WHERE n.lifecycle_seq > 1) THEN
        INSERT INTO public.leads_history (
            lead, seq, cycle, to_status, at, cause, actor, session_user_name, reason, demographic_score,
            behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
        SELECT n.id, n.lifecycle_seq, l.cycle + 1, n.lifecycle_status, n.lifecycle_since, 'entry', n.updated_by,
               session_user, n.lost_reason, n.demographic_score, 0, l.source, l.cohort, n.expected_revenue,
               l.entered_at, n.lifecycle_since, bench.reached_add(l.reached, n.lifecycle_status::text, true),
               clock_timestamp()
        FROM arrived n JOIN public.leads_history l ON l.lead = n.id AND l.seq = n.lifecycle_seq - 1
        WHERE n.lifecycle_seq > 1;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION bench.after_update_statement() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.leads_history (
        lead, seq, cycle, from_status, from_since, to_status, at, cause, actor, session_user_name, reason,
        demographic_score, behavior_score, source, cohort, value, entered_at, cycle_since, reached, recorded_at)
    SELECT l.lead, n.lifecycle_seq, CASE WHEN m.new_cycle THEN l.cycle + 1 ELSE l.cycle END,
           l.to_status, l.at, n.lifecycle_status, n.lifecycle_since, 'write', n.updated_by, session_user,
           n.lost_reason, n.demographic_score, 0, l.source, l.cohort, n.expected_revenue, l.entered_at,
           CASE WHEN m.new_cycle THEN n.lifecycle_since ELSE l.cycle_since END,
           CASE WHEN m.new_cycle OR array_position(l.reached, NULL) IS NOT NULL
                THEN bench.reached_add(l.reached, n.lifecycle_status::text, m.new_cycle)
                WHEN n.lifecycle_status::text = ANY (l.reached) THEN l.reached
                ELSE l.reached || n.lifecycle_status::text END,
           clock_timestamp()
    FROM was o
    JOIN became n ON n.id = o.id AND n.lifecycle_seq <> o.lifecycle_seq
    JOIN public.leads_history l ON l.lead = o.id AND l.seq = o.lifecycle_seq
    CROSS JOIN LATERAL (SELECT
        l.to_status IN ('recycled', 'disqualified', 'lost')
        AND n.lifecycle_status NOT IN ('recycled', 'disqualified', 'lost')
        AND l.reached[:coalesce(array_position(l.reached, NULL) - 1, cardinality(l.reached))]
            && '{known,mal,engaged,mql,sal,sql,opportunity,customer}' AS new_cycle) AS m;
    RETURN NULL;
END
$$;

CREATE FUNCTION bench.create_triggers(variant text) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    CREATE TRIGGER before_insert BEFORE INSERT ON public.leads
        FOR EACH ROW EXECUTE FUNCTION bench.before_insert();
    CREATE TRIGGER before_update BEFORE UPDATE ON public.leads
        FOR EACH ROW WHEN (OLD.id <> NEW.id
                           OR OLD.lifecycle_status IS DISTINCT FROM NEW.lifecycle_status
                           OR OLD.lifecycle_since IS DISTINCT FROM NEW.lifecycle_since
                           OR OLD.lifecycle_seq IS DISTINCT FROM NEW.lifecycle_seq
                           OR OLD.demographic_score IS DISTINCT FROM NEW.demographic_score)
        EXECUTE FUNCTION bench.before_update();
    IF variant = 'plpgsql_row' THEN
        CREATE TRIGGER after_insert AFTER INSERT ON public.leads
            FOR EACH ROW EXECUTE FUNCTION bench.after_insert_row();
        CREATE TRIGGER after_update AFTER UPDATE ON public.leads
            FOR EACH ROW WHEN (OLD.lifecycle_seq IS DISTINCT FROM NEW.lifecycle_seq)
            EXECUTE FUNCTION bench.after_update_row();
    ELSE
        CREATE TRIGGER after_insert AFTER INSERT ON public.leads REFERENCING NEW TABLE AS arrived
            FOR EACH STATEMENT EXECUTE FUNCTION bench.after_insert_statement();
        CREATE TRIGGER after_update AFTER UPDATE ON public.leads REFERENCING OLD TABLE AS was NEW TABLE AS became
            FOR EACH STATEMENT EXECUTE FUNCTION bench.after_update_statement();
    END IF;
END
$$;
