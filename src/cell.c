/*-------------------------------------------------------------------------
 *
 * cell.c
 *	  A row of <prefix>_flow: all that is counted of a kind, a day, a source and a
 *	  cohort, as arrays that run side by side.
 *
 * Much that is counted lies together so that a report reads few rows, and that a
 * merge changes few.  Within a row counts are in the order of the bytes of their
 * statuses; whoever reads them does not rely on it.
 *
 *-------------------------------------------------------------------------
 */
#include "flow.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tupmacs.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

/* In the order of LcFlowKind. */
const char *const lc_flow_kinds[LC_FLOW_KINDS] = {"move", "first", "later", "ever"};

const LcNeededColumn lc_flow_columns[LC_FLOW_COLUMNS] =
{
	{"span", TEXTOID}, {"kind", TEXTOID}, {"day", DATEOID}, {"key", UUIDOID}, {"source", TEXTOID}, {"cohort", INT4OID},
	{"from_status", TEXTARRAYOID}, {"to_status", TEXTARRAYOID}, {"reached", TEXTARRAYOID},
	{"n", INT8ARRAYOID}, {"n_new", INT8ARRAYOID}, {"n_again", INT8ARRAYOID}, {"n_left", INT8ARRAYOID},
	{"n_entered", INT8ARRAYOID},
};

/* ---- counts ---- */

/* The order of texts by their bytes; NULL comes first. */
int
lc_cell_compare_texts(const text *a, const text *b)
{
	int			na;
	int			nb;
	int			result;

	if (a == b)
		return 0;
	if (a == NULL || b == NULL)
		return a == NULL ? -1 : 1;
	na = VARSIZE_ANY_EXHDR(a);
	nb = VARSIZE_ANY_EXHDR(b);
	result = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(na, nb));
	return result != 0 ? result : na - nb;
}

/* Whether it is what the sources are called that are not told apart. */
bool
lc_cell_is_other(const text *source)
{
	return VARSIZE_ANY_EXHDR(source) == strlen(LC_OTHER_SOURCES) &&
		memcmp(VARDATA_ANY(source), LC_OTHER_SOURCES, strlen(LC_OTHER_SOURCES)) == 0;
}

bool
lc_cell_is_nothing(const LcCount *count)
{
	for (int i = 0; i < LC_FLOW_SUMS; i++)
	{
		if (count->sums[i] != 0)
			return false;
	}
	return true;
}

/* The order of cells. */
int
lc_cell_compare(const LcCount *a, const LcCount *b)
{
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->day != b->day)
		return a->day < b->day ? -1 : 1;
	if (a->cohort_isnull != b->cohort_isnull)
		return a->cohort_isnull ? -1 : 1;
	if (!a->cohort_isnull && a->cohort != b->cohort)
		return a->cohort < b->cohort ? -1 : 1;
	return lc_cell_compare_texts(a->source, b->source);
}

/* The order of counts in a cell. */
int
lc_cell_compare_within(const LcCount *a, const LcCount *b)
{
	int			result = lc_cell_compare_texts(a->reached, b->reached);

	if (result == 0)
		result = lc_cell_compare_texts(a->from_status, b->from_status);
	if (result == 0)
		result = lc_cell_compare_texts(a->to_status, b->to_status);
	return result;
}

/* ---- rows ---- */

/*
 * Where the columns are, which must be of the types that are read: the owner can
 * change them by DDL.
 */
void
lc_cell_find_columns(Relation rel, AttrNumber *attno)
{
	for (int c = 0; c < LC_FLOW_COLUMNS; c++)
	{
		attno[c] = get_attnum(RelationGetRelid(rel), lc_flow_columns[c].name);
		if (attno[c] <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist", lc_flow_columns[c].name,
							RelationGetRelationName(rel)),
					 errhint("Give the column its name back."),
					 errtable(rel)));
		if (TupleDescAttr(RelationGetDescr(rel), attno[c] - 1)->atttypid != lc_flow_columns[c].type)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of table \"%s\" is not of type %s", lc_flow_columns[c].name,
							RelationGetRelationName(rel), format_type_be(lc_flow_columns[c].type)),
					 errhint("ALTER TABLE %s ALTER COLUMN %s TYPE %s.", lc_table_name(RelationGetRelid(rel)),
							 quote_identifier(lc_flow_columns[c].name), format_type_be(lc_flow_columns[c].type)),
					 errtable(rel)));
	}
}

/* Open the index of the flow on (span, kind, day, key). */
Relation
lc_cell_open_index(Relation rel)
{
	static const LcFlowColumn columns[] = {F_SPAN, F_KIND, F_DAY, F_KEY};
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;
		bool		fits = form->indisvalid && form->indnkeyatts == lengthof(columns) &&
			index->rd_rel->relam == BTREE_AM_OID && RelationGetIndexPredicate(index) == NIL;

		for (int i = 0; fits && i < lengthof(columns); i++)
			fits = form->indkey.values[i] == get_attnum(RelationGetRelid(rel), lc_flow_columns[columns[i]].name);
		if (fits)
		{
			list_free(indexes);
			return index;
		}
		index_close(index, AccessShareLock);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has no index on (span, kind, day, key)", RelationGetRelationName(rel)),
			 errhint("CREATE UNIQUE INDEX ON %s (span, kind, day, key);", lc_table_name(RelationGetRelid(rel))),
			 errtable(rel)));
}

static void
not_aligned(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("table \"%s\" has a row whose arrays do not run side by side", RelationGetRelationName(rel)),
			 errdetail("Somebody other than lifecycle wrote it."),
			 errhint("Call lifecycle.rebuild_flow()."),
			 errtable(rel)));
}

/* The numbers of an array that has none but these. */
static const int64 *
read_sums(Relation rel, Datum value, int *n)
{
	ArrayType  *array = DatumGetArrayTypeP(value);

	if (ARR_NDIM(array) != 1 || ARR_HASNULL(array))
		not_aligned(rel);
	*n = ARR_DIMS(array)[0];
	return (const int64 *) ARR_DATA_PTR(array);
}

static text **
text_of(LcCount *count, LcFlowColumn column)
{
	return column == F_REACHED ? &count->reached :
		column == F_FROM_STATUS ? &count->from_status : &count->to_status;
}

/*
 * Let the counts refer to the elements of an array.  As deconstruct_array() would
 * do it, which takes several times as long: rows have hundreds of them.
 */
static void
read_texts(Relation rel, Datum value, LcCount *counts, int n, LcFlowColumn column)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	const bits8 *present = ARR_NULLBITMAP(array);
	char	   *element = ARR_DATA_PTR(array);

	if (ARR_NDIM(array) != 1 || ARR_DIMS(array)[0] != n)
		not_aligned(rel);
	for (int i = 0; i < n; i++)
	{
		if (present != NULL && (present[i / 8] & (1 << (i % 8))) == 0)
			continue;
		*text_of(&counts[i], column) = (text *) element;
		element = att_addlength_pointer(element, -1, element);
		element = (char *) att_align_nominal(element, TYPALIGN_INT);
	}
}

/*
 * The counts of a row of that kind.  What they refer to is the row, or in the
 * current memory, as they are.
 */
int
lc_cell_read(Relation rel, TupleTableSlot *slot, const AttrNumber *attno, LcFlowKind kind, LcCount **counts)
{
	static const LcFlowColumn texts[] = {F_FROM_STATUS, F_TO_STATUS, F_REACHED};
	LcCount    *c;
	LcCount		cell = {0};
	Datum		value;
	bool		isnull;
	const int64 *sums;
	int			n;
	int			n_here;

	cell.kind = kind;
	cell.day = DatumGetDateADT(slot_getattr(slot, attno[F_DAY], &isnull));
	value = slot_getattr(slot, attno[F_SOURCE], &isnull);
	cell.source = isnull ? NULL : DatumGetTextPP(value);
	cell.cohort = DatumGetInt32(slot_getattr(slot, attno[F_COHORT], &cell.cohort_isnull));
	value = slot_getattr(slot, attno[F_N], &isnull);
	if (isnull)
		not_aligned(rel);
	sums = read_sums(rel, value, &n);
	*counts = c = palloc(n * sizeof(LcCount));
	for (int i = 0; i < n; i++)
	{
		c[i] = cell;
		c[i].sums[S_N] = sums[i];
	}
	for (int s = S_N + 1; s < LC_FLOW_SUMS; s++)
	{
		value = slot_getattr(slot, attno[F_N + s], &isnull);
		if (isnull)
			continue;
		sums = read_sums(rel, value, &n_here);
		if (n_here != n)
			not_aligned(rel);
		for (int i = 0; i < n; i++)
			c[i].sums[s] = sums[i];
	}
	for (int t = 0; t < lengthof(texts); t++)
	{
		value = slot_getattr(slot, attno[texts[t]], &isnull);
		if (!isnull)
			read_texts(rel, value, c, n, texts[t]);
	}
	return n;
}

static Datum
array_of_sums(LcCount *const *counts, int n, LcFlowSum sum)
{
	Size		size = ARR_OVERHEAD_NONULLS(1) + n * sizeof(int64);
	ArrayType  *array = palloc0(size);
	int64	   *data;

	SET_VARSIZE(array, size);
	array->ndim = 1;
	array->elemtype = INT8OID;
	ARR_DIMS(array)[0] = n;
	ARR_LBOUND(array)[0] = 1;
	data = (int64 *) ARR_DATA_PTR(array);
	for (int i = 0; i < n; i++)
		data[i] = counts[i]->sums[sum];
	return PointerGetDatum(array);
}

/* As construct_md_array() would make it; see read_texts(). */
static Datum
array_of_texts(LcCount *const *counts, int n, LcFlowColumn column)
{
	bool		has_nulls = false;
	Size		header;
	Size		size = 0;
	ArrayType  *array;
	char	   *element;

	for (int i = 0; i < n; i++)
	{
		const text *t = *text_of(counts[i], column);

		if (t == NULL)
			has_nulls = true;
		else
			size += INTALIGN(VARHDRSZ + VARSIZE_ANY_EXHDR(t));
	}
	header = has_nulls ? ARR_OVERHEAD_WITHNULLS(1, n) : ARR_OVERHEAD_NONULLS(1);
	if (!AllocSizeIsValid(header + size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("array size exceeds the maximum allowed (%d)", (int) MaxAllocSize)));
	array = palloc0(header + size);
	SET_VARSIZE(array, header + size);
	array->ndim = 1;
	array->dataoffset = has_nulls ? header : 0;
	array->elemtype = TEXTOID;
	ARR_DIMS(array)[0] = n;
	ARR_LBOUND(array)[0] = 1;
	element = ARR_DATA_PTR(array);
	for (int i = 0; i < n; i++)
	{
		const text *t = *text_of(counts[i], column);

		if (t == NULL)
			continue;
		if (has_nulls)
			ARR_NULLBITMAP(array)[i / 8] |= 1 << (i % 8);
		SET_VARSIZE(element, VARHDRSZ + VARSIZE_ANY_EXHDR(t));
		memcpy(VARDATA(element), VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
		element += INTALIGN(VARHDRSZ + VARSIZE_ANY_EXHDR(t));
	}
	return PointerGetDatum(array);
}

/*
 * Fill in a row of the span with the counts of one cell; the key is NULL in rows
 * that writers append.  What the row refers to is in the current memory.
 */
void
lc_cell_fill(TupleTableSlot *slot, const AttrNumber *attno, const char *span, pg_uuid_t *key,
			 LcCount *const *counts, int n)
{
	const LcCount *cell = counts[0];
	bool		moves = cell->kind == K_MOVE;

	lc_append_set_text(slot, attno[F_SPAN], cstring_to_text(span));
	lc_append_set_text(slot, attno[F_KIND], cstring_to_text(lc_flow_kinds[cell->kind]));
	lc_append_set(slot, attno[F_DAY], DateADTGetDatum(cell->day), false);
	lc_append_set(slot, attno[F_KEY], UUIDPGetDatum(key), key == NULL);
	lc_append_set_text(slot, attno[F_SOURCE], cell->source);
	lc_append_set(slot, attno[F_COHORT], Int32GetDatum(cell->cohort), cell->cohort_isnull);
	lc_append_set(slot, attno[F_FROM_STATUS], moves ? array_of_texts(counts, n, F_FROM_STATUS) : (Datum) 0, !moves);
	lc_append_set(slot, attno[F_TO_STATUS], moves ? array_of_texts(counts, n, F_TO_STATUS) : (Datum) 0, !moves);
	lc_append_set(slot, attno[F_REACHED], moves ? (Datum) 0 : array_of_texts(counts, n, F_REACHED), moves);
	for (int s = S_N; s < LC_FLOW_SUMS; s++)
		lc_append_set(slot, attno[F_N + s], moves || s == S_N ? array_of_sums(counts, n, s) : (Datum) 0,
					  !moves && s != S_N);
}
