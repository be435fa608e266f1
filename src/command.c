/*-------------------------------------------------------------------------
 *
 * command.c
 *	  What a command of DDL may do to stored texts and names, told from its
 *	  parse tree.
 *
 * What cannot be known beforehand, such as what CASCADE takes along, concerns
 * all texts.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "follow.h"

#include "commands/tablecmds.h"
#include "nodes/parsenodes.h"

/* The last part of the name that a command gives an object. */
static char *
name_of_object(Node *object)
{
	if (object == NULL)
		return NULL;
	switch (nodeTag(object))
	{
		case T_String:
			return strVal(object);
		case T_List:
			return list_length((List *) object) > 0 ? name_of_object(llast((List *) object)) : NULL;
		case T_ObjectWithArgs:
			return name_of_object((Node *) ((ObjectWithArgs *) object)->objname);
		case T_TypeName:
			return name_of_object((Node *) ((TypeName *) object)->names);
		default:
			return NULL;
	}
}

/*
 * Find out what the command may do to texts and names; false where nothing.
 */
bool
lc_command_concern(Node *parsetree, Concern *concern)
{
	ListCell   *cell;

	memset(concern, 0, sizeof(Concern));
	switch (nodeTag(parsetree))
	{
		case T_RenameStmt:
			{
				RenameStmt *stmt = (RenameStmt *) parsetree;
				char	   *name = NULL;

				if (stmt->renameType == OBJECT_COLUMN || stmt->renameType == OBJECT_ATTRIBUTE ||
					stmt->renameType == OBJECT_SCHEMA)
					name = stmt->subname;
				else if (stmt->renameType == OBJECT_TABCONSTRAINT ||
						 stmt->renameType == OBJECT_DOMCONSTRAINT ||
						 stmt->renameType == OBJECT_TRIGGER || stmt->renameType == OBJECT_POLICY ||
						 stmt->renameType == OBJECT_RULE)
					return false;
				else if (stmt->relation != NULL)
					name = stmt->relation->relname;
				else
					name = name_of_object(stmt->object);
				/* a text may also come to mean what has the new name */
				if (name != NULL)
					concern->names = list_make2(name, stmt->newname);
				if (stmt->renameType == OBJECT_COLUMN && stmt->relationType == OBJECT_TABLE)
				{
					concern->relation = stmt->relation;
					concern->lockmode = AccessExclusiveLock;
				}
				concern->renames = true;
				concern->meanings = true;
				return true;
			}
		case T_AlterObjectSchemaStmt:
			concern->renames = true;
			concern->meanings = true;
			return true;
		case T_AlterEnumStmt:
			concern->renames = true;
			return ((AlterEnumStmt *) parsetree)->oldVal != NULL;
		case T_DropStmt:
			{
				DropStmt   *stmt = (DropStmt *) parsetree;

				if (stmt->removeType == OBJECT_TRIGGER || stmt->removeType == OBJECT_POLICY ||
					stmt->removeType == OBJECT_RULE || stmt->removeType == OBJECT_EVENT_TRIGGER)
					return false;
				concern->changes = true;
				concern->meanings = true;
				/* where nothing else goes, a text that uses it names it, but for casts */
				foreach(cell, stmt->objects)
				{
					char	   *name = name_of_object(lfirst(cell));

					if (stmt->behavior == DROP_CASCADE || stmt->removeType == OBJECT_CAST ||
						stmt->removeType == OBJECT_OPCLASS || stmt->removeType == OBJECT_OPFAMILY ||
						stmt->removeType == OBJECT_EXTENSION || name == NULL)
					{
						concern->names = NIL;
						break;
					}
					concern->names = lappend(concern->names, name);
				}
				return true;
			}
		case T_DropOwnedStmt:
			concern->changes = true;
			concern->meanings = true;
			return true;
		case T_AlterTableStmt:
			{
				AlterTableStmt *stmt = (AlterTableStmt *) parsetree;
				bool		cascade = false;

				foreach(cell, stmt->cmds)
				{
					AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

					if (cmd->subtype != AT_DropColumn && cmd->subtype != AT_AlterColumnType)
						continue;
					if (cmd->behavior == DROP_CASCADE)
						cascade = true;
					concern->names = lappend(concern->names, cmd->name);
				}
				if (concern->names == NIL)
					return false;
				if (cascade)
					concern->names = NIL;
				if (stmt->objtype == OBJECT_TABLE)
				{
					concern->relation = stmt->relation;
					concern->lockmode = AlterTableGetLockLevel(stmt->cmds);
				}
				concern->changes = true;
				return true;
			}
		case T_CreateFunctionStmt:
			concern->names = list_make1(name_of_object((Node *) ((CreateFunctionStmt *) parsetree)->funcname));
			concern->changes = true;
			concern->meanings = true;
			return true;
		case T_AlterFunctionStmt:
			concern->names = list_make1(name_of_object((Node *) ((AlterFunctionStmt *) parsetree)->func));
			concern->changes = true;
			return true;
		default:
			return false;
	}
}
