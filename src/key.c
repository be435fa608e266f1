/*-------------------------------------------------------------------------
 *
 * key.c
 *	  The keys of leads: their order, and how a statement asks for them.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/*
 * The order in which leads are locked: that of the key's type.
 */
LcKeyOrder
lc_key_order(LcProgram *program)
{
	LcKeyOrder	order;

	order.compare = &lookup_type_cache(getBaseType(program->key_type),
									   TYPECACHE_CMP_PROC_FINFO)->cmp_proc_finfo;
	order.collation = program->key_collation;
	return order;
}

/* Compare two keys, for qsort_arg() and bsearch_arg(). */
int
lc_key_compare(const void *a, const void *b, void *order)
{
	const LcKeyOrder *o = order;

	return DatumGetInt32(FunctionCall2Coll(o->compare, o->collation,
										   *(const Datum *) a, *(const Datum *) b));
}

/*
 * The condition that a column is the key, or one of the keys, that "with" stands
 * for ($1, ANY ($1)); no search path can change what it means.
 */
char *
lc_key_condition(LcProgram *program, const char *column, const char *with)
{
	TypeCacheEntry *type = lookup_type_cache(getBaseType(program->key_type), TYPECACHE_EQ_OPR);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(type->eq_opr));
	Form_pg_operator op;
	char	   *condition;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", type->eq_opr);
	op = (Form_pg_operator) GETSTRUCT(tuple);
	condition = psprintf("%s OPERATOR(%s.%s) %s", column,
						 quote_identifier(get_namespace_name(op->oprnamespace)), NameStr(op->oprname), with);
	ReleaseSysCache(tuple);
	return condition;
}

/* The keys as an array. */
ArrayType *
lc_key_array(LcProgram *program, Datum *keys, int n)
{
	return construct_array(keys, n, program->key_type, program->key_length, program->key_by_value,
						   lookup_type_cache(program->key_type, 0)->typalign);
}
