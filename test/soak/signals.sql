-- The tables of the stress of signals, and one random transaction about one or
-- more of five hot leads, or five that come and go. A client holds rows of one
-- lead at most, unless it writes a batch, which is in the order of the key: so a
-- deadlock is a fault. Nobody waits for a row of acts, which no order protects. What a client must expect is caught and counted: a
-- duplicate (23505), a serialization failure (40001), an illegal move (23514); and
-- a deadlock about a lead that comes and goes (see arrival.c).
CREATE EXTENSION lifecycle;
CREATE TABLE leads (id int PRIMARY KEY, title text, touched int NOT NULL DEFAULT 0);
CREATE TABLE acts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, lead int, kind text, points float8);
CREATE INDEX ON acts (lead);
DO $$ BEGIN
    PERFORM lifecycle.track('leads');
    PERFORM lifecycle.track_signal('acts', 'leads', 'lead');
END $$;
-- What a score leads to, by rules that keep their say whatever came before.
INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('acts', 'points', 'points > 0', 'points');
INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES
    ('leads', 'warm', 'behavior_score >= 50', 'mql'),
    ('leads', 'vp', $$ title = 'vp' AND behavior_score >= 100 $$, 'sql'),
    ('acts', 'hand raise', $$ kind = 'form' $$, 'sal');
INSERT INTO leads (id) SELECT generate_series(1, 5);
CREATE TABLE outcome (sqlstate text, what text, at timestamptz DEFAULT clock_timestamp());

CREATE FUNCTION some_signals(lead int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE floor(random() * 6)
        WHEN 0 THEN DELETE FROM acts WHERE id = (SELECT a.id FROM acts a WHERE a.lead = some_signals.lead ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED);
        WHEN 1 THEN UPDATE acts SET points = floor(random() * 4)
                     WHERE id = (SELECT a.id FROM acts a WHERE a.lead = some_signals.lead ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED);
        WHEN 2 THEN INSERT INTO acts (lead, kind, points) SELECT some_signals.lead, 'visit', 1 FROM generate_series(1, 5);
        WHEN 3 THEN INSERT INTO acts (lead, kind, points) VALUES (lead, CASE WHEN random() < 0.02 THEN 'form' END, 1);
        ELSE INSERT INTO acts (lead, kind, points) VALUES (lead, 'visit', floor(random() * 3));
    END CASE;
END
$$;

CREATE FUNCTION some_write(lead int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE floor(random() * 5)
        WHEN 0 THEN UPDATE leads SET title = CASE WHEN random() < 0.5 THEN 'vp' END WHERE id = lead;
        WHEN 1 THEN UPDATE leads SET touched = touched + 1 WHERE id = lead;
        WHEN 2 THEN INSERT INTO leads (id) VALUES (lead) ON CONFLICT (id) DO UPDATE SET touched = leads.touched + 1;
        WHEN 3 THEN IF lead > 5 THEN DELETE FROM leads WHERE id = lead;
                    ELSIF random() < 0.1 THEN UPDATE leads SET lifecycle_status = 'recycled' WHERE id = lead; END IF;
        ELSE INSERT INTO leads (id) VALUES (lead) ON CONFLICT (id) DO NOTHING;
    END CASE;
END
$$;

CREATE FUNCTION some_transaction() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lead int := 1 + floor(random() * 10);
    style text := (ARRAY['activity', 'lead', 'activity first', 'lead first', 'batch'])[1 + floor(random() * 5)];
BEGIN
    IF style LIKE 'activity%' THEN PERFORM some_signals(lead); END IF;
    IF style IN ('lead', 'lead first', 'activity first') THEN PERFORM some_write(lead); END IF;
    IF style = 'lead first' THEN PERFORM some_signals(lead); END IF;
    IF style = 'batch' THEN
        INSERT INTO acts (lead, kind, points) SELECT 1 + floor(random() * 10), 'visit', floor(random() * 2) FROM generate_series(1, 10);
    END IF;
    INSERT INTO outcome VALUES ('00000', style);
EXCEPTION WHEN check_violation OR unique_violation OR serialization_failure THEN
    INSERT INTO outcome VALUES (SQLSTATE, style);
WHEN deadlock_detected THEN
    -- a lead that one deletes, another stores, and a third brings after its signals
    IF lead <= 5 AND style <> 'batch' THEN RAISE; END IF;
    INSERT INTO outcome VALUES (SQLSTATE, style);
END
$$;
