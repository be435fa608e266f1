-- Partitioned tables of leads and of signals: the triggers that PostgreSQL does
-- not clone.

CREATE FUNCTION lifecycle.tables_of(relation regclass) RETURNS TABLE (relation regclass, kind "char", owner oid)
    LANGUAGE sql STABLE ROWS 10
BEGIN ATOMIC
    SELECT c.oid::pg_catalog.regclass, c.relkind, c.relowner
    FROM pg_catalog.pg_class c
    WHERE c.oid = tables_of.relation OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(tables_of.relation) AS t);
END;

COMMENT ON FUNCTION lifecycle.tables_of(regclass) IS
'The table and all that are partitions of it, on every level. kind: as pg_class.relkind; owner: as pg_class.relowner.';

CREATE FUNCTION lifecycle.expected_triggers(of_table regclass, rows_are text)
    RETURNS TABLE (relation regclass, owner oid, name name, definition text)
    LANGUAGE sql STABLE ROWS 10
BEGIN ATOMIC
    SELECT t.relation, t.owner, e.name::name, e.definition
    FROM lifecycle.tables_of(of_table) AS t
    CROSS JOIN (VALUES
        ('lead', 'lifecycle_before_statement', false, 'BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.lead_statement(%L)'),
        ('lead', 'zz_lifecycle_before_row', false, NULL),
        ('lead', 'lifecycle_after_insert', false, NULL),
        ('lead', 'lifecycle_after_update', false, NULL),
        ('lead', 'lifecycle_after_delete', false, NULL),
        ('lead', 'lifecycle_after_statement', false, 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.lead_statement(%L)'),
        ('lead', 'lifecycle_truncate', true, 'BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.lead_truncate(%L)'),
        ('signal', 'lifecycle_signal_before_statement', false, 'BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.signal_statement(%L)'),
        ('signal', 'lifecycle_signal_after_row', false, NULL),
        ('signal', 'lifecycle_signal_after_statement', false, 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.signal_statement(%L)'),
        ('signal', 'lifecycle_signal_truncate', true, 'BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.signal_truncate(%L)'),
        ('signal', 'lifecycle_signal_after_truncate', true, 'AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.signal_truncate(%L)')
    ) AS e (rows_are, name, only_leaves, definition)
    WHERE e.rows_are = expected_triggers.rows_are AND (t.kind <> 'p' OR NOT e.only_leaves);
END;

COMMENT ON FUNCTION lifecycle.expected_triggers(regclass, text) IS
'The triggers of lifecycle that a table of leads (rows_are => ''lead'') or of signals (''signal'') and each of its partitions have. definition: what follows CREATE TRIGGER <name>, a format for the table and the number of the program or the signal table; NULL for the row triggers, which PostgreSQL clones from the table that was tracked. TRUNCATE of a partitioned table fires the triggers of its partitions.';

CREATE FUNCTION lifecycle.add_statement_triggers(relation regclass, rows_are text, id int) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing record;
BEGIN
    FOR missing IN
        SELECT e.* FROM lifecycle.expected_triggers(add_statement_triggers.relation, add_statement_triggers.rows_are) AS e
        WHERE e.definition IS NOT NULL AND pg_has_role(e.owner, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = e.relation AND t.tgname = e.name)
        ORDER BY e.relation, e.name
    LOOP
        EXECUTE format('CREATE TRIGGER %I ' || missing.definition, missing.name, missing.relation, id);
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.add_statement_triggers(regclass, text, int) IS
'Part of lifecycle.track() and lifecycle.track_signal(), which see: the statement and TRUNCATE triggers of the program or signal table with that id, on the table and its partitions, where they are missing and the caller owns the table.';

CREATE FUNCTION lifecycle.put_update_trigger(lead_table regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id int := (SELECT p.id FROM lifecycle.program p WHERE p.lead_table = put_update_trigger.lead_table);
    always boolean := EXISTS (
        SELECT FROM lifecycle.tables_of(put_update_trigger.lead_table) AS r JOIN pg_trigger t ON t.tgrelid = r.relation
        WHERE t.tgname::text COLLATE "C" > 'zz_lifecycle_before_row' AND NOT t.tgisinternal
          AND t.tgtype & (1 | 2 | 16) = (1 | 2 | 16));  -- FOR EACH ROW, BEFORE, UPDATE
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger t
                   WHERE t.tgrelid = put_update_trigger.lead_table AND t.tgname = 'lifecycle_after_update'
                     AND (t.tgqual IS NULL) >= always) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER lifecycle_after_update AFTER UPDATE ON %s FOR EACH ROW %s
                        EXECUTE FUNCTION lifecycle.lead_after_row(%L)', lead_table,
                       CASE WHEN NOT always THEN 'WHEN (OLD.lifecycle_seq IS DISTINCT FROM NEW.lifecycle_seq)' ELSE '' END, id);
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.put_update_trigger(regclass) IS
'Part of lifecycle.track(), which see: the AFTER UPDATE trigger of the tracked table. It looks at leads that moved; but at every lead where a BEFORE trigger of a user fires after ours and could change the status behind it.';

CREATE FUNCTION lifecycle.triggers_changed() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tracked regclass;
BEGIN
    -- not open to this user, who then has no table of ours
    IF NOT has_schema_privilege('lifecycle', 'USAGE') THEN
        RETURN;
    END IF;
    FOR tracked IN
        SELECT DISTINCT p.lead_table
        FROM pg_event_trigger_ddl_commands() AS c
        JOIN pg_trigger t ON c.classid = 'pg_trigger'::regclass AND t.oid = c.objid
        JOIN lifecycle.program p ON p.lead_table = t.tgrelid
             OR p.lead_table IN (SELECT a.relid FROM pg_partition_ancestors(t.tgrelid) AS a)
        WHERE t.tgname::text COLLATE "C" > 'zz_lifecycle_before_row' AND NOT c.in_extension
          -- what is not there yet is made by who restores it
          AND EXISTS (SELECT FROM pg_trigger o WHERE o.tgrelid = p.lead_table AND o.tgname = 'lifecycle_after_update')
    LOOP
        PERFORM lifecycle.put_update_trigger(tracked);
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.triggers_changed() IS
'ddl_command_end event trigger: where a user makes a trigger on a tracked table that fires after ours, calls lifecycle.put_update_trigger().';

CREATE EVENT TRIGGER lifecycle_triggers_changed ON ddl_command_end
    WHEN TAG IN ('CREATE TRIGGER', 'ALTER TRIGGER')
    EXECUTE FUNCTION lifecycle.triggers_changed();

CREATE FUNCTION lifecycle.drop_triggers(relation regclass, rows_are text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ours record;
    dropped boolean := false;
BEGIN
    -- those that were cloned go with their originals
    FOR ours IN
        SELECT t.tgname AS name, t.tgrelid::regclass AS relation
        FROM lifecycle.tables_of(drop_triggers.relation) AS r
        JOIN pg_trigger t ON t.tgrelid = r.relation JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND t.tgparentid = 0
          AND p.pronamespace = 'lifecycle'::regnamespace AND starts_with(p.proname::text, rows_are || '_')
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', ours.name, ours.relation);
        dropped := true;
    END LOOP;
    RETURN dropped;
END
$$;

COMMENT ON FUNCTION lifecycle.drop_triggers(regclass, text) IS
'Part of lifecycle.untrack() and lifecycle.untrack_signal(), which see: drops the triggers of lifecycle that are there because the rows are leads (''lead'') or signals (''signal''), on the table and its partitions; whether there were any. The caller must own each of them.';

CREATE FUNCTION lifecycle.tracked_tables() RETURNS TABLE (relation regclass, rows_are text, id int)
    LANGUAGE sql STABLE ROWS 10
BEGIN ATOMIC
    SELECT p.lead_table, 'lead', p.id FROM lifecycle.program p
    UNION ALL
    SELECT s.signal_table, 'signal', s.id FROM lifecycle.signal s;
END;

COMMENT ON FUNCTION lifecycle.tracked_tables() IS
'The tables of leads (rows_are ''lead'') and of signals (''signal''), and the numbers that their triggers have. A table may be both.';

CREATE FUNCTION lifecycle.follow_partition(relation regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    what text;
    root record;
    foreign_owner oid;
BEGIN
    FOREACH what IN ARRAY '{lead,signal}'::text[] LOOP
        SELECT t.* INTO root
        FROM pg_partition_ancestors(follow_partition.relation) WITH ORDINALITY AS a (relid, distance)
        JOIN lifecycle.tracked_tables() AS t ON t.relation = a.relid
        WHERE t.rows_are = what
        ORDER BY a.distance LIMIT 1;
        IF FOUND THEN
            PERFORM lifecycle.add_statement_triggers(follow_partition.relation, what, root.id);
            IF what = 'lead' AND EXISTS (
                SELECT FROM pg_trigger t WHERE t.tgrelid = root.relation AND t.tgname = 'lifecycle_after_update') THEN
                PERFORM lifecycle.put_update_trigger(root.relation);
            END IF;
            CONTINUE;
        END IF;
        CONTINUE WHEN EXISTS (SELECT FROM lifecycle.tracked_tables() AS t
                              WHERE t.relation = follow_partition.relation AND t.rows_are = what);
        SELECT r.owner INTO foreign_owner
        FROM lifecycle.tables_of(follow_partition.relation) AS r
        JOIN pg_trigger t ON t.tgrelid = r.relation JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND p.pronamespace = 'lifecycle'::regnamespace AND starts_with(p.proname::text, what || '_')
          AND NOT pg_has_role(r.owner, 'USAGE')
        LIMIT 1;
        IF FOUND THEN
            RAISE WARNING 'table "%" keeps triggers of lifecycle, which raise an error when it is written', follow_partition.relation
                USING HINT = format('Let a member of role %s call lifecycle.%s(%L).', foreign_owner::regrole,
                                    CASE what WHEN 'lead' THEN 'untrack' ELSE 'untrack_signal' END, follow_partition.relation);
        ELSE
            PERFORM lifecycle.drop_triggers(follow_partition.relation, what);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.follow_partition(regclass) IS
'Gives a table that became a partition of a table of leads or of signals the triggers that PostgreSQL does not clone, and takes them off one that was detached. Where the caller does not own the table it does nothing, or warns. An event trigger calls it.';

CREATE FUNCTION lifecycle.check_attach(parent regclass, relation regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    what text;
    tracked regclass;
    root regclass;
    other regclass;
BEGIN
    FOREACH what IN ARRAY '{lead,signal}'::text[] LOOP
        SELECT k.relation INTO root
        FROM lifecycle.tracked_tables() AS k
        WHERE k.rows_are = what
          AND (k.relation = check_attach.parent OR k.relation IN (SELECT a.relid FROM pg_partition_ancestors(check_attach.parent) AS a))
        LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        SELECT k.relation INTO tracked
        FROM lifecycle.tables_of(check_attach.relation) AS t JOIN lifecycle.tracked_tables() AS k ON k.relation = t.relation
        WHERE k.rows_are = what LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'table "%" is tracked and cannot become a partition of tracked table "%"', tracked, root
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = CASE what WHEN 'lead' THEN 'A lead has one history.' ELSE 'A row is one signal.' END,
                      HINT = CASE what
                             WHEN 'lead' THEN format('SELECT lifecycle.untrack(%L); its history stays, and its leads enter that of "%s" as they are.', tracked, root)
                             ELSE format('SELECT lifecycle.untrack_signal(%L);', tracked) END;
        END IF;
        SELECT t.relation INTO other
        FROM lifecycle.tables_of(check_attach.relation) AS t JOIN pg_class c ON c.oid = t.relation
        WHERE c.relpersistence = 'u' LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'unlogged table "%" cannot be a partition of tracked table "%"', other, root
                USING ERRCODE = 'wrong_object_type',
                      DETAIL = CASE what WHEN 'lead' THEN 'Its leads would be gone after a crash, and their history would not.'
                                         ELSE 'Its signals would be gone after a crash, and their points would not.' END,
                      HINT = format('ALTER TABLE %s SET LOGGED;', other);
        END IF;
        SELECT t.relation INTO other FROM lifecycle.tables_of(check_attach.relation) AS t WHERE t.kind = 'f' LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'foreign table "%" cannot be a partition of tracked table "%"', other, root
                USING ERRCODE = 'wrong_object_type',
                      DETAIL = 'What others write there would not be seen.';
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.check_attach(regclass, regclass) IS
'Refuses a table (relation) as a partition that is tracked, unlogged or foreign, or has a partition that is, of one (parent) that is tracked or a partition of such. An event trigger calls it. Errors: 55000 tracked, 42809 unlogged or foreign.';

CREATE FUNCTION lifecycle.partitions_changed() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_partitions_changed';

COMMENT ON FUNCTION lifecycle.partitions_changed() IS
'ddl_command_start and ddl_command_end event trigger: checks ATTACH PARTITION and CREATE TABLE ... PARTITION OF with lifecycle.check_attach(), and follows CREATE TABLE ... PARTITION OF, ATTACH PARTITION and DETACH PARTITION with lifecycle.follow_partition().';

CREATE EVENT TRIGGER lifecycle_partitions_changed ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION lifecycle.partitions_changed();
CREATE EVENT TRIGGER lifecycle_partition_comes ON ddl_command_start
    WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION lifecycle.partitions_changed();
