/*-------------------------------------------------------------------------
 *
 * expr.c
 *	  A user's SQL expression over one row of a table: from text to something
 *	  checked, canonical, cached, and run with the rights of the table's owner.
 *
 * Two steps.  lc_expr_canonical() takes what a user typed, under the search
 * path of the user, refuses what must not be, and gives the fully qualified
 * text that is stored.  lc_expr_eval() compiles the stored text at first use,
 * under a pinned search path, and keeps it for the session.
 *
 * Security.  The expression belongs to the owner of the table, and runs for
 * everybody who writes the table.  So it is parsed, folded and initialised
 * (where EXECUTE is checked) as the owner in a security-restricted operation;
 * and evaluated so, unless nothing in it can tell as whom it runs: then it pays
 * for no switch.  That is so where every function is built in and immutable, or
 * at least deals in nothing but times and numbers; a stable one may read tables
 * or settings, or reach a domain's constraint by way of a type's input.
 *
 * Lifetime.  A compiled form lives in a memory context below the one given to
 * lc_expr_make().  It is thrown away at the next use after a function or type
 * that it hangs on changed, and after an evaluation of foreign code failed;
 * never while it runs.  A change of the table throws away the whole program.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_func.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/xml.h"

/* of utils/pg_locale.h, which needs the headers of ICU */
extern PGDLLIMPORT char *locale_monetary;

PG_FUNCTION_INFO_V1(lifecycle_canonical);

/* For the error context of whatever goes wrong in an expression. */
typedef struct ExprErrorContext
{
	const char *what;
	const char *table;
	const char *source;			/* set while it is compiled */
} ExprErrorContext;

/* Where the caller was before the switch to the owner. */
typedef struct SavedUser
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
} SavedUser;

/*
 * Name the expression; and point at the mistake inside its own text rather
 * than at the same offset of the statement that happens to run.
 */
static void
expr_error_callback(void *arg)
{
	ExprErrorContext *ctx = arg;

	if (ctx->source != NULL)
	{
		int			position = geterrposition();

		if (position > 0)
		{
			errposition(0);
			internalerrposition(position);
			internalerrquery(ctx->source);
		}
	}
	errcontext("%s of table \"%s\"", ctx->what, ctx->table);
}

/*
 * Become the owner, unable to leave it, and where asked with a search path
 * that no one else can put anything into.  An error undoes all three by
 * itself, with the (sub)transaction.
 */
static void
become_owner(Oid owner, bool pin_search_path, SavedUser *saved)
{
	GetUserIdAndSecContext(&saved->userid, &saved->sec_context);
	SetUserIdAndSecContext(owner, saved->sec_context | SECURITY_RESTRICTED_OPERATION);
	saved->guc_level = NewGUCNestLevel();
	if (pin_search_path)
		RestrictSearchPath();
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
 * means.  Inside the GUC nest level of become_owner().
 */
static void
pin_syntax(void)
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

static void
become_caller(const SavedUser *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->userid, saved->sec_context);
}

/*
 * The raw expression of the text.  The grammar of a PL/pgSQL expression lets
 * whole queries through; only a bare expression is one for us.
 */
static Node *
parse_bare_expression(const char *source)
{
	List	   *raw = raw_parser(source, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *stmt = (SelectStmt *) linitial_node(RawStmt, raw)->stmt;
	ResTarget  *target;

	if (!IsA(stmt, SelectStmt) || stmt->op != SETOP_NONE || list_length(stmt->targetList) != 1 ||
		stmt->distinctClause || stmt->intoClause || stmt->fromClause || stmt->whereClause ||
		stmt->groupClause || stmt->havingClause || stmt->windowClause || stmt->valuesLists ||
		stmt->sortClause || stmt->limitOffset || stmt->limitCount || stmt->lockingClause ||
		stmt->withClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("an expression over one row is expected"),
				 errdetail("The text holds a query, or more than one expression."),
				 errposition(1)));
	target = linitial_node(ResTarget, stmt->targetList);
	if (target->name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("an expression over one row is expected"),
				 errdetail("The expression has a column alias."),
				 errposition(1)));
	if (IsA(target->val, ColumnRef) && IsA(llast(((ColumnRef *) target->val)->fields), A_Star))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use the whole row in this expression"),
				 errdetail("Name the columns that it reads."),
				 errposition(1)));
	return target->val;
}

typedef struct RefuseContext
{
	ParseState *pstate;
	Relation	rel;
	const LcScope *scope;
	bool		typed;			/* by a user, not by us */
} RefuseContext;

/* The parameters that a rule's expression is compiled to use. */
enum
{
	PARAM_DEMOGRAPHIC_SCORE = 1,
	PARAM_BEHAVIOR_SCORE,
	PARAM_MOMENT
};

static bool
function_is_volatile(Oid funcid, void *context)
{
	return func_volatile(funcid) == PROVOLATILE_VOLATILE;
}

static void
refuse(RefuseContext *ctx, int sqlstate, const char *message, const char *detail, Node *node)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("%s", message),
			 detail ? errdetail("%s", detail) : 0,
			 parser_errposition(ctx->pstate, exprLocation(node))));
}

/* Whether it is lifecycle.behavior_score(), by which the stored text names it. */
static bool
is_behavior_score(Oid funcid)
{
	return funcid >= FirstNormalObjectId && get_func_nargs(funcid) == 0 &&
		get_func_namespace(funcid) == lc_schema() &&
		strcmp(get_func_name(funcid), "behavior_score") == 0;
}

/*
 * What a column reference stands for that a rule may use beside the columns of
 * its row.  The stored text is qualified and does not come this way.
 */
static Node *
resolve_score(ParseState *pstate, ColumnRef *ref, Node *column)
{
	RefuseContext *ctx = pstate->p_ref_hook_state;
	Oid			score;
	FuncExpr   *call;

	if (!ctx->typed || ctx->scope == NULL || list_length(ref->fields) != 1 ||
		!IsA(linitial(ref->fields), String) ||
		strcmp(strVal(linitial(ref->fields)), "behavior_score") != 0)
		return NULL;
	if (column != NULL)
	{
		if (!ctx->scope->scores)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_COLUMN),
				 errmsg("column reference \"behavior_score\" is ambiguous"),
				 errdetail("Table \"%s\" has a column of that name.", RelationGetRelationName(ctx->rel)),
				 errhint("Write %s.behavior_score for the column, lifecycle.behavior_score() for the score.",
						 quote_identifier(RelationGetRelationName(ctx->rel))),
				 parser_errposition(pstate, ref->location)));
	}
	score = LookupFuncName(list_make2(makeString("lifecycle"), makeString("behavior_score")),
						   0, NULL, false);
	call = makeFuncExpr(score, FLOAT8OID, NIL, InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	call->location = ref->location;
	return (Node *) call;
}

/* Our own columns, which an expression may not read: they are its outcome. */
static bool
is_governed_column(Relation rel, const LcScope *scope, AttrNumber attno)
{
	const char *name = NameStr(TupleDescAttr(RelationGetDescr(rel), attno - 1)->attname);

	return (scope != NULL && scope->status == attno) ||
		strcmp(name, "lifecycle_status") == 0 ||
		strcmp(name, "lifecycle_since") == 0 ||
		strcmp(name, "lifecycle_seq") == 0;
}

/*
 * Refuse what cannot be answered from one row at one instant, or would answer
 * from what the expression itself decides.  Runs on the transformed tree, so
 * that what operators and casts call is seen as well.
 */
static bool
refuse_walker(Node *node, void *context)
{
	RefuseContext *ctx = context;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_SubLink:
			refuse(ctx, ERRCODE_FEATURE_NOT_SUPPORTED, "cannot use a subquery in this expression",
				   "The expression sees one row and nothing else.", node);
			break;
		case T_Aggref:
		case T_GroupingFunc:
			refuse(ctx, ERRCODE_GROUPING_ERROR, "cannot use an aggregate function in this expression",
				   "The expression sees one row and nothing else.", node);
			break;
		case T_WindowFunc:
			refuse(ctx, ERRCODE_WINDOWING_ERROR, "cannot use a window function in this expression",
				   "The expression sees one row and nothing else.", node);
			break;
		case T_FuncExpr:
			if (((FuncExpr *) node)->funcretset)
				refuse(ctx, ERRCODE_FEATURE_NOT_SUPPORTED,
					   "cannot use a set-returning function in this expression", NULL, node);
			if (is_behavior_score(((FuncExpr *) node)->funcid) &&
				(ctx->scope == NULL || !ctx->scope->scores))
				refuse(ctx, ERRCODE_INVALID_COLUMN_REFERENCE,
					   "cannot use behavior_score in this expression",
					   "Only the condition of a rule with a status can.", node);
			break;
		case T_OpExpr:
			if (((OpExpr *) node)->opretset)
				refuse(ctx, ERRCODE_FEATURE_NOT_SUPPORTED,
					   "cannot use a set-returning function in this expression", NULL, node);
			break;
		case T_Var:
			{
				Var		   *var = (Var *) node;

				if (var->varattno == InvalidAttrNumber)
					refuse(ctx, ERRCODE_FEATURE_NOT_SUPPORTED,
						   "cannot use the whole row in this expression",
						   "Name the columns that it reads.", node);
				if (var->varattno < 0)
					refuse(ctx, ERRCODE_FEATURE_NOT_SUPPORTED,
						   "cannot use a system column in this expression", NULL, node);
				if (ctx->scope != NULL && !ctx->scope->scores && var->varattno == ctx->scope->score)
					refuse(ctx, ERRCODE_INVALID_COLUMN_REFERENCE,
						   "cannot use a score in a rule that gives points",
						   "The score is what the points add up to.", node);
				if (is_governed_column(ctx->rel, ctx->scope, var->varattno))
					refuse(ctx, ERRCODE_INVALID_COLUMN_REFERENCE,
						   "cannot use a column that lifecycle keeps in this expression",
						   "The status, its time and its number are what a write leads to, not what it is judged by.",
						   node);
			}
			break;
		default:
			break;
	}
	if (IsA(node, NextValueExpr) || check_functions_in_node(node, function_is_volatile, NULL))
		refuse(ctx, ERRCODE_INVALID_OBJECT_DEFINITION, "cannot use a volatile function in this expression",
			   "The same row must give the same answer.", node);
	return expression_tree_walker(node, refuse_walker, context);
}

/*
 * From text to a transformed expression of the wanted type, or an error that
 * says what is wrong with it.
 */
static Node *
transform_expression(Relation rel, const char *what, const char *source, Oid type,
					 const LcScope *scope, bool typed)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *nsitem;
	RefuseContext ctx;
	Node	   *node;
	Node	   *coerced;
	Oid			given;

	pstate->p_sourcetext = source;
	node = parse_bare_expression(source);
	nsitem = addRangeTableEntryForRelation(pstate, rel, AccessShareLock, NULL, false, true);
	addNSItemToQuery(pstate, nsitem, true, true, true);
	ctx.pstate = pstate;
	ctx.rel = rel;
	ctx.scope = scope;
	ctx.typed = typed;
	pstate->p_post_columnref_hook = resolve_score;
	pstate->p_ref_hook_state = &ctx;
	node = transformExpr(pstate, node, EXPR_KIND_OTHER);
	refuse_walker(node, &ctx);

	given = getBaseType(exprType(node));
	if (type == TIMESTAMPTZOID && (given == TIMESTAMPOID || given == DATEOID))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s gives %s, not timestamp with time zone",
						what, format_type_be(given)),
				 errdetail("Which instant that is would depend on the time zone of each session."),
				 errhint("Name the time zone, as in: (%s) AT TIME ZONE 'UTC'.",
						 given == DATEOID ? psprintf("(%s)::timestamp", source) : source),
				 parser_errposition(pstate, exprLocation(node))));
	coerced = coerce_to_target_type(pstate, node, exprType(node), type, -1,
									COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (coerced == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s gives %s, not %s",
						what, format_type_be(exprType(node)), format_type_be(type)),
				 errhint("Cast the expression to %s.", format_type_be(type)),
				 parser_errposition(pstate, exprLocation(node))));
	assign_expr_collations(pstate, coerced);
	refuse_walker(coerced, &ctx);
	free_parsestate(pstate);
	return coerced;
}

/*
 * The text to store for an expression that a user typed: checked, and
 * qualified so that no search path can change what it means.  Names are
 * resolved under the caller's search path, everything else happens as the
 * table's owner.
 */
char *
lc_expr_canonical(Relation rel, const char *what, const char *source, Oid type,
				  const LcScope *scope)
{
	ExprErrorContext ctx;
	ErrorContextCallback callback;
	SavedUser	caller;
	SavedUser	pinned;
	Node	   *node;
	char	   *canonical;

	ctx.what = what;
	ctx.table = RelationGetRelationName(rel);
	ctx.source = source;
	callback.callback = expr_error_callback;
	callback.arg = &ctx;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	become_owner(rel->rd_rel->relowner, false, &caller);
	node = transform_expression(rel, what, source, type, scope, true);
	become_owner(rel->rd_rel->relowner, true, &pinned);
	pin_syntax();
	canonical = deparse_expression(node,
								   deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)),
								   false, false);
	/* what is stored must compile, and constants in it must fold */
	ctx.source = canonical;
	expression_planner((Expr *) transform_expression(rel, what, canonical, type, scope, false));
	become_caller(&pinned);
	become_caller(&caller);

	error_context_stack = callback.previous;
	return canonical;
}

/*
 * What a stored text means with the names of now, or the error that it gives:
 * a tree that has everything by number.  Which columns and scores it may use
 * was decided when it was written.
 */
Node *
lc_expr_tree(Relation rel, const char *what, const char *source, Oid type)
{
	static const LcScope any = {.scores = true};
	ExprErrorContext ctx;
	ErrorContextCallback callback;
	SavedUser	caller;
	Node	   *tree;

	ctx.what = what;
	ctx.table = RelationGetRelationName(rel);
	ctx.source = source;
	callback.callback = expr_error_callback;
	callback.arg = &ctx;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	become_owner(rel->rd_rel->relowner, true, &caller);
	pin_syntax();
	tree = transform_expression(rel, what, source, type, &any, false);
	become_caller(&caller);

	error_context_stack = callback.previous;
	return tree;
}

/*
 * The canonical text for such a tree, with the names of now.
 */
char *
lc_expr_text(Relation rel, Node *tree)
{
	SavedUser	caller;
	char	   *text;

	become_owner(rel->rd_rel->relowner, true, &caller);
	pin_syntax();
	text = deparse_expression(tree,
							  deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)),
							  false, false);
	become_caller(&caller);
	return text;
}

/*
 * A handle for a stored expression; it is compiled when it is first needed.
 * Handle and compiled forms live in the given context.  "what" says which
 * expression it is, in messages; it and "scope", which rules have, must live as
 * long.
 */
LcExpr *
lc_expr_make(MemoryContext cxt, Relation rel, const char *what, Oid owner, const char *source,
			 Oid type, const LcScope *scope)
{
	LcExpr	   *expr;

	if (source == NULL)
		return NULL;
	expr = MemoryContextAllocZero(cxt, sizeof(LcExpr));
	expr->relid = RelationGetRelid(rel);
	expr->owner = owner;
	expr->table = MemoryContextStrdup(cxt, RelationGetRelationName(rel));
	expr->what = what;
	expr->source = MemoryContextStrdup(cxt, source);
	expr->type = type;
	expr->scope = scope;
	expr->parent = cxt;
	return expr;
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
			(func_volatile(funcid) != PROVOLATILE_IMMUTABLE && !is_behavior_score(funcid));
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
		case T_ArrayExpr:
		case T_RowExpr:
		case T_FieldSelect:
		case T_FieldStore:
		case T_SubscriptingRef:
			type = exprType(node);
			return type >= FirstNormalObjectId && !type_is_enum(type);
		default:
			return false;
	}
}

/*
 * Whether what the expression does may depend on who evaluates it.
 */
static bool
calls_foreign_code(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SQLValueFunction) && !is_plain_type(((SQLValueFunction *) node)->type))
		return true;
	if (has_foreign_type(node) || check_functions_in_node(node, function_is_foreign, NULL))
		return true;
	return expression_tree_walker(node, calls_foreign_code, context);
}

/*
 * Put the generation expression in the place of a generated column: what is
 * stored there is computed only after the BEFORE triggers, what is virtual is
 * not there at all.
 */
static Node *
expand_generated(Node *node, void *context)
{
	Relation	rel = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		AttrNumber	attno = ((Var *) node)->varattno;

		if (TupleDescAttr(RelationGetDescr(rel), attno - 1)->attgenerated != '\0')
			return build_column_default(rel, attno);
		return node;
	}
	return expression_tree_mutator(node, expand_generated, context);
}

static Node *
make_param(int paramid, Oid type)
{
	Param	   *param = makeNode(Param);

	param->paramkind = PARAM_EXTERN;
	param->paramid = paramid;
	param->paramtype = type;
	param->paramtypmod = -1;
	param->paramcollid = InvalidOid;
	param->location = -1;
	return (Node *) param;
}

/* A call of a built-in function, of one argument or two. */
static Node *
call(Oid funcid, Oid type, Node *a, Node *b)
{
	return (Node *) makeFuncExpr(funcid, type, b == NULL ? list_make1(a) : list_make2(a, b),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

static Node *
make_precision(int32 typmod)
{
	return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(typmod), false, true);
}

/*
 * In a rule, scores and the present are those of the judgement, which are not
 * in the row and not on the clock: both sides of an edge are judged at the
 * same moment, and a replay's moment is in the past.
 */
static Node *
use_judgement(Node *node, void *context)
{
	LcExpr	   *expr = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varattno == expr->scope->score)
	{
		expr->reads_demographic_score = true;
		return make_param(PARAM_DEMOGRAPHIC_SCORE, FLOAT8OID);
	}
	if (IsA(node, FuncExpr))
	{
		Oid			funcid = ((FuncExpr *) node)->funcid;

		if (funcid == F_NOW || funcid == F_TRANSACTION_TIMESTAMP || funcid == F_STATEMENT_TIMESTAMP)
			return make_param(PARAM_MOMENT, TIMESTAMPTZOID);
		if (funcid == F_AGE_TIMESTAMPTZ || funcid == F_AGE_TIMESTAMP)
		{
			/* the age of one argument is that at the midnight of today */
			bool		tz = funcid == F_AGE_TIMESTAMPTZ;
			Node	   *today = call(F_DATE_TIMESTAMPTZ, DATEOID,
									 make_param(PARAM_MOMENT, TIMESTAMPTZOID), NULL);

			return call(tz ? F_AGE_TIMESTAMPTZ_TIMESTAMPTZ : F_AGE_TIMESTAMP_TIMESTAMP, INTERVALOID,
						call(tz ? F_TIMESTAMPTZ_DATE : F_TIMESTAMP_DATE,
							 tz ? TIMESTAMPTZOID : TIMESTAMPOID, today, NULL),
						use_judgement(linitial(((FuncExpr *) node)->args), context));
		}
		if (is_behavior_score(funcid))
		{
			expr->reads_behavior_score = true;
			return make_param(PARAM_BEHAVIOR_SCORE, FLOAT8OID);
		}
	}
	if (IsA(node, SQLValueFunction))
	{
		SQLValueFunction *f = (SQLValueFunction *) node;
		Node	   *moment = make_param(PARAM_MOMENT, TIMESTAMPTZOID);

		switch (f->op)
		{
			case SVFOP_CURRENT_TIMESTAMP:
				return moment;
			case SVFOP_CURRENT_TIMESTAMP_N:
				return call(F_TIMESTAMPTZ_TIMESTAMPTZ_INT4, TIMESTAMPTZOID, moment, make_precision(f->typmod));
			case SVFOP_LOCALTIMESTAMP:
				return call(F_TIMESTAMP_TIMESTAMPTZ, TIMESTAMPOID, moment, NULL);
			case SVFOP_LOCALTIMESTAMP_N:
				return call(F_TIMESTAMP_TIMESTAMP_INT4, TIMESTAMPOID,
							call(F_TIMESTAMP_TIMESTAMPTZ, TIMESTAMPOID, moment, NULL),
							make_precision(f->typmod));
			case SVFOP_CURRENT_DATE:
				return call(F_DATE_TIMESTAMPTZ, DATEOID, moment, NULL);
			case SVFOP_CURRENT_TIME:
				return call(F_TIMETZ_TIMESTAMPTZ, TIMETZOID, moment, NULL);
			case SVFOP_CURRENT_TIME_N:
				return call(F_TIMETZ_TIMETZ_INT4, TIMETZOID,
							call(F_TIMETZ_TIMESTAMPTZ, TIMETZOID, moment, NULL),
							make_precision(f->typmod));
			case SVFOP_LOCALTIME:
				return call(F_TIME_TIMESTAMPTZ, TIMEOID, moment, NULL);
			case SVFOP_LOCALTIME_N:
				return call(F_TIME_TIME_INT4, TIMEOID,
							call(F_TIME_TIMESTAMPTZ, TIMEOID, moment, NULL), make_precision(f->typmod));
			default:
				return node;
		}
	}
	return expression_tree_mutator(node, use_judgement, context);
}

/*
 * The parameters for the expressions of rules, in memory that the caller has.
 */
void
lc_expr_set_judgement(LcJudgement *judgement, float8 demographic_score, bool isnull,
					  float8 behavior_score, TimestampTz moment)
{
	ParamListInfo params = &judgement->params;
	ParamExternData *p = params->params;

	memset(judgement, 0, sizeof(LcJudgement));
	params->numParams = PARAM_MOMENT;
	for (int i = 0; i < PARAM_MOMENT; i++)
	{
		p[i].pflags = 0;
		p[i].ptype = i == PARAM_MOMENT - 1 ? TIMESTAMPTZOID : FLOAT8OID;
	}
	p[PARAM_DEMOGRAPHIC_SCORE - 1].value = Float8GetDatum(demographic_score);
	p[PARAM_DEMOGRAPHIC_SCORE - 1].isnull = isnull;
	p[PARAM_BEHAVIOR_SCORE - 1].value = Float8GetDatum(behavior_score);
	p[PARAM_MOMENT - 1].value = TimestampTzGetDatum(moment);
}

/*
 * Let go of the compiled form.
 */
void
lc_expr_free(LcExpr *expr)
{
	if (expr == NULL)
		return;
	if (expr->cached != NULL)
	{
		FreeCachedExpression(expr->cached);
		expr->cached = NULL;
	}
	if (expr->cxt != NULL)
	{
		if (expr->econtext != NULL)
			FreeExprContext(expr->econtext, false);
		MemoryContextDelete(expr->cxt);
		expr->cxt = NULL;
		expr->econtext = NULL;
	}
	expr->state = NULL;
}

/*
 * Compile the stored text.  The caller is the owner already, with a pinned
 * search path.
 */
static void
compile(LcExpr *expr)
{
	Relation	rel = table_open(expr->relid, NoLock);
	Node	   *node = transform_expression(rel, expr->what, expr->source, expr->type,
											expr->scope, false);
	Node	   *expanded;
	bool		foreign_code = calls_foreign_code(node, NULL);
	MemoryContext old;

	expanded = expand_generated(node, rel);
	/* a partition's owner writes its generation expressions, the tracked table's runs them */
	if (rel->rd_rel->relowner != expr->owner && !equal(expanded, node) &&
		calls_foreign_code(expanded, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("partition \"%s\" does not belong to the owner of its tracked table",
						RelationGetRelationName(rel)),
				 errdetail("An expression of the program reads a generated column of the partition, and would call functions that another role chose."),
				 errhint("ALTER TABLE %s OWNER TO %s.",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel)),
						 quote_identifier(GetUserNameFromId(expr->owner, false)))));
	node = expanded;
	foreign_code = foreign_code || calls_foreign_code(node, NULL);
	expr->reads_demographic_score = false;
	expr->reads_behavior_score = false;
	if (expr->scope != NULL)
		node = use_judgement(node, expr);
	table_close(rel, NoLock);

	/* each piece is noted at once: an error later on leaves nothing behind */
	expr->cached = GetCachedExpression(node);
	expr->cxt = AllocSetContextCreate(expr->parent, "lifecycle expression", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(expr->cxt);
	expr->columns = NULL;
	pull_varattnos(node, 1, &expr->columns);
	expr->state = ExecInitExpr((Expr *) lc_pattern_substitute(expr->cached->expr), NULL);
	MemoryContextSwitchTo(old);
	expr->foreign_code = foreign_code;
}

/*
 * Have a form of the expression that is good now.  One that is running further
 * up the stack stays, even when it is out of date: lc_expr_judge() does not
 * use it, but makes one of its own.
 */
void
lc_expr_prepare(LcExpr *expr)
{
	ExprErrorContext ctx;
	ErrorContextCallback callback;
	SavedUser	caller;

	if (expr->state != NULL && (expr->running > 0 || expr->cached->is_valid))
		return;
	ctx.what = expr->what;
	ctx.table = expr->table;
	ctx.source = expr->source;
	callback.callback = expr_error_callback;
	callback.arg = &ctx;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	lc_expr_free(expr);
	become_owner(expr->owner, true, &caller);
	pin_syntax();
	compile(expr);
	become_caller(&caller);
	error_context_stack = callback.previous;
}

/* One evaluation, in the per-tuple memory that the next one resets. */
static Datum
evaluate(LcExpr *expr, TupleTableSlot *slot, LcJudgement *judgement, bool *isnull)
{
	expr->econtext->ecxt_scantuple = slot;
	expr->econtext->ecxt_param_list_info = judgement ? &judgement->params : NULL;
	return ExecEvalExprSwitchContext(expr->state, expr->econtext, isnull);
}

/*
 * The value of the expression for the row; that of a rule under a judgement.
 * A by-reference result stays good until the expression is evaluated again; a
 * caller that lets other code run in between copies it.  NULL without an
 * expression.
 *
 * Foreign code may come back to this very expression, by writing the table.
 * The inner evaluation then takes a form of its own: the outer one's is in use.
 */
Datum
lc_expr_judge(LcExpr *expr, TupleTableSlot *slot, LcJudgement *judgement, bool *isnull)
{
	ExprErrorContext ctx;
	ErrorContextCallback callback;
	SavedUser	caller;
	Datum		result;

	if (expr == NULL)
	{
		*isnull = true;
		return (Datum) 0;
	}
	if (expr->running > 0)
	{
		LcExpr		inner = *expr;

		inner.parent = CurrentMemoryContext;
		inner.cached = NULL;
		inner.cxt = NULL;
		inner.econtext = NULL;
		inner.state = NULL;
		inner.running = 0;
		result = lc_expr_judge(&inner, slot, judgement, isnull);
		if (!*isnull)
			result = datumCopy(result, get_typbyval(expr->type), get_typlen(expr->type));
		lc_expr_free(&inner);
		return result;
	}

	lc_expr_prepare(expr);
	if (expr->econtext == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(expr->cxt);

		expr->econtext = CreateStandaloneExprContext();
		MemoryContextSwitchTo(old);
	}
	ctx.what = expr->what;
	ctx.table = expr->table;
	ctx.source = NULL;
	callback.callback = expr_error_callback;
	callback.arg = &ctx;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	ResetExprContext(expr->econtext);
	if (!expr->foreign_code)
		result = evaluate(expr, slot, judgement, isnull);
	else
	{
		become_owner(expr->owner, true, &caller);
		expr->running++;
		PG_TRY();
		{
			result = evaluate(expr, slot, judgement, isnull);
		}
		PG_CATCH();
		{
			/* the form may be left in the middle of something: never again */
			expr->running--;
			lc_expr_free(expr);
			PG_RE_THROW();
		}
		PG_END_TRY();
		expr->running--;
		become_caller(&caller);
	}
	error_context_stack = callback.previous;
	return result;
}

Datum
lc_expr_eval(LcExpr *expr, TupleTableSlot *slot, bool *isnull)
{
	return lc_expr_judge(expr, slot, NULL, isnull);
}

/*
 * The column that the expression is, where it is nothing but one.
 */
AttrNumber
lc_expr_only_column(LcExpr *expr)
{
	if (expr != NULL && expr->state != NULL && IsA(expr->cached->expr, Var))
		return ((Var *) expr->cached->expr)->varattno;
	return InvalidAttrNumber;
}

/*
 * canonical(lead_table regclass, what text, expression text): what track()
 * stores.  NULL gives NULL.  Only for the table's owner: names are resolved,
 * and constants folded, with the owner's rights.
 */
Datum
lifecycle_canonical(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *what;
		Oid			type;
	}			kinds[] =
	{
		{"entered", TIMESTAMPTZOID},
		{"source", TEXTOID},
		{"value", NUMERICOID},
		{"actor", TEXTOID},
		{"reason", TEXTOID},
		{"cohort", INT4OID},
	};
	Oid			relid;
	char	   *what;
	Relation	rel;
	char	   *canonical = NULL;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	relid = PG_GETARG_OID(0);
	what = text_to_cstring(PG_GETARG_TEXT_PP(1));
	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));
	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (strcmp(kinds[i].what, what) == 0)
			canonical = lc_expr_canonical(rel, psprintf("expression for \"%s\"", what),
										  text_to_cstring(PG_GETARG_TEXT_PP(2)), kinds[i].type, NULL);
	}
	if (canonical == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a program has no expression \"%s\"", what)));
	relation_close(rel, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(canonical));
}
