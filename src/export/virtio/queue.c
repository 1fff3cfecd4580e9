/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What does not depend on the kind of the ring: set-up, buffers, in-order, the log. */
#include "export/virtio/queue.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "export/virtio/dirty-log.h"
#include "export/virtio/queue-internal.h"

void virtqueue_break(struct virtqueue *queue, const char *format, ...)
{
    va_list list;

    if (queue->why)
        return;
    va_start(list, format);
    queue->why = g_strdup_vprintf(format, list);
    va_end(list);
}

bool virtqueue_broken(const struct virtqueue *queue)
{
    return queue->why;
}

const char *virtqueue_why(const struct virtqueue *queue)
{
    return queue->why;
}

static bool resolve(const struct guest_map *map, const char *what, uint64_t address, size_t size, size_t alignment,
                    uint8_t **ret, struct error **err)
{
    *ret = guest_map_find_user(map, address, size);
    if (!*ret)
        return error_set(err, "%s of a queue at 0x%" PRIx64 " (%zu bytes) is in no memory region", what, address, size);
    if (!is_aligned((uintptr_t)*ret, alignment) || !is_aligned(address, alignment))
        return error_set(err, "%s of a queue at 0x%" PRIx64 " is not aligned to %zu bytes", what, address, alignment);
    return true;
}

bool virtqueue_set_map(struct virtqueue *queue, struct guest_map *map, struct error **err)
{
    const struct virtqueue_setup *setup = &queue->setup;
    size_t sizes[3];
    uint8_t *areas[3];

    queue->ops->area_sizes(setup->size, &sizes[0], &sizes[1], &sizes[2]);
    if (!resolve(map, "descriptor area", setup->descriptors, sizes[0], VIRTQ_DESCRIPTOR_BYTES, &areas[0], err) ||
        !resolve(map, "driver area", setup->driver_area, sizes[1], setup->packed ? 4 : 2, &areas[1], err) ||
        !resolve(map, "device area", setup->device_area, sizes[2], 4, &areas[2], err))
        return false;
    guest_map_ref(map);
    guest_map_unref(queue->map);
    queue->map = map;
    queue->descriptors = areas[0];
    queue->driver_area = areas[1];
    queue->device_area = areas[2];
    return true;
}

struct virtqueue *virtqueue_new(const struct virtqueue_setup *setup, struct guest_map *map, struct error **err)
{
    struct virtqueue *queue;

    if (!setup->size || setup->size > VIRTQ_SIZE_MAX || (!setup->packed && !is_power_of_two(setup->size))) {
        error_set(err, "A queue cannot have %u places", setup->size);
        return NULL;
    }
    queue = g_new0(struct virtqueue, 1);
    queue->ops = setup->packed ? &virtqueue_packed_ops : &virtqueue_split_ops;
    queue->setup = *setup;
    queue->log_used_address = UINT64_MAX;
    queue->order = setup->in_order ? g_new0(struct virtq_done, setup->size) : NULL;
    queue->resubmit = g_new0(uint16_t, setup->size);
    if (virtqueue_set_map(queue, map, err) && queue->ops->start(queue, setup->base, err))
        return queue;
    virtqueue_free(queue);
    return NULL;
}

void virtqueue_free(struct virtqueue *queue)
{
    if (!queue)
        return;
    assert(!queue->outstanding);
    guest_map_unref(queue->map);
    g_free(queue->resubmit);
    g_free(queue->order);
    g_free(queue->why);
    g_free(queue);
}

void virtqueue_set_log(struct virtqueue *queue, struct dirty_log *log, uint64_t used_address)
{
    queue->log = log;
    queue->log_used_address = used_address;
}

void virtqueue_log_used(struct virtqueue *queue, uint64_t offset, uint64_t size)
{
    if (unlikely(queue->log) && queue->log_used_address != UINT64_MAX)
        dirty_log_mark(queue->log, queue->log_used_address + offset, size);
}

void virtqueue_log_ring(struct virtqueue *queue, const uint8_t *memory, uint64_t size)
{
    if (unlikely(queue->log) && queue->log_used_address != UINT64_MAX)
        dirty_log_mark_memory(queue->log, queue->map, memory, size);
}

struct virtq_descriptor virtq_descriptor_load(const uint8_t *from, bool packed)
{
    uint64_t first = le64toh(__atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_RELAXED));
    uint64_t second = le64toh(__atomic_load_n((const uint64_t *)(const void *)(from + 8), __ATOMIC_RELAXED));

    return (struct virtq_descriptor){
        .address = first,
        .length = (uint32_t)second,
        .flags = (uint16_t)(second >> (packed ? 48 : 32)),
        .next = (uint16_t)(second >> (packed ? 32 : 48)),
    };
}

/* --- requests in flight --- */

bool virtqueue_check_inflight(const struct virtqueue *queue, uint16_t version, uint16_t count, struct error **err)
{
    return (version == INFLIGHT_VERSION && count == queue->setup.size) ||
           error_set(err, "Table of requests in flight has version %u and %u entries, not %d and %u", version, count,
                     INFLIGHT_VERSION, queue->setup.size);
}

struct inflight_list {
    const uint8_t *entries;
    size_t stride;
};

/* The table can change under us: each counter is read once, into *ret. */
static bool in_flight(const struct inflight_list *list, uint16_t index, uint64_t *ret)
{
    const struct inflight_head *head = (const void *)(list->entries + index * list->stride);

    *ret = __atomic_load_n(&head->counter, __ATOMIC_RELAXED);
    return __atomic_load_n(&head->inflight, __ATOMIC_RELAXED);
}

struct inflight_found {
    uint64_t counter;
    uint16_t index;
};

static int by_counter(const void *a, const void *b)
{
    const struct inflight_found *first = a;
    const struct inflight_found *second = b;

    return first->counter < second->counter ? -1 : first->counter > second->counter;
}

void virtqueue_list_inflight(struct virtqueue *queue, const void *entries, size_t stride)
{
    struct inflight_list list = {.entries = entries, .stride = stride};
    g_autofree struct inflight_found *found = g_new(struct inflight_found, queue->setup.size);
    unsigned count = 0;

    for (uint16_t i = 0; i < queue->setup.size; i++) {
        if (!in_flight(&list, i, &found[count].counter))
            continue;
        queue->counter = MAX(queue->counter, found[count].counter + 1);
        found[count++].index = i;
    }
    qsort(found, count, sizeof(found[0]), by_counter);
    for (unsigned i = 0; i < count; i++)
        queue->resubmit[i] = found[i].index;
    queue->resubmit_count = count;
}

static unsigned segment_count(const struct virtq_buffer *buffer)
{
    return buffer->readable_count + buffer->writable_count;
}

/* As guest_map_find(), also where the map must grow for it. */
static uint8_t *find_memory(struct virtqueue *queue, uint64_t address, uint64_t size, uint64_t *ret_size)
{
    uint8_t *memory = guest_map_find(queue->map, address, size, ret_size);
    struct guest_map *grown;

    if (likely(memory) || !queue->setup.grow_map)
        return memory;
    grown = queue->setup.grow_map(queue->setup.grow_opaque, queue->map, address);
    if (!grown)
        return NULL;
    guest_map_unref(queue->map);
    queue->map = grown;
    return guest_map_find(grown, address, size, ret_size);
}

static bool read_memory(struct virtqueue *queue, uint64_t address, uint8_t *to, size_t size)
{
    while (size) {
        uint64_t part;
        const uint8_t *from = find_memory(queue, address, size, &part);

        if (!from)
            return false;
        memcpy(to, from, part);
        to += part;
        address += part;
        size -= part;
    }
    return true;
}

void virtq_buffer_add(struct virtqueue *queue, struct virtq_buffer *buffer, const struct virtq_descriptor *from)
{
    bool writable = from->flags & VIRTQ_WRITE;
    uint64_t address = from->address;
    uint64_t left = from->length;

    if (writable)
        buffer->last_writable = NULL;
    if (!left || (!writable && buffer->writable_count))
        buffer->bad = true;
    while (left) {
        uint64_t part;
        uint8_t *memory = find_memory(queue, address, left, &part);

        if (!memory || segment_count(buffer) == VIRTQ_SEGMENTS_MAX) {
            buffer->bad = true;
            if (writable)
                buffer->last_writable = NULL;
            return;
        }
        if (writable)
            buffer->last_writable = memory + part - 1;
        if (!buffer->bad) {
            buffer->segments[segment_count(buffer)] = (struct iovec){.iov_base = memory, .iov_len = part};
            *(writable ? &buffer->writable_count : &buffer->readable_count) += 1;
            *(writable ? &buffer->writable_bytes : &buffer->readable_bytes) += part;
        }
        address += part;
        left -= part;
    }
}

bool virtq_buffer_add_table(struct virtqueue *queue, struct virtq_buffer *buffer, const struct virtq_descriptor *table)
{
    uint8_t copy[VIRTQ_SEGMENTS_MAX * VIRTQ_DESCRIPTOR_BYTES] __attribute__((aligned(VIRTQ_DESCRIPTOR_BYTES)));
    unsigned count = table->length / VIRTQ_DESCRIPTOR_BYTES;
    bool packed = queue->setup.packed;
    unsigned at = 0;

    if (!count || table->length % VIRTQ_DESCRIPTOR_BYTES || table->length > sizeof(copy) ||
        (table->flags & VIRTQ_NEXT && !packed) || !read_memory(queue, table->address, copy, table->length)) {
        virtqueue_break(queue, "bad table of indirect descriptors: %u bytes at 0x%" PRIx64, table->length,
                        table->address);
        return false;
    }
    for (unsigned steps = 0;; steps++) {
        struct virtq_descriptor one;

        if (at >= count || steps >= count) {
            virtqueue_break(queue, "indirect descriptors lead to number %u of %u", at, count);
            return false;
        }
        one = virtq_descriptor_load(copy + (size_t)at * VIRTQ_DESCRIPTOR_BYTES, packed);
        if (one.flags & VIRTQ_INDIRECT) {
            virtqueue_break(queue, "indirect descriptor in a table of them");
            return false;
        }
        virtq_buffer_add(queue, buffer, &one);
        if (packed ? at + 1 == count : !(one.flags & VIRTQ_NEXT))
            return true;
        at = packed ? at + 1 : one.next;
    }
}

static void buffer_begin(struct virtqueue *queue, struct virtq_buffer *buffer)
{
    buffer->map = NULL;
    buffer->slots = 1;
    buffer->entry = 0;
    buffer->bad = false;
    buffer->last_writable = NULL;
    buffer->readable_count = buffer->writable_count = 0;
    buffer->readable_bytes = buffer->writable_bytes = 0;
}

/* What was in flight when the last device went is in flight again at once, as nobody would know of it otherwise. */
static bool may_take(const struct virtqueue *queue)
{
    bool again = queue->resubmit_next < queue->resubmit_count;

    /* A driver has no more places; who shows more buffers than there are makes them up. */
    return queue->outstanding < (again ? queue->setup.size : MIN(queue->setup.size, VIRTQ_OUT_MAX));
}

int virtqueue_pop(struct virtqueue *queue, struct virtq_buffer *ret)
{
    int result;

    if (unlikely(queue->why))
        return -EIO;
    if (unlikely(!may_take(queue)))
        return 0;
    buffer_begin(queue, ret);
    result = queue->ops->pop(queue, ret);
    if (result <= 0)
        return result;
    ret->map = guest_map_ref(queue->map);
    if (queue->order) {
        ret->order = queue->order_next++;
        queue->order[ret->order % queue->setup.size] =
            (struct virtq_done){.id = ret->id, .slots = ret->slots, .entry = ret->entry};
    }
    queue->outstanding++;
    return 1;
}

static void log_written(struct virtqueue *queue, const struct virtq_buffer *buffer, uint64_t written)
{
    const struct iovec *segment = &buffer->segments[buffer->readable_count];

    /* The status is there, however far from it what was written before ends; of a bad one it is all. */
    if (buffer->last_writable)
        dirty_log_mark_memory(queue->log, buffer->map, buffer->last_writable, 1);
    for (unsigned i = 0; !buffer->bad && i < buffer->writable_count && written; i++, segment++) {
        uint64_t part = MIN(written, segment->iov_len);

        dirty_log_mark_memory(queue->log, buffer->map, segment->iov_base, part);
        written -= part;
    }
}

static void give_back(struct virtqueue *queue, const struct virtq_done *done)
{
    if (!queue->why) {
        queue->ops->push(queue, done);
        queue->fresh += done->slots;
    }
    queue->outstanding--;
}

static void push_in_order(struct virtqueue *queue, uint32_t order, uint32_t written)
{
    struct virtq_done *done = &queue->order[order % queue->setup.size];

    done->done = true;
    done->written = written;
    while (queue->order_first != queue->order_next) {
        struct virtq_done *first = &queue->order[queue->order_first % queue->setup.size];

        if (!first->done)
            return;
        give_back(queue, first);
        queue->order_first++;
    }
}

void virtqueue_push(struct virtqueue *queue, struct virtq_buffer *buffer, uint32_t written)
{
    struct virtq_done done = {.id = buffer->id, .slots = buffer->slots, .entry = buffer->entry, .written = written};

    assert(queue->outstanding);
    if (unlikely(queue->log))
        log_written(queue, buffer, written);
    if (queue->order) {
        push_in_order(queue, buffer->order, written);
    } else {
        give_back(queue, &done);
    }
    guest_map_unref(TAKE(buffer->map));
}

bool virtqueue_must_notify(struct virtqueue *queue)
{
    uint32_t fresh = queue->fresh;
    bool first = !queue->told;

    if (!fresh || queue->why)
        return false;
    queue->fresh = 0;
    queue->told = true;
    /* Before we look whether the driver wants to hear of it, it must be able to see it. */
    virtq_fence();
    return queue->ops->must_notify(queue, fresh, first);
}

bool virtqueue_has_available(const struct virtqueue *queue)
{
    return !queue->why && may_take(queue) && queue->ops->has_available(queue);
}

void virtqueue_want_kicks(struct virtqueue *queue, bool wanted)
{
    queue->ops->want_kicks(queue, wanted);
}

unsigned virtqueue_outstanding(const struct virtqueue *queue)
{
    return queue->outstanding;
}

uint32_t virtqueue_base(const struct virtqueue *queue)
{
    return queue->ops->base(queue);
}
