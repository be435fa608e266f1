-- Who may do what with our objects. Functions check what they need
-- themselves; a writer of leads needs nothing here.

GRANT USAGE ON SCHEMA lifecycle TO PUBLIC;
GRANT SELECT ON lifecycle.model, lifecycle.stage, lifecycle.transition, lifecycle.program, lifecycle.signal TO PUBLIC;
-- for the pg_dump of somebody who is not a superuser
GRANT SELECT ON SEQUENCE lifecycle.program_id_seq, lifecycle.signal_id_seq TO PUBLIC;

-- A trigger lets each program be changed by the owner of its table only.
GRANT UPDATE (model, entered, source, value, actor, reason, cohort, on_illegal, tz) ON lifecycle.program TO PUBLIC;

-- A trigger lets the rules of each table be written by its owner only.
GRANT SELECT, INSERT, UPDATE, DELETE ON lifecycle.rule TO PUBLIC;
