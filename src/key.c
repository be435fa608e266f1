/*-------------------------------------------------------------------------
 *
 * key.c
 *	  The keys of leads: their order, how a statement asks for them, and rows
 *	  found by them.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_operator.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
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

/*
 * Open the unique index of the table whose first of that many columns is the
 * key, to read rows by it.  False where there is none, as in a partition that is
 * being attached.  Past the planner: a plan that was made while the table was
 * small would read all of it for the rest of a session.
 */
bool
lc_key_scan_begin(LcKeyScan *s, Oid relid, AttrNumber key, int columns, LOCKMODE lockmode,
				  Snapshot snapshot)
{
	List	   *indexes;
	ListCell   *cell;
	Oid			type;

	s->rel = table_open(relid, lockmode);
	s->index = NULL;
	indexes = RelationGetIndexList(s->rel);
	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisunique && form->indimmediate && form->indisvalid &&
			form->indnkeyatts == columns && form->indkey.values[0] == key &&
			RelationGetIndexPredicate(index) == NIL)
		{
			s->index = index;
			break;
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	if (s->index == NULL)
	{
		table_close(s->rel, NoLock);
		return false;
	}
	type = s->index->rd_opcintype[0];
	ScanKeyEntryInitialize(&s->key, 0, 1, BTEqualStrategyNumber, InvalidOid, s->index->rd_indcollation[0],
						   get_opcode(get_opfamily_member(s->index->rd_opfamily[0], type, type,
														  BTEqualStrategyNumber)), (Datum) 0);
	s->scan = lc_index_beginscan(s->rel, s->index, snapshot, 1);
	s->slot = table_slot_create(s->rel, NULL);
	return true;
}

/* Begin with the rows of that key. */
void
lc_key_scan_find(LcKeyScan *s, Datum key)
{
	s->key.sk_argument = key;
	index_rescan(s->scan, &s->key, 1, NULL, 0);
}

/* The next row of the key, into the slot. */
bool
lc_key_scan_next(LcKeyScan *s)
{
	return index_getnext_slot(s->scan, ForwardScanDirection, s->slot);
}

void
lc_key_scan_end(LcKeyScan *s)
{
	ExecDropSingleTupleTableSlot(s->slot);
	index_endscan(s->scan);
	index_close(s->index, NoLock);
	table_close(s->rel, NoLock);
}
