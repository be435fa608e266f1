#!/usr/bin/env perl
# Dump and restore of signal tables: registration, triggers and points come
# along, once each, with rules and partitions, and can be gone on with.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %same = (
	'the registrations' => 'SELECT * FROM lifecycle.signal ORDER BY id',
	'the programs' => 'SELECT lead_table, behavior FROM lifecycle.program ORDER BY id',
	'the rules' => 'SELECT * FROM lifecycle.rule ORDER BY on_table::text, name',
	'the moves' => 'SELECT * FROM crm.leads_history ORDER BY lead, seq',
	'the points' => 'SELECT * FROM crm.leads_behavior ORDER BY lead, half_life',
	'the times' => 'SELECT lead, lifecycle_at FROM crm.visits',
	'the triggers' => q{SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), tgenabled, tgparentid <> 0 FROM pg_trigger
	                    WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'crm.%' ORDER BY 1, 2},
	'who may read' => q{SELECT oid::regclass, relowner::regrole, relacl FROM pg_class WHERE relname = 'leads_behavior'},
	'the comments' => q{SELECT col_description('crm.leads_behavior'::regclass, 5), col_description('crm.visits'::regclass, 2)},
);
my $verify = q{SELECT * FROM lifecycle.verify('crm.leads')};

my $node = PostgreSQL::Test::Cluster->new('signals');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE sales LOGIN; CREATE ROLE reader');
$node->safe_psql('postgres', 'CREATE DATABASE crm OWNER sales');
$node->safe_psql('crm', q{
    CREATE EXTENSION lifecycle;
    SET ROLE sales;
    CREATE SCHEMA crm;
    CREATE TABLE crm.leads (id bigint PRIMARY KEY);
    SELECT lifecycle.track('crm.leads');
    CREATE TABLE crm.visits (lead bigint);
    CREATE INDEX ON crm.visits (lead);
    INSERT INTO crm.leads VALUES (1), (2);
    INSERT INTO crm.visits VALUES (1), (NULL);
    SELECT lifecycle.track_signal('crm.visits', 'crm.leads', 'lead');
    CREATE TABLE crm.acts ("the lead" int, k int, t timestamp) PARTITION BY RANGE (k);
    CREATE INDEX ON crm.acts ("the lead");
    CREATE TABLE crm.low PARTITION OF crm.acts FOR VALUES FROM (0) TO (10);
    CREATE TABLE crm.high PARTITION OF crm.acts FOR VALUES FROM (10) TO (20) PARTITION BY LIST (k);
    SELECT lifecycle.track_signal('crm.acts', 'crm.leads', 'the lead', $$t AT TIME ZONE 'UTC'$$);
    CREATE TABLE crm.twelve PARTITION OF crm.high FOR VALUES IN (12);
    INSERT INTO lifecycle.rule (on_table, name, condition, points, half_life) VALUES
        ('crm.acts', 'act', 'k < 10', 'k', '7 days'), ('crm.visits', 'visit', 'lead > 0', '5', NULL);
    INSERT INTO lifecycle.rule (on_table, name, condition, status) VALUES ('crm.leads', 'active', 'behavior_score >= 20', 'engaged');
    INSERT INTO lifecycle.rule (on_table, name, condition, status, unless_other, max_age) VALUES
        ('crm.acts', 'lost', 'k = 13', 'lost', 'k <> 13', '30 days'), ('crm.acts', 'deal', 'k = 12', 'opportunity', NULL, NULL);
    INSERT INTO crm.acts VALUES (1, 9, '2026-01-01'), (2, 12, '2026-01-01'), (2, 12, '2026-01-02');
    INSERT INTO crm.visits VALUES (77), (2), (2);
    GRANT SELECT ON crm.leads_behavior TO reader;
});
$node->safe_psql('crm', q{SET ROLE sales; CALL lifecycle.rescore('crm.leads')});
is($node->safe_psql('crm', $verify), '', 'the tables are consistent before the dump');
is($node->safe_psql('crm', 'SELECT id, lifecycle_status FROM crm.leads ORDER BY id'), "1|known\n2|opportunity", 'signals moved a lead');

my $file = "$PostgreSQL::Test::Utils::tmp_check/signals";
foreach my $user (scalar getpwuid($>), 'sales')
{
	my @as = $user eq 'sales' ? ('--username', 'sales') : ();
	my $database = "crm_$user";
	$node->command_ok([ 'pg_dump', @as, '--format=custom', '--file', "$file.$user", 'crm' ], "pg_dump as $user");
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	# in parallel only what comes after the data: in an archive, the data of our tables
	# do not wait for each other
	my @parts = $user eq 'sales' ? ([ '--section=pre-data', '--section=data' ], [ '--section=post-data', '--jobs=2' ]) : ([]);
	foreach my $part (@parts)
	{
		$node->command_ok([ 'pg_restore', '--exit-on-error', @$part, '--dbname', $database, "$file.$user" ], "restored what $user dumped: @$part");
	}
	foreach my $what (sort keys %same)
	{
		is($node->safe_psql($database, $same{$what}), $node->safe_psql('crm', $same{$what}), "$database: $what");
	}
	is($node->safe_psql($database, $verify), '', "$database: verify() finds nothing");
	is($node->safe_psql($database, q{
		SET ROLE sales;
		INSERT INTO crm.visits VALUES (1), (1), (1), (1), (78);
		INSERT INTO crm.leads VALUES (77), (78);
		UPDATE crm.acts SET k = 12 WHERE "the lead" = 1;
		SELECT id, lifecycle_status, lifecycle.behavior_score('crm.leads', id) FROM crm.leads ORDER BY id}),
		"1|opportunity|25\n2|opportunity|10\n77|known|5\n78|known|5", "$database: signals go on");
	$node->safe_psql($database, q{
		SET ROLE sales;
		CREATE TABLE crm.thirteen PARTITION OF crm.high FOR VALUES IN (13);
		CREATE TABLE crm.deals (id int PRIMARY KEY, lead bigint, at timestamptz);
		CREATE INDEX ON crm.deals (lead);
		SELECT lifecycle.track_signal('crm.deals', 'crm.leads', 'lead', 'at');
		SELECT lifecycle.track_signal('crm.acts', 'crm.leads', 'the lead', $$t AT TIME ZONE 'UTC'$$);
	});
	is($node->safe_psql($database, $verify), '', "$database: more signal tables and partitions can come");
	is($node->safe_psql($database, 'SELECT id, signal_table FROM lifecycle.signal ORDER BY id'), "1|crm.visits\n2|crm.acts\n3|crm.deals",
		"$database: they get numbers of their own");
	$node->safe_psql($database, q{SET ROLE sales; SELECT lifecycle.untrack('crm.leads', drop_data => true)});
	is($node->safe_psql($database, q{SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'crm.%'}), '',
		"$database: untrack() clears all");
	$node->safe_psql($database, 'DROP EXTENSION lifecycle');
}
$node->safe_psql('crm', 'DROP EXTENSION lifecycle CASCADE');
is($node->safe_psql('crm', q{SELECT tgname FROM pg_trigger WHERE NOT tgisinternal}), '', 'DROP EXTENSION takes the triggers along');

$node->stop;
done_testing();
