/*-------------------------------------------------------------------------
 *
 * lifecycle.c
 *	  Loading the library: its settings, its one relcache callback, and the
 *	  hand-over of transaction ends to the parts that keep state.
 *
 * A backend has ten places for relcache callbacks, for all extensions
 * together.  We take one and pass on what it says.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/event_trigger.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#ifdef PG_MODULE_MAGIC_EXT
PG_MODULE_MAGIC_EXT(.name = "lifecycle");
#else
PG_MODULE_MAGIC;
#endif

PGDLLEXPORT void _PG_init(void);

PG_FUNCTION_INFO_V1(lifecycle_configuration_changed);

/*
 * A setting that speaks for one transaction.
 *
 * Poolers hand a session, with all that was SET in it, from one client to the
 * next; an actor or a date that outlived its transaction would be a lie about
 * somebody else's write.  So a value carries the transaction in which it was
 * set, as the setting's "extra", which the server stacks and restores together
 * with the value; a value of any other transaction is not there for us.
 */
typedef struct TransactionSetting
{
	const char *name;
	char	   *value;
	LocalTransactionId set_in;
} TransactionSetting;

static TransactionSetting setting_at = {"lifecycle.at"};
static TransactionSetting setting_actor = {"lifecycle.actor"};
static TransactionSetting setting_reason = {"lifecycle.reason"};
static TransactionSetting setting_on_illegal = {"lifecycle.on_illegal"};

static bool loading = false;

bool		lc_batch_history = true;
bool		lc_count_flow = true;
uint64		lc_config_generation = 1;

/* The configuration tables that something compiled was read from. */
#define MAX_WATCHED 8
static Oid	watched[MAX_WATCHED];
static int	nwatched = 0;

/*
 * Stamp a new value with the transaction that sets it.  While the library
 * loads, values set earlier are taken over; take_over() decides about those.
 */
static bool
stamp_transaction(char **newval, void **extra, GucSource source)
{
	LocalTransactionId *stamp = lc_guc_malloc(sizeof(LocalTransactionId));

	if (stamp == NULL)
		return false;
	*stamp = loading ? InvalidLocalTransactionId : LcLocalTransactionId();
	*extra = stamp;
	return true;
}

static bool
check_on_illegal(char **newval, void **extra, GucSource source)
{
	if (*newval != NULL && **newval != '\0' &&
		strcmp(*newval, "error") != 0 && strcmp(*newval, "keep") != 0)
	{
		GUC_check_errdetail("The values are \"error\" and \"keep\".");
		return false;
	}
	return stamp_transaction(newval, extra, source);
}

static LocalTransactionId
stamp_of(void *extra)
{
	return extra ? *(LocalTransactionId *) extra : InvalidLocalTransactionId;
}

static void
assign_at(const char *newval, void *extra)
{
	setting_at.set_in = stamp_of(extra);
}

static void
assign_actor(const char *newval, void *extra)
{
	setting_actor.set_in = stamp_of(extra);
}

static void
assign_reason(const char *newval, void *extra)
{
	setting_reason.set_in = stamp_of(extra);
}

static void
assign_on_illegal(const char *newval, void *extra)
{
	setting_on_illegal.set_in = stamp_of(extra);
}

/* The value that this transaction gave the setting, or NULL. */
static const char *
transaction_value(const TransactionSetting *setting)
{
	if (setting->value == NULL || setting->value[0] == '\0' ||
		setting->set_in == InvalidLocalTransactionId ||
		setting->set_in != LcLocalTransactionId())
		return NULL;
	return setting->value;
}

const char *
lc_setting_at(void)
{
	return transaction_value(&setting_at);
}

const char *
lc_setting_actor(void)
{
	return transaction_value(&setting_actor);
}

const char *
lc_setting_reason(void)
{
	return transaction_value(&setting_reason);
}

const char *
lc_setting_on_illegal(void)
{
	return transaction_value(&setting_on_illegal);
}

/*
 * Define one of the settings.  A value that was set before the library was
 * loaded counts only where the running transaction set it: then, and only
 * then, the setting has a stack.
 */
static void
define_transaction_setting(TransactionSetting *setting, const char *description,
						   GucStringCheckHook check, GucStringAssignHook assign)
{
	DefineCustomStringVariable(setting->name, description, NULL, &setting->value, "",
							   PGC_USERSET, 0, check, assign, NULL);
	if (lc_setting_is_stacked(setting->name))
		setting->set_in = LcLocalTransactionId();
}

/*
 * The schema of the extension.
 */
Oid
lc_schema(void)
{
	return get_namespace_oid("lifecycle", false);
}

/*
 * The OID of a table of ours.
 */
Oid
lc_config_relid(const char *name)
{
	Oid			relid = get_relname_relid(name, lc_schema());

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"lifecycle.%s\" does not exist", name),
				 errhint("Create the extension again: CREATE EXTENSION lifecycle.")));
	return relid;
}

/*
 * The OID of a configuration table that the caller compiles something from;
 * from now on a change of it raises lc_config_generation.
 */
Oid
lc_watch_config(const char *name)
{
	Oid			relid = lc_config_relid(name);

	for (int i = 0; i < nwatched; i++)
	{
		if (watched[i] == relid)
			return relid;
	}
	/* a dropped and re-created extension leaves OIDs behind: start over */
	if (nwatched == MAX_WATCHED)
		nwatched = 0;
	watched[nwatched++] = relid;
	return relid;
}

/*
 * A snapshot of what is committed now, to read configuration with: a change is
 * in force from its commit on, for transactions with older snapshots as well.
 * In parallel mode no new snapshot can be had; reports, which are all that
 * reads there, then answer as of their query.
 */
Snapshot
lc_latest_snapshot(void)
{
	return IsInParallelMode() ? GetActiveSnapshot() : GetLatestSnapshot();
}

/*
 * Some relation changed, or, with InvalidOid, anything may have.  Only marks:
 * what it invalidates may be in use further up the stack, and no catalog may
 * be read here.
 */
static void
relation_changed(Datum arg, Oid relid)
{
	bool		config = relid == InvalidOid;

	for (int i = 0; i < nwatched && !config; i++)
		config = watched[i] == relid;
	if (config)
		lc_config_generation++;
	lc_program_invalidate(relid);
}

/*
 * Some enum changed.  Programs and models remember what its values are called.
 */
static void
enum_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	lc_config_generation++;
}

static void
transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			lc_history_end_transaction(true);
			break;
		case XACT_EVENT_ABORT:
			lc_history_end_transaction(false);
			lc_signal_end_transaction();
			lc_decision_end_transaction();
			lc_program_end_transaction();
			lc_follow_end_transaction();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			lc_signal_end_transaction();
			lc_decision_end_transaction();
			lc_program_end_transaction();
			lc_follow_end_transaction();
			break;
		default:
			break;
	}
}

static void
subtransaction_event(SubXactEvent event, SubTransactionId mine,
					 SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB || event == SUBXACT_EVENT_COMMIT_SUB)
	{
		bool		commit = event == SUBXACT_EVENT_COMMIT_SUB;

		lc_signal_end_subtransaction(commit, mine, parent);
		lc_history_end_subtransaction(commit, mine, parent);
		lc_decision_end_subtransaction(commit, mine, parent);
		lc_program_end_subtransaction(commit, mine, parent);
		lc_follow_end_subtransaction(commit, mine, parent);
	}
}

/*
 * Refuse a call of a trigger function that is not one by the trigger manager.
 */
void
lc_require_trigger(FunctionCallInfo fcinfo, const char *function)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", function)));
}

/*
 * The same for the functions of event triggers.
 */
void
lc_require_event_trigger(FunctionCallInfo fcinfo, const char *function)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager", function)));
}

/*
 * AFTER STATEMENT trigger of each configuration table: tell every backend,
 * when the change commits, and this one at its next command, to read again.
 */
Datum
lifecycle_configuration_changed(PG_FUNCTION_ARGS)
{
	lc_require_trigger(fcinfo, "configuration_changed");
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

void
_PG_init(void)
{
	loading = true;
	define_transaction_setting(&setting_at,
							   "When the moves of this transaction happened, for replays by the table's owner.",
							   stamp_transaction, assign_at);
	define_transaction_setting(&setting_actor,
							   "Who makes the moves of this transaction.",
							   stamp_transaction, assign_actor);
	define_transaction_setting(&setting_reason,
							   "Why the moves of this transaction are made.",
							   stamp_transaction, assign_reason);
	define_transaction_setting(&setting_on_illegal,
							   "What this transaction does with an illegal move: \"error\" or \"keep\".",
							   check_on_illegal, assign_on_illegal);
	loading = false;

	DefineCustomBoolVariable("lifecycle.count_flow",
							 "Counts moves in the flow that reports sum.",
							 "Off, <prefix>_flow falls behind the history until lifecycle.rebuild_flow() is called.",
							 &lc_count_flow, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("lifecycle.batch_history",
							 "Writes the history of a statement in batches.",
							 "Off, each move is written by itself, with the same result.",
							 &lc_batch_history, true, PGC_USERSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("lifecycle");

	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(ENUMOID, enum_changed, (Datum) 0);
	RegisterXactCallback(transaction_event, NULL);
	RegisterSubXactCallback(subtransaction_event, NULL);
}
