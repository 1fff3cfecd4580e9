/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Packed rings: virtio 1.2, section 2.8. */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "export/virtio/queue-internal.h"

static struct inflight_packed *table_of(const struct virtqueue *queue)
{
    return (struct inflight_packed *)(void *)queue->setup.inflight;
}

static bool flags_are_available(uint16_t flags, bool wrap)
{
    return !!(flags & VIRTQ_PACKED_AVAIL) == wrap && !!(flags & VIRTQ_PACKED_USED) != wrap;
}

static void table_begin(struct virtqueue *queue, struct inflight_packed *table)
{
    table->count = queue->setup.size;
    table->used_wrap = table->old_used_wrap = 1;
    for (uint16_t i = 0; i < queue->setup.size; i++)
        table->entries[i].next = (uint16_t)(i + 1);
    table->version = INFLIGHT_VERSION;
}

/* Commits or takes back what the last device was doing when it went. */
static void settle(struct virtqueue *queue, struct inflight_packed *table)
{
    if (table->used_index != table->old_used_index && table->old_used_index < queue->setup.size) {
        uint16_t flags = shared_load16(queue->descriptors + (size_t)table->old_used_index * VIRTQ_DESCRIPTOR_BYTES +
                                           VIRTQ_PACKED_FLAGS,
                                       __ATOMIC_ACQUIRE);

        if (!flags_are_available(flags, table->old_used_wrap)) {
            table->old_free_head = table->free_head;
            table->old_used_index = table->used_index;
            table->old_used_wrap = table->used_wrap;
        }
    }
    table->free_head = table->old_free_head;
    table->used_index = table->old_used_index;
    table->used_wrap = table->old_used_wrap;
    for (uint16_t at = table->free_head, left = queue->setup.size; at < queue->setup.size && left; left--) {
        table->entries[at].inflight = 0;
        at = table->entries[at].next;
    }
}

static bool recover(struct virtqueue *queue, struct error **err)
{
    struct inflight_packed *table = table_of(queue);
    uint32_t taken = 0;

    if (!table->version)
        table_begin(queue, table);
    if (!virtqueue_check_inflight(queue, table->version, table->count, err))
        return false;
    settle(queue, table);
    virtqueue_list_inflight(queue, table->entries, sizeof(table->entries[0]));
    for (unsigned i = 0; i < queue->resubmit_count; i++)
        taken += table->entries[queue->resubmit[i]].count;
    if (taken > queue->setup.size || table->used_index >= queue->setup.size)
        return error_set(err, "Table of requests in flight holds %u descriptors from place %u of a ring of %u", taken,
                         table->used_index, queue->setup.size);
    if (queue->resubmit_count || table->used_index || !table->used_wrap) {
        queue->used_index = queue->avail_index = table->used_index;
        queue->used_wrap = queue->avail_wrap = table->used_wrap;
        virtq_packed_advance(&queue->avail_index, &queue->avail_wrap, (uint16_t)taken, queue->setup.size);
    }
    return true;
}

/* `base`: the place to look at and its wrap bit, then the same of the next used one. 0: a new ring, both wraps set. */
static bool start(struct virtqueue *queue, uint32_t base, struct error **err)
{
    uint16_t avail = (uint16_t)base;
    uint16_t used = (uint16_t)(base >> 16);

    queue->avail_index = avail & (VIRTQ_PACKED_WRAP - 1);
    queue->used_index = used & (VIRTQ_PACKED_WRAP - 1);
    queue->avail_wrap = !base || avail & VIRTQ_PACKED_WRAP;
    queue->used_wrap = !base || used & VIRTQ_PACKED_WRAP;
    if (queue->avail_index >= queue->setup.size || queue->used_index >= queue->setup.size)
        return error_set(err, "Queue of %u places cannot go on at 0x%x", queue->setup.size, base);
    return !queue->setup.inflight || recover(queue, err);
}

/* Notes a descriptor in the table; false: the table is not as we left it. */
static bool table_take(struct virtqueue *queue, const struct virtq_descriptor *one, bool first, bool last)
{
    struct inflight_packed *table = table_of(queue);
    uint16_t head;
    uint16_t at;

    if (!table)
        return true;
    head = table->old_free_head;
    at = table->free_head;
    if (head >= queue->setup.size || at >= queue->setup.size)
        return false;
    if (first) {
        table->entries[head].count = 0;
        table->entries[head].counter = queue->counter++;
    }
    if (last)
        table->entries[head].last = at;
    table->entries[head].count++;
    table->entries[at].address = one->address;
    table->entries[at].length = one->length;
    table->entries[at].flags = one->flags;
    table->entries[at].id = one->next;
    table->free_head = table->entries[at].next;
    if (last) {
        __atomic_store_n(&table->entries[head].inflight, 1, __ATOMIC_RELEASE);
        table->old_free_head = table->free_head;
    }
    return true;
}

/* Adds a descriptor of the ring to a buffer; false: the queue is broken. */
static bool add(struct virtqueue *queue, struct virtq_buffer *buffer, const struct virtq_descriptor *one)
{
    if (!(one->flags & VIRTQ_INDIRECT)) {
        virtq_buffer_add(queue, buffer, one);
        return true;
    }
    if (!queue->setup.indirect) {
        virtqueue_break(queue, "indirect descriptor, which was not negotiated");
        return false;
    }
    return virtq_buffer_add_table(queue, buffer, one);
}

/* What was in flight when the last device went is in the table. */
static int pop_again(struct virtqueue *queue, struct virtq_buffer *ret)
{
    const struct inflight_packed *table = table_of(queue);
    uint16_t head = queue->resubmit[queue->resubmit_next++];
    uint16_t count = table->entries[head].count;
    uint16_t at = head;

    ret->entry = head;
    ret->slots = count;
    for (uint16_t i = 0; i < count; i++) {
        struct virtq_descriptor one;

        if (at >= queue->setup.size) {
            virtqueue_break(queue, "table of requests in flight leads to number %u of %u", at, queue->setup.size);
            return -EIO;
        }
        one = (struct virtq_descriptor){.address = table->entries[at].address,
                                        .length = table->entries[at].length,
                                        .flags = table->entries[at].flags};
        ret->id = table->entries[at].id;
        if (!add(queue, ret, &one))
            return -EIO;
        at = table->entries[at].next;
    }
    if (!count || ret->id >= queue->setup.size) {
        virtqueue_break(queue, "table of requests in flight: chain of %u with id %u of %u", count, ret->id,
                        queue->setup.size);
        return -EIO;
    }
    return 1;
}

static bool has_available(const struct virtqueue *queue)
{
    const uint8_t *next = queue->descriptors + (size_t)queue->avail_index * VIRTQ_DESCRIPTOR_BYTES;

    return flags_are_available(shared_load16(next + VIRTQ_PACKED_FLAGS, __ATOMIC_ACQUIRE), queue->avail_wrap);
}

static int pop(struct virtqueue *queue, struct virtq_buffer *ret)
{
    uint16_t index = queue->avail_index;
    bool wrap = queue->avail_wrap;
    struct virtq_descriptor one;

    if (unlikely(queue->resubmit_next < queue->resubmit_count))
        return pop_again(queue, ret);
    if (!has_available(queue))
        return 0;
    if (table_of(queue))
        ret->entry = table_of(queue)->old_free_head;
    for (ret->slots = 1;; ret->slots++) {
        bool last;

        if (ret->slots > queue->setup.size) {
            virtqueue_break(queue, "chain of more descriptors than the ring has places: %u", queue->setup.size);
            return -EIO;
        }
        one = virtq_descriptor_load(queue->descriptors + (size_t)index * VIRTQ_DESCRIPTOR_BYTES, true);
        last = !(one.flags & VIRTQ_NEXT);
        if (!add(queue, ret, &one))
            return -EIO;
        if (!table_take(queue, &one, ret->slots == 1, last)) {
            virtqueue_break(queue, "table of requests in flight has been changed by somebody else");
            return -EIO;
        }
        virtq_packed_advance(&index, &wrap, 1, queue->setup.size);
        if (last)
            break;
    }
    ret->id = one.next;
    if (ret->id >= queue->setup.size) {
        virtqueue_break(queue, "buffer id %u in a ring of %u", ret->id, queue->setup.size);
        return -EIO;
    }
    queue->avail_index = index;
    queue->avail_wrap = wrap;
    return 1;
}

static void table_give_back(struct virtqueue *queue, const struct virtq_done *done)
{
    struct inflight_packed *table = table_of(queue);
    uint16_t last = table->entries[done->entry].last;

    if (last < queue->setup.size)
        table->entries[last].next = table->free_head;
    table->free_head = done->entry;
    table->used_index = queue->used_index;
    table->used_wrap = queue->used_wrap;
}

static void table_committed(struct virtqueue *queue, const struct virtq_done *done)
{
    struct inflight_packed *table = table_of(queue);

    __atomic_store_n(&table->entries[done->entry].inflight, 0, __ATOMIC_RELEASE);
    table->old_free_head = table->free_head;
    table->old_used_index = table->used_index;
    table->old_used_wrap = table->used_wrap;
}

static void push(struct virtqueue *queue, const struct virtq_done *done)
{
    uint64_t offset = (uint64_t)queue->used_index * VIRTQ_DESCRIPTOR_BYTES;
    uint8_t *at = queue->descriptors + offset;
    uint16_t flags = queue->used_wrap ? VIRTQ_PACKED_AVAIL | VIRTQ_PACKED_USED : 0;

    virtq_packed_advance(&queue->used_index, &queue->used_wrap, done->slots, queue->setup.size);
    if (queue->setup.inflight)
        table_give_back(queue, done);
    store_le16(at + VIRTQ_PACKED_ID, done->id);
    store_le32(at + VIRTQ_PACKED_LENGTH, done->written);
    shared_store16(at + VIRTQ_PACKED_FLAGS, (uint16_t)(flags | (done->written ? VIRTQ_WRITE : 0)), __ATOMIC_RELEASE);
    if (queue->setup.inflight)
        table_committed(queue, done);
    virtqueue_log_used(queue, offset, VIRTQ_DESCRIPTOR_BYTES);
}

static bool must_notify(struct virtqueue *queue, uint32_t fresh, bool first)
{
    uint16_t size = queue->setup.size;
    uint16_t flags = shared_load16(queue->driver_area + VIRTQ_PACKED_EVENT_FLAGS, __ATOMIC_RELAXED);

    if (flags != VIRTQ_PACKED_EVENT_AT || first)
        return flags != VIRTQ_PACKED_EVENT_DISABLE;
    /* Once around the ring passes every place. */
    return fresh >= size ||
           virtq_packed_event_passed(shared_load16(queue->driver_area + VIRTQ_PACKED_EVENT_OFFSET, __ATOMIC_RELAXED),
                                     queue->used_index, queue->used_wrap, (uint16_t)fresh, size);
}

static void want_kicks(struct virtqueue *queue, bool wanted)
{
    shared_store16(queue->device_area + VIRTQ_PACKED_EVENT_FLAGS,
                   wanted ? VIRTQ_PACKED_EVENT_ENABLE : VIRTQ_PACKED_EVENT_DISABLE, __ATOMIC_RELAXED);
    if (wanted)
        virtq_fence();
}

static uint32_t base_of(const struct virtqueue *queue)
{
    uint32_t avail = queue->avail_index | (queue->avail_wrap ? VIRTQ_PACKED_WRAP : 0);
    uint32_t used = queue->used_index | (queue->used_wrap ? VIRTQ_PACKED_WRAP : 0);

    return avail | used << 16;
}

const struct virtqueue_ops virtqueue_packed_ops = {
    .start = start,
    .has_available = has_available,
    .pop = pop,
    .push = push,
    .must_notify = must_notify,
    .want_kicks = want_kicks,
    .base = base_of,
    .area_sizes = virtq_packed_area_sizes,
};
