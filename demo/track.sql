-- The table of leads becomes a governed lifecycle; and a hook on its history.

CREATE EXTENSION lifecycle;

SELECT lifecycle.track('crm.leads',
    entered => $$ created_at $$,
    source  => $$ source $$,
    value   => $$ expected_revenue $$,
    actor   => $$ updated_by $$,
    reason  => $$ status_reason $$,
    cohort  => $$ lifecycle.cohort(id::text, 2) $$);

-- Hooks are triggers on the history: whoever becomes an opportunity gets a deal,
-- in the same transaction; when the lead leaves that status, the deal is closed.
CREATE FUNCTION crm.follow_lead() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.from_status = 'opportunity' THEN
        UPDATE crm.opportunities
        SET stage = CASE NEW.to_status WHEN 'customer' THEN 'won' ELSE 'lost' END, closed_at = NEW.at
        WHERE lead_id = NEW.lead AND closed_at IS NULL;
    END IF;
    IF NEW.to_status = 'opportunity' THEN
        INSERT INTO crm.opportunities (lead_id, owner, amount, opened_at)
        VALUES (NEW.lead, NEW.actor, NEW.value, NEW.at);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER follow_lead AFTER INSERT ON crm.leads_history
    FOR EACH ROW WHEN ('opportunity' IN (NEW.from_status, NEW.to_status))
    EXECUTE FUNCTION crm.follow_lead();
