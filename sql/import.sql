-- import_history(): the moves that somebody else kept become history.

CREATE FUNCTION lifecycle.import_history(lead_table regclass, query text)
    RETURNS TABLE (lead text, status text, at timestamptz, problem text, imported boolean)
    LANGUAGE c VOLATILE ROWS 100
    AS 'MODULE_PATHNAME', 'lifecycle_import_history';

COMMENT ON FUNCTION lifecycle.import_history(regclass, text) IS
'Writes dated moves from elsewhere into the history of a tracked table, with cause import, and lets the leads'' status follow. All or nothing: it is part of the transaction that calls it.
lead_table: a tracked table, of which the caller is owner.
query: one SELECT with columns lead (the key, of its type, coercible to it or as text), status, at (timestamp with time zone), and optionally actor and reason; without them they are NULL: neither the program''s expressions nor the settings apply. Other columns are ignored. Rows may come in any order; each lead''s are taken by at, those of one time as they came.
Result, in no particular order: lead, status, at as the query gave them, problem, and imported: false, the row was refused (no such lead, no such status, no time, a time in the future or before the lead''s last move in the history, or the lead has that status already); true, a warning: the model would not allow the move. Rows that are not in the result were imported. Legality and reasons are not asked.
A lead without a status enters with its first row. A lead that is older than lifecycle.track() gets its history; its row keeps its status, and where that is not the last imported one it stays out until backfill or its next move. All leads of the query are locked until the transaction ends, in the order of their keys.
Errors: 55000 not tracked, 42501 not the owner, 22004 an argument is NULL, 42601 not one SELECT, 42703 a column is missing, 42702 it is there twice, 42804 at is no timestamp with time zone, 27000 a trigger changed what was imported; and those of the query.';
