/*-------------------------------------------------------------------------
 *
 * merge.c
 *	  What refresh() needs of C: one merge of a flow at a time, and the key of
 *	  what is counted together.
 *
 *-------------------------------------------------------------------------
 */
#include "lifecycle.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(lifecycle_lock_flow);
PG_FUNCTION_INFO_V1(lifecycle_flow_key);

/*
 * lock_flow(program): wait until nobody else merges the program's flow, and keep
 * others from it until the transaction ends.  The lock is one on the program as
 * an object, which conflicts with nothing but itself.
 */
Datum
lifecycle_lock_flow(PG_FUNCTION_ARGS)
{
	/* rather than an error about the mode of a lock */
	PreventCommandDuringRecovery("lifecycle.refresh()");
	LockDatabaseObject(lc_config_relid("program"), PG_GETARG_INT32(0), 0, ShareUpdateExclusiveLock);
	PG_RETURN_VOID();
}

static void
update(pg_cryptohash_ctx *ctx, const void *data, Size length)
{
	if (pg_cryptohash_update(ctx, data, length) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
}

/* Length and bytes, so that no two sequences of values look alike. */
static void
update_text(pg_cryptohash_ctx *ctx, const text *value)
{
	int32		length = value == NULL ? -1 : (int32) VARSIZE_ANY_EXHDR(value);

	update(ctx, &length, sizeof(length));
	if (length > 0)
		update(ctx, VARDATA_ANY(value), length);
}

/*
 * flow_key(source, cohort, from_status, to_status, reached): the first 16 bytes
 * of a SHA-256 over them.
 */
Datum
lifecycle_flow_key(PG_FUNCTION_ARGS)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	int64		cohort = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT32(1);
	pg_uuid_t  *key = palloc(sizeof(pg_uuid_t));

	if (ctx == NULL || pg_cryptohash_init(ctx) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	update_text(ctx, PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0));
	update(ctx, &cohort, sizeof(cohort));
	update_text(ctx, PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2));
	update_text(ctx, PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3));
	if (!PG_ARGISNULL(4))
	{
		Datum	   *labels;
		bool	   *nulls;
		int			n;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(4), TEXTOID, -1, false, TYPALIGN_INT, &labels, &nulls, &n);
		for (int i = 0; i < n; i++)
			update_text(ctx, nulls[i] ? NULL : DatumGetTextPP(labels[i]));
	}
	if (pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	pg_cryptohash_free(ctx);
	memcpy(key->data, digest, UUID_LEN);
	PG_RETURN_UUID_P(key);
}
