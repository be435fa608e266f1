SELECT * FROM lifecycle.funnel('crm.leads');
SELECT * FROM lifecycle.funnel('crm.leads', by=>'source') where status in ('mql','customer','known');
SELECT * FROM lifecycle.flow('crm.leads','2025-01-01','2026-01-01','1 month') where status in ('mql','opportunity','customer');
select count(*) from crm.leads_history;
select stage, count(*), sum(amount) from crm.opportunities group by 1;
select * from lifecycle.verify('crm.leads');
