/*-------------------------------------------------------------------------
 *
 * segment.c
 *	  A source and a cohort, as the flow of a program counts them.
 *
 * Only so many sources are told apart, or a CRM that notes a search term as the
 * source would have a flow as large as its history.
 *
 *-------------------------------------------------------------------------
 */
#include "flow.h"

#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "common/sha2.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(lifecycle_flow_key);

/* ---- keys ---- */

static void
update(pg_cryptohash_ctx *ctx, const void *data, Size length)
{
	if (pg_cryptohash_update(ctx, data, length) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
}

/* The first 16 bytes of a SHA-256 over both, each preceded by whether it is there. */
static void
key_of(pg_uuid_t *key, const text *source, bool cohort_isnull, int32 cohort)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	char		bytes[6];

	if (ctx == NULL || pg_cryptohash_init(ctx) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	bytes[0] = cohort_isnull ? 0 : 1;
	for (int i = 0; i < 4; i++)
		bytes[1 + i] = cohort_isnull ? 0 : (char) ((uint32) cohort >> (8 * i));
	bytes[5] = source == NULL ? 0 : 1;
	update(ctx, bytes, sizeof(bytes));
	if (source != NULL)
		update(ctx, VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source));
	if (pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	pg_cryptohash_free(ctx);
	memcpy(key->data, digest, UUID_LEN);
}

/*
 * flow_key(source, cohort): what the cells of that source and cohort are found by.
 */
Datum
lifecycle_flow_key(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *key = palloc(sizeof(pg_uuid_t));

	key_of(key, PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0), PG_ARGISNULL(1), PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1));
	PG_RETURN_UUID_P(key);
}

/* ---- segments ---- */

/* The source is one of those that are told apart; no padding, since it is compared as it lies there. */
typedef struct Identity
{
	const text *source;
	int32		cohort_isnull;
	int32		cohort;
} Identity;

typedef struct Known
{
	Identity	identity;
	LcSegment  *segment;
	char		status;
} Known;

#define SH_PREFIX known
#define SH_ELEMENT_TYPE Known
#define SH_KEY_TYPE Identity
#define SH_KEY identity
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) &(key), sizeof(Identity))
#define SH_EQUAL(tb, a, b) (memcmp(&(a), &(b), sizeof(Identity)) == 0)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct LcSegments
{
	MemoryContext cxt;
	text	   *other;
	text	   *sources[LC_FLOW_SOURCES];	/* in the order of their bytes */
	int			nsources;
	known_hash *known;
};

/* No source is told apart as yet.  All is kept in the current memory context. */
LcSegments *
lc_segment_begin(void)
{
	LcSegments *segments = palloc0(sizeof(LcSegments));

	segments->cxt = CurrentMemoryContext;
	segments->other = cstring_to_text(LC_OTHER_SOURCES);
	segments->known = known_create(CurrentMemoryContext, 64, NULL);
	return segments;
}

/*
 * What the source is counted under: itself, when it is told apart or there is
 * room for one more.
 */
static const text *
counted_source(LcSegments *segments, const text *source)
{
	int			low = 0;
	int			high = segments->nsources;

	if (source == NULL)
		return NULL;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = lc_cell_compare_texts(segments->sources[middle], source);

		if (order == 0)
			return segments->sources[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (segments->nsources == LC_FLOW_SOURCES || lc_cell_is_other(source))
		return segments->other;
	memmove(&segments->sources[low + 1], &segments->sources[low], (segments->nsources++ - low) * sizeof(text *));
	segments->sources[low] = lc_cell_copy_text(segments->cxt, source);
	return segments->sources[low];
}

/*
 * What the two are counted under: always the same pointer for what is counted
 * together.
 */
const LcSegment *
lc_segment_of(LcSegments *segments, const text *source, bool cohort_isnull, int32 cohort)
{
	Identity	identity = {0};
	Known	   *known;
	bool		found;

	identity.source = counted_source(segments, source);
	identity.cohort_isnull = cohort_isnull;
	identity.cohort = cohort_isnull ? 0 : cohort;
	known = known_insert(segments->known, identity, &found);
	if (!found)
	{
		known->segment = MemoryContextAlloc(segments->cxt, sizeof(LcSegment));
		known->segment->source = unconstify(text *, identity.source);
		known->segment->cohort_isnull = cohort_isnull;
		known->segment->cohort = identity.cohort;
		key_of(&known->segment->key, identity.source, cohort_isnull, identity.cohort);
	}
	return known->segment;
}
