-- Programs: which tables are tracked, and how.

CREATE TABLE lifecycle.program (
    id            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lead_table    regclass NOT NULL UNIQUE,
    model         text NOT NULL REFERENCES lifecycle.model (name) ON UPDATE CASCADE,
    key           name NOT NULL,
    status_column name NOT NULL,
    prefix        name NOT NULL,
    history       regclass NOT NULL,
    refused       regclass NOT NULL,
    status_added  boolean NOT NULL,
    entered       text,
    source        text,
    value         text,
    actor         text,
    reason        text,
    cohort        text,
    on_illegal    text NOT NULL CHECK (on_illegal IN ('error', 'keep')),
    tz            text NOT NULL CHECK (timestamptz '2000-01-01 00:00+00' AT TIME ZONE tz IS NOT NULL),
    behavior      regclass,
    flow          regclass NOT NULL,
    flow_pending  regclass NOT NULL,
    overview      regclass,
    funnel        regclass,
    funnel_monthly regclass
);

COMMENT ON TABLE lifecycle.program IS
'One row for each tracked table, made by lifecycle.track(). The owner of the table may UPDATE model, the expressions, on_illegal and tz; every backend obeys from its next statement on.';
COMMENT ON COLUMN lifecycle.program.id IS 'How the triggers on the lead table name their program.';
COMMENT ON COLUMN lifecycle.program.lead_table IS 'The tracked table.';
COMMENT ON COLUMN lifecycle.program.model IS 'The model that its leads follow.';
COMMENT ON COLUMN lifecycle.program.key IS 'Its key column.';
COMMENT ON COLUMN lifecycle.program.status_column IS 'Its status column.';
COMMENT ON COLUMN lifecycle.program.prefix IS 'What the names of its history and other tables begin with.';
COMMENT ON COLUMN lifecycle.program.history IS 'Its history: one row for each move.';
COMMENT ON COLUMN lifecycle.program.refused IS 'The moves that on_illegal = ''keep'' did not let through.';
COMMENT ON COLUMN lifecycle.program.status_added IS 'Whether lifecycle.track() added the status column.';
COMMENT ON COLUMN lifecycle.program.entered IS 'Expression over the lead''s row: when the lead entered, timestamp with time zone.';
COMMENT ON COLUMN lifecycle.program.source IS 'Expression over the lead''s row: where the lead comes from, text.';
COMMENT ON COLUMN lifecycle.program.value IS 'Expression over the lead''s row: what the lead is worth, numeric.';
COMMENT ON COLUMN lifecycle.program.actor IS 'Expression over the lead''s row: who made the move, text. NULL: lifecycle.actor says.';
COMMENT ON COLUMN lifecycle.program.reason IS 'Expression over the lead''s row: why the move was made, text. NULL: lifecycle.reason says.';
COMMENT ON COLUMN lifecycle.program.cohort IS 'Expression over the lead''s row: its test group, integer.';
COMMENT ON COLUMN lifecycle.program.on_illegal IS 'What becomes of a write that makes an illegal move: error, or keep the status and note the move.';
COMMENT ON COLUMN lifecycle.program.tz IS 'The time zone whose days the reports use.';
COMMENT ON COLUMN lifecycle.program.behavior IS 'The points that signals gave its leads; NULL until lifecycle.track_signal() is called for the first time.';
COMMENT ON COLUMN lifecycle.program.flow IS 'What reports sum: an aggregate of the history.';
COMMENT ON COLUMN lifecycle.program.flow_pending IS 'What statements counted since it was merged into the flow.';
COMMENT ON COLUMN lifecycle.program.overview IS 'The view <prefix>_lifecycle: where each lead is.';
COMMENT ON COLUMN lifecycle.program.funnel IS 'The materialized view <prefix>_funnel.';
COMMENT ON COLUMN lifecycle.program.funnel_monthly IS 'The materialized view <prefix>_funnel_monthly.';

SELECT pg_catalog.pg_extension_config_dump('lifecycle.program', '');
SELECT pg_catalog.pg_extension_config_dump('lifecycle.program_id_seq', '');

CREATE FUNCTION lifecycle.program_changes() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_program_changes';

COMMENT ON FUNCTION lifecycle.program_changes() IS
'BEFORE UPDATE trigger of program: only the table''s owner, only what may change, expressions checked as by lifecycle.track(); has every backend read the program again.';

CREATE TRIGGER checked BEFORE UPDATE ON lifecycle.program
    FOR EACH ROW EXECUTE FUNCTION lifecycle.program_changes();
CREATE TRIGGER changed AFTER INSERT OR DELETE ON lifecycle.program
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.configuration_changed();

CREATE FUNCTION lifecycle.register_program(
    lead_table regclass, model text, key name, status_column name, prefix name, history regclass, refused regclass,
    status_added boolean, entered text, source text, value text, actor text, reason text, cohort text,
    on_illegal text, tz text, flow regclass, flow_pending regclass) RETURNS int
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_register_program';

COMMENT ON FUNCTION lifecycle.register_program(regclass, text, name, name, name, regclass, regclass, boolean, text, text, text, text, text, text, text, text, regclass, regclass) IS
'Part of lifecycle.track(), which see: writes the row of lifecycle.program. The caller must own all the tables.';

CREATE FUNCTION lifecycle.unregister_program(lead_table regclass) RETURNS boolean
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'lifecycle_unregister_program';

COMMENT ON FUNCTION lifecycle.unregister_program(regclass) IS
'Part of lifecycle.untrack(), which see: deletes the row of lifecycle.program and the rules of the table; false where there is none.';

CREATE FUNCTION lifecycle.canonical(lead_table regclass, what text, expression text) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'lifecycle_canonical';

COMMENT ON FUNCTION lifecycle.canonical(regclass, text, text) IS
'The fully qualified text of an expression (entered, source, value, actor, reason or cohort; at, for a signal table) over a row of the table, as lifecycle.track() and lifecycle.track_signal() store it, or the error that it would give. Names are resolved under the search path of the caller, who must own the table.';

CREATE FUNCTION lifecycle.tables_dropped() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_tables_dropped';

COMMENT ON FUNCTION lifecycle.tables_dropped() IS
'sql_drop event trigger: a dropped lead table takes its program along, a dropped signal table what track_signal() noted, and both their rules. Errors: 2BP01 the history, refused moves or behaviour of a tracked table would be dropped, or a lead table and not its signal tables.';

CREATE EVENT TRIGGER lifecycle_tables_dropped ON sql_drop
    EXECUTE FUNCTION lifecycle.tables_dropped();

CREATE FUNCTION lifecycle.program_of(lead_table regclass) RETURNS lifecycle.program
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    program lifecycle.program;
BEGIN
    SELECT * INTO program FROM lifecycle.program p WHERE p.lead_table = program_of.lead_table;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table "%" is not tracked', coalesce(program_of.lead_table::text, '(null)')
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = CASE WHEN program_of.lead_table IS NULL THEN 'Name the lead table.'
                              ELSE format('SELECT lifecycle.track(%L);', program_of.lead_table) END;
    END IF;
    RETURN program;
END
$$;

COMMENT ON FUNCTION lifecycle.program_of(regclass) IS
'The program of a tracked table. Errors: 55000 the table is not tracked.';

CREATE FUNCTION lifecycle.require_status(program lifecycle.program, status text, past boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known boolean := EXISTS (SELECT FROM lifecycle.stage s WHERE s.model = program.model AND s.status = require_status.status);
BEGIN
    -- moves keep the names of their time: of stages that were renamed or taken out since
    IF NOT known AND past AND status IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s h WHERE h.to_status = $1)', program.history) INTO known USING status;
    END IF;
    IF NOT known THEN
        RAISE EXCEPTION '"%" is not a status of model "%"', coalesce(status, 'null'), program.model
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = (SELECT format('The statuses are: %s.', string_agg(s.status, ', ' ORDER BY s.rank, s.status COLLATE "C"))
                          FROM lifecycle.stage s WHERE s.model = program.model);
    END IF;
END
$$;

COMMENT ON FUNCTION lifecycle.require_status(lifecycle.program, text, boolean) IS
'Refuses what is no status of the program''s model, nor, with past, one that its leads were ever in. Errors: 22023, with the statuses in HINT.';

CREATE FUNCTION lifecycle.next_statuses(lead_table regclass, from_status text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    program lifecycle.program := lifecycle.program_of(lead_table);
BEGIN
    IF from_status IS NOT NULL THEN
        PERFORM lifecycle.require_status(program, from_status);
    END IF;
    RETURN QUERY
    SELECT s.status
    FROM lifecycle.stage s
    WHERE s.model = program.model
      AND (from_status IS NULL OR EXISTS (
           SELECT FROM lifecycle.transition t
           WHERE t.model = s.model AND t.from_status = next_statuses.from_status AND t.to_status = s.status))
    ORDER BY s.rank, s.status COLLATE "C";
END
$$;

COMMENT ON FUNCTION lifecycle.next_statuses(regclass, text) IS
'The statuses that a lead of the table may move to from the given one: path by rank, then detours by name. From NULL: where it may enter, which is any. Errors: 22023 the model lacks the status, 55000 the table is not tracked.';
