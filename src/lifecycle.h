/*-------------------------------------------------------------------------
 *
 * lifecycle.h
 *	  What the parts of lifecycle offer each other.
 *
 * Data flows one way: a write fires lead.c, which asks program.c (what is
 * tracked and how), model.c (which moves are legal) and evaluate.c (what the
 * user's expressions say of the row) and hands the move to history.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_H
#define LIFECYCLE_H

#include "compat.h"

#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/date.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* ---- lifecycle.c: settings and the one relcache callback ---- */

/*
 * Rises whenever a configuration table of ours changes; what was compiled
 * from configuration carries the value it was compiled under.
 */
extern uint64 lc_config_generation;
extern bool lc_batch_history;
extern bool lc_count_flow;

extern const char *lc_setting_at(void);
extern const char *lc_setting_actor(void);
extern const char *lc_setting_reason(void);
extern const char *lc_setting_on_illegal(void);
extern Oid	lc_schema(void);
extern Oid	lc_config_relid(const char *name);
extern Oid	lc_watch_config(const char *name);
extern Snapshot lc_latest_snapshot(void);
extern void lc_require_trigger(FunctionCallInfo fcinfo, const char *function);
extern void lc_require_event_trigger(FunctionCallInfo fcinfo, const char *function);

/* ---- model.c: stages, legal moves ---- */

#define LC_MAX_STAGES 64
#define LC_NO_STAGE (-1)		/* NULL */
#define LC_UNKNOWN_STAGE (-2)	/* a status that the model lacks */

typedef struct LcStage
{
	char	   *status;
	text	   *label;			/* the status as a text datum */
	ArrayType  *alone;			/* the array that holds just the status */
	int			rank;			/* 0 for a detour */
	bool		resets_behavior;
	bool		reason_required;
	uint64		next;			/* bit n: a move to stage n is legal */
} LcStage;

typedef struct LcModel
{
	char	   *name;
	int			nstages;
	int			first;			/* stage of the lowest rank, or LC_NO_STAGE */
	LcStage		stages[LC_MAX_STAGES];	/* path by rank, detours by name */
} LcModel;

extern LcModel *lc_model_load(const char *name, MemoryContext cxt);
extern int	lc_model_stage(const LcModel *model, const char *status, int len);
extern bool lc_model_move_is_legal(const LcModel *model, int from, int to);
extern char *lc_model_statuses(const LcModel *model, uint64 mask);
extern bool lc_model_touches_path(const LcModel *model, ArrayType *reached);
extern ArrayType *lc_reached_of(text *label);
extern bool lc_reached_has(ArrayType *reached, const text *label);
extern ArrayType *lc_reached_add(ArrayType *reached, text *label, bool new_cycle);

/* ---- expr.c: what may be written; from text to tree and back ---- */

/* What a rule's expression may use, and may not, of the table it stands on. */
typedef struct LcScope
{
	AttrNumber	status;			/* what rules decide: not to be read */
	AttrNumber	score;			/* demographic_score */
	bool		scores;			/* whether scores may be used */
} LcScope;

/* For the error context of whatever goes wrong in an expression. */
typedef struct LcExprErrorContext
{
	ErrorContextCallback callback;
	const char *what;
	const char *table;
	const char *source;			/* set while it is compiled */
} LcExprErrorContext;

extern void lc_expr_begin_context(LcExprErrorContext *ctx, const char *what, const char *table,
								  const char *source);
extern void lc_expr_end_context(LcExprErrorContext *ctx);
extern char *lc_expr_canonical(Relation rel, const char *what, const char *source, Oid type,
							   const LcScope *scope);
extern Node *lc_expr_tree(Relation rel, const char *what, const char *source, Oid type);
extern char *lc_expr_text(Relation rel, Node *tree);
extern Node *lc_expr_transform(Relation rel, const char *what, const char *source, Oid type,
							   const LcScope *scope, bool typed);
extern bool lc_is_behavior_score(Oid funcid);

/* ---- owner.c: running an expression as the owner of its table ---- */

/* Where the caller was before the switch to the owner. */
typedef struct LcSavedUser
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
} LcSavedUser;

extern void lc_become_owner(Oid owner, bool pin_search_path, LcSavedUser *saved);
extern void lc_become_caller(const LcSavedUser *saved);
extern void lc_pin_syntax(void);
extern Oid	lc_type_of_value(Node *node);
extern bool lc_calls_foreign_code(Node *node, void *context);

/* ---- evaluate.c: an expression, compiled and evaluated ---- */

/* The scores and the moment that a row is judged by. */
typedef struct LcJudgement
{
	ParamListInfoData params;
	ParamExternData room[3];
} LcJudgement;

typedef struct LcExpr
{
	Oid			relid;
	Oid			owner;
	const char *table;			/* its name, for error context */
	const char *what;			/* which expression, for error context */
	const char *source;			/* canonical SQL text */
	Oid			type;
	const LcScope *scope;		/* of a rule, else NULL */
	MemoryContext parent;		/* where compiled forms are kept */
	MemoryContext cxt;			/* the compiled form, or NULL */
	CachedExpression *cached;
	ExprState  *state;
	ExprContext *econtext;
	bool		foreign_code;	/* calls what is not built in */
	bool		reads_demographic_score;
	bool		reads_behavior_score;
	Bitmapset  *columns;		/* read, offset as of pull_varattnos() */
	int			running;		/* evaluations in progress */
} LcExpr;

extern LcExpr *lc_expr_make(MemoryContext cxt, Relation rel, const char *what,
							Oid owner, const char *source, Oid type, const LcScope *scope);
extern void lc_expr_set_judgement(LcJudgement *judgement, float8 demographic_score, bool isnull,
								  float8 behavior_score, TimestampTz moment);
extern void lc_expr_prepare(LcExpr *expr);
extern Datum lc_expr_judge(LcExpr *expr, TupleTableSlot *slot, LcJudgement *judgement, bool *isnull);
extern Datum lc_expr_eval(LcExpr *expr, TupleTableSlot *slot, bool *isnull);
extern void lc_expr_free(LcExpr *expr);
extern AttrNumber lc_expr_only_column(LcExpr *expr);

/* ---- pattern.c: LIKE and regular expressions with a constant pattern ---- */

extern Node *lc_pattern_substitute(Node *expr);

/* ---- score.c: the decay of points ---- */

/* Points of one half-life (microseconds; 0: they do not decay), as of a time. */
typedef struct LcScore
{
	float8		half_life;
	float8		points;
	TimestampTz at;
	ItemPointerData stored;		/* where behavior.c read it; invalid: it is new */
	float8		heat;			/* as it is stored there, NaN for none */
} LcScore;

extern float8 lc_half_life(const Interval *half_life);
extern float8 lc_decay(float8 points, float8 usec, float8 half_life);
extern void lc_score_add(LcScore *sum, float8 points, TimestampTz at);

/* ---- rule.c: what a row scores, which status it asks for ---- */

typedef struct LcProgram LcProgram;
typedef struct LcLead LcLead;

/* Columns of lifecycle.rule. */
enum
{
	Anum_rule_on_table = 1,
	Anum_rule_name,
	Anum_rule_condition,
	Anum_rule_points,
	Anum_rule_half_life,
	Anum_rule_max_age,
	Anum_rule_status,
	Anum_rule_only_from,
	Anum_rule_unless_other,
	Anum_rule_priority,
	Anum_rule_enabled,
	Anum_rule_signal_table,
	Natts_rule = Anum_rule_signal_table
};

typedef struct LcRule
{
	char	   *name;
	LcExpr	   *condition;
	LcExpr	   *points;			/* NULL: asks for a status */
	char	   *status;
	int			stage;
	int			priority;
	bool		enabled;
	bool		has_only_from;
	uint64		only_from;		/* bit n: applies in stage n */
	/* on signal tables */
	Interval   *half_life;		/* NULL: the points do not decay */
	Interval   *max_age;		/* NULL: of any age */
	LcExpr	   *unless_other;
} LcRule;

/* Columns of a table, ascending. */
typedef struct LcColumns
{
	int			n;
	AttrNumber *attno;
} LcColumns;

typedef struct LcRuleSet
{
	int			npoints;
	LcRule	  **points;			/* by name */
	int			nstatus;
	LcRule	  **status;			/* by precedence */
	LcScope		points_scope;
	LcScope		status_scope;
	ExprContext *econtext;		/* for all that is built in */

	bool		prepared;		/* what follows is known */
	LcColumns	points_read;
	LcColumns	status_read;
	bool		reads_demographic_score;
	bool		reads_behavior_score;
} LcRuleSet;

/* What a row of a signal table comes to: as many as the set has rules of a kind. */
typedef struct LcSignalFacts
{
	float8	   *points;			/* of each rule with points, 0 where it does not hold */
	bool	   *holds;			/* of each rule with a status */
	bool		has_points;
} LcSignalFacts;

extern void lc_rules_signal(LcProgram *signal, TupleTableSlot *row, TimestampTz moment,
							LcSignalFacts *facts);
extern bool lc_rules_unless(LcProgram *signal, const LcRule *rule, TupleTableSlot *row,
							TimestampTz moment);
extern bool lc_rules_read_behavior(LcProgram *program);
extern const LcRule *lc_rules_crossed(LcProgram *program, TupleTableSlot *row, const LcLead *lead,
									  float8 before, float8 after, TimestampTz moment);
extern int	lc_rules_compare(const LcModel *model, const LcRule *a, const LcRule *b);
extern LcRuleSet *lc_rules_load(LcProgram *program, Relation rel, bool disabled);
extern void lc_rules_free(LcRuleSet *set);
extern uint64 lc_rule_stages(const LcModel *model, ArrayType *statuses);
extern float8 lc_rule_points(const LcProgram *program, const char *rule, Datum value, bool isnull);
extern float8 lc_rules_score(LcProgram *program, TupleTableSlot *row, TimestampTz moment);
extern bool lc_rules_score_may_differ(LcProgram *program, TupleTableSlot *oldrow, const LcLead *old,
									  TupleTableSlot *newrow);
extern const LcRule *lc_rules_at_entry(LcProgram *program, TupleTableSlot *row, float8 score,
									   float8 behavior, TimestampTz moment);
extern const LcRule *lc_rules_fired(LcProgram *program, TupleTableSlot *oldrow, const LcLead *old,
									TupleTableSlot *newrow, const LcLead *new, TimestampTz moment);
extern const LcRule *lc_rules_standing(LcProgram *program, TupleTableSlot *row, float8 score,
									   float8 behavior, int from, TimestampTz moment);

/* ---- program.c: what is tracked, and how ---- */

/* Statements that are prepared once for a program. */
typedef enum LcPlan
{
	LC_PLAN_LOCK,
	LC_PLAN_WRITE,
	LC_PLAN_BEGIN,
	LC_PLAN_HOLD,
	LC_PLAN_MOVE,
	LC_PLAN_SIGNALS,
	LC_PLANS
} LcPlan;

#define LC_HISTORY_COLUMNS 21
#define LC_REFUSED_COLUMNS 5
#define LC_FLOW_COLUMNS 14

typedef struct LcDays LcDays;

struct LcProgram
{
	int32		id;
	Oid			relid;			/* the table whose triggers ask */
	Oid			root;			/* the tracked table: the same, or an ancestor of it */
	Oid			owner;			/* of the tracked table */
	Oid			history;
	Oid			refused;
	Oid			flow;
	Oid			pending;		/* what is not merged into the flow yet */
	Oid			funnel;			/* the materialized view, or InvalidOid */
	text	   *tz;				/* the time zone whose days the flow counts by */
	LcDays	   *days;			/* those that flow.c looked up */
	char	   *name;			/* the tracked table, qualified, for messages */

	AttrNumber	key;
	AttrNumber	status;
	AttrNumber	since;
	AttrNumber	seq;
	AttrNumber	score;

	Oid			key_type;
	FmgrInfo	key_equal;
	Oid			key_collation;
	FmgrInfo	key_out;
	int16		key_length;
	bool		key_by_value;

	Oid			status_type;
	bool		status_is_enum;
	Oid			stage_oid[LC_MAX_STAGES];	/* the enum's value of each stage */

	bool		keep;			/* on_illegal = 'keep' */
	LcModel    *model;

	LcExpr	   *entered;
	LcExpr	   *source;
	LcExpr	   *value;
	LcExpr	   *actor;
	LcExpr	   *reason;
	LcExpr	   *cohort;

	/* what history.c found out about the tables, once */
	bool		history_known;
	bool		history_has_triggers;	/* of users, on the history */
	bool		history_has_constraints;
	bool		users_look;		/* users have triggers that may see each row written */
	AttrNumber	history_attno[LC_HISTORY_COLUMNS];
	AttrNumber	refused_attno[LC_REFUSED_COLUMNS];
	AttrNumber	pending_attno[LC_FLOW_COLUMNS];
	int			nparts;			/* tables below a partitioned one, by OID */
	Oid		   *parts;

	LcRuleSet  *rules;

	/* of a tracked table */
	Oid			behavior;		/* the table of points, or InvalidOid */
	int			nsignals;
	Oid		   *signals;		/* its signal tables */
	SPIPlanPtr	plans[LC_PLANS];	/* of behavior.c and signal.c */

	/*
	 * Of a signal table.  Then id and owner are those of the signal table, name
	 * is its name, the model is that of the leads, and of what concerns a lead's
	 * row or its history there is nothing.
	 */
	bool		is_signal;
	Oid			lead_table;
	LcExpr	   *lead;
	LcExpr	   *at;

	MemoryContext cxt;
	int			pins;
	bool		abandoned;
};

extern LcProgram *lc_program_pin(Oid relid);
extern LcProgram *lc_program_pin_tracked(Oid relid);
extern LcProgram *lc_program_pin_again(LcProgram *program);
extern LcProgram *lc_signal_pin(Oid relid);
extern LcProgram *lc_signal_pin_for_trigger(FunctionCallInfo fcinfo, const char *function);
extern LcProgram *lc_program_pin_for_trigger(FunctionCallInfo fcinfo, const char *function);
extern void lc_program_unpin(LcProgram *program);
extern void lc_program_invalidate(Oid relid);
extern void lc_program_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent);
extern void lc_program_end_transaction(void);
extern int	lc_program_stage(LcProgram *program, Datum status, bool isnull);
extern char *lc_program_status_label(LcProgram *program, Datum status);
extern Datum lc_program_status(LcProgram *program, int stage);
extern char *lc_program_key_text(LcProgram *program, Datum key, bool isnull);
extern void lc_require_owner(Oid relid);
extern char *lc_table_name(Oid relid);
extern void lc_execute_as_extension(const char *sql, int nargs, Oid *types, Datum *values,
									const char *nulls, int expected, Datum *result);

/* ---- follow.c: DDL under stored expressions ---- */

extern bool lc_follow_is_rewriting(void);
extern void lc_follow_execute(const char *sql, int nargs, Oid *types, Datum *values, int expected);
extern void lc_follow_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent);
extern void lc_follow_end_transaction(void);

/* ---- plan.c: statements that are prepared once for a program ---- */

extern void lc_plan_prepare(LcProgram *program, LcPlan plan, const char *sql, int nargs, Oid *types);
extern uint64 lc_plan_execute(LcProgram *program, LcPlan plan, const char *sql, Oid owner, int nargs,
							  Oid *types, Datum *values);

/* ---- key.c: the keys of leads ---- */

typedef struct LcKeyOrder
{
	FmgrInfo   *compare;
	Oid			collation;
} LcKeyOrder;

extern LcKeyOrder lc_key_order(LcProgram *program);
extern int	lc_key_compare(const void *a, const void *b, void *order);
extern char *lc_key_condition(LcProgram *program, const char *column, const char *with);
extern ArrayType *lc_key_array(LcProgram *program, Datum *keys, int n);

/* A table that is open for reading rows by the key. */
typedef struct LcKeyScan
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanKeyData key;
} LcKeyScan;

extern bool lc_key_scan_begin(LcKeyScan *s, Oid relid, AttrNumber key, int columns, LOCKMODE lockmode,
							  Snapshot snapshot);
extern void lc_key_scan_find(LcKeyScan *s, Datum key);
extern bool lc_key_scan_next(LcKeyScan *s);
extern void lc_key_scan_end(LcKeyScan *s);

/* ---- lock.c: the leads' rows, locked ---- */

extern HeapTuple *lc_lock_leads(LcProgram *program, Datum *keys, int n);

/* ---- row.c: rows as values ---- */

extern char *lc_row_alias(Oid relid);
extern void lc_row_tuple(HeapTuple tuple, Oid relid, HeapTupleHeader row);
extern void lc_row_store(TupleTableSlot *slot, HeapTuple tuple, Oid relid, HeapTupleHeader row);

/* ---- partition.c: lead tables that are partitioned ---- */

extern Oid	lc_partition_parent(Oid relid);
extern void lc_partition_learn(LcProgram *program);
extern bool lc_partition_is_below(const LcProgram *program, Oid relid);

/* ---- append.c: rows appended to a table ---- */

/* A table that is open for appending. */
typedef struct LcAppender
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *rri;
	bool		has_triggers;	/* others than our guard */
	bool		has_constraints;	/* others than our NOT NULLs */
	int			ndefaults;		/* columns that users added, with a default */
	AttrNumber *default_attno;
	ExprState **default_state;
} LcAppender;

extern bool lc_has_users_triggers(TriggerDesc *triggers, bool after_only);
extern LcAppender *lc_append_open(Oid relid, bool has_triggers, bool has_constraints);
extern void lc_append_close(LcAppender *a);
extern void lc_append_prepare(LcAppender *a, TupleTableSlot *slot);
extern void lc_append_set(TupleTableSlot *slot, AttrNumber attno, Datum value, bool isnull);
extern void lc_append_set_text(TupleTableSlot *slot, AttrNumber attno, const text *value);
extern void lc_append_insert(LcAppender *a, TupleTableSlot **slots, int n);
extern bool lc_append_is_firing(void);
extern void lc_append_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent);

/* ---- history.c: append, look up, guard ---- */

/* A column that a table of ours must have. */
typedef struct LcNeededColumn
{
	const char *name;
	Oid			type;			/* InvalidOid: the type of the key */
} LcNeededColumn;

/* What a move is to the flow, beside what its row says. */
typedef struct LcCounted
{
	bool		is_new;			/* the lead had never been where it goes */
	bool		leaves;			/* it counts in conversion, where it comes from */
	bool		enters;			/* and where it goes */
	ArrayType  *reached_before; /* as the row before it says; NULL: there is none */
	int32		cycle_before;
	/* of a correction: the move that opened the visit which is void now */
	bool		voids;
	TimestampTz voided_at;
	text	   *voided_from;
	bool		voided_new;
	bool		voided_left;
	bool		voided_entered;
} LcCounted;

/* One row of history, as it is written. */
typedef struct LcMove
{
	Datum		lead;
	int32		seq;
	int32		cycle;
	text	   *from_status;	/* NULL at entry */
	TimestampTz from_since;
	text	   *to_status;		/* NULL at a removal */
	TimestampTz at;
	const char *cause;
	const char *rule;
	text	   *actor;
	text	   *reason;
	float8		demographic_score;
	bool		demographic_score_isnull;
	float8		behavior_score;
	Datum		source;
	bool		source_isnull;
	int32		cohort;
	bool		cohort_isnull;
	Datum		value;
	bool		value_isnull;
	TimestampTz entered_at;
	TimestampTz cycle_since;
	ArrayType  *reached;
	LcCounted	counted;		/* not a column: what it is to the flow */
} LcMove;

/* What the next move needs of a lead's last one. */
typedef struct LcLastMove
{
	bool		own;			/* written by this transaction */
	bool		correction;
	bool		backfill;
	int32		seq;
	int32		cycle;
	text	   *from_status;
	text	   *to_status;
	TimestampTz at;
	Datum		source;
	bool		source_isnull;
	int32		cohort;
	bool		cohort_isnull;
	TimestampTz entered_at;
	TimestampTz cycle_since;
	ArrayType  *reached;
	ArrayType  *recorded;		/* the same as the row says it, even where a correction voids it */
} LcLastMove;

/* What a statement that writes leads is. */
typedef enum LcOperation
{
	LC_WRITE,					/* a write of a user */
	LC_PUT_RIGHT,				/* ours: status, time and number are taken as given */
	LC_BACKFILL,				/* ours: leads are brought into the history */
	LC_RESCORE,					/* ours: scores become what the rules give now */
	LC_RESCORE_AND_MOVE,		/* and leads go where rules hold */
	LC_SIGNAL,					/* ours: what signals decided */
	LC_CORRECTION				/* ours: any move, for a reason */
} LcOperation;

extern int	lc_trigger_depth(void);
extern void lc_history_announce(LcProgram *program, LcOperation operation, const char *reason);
extern LcOperation lc_history_operation(LcProgram *program, const char **reason);
extern void lc_history_note_correction(LcProgram *program, Datum lead, int32 seq);
extern bool lc_history_is_correction(LcProgram *program, Datum lead, int32 seq, const char **reason);
extern bool lc_history_in_statement(LcProgram *program);
extern void lc_history_begin_statement(LcProgram *program);
extern void lc_history_end_statement(LcProgram *program);
extern bool lc_history_is_beyond(LcProgram *program, Datum lead, bool stored);
extern bool lc_history_last(LcProgram *program, Datum lead, LcLastMove *last);
extern ArrayType *lc_history_reached(LcProgram *program, Datum lead, int32 voided);
extern TimestampTz lc_history_restart(LcProgram *program, Datum lead, TimestampTz until);
extern bool lc_history_get(LcProgram *program, Datum lead, int32 seq, LcLastMove *last);
extern void lc_history_note_ahead(void);
extern bool lc_history_has_ahead(LcProgram *program, Datum lead, int32 seq, bool removal);
extern void lc_history_append(LcProgram *program, const LcMove *move);
extern void lc_history_refuse(LcProgram *program, Datum lead, const char *from_status,
							  const char *to_status, TimestampTz at, text *actor);
extern void lc_history_end_subtransaction(bool commit, SubTransactionId mine,
										  SubTransactionId parent);
extern void lc_history_end_transaction(bool commit);

/* ---- flow.c: what reports sum; flow.h has the rest of it ---- */

typedef struct LcFlow LcFlow;

extern const LcNeededColumn lc_flow_columns[LC_FLOW_COLUMNS];	/* in cell.c */
extern LcFlow *lc_flow_begin(LcProgram *program);
extern void lc_flow_count(LcFlow *flow, LcProgram *program, const LcMove *move);
extern void lc_flow_write(LcFlow *flow);
extern void lc_flow_clear(LcFlow *flow);
extern bool lc_flow_is_counting(const LcFlow *flow);
extern bool lc_flow_is_large(const LcFlow *flow);
extern TimestampTz lc_flow_day_start(text *tz, DateADT day);
extern DateADT lc_flow_day_of(text *tz, TimestampTz at, TimestampTz *start, TimestampTz *end);

/* ---- move.c: one move of a lead ---- */

/* What we keep on a lead's row. */
struct LcLead
{
	Datum		key;
	bool		key_isnull;
	Datum		status;
	bool		status_isnull;
	int			stage;
	TimestampTz since;
	bool		since_isnull;
	int32		seq;
	bool		seq_isnull;		/* the lead has not entered the program */
	float8		score;
	bool		score_isnull;
};

/* Who made a move and why, where somebody else than the row says so. */
typedef struct LcClaim
{
	text	   *actor;
	text	   *reason;
} LcClaim;

extern void lc_lead_read(LcProgram *program, TupleTableSlot *slot, LcLead *lead);
extern void lc_lead_set_move(LcLead *lead, int32 seq, TimestampTz at);
extern TimestampTz lc_moment(LcProgram *program, bool *is_set);
extern TimestampTz lc_time_of_move(LcProgram *program, Datum key, TimestampTz last);
extern TimestampTz lc_time_of_entry(LcProgram *program, TupleTableSlot *row, Datum key,
									const LcLastMove *last);
extern text *lc_actor(LcProgram *program, TupleTableSlot *row);
extern text *lc_reason(LcProgram *program, TupleTableSlot *row);
extern void lc_record_move(LcProgram *program, TupleTableSlot *row, const LcLead *lead,
						   LcLastMove *last, bool has_last, int to, int32 seq, TimestampTz at,
						   const char *cause, const char *rule, const LcClaim *claim);

/* ---- decision.c: what BEFORE ROW decided, until AFTER ROW records it ---- */

/* What made a move that is neither an entry nor a removal. */
typedef enum LcCause
{
	LC_BY_WRITE,
	LC_BY_RULE,
	LC_BY_RESCORE
} LcCause;

extern void lc_decision_begin_statement(int depth);
extern void lc_decision_end_statement(void);
extern void lc_decision_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent);
extern void lc_decision_end_transaction(void);
extern void lc_decision_note(LcProgram *program, const LcLead *lead, LcCause cause, const char *rule);
extern void lc_decision_note_row(HeapTuple tuple);
extern const char *lc_decision_take(LcProgram *program, const LcLead *lead, int32 seq,
									TupleTableSlot *row, const char **rule);

/* ---- behavior.c: the points that signals gave ---- */

/* The sums of points that a lead has, one for each half-life. */
typedef struct LcBehavior
{
	int			n;
	LcScore	   *sums;
	TimestampTz since;			/* signals dated at or before it do not count */
	bool		known;			/* there is a row */
} LcBehavior;

extern float8 lc_behavior_at(const LcBehavior *behavior, TimestampTz at);
extern void lc_behavior_add(LcBehavior *behavior, float8 half_life, float8 points, TimestampTz at);
extern float8 lc_behavior_of(LcProgram *program, Datum lead, TimestampTz moment);
extern float8 lc_behavior_score(LcProgram *program, Datum lead, TimestampTz moment);
extern LcBehavior *lc_behavior_read(LcProgram *program, Datum *leads, int n);
extern bool lc_behavior_write(LcProgram *program, Datum *leads, LcBehavior **behaviors, int n);
extern void lc_behavior_hold(LcProgram *program, Datum *leads, int n);
extern void lc_behavior_restart(LcProgram *program, Datum lead, TimestampTz at);

/* ---- signal.c, walk.c, effect.c: what signals mean for leads ---- */

/* A row of a signal table, as the table's rules see it. */
typedef struct LcSignalRow
{
	Datum		lead;
	bool		lead_isnull;
	TimestampTz at;
	LcSignalFacts facts;
	bool	   *keeps;			/* of each rule with a status: keeps others from firing */
} LcSignalRow;

typedef void (*LcSignalCallback) (LcProgram *signal, TupleTableSlot *slot, const LcSignalRow *row, void *arg);

extern void lc_signal_read(LcProgram *signal, TupleTableSlot *slot, bool may_go, TimestampTz latest,
						   LcSignalRow *row);
extern void lc_signal_walk(LcProgram *program, Oid signal_table, Datum lead, LcSignalCallback callback,
						   void *arg);
extern bool lc_signal_may_ask(const LcRule *rule, TimestampTz at, TimestampTz since, TimestampTz moment);
extern bool lc_signal_fires_unless_other(LcProgram *program, LcProgram *signal, const LcRule *rule,
										 Datum lead, TimestampTz since, TimestampTz moment);
extern void lc_signal_recompute(LcProgram *program, Datum lead, TimestampTz until,
								LcBehavior *behavior, LcBehavior *magnitude);
extern void lc_signal_restate(LcProgram *program, Datum lead, LcBehavior *behavior);
extern void lc_effect_move(LcProgram *program, Datum lead, const LcRule *rule);
extern void lc_signal_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent);
extern void lc_signal_end_transaction(void);

/* ---- arrival.c: a lead and its signals that arrive at once ---- */

extern bool lc_arrival_await_points(LcProgram *program, Datum lead);
extern bool lc_arrival_hold(LcProgram *program, Datum *leads, int n, TransactionId *xid);
extern bool lc_arrival_attempt(bool (*attempt) (void *arg), void *arg);

/* ---- standing.c: points made anew, and signals that ask for a status still ---- */

extern const LcRule *lc_signal_standing(LcProgram *program, Datum lead, int from, TimestampTz moment);
extern const LcRule *lc_standing(LcProgram *program, TupleTableSlot *row, Datum lead, float8 score,
								 int from, TimestampTz moment);

/* ---- operation.c: what owners do to leads beside writing them ---- */

extern LcProgram *lc_operation_program(FunctionCallInfo fcinfo, int nargs, const char *names);
extern Datum lc_operation_key(FunctionCallInfo fcinfo, int argno, LcProgram *program);
extern char *lc_operation_is_lead(LcProgram *program, Oid relid);
extern uint64 lc_operation_execute(LcProgram *program, const char *sql, int nargs, Oid *types,
								   Datum *values, bool latest);
extern void lc_operation_no_lead(LcProgram *program, Datum key);

/* ---- record.c: what a lead's row and its history owe each other ---- */

extern void lc_reject_interference(LcProgram *program, Relation rel, const LcLead *lead, const char *detail);
extern void lc_check_stored(LcProgram *program, Relation rel, const LcLead *lead, const LcLastMove *last);
extern void lc_record_entry(LcProgram *program, Relation rel, TupleTableSlot *row, const LcLead *stored,
							bool is_current);
extern void lc_decide_entry(LcProgram *program, TupleTableSlot *row, LcLead *lead);
extern void lc_record_correction(LcProgram *program, TupleTableSlot *row, const LcLead *lead,
								 LcLastMove *last, const char *reason);
extern void lc_catch_up(LcProgram *program, Relation rel, TupleTableSlot *row, const LcLead *lead,
						LcLastMove *last);
extern void lc_require_reason(LcProgram *program, Relation rel, TupleTableSlot *row, Datum key, int stage);

#endif							/* LIFECYCLE_H */
