-- How long it takes: statuses and conversions by the estimate of Kaplan and Meier.

CREATE FUNCTION lifecycle.survival_add(state internal, duration interval, ended boolean) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_survival_add';

COMMENT ON FUNCTION lifecycle.survival_add(internal, interval, boolean) IS 'Transition function of lifecycle.survival_median().';

CREATE FUNCTION lifecycle.survival_add(state internal, duration interval, ended boolean, at interval) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_survival_add_at';

COMMENT ON FUNCTION lifecycle.survival_add(internal, interval, boolean, interval) IS 'Transition function of lifecycle.survival().';

CREATE FUNCTION lifecycle.survival_at(state internal) RETURNS double precision
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_survival_at';

COMMENT ON FUNCTION lifecycle.survival_at(internal) IS 'Final function of lifecycle.survival().';

CREATE FUNCTION lifecycle.survival_half(state internal) RETURNS interval
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_survival_median';

COMMENT ON FUNCTION lifecycle.survival_half(internal) IS 'Final function of lifecycle.survival_median().';

CREATE AGGREGATE lifecycle.survival(duration interval, ended boolean, at interval) (
    SFUNC = lifecycle.survival_add, STYPE = internal, FINALFUNC = lifecycle.survival_at, PARALLEL = SAFE
);

COMMENT ON AGGREGATE lifecycle.survival(interval, boolean, interval) IS
'The share that has not come to an end after a time, by the estimate of Kaplan and Meier (Journal of the American Statistical Association 53, 1958). duration: how long each was observed; ended: whether it came to an end then, or was under way when last seen; at: after what time, NULL for the last end. At a tie those that ended go first. NULL over no rows; rows with a NULL duration or ended do not count.';

CREATE AGGREGATE lifecycle.survival_median(duration interval, ended boolean) (
    SFUNC = lifecycle.survival_add, STYPE = internal, FINALFUNC = lifecycle.survival_half, PARALLEL = SAFE
);

COMMENT ON AGGREGATE lifecycle.survival_median(interval, boolean) IS
'The least time after which at most half have not come to an end, by the estimate of Kaplan and Meier; NULL where it never comes to that. duration: how long each was observed; ended: whether it came to an end then, or was under way when last seen.';

CREATE FUNCTION lifecycle.time_in_status(
    lead_table regclass, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity',
    as_of timestamptz DEFAULT now())
    RETURNS TABLE (status text, rank int, completed bigint, inside bigint, mean interval, p50 interval, p75 interval,
                   p90 interval, km_median interval)
    LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    history regclass := lifecycle.readable_history(program);
BEGIN
    IF as_of IS NULL OR NOT isfinite(as_of) THEN
        RAISE EXCEPTION 'as_of must be finite' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY EXECUTE format($q$
        WITH visits AS (
            SELECT v.to_status AS status, least(n.at, $4) - v.at AS lasted, n.seq IS NOT NULL AND n.to_status IS NOT NULL AND n.at <= $4 AS completed,
                   n.seq IS NULL OR n.at > $4 AS inside
            FROM %1$s v
            -- no move is before the one that it follows, so none before the period is looked at
            LEFT JOIN %1$s n ON n.lead = v.lead AND n.seq = v.seq + 1 AND n.at >= $2
            WHERE v.at >= $2 AND v.at < $3 AND v.at <= $4 AND v.to_status IS NOT NULL AND v.cause <> 'backfill'
              AND n.cause IS DISTINCT FROM 'correction'
        ), counted AS (
            SELECT v.status, count(*) FILTER (WHERE v.completed) AS completed, count(*) FILTER (WHERE v.inside) AS inside,
                   avg(v.lasted) FILTER (WHERE v.completed) AS mean,
                   percentile_cont('{0.5,0.75,0.9}'::double precision[]) WITHIN GROUP (ORDER BY v.lasted) FILTER (WHERE v.completed) AS p,
                   lifecycle.survival_median(v.lasted, v.completed) AS km_median
            FROM visits v
            GROUP BY v.status
        )
        SELECT coalesce(s.status, c.status), s.rank, coalesce(c.completed, 0), coalesce(c.inside, 0),
               -- what is computed of days and hours apart may come to more than 24 hours
               justify_hours(c.mean), justify_hours(c.p[1]), justify_hours(c.p[2]), justify_hours(c.p[3]), c.km_median
        FROM (SELECT g.status, g.rank FROM lifecycle.stage g WHERE g.model = $1) AS s
        FULL JOIN counted c ON c.status = s.status
        ORDER BY s.rank, coalesce(s.status, c.status) COLLATE "C"$q$, history)
    USING program.model, coalesce(since, '-infinity'), coalesce(until, 'infinity'), as_of;
END
$$;

COMMENT ON FUNCTION lifecycle.time_in_status(regclass, timestamptz, timestamptz, timestamptz) IS
'How long leads stay in each status: of visits that began in [since, until), as seen at as_of.
Result: status, each of the model and those with visits of the period that the model no longer has; rank, NULL for detours and for these; completed, visits that a move had ended by as_of; inside, those under way then; mean, and p50, p75 and p90 by percentile_cont(), over the completed; km_median, the least time by which half have left by the estimate of Kaplan and Meier, in which those inside and those whose lead was removed count as long as they were seen; NULL where half never left. Visits that lifecycle.backfill() opened, and those that a correction voided, be it after as_of, do not count.
Answered from the history. Errors: 55000 not tracked, 42501 no SELECT on the history, 22023 as_of is not finite.';

CREATE FUNCTION lifecycle.entry_conversion(
    lead_table regclass, from_status text, to_status text, since timestamptz DEFAULT '-infinity',
    until timestamptz DEFAULT 'infinity', within interval DEFAULT NULL, as_of timestamptz DEFAULT now())
    RETURNS TABLE (n bigint, converted bigint, matured bigint, rate double precision, matured_rate double precision,
                   km_rate double precision)
    LANGUAGE plpgsql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    history regclass := lifecycle.readable_history(program);
BEGIN
    PERFORM lifecycle.require_status(program, entry_conversion.from_status, past => true);
    PERFORM lifecycle.require_status(program, entry_conversion.to_status, past => true);
    IF as_of IS NULL OR NOT isfinite(as_of) THEN
        RAISE EXCEPTION 'as_of must be finite' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF within < interval '0' THEN
        RAISE EXCEPTION 'within must not be negative, and is "%"', within USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY EXECUTE format($q$
        -- asked lead by lead, or at once, as it takes less
        WITH firsts AS (
            SELECT h.lead, h.seq, h.at
            FROM %1$s h
            WHERE h.to_status = $1 AND h.cause <> 'backfill' AND h.at >= $3 AND h.at < $4 AND h.at <= $6
              AND NOT EXISTS (SELECT FROM %1$s c WHERE c.lead = h.lead AND c.seq = h.seq + 1 AND c.cause = 'correction')
              AND NOT EXISTS (
                  SELECT FROM %1$s p
                  LEFT JOIN %1$s c ON c.lead = p.lead AND c.seq = p.seq + 1 AND c.cause = 'correction'
                  WHERE p.lead = h.lead AND p.seq < h.seq AND p.to_status = $1 AND c.lead IS NULL)
        ), entries AS (
            SELECT f.lead, f.seq, f.at, e.at - f.at AS event, r.at - f.at AS removal, $6 - f.at AS seen
            FROM firsts f
            LEFT JOIN LATERAL (
                SELECT h.seq, h.at FROM %1$s h
                WHERE h.lead = f.lead AND h.seq > f.seq AND h.at <= $6 AND h.to_status = ANY ($2) AND h.cause <> 'backfill'
                  AND NOT EXISTS (SELECT FROM %1$s c WHERE c.lead = h.lead AND c.seq = h.seq + 1 AND c.cause = 'correction')
                ORDER BY h.seq LIMIT 1) AS e ON true
            LEFT JOIN LATERAL (
                SELECT h.at FROM %1$s h
                WHERE h.lead = f.lead AND h.seq > f.seq AND (e.seq IS NULL OR h.seq < e.seq) AND h.at <= $6 AND h.to_status IS NULL
                ORDER BY h.seq LIMIT 1) AS r ON true
        ), judged AS (
            SELECT e.*, e.event IS NOT NULL AND ($5 IS NULL OR e.event <= $5) AS converted, e.seen >= $5 AS matured
            FROM entries e
        )
        SELECT count(*), count(*) FILTER (WHERE j.converted),
               CASE WHEN $5 IS NOT NULL THEN count(*) FILTER (WHERE j.matured) END,
               count(*) FILTER (WHERE j.converted) / nullif(count(*), 0)::double precision,
               count(*) FILTER (WHERE j.converted AND j.matured) / nullif(count(*) FILTER (WHERE j.matured), 0)::double precision,
               1 - lifecycle.survival(coalesce(j.removal, j.event, j.seen), j.event IS NOT NULL AND j.removal IS NULL, $5)
        FROM judged j$q$, history)
    USING entry_conversion.from_status,
          ARRAY(SELECT entry_conversion.to_status
                UNION
                SELECT s.status FROM lifecycle.stage s
                WHERE s.model = program.model
                  AND s.rank > (SELECT g.rank FROM lifecycle.stage g WHERE g.model = program.model AND g.status = entry_conversion.to_status)),
          coalesce(since, '-infinity'), coalesce(until, 'infinity'), within, as_of;
END
$$;

COMMENT ON FUNCTION lifecycle.entry_conversion(regclass, text, text, timestamptz, timestamptz, interval, timestamptz) IS
'What became of the leads whose first entry ever into from_status was in [since, until), as seen at as_of: did they come to to_status, or further along the path, in any cycle?
from_status, to_status: statuses of the model, or that leads were in before it was changed. A to_status that has no place on the path, a detour or one that the model no longer has, is meant alone.
within: how much time a lead has; NULL: any.
Result: n, the leads; converted, those that came within that time; matured, those that entered at least that long before as_of; rate = converted / n; matured_rate, the same among the matured; km_rate, the share that will have come within that time by the estimate of Kaplan and Meier (1958), in which those still under way count as long as they were seen: only as_of and a removal end that, a disqualified or lost lead stays at risk. matured and matured_rate are NULL without within; rates of nobody are NULL. Entries that lifecycle.backfill() guessed count neither as the first nor as a conversion, visits that a correction voided, be it after as_of, not at all.
Answered from the history. Errors: 55000 not tracked, 42501 no SELECT on the history, 22023 a status that neither the model nor the history has, as_of is not finite, or within is negative.';
