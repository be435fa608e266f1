/*-------------------------------------------------------------------------
 *
 * refuse.c
 *	  Refusing commands that take away what a stored text or name needs, or
 *	  that change what it means.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "follow.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* The rule or the expression that stands in the way, and how to remove it. */
static void
describe_item(const Subject *item, char **description, char **remedy)
{
	char	   *table = lc_table_name(item->relid);

	if (IS_RULE(item))
	{
		*description = psprintf("rule \"%s\" of table \"%s\"", item->rule, table);
		*remedy = psprintf("Change the rule first, or DELETE FROM lifecycle.rule WHERE on_table = %s::regclass AND name = %s.",
						   quote_literal_cstr(table), quote_literal_cstr(item->rule));
	}
	else if (IS_SIGNAL(item))
	{
		*description = psprintf("expression \"%s\" of signal table \"%s\"",
								item->place->column, table);
		*remedy = psprintf("Call lifecycle.untrack_signal(%s) first.", quote_literal_cstr(table));
	}
	else
	{
		*description = psprintf("expression \"%s\" of tracked table \"%s\"",
								item->place->column, table);
		*remedy = psprintf("Change it first, or UPDATE lifecycle.program SET %s = NULL WHERE lead_table = %s::regclass.",
						   item->place->column, quote_literal_cstr(table));
	}
}

/*
 * What the command dropped, as the list of the server's names it.
 */
static char *
describe_dropped(const ObjectAddress *object)
{
	Oid			types[3] = {OIDOID, OIDOID, INT4OID};
	Datum		values[3];
	char	   *description = NULL;
	MemoryContext cxt = CurrentMemoryContext;

	values[0] = ObjectIdGetDatum(object->classId);
	values[1] = ObjectIdGetDatum(object->objectId);
	values[2] = Int32GetDatum(object->objectSubId);
	SPI_connect();
	if (SPI_execute_with_args("SELECT CASE WHEN d.objsubid OPERATOR(pg_catalog.<>) 0"
							  " THEN pg_catalog.format('column \"%s\" of table \"%s.%s\"', d.address_names[3], d.address_names[1], d.address_names[2])"
							  " ELSE pg_catalog.format('%s %s', d.object_type, d.object_identity) END"
							  " FROM pg_catalog.pg_event_trigger_dropped_objects() AS d"
							  " WHERE d.classid OPERATOR(pg_catalog.=) $1 AND d.objid OPERATOR(pg_catalog.=) $2"
							  " AND d.objsubid OPERATOR(pg_catalog.=) $3",
							  3, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the list of dropped objects");
	if (SPI_processed > 0)
		description = MemoryContextStrdup(cxt, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
	return description;
}

/*
 * sql_drop: refuse what takes away something that a text or a name needs.
 * Tables that are gone themselves take theirs along.
 */
void
lc_refuse_dropped(Command *command)
{
	List	   *now = NIL;
	ListCell   *cell;

	foreach(cell, command->items)
	{
		Subject    *item = lfirst(cell);
		ListCell   *u;

		if (!item->holds || !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(item->relid)))
			continue;
		foreach(u, item->uses)
		{
			char	   *dropped;
			char	   *description;
			char	   *remedy;

			if (!lc_use_is_gone(lfirst(u)))
				continue;
			dropped = describe_dropped(lfirst(u));
			if (now == NIL)
				now = lc_stored_read(NIL);
			if (dropped == NULL || lc_stored_text_of_now(item, now) == NULL)
				continue;
			if (item->place->is_name)
				ereport(ERROR,
						(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
						 errmsg("cannot drop %s because lifecycle keeps the leads by it", dropped),
						 errhint("Call lifecycle.untrack(%s) first.",
								 quote_literal_cstr(lc_table_name(item->relid)))));
			describe_item(item, &description, &remedy);
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop %s because %s reads it", dropped, description),
					 errdetail("The %s is: %s", item->place->column, item->text),
					 errhint("%s", remedy)));
		}
	}
}

/*
 * The text does not compile, or means something else, after the command.
 */
void
lc_refuse_broken(Command *command, const Subject *item, const char *detail)
{
	char	   *description;
	char	   *remedy;

	describe_item(item, &description, &remedy);
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("%s would break %s", GetCommandTagName(CreateCommandTag(command->parsetree)), description),
			 errdetail("%s", detail),
			 errhint("%s", remedy)));
}
