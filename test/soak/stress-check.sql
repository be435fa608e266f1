-- After the stress: what came out, and that the history is whole.
SELECT sqlstate, count(*) FROM outcome GROUP BY sqlstate ORDER BY sqlstate;
SELECT count(*) AS moves, max(seq) AS longest FROM leads_history;
SELECT * FROM lifecycle.verify('leads');
DO $$ BEGIN
    IF EXISTS (SELECT FROM lifecycle.verify('leads')) THEN
        RAISE EXCEPTION 'verify() found faults';
    ELSIF (SELECT count(*) FROM outcome WHERE sqlstate = '00000') < 1000 OR (SELECT count(*) FROM leads_history) < 500 THEN
        RAISE EXCEPTION 'too little was written to say anything';
    END IF;
END $$;
