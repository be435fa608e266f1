/*-------------------------------------------------------------------------
 *
 * filter.c
 *	  Short strings one of which every match of a regular expression contains.
 *
 * A subject without any of them needs no engine.  They are derived from the
 * automaton that the engine searches with, never from the text of the
 * expression: lc_make_filter() says why that is right.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "pattern.h"

#include <math.h>

#include "regex/regexport.h"

/*
 * Strings one of which every match contains, all searched for at once: bit n of
 * a word stands for the n-th character of all strings, one after the other.
 */
struct Filter
{
	uint64		first;			/* the first character of each string */
	uint64		last;			/* the last one of each */
	uint64		at[128];		/* where a character may stand */
};

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
/* how many of the subjects may pass, as far as lc_frequency() can tell */
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
		class->frequency += lc_frequency(chars[i]);
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
Filter *
lc_make_filter(const Prepared *p)
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
bool
lc_passes_filter(const Filter *filter, const char *s, int len)
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
