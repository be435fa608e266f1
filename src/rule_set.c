/*-------------------------------------------------------------------------
 *
 * rule_set.c
 *	  The rules of a table, read from lifecycle.rule, in the order in which they
 *	  are asked.
 *
 * The rules of a table are read with its program and compiled one by one when
 * they are first needed.  Rules that give points are added up in the order of
 * their names, so that a sum of fractions is the same everywhere.  Rules that
 * ask for a status are kept in the order of precedence: the first that fires,
 * and may move the lead from where it is, is the one; those behind it are not
 * looked at.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"

static char *
rule_text(TupleTableSlot *slot, AttrNumber attno)
{
	bool		isnull;
	Datum		d = slot_getattr(slot, attno, &isnull);

	return isnull ? NULL : TextDatumGetCString(d);
}

static Interval *
rule_interval(TupleTableSlot *slot, AttrNumber attno)
{
	bool		isnull;
	Datum		d = slot_getattr(slot, attno, &isnull);
	Interval   *interval;

	if (isnull)
		return NULL;
	interval = palloc(sizeof(Interval));
	*interval = *DatumGetIntervalP(d);
	return interval;
}

/*
 * The stages of an array of statuses, as a mask.  What the model lacks does not
 * count: no lead is there.
 */
uint64
lc_rule_stages(const LcModel *model, ArrayType *statuses)
{
	uint64		mask = 0;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(statuses, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		text	   *t;
		int			stage;

		if (nulls[i])
			continue;
		t = DatumGetTextPP(elements[i]);
		stage = lc_model_stage(model, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
		if (stage >= 0)
			mask |= UINT64CONST(1) << stage;
	}
	return mask;
}

/*
 * A rule of the slot's row, compiled when needed, in the current memory.
 */
static LcRule *
make_rule(TupleTableSlot *slot, Relation rel, LcProgram *program, LcRuleSet *set)
{
	LcRule	   *rule = palloc0(sizeof(LcRule));
	char	   *points = rule_text(slot, Anum_rule_points);
	char	   *status = rule_text(slot, Anum_rule_status);
	bool		isnull;
	Datum		d;

	rule->name = rule_text(slot, Anum_rule_name);
	rule->enabled = DatumGetBool(slot_getattr(slot, Anum_rule_enabled, &isnull));
	rule->priority = DatumGetInt32(slot_getattr(slot, Anum_rule_priority, &isnull));
	rule->status = status;
	rule->stage = status ? lc_model_stage(program->model, status, strlen(status)) : LC_NO_STAGE;
	d = slot_getattr(slot, Anum_rule_only_from, &isnull);
	rule->has_only_from = !isnull;
	rule->only_from = isnull ? ~UINT64CONST(0) : lc_rule_stages(program->model, DatumGetArrayTypeP(d));
	rule->condition = lc_expr_make(CurrentMemoryContext, rel,
								   psprintf("condition of rule \"%s\"", rule->name),
								   program->owner, rule_text(slot, Anum_rule_condition), BOOLOID,
								   status ? &set->status_scope : &set->points_scope);
	rule->points = lc_expr_make(CurrentMemoryContext, rel,
								psprintf("points of rule \"%s\"", rule->name),
								program->owner, points, FLOAT8OID, &set->points_scope);
	if (program->is_signal)
	{
		rule->half_life = rule_interval(slot, Anum_rule_half_life);
		rule->max_age = rule_interval(slot, Anum_rule_max_age);
		rule->unless_other = lc_expr_make(CurrentMemoryContext, rel,
										  psprintf("unless_other of rule \"%s\"", rule->name),
										  program->owner, rule_text(slot, Anum_rule_unless_other),
										  BOOLOID, &set->points_scope);
	}
	return rule;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp((*(LcRule *const *) a)->name, (*(LcRule *const *) b)->name);
}

/* Where a stage stands between rules of the same priority: the lower, the sooner. */
static int
standing(const LcModel *model, int stage)
{
	if (stage < 0)
		return LC_MAX_STAGES + 2;
	if (model->stages[stage].rank == 0)
		return 1;
	if (stage + 1 == model->nstages || model->stages[stage + 1].rank == 0)
		return 0;
	return 2 + LC_MAX_STAGES - 1 - stage;
}

/*
 * Which of two rules wins: the first where the result is less than zero.
 */
int
lc_rules_compare(const LcModel *model, const LcRule *x, const LcRule *y)
{
	int			sx;
	int			sy;

	if (x->priority != y->priority)
		return x->priority > y->priority ? -1 : 1;
	sx = standing(model, x->stage);
	sy = standing(model, y->stage);
	if (sx != sy)
		return sx < sy ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int
compare_precedence(const void *a, const void *b, void *model)
{
	return lc_rules_compare(model, *(LcRule *const *) a, *(LcRule *const *) b);
}

/*
 * Read the rules of the program's table, in the current memory; "rel" is that
 * table or a partition of it.  All that is asked for may be disabled ones, too.
 */
LcRuleSet *
lc_rules_load(LcProgram *program, Relation rel, bool disabled)
{
	LcRuleSet  *set = palloc0(sizeof(LcRuleSet));
	Relation	rules = table_open(lc_watch_config("rule"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(lc_latest_snapshot());
	TableScanDesc scan = table_beginscan(rules, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rules, NULL);
	int			room = 16;

	set->points_scope.status = program->status;
	set->points_scope.score = program->score;
	set->status_scope = set->points_scope;
	set->status_scope.scores = !program->is_signal;
	set->points = palloc(room * sizeof(LcRule *));
	set->status = palloc(room * sizeof(LcRule *));
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		LcRule	   *rule;
		bool		isnull;

		if (DatumGetObjectId(slot_getattr(slot, Anum_rule_on_table, &isnull)) != program->root ||
			(!disabled && !DatumGetBool(slot_getattr(slot, Anum_rule_enabled, &isnull))))
			continue;
		rule = make_rule(slot, rel, program, set);
		if (set->npoints + set->nstatus == room)
		{
			room *= 2;
			set->points = repalloc(set->points, room * sizeof(LcRule *));
			set->status = repalloc(set->status, room * sizeof(LcRule *));
		}
		if (rule->points != NULL)
			set->points[set->npoints++] = rule;
		else if (rule->status != NULL)
			set->status[set->nstatus++] = rule;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rules, AccessShareLock);

	qsort(set->points, set->npoints, sizeof(LcRule *), compare_names);
	qsort_arg(set->status, set->nstatus, sizeof(LcRule *), compare_precedence, program->model);
	if (set->npoints + set->nstatus > 0)
		set->econtext = CreateStandaloneExprContext();
	return set;
}

/* Let go of all compiled forms; the memory is the caller's. */
void
lc_rules_free(LcRuleSet *set)
{
	if (set == NULL)
		return;
	for (int i = 0; i < set->npoints; i++)
	{
		lc_expr_free(set->points[i]->condition);
		lc_expr_free(set->points[i]->points);
	}
	for (int i = 0; i < set->nstatus; i++)
	{
		lc_expr_free(set->status[i]->condition);
		lc_expr_free(set->status[i]->unless_other);
	}
	if (set->econtext != NULL)
		FreeExprContext(set->econtext, false);
}
