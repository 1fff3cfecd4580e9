/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands on dirty bitmaps: each is a transaction of one action. */
#include <string.h>

#include "base/bitmap.h"
#include "block/dirty-bitmap-action.h"
#include "block/dirty-bitmap.h"
#include "block/transaction.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "loop/loop.h"
#include "qmp/daemon.h"

bool CO_FN co_qmp_block_dirty_bitmap_add(struct daemon *daemon, const struct block_dirty_bitmap_add *arg,
                                         struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, co_dirty_bitmap_do_add(transaction, daemon->graph, arg, err));
}

bool CO_FN co_qmp_block_dirty_bitmap_remove(struct daemon *daemon, const struct block_dirty_bitmap *arg,
                                            struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, co_dirty_bitmap_do_remove(transaction, daemon->graph, arg, err));
}

bool CO_FN co_qmp_block_dirty_bitmap_clear(struct daemon *daemon, const struct block_dirty_bitmap *arg,
                                           struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, dirty_bitmap_do_clear(transaction, daemon->graph, arg, err));
}

bool CO_FN co_qmp_block_dirty_bitmap_enable(struct daemon *daemon, const struct block_dirty_bitmap *arg,
                                            struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, dirty_bitmap_do_enable(transaction, daemon->graph, arg, err));
}

bool CO_FN co_qmp_block_dirty_bitmap_disable(struct daemon *daemon, const struct block_dirty_bitmap *arg,
                                             struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, dirty_bitmap_do_disable(transaction, daemon->graph, arg, err));
}

bool CO_FN co_qmp_block_dirty_bitmap_merge(struct daemon *daemon, const struct block_dirty_bitmap_merge *arg,
                                           struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, dirty_bitmap_do_merge(transaction, daemon->graph, arg, err));
}

struct hash_work {
    const struct bitmap *bits;
    GChecksum *checksum;
};

/* What is hashed is the bits in bytes, up to a multiple of 8 of them. */
static int hash_bits(void *opaque)
{
    enum { STEP_BITS = 8 * 65536, UNIT_BYTES = 8 };
    struct hash_work *work = opaque;
    uint64_t size = bitmap_size(work->bits);
    g_autofree uint8_t *bytes = g_malloc(STEP_BITS / 8);

    for (uint64_t at = 0; at < size; at += STEP_BITS) {
        uint64_t now = MIN(STEP_BITS, size - at);
        size_t used = (now + 7) / 8, rounded = (used + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;

        bitmap_store(work->bits, at, now, bytes);
        memset(bytes + used, 0, rounded - used);
        g_checksum_update(work->checksum, bytes, (gssize)rounded);
    }
    return 0;
}

bool CO_FN co_qmp_x_debug_block_dirty_bitmap_sha256(struct daemon *daemon, const struct block_dirty_bitmap *arg,
                                                    struct block_dirty_bitmap_sha256 **ret, struct error **err)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_lookup(daemon->graph, arg->node, arg->name, err);
    AUTO(bitmap) bits = NULL;
    struct hash_work work;

    if (!bitmap)
        return false;
    bits = dirty_bitmap_copy_bits(bitmap);
    work = (struct hash_work){.bits = bits, .checksum = g_checksum_new(G_CHECKSUM_SHA256)};
    /* Those of a large disk take their time. */
    (void)co_worker_run(hash_bits, &work);
    *ret = g_new0(struct block_dirty_bitmap_sha256, 1);
    (*ret)->sha256 = g_strdup(g_checksum_get_string(work.checksum));
    g_checksum_free(work.checksum);
    return true;
}
