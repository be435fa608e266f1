/*-------------------------------------------------------------------------
 *
 * uses.c
 *	  What an expression hangs on, by OID and number; and whether that is gone.
 *
 * All that is built in stays, and is not looked at.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "follow.h"

#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_ts_config.h"
#include "catalog/pg_ts_dict.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_type.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

typedef struct UsesContext
{
	List	   *uses;			/* of ObjectAddress */
	Oid			relid;			/* the table whose columns it reads */
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
	add_use(ctx, TypeRelationId, lc_type_of_value(node), 0);
	check_functions_in_node(node, add_function, ctx);
	return expression_tree_walker(node, uses_walker, context);
}

/* The columns of the row that it reads, by number. */
static bool
columns_walker(Node *node, void *context)
{
	UsesContext *ctx = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		add_use(ctx, RelationRelationId, ctx->relid, ((Var *) node)->varattno);
	return expression_tree_walker(node, columns_walker, context);
}

/*
 * What a name of a column hangs on.
 */
List *
lc_uses_of_column(Oid relid, AttrNumber attno)
{
	UsesContext ctx = {0};

	add_use(&ctx, RelationRelationId, relid, attno);
	return ctx.uses;
}

/*
 * What an expression over rows of the table hangs on, its columns first; and
 * whether the owner may call all that it calls.
 */
List *
lc_uses_of_tree(Node *tree, Oid relid, Oid owner, bool *may_run)
{
	UsesContext ctx = {0};

	ctx.relid = relid;
	ctx.owner = owner;
	ctx.may_run = true;
	columns_walker(tree, &ctx);
	uses_walker(tree, &ctx);
	*may_run = ctx.may_run;
	return ctx.uses;
}

/* Whether it is gone. */
bool
lc_use_is_gone(const ObjectAddress *use)
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
bool
lc_uses_any_gone(List *uses)
{
	ListCell   *cell;

	foreach(cell, uses)
	{
		if (lc_use_is_gone(lfirst(cell)))
			return true;
	}
	return false;
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

bool
lc_uses_same_functions(Node *a, Node *b)
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
