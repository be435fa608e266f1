/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  The differences between PostgreSQL 15, 16, 17 and 18 that lifecycle
 *	  meets, each behind one name.
 *
 * The rest of the code is written for the newest spelling.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_COMPAT_H
#define LIFECYCLE_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "lifecycle needs PostgreSQL 15 or later"
#endif

#include "access/genam.h"
#include "executor/executor.h"
#include "nodes/primnodes.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 160000
#define object_ownercheck(classid, objectid, roleid) \
	pg_class_ownercheck((objectid), (roleid))
#define object_aclcheck(classid, objectid, roleid, mode) \
	pg_namespace_aclcheck((objectid), (roleid), (mode))
#define lc_function_aclcheck(funcid, roleid, mode) \
	pg_proc_aclcheck((funcid), (roleid), (mode))
#else
#define lc_function_aclcheck(funcid, roleid, mode) \
	object_aclcheck(ProcedureRelationId, (funcid), (roleid), (mode))
#endif

/* Whether the role may call the function. */
#if PG_VERSION_NUM >= 160000
#define lc_may_execute(funcid, roleid) \
	(object_aclcheck(ProcedureRelationId, (funcid), (roleid), ACL_EXECUTE) == ACLCHECK_OK)
#else
#define lc_may_execute(funcid, roleid) \
	(pg_proc_aclcheck((funcid), (roleid), ACL_EXECUTE) == ACLCHECK_OK)
#endif

/* The number of the transaction that this backend runs, never used twice. */
#if PG_VERSION_NUM >= 170000
#define LcLocalTransactionId() (MyProc ? MyProc->vxid.lxid : InvalidLocalTransactionId)
#else
#define LcLocalTransactionId() (MyProc ? MyProc->lxid : InvalidLocalTransactionId)
#endif

/* Memory for the "extra" of a setting, released by the server. */
#if PG_VERSION_NUM >= 160000
#define lc_guc_malloc(size) guc_malloc(LOG, (size))
#else
#define lc_guc_malloc(size) malloc(size)
#endif

/* Pin search_path inside a GUC nest level: catalog first, temporary last. */
#if PG_VERSION_NUM < 170000
static inline void
RestrictSearchPath(void)
{
	set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
					  PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}
#endif

#if PG_VERSION_NUM >= 160000
#define lc_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples((rri), (slot), (estate), false, false, NULL, NIL, false)
#else
#define lc_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples((rri), (slot), (estate), false, false, NULL, NIL)
#endif

/* The same where another row of the same key in one of these indexes is no error. */
#if PG_VERSION_NUM >= 160000
#define lc_insert_index_tuples_unless(rri, slot, estate, conflict, arbiters) \
	ExecInsertIndexTuples((rri), (slot), (estate), false, true, (conflict), (arbiters), false)
#else
#define lc_insert_index_tuples_unless(rri, slot, estate, conflict, arbiters) \
	ExecInsertIndexTuples((rri), (slot), (estate), false, true, (conflict), (arbiters))
#endif

/*
 * What an update says about the indexes, whether they need entries, and their
 * entries for the new version.
 */
#if PG_VERSION_NUM >= 160000
#define LcUpdateIndexes TU_UpdateIndexes
#define lc_needs_entries(update) ((update) != TU_None)
#define lc_update_index_tuples(rri, slot, estate, update) \
	ExecInsertIndexTuples((rri), (slot), (estate), true, false, NULL, NIL, (update) == TU_Summarizing)
#else
#define LcUpdateIndexes bool
#define lc_needs_entries(update) (update)
#define lc_update_index_tuples(rri, slot, estate, update) \
	ExecInsertIndexTuples((rri), (slot), (estate), true, false, NULL, NIL)
#endif

#if PG_VERSION_NUM >= 160000
#define lc_eval_plan_qual_init(epqstate, estate) \
	EvalPlanQualInit((epqstate), (estate), NULL, NIL, -1, NIL)
#else
#define lc_eval_plan_qual_init(epqstate, estate) \
	EvalPlanQualInit((epqstate), (estate), NULL, NIL, -1)
#endif

#if PG_VERSION_NUM >= 180000
#define lc_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define lc_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

/* JSON_VALUE() and its like; JSON_OBJECT() and its like. */
#if PG_VERSION_NUM >= 170000
#define lc_is_json_query(node) IsA((node), JsonExpr)
#else
#define lc_is_json_query(node) false
#endif
#if PG_VERSION_NUM >= 160000
#define lc_is_json_constructor(node) IsA((node), JsonConstructorExpr)
#else
#define lc_is_json_constructor(node) false
#endif

/*
 * Whether the setting was given a value inside the transaction that is
 * running, as its stack of values tells; needed once, while the library loads
 * and takes over values that were set before.
 */
static inline bool
lc_setting_is_stacked(const char *name)
{
#if PG_VERSION_NUM >= 160000
	struct config_generic *conf = find_option(name, false, true, ERROR);

	return conf != NULL && conf->stack != NULL;
#else
	struct config_generic **all = get_guc_variables();
	int			n = GetNumConfigOptions();

	for (int i = 0; i < n; i++)
	{
		if (strcmp(all[i]->name, name) == 0)
			return all[i]->stack != NULL;
	}
	return false;
#endif
}

/* Intervals can be infinite since 17. */
#ifdef INTERVAL_NOT_FINITE
#define LcIntervalIsInfinite(i) INTERVAL_NOT_FINITE(i)
#else
#define LcIntervalIsInfinite(i) false
#endif

#endif							/* LIFECYCLE_COMPAT_H */
