-- The table of leads becomes a governed lifecycle; what they do and their deals
-- become signals; and a hook on its history.

CREATE EXTENSION lifecycle;

SELECT lifecycle.track('crm.leads',
    entered => $$ created_at $$,
    source  => $$ source $$,
    value   => $$ expected_revenue $$,
    actor   => $$ updated_by $$,
    reason  => $$ status_reason $$,
    cohort  => $$ lifecycle.cohort(id::text, 2) $$);

SELECT lifecycle.track_signal('crm.activities', 'crm.leads', lead => 'lead_id', at => $$ at $$);
SELECT lifecycle.track_signal('crm.opportunities', 'crm.leads', lead => 'lead_id', at => $$ coalesce(closed_at, opened_at) $$);

INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES
    ('crm.leads', 'decides', $$ title ~* '\m(head|director|cfo)\M' $$, '20');
INSERT INTO lifecycle.rule (on_table, name, condition, points, half_life) VALUES
    ('crm.activities', 'pricing page', $$ kind = 'visit' AND page = '/pricing' $$, '15', '14 days'),
    ('crm.activities', 'webinar',      $$ kind = 'webinar' $$,                     '10', '14 days'),
    ('crm.activities', 'mail opened',  $$ kind = 'mail' $$,                        '2',  '14 days');
INSERT INTO lifecycle.rule (on_table, name, condition, status, unless_other) VALUES
    ('crm.activities',    'hand raise', $$ kind = 'form' AND page = '/contact-sales' $$, 'mql',      NULL),
    ('crm.opportunities', 'deal won',   $$ stage = 'won' $$,                             'customer', NULL),
    ('crm.opportunities', 'deal lost',  $$ stage = 'lost' $$,                            'lost',     $$ stage = 'open' $$);

-- Hooks are triggers on the history: whoever becomes an opportunity gets a deal,
-- in the same transaction; where somebody takes the lead out of that status, its
-- deals are closed. Deals that are won or lost move the lead by the rules above.
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
