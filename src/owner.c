/*-------------------------------------------------------------------------
 *
 * owner.c
 *	  Running an expression as the owner of its table: how, and which ones
 *	  need it.
 *
 * The expression belongs to the owner of the table, and runs for everybody who
 * writes the table.  So it is parsed, folded and initialised (where EXECUTE is
 * checked) as the owner in a security-restricted operation; and evaluated so,
 * unless nothing in it can tell as whom it runs: then it pays for no switch.
 * That is so where every function is built in and immutable, or at least deals
 * in nothing but times and numbers; a stable one may read tables or settings,
 * or reach a domain's constraint by way of a type's input.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parse_expr.h"
#include "parser/parser.h"
#include "utils/float.h"
#include "utils/lsyscache.h"
#include "utils/xml.h"

/*
 * Become the owner, unable to leave it, and where asked with a search path
 * that no one else can put anything into.  An error undoes all three by
 * itself, with the (sub)transaction.
 */
void
lc_become_owner(Oid owner, bool pin_search_path, LcSavedUser *saved)
{
	GetUserIdAndSecContext(&saved->userid, &saved->sec_context);
	SetUserIdAndSecContext(owner, saved->sec_context | SECURITY_RESTRICTED_OPERATION);
	saved->guc_level = NewGUCNestLevel();
	if (pin_search_path)
		RestrictSearchPath();
}

/*
 * Undo what lc_become_owner() did, settings pinned since then included.
 */
void
lc_become_caller(const LcSavedUser *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->userid, saved->sec_context);
}

static void
pin_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Write and read stored text under the same settings, whatever those of the
 * session are: else a constant would be another one for who writes a lead than
 * for who wrote the rule, and who writes a lead could choose what a pattern
 * means.  Inside the GUC nest level of lc_become_owner().
 */
void
lc_pin_syntax(void)
{
	if (!standard_conforming_strings)
		pin_setting("standard_conforming_strings", "on");
	if (Transform_null_equals)
		pin_setting("transform_null_equals", "off");
	if (!Array_nulls)
		pin_setting("array_nulls", "on");
	if (DateStyle != USE_ISO_DATES)
		pin_setting("DateStyle", "ISO");
	if (IntervalStyle != INTSTYLE_POSTGRES)
		pin_setting("IntervalStyle", "postgres");
	if (extra_float_digits < 1)
		pin_setting("extra_float_digits", "1");
	if (xmloption != XMLOPTION_CONTENT)
		pin_setting("xmloption", "content");
	if (strcmp(GetConfigOption("lc_monetary", false, false), "C") != 0)
		pin_setting("lc_monetary", "C");
}

/* A type whose values no code of a user ever sees: a number or a time. */
static bool
is_plain_type(Oid type)
{
	char		category;
	bool		preferred;

	if (type >= FirstNormalObjectId)
		return false;
	get_type_category_preferred(type, &category, &preferred);
	return category == TYPCATEGORY_NUMERIC || category == TYPCATEGORY_DATETIME ||
		category == TYPCATEGORY_TIMESPAN || category == TYPCATEGORY_BOOLEAN;
}

/* Whether the function may run, or read, what depends on who calls it. */
static bool
function_is_foreign(Oid funcid, void *context)
{
	Oid		   *args;
	int			nargs;
	Oid			result;

	if (funcid >= FirstNormalObjectId)
		return get_func_namespace(funcid) != lc_schema() ||
			(func_volatile(funcid) != PROVOLATILE_IMMUTABLE && !lc_is_behavior_score(funcid));
	if (func_volatile(funcid) == PROVOLATILE_IMMUTABLE)
		return false;
	result = get_func_signature(funcid, &args, &nargs);
	for (int i = 0; i < nargs; i++)
	{
		/* numbers that name relations and the like are no plain numbers */
		if (!is_plain_type(args[i]) || args[i] == OIDOID || get_typtype(args[i]) != TYPTYPE_BASE ||
			(args[i] >= REGPROCOID && args[i] <= REGTYPEOID))
			return true;
	}
	return !is_plain_type(result);
}

/*
 * The type of the values that the node makes; InvalidOid for nodes that make
 * none of a type that a user could have chosen.
 */
Oid
lc_type_of_value(Node *node)
{
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_FuncExpr:
		case T_OpExpr:
		case T_NullIfExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_CoerceToDomain:
		case T_CaseExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_FieldSelect:
		case T_FieldStore:
		case T_SubscriptingRef:
			return exprType(node);
		default:
			return InvalidOid;
	}
}

/*
 * Whether the node's type is one whose values may carry a user's code.  What
 * JSON_VALUE() and its like return is made by the input functions of types,
 * with no node to show them.
 */
static bool
has_foreign_type(Node *node)
{
	Oid			type;

	if (lc_is_json_query(node))
		return true;
	if (lc_is_json_constructor(node) && exprType(node) >= FirstNormalObjectId)
		return true;
	type = lc_type_of_value(node);
	return type >= FirstNormalObjectId && !type_is_enum(type);
}

/*
 * Whether what the expression does may depend on who evaluates it.
 */
bool
lc_calls_foreign_code(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SQLValueFunction) && !is_plain_type(((SQLValueFunction *) node)->type))
		return true;
	if (has_foreign_type(node) || check_functions_in_node(node, function_is_foreign, NULL))
		return true;
	return expression_tree_walker(node, lc_calls_foreign_code, context);
}
