-- Views beside each lead table: where every lead is, and the funnel and its
-- months, ready to be read.

CREATE FUNCTION lifecycle.register_views(lead_table regclass, overview regclass, funnel regclass, funnel_monthly regclass)
    RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_register_views';

COMMENT ON FUNCTION lifecycle.register_views(regclass, regclass, regclass, regclass) IS
'Part of lifecycle.track(), which see: writes the views into the row of lifecycle.program, and has them go with the lead table. The caller must own all four.';

CREATE FUNCTION lifecycle.copy_grants(lead_table regclass, made regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    grantee text;
BEGIN
    FOR grantee IN
        SELECT DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
        WHERE c.oid = lead_table AND g.privilege_type = 'SELECT' AND g.grantee <> c.relowner
          -- who sees some leads only must not be shown what all of them add up to
          AND (NOT c.relrowsecurity OR (SELECT v.relkind = 'v' FROM pg_class v WHERE v.oid = made))
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO %s', made, grantee);
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.copy_grants(regclass, regclass) IS
'Part of lifecycle.track() and lifecycle.track_signal(), which see: whoever may read all columns of the lead table may read what was made. Where the lead table has row security, that is so of its view only, which obeys it.';

CREATE FUNCTION lifecycle.overview_query(program lifecycle.program) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format($q$
        SELECT l.%1$I AS lead, l.%2$I::text COLLATE "default" AS status, s.rank, s.label, l.lifecycle_since AS since,
               now() - l.lifecycle_since AS time_in_status, l.lifecycle_seq AS seq, l.demographic_score,
               %5$s AS behavior_score, s.marketing
        FROM %3$s l
        LEFT JOIN (lifecycle.program p JOIN lifecycle.stage s ON s.model = p.model)
               ON p.lead_table = %4$L::regclass AND s.status = l.%2$I::text COLLATE "default"$q$,
        program.key, program.status_column, program.lead_table, program.lead_table::text,
        CASE WHEN program.behavior IS NULL THEN '0::double precision'
             -- writes of leads say what to do about that
             WHEN lifecycle.key_type(program.behavior, 'lead') <> lifecycle.key_type(program.lead_table, program.key) THEN 'NULL::double precision'
             ELSE format('(SELECT lifecycle.decayed_sum(b.points, b.at, nullif(b.half_life, interval ''0''), now()) FROM %s b WHERE b.lead %s l.%I)',
                         program.behavior, lifecycle.key_operator(program.lead_table, program.key, 3), program.key) END);
END
$$;

COMMENT ON FUNCTION lifecycle.overview_query(lifecycle.program) IS
'Part of lifecycle.track(), which see: what <prefix>_lifecycle says. Of the lead table it reads the key and the columns of lifecycle only; the points of a lead are looked up where they are asked for.';

CREATE FUNCTION lifecycle.put_overview(program lifecycle.program, overview text) RETURNS regclass
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_new boolean := to_regclass(overview) IS NULL;
BEGIN
    EXECUTE format('CREATE OR REPLACE VIEW %s WITH (security_invoker = true) AS %s', overview, lifecycle.overview_query(program));
    IF is_new THEN
        EXECUTE format('COMMENT ON VIEW %s IS %L', overview,
                       format('Where each lead of %s is, kept by lifecycle. Who reads it needs SELECT on the lead table, or on its key and the columns of lifecycle, and on <prefix>_behavior.', program.lead_table));
        PERFORM lifecycle.comment_columns(overview, ARRAY[
            ['lead', 'The key of the lead.'],
            ['status', 'Where it is; NULL for one that is older than lifecycle.track() and has not entered.'],
            ['rank', 'The place of the status on the path; NULL for a detour.'],
            ['label', 'What people call the status.'],
            ['since', 'When the lead came to its status.'],
            ['time_in_status', 'How long ago that is.'],
            ['seq', 'The number of the lead''s last move.'],
            ['demographic_score', 'The points of the rules that hold for its row.'],
            ['behavior_score', 'What the points of its signals are worth now.'],
            ['marketing', 'What marketing does with leads of the status: nurture, paused or suspended.']]);
        PERFORM lifecycle.keep_private(overview::regclass, c.relowner) FROM pg_class c WHERE c.oid = program.lead_table;
    END IF;
    RETURN overview::regclass;
END
$$;

COMMENT ON FUNCTION lifecycle.put_overview(lifecycle.program, text) IS
'Part of lifecycle.track() and lifecycle.track_signal(), which see: creates <prefix>_lifecycle, or replaces what it says.';

CREATE FUNCTION lifecycle.empty_overview(program lifecycle.program) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE (
        SELECT format('CREATE OR REPLACE VIEW %s WITH (security_invoker = true) AS SELECT %s', program.overview,
                      string_agg(format('NULL::%s%s AS %I', format_type(a.atttypid, a.atttypmod),
                                        ' COLLATE ' || nullif(a.attcollation, 0)::regcollation, a.attname), ', ' ORDER BY a.attnum))
        FROM pg_attribute a
        WHERE a.attrelid = program.overview AND a.attnum > 0);
    RETURN true;
END
$$;

COMMENT ON FUNCTION lifecycle.empty_overview(lifecycle.program) IS
'Part of lifecycle.follow_overview(), which see: has <prefix>_lifecycle read nothing.';

CREATE FUNCTION lifecycle.restore_overview(program lifecycle.program) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old text;
    name text := program.overview::text;
    granted record;
BEGIN
    IF (SELECT (l.atttypid, l.atttypmod, l.attcollation) = (v.atttypid, v.atttypmod, v.attcollation)
        FROM pg_attribute l, pg_attribute v
        WHERE l.attrelid = program.lead_table AND l.attname = program.key
          AND v.attrelid = program.overview AND v.attnum = 1) THEN
        PERFORM lifecycle.put_overview(program, name);
        RETURN;
    END IF;
    -- no column of a view can get another type
    EXECUTE format('ALTER VIEW %s RENAME TO %I', name, 'lifecycle ' || program.overview::oid);
    old := program.overview::text;
    PERFORM lifecycle.register_views(program.lead_table, lifecycle.put_overview(program, name), program.funnel, program.funnel_monthly);
    FOR granted IN
        SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END AS grantee, g.privilege_type, g.is_grantable
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
        WHERE c.oid = program.overview AND g.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s%s', granted.privilege_type, name, granted.grantee,
                       CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    BEGIN
        EXECUTE format('DROP VIEW %s', old);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        DECLARE
            dependents text;
        BEGIN
            GET STACKED DIAGNOSTICS dependents = PG_EXCEPTION_DETAIL;
            RAISE EXCEPTION 'cannot change the type of the key of tracked table "%", since other objects depend on view "%"', program.lead_table, name
                USING ERRCODE = 'dependent_objects_still_exist', DETAIL = replace(dependents, old, name),
                      HINT = 'Drop these first.';
        END;
    END;
END
$$;

COMMENT ON FUNCTION lifecycle.restore_overview(lifecycle.program) IS
'Part of lifecycle.follow_overview(), which see: has <prefix>_lifecycle read the leads again. Where the key got another type, the view is made anew, with the privileges that were granted on it. Errors: 2BP01 something of a user depends on it then.';

CREATE FUNCTION lifecycle.follow_overview() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_follow_overview';

COMMENT ON FUNCTION lifecycle.follow_overview() IS
'ddl_command_start and ddl_command_end event trigger: while ALTER TABLE changes the type of a column of the lead table or of <prefix>_behavior that <prefix>_lifecycle reads, the view reads nothing, since it would keep the column from changing. Errors: 2BP01 the key gets another type, and something of a user depends on the view.';

CREATE EVENT TRIGGER lifecycle_overview_begin ON ddl_command_start WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION lifecycle.follow_overview();
CREATE EVENT TRIGGER lifecycle_overview_end ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION lifecycle.follow_overview();

CREATE FUNCTION lifecycle.create_funnel(program lifecycle.program, funnel text) RETURNS regclass
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format($q$
        CREATE MATERIALIZED VIEW %s AS
        SELECT f.segment, f.status, f.rank, f.reached, f.of_which_inferred,
               round(f.next_step_rate::numeric, 4)::double precision AS next_step_rate,
               round(f.cumulative_rate::numeric, 4)::double precision AS cumulative_rate, now() AS as_of
        FROM lifecycle.funnel_of_flow(%L::regclass) AS f
        WITH NO DATA$q$, funnel, program.lead_table::text);
    EXECUTE format('CREATE UNIQUE INDEX ON %s (segment, status) NULLS NOT DISTINCT', funnel);
    EXECUTE format('COMMENT ON MATERIALIZED VIEW %s IS %L', funnel,
                   format('How far the leads of %s came, over all time, kept by lifecycle, as of the last lifecycle.refresh().', program.lead_table));
    PERFORM lifecycle.comment_columns(funnel, ARRAY[
        ['segment', 'The source of the leads, (none) or (other) beyond 64 of them; NULL: all leads.'],
        ['status', 'The status.'],
        ['rank', 'Its place on the path; NULL for a detour.'],
        ['reached', 'How many leads came that far; a stage that was passed over on the way further counts.'],
        ['of_which_inferred', 'How many of these never were in the status.'],
        ['next_step_rate', 'reached / reached at the stage before, to four decimals.'],
        ['cumulative_rate', 'reached / reached at the first stage, to four decimals.'],
        ['as_of', 'When it was refreshed.']]);
    PERFORM lifecycle.keep_private(funnel::regclass, c.relowner) FROM pg_class c WHERE c.oid = program.lead_table;
    RETURN funnel::regclass;
END
$$;

COMMENT ON FUNCTION lifecycle.create_funnel(lifecycle.program, text) IS
'Part of lifecycle.track(), which see: creates <prefix>_funnel, empty.';

CREATE FUNCTION lifecycle.create_funnel_monthly(program lifecycle.program, funnel_monthly text) RETURNS regclass
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format($q$
        CREATE MATERIALIZED VIEW %1$s AS
        WITH program AS (
            SELECT p.model, p.tz FROM lifecycle.program p WHERE p.lead_table = %3$L::regclass
        ), moves AS (
            SELECT date_trunc('month', f.day::timestamp)::date AS month, c.from_status, c.to_status, sum(c.n) AS n,
                   sum(c.n_new) AS n_new, sum(c.n_again) AS n_again, sum(c.n_left) AS n_left, sum(c.n_entered) AS n_entered
            FROM (SELECT m.day, m.from_status, m.to_status, m.n, m.n_new, m.n_again, m.n_left, m.n_entered
                  FROM %2$s m WHERE m.kind = 'move' AND m.span = 'month'
                  UNION ALL
                  SELECT p.day, p.from_status, p.to_status, p.n, p.n_new, p.n_again, p.n_left, p.n_entered
                  FROM %4$s p WHERE p.kind = 'move') AS f
            CROSS JOIN LATERAL unnest(f.from_status, f.to_status, f.n, f.n_new, f.n_again, f.n_left, f.n_entered)
                 AS c (from_status, to_status, n, n_new, n_again, n_left, n_entered)
            GROUP BY 1, 2, 3
        ), path AS (
            SELECT s.status, s.rank,
                   CASE WHEN s.rank IS NOT NULL THEN lead(s.status) OVER (PARTITION BY s.rank IS NULL ORDER BY s.rank) END AS next_status
            FROM program p JOIN lifecycle.stage s ON s.model = p.model
        ), stages AS (
            SELECT p.status, p.rank, p.next_status FROM path p
            UNION ALL
            SELECT m.status, NULL, NULL
            FROM (SELECT m.from_status AS status FROM moves m UNION SELECT m.to_status FROM moves m) AS m
            WHERE m.status IS NOT NULL AND m.status NOT IN (SELECT p.status FROM path p)
        ), months AS (
            SELECT g.month::date AS month
            FROM generate_series((SELECT min(m.month) FROM moves m)::timestamp,
                                 (SELECT lifecycle.flow_day(now(), p.tz) FROM program p)::timestamp, interval '1 month') AS g (month)
        ), changes AS (
            SELECT m.month, m.to_status AS status, m.n AS inflow, m.n_new AS fresh, m.n_again AS again, 0 AS outflow,
                   m.n_entered AS entered, 0 AS went_on
            FROM moves m WHERE m.to_status IS NOT NULL
            UNION ALL
            SELECT m.month, m.from_status, 0, 0, 0, m.n, 0, CASE WHEN m.to_status = s.next_status THEN m.n_left ELSE 0 END
            FROM moves m JOIN stages s ON s.status = m.from_status
        ), summed AS (
            SELECT c.month, c.status, sum(c.inflow) AS inflow, sum(c.fresh) AS fresh, sum(c.again) AS again,
                   sum(c.outflow) AS outflow, sum(c.entered) AS entered, sum(c.went_on) AS went_on
            FROM changes c GROUP BY c.month, c.status
        ), balanced AS (
            SELECT m.month, s.status, s.rank, s.next_status, coalesce(d.inflow, 0) AS inflow, coalesce(d.fresh, 0) AS fresh,
                   coalesce(d.again, 0) AS again, coalesce(d.outflow, 0) AS outflow, coalesce(d.entered, 0) AS entered,
                   coalesce(d.went_on, 0) AS went_on,
                   sum(coalesce(d.inflow, 0) - coalesce(d.outflow, 0)) OVER (PARTITION BY s.status ORDER BY m.month) AS closing
            FROM months m
            CROSS JOIN stages s
            LEFT JOIN summed d ON d.month = m.month AND d.status = s.status
        )
        SELECT b.month, b.status, b.rank, (b.closing - b.inflow + b.outflow)::bigint AS opening, b.inflow::bigint AS inflow,
               b.fresh::bigint AS inflow_new, b.again::bigint AS inflow_again, b.outflow::bigint AS outflow,
               b.closing::bigint AS closing,
               CASE WHEN b.next_status IS NOT NULL THEN round(b.went_on / nullif(b.entered, 0), 4)::double precision END AS period_rate,
               now() AS as_of
        FROM balanced b
        ORDER BY b.month, b.rank, b.status COLLATE "C"
        WITH NO DATA$q$, funnel_monthly, program.flow, program.lead_table::text, program.flow_pending);
    EXECUTE format('CREATE UNIQUE INDEX ON %s (month, status)', funnel_monthly);
    EXECUTE format('COMMENT ON MATERIALIZED VIEW %s IS %L', funnel_monthly,
                   format('Which leads of %s came and went, by month, kept by lifecycle, as of the last lifecycle.refresh().', program.lead_table));
    PERFORM lifecycle.comment_columns(funnel_monthly, ARRAY[
        ['month', 'The first day of the month, in the time zone of the program; from the first month with a move on.'],
        ['status', 'The status.'],
        ['rank', 'Its place on the path; NULL for detours and for statuses that the model no longer has.'],
        ['opening', 'Leads inside when the month began.'],
        ['inflow', 'Visits that began in the month.'],
        ['inflow_new', 'Of these: of leads that had never been in the status.'],
        ['inflow_again', 'Of these: of leads that had been.'],
        ['outflow', 'Visits that ended in the month.'],
        ['closing', 'Leads inside when the month ended, or now: opening + inflow - outflow.'],
        ['period_rate', 'Moves of the month to the next status of the path / inflow, to four decimals, without corrections and what was backfilled; NULL for detours and the last stage, and over 0.'],
        ['as_of', 'When it was refreshed.']]);
    PERFORM lifecycle.keep_private(funnel_monthly::regclass, c.relowner) FROM pg_class c WHERE c.oid = program.lead_table;
    RETURN funnel_monthly::regclass;
END
$$;

COMMENT ON FUNCTION lifecycle.create_funnel_monthly(lifecycle.program, text) IS
'Part of lifecycle.track(), which see: creates <prefix>_funnel_monthly, empty.';

CREATE FUNCTION lifecycle.view_names(lead_table regclass, prefix name, OUT overview text, OUT funnel text, OUT funnel_monthly text)
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT pg_catalog.format('%I.%I', n.nspname, prefix::text || '_lifecycle'), pg_catalog.format('%I.%I', n.nspname, prefix::text || '_funnel'),
           pg_catalog.format('%I.%I', n.nspname, prefix::text || '_funnel_monthly')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = lead_table;
END;

COMMENT ON FUNCTION lifecycle.view_names(regclass, name) IS
'Part of lifecycle.track(), which see: the names that its views get.';

CREATE FUNCTION lifecycle.can_replace_view(view regclass, owner oid) RETURNS boolean
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                   WHERE c.oid = view AND c.relowner = owner AND c.relkind IN ('v', 'm'))
       AND NOT EXISTS (SELECT FROM lifecycle.program p WHERE view IN (p.overview, p.funnel, p.funnel_monthly))
       AND (lifecycle.has_columns(view, '{lead,status,rank,label,since,time_in_status,seq,demographic_score,behavior_score,marketing}',
                (SELECT ARRAY[a.atttypid, 'text'::pg_catalog.regtype, 'int4', 'text', 'timestamptz', 'interval', 'int4', 'float8', 'float8', 'text']::pg_catalog.regtype[]
                 FROM pg_catalog.pg_attribute a WHERE a.attrelid = view AND a.attnum = 1))
            OR lifecycle.has_columns(view, '{segment,status,rank,reached,of_which_inferred,next_step_rate,cumulative_rate,as_of}',
                '{text,text,int4,int8,int8,float8,float8,timestamptz}')
            OR lifecycle.has_columns(view, '{month,status,rank,opening,inflow,inflow_new,inflow_again,outflow,closing,period_rate,as_of}',
                '{date,text,int4,int8,int8,int8,int8,int8,int8,float8,timestamptz}'));
END;

COMMENT ON FUNCTION lifecycle.can_replace_view(regclass, oid) IS
'Part of lifecycle.track(), which see: whether the relation is a view of ours whose program is gone.';

CREATE FUNCTION lifecycle.drop_view(view regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind "char" := (SELECT c.relkind FROM pg_class c WHERE c.oid = view);
    name text := view::text;
    dependents text;
BEGIN
    IF kind IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('DROP %s %s', CASE kind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END, name);
EXCEPTION WHEN dependent_objects_still_exist THEN
    GET STACKED DIAGNOSTICS dependents = PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION 'view "%" cannot be dropped, since other objects depend on it', name
        USING ERRCODE = 'dependent_objects_still_exist', DETAIL = dependents,
              HINT = 'Drop these first; lifecycle.track() makes the view anew, but not what is built on it.';
END
$$;

COMMENT ON FUNCTION lifecycle.drop_view(regclass) IS
'Part of lifecycle.untrack(), which see: drops a view of ours. Errors: 2BP01 something of a user depends on it.';

CREATE FUNCTION lifecycle.create_views(lead_table regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
    names record := lifecycle.view_names(lead_table, program.prefix);
    made regclass[];
BEGIN
    -- of leads that were dropped, or of a dump without data
    PERFORM lifecycle.drop_view(to_regclass(o.name)) FROM unnest(ARRAY[names.overview, names.funnel_monthly, names.funnel]) AS o (name);
    made := ARRAY[lifecycle.put_overview(program, names.overview), lifecycle.create_funnel(program, names.funnel),
                  lifecycle.create_funnel_monthly(program, names.funnel_monthly)];
    PERFORM lifecycle.copy_grants(lead_table, v.view) FROM unnest(made) AS v (view);
    PERFORM lifecycle.register_views(lead_table, made[1], made[2], made[3]);
    -- as their owner, since that is whose they are now
    EXECUTE format('REFRESH MATERIALIZED VIEW %s', made[2]);
    EXECUTE format('REFRESH MATERIALIZED VIEW %s', made[3]);
END
$$;

COMMENT ON FUNCTION lifecycle.create_views(regclass) IS
'Part of lifecycle.track(), which see: creates <prefix>_lifecycle, <prefix>_funnel and <prefix>_funnel_monthly, which whoever may read the lead table may read.';
