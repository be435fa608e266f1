-- What a statement fails with, for tests that look at every part of an error.
-- To be read in with \ir ../lib/failure.sql.

CREATE FUNCTION failure(statement text, as_role name DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql
AS $$
BEGIN
    BEGIN
        IF as_role IS NOT NULL THEN
            EXECUTE format('SET LOCAL ROLE %I', as_role);
        END IF;
        EXECUTE statement;
    EXCEPTION WHEN OTHERS THEN
        DECLARE
            message text;
            detail text;
            hint text;
            column_name text;
            constraint_name text;
        BEGIN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
                hint = PG_EXCEPTION_HINT, column_name = COLUMN_NAME, constraint_name = CONSTRAINT_NAME;
            RETURN concat_ws(E'\n', SQLSTATE || ': ' || message,
                             'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, ''),
                             'COLUMN: ' || nullif(column_name, ''), 'CONSTRAINT: ' || nullif(constraint_name, ''));
        END;
    END;
    IF as_role IS NOT NULL THEN
        RESET ROLE;
    END IF;
    RETURN 'no error';
END
$$;

COMMENT ON FUNCTION failure(text, name) IS
'SQLSTATE and message of the error that the statement raises, with DETAIL, HINT, COLUMN and CONSTRAINT where it has them, a line each; "no error" where it raises none (and then it has taken effect). As the role where one is given.';

CREATE FUNCTION failure_context(statement text) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    context text;
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RETURN context;
END
$$;

COMMENT ON FUNCTION failure_context(text) IS 'The CONTEXT of the error that the statement raises.';
