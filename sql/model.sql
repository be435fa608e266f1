-- Models: which statuses there are and which moves between them are legal.

CREATE TABLE lifecycle.model (
    name        text PRIMARY KEY CHECK (name <> '' AND octet_length(name) <= 63),
    description text
);

CREATE TABLE lifecycle.stage (
    model           text NOT NULL REFERENCES lifecycle.model (name) ON UPDATE CASCADE ON DELETE CASCADE,
    status          text NOT NULL CHECK (status <> '' AND octet_length(status) <= 63 AND position(chr(9) IN status) = 0),
    rank            int CHECK (rank >= 1),
    label           text,
    marketing       text NOT NULL DEFAULT 'nurture' CHECK (marketing IN ('nurture', 'paused', 'suspended')),
    resets_behavior boolean NOT NULL DEFAULT false,
    reason_required boolean NOT NULL DEFAULT false,
    sla             interval CHECK (sla > interval '0'),
    sla_status      text,
    PRIMARY KEY (model, status),
    UNIQUE (model, rank)
);

CREATE TABLE lifecycle.transition (
    model       text NOT NULL,
    from_status text NOT NULL,
    to_status   text NOT NULL CHECK (to_status <> from_status),
    PRIMARY KEY (model, from_status, to_status),
    FOREIGN KEY (model, from_status) REFERENCES lifecycle.stage (model, status) ON UPDATE CASCADE ON DELETE CASCADE,
    FOREIGN KEY (model, to_status) REFERENCES lifecycle.stage (model, status) ON UPDATE CASCADE ON DELETE CASCADE
);

COMMENT ON TABLE lifecycle.model IS
'The models. "standard", "marketo" and "etumos" are shipped and read-only; copy_model() makes one of your own, or INSERT one.';
COMMENT ON COLUMN lifecycle.model.name IS 'How lifecycle.track() names the model.';
COMMENT ON COLUMN lifecycle.model.description IS 'What the model is for.';
COMMENT ON TABLE lifecycle.stage IS
'The stages of each model, at most 64: statuses on the path, which have a rank, and detours, which have none.';
COMMENT ON COLUMN lifecycle.stage.model IS 'The model.';
COMMENT ON COLUMN lifecycle.stage.status IS 'The status, as the status column of a lead table holds it: at most 63 bytes, no tab.';
COMMENT ON COLUMN lifecycle.stage.rank IS 'The place on the path, ascending; a lead without a status enters on the lowest. NULL: a detour.';
COMMENT ON COLUMN lifecycle.stage.label IS 'What people call the stage.';
COMMENT ON COLUMN lifecycle.stage.marketing IS 'What marketing may do to a lead in this stage: nurture, paused or suspended.';
COMMENT ON COLUMN lifecycle.stage.resets_behavior IS 'Whether the behaviour score starts again when a lead leaves the path into this stage.';
COMMENT ON COLUMN lifecycle.stage.reason_required IS 'Whether a write that moves a lead into this stage must give a reason (23502 otherwise); a rule that does needs none.';
COMMENT ON COLUMN lifecycle.stage.sla IS 'How long a lead may stay. Kept for later work.';
COMMENT ON COLUMN lifecycle.stage.sla_status IS 'Where a lead goes that stayed longer. Kept for later work.';
COMMENT ON TABLE lifecycle.transition IS
'The legal moves of each model. What is not here is refused; skips are written out; staying is no move; entry may be to any status.';
COMMENT ON COLUMN lifecycle.transition.model IS 'The model.';
COMMENT ON COLUMN lifecycle.transition.from_status IS 'The status that is left.';
COMMENT ON COLUMN lifecycle.transition.to_status IS 'The status that is entered.';

INSERT INTO lifecycle.model VALUES
    ('standard', 'The full path: known, mal, engaged, mql, sal, sql, opportunity, customer'),
    ('marketo', 'The standard path without mal'),
    ('etumos', 'Five stages: mal, mql, sal, sql, customer; the deal is the sql');

INSERT INTO lifecycle.stage (model, status, rank, label, marketing, resets_behavior)
SELECT m.model, s.status, array_position(m.path, s.status), s.label, s.marketing,
       s.status IN ('recycled', 'disqualified', 'lost')
FROM (VALUES
        ('standard', ARRAY['known', 'mal', 'engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer']),
        ('marketo', ARRAY['known', 'engaged', 'mql', 'sal', 'sql', 'opportunity', 'customer']),
        ('etumos', ARRAY['mal', 'mql', 'sal', 'sql', 'customer'])
     ) AS m (model, path)
JOIN (VALUES
        ('known', 'Known', 'nurture'),
        ('mal', 'Marketing accepted', 'nurture'),
        ('engaged', 'Engaged', 'nurture'),
        ('mql', 'MQL', 'nurture'),
        ('sal', 'Sales accepted', 'paused'),
        ('sql', 'SQL', 'suspended'),
        ('opportunity', 'Opportunity', 'suspended'),
        ('customer', 'Customer', 'nurture'),
        ('recycled', 'Recycled', 'nurture'),
        ('disqualified', 'Disqualified', 'suspended'),
        ('lost', 'Lost', 'nurture')
     ) AS s (status, label, marketing)
  ON s.status = ANY (m.path) OR s.status IN ('recycled', 'disqualified', 'lost');

INSERT INTO lifecycle.transition (model, from_status, to_status)
SELECT m.model, m.from_status, t.to_status
FROM (VALUES
        ('standard', 'known', 'mal, engaged, mql, sal, sql, opportunity, customer, disqualified'),
        ('standard', 'mal', 'engaged, mql, sal, sql, opportunity, customer, disqualified'),
        ('standard', 'engaged', 'mql, sal, sql, opportunity, customer, disqualified'),
        ('standard', 'mql', 'sal, sql, opportunity, customer, recycled, disqualified, lost'),
        ('standard', 'sal', 'sql, opportunity, customer, recycled, disqualified, lost'),
        ('standard', 'sql', 'opportunity, customer, recycled, disqualified, lost'),
        ('standard', 'opportunity', 'customer, lost'),
        ('standard', 'customer', 'recycled'),
        ('standard', 'recycled', 'engaged, mql, sal, sql, opportunity, customer, disqualified'),
        ('standard', 'disqualified', 'sql, opportunity, customer, recycled'),
        ('standard', 'lost', 'mql, sql, opportunity, customer, recycled, disqualified'),
        ('etumos', 'mal', 'mql, sal, sql, customer, disqualified'),
        ('etumos', 'mql', 'sal, sql, customer, recycled, disqualified, lost'),
        ('etumos', 'sal', 'sql, customer, recycled, disqualified, lost'),
        ('etumos', 'sql', 'customer, lost'),
        ('etumos', 'customer', 'recycled'),
        ('etumos', 'recycled', 'mal, mql, sal, sql, customer, disqualified'),
        ('etumos', 'disqualified', 'sql, customer, recycled'),
        ('etumos', 'lost', 'mql, sql, customer, recycled, disqualified')
     ) AS m (model, from_status, to_statuses)
CROSS JOIN LATERAL string_to_table(m.to_statuses, ', ') AS t (to_status);

INSERT INTO lifecycle.transition (model, from_status, to_status)
SELECT 'marketo', from_status, to_status
FROM lifecycle.transition
WHERE model = 'standard' AND from_status <> 'mal' AND to_status <> 'mal';

-- Users' models only: the shipped ones come with CREATE EXTENSION.
SELECT pg_catalog.pg_extension_config_dump('lifecycle.model', $$WHERE name NOT IN ('standard', 'marketo', 'etumos')$$);
SELECT pg_catalog.pg_extension_config_dump('lifecycle.stage', $$WHERE model NOT IN ('standard', 'marketo', 'etumos')$$);
SELECT pg_catalog.pg_extension_config_dump('lifecycle.transition', $$WHERE model NOT IN ('standard', 'marketo', 'etumos')$$);

CREATE FUNCTION lifecycle.configuration_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_configuration_changed';

COMMENT ON FUNCTION lifecycle.configuration_changed() IS
'AFTER STATEMENT trigger of the configuration tables: makes every backend read them again.';

CREATE FUNCTION lifecycle.refuse_shipped_model() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shipped CONSTANT text[] := '{standard,marketo,etumos}';
    before_write text;
    after_write text;
    found text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        found := shipped[1];
    ELSIF TG_TABLE_NAME = 'model' THEN
        IF TG_OP <> 'INSERT' THEN before_write := OLD.name; END IF;
        IF TG_OP <> 'DELETE' THEN after_write := NEW.name; END IF;
    ELSE
        IF TG_OP <> 'INSERT' THEN before_write := OLD.model; END IF;
        IF TG_OP <> 'DELETE' THEN after_write := NEW.model; END IF;
    END IF;
    IF before_write = ANY (shipped) THEN
        found := before_write;
    ELSIF after_write = ANY (shipped) THEN
        found := after_write;
    END IF;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'model "%" is shipped with lifecycle and read-only', found
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Make one of your own: SELECT lifecycle.copy_model(%L, ''mine'').', found),
                  SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END
$$;

COMMENT ON FUNCTION lifecycle.refuse_shipped_model() IS
'BEFORE trigger of model, stage and transition: the shipped models are what their names say, everywhere.';

CREATE FUNCTION lifecycle.check_stages() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong lifecycle.stage;
BEGIN
    SELECT s.model INTO wrong.model FROM lifecycle.stage s GROUP BY s.model HAVING count(*) > 64 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'model "%" has more than 64 stages', wrong.model
            USING ERRCODE = 'program_limit_exceeded', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    SELECT * INTO wrong FROM lifecycle.stage s
    WHERE s.sla_status IS NOT NULL AND NOT EXISTS (
        SELECT FROM lifecycle.stage t WHERE t.model = s.model AND t.status = s.sla_status) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'sla_status "%" of stage "%" is not a status of model "%"', wrong.sla_status, wrong.status, wrong.model
            USING ERRCODE = 'foreign_key_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'sla_status';
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION lifecycle.check_stages() IS
'AFTER STATEMENT trigger of stage: a model has at most 64, one bit each in the compiled matrix; an sla_status is one of them. (A foreign key of the table to itself would make every pg_dump warn.)';

CREATE TRIGGER shipped BEFORE INSERT OR UPDATE OR DELETE ON lifecycle.model
    FOR EACH ROW EXECUTE FUNCTION lifecycle.refuse_shipped_model();
CREATE TRIGGER shipped BEFORE INSERT OR UPDATE OR DELETE ON lifecycle.stage
    FOR EACH ROW EXECUTE FUNCTION lifecycle.refuse_shipped_model();
CREATE TRIGGER shipped BEFORE INSERT OR UPDATE OR DELETE ON lifecycle.transition
    FOR EACH ROW EXECUTE FUNCTION lifecycle.refuse_shipped_model();
CREATE TRIGGER shipped_truncate BEFORE TRUNCATE ON lifecycle.model
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.refuse_shipped_model();
CREATE TRIGGER shipped_truncate BEFORE TRUNCATE ON lifecycle.stage
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.refuse_shipped_model();
CREATE TRIGGER shipped_truncate BEFORE TRUNCATE ON lifecycle.transition
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.refuse_shipped_model();

CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON lifecycle.model
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.configuration_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON lifecycle.stage
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.configuration_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON lifecycle.transition
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.configuration_changed();
CREATE TRIGGER checked AFTER INSERT OR UPDATE OR DELETE ON lifecycle.stage
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.check_stages();

CREATE FUNCTION lifecycle.copy_model(model text, name text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF copy_model.model IS NULL OR copy_model.name IS NULL THEN
        RAISE EXCEPTION 'model and name must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NOT EXISTS (SELECT FROM lifecycle.model m WHERE m.name = copy_model.model) THEN
        RAISE EXCEPTION 'model "%" does not exist', copy_model.model
            USING ERRCODE = 'undefined_object',
                  HINT = 'The models are the rows of lifecycle.model.';
    END IF;
    IF EXISTS (SELECT FROM lifecycle.model m WHERE m.name = copy_model.name) THEN
        RAISE EXCEPTION 'model "%" already exists', copy_model.name
            USING ERRCODE = 'duplicate_object',
                  HINT = 'Choose another name, or DELETE that model first.';
    END IF;
    INSERT INTO lifecycle.model
    SELECT copy_model.name, m.description FROM lifecycle.model m WHERE m.name = copy_model.model;
    INSERT INTO lifecycle.stage (model, status, rank, label, marketing, resets_behavior, reason_required, sla, sla_status)
    SELECT copy_model.name, s.status, s.rank, s.label, s.marketing, s.resets_behavior, s.reason_required, s.sla, s.sla_status
    FROM lifecycle.stage s WHERE s.model = copy_model.model;
    INSERT INTO lifecycle.transition (model, from_status, to_status)
    SELECT copy_model.name, t.from_status, t.to_status
    FROM lifecycle.transition t WHERE t.model = copy_model.model;
END
$$;

COMMENT ON FUNCTION lifecycle.copy_model(text, text) IS
'Copies a model, its stages and its transitions under a new name, to be changed by plain INSERT, UPDATE and DELETE. Needs INSERT on lifecycle.model, stage and transition, which the extension''s owner may grant. Errors: 42704 no such model, 42710 the name is taken, 42501 no privilege.';

CREATE FUNCTION lifecycle.is_valid_transition(from_status text, to_status text, model text DEFAULT 'standard')
    RETURNS boolean LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'lifecycle_is_valid_transition';

CREATE FUNCTION lifecycle.is_valid_transition(from_status lifecycle.lifecycle_status, to_status lifecycle.lifecycle_status, model text DEFAULT 'standard')
    RETURNS boolean LANGUAGE c STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'lifecycle_is_valid_transition_enum';

COMMENT ON FUNCTION lifecycle.is_valid_transition(text, text, text) IS
'Whether the model allows the move from one status to the other. False where the model lacks one of them, and for staying; NULL for NULL. Errors: 42704 no such model.';
COMMENT ON FUNCTION lifecycle.is_valid_transition(lifecycle.lifecycle_status, lifecycle.lifecycle_status, text) IS
'Whether the model allows the move from one status to the other. False where the model lacks one of them, and for staying; NULL for NULL. Errors: 42704 no such model.';
