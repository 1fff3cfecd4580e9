/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that a front end may do to the export: messages with descriptors, bytes in the shared memory, kicks; over a real
 * socket, on a disk of 64 KiB. The input is a list of steps, each a byte that says what it is and its arguments:
 *   0x00 + fds (0..8), kind of fds, request, flags, size: a message, the payload follows
 *   0x10 + fds, kind of fds, count: so many raw bytes, whatever they are
 *   0x20, offset (16 bits, in 16 bytes), count: bytes for the memory
 *   0x30: kicks
 *   0x40: the connection ends, another one begins
 */
#include <assert.h>
#include <glib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "driver/protocol/virtio-blk/vhost-user-protocol.h"
#include "export/fixture-test.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/shared-memory.h"
#include "loop/socket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY_BYTES = 1 << 17, PATIENCE_TURNS = 4, CONNECTIONS_MAX = 8, MESSAGE_MAX = 512 };

static struct export_fixture fixture;

/* What the inputs share, besides. */
static struct {
    int memory_fd;
    struct shared_memory *memory;
    int event_fd;
    int other_fd; /* of a kind that fits nowhere */
} shared;

static void begin(void *opaque)
{
    co_export_fixture_export(
        &fixture, "{'type': 'vhost-user-blk', 'id': 'e', 'node-name': 'n', 'writable': true, 'num-queues': 2, "
                  "'addr': {'type': 'unix', 'path': '%s', 'abstract': true}}");
    shared.memory_fd = shared_memory_file("fuzz", MEMORY_BYTES);
    shared.memory = shared_memory_map(shared.memory_fd, 0, MEMORY_BYTES, NULL);
    shared.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    shared.other_fd = dup(0);
    assert(shared.memory && shared.event_fd >= 0 && shared.other_fd >= 0);
}

struct input {
    const uint8_t *data;
    size_t size;
    int socket;
    unsigned connections;
};

static uint8_t next_byte(struct input *input)
{
    uint8_t byte = 0;

    if (input->size) {
        byte = *input->data++;
        input->size--;
    }
    return byte;
}

static size_t next_bytes(struct input *input, uint8_t *to, size_t size)
{
    size_t got = MIN(size, input->size);

    memset(to, 0, size);
    memcpy(to, input->data, got);
    input->data += got;
    input->size -= got;
    return got;
}

/* Lets the export do what it has to. */
static void CO_FN co_settle(void)
{
    for (int i = 0; i < PATIENCE_TURNS; i++)
        co_yield ();
}

/* Replies are read and forgotten. */
static void CO_FN co_forget_replies(struct input *input)
{
    uint8_t scratch[4096];

    co_settle();
    while (co_socket_recv(input->socket, scratch, sizeof(scratch), MSG_DONTWAIT) > 0)
        continue;
}

static void CO_FN co_connect(struct input *input)
{
    input->socket = co_export_fixture_dial(&fixture);
    input->connections++;
}

/* Waits for the export's hanging up, so that inputs do not meet. */
static void CO_FN co_disconnect(struct input *input)
{
    uint8_t scratch[4096];

    (void)shutdown(input->socket, SHUT_WR);
    while (co_socket_recv(input->socket, scratch, sizeof(scratch), 0) > 0)
        continue;
    fd_close(TAKE_FD(input->socket));
}

static void CO_FN co_send(struct input *input, const uint8_t *bytes, size_t size, unsigned fd_count, uint8_t kind)
{
    const int kinds[] = {shared.memory_fd, shared.event_fd, shared.other_fd, input->socket};
    union {
        struct cmsghdr alignment;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (!size)
        return;
    if (fd_count) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        CMSG_FIRSTHDR(&header)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&header)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&header)->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        for (unsigned i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)) + i * sizeof(int), &kinds[kind % 4], sizeof(int));
    }
    (void)!co_socket_send_message(input->socket, &header, 0);
    co_forget_replies(input);
}

static void CO_FN co_step(struct input *input)
{
    uint8_t bytes[MESSAGE_MAX];
    uint8_t step = next_byte(input);
    unsigned fd_count = step & 15;
    size_t size, offset;
    uint8_t kind;

    switch (step >> 4 & 7) {
    case 0:
        kind = next_byte(input);
        store_le32(bytes, next_byte(input));
        store_le32(bytes + 4, next_byte(input));
        size = next_byte(input);
        store_le32(bytes + 8, (uint32_t)size);
        next_bytes(input, bytes + 12, size);
        co_send(input, bytes, 12 + size, fd_count, kind);
        break;
    case 1:
        kind = next_byte(input);
        size = next_bytes(input, bytes, next_byte(input));
        co_send(input, bytes, size, fd_count, kind);
        break;
    case 2:
        offset = next_byte(input);
        offset = (offset | (size_t)next_byte(input) << 8) * 16 % (MEMORY_BYTES - 256);
        size = next_byte(input);
        next_bytes(input, shared_memory_base(shared.memory) + offset, size);
        break;
    case 3:
        (void)eventfd_write(shared.event_fd, 1);
        co_settle();
        break;
    default:
        if (input->connections < CONNECTIONS_MAX) {
            co_disconnect(input);
            co_connect(input);
        }
    }
}

static void run_input(void *opaque)
{
    struct input *input = opaque;

    memset(shared_memory_base(shared.memory), 0, MEMORY_BYTES);
    co_connect(input);
    while (input->size)
        co_step(input);
    co_disconnect(input);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};

    export_fixture_begin(&fixture, 65536, begin);
    co_run(fixture.loop, run_input, &input);
    return 0;
}
