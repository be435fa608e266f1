/*-------------------------------------------------------------------------
 *
 * partition.c
 *	  Tables of leads or signals that are partitioned: which table is below which,
 *	  and what becomes of our triggers when a partition comes or goes.
 *
 * Row triggers made on the tracked table are cloned by PostgreSQL to every
 * partition, whenever it comes, and removed when it is detached.  They alone
 * make a history right.  Statement triggers are not cloned: those of the table
 * that a statement names fire, and let history.c collect its moves; and
 * TRUNCATE fires those of each table that it empties, so that the leaves need
 * one.  An event trigger sees to both.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(lifecycle_partitions_changed);

/*
 * The table that this one is a partition of, or InvalidOid.  One that is being
 * detached concurrently still is: it has our row triggers until that is done.
 */
Oid
lc_partition_parent(Oid relid)
{
	return get_rel_relispartition(relid) ? get_partition_parent(relid, true) : InvalidOid;
}

/*
 * Whether the table has enabled AFTER triggers of its users.  Read from the
 * catalog: the tables below a partitioned one may be thousands, which need not
 * all be opened and locked for that.
 */
static bool
has_users_after_trigger(Relation triggers, Oid relid)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger t = (Form_pg_trigger) GETSTRUCT(tuple);

		found = t->tgenabled != TRIGGER_DISABLED && !t->tgisinternal &&
			TRIGGER_FOR_AFTER(t->tgtype) && get_func_namespace(t->tgfoid) != lc_schema();
	}
	systable_endscan(scan);
	return found;
}

/*
 * Find out what tables are below a partitioned one, and whether users may look
 * there while a statement of the upper one is under way.  A change of any of
 * them makes the program stale.
 */
void
lc_partition_learn(LcProgram *program)
{
	List	   *below;
	ListCell   *cell;
	Relation	triggers;

	if (get_rel_relkind(program->relid) != RELKIND_PARTITIONED_TABLE)
		return;
	below = find_all_inheritors(program->relid, NoLock, NULL);
	list_sort(below, list_oid_cmp);
	program->nparts = 0;
	program->parts = MemoryContextAlloc(program->cxt, list_length(below) * sizeof(Oid));
	triggers = table_open(TriggerRelationId, AccessShareLock);
	foreach(cell, below)
	{
		program->parts[program->nparts++] = lfirst_oid(cell);
		if (!program->users_look)
			program->users_look = has_users_after_trigger(triggers, lfirst_oid(cell));
	}
	table_close(triggers, AccessShareLock);
	list_free(below);
}

/*
 * Whether the table is below that of the program, as far as that was learnt.
 * Called from a relcache callback.
 */
bool
lc_partition_is_below(const LcProgram *program, Oid relid)
{
	int			low = 0;
	int			high = program->nparts;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (program->parts[middle] == relid)
			return true;
		if (program->parts[middle] < relid)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/*
 * The table that the command attaches or, where these are asked for, detaches;
 * or InvalidOid where it does something else.
 */
static Oid
attached_or_detached(Node *stmt, bool detached)
{
	ListCell   *cell;

	if (!IsA(stmt, AlterTableStmt) || ((AlterTableStmt *) stmt)->objtype != OBJECT_TABLE)
		return InvalidOid;
	foreach(cell, ((AlterTableStmt *) stmt)->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

		if (cmd->subtype == AT_AttachPartition ||
			(detached && (cmd->subtype == AT_DetachPartition ||
						  cmd->subtype == AT_DetachPartitionFinalize)))
			return RangeVarGetRelid(castNode(PartitionCmd, cmd->def)->name, NoLock, true);
	}
	return InvalidOid;
}

/* Call a function of ours on one or two tables, as the user. */
static void
call(const char *sql, int nargs, Oid first, Oid second)
{
	Oid			types[2] = {REGCLASSOID, REGCLASSOID};
	Datum		values[2];

	values[0] = ObjectIdGetDatum(first);
	values[1] = ObjectIdGetDatum(second);
	SPI_connect();
	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "unexpected result of: %s", sql);
	SPI_finish();
}

/*
 * ddl_command_start and ddl_command_end event trigger: have a table that is to
 * become a partition, or was made as one, looked at by lifecycle.check_attach(),
 * and one that became or ceased to be one by lifecycle.follow_partition().  It
 * goes by the command itself, so that others cost nothing; and those that
 * pg_restore runs beside its CREATE TRIGGER must not make us create the same
 * trigger first.  The statement for a foreign table begins as that for a table.
 */
Datum
lifecycle_partitions_changed(PG_FUNCTION_ARGS)
{
	static const char *const follow_created =
		"SELECT lifecycle.check_attach(i.inhparent, c.objid), lifecycle.follow_partition(c.objid)"
		" FROM pg_catalog.pg_event_trigger_ddl_commands() c"
		" JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) c.objid"
		" JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) c.objid"
		" WHERE c.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
		" AND t.relispartition AND t.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f}'::pg_catalog.\"char\"[])";
	EventTriggerData *event = (EventTriggerData *) fcinfo->context;
	Oid			schema = get_namespace_oid("lifecycle", true);
	Oid			relid;

	lc_require_event_trigger(fcinfo, "partitions_changed");
	/* half an extension; or not open to this user, who then has no table of ours */
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("program", schema)) ||
		object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
		PG_RETURN_NULL();

	if (strcmp(event->event, "ddl_command_start") == 0)
	{
		Oid			parent;

		if (!OidIsValid(relid = attached_or_detached(event->parsetree, false)))
			PG_RETURN_NULL();
		parent = RangeVarGetRelid(((AlterTableStmt *) event->parsetree)->relation, NoLock, true);
		if (OidIsValid(parent))
			call("SELECT lifecycle.check_attach($1, $2)", 2, parent, relid);
	}
	else if (OidIsValid(relid = attached_or_detached(event->parsetree, true)))
		call("SELECT lifecycle.follow_partition($1)", 1, relid, InvalidOid);
	else if (IsA(event->parsetree, CreateSchemaStmt) ||
			 ((IsA(event->parsetree, CreateStmt) || IsA(event->parsetree, CreateForeignTableStmt)) &&
			  ((CreateStmt *) event->parsetree)->partbound != NULL))
		call(follow_created, 0, InvalidOid, InvalidOid);
	PG_RETURN_NULL();
}
