/*-------------------------------------------------------------------------
 *
 * rule.c
 *	  The rules of a program: what a row scores, and which status it asks for.
 *
 * A rule fires on an edge: its condition holds of the new row and did not hold
 * of the old one, both judged at the same moment, each with its score.  So
 * neither the clock nor a change of rules moves a lead; a write does.
 *
 * Expressions that call nothing but what is built in are evaluated side by side
 * in one memory that is reset once a row; all others by lc_expr_judge(), as the
 * table's owner and safe against coming back here.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <math.h>

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_behavior_score_of_rule);

/* A row that is being judged. */
typedef struct Judge
{
	LcProgram  *program;
	const LcRule *current;		/* the rule at work, for who must be told */
	bool		names_itself;	/* by the context of its expressions */
	const LcRule *found;
	LcJudgement judgement;
} Judge;

/* ---- which columns matter ---- */

static void
note_columns(LcColumns *columns, Bitmapset *read, MemoryContext cxt)
{
	int			i = -1;
	int			n = 0;

	columns->attno = MemoryContextAlloc(cxt, Max(bms_num_members(read), 1) * sizeof(AttrNumber));
	while ((i = bms_next_member(read, i)) >= 0)
		columns->attno[n++] = i + FirstLowInvalidHeapAttributeNumber;
	columns->n = n;
}

/*
 * Whether one of the columns differs.  A value that is written anew but is the
 * same does not count; one that was not written is not even looked into.
 */
static bool
differ(const LcColumns *columns, TupleTableSlot *a, TupleTableSlot *b)
{
	TupleDesc	desc = a->tts_tupleDescriptor;

	if (columns->n == 0)
		return false;
	slot_getsomeattrs(a, columns->attno[columns->n - 1]);
	slot_getsomeattrs(b, columns->attno[columns->n - 1]);
	for (int i = 0; i < columns->n; i++)
	{
		int			c = columns->attno[i] - 1;
		Form_pg_attribute att = TupleDescAttr(desc, c);
		Datum		x = a->tts_values[c];
		Datum		y = b->tts_values[c];

		if (a->tts_isnull[c] != b->tts_isnull[c])
			return true;
		if (a->tts_isnull[c])
			continue;
		if (!datumIsEqual(x, y, att->attbyval, att->attlen) &&
			(att->attbyval || !datum_image_eq(x, y, att->attbyval, att->attlen)))
			return true;
	}
	return false;
}

/* ---- judging ---- */

/*
 * Say how to do without a rule that fails, unless the error is none of it.
 */
static void
advise(const Judge *judge)
{
	const LcRule *rule = judge->current;
	MemoryContext old = MemoryContextSwitchTo(CurTransactionContext);
	ErrorData  *error = CopyErrorData();

	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_TRANSACTION_ROLLBACK:
			rule = NULL;
			break;
		default:
			break;
	}
	if (rule != NULL)
	{
		error->hint = psprintf("%s%sTo go on without the rule: UPDATE lifecycle.rule SET enabled = false WHERE on_table = %s::regclass AND name = %s;",
							   error->hint ? error->hint : "", error->hint ? " " : "",
							   quote_literal_cstr(judge->program->name), quote_literal_cstr(rule->name));
		FlushErrorState();
		MemoryContextSwitchTo(old);
		ReThrowError(error);
	}
	MemoryContextSwitchTo(old);
	FreeErrorData(error);
}

/*
 * The value of a rule's expression for the row.  By value, as all that rules
 * give is.
 */
static inline Datum
value_of(Judge *judge, LcExpr *expr, TupleTableSlot *row, bool *isnull)
{
	ExprContext *econtext = judge->program->rules->econtext;
	MemoryContext old;
	Datum		value;

	judge->names_itself = true;
	if (expr->state == NULL || !expr->cached->is_valid)
		lc_expr_prepare(expr);
	if (expr->foreign_code)
		return lc_expr_judge(expr, row, &judge->judgement, isnull);
	judge->names_itself = false;
	econtext->ecxt_scantuple = row;
	econtext->ecxt_param_list_info = &judge->judgement.params;
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	value = ExecEvalExpr(expr->state, econtext, isnull);
	MemoryContextSwitchTo(old);
	return value;
}

static inline bool
holds(Judge *judge, const LcRule *rule, TupleTableSlot *row)
{
	bool		isnull;
	Datum		value;

	judge->current = rule;
	value = value_of(judge, rule->condition, row, &isnull);
	return !isnull && DatumGetBool(value);
}

/*
 * The points that a rule's expression came to.  None that would make every sum
 * of them meaningless.
 */
float8
lc_rule_points(const LcProgram *program, const char *rule, Datum value, bool isnull)
{
	float8		points = isnull ? 0 : DatumGetFloat8(value);

	if (isnan(points) || isinf(points))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("rule \"%s\" of table \"%s\" gives %s points", rule, program->name,
						isnan(points) ? "NaN" : "infinite")));
	return points;
}

/* What the rule gives the row, for which it holds. */
static float8
points_of(Judge *judge, const LcRule *rule, TupleTableSlot *row)
{
	bool		isnull;
	Datum		value;

	judge->current = rule;
	value = value_of(judge, rule->points, row, &isnull);
	return lc_rule_points(judge->program, rule->name, value, isnull);
}

/* Names the rule where its expression does not. */
static void
judge_error_callback(void *arg)
{
	const Judge *judge = arg;

	if (judge->current != NULL && !judge->names_itself)
		errcontext("rule \"%s\" of table \"%s\"", judge->current->name, judge->program->name);
}

/*
 * Compile all rules, and learn which columns they read.
 */
static void
compile_all(Judge *judge)
{
	LcProgram  *program = judge->program;
	LcRuleSet  *set = program->rules;
	Bitmapset  *read = NULL;

	judge->names_itself = true;
	for (int i = 0; i < set->npoints; i++)
	{
		judge->current = set->points[i];
		lc_expr_prepare(set->points[i]->condition);
		lc_expr_prepare(set->points[i]->points);
		read = bms_add_members(read, set->points[i]->condition->columns);
		read = bms_add_members(read, set->points[i]->points->columns);
	}
	note_columns(&set->points_read, read, program->cxt);
	bms_free(read);
	read = NULL;
	for (int i = 0; i < set->nstatus; i++)
	{
		judge->current = set->status[i];
		lc_expr_prepare(set->status[i]->condition);
		read = bms_add_members(read, set->status[i]->condition->columns);
		if (set->status[i]->condition->reads_demographic_score)
			set->reads_demographic_score = true;
		if (set->status[i]->condition->reads_behavior_score)
			set->reads_behavior_score = true;
	}
	note_columns(&set->status_read, read, program->cxt);
	bms_free(read);
	set->prepared = true;
}

/* What a walk over the rules is to find. */
typedef enum Question
{
	COLUMNS,					/* which columns they read */
	SCORE,						/* what the points add up to */
	AT_ENTRY,					/* which status holds */
	FIRED,						/* which status holds that did not */
	STANDING,					/* which status holds and may be moved to */
	FACTS						/* what a signal comes to */
} Question;

static float8
add_up(Judge *judge, TupleTableSlot *row)
{
	LcRuleSet  *set = judge->program->rules;
	float8		score = 0;

	for (int i = 0; i < set->npoints; i++)
	{
		if (holds(judge, set->points[i], row))
			score += points_of(judge, set->points[i], row);
	}
	judge->current = NULL;
	if (isinf(score))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("demographic score of a lead of table \"%s\" is out of range",
						judge->program->name)));
	return score;
}

static void
find_facts(Judge *judge, TupleTableSlot *row, LcSignalFacts *facts)
{
	LcRuleSet  *set = judge->program->rules;

	for (int i = 0; i < set->npoints; i++)
	{
		facts->points[i] = holds(judge, set->points[i], row) ? points_of(judge, set->points[i], row) : 0;
		if (facts->points[i] != 0)
			facts->has_points = true;
	}
	for (int i = 0; i < set->nstatus; i++)
		facts->holds[i] = set->status[i]->stage >= 0 && holds(judge, set->status[i], row);
}

static const LcRule *
find_rule(Judge *judge, Question question, TupleTableSlot *oldrow, LcJudgement *old,
		  TupleTableSlot *row, int from)
{
	LcProgram  *program = judge->program;
	LcRuleSet  *set = program->rules;
	LcJudgement new = judge->judgement;

	for (int i = 0; i < set->nstatus; i++)
	{
		const LcRule *rule = set->status[i];

		if (question == AT_ENTRY ?
			rule->stage < 0 || rule->has_only_from :
			(rule->only_from >> from & 1) == 0 ||
			!lc_model_move_is_legal(program->model, from, rule->stage))
			continue;
		if (!holds(judge, rule, row))
			continue;
		if (question == FIRED)
		{
			bool		held;

			judge->judgement = *old;
			held = holds(judge, rule, oldrow);
			judge->judgement = new;
			if (held)
				continue;
		}
		return rule;
	}
	return NULL;
}

/*
 * Ask the rules.  An error says which rule it is about, and how to do without.
 */
static const LcRule *
ask(LcProgram *program, Question question, TupleTableSlot *oldrow, LcJudgement *old,
	TupleTableSlot *row, const LcJudgement *new, int from, void *answer)
{
	Judge		judge;
	ErrorContextCallback callback;

	judge.program = program;
	judge.current = NULL;
	judge.names_itself = false;
	judge.found = NULL;
	if (new != NULL)
		judge.judgement = *new;
	/* results are by value: nobody further up the stack has anything in there */
	ResetExprContext(program->rules->econtext);
	callback.callback = judge_error_callback;
	callback.arg = &judge;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	PG_TRY();
	{
		if (question == COLUMNS)
			compile_all(&judge);
		else if (question == SCORE)
			*(float8 *) answer = add_up(&judge, row);
		else if (question == FACTS)
			find_facts(&judge, row, answer);
		else
			judge.found = find_rule(&judge, question, oldrow, old, row, from);
	}
	PG_CATCH();
	{
		error_context_stack = callback.previous;
		advise(&judge);
		PG_RE_THROW();
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	return judge.found;
}

/* See to it that it is known which columns the rules read. */
static void
prepare(LcProgram *program)
{
	if (!program->rules->prepared)
		(void) ask(program, COLUMNS, NULL, NULL, NULL, NULL, LC_NO_STAGE, NULL);
}

/*
 * The demographic score of the row.
 */
float8
lc_rules_score(LcProgram *program, TupleTableSlot *row, TimestampTz moment)
{
	LcJudgement judgement;
	float8		score = 0;

	if (program->rules->npoints == 0)
		return 0;
	lc_expr_set_judgement(&judgement, 0, true, 0, moment);
	(void) ask(program, SCORE, NULL, NULL, row, &judgement, LC_NO_STAGE, &score);
	return score;
}

/*
 * Whether the points that the rows get can differ; or none are stored, and the
 * other rules are going to ask for them.
 */
bool
lc_rules_score_may_differ(LcProgram *program, TupleTableSlot *oldrow, const LcLead *old,
						  TupleTableSlot *newrow)
{
	LcRuleSet  *set = program->rules;

	if (set->npoints == 0)
		return false;
	prepare(program);
	return differ(&set->points_read, oldrow, newrow) ||
		(old->score_isnull && set->reads_demographic_score && differ(&set->status_read, oldrow, newrow));
}

/*
 * The rule that decides on which status a lead enters, or NULL.
 */
const LcRule *
lc_rules_at_entry(LcProgram *program, TupleTableSlot *row, float8 score, float8 behavior,
				  TimestampTz moment)
{
	LcJudgement judgement;

	if (program->rules->nstatus == 0)
		return NULL;
	lc_expr_set_judgement(&judgement, score, false, behavior, moment);
	return ask(program, AT_ENTRY, NULL, NULL, row, &judgement, LC_NO_STAGE, NULL);
}

/*
 * The rule that a write fires for a lead which is at the given stage, or NULL.
 * A lead whose score was never stored had the one that its old row gives now.
 */
const LcRule *
lc_rules_fired(LcProgram *program, TupleTableSlot *oldrow, const LcLead *old,
			   TupleTableSlot *newrow, const LcLead *new, TimestampTz moment)
{
	LcRuleSet  *set = program->rules;
	LcJudgement before;
	LcJudgement after;
	float8		old_score = old->score;
	float8		behavior;

	if (set->nstatus == 0 || old->stage < 0)
		return NULL;
	prepare(program);
	if (!differ(&set->status_read, oldrow, newrow) &&
		!(set->reads_demographic_score && (old->score_isnull ? !new->score_isnull : old->score != new->score)))
		return NULL;
	if (old->score_isnull && set->reads_demographic_score)
		old_score = lc_rules_score(program, oldrow, moment);
	behavior = lc_behavior_of(program, old->key, moment);
	lc_expr_set_judgement(&before, old_score, false, behavior, moment);
	lc_expr_set_judgement(&after, new->score, false, behavior, moment);
	return ask(program, FIRED, oldrow, &before, newrow, &after, old->stage, NULL);
}

/*
 * The rule that holds for a lead at the given stage and may move it, or NULL.
 */
const LcRule *
lc_rules_standing(LcProgram *program, TupleTableSlot *row, float8 score, float8 behavior, int from,
				  TimestampTz moment)
{
	LcJudgement judgement;

	if (program->rules->nstatus == 0 || from < 0)
		return NULL;
	lc_expr_set_judgement(&judgement, score, false, behavior, moment);
	return ask(program, STANDING, NULL, NULL, row, &judgement, from, NULL);
}

/*
 * The rule that a change of the lead's behaviour score fires, or NULL.
 */
const LcRule *
lc_rules_crossed(LcProgram *program, TupleTableSlot *row, const LcLead *lead, float8 before,
				 float8 after, TimestampTz moment)
{
	LcJudgement old;
	LcJudgement new;
	float8		score = lead->score;

	if (program->rules->nstatus == 0 || lead->stage < 0 || before == after ||
		!lc_rules_read_behavior(program))
		return NULL;
	if (lead->score_isnull && program->rules->reads_demographic_score)
		score = lc_rules_score(program, row, moment);
	lc_expr_set_judgement(&old, score, false, before, moment);
	lc_expr_set_judgement(&new, score, false, after, moment);
	return ask(program, FIRED, row, &old, row, &new, lead->stage, NULL);
}

/*
 * Whether the behaviour score of a lead matters for where it goes.
 */
bool
lc_rules_read_behavior(LcProgram *program)
{
	if (program->rules->nstatus == 0)
		return false;
	prepare(program);
	return program->rules->reads_behavior_score;
}

/*
 * What a row of a signal table comes to, into memory that the caller has.
 */
void
lc_rules_signal(LcProgram *signal, TupleTableSlot *row, TimestampTz moment, LcSignalFacts *facts)
{
	LcJudgement judgement;

	facts->has_points = false;
	if (signal->rules->npoints + signal->rules->nstatus == 0)
		return;
	lc_expr_set_judgement(&judgement, 0, true, 0, moment);
	(void) ask(signal, FACTS, NULL, NULL, row, &judgement, LC_NO_STAGE, facts);
}

/*
 * Whether the row keeps the rule from firing for another row of the lead.
 */
bool
lc_rules_unless(LcProgram *signal, const LcRule *rule, TupleTableSlot *row, TimestampTz moment)
{
	LcJudgement judgement;
	bool		isnull;
	Datum		value;

	lc_expr_set_judgement(&judgement, 0, true, 0, moment);
	value = lc_expr_judge(rule->unless_other, row, &judgement, &isnull);
	return !isnull && DatumGetBool(value);
}

/*
 * behavior_score(): what the stored text of a condition says for the behaviour
 * score.  Compiled conditions take it from the judgement; nobody else has one.
 */
Datum
lifecycle_behavior_score_of_rule(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("lifecycle.behavior_score() without arguments can only be used in the condition of a rule with a status")));
	PG_RETURN_NULL();
}
