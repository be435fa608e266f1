/*-------------------------------------------------------------------------
 *
 * pattern.c
 *	  LIKE, ILIKE and regular expressions with a pattern that stays the same.
 *
 * Rules are mostly made of them, and the server's functions prepare the pattern
 * anew in each call; more than 32 regular expressions thrash its cache.  The
 * functions here keep what they made of the pattern with the expression that
 * calls them.  They give what the server's give, for every pattern, subject,
 * collation and encoding, errors included.  What is not proven to be the same
 * is given to the server's function; so are nondeterministic collations.
 *
 * Patterns that are literals with gaps are matched by literal.c, all other
 * regular expressions by regex.c, which looks first whether the strings that
 * filter.c found in it are there at all.
 *
 * Lifetime.  A prepared pattern lives in a context below the FmgrInfo's and is
 * made anew when the pattern differs, as it may in plain SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "pattern.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(lifecycle_matches_like);
PG_FUNCTION_INFO_V1(lifecycle_matches_ilike);
PG_FUNCTION_INFO_V1(lifecycle_matches_regex);
PG_FUNCTION_INFO_V1(lifecycle_matches_iregex);

/* The kinds of match, in the order of matchers[]. */
typedef enum MatchOp
{
	MATCH_LIKE,
	MATCH_ILIKE,
	MATCH_REGEX,
	MATCH_IREGEX,
} MatchOp;
#define MATCH_OPS 4

/* What a match is called here and in the server. */
static const struct
{
	const char *name;			/* our function, in our schema */
	PGFunction	server;
	Oid			funcid;			/* the server's, and its negation */
	Oid			negated;
}			matchers[MATCH_OPS] =
{
	{"matches_like", textlike, F_TEXTLIKE, F_TEXTNLIKE},
	{"matches_ilike", texticlike, F_TEXTICLIKE, F_TEXTICNLIKE},
	{"matches_regex", textregexeq, F_TEXTREGEXEQ, F_TEXTREGEXNE},
	{"matches_iregex", texticregexeq, F_TEXTICREGEXEQ, F_TEXTICREGEXNE},
};

/* ---- the functions ---- */

/*
 * Prepare the pattern and keep it with the FmgrInfo, in the place of another
 * one.  Until it is complete it hangs on the current context, where an error
 * leaves nothing behind.
 */
static Prepared *
prepare(FmgrInfo *flinfo, MatchOp op, text *pattern, Oid collation)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle pattern",
											  ALLOCSET_SMALL_SIZES);
	Prepared   *p = MemoryContextAllocZero(cxt, sizeof(Prepared));

	p->cxt = cxt;
	p->collation = collation;
	p->pattern_len = VARSIZE_ANY_EXHDR(pattern);
	p->pattern = MemoryContextAlloc(cxt, p->pattern_len + 1);
	memcpy(p->pattern, VARDATA_ANY(pattern), p->pattern_len);
	p->pattern[p->pattern_len] = '\0';
	p->way = BY_SERVER;
	if (OidIsValid(collation) && get_collation_isdeterministic(collation))
	{
		if (op == MATCH_LIKE || op == MATCH_ILIKE)
			lc_prepare_like(p, op == MATCH_ILIKE);
		else
			lc_prepare_regex(p, op == MATCH_IREGEX);
	}
	if (flinfo->fn_extra != NULL)
	{
		MemoryContext former = ((Prepared *) flinfo->fn_extra)->cxt;

		flinfo->fn_extra = NULL;
		MemoryContextDelete(former);
	}
	MemoryContextSetParent(cxt, flinfo->fn_mcxt);
	flinfo->fn_extra = p;
	return p;
}

static inline bool
match_prepared(Prepared *p, MatchOp op, text *subject, text *pattern)
{
	const char *s = VARDATA_ANY(subject);
	int			len = VARSIZE_ANY_EXHDR(subject);

	if (p->way == BY_PIECES && (!p->folds || lc_is_ascii(s, len)))
		return lc_match_pieces(p, s, len);
	if (p->compiled)
		return lc_match_regex(p, s, len);
	return DatumGetBool(DirectFunctionCall2Coll(matchers[op].server, p->collation,
												PointerGetDatum(subject), PointerGetDatum(pattern)));
}

/*
 * What the server's function gives for subject and pattern.
 */
static inline Datum
match(FunctionCallInfo fcinfo, MatchOp op)
{
	text	   *subject = PG_GETARG_TEXT_PP(0);
	text	   *pattern = PG_GETARG_TEXT_PP(1);
	Prepared   *p;
	bool		result;

	if (fcinfo->flinfo == NULL)
		return DirectFunctionCall2Coll(matchers[op].server, PG_GET_COLLATION(),
									   PointerGetDatum(subject), PointerGetDatum(pattern));
	p = fcinfo->flinfo->fn_extra;
	if (p == NULL || p->collation != PG_GET_COLLATION() ||
		p->pattern_len != VARSIZE_ANY_EXHDR(pattern) ||
		memcmp(p->pattern, VARDATA_ANY(pattern), p->pattern_len) != 0)
		p = prepare(fcinfo->flinfo, op, pattern, PG_GET_COLLATION());
	result = match_prepared(p, op, subject, pattern);
	PG_FREE_IF_COPY(subject, 0);
	PG_FREE_IF_COPY(pattern, 1);
	PG_RETURN_BOOL(result);
}

Datum
lifecycle_matches_like(PG_FUNCTION_ARGS)
{
	return match(fcinfo, MATCH_LIKE);
}

Datum
lifecycle_matches_ilike(PG_FUNCTION_ARGS)
{
	return match(fcinfo, MATCH_ILIKE);
}

Datum
lifecycle_matches_regex(PG_FUNCTION_ARGS)
{
	return match(fcinfo, MATCH_REGEX);
}

Datum
lifecycle_matches_iregex(PG_FUNCTION_ARGS)
{
	return match(fcinfo, MATCH_IREGEX);
}

/* ---- in expressions ---- */

/* Our function for the match, or InvalidOid where it cannot be called. */
static Oid
matcher_oid(MatchOp op)
{
	Oid			args[2] = {TEXTOID, TEXTOID};
	Oid			funcid = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
										 CStringGetDatum(matchers[op].name),
										 PointerGetDatum(buildoidvector(args, 2)),
										 ObjectIdGetDatum(lc_schema()));

	if (!OidIsValid(funcid) ||
		lc_function_aclcheck(funcid, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		return InvalidOid;
	return funcid;
}

/* The call of ours that does what the server's function would, or NULL. */
static Node *
matcher_call(Oid funcid, List *args, Oid collation)
{
	Const	   *pattern;

	if (list_length(args) != 2 || !IsA(lsecond(args), Const))
		return NULL;
	pattern = lsecond(args);
	if (pattern->constisnull || pattern->consttype != TEXTOID)
		return NULL;
	for (int op = 0; op < MATCH_OPS; op++)
	{
		if (funcid == matchers[op].funcid || funcid == matchers[op].negated)
		{
			Oid			ours = matcher_oid(op);
			Expr	   *call;

			if (!OidIsValid(ours))
				return NULL;
			call = (Expr *) makeFuncExpr(ours, BOOLOID, args, InvalidOid, collation,
										 COERCE_EXPLICIT_CALL);
			return (Node *) (funcid == matchers[op].negated ?
							 makeBoolExpr(NOT_EXPR, list_make1(call), -1) : call);
		}
	}
	return NULL;
}

static Node *
substitute(Node *node, void *context)
{
	Node	   *call = NULL;

	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, substitute, context);
	if (IsA(node, OpExpr))
		call = matcher_call(((OpExpr *) node)->opfuncid, ((OpExpr *) node)->args,
							((OpExpr *) node)->inputcollid);
	else if (IsA(node, FuncExpr))
		call = matcher_call(((FuncExpr *) node)->funcid, ((FuncExpr *) node)->args,
							((FuncExpr *) node)->inputcollid);
	return call ? call : node;
}

/*
 * A copy of a planned expression, in the current memory context, in which the
 * server's LIKE, ILIKE and regular expression functions with a constant pattern
 * are replaced by ours.  Values, errors and NULLs stay the same.  To be called as
 * the user who is to have the right to execute them.
 */
Node *
lc_pattern_substitute(Node *expr)
{
	return substitute(expr, NULL);
}
