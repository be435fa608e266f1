-- Signals: which tables say what people did and what sales does.

CREATE TABLE lifecycle.signal (
    id           int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    signal_table regclass NOT NULL UNIQUE,
    lead_table   regclass NOT NULL REFERENCES lifecycle.program (lead_table) ON DELETE CASCADE,
    lead         text NOT NULL,
    at           text NOT NULL
);

COMMENT ON TABLE lifecycle.signal IS
'One row for each signal table, made by lifecycle.track_signal(): a table whose rows belong to leads and say what happened.';
COMMENT ON COLUMN lifecycle.signal.id IS 'How the triggers on the signal table name it.';
COMMENT ON COLUMN lifecycle.signal.signal_table IS 'The signal table.';
COMMENT ON COLUMN lifecycle.signal.lead_table IS 'The tracked table of the leads that its rows belong to.';
COMMENT ON COLUMN lifecycle.signal.lead IS 'Expression over its row, a column: the key of the lead. Rows where it is NULL belong to none.';
COMMENT ON COLUMN lifecycle.signal.at IS 'Expression over its row: when it happened, timestamp with time zone. NULL or the future mean when it arrived.';

SELECT pg_catalog.pg_extension_config_dump('lifecycle.signal', '');
SELECT pg_catalog.pg_extension_config_dump('lifecycle.signal_id_seq', '');

ALTER TABLE lifecycle.rule ADD FOREIGN KEY (signal_table) REFERENCES lifecycle.signal (signal_table) ON DELETE CASCADE;

CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON lifecycle.signal
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.configuration_changed();

CREATE FUNCTION lifecycle.signal_statement() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_signal_statement';
CREATE FUNCTION lifecycle.signal_after_row() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_signal_after_row';
CREATE FUNCTION lifecycle.signal_truncate() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_signal_truncate';

COMMENT ON FUNCTION lifecycle.signal_statement() IS
'Trigger on signal tables, before and after each statement: what its rows mean for leads is put into effect together, lead by lead in the order of the key.';
COMMENT ON FUNCTION lifecycle.signal_after_row() IS
'Trigger on signal tables: what a row that came, changed or went means for its lead.';
COMMENT ON FUNCTION lifecycle.signal_truncate() IS
'Trigger on signal tables: TRUNCATE takes away every row.';

CREATE FUNCTION lifecycle.behavior_score_from_signals(lead_table regclass, lead text, at timestamptz) RETURNS double precision
    LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'lifecycle_behavior_score_from_signals';

COMMENT ON FUNCTION lifecycle.behavior_score_from_signals(regclass, text, timestamptz) IS
'Part of lifecycle.behavior_score(), which see: the behaviour score that the rows of the signal tables, as they are now, give a lead for an instant. lead: the key, as text. Needs SELECT on <prefix>_behavior.';

CREATE FUNCTION lifecycle.canonical_lead(signal_table regclass, lead name, key_type regtype) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'lifecycle_canonical_lead';

COMMENT ON FUNCTION lifecycle.canonical_lead(regclass, name, regtype) IS
'Part of lifecycle.track_signal(), which see: the column as an expression of the key''s type, as lifecycle.signal has it. Errors: 42501 not the owner, 42703 no such column, 42804 a type whose values are not all values of the key''s.';

CREATE FUNCTION lifecycle.register_signal(
    signal_table regclass, lead_table regclass, behavior regclass, lead text, at text) RETURNS int
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_register_signal';

COMMENT ON FUNCTION lifecycle.register_signal(regclass, regclass, regclass, text, text) IS
'Part of lifecycle.track_signal(), which see: writes the row of lifecycle.signal and the program''s table of points. The caller must own all three tables.';

CREATE FUNCTION lifecycle.unregister_signal(signal_table regclass) RETURNS boolean
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_unregister_signal';

COMMENT ON FUNCTION lifecycle.unregister_signal(regclass) IS
'Part of lifecycle.untrack_signal(), which see: deletes the row of lifecycle.signal and the rules of the table; false where there is no such row.';

CREATE FUNCTION lifecycle.check_lead_index(signal_table regclass, lead name) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    attribute pg_attribute;
    nearest record;
BEGIN
    SELECT * INTO attribute FROM pg_attribute a
    WHERE a.attrelid = signal_table AND a.attname = lead AND NOT a.attisdropped;
    SELECT i.indexrelid::regclass AS name, NOT i.indisvalid AS invalid,
           i.indpred IS NOT NULL AND pg_get_expr(i.indpred, i.indrelid) <> format('(%I IS NOT NULL)', lead) AS partial
    INTO nearest
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
    WHERE i.indrelid = signal_table AND i.indkey[0] = attribute.attnum
      AND i.indcollation[0] = attribute.attcollation AND m.amname IN ('btree', 'hash')
    ORDER BY partial, invalid, i.indexrelid
    LIMIT 1;
    IF nearest.name IS NULL OR nearest.partial THEN
        RAISE EXCEPTION 'no index of table "%" begins with column "%"', signal_table, lead
            USING ERRCODE = 'invalid_table_definition',
                  DETAIL = CASE WHEN nearest.partial THEN format('Index "%s" does not have every row whose %I is not null.', nearest.name, lead)
                                ELSE 'The signals of a lead are looked up by it.' END,
                  HINT = format('CREATE INDEX %sON %s (%I);',
                                CASE (SELECT c.relkind FROM pg_class c WHERE c.oid = signal_table)
                                WHEN 'p' THEN '' ELSE 'CONCURRENTLY ' END, signal_table, lead);
    ELSIF nearest.invalid THEN
        RAISE EXCEPTION 'index "%" of table "%" is not valid', nearest.name, signal_table
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'The signals of a lead are looked up by it.',
                  HINT = CASE (SELECT c.relkind FROM pg_class c WHERE c.oid = signal_table)
                         WHEN 'p' THEN format('ALTER INDEX %s ATTACH PARTITION ...; for each partition that lacks it.', nearest.name)
                         ELSE format('REINDEX INDEX CONCURRENTLY %s;', nearest.name) END;
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.check_lead_index(regclass, name) IS
'Part of lifecycle.track_signal(), which see: refuses a signal table without an index by which the rows of a lead are found.';

CREATE FUNCTION lifecycle.create_behavior(program lifecycle.program) RETURNS regclass
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leads pg_class;
    behavior text;
    key_type regtype;
BEGIN
    IF program.behavior IS NOT NULL THEN
        RETURN program.behavior;
    END IF;
    SELECT * INTO leads FROM pg_class c WHERE c.oid = program.lead_table;
    SELECT format('%I.%I', n.nspname, program.prefix || '_behavior') INTO behavior
    FROM pg_namespace n WHERE n.oid = leads.relnamespace;
    IF to_regclass(behavior) IS NOT NULL THEN
        SELECT a.atttypid INTO key_type FROM pg_attribute a
        WHERE a.attrelid = program.lead_table AND a.attname = program.key;
        IF NOT lifecycle.can_adopt_behavior(to_regclass(behavior), leads.relowner, key_type) THEN
            RAISE EXCEPTION 'relation "%" already exists', to_regclass(behavior)
                USING ERRCODE = 'duplicate_table',
                      DETAIL = format('It is not a table of points that lifecycle.untrack() of %s left.', program.lead_table),
                      HINT = format('ALTER TABLE %s RENAME TO ...;', to_regclass(behavior));
        END IF;
        RETURN to_regclass(behavior);
    END IF;

    EXECUTE format($q$
        CREATE TABLE %s (
            lead      %s NOT NULL,
            half_life interval NOT NULL,
            points    double precision NOT NULL,
            at        timestamptz NOT NULL,
            heat      double precision,
            since     timestamptz NOT NULL DEFAULT '-infinity',
            PRIMARY KEY (lead, half_life)
        ) WITH (fillfactor = 70)$q$, behavior, lifecycle.key_type(program.lead_table, program.key));
    EXECUTE format('CREATE INDEX ON %s (half_life, heat DESC NULLS LAST)', behavior);
    EXECUTE format('COMMENT ON TABLE %s IS %L', behavior,
                   format('The points that signals gave the leads of %s, kept by lifecycle: a row for each lead and half-life, also for leads that are still to come.', program.lead_table));
    PERFORM lifecycle.comment_columns(behavior, ARRAY[
        ['lead', 'The key of the lead.'],
        ['half_life', 'After what time the points are worth half; 0 for points that do not decay.'],
        ['points', 'What they are worth at the time "at".'],
        ['at', 'When they are worth that much; earlier they were not complete.'],
        ['heat', 'Their place in the order of those of the same half-life, which does not change as time passes: log2(points) + at / half_life, or up to 1 more, so that points that come need not move it each time; up to twice the points where they do not decay; NULL where they are not greater than zero.'],
        ['since', 'Signals that are dated at or before that do not count: when the lead last began anew.']]);
    PERFORM lifecycle.keep_private(behavior::regclass, leads.relowner);
    RETURN behavior::regclass;
END
$$;

COMMENT ON FUNCTION lifecycle.create_behavior(lifecycle.program) IS
'Part of lifecycle.track_signal(), which see: the program''s table of points, which is created where it is not there.';

CREATE FUNCTION lifecycle.put_signal_time(signal_table regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    attribute pg_attribute;
BEGIN
    SELECT * INTO attribute FROM pg_attribute a
    WHERE a.attrelid = signal_table AND a.attname = 'lifecycle_at' AND NOT a.attisdropped;
    IF NOT FOUND THEN
        EXECUTE format('ALTER TABLE %s ADD COLUMN lifecycle_at timestamptz DEFAULT pg_catalog.now()', signal_table);
        EXECUTE format('COMMENT ON COLUMN %s.lifecycle_at IS %L', signal_table,
                       'When the signal arrived. Added by lifecycle.track_signal().');
    ELSIF NOT attribute.atthasdef THEN
        EXECUTE format('ALTER TABLE %s ALTER COLUMN lifecycle_at SET DEFAULT pg_catalog.now()', signal_table);
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.put_signal_time(regclass) IS
'Part of lifecycle.track_signal(), which see: adds the column lifecycle_at, or takes it up again.';

CREATE FUNCTION lifecycle.begin_signals(
    signal_table regclass, lead_table regclass, lead name, at text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    signals pg_class;
    leads pg_class;
    program lifecycle.program;
    signal lifecycle.signal;
    behavior regclass;
    root regclass;
    key_type regtype;
    lead_expression text;
    differences text;
    type_of_at oid;
    id int;
BEGIN
    IF signal_table IS NULL OR lead_table IS NULL OR lead IS NULL THEN
        RAISE EXCEPTION 'signal_table, lead_table and lead must not be null'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT * INTO signals FROM pg_class c WHERE c.oid = signal_table;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'relation with OID % does not exist', signal_table::oid USING ERRCODE = 'undefined_table';
    END IF;
    SELECT * INTO leads FROM pg_class c WHERE c.oid = lead_table;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'relation with OID % does not exist', lead_table::oid USING ERRCODE = 'undefined_table';
    END IF;
    PERFORM lifecycle.require_owner(t.relation, 'lifecycle.track_signal()')
    FROM unnest(ARRAY[signal_table, lead_table]) WITH ORDINALITY AS t (relation, place) ORDER BY t.place;
    IF leads.relispartition THEN
        SELECT p.lead_table INTO root FROM lifecycle.program p
        WHERE p.lead_table IN (SELECT a.relid FROM pg_partition_ancestors(lead_table) AS a);
        IF FOUND THEN
            RAISE EXCEPTION 'table "%" is a partition', lead_table
                USING ERRCODE = 'wrong_object_type',
                      HINT = format('Signals belong to leads of the tracked table: %s.', root);
        END IF;
    END IF;
    program := lifecycle.program_of(lead_table);
    -- one call after the other for each program
    SELECT * INTO program FROM lifecycle.program p WHERE p.lead_table = lead_table FOR NO KEY UPDATE;
    IF signal_table = lead_table THEN
        RAISE EXCEPTION 'table "%" cannot have signals for its own leads', signal_table
            USING ERRCODE = 'wrong_object_type',
                  HINT = 'What the row of a lead says is for rules on the lead table.';
    END IF;
    PERFORM lifecycle.check_table(signal_table, 'signal');
    SELECT a.atttypid INTO key_type FROM pg_attribute a WHERE a.attrelid = lead_table AND a.attname = program.key;
    lead_expression := lifecycle.canonical_lead(signal_table, lead, key_type);

    SELECT * INTO signal FROM lifecycle.signal s WHERE s.signal_table = signal_table;
    IF FOUND THEN
        SELECT string_agg(format('%s is %s, not %s', d.name, d.has, d.wanted), '; ')
        INTO differences
        FROM (VALUES ('lead_table', signal.lead_table::text, lead_table::text),
                     ('lead', signal.lead, lead_expression),
                     ('at', signal.at, coalesce(at, 'lifecycle_at'))) AS d (name, has, wanted)
        WHERE d.has <> d.wanted;
        IF differences IS NOT NULL THEN
            RAISE EXCEPTION 'table "%" is tracked for signals already, in another way', signal_table
                USING ERRCODE = 'duplicate_object',
                      DETAIL = differences || '.',
                      HINT = format('SELECT lifecycle.untrack_signal(%L), which deletes its rules, and call lifecycle.track_signal() again.', signal_table);
        END IF;
        RETURN;
    END IF;

    PERFORM lifecycle.check_lead_index(signal_table, lead);
    IF at IS NULL THEN
        SELECT a.atttypid INTO type_of_at FROM pg_attribute a
        WHERE a.attrelid = signal_table AND a.attname = 'lifecycle_at' AND NOT a.attisdropped;
        IF type_of_at <> 'timestamptz'::regtype THEN
            RAISE EXCEPTION 'column "lifecycle_at" of table "%" is of type %', signal_table, format_type(type_of_at, NULL)
                USING ERRCODE = 'duplicate_column',
                      DETAIL = 'Lifecycle keeps the time of each signal in a column of that name.',
                      HINT = 'Rename the column, or say when each signal happened: at => ''...''.';
        END IF;
    END IF;
    behavior := lifecycle.create_behavior(program);
    id := lifecycle.register_signal(signal_table, lead_table, behavior, lead_expression, coalesce(at, 'lifecycle_at'));
    IF program.behavior IS NULL THEN
        -- the view shows the scores now, to whoever may read it
        PERFORM lifecycle.copy_grants(lead_table, behavior);
        program := lifecycle.program_of(lead_table);
        PERFORM lifecycle.put_overview(program, program.overview::text) WHERE program.overview IS NOT NULL;
    END IF;

    -- From here on the signal table is locked.
    IF at IS NULL THEN
        PERFORM lifecycle.put_signal_time(signal_table);
    END IF;
    PERFORM lifecycle.add_statement_triggers(signal_table, 'signal', id);
    EXECUTE format('CREATE TRIGGER lifecycle_signal_after_row AFTER INSERT OR UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION lifecycle.signal_after_row(%L)', signal_table, id);
    -- a column may have gone, or got another name, before we had the lock
    PERFORM lifecycle.canonical_lead(signal_table, lead, key_type), lifecycle.canonical(signal_table, 'at', at);
END
$$;

COMMENT ON FUNCTION lifecycle.begin_signals(regclass, regclass, name, text) IS
'Part of lifecycle.track_signal(), which see: the same, with a canonical expression.';

CREATE FUNCTION lifecycle.track_signal(
    signal_table regclass, lead_table regclass, lead name, at text DEFAULT NULL) RETURNS void
    LANGUAGE sql
BEGIN ATOMIC
    SELECT lifecycle.begin_signals(signal_table, lead_table, lead, lifecycle.canonical(signal_table, 'at', at));
END;

COMMENT ON FUNCTION lifecycle.track_signal(regclass, regclass, name, text) IS
'Makes the rows of a table signals: what people did and what sales does. From then on rules on the table give the leads that its rows belong to points and statuses, and every INSERT, UPDATE, DELETE, COPY, MERGE and TRUNCATE of it is put into effect. Existing rows have none until they are written or CALL lifecycle.rescore().
signal_table: a plain or a partitioned table, not a partition; it may be a table of leads as well, of another program than this.
lead_table: a table that lifecycle.track() tracks. The caller must own both.
lead: the column with the key of the lead, of the key''s type or one that converts to it without loss (smaller integers; text and character varying). NULL: the row belongs to no lead. A valid index (btree or hash) must begin with it, one of all rows or of those WHERE it IS NOT NULL.
at: when it happened, a timestamptz expression over the row, without subqueries, volatile functions and the present time. By default a column lifecycle_at is added, which has the time at which the row arrives, for rows that are there the present one.
Called again with the same arguments it does nothing. The points are kept in <prefix>_behavior, which the first call for a lead table makes, or takes up again where lifecycle.untrack() left it. It takes SHARE ROW EXCLUSIVE on the table last, ACCESS EXCLUSIVE where it adds the column, for an instant, and honours lock_timeout. Errors: 42501 not the owner of both, 42P01 no such table, 55000 the lead table is not tracked, or an index or a partition is not fit, 42809 not a plain or partitioned table, 42703 no such column, 42804 wrong type, 42P16 no index, 42P07 and 42701 a name is taken, 42710 tracked in another way; and what is wrong with the expression, with its position.';

CREATE FUNCTION lifecycle.untrack_signal(signal_table regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF signal_table IS NULL THEN
        RAISE EXCEPTION 'signal_table must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = signal_table) THEN
        RAISE EXCEPTION 'relation with OID % does not exist', signal_table::oid USING ERRCODE = 'undefined_table';
    END IF;
    PERFORM lifecycle.require_owner(signal_table, 'lifecycle.untrack_signal()');
    -- also the triggers of a signal table whose row is gone
    IF NOT lifecycle.drop_triggers(signal_table, 'signal')
       AND NOT EXISTS (SELECT FROM lifecycle.signal s WHERE s.signal_table = untrack_signal.signal_table) THEN
        RAISE EXCEPTION 'table "%" is not tracked for signals', signal_table
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'The signal tables are the rows of lifecycle.signal.';
    END IF;
    PERFORM lifecycle.unregister_signal(signal_table);
END
$$;

COMMENT ON FUNCTION lifecycle.untrack_signal(regclass) IS
'Makes a signal table an ordinary one again: triggers, registration and rules go. A column lifecycle_at stays; so do the points that its rows gave, until CALL lifecycle.rescore(). Rules stay where the rows are leads as well. The caller must own the table. Errors: 42501 not the owner, 42P01 no such table, 55000 not tracked for signals.';
