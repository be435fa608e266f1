/*-------------------------------------------------------------------------
 *
 * expr.c
 *	  A user's SQL expression over one row of a table: what may be written,
 *	  from text to tree and back.
 *
 * lc_expr_canonical() takes what a user typed, under the search path of the
 * user, refuses what must not be, and gives the fully qualified text that is
 * stored.  Only text is ever stored: a tree is made of it anew, under a pinned
 * search path, for whatever is done with it (evaluate.c, follow.c), and passes
 * the same checks.  All of it happens as the owner of the table (owner.c).
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/relation.h"
#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
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
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

PG_FUNCTION_INFO_V1(lifecycle_canonical);

/*
 * Name the expression; and, while it is compiled, point at the mistake inside
 * its own text rather than at the same offset of the statement that happens to
 * run.
 */
static void
expr_error_callback(void *arg)
{
	LcExprErrorContext *ctx = arg;

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
 * From here to lc_expr_end_context(), errors name the expression.  "source" is
 * its text where it is compiled, else NULL.
 */
void
lc_expr_begin_context(LcExprErrorContext *ctx, const char *what, const char *table, const char *source)
{
	ctx->what = what;
	ctx->table = table;
	ctx->source = source;
	ctx->callback.callback = expr_error_callback;
	ctx->callback.arg = ctx;
	ctx->callback.previous = error_context_stack;
	error_context_stack = &ctx->callback;
}

void
lc_expr_end_context(LcExprErrorContext *ctx)
{
	error_context_stack = ctx->callback.previous;
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
bool
lc_is_behavior_score(Oid funcid)
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
			if (lc_is_behavior_score(((FuncExpr *) node)->funcid) &&
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
 * From text to a transformed expression of the wanted type (InvalidOid: of its
 * own), or an error that says what is wrong with it.
 */
Node *
lc_expr_transform(Relation rel, const char *what, const char *source, Oid type,
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
	coerced = !OidIsValid(type) ? node :
		coerce_to_target_type(pstate, node, exprType(node), type, -1,
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
	LcExprErrorContext ctx;
	LcSavedUser	caller;
	LcSavedUser	pinned;
	Node	   *node;
	char	   *canonical;

	lc_expr_begin_context(&ctx, what, RelationGetRelationName(rel), source);

	lc_become_owner(rel->rd_rel->relowner, false, &caller);
	node = lc_expr_transform(rel, what, source, type, scope, true);
	lc_become_owner(rel->rd_rel->relowner, true, &pinned);
	lc_pin_syntax();
	canonical = deparse_expression(node,
								   deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)),
								   false, false);
	/* what is stored must compile, and constants in it must fold */
	ctx.source = canonical;
	expression_planner((Expr *) lc_expr_transform(rel, what, canonical, type, scope, false));
	lc_become_caller(&pinned);
	lc_become_caller(&caller);

	lc_expr_end_context(&ctx);
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
	LcExprErrorContext ctx;
	LcSavedUser	caller;
	Node	   *tree;

	lc_expr_begin_context(&ctx, what, RelationGetRelationName(rel), source);

	lc_become_owner(rel->rd_rel->relowner, true, &caller);
	lc_pin_syntax();
	tree = lc_expr_transform(rel, what, source, type, &any, false);
	lc_become_caller(&caller);

	lc_expr_end_context(&ctx);
	return tree;
}

/*
 * The canonical text for such a tree, with the names of now.
 */
char *
lc_expr_text(Relation rel, Node *tree)
{
	LcSavedUser	caller;
	char	   *text;

	lc_become_owner(rel->rd_rel->relowner, true, &caller);
	lc_pin_syntax();
	text = deparse_expression(tree,
							  deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)),
							  false, false);
	lc_become_caller(&caller);
	return text;
}

/* Whether the node gives the present time. */
static bool
reads_clock(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SQLValueFunction))
	{
		SQLValueFunctionOp op = ((SQLValueFunction *) node)->op;

		if (op <= SVFOP_LOCALTIMESTAMP_N)
			return true;
	}
	if (IsA(node, FuncExpr))
	{
		Oid			funcid = ((FuncExpr *) node)->funcid;

		if (funcid == F_NOW || funcid == F_TRANSACTION_TIMESTAMP || funcid == F_STATEMENT_TIMESTAMP)
			return true;
	}
	return expression_tree_walker(node, reads_clock, context);
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
		{"at", TIMESTAMPTZOID},
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
	lc_require_owner(relid);	/* complains of a table that is not there, too */
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
	/* a score that is computed again must find the same times */
	if (strcmp(what, "at") == 0 &&
		reads_clock(lc_expr_tree(rel, "expression for \"at\"", canonical, TIMESTAMPTZOID), NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("cannot use the present time in this expression"),
				 errdetail("The same row must give the same answer."),
				 errhint("Leave out \"at\", and a column lifecycle_at that holds the time is added.")));
	relation_close(rel, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(canonical));
}
