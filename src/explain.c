/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  What the rules say of a row that somebody holds in his hands: its score,
 *	  the status on which it would enter, whether rescore() would change it, and
 *	  what each rule makes of it.  Nothing is written.
 *
 * The row comes as a record, and says itself of which table it is.  It need not
 * be stored there.  What the rules say of it, the caller could see by writing
 * it, or by reading what others wrote; so SELECT on the table is asked for.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(lifecycle_demographic_score);
PG_FUNCTION_INFO_V1(lifecycle_entry_status);
PG_FUNCTION_INFO_V1(lifecycle_is_rescored);
PG_FUNCTION_INFO_V1(lifecycle_judge);

/* A row that was given to one of our functions. */
typedef struct GivenRow
{
	LcProgram  *program;		/* pinned */
	Relation	rel;			/* open */
	HeapTupleData tuple;
	TupleTableSlot *slot;
	LcLead		lead;
	TimestampTz moment;			/* when a write of the lead would be judged */
} GivenRow;

/*
 * The value is no row of a table that is tracked.
 */
static void
refuse_row(const char *function, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("%s needs a row of a tracked table", function),
			 errdetail_internal("%s", detail),
			 errhint("Pass the whole row of the table, as in: SELECT lifecycle.%s(l) FROM crm.leads l;",
					 function)));
}

/*
 * The table whose row type the record has.  A row of a view is none, even where
 * the view shows all of a table: it has the type of the view.
 */
static Relation
open_table_of(HeapTupleHeader header, const char *function)
{
	Oid			type = HeapTupleHeaderGetTypeId(header);
	Oid			relid = get_typ_typrelid(type);
	Relation	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;

	if (rel == NULL)
		refuse_row(function, "The value is a record that belongs to no table.");
	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			return rel;
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
			refuse_row(function, psprintf("The value is a row of view \"%s\".", format_type_be(type)));
			break;
		default:
			refuse_row(function, psprintf("The value is of type %s.", format_type_be(type)));
	}
	return NULL;				/* keep compiler quiet */
}

/*
 * Take the record that is the first argument.
 */
static void
open_row(FunctionCallInfo fcinfo, const char *function, GivenRow *row)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	Oid			relid;

	row->rel = open_table_of(header, function);
	relid = RelationGetRelid(row->rel);
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
	{
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", RelationGetRelationName(row->rel)),
				 errhint("GRANT SELECT ON %s TO %s;", lc_table_name(relid),
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
	}
	row->program = lc_program_pin_tracked(relid);
	row->slot = MakeSingleTupleTableSlot(RelationGetDescr(row->rel), &TTSOpsHeapTuple);
	lc_row_store(row->slot, &row->tuple, relid, header);
	lc_lead_read(row->program, row->slot, &row->lead);
	row->moment = GetCurrentTransactionStartTimestamp();
	if (!row->lead.since_isnull)
		row->moment = Max(row->moment, row->lead.since);
}

static void
close_row(GivenRow *row)
{
	ExecDropSingleTupleTableSlot(row->slot);
	lc_program_unpin(row->program);
	relation_close(row->rel, AccessShareLock);
}

/* The behaviour score of the row's lead, where rules ask for it. */
static float8
behavior_of(GivenRow *row, TimestampTz moment)
{
	return row->lead.key_isnull ? 0 : lc_behavior_of(row->program, row->lead.key, moment);
}

/*
 * demographic_score(lead record): what the points add up to.
 */
Datum
lifecycle_demographic_score(PG_FUNCTION_ARGS)
{
	GivenRow	row;
	float8		score;

	open_row(fcinfo, "demographic_score", &row);
	score = lc_rules_score(row.program, row.slot, row.moment);
	close_row(&row);
	PG_RETURN_FLOAT8(score);
}

/*
 * entry_status(lead record): where the lead would enter, if the row were
 * inserted now and named no status.
 */
Datum
lifecycle_entry_status(PG_FUNCTION_ARGS)
{
	GivenRow	row;
	const LcModel *model;
	const LcRule *rule;
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	text	   *status;

	open_row(fcinfo, "entry_status", &row);
	model = row.program->model;
	rule = lc_rules_at_entry(row.program, row.slot, lc_rules_score(row.program, row.slot, now),
							 behavior_of(&row, now), now);
	status = cstring_to_text(model->stages[rule != NULL ? rule->stage : model->first].status);
	close_row(&row);
	PG_RETURN_TEXT_P(status);
}

/*
 * is_rescored(lead record, move boolean): whether rescore() has something to
 * write.  Must say what decide_rescore() in lead.c does.
 */
Datum
lifecycle_is_rescored(PG_FUNCTION_ARGS)
{
	GivenRow	row;
	float8		score;
	bool		due;

	open_row(fcinfo, "is_rescored", &row);
	score = lc_rules_score(row.program, row.slot, row.moment);
	due = row.lead.score_isnull || row.lead.score != score ||
		(PG_GETARG_BOOL(1) && row.lead.stage >= 0 && !row.lead.key_isnull &&
		 lc_standing(row.program, row.slot, row.lead.key, score, row.lead.stage, row.moment) != NULL);
	close_row(&row);
	PG_RETURN_BOOL(due);
}

/* ---- judge(): each rule by itself ---- */

/* What a rule makes of the row. */
typedef struct Verdict
{
	bool		known;			/* whether the condition could be judged */
	bool		holds;
	bool		has_points;
	float8		points;
	char	   *failure;		/* what went wrong, or NULL */
} Verdict;

static void
ask_rule(const GivenRow *row, LcRule *rule, LcJudgement *judgement, bool has_score, Verdict *verdict)
{
	bool		isnull;
	Datum		value;

	lc_expr_prepare(rule->condition);
	if (rule->condition->reads_demographic_score && !has_score)
		return;
	value = lc_expr_judge(rule->condition, row->slot, judgement, &isnull);
	verdict->holds = !isnull && DatumGetBool(value);
	if (verdict->holds && rule->points != NULL)
	{
		value = lc_expr_judge(rule->points, row->slot, judgement, &isnull);
		verdict->points = lc_rule_points(row->program, rule->name, value, isnull);
		verdict->has_points = true;
	}
	verdict->known = true;
}

/*
 * Judge the row by one rule, which may fail: it may be disabled because it
 * does, or read what is no longer there.  So it runs in a subtransaction, and
 * its error becomes a part of the answer.  Not so what is no fault of the rule:
 * a cancel, a lack of memory, a deadlock.
 */
static void
judge_rule(const GivenRow *row, LcRule *rule, LcJudgement *judgement, bool has_score, Verdict *verdict)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	memset(verdict, 0, sizeof(Verdict));
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		ask_rule(row, rule, judgement, has_score, verdict);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
		{
			case ERRCODE_OPERATOR_INTERVENTION:
			case ERRCODE_INSUFFICIENT_RESOURCES:
			case ERRCODE_TRANSACTION_ROLLBACK:
				ReThrowError(error);
			default:
				break;
		}
		memset(verdict, 0, sizeof(Verdict));
		verdict->failure = error->message;
	}
	PG_END_TRY();
}

/* Columns of judge(). */
enum
{
	JUDGE_NAME,
	JUDGE_ENABLED,
	JUDGE_STATUS,
	JUDGE_PRECEDENCE,
	JUDGE_ONLY_FROM,
	JUDGE_APPLIES,
	JUDGE_HOLDS,
	JUDGE_POINTS,
	JUDGE_FAILURE,
	JUDGE_COLUMNS
};

/*
 * One row of the result.  "precedence" counts the rules with a status from 1.
 */
static void
give_verdict(ReturnSetInfo *rsinfo, const GivenRow *row, const LcRule *rule, int precedence,
			 const Verdict *verdict)
{
	Datum		values[JUDGE_COLUMNS];
	bool		nulls[JUDGE_COLUMNS];
	int			stage = row->lead.stage;

	memset(nulls, true, sizeof(nulls));
	values[JUDGE_NAME] = CStringGetTextDatum(rule->name);
	nulls[JUDGE_NAME] = false;
	values[JUDGE_ENABLED] = BoolGetDatum(rule->enabled);
	nulls[JUDGE_ENABLED] = false;
	if (rule->status != NULL)
	{
		values[JUDGE_STATUS] = CStringGetTextDatum(rule->status);
		nulls[JUDGE_STATUS] = false;
		values[JUDGE_PRECEDENCE] = Int32GetDatum(precedence);
		nulls[JUDGE_PRECEDENCE] = false;
		/* at entry, a rule with only_from takes no part */
		values[JUDGE_APPLIES] = BoolGetDatum(stage >= 0 ? (rule->only_from >> stage & 1) != 0 :
											 !rule->has_only_from);
		nulls[JUDGE_APPLIES] = false;
	}
	if (rule->has_only_from)
	{
		char	   *statuses = lc_model_statuses(row->program->model, rule->only_from);

		values[JUDGE_ONLY_FROM] = CStringGetTextDatum(statuses != NULL ? statuses : "");
		nulls[JUDGE_ONLY_FROM] = false;
	}
	values[JUDGE_HOLDS] = BoolGetDatum(verdict->holds);
	nulls[JUDGE_HOLDS] = !verdict->known;
	values[JUDGE_POINTS] = Float8GetDatum(verdict->points);
	nulls[JUDGE_POINTS] = !verdict->has_points;
	if (verdict->failure != NULL)
	{
		values[JUDGE_FAILURE] = CStringGetTextDatum(verdict->failure);
		nulls[JUDGE_FAILURE] = false;
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * Judge the row by all rules: those that give points, then the others by the
 * score that is stored, or else by the one that the points add up to.
 */
static void
judge_all(ReturnSetInfo *rsinfo, const GivenRow *row, LcRuleSet *set)
{
	LcJudgement judgement;
	Verdict		verdict;
	float8		score = 0;
	bool		has_score = true;

	lc_expr_set_judgement(&judgement, 0, true, 0, row->moment);
	for (int i = 0; i < set->npoints; i++)
	{
		CHECK_FOR_INTERRUPTS();
		judge_rule(row, set->points[i], &judgement, false, &verdict);
		give_verdict(rsinfo, row, set->points[i], 0, &verdict);
		if (set->points[i]->enabled)
		{
			score += verdict.points;
			has_score = has_score && verdict.known;
		}
	}
	if (!row->lead.score_isnull)
	{
		score = row->lead.score;
		has_score = true;
	}
	/* not behavior_of(), which compiles the rules, of which one may fail */
	lc_expr_set_judgement(&judgement, score, !has_score,
						  row->lead.key_isnull ? 0 : lc_behavior_score(row->program, row->lead.key, row->moment),
						  row->moment);
	for (int i = 0; i < set->nstatus; i++)
	{
		CHECK_FOR_INTERRUPTS();
		judge_rule(row, set->status[i], &judgement, has_score, &verdict);
		give_verdict(rsinfo, row, set->status[i], i + 1, &verdict);
	}
}

/*
 * judge(lead record): what each rule of the table, disabled ones too, makes of
 * the row.  The rules are read and compiled for this call alone, since the
 * compiled program has none that are disabled.
 */
Datum
lifecycle_judge(PG_FUNCTION_ARGS)
{
	GivenRow	row;
	MemoryContext cxt;
	MemoryContext old;
	LcRuleSet  *set;

	open_row(fcinfo, "judge", &row);
	InitMaterializedSRF(fcinfo, 0);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle judge", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	set = lc_rules_load(row.program, row.rel, true);
	PG_TRY();
	{
		judge_all((ReturnSetInfo *) fcinfo->resultinfo, &row, set);
	}
	PG_FINALLY();
	{
		/* compiled forms are not in the memory of any query */
		lc_rules_free(set);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	close_row(&row);
	return (Datum) 0;
}
