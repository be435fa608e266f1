/*-------------------------------------------------------------------------
 *
 * history.c
 *	  The history of a program: append moves, look up the last one, keep
 *	  everybody else out.
 *
 * A move is written in the transaction, and as far as anybody can see in the
 * statement, that made it.  Writing it row by row is always right.  Batching
 * is an optimisation on top: the BEFORE STATEMENT trigger of the lead table
 * opens a frame, moves made under it are collected there, and the AFTER
 * STATEMENT trigger writes them with one multi-insert.
 *
 * What keeps batching exact:
 *
 * - A frame belongs to the subtransaction that opened it.  A move made in a
 *   deeper one is never collected in it.
 * - Before a frame is opened on top of others, before a move is written
 *   outside a frame, and before the history is asked for something that is
 *   not there, all that is collected is written, oldest first.  So the
 *   history is in the order of the moves, also when triggers write leads
 *   inside ours.
 * - Where that happens in a deeper subtransaction, what was written is kept
 *   until that subtransaction is known to have committed; if it aborts, it is
 *   again to be written.
 * - Where the lead table, or a partition of it, has AFTER triggers of its
 *   users, or the history has BEFORE ROW triggers or defaults of theirs,
 *   nothing is collected: they may look.
 * - Something left at commit is an error.
 *
 * Look-ups use SnapshotSelf: what is committed now, and all that this
 * transaction did, the running command included.  A transaction snapshot would
 * hide a move that was committed after it, under REPEATABLE READ until the
 * end.  Rows of a history do not change, so that there is nothing inconsistent
 * that such a scan could see.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(lifecycle_guard_history);

/* Rows and bytes collected before a frame is written in between. */
#define MAX_COLLECTED_ROWS 1000
#define MAX_COLLECTED_BYTES (256 * 1024)

/* Our columns of a history, in the order of LcMove. */
typedef enum HistoryColumn
{
	H_LEAD, H_SEQ, H_CYCLE, H_FROM_STATUS, H_FROM_SINCE, H_TO_STATUS, H_AT, H_CAUSE,
	H_RULE, H_ACTOR, H_SESSION_USER_NAME, H_REASON, H_DEMOGRAPHIC_SCORE, H_BEHAVIOR_SCORE,
	H_SOURCE, H_COHORT, H_VALUE, H_ENTERED_AT, H_CYCLE_SINCE, H_REACHED, H_RECORDED_AT
} HistoryColumn;

static const LcNeededColumn history_columns[LC_HISTORY_COLUMNS] =
{
	{"lead", InvalidOid}, {"seq", INT4OID}, {"cycle", INT4OID}, {"from_status", TEXTOID},
	{"from_since", TIMESTAMPTZOID}, {"to_status", TEXTOID}, {"at", TIMESTAMPTZOID},
	{"cause", TEXTOID}, {"rule", TEXTOID}, {"actor", TEXTOID}, {"session_user_name", TEXTOID},
	{"reason", TEXTOID}, {"demographic_score", FLOAT8OID}, {"behavior_score", FLOAT8OID},
	{"source", TEXTOID}, {"cohort", INT4OID}, {"value", NUMERICOID},
	{"entered_at", TIMESTAMPTZOID}, {"cycle_since", TIMESTAMPTZOID}, {"reached", TEXTARRAYOID},
	{"recorded_at", TIMESTAMPTZOID},
};

static const LcNeededColumn refused_columns[LC_REFUSED_COLUMNS] =
{
	{"lead", InvalidOid}, {"from_status", TEXTOID}, {"to_status", TEXTOID},
	{"at", TIMESTAMPTZOID}, {"actor", TEXTOID},
};

/* A history that is open. */
typedef struct HistoryTable
{
	LcAppender   *appender;
	AttrNumber	attno[LC_HISTORY_COLUMNS];
	Relation	pkey;
	IndexScanDesc scan;			/* on the primary key, opened at first look-up */
	ScanKeyData by_seq[2];
	ScanKeyData any_seq[2];
	TupleTableSlot *found;
	Datum		session_user_name;
} HistoryTable;

/* The greatest lead that a history has, as the order of its primary key goes. */
typedef struct Greatest
{
	bool		known;
	bool		empty;
	Datum		lead;
} Greatest;

/* The moves of one statement. */
typedef struct Frame
{
	struct Frame *outer;
	int32		program_id;
	LcOperation operation;
	char	   *reason;			/* of the operation */
	char	   *corrected;		/* key of the lead that a correction moves */
	int32		corrected_seq;	/* and the number of that move */
	bool		collects;
	bool		busy;			/* its rows are being inserted */
	SubTransactionId owner;
	SubTransactionId written_in;	/* deeper one that wrote what is collected */
	MemoryContext cxt;
	HistoryTable *table;
	Greatest	greatest[2];	/* when rows are decided, and when they are recorded */
	TupleTableSlot **slots;
	int			nslots;			/* slots made */
	int			nrows;			/* slots filled */
	Size		bytes;
	LcFlow	   *flow;			/* what the rows add to it */
} Frame;

static Frame *frames = NULL;

/* The operation that the next statement on a program's leads carries out. */
static struct
{
	int32		program_id;
	LcOperation operation;
	char	   *reason;			/* in the transaction's memory */
	SubTransactionId owner;
	int			trigger_depth;	/* at which our trigger will fire */
}			announced = {0};

/* Whether this transaction recorded a move ahead of its own AFTER trigger. */
static bool recorded_ahead = false;

static void write_collected(void);

/* ---- a history open for appending and looking up ---- */

/*
 * Where the columns are that we write, which must be of the types that we
 * write: the owner can change them by DDL.
 */
static void
find_columns(LcProgram *program, Relation rel, const LcNeededColumn *needed, int n, AttrNumber *attno)
{
	char	   *name = lc_table_name(RelationGetRelid(rel));

	for (int i = 0; i < n; i++)
	{
		Oid			type = OidIsValid(needed[i].type) ? needed[i].type : program->key_type;

		attno[i] = get_attnum(RelationGetRelid(rel), needed[i].name);
		if (attno[i] <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of table \"%s\" does not exist", needed[i].name, name),
					 errdetail("Lifecycle writes it for table \"%s\".", program->name),
					 errhint("Give the column its name back."),
					 errtable(rel)));
		if (TupleDescAttr(RelationGetDescr(rel), attno[i] - 1)->atttypid != type)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of table \"%s\" is not of type %s",
							needed[i].name, name, format_type_be(type)),
					 OidIsValid(needed[i].type) ?
					 errdetail("Lifecycle writes it for table \"%s\".", program->name) :
					 errdetail("It holds the keys of table \"%s\".", program->name),
					 errhint("ALTER TABLE %s ALTER COLUMN %s TYPE %s.", name,
							 quote_identifier(needed[i].name), format_type_be(type)),
					 errtable(rel)));
	}
}

/*
 * Find out once per program what its tables are like.  A change of any of them
 * makes the program stale.
 */
static void
learn_history(LcProgram *program)
{
	Relation	refused = try_table_open(program->refused, RowExclusiveLock);
	Relation	rel = try_table_open(program->history, RowExclusiveLock);
	Relation	flow = try_table_open(program->flow, RowExclusiveLock);
	Relation	leads;
	TriggerDesc *triggers;
	TupleConstr *constr;

	if (refused == NULL || rel == NULL || flow == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("history of table \"%s\" does not exist", program->name),
				 errhint("Call lifecycle.untrack() and lifecycle.track() to begin a new one.")));
	find_columns(program, rel, history_columns, LC_HISTORY_COLUMNS, program->history_attno);
	find_columns(program, refused, refused_columns, LC_REFUSED_COLUMNS, program->refused_attno);
	find_columns(program, flow, lc_flow_columns, LC_FLOW_COLUMNS, program->flow_attno);
	table_close(flow, NoLock);
	table_close(refused, NoLock);
	triggers = CopyTriggerDesc(rel->trigdesc);
	program->history_has_triggers = lc_has_users_triggers(triggers, false);
	constr = RelationGetDescr(rel)->constr;
	program->users_look =
		(program->history_has_triggers && triggers->trig_insert_before_row) ||
		(constr != NULL && constr->num_defval > 0);
	/* what we write satisfies the constraints that track() made */
	program->history_has_constraints = constr != NULL &&
		(constr->num_check > 0 || constr->has_generated_stored ||
		 RelationGetDescr(rel)->natts > LC_HISTORY_COLUMNS);
	table_close(rel, NoLock);

	leads = table_open(program->relid, NoLock);
	program->users_look = program->users_look || lc_has_users_triggers(CopyTriggerDesc(leads->trigdesc), true);
	table_close(leads, NoLock);
	lc_partition_learn(program);
	program->history_known = true;
}

/* Open a history that is known: in the current memory context. */
static HistoryTable *
open_known_history(Oid relid, const AttrNumber *attno, bool has_triggers, bool has_constraints)
{
	HistoryTable *h = palloc0(sizeof(HistoryTable));

	h->appender = lc_append_open(relid, has_triggers, has_constraints);
	memcpy(h->attno, attno, sizeof(h->attno));
	h->session_user_name = CStringGetTextDatum(GetUserNameFromId(GetSessionUserId(), false));
	return h;
}

static HistoryTable *
open_history(LcProgram *program)
{
	if (!program->history_known)
		learn_history(program);
	return open_known_history(program->history, program->history_attno,
							  program->history_has_triggers, program->history_has_constraints);
}

static void
close_history(HistoryTable *h)
{
	if (h->scan != NULL)
	{
		index_endscan(h->scan);
		index_close(h->pkey, NoLock);
		ExecDropSingleTupleTableSlot(h->found);
	}
	lc_append_close(h->appender);
	pfree(h);
}

/* Put a copy of the move into the slot. */
static void
fill_row(HistoryTable *h, TupleTableSlot *slot, const LcMove *move)
{
	const AttrNumber *a = h->attno;

	lc_append_prepare(h->appender, slot);
	lc_append_set(slot, a[H_LEAD], move->lead, false);
	lc_append_set(slot, a[H_SEQ], Int32GetDatum(move->seq), false);
	lc_append_set(slot, a[H_CYCLE], Int32GetDatum(move->cycle), false);
	lc_append_set_text(slot, a[H_FROM_STATUS], move->from_status);
	lc_append_set(slot, a[H_FROM_SINCE], TimestampTzGetDatum(move->from_since), move->from_status == NULL);
	lc_append_set_text(slot, a[H_TO_STATUS], move->to_status);
	lc_append_set(slot, a[H_AT], TimestampTzGetDatum(move->at), false);
	lc_append_set_text(slot, a[H_CAUSE], cstring_to_text(move->cause));
	lc_append_set_text(slot, a[H_RULE], move->rule ? cstring_to_text(move->rule) : NULL);
	lc_append_set_text(slot, a[H_ACTOR], move->actor);
	lc_append_set(slot, a[H_SESSION_USER_NAME], h->session_user_name, false);
	lc_append_set_text(slot, a[H_REASON], move->reason);
	lc_append_set(slot, a[H_DEMOGRAPHIC_SCORE], Float8GetDatum(move->demographic_score),
				  move->demographic_score_isnull);
	lc_append_set(slot, a[H_BEHAVIOR_SCORE], Float8GetDatum(move->behavior_score), false);
	lc_append_set(slot, a[H_SOURCE], move->source, move->source_isnull);
	lc_append_set(slot, a[H_COHORT], Int32GetDatum(move->cohort), move->cohort_isnull);
	lc_append_set(slot, a[H_VALUE], move->value, move->value_isnull);
	lc_append_set(slot, a[H_ENTERED_AT], TimestampTzGetDatum(move->entered_at), false);
	lc_append_set(slot, a[H_CYCLE_SINCE], TimestampTzGetDatum(move->cycle_since), false);
	lc_append_set(slot, a[H_REACHED], PointerGetDatum(move->reached), false);
	lc_append_set(slot, a[H_RECORDED_AT], TimestampTzGetDatum(GetCurrentTimestamp()), false);
	ExecStoreVirtualTuple(slot);
	/* the values may be in memory that the next evaluation reuses */
	ExecMaterializeSlot(slot);
}

/*
 * Insert into the history.  Two moves of one lead with one number can only
 * meet where another transaction entered and removed the same key while this
 * one waited for it: then this transaction has come too late, and may retry.
 */
static void
insert_moves(HistoryTable *h, TupleTableSlot **slots, int n)
{
	MemoryContext cxt = CurrentMemoryContext;

	PG_TRY();
	{
		lc_append_insert(h->appender, slots, n);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION || error->constraint_name == NULL ||
			h->appender->rel->rd_pkindex == InvalidOid ||
			strcmp(error->constraint_name, get_rel_name(h->appender->rel->rd_pkindex)) != 0)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent entry and removal of a lead"),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 errhint("The transaction might succeed if retried.")));
	}
	PG_END_TRY();
}

/* ---- frames ---- */

/*
 * The innermost frame of the program, where it is one of this subtransaction
 * and not itself in the middle of inserting; or NULL.
 */
static Frame *
frame_of(LcProgram *program)
{
	Frame	   *f = frames;

	while (f != NULL && f->program_id != program->id)
		f = f->outer;
	if (f == NULL || f->busy || f->owner != GetCurrentSubTransactionId())
		return NULL;
	return f;
}

static HistoryTable *
frame_table(Frame *frame, LcProgram *program)
{
	if (frame->table == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(frame->cxt);

		frame->table = open_history(program);
		MemoryContextSwitchTo(old);
	}
	return frame->table;
}

static void
forget_rows(Frame *frame)
{
	for (int i = 0; i < frame->nrows; i++)
		ExecClearTuple(frame->slots[i]);
	frame->nrows = 0;
	frame->bytes = 0;
	frame->written_in = InvalidSubTransactionId;
}

/* Add to the flow what the rows that were written came to. */
static void
write_flow(Frame *frame)
{
	if (frame->flow == NULL)
		return;
	lc_flow_write(frame->flow);
	lc_flow_clear(frame->flow);
}

/*
 * Write what the frame collected.  A trigger on the history that writes leads
 * comes back here: it finds the frame busy, and nothing left to write.
 */
static void
write_frame(Frame *frame)
{
	int			n = frame->nrows;

	if (n == 0 || frame->busy || frame->written_in != InvalidSubTransactionId)
		return;
	if (frame->owner == GetCurrentSubTransactionId())
	{
		frame->busy = true;
		insert_moves(frame->table, frame->slots, n);
		/* else it is counted on: the fewer rows, the longer the statement */
		if (frame->table->appender->has_triggers || lc_flow_is_large(frame->flow))
			write_flow(frame);
		frame->busy = false;
		forget_rows(frame);
	}
	else
	{
		/* keep the rows: this subtransaction may still abort */
		HistoryTable *h = open_known_history(RelationGetRelid(frame->table->appender->rel),
											 frame->table->attno,
											 frame->table->appender->has_triggers,
											 frame->table->appender->has_constraints);

		frame->written_in = GetCurrentSubTransactionId();
		insert_moves(h, frame->slots, n);
		lc_flow_write(frame->flow);
		close_history(h);
	}
}

static void
write_frames_from(Frame *frame)
{
	if (frame == NULL)
		return;
	write_frames_from(frame->outer);
	write_frame(frame);
}

/* Write all that is collected anywhere, oldest first. */
static void
write_collected(void)
{
	write_frames_from(frames);
}

static void
drop_frame(Frame *frame)
{
	Frame	  **link = &frames;

	while (*link != frame)
		link = &(*link)->outer;
	*link = frame->outer;
	MemoryContextDelete(frame->cxt);
}

/* How many triggers we are inside of. */
int
lc_trigger_depth(void)
{
	return DatumGetInt32(OidFunctionCall0(F_PG_TRIGGER_DEPTH));
}

/*
 * A statement on the lead table begins.  One query may begin several before
 * the first ends, as MERGE does, and writable CTEs over several tables; each
 * has its frame, and which of them takes a move does not matter.
 */
void
lc_history_begin_statement(LcProgram *program)
{
	MemoryContext cxt;
	Frame	   *frame;

	write_collected();
	if (!program->history_known)
		learn_history(program);
	cxt = AllocSetContextCreate(TopTransactionContext, "lifecycle statement", ALLOCSET_SMALL_SIZES);
	frame = MemoryContextAllocZero(cxt, sizeof(Frame));
	frame->cxt = cxt;
	frame->program_id = program->id;
	frame->owner = GetCurrentSubTransactionId();
	frame->written_in = InvalidSubTransactionId;
	frame->collects = lc_batch_history && !program->users_look;
	/* a trigger of a user that fires before ours may write leads: not this one */
	if (announced.program_id == program->id && announced.owner == frame->owner &&
		announced.trigger_depth == lc_trigger_depth())
	{
		frame->operation = announced.operation;
		frame->reason = announced.reason;
		announced.program_id = 0;
	}
	frame->outer = frames;
	frames = frame;
}

/*
 * The next statement of this subtransaction on the program's leads is ours: it
 * is no write of a user, nor are the statements that triggers run inside it
 * part of it.
 */
void
lc_history_announce(LcProgram *program, LcOperation operation, const char *reason)
{
	announced.reason = reason ? MemoryContextStrdup(TopTransactionContext, reason) : NULL;
	announced.program_id = program->id;
	announced.operation = operation;
	announced.owner = GetCurrentSubTransactionId();
	announced.trigger_depth = lc_trigger_depth() + 1;
}

/*
 * The correction that is being carried out makes that move of the lead.
 */
void
lc_history_note_correction(LcProgram *program, Datum lead, int32 seq)
{
	Frame	   *f = frames;

	while (f != NULL && f->program_id != program->id)
		f = f->outer;
	if (f == NULL)
		return;
	f->corrected = MemoryContextStrdup(f->cxt, lc_program_key_text(program, lead, false));
	f->corrected_seq = seq;
}

/*
 * Whether a move that waits to be recorded is a correction, and the reason
 * given for it.  The statement that makes it is one of those that are running.
 */
bool
lc_history_is_correction(LcProgram *program, Datum lead, int32 seq, const char **reason)
{
	for (Frame *f = frames; f != NULL; f = f->outer)
	{
		if (f->program_id == program->id && f->corrected != NULL && f->corrected_seq == seq &&
			strcmp(f->corrected, lc_program_key_text(program, lead, false)) == 0)
		{
			*reason = f->reason;
			return true;
		}
	}
	return false;
}

/*
 * Whether a statement that writes the program's leads is running: moves of
 * theirs may wait to be recorded.
 */
bool
lc_history_in_statement(LcProgram *program)
{
	for (Frame *f = frames; f != NULL; f = f->outer)
	{
		if (f->program_id == program->id)
			return true;
	}
	return false;
}

/*
 * What the statement is that writes the program's leads right here, and the
 * reason given for it.
 */
LcOperation
lc_history_operation(LcProgram *program, const char **reason)
{
	Frame	   *f = frames;

	while (f != NULL && f->program_id != program->id)
		f = f->outer;
	if (f == NULL || f->owner != GetCurrentSubTransactionId())
		return LC_WRITE;
	if (reason != NULL)
		*reason = f->reason;
	return f->operation;
}

/*
 * A statement on the lead table ends: write what was collected.
 */
void
lc_history_end_statement(LcProgram *program)
{
	Frame	   *frame = frame_of(program);

	if (frame == NULL)
		return;
	write_collected();
	frame->busy = true;
	write_flow(frame);
	frame->busy = false;
	if (frame->table != NULL)
	{
		for (int i = 0; i < frame->nslots; i++)
			ExecDropSingleTupleTableSlot(frame->slots[i]);
		close_history(frame->table);
	}
	drop_frame(frame);
}

/*
 * A subtransaction ends.  Aborted, it takes its frames with it, and what it
 * wrote for outer ones is to be written again.  Committed, what it wrote for
 * outer ones counts for its parent.
 */
void
lc_history_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent)
{
	if (announced.owner == mine)
		announced.program_id = 0;
	lc_append_end_subtransaction(commit, mine, parent);
	while (!commit && frames != NULL && frames->owner == mine)
		drop_frame(frames);
	for (Frame *f = frames; f != NULL; f = f->outer)
	{
		if (commit && f->owner == mine)
			f->owner = parent;
		if (f->written_in == mine)
		{
			f->written_in = commit ? parent : InvalidSubTransactionId;
			if (f->written_in == f->owner)
			{
				forget_rows(f);
				lc_flow_clear(f->flow);
			}
		}
	}
}

/*
 * The transaction is about to commit, or has aborted.
 */
void
lc_history_end_transaction(bool commit)
{
	lc_append_end_subtransaction(false, InvalidSubTransactionId, InvalidSubTransactionId);
	announced.program_id = 0;
	recorded_ahead = false;
	if (commit && frames != NULL)
	{
		for (Frame *f = frames; f != NULL; f = f->outer)
		{
			if ((f->nrows > 0 || (f->flow != NULL && lc_flow_is_counting(f->flow))) &&
				f->written_in == InvalidSubTransactionId)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("moves of leads were not written to their history"),
						 errdetail("The AFTER STATEMENT trigger of lifecycle did not fire."),
						 errhint("See lifecycle.verify() for what is wrong with the triggers of the table.")));
		}
	}
	/* the frames' memory goes with the transaction */
	frames = NULL;
}

/* ---- append and look up ---- */

/*
 * Record a move.
 */
void
lc_history_append(LcProgram *program, const LcMove *move)
{
	Frame	   *frame = frame_of(program);
	HistoryTable *h;
	TupleTableSlot *slot;
	LcFlow	   *flow;

	if (lc_append_is_firing())
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a lead of table \"%s\" cannot move while a BEFORE trigger of a history fires",
						program->name),
				 errdetail("The move that the trigger fires for is not recorded yet."),
				 errhint("Write leads in an AFTER trigger.")));
	if (!program->history_known)
		learn_history(program);
	if (frame == NULL || !frame->collects || program->users_look)
	{
		write_collected();
		h = frame != NULL ? frame_table(frame, program) : open_history(program);
		slot = table_slot_create(h->appender->rel, NULL);
		fill_row(h, slot, move);
		if (frame != NULL)
			frame->busy = true;
		flow = lc_flow_begin(program);
		if (lc_count_flow)
			lc_flow_count(flow, program, move);
		insert_moves(h, &slot, 1);
		lc_flow_write(flow);
		lc_flow_clear(flow);
		ExecDropSingleTupleTableSlot(slot);
		if (frame != NULL)
			frame->busy = false;
		else
			close_history(h);
		return;
	}

	h = frame_table(frame, program);
	if (frame->nrows == MAX_COLLECTED_ROWS || frame->bytes > MAX_COLLECTED_BYTES)
		write_frame(frame);
	if (frame->nrows == frame->nslots)
	{
		MemoryContext old = MemoryContextSwitchTo(frame->cxt);

		if (frame->slots == NULL)
			frame->slots = palloc(MAX_COLLECTED_ROWS * sizeof(TupleTableSlot *));
		frame->slots[frame->nslots++] = table_slot_create(h->appender->rel, NULL);
		MemoryContextSwitchTo(old);
	}
	slot = frame->slots[frame->nrows];
	fill_row(h, slot, move);
	if (frame->flow == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(frame->cxt);

		frame->flow = lc_flow_begin(program);
		MemoryContextSwitchTo(old);
	}
	if (lc_count_flow)
		lc_flow_count(frame->flow, program, move);
	frame->nrows++;
	if (TTS_IS_BUFFERTUPLE(slot))
		frame->bytes += ((BufferHeapTupleTableSlot *) slot)->base.tuple->t_len;
}

/* Copy out of the slot what the next move needs. */
static void
read_last(HistoryTable *h, TupleTableSlot *slot, LcLastMove *last)
{
	const AttrNumber *a = h->attno;
	bool		isnull;
	Datum		d;

	last->own = TransactionIdIsCurrentTransactionId(
		DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull)));
	d = slot_getattr(slot, a[H_CAUSE], &isnull);
	last->correction = strcmp(TextDatumGetCString(d), "correction") == 0;
	last->backfill = strcmp(TextDatumGetCString(d), "backfill") == 0;
	last->seq = DatumGetInt32(slot_getattr(slot, a[H_SEQ], &isnull));
	last->cycle = DatumGetInt32(slot_getattr(slot, a[H_CYCLE], &isnull));
	d = slot_getattr(slot, a[H_FROM_STATUS], &isnull);
	last->from_status = isnull ? NULL : DatumGetTextPCopy(d);
	d = slot_getattr(slot, a[H_TO_STATUS], &isnull);
	last->to_status = isnull ? NULL : DatumGetTextPCopy(d);
	last->at = DatumGetTimestampTz(slot_getattr(slot, a[H_AT], &isnull));
	d = slot_getattr(slot, a[H_SOURCE], &last->source_isnull);
	last->source = last->source_isnull ? (Datum) 0 : PointerGetDatum(DatumGetTextPCopy(d));
	last->cohort = DatumGetInt32(slot_getattr(slot, a[H_COHORT], &last->cohort_isnull));
	last->entered_at = DatumGetTimestampTz(slot_getattr(slot, a[H_ENTERED_AT], &isnull));
	last->cycle_since = DatumGetTimestampTz(slot_getattr(slot, a[H_CYCLE_SINCE], &isnull));
	last->reached = DatumGetArrayTypePCopy(slot_getattr(slot, a[H_REACHED], &isnull));
	last->recorded = last->reached;
}

/*
 * Open the scan by which moves are found: on the primary key, for one lead and
 * one number, or for one lead and any number.
 */
static void
open_scan(HistoryTable *h)
{
	Relation	rel = h->appender->rel;
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(h));
	Oid			family;
	Oid			type;
	Oid			equal;

	list_free(RelationGetIndexList(rel));
	if (OidIsValid(rel->rd_pkindex))
		h->pkey = index_open(rel->rd_pkindex, AccessShareLock);
	if (h->pkey == NULL || h->pkey->rd_index->indnkeyatts != 2 ||
		h->pkey->rd_index->indkey.values[0] != h->attno[H_LEAD] ||
		h->pkey->rd_index->indkey.values[1] != h->attno[H_SEQ])
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("history \"%s\" has no primary key (lead, seq)", RelationGetRelationName(rel)),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (lead, seq).",
						 lc_table_name(RelationGetRelid(rel))),
				 errtable(rel)));
	family = h->pkey->rd_opfamily[0];
	type = h->pkey->rd_opcintype[0];
	equal = get_opfamily_member(family, type, type, BTEqualStrategyNumber);
	ScanKeyEntryInitialize(&h->by_seq[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   h->pkey->rd_indcollation[0], get_opcode(equal), (Datum) 0);
	h->any_seq[0] = h->by_seq[0];
	ScanKeyInit(&h->by_seq[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(0));
	ScanKeyInit(&h->any_seq[1], 2, BTGreaterStrategyNumber, F_INT4GT, Int32GetDatum(0));
	h->scan = lc_index_beginscan(rel, h->pkey, SnapshotSelf, 2);
	h->found = table_slot_create(rel, NULL);
	MemoryContextSwitchTo(old);
}

/* Find the lead's move with that number, or, for 0, its last one. */
static bool
find_in(HistoryTable *h, Datum lead, int32 seq, LcLastMove *last)
{
	ScanKey		keys;
	bool		found;
	MemoryContext old;

	if (h->scan == NULL)
		open_scan(h);
	/* what the scan remembers between calls must live as long as the scan */
	old = MemoryContextSwitchTo(GetMemoryChunkContext(h));
	keys = seq > 0 ? h->by_seq : h->any_seq;
	keys[0].sk_argument = lead;
	if (seq > 0)
		keys[1].sk_argument = Int32GetDatum(seq);
	index_rescan(h->scan, keys, 2, NULL, 0);
	found = index_getnext_slot(h->scan, seq > 0 ? ForwardScanDirection : BackwardScanDirection,
							   h->found);
	MemoryContextSwitchTo(old);
	if (found)
		read_last(h, h->found, last);
	ExecClearTuple(h->found);
	return found;
}

static bool
find(LcProgram *program, Datum lead, int32 seq, LcLastMove *last)
{
	Frame	   *frame = frame_of(program);
	HistoryTable *h;
	bool		found;

	if (frame == NULL)
	{
		write_collected();
		h = open_history(program);
		found = find_in(h, lead, seq, last);
		close_history(h);
		return found;
	}
	h = frame_table(frame, program);
	/* backfill() asks for each lead once, before it collects its first move */
	if (frame->operation == LC_BACKFILL)
		return find_in(h, lead, seq, last);
	if (seq == 0)
		write_frame(frame);
	found = find_in(h, lead, seq, last);
	if (!found && frame->nrows > 0)
	{
		/* it may be among what this very statement collected */
		write_frame(frame);
		found = find_in(h, lead, seq, last);
	}
	return found;
}

/*
 * Read the greatest lead of the history.  What is dead or not committed counts,
 * so that none can be greater.
 */
static void
read_greatest(Frame *frame, LcProgram *program, Greatest *greatest)
{
	HistoryTable *h = frame_table(frame, program);
	MemoryContext old;
	IndexScanDesc scan;

	if (h->scan == NULL)
		open_scan(h);
	scan = lc_index_beginscan(h->appender->rel, h->pkey, SnapshotAny, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	greatest->empty = !index_getnext_slot(scan, BackwardScanDirection, h->found);
	if (!greatest->empty)
	{
		bool		isnull;

		old = MemoryContextSwitchTo(frame->cxt);
		greatest->lead = datumCopy(slot_getattr(h->found, h->attno[H_LEAD], &isnull),
								   program->key_by_value, program->key_length);
		MemoryContextSwitchTo(old);
	}
	ExecClearTuple(h->found);
	index_endscan(scan);
	greatest->known = true;
}

/*
 * Whether a lead that is being inserted comes after all that the history has,
 * so that nobody needs to look there for it; asked once when its row is decided
 * ("stored" is false) and once when its entry is recorded.
 *
 * Others may record a greater lead after the first look of this statement.  But
 * a row that is stored keeps its key from them: so by the time that the first
 * entry is recorded, when all rows of the statement are stored, nobody else can
 * have, or get, moves of these leads that the second look does not see.  What
 * this transaction itself recorded out of turn makes the answer no.
 */
bool
lc_history_is_beyond(LcProgram *program, Datum lead, bool stored)
{
	Frame	   *frame = frame_of(program);
	Greatest   *greatest;

	if (frame == NULL || !frame->collects || frame->operation != LC_WRITE || recorded_ahead ||
		(frame->table != NULL && frame->table->appender->has_triggers))
		return false;
	greatest = &frame->greatest[stored ? 1 : 0];
	if (!greatest->known)
		read_greatest(frame, program, greatest);
	if ((frame->table->pkey->rd_indoption[0] & INDOPTION_DESC) != 0)
		return false;
	return greatest->empty ||
		DatumGetInt32(FunctionCall2Coll(index_getprocinfo(frame->table->pkey, 1, BTORDER_PROC),
										frame->table->pkey->rd_indcollation[0],
										lead, greatest->lead)) > 0;
}

/*
 * The lead's last move, as of now.
 */
bool
lc_history_last(LcProgram *program, Datum lead, LcLastMove *last)
{
	return find(program, lead, 0, last);
}

/*
 * The lead's move of that number, as of now.
 */
bool
lc_history_get(LcProgram *program, Datum lead, int32 seq, LcLastMove *last)
{
	return seq > 0 && find(program, lead, seq, last);
}

/*
 * What the lead has reached when the visit that the given move opened is void,
 * as are those that corrections closed: folded anew from all its moves.
 */
ArrayType *
lc_history_reached(LcProgram *program, Datum lead, int32 voided)
{
	ArrayType  *reached = NULL;
	int32		cycle = 0;
	LcLastMove	move;
	LcLastMove	next;
	bool		found = lc_history_get(program, lead, 1, &move);

	for (int32 seq = 1; found && seq < voided; seq++)
	{
		found = lc_history_get(program, lead, seq + 1, &next);
		if (move.to_status != NULL && found && !next.correction)
		{
			reached = reached == NULL ? lc_reached_of(move.to_status) :
				lc_reached_add(reached, move.to_status, move.cycle != cycle);
			cycle = move.cycle;
		}
		move = next;
	}
	/* nothing of the running cycle counts: all that is there is of earlier ones */
	if (reached != NULL && found && cycle != move.cycle)
		reached = lc_reached_add(reached, NULL, true);
	return reached;
}

/*
 * When the lead last began anew, as far as signals are concerned, at or before
 * that time: it left the path for a status that says so, or the program.
 */
TimestampTz
lc_history_restart(LcProgram *program, Datum lead, TimestampTz until)
{
	const LcModel *model = program->model;
	TimestampTz restart = DT_NOBEGIN;
	int			from = LC_NO_STAGE;
	LcLastMove	move;

	for (int32 seq = 1; lc_history_get(program, lead, seq, &move) && move.at <= until; seq++)
	{
		int			to = move.to_status == NULL ? LC_NO_STAGE :
			lc_model_stage(model, VARDATA_ANY(move.to_status), VARSIZE_ANY_EXHDR(move.to_status));

		if (move.to_status == NULL ||
			(!move.correction && from >= 0 && to >= 0 && model->stages[from].rank > 0 &&
			 model->stages[to].rank == 0 && model->stages[to].resets_behavior))
			restart = move.at;
		from = to;
	}
	return restart;
}

/*
 * A move is recorded before the AFTER trigger that is due to record it.
 */
void
lc_history_note_ahead(void)
{
	recorded_ahead = true;
}

/*
 * Whether the move, or the removal, that an AFTER trigger is about to record is
 * there already.
 */
bool
lc_history_has_ahead(LcProgram *program, Datum lead, int32 seq, bool removal)
{
	LcLastMove	move;

	return recorded_ahead && lc_history_get(program, lead, seq, &move) && move.own &&
		(move.to_status == NULL) == removal;
}

/*
 * Record a move that was not let through.
 */
void
lc_history_refuse(LcProgram *program, Datum lead, const char *from_status,
				  const char *to_status, TimestampTz at, text *actor)
{
	const AttrNumber *attno = program->refused_attno;
	LcAppender   *a;
	TupleTableSlot *slot;
	Relation	rel;

	if (!program->history_known)
		learn_history(program);
	rel = table_open(program->refused, RowExclusiveLock);
	a = lc_append_open(program->refused, lc_has_users_triggers(CopyTriggerDesc(rel->trigdesc), false), true);
	table_close(rel, NoLock);
	slot = table_slot_create(a->rel, NULL);
	lc_append_prepare(a, slot);
	lc_append_set(slot, attno[0], lead, false);
	lc_append_set_text(slot, attno[1], from_status ? cstring_to_text(from_status) : NULL);
	lc_append_set_text(slot, attno[2], to_status ? cstring_to_text(to_status) : NULL);
	lc_append_set(slot, attno[3], TimestampTzGetDatum(at), false);
	lc_append_set_text(slot, attno[4], actor);
	ExecStoreVirtualTuple(slot);
	lc_append_insert(a, &slot, 1);
	ExecDropSingleTupleTableSlot(slot);
	lc_append_close(a);
}

/* ---- the guard ---- */

/*
 * BEFORE STATEMENT trigger of a history: nobody writes it but we, and we do not
 * fire it.  Its owner can take the guard off, by DDL; by no ordinary write.
 */
Datum
lifecycle_guard_history(PG_FUNCTION_ARGS)
{
	Relation	rel;

	lc_require_trigger(fcinfo, "guard_history");
	rel = ((TriggerData *) fcinfo->context)->tg_relation;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("history \"%s\" cannot be written", RelationGetRelationName(rel)),
			 errdetail("A move is recorded by the statement that makes it, and stays."),
			 errhint("Change the status of the lead instead."),
			 errtable(rel)));
	return PointerGetDatum(NULL);
}
