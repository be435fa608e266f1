-- refresh(): what reports sum is put together, and the materialized views follow.

CREATE FUNCTION lifecycle.merge_as_owner(lead_table regclass) RETURNS bigint
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_merge_as_owner';

COMMENT ON FUNCTION lifecycle.merge_as_owner(regclass) IS
'Part of lifecycle.refresh(), which see: lifecycle.merge_flow() as the owner of the table; NULL where it is tracked no more. The caller must own the table.';

CREATE FUNCTION lifecycle.refresh(lead_table regclass DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    program lifecycle.program;
    view regclass;
BEGIN
    IF refresh.lead_table IS NOT NULL THEN
        program := lifecycle.program_of(refresh.lead_table);
        PERFORM lifecycle.require_owner(refresh.lead_table, 'lifecycle.refresh()');
    END IF;
    FOR program IN
        SELECT p.*
        FROM lifecycle.program p JOIN pg_class c ON c.oid = p.lead_table
        WHERE (p.lead_table = refresh.lead_table OR refresh.lead_table IS NULL) AND pg_has_role(c.relowner, 'USAGE')
        ORDER BY p.id
    LOOP
        CONTINUE WHEN lifecycle.merge_as_owner(program.lead_table) IS NULL;
        -- what a restore made knows nothing of the lead table
        IF program.overview IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = program.funnel AND d.deptype = 'a'
              AND d.refclassid = 'pg_class'::regclass AND d.refobjid = program.lead_table) THEN
            PERFORM lifecycle.register_views(program.lead_table, program.overview, program.funnel, program.funnel_monthly);
        END IF;
        FOREACH view IN ARRAY array_remove(ARRAY[program.funnel, program.funnel_monthly], NULL) LOOP
            EXECUTE format('REFRESH MATERIALIZED VIEW %s %s',
                           CASE WHEN (SELECT c.relispopulated FROM pg_class c WHERE c.oid = view) THEN 'CONCURRENTLY' ELSE '' END, view);
        END LOOP;
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.refresh(regclass) IS
'Brings the sums of <prefix>_flow and the materialized views <prefix>_funnel and <prefix>_funnel_monthly up to date, of one tracked table, or of all that the caller owns where none is named. To be called now and then, as by pg_cron: reports are exact without it, and the faster the less has come since.
It is one transaction, the caller''s: stopped or killed it has done nothing, and can be called again. Writers and readers of leads, reports and views go on meanwhile; another refresh() of the same table waits for this one, and under REPEATABLE READ fails with 40001 where another one has merged the same rows since its snapshot was taken.
The caller must own the table. Errors: 55000 not tracked, 42501 not the owner.';

CREATE FUNCTION lifecycle.tz_changed() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the time zone of a program cannot be changed in a transaction that is %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'feature_not_supported',
                  DETAIL = 'It would not see all moves that have to be counted by the new days.',
                  HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
    END IF;
    -- a write that began by the old days must not end by them after this
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', NEW.lead_table);
    PERFORM lifecycle.rebuild_flow(NEW.lead_table);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION lifecycle.tz_changed() IS
'AFTER UPDATE trigger of program: another time zone has other days, so the flow is counted anew from the history. Writers of leads wait until the transaction ends. Errors: 0A000 REPEATABLE READ or SERIALIZABLE.';

CREATE TRIGGER changed_tz AFTER UPDATE ON lifecycle.program
    FOR EACH ROW WHEN (OLD.tz IS DISTINCT FROM NEW.tz)
    EXECUTE FUNCTION lifecycle.tz_changed();
