/*-------------------------------------------------------------------------
 *
 * follow.h
 *	  What follow.c, stored.c, command.c, uses.c and refuse.c share: stored
 *	  texts and names, and the commands that may concern them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_FOLLOW_H
#define LIFECYCLE_FOLLOW_H

#include "catalog/objectaddress.h"
#include "nodes/primnodes.h"
#include "storage/lockdefs.h"

/*
 * Where texts and names are stored.  A name is one of a column of the table;
 * those that are not stored are our own.
 */
typedef struct Place
{
	const char *config;			/* table of ours */
	const char *of_table;		/* its column that says of which table it speaks */
	const char *column;			/* its column that holds the text, or our column */
	bool		is_name;
	bool		is_stored;
	Oid			type;
} Place;

#define IS_RULE(item) (strcmp((item)->place->config, "rule") == 0)
#define IS_SIGNAL(item) (strcmp((item)->place->config, "signal") == 0)

/* A text or name that a command may concern. */
typedef struct Subject
{
	const Place *place;
	Oid			relid;			/* the table over whose rows it speaks */
	char	   *rule;			/* the name of the rule */
	char	   *text;			/* as it was when the command began */
	List	   *rewritten;		/* of char *: what DDL inside of the command made of it */
	AttrNumber	attno;			/* of a name: the column */
	Node	   *tree;			/* of a text: what it meant, or NULL */
	bool		holds;			/* the table's owner may use all that it uses */
	List	   *uses;			/* of ObjectAddress: what that hangs on */
} Subject;

/* What has to be done for a command. */
typedef struct Concern
{
	bool		renames;		/* names change */
	bool		changes;		/* what names mean changes */
	bool		meanings;		/* names may come to mean another function */
	List	   *names;			/* of char *: only texts that have one; NIL: all */
	RangeVar   *relation;		/* the table that the command locks ... */
	LOCKMODE	lockmode;		/* ... in this mode, or NoLock */
} Concern;

/* A command that is under way. */
typedef struct Command
{
	struct Command *outer;
	Node	   *parsetree;
	SubTransactionId subid;
	MemoryContext cxt;
	Concern		concern;
	List	   *items;
} Command;

/* ---- command.c: what a command is about ---- */

extern bool lc_command_concern(Node *parsetree, Concern *concern);

/* ---- stored.c: reading what is stored ---- */

extern List *lc_stored_read(List *names);
extern bool lc_stored_is_same(const Subject *a, const Subject *b);
extern const char *lc_stored_text_of_now(const Subject *item, List *items);
extern bool lc_stored_governs(Oid relid);

/* ---- uses.c: what an expression uses ---- */

extern List *lc_uses_of_column(Oid relid, AttrNumber attno);
extern List *lc_uses_of_tree(Node *tree, Oid relid, Oid owner, bool *may_run);
extern bool lc_use_is_gone(const ObjectAddress *use);
extern bool lc_uses_any_gone(List *uses);
extern bool lc_uses_same_functions(Node *a, Node *b);

/* ---- refuse.c: refusing ---- */

extern void lc_refuse_dropped(Command *command);
extern void lc_refuse_broken(Command *command, const Subject *item, const char *detail);

#endif							/* LIFECYCLE_FOLLOW_H */
