/*-------------------------------------------------------------------------
 *
 * decision.c
 *	  What BEFORE ROW decided, until AFTER ROW records it: whether a person or
 *	  a rule moved the lead, and which rule.
 *
 * The row itself has no place for it.  So each decision is noted, in the order
 * in which rows are written, and taken up in the order in which they are
 * recorded, which is the same: the one that is looked for is the next, or comes
 * soon after notes of rows that were not stored in the end.  A note of 16 bytes
 * suffices for that; a statement of ten million leads has ten million of them.
 *
 * Statements that triggers run have a section of notes of their own, which ends
 * with them, so that they do not get in between.  Programs without rules that
 * move leads need no notes.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "port/pg_crc32c.h"
#include "utils/datum.h"
#include "utils/memutils.h"

typedef struct Note
{
	uint32		lead;			/* hash of program and key */
	int32		seq;
	uint32		rule : 24;		/* its name, from 1; 0: none */
	uint32		cause : 2;
	uint32		stage : 6;		/* where to */
	uint32		row;			/* hash of the row that is inserted, else 0 */
} Note;

/*
 * The notes of the statements that run at one depth of triggers.  Several may,
 * as MERGE and writable CTEs show, and end in any order: the notes go with the
 * last.  The first section is that of rows which no statement trigger announced.
 */
typedef struct Section
{
	Size		begin;			/* where those of the outer section end */
	Size		next;			/* the note that is probably asked for next */
	int			depth;
	int			statements;
	SubTransactionId owner;
} Section;

/* All of it is in the transaction's memory. */
static Note *notes = NULL;
static Size nnotes = 0;
static Size notes_room = 0;
static Section *sections = NULL;
static int	nsections = 0;
static int	sections_room = 0;
static char **names = NULL;
static int	nnames = 0;
static int	names_room = 0;

/* Of which programs there are notes: bit n for those whose id is n modulo 64. */
static uint64 noted = 0;

/* The rule that was named last: statements name the same few. */
static const char *last_named = NULL;
static uint32 last_name = 0;

/* How far to look for a better note when a row was stored otherwise than noted. */
#define LOOK_AHEAD 64

static const char *const causes[] = {"write", "rule", "rescore"};

static void
push_section(int depth, int statements, SubTransactionId owner)
{
	Section    *section;

	if (nsections == sections_room)
	{
		sections_room = Max(8, sections_room * 2);
		sections = sections == NULL ?
			MemoryContextAlloc(TopTransactionContext, sections_room * sizeof(Section)) :
			repalloc(sections, sections_room * sizeof(Section));
	}
	section = &sections[nsections++];
	section->begin = section->next = nnotes;
	section->depth = depth;
	section->statements = statements;
	section->owner = owner;
}

static void
pop_section(void)
{
	nnotes = sections[--nsections].begin;
}

/*
 * A statement begins, at that depth of triggers.
 */
void
lc_decision_begin_statement(int depth)
{
	SubTransactionId owner = GetCurrentSubTransactionId();

	if (nsections == 0)
		push_section(-1, 1, TopSubTransactionId);
	if (sections[nsections - 1].depth == depth && sections[nsections - 1].owner == owner)
		sections[nsections - 1].statements++;
	else
		push_section(depth, 1, owner);
}

void
lc_decision_end_statement(void)
{
	if (nsections > 1 && --sections[nsections - 1].statements == 0)
		pop_section();
}

/*
 * A subtransaction ended.  Statements that it began and did not end were
 * aborted with it.
 */
void
lc_decision_end_subtransaction(bool commit, SubTransactionId mine, SubTransactionId parent)
{
	for (int s = nsections - 1; s > 0 && sections[s].owner == mine; s--)
	{
		if (commit)
			sections[s].owner = parent;
		else
			pop_section();
	}
}

void
lc_decision_end_transaction(void)
{
	notes = NULL;
	nnotes = notes_room = 0;
	sections = NULL;
	nsections = sections_room = 0;
	names = NULL;
	nnames = names_room = 0;
	noted = 0;
	last_named = NULL;
}

/* The number of a name: a rule may be changed before the move is recorded. */
static uint32
number_of(const char *name)
{
	if (last_named != NULL && strcmp(last_named, name) == 0)
		return last_name;
	for (last_name = 1; last_name <= nnames; last_name++)
	{
		if (strcmp(names[last_name - 1], name) == 0)
			break;
	}
	if (last_name > nnames)
	{
		if (nnames == names_room)
		{
			names_room = Max(16, names_room * 2);
			names = names == NULL ?
				MemoryContextAlloc(TopTransactionContext, names_room * sizeof(char *)) :
				repalloc(names, names_room * sizeof(char *));
		}
		names[nnames++] = MemoryContextStrdup(TopTransactionContext, name);
	}
	last_named = names[last_name - 1];
	return last_name;
}

/*
 * A key as it comes from the row that is written and from the row that was
 * stored: the same value, be its length word short or long.
 */
static uint32
hash_of(LcProgram *program, Datum lead)
{
	uint32		hash;

	if (program->key_by_value)
		hash = hash_bytes((unsigned char *) &lead, sizeof(Datum));
	else if (program->key_length == -1)
	{
		struct varlena *v = PG_DETOAST_DATUM_PACKED(lead);

		hash = hash_bytes((unsigned char *) VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
	}
	else
		hash = hash_bytes((unsigned char *) DatumGetPointer(lead),
						  datumGetSize(lead, false, program->key_length));
	return hash ^ (uint32) program->id * 0x9e3779b1;
}

/*
 * The move that the row of the lead is about to make was decided by the rule,
 * or, without one, by who wrote it.
 */
void
lc_decision_note(LcProgram *program, const LcLead *lead, LcCause cause, const char *rule)
{
	Note	   *note;

	if (nsections == 0)
		push_section(-1, 1, TopSubTransactionId);
	if (nnotes == notes_room)
	{
		notes_room = Max(64, notes_room * 2);
		notes = notes == NULL ?
			MemoryContextAlloc(TopTransactionContext, notes_room * sizeof(Note)) :
			repalloc_huge(notes, notes_room * sizeof(Note));
	}
	noted |= UINT64CONST(1) << (program->id & 63);
	note = &notes[nnotes++];
	note->lead = hash_of(program, lead->key);
	note->seq = lead->seq;
	note->stage = lead->stage;
	note->row = 0;
	note->cause = cause;
	note->rule = rule != NULL ? number_of(rule) : 0;
}

static uint32
hash_of_row(HeapTuple tuple)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, (char *) tuple->t_data + SizeofHeapTupleHeader,
				tuple->t_len - SizeofHeapTupleHeader);
	FIN_CRC32C(crc);
	return crc;
}

/*
 * The row as it goes on to be stored, which the last note is about.
 */
void
lc_decision_note_row(HeapTuple tuple)
{
	Assert(nnotes > 0);
	notes[nnotes - 1].row = hash_of_row(tuple);
}

/* Whether the note is of such a move. */
static inline bool
is_of(const Note *note, uint32 lead, int32 seq, int stage)
{
	return note->lead == lead && note->seq == seq && note->stage == stage;
}

/*
 * Of the notes of such a move, the first of which is at "at", the one that is
 * about this very row; the first where none near by is.
 */
static Size
note_of_row(Size at, Size end, TupleTableSlot *row)
{
	const Note	first = notes[at];
	bool		should_free;
	HeapTuple	tuple;
	uint32		hash;

	/* a row is updated once in a statement, and not noted */
	if (first.row == 0)
		return at;
	tuple = ExecFetchSlotHeapTuple(row, false, &should_free);
	hash = hash_of_row(tuple);
	if (should_free)
		heap_freetuple(tuple);
	for (Size i = at; i < end && i < at + LOOK_AHEAD; i++)
	{
		if (notes[i].row == hash && is_of(&notes[i], first.lead, first.seq, first.stage))
			return i;
	}
	return at;
}

/*
 * What was decided about that move of the lead: its cause and its rule, or that
 * it was written.  Notes of the statement at hand come first, then those of the
 * statements around it.  Of two rows with one key, of which one was stored, the
 * row tells which it was, unless it was toasted or changed after our trigger.
 */
const char *
lc_decision_take(LcProgram *program, const LcLead *lead, int32 seq, TupleTableSlot *row,
				 const char **rule)
{
	Size		end = nnotes;
	uint32		hash;

	*rule = NULL;
	if (nnotes == 0 || (noted >> (program->id % 64) & 1) == 0)
		return causes[LC_BY_WRITE];
	hash = hash_of(program, lead->key);
	for (int s = nsections; s-- > 0;)
	{
		Section    *section = &sections[s];
		Size		n = end - section->begin;

		for (Size i = 0, at = section->next; i < n; i++, at++)
		{
			if (at >= end)
				at = section->begin;
			if (!is_of(&notes[at], hash, seq, lead->stage))
				continue;
			at = note_of_row(at, end, row);
			/* who asks again finds it at once */
			section->next = at;
			if (notes[at].rule != 0)
				*rule = names[notes[at].rule - 1];
			return causes[notes[at].cause];
		}
		end = section->begin;
	}
	return causes[LC_BY_WRITE];
}
