-- The leads of the stress of the flow, some twenty of them that come, move and go,
-- one at a time and in batches, and what its clients do: write, merge, or read. A
-- batch takes its leads in the order of the key, so that nobody has to deadlock. A
-- reader finds flow and history equal in its snapshot, before and after others went
-- on. What a client must expect is caught and counted: an illegal move (23514), a
-- duplicate (23505), a serialization failure (40001), a correction of what is gone or
-- so already (P0002, 22023), a rollback (P9999). All else, a reader who finds a fault
-- first, ends pgbench's client and with it the soak.
CREATE EXTENSION lifecycle;
\ir ../lib/flow.sql
CREATE TABLE leads (id int PRIMARY KEY, source text, cohort int);
DO $$ BEGIN PERFORM lifecycle.track('leads', source => 'source', cohort => 'cohort', on_illegal => 'keep'); END $$;
CREATE TABLE outcome (what text, sqlstate text, at timestamptz DEFAULT clock_timestamp());

CREATE FUNCTION some_status() RETURNS lifecycle.lifecycle_status LANGUAGE sql VOLATILE
    RETURN (enum_range(NULL::lifecycle.lifecycle_status))[1 + floor(random() * 11)];

CREATE FUNCTION some_write() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lead int := 1 + floor(random() * 20);
    upto int := lead + floor(random() * 10);
    status lifecycle.lifecycle_status := some_status();
    source text := (ARRAY['web', 'fair', NULL])[1 + floor(random() * 3)];
BEGIN
    CASE floor(random() * 9)
        WHEN 0 THEN DELETE FROM leads WHERE id = lead;
        WHEN 1 THEN INSERT INTO leads VALUES (lead, source, floor(random() * 3), status);
        WHEN 2 THEN INSERT INTO leads VALUES (lead, source, NULL, status)
                    ON CONFLICT (id) DO UPDATE SET lifecycle_status = EXCLUDED.lifecycle_status;
        WHEN 3 THEN INSERT INTO leads SELECT g, source, 1, status FROM generate_series(lead, upto) AS g ON CONFLICT (id) DO NOTHING;
        WHEN 4 THEN UPDATE leads l SET lifecycle_status = status
                    FROM (SELECT id FROM leads WHERE id BETWEEN lead AND upto ORDER BY id FOR UPDATE) AS k WHERE l.id = k.id;
        WHEN 5 THEN DELETE FROM leads l USING (SELECT id FROM leads WHERE id BETWEEN lead AND lead + 2 ORDER BY id FOR UPDATE) AS k WHERE l.id = k.id;
        WHEN 6 THEN PERFORM lifecycle.correct('leads', lead, status::text, 'a slip');
        ELSE UPDATE leads SET lifecycle_status = status WHERE id = lead;
    END CASE;
END
$$;

-- A write, which may be taken back.
CREATE FUNCTION write_or_not() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        PERFORM some_write();
        IF random() < 0.1 THEN
            RAISE SQLSTATE 'P9999';
        END IF;
        INSERT INTO outcome VALUES ('write', '00000');
    EXCEPTION WHEN SQLSTATE 'P9999' OR check_violation OR unique_violation OR serialization_failure OR no_data_found OR invalid_parameter_value THEN
        INSERT INTO outcome VALUES ('write', SQLSTATE);
    END;
END
$$;

CREATE FUNCTION merge_or_not() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lifecycle.refresh('leads');
    IF random() < 0.2 THEN
        RAISE SQLSTATE 'P9999';
    END IF;
    INSERT INTO outcome VALUES ('merge', '00000');
EXCEPTION WHEN SQLSTATE 'P9999' OR serialization_failure THEN
    INSERT INTO outcome VALUES ('merge', SQLSTATE);
END
$$;

-- What a reader of one snapshot counts; the one from the history, the other from the flow.
CREATE FUNCTION state() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT format('%s moves, %s moves', (SELECT count(*) FROM leads_history),
                  (SELECT coalesce(sum(f.n), 0) FROM lifecycle.counts_of_flow(lifecycle.program_of('leads')) AS f WHERE f.kind = 'move' AND f.span IN ('pending', 'day')))
$$;

-- Raises what is wrong in the snapshot of the statement.
CREATE FUNCTION look(state text, part float8) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    faults text := (SELECT string_agg(f, E'\n')
                    FROM (SELECT flow_faults('leads', part) UNION ALL SELECT report_faults('leads', part)
                          UNION ALL SELECT format('verify(): %s', v) FROM lifecycle.verify('leads') AS v WHERE part = 1) AS f (f));
BEGIN
    IF faults IS NOT NULL THEN
        RAISE EXCEPTION 'flow and history differ' USING DETAIL = faults;
    ELSIF state <> state() THEN
        RAISE EXCEPTION 'one snapshot, two states: % and %', state, state();
    END IF;
END
$$;
