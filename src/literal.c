/*-------------------------------------------------------------------------
 *
 * literal.c
 *	  Patterns that are made of literals and gaps, found in the bytes of a
 *	  subject.
 *
 * - A comparison of bytes stands for one of characters only where no character
 *	 can begin inside another: in UTF8 and in encodings of one byte.  Subjects
 *	 are valid in the encoding of the database, as the server sees to.
 * - Case is folded here only where subject and pattern are all ASCII, and
 *	 lower() and upper() under the collation do with ASCII what C does; Turkish
 *	 does not.  How ASCII alone is folded depends on no context in any locale.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"
#include "pattern.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/formatting.h"

/* Lower case for ASCII; all else as it is. */
static inline unsigned char
fold(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/* Whether all bytes are ASCII; eight at a time. */
bool
lc_is_ascii(const char *s, int len)
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
double
lc_frequency(unsigned char c)
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

/* Whether the bytes there are those of the piece; there are as many. */
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
bool
lc_match_pieces(const Prepared *p, const char *s, int len)
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

/*
 * Add a literal, behind those that are there.
 */
void
lc_add_piece(Prepared *p, const char *bytes, int len)
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
		if (lc_frequency(copy[i]) < lc_frequency(copy[piece->rarest]))
			piece->rarest = i;
	}
}

/*
 * Whether lower() and upper() under the collation do with ASCII what C does.
 */
bool
lc_folds_ascii_plainly(Oid collation)
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
bool
lc_bytes_are_searchable(void)
{
	return pg_database_encoding_max_length() == 1 || GetDatabaseEncoding() == PG_UTF8;
}

/*
 * Make pieces of a LIKE pattern, if it consists of literals and % only.
 */
void
lc_prepare_like(Prepared *p, bool folds)
{
	const char *s = p->pattern;
	const char *end = s + p->pattern_len;

	if (!lc_bytes_are_searchable() || memchr(s, '\\', p->pattern_len) || memchr(s, '_', p->pattern_len))
		return;
	if (folds && (!lc_is_ascii(s, p->pattern_len) || !lc_folds_ascii_plainly(p->collation)))
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
			lc_add_piece(p, s, gap - s);
		s = gap + 1;
	}
	p->way = BY_PIECES;
}
