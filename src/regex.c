/*-------------------------------------------------------------------------
 *
 * regex.c
 *	  Regular expressions, compiled once and run by the server's engine.
 *
 * They are compiled with the flags and collation that the server uses.  One
 * that is nothing but a literal is left to literal.c, as far as that can judge
 * the subject.  Before the engine runs, a subject without any of the short
 * strings that every match must contain is refused (filter.c).
 *
 * Lifetime.  Until 15 the engine allocates by malloc, so a callback of the
 * pattern's memory context frees what it has.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "pattern.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* A filter is made when a pattern has been used this often ... */
#define FILTER_AFTER 8
/* ... and is given up, judged by so many calls, when it lets most of them pass. */
#define FILTER_TRIAL 100

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

/*
 * Compile a regular expression, and see whether it is but a literal.  One that
 * does not compile stays with the server's function.
 */
void
lc_prepare_regex(Prepared *p, bool folds)
{
	char	   *literal;
	int			len;

	/* that it compiles also says that there is nothing to complain about */
	if (!compile_regex(p, folds))
		return;
	p->way = BY_ENGINE;
	if (!lc_bytes_are_searchable())
	{
		p->uses = -1;
		return;
	}
	literal = palloc(p->pattern_len + 1);
	len = regex_literal(p->pattern, p->pattern_len, literal);
	if (len > 0 && (!folds || lc_folds_ascii_plainly(p->collation)))
	{
		p->folds = folds;
		p->pieces = MemoryContextAlloc(p->cxt, sizeof(Piece));
		p->open_start = true;
		p->open_end = true;
		lc_add_piece(p, literal, len);
		p->way = BY_PIECES;
	}
	pfree(literal);
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
		Filter	   *filter = lc_make_filter(p);

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
bool
lc_match_regex(Prepared *p, const char *s, int len)
{
	pg_wchar	small[256];
	pg_wchar   *wide = small;
	int			wide_len;
	int			result;

	if (p->uses >= 0 && ++p->uses == (p->filter == NULL ? FILTER_AFTER : FILTER_TRIAL))
		review_filter(p);
	if (p->filter != NULL)
	{
		if (!lc_passes_filter(p->filter, s, len))
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
