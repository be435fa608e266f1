/*-------------------------------------------------------------------------
 *
 * evaluate.c
 *	  A stored expression, compiled at first use and evaluated over rows.
 *
 * Lifetime.  A compiled form lives in a memory context below the one given to
 * lc_expr_make().  It is thrown away at the next use after a function or type
 * that it hangs on changed, and after an evaluation of foreign code failed;
 * never while it runs.  A change of the table throws away the whole program.
 *
 * Security.  Compiling happens as the owner of the table and under a pinned
 * search path, evaluating only where owner.c says that it matters.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* The parameters that a rule's expression is compiled to use. */
enum
{
	PARAM_DEMOGRAPHIC_SCORE = 1,
	PARAM_BEHAVIOR_SCORE,
	PARAM_MOMENT
};

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
		if (lc_is_behavior_score(funcid))
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
	Node	   *node = lc_expr_transform(rel, expr->what, expr->source, expr->type,
										 expr->scope, false);
	Node	   *expanded;
	bool		foreign_code = lc_calls_foreign_code(node, NULL);
	MemoryContext old;

	expanded = expand_generated(node, rel);
	/* a partition's owner writes its generation expressions, the tracked table's runs them */
	if (rel->rd_rel->relowner != expr->owner && !equal(expanded, node) &&
		lc_calls_foreign_code(expanded, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("partition \"%s\" does not belong to the owner of its tracked table",
						RelationGetRelationName(rel)),
				 errdetail("An expression of the program reads a generated column of the partition, and would call functions that another role chose."),
				 errhint("ALTER TABLE %s OWNER TO %s.",
						 lc_table_name(RelationGetRelid(rel)),
						 quote_identifier(GetUserNameFromId(expr->owner, false)))));
	node = expanded;
	foreign_code = foreign_code || lc_calls_foreign_code(node, NULL);
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
	LcExprErrorContext ctx;
	LcSavedUser	caller;

	if (expr->state != NULL && (expr->running > 0 || expr->cached->is_valid))
		return;
	lc_expr_begin_context(&ctx, expr->what, expr->table, expr->source);

	lc_expr_free(expr);
	lc_become_owner(expr->owner, true, &caller);
	lc_pin_syntax();
	compile(expr);
	lc_become_caller(&caller);
	lc_expr_end_context(&ctx);
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
	LcExprErrorContext ctx;
	LcSavedUser	caller;
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
	lc_expr_begin_context(&ctx, expr->what, expr->table, NULL);

	ResetExprContext(expr->econtext);
	if (!expr->foreign_code)
		result = evaluate(expr, slot, judgement, isnull);
	else
	{
		lc_become_owner(expr->owner, true, &caller);
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
		lc_become_caller(&caller);
	}
	lc_expr_end_context(&ctx);
	return result;
}

/*
 * The same for an expression that belongs to no rule.
 */
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
