/*-------------------------------------------------------------------------
 *
 * pattern.c
 *	  LIKE, ILIKE and regular expressions with a pattern that stays the same.
 *
 * Rules are mostly made of them, and the server's functions prepare the pattern
 * anew in each call; more than 32 regular expressions thrash its cache.  The
 * functions here keep what they made of the pattern with the expression that
 * calls them.  They give what the server's give, for every pattern, subject,
 * collation and encoding, errors included.  What is not proven to be the same
 * is given to the server's function:
 *
 * - A comparison of bytes stands for one of characters only where no character
 *	 can begin inside another: in UTF8 and in encodings of one byte.  Subjects
 *	 are valid in the encoding of the database, as the server sees to.
 * - Case is folded here only where subject and pattern are all ASCII, and
 *	 lower() and upper() under the collation do with ASCII what C does; Turkish
 *	 does not.  How ASCII alone is folded depends on no context in any locale.
 * - Nondeterministic collations are the server's.
 *
 * A regular expression is compiled with the flags and collation that the server
 * uses, and run by the server's engine.  Before that, a subject without any of
 * the short strings that every match must contain is refused (make_filter()).
 * They are derived from the automaton that the engine searches with, never from
 * the text of the expression.
 *
 * Lifetime.  A prepared pattern lives in a context below the FmgrInfo's and is
 * made anew when the pattern differs, as it may in plain SQL.  Until 15 the
 * engine allocates by malloc, so a callback of that context frees what it has.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include <math.h>

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "regex/regex.h"
#include "regex/regexport.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(lifecycle_matches_like);
PG_FUNCTION_INFO_V1(lifecycle_matches_ilike);
PG_FUNCTION_INFO_V1(lifecycle_matches_regex);
PG_FUNCTION_INFO_V1(lifecycle_matches_iregex);

/* The kinds of match, in the order of matchers[]. */
typedef enum MatchOp
{
	MATCH_LIKE,
	MATCH_ILIKE,
	MATCH_REGEX,
	MATCH_IREGEX,
} MatchOp;
#define MATCH_OPS 4

/* What a match is called here and in the server. */
static const struct
{
	const char *name;			/* our function, in our schema */
	PGFunction	server;
	Oid			funcid;			/* the server's, and its negation */
	Oid			negated;
}			matchers[MATCH_OPS] =
{
	{"matches_like", textlike, F_TEXTLIKE, F_TEXTNLIKE},
	{"matches_ilike", texticlike, F_TEXTICLIKE, F_TEXTICNLIKE},
	{"matches_regex", textregexeq, F_TEXTREGEXEQ, F_TEXTREGEXNE},
	{"matches_iregex", texticregexeq, F_TEXTICREGEXEQ, F_TEXTICREGEXNE},
};

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

/*
 * Strings one of which every match contains, all searched for at once: bit n of
 * a word stands for the n-th character of all strings, one after the other.
 */
typedef struct Filter
{
	uint64		first;			/* the first character of each string */
	uint64		last;			/* the last one of each */
	uint64		at[128];		/* where a character may stand */
} Filter;

/* A filter is made when a pattern has been used this often ... */
#define FILTER_AFTER 8
/* ... and is given up, judged by so many calls, when it lets most of them pass. */
#define FILTER_TRIAL 100

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

/* ---- literals ---- */

static inline unsigned char
fold(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static inline bool
is_ascii(const char *s, int len)
{
	uint64		word;

	for (; len >= (int) sizeof(word); s += sizeof(word), len -= sizeof(word))
	{
		memcpy(&word, s, sizeof(word));
		if (word & UINT64CONST(0x8080808080808080))
			return false;
	}
	for (; len > 0; s++, len--)
	{
		if (IS_HIGHBIT_SET(*s))
			return false;
	}
	return true;
}

/*
 * How often a character stands at a place of the names, titles and addresses
 * that rules look at, roughly.  Speed hangs on it, results do not.
 */
static double
frequency(unsigned char c)
{
	if (c >= 0x80)
		return 0.01;
	if (strchr("@. ", c) != NULL && c != '\0')
		return 0.05;
	if (strchr("aeiornstlcmd", c) != NULL && c != '\0')
		return 0.06;
	if (strchr("bfghpu", c) != NULL && c != '\0')
		return 0.02;
	if (c >= 'a' && c <= 'z')
		return 0.01;
	return 0.007;
}

static inline bool
equals(const char *s, const Piece *piece, bool folds)
{
	if (!folds)
		return memcmp(s, piece->bytes, piece->len) == 0;
	for (int i = 0; i < piece->len; i++)
	{
		if (fold(s[i]) != (unsigned char) piece->bytes[i])
			return false;
	}
	return true;
}

/* Where the piece first occurs, or NULL. */
static inline const char *
find(const char *s, int len, const Piece *piece, bool folds)
{
	const char *end = s + len - piece->len; /* the last place where it may begin */
	unsigned char rarest = piece->bytes[piece->rarest];

	if (folds)
	{
		for (; s <= end; s++)
		{
			if (fold(s[piece->rarest]) == rarest && equals(s, piece, true))
				return s;
		}
		return NULL;
	}
	while (s <= end)
	{
		const char *hit = memchr(s + piece->rarest, rarest, end - s + 1);

		if (hit == NULL)
			return NULL;
		s = hit - piece->rarest;
		if (memcmp(s, piece->bytes, piece->len) == 0)
			return s;
		s++;
	}
	return NULL;
}

/*
 * Whether the subject consists of the pieces in their order, with anything in
 * the gaps.  Each is taken where it occurs first: that leaves the most to those
 * behind it.
 */
static bool
match_pieces(const Prepared *p, const char *s, int len)
{
	const Piece *piece = p->pieces;
	const Piece *end = p->pieces + p->npieces;

	if (piece == end)
		return p->open_start || len == 0;
	if (!p->open_start)
	{
		if (len < piece->len || !equals(s, piece, p->folds))
			return false;
		s += piece->len;
		len -= piece->len;
		if (++piece == end)
			return p->open_end || len == 0;
	}
	if (!p->open_end)
	{
		end--;
		len -= end->len;
		if (len < 0 || !equals(s + len, end, p->folds))
			return false;
	}
	for (; piece < end; piece++)
	{
		const char *hit = find(s, len, piece, p->folds);

		if (hit == NULL)
			return false;
		len -= hit + piece->len - s;
		s = hit + piece->len;
	}
	return true;
}

static void
add_piece(Prepared *p, const char *bytes, int len)
{
	Piece	   *piece = &p->pieces[p->npieces++];
	char	   *copy = MemoryContextAlloc(p->cxt, len);

	for (int i = 0; i < len; i++)
		copy[i] = p->folds ? fold(bytes[i]) : bytes[i];
	piece->bytes = copy;
	piece->len = len;
	piece->rarest = 0;
	for (int i = 1; i < len; i++)
	{
		if (frequency(copy[i]) < frequency(copy[piece->rarest]))
			piece->rarest = i;
	}
}

/*
 * Whether lower() and upper() under the collation do with ASCII what C does.
 */
static bool
folds_ascii_plainly(Oid collation)
{
	char		all[127];
	text	   *given;
	text	   *lowered;
	text	   *raised;
	bool		plain;

	for (int i = 0; i < 127; i++)
		all[i] = i + 1;
	given = cstring_to_text_with_len(all, 127);
	lowered = DatumGetTextPP(DirectFunctionCall1Coll(lower, collation, PointerGetDatum(given)));
	raised = DatumGetTextPP(DirectFunctionCall1Coll(upper, collation, PointerGetDatum(given)));
	plain = VARSIZE_ANY_EXHDR(lowered) == 127 && VARSIZE_ANY_EXHDR(raised) == 127;
	for (int i = 0; i < 127 && plain; i++)
	{
		char		up = all[i] >= 'a' && all[i] <= 'z' ? all[i] - ('a' - 'A') : all[i];

		plain = VARDATA_ANY(lowered)[i] == (char) fold(all[i]) && VARDATA_ANY(raised)[i] == up;
	}
	pfree(given);
	pfree(lowered);
	pfree(raised);
	return plain;
}

/* Whether a character can be searched for as the bytes that it is made of. */
static bool
bytes_are_searchable(void)
{
	return pg_database_encoding_max_length() == 1 || GetDatabaseEncoding() == PG_UTF8;
}

/*
 * Make pieces of a LIKE pattern, if it consists of literals and % only.
 */
static void
prepare_like(Prepared *p, bool folds)
{
	const char *s = p->pattern;
	const char *end = s + p->pattern_len;

	if (!bytes_are_searchable() || memchr(s, '\\', p->pattern_len) || memchr(s, '_', p->pattern_len))
		return;
	if (folds && (!is_ascii(s, p->pattern_len) || !folds_ascii_plainly(p->collation)))
		return;
	p->folds = folds;
	p->pieces = MemoryContextAlloc(p->cxt, sizeof(Piece) * (p->pattern_len / 2 + 1));
	p->open_start = s < end && *s == '%';
	p->open_end = s < end && end[-1] == '%';
	while (s < end)
	{
		const char *gap = memchr(s, '%', end - s);

		if (gap == NULL)
			gap = end;
		if (gap > s)
			add_piece(p, s, gap - s);
		s = gap + 1;
	}
	p->way = BY_PIECES;
}

/* ---- regular expressions ---- */

/* The regular expression goes with the memory that holds what leads to it. */
static void
free_regex(void *arg)
{
	Prepared   *p = arg;

	if (p->compiled)
		pg_regfree(&p->regex);
	p->compiled = false;
}

/*
 * Compile as the server would.  False if that fails; the server's function will
 * say how.
 */
static bool
compile_regex(Prepared *p, bool folds)
{
	pg_wchar   *wide = palloc((p->pattern_len + 1) * sizeof(pg_wchar));
	int			wide_len = pg_mb2wchar_with_len(p->pattern, wide, p->pattern_len);
	MemoryContext old = MemoryContextSwitchTo(p->cxt);

	p->callback.func = free_regex;
	p->callback.arg = p;
	MemoryContextRegisterResetCallback(p->cxt, &p->callback);
	p->compiled = pg_regcomp(&p->regex, wide, wide_len,
							 REG_ADVANCED | REG_NOSUB | (folds ? REG_ICASE : 0),
							 p->collation) == REG_OKAY;
	MemoryContextSwitchTo(old);
	pfree(wide);
	CHECK_FOR_INTERRUPTS();
	return p->compiled;
}

/*
 * The literal that a regular expression stands for, if all its characters are
 * ASCII and either no operators or escaped punctuation, which an advanced
 * regular expression takes as it is; else -1.  Directives and options begin
 * with operators.
 */
static int
regex_literal(const char *pattern, int len, char *literal)
{
	int			n = 0;

	for (int i = 0; i < len; i++)
	{
		unsigned char c = pattern[i];

		if (c == '\\')
		{
			if (++i == len)
				return -1;
			c = pattern[i];
			if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
				return -1;
		}
		else if (strchr("^$.[](){}*+?|", c) != NULL)
			return -1;
		if (c < ' ' || c > '~')
			return -1;
		literal[n++] = c;
	}
	return n;
}

static void
prepare_regex(Prepared *p, bool folds)
{
	char	   *literal;
	int			len;

	/* that it compiles also says that there is nothing to complain about */
	if (!compile_regex(p, folds))
		return;
	p->way = BY_ENGINE;
	if (!bytes_are_searchable())
	{
		p->uses = -1;
		return;
	}
	literal = palloc(p->pattern_len + 1);
	len = regex_literal(p->pattern, p->pattern_len, literal);
	if (len > 0 && (!folds || folds_ascii_plainly(p->collation)))
	{
		p->folds = folds;
		p->pieces = MemoryContextAlloc(p->cxt, sizeof(Piece));
		p->open_start = true;
		p->open_end = true;
		add_piece(p, literal, len);
		p->way = BY_PIECES;
	}
	pfree(literal);
}

/* The characters of an arc of the automaton. */
typedef struct Class
{
	bool		exists;			/* there is such an arc */
	bool		known;			/* all its characters are among these */
	uint64		ascii[2];
	double		frequency;
} Class;

/* A string of classes that is part of every way over one arc. */
#define FACTOR_LENGTH 8
typedef struct Factor
{
	int			len;
	const Class *classes[FACTOR_LENGTH];
} Factor;

#define FILTER_STATES 96
#define FILTER_COLORS 128
#define FILTER_CHARS 16
#define FILTER_FLOWS 200
/* how many of the subjects may pass, as far as frequency() can tell */
#define FILTER_PASSES 0.25
#define SUBJECT_LENGTH 20

typedef struct Automaton
{
	int			nstates;
	int			start;
	int			final;
	Class	   *arcs;			/* from * nstates + to */
	int		   *next;			/* the only state behind, -1 if several */
	int		   *previous;		/* the only state before, -1 if several */
} Automaton;

#define ARC(a, from, to) (&(a)->arcs[(from) * (a)->nstates + (to)])

/* The characters of a color of the engine, where they are few and all ASCII. */
static void
color_class(const regex_t *regex, int color, Class *class)
{
	int			n = pg_reg_getnumcharacters(regex, color);
	pg_wchar	chars[FILTER_CHARS];

	memset(class, 0, sizeof(Class));
	if (n <= 0 || n > FILTER_CHARS)
		return;
	pg_reg_getcharacters(regex, color, chars, n);
	for (int i = 0; i < n; i++)
	{
		if (chars[i] >= 128)
			return;
		class->ascii[chars[i] / 64] |= UINT64CONST(1) << (chars[i] % 64);
		class->frequency += frequency(chars[i]);
	}
	class->known = true;
}

/*
 * Read the automaton by which the engine searches, all arcs between two states
 * as one.  NULL if it is too large to look into.
 */
static Automaton *
read_automaton(const regex_t *regex)
{
	Automaton  *a = palloc0(sizeof(Automaton));
	int			ncolors = pg_reg_getnumcolors(regex);
	Class	   *colors;
	bool	   *read;

	a->nstates = pg_reg_getnumstates(regex);
	if (a->nstates < 2 || a->nstates > FILTER_STATES || ncolors > FILTER_COLORS)
		return NULL;
	a->start = pg_reg_getinitialstate(regex);
	a->final = pg_reg_getfinalstate(regex);
	a->arcs = palloc0(sizeof(Class) * a->nstates * a->nstates);
	a->next = palloc(sizeof(int) * a->nstates);
	a->previous = palloc(sizeof(int) * a->nstates);
	colors = palloc0(sizeof(Class) * ncolors);
	read = palloc0(sizeof(bool) * ncolors);
	for (int from = 0; from < a->nstates; from++)
	{
		int			n = pg_reg_getnumoutarcs(regex, from);
		regex_arc_t *out = palloc(sizeof(regex_arc_t) * (n + 1));

		pg_reg_getoutarcs(regex, from, out, n);
		for (int i = 0; i < n; i++)
		{
			Class	   *arc = ARC(a, from, out[i].to);
			Class		unknown = {0};
			Class	   *color = &unknown;

			/* colors below zero stand for many */
			if (out[i].co >= 0 && out[i].co < ncolors)
			{
				color = &colors[out[i].co];
				if (!read[out[i].co])
					color_class(regex, out[i].co, color);
				read[out[i].co] = true;
			}
			if (!arc->exists)
				arc->known = true;
			arc->exists = true;
			arc->known = arc->known && color->known;
			arc->ascii[0] |= color->ascii[0];
			arc->ascii[1] |= color->ascii[1];
			arc->frequency += color->frequency;
		}
		pfree(out);
	}
	for (int state = 0; state < a->nstates; state++)
	{
		int			nnext = 0;
		int			nprevious = 0;

		for (int other = 0; other < a->nstates; other++)
		{
			if (ARC(a, state, other)->exists)
			{
				a->next[state] = other;
				nnext++;
			}
			if (ARC(a, other, state)->exists)
			{
				a->previous[state] = other;
				nprevious++;
			}
		}
		/* a way may end in the final state and begin in the first */
		if (nnext != 1 || state == a->final)
			a->next[state] = -1;
		if (nprevious != 1 || state == a->start)
			a->previous[state] = -1;
	}
	return a;
}

/*
 * The string that each way over an arc goes through: the arc's own characters,
 * then those behind it while there is only one way on, and those before it while
 * there is only one way to it.
 */
static void
arc_factor(const Automaton *a, int from, int to, Factor *factor)
{
	const Class *before[FACTOR_LENGTH];
	int			nbefore = 0;
	const Class *behind[FACTOR_LENGTH];
	int			nbehind = 1;

	behind[0] = ARC(a, from, to);
	while (nbehind < FACTOR_LENGTH && a->next[to] >= 0 && ARC(a, to, a->next[to])->known)
	{
		behind[nbehind++] = ARC(a, to, a->next[to]);
		to = a->next[to];
	}
	while (nbefore + nbehind < FACTOR_LENGTH && a->previous[from] >= 0 &&
		   ARC(a, a->previous[from], from)->known)
	{
		before[nbefore++] = ARC(a, a->previous[from], from);
		from = a->previous[from];
	}
	factor->len = 0;
	while (nbefore > 0)
		factor->classes[factor->len++] = before[--nbefore];
	for (int i = 0; i < nbehind; i++)
		factor->classes[factor->len++] = behind[i];
}

/* How many subjects are expected to hold the string. */
static double
factor_frequency(const Factor *factor)
{
	double		result = SUBJECT_LENGTH;

	for (int i = 0; i < factor->len; i++)
		result *= Min(factor->classes[i]->frequency, 1.0);
	return result;
}

/*
 * One step of Edmonds and Karp: a shortest way from start to final that has
 * something left, taken as far as it goes.  False if there is none; then
 * reached says which states can still be reached.
 */
static bool
augment(const Automaton *a, double *left, bool *reached)
{
	int			from[FILTER_STATES];
	int			queue[FILTER_STATES];
	int			head = 0;
	int			tail = 0;
	double		flow = -1;

	memset(reached, 0, sizeof(bool) * a->nstates);
	reached[a->start] = true;
	queue[tail++] = a->start;
	while (head < tail && !reached[a->final])
	{
		int			state = queue[head++];

		for (int to = 0; to < a->nstates; to++)
		{
			if (!reached[to] && left[state * a->nstates + to] > 0)
			{
				reached[to] = true;
				from[to] = state;
				queue[tail++] = to;
			}
		}
	}
	if (!reached[a->final])
		return false;
	for (int to = a->final; to != a->start; to = from[to])
	{
		double		here = left[from[to] * a->nstates + to];

		if (flow < 0 || here < flow)
			flow = here;
	}
	for (int to = a->final; to != a->start; to = from[to])
	{
		left[from[to] * a->nstates + to] -= flow;
		left[to * a->nstates + from[to]] += flow;
	}
	return true;
}

/*
 * A filter for the regular expression, or NULL where none is worth it.
 *
 * The engine begins every search by running its automaton for searches over
 * the subject, and there is no match unless that gets from the first state to
 * the final one.  What the server exports of it (constraints taken as fulfilled)
 * accepts at least as much.  So take a set of arcs without which the final state
 * cannot be reached: each match goes over one of them, and with it through the
 * whole string around it where there is only one way.  Hence every subject that
 * matches contains one of these strings.  Of all such sets the rarest one is
 * taken, which is a minimum cut.  Arcs with characters that are many or not
 * ASCII, and those for the begin and the end of the subject, are never in it.
 */
static Filter *
make_filter(const Prepared *p)
{
	Automaton  *a = read_automaton(&p->regex);
	double	   *left;
	bool		reached[FILTER_STATES];
	Filter	   *filter;
	double		passes = 0;
	int			nfactors = 0;
	int			longest;
	int			bit = 0;
	int			flows = 0;

	if (a == NULL || a->start == a->final)
		return NULL;
	left = palloc0(sizeof(double) * a->nstates * a->nstates);
	for (int from = 0; from < a->nstates; from++)
	{
		for (int to = 0; to < a->nstates; to++)
		{
			Factor		factor;

			if (!ARC(a, from, to)->exists)
				continue;
			left[from * a->nstates + to] = 1e9;
			if (ARC(a, from, to)->known)
			{
				arc_factor(a, from, to, &factor);
				/* whole numbers, so that differences are exact */
				left[from * a->nstates + to] = floor(factor_frequency(&factor) * 1e6) + 1;
			}
		}
	}
	while (augment(a, left, reached))
	{
		if (++flows > FILTER_FLOWS)
			return NULL;
	}
	for (int from = 0; from < a->nstates; from++)
	{
		for (int to = 0; to < a->nstates; to++)
		{
			if (reached[from] && !reached[to] && ARC(a, from, to)->exists)
			{
				if (!ARC(a, from, to)->known)
					return NULL;
				nfactors++;
			}
		}
	}
	if (nfactors == 0 || nfactors > 64)
		return NULL;

	longest = Min(64 / nfactors, FACTOR_LENGTH);
	filter = MemoryContextAllocZero(p->cxt, sizeof(Filter));
	for (int from = 0; from < a->nstates; from++)
	{
		for (int to = 0; to < a->nstates; to++)
		{
			Factor		factor;

			if (!reached[from] || reached[to] || !ARC(a, from, to)->exists)
				continue;
			arc_factor(a, from, to, &factor);
			factor.len = Min(factor.len, longest);
			passes += factor_frequency(&factor);
			filter->first |= UINT64CONST(1) << bit;
			for (int i = 0; i < factor.len; i++, bit++)
			{
				for (int c = 0; c < 128; c++)
				{
					if (factor.classes[i]->ascii[c / 64] & (UINT64CONST(1) << (c % 64)))
						filter->at[c] |= UINT64CONST(1) << bit;
				}
			}
			filter->last |= UINT64CONST(1) << (bit - 1);
		}
	}
	if (passes <= FILTER_PASSES)
		return filter;
	pfree(filter);
	return NULL;
}

/*
 * Whether the subject contains one of the strings.  Bit n of the state says that
 * what was read last ends like the string of bit n up to there.  The last bit
 * of a string moves on to the first of the next, which is always tried anyway.
 */
static inline bool
passes_filter(const Filter *filter, const char *s, int len)
{
	uint64		state = 0;

	for (int i = 0; i < len; i++)
	{
		unsigned char c = s[i];

		if (IS_HIGHBIT_SET(c))
		{
			state = 0;
			continue;
		}
		state = ((state << 1) | filter->first) & filter->at[c];
		if (state & filter->last)
			return true;
	}
	return false;
}

/*
 * Make a filter in memory of its own once the pattern proves to stay, and give
 * up one that lets most subjects pass.
 */
static void
review_filter(Prepared *p)
{
	if (p->filter == NULL)
	{
		MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "lifecycle pattern filter",
												   ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(work);
		Filter	   *filter = make_filter(p);

		MemoryContextSwitchTo(old);
		MemoryContextDelete(work);
		p->filter = filter;
		p->uses = filter == NULL ? -1 : 0;
		return;
	}
	if (p->passed > p->uses / 4 * 3)
	{
		pfree(p->filter);
		p->filter = NULL;
	}
	p->uses = -1;
}

/*
 * Run the engine as the server does, errors included.
 */
static bool
match_regex(Prepared *p, const char *s, int len)
{
	pg_wchar	small[256];
	pg_wchar   *wide = small;
	int			wide_len;
	int			result;

	if (p->uses >= 0 && ++p->uses == (p->filter == NULL ? FILTER_AFTER : FILTER_TRIAL))
		review_filter(p);
	if (p->filter != NULL)
	{
		if (!passes_filter(p->filter, s, len))
			return false;
		if (p->uses >= 0)
			p->passed++;
	}
	if (len >= lengthof(small))
		wide = palloc((len + 1) * sizeof(pg_wchar));
	wide_len = pg_mb2wchar_with_len(s, wide, len);
	result = pg_regexec(&p->regex, wide, wide_len, 0, NULL, 0, NULL, 0);
	if (wide != small)
		pfree(wide);
	if (result != REG_OKAY && result != REG_NOMATCH)
	{
		char		message[100];

		CHECK_FOR_INTERRUPTS();
		pg_regerror(result, &p->regex, message, sizeof(message));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_REGULAR_EXPRESSION),
				 errmsg("regular expression failed: %s", message)));
	}
	return result == REG_OKAY;
}

/* ---- the functions ---- */

/*
 * Prepare the pattern and keep it with the FmgrInfo, in the place of another
 * one.  Until it is complete it hangs on the current context, where an error
 * leaves nothing behind.
 */
static Prepared *
prepare(FmgrInfo *flinfo, MatchOp op, text *pattern, Oid collation)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "lifecycle pattern",
											  ALLOCSET_SMALL_SIZES);
	Prepared   *p = MemoryContextAllocZero(cxt, sizeof(Prepared));

	p->cxt = cxt;
	p->collation = collation;
	p->pattern_len = VARSIZE_ANY_EXHDR(pattern);
	p->pattern = MemoryContextAlloc(cxt, p->pattern_len + 1);
	memcpy(p->pattern, VARDATA_ANY(pattern), p->pattern_len);
	p->pattern[p->pattern_len] = '\0';
	p->way = BY_SERVER;
	if (OidIsValid(collation) && get_collation_isdeterministic(collation))
	{
		if (op == MATCH_LIKE || op == MATCH_ILIKE)
			prepare_like(p, op == MATCH_ILIKE);
		else
			prepare_regex(p, op == MATCH_IREGEX);
	}
	if (flinfo->fn_extra != NULL)
	{
		MemoryContext former = ((Prepared *) flinfo->fn_extra)->cxt;

		flinfo->fn_extra = NULL;
		MemoryContextDelete(former);
	}
	MemoryContextSetParent(cxt, flinfo->fn_mcxt);
	flinfo->fn_extra = p;
	return p;
}

static inline bool
match_prepared(Prepared *p, MatchOp op, text *subject, text *pattern)
{
	const char *s = VARDATA_ANY(subject);
	int			len = VARSIZE_ANY_EXHDR(subject);

	if (p->way == BY_PIECES && (!p->folds || is_ascii(s, len)))
		return match_pieces(p, s, len);
	if (p->compiled)
		return match_regex(p, s, len);
	return DatumGetBool(DirectFunctionCall2Coll(matchers[op].server, p->collation,
												PointerGetDatum(subject), PointerGetDatum(pattern)));
}

/*
 * What the server's function gives for subject and pattern.
 */
static inline Datum
match(FunctionCallInfo fcinfo, MatchOp op)
{
	text	   *subject = PG_GETARG_TEXT_PP(0);
	text	   *pattern = PG_GETARG_TEXT_PP(1);
	Prepared   *p;
	bool		result;

	if (fcinfo->flinfo == NULL)
		return DirectFunctionCall2Coll(matchers[op].server, PG_GET_COLLATION(),
									   PointerGetDatum(subject), PointerGetDatum(pattern));
	p = fcinfo->flinfo->fn_extra;
	if (p == NULL || p->collation != PG_GET_COLLATION() ||
		p->pattern_len != VARSIZE_ANY_EXHDR(pattern) ||
		memcmp(p->pattern, VARDATA_ANY(pattern), p->pattern_len) != 0)
		p = prepare(fcinfo->flinfo, op, pattern, PG_GET_COLLATION());
	result = match_prepared(p, op, subject, pattern);
	PG_FREE_IF_COPY(subject, 0);
	PG_FREE_IF_COPY(pattern, 1);
	PG_RETURN_BOOL(result);
}

Datum
lifecycle_matches_like(PG_FUNCTION_ARGS)
{
	return match(fcinfo, MATCH_LIKE);
}

Datum
lifecycle_matches_ilike(PG_FUNCTION_ARGS)
{
	return match(fcinfo, MATCH_ILIKE);
}

Datum
lifecycle_matches_regex(PG_FUNCTION_ARGS)
{
	return match(fcinfo, MATCH_REGEX);
}

Datum
lifecycle_matches_iregex(PG_FUNCTION_ARGS)
{
	return match(fcinfo, MATCH_IREGEX);
}

/* ---- in expressions ---- */

/* Our function for the match, or InvalidOid where it cannot be called. */
static Oid
matcher_oid(MatchOp op)
{
	Oid			args[2] = {TEXTOID, TEXTOID};
	Oid			funcid = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
										 CStringGetDatum(matchers[op].name),
										 PointerGetDatum(buildoidvector(args, 2)),
										 ObjectIdGetDatum(lc_schema()));

	if (!OidIsValid(funcid) ||
		lc_function_aclcheck(funcid, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		return InvalidOid;
	return funcid;
}

/* The call of ours that does what the server's function would, or NULL. */
static Node *
matcher_call(Oid funcid, List *args, Oid collation)
{
	Const	   *pattern;

	if (list_length(args) != 2 || !IsA(lsecond(args), Const))
		return NULL;
	pattern = lsecond(args);
	if (pattern->constisnull || pattern->consttype != TEXTOID)
		return NULL;
	for (int op = 0; op < MATCH_OPS; op++)
	{
		if (funcid == matchers[op].funcid || funcid == matchers[op].negated)
		{
			Oid			ours = matcher_oid(op);
			Expr	   *call;

			if (!OidIsValid(ours))
				return NULL;
			call = (Expr *) makeFuncExpr(ours, BOOLOID, args, InvalidOid, collation,
										 COERCE_EXPLICIT_CALL);
			return (Node *) (funcid == matchers[op].negated ?
							 makeBoolExpr(NOT_EXPR, list_make1(call), -1) : call);
		}
	}
	return NULL;
}

static Node *
substitute(Node *node, void *context)
{
	Node	   *call = NULL;

	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, substitute, context);
	if (IsA(node, OpExpr))
		call = matcher_call(((OpExpr *) node)->opfuncid, ((OpExpr *) node)->args,
							((OpExpr *) node)->inputcollid);
	else if (IsA(node, FuncExpr))
		call = matcher_call(((FuncExpr *) node)->funcid, ((FuncExpr *) node)->args,
							((FuncExpr *) node)->inputcollid);
	return call ? call : node;
}

/*
 * A copy of a planned expression, in the current memory context, in which the
 * server's LIKE, ILIKE and regular expression functions with a constant pattern
 * are replaced by ours.  Values, errors and NULLs stay the same.  To be called as
 * the user who is to have the right to execute them.
 */
Node *
lc_pattern_substitute(Node *expr)
{
	return substitute(expr, NULL);
}
