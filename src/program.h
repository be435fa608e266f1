/*-------------------------------------------------------------------------
 *
 * program.h
 *	  What program.c, which keeps compiled programs, has of program_row.c, which
 *	  makes them of rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_PROGRAM_H
#define LIFECYCLE_PROGRAM_H

#include "lifecycle.h"

extern HeapTuple lc_program_row_find(Relation programs, Oid lead_table, int32 id);
extern HeapTuple lc_program_row_governing(Relation programs, Oid relid);
extern LcProgram *lc_program_row_compile(Relation rel, HeapTuple row, TupleDesc desc, MemoryContext cxt);
extern LcProgram *lc_signal_row_compile(Relation rel, HeapTuple row, TupleDesc desc, MemoryContext cxt);
extern void lc_program_row_free(LcProgram *program);

#endif							/* LIFECYCLE_PROGRAM_H */
