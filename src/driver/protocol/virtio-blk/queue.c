/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A request takes a slot (header, status, table of descriptors) and as many pieces of memory as its data needs, or
 * waits for them in line. All that is added within a turn of the loop is told to the device in one go. The coroutine
 * that reaps is there only while something is under way, so a queue without requests has nothing running, and its loop
 * may end.
 *
 * Keeps: (1) a slot is in `free_slots` or its call is in `calls`, by the ring's token; (2) a call leaves `calls` when
 * the device has given it back, or is lost; then nobody touches its memory for the device any more.
 */
#include "driver/protocol/virtio-blk/queue.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <sys/eventfd.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io-vector.h"
#include "base/log.h"
#include "driver/protocol/virtio-blk/disk.h"
#include "driver/protocol/virtio-blk/ring.h"
#include "driver/protocol/virtio-blk/transport.h"
#include "loop/coroutine.h"
#include "loop/event.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum {
    SLOT_RANGE = VIRTIO_BLK_HEADER_BYTES, /* offsets in a slot */
    SLOT_STATUS = SLOT_RANGE + VIRTIO_BLK_RANGE_BYTES,
    SLOT_TABLE = 64,
    SLOT_SEGMENTS_MAX = VIRTIO_QUEUE_DATA_SEGMENTS + 2,
    SLOT_BYTES = SLOT_TABLE + SLOT_SEGMENTS_MAX * 16,
    PAGE_BYTES = 4096,
};

struct virtio_queue_call {
    const struct virtio_request *request;
    struct coroutine *coroutine;
    uint16_t slot;
    unsigned piece_count;
    uint16_t pieces[VIRTIO_QUEUE_DATA_SEGMENTS];
    bool done;
    int result;
};

/* --- memory --- */

static size_t slots_offset(uint16_t size, bool packed)
{
    return align_up(vring_layout(size, packed).bytes, PAGE_BYTES);
}

static size_t pieces_offset(uint16_t size, bool packed)
{
    return align_up(slots_offset(size, packed) + (size_t)size * SLOT_BYTES, PAGE_BYTES);
}

size_t virtio_queue_bytes(uint16_t size, bool packed)
{
    return pieces_offset(size, packed) + (size_t)VIRTIO_QUEUE_PIECES * VIRTIO_QUEUE_PIECE_BYTES;
}

struct virtio_slot virtio_queue_slot(const struct virtio_queue *queue, uint16_t index)
{
    size_t offset = queue->slots_offset + (size_t)index * SLOT_BYTES;
    uint8_t *header = queue->setup.memory + offset;

    assert(index < queue->setup.size);
    return (struct virtio_slot){.header = header,
                                .range = header + SLOT_RANGE,
                                .status = header + SLOT_STATUS,
                                .table = header + SLOT_TABLE,
                                .address = queue->setup.address + offset};
}

static uint8_t *piece_memory(const struct virtio_queue *queue, uint16_t piece)
{
    return queue->setup.memory + queue->pieces_offset + (size_t)piece * VIRTIO_QUEUE_PIECE_BYTES;
}

struct virtio_queue_place virtio_queue_place(const struct virtio_queue *queue)
{
    struct vring_layout layout = vring_layout(queue->setup.size, queue->setup.packed);

    return (struct virtio_queue_place){
        .index = queue->setup.index,
        .size = queue->setup.size,
        .packed = queue->setup.packed,
        .descriptors = queue->setup.address,
        .driver_area = queue->setup.address + layout.driver_offset,
        .device_area = queue->setup.address + layout.device_offset,
        .kick_fd = queue->kick_fd,
        .call_fd = queue->call_fd,
    };
}

/* --- life --- */

bool virtio_queue_init(struct virtio_queue *queue, const struct virtio_queue_setup *setup, struct virtio_disk *disk,
                       bool *lost, struct error **err)
{
    struct vring_layout layout = vring_layout(setup->size, setup->packed);
    struct vring_setup ring = {
        .size = setup->size,
        .packed = setup->packed,
        .event_index = setup->event_index,
        .indirect = setup->indirect,
        .descriptors = setup->memory,
        .driver_area = setup->memory + layout.driver_offset,
        .device_area = setup->memory + layout.device_offset,
    };

    *queue = (struct virtio_queue){.setup = *setup, .disk = disk, .lost = lost};
    queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->kick_fd < 0 || queue->call_fd < 0) {
        error_set_errno(err, errno, "no event descriptor for queue %u", setup->index);
        fd_close(queue->kick_fd);
        fd_close(queue->call_fd);
        return false;
    }
    queue->slots_offset = slots_offset(setup->size, setup->packed);
    queue->pieces_offset = pieces_offset(setup->size, setup->packed);
    queue->ring = vring_new(&ring);
    queue->calls = g_new0(struct virtio_queue_call *, setup->size);
    queue->free_slots = g_new(uint16_t, setup->size);
    queue->free_pieces = g_new(uint16_t, VIRTIO_QUEUE_PIECES);
    /* The last given back is the next to be used: its memory is the one that caches have. */
    for (queue->free_slot_count = 0; queue->free_slot_count < setup->size; queue->free_slot_count++)
        queue->free_slots[queue->free_slot_count] = (uint16_t)(setup->size - 1 - queue->free_slot_count);
    for (; queue->free_piece_count < VIRTIO_QUEUE_PIECES; queue->free_piece_count++)
        queue->free_pieces[queue->free_piece_count] = (uint16_t)(VIRTIO_QUEUE_PIECES - 1 - queue->free_piece_count);
    return true;
}

void virtio_queue_done(struct virtio_queue *queue)
{
    assert(!queue->reaping && !queue->kicking);
    fd_close(queue->kick_fd);
    fd_close(queue->call_fd);
    vring_free(queue->ring);
    co_mutex_done(&queue->entrance);
    co_condition_done(&queue->room);
    g_free(queue->calls);
    g_free(queue->free_slots);
    g_free(queue->free_pieces);
}

static bool is_lost(const struct virtio_queue *queue)
{
    return __atomic_load_n(queue->lost, __ATOMIC_SEQ_CST);
}

/* --- completions --- */

static int result_of(uint8_t status)
{
    return status == VIRTIO_BLK_OK ? 0 : status == VIRTIO_BLK_UNSUPP ? -ENOTSUP : -EIO;
}

static void end_call(struct virtio_queue *queue, uint16_t slot, int result)
{
    struct virtio_queue_call *call = TAKE(queue->calls[slot]);

    assert(call && !call->done);
    call->result = result;
    call->done = true;
    co_wake(call->coroutine);
}

static void fail_all(struct virtio_queue *queue)
{
    for (uint16_t i = 0; i < queue->setup.size; i++) {
        if (queue->calls[i])
            end_call(queue, i, -EIO);
    }
    co_condition_broadcast(&queue->room);
}

/*
 * Ends what is done; false: the device is lost, or writes nonsense. One that goes may have done more than it had time
 * to tell of, so the look at the ring comes after the news.
 */
static bool reap(struct virtio_queue *queue)
{
    bool lost = is_lost(queue);
    uint32_t written;
    uint16_t slot;
    int result;

    while ((result = vring_get(queue->ring, &slot, &written)) == 1) {
        struct virtio_slot memory = virtio_queue_slot(queue, slot);

        end_call(queue, slot, result_of(__atomic_load_n(memory.status, __ATOMIC_RELAXED)));
    }
    return !result && !lost;
}

static bool anything_under_way(const struct virtio_queue *queue)
{
    return vring_outstanding(queue->ring);
}

/* Others hear of it first, with the turn; what is under way here fails last, and then nothing of the queue runs. */
static void CO_FN co_lose(struct virtio_queue *queue)
{
    if (!is_lost(queue))
        log_warning("virtio disk: queue %u: the device has written nonsense into the ring", queue->setup.index);
    virtio_disk_lose(queue->disk);
    co_yield ();
    fail_all(queue);
}

static void reap_run(void *opaque)
{
    struct virtio_queue *queue = opaque;
    bool good = true;

    while (good && anything_under_way(queue)) {
        uint64_t calls;

        vring_want_calls(queue->ring, true);
        if (!vring_has_done(queue->ring) && !is_lost(queue))
            (void)!co_fd_read(queue->call_fd, &calls, sizeof(calls));
        vring_want_calls(queue->ring, false);
        good = reap(queue);
    }
    if (!good)
        co_lose(queue);
    queue->reaping = false;
    virtio_disk_unref(queue->disk);
}

void virtio_queue_wake(struct virtio_queue *queue)
{
    event_signal(queue->call_fd, true);
}

/* --- requests --- */

static void kick_run(void *opaque)
{
    struct virtio_queue *queue = opaque;

    queue->kicking = false;
    if (vring_must_kick(queue->ring)) {
        event_signal(queue->kick_fd, true);
        co_yield ();
    }
    virtio_disk_unref(queue->disk);
}

static unsigned piece_count(const struct virtio_request *request)
{
    size_t bytes = request->iov ? request->iov->size : 0;

    return (unsigned)((bytes + VIRTIO_QUEUE_PIECE_BYTES - 1) / VIRTIO_QUEUE_PIECE_BYTES);
}

static bool has_room(const struct virtio_queue *queue, unsigned pieces)
{
    return queue->free_slot_count && queue->free_piece_count >= pieces && vring_has_room(queue->ring, pieces + 3);
}

/* Takes what the request needs. False: the device is lost. */
static bool CO_FN co_take_room(struct virtio_queue *queue, struct virtio_queue_call *call)
{
    unsigned pieces = piece_count(call->request);

    assert(pieces <= VIRTIO_QUEUE_DATA_SEGMENTS);
    co_mutex_lock(&queue->entrance);
    while (!is_lost(queue) && !has_room(queue, pieces))
        co_condition_wait_always(&queue->room, NULL);
    co_mutex_unlock(&queue->entrance);
    if (is_lost(queue))
        return false;
    call->slot = queue->free_slots[--queue->free_slot_count];
    for (call->piece_count = 0; call->piece_count < pieces; call->piece_count++)
        call->pieces[call->piece_count] = queue->free_pieces[--queue->free_piece_count];
    return true;
}

static void give_room(struct virtio_queue *queue, const struct virtio_queue_call *call)
{
    queue->free_slots[queue->free_slot_count++] = call->slot;
    for (unsigned i = call->piece_count; i--;)
        queue->free_pieces[queue->free_piece_count++] = call->pieces[i];
    co_condition_broadcast(&queue->room);
}

static void copy_data(const struct virtio_queue *queue, const struct virtio_queue_call *call)
{
    const struct io_vector *iov = call->request->iov;
    bool reading = call->request->type == VIRTIO_BLK_IN;
    size_t offset = 0;

    for (unsigned i = 0; i < call->piece_count; i++) {
        size_t part = MIN(iov->size - offset, (size_t)VIRTIO_QUEUE_PIECE_BYTES);
        uint8_t *memory = piece_memory(queue, call->pieces[i]);

        if (reading)
            io_vector_write(iov, offset, memory, part);
        else
            io_vector_read(iov, offset, memory, part);
        offset += part;
    }
}

static void fill_slot(const struct virtio_slot *slot, const struct virtio_request *request)
{
    store_le32(slot->header, request->type);
    store_le32(slot->header + 4, 0);
    store_le64(slot->header + VIRTIO_BLK_HEADER_SECTOR, request->iov ? request->sector : 0);
    *slot->status = VIRTIO_BLK_IOERR;
    if (!request->sectors)
        return;
    store_le64(slot->range, request->sector);
    store_le32(slot->range + VIRTIO_BLK_RANGE_COUNT, request->sectors);
    store_le32(slot->range + VIRTIO_BLK_RANGE_FLAGS, request->unmap ? VIRTIO_BLK_RANGE_UNMAP : 0);
}

static void add_call(struct virtio_queue *queue, struct virtio_queue_call *call)
{
    const struct virtio_request *request = call->request;
    struct virtio_slot slot = virtio_queue_slot(queue, call->slot);
    struct vring_segment segments[SLOT_SEGMENTS_MAX + 1];
    size_t left = request->iov ? request->iov->size : 0;
    unsigned count = 0;
    struct vring_request wish = {.segments = segments, .table = slot.table, .token = call->slot};

    fill_slot(&slot, request);
    segments[count++] = (struct vring_segment){slot.address, VIRTIO_BLK_HEADER_BYTES};
    if (request->sectors)
        segments[count++] = (struct vring_segment){slot.address + SLOT_RANGE, VIRTIO_BLK_RANGE_BYTES};
    for (unsigned i = 0; i < call->piece_count; i++) {
        uint32_t part = (uint32_t)MIN(left, (size_t)VIRTIO_QUEUE_PIECE_BYTES);
        size_t offset = (size_t)(piece_memory(queue, call->pieces[i]) - queue->setup.memory);

        segments[count++] = (struct vring_segment){queue->setup.address + offset, part};
        left -= part;
    }
    wish.readable = request->type == VIRTIO_BLK_IN ? 1 : count;
    segments[count++] = (struct vring_segment){slot.address + SLOT_STATUS, 1};
    wish.writable = count - wish.readable;
    wish.table_address = slot.address + SLOT_TABLE;
    queue->calls[call->slot] = call;
    vring_add(queue->ring, &wish);
}

static void start_coroutines(struct virtio_queue *queue)
{
    if (!queue->kicking) {
        queue->kicking = true;
        virtio_disk_ref(queue->disk);
        co_spawn(loop_current(), kick_run, queue);
    }
    if (!queue->reaping) {
        queue->reaping = true;
        virtio_disk_ref(queue->disk);
        co_spawn(loop_current(), reap_run, queue);
    }
}

int co_virtio_queue_do(struct virtio_queue *queue, const struct virtio_request *request)
{
    struct virtio_queue_call call = {.request = request, .coroutine = co_self()};

    if (!co_take_room(queue, &call))
        return -EIO;
    if (request->type == VIRTIO_BLK_OUT)
        copy_data(queue, &call);
    add_call(queue, &call);
    start_coroutines(queue);
    while (!call.done)
        co_suspend();
    if (!call.result && request->type == VIRTIO_BLK_IN)
        copy_data(queue, &call);
    give_room(queue, &call);
    return call.result;
}
