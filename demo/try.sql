SELECT id, last_name, lifecycle_status, lifecycle_since FROM crm.leads ORDER BY id LIMIT 5;
SELECT lifecycle.next_statuses('crm.leads', 'lost');
INSERT INTO crm.leads (id, account_id, first_name, last_name, email, source, updated_by)
    VALUES (9001, 1, 'You', 'Yourself', 'you@example.com', 'referral', 'me');
UPDATE crm.leads SET lifecycle_status = 'sql' WHERE id = 9001;
SELECT seq, at, cause, from_status, to_status, actor FROM crm.leads_history WHERE lead = 9001;
SELECT * FROM lifecycle.funnel('crm.leads', since => '2025-10-01', mode => 'any');
SELECT * FROM lifecycle.funnel('crm.leads', by => 'cohort') WHERE status = 'customer';
SELECT * FROM lifecycle.flow('crm.leads', '2025-03-17', '2025-03-22') WHERE status = 'mal';
