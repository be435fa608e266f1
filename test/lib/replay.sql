-- Lets leads live by ordinary writes, each at its own time. To be read in with
-- \ir ../lib/replay.sql.

CREATE FUNCTION replay(lead_table regclass, moves text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    m record;
    known boolean;
BEGIN
    FOR m IN SELECT split_part(l.line, ' ', 1) AS lead, split_part(l.line, ' ', 2) AS status, split_part(l.line, ' ', 3) AS at, split_part(l.line, ' ', 4) AS origin
             FROM string_to_table(moves, E'\n') WITH ORDINALITY AS l (line, place) WHERE l.line <> ''
             ORDER BY split_part(l.line, ' ', 3)::timestamptz, l.place LOOP
        PERFORM set_config('lifecycle.at', m.at, true);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE id = %L)', lead_table, m.lead) INTO known;
        EXECUTE CASE WHEN m.status = '-' THEN format('DELETE FROM %s WHERE id = %L', lead_table, m.lead)
                     WHEN known THEN format('UPDATE %s SET lifecycle_status = %L WHERE id = %L', lead_table, m.status, m.lead)
                     ELSE format('INSERT INTO %s (id, origin, lifecycle_status) VALUES (%L, %s, %L)', lead_table, m.lead,
                                 CASE m.origin WHEN '' THEN 'NULL' WHEN '''''' THEN '''''' ELSE quote_literal(m.origin) END, m.status) END;
    END LOOP;
END $$;

COMMENT ON FUNCTION replay(regclass, text) IS
'Moves, a line each: lead, status (''-'' for a removal), time and, for a new lead, its origin ('''''''' for an empty text), in the order of time. The table has the columns id and origin, both text.';
