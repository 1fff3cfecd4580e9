/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clusters on their way from use to free. Dropped: no table in memory names them. Durable: none on disk does, either.
 * Resting: a grace period runs, at the end of which no request is left that found them in a table before they were
 * dropped. Then their counts are lowered, and they may be handed out again.
 *
 * A grace period counts up the epoch of each shard. Requests hold their shard in the epoch in which they looked; when
 * none holds the epoch before, it is over. Nobody waits for that: later write-backs look again.
 */
#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "driver/format/qcow2/qcow2.h"

/* Neighbours become one; but not inside a cluster, where each of two compressed ones has a reference of its own. */
static void list_add(const struct qcow2_image *image, struct qcow2_freed_list *list, struct qcow2_freed freed)
{
    struct qcow2_freed *last = list->count ? &list->items[list->count - 1] : NULL;

    if (last && last->reason == freed.reason && last->offset + last->bytes == freed.offset &&
        is_aligned(freed.offset, image->cluster_size)) {
        last->bytes += freed.bytes;
        return;
    }
    if (list->count == list->capacity) {
        list->capacity = MAX(list->capacity * 2, 16);
        list->items = g_renew(struct qcow2_freed, list->items, list->capacity);
    }
    list->items[list->count++] = freed;
}

static void list_append(const struct qcow2_image *image, struct qcow2_freed_list *list,
                        const struct qcow2_freed_list *from)
{
    for (size_t i = 0; i < from->count; i++)
        list_add(image, list, from->items[i]);
}

void qcow2_free_clusters(struct qcow2_image *image, uint64_t offset, uint64_t bytes, enum qcow2_free_reason reason)
{
    spin_lock(&image->freed_spin);
    list_add(image, &image->dropped, (struct qcow2_freed){.offset = offset, .bytes = bytes, .reason = reason});
    spin_unlock(&image->freed_spin);
}

bool qcow2_has_dropped(struct qcow2_image *image)
{
    bool any;

    spin_lock(&image->freed_spin);
    any = image->dropped.count;
    spin_unlock(&image->freed_spin);
    return any || image->durable.count || image->resting.count;
}

void qcow2_freed_forget(struct qcow2_image *image)
{
    spin_lock(&image->freed_spin);
    image->dropped.count = 0;
    spin_unlock(&image->freed_spin);
    image->durable.count = 0;
    image->resting.count = 0;
}

struct qcow2_freed_list qcow2_take_dropped(struct qcow2_image *image)
{
    struct qcow2_freed_list taken;

    spin_lock(&image->freed_spin);
    taken = image->dropped;
    image->dropped = (struct qcow2_freed_list){0};
    spin_unlock(&image->freed_spin);
    return taken;
}

void qcow2_return_dropped(struct qcow2_image *image, struct qcow2_freed_list *taken)
{
    spin_lock(&image->freed_spin);
    list_append(image, &image->dropped, taken);
    spin_unlock(&image->freed_spin);
    g_free(TAKE(taken->items));
}

/* --- grace periods; under write_back_lock --- */

static void grace_begin(struct qcow2_image *image)
{
    for (uint32_t i = 0; i < image->l2->shard_count; i++) {
        struct qcow2_shard *shard = &image->l2->shards[i];

        spin_lock(&shard->spin);
        assert(!__atomic_load_n(&shard->holds[(shard->epoch + 1) & 1], __ATOMIC_ACQUIRE));
        shard->epoch++;
        spin_unlock(&shard->spin);
    }
}

static bool grace_over(const struct qcow2_image *image)
{
    for (uint32_t i = 0; i < image->l2->shard_count; i++) {
        const struct qcow2_shard *shard = &image->l2->shards[i];

        /* Only we change the epoch. */
        if (__atomic_load_n(&shard->holds[(shard->epoch + 1) & 1], __ATOMIC_ACQUIRE))
            return false;
    }
    return true;
}

/* --- lowering the counts --- */

/* From `cluster` on, up to `end`: how many whole clusters will have count 0 and may lose their storage. */
static int CO_FN co_count_last_uses(struct qcow2_image *image, uint64_t cluster, uint64_t end, bool *ret_last,
                                    uint64_t *ret_count)
{
    uint64_t first = cluster, count;
    int ret = 0;

    for (; cluster < end; cluster++) {
        ret = co_qcow2_refcount_get(image, cluster << image->cluster_bits, &count);
        if (ret)
            break;
        if (cluster == first)
            *ret_last = count == 1;
        else if ((count == 1) != *ret_last)
            break;
    }
    *ret_count = cluster - first;
    return *ret_count ? 0 : ret;
}

static int CO_FN co_lower(struct qcow2_image *image, const struct qcow2_freed *freed)
{
    uint64_t cluster = freed->offset >> image->cluster_bits;
    uint64_t end = (freed->offset + freed->bytes + image->cluster_size - 1) >> image->cluster_bits;

    co_edge_event(image->file, BLKDEBUG_EVENT_CLUSTER_FREE);
    co_qcow2_alloc_stop_sharing(image, cluster << image->cluster_bits, (end - cluster) << image->cluster_bits);
    while (cluster < end) {
        uint64_t count = end - cluster;
        bool last = false;
        int ret = 0;

        if (image->settings.pass_discard[freed->reason])
            ret = co_count_last_uses(image, cluster, end, &last, &count);
        /* Before the count falls: from then on somebody else may write there. A hint, which may fail. */
        if (!ret && last)
            (void)co_edge_pdiscard(image->file, cluster << image->cluster_bits, count << image->cluster_bits);
        if (!ret)
            ret = co_qcow2_refcount_add(image, cluster << image->cluster_bits, count << image->cluster_bits, -1);
        if (ret)
            return ret;
        cluster += count;
    }
    return 0;
}

/* What fails stays a leak: nothing names it. */
static void CO_FN co_lower_resting(struct qcow2_image *image)
{
    qcow2_compressed_forget(image);
    for (size_t i = 0; i < image->resting.count; i++) {
        if (co_lower(image, &image->resting.items[i]))
            break;
    }
    image->resting.count = 0;
}

void CO_FN co_qcow2_release_durable(struct qcow2_image *image, struct qcow2_freed_list *taken)
{
    if (taken) {
        list_append(image, &image->durable, taken);
        g_free(TAKE(taken->items));
    }
    for (int i = 0; i < 2; i++) {
        if (image->resting.count && grace_over(image))
            co_lower_resting(image);
        if (image->resting.count || !image->durable.count || !grace_over(image))
            return;
        list_append(image, &image->resting, &image->durable);
        image->durable.count = 0;
        grace_begin(image);
    }
}
