#!/usr/bin/env perl
# Dump, restore, crash, standby, logical replication: the history comes along,
# and what is written afterwards continues it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $moves = 'SELECT lead, seq, cycle, from_status, to_status, cause, at, source, reached::text FROM crm.leads_history ORDER BY lead, seq';
my $programs = q{SELECT lead_table, model, key, status_column, prefix, history, source, on_illegal FROM lifecycle.program ORDER BY id};
my $rules = q{SELECT on_table, name, condition, points, status, only_from::text, priority, enabled FROM lifecycle.rule ORDER BY name};
my $triggers = q{SELECT tgrelid::regclass, tgname, pg_get_triggerdef(oid), tgenabled FROM pg_trigger
                 WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'crm.%' ORDER BY 1, 2};
my $model = q{SELECT (SELECT count(*) FROM lifecycle.stage WHERE model = 'mine'),
                     (SELECT string_agg(to_status, ',' ORDER BY to_status) FROM lifecycle.transition WHERE model = 'mine' AND from_status = 'customer')};
my $flow = q{SELECT f::text FROM crm.leads_flow f UNION ALL SELECT 'pending ' || p::text FROM crm.leads_flow_pending p ORDER BY 1};
my $funnel = q{SELECT segment, status, rank, reached, of_which_inferred, next_step_rate, cumulative_rate FROM crm.leads_funnel ORDER BY segment NULLS FIRST, rank, status};
my $months = q{SELECT month, status, rank, opening, inflow, inflow_new, inflow_again, outflow, closing, period_rate FROM crm.leads_funnel_monthly ORDER BY month, rank, status};
my $overview = q{SELECT lead, status, rank, label, since, seq, demographic_score, behavior_score, marketing FROM crm.leads_lifecycle ORDER BY lead};
my $refresh = q{DO $$BEGIN PERFORM lifecycle.refresh('crm.leads'); END$$};
my $grants = q{SELECT oid::regclass, relowner::regrole, coalesce(relacl, acldefault('r', relowner)), reloptions FROM pg_class
               WHERE relnamespace = 'crm'::regnamespace AND relkind IN ('v', 'm') ORDER BY relname};
my $views = q{SELECT overview, funnel, funnel_monthly FROM lifecycle.program ORDER BY id};
my $verify = q{SELECT * FROM lifecycle.verify('crm.leads')};

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "max_prepared_transactions = 5\n");
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE sales LOGIN; CREATE ROLE reader');
$node->safe_psql('postgres', 'CREATE DATABASE crm OWNER sales');
$node->safe_psql('crm', q{
    CREATE EXTENSION lifecycle;
    GRANT INSERT, UPDATE, DELETE ON lifecycle.model, lifecycle.stage, lifecycle.transition TO sales;
    SET ROLE sales;
    CREATE SCHEMA crm;
    SELECT lifecycle.copy_model('standard', 'mine');
    INSERT INTO lifecycle.transition VALUES ('mine', 'customer', 'lost');
    CREATE TABLE crm.leads (id int PRIMARY KEY, name text, source text);
    GRANT SELECT ON crm.leads TO reader;
    SELECT lifecycle.track('crm.leads', model => 'mine', source => 'source', on_illegal => 'keep');
    INSERT INTO crm.leads (id, source) SELECT g, 'web' FROM generate_series(1, 5) AS g;
    SELECT lifecycle.refresh();
    UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id <= 3;
    UPDATE crm.leads SET lifecycle_status = 'known' WHERE id = 1;
    UPDATE crm.leads SET lifecycle_status = 'recycled' WHERE id = 2;
    UPDATE crm.leads SET lifecycle_status = 'sql' WHERE id = 2;
    DELETE FROM crm.leads WHERE id = 3;
    CREATE SCHEMA tools;
    CREATE FUNCTION tools.is_boss(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 LIKE '%chief%'$$;
    CREATE TABLE crm.scored (gone int, id int PRIMARY KEY, title text, late timestamptz, late_too int, twice int GENERATED ALWAYS AS (late_too * 2) STORED);
    SELECT lifecycle.track('crm.scored');
    ALTER TABLE crm.scored DROP COLUMN gone, DROP COLUMN late;
    INSERT INTO lifecycle.rule (on_table, name, condition, points, status, only_from, priority, enabled) VALUES
        ('crm.scored', 'boss', 'tools.is_boss(title)', '20', NULL, NULL, 0, true),
        ('crm.scored', 'never', 'true', '1000', NULL, NULL, 0, false),
        ('crm.scored', 'points', 'twice > 2', 'twice', NULL, NULL, 0, true),
        ('crm.scored', 'good', 'demographic_score >= 20 AND behavior_score >= 0', NULL, 'mql', NULL, 1, true),
        ('crm.scored', 'taken', $$ title = 'chief' $$, NULL, 'sal', '{mql}', 2, true),
        ('crm.scored', 'off', 'title IS NOT NULL', NULL, 'lost', NULL, 9, false);
    INSERT INTO crm.scored (id, title, late_too) VALUES (1, 'a chief', 2), (2, 'clerk', 1);
    ALTER TABLE crm.scored RENAME title TO "Job";
});
my $scored = q{SELECT id, lifecycle_status, demographic_score FROM crm.scored ORDER BY id};
is($node->safe_psql('crm', $scored), "1|mql|24\n2|known|0", 'rules judge before the dump');
# a rule that is broken, switched off, must not keep the rest from being restored
$node->safe_psql('crm', q{
    INSERT INTO lifecycle.rule (on_table, name, condition, points, enabled) VALUES ('crm.scored', 'broken', 'twice = 7', '1', false);
    SET session_replication_role = replica;
    UPDATE lifecycle.rule SET condition = '(nosuch = 7)' WHERE name = 'broken';
});
is($node->safe_psql('crm', $verify), '', 'the table is consistent before the dump');
is($node->safe_psql('crm', q{SELECT count(DISTINCT span) FROM crm.leads_flow}), '4', 'the flow is merged');
isnt($node->safe_psql('crm', q{SELECT count(*) FROM crm.leads_flow_pending}), '0', 'but for a part');

# pg_dump as superuser and as the owner, restored into another cluster.
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->start;
$other->safe_psql('postgres', 'CREATE ROLE sales LOGIN; CREATE ROLE reader');
my $file = "$PostgreSQL::Test::Utils::tmp_check/crm";

foreach my $user (scalar getpwuid($>), 'sales')
{
	my @as = $user eq 'sales' ? ('--username', 'sales') : ();
	$node->command_ok([ 'pg_dump', @as, '--format=custom', '--file', "$file.$user", 'crm' ], "pg_dump as $user");
	$other->safe_psql('postgres', "CREATE DATABASE crm_$user");
	$other->command_ok([ 'pg_restore', '--exit-on-error', '--dbname', "crm_$user", "$file.$user" ], "restored what $user dumped");
	my $database = "crm_$user";
	is($other->safe_psql($database, $moves), $node->safe_psql('crm', $moves), "dump by $user: the history is there");
	is($other->safe_psql($database, $programs), $node->safe_psql('crm', $programs), "dump by $user: the program is there");
	is($other->safe_psql($database, $triggers), $node->safe_psql('crm', $triggers), "dump by $user: the triggers are there");
	is($other->safe_psql($database, $model), "11|lost,recycled", "dump by $user: the model of one's own is there");
	is($other->safe_psql($database, 'SELECT lead, from_status, to_status FROM crm.leads_refused'), '1|mql|known', "dump by $user: the refused move is there");
	is($other->safe_psql($database, $verify), '', "dump by $user: verify() finds nothing");
	is($other->safe_psql($database, $flow), $node->safe_psql('crm', $flow), "dump by $user: the flow is there, as far as it was merged, and what was pending");
	is($other->safe_psql($database, $views), $node->safe_psql('crm', $views), "dump by $user: the program knows its views");
	is($other->safe_psql($database, $grants), $node->safe_psql('crm', $grants), "dump by $user: the views are there, and who may read them");
	is($other->safe_psql($database, $overview), $node->safe_psql('crm', $overview), "dump by $user: where the leads are");
	is($other->safe_psql($database, "SELECT count(*) FROM pg_class WHERE relkind = 'm' AND relispopulated"), '4', "dump by $user: materialized views are filled");
	is($other->safe_psql($database, $funnel), $node->safe_psql('crm', "BEGIN; $refresh; $funnel; ROLLBACK"), "dump by $user: with the funnel of the flow");
	is($other->safe_psql($database, $months), $node->safe_psql('crm', "BEGIN; $refresh; $months; ROLLBACK"), "dump by $user: and its months");
	is($other->safe_psql($database, $rules), $node->safe_psql('crm', $rules), "dump by $user: the rules are there, disabled ones too");
	is($other->safe_psql($database, $scored), $node->safe_psql('crm', $scored), "dump by $user: scores are as they were");
	$other->safe_psql($database, q{
		SET ROLE sales;
		INSERT INTO crm.scored VALUES (3, 'chief', 5), (4, 'clerk', 3);
		UPDATE crm.scored SET "Job" = 'chief' WHERE id = 1;
		UPDATE lifecycle.rule SET enabled = true WHERE name = 'never';
		UPDATE crm.scored SET "Job" = 'chief of clerks' WHERE id = 2;
	});
	is($other->safe_psql($database, $scored), "1|sal|24\n2|mql|1020\n3|mql|30\n4|known|6", "dump by $user: the rules are obeyed");
	$other->safe_psql($database, q{CALL lifecycle.rescore('crm.scored')});
	is($other->safe_psql($database, q{SELECT * FROM lifecycle.verify('crm.scored')}), '', "dump by $user: verify() finds nothing there");
	my (undef, undef, $refused) = $other->psql($database, 'ALTER TABLE crm.scored DROP COLUMN "Job"');
	like($refused, qr/ERROR:  cannot drop column "Job" of table "crm.scored" because rule "boss"/, "dump by $user: what rules read cannot be dropped");
	$other->safe_psql($database, 'ALTER TABLE crm.scored RENAME "Job" TO title; ALTER FUNCTION tools.is_boss RENAME TO is_head');
	is($other->safe_psql($database, q{SELECT condition FROM lifecycle.rule WHERE name = 'boss'}), 'tools.is_head(title)', "dump by $user: renames are followed");

	$other->safe_psql($database, q{
		SET ROLE sales;
		INSERT INTO crm.leads (id) VALUES (3), (6);
		UPDATE crm.leads SET lifecycle_status = 'customer' WHERE id = 2;
		UPDATE crm.leads SET lifecycle_status = 'lost' WHERE id = 2;
	});
	is($other->safe_psql($database, 'SELECT lead, seq, cycle, from_status, to_status FROM crm.leads_history WHERE lead IN (2, 3, 6) ORDER BY lead, seq'),
		"2|1|1||known\n2|2|1|known|mql\n2|3|1|mql|recycled\n2|4|2|recycled|sql\n2|5|2|sql|customer\n2|6|2|customer|lost\n"
		  . "3|1|1||known\n3|2|1|known|mql\n3|3|1|mql|\n3|4|2||known\n6|1|1||known",
		"dump by $user: writes continue the history");
	is($other->safe_psql($database, $verify), '', "dump by $user: verify() finds nothing after the writes");
	$other->safe_psql($database, 'SET ROLE sales; SELECT lifecycle.refresh()');
	is($other->safe_psql($database, 'SELECT count(*) FROM crm.leads_flow_pending'), '0', "dump by $user: refresh() goes on");
	is($other->safe_psql($database, $verify), '', "dump by $user: verify() finds nothing after that");
	is($other->safe_psql($database, "SELECT reached FROM crm.leads_funnel WHERE segment IS NULL AND status = 'known'"), '6', "dump by $user: nor do the views miss anything");
	is($other->psql($database, 'SET ROLE sales; BEGIN; DROP TABLE crm.leads; ROLLBACK'), 0, "dump by $user: the views keep nobody from dropping the leads");
	$other->safe_psql($database, q{
		SET ROLE sales;
		CREATE TABLE crm.deals (id int PRIMARY KEY);
		SELECT lifecycle.track('crm.deals');
		INSERT INTO crm.deals VALUES (1);
	});
	is($other->safe_psql($database, 'SELECT count(*) FROM crm.deals_history'), '1', "dump by $user: another table can be tracked");
}

# Only the schema: no program row is data that it has, and a write says so
# instead of being recorded nowhere.
$node->command_ok([ 'pg_dump', '--schema-only', '--format=custom', '--file', "$file.schema", 'crm' ], 'pg_dump --schema-only');
$other->safe_psql('postgres', 'CREATE DATABASE empty');
$other->command_ok([ 'pg_restore', '--exit-on-error', '--dbname', 'empty', "$file.schema" ], 'restored the schema');
is($other->safe_psql('empty', 'SELECT count(*) FROM crm.leads_history'), '0', 'the schema alone has no history');
my ($code, $out, $err) = $other->psql('empty', "\\set VERBOSITY verbose\nINSERT INTO crm.leads (id) VALUES (1)");
like($err, qr/ERROR:  55000: /, 'a write to a table whose program is missing is an error');
like($err, qr/HINT: .*lifecycle\.untrack/s, 'which says what to do');
$other->safe_psql('empty', "SELECT lifecycle.untrack('crm.leads')");
$other->safe_psql('empty', "SELECT lifecycle.track('crm.leads')");
$other->safe_psql('empty', 'INSERT INTO crm.leads (id) VALUES (1)');
is($other->safe_psql('empty', $verify), '', 'tracked again, it works');
$other->safe_psql('empty', 'SELECT lifecycle.refresh()');
is($other->safe_psql('empty', 'SELECT (SELECT status FROM crm.leads_lifecycle), reached, closing FROM crm.leads_funnel f JOIN crm.leads_funnel_monthly USING (status) WHERE segment IS NULL AND f.rank = 1'),
	'known|1|1', 'with its views');
$other->stop;

# A crash in the middle of a transaction, and between the two phases of another.
my $in_flight = $node->background_psql('crm');
$in_flight->query_safe("BEGIN");
$in_flight->query_safe("UPDATE crm.leads SET lifecycle_status = 'sal' WHERE id = 1");
$in_flight->query_safe("INSERT INTO crm.leads (id) SELECT generate_series(100, 1500)");
$node->safe_psql('crm', q{
    UPDATE crm.leads SET lifecycle_status = 'sal' WHERE id = 4;
    BEGIN;
    UPDATE crm.leads SET lifecycle_status = 'sal' WHERE id = 5;
    PREPARE TRANSACTION 'five';
    CHECKPOINT;
});
my $before = $node->safe_psql('crm', $moves);
$node->stop('immediate');
$in_flight->{run}->finish;
$node->start;
is($node->safe_psql('crm', $moves), $before, 'after a crash the committed moves are there, and no others');
is($node->safe_psql('crm', $verify), '', 'after a crash verify() finds nothing');
$node->safe_psql('crm', "COMMIT PREPARED 'five'");
is($node->safe_psql('crm', 'SELECT lifecycle_status, (SELECT to_status FROM crm.leads_history WHERE lead = 5 ORDER BY seq DESC LIMIT 1) FROM crm.leads WHERE id = 5'),
	'sal|sal', 'the prepared transaction brings its move');
$node->safe_psql('crm', "UPDATE crm.leads SET lifecycle_status = 'sal' WHERE id = 1");
is($node->safe_psql('crm', $verify), '', 'and verify() finds nothing');

# A standby reads.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->safe_psql('crm', "UPDATE crm.leads SET lifecycle_status = 'sql' WHERE id = 1");
$node->wait_for_catchup($standby);
foreach my $query (
	"SELECT * FROM lifecycle.funnel('crm.leads')",
	"SELECT * FROM lifecycle.funnel('crm.leads', mode => 'ordered', cycle => 'every', by => 'source')",
	"SELECT * FROM lifecycle.flow('crm.leads', date_trunc('day', now()), now(), '1 day')",
	"SELECT * FROM lifecycle.next_statuses('crm.leads', 'mql')",
	"SELECT lifecycle.is_valid_transition('customer'::text, 'lost', 'mine'), lifecycle.is_valid_transition('customer'::text, 'lost')",
	"SELECT * FROM crm.leads ORDER BY id", $overview =~ s/, behavior_score//r, $funnel, $months, $flow)
{
	my $there = $standby->safe_psql('crm', $query =~ s/now\(\), '1 day'/date_trunc('day', now()) + interval '1 day'/r);
	is($there, $node->safe_psql('crm', $query =~ s/now\(\), '1 day'/date_trunc('day', now()) + interval '1 day'/r), "on a standby as on the primary: $query");
	isnt($there, '', '... and not empty');
}
is($standby->safe_psql('crm', $verify), '', 'verify() works on a standby');
$standby->stop;

# Logical replication of the lead table alone to a table that is tracked there:
# the apply worker fires no ordinary triggers, so that the leads arrive as they
# are and nothing is recorded. That is not silent: verify() says it.
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->start;
$subscriber->safe_psql('postgres', q{
    CREATE EXTENSION lifecycle;
    CREATE SCHEMA crm;
    CREATE TABLE crm.leads (id int PRIMARY KEY, name text, source text);
    SELECT lifecycle.track('crm.leads');
});
$node->safe_psql('crm', 'CREATE PUBLICATION leads FOR TABLE crm.leads');
my $connection = $node->connstr('crm') =~ s{'}{''}gr;
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION leads CONNECTION '$connection' PUBLICATION leads");
$subscriber->wait_for_subscription_sync($node, 'leads');
my $count = $node->safe_psql('crm', 'SELECT count(*) FROM crm.leads');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM crm.leads'), $count, 'a subscriber gets the leads');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM crm.leads_history'), '0', 'and records nothing');
is($subscriber->safe_psql('postgres', q{SELECT count(*) FROM lifecycle.verify('crm.leads') WHERE "check" = 'status'}), $count, 'verify() names each of them');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION leads');
$subscriber->stop;

# Who publishes all tables publishes ours, which must not keep anything from being written.
$node->safe_psql('crm', q{
    CREATE PUBLICATION everything FOR ALL TABLES;
    UPDATE lifecycle.program SET on_illegal = 'keep' WHERE lead_table = 'crm.leads'::regclass;
    INSERT INTO crm.leads (id, source) SELECT g, 'all ' || g % 3 FROM generate_series(900001, 900020) AS g;
    UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id > 900000;
    UPDATE crm.leads SET lifecycle_status = 'known' WHERE id > 900000;
});
isnt($node->safe_psql('crm', 'SELECT count(*) FROM crm.leads_refused WHERE lead > 900000'), '0', 'FOR ALL TABLES: moves are made and refused');
foreach my $statement (
	q{SELECT lifecycle.refresh('crm.leads')}, q{UPDATE crm.leads SET lifecycle_status = 'sal' WHERE id = 900002},
	q{SELECT lifecycle.erase('crm.leads', 900001)}, q{SELECT lifecycle.refresh('crm.leads')}, q{SELECT lifecycle.rebuild_flow('crm.leads')},
	q{SELECT lifecycle.correct('crm.leads', 900002, 'mal', 'no')}, q{CALL lifecycle.rescore('crm.leads')}, q{DELETE FROM crm.leads WHERE id > 900000})
{
	my ($rc, $out, $err) = $node->psql('crm', $statement);
	is($err =~ /ERROR/ ? $err : 'done', 'done', "FOR ALL TABLES: $statement");
}
is($node->safe_psql('crm', q{SELECT * FROM lifecycle.verify('crm.leads')}), '', 'FOR ALL TABLES: verify() finds nothing');
$node->stop;

done_testing();
