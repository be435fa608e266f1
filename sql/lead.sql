-- The triggers that lifecycle.track() puts on a lead table.

CREATE FUNCTION lifecycle.lead_statement() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_lead_statement';
CREATE FUNCTION lifecycle.lead_before_row() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_lead_before_row';
CREATE FUNCTION lifecycle.lead_after_row() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_lead_after_row';
CREATE FUNCTION lifecycle.lead_truncate() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_lead_truncate';

COMMENT ON FUNCTION lifecycle.lead_statement() IS
'Trigger on lead tables, before and after each statement: the statement''s moves are written to the history together.';
COMMENT ON FUNCTION lifecycle.lead_before_row() IS
'Trigger on lead tables: judges what an INSERT or UPDATE makes of a lead''s status, and keeps the derived columns. Errors: 23514 illegal move or status, 23502 a reason or the status is missing, 22023 lifecycle.at is out of bounds, 0A000 the key is changed.';
COMMENT ON FUNCTION lifecycle.lead_after_row() IS
'Trigger on lead tables: records the entry, move or removal in the history.';
COMMENT ON FUNCTION lifecycle.lead_truncate() IS
'Trigger on lead tables: TRUNCATE removes every lead, and each removal is recorded.';

CREATE FUNCTION lifecycle.cohort(lead text, cohorts int, salt text DEFAULT '') RETURNS int
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'lifecycle_cohort';

COMMENT ON FUNCTION lifecycle.cohort(text, int, text) IS
'The test group, 0 to cohorts - 1, of a lead: the first 8 bytes of sha256(salt, U+001F, lead), big-endian and unsigned, modulo cohorts. The same lead always falls into the same group; another salt makes another, independent split. Errors: 22023 fewer than one cohort.';
