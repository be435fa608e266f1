-- The schema, and the statuses of the shipped models as a type.

CREATE SCHEMA lifecycle;

COMMENT ON SCHEMA lifecycle IS
'Lead lifecycle processing: models, programs, legal moves, history and reports. Begin with lifecycle.track().';

CREATE TYPE lifecycle.lifecycle_status AS ENUM (
    'known', 'mal', 'engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer',
    'recycled', 'disqualified', 'lost'
);

COMMENT ON TYPE lifecycle.lifecycle_status IS
'The statuses of the shipped models. Do not add values to it: pg_dump does not carry them. For statuses of your own make a model, and use an enum of your own, text or character varying as the status column.';
