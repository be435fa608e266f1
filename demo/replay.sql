-- The year happens: ordinary INSERT, UPDATE and DELETE in the order of time, one
-- transaction a day. lifecycle.at says when each move was made; an application
-- that writes now needs nothing of the kind.

CREATE PROCEDURE demo.replay() LANGUAGE plpgsql AS $$
DECLARE
    today date;
    step record;
BEGIN
    FOR today IN SELECT g.day::date FROM generate_series(timestamp '2025-01-01', '2025-12-31', '1 day') AS g (day) LOOP
        INSERT INTO crm.leads (id, account_id, first_name, last_name, email, title, source, lifecycle_status, created_at, updated_by)
        SELECT n.id, n.account_id, n.first_name, n.last_name, n.email, n.title, n.source,
               n.lifecycle_status::lifecycle.lifecycle_status, n.created_at, n.updated_by
        FROM demo.new_lead n
        WHERE n.created_at >= today AND n.created_at < today + 1 AND n.source <> 'trade fair'
        ORDER BY n.id;

        INSERT INTO crm.activities (lead_id, kind, page, at)
        SELECT a.lead_id, a.kind, a.page, a.at FROM demo.activity a
        WHERE a.kind <> 'form' AND a.at >= today AND a.at < today + 1
        ORDER BY a.at, a.lead_id;

        FOR step IN
            SELECT p.*, round((2000 * exp(3.2 * demo.chance(p.lead, 'revenue')))::numeric, -2) AS revenue
            FROM (SELECT * FROM demo.plan
                  UNION ALL SELECT a.at, a.lead_id, 'hand raise', NULL, NULL FROM demo.activity a WHERE a.kind = 'form') AS p
            WHERE p.at >= today AND p.at < today + 1 ORDER BY p.at, p.lead
        LOOP
            PERFORM set_config('lifecycle.at', step.at::text, true); -- SET LOCAL lifecycle.at = ...
            IF step.status IS NULL THEN
                DELETE FROM crm.leads WHERE id = step.lead;
            ELSIF step.status = 'hand raise' THEN
                INSERT INTO crm.activities (lead_id, kind, page, at) VALUES (step.lead, 'form', '/contact-sales', step.at);
            ELSIF EXISTS (SELECT FROM crm.opportunities o WHERE o.lead_id = step.lead AND o.stage = 'open') THEN
                UPDATE crm.leads SET updated_by = step.updated_by, status_reason = step.reason WHERE id = step.lead;
                UPDATE crm.opportunities SET stage = CASE step.status WHEN 'customer' THEN 'won' ELSE 'lost' END, closed_at = step.at
                WHERE lead_id = step.lead AND stage = 'open';
            ELSE
                UPDATE crm.leads
                SET lifecycle_status = step.status::lifecycle.lifecycle_status, updated_by = step.updated_by,
                    status_reason = step.reason,
                    expected_revenue = CASE step.status WHEN 'sql' THEN step.revenue ELSE expected_revenue END
                WHERE id = step.lead;
            END IF;
        END LOOP;
        COMMIT;
    END LOOP;
END
$$;
CALL demo.replay();
ANALYZE;
