/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Packed rings: virtio 1.2, section 2.8. */
#include <assert.h>
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

static union inflight_used load_used(const struct inflight_packed *table)
{
    return (union inflight_used){.word = __atomic_load_n(&table->used.word, __ATOMIC_ACQUIRE)};
}

static void store_used(struct inflight_packed *table, union inflight_used used)
{
    __atomic_store_n(&table->used.word, used.word, __ATOMIC_RELEASE);
}

/* A table for a ring that goes on where it stands: nothing is in flight. */
static void table_begin(struct virtqueue *queue, struct inflight_packed *table)
{
    table->count = queue->setup.size;
    table->free_head = table->old_free_head = 0;
    store_used(table, (union inflight_used){.index = queue->used_index,
                                            .old_index = queue->used_index,
                                            .wrap = queue->used_wrap,
                                            .old_wrap = queue->used_wrap});
    for (uint16_t i = 0; i < queue->setup.size; i++)
        table->entries[i].next = (uint16_t)(i + 1);
    inflight_store16(&table->version, INFLIGHT_VERSION);
}

/* Whether the ring shows what the last device was giving back when it went. */
static bool was_given_back(const struct virtqueue *queue, union inflight_used used)
{
    const uint8_t *place = queue->descriptors + (size_t)used.old_index * VIRTQ_DESCRIPTOR_BYTES;

    if (used.index == used.old_index && used.wrap == used.old_wrap)
        return false;
    return !flags_are_available(shared_load16(place + VIRTQ_PACKED_FLAGS, __ATOMIC_ACQUIRE), used.old_wrap);
}

/* Commits or takes back what the last device was doing when it went; where the used places go on. */
static union inflight_used settle(struct virtqueue *queue, struct inflight_packed *table)
{
    union inflight_used used = load_used(table);
    uint16_t head = inflight_load16(&table->old_free_head);

    if (used.old_index < queue->setup.size && was_given_back(queue, used)) {
        head = inflight_load16(&table->free_head);
        inflight_store16(&table->old_free_head, head);
        used.old_index = used.index;
        used.old_wrap = used.wrap;
    } else {
        inflight_store16(&table->free_head, head);
        used.index = used.old_index;
        used.wrap = used.old_wrap;
    }
    store_used(table, used);
    queue->free_entry = head;
    for (uint16_t at = head, left = queue->setup.size; at < queue->setup.size && left; left--) {
        __atomic_store_n(&table->entries[at].inflight, 0, __ATOMIC_RELAXED);
        at = inflight_load16(&table->entries[at].next);
    }
    return used;
}

/* A table that has been used knows better than the front end where the ring goes on: that may be what was true when
 * the last device began. */
static bool recover(struct virtqueue *queue, struct error **err)
{
    struct inflight_packed *table = table_of(queue);
    union inflight_used used;
    uint32_t taken = 0;

    if (!inflight_load16(&table->version)) {
        table_begin(queue, table);
        return true;
    }
    if (!virtqueue_check_inflight(queue, inflight_load16(&table->version), inflight_load16(&table->count), err))
        return false;
    used = settle(queue, table);
    virtqueue_list_inflight(queue, table->entries, sizeof(table->entries[0]));
    for (unsigned i = 0; i < queue->resubmit_count; i++)
        taken += inflight_load16(&table->entries[queue->resubmit[i]].count);
    if (taken > queue->setup.size || used.index >= queue->setup.size)
        return error_set(err, "Table of requests in flight holds %u descriptors from place %u of a ring of %u", taken,
                         used.index, queue->setup.size);
    queue->used_index = queue->avail_index = used.index;
    queue->used_wrap = queue->avail_wrap = used.wrap;
    virtq_packed_advance(&queue->avail_index, &queue->avail_wrap, (uint16_t)taken, queue->setup.size);
    return true;
}

/*
 * `base`: the place to look at and its wrap bit, then the same of the next used one. 0: a new ring, where both wraps
 * are set, as some say, or the end of a round, when the first place has been used.
 */
static bool start(struct virtqueue *queue, uint32_t base, struct error **err)
{
    uint16_t avail = (uint16_t)base;
    uint16_t used = (uint16_t)(base >> 16);
    uint16_t flags = shared_load16(queue->descriptors + VIRTQ_PACKED_FLAGS, __ATOMIC_ACQUIRE);
    bool fresh = !base && !(flags & VIRTQ_PACKED_USED);

    queue->avail_index = avail & (VIRTQ_PACKED_WRAP - 1);
    queue->used_index = used & (VIRTQ_PACKED_WRAP - 1);
    queue->avail_wrap = fresh || avail & VIRTQ_PACKED_WRAP;
    queue->used_wrap = fresh || used & VIRTQ_PACKED_WRAP;
    if (queue->avail_index >= queue->setup.size || queue->used_index >= queue->setup.size)
        return error_set(err, "Queue of %u places cannot go on at 0x%x", queue->setup.size, base);
    return !queue->setup.inflight || recover(queue, err);
}

/* Notes a descriptor of a buffer, of which it is number buffer->slots; false: the table is not as we left it. */
static bool table_take(struct virtqueue *queue, const struct virtq_buffer *buffer, const struct virtq_descriptor *one,
                       bool last)
{
    struct inflight_packed *table = table_of(queue);
    uint16_t at = queue->free_entry;
    struct inflight_packed_entry *head;

    if (!table)
        return true;
    if (at >= queue->setup.size)
        return false;
    assert(buffer->entry < queue->setup.size);
    head = &table->entries[buffer->entry];
    if (buffer->slots == 1)
        head->counter = queue->counter++;
    head->count = buffer->slots;
    table->entries[at].address = one->address;
    table->entries[at].length = one->length;
    table->entries[at].flags = one->flags;
    table->entries[at].id = one->next;
    queue->free_entry = inflight_load16(&table->entries[at].next);
    inflight_store16(&table->free_head, queue->free_entry);
    if (!last)
        return true;
    head->last = at;
    __atomic_store_n(&head->inflight, 1, __ATOMIC_RELEASE);
    inflight_store16(&table->old_free_head, queue->free_entry);
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
    uint16_t count = inflight_load16(&table->entries[head].count);
    uint16_t at = head;

    ret->entry = head;
    ret->slots = count;
    for (uint16_t i = 0; i < count && count <= queue->setup.size; i++) {
        struct virtq_descriptor one;

        if (at >= queue->setup.size) {
            virtqueue_break(queue, "table of requests in flight leads to number %u of %u", at, queue->setup.size);
            return -EIO;
        }
        one = (struct virtq_descriptor){.address = __atomic_load_n(&table->entries[at].address, __ATOMIC_RELAXED),
                                        .length = __atomic_load_n(&table->entries[at].length, __ATOMIC_RELAXED),
                                        .flags = inflight_load16(&table->entries[at].flags)};
        ret->id = inflight_load16(&table->entries[at].id);
        if (!add(queue, ret, &one))
            return -EIO;
        at = inflight_load16(&table->entries[at].next);
    }
    if (!count || count > queue->setup.size || ret->id >= queue->setup.size) {
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
    /* A table that somebody has changed may have no free entry: table_take() says so. */
    ret->entry = MIN(queue->free_entry, queue->setup.size - 1);
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
        if (!table_take(queue, ret, &one, last)) {
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
    uint16_t last = inflight_load16(&table->entries[done->entry].last);
    union inflight_used used = load_used(table);

    if (last < queue->setup.size)
        inflight_store16(&table->entries[last].next, queue->free_entry);
    queue->free_entry = done->entry;
    inflight_store16(&table->free_head, queue->free_entry);
    used.index = queue->used_index;
    used.wrap = queue->used_wrap;
    store_used(table, used);
}

static void table_committed(struct virtqueue *queue, const struct virtq_done *done)
{
    struct inflight_packed *table = table_of(queue);

    __atomic_store_n(&table->entries[done->entry].inflight, 0, __ATOMIC_RELEASE);
    inflight_store16(&table->old_free_head, queue->free_entry);
    store_used(table, (union inflight_used){.index = queue->used_index,
                                            .old_index = queue->used_index,
                                            .wrap = queue->used_wrap,
                                            .old_wrap = queue->used_wrap});
}

/*
 * In one: who dies in between must not leave half of what the driver had put there. The thread sanitizer takes a load
 * of two of eight bytes for one of something else.
 */
static void store_done(uint8_t *at, const struct virtq_done *done, uint16_t flags)
{
#ifdef __SANITIZE_THREAD__
    store_le32(at + VIRTQ_PACKED_LENGTH, done->written);
    store_le16(at + VIRTQ_PACKED_ID, done->id);
    shared_store16(at + VIRTQ_PACKED_FLAGS, flags, __ATOMIC_RELEASE);
#else
    uint64_t word = done->written | (uint64_t)done->id << 32 | (uint64_t)flags << 48;

    __atomic_store_n((uint64_t *)(void *)(at + VIRTQ_PACKED_LENGTH), htole64(word), __ATOMIC_RELEASE);
#endif
}

static void push(struct virtqueue *queue, const struct virtq_done *done)
{
    uint64_t offset = (uint64_t)queue->used_index * VIRTQ_DESCRIPTOR_BYTES;
    uint8_t *at = queue->descriptors + offset;
    uint16_t flags = queue->used_wrap ? VIRTQ_PACKED_AVAIL | VIRTQ_PACKED_USED : 0;

    virtq_packed_advance(&queue->used_index, &queue->used_wrap, done->slots, queue->setup.size);
    if (queue->setup.inflight)
        table_give_back(queue, done);
    store_done(at, done, (uint16_t)(flags | (done->written ? VIRTQ_WRITE : 0)));
    if (queue->setup.inflight)
        table_committed(queue, done);
    virtqueue_log_ring(queue, at, VIRTQ_DESCRIPTOR_BYTES);
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
    virtqueue_log_ring(queue, queue->device_area, VIRTQ_PACKED_EVENT_BYTES);
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
