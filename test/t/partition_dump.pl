#!/usr/bin/env perl
# Dump and restore of a partitioned lead table: the triggers come along, those that PostgreSQL clones and those that it does not,
# once each, and the history goes on, at the leaves as well.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $moves = 'SELECT lead, seq, cycle, from_status, to_status, cause, at FROM crm.leads_history ORDER BY lead, seq';
my $triggers = q{SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), tgenabled, tgparentid <> 0 FROM pg_trigger
                 WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'crm.%' AND tgname <> 'lifecycle_guard' ORDER BY tgrelid::regclass::text, tgname};
my $verify = q{SELECT * FROM lifecycle.verify('crm.leads')};

my $node = PostgreSQL::Test::Cluster->new('partitions');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE sales LOGIN');
$node->safe_psql('postgres', 'CREATE DATABASE crm OWNER sales');
$node->safe_psql('crm', q{
    CREATE EXTENSION lifecycle;
    SET ROLE sales;
    CREATE SCHEMA crm;
    CREATE TABLE crm.campaigns (id int PRIMARY KEY);
    CREATE TABLE crm.leads (id int PRIMARY KEY, campaign int REFERENCES crm.campaigns) PARTITION BY RANGE (id);
    CREATE TABLE crm.low PARTITION OF crm.leads FOR VALUES FROM (0) TO (10);
    CREATE TABLE crm.high PARTITION OF crm.leads FOR VALUES FROM (10) TO (30) PARTITION BY HASH (id);
    CREATE TABLE crm.high0 PARTITION OF crm.high FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    SELECT lifecycle.track('crm.leads');
    CREATE TABLE crm.high1 PARTITION OF crm.high FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO crm.campaigns VALUES (1);
    INSERT INTO crm.leads (id, campaign) SELECT g, 1 FROM generate_series(1, 29) AS g;
    UPDATE crm.leads SET lifecycle_status = 'mql' WHERE id % 2 = 0;
    DELETE FROM crm.high WHERE id > 25;
    INSERT INTO lifecycle.rule (on_table, name, condition, points) VALUES ('crm.leads', 'campaign', 'campaign = 1', '7');
    CREATE TABLE crm.calls (id int PRIMARY KEY, lead int REFERENCES crm.leads);
    INSERT INTO crm.calls VALUES (1, 1), (2, 12);
});
$node->safe_psql('crm', q{CALL lifecycle.rescore('crm.leads')});
is($node->safe_psql('crm', $verify), '', 'the table is consistent before the dump');

my $file = "$PostgreSQL::Test::Utils::tmp_check/partitions";
foreach my $user (scalar getpwuid($>), 'sales')
{
	my @as = $user eq 'sales' ? ('--username', 'sales') : ();
	$node->command_ok([ 'pg_dump', @as, '--format=custom', '--file', "$file.$user", 'crm' ], "pg_dump as $user");
	{
		my $database = "crm_$user";
		$node->safe_psql('postgres', "CREATE DATABASE $database");
		$node->command_ok([ 'pg_restore', '--exit-on-error', '--dbname', $database, "$file.$user" ],
			"restored what $user dumped");
		is($node->safe_psql($database, $moves), $node->safe_psql('crm', $moves), "$database: the history is there");
		is($node->safe_psql($database, $triggers), $node->safe_psql('crm', $triggers), "$database: the triggers are there, once each");
		is($node->safe_psql($database, $verify), '', "$database: verify() finds nothing");
		$node->safe_psql($database, q{
			SET ROLE sales;
			INSERT INTO crm.leads (id) VALUES (27);
			UPDATE crm.high SET lifecycle_status = 'sal' WHERE lifecycle_status = 'mql';
			UPDATE crm.low SET lifecycle_status = 'lost' WHERE id = 2;
			CREATE TABLE crm.new PARTITION OF crm.leads DEFAULT;
			INSERT INTO crm.new (id) VALUES (100);
			TRUNCATE crm.low CASCADE;
		});
		is($node->safe_psql($database, q{SELECT lead, seq, cycle, to_status FROM crm.leads_history WHERE lead IN (2, 12, 27, 100) AND seq > CASE WHEN lead = 100 THEN 0 ELSE 2 END ORDER BY lead, seq}),
			"2|3|1|lost\n2|4|1|\n12|3|1|sal\n27|3|2|known\n100|1|1|known", "$database: writes continue the history");
		is($node->safe_psql($database, $verify), '', "$database: verify() finds nothing after the writes");
		$node->safe_psql($database, 'ALTER TABLE crm.leads RENAME campaign TO drive; UPDATE crm.high SET drive = NULL WHERE id = 11; UPDATE crm.leads SET drive = drive, id = id WHERE id = 12; INSERT INTO crm.leads (id, drive) VALUES (28, 1)');
		is($node->safe_psql($database, 'SELECT id, demographic_score FROM crm.leads WHERE id IN (11, 28) ORDER BY id'), "11|0\n28|7",
			"$database: rules are obeyed in the partitions, and follow a rename");
		$node->safe_psql('postgres', "DROP DATABASE $database");
	}
}

# without the program's row, a write at a leaf says so, and untrack() helps
$node->command_ok([ 'pg_dump', '--schema-only', '--format=custom', '--file', "$file.schema", 'crm' ], 'pg_dump --schema-only');
$node->safe_psql('postgres', 'CREATE DATABASE empty');
$node->command_ok([ 'pg_restore', '--exit-on-error', '--dbname', 'empty', "$file.schema" ], 'restored the schema');
my ($code, $out, $err) = $node->psql('empty', "\\set VERBOSITY verbose\nINSERT INTO crm.low (id) VALUES (1)");
like($err, qr/ERROR:  55000: /, 'a write at a leaf of a table whose program is missing is an error');
$node->safe_psql('empty', "SELECT lifecycle.untrack('crm.leads')");
is($node->safe_psql('empty', $triggers), '', 'untrack() takes the triggers off all');
$node->safe_psql('empty', "SELECT lifecycle.track('crm.leads')");
$node->safe_psql('empty', 'INSERT INTO crm.low (id) VALUES (1)');
is($node->safe_psql('empty', $verify), '', 'tracked again, it works');
$node->stop;

done_testing();
