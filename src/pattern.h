/*-------------------------------------------------------------------------
 *
 * pattern.h
 *	  What pattern.c, literal.c, regex.c and filter.c share: a prepared pattern.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LIFECYCLE_PATTERN_H
#define LIFECYCLE_PATTERN_H

#include "regex/regex.h"

/* How a prepared pattern is matched. */
typedef enum MatchWay
{
	BY_SERVER,					/* by the server's function */
	BY_PIECES,					/* literals in their order, with gaps */
	BY_ENGINE,					/* by the compiled regular expression */
} MatchWay;

/* A literal, and which of its bytes to look for first. */
typedef struct Piece
{
	const char *bytes;			/* lower case where case is folded */
	int			len;
	int			rarest;
} Piece;

/* Strings one of which every match contains. */
typedef struct Filter Filter;

/* A pattern and what was made of it. */
typedef struct Prepared
{
	MemoryContext cxt;			/* holds all of this */
	char	   *pattern;
	int			pattern_len;
	Oid			collation;
	MatchWay	way;
	bool		folds;			/* case is folded, of ASCII subjects only */

	/* BY_PIECES */
	bool		open_start;		/* a gap before the first piece */
	bool		open_end;		/* a gap after the last one */
	int			npieces;
	Piece	   *pieces;

	/* a regular expression; also BY_PIECES, for subjects that it cannot judge */
	regex_t		regex;
	bool		compiled;
	Filter	   *filter;
	int			uses;			/* since it was prepared, or on trial; then -1 */
	int			passed;			/* of these, not refused by the filter */
	MemoryContextCallback callback;
} Prepared;

/* ---- literal.c ---- */

extern bool lc_is_ascii(const char *s, int len);
extern double lc_frequency(unsigned char c);
extern bool lc_bytes_are_searchable(void);
extern bool lc_folds_ascii_plainly(Oid collation);
extern void lc_add_piece(Prepared *p, const char *bytes, int len);
extern void lc_prepare_like(Prepared *p, bool folds);
extern bool lc_match_pieces(const Prepared *p, const char *s, int len);

/* ---- regex.c ---- */

extern void lc_prepare_regex(Prepared *p, bool folds);
extern bool lc_match_regex(Prepared *p, const char *s, int len);

/* ---- filter.c ---- */

extern Filter *lc_make_filter(const Prepared *p);
extern bool lc_passes_filter(const Filter *filter, const char *s, int len);

#endif							/* LIFECYCLE_PATTERN_H */
