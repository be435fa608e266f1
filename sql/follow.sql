-- DDL under stored expressions: renames are followed, what would break them is
-- refused.

CREATE FUNCTION lifecycle.follow() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_follow';

COMMENT ON FUNCTION lifecycle.follow() IS
'ddl_command_start, sql_drop and ddl_command_end event trigger: what DDL does to the columns and expressions of lifecycle.program, lifecycle.rule and lifecycle.signal. Columns, tables, schemas, functions, types, operators, collations and enum values that are renamed or moved are followed in the same transaction. Errors: 2BP01 something that an expression reads, or the key or status column, would be dropped, or an expression would no longer compile or would call another function; 0A000 a column that lifecycle keeps would be renamed or get another type. An expression that the owner of its table may not run holds nothing back.';

CREATE EVENT TRIGGER lifecycle_follow_dropped ON sql_drop
    EXECUTE FUNCTION lifecycle.follow();

-- All that may concern a stored expression, so that other commands cost nothing.
DO $do$
DECLARE
    tags CONSTANT text := $$
        'ALTER AGGREGATE', 'ALTER COLLATION', 'ALTER DOMAIN', 'ALTER EXTENSION', 'ALTER FOREIGN TABLE',
        'ALTER FUNCTION', 'ALTER INDEX', 'ALTER MATERIALIZED VIEW', 'ALTER OPERATOR', 'ALTER ROUTINE', 'ALTER SCHEMA',
        'ALTER SEQUENCE', 'ALTER TABLE', 'ALTER TEXT SEARCH CONFIGURATION', 'ALTER TEXT SEARCH DICTIONARY', 'ALTER TYPE', 'ALTER VIEW',
        'CREATE FUNCTION',
        'DROP AGGREGATE', 'DROP CAST', 'DROP COLLATION', 'DROP DOMAIN', 'DROP EXTENSION', 'DROP FOREIGN TABLE',
        'DROP FUNCTION', 'DROP INDEX', 'DROP LANGUAGE', 'DROP MATERIALIZED VIEW', 'DROP OPERATOR', 'DROP OPERATOR CLASS',
        'DROP OPERATOR FAMILY', 'DROP OWNED', 'DROP ROUTINE', 'DROP SCHEMA', 'DROP SEQUENCE', 'DROP TABLE',
        'DROP TEXT SEARCH CONFIGURATION', 'DROP TEXT SEARCH DICTIONARY', 'DROP TEXT SEARCH PARSER', 'DROP TEXT SEARCH TEMPLATE',
        'DROP TYPE', 'DROP VIEW'$$;
BEGIN
    EXECUTE format('CREATE EVENT TRIGGER lifecycle_follow_begin ON ddl_command_start WHEN TAG IN (%s) EXECUTE FUNCTION lifecycle.follow()', tags);
    EXECUTE format('CREATE EVENT TRIGGER lifecycle_follow_end ON ddl_command_end WHEN TAG IN (%s) EXECUTE FUNCTION lifecycle.follow()', tags);
END
$do$;
