#!/usr/bin/env perl
# What README.md and doc/*.md show is what happens.
#
# Each page is typed into psql as it stands: its ```sql blocks in their order,
# in one session, in a database of its own. Where a ```text block follows, it
# must be what psql printed for the block; a block that is not followed by one
# must not fail. And the files that a page links to must exist.
use strict;
use warnings;
use File::Basename qw(dirname);
use Test::More;

my $blocks_run = 0;

foreach my $page ('README.md', sort glob 'doc/*.md')
{
	my $text = slurp($page);
	my @blocks = blocks($text);

	foreach my $link ($text =~ /\]\((?!https?:|#)([^)#]+)/g)
	{
		ok(-e dirname($page) . "/$link", "$page: the link $link leads to a file");
	}
	next if !@blocks;

	# One session for the page; a line of our own ends the output of each block.
	(my $database = "page_$page") =~ s/\W+/_/g;
	my $file = "$ENV{TMPDIR}/$database.sql";
	open my $handle, '>', $file or die "$file: $!";
	print $handle map { "$_->{sql}\\echo === end of block\n" } @blocks;
	close $handle;
	system('createdb', $database) == 0 or BAIL_OUT("cannot create database $database");
	my @outputs = split /^=== end of block\n/m, `psql -Xq -P pager=off -d $database < $file 2>&1`, -1;
	is(scalar @outputs, @blocks + 1, "$page: psql came to its end");

	foreach my $block (@blocks)
	{
		my $output = tidy(shift @outputs);
		my $name = "$page, line $block->{line}";

		$blocks_run++;
		if (defined $block->{text})
		{
			is($output, tidy($block->{text}), "$name: the output is as shown");
		}
		else
		{
			unlike($output, qr/^(ERROR|FATAL|psql|invalid|\\)/m, "$name: no error");
		}
	}
	system('dropdb', '--force', $database);
	# a role outlives the database in which an example made it
	system('psql', '-Xq', '-d', 'postgres', '-c', 'SET client_min_messages = warning; DROP ROLE IF EXISTS revenue_operations');
}
cmp_ok($blocks_run, '>=', 8, 'the examples were found');

# The matrices of legal moves in doc/models.md are those of the extension.
{
	my $text = slurp('doc/models.md');

	system('createdb', 'page_matrix') == 0 or BAIL_OUT('cannot create database page_matrix');
	system('psql', '-Xq', '-d', 'page_matrix', '-c', 'CREATE EXTENSION lifecycle');
	foreach my $model ('standard', 'etumos')
	{
		my ($matrix) = $text =~ /^\*\*$model\*\*,.*?\n\n(\|.*?)\n\n/ms;
		my ($head, undef, @rows) = map { [ map { s/^\s+|\s+$//gr } (split /\|/, $_, -1)[ 1 .. tr/|// - 1 ] ] } split /\n/, $matrix;
		my @moves;

		foreach my $row (@rows)
		{
			push @moves, map { "$row->[0]>$head->[$_]" } grep { $row->[$_] } 1 .. $#$head;
		}
		s/\*//g foreach @moves;
		my $has = `psql -XqAt -d page_matrix -c "SELECT from_status || '>' || to_status FROM lifecycle.transition WHERE model = '$model'"`;
		is_deeply([ sort @moves ], [ sort split /\n/, $has ], "doc/models.md: the moves of $model are as shown");
	}
	system('dropdb', '--force', 'page_matrix');
}

# The files that repeat the version or name the documentation agree.
my $meta = slurp('META.json');
my ($version) = slurp('lifecycle.control') =~ /^default_version = '([^']+)'/m;
my @versions = $meta =~ /^ +"version": "(\d+\.\d+\.\d+)",?$/mg;
is_deeply([ @versions[ 0, 1 ] ], [ $version, $version ], 'META.json has the version of the control file, twice');
foreach my $file ($meta =~ /"(?:file|docfile)": "([^"]+)"/g)
{
	ok(-f $file, "META.json: there is $file");
}
like(slurp('CHANGELOG.md'), qr/^## \Q$version\E \(/m, 'CHANGELOG.md has a heading for that version');
done_testing();

# The ```sql blocks of a page, each with the ```text block that follows it, if one does.
sub blocks
{
	my ($text) = @_;
	my @found;

	while ($text =~ /^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?/msg)
	{
		my ($sql, $shown, $before) = ($1, $2, substr($text, 0, $-[0]));

		push @found, { sql => $sql, text => $shown, line => 1 + ($before =~ tr/\n//) };
	}
	return @found;
}

# psql pads cells and ends tables with an empty line; editors strip both.
sub tidy
{
	my ($text) = @_;

	$text =~ s/[ \t]+$//mg;
	$text =~ s/\A\n+|\n+\z//g;
	return $text;
}

sub slurp
{
	my ($file) = @_;

	open my $handle, '<', $file or die "$file: $!";
	local $/;
	return <$handle>;
}
