/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection to a vhost-user back end. One message is under way at a time; a coroutine receives the replies, and so
 * hears when the back end goes; another one listens to what the back end says by itself, on a channel of its own.
 *
 * Keeps: a reply that nobody waits for, or to another message than the one that is under way, ends the connection.
 */
#include "driver/protocol/virtio-blk/vhost-user.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/trace.h"
#include "base/units.h"
#include "driver/protocol/virtio-blk/transport.h"
#include "driver/protocol/virtio-blk/vhost-user-message.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/socket.h"

/* Where a packed ring begins: at place 0 of both sides, with the wrap bits set. */
#define PACKED_BASE 0x80008000u

enum { ANSWER_SECONDS = 10, ADDRESS_FIRST = 1 << 20, QUEUE_SIZE_MAX = 1024 };

#define PROTOCOL_FEATURE(name) (UINT64_C(1) << VHOST_USER_PROTOCOL_F_##name)

static const uint64_t protocol_features = PROTOCOL_FEATURE(MQ) | PROTOCOL_FEATURE(REPLY_ACK) |
                                          PROTOCOL_FEATURE(BACKEND_REQ) | PROTOCOL_FEATURE(CONFIG) |
                                          PROTOCOL_FEATURE(STATUS);

static const uint64_t transport_features = UINT64_C(1) << VHOST_F_LOG_ALL | UINT64_C(1)
                                                                                << VHOST_USER_F_PROTOCOL_FEATURES;

struct vhost_user_front {
    struct virtio_transport transport;
    int socket;
    int channel; /* of the back end; -1: none */
    uint64_t own_features;
    uint64_t protocol_features;

    struct co_mutex calling; /* all about the message under way */
    struct vhost_user_message message;
    bool waiting; /* for the reply to it */
    bool lost;
    struct error *why;
    struct co_condition answered;

    struct co_task *reader;
    struct co_task *listener;
};

static struct vhost_user_front *front_of(struct virtio_transport *transport)
{
    return (struct vhost_user_front *)transport;
}

/* --- receiving --- */

/* Takes `why`. */
static void CO_FN co_lose(struct vhost_user_front *front, struct error *why)
{
    const struct virtio_watcher *watcher = front->transport.watcher;

    if (front->lost) {
        error_free(why);
        return;
    }
    front->lost = true;
    front->why = why;
    co_condition_broadcast(&front->answered);
    TRACE(vhost_user_front_lost, "%s", error_message(why));
    if (watcher)
        watcher->co_lost(front->transport.watcher_opaque, error_message(why));
}

static bool take_reply(struct vhost_user_front *front, const struct vhost_user_message *reply, struct error **err)
{
    if (!front->waiting || reply->request != front->message.request)
        return error_set(err, "reply to message %u, which was not asked for", reply->request);
    if (reply->size > sizeof(front->message.payload.config))
        return error_set(err, "reply of %u bytes to message %u", reply->size, reply->request);
    front->message.size = reply->size;
    memcpy(front->message.payload.bytes, reply->payload.bytes, reply->size);
    front->waiting = false;
    co_condition_broadcast(&front->answered);
    return true;
}

static void reader_run(void *opaque)
{
    struct vhost_user_front *front = opaque;
    struct vhost_user_message *message = g_new(struct vhost_user_message, 1);
    struct error *why = NULL;
    bool going = true;

    while (going && co_vhost_user_receive(front->socket, true, message, &why) == 1) {
        going = take_reply(front, message, &why);
        vhost_user_message_done(message);
    }
    g_free(message);
    if (!why)
        error_set(&why, "the back end has closed the connection");
    co_lose(front, why);
}

/* The back end's own messages. Where the channel ends, so will the connection. */
static void listener_run(void *opaque)
{
    struct vhost_user_front *front = opaque;
    struct vhost_user_message *message = g_new(struct vhost_user_message, 1);
    const struct virtio_watcher *watcher;

    while (co_vhost_user_receive(front->channel, false, message, NULL) == 1) {
        bool known = message->request == VHOST_USER_BACKEND_CONFIG_CHANGE;

        vhost_user_message_done(message);
        watcher = front->transport.watcher;
        if (known && watcher)
            watcher->co_config_changed(front->transport.watcher_opaque);
        if (!(message->flags & VHOST_USER_NEED_REPLY))
            continue;
        message->flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
        message->size = sizeof(uint64_t);
        message->payload.u64 = !known;
        if (co_vhost_user_send(front->channel, message) < 0)
            break;
    }
    g_free(message);
}

/* --- calling --- */

static bool has(const struct vhost_user_front *front, uint64_t feature)
{
    return front->protocol_features & feature;
}

static bool CO_FN co_wait_for_reply(struct vhost_user_front *front, struct error **err)
{
    struct co_deadline deadline;
    int result = 0;

    co_deadline_begin(&deadline, ANSWER_SECONDS * NS_PER_S);
    while (front->waiting && !front->lost && !result)
        result = co_condition_wait(&front->answered, NULL);
    co_deadline_end(&deadline);
    if (!front->waiting)
        return true;
    front->waiting = false;
    if (front->lost)
        return error_set(err, "%s", error_message(front->why));
    if (result != -ETIMEDOUT)
        return error_set_errno(err, result, "message %u", front->message.request);
    return error_set(err, "no answer to message %u within %d seconds: it may be serving another front end",
                     front->message.request, ANSWER_SECONDS);
}

/* Sends front->message, `calling` held; and waits for the reply, where `answers`. */
static bool CO_FN co_exchange(struct vhost_user_front *front, bool answers, struct error **err)
{
    int result;

    if (front->lost)
        return error_set(err, "%s", error_message(front->why));
    front->waiting = answers;
    result = co_vhost_user_send(front->socket, &front->message);
    if (!result)
        return !answers || co_wait_for_reply(front, err);
    front->waiting = false;
    return error_set_errno(err, result, "sending message %u", front->message.request);
}

static void CO_FN co_begin(struct vhost_user_front *front, enum vhost_user_request request, uint32_t size)
{
    co_mutex_lock(&front->calling);
    memset(&front->message.payload, 0, sizeof(front->message.payload.config));
    front->message.request = request;
    front->message.flags = VHOST_USER_VERSION;
    front->message.size = size;
    front->message.fd_count = 0;
}

/* The message begun is a wish, whose refusal is heard of where the back end can say so. */
static bool CO_FN co_wish(struct vhost_user_front *front, struct error **err)
{
    bool acknowledged = has(front, PROTOCOL_FEATURE(REPLY_ACK));
    bool done;

    if (acknowledged)
        front->message.flags |= VHOST_USER_NEED_REPLY;
    done = co_exchange(front, acknowledged, err);
    if (done && acknowledged && (front->message.size != sizeof(uint64_t) || front->message.payload.u64))
        done = error_set(err, "the back end refuses message %u", front->message.request);
    co_mutex_unlock(&front->calling);
    return done;
}

static bool CO_FN co_tell(struct vhost_user_front *front, enum vhost_user_request request, struct error **err)
{
    co_begin(front, request, 0);
    return co_wish(front, err);
}

static bool CO_FN co_set_u64(struct vhost_user_front *front, enum vhost_user_request request, uint64_t value,
                             struct error **err)
{
    co_begin(front, request, sizeof(value));
    front->message.payload.u64 = value;
    return co_wish(front, err);
}

static bool CO_FN co_set_state(struct vhost_user_front *front, enum vhost_user_request request, uint32_t index,
                               uint32_t value, struct error **err)
{
    co_begin(front, request, sizeof(front->message.payload.state));
    front->message.payload.state = (struct vhost_user_vring_state){.index = index, .num = value};
    return co_wish(front, err);
}

static bool CO_FN co_set_fd(struct vhost_user_front *front, enum vhost_user_request request, uint64_t value, int fd,
                            struct error **err)
{
    co_begin(front, request, sizeof(value));
    front->message.payload.u64 = value;
    front->message.fds[0] = fd;
    front->message.fd_count = 1;
    return co_wish(front, err);
}

static bool CO_FN co_get_u64(struct vhost_user_front *front, enum vhost_user_request request, uint64_t *ret,
                             struct error **err)
{
    bool done;

    co_begin(front, request, 0);
    done = co_exchange(front, true, err);
    if (done && front->message.size != sizeof(*ret))
        done = error_set(err, "reply of %u bytes to message %u", front->message.size, request);
    if (done)
        *ret = front->message.payload.u64;
    co_mutex_unlock(&front->calling);
    return done;
}

/* --- what a transport does --- */

static bool CO_FN co_set_features(struct virtio_transport *transport, uint64_t features, struct error **err)
{
    struct vhost_user_front *front = front_of(transport);

    if (!co_set_u64(front, VHOST_USER_SET_FEATURES, features | front->own_features, err))
        return false;
    return !has(front, PROTOCOL_FEATURE(STATUS)) ||
           co_set_u64(front, VHOST_USER_SET_STATUS,
                      VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK, err);
}

static bool CO_FN co_read_config(struct virtio_transport *transport, uint8_t to[VIRTIO_BLK_CONFIG_BYTES],
                                 struct error **err)
{
    struct vhost_user_front *front = front_of(transport);
    const struct vhost_user_config *config = &front->message.payload.config;
    bool done;

    co_begin(front, VHOST_USER_GET_CONFIG, VHOST_USER_CONFIG_HEADER_BYTES + VIRTIO_BLK_CONFIG_BYTES);
    front->message.payload.config.size = VIRTIO_BLK_CONFIG_BYTES;
    done = co_exchange(front, true, err);
    if (done && (front->message.size != VHOST_USER_CONFIG_HEADER_BYTES + VIRTIO_BLK_CONFIG_BYTES ||
                 config->size != VIRTIO_BLK_CONFIG_BYTES))
        done = error_set(err, "the back end gives %u bytes of its configuration, not %d", config->size,
                         VIRTIO_BLK_CONFIG_BYTES);
    if (done)
        memcpy(to, config->bytes, VIRTIO_BLK_CONFIG_BYTES);
    co_mutex_unlock(&front->calling);
    return done;
}

static bool CO_FN co_share_memory(struct virtio_transport *transport, int fd, void *base, uint64_t address, size_t size,
                                  struct error **err)
{
    struct vhost_user_front *front = front_of(transport);
    struct vhost_user_memory *memory = &front->message.payload.memory;

    co_begin(front, VHOST_USER_SET_MEM_TABLE, offsetof(struct vhost_user_memory, regions) + sizeof(memory->regions[0]));
    memory->count = 1;
    /* Rings are given by the front end's addresses, buffers by the guest's: here they are the same. */
    memory->regions[0] = (struct vhost_user_region){.guest_address = address, .size = size, .user_address = address};
    front->message.fds[0] = fd;
    front->message.fd_count = 1;
    return co_wish(front, err);
}

static bool CO_FN co_start_queue(struct virtio_transport *transport, const struct virtio_queue_place *place,
                                 struct error **err)
{
    struct vhost_user_front *front = front_of(transport);
    unsigned index = place->index;

    if (!co_set_state(front, VHOST_USER_SET_VRING_NUM, index, place->size, err) ||
        !co_set_state(front, VHOST_USER_SET_VRING_BASE, index, place->packed ? PACKED_BASE : 0, err))
        return false;
    co_begin(front, VHOST_USER_SET_VRING_ADDR, sizeof(front->message.payload.address));
    front->message.payload.address = (struct vhost_user_vring_address){
        .index = index, .descriptors = place->descriptors, .used = place->device_area, .available = place->driver_area};
    return co_wish(front, err) && co_set_fd(front, VHOST_USER_SET_VRING_CALL, index, place->call_fd, err) &&
           co_set_fd(front, VHOST_USER_SET_VRING_KICK, index, place->kick_fd, err) &&
           (!front->own_features || co_set_state(front, VHOST_USER_SET_VRING_ENABLE, index, 1, err));
}

static bool CO_FN co_go(struct virtio_transport *transport, struct error **err)
{
    struct vhost_user_front *front = front_of(transport);

    return !has(front, PROTOCOL_FEATURE(STATUS)) || co_set_u64(front, VHOST_USER_SET_STATUS,
                                                               VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
                                                                   VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK,
                                                               err);
}

static void CO_FN co_end_task(struct co_task *task)
{
    if (task)
        co_task_cancel(task);
    co_task_join(task);
}

static void CO_FN co_front_free(struct virtio_transport *transport)
{
    struct vhost_user_front *front = front_of(transport);

    transport->watcher = NULL;
    co_end_task(TAKE(front->reader));
    co_end_task(TAKE(front->listener));
    fd_close(front->socket);
    fd_close(front->channel);
    error_free(front->why);
    co_condition_done(&front->answered);
    co_mutex_done(&front->calling);
    g_free(front);
}

static const struct virtio_transport_ops vhost_user_ops = {
    .co_set_features = co_set_features,
    .co_read_config = co_read_config,
    .co_share_memory = co_share_memory,
    .co_start_queue = co_start_queue,
    .co_go = co_go,
    .co_free = co_front_free,
};

/* --- connecting --- */

static bool CO_FN co_open_channel(struct vhost_user_front *front, struct error **err)
{
    int pair[2];
    bool done;

    if (!has(front, PROTOCOL_FEATURE(BACKEND_REQ)))
        return true;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set_errno(err, errno, "no channel for the back end");
    front->channel = pair[0];
    done = co_set_fd(front, VHOST_USER_SET_BACKEND_REQ_FD, 0, pair[1], err);
    fd_close(pair[1]);
    if (done)
        front->listener = co_task_start(loop_current(), listener_run, front);
    return done;
}

static bool CO_FN co_greet(struct vhost_user_front *front, struct error **err)
{
    uint64_t features;
    uint64_t queues = 1;

    if (!co_get_u64(front, VHOST_USER_GET_FEATURES, &features, err) || !co_tell(front, VHOST_USER_SET_OWNER, err))
        return false;
    front->transport.offered = features & ~transport_features;
    front->own_features = features & UINT64_C(1) << VHOST_USER_F_PROTOCOL_FEATURES;
    if (!front->own_features)
        return error_set(err, "the back end offers no protocol features, and so no configuration of a disk");
    if (!co_get_u64(front, VHOST_USER_GET_PROTOCOL_FEATURES, &features, err) ||
        !co_set_u64(front, VHOST_USER_SET_PROTOCOL_FEATURES, features & protocol_features, err))
        return false;
    front->protocol_features = features & protocol_features;
    if (!has(front, PROTOCOL_FEATURE(CONFIG)))
        return error_set(err, "the back end offers no configuration of a disk");
    if (has(front, PROTOCOL_FEATURE(MQ)) && !co_get_u64(front, VHOST_USER_GET_QUEUE_NUM, &queues, err))
        return false;
    if (!queues || queues > VIRTIO_BLK_QUEUES_MAX)
        return error_set(err, "the back end has %" PRIu64 " queues", queues);
    front->transport.queues_max = (unsigned)queues;
    return co_open_channel(front, err);
}

struct virtio_transport *co_vhost_user_connect(const char *path, struct error **err)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    struct vhost_user_front *front;
    int fd = co_socket_dial(&endpoint, err);

    if (fd < 0)
        return NULL;
    front = g_new0(struct vhost_user_front, 1);
    front->transport.ops = &vhost_user_ops;
    front->transport.queue_size_max = QUEUE_SIZE_MAX;
    front->transport.address_first = ADDRESS_FIRST;
    front->transport.address_last = UINT64_MAX;
    front->socket = fd;
    front->channel = -1;
    front->reader = co_task_start(loop_current(), reader_run, front);
    if (co_greet(front, err))
        return &front->transport;
    co_front_free(&front->transport);
    error_prefix(err, "vhost-user back end at '%s': ", path);
    return NULL;
}
