-- What a history tells of a lead, in one line. To be read in with
-- \ir ../lib/story.sql.

CREATE FUNCTION story(lead int, history text DEFAULT 'leads_history') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    told text;
BEGIN
    EXECUTE format('SELECT string_agg(coalesce(h.to_status, ''-''), '' '' ORDER BY h.seq) FROM %s h WHERE h.lead = $1', history)
        INTO told USING lead;
    RETURN told;
END $$;

COMMENT ON FUNCTION story(int, text) IS 'The statuses that the lead entered, ''-'' for a removal, in their order.';
