-- Partitioned lead tables: the triggers that PostgreSQL does not clone.

CREATE FUNCTION lifecycle.tables_of(relation regclass) RETURNS TABLE (relation regclass, kind "char", owner oid)
    LANGUAGE sql STABLE ROWS 10
BEGIN ATOMIC
    SELECT c.oid::pg_catalog.regclass, c.relkind, c.relowner
    FROM pg_catalog.pg_class c
    WHERE c.oid = tables_of.relation OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(tables_of.relation) AS t);
END;

COMMENT ON FUNCTION lifecycle.tables_of(regclass) IS
'The table and all that are partitions of it, on every level. kind: as pg_class.relkind; owner: as pg_class.relowner.';

CREATE FUNCTION lifecycle.expected_triggers(lead_table regclass)
    RETURNS TABLE (relation regclass, owner oid, name name, definition text)
    LANGUAGE sql STABLE ROWS 10
BEGIN ATOMIC
    SELECT t.relation, t.owner, e.name::name, e.definition
    FROM lifecycle.tables_of(lead_table) AS t
    CROSS JOIN (VALUES
        ('lifecycle_before_statement', false, 'BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.lead_statement(%L)'),
        ('zz_lifecycle_before_row', false, NULL),
        ('lifecycle_after_insert', false, NULL),
        ('lifecycle_after_update', false, NULL),
        ('lifecycle_after_delete', false, NULL),
        ('lifecycle_after_statement', false, 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.lead_statement(%L)'),
        ('lifecycle_truncate', true, 'BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.lead_truncate(%L)')
    ) AS e (name, only_leaves, definition)
    WHERE t.kind <> 'p' OR NOT e.only_leaves;
END;

COMMENT ON FUNCTION lifecycle.expected_triggers(regclass) IS
'The triggers of lifecycle that a tracked table and each of its partitions have. definition: what follows CREATE TRIGGER <name>, a format for the table and the number of the program; NULL for the row triggers, which PostgreSQL clones from the tracked table. TRUNCATE of a partitioned table fires the triggers of its partitions.';

CREATE FUNCTION lifecycle.add_statement_triggers(relation regclass, id int) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing record;
BEGIN
    FOR missing IN
        SELECT e.* FROM lifecycle.expected_triggers(add_statement_triggers.relation) AS e
        WHERE e.definition IS NOT NULL AND pg_has_role(e.owner, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = e.relation AND t.tgname = e.name)
        ORDER BY e.relation, e.name
    LOOP
        EXECUTE format('CREATE TRIGGER %I ' || missing.definition, missing.name, missing.relation, id);
    END LOOP;
END
$$;

COMMENT ON FUNCTION lifecycle.add_statement_triggers(regclass, int) IS
'Part of lifecycle.track(), which see: the statement and TRUNCATE triggers of the program with that id, on the table and its partitions, where they are missing and the caller owns the table.';

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

CREATE FUNCTION lifecycle.drop_triggers(relation regclass) RETURNS boolean
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
          AND p.pronamespace = 'lifecycle'::regnamespace AND p.proname LIKE 'lead\_%'
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', ours.name, ours.relation);
        dropped := true;
    END LOOP;
    RETURN dropped;
END
$$;

COMMENT ON FUNCTION lifecycle.drop_triggers(regclass) IS
'Part of lifecycle.untrack(), which see: drops the triggers of lifecycle on the table and its partitions; whether there were any. The caller must own each of them.';

CREATE FUNCTION lifecycle.follow_partition(relation regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    program_id int;
    foreign_owner oid;
BEGIN
    SELECT p.id INTO program_id
    FROM pg_partition_ancestors(follow_partition.relation) WITH ORDINALITY AS a (relid, distance)
    JOIN lifecycle.program p ON p.lead_table = a.relid
    ORDER BY a.distance LIMIT 1;
    IF FOUND THEN
        PERFORM lifecycle.add_statement_triggers(follow_partition.relation, program_id);
        PERFORM lifecycle.put_update_trigger(p.lead_table) FROM lifecycle.program p
        WHERE p.id = program_id AND EXISTS (
            SELECT FROM pg_trigger t WHERE t.tgrelid = p.lead_table AND t.tgname = 'lifecycle_after_update');
    ELSIF NOT EXISTS (SELECT FROM lifecycle.program p WHERE p.lead_table = follow_partition.relation) THEN
        SELECT r.owner INTO foreign_owner
        FROM lifecycle.tables_of(follow_partition.relation) AS r
        JOIN pg_trigger t ON t.tgrelid = r.relation
        WHERE t.tgfoid IN ('lifecycle.lead_statement'::regproc, 'lifecycle.lead_truncate'::regproc)
          AND NOT pg_has_role(r.owner, 'USAGE')
        LIMIT 1;
        IF FOUND THEN
            RAISE WARNING 'table "%" keeps triggers of lifecycle, which raise an error when it is written', follow_partition.relation
                USING HINT = format('Let a member of role %s call lifecycle.untrack(%L).', foreign_owner::regrole, follow_partition.relation);
        ELSE
            PERFORM lifecycle.drop_triggers(follow_partition.relation);
        END IF;
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.follow_partition(regclass) IS
'Gives a table that became a partition of a tracked one the triggers that PostgreSQL does not clone, and takes them off one that was detached. Where the caller does not own the table it does nothing, or warns. An event trigger calls it.';

CREATE FUNCTION lifecycle.check_attach(parent regclass, relation regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tracked regclass;
    root regclass;
    unlogged regclass;
BEGIN
    SELECT p.lead_table INTO tracked
    FROM lifecycle.tables_of(check_attach.relation) AS t JOIN lifecycle.program p ON p.lead_table = t.relation LIMIT 1;
    SELECT p.lead_table INTO root
    FROM lifecycle.program p
    WHERE p.lead_table = check_attach.parent OR p.lead_table IN (SELECT a.relid FROM pg_partition_ancestors(check_attach.parent) AS a) LIMIT 1;
    IF tracked IS NOT NULL AND root IS NOT NULL THEN
        RAISE EXCEPTION 'table "%" is tracked and cannot become a partition of tracked table "%"', tracked, root
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'A lead has one history.',
                  HINT = format('SELECT lifecycle.untrack(%L); its history stays, and its leads enter that of "%s" as they are.', tracked, root);
    END IF;
    IF root IS NOT NULL THEN
        SELECT t.relation INTO unlogged
        FROM lifecycle.tables_of(check_attach.relation) AS t JOIN pg_class c ON c.oid = t.relation
        WHERE c.relpersistence = 'u' LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'unlogged table "%" cannot be a partition of tracked table "%"', unlogged, root
                USING ERRCODE = 'wrong_object_type',
                      DETAIL = 'Its leads would be gone after a crash, and their history would not.',
                      HINT = format('ALTER TABLE %s SET LOGGED;', unlogged);
        END IF;
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.check_attach(regclass, regclass) IS
'Refuses a table (relation) as a partition that is tracked or unlogged, or has a partition that is, of one (parent) that is tracked or a partition of such. An event trigger calls it. Errors: 55000 tracked, 42809 unlogged.';

CREATE FUNCTION lifecycle.partitions_changed() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_partitions_changed';

COMMENT ON FUNCTION lifecycle.partitions_changed() IS
'ddl_command_start and ddl_command_end event trigger: checks ATTACH PARTITION and CREATE TABLE ... PARTITION OF with lifecycle.check_attach(), and follows CREATE TABLE ... PARTITION OF, ATTACH PARTITION and DETACH PARTITION with lifecycle.follow_partition().';

CREATE EVENT TRIGGER lifecycle_partitions_changed ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION lifecycle.partitions_changed();
CREATE EVENT TRIGGER lifecycle_partition_comes ON ddl_command_start
    WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION lifecycle.partitions_changed();
