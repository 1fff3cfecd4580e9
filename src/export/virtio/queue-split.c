/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Split rings: virtio 1.2, section 2.7. */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "export/virtio/queue-internal.h"

static struct inflight_split *table_of(const struct virtqueue *queue)
{
    return (struct inflight_split *)(void *)queue->setup.inflight;
}

/* What was given back by the last batch may still be marked as in flight: the ring knows better. */
static void finish_last_batch(struct virtqueue *queue, struct inflight_split *table)
{
    uint16_t at = inflight_load16(&table->last_batch_head);
    uint16_t left = (uint16_t)(queue->used_index - inflight_load16(&table->used_index));

    for (; left && at < queue->setup.size; left--) {
        __atomic_store_n(&table->entries[at].inflight, 0, __ATOMIC_RELAXED);
        at = inflight_load16(&table->entries[at].next);
    }
    inflight_store16(&table->used_index, queue->used_index);
}

/* A table that has been used knows better than the front end where the ring goes on: what is in flight was taken from
 * the places after the last one that was given back. */
static bool recover(struct virtqueue *queue, struct error **err)
{
    struct inflight_split *table = table_of(queue);

    if (!inflight_load16(&table->version)) {
        table->count = queue->setup.size;
        table->used_index = queue->used_index;
        inflight_store16(&table->version, INFLIGHT_VERSION);
        return true;
    }
    if (!virtqueue_check_inflight(queue, inflight_load16(&table->version), inflight_load16(&table->count), err))
        return false;
    finish_last_batch(queue, table);
    virtqueue_list_inflight(queue, table->entries, sizeof(table->entries[0]));
    queue->avail_index = (uint16_t)(queue->used_index + queue->resubmit_count);
    return true;
}

static bool start(struct virtqueue *queue, uint32_t base, struct error **err)
{
    queue->avail_index = (uint16_t)base;
    queue->used_index = shared_load16(queue->device_area + VIRTQ_SPLIT_INDEX, __ATOMIC_RELAXED);
    return !queue->setup.inflight || recover(queue, err);
}

static bool has_available(const struct virtqueue *queue)
{
    return shared_load16(queue->driver_area + VIRTQ_SPLIT_INDEX, __ATOMIC_ACQUIRE) != queue->avail_index;
}

/* The head of the next chain: 1, 0 or -EIO. */
static int next_head(struct virtqueue *queue, uint16_t *ret)
{
    uint16_t size = queue->setup.size;
    uint16_t ready;

    if (unlikely(queue->resubmit_next < queue->resubmit_count)) {
        *ret = queue->resubmit[queue->resubmit_next++];
        return 1;
    }
    ready = (uint16_t)(shared_load16(queue->driver_area + VIRTQ_SPLIT_INDEX, __ATOMIC_ACQUIRE) - queue->avail_index);
    if (!ready)
        return 0;
    if (ready > size) {
        virtqueue_break(queue, "available index is %u beyond the last one, in a ring of %u", ready, size);
        return -EIO;
    }
    *ret = shared_load16(queue->driver_area + VIRTQ_SPLIT_ENTRIES +
                             (size_t)(queue->avail_index % size) * VIRTQ_SPLIT_AVAIL_BYTES,
                         __ATOMIC_RELAXED);
    if (*ret >= size) {
        virtqueue_break(queue, "available descriptor %u of %u", *ret, size);
        return -EIO;
    }
    if (queue->setup.inflight) {
        struct inflight_split_entry *entry = &table_of(queue)->entries[*ret];

        entry->counter = queue->counter++;
        __atomic_store_n(&entry->inflight, 1, __ATOMIC_RELEASE);
    }
    queue->avail_index++;
    return 1;
}

static int pop(struct virtqueue *queue, struct virtq_buffer *ret)
{
    uint16_t size = queue->setup.size;
    uint16_t at;
    int result = next_head(queue, &at);

    if (result <= 0)
        return result;
    ret->id = ret->entry = at;
    for (unsigned steps = 0;; steps++) {
        struct virtq_descriptor one;

        if (at >= size || steps >= MIN(size, VIRTQ_CHAIN_MAX)) {
            virtqueue_break(queue, "chain of descriptor %u leads to number %u of %u after %u steps", ret->id, at, size,
                            steps);
            return -EIO;
        }
        one = virtq_descriptor_load(queue->descriptors + (size_t)at * VIRTQ_DESCRIPTOR_BYTES, false);
        if (one.flags & VIRTQ_INDIRECT) {
            if (!queue->setup.indirect) {
                virtqueue_break(queue, "indirect descriptor %u, which was not negotiated", at);
                return -EIO;
            }
            return virtq_buffer_add_table(queue, ret, &one) ? 1 : -EIO;
        }
        virtq_buffer_add(queue, ret, &one);
        if (!(one.flags & VIRTQ_NEXT))
            return 1;
        at = one.next;
    }
}

static void push(struct virtqueue *queue, const struct virtq_done *done)
{
    uint64_t offset = VIRTQ_SPLIT_ENTRIES + (uint64_t)(queue->used_index % queue->setup.size) * VIRTQ_SPLIT_USED_BYTES;
    uint8_t *entry = queue->device_area + offset;
    struct inflight_split *table = table_of(queue);

    if (table) {
        inflight_store16(&table->entries[done->entry].next, inflight_load16(&table->last_batch_head));
        inflight_store16(&table->last_batch_head, done->entry);
    }
    store_le32(entry, done->id);
    store_le32(entry + 4, done->written);
    queue->used_index++;
    shared_store16(queue->device_area + VIRTQ_SPLIT_INDEX, queue->used_index, __ATOMIC_RELEASE);
    if (table) {
        __atomic_store_n(&table->entries[done->entry].inflight, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&table->used_index, queue->used_index, __ATOMIC_RELEASE);
    }
    virtqueue_log_used(queue, offset, VIRTQ_SPLIT_USED_BYTES);
    virtqueue_log_used(queue, VIRTQ_SPLIT_INDEX, 2);
}

static bool must_notify(struct virtqueue *queue, uint32_t fresh, bool first)
{
    const uint8_t *driver = queue->driver_area;

    if (!queue->setup.event_index)
        return !(shared_load16(driver + VIRTQ_SPLIT_FLAGS, __ATOMIC_RELAXED) & VIRTQ_SPLIT_AVAIL_NO_INTERRUPT);
    return first || virtq_event_passed(shared_load16(driver + VIRTQ_SPLIT_ENTRIES +
                                                         (size_t)queue->setup.size * VIRTQ_SPLIT_AVAIL_BYTES,
                                                     __ATOMIC_RELAXED),
                                       queue->used_index, (uint16_t)(queue->used_index - fresh));
}

static void want_kicks(struct virtqueue *queue, bool wanted)
{
    uint64_t event_offset = VIRTQ_SPLIT_ENTRIES + (uint64_t)queue->setup.size * VIRTQ_SPLIT_USED_BYTES;

    if (!queue->setup.event_index) {
        shared_store16(queue->device_area + VIRTQ_SPLIT_FLAGS, wanted ? 0 : VIRTQ_SPLIT_USED_NO_NOTIFY,
                       __ATOMIC_RELAXED);
        virtqueue_log_used(queue, VIRTQ_SPLIT_FLAGS, 2);
    } else if (wanted) {
        shared_store16(queue->device_area + event_offset, queue->avail_index, __ATOMIC_RELAXED);
        virtqueue_log_used(queue, event_offset, VIRTQ_SPLIT_EVENT_BYTES);
    }
    if (wanted)
        virtq_fence();
}

static uint32_t base_of(const struct virtqueue *queue)
{
    return queue->avail_index;
}

const struct virtqueue_ops virtqueue_split_ops = {
    .start = start,
    .has_available = has_available,
    .pop = pop,
    .push = push,
    .must_notify = must_notify,
    .want_kicks = want_kicks,
    .base = base_of,
    .area_sizes = virtq_split_area_sizes,
};
