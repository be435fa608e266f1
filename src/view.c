/*-------------------------------------------------------------------------
 *
 * view.c
 *	  What the views of a program leave to C: that the program knows them, that
 *	  they go with the lead table and do not keep its columns from changing, and
 *	  that the flow is merged as its owner.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "follow.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(lifecycle_register_views);
PG_FUNCTION_INFO_V1(lifecycle_count_anew_as_owner);
PG_FUNCTION_INFO_V1(lifecycle_merge_as_owner);
PG_FUNCTION_INFO_V1(lifecycle_follow_overview);

/*
 * register_views(lead_table, overview, funnel, funnel_monthly regclass): write
 * them into the row of lifecycle.program.  Whoever refreshes all programs runs
 * what they say as their owner, so the caller must own them.  They are made
 * automatic dependents of the lead table: what only says where leads are must
 * not keep anybody from dropping them.
 */
Datum
lifecycle_register_views(PG_FUNCTION_ARGS)
{
	Oid			types[] = {REGCLASSOID, REGCLASSOID, REGCLASSOID, REGCLASSOID};
	Datum		values[4];
	ObjectAddress leads;

	for (int i = 0; i < 4; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		lc_require_owner(DatumGetObjectId(values[i]));
	}
	ObjectAddressSet(leads, RelationRelationId, DatumGetObjectId(values[0]));
	for (int i = 1; i < 4; i++)
	{
		ObjectAddress view;

		ObjectAddressSet(view, RelationRelationId, DatumGetObjectId(values[i]));
		deleteDependencyRecordsForSpecific(RelationRelationId, view.objectId, DEPENDENCY_AUTO,
										   RelationRelationId, leads.objectId);
		recordDependencyOn(&view, &leads, DEPENDENCY_AUTO);
	}
	lc_follow_execute("UPDATE lifecycle.program SET overview = $2, funnel = $3, funnel_monthly = $4"
					  " WHERE lead_table = $1 AND (overview, funnel, funnel_monthly) IS DISTINCT FROM ($2, $3, $4)",
					  4, types, values, SPI_OK_UPDATE);
	/* who may read the view may read reports */
	CacheInvalidateRelcacheByRelid(leads.objectId);
	PG_RETURN_VOID();
}

/*
 * What a query of ours, about the program of the table $1, says when it runs as
 * the owner of the table, to whom the flow belongs: triggers and expressions of
 * indexes that he put there must not run as a superuser who works for everybody.
 * False where the table is tracked no more, which can happen while we wait for it.
 */
static bool
ask_as_owner(Oid relid, const char *sql, int64 *said)
{
	Oid			type = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(relid);
	HeapTuple	tuple;
	LcSavedUser saved;
	bool		isnull = true;

	LockRelationOid(relid, AccessShareLock);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	lc_require_owner(relid);
	lc_become_owner(((Form_pg_class) GETSTRUCT(tuple))->relowner, true, &saved);
	ReleaseSysCache(tuple);
	SPI_connect();
	if (SPI_execute_with_args(sql, 1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", sql);
	if (SPI_processed == 1)
		*said = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	lc_become_caller(&saved);
	return !isnull;
}

/*
 * merge_as_owner(lead_table)
 */
Datum
lifecycle_merge_as_owner(PG_FUNCTION_ARGS)
{
	int64		merged;

	if (!ask_as_owner(PG_GETARG_OID(0), "SELECT lifecycle.merge_flow(p.flow, p.flow_pending) FROM lifecycle.program p WHERE p.lead_table = $1",
					  &merged))
		PG_RETURN_NULL();
	PG_RETURN_INT64(merged);
}

/*
 * count_anew_as_owner(lead_table)
 */
Datum
lifecycle_count_anew_as_owner(PG_FUNCTION_ARGS)
{
	int64		counted;

	if (!ask_as_owner(PG_GETARG_OID(0), "SELECT lifecycle.count_anew(p) FROM lifecycle.program p WHERE p.lead_table = $1",
					  &counted))
		PG_RETURN_NULL();
	PG_RETURN_INT64(counted);
}

/* Whether a command that began had an overview read nothing. */
static bool released = false;

/*
 * ddl_command_start: if the command changes the type of a column that an
 * overview reads, have that read nothing.
 */
static void
release_overview(AlterTableStmt *stmt)
{
	Oid			types[] = {REGCLASSOID, NAMEARRAYOID};
	Datum		values[2];
	Datum		done;
	ListCell   *cell;
	Datum	   *columns = palloc(list_length(stmt->cmds) * sizeof(Datum));
	Oid			relid;
	int			n = 0;

	foreach(cell, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

		if (cmd->subtype == AT_AlterColumnType)
			columns[n++] = DirectFunctionCall1(namein, CStringGetDatum(cmd->name));
	}
	if (n == 0 || stmt->objtype != OBJECT_TABLE)
		return;
	/* lifecycle_follow_begin, which comes before, has locked a tracked table */
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(relid) || !object_ownercheck(RelationRelationId, relid, GetUserId()))
		return;
	values[0] = ObjectIdGetDatum(relid);
	values[1] = PointerGetDatum(construct_array(columns, n, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR));
	lc_execute_as_extension("SELECT lifecycle.empty_overview(p) FROM lifecycle.program p"
							" WHERE p.overview IS NOT NULL"
							" AND (p.lead_table = $1 AND $2 && ARRAY[p.key, p.status_column, 'lifecycle_since', 'lifecycle_seq', 'demographic_score']"
							" OR p.behavior = $1 AND $2 && '{lead,half_life,points,at}')",
							2, types, values, NULL, SPI_OK_SELECT, &done);
	released = released || DatumGetBool(done);
}

/*
 * follow_overview(): event trigger on ddl_command_start and ddl_command_end of
 * ALTER TABLE.  A view keeps the columns that it reads from getting another
 * type, so for the time of such a command on leads or their points the overview
 * reads nothing.  All is done as the owner of the extension, since the user may
 * have no access to our schema; nothing is evaluated that a user wrote.
 */
Datum
lifecycle_follow_overview(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = (EventTriggerData *) fcinfo->context;
	Oid			schema = get_namespace_oid("lifecycle", true);

	lc_require_event_trigger(fcinfo, "follow_overview");
	if (!IsA(event->parsetree, AlterTableStmt) || !OidIsValid(schema) ||
		!OidIsValid(get_relname_relid("program", schema)))
		PG_RETURN_NULL();
	if (strcmp(event->event, "ddl_command_start") == 0)
		release_overview((AlterTableStmt *) event->parsetree);
	else if (released)
	{
		released = false;
		lc_execute_as_extension("SELECT lifecycle.restore_overview(p) FROM lifecycle.program p"
								" WHERE p.overview IS NOT NULL AND NOT EXISTS ("
								" SELECT FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
								" WHERE r.ev_class = p.overview AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.lead_table)",
								0, NULL, NULL, NULL, SPI_OK_SELECT, NULL);
	}
	PG_RETURN_NULL();
}
