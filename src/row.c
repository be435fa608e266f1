/*-------------------------------------------------------------------------
 *
 * row.c
 *	  Rows of a table as values: asked for by a query, and put into a slot.
 *
 * A row that is one value has the columns of its table where the table has
 * them, dropped ones included, as expressions over the row expect it.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/*
 * A name for the table in a query in which that name stands for the whole row:
 * one that no column has.
 */
char *
lc_row_alias(Oid relid)
{
	char	   *alias = pstrdup("l");

	while (get_attnum(relid, alias) != InvalidAttrNumber)
		alias = psprintf("%sl", alias);
	return alias;
}

/*
 * The row as a tuple of the table, which refers to the value, and must not
 * outlive it.
 */
void
lc_row_tuple(HeapTuple tuple, Oid relid, HeapTupleHeader row)
{
	tuple->t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = relid;
	tuple->t_data = row;
}

/* Put the row into the slot, which is of its table, and must not outlive it. */
void
lc_row_store(TupleTableSlot *slot, HeapTuple tuple, Oid relid, HeapTupleHeader row)
{
	lc_row_tuple(tuple, relid, row);
	ExecStoreHeapTuple(tuple, slot, false);
}
