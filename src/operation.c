/*-------------------------------------------------------------------------
 *
 * operation.c
 *	  What owners do to leads beside writing them: what those functions have in
 *	  common, and correct().
 *
 * They are written in C because they run statements on tables of users, which
 * fire triggers of users: those must find the search path of the caller, while
 * our statements must not depend on it.  So each statement names everything
 * with its schema, operators included.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(lifecycle_in_transaction_block);
PG_FUNCTION_INFO_V1(lifecycle_correct);

/*
 * The program of the table that is the first argument, pinned.  Refuses NULL
 * arguments, tables that are not tracked and callers who do not own the tracked
 * table: these functions change what the table says of the past.
 */
LcProgram *
lc_operation_program(FunctionCallInfo fcinfo, int nargs, const char *names)
{
	Oid			relid;
	LcProgram  *program;

	for (int i = 0; i < nargs; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", names)));
	}
	relid = PG_GETARG_OID(0);
	if (get_rel_name(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	program = lc_program_pin_tracked(relid);
	/* of the tracked table: a partition of it may belong to somebody else */
	if (!object_ownercheck(RelationRelationId, program->root, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table %s", get_rel_name(program->root)),
				 errhint("Let a member of role %s do it.",
						 quote_identifier(GetUserNameFromId(program->owner, false)))));
	return program;
}

/*
 * The key that an argument gives, in the key's own type or as text; any other
 * type goes by its text.
 */
Datum
lc_operation_key(FunctionCallInfo fcinfo, int argno, LcProgram *program)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, argno);
	Oid			in;
	Oid			out;
	Oid			ioparam;
	bool		varlena;

	if (type == program->key_type)
		return PG_GETARG_DATUM(argno);
	if (!OidIsValid(type))
		elog(ERROR, "could not determine the type of argument %d", argno + 1);
	getTypeOutputInfo(type, &out, &varlena);
	getTypeInputInfo(program->key_type, &in, &ioparam);
	return OidInputFunctionCall(in, OidOutputFunctionCall(out, PG_GETARG_DATUM(argno)), ioparam, -1);
}

/*
 * The condition that a row of the table is the lead of the key $1; without a
 * table, of one that has it in a column "lead".
 */
char *
lc_operation_is_lead(LcProgram *program, Oid relid)
{
	return lc_key_condition(program,
							OidIsValid(relid) ? quote_identifier(get_attname(relid, program->key, false)) : "lead",
							"$1");
}

/*
 * Run a statement with everything it names written out; with "latest" on what
 * is committed now, whatever the snapshot of the transaction.  An owner who
 * forced row security upon himself is not hindered by it here.  The result is
 * in SPI_tuptable; gives the number of rows.
 */
uint64
lc_operation_execute(LcProgram *program, const char *sql, int nargs, Oid *types, Datum *values,
					 bool latest)
{
	SPIPlanPtr	plan;
	Snapshot	snapshot = InvalidSnapshot;
	Oid			userid;
	int			sec_context;
	int			result;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(userid, sec_context | SECURITY_NOFORCE_RLS);
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	if (latest)
	{
		CommandCounterIncrement();
		snapshot = RegisterSnapshot(GetLatestSnapshot());
	}
	result = SPI_execute_snapshot(plan, values, NULL, snapshot, InvalidSnapshot, false, true, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
	if (latest)
		UnregisterSnapshot(snapshot);
	SetUserIdAndSecContext(userid, sec_context);
	return SPI_processed;
}

/*
 * There is no such lead.
 */
void
lc_operation_no_lead(LcProgram *program, Datum key)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("table \"%s\" has no lead %s", program->name,
					lc_program_key_text(program, key, false))));
}

/*
 * in_transaction_block(): whether a COMMIT would end more than this statement.
 */
Datum
lifecycle_in_transaction_block(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(IsTransactionBlock());
}

/*
 * correct(lead_table, lead, status, reason): an ordinary UPDATE of the status,
 * announced as a correction, so that the lead's triggers neither judge the move
 * nor begin a cycle.  The lead's row is locked before anything is looked at.
 */
Datum
lifecycle_correct(PG_FUNCTION_ARGS)
{
	LcProgram  *program = lc_operation_program(fcinfo, 3, "lead_table, lead and status");
	LcModel    *model = program->model;
	char	   *status = text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *reason = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	int			stage = lc_model_stage(model, status, strlen(status));
	Datum		key;
	char	   *key_text;
	char	   *is_lead;
	char	   *column;
	Oid			types[2];
	Datum		values[2];
	bool		status_isnull;
	bool		seq_isnull;
	Datum		old;

	if (reason == NULL || strspn(reason, " \t\r\n") == strlen(reason))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("a correction needs a reason"),
				 errhint("Say what was wrong: it is kept in the history.")));
	if (stage < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a status of model \"%s\"", status, model->name),
				 errhint("The statuses are: %s.", lc_model_statuses(model, ~UINT64CONST(0)))));
	key = lc_operation_key(fcinfo, 1, program);
	key_text = lc_program_key_text(program, key, false);
	is_lead = lc_operation_is_lead(program, program->relid);
	column = pstrdup(quote_identifier(get_attname(program->relid, program->status, false)));
	types[0] = program->key_type;
	values[0] = key;
	types[1] = program->status_type;
	values[1] = lc_program_status(program, stage);

	SPI_connect();
	if (lc_operation_execute(program,
							 psprintf("SELECT %s, lifecycle_seq FROM %s WHERE %s FOR NO KEY UPDATE",
									  column, program->name, is_lead),
							 1, types, values, false) == 0)
		lc_operation_no_lead(program, key);
	old = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &status_isnull);
	(void) SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &seq_isnull);
	if (status_isnull || seq_isnull)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lead %s of table \"%s\" is not in the history yet", key_text, program->name),
				 errdetail("There is no move that could be wrong."),
				 errhint("CALL lifecycle.backfill(%s);", quote_literal_cstr(program->name))));
	if (lc_program_stage(program, old, false) == stage)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lead %s of table \"%s\" is \"%s\" already", key_text, program->name, status)));
	lc_history_announce(program, LC_CORRECTION, reason);
	if (lc_operation_execute(program, psprintf("UPDATE %s SET %s = $2 WHERE %s", program->name, column, is_lead),
							 2, types, values, false) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("lead %s of table \"%s\" was not corrected", key_text, program->name),
				 errdetail("A trigger suppressed the UPDATE.")));
	/* should our trigger not have fired, no later statement may take it up */
	lc_history_announce(program, LC_WRITE, NULL);
	SPI_finish();
	lc_program_unpin(program);
	PG_RETURN_VOID();
}
