/*-------------------------------------------------------------------------
 *
 * define.c
 *	  What a rule must be to be stored: written by the owner of its table, of
 *	  one kind, sound, canonical, and tried on rows that are there.
 *
 * The trial takes the place of the surprise: a rule that fails for a row of
 * today would fail the writer of that row tomorrow.
 *
 * A restore loads the rules before the triggers of the lead tables are there,
 * and perhaps before the programs.  What it loads was checked when it was
 * written, and what it needs may not be there yet: so then rules are stored as
 * they come, from who may write them at all.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(lifecycle_rule_changes);

/* On how many rows a rule is tried. */
#define ROWS_TO_TRY 1000

/* The row that is about to be written. */
typedef struct RuleRow
{
	Datum		values[Natts_rule];
	bool		nulls[Natts_rule];
	char	   *name;
} RuleRow;

#define VALUE(row, column) ((row)->values[Anum_rule_##column - 1])
#define IS_NULL(row, column) ((row)->nulls[Anum_rule_##column - 1])
#define TEXT_OF(row, column) \
	(IS_NULL(row, column) ? NULL : TextDatumGetCString(VALUE(row, column)))

/*
 * Only the owner of a table writes its rules: they run with his rights.  Rules
 * of a table that is gone are left to who owns the table of rules.
 */
static void
require_owner_of_rule(Relation rules, Oid on_table, bool must_exist)
{
	char	   *name = get_rel_name(on_table);

	if (name == NULL)
	{
		if (must_exist)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation with OID %u does not exist", on_table)));
		if (!object_ownercheck(RelationRelationId, RelationGetRelid(rules), GetUserId()))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rules));
		return;
	}
	if (!object_ownercheck(RelationRelationId, on_table, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table %s", name),
				 errdetail("Rules run with the rights of the owner of their table."),
				 errhint("Let a member of the role that owns the table write its rules.")));
}

static bool
has_trigger(Relation rel, const char *name)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (strcmp(triggers->triggers[i].tgname, name) == 0)
			return true;
	}
	return false;
}

/*
 * Whether the table is a tracked one that a restore has not finished: with our
 * columns, and without our triggers, which come last.  Where its program is not
 * there either, the comment on the column tells it from a mere copy.
 */
static bool
is_half_restored(Relation rel)
{
	AttrNumber	seq = get_attnum(RelationGetRelid(rel), "lifecycle_seq");
	LcProgram  *program;
	char	   *comment;

	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	program = lc_signal_pin(RelationGetRelid(rel));
	if (program != NULL)
	{
		lc_program_unpin(program);
		if (!has_trigger(rel, "lifecycle_signal_after_row"))
			return true;
	}
	if (seq <= 0 || has_trigger(rel, "zz_lifecycle_before_row"))
		return false;
	program = lc_program_pin(RelationGetRelid(rel));
	if (program != NULL)
	{
		bool		is_root = program->root == RelationGetRelid(rel);

		lc_program_unpin(program);
		return is_root;
	}
	comment = GetComment(RelationGetRelid(rel), RelationRelationId, seq);
	if (comment == NULL || strstr(comment, "Kept by lifecycle.") == NULL)
		return false;
	ereport(NOTICE,
			(errmsg("a rule of table \"%s\" is stored unchecked", RelationGetRelationName(rel)),
			 errdetail("The table is not tracked now; lifecycle.track() puts the rule in force.")));
	return true;
}

/* Refuse what the columns of the row say together. */
static void
refuse_kind(const RuleRow *row, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("rule \"%s\" %s", row->name, message),
			 errhint("%s", hint)));
}

static bool
is_positive(Datum interval)
{
	Interval	zero = {0};

	return DatumGetInt32(DirectFunctionCall2(interval_cmp, interval, IntervalPGetDatum(&zero))) > 0;
}

/* What only rules of signal tables have. */
static void
check_signal_kind(const RuleRow *row)
{
	if (!IS_NULL(row, half_life) && IS_NULL(row, points))
		refuse_kind(row, "asks for a status and has a half_life",
					"Points decay; leave out half_life. How old a signal may be says max_age.");
	if (!IS_NULL(row, half_life) && !is_positive(VALUE(row, half_life)))
		refuse_kind(row, "has a half_life that is not greater than zero",
					"Leave it NULL for points that do not decay.");
	if (!IS_NULL(row, max_age) && IS_NULL(row, status))
		refuse_kind(row, "gives points and has a max_age",
					"Points fade with their half_life; leave out max_age.");
	if (!IS_NULL(row, max_age) && !is_positive(VALUE(row, max_age)))
		refuse_kind(row, "has a max_age that is not greater than zero",
					"Leave it NULL for signals of any age.");
	if (!IS_NULL(row, unless_other) && IS_NULL(row, status))
		refuse_kind(row, "gives points and has unless_other",
					"Each row gives its points; leave out unless_other.");
}

/*
 * A rule is of one kind, and has what that kind needs and nothing else.
 */
static void
check_kind(const RuleRow *row, bool is_signal)
{
	if (row->name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a rule must not be empty")));
	if (IS_NULL(row, points) && IS_NULL(row, status))
		refuse_kind(row, "gives neither points nor a status", "Set one of points and status.");
	if (!IS_NULL(row, points) && !IS_NULL(row, status))
		refuse_kind(row, "gives both points and a status",
					"Write two rules: one with points, one with a status.");
	if (!IS_NULL(row, only_from) && IS_NULL(row, status))
		refuse_kind(row, "gives points and has only_from",
					"The score of a lead does not depend on its status; leave out only_from.");
	if (is_signal)
	{
		check_signal_kind(row);
		return;
	}
	if (!IS_NULL(row, half_life))
		refuse_kind(row, "has a half_life, which is for signal tables",
					"What a lead is does not decay; leave out half_life.");
	if (!IS_NULL(row, max_age))
		refuse_kind(row, "has a max_age, which is for signal tables",
					"Let the condition ask for the age, as in: created_at > now() - interval '30 days'.");
	if (!IS_NULL(row, unless_other))
		refuse_kind(row, "has unless_other, which is for signal tables",
					"A lead has one row; leave out unless_other.");
}

/* A status must be one of the model. */
static int
require_status(const RuleRow *row, const LcProgram *program, const char *status)
{
	int			stage = lc_model_stage(program->model, status, strlen(status));

	if (stage < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a status of model \"%s\"", status, program->model->name),
				 errdetail("Table \"%s\" follows model \"%s\".", program->name, program->model->name),
				 errhint("The statuses are: %s.", lc_model_statuses(program->model, ~UINT64CONST(0)))));
	return stage;
}

/*
 * Status and only_from are of the model.  A rule that the model lets move
 * nobody is stored, since a model can be edited, but not in silence.
 */
static void
check_statuses(const RuleRow *row, const LcProgram *program)
{
	const LcModel *model = program->model;
	uint64		from = ~UINT64CONST(0);
	int			stage;

	if (IS_NULL(row, status))
		return;
	stage = require_status(row, program, TEXT_OF(row, status));
	if (!IS_NULL(row, only_from))
	{
		Datum	   *elements;
		bool	   *nulls;
		int			n;

		deconstruct_array(DatumGetArrayTypeP(VALUE(row, only_from)), TEXTOID, -1, false,
						  TYPALIGN_INT, &elements, &nulls, &n);
		if (n == 0)
			refuse_kind(row, "has an empty only_from",
						"Name the statuses in which the rule applies, or leave it NULL for all.");
		for (int i = 0; i < n; i++)
		{
			if (nulls[i])
				refuse_kind(row, "has a NULL in only_from",
							"A lead without a status enters the program; only_from has no part in that.");
			(void) require_status(row, program, TextDatumGetCString(elements[i]));
		}
		from = lc_rule_stages(model, DatumGetArrayTypeP(VALUE(row, only_from)));
		for (int f = 0; f < model->nstages; f++)
		{
			if ((from >> f & 1) != 0 && lc_model_move_is_legal(model, f, stage))
				return;
		}
		ereport(WARNING,
				(errmsg("rule \"%s\" can move no lead", row->name),
				 errdetail("Model \"%s\" has no transition to \"%s\" from a status in only_from.",
						   model->name, model->stages[stage].status)));
	}
}

/*
 * Judge the rows that the trial has read by the two expressions.  Gives for how
 * many the condition holds.
 */
static uint64
try_on_rows(LcProgram *program, Relation rel, const RuleRow *row, LcExpr *holds, LcExpr *gives)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "lifecycle trial row",
												  ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	MemoryContext old = MemoryContextSwitchTo(per_row);
	TimestampTz moment = GetCurrentTransactionStartTimestamp();
	uint64		n = 0;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTupleData tuple;
		LcJudgement judgement;
		float8		score = 0;
		bool		isnull;
		Datum		value;

		CHECK_FOR_INTERRUPTS();
		lc_row_store(slot, &tuple, RelationGetRelid(rel),
					 DatumGetHeapTupleHeader(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
		lc_expr_prepare(holds);
		if (holds->reads_demographic_score)
			score = lc_rules_score(program, slot, moment);
		lc_expr_set_judgement(&judgement, score, false, 0, moment);
		value = lc_expr_judge(holds, slot, &judgement, &isnull);
		if (!isnull && DatumGetBool(value))
		{
			n++;
			value = lc_expr_judge(gives, slot, &judgement, &isnull);
			(void) lc_rule_points(program, row->name, value, isnull);
		}
		ExecClearTuple(slot);
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(per_row);
	return n;
}

/*
 * Try the rule on rows that are there, with the rights of the table's owner.
 * Raises what the rule raises; says for how many it holds.
 */
static void
try_rule(LcProgram *program, Relation rel, const RuleRow *row, const char *condition,
		 const char *points)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle trial",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LcRuleSet  *set = program->rules;
	LcExpr	   *holds;
	LcExpr	   *gives;
	Oid			userid;
	int			sec_context;
	int			guc_level;
	volatile uint64 n = 0;
	char	   *alias = lc_row_alias(RelationGetRelid(rel));

	holds = lc_expr_make(cxt, rel, psprintf("condition of rule \"%s\"", row->name), program->owner,
						 condition, BOOLOID, points ? &set->points_scope : &set->status_scope);
	gives = lc_expr_make(cxt, rel, psprintf("points of rule \"%s\"", row->name), program->owner,
						 points, FLOAT8OID, &set->points_scope);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(program->owner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION |
						   SECURITY_NOFORCE_RLS);
	guc_level = NewGUCNestLevel();
	RestrictSearchPath();
	SPI_connect();
	/* by the name of now: a schema can be renamed and nobody is told */
	if (SPI_execute(psprintf("SELECT %s FROM %s %s LIMIT %d", alias, lc_table_name(RelationGetRelid(rel)),
							 alias, ROWS_TO_TRY), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table \"%s\"", program->name);
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(userid, sec_context);
	/* rows of any other table would be misread */
	if (SPI_gettypeid(SPI_tuptable->tupdesc, 1) != rel->rd_rel->reltype)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("table \"%s\" got another name while a rule was tried on it",
						RelationGetRelationName(rel)),
				 errhint("Try again.")));
	PG_TRY();
	{
		n = try_on_rows(program, rel, row, holds, gives);
	}
	PG_FINALLY();
	{
		/* parts of compiled forms outlive the transaction */
		lc_expr_free(holds);
		lc_expr_free(gives);
	}
	PG_END_TRY();
	if (SPI_processed > 0)
		ereport(NOTICE,
				(errmsg("rule \"%s\" holds for " UINT64_FORMAT " of " UINT64_FORMAT " rows of table \"%s\"",
						row->name, (uint64) n, (uint64) SPI_processed, program->name)));
	SPI_finish();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/*
 * What is not going to be stored as it stood: a changed expression, or the
 * expressions of a rule that is to be obeyed again.
 */
static bool
is_new(const RuleRow *row, const RuleRow *before, AttrNumber attno)
{
	if (before == NULL || before->nulls[attno - 1] != row->nulls[attno - 1])
		return true;
	return !row->nulls[attno - 1] &&
		!datum_image_eq(row->values[attno - 1], before->values[attno - 1], false, -1);
}

/*
 * Check the rule, and put its expressions into canonical form.  "before" is the
 * row that is replaced, or NULL.  Switching a rule off is always possible.
 */
static void
check_rule(LcProgram *program, Relation rel, RuleRow *row, const RuleRow *before)
{
	LcRuleSet  *set = program->rules;
	bool		moved = before != NULL && VALUE(before, on_table) != VALUE(row, on_table);
	bool		compile = moved || is_new(row, before, Anum_rule_condition) ||
		is_new(row, before, Anum_rule_points) || is_new(row, before, Anum_rule_status) ||
		is_new(row, before, Anum_rule_unless_other) ||
		(!DatumGetBool(VALUE(before, enabled)) && DatumGetBool(VALUE(row, enabled)));
	char	   *condition;
	char	   *points;

	check_kind(row, program->is_signal);
	if (compile || is_new(row, before, Anum_rule_only_from))
		check_statuses(row, program);
	if (!compile)
		return;
	condition = lc_expr_canonical(rel, psprintf("condition of rule \"%s\"", row->name),
								  TEXT_OF(row, condition), BOOLOID,
								  IS_NULL(row, points) ? &set->status_scope : &set->points_scope);
	VALUE(row, condition) = CStringGetTextDatum(condition);
	points = TEXT_OF(row, points);
	if (points != NULL)
	{
		points = lc_expr_canonical(rel, psprintf("points of rule \"%s\"", row->name), points,
								   FLOAT8OID, &set->points_scope);
		VALUE(row, points) = CStringGetTextDatum(points);
	}
	if (!IS_NULL(row, unless_other))
		VALUE(row, unless_other) =
			CStringGetTextDatum(lc_expr_canonical(rel, psprintf("unless_other of rule \"%s\"", row->name),
												  TEXT_OF(row, unless_other), BOOLOID, &set->points_scope));
	try_rule(program, rel, row, condition, points);
}

static void
read_row(HeapTuple tuple, TupleDesc desc, RuleRow *row)
{
	heap_deform_tuple(tuple, desc, row->values, row->nulls);
	row->name = IS_NULL(row, name) ? pstrdup("") : TextDatumGetCString(VALUE(row, name));
}

/*
 * When the change of a rule commits, and in this backend with the next command,
 * the table's program is stale everywhere, as after a change of the table.
 */
static void
have_rules_read(Oid on_table)
{
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(on_table)))
		CacheInvalidateRelcacheByRelid(on_table);
}

/*
 * BEFORE INSERT OR UPDATE OR DELETE trigger of lifecycle.rule.
 */
Datum
lifecycle_rule_changes(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	rules;
	TupleDesc	desc;
	RuleRow		before;
	RuleRow		row;
	bool		is_update;
	Oid			on_table;
	Relation	rel;
	LcProgram  *program;
	HeapTuple	result;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		RelationGetRelid(trigdata->tg_relation) != lc_config_relid("rule"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not fired BEFORE ... FOR EACH ROW of lifecycle.rule",
						"rule_changes")));
	rules = trigdata->tg_relation;
	desc = RelationGetDescr(rules);
	is_update = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);
	if (!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		read_row(trigdata->tg_trigtuple, desc, &before);
		if (!lc_follow_is_rewriting())
			require_owner_of_rule(rules, DatumGetObjectId(VALUE(&before, on_table)), false);
		have_rules_read(DatumGetObjectId(VALUE(&before, on_table)));
		if (!is_update)
			return PointerGetDatum(trigdata->tg_trigtuple);
	}
	result = is_update ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
	if (lc_follow_is_rewriting())
		return PointerGetDatum(result);
	read_row(result, desc, &row);
	/* its own NOT NULLs speak for what is missing */
	if (IS_NULL(&row, on_table) || IS_NULL(&row, name) || IS_NULL(&row, condition) ||
		IS_NULL(&row, priority) || IS_NULL(&row, enabled))
		return PointerGetDatum(result);
	on_table = DatumGetObjectId(VALUE(&row, on_table));
	require_owner_of_rule(rules, on_table, true);
	have_rules_read(on_table);

	rel = try_relation_open(on_table, AccessShareLock);
	if (rel == NULL)
		require_owner_of_rule(rules, on_table, true);	/* dropped meanwhile */
	if (is_half_restored(rel))
	{
		relation_close(rel, AccessShareLock);
		return PointerGetDatum(result);
	}
	/* of a table that is both, the rules are those of leads */
	program = lc_program_pin(on_table);
	if (program == NULL)
		program = lc_signal_pin(on_table);
	if (program == NULL)
		program = lc_program_pin_tracked(on_table);
	if (program->root != on_table)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" is a partition", lc_table_name(on_table)),
				 errhint("Rules stand on the tracked table: %s.", program->name)));
	check_rule(program, rel, &row, is_update ? &before : NULL);
	/* makes a dump bring the signal table's row before the rule */
	IS_NULL(&row, signal_table) = !program->is_signal;
	VALUE(&row, signal_table) = ObjectIdGetDatum(on_table);
	lc_program_unpin(program);
	/* the lock is kept: columns that are named must not go, or change names, unseen */
	relation_close(rel, NoLock);
	return PointerGetDatum(heap_form_tuple(desc, row.values, row.nulls));
}
