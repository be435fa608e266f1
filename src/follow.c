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
 * Event triggers do not fire with session_replication_role = replica, nor where
 * they are disabled.  What is broken then says so at its next use.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <ctype.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_ts_config.h"
#include "catalog/pg_ts_dict.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_type.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(lifecycle_follow);

/*
 * Where texts and names are stored.  A name is one of a column of the table;
 * those that are not stored are our own.
 */
static const struct
{
	const char *config;			/* table of ours */
	const char *of_table;		/* its column that says of which table it speaks */
	const char *column;			/* its column that holds the text, or our column */
	bool		is_name;
	bool		is_stored;
	Oid			type;
}			places[] =
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
};

#define IS_RULE(item) (strcmp(places[(item)->place].config, "rule") == 0)

/* A text or name that a command may concern. */
typedef struct Subject
{
	int			place;
	Oid			relid;			/* the table over whose rows it speaks */
	char	   *rule;			/* the name of the rule */
	char	   *text;			/* as it was when the command began */
	List	   *rewritten;		/* of char *: what DDL inside of the command made of it */
	AttrNumber	attno;			/* of a name: the column */
	Node	   *tree;			/* of a text: what it meant, or NULL */
	bool		holds;			/* the table's owner may use all that it uses */
	List	   *uses;			/* of ObjectAddress: what that hangs on */
} Subject;

/* What has to be done for a command. */
typedef struct Concern
{
	bool		renames;		/* names change */
	bool		changes;		/* what names mean changes */
	bool		meanings;		/* names may come to mean another function */
	List	   *names;			/* of char *: only texts that have one; NIL: all */
	RangeVar   *relation;		/* the table that the command locks ... */
	LOCKMODE	lockmode;		/* ... in this mode, or NoLock */
} Concern;

/* A command that is under way. */
typedef struct Command
{
	struct Command *outer;
	Node	   *parsetree;
	SubTransactionId subid;
	MemoryContext cxt;
	Concern		concern;
	List	   *items;
} Command;

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

/* ---- what a command is about ---- */

/* The last part of the name that a command gives an object. */
static char *
name_of_object(Node *object)
{
	if (object == NULL)
		return NULL;
	switch (nodeTag(object))
	{
		case T_String:
			return strVal(object);
		case T_List:
			return list_length((List *) object) > 0 ? name_of_object(llast((List *) object)) : NULL;
		case T_ObjectWithArgs:
			return name_of_object((Node *) ((ObjectWithArgs *) object)->objname);
		case T_TypeName:
			return name_of_object((Node *) ((TypeName *) object)->names);
		default:
			return NULL;
	}
}

/*
 * Find out what the command may do to texts and names; false where nothing.
 */
static bool
is_of_concern(Node *parsetree, Concern *concern)
{
	ListCell   *cell;

	memset(concern, 0, sizeof(Concern));
	switch (nodeTag(parsetree))
	{
		case T_RenameStmt:
			{
				RenameStmt *stmt = (RenameStmt *) parsetree;
				char	   *name = NULL;

				if (stmt->renameType == OBJECT_COLUMN || stmt->renameType == OBJECT_ATTRIBUTE ||
					stmt->renameType == OBJECT_SCHEMA)
					name = stmt->subname;
				else if (stmt->renameType == OBJECT_TABCONSTRAINT ||
						 stmt->renameType == OBJECT_DOMCONSTRAINT ||
						 stmt->renameType == OBJECT_TRIGGER || stmt->renameType == OBJECT_POLICY ||
						 stmt->renameType == OBJECT_RULE)
					return false;
				else if (stmt->relation != NULL)
					name = stmt->relation->relname;
				else
					name = name_of_object(stmt->object);
				/* a text may also come to mean what has the new name */
				if (name != NULL)
					concern->names = list_make2(name, stmt->newname);
				if (stmt->renameType == OBJECT_COLUMN && stmt->relationType == OBJECT_TABLE)
				{
					concern->relation = stmt->relation;
					concern->lockmode = AccessExclusiveLock;
				}
				concern->renames = true;
				concern->meanings = true;
				return true;
			}
		case T_AlterObjectSchemaStmt:
			concern->renames = true;
			concern->meanings = true;
			return true;
		case T_AlterEnumStmt:
			concern->renames = true;
			return ((AlterEnumStmt *) parsetree)->oldVal != NULL;
		case T_DropStmt:
			{
				DropStmt   *stmt = (DropStmt *) parsetree;

				if (stmt->removeType == OBJECT_TRIGGER || stmt->removeType == OBJECT_POLICY ||
					stmt->removeType == OBJECT_RULE || stmt->removeType == OBJECT_EVENT_TRIGGER)
					return false;
				concern->changes = true;
				concern->meanings = true;
				/* where nothing else goes, a text that uses it names it, but for casts */
				foreach(cell, stmt->objects)
				{
					char	   *name = name_of_object(lfirst(cell));

					if (stmt->behavior == DROP_CASCADE || stmt->removeType == OBJECT_CAST ||
						stmt->removeType == OBJECT_OPCLASS || stmt->removeType == OBJECT_OPFAMILY ||
						stmt->removeType == OBJECT_EXTENSION || name == NULL)
					{
						concern->names = NIL;
						break;
					}
					concern->names = lappend(concern->names, name);
				}
				return true;
			}
		case T_DropOwnedStmt:
			concern->changes = true;
			concern->meanings = true;
			return true;
		case T_AlterTableStmt:
			{
				AlterTableStmt *stmt = (AlterTableStmt *) parsetree;
				bool		cascade = false;

				foreach(cell, stmt->cmds)
				{
					AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

					if (cmd->subtype != AT_DropColumn && cmd->subtype != AT_AlterColumnType)
						continue;
					if (cmd->behavior == DROP_CASCADE)
						cascade = true;
					concern->names = lappend(concern->names, cmd->name);
				}
				if (concern->names == NIL)
					return false;
				if (cascade)
					concern->names = NIL;
				if (stmt->objtype == OBJECT_TABLE)
				{
					concern->relation = stmt->relation;
					concern->lockmode = AlterTableGetLockLevel(stmt->cmds);
				}
				concern->changes = true;
				return true;
			}
		case T_CreateFunctionStmt:
			concern->names = list_make1(name_of_object((Node *) ((CreateFunctionStmt *) parsetree)->funcname));
			concern->changes = true;
			concern->meanings = true;
			return true;
		case T_AlterFunctionStmt:
			concern->names = list_make1(name_of_object((Node *) ((AlterFunctionStmt *) parsetree)->func));
			concern->changes = true;
			return true;
		default:
			return false;
	}
}

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

/* ---- reading what is stored ---- */

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

	return by_rule != 0 ? by_rule : x->place - y->place;
}

/*
 * All that is stored and mentions one of the names.  Read with a latest
 * snapshot: what is in force is what others obey.
 */
static List *
read_items(List *names)
{
	static const char *const configs[] = {"program", "rule"};
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
				item->place = i;
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
static bool
is_same(const Subject *a, const Subject *b)
{
	return a->place == b->place && a->relid == b->relid &&
		(a->rule == NULL || strcmp(a->rule, b->rule) == 0);
}

/*
 * The text as it is stored now, among all that is; NULL where it is gone or
 * somebody gave it another meaning.
 */
static const char *
text_of_now(const Subject *item, List *items)
{
	ListCell   *cell;
	ListCell   *t;

	foreach(cell, items)
	{
		Subject    *other = lfirst(cell);

		if (!is_same(item, other))
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
static bool
is_governed(Oid relid)
{
	List	   *items = read_items(NIL);
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

/* ---- what an expression uses ---- */

typedef struct UsesContext
{
	List	   *uses;			/* of ObjectAddress */
	Oid			owner;
	bool		may_run;		/* the owner may call all that it calls */
} UsesContext;

static void
add_use(UsesContext *ctx, Oid classid, Oid objid, int32 subid)
{
	ObjectAddress *use;

	if (objid < FirstNormalObjectId)
		return;
	use = palloc(sizeof(ObjectAddress));
	ObjectAddressSubSet(*use, classid, objid, subid);
	ctx->uses = lappend(ctx->uses, use);
}

static bool
add_function(Oid funcid, void *context)
{
	UsesContext *ctx = context;

	add_use(ctx, ProcedureRelationId, funcid, 0);
	if (!lc_may_execute(funcid, ctx->owner))
		ctx->may_run = false;
	return false;
}

/* What the constant points at, where it is the OID of something. */
static void
add_constant(UsesContext *ctx, Const *constant)
{
	Oid			objid;

	if (constant->constisnull || !constant->constbyval)
		return;
	objid = DatumGetObjectId(constant->constvalue);
	switch (constant->consttype)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
			add_use(ctx, ProcedureRelationId, objid, 0);
			break;
		case REGOPEROID:
		case REGOPERATOROID:
			add_use(ctx, OperatorRelationId, objid, 0);
			break;
		case REGCLASSOID:
			add_use(ctx, RelationRelationId, objid, 0);
			break;
		case REGTYPEOID:
			add_use(ctx, TypeRelationId, objid, 0);
			break;
		case REGCOLLATIONOID:
			add_use(ctx, CollationRelationId, objid, 0);
			break;
		case REGCONFIGOID:
			add_use(ctx, TSConfigRelationId, objid, 0);
			break;
		case REGDICTIONARYOID:
			add_use(ctx, TSDictionaryRelationId, objid, 0);
			break;
		default:
			break;
	}
}

/*
 * Collect what the expression hangs on.  All that is built in stays.
 */
static bool
uses_walker(Node *node, void *context)
{
	UsesContext *ctx = context;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_FieldSelect:
			{
				FieldSelect *select = (FieldSelect *) node;
				Oid			relid = typeOrDomainTypeRelid(exprType((Node *) select->arg));

				if (OidIsValid(relid))
					add_use(ctx, RelationRelationId, relid, select->fieldnum);
			}
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			add_use(ctx, OperatorRelationId, ((OpExpr *) node)->opno, 0);
			break;
		case T_ScalarArrayOpExpr:
			add_use(ctx, OperatorRelationId, ((ScalarArrayOpExpr *) node)->opno, 0);
			break;
		case T_RowCompareExpr:
			{
				ListCell   *cell;

				foreach(cell, ((RowCompareExpr *) node)->opnos)
					add_use(ctx, OperatorRelationId, lfirst_oid(cell), 0);
			}
			break;
		case T_CollateExpr:
			add_use(ctx, CollationRelationId, ((CollateExpr *) node)->collOid, 0);
			break;
		case T_Const:
			add_constant(ctx, (Const *) node);
			break;
		default:
			break;
	}
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_FuncExpr:
		case T_OpExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_CoerceToDomain:
		case T_CaseExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_NullIfExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_FieldSelect:
		case T_SubscriptingRef:
			add_use(ctx, TypeRelationId, exprType(node), 0);
			break;
		default:
			break;
	}
	check_functions_in_node(node, add_function, ctx);
	return expression_tree_walker(node, uses_walker, context);
}

/* The columns of the row that it reads, by number. */
static bool
columns_walker(Node *node, void *context)
{
	UsesContext *ctx = ((void **) context)[0];
	Oid		   *relid = ((void **) context)[1];

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		add_use(ctx, RelationRelationId, *relid, ((Var *) node)->varattno);
	return expression_tree_walker(node, columns_walker, context);
}

/* Whether it is gone. */
static bool
is_gone(const ObjectAddress *use)
{
	HeapTuple	tuple;

	switch (use->classId)
	{
		case ProcedureRelationId:
			return !SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(use->objectId));
		case OperatorRelationId:
			return !SearchSysCacheExists1(OPEROID, ObjectIdGetDatum(use->objectId));
		case TypeRelationId:
			return !SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(use->objectId));
		case CollationRelationId:
			return !SearchSysCacheExists1(COLLOID, ObjectIdGetDatum(use->objectId));
		case TSConfigRelationId:
			return !SearchSysCacheExists1(TSCONFIGOID, ObjectIdGetDatum(use->objectId));
		case TSDictionaryRelationId:
			return !SearchSysCacheExists1(TSDICTOID, ObjectIdGetDatum(use->objectId));
		case RelationRelationId:
			if (use->objectSubId == 0)
				return !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(use->objectId));
			tuple = SearchSysCacheAttNum(use->objectId, use->objectSubId);
			if (!HeapTupleIsValid(tuple))
				return true;
			ReleaseSysCache(tuple);
			return false;
		default:
			return false;
	}
}

/* Whether one of them is: then the expression is of no use any more. */
static bool
is_any_gone(List *uses)
{
	ListCell   *cell;

	foreach(cell, uses)
	{
		if (is_gone(lfirst(cell)))
			return true;
	}
	return false;
}

/* ---- compiling what may be broken ---- */

/* Which expression it is, for messages. */
static const char *
what_is(const Subject *item)
{
	if (IS_RULE(item))
		return psprintf("%s of rule \"%s\"", places[item->place].column, item->rule);
	return psprintf("expression for \"%s\"", places[item->place].column);
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
		tree = lc_expr_tree(rel, what_is(item), text, places[item->place].type);
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
	UsesContext ctx = {0};
	void	   *columns[2];

	if (rel == NULL)
		return;
	ctx.owner = rel->rd_rel->relowner;
	ctx.may_run = true;
	if (places[item->place].is_name)
	{
		item->attno = get_attnum(item->relid, item->text);
		if (item->attno > 0)
			add_use(&ctx, RelationRelationId, item->relid, item->attno);
	}
	else if ((item->tree = try_compile(rel, item, item->text, &error)) != NULL)
	{
		columns[0] = &ctx;
		columns[1] = &item->relid;
		columns_walker(item->tree, columns);
		uses_walker(item->tree, &ctx);
	}
	item->uses = ctx.uses;
	item->holds = ctx.may_run;
	relation_close(rel, AccessShareLock);
}

/* The functions of users that it calls, in the order of the walk. */
static bool
functions_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	check_functions_in_node(node, add_function, context);
	return expression_tree_walker(node, functions_walker, context);
}

static bool
calls_the_same(Node *a, Node *b)
{
	UsesContext in_a = {0};
	UsesContext in_b = {0};
	ListCell   *ca;
	ListCell   *cb;

	functions_walker(a, &in_a);
	functions_walker(b, &in_b);
	if (list_length(in_a.uses) != list_length(in_b.uses))
		return false;
	forboth(ca, in_a.uses, cb, in_b.uses)
	{
		if (((ObjectAddress *) lfirst(ca))->objectId != ((ObjectAddress *) lfirst(cb))->objectId)
			return false;
	}
	return true;
}

/* ---- refusing ---- */

/* The table, qualified. */
static char *
table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* The rule or the expression that stands in the way, and how to remove it. */
static void
describe_item(const Subject *item, char **description, char **remedy)
{
	char	   *table = table_name(item->relid);

	if (IS_RULE(item))
	{
		*description = psprintf("rule \"%s\" of table \"%s\"", item->rule, table);
		*remedy = psprintf("Change the rule first, or DELETE FROM lifecycle.rule WHERE on_table = %s::regclass AND name = %s.",
						   quote_literal_cstr(table), quote_literal_cstr(item->rule));
	}
	else
	{
		*description = psprintf("expression \"%s\" of tracked table \"%s\"",
								places[item->place].column, table);
		*remedy = psprintf("Change it first, or UPDATE lifecycle.program SET %s = NULL WHERE lead_table = %s::regclass.",
						   places[item->place].column, quote_literal_cstr(table));
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
static void
refuse_dropped(Command *command)
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

			if (!is_gone(lfirst(u)))
				continue;
			dropped = describe_dropped(lfirst(u));
			if (now == NIL)
				now = read_items(NIL);
			if (dropped == NULL || text_of_now(item, now) == NULL)
				continue;
			if (places[item->place].is_name)
				ereport(ERROR,
						(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
						 errmsg("cannot drop %s because lifecycle keeps the leads by it", dropped),
						 errhint("Call lifecycle.untrack(%s) first.",
								 quote_literal_cstr(table_name(item->relid)))));
			describe_item(item, &description, &remedy);
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop %s because %s reads it", dropped, description),
					 errdetail("The %s is: %s", places[item->place].column, item->text),
					 errhint("%s", remedy)));
		}
	}
}

/*
 * The text does not compile, or means something else, after the command.
 */
static void
refuse_broken(Command *command, const Subject *item, const char *detail)
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
	const char *column = places[item->place].column;

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
		lc_follow_execute(psprintf("UPDATE lifecycle.program SET %s = $1%s WHERE lead_table = $2 AND %s::text = $3",
								   column, places[item->place].is_name ? "::name" : "", column),
						  3, types, values, SPI_OK_UPDATE);

	for (Command *outer = command->outer; outer != NULL; outer = outer->outer)
	{
		MemoryContext old_cxt = MemoryContextSwitchTo(outer->cxt);
		ListCell   *cell;

		foreach(cell, outer->items)
		{
			Subject    *known = lfirst(cell);

			if (is_same(known, item))
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
	bool		is_status = strcmp(places[item->place].column, "status_column") == 0;

	if (!OidIsValid(type))
		return;
	if ((OidIsValid(places[item->place].type) && type != places[item->place].type) ||
		(is_status && type != TEXTOID && type != VARCHAROID && !type_is_enum(type)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change the type of column \"%s\" of tracked table \"%s\" to %s",
						item->text, table_name(item->relid), format_type_be(type)),
				 is_status ? errdetail("A status column is an enum, text or character varying.") :
				 errdetail("It is kept by lifecycle.")));
	if (strcmp(name, old) == 0)
		return;
	if (!places[item->place].is_stored)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot rename column \"%s\" of tracked table \"%s\"", item->text,
						table_name(item->relid)),
				 errdetail("It is kept by lifecycle."),
				 errhint("To be rid of it, call lifecycle.untrack(%s, drop_data => true), which drops the history as well.",
						 quote_literal_cstr(table_name(item->relid)))));
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
		refuse_broken(command, item, psprintf("%s%s%s", error->message, error->detail ? ": " : "",
											  error->detail ? error->detail : ""));
	if (tree != NULL && item->holds && command->concern.meanings && !calls_the_same(tree, item->tree))
		refuse_broken(command, item,
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
	List	   *now = read_items(NIL);
	ListCell   *cell;

	foreach(cell, command->items)
	{
		Subject    *item = lfirst(cell);
		const char *text;

		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(item->relid)) ||
			(text = text_of_now(item, now)) == NULL || is_any_gone(item->uses))
			continue;
		if (places[item->place].is_name && item->attno > 0)
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
	if (!is_of_concern(parsetree, &concern))
		return;
	if (concern.relation != NULL)
	{
		Oid			relid = RangeVarGetRelid(concern.relation, NoLock, true);

		if (OidIsValid(relid) && is_governed(relid))
			(void) RangeVarGetRelidExtended(concern.relation, concern.lockmode, RVR_MISSING_OK,
											RangeVarCallbackOwnsRelation, NULL);
	}
	if ((items = read_items(concern.names)) == NIL)
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

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager", "follow")));
	/* half an extension */
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("program", schema)) ||
		!OidIsValid(get_relname_relid("rule", schema)))
		PG_RETURN_NULL();

	if (strcmp(event->event, "ddl_command_start") == 0)
		begin_command(event->parsetree);
	else if ((command = find_command(event->parsetree)) == NULL)
		PG_RETURN_NULL();
	else if (strcmp(event->event, "sql_drop") == 0)
		refuse_dropped(command);
	else
	{
		follow(command);
		end_command();
	}
	PG_RETURN_NULL();
}
