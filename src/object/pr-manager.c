/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pr-manager-helper: a client of the persistent reservation helper protocol.
 *
 * Keeps: (1) `mutex` guards the connection, so one command is on its way; (2) a connection on which anything went wrong
 * is closed, and the next command makes a new one; (3) a command that the helper may have seen is not repeated.
 */
#include "object/pr-manager.h"
#include "base/units.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/error.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "object/object.h"
#include "schema/json.h"

enum {
    FEATURES_BYTES = 4,
    REPLY_BYTES = 8 + PR_SENSE_BYTES, /* status, payload size, sense data */
    CONNECT_TRIES = 5,
};
static const int64_t CONNECT_PAUSE_NS = NS_PER_S;

struct pr_manager {
    char *path;
    struct co_mutex mutex;
    int fd; /* mutex; -1: not connected */
};

/* All of it; -ECONNRESET at an early end. */
static int CO_FN co_receive(int fd, void *to, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = co_socket_recv(fd, (char *)to + at, size - at, 0);

        if (got <= 0)
            return got < 0 ? (int)got : -ECONNRESET;
        at += (size_t)got;
    }
    return 0;
}

static int CO_FN co_transmit(int fd, const void *from, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t put = co_socket_send(fd, (const char *)from + at, size - at, 0);

        if (put < 0)
            return (int)put;
        at += (size_t)put;
    }
    return 0;
}

/* A connection past its negotiation, of no feature so far: the descriptor, or -1 with the error. */
static int CO_FN co_connect(const char *path, struct error **err)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    static const uint8_t wanted[FEATURES_BYTES];
    uint8_t offered[FEATURES_BYTES];
    AUTO(fd) fd = co_socket_dial(&endpoint, err);

    if (fd < 0)
        return -1;
    int result = co_receive(fd, offered, sizeof(offered));
    if (result == 0)
        result = co_transmit(fd, wanted, sizeof(wanted));
    if (result == 0)
        return TAKE_FD(fd);
    error_set_errno(err, result, "Negotiation with the helper at '%s' failed", path);
    return -1;
}

/* The length that a CDB names, of data in either direction; -EINVAL. */
static int data_length(const uint8_t cdb[PR_CDB_BYTES])
{
    uint32_t length;

    if (cdb[0] == PR_OPERATION_IN)
        length = load_be16(cdb + 7);
    else if (cdb[0] == PR_OPERATION_OUT)
        length = load_be32(cdb + 5);
    else
        return -EINVAL;
    return length <= PR_DATA_BYTES_MAX ? (int)length : -EINVAL;
}

/* The first byte takes the descriptor of the device along. *ret_sent: whether the helper may have got anything. */
static int CO_FN co_send_request(int helper, int fd, const struct pr_command *command, int length, bool *ret_sent)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)command->cdb, .iov_len = PR_CDB_BYTES};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
    ssize_t put = co_socket_send_message(helper, &message, 0);
    if (put < 0)
        return (int)put;
    *ret_sent = true;
    int result = co_transmit(helper, command->cdb + put, PR_CDB_BYTES - (size_t)put);
    if (result == 0 && command->cdb[0] == PR_OPERATION_OUT)
        result = co_transmit(helper, command->data, (size_t)length);
    return result;
}

/* The SCSI status, or -errno; -EPROTO where the reply breaks the protocol. */
static int CO_FN co_receive_reply(int helper, struct pr_command *command, int length)
{
    uint8_t reply[REPLY_BYTES];
    int result = co_receive(helper, reply, sizeof(reply));

    if (result < 0)
        return result;
    uint32_t status = load_be32(reply);
    uint32_t size = load_be32(reply + 4);
    bool may_have_data = command->cdb[0] == PR_OPERATION_IN && status == 0;
    if (status > UINT8_MAX || size > (may_have_data ? (uint32_t)length : 0))
        return -EPROTO;
    memcpy(command->sense, reply + 8, PR_SENSE_BYTES);
    command->data_size = size;
    result = co_receive(helper, command->data, size);
    return result < 0 ? result : (int)status;
}

/* Makes a connection where there is none: 0 or -errno. The caller holds `mutex`. */
static int CO_FN co_reconnect(struct pr_manager *manager)
{
    for (int tries = 0; manager->fd < 0 && tries < CONNECT_TRIES; tries++) {
        int result = tries ? co_sleep_ns(CONNECT_PAUSE_NS) : 0;

        if (result < 0)
            return result;
        manager->fd = co_connect(manager->path, NULL);
    }
    return manager->fd < 0 ? -EIO : 0;
}

static void disconnect(struct pr_manager *manager)
{
    fd_close(manager->fd);
    manager->fd = -1;
}

/* The caller holds `mutex`. */
static int CO_FN co_execute(struct pr_manager *manager, int fd, struct pr_command *command, int length)
{
    /* That a helper was started anew shows when we send to the old one; once, then. */
    for (bool again = manager->fd >= 0;; again = false) {
        bool sent = false;
        int result = co_reconnect(manager);

        if (result < 0)
            return result;
        result = co_send_request(manager->fd, fd, command, length, &sent);
        if (result == 0)
            result = co_receive_reply(manager->fd, command, length);
        if (result >= 0)
            return result;
        disconnect(manager);
        if (result == -ECANCELED || result == -ETIMEDOUT)
            return result;
        if (sent || !again)
            return -EIO;
    }
}

int co_pr_manager_execute(struct object *object, int fd, struct pr_command *command)
{
    struct pr_manager *manager = object_state(object);
    int length = data_length(command->cdb);

    assert(object_get_class(object) == &pr_manager_helper_class);
    command->data_size = 0;
    if (length < 0)
        return length;
    co_mutex_lock(&manager->mutex);
    int result = co_execute(manager, fd, command, length);
    co_mutex_unlock(&manager->mutex);
    return result;
}

struct object *pr_manager_hold(struct object_registry *registry, const char *id, struct error **err)
{
    struct object *object = object_find(registry, id);

    if (!object) {
        error_set(err, "No persistent reservation manager with id '%s'", id);
        return NULL;
    }
    if (object_get_class(object) != &pr_manager_helper_class) {
        error_set(err, "Object with id '%s' is not a persistent reservation manager", id);
        return NULL;
    }
    return object_hold(object);
}

static bool CO_FN manager_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct pr_manager *manager = object_state(object);
    const char *path = options->u.pr_manager_helper.path;

    manager->fd = co_connect(path, err);
    if (manager->fd < 0)
        return false;
    manager->path = g_strdup(path);
    return true;
}

static void CO_FN manager_co_destroy(struct object *object)
{
    struct pr_manager *manager = object_state(object);

    disconnect(manager);
    co_mutex_done(&manager->mutex);
    g_free(manager->path);
}

static struct json *get_path(struct object *object, const struct object_property *property)
{
    const struct pr_manager *manager = object_state(object);

    return json_string(manager->path);
}

static const struct object_property properties[] = {
    {.name = "path", .type = "string", .description = "the helper's Unix socket", .get = get_path},
    {.name = NULL},
};

const struct object_class pr_manager_helper_class = {
    .type = OBJECT_TYPE_PR_MANAGER_HELPER,
    .state_size = sizeof(struct pr_manager),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = manager_co_create,
    .co_destroy = manager_co_destroy,
};
