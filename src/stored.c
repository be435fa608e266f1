/*-------------------------------------------------------------------------
 *
 * stored.c
 *	  Where texts and names that DDL may concern are stored, and which of them
 *	  mention a name.
 *
 * Further expressions that are stored become lines of places[].
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "follow.h"

#include <ctype.h>

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static const Place places[] =
{
	{"program", "lead_table", "key", true, true, InvalidOid},
	{"program", "lead_table", "status_column", true, true, InvalidOid},
	{"program", "lead_table", "lifecycle_since", true, false, TIMESTAMPTZOID},
	{"program", "lead_table", "lifecycle_seq", true, false, INT4OID},
	{"program", "lead_table", "demographic_score", true, false, FLOAT8OID},
	{"program", "lead_table", "entered", false, true, TIMESTAMPTZOID},
	{"program", "lead_table", "source", false, true, TEXTOID},
	{"program", "lead_table", "value", false, true, NUMERICOID},
	{"program", "lead_table", "actor", false, true, TEXTOID},
	{"program", "lead_table", "reason", false, true, TEXTOID},
	{"program", "lead_table", "cohort", false, true, INT4OID},
	{"rule", "on_table", "condition", false, true, BOOLOID},
	{"rule", "on_table", "points", false, true, FLOAT8OID},
	{"rule", "on_table", "unless_other", false, true, BOOLOID},
	{"signal", "signal_table", "lead", false, true, InvalidOid},
	{"signal", "signal_table", "at", false, true, TIMESTAMPTZOID},
};

static bool
is_identifier_char(unsigned char c)
{
	return isalnum(c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

/* Whether the name stands in the text, and not as a part of another word. */
static bool
has_word(const char *text, const char *name)
{
	size_t		len = strlen(name);

	if (len == 0)
		return false;
	for (const char *p = strstr(text, name); p != NULL; p = strstr(p + 1, name))
	{
		if (!is_identifier_char(name[0]) ||
			((p == text || !is_identifier_char(p[-1])) && !is_identifier_char(p[len])))
			return true;
	}
	return false;
}

/* Whether a stored text may name one of them. */
static bool
mentions(const char *text, bool is_name, List *names)
{
	ListCell   *cell;

	if (names == NIL)
		return true;
	foreach(cell, names)
	{
		char	   *name = lfirst(cell);

		if (is_name ? strcmp(text, name) == 0 :
			(has_word(text, name) || has_word(text, quote_identifier(name))))
			return true;
	}
	return false;
}

/*
 * A column of the row as text, or NULL where it, or the column, is not there.
 */
static char *
stored_text(TupleTableSlot *slot, Relation config, const char *column)
{
	AttrNumber	attno = get_attnum(RelationGetRelid(config), column);
	bool		isnull;
	Datum		d;

	if (attno <= 0)
		return NULL;
	d = slot_getattr(slot, attno, &isnull);
	if (isnull)
		return NULL;
	if (TupleDescAttr(RelationGetDescr(config), attno - 1)->atttypid == NAMEOID)
		return pstrdup(NameStr(*DatumGetName(d)));
	return TextDatumGetCString(d);
}

/* Programs first, rules by name: what is complained of is always the same. */
static int
compare_items(const ListCell *a, const ListCell *b)
{
	const Subject *x = lfirst(a);
	const Subject *y = lfirst(b);
	int			by_rule = x->rule && y->rule ? strcmp(x->rule, y->rule) : 0;

	return by_rule != 0 ? by_rule : (int) (x->place - y->place);
}

/*
 * All that is stored and mentions one of the names.  Read with a latest
 * snapshot: what is in force is what others obey.
 */
List *
lc_stored_read(List *names)
{
	static const char *const configs[] = {"program", "rule", "signal"};
	List	   *items = NIL;

	for (int c = 0; c < lengthof(configs); c++)
	{
		Relation	config = table_open(lc_config_relid(configs[c]), AccessShareLock);
		Snapshot	snapshot = RegisterSnapshot(lc_latest_snapshot());
		TableScanDesc scan = table_beginscan(config, snapshot, 0, NULL);
		TupleTableSlot *slot = table_slot_create(config, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			for (int i = 0; i < lengthof(places); i++)
			{
				Subject    *item;
				char	   *text;
				bool		isnull;

				if (strcmp(places[i].config, configs[c]) != 0)
					continue;
				text = places[i].is_stored ? stored_text(slot, config, places[i].column) :
					pstrdup(places[i].column);
				if (text == NULL || !mentions(text, places[i].is_name, names))
					continue;
				item = palloc0(sizeof(Subject));
				item->place = &places[i];
				item->relid = DatumGetObjectId(slot_getattr(slot, get_attnum(RelationGetRelid(config), places[i].of_table), &isnull));
				item->text = text;
				item->rule = c == 1 ? stored_text(slot, config, "name") : NULL;
				items = lappend(items, item);
			}
		}
		ExecDropSingleTupleTableSlot(slot);
		table_endscan(scan);
		UnregisterSnapshot(snapshot);
		table_close(config, AccessShareLock);
	}
	list_sort(items, compare_items);
	return items;
}

/* Whether both are the same place of the same row. */
bool
lc_stored_is_same(const Subject *a, const Subject *b)
{
	return a->place == b->place && a->relid == b->relid &&
		(a->rule == NULL || strcmp(a->rule, b->rule) == 0);
}

/*
 * The text as it is stored now, among all that is; NULL where it is gone or
 * somebody gave it another meaning.
 */
const char *
lc_stored_text_of_now(const Subject *item, List *items)
{
	ListCell   *cell;
	ListCell   *t;

	foreach(cell, items)
	{
		Subject    *other = lfirst(cell);

		if (!lc_stored_is_same(item, other))
			continue;
		if (strcmp(other->text, item->text) == 0)
			return other->text;
		foreach(t, item->rewritten)
		{
			if (strcmp(other->text, lfirst(t)) == 0)
				return other->text;
		}
		return NULL;
	}
	return NULL;
}

/* Whether the table is tracked, or a table that it is a partition of is. */
bool
lc_stored_governs(Oid relid)
{
	List	   *items = lc_stored_read(NIL);
	ListCell   *cell;

	for (; OidIsValid(relid); relid = lc_partition_parent(relid))
	{
		foreach(cell, items)
		{
			if (((Subject *) lfirst(cell))->relid == relid)
				return true;
		}
	}
	return false;
}
