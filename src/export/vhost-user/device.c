/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the messages of the front end do. One that is no valid message ends the connection; one that is valid but cannot
 * be done is answered with an error where the front end wants an answer, and ends the connection where it does not.
 */
#include "export/vhost-user/device.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "block/handle.h"
#include "driver/protocol/virtio-blk/vhost-user-message.h"
#include "export/virtio/blk.h"
#include "export/virtio/dirty-log.h"
#include "export/virtio/inflight.h"
#include "export/virtio/memory.h"
#include "export/virtio/queue.h"
#include "loop/coroutine.h"
#include "loop/event.h"
#include "loop/shared-memory.h"
#include "loop/socket.h"

enum { TABLE_ALIGNMENT = 8 }; /* of what is in flight: its counters are of 64 bits */

/*
 * What a successor has to know besides, and the front end does not tell it again, lies behind the tables: a guest that
 * has turned its cache off goes on without flushes. The front end can write there: any value will do.
 */
struct vhost_user_note {
    uint8_t magic[8];
    uint8_t write_through;
    uint8_t padding[55];
};
static const uint8_t note_magic[8] = "ASHLARWC";

#define PROTOCOL_FEATURE(name) (UINT64_C(1) << VHOST_USER_PROTOCOL_F_##name)

static const uint64_t protocol_features =
    PROTOCOL_FEATURE(MQ) | PROTOCOL_FEATURE(LOG_SHMFD) | PROTOCOL_FEATURE(REPLY_ACK) | PROTOCOL_FEATURE(BACKEND_REQ) |
    PROTOCOL_FEATURE(CONFIG) | PROTOCOL_FEATURE(INFLIGHT_SHMFD) | PROTOCOL_FEATURE(RESET_DEVICE) |
    PROTOCOL_FEATURE(CONFIGURE_MEM_SLOTS) | PROTOCOL_FEATURE(STATUS);

static uint64_t offered_features(const struct vhost_user_device *device)
{
    return virtio_blk_offered(device->blk) | VIRTIO_FEATURE(VHOST_F_LOG_ALL) |
           VIRTIO_FEATURE(VHOST_USER_F_PROTOCOL_FEATURES);
}

struct vhost_user_device *vhost_user_device_new(struct virtio_blk *blk, const char *name, int socket,
                                                struct loop *const *loops, unsigned loop_count)
{
    struct vhost_user_device *device = g_new0(struct vhost_user_device, 1);

    assert(loop_count && blk->queues <= VHOST_USER_QUEUES_MAX);
    device->blk = blk;
    device->name = name;
    device->socket = socket;
    device->backend_socket = -1;
    device->map = guest_map_new();
    device->queue_count = blk->queues;
    device->queues = g_new0(struct vhost_user_queue, blk->queues);
    for (unsigned i = 0; i < device->queue_count; i++) {
        device->queues[i].work = (struct virtio_blk_queue){.blk = blk,
                                                           .name = name,
                                                           .index = i,
                                                           .loop = loops[i % loop_count],
                                                           .ops = &vhost_user_queue_ops,
                                                           .kick_fd = -1};
        device->queues[i].call_fd = device->queues[i].error_fd = -1;
    }
    virtio_blk_reset(blk);
    return device;
}

static void CO_FN co_stop_queues(struct vhost_user_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        co_vhost_user_queue_stop(&device->queues[i]);
}

void co_vhost_user_device_free(struct vhost_user_device *device)
{
    if (!device)
        return;
    co_stop_queues(device);
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct vhost_user_queue *queue = &device->queues[i];

        fd_close(queue->work.kick_fd);
        fd_close(queue->call_fd);
        fd_close(queue->error_fd);
        co_condition_done(&queue->work.idle);
    }
    fd_close(device->backend_socket);
    dirty_log_free(device->log);
    shared_memory_unref(device->inflight);
    guest_map_unref(device->map);
    g_free(device->queues);
    g_free(device);
}

struct dirty_log *vhost_user_device_log(const struct vhost_user_device *device)
{
    return device->features & VIRTIO_FEATURE(VHOST_F_LOG_ALL) ? device->log : NULL;
}

static bool CO_FN co_reply(struct vhost_user_device *device, struct vhost_user_message *message, uint32_t size, int fd,
                           struct error **err)
{
    int result;

    vhost_user_message_done(message);
    message->flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    message->size = size;
    message->fds[0] = fd;
    message->fd_count = fd >= 0;
    result = co_vhost_user_send(device->socket, message);
    message->fd_count = 0;
    return !result || error_set_errno(err, result, "reply to message %u", message->request);
}

/* Whether the front end asks for an answer to a message that has none of its own. */
static bool wants_answer(const struct vhost_user_device *device, const struct vhost_user_message *message)
{
    return message->flags & VHOST_USER_NEED_REPLY && device->protocol_features & PROTOCOL_FEATURE(REPLY_ACK);
}

static bool CO_FN co_reply_u64(struct vhost_user_device *device, struct vhost_user_message *message, uint64_t value,
                               struct error **err)
{
    message->payload.u64 = value;
    return co_reply(device, message, sizeof(value), -1, err);
}

static struct vhost_user_queue *find_queue(struct vhost_user_device *device, uint32_t index, struct error **err)
{
    if (index < device->queue_count)
        return &device->queues[index];
    error_set(err, "queue %u of %u", index, device->queue_count);
    return NULL;
}

/* The same for a queue whose set-up is to be changed, which must not run. */
static struct vhost_user_queue *find_resting_queue(struct vhost_user_device *device, uint32_t index, struct error **err)
{
    struct vhost_user_queue *queue = find_queue(device, index, err);

    if (!queue || !queue->work.started)
        return queue;
    error_set(err, "queue %u is running", index);
    return NULL;
}

/* --- features --- */

static bool CO_FN co_get_features(struct vhost_user_device *device, struct vhost_user_message *message,
                                  struct error **err)
{
    return co_reply_u64(device, message, offered_features(device), err);
}

static bool CO_FN co_set_features(struct vhost_user_device *device, struct vhost_user_message *message,
                                  struct error **err)
{
    uint64_t features = message->payload.u64;
    uint64_t changed = features ^ device->features;

    if (features & ~offered_features(device))
        return error_set(err, "features 0x%" PRIx64 " were not offered", features & ~offered_features(device));
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (device->queues[i].work.started && changed & ~VIRTIO_FEATURE(VHOST_F_LOG_ALL))
            return error_set(err, "features change to 0x%" PRIx64 " while queue %u is running", features, i);
    }
    device->features = features;
    virtio_blk_accept(device->blk, features);
    for (unsigned i = 0; i < device->queue_count; i++)
        co_vhost_user_queue_set_log(&device->queues[i], vhost_user_device_log(device));
    return true;
}

static bool CO_FN co_get_protocol_features(struct vhost_user_device *device, struct vhost_user_message *message,
                                           struct error **err)
{
    return co_reply_u64(device, message, protocol_features, err);
}

static bool CO_FN co_set_protocol_features(struct vhost_user_device *device, struct vhost_user_message *message,
                                           struct error **err)
{
    if (message->payload.u64 & ~protocol_features)
        return error_set(err, "protocol features 0x%" PRIx64 " were not offered",
                         message->payload.u64 & ~protocol_features);
    device->protocol_features = message->payload.u64;
    return true;
}

static bool CO_FN co_set_owner(struct vhost_user_device *device, struct vhost_user_message *message, struct error **err)
{
    return true;
}

static bool CO_FN co_reset_device(struct vhost_user_device *device, struct vhost_user_message *message,
                                  struct error **err)
{
    co_stop_queues(device);
    for (unsigned i = 0; i < device->queue_count; i++) {
        /* Where it stands stays: some front ends ask for that after the reset, and set it before each start. */
        device->queues[i].enabled = false;
        fd_close(TAKE_FD(device->queues[i].work.kick_fd));
    }
    /* What a predecessor had in flight, too: nobody waits for it any more. */
    if (device->inflight)
        memset(shared_memory_base(device->inflight), 0, device->inflight_bytes);
    device->features = 0;
    device->status = 0;
    /* The cache stays as it was chosen: a front end may reset us only because its guest rests for a while, and it is
     * the front end that tells the guest which cache it has. */
    virtio_blk_accept(device->blk, 0);
    return true;
}

static bool CO_FN co_set_status(struct vhost_user_device *device, struct vhost_user_message *message,
                                struct error **err)
{
    if (message->payload.u64 > UINT8_MAX)
        return error_set(err, "device status 0x%" PRIx64, message->payload.u64);
    if (!message->payload.u64)
        return co_reset_device(device, message, err);
    device->status = (uint8_t)message->payload.u64;
    return true;
}

static bool CO_FN co_get_status(struct vhost_user_device *device, struct vhost_user_message *message,
                                struct error **err)
{
    return co_reply_u64(device, message, device->status, err);
}

static bool CO_FN co_get_queue_num(struct vhost_user_device *device, struct vhost_user_message *message,
                                   struct error **err)
{
    return co_reply_u64(device, message, device->queue_count, err);
}

/* --- memory --- */

static struct guest_map *add_region(const struct guest_map *map, const struct vhost_user_region *from, int fd,
                                    struct error **err)
{
    struct guest_region region = {
        .guest_address = from->guest_address, .user_address = from->user_address, .size = from->size};
    struct guest_map *result;

    if (!from->size || from->size > SIZE_MAX / 2) {
        error_set(err, "memory region at guest address 0x%" PRIx64 " has %" PRIu64 " bytes", from->guest_address,
                  from->size);
        return NULL;
    }
    region.memory = shared_memory_map(fd, from->mmap_offset, (size_t)from->size, err);
    if (!region.memory)
        return NULL;
    result = guest_map_add(map, &region, err);
    shared_memory_unref(region.memory);
    return result;
}

/* Takes `map` as the memory of the device and of the queues that run; a queue that is not in it stops. */
static void CO_FN co_take_map(struct vhost_user_device *device, struct guest_map *map)
{
    for (unsigned i = 0; i < device->queue_count; i++) {
        AUTO(error) why = NULL;

        if (co_virtio_blk_queue_set_map(&device->queues[i].work, map, &why))
            continue;
        log_warning("export '%s': queue %u stops, as its memory goes: %s", device->name, i, error_message(why));
        co_vhost_user_queue_stop(&device->queues[i]);
    }
    guest_map_unref(device->map);
    device->map = map;
}

static bool CO_FN co_set_mem_table(struct vhost_user_device *device, struct vhost_user_message *message,
                                   struct error **err)
{
    const struct vhost_user_memory *memory = &message->payload.memory;
    AUTO(guest_map) map = guest_map_new();

    if (memory->count > VHOST_USER_FDS_MAX || message->fd_count != memory->count ||
        message->size < offsetof(struct vhost_user_memory, regions) + memory->count * sizeof(memory->regions[0]))
        return error_set(err, "table of %u memory regions with %u descriptors in %u bytes", memory->count,
                         message->fd_count, message->size);
    for (unsigned i = 0; i < memory->count; i++) {
        struct guest_map *next = add_region(map, &memory->regions[i], message->fds[i], err);

        if (!next)
            return false;
        guest_map_unref(map);
        map = next;
    }
    co_take_map(device, TAKE(map));
    return true;
}

static bool CO_FN co_get_max_mem_slots(struct vhost_user_device *device, struct vhost_user_message *message,
                                       struct error **err)
{
    return co_reply_u64(device, message, GUEST_REGIONS_MAX, err);
}

static bool CO_FN co_add_mem_reg(struct vhost_user_device *device, struct vhost_user_message *message,
                                 struct error **err)
{
    struct guest_map *map;

    if (message->fd_count != 1)
        return error_set(err, "memory region with %u descriptors", message->fd_count);
    map = add_region(device->map, &message->payload.region.region, message->fds[0], err);
    if (!map)
        return false;
    co_take_map(device, map);
    return true;
}

static bool CO_FN co_rem_mem_reg(struct vhost_user_device *device, struct vhost_user_message *message,
                                 struct error **err)
{
    const struct vhost_user_region *from = &message->payload.region.region;
    struct guest_region region = {
        .guest_address = from->guest_address, .user_address = from->user_address, .size = from->size};
    struct guest_map *map = guest_map_remove(device->map, &region, err);

    if (!map)
        return false;
    co_take_map(device, map);
    return true;
}

/* --- migration --- */

static bool CO_FN co_set_log_base(struct vhost_user_device *device, struct vhost_user_message *message,
                                  struct error **err)
{
    const struct vhost_user_log *from = &message->payload.log;
    struct shared_memory *memory;
    struct dirty_log *old = device->log;

    if (message->fd_count != 1 || !from->size || from->size > SIZE_MAX / 2)
        return error_set(err, "log of %" PRIu64 " bytes with %u descriptors", from->size, message->fd_count);
    memory = shared_memory_map(message->fds[0], from->offset, (size_t)from->size, err);
    if (!memory)
        return false;
    device->log = dirty_log_new(memory);
    for (unsigned i = 0; i < device->queue_count; i++)
        co_vhost_user_queue_set_log(&device->queues[i], vhost_user_device_log(device));
    dirty_log_free(old);
    return !(device->protocol_features & PROTOCOL_FEATURE(LOG_SHMFD) || wants_answer(device, message)) ||
           co_reply_u64(device, message, 0, err);
}

/* The front end would be told that the log has changed; it looks by itself. */
static bool CO_FN co_set_log_fd(struct vhost_user_device *device, struct vhost_user_message *message,
                                struct error **err)
{
    return true;
}

/* --- queues --- */

static bool CO_FN co_set_vring_num(struct vhost_user_device *device, struct vhost_user_message *message,
                                   struct error **err)
{
    const struct vhost_user_vring_state *state = &message->payload.state;
    struct vhost_user_queue *queue = find_resting_queue(device, state->index, err);

    if (!queue)
        return false;
    if (!state->num || state->num > VIRTQ_SIZE_MAX)
        return error_set(err, "queue %u cannot have %u places", state->index, state->num);
    queue->size = (uint16_t)state->num;
    return true;
}

static bool CO_FN co_set_vring_addr(struct vhost_user_device *device, struct vhost_user_message *message,
                                    struct error **err)
{
    const struct vhost_user_vring_address *from = &message->payload.address;
    struct vhost_user_queue *queue = find_queue(device, from->index, err);

    if (!queue)
        return false;
    /* Of one that runs only the log may change, when migration begins. */
    if (queue->work.started &&
        (queue->descriptors != from->descriptors || queue->available != from->available || queue->used != from->used))
        return error_set(err, "queue %u is running", from->index);
    queue->descriptors = from->descriptors;
    queue->available = from->available;
    queue->used = from->used;
    queue->log_address = from->log;
    queue->log_used = from->flags & VHOST_VRING_F_LOG;
    co_vhost_user_queue_set_log(queue, vhost_user_device_log(device));
    return true;
}

static bool CO_FN co_set_vring_base(struct vhost_user_device *device, struct vhost_user_message *message,
                                    struct error **err)
{
    struct vhost_user_queue *queue = find_resting_queue(device, message->payload.state.index, err);

    if (!queue)
        return false;
    queue->base = message->payload.state.num;
    return true;
}

static bool CO_FN co_get_vring_base(struct vhost_user_device *device, struct vhost_user_message *message,
                                    struct error **err)
{
    struct vhost_user_queue *queue = find_queue(device, message->payload.state.index, err);

    if (!queue)
        return false;
    co_vhost_user_queue_stop(queue);
    message->payload.state.num = queue->base;
    return co_reply(device, message, sizeof(message->payload.state), -1, err);
}

/* A queue works when it has been kicked off and, where the front end decides that, enabled. */
static bool CO_FN co_start_if_ready(struct vhost_user_device *device, struct vhost_user_queue *queue,
                                    struct error **err)
{
    bool decides = device->features & VIRTIO_FEATURE(VHOST_USER_F_PROTOCOL_FEATURES);

    if (queue->work.kick_fd < 0 || (decides && !queue->enabled))
        return true;
    return co_vhost_user_queue_start(queue, device, err);
}

static bool CO_FN co_set_vring_enable(struct vhost_user_device *device, struct vhost_user_message *message,
                                      struct error **err)
{
    const struct vhost_user_vring_state *state = &message->payload.state;
    struct vhost_user_queue *queue = find_queue(device, state->index, err);

    if (!queue)
        return false;
    if (state->num > 1)
        return error_set(err, "queue %u cannot be enabled by %u", state->index, state->num);
    queue->enabled = state->num;
    if (queue->enabled)
        return co_start_if_ready(device, queue, err);
    co_vhost_user_queue_stop(queue);
    return true;
}

/* The queue and the descriptor (-1: none) of a message that carries one. */
static struct vhost_user_queue *take_queue_fd(struct vhost_user_device *device, struct vhost_user_message *message,
                                              int *ret_fd, struct error **err)
{
    bool none = message->payload.u64 & VHOST_USER_NO_FD;
    struct vhost_user_queue *queue = find_queue(device, message->payload.u64 & VHOST_USER_QUEUE_MASK, err);

    if (!queue)
        return NULL;
    if (message->fd_count != !none) {
        error_set(err, "%u descriptors for queue %u", message->fd_count, queue->work.index);
        return NULL;
    }
    *ret_fd = none ? -1 : TAKE_FD(message->fds[0]);
    return queue;
}

static bool CO_FN co_set_vring_kick(struct vhost_user_device *device, struct vhost_user_message *message,
                                    struct error **err)
{
    int fd;
    struct vhost_user_queue *queue = take_queue_fd(device, message, &fd, err);

    if (!queue)
        return false;
    if (fd < 0)
        return error_set(err, "queue %u without a descriptor for kicks", queue->work.index);
    co_vhost_user_queue_stop(queue);
    fd_close(queue->work.kick_fd);
    queue->work.kick_fd = fd;
    return co_start_if_ready(device, queue, err);
}

static bool CO_FN co_set_vring_call(struct vhost_user_device *device, struct vhost_user_message *message,
                                    struct error **err)
{
    int fd;
    struct vhost_user_queue *queue = take_queue_fd(device, message, &fd, err);

    if (!queue)
        return false;
    /* What is right for the old one and the new one, while they change places. */
    atomic_store(&queue->call_nonblocking, false);
    co_virtio_blk_queue_set_fd(&queue->work, &queue->call_fd, fd);
    atomic_store(&queue->call_nonblocking, fd >= 0 && event_is_nonblocking(fd));
    /* A server before us may have died between giving the last request back and telling so. */
    if (fd >= 0) {
        event_signal(fd, atomic_load(&queue->call_nonblocking));
        co_yield ();
    }
    return true;
}

static bool CO_FN co_set_vring_err(struct vhost_user_device *device, struct vhost_user_message *message,
                                   struct error **err)
{
    int fd;
    struct vhost_user_queue *queue = take_queue_fd(device, message, &fd, err);

    if (!queue)
        return false;
    co_virtio_blk_queue_set_fd(&queue->work, &queue->error_fd, fd);
    return true;
}

/* --- requests in flight --- */

/* The bytes that a table must have for the kind of ring chosen so far, and those that either kind can use. */
static size_t table_bytes_least(const struct vhost_user_device *device, const struct vhost_user_inflight *inflight)
{
    return inflight->queues *
           inflight_region_size(inflight->queue_size, device->features & VIRTIO_FEATURE(VIRTIO_F_RING_PACKED));
}

static size_t table_bytes_most(const struct vhost_user_inflight *inflight)
{
    return inflight->queues * inflight_region_size(inflight->queue_size, true);
}

static bool check_inflight(const struct vhost_user_device *device, const struct vhost_user_inflight *inflight,
                           struct error **err)
{
    if (!inflight->queues || inflight->queues > device->queue_count || !inflight->queue_size ||
        inflight->queue_size > VIRTQ_SIZE_MAX)
        return error_set(err, "table of requests in flight for %u queues of %u places", inflight->queues,
                         inflight->queue_size);
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (device->queues[i].work.started)
            return error_set(err, "table of requests in flight while queue %u is running", i);
    }
    return true;
}

static void note_cache(struct vhost_user_device *device)
{
    if (device->note)
        __atomic_store_n(&device->note->write_through, !atomic_load(&device->blk->write_back), __ATOMIC_RELAXED);
}

/* The note in memory that may have one, where it is; NULL: there is none. */
static struct vhost_user_note *find_note(const struct shared_memory *memory, size_t tables)
{
    uint8_t *at = shared_memory_base(memory) + tables;

    if (shared_memory_size(memory) < tables + sizeof(struct vhost_user_note) ||
        memcmp(at, note_magic, sizeof(note_magic)))
        return NULL;
    return (struct vhost_user_note *)(void *)at;
}

static void take_inflight(struct vhost_user_device *device, struct shared_memory *memory,
                          const struct vhost_user_inflight *inflight)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        device->queues[i].table = NULL;
    shared_memory_unref(device->inflight);
    device->inflight = memory;
    device->inflight_bytes = MIN(shared_memory_size(memory), table_bytes_most(inflight));
    device->note = find_note(memory, table_bytes_most(inflight));
    device->inflight_queues = inflight->queues;
    device->inflight_queue_size = inflight->queue_size;
}

static bool CO_FN co_get_inflight_fd(struct vhost_user_device *device, struct vhost_user_message *message,
                                     struct error **err)
{
    struct vhost_user_inflight inflight = message->payload.inflight;
    size_t size;
    bool done;
    struct shared_memory *memory;
    int fd;

    if (!check_inflight(device, &inflight, err))
        return false;
    size = table_bytes_most(&inflight) + sizeof(struct vhost_user_note);
    fd = shared_memory_file("requests in flight", size);
    if (fd < 0)
        return error_set_errno(err, fd, "table of requests in flight of %zu bytes", size);
    memory = shared_memory_map(fd, 0, size, err);
    if (memory) {
        memcpy(shared_memory_base(memory) + table_bytes_most(&inflight), note_magic, sizeof(note_magic));
        take_inflight(device, memory, &inflight);
        note_cache(device);
        message->payload.inflight.mmap_size = size;
        message->payload.inflight.mmap_offset = 0;
    }
    done = memory && co_reply(device, message, message->size, fd, err);
    fd_close(fd);
    return done;
}

static bool CO_FN co_set_inflight_fd(struct vhost_user_device *device, struct vhost_user_message *message,
                                     struct error **err)
{
    const struct vhost_user_inflight *inflight = &message->payload.inflight;
    struct shared_memory *memory;
    size_t size;

    if (!check_inflight(device, inflight, err))
        return false;
    size = table_bytes_least(device, inflight);
    if (message->fd_count != 1 || inflight->mmap_size < size)
        return error_set(err,
                         "table of requests in flight of %" PRIu64 " bytes with %u descriptors, not of %zu with one",
                         inflight->mmap_size, message->fd_count, size);
    if (!is_aligned(inflight->mmap_offset, TABLE_ALIGNMENT))
        return error_set(err, "table of requests in flight at offset %" PRIu64 ", which %d does not divide",
                         inflight->mmap_offset, TABLE_ALIGNMENT);
    size = (size_t)MIN(inflight->mmap_size, (uint64_t)table_bytes_most(inflight) + sizeof(struct vhost_user_note));
    memory = shared_memory_map(message->fds[0], inflight->mmap_offset, size, err);
    if (!memory)
        return false;
    take_inflight(device, memory, inflight);
    if (device->note)
        atomic_store(&device->blk->write_back, !__atomic_load_n(&device->note->write_through, __ATOMIC_RELAXED));
    return true;
}

/* --- configuration --- */

static bool config_fits(const struct vhost_user_message *message)
{
    const struct vhost_user_config *config = &message->payload.config;

    return message->size >= VHOST_USER_CONFIG_HEADER_BYTES && config->size <= VHOST_USER_CONFIG_BYTES_MAX &&
           message->size == VHOST_USER_CONFIG_HEADER_BYTES + config->size;
}

/* Past the end of what a disk has, there are zeroes: fields of later versions, which mean that there is no such thing.
 */
static bool CO_FN co_get_config(struct vhost_user_device *device, struct vhost_user_message *message,
                                struct error **err)
{
    struct vhost_user_config *config = &message->payload.config;
    uint8_t bytes[VHOST_USER_CONFIG_BYTES_MAX] = {0};

    if (!config_fits(message) || !range_fits(config->offset, config->size, sizeof(bytes))) {
        /* That is how a front end is told that it asked for nonsense. */
        config->size = 0;
        return co_reply(device, message, VHOST_USER_CONFIG_HEADER_BYTES, -1, err);
    }
    virtio_blk_config(device->blk, bytes);
    memcpy(config->bytes, bytes + config->offset, config->size);
    return co_reply(device, message, message->size, -1, err);
}

static bool CO_FN co_set_config(struct vhost_user_device *device, struct vhost_user_message *message,
                                struct error **err)
{
    const struct vhost_user_config *config = &message->payload.config;
    int result = 0;

    if (!config_fits(message) || !virtio_blk_set_config(device->blk, config->offset, config->bytes, config->size))
        return error_set(err, "cannot set %u bytes of the configuration at %u", config->size, config->offset);
    note_cache(device);
    /* From now on the guest does not flush, also not what it has written before. */
    if (!atomic_load(&device->blk->write_back))
        result = co_handle_flush(device->blk->handle);
    return !result || error_set_errno(err, result, "flush as the cache is turned off");
}

static bool CO_FN co_set_backend_req_fd(struct vhost_user_device *device, struct vhost_user_message *message,
                                        struct error **err)
{
    if (message->fd_count != 1)
        return error_set(err, "channel of the back end with %u descriptors", message->fd_count);
    fd_close(device->backend_socket);
    device->backend_socket = TAKE_FD(message->fds[0]);
    return true;
}

/*
 * Nobody waits for a front end that does not read its channel, not even for the export's end. If the channel is full,
 * it has to read of changes before this one, and then asks for the configuration as it is then.
 */
void co_vhost_user_device_changed(struct vhost_user_device *device)
{
    uint32_t message[] = {VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION, 0};

    if (device->backend_socket < 0 || !(device->protocol_features & PROTOCOL_FEATURE(CONFIG)))
        return;
    (void)!co_socket_send(device->backend_socket, message, sizeof(message), MSG_DONTWAIT);
}

/* --- dispatch --- */

typedef bool message_handler(struct vhost_user_device *device, struct vhost_user_message *message, struct error **err);

struct handler {
    message_handler *co_handle;
    uint32_t size_min; /* of the payload */
    uint32_t size_max;
    unsigned fds_max;
    bool replies; /* by itself, so that no other acknowledgement follows */
};

#define FIXED(type) sizeof(struct type), sizeof(struct type)
#define U64 sizeof(uint64_t), sizeof(uint64_t)

static const struct handler handlers[VHOST_USER__MAX] = {
    [VHOST_USER_GET_FEATURES] = {co_get_features, 0, 0, 0, true},
    [VHOST_USER_SET_FEATURES] = {co_set_features, U64, 0, false},
    [VHOST_USER_SET_OWNER] = {co_set_owner, 0, 0, 0, false},
    [VHOST_USER_RESET_OWNER] = {co_reset_device, 0, 0, 0, false},
    [VHOST_USER_SET_MEM_TABLE] = {co_set_mem_table, offsetof(struct vhost_user_memory, regions),
                                  sizeof(struct vhost_user_memory), VHOST_USER_FDS_MAX, false},
    [VHOST_USER_SET_LOG_BASE] = {co_set_log_base, FIXED(vhost_user_log), 1, true},
    [VHOST_USER_SET_LOG_FD] = {co_set_log_fd, 0, sizeof(uint64_t), 1, false},
    [VHOST_USER_SET_VRING_NUM] = {co_set_vring_num, FIXED(vhost_user_vring_state), 0, false},
    [VHOST_USER_SET_VRING_ADDR] = {co_set_vring_addr, FIXED(vhost_user_vring_address), 0, false},
    [VHOST_USER_SET_VRING_BASE] = {co_set_vring_base, FIXED(vhost_user_vring_state), 0, false},
    [VHOST_USER_GET_VRING_BASE] = {co_get_vring_base, FIXED(vhost_user_vring_state), 0, true},
    [VHOST_USER_SET_VRING_KICK] = {co_set_vring_kick, U64, 1, false},
    [VHOST_USER_SET_VRING_CALL] = {co_set_vring_call, U64, 1, false},
    [VHOST_USER_SET_VRING_ERR] = {co_set_vring_err, U64, 1, false},
    [VHOST_USER_GET_PROTOCOL_FEATURES] = {co_get_protocol_features, 0, 0, 0, true},
    [VHOST_USER_SET_PROTOCOL_FEATURES] = {co_set_protocol_features, U64, 0, false},
    [VHOST_USER_GET_QUEUE_NUM] = {co_get_queue_num, 0, 0, 0, true},
    [VHOST_USER_SET_VRING_ENABLE] = {co_set_vring_enable, FIXED(vhost_user_vring_state), 0, false},
    [VHOST_USER_SET_BACKEND_REQ_FD] = {co_set_backend_req_fd, 0, sizeof(uint64_t), 1, false},
    [VHOST_USER_GET_CONFIG] = {co_get_config, VHOST_USER_CONFIG_HEADER_BYTES, sizeof(struct vhost_user_config), 0,
                               true},
    [VHOST_USER_SET_CONFIG] = {co_set_config, VHOST_USER_CONFIG_HEADER_BYTES, sizeof(struct vhost_user_config), 0,
                               false},
    [VHOST_USER_GET_INFLIGHT_FD] = {co_get_inflight_fd, VHOST_USER_INFLIGHT_BYTES, sizeof(struct vhost_user_inflight),
                                    0, true},
    [VHOST_USER_SET_INFLIGHT_FD] = {co_set_inflight_fd, VHOST_USER_INFLIGHT_BYTES, sizeof(struct vhost_user_inflight),
                                    1, false},
    [VHOST_USER_RESET_DEVICE] = {co_reset_device, 0, 0, 0, false},
    [VHOST_USER_GET_MAX_MEM_SLOTS] = {co_get_max_mem_slots, 0, 0, 0, true},
    [VHOST_USER_ADD_MEM_REG] = {co_add_mem_reg, FIXED(vhost_user_single_region), 1, false},
    [VHOST_USER_REM_MEM_REG] = {co_rem_mem_reg, FIXED(vhost_user_single_region), 1, false},
    [VHOST_USER_SET_STATUS] = {co_set_status, U64, 0, false},
    [VHOST_USER_GET_STATUS] = {co_get_status, 0, 0, 0, true},
};

bool co_vhost_user_device_handle(struct vhost_user_device *device, struct vhost_user_message *message,
                                 struct error **err)
{
    const struct handler *handler = message->request < VHOST_USER__MAX ? &handlers[message->request] : NULL;
    bool acknowledge = wants_answer(device, message);
    AUTO(error) why = NULL;
    bool done;

    if (!handler || !handler->co_handle)
        return error_set(err, "unknown message %u", message->request);
    if (message->size < handler->size_min || message->size > handler->size_max || message->fd_count > handler->fds_max)
        return error_set(err, "message %u has %u bytes and %u descriptors", message->request, message->size,
                         message->fd_count);
    TRACE(vhost_user_message, "%s message %u of %u bytes", device->name, message->request, message->size);
    done = handler->co_handle(device, message, &why);
    if (!done && (handler->replies || !acknowledge)) {
        error_prefix(&why, "message %u: ", message->request);
        return error_move(err, TAKE(why));
    }
    if (!done)
        log_warning("export '%s': message %u refused: %s", device->name, message->request, error_message(why));
    return handler->replies || !acknowledge || co_reply_u64(device, message, !done, err);
}
