-- verify(): does the history tell one consistent story, and the leads the same?

CREATE FUNCTION lifecycle.verify(lead_table regclass)
    RETURNS TABLE ("check" text, lead text, detail text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    history regclass := lifecycle.readable_history(program);
BEGIN
    RETURN QUERY
    SELECT 'trigger', NULL::text,
           format('trigger %s on %s is %s', needed.name, needed.relation,
                  CASE WHEN t.oid IS NULL THEN 'missing' ELSE 'disabled' END)
    FROM (SELECT e.name, e.relation FROM lifecycle.tracked_tables() AS k CROSS JOIN LATERAL lifecycle.expected_triggers(k.relation, k.rows_are) AS e
          WHERE k.rows_are = 'lead' AND k.relation = program.lead_table
             OR k.rows_are = 'signal' AND k.relation IN (SELECT s.signal_table FROM lifecycle.signal s WHERE s.lead_table = program.lead_table)
          UNION ALL VALUES ('lifecycle_guard'::name, program.history)) AS needed (name, relation)
    LEFT JOIN pg_trigger t ON t.tgrelid = needed.relation AND t.tgname = needed.name
    WHERE t.oid IS NULL OR t.tgenabled NOT IN ('O', 'A');

    RETURN QUERY EXECUTE format($q$
        WITH path AS (
            SELECT s.status FROM lifecycle.stage s WHERE s.model = $1 AND s.rank IS NOT NULL
        ), moves AS (
            SELECT h.*,
                   h.to_status IN (SELECT p.status FROM path p) AS on_path,
                   lead(h.cause) OVER w IS NOT DISTINCT FROM 'correction' AS void
            FROM %1$s h
            WINDOW w AS (PARTITION BY h.lead ORDER BY h.seq)
        ), seen AS (
            SELECT m.*, bool_or(m.on_path AND NOT m.void) OVER (PARTITION BY m.lead, m.cycle ORDER BY m.seq) AS touched
            FROM moves m
        ), pairs AS (
            SELECT s.*,
                   (SELECT array_agg(e.status COLLATE "C" ORDER BY e.status COLLATE "C")
                    FROM unnest(s.reached) WITH ORDINALITY AS e (status, place)
                    WHERE e.place > array_position(s.reached, NULL)) AS earlier,
                   lag(s.seq) OVER w AS p_seq, lag(s.cycle) OVER w AS p_cycle, lag(s.to_status) OVER w AS p_to,
                   lag(s.at) OVER w AS p_at, lag(s.on_path) OVER w AS p_on_path, lag(s.touched) OVER w AS p_touched,
                   lag(s.entered_at) OVER w AS p_entered_at, lag(s.cycle_since) OVER w AS p_cycle_since,
                   lag(s.reached) OVER w AS p_reached, lag(s.source) OVER w AS p_source, lag(s.cohort) OVER w AS p_cohort
            FROM seen s
            WINDOW w AS (PARTITION BY s.lead ORDER BY s.seq)
        )
        SELECT f."check", p.lead::text, f.detail
        FROM pairs p
        CROSS JOIN LATERAL (VALUES
            ('gap', p.seq IS DISTINCT FROM coalesce(p.p_seq, 0) + 1,
             format('move %%s follows move %%s', p.seq, coalesce(p.p_seq, 0))),
            ('gap', p.from_status IS DISTINCT FROM p.p_to,
             format('move %%s leaves %%s, but the lead was %%s', p.seq, coalesce(p.from_status, '(nothing)'), coalesce(p.p_to, '(nothing)'))),
            ('gap', p.from_status IS NULL AND p.to_status IS NULL,
             format('move %%s leads from nothing to nothing', p.seq)),
            ('gap', p.from_since IS DISTINCT FROM CASE WHEN p.p_to IS NOT NULL THEN p.p_at END,
             format('move %%s closes a visit since %%s, which began at %%s', p.seq, coalesce(p.from_since::text, '(never)'), coalesce(p.p_at::text, '(never)'))),
            ('overlap', p.at < p.p_at,
             format('move %%s at %%s is before move %%s at %%s', p.seq, p.at, p.p_seq, p.p_at)),
            ('cycle', p.cycle IS DISTINCT FROM CASE
                 WHEN p.p_seq IS NULL THEN 1
                 WHEN p.to_status IS NULL OR p.cause = 'correction' THEN p.p_cycle
                 WHEN p.p_to IS NULL THEN p.p_cycle + 1
                 WHEN NOT p.p_on_path AND p.on_path AND p.p_touched THEN p.p_cycle + 1
                 ELSE p.p_cycle END,
             format('move %%s is in cycle %%s after cycle %%s', p.seq, p.cycle, coalesce(p.p_cycle, 0))),
            ('cycle', p.cycle_since IS DISTINCT FROM CASE WHEN p.cycle IS DISTINCT FROM p.p_cycle THEN p.at ELSE p.p_cycle_since END,
             format('cycle of move %%s is said to begin at %%s', p.seq, p.cycle_since)),
            ('cycle', p.cause <> 'correction' AND p.reached IS DISTINCT FROM CASE
                 WHEN p.p_seq IS NULL THEN ARRAY[p.to_status]
                 WHEN p.to_status IS NULL THEN p.p_reached
                 ELSE lifecycle.reached_add(p.p_reached, p.to_status, p.cycle <> p.p_cycle) END,
             format('move %%s says that %%s were reached', p.seq, p.reached)),
            -- folded anew, without the visits that corrections closed
            ('cycle', p.cause = 'correction' AND (lifecycle.reached_in_cycle(p.reached), p.earlier) IS DISTINCT FROM (
                 SELECT ROW(array_agg(r.status ORDER BY r.seq) FILTER (WHERE r.cycle = p.cycle),
                            array_agg(DISTINCT r.status COLLATE "C") FILTER (WHERE r.earlier))
                 FROM (SELECT v.to_status AS status, v.cycle, min(v.seq) AS seq,
                              v.cycle < p.cycle AND bool_and(max(v.cycle) < p.cycle) OVER (PARTITION BY v.to_status) AS earlier
                       FROM (SELECT h.seq, h.cycle, h.to_status, lead(h.cause) OVER (ORDER BY h.seq) AS next_cause
                             FROM %1$s h WHERE h.lead = p.lead AND h.seq <= p.seq) AS v
                       WHERE v.to_status IS NOT NULL AND v.next_cause IS DISTINCT FROM 'correction'
                       GROUP BY v.to_status, v.cycle) AS r),
             format('move %%s says that %%s were reached', p.seq, p.reached)),
            ('entry', p.entered_at IS DISTINCT FROM coalesce(p.p_entered_at, p.at),
             format('move %%s says that the lead entered at %%s', p.seq, p.entered_at)),
            ('entry', p.p_seq IS NOT NULL AND (p.source IS DISTINCT FROM p.p_source OR p.cohort IS DISTINCT FROM p.p_cohort),
             format('move %%s has source %%s and cohort %%s', p.seq, coalesce(p.source, '(none)'), coalesce(p.cohort::text, '(none)')))
        ) AS f ("check", fails, detail)
        WHERE f.fails
        ORDER BY p.lead, p.seq$q$, history)
    USING program.model;

    RETURN QUERY EXECUTE format($q$
        SELECT 'status', coalesce(l.key, m.lead)::text,
               CASE WHEN m.lead IS NULL THEN format('the lead is %%s, but has no history', coalesce(l.status, '(null)'))
                    WHEN l.key IS NULL THEN format('the lead is gone, but its last move was to %%s', m.to_status)
                    WHEN m.to_status IS NULL THEN format('the lead is %%s, but its last move was its removal', coalesce(l.status, '(null)'))
                    WHEN l.status IS DISTINCT FROM m.to_status THEN
                         format('the lead is %%s, but its last move was to %%s', coalesce(l.status, '(null)'), m.to_status)
                    ELSE format('the lead has move %%s at %%s, but its last move was %%s at %%s', l.seq, l.since, m.seq, m.at) END
        FROM (SELECT %1$I AS key, %2$I::text AS status, lifecycle_since AS since, lifecycle_seq AS seq FROM %3$s) AS l
        FULL JOIN (SELECT DISTINCT ON (h.lead) h.lead, h.seq, h.to_status, h.at FROM %4$s h ORDER BY h.lead, h.seq DESC) AS m
               ON m.lead = l.key
        WHERE CASE WHEN l.key IS NULL THEN m.to_status IS NOT NULL
                   WHEN m.lead IS NULL THEN l.seq IS NOT NULL
                   WHEN l.seq IS NULL AND l.status IS NOT DISTINCT FROM m.to_status THEN false
                   ELSE (l.status, l.seq, l.since) IS DISTINCT FROM (m.to_status, m.seq, m.at) END
        ORDER BY coalesce(l.key, m.lead)$q$,
        program.key, program.status_column, program.lead_table, history);

    RETURN QUERY EXECUTE format($q$
        SELECT 'conservation', NULL::text,
               format('%%s leads are %%s, but %%s came and %%s went', coalesce(l.n, 0), status, coalesce(i.n, 0), coalesce(o.n, 0))
        FROM (SELECT h.to_status AS status, count(*) AS n FROM %1$s h WHERE h.to_status IS NOT NULL GROUP BY 1) AS i
        FULL JOIN (SELECT h.from_status AS status, count(*) AS n FROM %1$s h WHERE h.from_status IS NOT NULL GROUP BY 1) AS o USING (status)
        FULL JOIN (SELECT %2$I::text AS status, count(*) AS n FROM %3$s WHERE lifecycle_seq IS NOT NULL GROUP BY 1) AS l USING (status)
        WHERE coalesce(l.n, 0) <> coalesce(i.n, 0) - coalesce(o.n, 0)
        ORDER BY status$q$, history, program.status_column, program.lead_table);

    IF has_table_privilege(program.flow, 'SELECT') AND has_table_privilege(program.flow_pending, 'SELECT') THEN
        RETURN QUERY EXECUTE format($q$
            WITH known AS MATERIALIZED (
                -- of more sources than the flow tells apart, the rest are one
                SELECT DISTINCT f.source FROM %1$s f WHERE f.span = 'day' AND f.source IS NOT NULL AND f.source <> '(other)'
            ), counted AS (
                SELECT true AS is_flow, f.kind, f.day, f.source, f.cohort, f.from_status, f.to_status, f.reached,
                       f.n, f.n_new, f.n_again, f.n_left, f.n_entered
                FROM lifecycle.counts_of_flow($1) AS f WHERE f.span IN ('pending', 'day')
                UNION ALL
                SELECT false, h.* FROM lifecycle.flow_of_history($1) AS h
            ), sums AS (
                SELECT c.is_flow, c.kind, c.day, s.source, c.cohort, c.from_status, c.to_status, c.reached,
                       ARRAY[sum(c.n), sum(c.n_new), sum(c.n_again), sum(c.n_left), sum(c.n_entered)] AS counts
                FROM counted c
                CROSS JOIN LATERAL (
                    SELECT CASE WHEN c.source IS NULL OR c.source IN (SELECT k.source FROM known k) OR (SELECT count(*) FROM known) < 64
                                THEN c.source ELSE '(other)' END) AS s (source)
                GROUP BY c.is_flow, c.kind, c.day, s.source, c.cohort, c.from_status, c.to_status, c.reached
            ), pairs AS (
                SELECT p.kind, p.day, p.source, p.cohort, p.from_status, p.to_status, p.reached,
                       coalesce(min(p.counts) FILTER (WHERE p.is_flow), '{0,0,0,0,0}') AS has,
                       coalesce(min(p.counts) FILTER (WHERE NOT p.is_flow), '{0,0,0,0,0}') AS should
                FROM sums p
                GROUP BY p.kind, p.day, p.source, p.cohort, p.from_status, p.to_status, p.reached
            )
            SELECT 'flow', NULL::text,
                   format('%%s of %%s%%s: the flow has %%s, the history %%s: SELECT lifecycle.rebuild_flow(%%L)',
                          CASE p.kind WHEN 'move' THEN format('moves from %%s to %%s', coalesce(p.from_status, '(nothing)'), coalesce(p.to_status, '(nothing)'))
                                      ELSE format('leads that reached %%s (%%s)', p.reached, p.kind) END,
                          p.day, CASE p.kind WHEN 'move' THEN '' ELSE format(', source %%s, cohort %%s', coalesce(p.source, '(none)'), coalesce(p.cohort::text, '(none)')) END,
                          p.has, p.should, $2)
            FROM pairs p
            WHERE p.has <> p.should
            ORDER BY p.kind, p.day, p.source COLLATE "C", p.cohort, p.from_status COLLATE "C", p.to_status COLLATE "C", p.reached$q$, program.flow)
        USING program, program.lead_table;

        -- what is summed up further, and by what it is found
        RETURN QUERY EXECUTE format($q$
            WITH counts AS MATERIALIZED (
                SELECT f.*, ARRAY[f.n, f.n_new, f.n_again, f.n_left, f.n_entered]::numeric[] AS counts
                FROM lifecycle.counts_of_flow($1) AS f WHERE f.span <> 'pending'
            ), sums AS (
                SELECT s.span, d.kind, s.day, s.source, s.cohort, d.from_status, d.to_status, d.reached,
                       ARRAY[sum(d.n), sum(d.n_new), sum(d.n_again), sum(d.n_left), sum(d.n_entered)] AS counts
                FROM counts d
                CROSS JOIN LATERAL (VALUES
                    ('month', date_trunc('month', d.day::timestamp)::date, d.source, d.cohort),
                    ('total', '-infinity', d.source, d.cohort), ('all', '-infinity', NULL, NULL)) AS s (span, day, source, cohort)
                WHERE d.span = 'day'
                GROUP BY s.span, d.kind, s.day, s.source, s.cohort, d.from_status, d.to_status, d.reached
            ), pairs AS (
                SELECT p.span, p.kind, p.day, coalesce(min(p.counts) FILTER (WHERE p.is_flow), '{0,0,0,0,0}') AS has,
                       coalesce(min(p.counts) FILTER (WHERE NOT p.is_flow), '{0,0,0,0,0}') AS should,
                       count(*) FILTER (WHERE p.is_flow) > 1 AS is_twice
                FROM (SELECT true AS is_flow, c.span, c.kind, c.day, c.source, c.cohort, c.from_status, c.to_status, c.reached, c.counts
                      FROM counts c WHERE c.span <> 'day'
                      UNION ALL
                      SELECT false, s.* FROM sums s) AS p
                GROUP BY p.span, p.kind, p.day, p.source, p.cohort, p.from_status, p.to_status, p.reached
            ), faults AS (
                SELECT p.span, p.kind, p.day, format('span %%s, kind %%s, day %%s: the flow has %%s, its days %%s', p.span, p.kind, p.day, p.has, p.should) AS fault
                FROM pairs p WHERE p.has <> p.should OR p.is_twice
                UNION ALL
                SELECT f.span, f.kind, f.day, format('a row of span %%s, kind %%s, day %%s has a wrong key', f.span, f.kind, f.day)
                FROM %1$s f
                WHERE f.key <> lifecycle.flow_key(f.source, f.cohort)
                UNION ALL
                SELECT f.span, f.kind, f.day, format('a row of span %%s, kind %%s, day %%s has arrays that do not run side by side', f.span, f.kind, f.day)
                FROM (SELECT m.span, m.kind, m.day, m.from_status, m.to_status, m.reached, m.n, m.n_new, m.n_again, m.n_left, m.n_entered FROM %1$s m
                      UNION ALL
                      SELECT 'pending', p.kind, p.day, p.from_status, p.to_status, p.reached, p.n, p.n_new, p.n_again, p.n_left, p.n_entered FROM %2$s p) AS f
                WHERE array_ndims(f.n) IS DISTINCT FROM 1 OR array_position(f.n, NULL) IS NOT NULL
                   OR EXISTS (SELECT FROM (VALUES (f.n_new), (f.n_again), (f.n_left), (f.n_entered)) AS a (a)
                              WHERE a.a IS NOT NULL AND (cardinality(a.a) <> cardinality(f.n) OR array_position(a.a, NULL) IS NOT NULL))
                   OR EXISTS (SELECT FROM (VALUES (f.from_status), (f.to_status), (f.reached)) AS a (a) WHERE cardinality(a.a) <> cardinality(f.n))
            )
            SELECT 'flow', NULL::text, format('%%s: SELECT lifecycle.rebuild_flow(%%L)', f.fault, $2)
            FROM faults f
            ORDER BY f.span, f.kind, f.day$q$, program.flow, program.flow_pending)
        USING program, program.lead_table;
    END IF;

    -- a score that was never stored is not stale: conditions are judged by what the row gives
    RETURN QUERY EXECUTE format($q$
        SELECT 'stale', s.key::text,
               format('the score is %%s, but the rules give %%s today: CALL lifecycle.rescore(%%L)', s.stored, s.today, %3$L)
        FROM (SELECT l.%1$I AS key, l.demographic_score AS stored, %2$s AS today
              FROM %3$s l WHERE l.demographic_score IS NOT NULL OFFSET 0) AS s
        WHERE s.stored <> s.today
        ORDER BY s.key$q$,
        program.key,
        CASE WHEN EXISTS (SELECT FROM lifecycle.rule r WHERE r.on_table = program.lead_table AND r.enabled AND r.points IS NOT NULL)
             THEN 'lifecycle.demographic_score(l.*)' ELSE '0::double precision' END,
        program.lead_table);

    IF lifecycle.readable_behavior(program) IS NOT NULL THEN
        RETURN QUERY EXECUTE format($q$
            SELECT 'stale', s.lead,
                   CASE WHEN s.restart IS NULL THEN format('the behaviour score is %%s, but the signals give %%s today: CALL lifecycle.rescore(%%L)', s.stored, s.today, %3$L)
                        ELSE format('the points do not know that the lead began anew at %%s: CALL lifecycle.rescore(%%L)', s.restart, %3$L) END
            FROM (SELECT array_agg(n.key::text ORDER BY n.place) AS keys, n.place / 1000 AS part
                  FROM (SELECT a.key, row_number() OVER (ORDER BY a.key) - 1 AS place
                        FROM (SELECT l.%1$I AS key FROM %3$s l UNION %2$s) AS a) AS n
                  GROUP BY n.place / 1000) AS b
            CROSS JOIN LATERAL lifecycle.stale_behavior(%3$L, b.keys) AS s
            ORDER BY b.part$q$,
            program.key, lifecycle.behavior_keys(program.lead_table, true), program.lead_table);
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.verify(regclass) IS
'Checks a tracked table against its history; no rows: all is well. Needs SELECT on both, and, where there are signals, on <prefix>_behavior.
check: ''trigger'', one of ours is missing or disabled, on this table, its history or one of its signal tables; ''gap'', a move is missing or does not leave what the one before entered; ''overlap'', a move is before the one before it; ''cycle'', a cycle, its start or what it reached is not what the moves say; ''entry'', the first entry, source or cohort changed between moves; ''status'', the lead''s row is not what its last move says; ''conservation'', the leads in a status are not those that came less those that went; ''flow'', the sums of <prefix>_flow (n, n_new, n_again, n_left, n_entered) are not those of the history by day, or of its own days by month and in total, which lifecycle.rebuild_flow() puts right (asked where the caller may read <prefix>_flow); ''stale'', the stored demographic score is not what the rules give today, which CALL lifecycle.rescore() puts right (one that was never stored is no fault), or the stored points are not those that the rows of the signal tables give (of keys that are in no table but a signal table, only where the caller may read that), or do not know of the last restart.
lead: its key; NULL where it is about the table. detail: what is wrong. Leads that are older than lifecycle.track() and have not moved since are not in the history, which is no fault.
Errors: 55000 not tracked, 42501 no SELECT, what a rule raises.';
