#!/usr/bin/env perl
# Dump and restore of signal tables: registration, triggers and points come
# along, once each, partitions as well, and can be gone on with.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %same = (
	'the registrations' => 'SELECT * FROM lifecycle.signal ORDER BY id',
	'the programs' => 'SELECT lead_table, behavior FROM lifecycle.program ORDER BY id',
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
    INSERT INTO crm.leads_behavior (lead, half_life, points, at, heat) VALUES (1, '7 days', 20, '2026-01-01', 3), (77, '0', 5, '2026-01-02', 5);
    GRANT SELECT ON crm.leads_behavior TO reader;
});
is($node->safe_psql('crm', $verify), '', 'the tables are consistent before the dump');

my $file = "$PostgreSQL::Test::Utils::tmp_check/signals";
foreach my $user (scalar getpwuid($>), 'sales')
{
	my @as = $user eq 'sales' ? ('--username', 'sales') : ();
	my $database = "crm_$user";
	$node->command_ok([ 'pg_dump', @as, '--format=custom', '--file', "$file.$user", 'crm' ], "pg_dump as $user");
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '--dbname', $database, "$file.$user" ], "restored what $user dumped");
	foreach my $what (sort keys %same)
	{
		is($node->safe_psql($database, $same{$what}), $node->safe_psql('crm', $same{$what}), "$database: $what");
	}
	is($node->safe_psql($database, $verify), '', "$database: verify() finds nothing");
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
