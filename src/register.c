/*-------------------------------------------------------------------------
 *
 * register.c
 *	  What tracking leaves to C: the rows of lifecycle.program and lifecycle.signal,
 *	  written and taken away; how a row of a signal table names its lead; and what
 *	  becomes of all that when tables are dropped.
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
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(lifecycle_register_program);
PG_FUNCTION_INFO_V1(lifecycle_unregister_program);
PG_FUNCTION_INFO_V1(lifecycle_tables_dropped);
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

/*
 * Run one fixed statement on our configuration as the owner of its tables, with
 * all their constraints and triggers, on what is committed now.  What the
 * caller may do has been checked.
 */
void
lc_execute_as_extension(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls,
						int expected, Datum *result)
{
	Relation	programs = table_open(lc_config_relid("program"), RowExclusiveLock);
	SPIPlanPtr	plan;
	Snapshot	snapshot;
	Oid			userid;
	int			sec_context;
	int			guc_level;
	bool		isnull;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(programs->rd_rel->relowner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	guc_level = NewGUCNestLevel();
	RestrictSearchPath();

	SPI_connect();
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (SPI_execute_snapshot(plan, values, nulls, snapshot, InvalidSnapshot, false, true, 0) != expected)
		elog(ERROR, "unexpected result of: %s", sql);
	UnregisterSnapshot(snapshot);
	if (result != NULL)
		*result = SPI_processed == 0 ? (Datum) 0 :
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	SPI_finish();

	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(userid, sec_context);
	table_close(programs, NoLock);
}

/*
 * register_program(...): write the program row for track(), which has checked
 * everything else.  Gives the program's id.  A writer of the lead table makes
 * us write the tables that the row names, so the caller must own them.
 */
Datum
lifecycle_register_program(PG_FUNCTION_ARGS)
{
	static const Oid column_types[] = {
		REGCLASSOID, TEXTOID, NAMEOID, NAMEOID, NAMEOID, REGCLASSOID, REGCLASSOID, BOOLOID,
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, REGCLASSOID, REGCLASSOID
	};
	Oid			types[lengthof(column_types)];
	Datum		values[lengthof(column_types)];
	char		nulls[lengthof(column_types)];
	Datum		id;

	for (int i = 0; i < lengthof(column_types); i++)
	{
		types[i] = column_types[i];
		values[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
		if (column_types[i] == REGCLASSOID)
			lc_require_owner(PG_ARGISNULL(i) ? InvalidOid : PG_GETARG_OID(i));
	}
	lc_execute_as_extension("INSERT INTO lifecycle.program (lead_table, model, key, status_column, prefix,"
						 " history, refused, status_added, entered, source, value, actor, reason, cohort,"
						 " on_illegal, tz, flow, flow_pending)"
						 " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
						 " RETURNING id",
						 lengthof(column_types), types, values, nulls, SPI_OK_INSERT_RETURNING, &id);
	PG_RETURN_DATUM(id);
}

/*
 * unregister_program(lead_table): delete the program's row and its rules for
 * untrack().
 */
Datum
lifecycle_unregister_program(PG_FUNCTION_ARGS)
{
	Oid			type = REGCLASSOID;
	Datum		relid = PG_GETARG_DATUM(0);
	Datum		id;

	lc_require_owner(DatumGetObjectId(relid));
	lc_follow_execute("DELETE FROM lifecycle.rule WHERE on_table = $1", 1, &type, &relid, SPI_OK_DELETE);
	lc_execute_as_extension("DELETE FROM lifecycle.program WHERE lead_table = $1 RETURNING id",
						 1, &type, &relid, NULL, SPI_OK_DELETE_RETURNING, &id);
	PG_RETURN_BOOL(DatumGetInt32(id) != 0);
}

/*
 * sql_drop event trigger.  A table that is gone takes its program and rules with
 * it: the next table that got its OID would inherit it.  A history that is
 * gone while its lead table stays would leave every writer with an error, and
 * so would a lead table that is gone while a signal table stays; so that is
 * refused here, where it can be.
 */
Datum
lifecycle_tables_dropped(PG_FUNCTION_ARGS)
{
	Oid			schema = get_namespace_oid("lifecycle", true);
	Datum		orphan;
	Datum		widowed;

	lc_require_event_trigger(fcinfo, "tables_dropped");
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("program", schema)))
		PG_RETURN_NULL();

	lc_follow_execute("DELETE FROM lifecycle.rule r"
					  " WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = r.on_table)",
					  0, NULL, NULL, SPI_OK_DELETE);
	lc_execute_as_extension("DELETE FROM lifecycle.signal s"
						 " WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.signal_table)",
						 0, NULL, NULL, NULL, SPI_OK_DELETE, NULL);
	lc_execute_as_extension("SELECT s.signal_table FROM lifecycle.signal s"
						 " WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.lead_table) ORDER BY s.id LIMIT 1",
						 0, NULL, NULL, NULL, SPI_OK_SELECT, &orphan);
	if (DatumGetObjectId(orphan) != InvalidOid)
	{
		char	   *name = get_rel_name(DatumGetObjectId(orphan));
		char	   *space = get_namespace_name(get_rel_namespace(DatumGetObjectId(orphan)));

		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop a lead table whose signals are in table \"%s\"", name),
				 errhint("Call lifecycle.untrack_signal(%s) first.",
						 quote_literal_cstr(quote_qualified_identifier(space, name)))));
	}
	lc_execute_as_extension("DELETE FROM lifecycle.program p"
						 " WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.lead_table)",
						 0, NULL, NULL, NULL, SPI_OK_DELETE, NULL);
	lc_execute_as_extension("SELECT p.lead_table FROM lifecycle.program p"
						 " WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.history)"
						 "    OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.refused)"
						 "    OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.flow)"
						 "    OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.flow_pending)"
						 "    OR (p.overview IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.overview))"
						 "    OR (p.funnel IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.funnel))"
						 "    OR (p.funnel_monthly IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.funnel_monthly))"
						 "    OR (p.behavior IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.behavior))"
						 " LIMIT 1",
						 0, NULL, NULL, NULL, SPI_OK_SELECT, &widowed);
	if (DatumGetObjectId(widowed) != InvalidOid)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop a table that lifecycle writes for tracked table \"%s\"",
						get_rel_name(DatumGetObjectId(widowed))),
				 errhint("Call lifecycle.untrack(%s) first.",
						 quote_literal_cstr(lc_table_name(DatumGetObjectId(widowed))))));
	PG_RETURN_NULL();
}
