/*-------------------------------------------------------------------------
 *
 * cohort.c
 *	  The stable pseudo-random test group of a lead.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "port/pg_bswap.h"

PG_FUNCTION_INFO_V1(lifecycle_cohort);

/*
 * cohort(lead, cohorts, salt): the first 8 bytes of
 * sha256(salt || U+001F || lead), as an unsigned big-endian number, modulo
 * the number of cohorts.
 */
Datum
lifecycle_cohort(PG_FUNCTION_ARGS)
{
	text	   *lead = PG_GETARG_TEXT_PP(0);
	int32		cohorts = PG_GETARG_INT32(1);
	text	   *salt = PG_GETARG_TEXT_PP(2);
	static const uint8 separator = 0x1F;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint64		number;
	pg_cryptohash_ctx *ctx;

	if (cohorts < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of cohorts must be at least 1, not %d", cohorts)));
	ctx = pg_cryptohash_create(PG_SHA256);
	if (ctx == NULL || pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, (uint8 *) VARDATA_ANY(salt), VARSIZE_ANY_EXHDR(salt)) < 0 ||
		pg_cryptohash_update(ctx, &separator, 1) < 0 ||
		pg_cryptohash_update(ctx, (uint8 *) VARDATA_ANY(lead), VARSIZE_ANY_EXHDR(lead)) < 0 ||
		pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	pg_cryptohash_free(ctx);
	memcpy(&number, digest, sizeof(number));
	PG_RETURN_INT32((int32) (pg_ntoh64(number) % (uint64) cohorts));
}
