/*-------------------------------------------------------------------------
 *
 * follow.c
 *	  What becomes of stored expressions and names when DDL changes what they
 *	  name: renames are followed, what would break them is refused.
 *
 * A program and its rules are text that names columns, functions, types,
 * operators, collations and values of enums, which the server knows nothing of.
 * So we look at both ends of a command.  When it begins, the texts that it may
 * concern are compiled: a compiled expression knows what it uses by OID and
 * number, not by name.  What was dropped is then found among these; and when
 * the command ends, the compiled expression is printed again, which gives the
 * new names, whatever was renamed and however functions are overloaded.  A text
 * that changed is put in the place of the old one, in the same transaction.
 *
 * What a command may concern is told from its parse tree; a text is compiled
 * only where it contains the name that is changed, or where what else goes
 * cannot be known beforehand (CASCADE).  Other commands cost nothing, or a look
 * at the two tables.
 *
 * Locks.  A command on a column of a tracked table takes the lock that it would
 * take an instant later, before the texts are read: whoever writes a rule of
 * the table holds a lock on it until he commits, so none that names the old
 * column is missed.  Functions, types and the like have no such lock: a rule
 * that is being written while one is renamed may miss it, and gives an error
 * when it is used.
 *
 * Security.  Texts are compiled and printed as the owner of their table in a
 * security-restricted operation, whoever runs the command; he needs no right on
 * the tables here.  A text protects what it uses from being dropped only as
 * long as its table's owner may use it: whoever owns a function can take that
 * back by REVOKE, and so get rid of users whom he did not choose.
 *
 * The parts: command.c tells from a command what it may do, stored.c reads what
 * that may concern, uses.c finds out what an expression hangs on, refuse.c
 * complains.  Here is what becomes of a command from its begin to its end.
 *
 * Event triggers do not fire with session_replication_role = replica, nor where
 * they are disabled.  What is broken then says so at its next use.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "follow.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(lifecycle_follow);

/* Those under way, the innermost first. */
static Command *commands = NULL;
static bool rewriting = false;

/*
 * Whether the row of lifecycle.program or lifecycle.rule that is being written
 * is written by us: the triggers that check what users write let it through.
 */
bool
lc_follow_is_rewriting(void)
{
	return rewriting;
}

/*
 * Run one statement of ours on the configuration tables, past those triggers.
 */
void
lc_follow_execute(const char *sql, int nargs, Oid *types, Datum *values, int expected)
{
	rewriting = true;
	PG_TRY();
	{
		lc_execute_as_extension(sql, nargs, types, values, NULL, expected, NULL);
	}
	PG_FINALLY();
	{
		rewriting = false;
	}
	PG_END_TRY();
}

/* Forget the innermost command. */
static void
end_command(void)
{
	Command    *command = commands;

	commands = command->outer;
	MemoryContextDelete(command->cxt);
}

/*
 * What a subtransaction began and did not end is void when it aborts.
 */
void
lc_follow_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent)
{
	while (!commit && commands != NULL && commands->subid == mine)
		end_command();
	for (Command *command = commands; command != NULL && command->subid == mine;
		 command = command->outer)
		command->subid = parent;
}

/*
 * The memory of all that goes with the transaction.
 */
void
lc_follow_end_transaction(void)
{
	commands = NULL;
	rewriting = false;
}

/* ---- compiling what may be broken ---- */

/* Which expression it is, for messages. */
static const char *
what_is(const Subject *item)
{
	if (IS_RULE(item))
		return psprintf("%s of rule \"%s\"", item->place->column, item->rule);
	return psprintf("expression for \"%s\"", item->place->column);
}

/*
 * Compile the text; or give the error that it leads to.  Nothing that went
 * wrong is left, whatever it was; what is not about the text goes on.
 */
static Node *
try_compile(Relation rel, const Subject *item, const char *text, ErrorData **error)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Node	   *volatile tree = NULL;

	*error = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		tree = lc_expr_tree(rel, what_is(item), text, item->place->type);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		tree = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	if (*error != NULL &&
		(ERRCODE_TO_CATEGORY((*error)->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
		 ERRCODE_TO_CATEGORY((*error)->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES))
		ReThrowError(*error);
	return tree;
}

/*
 * Note what the item means before the command: which column, or what the text
 * uses.  A text that is broken already means nothing, and nothing can be done
 * to it.
 */
static void
look_up(Subject *item)
{
	Relation	rel = try_relation_open(item->relid, AccessShareLock);
	ErrorData  *error;

	if (rel == NULL)
		return;
	item->holds = true;
	if (item->place->is_name)
	{
		item->attno = get_attnum(item->relid, item->text);
		if (item->attno > 0)
			item->uses = lc_uses_of_column(item->relid, item->attno);
	}
	else if ((item->tree = try_compile(rel, item, item->text, &error)) != NULL)
		item->uses = lc_uses_of_tree(item->tree, item->relid, rel->rd_rel->relowner, &item->holds);
	relation_close(rel, AccessShareLock);
}

/* ---- following ---- */

/*
 * Put another text in the place of that of now.  Commands that this one is
 * inside of know the text as it was.
 */
static void
rewrite(Command *command, const Subject *item, const char *old, const char *text)
{
	Oid			types[4] = {TEXTOID, REGCLASSOID, TEXTOID, TEXTOID};
	Datum		values[4];
	const char *column = item->place->column;

	values[0] = CStringGetTextDatum(text);
	values[1] = ObjectIdGetDatum(item->relid);
	values[2] = CStringGetTextDatum(old);
	if (IS_RULE(item))
	{
		values[3] = CStringGetTextDatum(item->rule);
		lc_follow_execute(psprintf("UPDATE lifecycle.rule SET %s = $1 WHERE on_table = $2 AND %s = $3 AND name = $4",
								   column, column),
						  4, types, values, SPI_OK_UPDATE);
	}
	else
		lc_follow_execute(psprintf("UPDATE lifecycle.%s SET %s = $1%s WHERE %s = $2 AND %s::text = $3",
								   item->place->config, column, item->place->is_name ? "::name" : "",
								   item->place->of_table, column),
						  3, types, values, SPI_OK_UPDATE);

	for (Command *outer = command->outer; outer != NULL; outer = outer->outer)
	{
		MemoryContext old_cxt = MemoryContextSwitchTo(outer->cxt);
		ListCell   *cell;

		foreach(cell, outer->items)
		{
			Subject    *known = lfirst(cell);

			if (lc_stored_is_same(known, item))
				known->rewritten = lappend(known->rewritten, pstrdup(text));
		}
		MemoryContextSwitchTo(old_cxt);
	}
}

/*
 * A name of a column: refuse that ours is changed, follow the others.
 */
static void
follow_name(Command *command, const Subject *item, const char *old)
{
	char	   *name = get_attname(item->relid, item->attno, true);
	Oid			type = get_atttype(item->relid, item->attno);
	bool		is_status = strcmp(item->place->column, "status_column") == 0;

	if (!OidIsValid(type))
		return;
	if ((OidIsValid(item->place->type) && type != item->place->type) ||
		(is_status && type != TEXTOID && type != VARCHAROID && !type_is_enum(type)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change the type of column \"%s\" of tracked table \"%s\" to %s",
						item->text, lc_table_name(item->relid), format_type_be(type)),
				 is_status ? errdetail("A status column is an enum, text or character varying.") :
				 errdetail("It is kept by lifecycle.")));
	if (strcmp(name, old) == 0)
		return;
	if (!item->place->is_stored)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot rename column \"%s\" of tracked table \"%s\"", item->text,
						lc_table_name(item->relid)),
				 errdetail("It is kept by lifecycle."),
				 errhint("To be rid of it, call lifecycle.untrack(%s, drop_data => true), which drops the history as well.",
						 quote_literal_cstr(lc_table_name(item->relid)))));
	rewrite(command, item, old, name);
}

/*
 * A text: print what it means with the names of now, and see whether that
 * still compiles, to the same.
 */
static void
follow_text(Command *command, const Subject *item, const char *old)
{
	Relation	rel = relation_open(item->relid, AccessShareLock);
	const char *text = old;
	ErrorData  *error;
	Node	   *tree;

	if (command->concern.renames)
		text = lc_expr_text(rel, item->tree);
	tree = try_compile(rel, item, text, &error);
	if (tree == NULL && item->holds)
		lc_refuse_broken(command, item,
						 psprintf("%s%s%s", error->message, error->detail ? ": " : "",
								  error->detail ? error->detail : ""));
	if (tree != NULL && item->holds && command->concern.meanings &&
		!lc_uses_same_functions(tree, item->tree))
		lc_refuse_broken(command, item,
						 psprintf("%s would call another function of the same name.", text));
	relation_close(rel, AccessShareLock);
	if (strcmp(text, old) != 0)
		rewrite(command, item, old, text);
}

/*
 * ddl_command_end: all that is stored and still there is followed.
 */
static void
follow(Command *command)
{
	List	   *now = lc_stored_read(NIL);
	ListCell   *cell;

	foreach(cell, command->items)
	{
		Subject    *item = lfirst(cell);
		const char *text;

		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(item->relid)) ||
			(text = lc_stored_text_of_now(item, now)) == NULL || lc_uses_any_gone(item->uses))
			continue;
		if (item->place->is_name && item->attno > 0)
			follow_name(command, item, text);
		else if (item->tree != NULL)
			follow_text(command, item, text);
	}
}

/* ---- the event triggers ---- */

/*
 * The command that began with this parse tree.  Those inside of it did not
 * come to their end.
 */
static Command *
find_command(Node *parsetree)
{
	for (Command *command = commands; command != NULL; command = command->outer)
	{
		if (command->parsetree == parsetree)
		{
			while (commands != command)
				end_command();
			return command;
		}
	}
	return NULL;
}

/*
 * ddl_command_start: note what the command may concern.
 */
static void
begin_command(Node *parsetree)
{
	Concern		concern;
	MemoryContext cxt;
	MemoryContext old;
	Command    *command;
	List	   *items;
	ListCell   *cell;

	/* one that had this place in memory before and did not come to its end */
	if (find_command(parsetree) != NULL)
		end_command();
	if (!lc_command_concern(parsetree, &concern))
		return;
	if (concern.relation != NULL)
	{
		Oid			relid = RangeVarGetRelid(concern.relation, NoLock, true);

		if (OidIsValid(relid) && lc_stored_governs(relid))
			(void) RangeVarGetRelidExtended(concern.relation, concern.lockmode, RVR_MISSING_OK,
											RangeVarCallbackOwnsRelation, NULL);
	}
	if ((items = lc_stored_read(concern.names)) == NIL)
		return;

	cxt = AllocSetContextCreate(TopTransactionContext, "lifecycle command", ALLOCSET_SMALL_SIZES);
	foreach(cell, items)
		look_up(lfirst(cell));

	/* all that may fail is done */
	old = MemoryContextSwitchTo(cxt);
	command = palloc0(sizeof(Command));
	command->cxt = cxt;
	command->parsetree = parsetree;
	command->concern = concern;
	command->concern.names = NIL;
	command->concern.relation = NULL;
	command->subid = GetCurrentSubTransactionId();
	foreach(cell, items)
	{
		Subject    *item = lfirst(cell);
		Subject    *kept = palloc(sizeof(Subject));
		ListCell   *u;

		*kept = *item;
		kept->rule = item->rule ? pstrdup(item->rule) : NULL;
		kept->text = pstrdup(item->text);
		kept->tree = copyObject(item->tree);
		kept->uses = NIL;
		foreach(u, item->uses)
		{
			ObjectAddress *use = palloc(sizeof(ObjectAddress));

			*use = *(ObjectAddress *) lfirst(u);
			kept->uses = lappend(kept->uses, use);
		}
		command->items = lappend(command->items, kept);
	}
	MemoryContextSwitchTo(old);
	command->outer = commands;
	commands = command;
}

/*
 * Event trigger on ddl_command_start, sql_drop and ddl_command_end.
 */
Datum
lifecycle_follow(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = (EventTriggerData *) fcinfo->context;
	Oid			schema = get_namespace_oid("lifecycle", true);
	Command    *command;

	lc_require_event_trigger(fcinfo, "follow");
	/* half an extension */
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("program", schema)) ||
		!OidIsValid(get_relname_relid("rule", schema)) || !OidIsValid(get_relname_relid("signal", schema)))
		PG_RETURN_NULL();

	if (strcmp(event->event, "ddl_command_start") == 0)
		begin_command(event->parsetree);
	else if ((command = find_command(event->parsetree)) == NULL)
		PG_RETURN_NULL();
	else if (strcmp(event->event, "sql_drop") == 0)
		lc_refuse_dropped(command);
	else
	{
		follow(command);
		end_command();
	}
	PG_RETURN_NULL();
}
