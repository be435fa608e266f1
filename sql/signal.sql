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
