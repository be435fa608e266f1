/*-------------------------------------------------------------------------
 *
 * cell.c
 *	  A row of <prefix>_flow: all that is counted of a kind, a day, a source and a
 *	  cohort, as arrays that run side by side.
 *
 * Much that is counted lies together so that a report reads few rows, and that a
 * merge changes few.  Within a row counts are in the order of the bytes of their
 * statuses: a merge reads and writes them in one pass.  Reports do not rely on it.
 *
 *-------------------------------------------------------------------------
 */
#include "flow.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/toast_internals.h"
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
	{"span", TEXTOID}, {"key", UUIDOID}, {"kind", TEXTOID}, {"day", DATEOID}, {"source", TEXTOID}, {"cohort", INT4OID},
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

/* A copy in that memory, as it is; of NULL, NULL. */
text *
lc_cell_copy_text(MemoryContext cxt, const text *value)
{
	text	   *copy;

	if (value == NULL)
		return NULL;
	copy = MemoryContextAlloc(cxt, VARSIZE_ANY(value));
	memcpy(copy, value, VARSIZE_ANY(value));
	return copy;
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

/* ---- columns ---- */

/*
 * Where the columns are from that one on, which must be of the types that are
 * read: the owner can change them by DDL.
 */
void
lc_cell_find_columns(Relation rel, LcFlowColumn first, AttrNumber *attno)
{
	for (int c = first; c < LC_FLOW_COLUMNS; c++)
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

/* Open the index of the flow on (span, kind, day, key), which are in ascending order. */
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
			fits = index->rd_indoption[i] == 0 &&
				form->indkey.values[i] == get_attnum(RelationGetRelid(rel), lc_flow_columns[columns[i]].name);
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

/* ---- reading ---- */

static text **
text_of(LcCount *count, LcFlowColumn column)
{
	return column == F_REACHED ? &count->reached :
		column == F_FROM_STATUS ? &count->from_status : &count->to_status;
}

/* The kind of a row, or -1: it is of none that there is. */
int
lc_cell_kind(TupleTableSlot *slot, const AttrNumber *attno)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attno[F_KIND], &isnull);
	const text *kind;

	if (isnull)
		return -1;
	kind = DatumGetTextPP(value);
	for (int k = 0; k < LC_FLOW_KINDS; k++)
	{
		if (VARSIZE_ANY_EXHDR(kind) == strlen(lc_flow_kinds[k]) &&
			memcmp(VARDATA_ANY(kind), lc_flow_kinds[k], strlen(lc_flow_kinds[k])) == 0)
			return k;
	}
	return -1;
}

/* The array of a column, which must have so many elements. */
static ArrayType *
array_of(Relation rel, Datum value, int n)
{
	ArrayType  *array = DatumGetArrayTypeP(value);

	if (ARR_NDIM(array) != 1 || (n >= 0 && ARR_DIMS(array)[0] != n))
		not_aligned(rel);
	return array;
}

/*
 * Begin to read the counts of a row of that kind: lc_cell_next() gives them.  What
 * they refer to is the row, or in the current memory, as they are.
 */
void
lc_cell_begin_read(LcCellReader *reader, Relation rel, TupleTableSlot *slot, const AttrNumber *attno, LcFlowKind kind)
{
	LcCount    *c = &reader->count;
	ArrayType  *array;
	Datum		value;
	bool		isnull;

	memset(reader, 0, sizeof(LcCellReader));
	c->kind = kind;
	c->day = DatumGetDateADT(slot_getattr(slot, attno[F_DAY], &isnull));
	value = slot_getattr(slot, attno[F_SOURCE], &isnull);
	c->source = isnull ? NULL : DatumGetTextPP(value);
	c->cohort = DatumGetInt32(slot_getattr(slot, attno[F_COHORT], &c->cohort_isnull));
	reader->n = -1;
	for (LcFlowColumn column = F_N; column < LC_FLOW_COLUMNS; column++)
	{
		value = slot_getattr(slot, attno[column], &isnull);
		if (isnull && column == F_N)
			not_aligned(rel);
		if (isnull)
			continue;
		array = array_of(rel, value, reader->n);
		if (ARR_HASNULL(array))
			not_aligned(rel);
		reader->n = ARR_DIMS(array)[0];
		reader->sums[reader->nsums].sum = column - F_N;
		reader->sums[reader->nsums++].values = (const int64 *) ARR_DATA_PTR(array);
	}
	for (LcFlowColumn column = F_FROM_STATUS; column <= F_REACHED; column++)
	{
		value = slot_getattr(slot, attno[column], &isnull);
		if (isnull)
			continue;
		array = array_of(rel, value, reader->n);
		reader->texts[reader->ntexts].at = text_of(c, column);
		reader->texts[reader->ntexts].present = ARR_NULLBITMAP(array);
		reader->texts[reader->ntexts++].element = ARR_DATA_PTR(array);
	}
}

/*
 * Whether there is another count; it is in reader->count then.  As
 * deconstruct_array() would do it, which takes several times as long: rows have
 * hundreds of them.
 */
bool
lc_cell_next(LcCellReader *reader)
{
	int			i = reader->i;

	if (i >= reader->n)
		return false;
	for (int t = 0; t < reader->ntexts; t++)
	{
		const bits8 *present = reader->texts[t].present;
		char	   *element = reader->texts[t].element;

		if (present != NULL && (present[i / 8] & (1 << (i % 8))) == 0)
		{
			*reader->texts[t].at = NULL;
			continue;
		}
		*reader->texts[t].at = (text *) element;
		element = att_addlength_pointer(element, -1, element);
		reader->texts[t].element = (char *) att_align_nominal(element, TYPALIGN_INT);
	}
	for (int s = 0; s < reader->nsums; s++)
		reader->count.sums[reader->sums[s].sum] = reader->sums[s].values[i];
	reader->i++;
	return true;
}

/*
 * All counts of a row.
 */
int
lc_cell_read(Relation rel, TupleTableSlot *slot, const AttrNumber *attno, LcFlowKind kind, LcCount **counts)
{
	LcCellReader reader;

	lc_cell_begin_read(&reader, rel, slot, attno, kind);
	*counts = palloc(reader.n * sizeof(LcCount));
	while (lc_cell_next(&reader))
		(*counts)[reader.i - 1] = reader.count;
	return reader.n;
}

/* ---- writing ---- */

/* Whether rows of that kind have it. */
static bool
has_column(LcFlowKind kind, LcFlowColumn column)
{
	if (column == F_N)
		return true;
	return kind == K_MOVE ? column != F_REACHED : column == F_REACHED;
}

/* Where in the array so many bytes more are to be written. */
static inline char *
more_of(LcCellArray *array, Size size)
{
	char	   *at;

	if (array->used + size > array->room)
	{
		Size		room = Max(2 * array->room, array->used + size);

		if (!AllocSizeIsValid(room))
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("array size exceeds the maximum allowed (%d)", (int) MaxAllocSize)));
		array->data = repalloc(array->data, room);
		array->room = room;
	}
	at = array->data + array->used;
	array->used += size;
	return at;
}

static void
begin_array(LcCellArray *array, Size header, Size room)
{
	array->room = header + room;
	array->data = palloc(array->room);
	array->used = header;
	memset(array->data, 0, header);
}

/*
 * Begin to write the counts of a cell, of which about so many come, in the current
 * memory: lc_cell_put() takes them, lc_cell_store() makes the row.
 */
void
lc_cell_begin_write(LcCellWriter *writer, LcFlowKind kind, int about)
{
	memset(writer, 0, sizeof(LcCellWriter));
	for (LcFlowColumn c = F_FROM_STATUS; c < LC_FLOW_COLUMNS; c++)
	{
		if (has_column(kind, c))
			begin_array(&writer->arrays[c - F_FROM_STATUS], ARR_OVERHEAD_NONULLS(1), c < F_N ? 96 + about * 32 : about * sizeof(int64));
		if (has_column(kind, c) && c < F_N)
			begin_array(&writer->present[c - F_FROM_STATUS], 0, about / 8 + 1);
	}
}

/*
 * Write a count, which may be the one that was read last.
 */
void
lc_cell_put(LcCellWriter *writer, const LcCount *count)
{
	int			i = writer->n++;

	for (LcFlowColumn c = F_FROM_STATUS; c < F_N; c++)
	{
		LcCellArray *present = &writer->present[c - F_FROM_STATUS];
		const text *value;
		Size		size;
		char	   *element;

		if (present->data == NULL)
			continue;
		if (i % 8 == 0)
			*more_of(present, 1) = 0;
		if ((value = *text_of(unconstify(LcCount *, count), c)) == NULL)
		{
			writer->has_nulls[c - F_FROM_STATUS] = true;
			continue;
		}
		present->data[i / 8] |= 1 << (i % 8);
		writer->has_values[c - F_FROM_STATUS] = true;
		size = VARHDRSZ + VARSIZE_ANY_EXHDR(value);
		element = more_of(&writer->arrays[c - F_FROM_STATUS], INTALIGN(size));
		SET_VARSIZE(element, size);
		memcpy(VARDATA(element), VARDATA_ANY(value), size - VARHDRSZ);
		memset(element + size, 0, INTALIGN(size) - size);
	}
	for (LcFlowColumn c = F_N; c < LC_FLOW_COLUMNS; c++)
	{
		LcCellArray *sums = &writer->arrays[c - F_FROM_STATUS];

		if (sums->data == NULL)
			continue;
		*(int64 *) more_of(sums, sizeof(int64)) = count->sums[c - F_N];
		if (count->sums[c - F_N] != 0)
			writer->has_values[c - F_FROM_STATUS] = true;
	}
}

/* As construct_md_array() would make it. */
static Datum
finish_array(LcCellWriter *writer, LcFlowColumn column)
{
	LcCellArray *a = &writer->arrays[column - F_FROM_STATUS];
	ArrayType  *array = (ArrayType *) a->data;
	bits8	   *present;

	if (column < F_N && writer->has_nulls[column - F_FROM_STATUS])
	{
		Size		header = ARR_OVERHEAD_WITHNULLS(1, writer->n);
		Size		size = a->used - ARR_OVERHEAD_NONULLS(1);

		array = palloc0(header + size);
		memcpy((char *) array + header, a->data + ARR_OVERHEAD_NONULLS(1), size);
		a->used = header + size;
		array->dataoffset = header;
	}
	SET_VARSIZE(array, a->used);
	array->ndim = 1;
	array->elemtype = column < F_N ? TEXTOID : INT8OID;
	ARR_DIMS(array)[0] = writer->n;
	ARR_LBOUND(array)[0] = 1;
	if ((present = ARR_NULLBITMAP(array)) != NULL)
		memcpy(present, writer->present[column - F_FROM_STATUS].data, (writer->n + 7) / 8);
	return PointerGetDatum(array);
}

/* Arrays of so many bytes are compressed in rows that are merged. */
#define COMPRESSED_FROM 1200

/*
 * The array as it is to be stored in a row that is merged.  Sets are much alike,
 * and compressed a third as long: fewer pages to read, to write and to log.  Where
 * the server has no LZ4, it compresses by itself what is longer than a page.
 */
static Datum
compact(Datum array)
{
#ifdef USE_LZ4
	if (VARSIZE(DatumGetPointer(array)) >= COMPRESSED_FROM)
	{
		Datum		compressed = toast_compress_datum(array, TOAST_LZ4_COMPRESSION);

		if (DatumGetPointer(compressed) != NULL)
			return compressed;
	}
#endif
	return array;
}

/*
 * Fill in a row of the span with what was written, of the cell that "cell" is of;
 * without a span and a key, one that is pending, which is kept short: arrays of
 * nothing but 0 or NULL are left out.  With same_texts the row has the texts already,
 * which need not be compressed again.
 */
void
lc_cell_store(LcCellWriter *writer, TupleTableSlot *slot, const AttrNumber *attno, const char *span, const pg_uuid_t *key,
			  const LcCount *cell, bool same_texts)
{
	if (span != NULL)
	{
		lc_append_set_text(slot, attno[F_SPAN], cstring_to_text(span));
		lc_append_set(slot, attno[F_KEY], UUIDPGetDatum(key), false);
	}
	lc_append_set_text(slot, attno[F_KIND], cstring_to_text(lc_flow_kinds[cell->kind]));
	lc_append_set(slot, attno[F_DAY], DateADTGetDatum(cell->day), false);
	lc_append_set_text(slot, attno[F_SOURCE], cell->source);
	lc_append_set(slot, attno[F_COHORT], Int32GetDatum(cell->cohort), cell->cohort_isnull);
	for (LcFlowColumn c = same_texts ? F_N : F_FROM_STATUS; c < LC_FLOW_COLUMNS; c++)
	{
		bool		isnull = writer->arrays[c - F_FROM_STATUS].data == NULL ||
			(span == NULL && c != F_N && !writer->has_values[c - F_FROM_STATUS]);
		Datum		array = isnull ? (Datum) 0 : finish_array(writer, c);

		lc_append_set(slot, attno[c], isnull || span == NULL ? array : compact(array), isnull);
	}
}
