#!/usr/bin/env perl
# The demonstration works as a visitor sees it: it ends well, fits a terminal of
# 100 columns, tells the same on every run, raises no error but the one it is
# about; and what it invites to type can be typed.
use strict;
use warnings;
use utf8;
use Test::More;

my @shown = map { show("demo_$_") } 1, 2;
my $output = $shown[0];
my @lines = split /\n/, $output;

is($shown[1], $output, 'two runs print the same');
is_deeply([ grep { length > 100 } @lines ], [], 'no line is wider than 100 columns');
my @messages = grep { /^(?:psql.*)?(?:ERROR|FATAL|WARNING|NOTICE|DETAIL|HINT):/ } @lines;
is(scalar @messages, 3, 'one error is shown, with its detail and hint');
like($messages[0], qr/^ERROR:  lead \d+ of table "crm.leads" cannot move from "customer" to "mql"$/, 'it is the refused move');
like($messages[1], qr/^DETAIL:/, 'the detail comes second');
like($messages[2], qr/^HINT:  From "customer" a lead can become: recycled\.$/, 'the hint last');
like($output, qr/^ Known +│ +5000 │ █+ +│/m, 'the funnel begins with 5,000 leads and a full bar');
like($output, qr/^\(0 rows\)$/m, 'verify() has no rows');

my $tried = `psql -Xq -d demo_1 -f demo/try.sql 2>&1`;
is($?, 0, 'what the demonstration invites to type was typed');
unlike($tried, qr/ERROR|WARNING/, 'without an error');
is(() = $tried =~ /^\(\d+ rows?\)$/mg, () = slurp('demo/try.sql') =~ /^SELECT/mg, 'and each query had its result');
is(`psql -XqAt -d demo_1 -c "SELECT count(*) FROM lifecycle.verify('crm.leads')"`, "0\n", 'after which verify() still has no rows');

system('dropdb', '--force', $_) foreach 'demo_1', 'demo_2';
done_testing();

# What demo/run prints in a new database.
sub show
{
	my ($database) = @_;

	system('createdb', $database) == 0 or BAIL_OUT("cannot create database $database");
	my $printed = `PGDATABASE=$database demo/run 2>&1`;
	is($?, 0, "demo/run ends well in database $database");
	utf8::decode($printed);
	return $printed;
}

sub slurp
{
	my ($file) = @_;

	open my $handle, '<', $file or die "$file: $!";
	local $/;
	return <$handle>;
}
