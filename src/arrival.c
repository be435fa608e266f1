/*-------------------------------------------------------------------------
 *
 * arrival.c
 *	  A lead and its signals that arrive at once, in two transactions.
 *
 * A signal whose lead is not there leaves its points for the lead to find; a
 * lead that enters looks for points.  As neither sees what the other has not
 * committed, each looks for what is in progress, with a dirty snapshot, and
 * after its own write as well as before it.  Then at least one of two sees the
 * other:
 *
 * - A lead waits for points of its key before it is stored (whoever writes the
 *   points may well store the lead himself), and again after, and is judged
 *   with what came.
 * - A signal waits for a lead that is being stored, and starts over.  It holds
 *   the lead's row of points in a subtransaction, looks once more, and, should a
 *   lead have come in between, takes back what it holds before it waits: so a
 *   lead and a signal never wait for each other.  A batch gives back the leads
 *   that it holds, too, since it will want them in the order of the key.
 *
 * Who already holds the points of a key does not wait for its lead: the lead
 * waits for him.
 *
 * One deadlock is left, which the server resolves: a lead was found free of
 * signals, and before it could be stored somebody brought one, and then stores
 * the same lead himself.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/executor.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* A table that is open for looking for a key in it, whoever stored it. */
typedef struct DirtyScan
{
	LcKeyScan	by;
	SnapshotData dirty;
} DirtyScan;

/* What was found of a key. */
typedef struct Found
{
	bool		any;			/* a row, stored by whomever */
	bool		ours;			/* one that this transaction wrote or holds */
	TransactionId other;		/* whose insertion of one is in progress */
	TransactionId holder;		/* who writes or holds one */
} Found;

static bool
open_scan(DirtyScan *s, Oid relid, AttrNumber key, int columns)
{
	InitDirtySnapshot(s->dirty);
	return lc_key_scan_begin(&s->by, relid, key, columns, AccessShareLock, &s->dirty);
}

/* Note whose transaction it is, if it is not over. */
static void
note_holder(Found *found, TransactionId xid)
{
	if (TransactionIdIsCurrentTransactionId(xid))
		found->ours = true;
	else if (TransactionIdIsInProgress(xid))
		found->holder = xid;
}

/*
 * Look for rows of the key; who locks one counts as who writes it, where asked.
 */
static void
look(DirtyScan *s, Datum key, bool holders, Found *found)
{
	memset(found, 0, sizeof(Found));
	lc_key_scan_find(&s->by, key);
	while (lc_key_scan_next(&s->by))
	{
		HeapTuple	tuple;
		HeapTupleHeader header;
		bool		should_free;

		found->any = true;
		if (TransactionIdIsValid(s->dirty.xmin))
		{
			found->other = s->dirty.xmin;
			continue;
		}
		if (!holders)
			continue;
		tuple = ExecFetchSlotHeapTuple(s->by.slot, false, &should_free);
		header = tuple->t_data;
		if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(header)))
			found->ours = true;
		if (header->t_infomask & HEAP_XMAX_INVALID)
			 /* nobody */ ;
		else if (header->t_infomask & HEAP_XMAX_IS_MULTI)
		{
			MultiXactMember *members;
			int			n = GetMultiXactIdMembers(HeapTupleHeaderGetRawXmax(header), &members, false,
												  HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask));

			for (int i = 0; i < n; i++)
				note_holder(found, members[i].xid);
		}
		else
			note_holder(found, HeapTupleHeaderGetRawXmax(header));
		if (should_free)
			heap_freetuple(tuple);
	}
}

/*
 * Wait until nobody else writes points of the lead.  Whether there are any.
 */
bool
lc_arrival_await_points(LcProgram *program, Datum lead)
{
	DirtyScan	scan;
	Found		found;

	if (!OidIsValid(program->behavior) || !open_scan(&scan, program->behavior, 1, 2))
		return false;
	for (;;)
	{
		TransactionId xid;

		look(&scan, lead, true, &found);
		xid = TransactionIdIsValid(found.other) ? found.other : found.holder;
		if (!TransactionIdIsValid(xid))
			break;
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
	}
	lc_key_scan_end(&scan.by);
	return found.any;
}

/*
 * Whether one of the leads has come, or is coming; and by which transaction, if
 * that is not over.  Leads whose points this transaction holds are not asked for.
 */
static bool
has_come(LcProgram *program, Datum *leads, const bool *held, int n, TransactionId *xid)
{
	char	   *name = get_attname(program->root, program->key, false);
	List	   *tables = get_rel_relkind(program->root) != RELKIND_PARTITIONED_TABLE ?
		list_make1_oid(program->root) : find_all_inheritors(program->root, AccessShareLock, NULL);
	ListCell   *cell;
	bool		come = false;

	*xid = InvalidTransactionId;
	foreach(cell, tables)
	{
		Oid			relid = lfirst_oid(cell);
		DirtyScan	scan;

		if (come)
			break;
		if (get_rel_relkind(relid) != RELKIND_RELATION ||
			!open_scan(&scan, relid, get_attnum(relid, name), 1))
			continue;
		for (int i = 0; i < n && !come; i++)
		{
			Found		found;

			if (held[i])
				continue;
			look(&scan, leads[i], false, &found);
			come = found.any;
			*xid = found.other;
		}
		lc_key_scan_end(&scan.by);
	}
	list_free(tables);
	return come;
}

/*
 * Hold the points of leads that were not found, in the order of the key.  False
 * where one of them came meanwhile; who is bringing it, if he is not through, is
 * to be waited for once what is held is given back.  SPI is connected.
 */
bool
lc_arrival_hold(LcProgram *program, Datum *leads, int n, TransactionId *xid)
{
	bool	   *held = palloc0(n * sizeof(bool));
	DirtyScan	scan;
	bool		come;

	if (open_scan(&scan, program->behavior, 1, 2))
	{
		for (int i = 0; i < n; i++)
		{
			Found		found;

			look(&scan, leads[i], true, &found);
			held[i] = found.ours;
		}
		lc_key_scan_end(&scan.by);
	}
	come = has_come(program, leads, held, n, xid);
	if (!come)
	{
		lc_behavior_hold(program, leads, n);
		come = has_come(program, leads, held, n, xid);
	}
	pfree(held);
	return !come;
}

/*
 * Attempt to lock something, in a subtransaction, so that all that was locked is
 * given back where the attempt tells that it failed.  An error ends the
 * subtransaction, too: whoever catches it further out knows only his own.
 */
bool
lc_arrival_attempt(bool (*attempt) (void *arg), void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		done = attempt(arg);
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
		ReThrowError(error);
	}
	PG_END_TRY();
	if (done)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return done;
}
