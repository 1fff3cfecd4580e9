/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A header, perhaps with descriptors, then the payload. Whatever is wrong, no descriptor stays open. */
#include "driver/protocol/virtio-blk/vhost-user-message.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "loop/socket.h"

struct header {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
};

union control {
    struct cmsghdr alignment;
    char bytes[CMSG_SPACE(sizeof(int) * VHOST_USER_FDS_MAX)];
};

void vhost_user_message_done(struct vhost_user_message *message)
{
    for (unsigned i = 0; i < message->fd_count; i++)
        fd_close(TAKE_FD(message->fds[i]));
    message->fd_count = 0;
}

static void take_fds(struct vhost_user_message *to, struct msghdr *from)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(from); part; part = CMSG_NXTHDR(from, part)) {
        unsigned count = (unsigned)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));

        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        for (unsigned i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
            if (to->fd_count < VHOST_USER_FDS_MAX)
                to->fds[to->fd_count++] = fd;
            else
                fd_close(fd);
        }
    }
}

/* All of `size` bytes and the descriptors with them: 1, 0: the other side has gone before the first, or -errno. */
static int CO_FN co_receive_exact(int socket, void *to, size_t size, struct vhost_user_message *message)
{
    size_t done = 0;

    while (done < size) {
        union control control;
        struct iovec rest = {.iov_base = (char *)to + done, .iov_len = size - done};
        struct msghdr header = {
            .msg_iov = &rest, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
        ssize_t got = co_socket_recv_message(socket, &header, MSG_CMSG_CLOEXEC);

        if (got < 0)
            return (int)got;
        take_fds(message, &header);
        if (header.msg_flags & MSG_CTRUNC)
            return -EMSGSIZE;
        if (!got)
            return done ? -ECONNRESET : 0;
        done += (size_t)got;
    }
    return 1;
}

static bool check_header(const struct header *header, bool replies, struct error **err)
{
    uint32_t must = VHOST_USER_VERSION | (replies ? VHOST_USER_REPLY : 0);
    uint32_t may = must | VHOST_USER_NEED_REPLY;

    if ((header->flags & must) != must || header->flags & ~may)
        return error_set(err, "message %u: bad flags 0x%x", header->request, header->flags);
    if (header->size > VHOST_USER_PAYLOAD_MAX)
        return error_set(err, "message %u: %u bytes are more than %d", header->request, header->size,
                         VHOST_USER_PAYLOAD_MAX);
    return true;
}

static int CO_FN co_receive_payload(int socket, struct vhost_user_message *message, struct error **err)
{
    int result = message->size ? co_receive_exact(socket, message->payload.bytes, message->size, message) : 1;

    if (!result)
        result = -ECONNRESET;
    if (result < 0)
        error_set_errno(err, result, "message %u of %u bytes", message->request, message->size);
    return result;
}

int co_vhost_user_receive(int socket, bool replies, struct vhost_user_message *ret, struct error **err)
{
    struct header header;
    int result;

    ret->fd_count = 0;
    result = co_receive_exact(socket, &header, sizeof(header), ret);
    if (result < 0) {
        error_set_errno(err, result, "receiving a message");
    } else if (result > 0 && !check_header(&header, replies, err)) {
        result = -EPROTO;
    } else if (result > 0) {
        ret->request = header.request;
        ret->flags = header.flags;
        ret->size = header.size;
        memset(&ret->payload, 0, sizeof(struct vhost_user_memory));
        result = co_receive_payload(socket, ret, err);
    }
    if (result <= 0)
        vhost_user_message_done(ret);
    return result;
}

static void put_fds(struct msghdr *header, union control *control, const struct vhost_user_message *from)
{
    size_t size = from->fd_count * sizeof(from->fds[0]);

    header->msg_control = control->bytes;
    header->msg_controllen = CMSG_SPACE(size);
    CMSG_FIRSTHDR(header)->cmsg_level = SOL_SOCKET;
    CMSG_FIRSTHDR(header)->cmsg_type = SCM_RIGHTS;
    CMSG_FIRSTHDR(header)->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(header)), from->fds, size);
}

int co_vhost_user_send(int socket, const struct vhost_user_message *message)
{
    struct header head = {.request = message->request, .flags = message->flags, .size = message->size};
    uint8_t bytes[sizeof(head) + VHOST_USER_PAYLOAD_SENT_MAX];
    size_t size = sizeof(head) + message->size;
    union control control = {.bytes = {0}};
    size_t done = 0;

    assert(size <= sizeof(bytes) && message->fd_count <= VHOST_USER_FDS_MAX);
    memcpy(bytes, &head, sizeof(head));
    memcpy(bytes + sizeof(head), message->payload.bytes, message->size);
    while (done < size) {
        struct iovec rest = {.iov_base = bytes + done, .iov_len = size - done};
        struct msghdr header = {.msg_iov = &rest, .msg_iovlen = 1};
        ssize_t sent;

        if (message->fd_count && !done)
            put_fds(&header, &control, message);
        sent = co_socket_send_message(socket, &header, 0);
        if (sent < 0)
            return (int)sent;
        done += (size_t)sent;
    }
    return 0;
}
