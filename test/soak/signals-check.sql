-- After the stress of signals: what came out; that histories are whole, scores
-- are what the rows that are there give, and who fulfils a rule has moved.
SELECT sqlstate, what, count(*) FROM outcome GROUP BY sqlstate, what ORDER BY sqlstate, what;
SELECT count(*) AS moves, max(seq) AS longest FROM leads_history;
SELECT cause, rule, count(*) FROM leads_history GROUP BY cause, rule ORDER BY count(*) DESC;
SELECT count(*) AS acts FROM acts;
SELECT id, lifecycle_status, title, s.kept, s.anew
  FROM leads l, LATERAL (SELECT lifecycle.behavior_score('leads', l.id::text) AS kept,
       lifecycle.behavior_score_from_signals('leads', l.id::text, now()) AS anew) s ORDER BY id;
SELECT * FROM lifecycle.verify('leads');
DO $$ BEGIN
    IF EXISTS (SELECT FROM lifecycle.verify('leads')) THEN
        RAISE EXCEPTION 'verify() found faults';
    ELSIF EXISTS (SELECT FROM generate_series(1, 10) AS i
                   WHERE abs(lifecycle.behavior_score('leads', i::text) -
                         lifecycle.behavior_score_from_signals('leads', i::text, now())) > 1e-6) THEN
        RAISE EXCEPTION 'a score is not what its signals give';
    ELSIF EXISTS (SELECT FROM leads
                   WHERE lifecycle_status IN ('known', 'mal', 'engaged') AND lifecycle.behavior_score('leads', id::text) >= 50
                      OR lifecycle_status IN ('known', 'mal', 'engaged', 'mql', 'sal') AND title = 'vp'
                         AND lifecycle.behavior_score('leads', id::text) >= 100) THEN
        RAISE EXCEPTION 'a lead fulfils a rule and has not moved';
    ELSIF (SELECT count(*) FROM outcome WHERE sqlstate = '00000') < 500 THEN
        RAISE EXCEPTION 'too little was written to say anything';
    END IF;
END $$;
