-- The table of the concurrency stress, and one random write to one of its five
-- leads. What a client must expect is caught and counted: an illegal move
-- (23514), a duplicate (23505), a serialization failure (40001). All else,
-- deadlocks first, ends pgbench's client and with it the soak.
CREATE EXTENSION lifecycle;
CREATE TABLE leads (id int PRIMARY KEY, name text);
DO $$ BEGIN PERFORM lifecycle.track('leads'); END $$;

CREATE TABLE outcome (sqlstate text, at timestamptz DEFAULT clock_timestamp());

CREATE FUNCTION some_write() RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    lead int := 1 + floor(random() * 5);
    status lifecycle.lifecycle_status := (enum_range(NULL::lifecycle.lifecycle_status))[1 + floor(random() * 11)];
BEGIN
    CASE floor(random() * 8)
        WHEN 0 THEN DELETE FROM leads WHERE id = lead;
        WHEN 1 THEN INSERT INTO leads (id, lifecycle_status) VALUES (lead, status);
        WHEN 2 THEN INSERT INTO leads (id, lifecycle_status) VALUES (lead, status) ON CONFLICT (id) DO NOTHING;
        WHEN 3 THEN INSERT INTO leads (id, lifecycle_status) VALUES (lead, status)
                    ON CONFLICT (id) DO UPDATE SET lifecycle_status = EXCLUDED.lifecycle_status;
        WHEN 4 THEN UPDATE leads SET name = status::text WHERE id = lead;
        ELSE UPDATE leads SET lifecycle_status = status WHERE id = lead;
    END CASE;
    INSERT INTO outcome VALUES ('00000');
EXCEPTION WHEN check_violation OR unique_violation OR serialization_failure THEN
    INSERT INTO outcome VALUES (SQLSTATE);
END
$$;
