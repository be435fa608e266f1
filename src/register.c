/*-------------------------------------------------------------------------
 *
 * register.c
 *	  What track_signal() and untrack_signal() leave to C: how a row of a signal
 *	  table names its lead, and the row of lifecycle.signal.
 *
 * Whoever writes a signal table makes us read and lock leads and write the table
 * of points, and whoever writes leads makes us read the signals; so the caller
 * must own all three.  The rows themselves are written as the owner of our
 * tables, which users can only read.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(lifecycle_canonical_lead);
PG_FUNCTION_INFO_V1(lifecycle_register_signal);
PG_FUNCTION_INFO_V1(lifecycle_unregister_signal);

/*
 * Whether every value of the one type is a value of the other, and different
 * ones stay different: two leads must not share the signals of one.
 */
static bool
converts_without_loss(Oid from, Oid to)
{
	from = getBaseType(from);
	to = getBaseType(to);
	if (from == to)
		return true;
	switch (from)
	{
		case INT2OID:
			return to == INT4OID || to == INT8OID || to == NUMERICOID;
		case INT4OID:
			return to == INT8OID || to == NUMERICOID;
		case INT8OID:
			return to == NUMERICOID;
		case TEXTOID:
			return to == VARCHAROID;
		case VARCHAROID:
			return to == TEXTOID;
		default:
			return false;
	}
}

/*
 * canonical_lead(signal_table regclass, lead name, key_type regtype): the
 * column as an expression of the key's type, as it is stored.  NULL gives NULL.
 */
Datum
lifecycle_canonical_lead(PG_FUNCTION_ARGS)
{
	Oid			relid;
	char	   *column;
	Oid			key_type;
	AttrNumber	attno;
	Relation	rel;
	char	   *canonical;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	relid = PG_GETARG_OID(0);
	column = NameStr(*PG_GETARG_NAME(1));
	key_type = PG_GETARG_OID(2);
	lc_require_owner(relid);
	rel = relation_open(relid, AccessShareLock);
	attno = get_attnum(relid, column);
	if (attno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", column, RelationGetRelationName(rel)),
				 errhint("Name the column that holds the key of the lead.")));
	if (!converts_without_loss(get_atttype(relid, attno), key_type))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table \"%s\" is of type %s, and the key of the leads of type %s",
						column, RelationGetRelationName(rel),
						format_type_be(get_atttype(relid, attno)), format_type_be(key_type)),
				 errdetail("Not every value of the one is a value of the other."),
				 errhint("Give the column the type of the key.")));
	canonical = lc_expr_canonical(rel, "expression for \"lead\"", quote_identifier(column), key_type, NULL);
	relation_close(rel, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(canonical));
}

/*
 * register_signal(signal_table, lead_table, behavior regclass, lead, at text):
 * write the row of lifecycle.signal for track_signal(), which has checked
 * everything else, and the table of points into the program's row.  Gives the
 * number that the triggers of the signal table have.
 */
Datum
lifecycle_register_signal(PG_FUNCTION_ARGS)
{
	Oid			types[] = {REGCLASSOID, REGCLASSOID, TEXTOID, TEXTOID};
	Oid			program_types[] = {REGCLASSOID, REGCLASSOID};
	Datum		values[4];
	Datum		program_values[2];
	Datum		id;

	for (int i = 0; i < 3; i++)
		lc_require_owner(PG_GETARG_OID(i));
	program_values[0] = PG_GETARG_DATUM(1);
	program_values[1] = PG_GETARG_DATUM(2);
	lc_follow_execute("UPDATE lifecycle.program SET behavior = $2"
					  " WHERE lead_table = $1 AND behavior IS DISTINCT FROM $2",
					  2, program_types, program_values, SPI_OK_UPDATE);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = PG_GETARG_DATUM(3);
	values[3] = PG_GETARG_DATUM(4);
	lc_execute_as_extension("INSERT INTO lifecycle.signal (signal_table, lead_table, lead, at)"
							" VALUES ($1, $2, $3, $4) RETURNING id",
							4, types, values, NULL, SPI_OK_INSERT_RETURNING, &id);
	PG_RETURN_DATUM(id);
}

/*
 * unregister_signal(signal_table): delete the row of lifecycle.signal and the
 * rules of the table for untrack_signal(); false where there is no such row.
 * The rules of a table whose rows are leads as well stay.
 */
Datum
lifecycle_unregister_signal(PG_FUNCTION_ARGS)
{
	Oid			type = REGCLASSOID;
	Datum		relid = PG_GETARG_DATUM(0);
	Datum		id;

	lc_require_owner(DatumGetObjectId(relid));
	lc_follow_execute("DELETE FROM lifecycle.rule r WHERE r.on_table = $1"
					  " AND NOT EXISTS (SELECT FROM lifecycle.program p WHERE p.lead_table = r.on_table)",
					  1, &type, &relid, SPI_OK_DELETE);
	lc_execute_as_extension("DELETE FROM lifecycle.signal WHERE signal_table = $1 RETURNING id",
							1, &type, &relid, NULL, SPI_OK_DELETE_RETURNING, &id);
	PG_RETURN_BOOL(DatumGetInt32(id) != 0);
}
