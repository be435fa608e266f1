-- After the stress of the flow: what came out; that flow and history are equal,
-- before and after what was left is merged.
SELECT what, sqlstate, count(*) FROM outcome GROUP BY what, sqlstate ORDER BY what, sqlstate;
SELECT count(*) AS moves, max(seq) AS longest, max(cycle) AS cycles, count(*) FILTER (WHERE cause = 'correction') AS corrections FROM leads_history;
SELECT (SELECT count(*) FROM leads_flow) AS flow, (SELECT count(*) FROM leads_flow_pending) AS pending, pg_size_pretty(pg_relation_size('leads_flow')) AS size;
SELECT look(state(), 1);
SELECT lifecycle.refresh('leads');
SELECT look(state(), 1);
DO $$ BEGIN
    IF EXISTS (SELECT FROM leads_flow_pending) THEN
        RAISE EXCEPTION 'a merge left something';
    ELSIF (SELECT count(*) FROM outcome WHERE sqlstate = '00000' AND what = 'write') < 500
       OR (SELECT count(*) FROM outcome WHERE sqlstate = '00000' AND what = 'merge') < 10
       OR (SELECT count(*) FROM outcome WHERE what = 'read') < 10 THEN
        RAISE EXCEPTION 'too little was done to say anything';
    END IF;
END $$;
