-- The history of a lead table: who may write it, and what "reached" means.

CREATE FUNCTION lifecycle.guard_history() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_guard_history';

COMMENT ON FUNCTION lifecycle.guard_history() IS
'Trigger on histories: refuses INSERT, UPDATE, DELETE and TRUNCATE to everybody, with 42501. The owner can drop it or disable it by DDL.';

CREATE FUNCTION lifecycle.reached_in_cycle(reached text[]) RETURNS text[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'lifecycle_reached_in_cycle';

COMMENT ON FUNCTION lifecycle.reached_in_cycle(text[]) IS
'The statuses that a lead reached in its present cycle, by first visit: the part of the history''s column "reached" before the NULL. All statuses that it ever reached are the elements of the column, so that ''mql'' = ANY (reached) asks whether the lead was ever MQL.';

CREATE FUNCTION lifecycle.reached_add(reached text[], status text, new_cycle boolean) RETURNS text[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'lifecycle_reached_add';

COMMENT ON FUNCTION lifecycle.reached_add(text[], text, boolean) IS
'The history''s column "reached" after a visit to the status began, in the same or in a new cycle.';
