/*-------------------------------------------------------------------------
 *
 * erase.c
 *	  erase(): a lead is forgotten, and its moves stay.
 *
 * The lead's row is deleted as by anybody, so that its removal is recorded.
 * Then every move of it gets a random key in place of the lead's and loses
 * actor and reason.  Nothing that a report counts is touched.
 *
 * Nobody may add a move in the meantime.  Where there was a row, deleting it
 * holds its key until we commit: an INSERT of the same key waits for us, and
 * its AFTER trigger looks into the history once more.  Where there was none,
 * nothing could be held, so that the whole history is locked against writers;
 * then the row is looked for again.
 *
 * The rows are updated with the executor's function for tables without a plan.
 * It fires row triggers, since foreign keys and triggers of users may hang on
 * the history, but no statement triggers, of which the guard is one.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(lifecycle_erase);

/* Random keys that are tried before we say that there is none left. */
#define MAX_TRIES 1000

/*
 * A random key of the type of the column, which may be in use.
 */
static Datum
random_key(LcProgram *program, Oid base, int32 typmod)
{
	uint64		number;
	char	   *word;
	Oid			in;
	Oid			ioparam;

	if (!pg_strong_random(&number, sizeof(number)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	switch (base)
	{
		case INT2OID:
			word = psprintf("-%u", (unsigned int) (number % 32768 + 1));
			break;
		case INT4OID:
			word = psprintf("-%u", (unsigned int) (number % UINT64CONST(2147483648) + 1));
			break;
		case INT8OID:
			word = psprintf("-" UINT64_FORMAT, number % ((uint64) PG_INT64_MAX) + 1);
			break;
		case NUMERICOID:
			{
				/* as many digits as fit before the point, at most 18 */
				int			digits = 18;
				uint64		limit = 1;

				if (typmod >= (int32) VARHDRSZ)
				{
					int			tmp = typmod - VARHDRSZ;
					int			scale = ((tmp & 0x7ff) ^ 1024) - 1024;

					digits = Min(digits, ((tmp >> 16) & 0xffff) - scale);
				}
				if (digits < 1)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot erase leads with a key of type %s",
									format_type_with_typemod(base, typmod)),
							 errdetail("There is no negative whole number of that type.")));
				for (int i = 0; i < digits; i++)
					limit *= 10;
				word = psprintf("-" UINT64_FORMAT, number % (limit - 1) + 1);
				break;
			}
		case TEXTOID:
		case VARCHAROID:
			{
				char	   *uuid = DatumGetCString(OidFunctionCall1(F_UUID_OUT, OidFunctionCall0(F_GEN_RANDOM_UUID)));

				word = psprintf("erased-%s", uuid);
				if (base == VARCHAROID && typmod >= (int32) VARHDRSZ && typmod - VARHDRSZ < strlen(word))
				{
					/* where the word would leave little to chance, do without it */
					if (typmod - VARHDRSZ < 20)
						word = uuid;
					word[typmod - VARHDRSZ] = '\0';
				}
				break;
			}
		case UUIDOID:
			return OidFunctionCall0(F_GEN_RANDOM_UUID);
		default:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot erase leads with a key of type %s", format_type_be(program->key_type)),
					 errdetail("There is no random key of that type."),
					 errhint("Keys can be integers, numeric, text, character varying or uuid.")));
	}
	/* the input function of a domain checks its constraints */
	getTypeInputInfo(program->key_type, &in, &ioparam);
	return OidInputFunctionCall(in, word, ioparam, base == program->key_type ? typmod : -1);
}

/* The history, open to be searched by lead. */
typedef struct ByLead
{
	Relation	rel;
	Relation	pkey;
	AttrNumber	lead;
	IndexScanDesc scan;
	ScanKeyData key;
	TupleTableSlot *slot;
} ByLead;

static void
open_by_lead(ByLead *h, LcProgram *program)
{
	Oid			equal;
	Oid			type;

	h->rel = table_open(program->history, RowExclusiveLock);
	h->lead = get_attnum(program->history, "lead");
	list_free(RelationGetIndexList(h->rel));
	if (OidIsValid(h->rel->rd_pkindex))
		h->pkey = index_open(h->rel->rd_pkindex, AccessShareLock);
	else
		h->pkey = NULL;
	if (h->pkey == NULL || h->lead == InvalidAttrNumber || h->pkey->rd_index->indkey.values[0] != h->lead ||
		TupleDescAttr(RelationGetDescr(h->rel), h->lead - 1)->atttypid != program->key_type)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("history \"%s\" has no primary key (lead, seq) of the type of the leads' key",
						RelationGetRelationName(h->rel)),
				 errtable(h->rel)));
	type = h->pkey->rd_opcintype[0];
	equal = get_opfamily_member(h->pkey->rd_opfamily[0], type, type, BTEqualStrategyNumber);
	ScanKeyEntryInitialize(&h->key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   h->pkey->rd_indcollation[0], get_opcode(equal), (Datum) 0);
	h->scan = lc_index_beginscan(h->rel, h->pkey, SnapshotSelf, 1);
	h->slot = table_slot_create(h->rel, NULL);
}

static void
find_lead(ByLead *h, Datum lead)
{
	h->key.sk_argument = lead;
	index_rescan(h->scan, &h->key, 1, NULL, 0);
}

static bool
has_moves(ByLead *h, Datum lead)
{
	bool		found;

	find_lead(h, lead);
	found = index_getnext_slot(h->scan, ForwardScanDirection, h->slot);
	ExecClearTuple(h->slot);
	return found;
}

static void
close_by_lead(ByLead *h)
{
	ExecDropSingleTupleTableSlot(h->slot);
	index_endscan(h->scan);
	index_close(h->pkey, NoLock);
	table_close(h->rel, NoLock);
}

/*
 * Give the lead's moves the other key; gives their number.  Read with
 * SnapshotSelf: what is committed now, and what this command did.
 */
static int
rekey_moves(ByLead *h, Datum lead, Datum surrogate)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *rri = ExecGetTriggerResultRel(estate, RelationGetRelid(h->rel), NULL);
	TupleTableSlot *new = table_slot_create(h->rel, NULL);
	AttrNumber	actor = get_attnum(RelationGetRelid(h->rel), "actor");
	AttrNumber	reason = get_attnum(RelationGetRelid(h->rel), "reason");
	int			natts = RelationGetDescr(h->rel)->natts;
	EPQState	epq;
	int			n = 0;

	ExecOpenIndices(rri, false);
	estate->es_snapshot = GetActiveSnapshot();
	estate->es_output_cid = GetCurrentCommandId(true);
	lc_eval_plan_qual_init(&epq, estate);
	AfterTriggerBeginQuery();
	find_lead(h, lead);
	while (index_getnext_slot(h->scan, ForwardScanDirection, h->slot))
	{
		slot_getallattrs(h->slot);
		ExecClearTuple(new);
		memcpy(new->tts_values, h->slot->tts_values, natts * sizeof(Datum));
		memcpy(new->tts_isnull, h->slot->tts_isnull, natts * sizeof(bool));
		new->tts_values[h->lead - 1] = surrogate;
		if (actor > 0)
			new->tts_isnull[actor - 1] = true;
		if (reason > 0)
			new->tts_isnull[reason - 1] = true;
		ExecStoreVirtualTuple(new);
		ExecMaterializeSlot(new);
		ExecSimpleRelationUpdate(rri, estate, &epq, h->slot, new);
		ResetPerTupleExprContext(estate);
		n++;
		CHECK_FOR_INTERRUPTS();
	}
	EvalPlanQualEnd(&epq);
	AfterTriggerEndQuery(estate);
	ExecCloseIndices(rri);
	rri->ri_NumIndices = 0;
	ExecDropSingleTupleTableSlot(new);
	ExecResetTupleTable(estate->es_tupleTable, false);
	/* the history, and tables that foreign keys made the triggers write */
	ExecCloseResultRelations(estate);
	FreeExecutorState(estate);
	CommandCounterIncrement();
	if (has_moves(h, lead))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger on \"%s\" kept the key of a lead that is erased",
						RelationGetRelationName(h->rel)),
				 errtable(h->rel)));
	return n;
}

/*
 * erase(lead_table, lead).
 */
Datum
lifecycle_erase(PG_FUNCTION_ARGS)
{
	LcProgram  *program = lc_operation_program(fcinfo, 2, "lead_table and lead");
	Oid			type;
	Oid			base;
	Oid			collation;
	int32		typmod;
	Datum		lead;
	Datum		surrogate;
	char	   *is_lead;
	char	   *refused;
	char	   *find;
	ByLead		history;
	uint64		touched = 0;
	int			tries = 0;

	if (lc_history_in_statement(program))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("cannot erase a lead of table \"%s\" while its leads are being written", program->name),
				 errhint("Call lifecycle.erase() outside of triggers.")));
	get_atttypetypmodcoll(program->relid, program->key, &type, &typmod, &collation);
	base = getBaseTypeAndTypmod(type, &typmod);
	/* tells at once where the type has no random key */
	surrogate = random_key(program, base, typmod);
	lead = lc_operation_key(fcinfo, 1, program);
	is_lead = lc_operation_is_lead(program, program->relid);
	find = psprintf("SELECT FROM %s WHERE %s FOR UPDATE", program->name, is_lead);

	SPI_connect();
	if (lc_operation_execute(program, find, 1, &type, &lead, true) == 0)
	{
		/* every entry opens the history before it looks into it, and keeps the lock */
		LockRelationOid(program->history, ShareRowExclusiveLock);
		touched = lc_operation_execute(program, find, 1, &type, &lead, true);
	}
	else
		touched = 1;
	if (touched > 0 &&
		lc_operation_execute(program, psprintf("DELETE FROM %s WHERE %s", program->name, is_lead),
							 1, &type, &lead, true) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("lead %s of table \"%s\" was not erased", lc_program_key_text(program, lead, false),
						program->name),
				 errdetail("A trigger suppressed the DELETE of its row.")));

	open_by_lead(&history, program);
	while (has_moves(&history, surrogate) ||
		   lc_operation_execute(program, psprintf("SELECT FROM %s WHERE %s", program->name, is_lead),
								1, &type, &surrogate, true) > 0)
	{
		if (++tries == MAX_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("no random key of type %s was free", format_type_with_typemod(base, typmod))));
		surrogate = random_key(program, base, typmod);
	}
	touched += rekey_moves(&history, lead, surrogate);
	close_by_lead(&history);

	refused = lc_table_name(program->refused);
	touched += lc_operation_execute(program, psprintf("DELETE FROM %s WHERE %s", refused,
													  lc_operation_is_lead(program, InvalidOid)),
									1, &type, &lead, true);
	if (OidIsValid(program->behavior))
		touched += lc_operation_execute(program, psprintf("DELETE FROM %s WHERE %s",
														  quote_qualified_identifier(get_namespace_name(get_rel_namespace(program->behavior)),
																					 get_rel_name(program->behavior)),
														  lc_operation_is_lead(program, InvalidOid)),
										1, &type, &lead, true);
	if (touched == 0)
		lc_operation_no_lead(program, lead);
	SPI_finish();
	lc_program_unpin(program);
	PG_RETURN_VOID();
}
