/*-------------------------------------------------------------------------
 *
 * history.c
 *	  The history of a program: append moves, look up the last one.
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
 *-------------------------------------------------------------------------
 */
#include "history.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

/* Rows and bytes collected before a frame is written in between. */
#define MAX_COLLECTED_ROWS 1000
#define MAX_COLLECTED_BYTES (256 * 1024)

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
	LcHistoryTable *table;
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

static LcHistoryTable *
frame_table(Frame *frame, LcProgram *program)
{
	if (frame->table == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(frame->cxt);

		frame->table = lc_history_table_open(program);
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
		lc_history_table_insert(frame->table, frame->slots, n);
		/* else it is counted on: the fewer rows, the longer the statement */
		if (frame->table->appender->has_triggers || lc_flow_is_large(frame->flow))
			write_flow(frame);
		frame->busy = false;
		forget_rows(frame);
	}
	else
	{
		/* keep the rows: this subtransaction may still abort */
		LcHistoryTable *h = lc_history_table_open_known(RelationGetRelid(frame->table->appender->rel),
											 frame->table->attno,
											 frame->table->appender->has_triggers,
											 frame->table->appender->has_constraints);

		frame->written_in = GetCurrentSubTransactionId();
		lc_history_table_insert(h, frame->slots, n);
		lc_flow_write(frame->flow);
		lc_history_table_close(h);
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
		lc_history_table_learn(program);
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
		lc_history_table_close(frame->table);
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
	LcHistoryTable *h;
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
		lc_history_table_learn(program);
	if (frame == NULL || !frame->collects || program->users_look)
	{
		write_collected();
		h = frame != NULL ? frame_table(frame, program) : lc_history_table_open(program);
		slot = table_slot_create(h->appender->rel, NULL);
		lc_history_table_fill(h, slot, move);
		if (frame != NULL)
			frame->busy = true;
		flow = lc_flow_begin(program);
		if (lc_count_flow)
			lc_flow_count(flow, program, move);
		lc_history_table_insert(h, &slot, 1);
		lc_flow_write(flow);
		lc_flow_clear(flow);
		ExecDropSingleTupleTableSlot(slot);
		if (frame != NULL)
			frame->busy = false;
		else
			lc_history_table_close(h);
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
	lc_history_table_fill(h, slot, move);
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

/* The same of a program, with all that this transaction collected. */
static bool
find(LcProgram *program, Datum lead, int32 seq, LcLastMove *last)
{
	Frame	   *frame = frame_of(program);
	LcHistoryTable *h;
	bool		found;

	if (frame == NULL)
	{
		write_collected();
		h = lc_history_table_open(program);
		found = lc_history_table_find(h, lead, seq, last);
		lc_history_table_close(h);
		return found;
	}
	h = frame_table(frame, program);
	/* backfill() asks for each lead once, before it collects its first move */
	if (frame->operation == LC_BACKFILL)
		return lc_history_table_find(h, lead, seq, last);
	if (seq == 0)
		write_frame(frame);
	found = lc_history_table_find(h, lead, seq, last);
	if (!found && frame->nrows > 0)
	{
		/* it may be among what this very statement collected */
		write_frame(frame);
		found = lc_history_table_find(h, lead, seq, last);
	}
	return found;
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
	{
		greatest->empty = !lc_history_table_greatest(frame_table(frame, program), program, frame->cxt, &greatest->lead);
		greatest->known = true;
	}
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
