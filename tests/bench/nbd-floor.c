/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bare NBD responder: the floor that benchmarks compare with. It receives a batch of requests, does each with one
 * system call on the file, and sends all replies in one go. No checks, one export, one thread a connection, simple
 * replies only.
 *
 * usage: nbd-floor SOCKET FILE
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"

enum {
    REQUEST_BYTES = 28,
    REPLY_BYTES = 16,
    INPUT_BYTES = 4 << 20,
    OUTPUT_BYTES = 8 << 20,
    OPTION_GO = 7,
    OPTION_ABORT = 2,
    REPLY_ACK = 1,
    REPLY_INFO = 3,
    COMMAND_READ = 0,
    COMMAND_WRITE = 1,
    COMMAND_DISCONNECT = 2,
};

static int file = -1;
static uint64_t file_bytes;

static void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static int receive_all(int fd, void *to, size_t size)
{
    return recv(fd, to, size, MSG_WAITALL) == (ssize_t)size;
}

static void option_reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t size)
{
    unsigned char head[20];

    store_be64(head, 0x3e889045565a9ULL);
    store_be32(head + 8, option);
    store_be32(head + 12, type);
    store_be32(head + 16, size);
    /* Who has gone meanwhile is noticed by the next receive. */
    (void)send(fd, head, sizeof(head), MSG_NOSIGNAL);
    (void)send(fd, data, size, MSG_NOSIGNAL);
}

/* Grants OPTION_GO for whatever name, refuses the rest. 0: the client gave up. */
static int negotiate(int fd)
{
    unsigned char buffer[4096];

    memcpy(buffer, "NBDMAGICIHAVEOPT", 16);
    store_be16(buffer + 16, 3);
    if (send(fd, buffer, 18, MSG_NOSIGNAL) != 18 || !receive_all(fd, buffer, 4))
        return 0; /* somebody only looked whether we are there */
    for (;;) {
        if (!receive_all(fd, buffer, 16))
            return 0;
        uint32_t option = load_be32(buffer + 8);
        uint32_t size = load_be32(buffer + 12);

        if (size > sizeof(buffer) || (size && !receive_all(fd, buffer, size)) || option == OPTION_ABORT)
            return 0;
        if (option == OPTION_GO) {
            store_be16(buffer, 0);
            store_be64(buffer + 2, file_bytes);
            store_be16(buffer + 10, 1 | 4 | 256); /* flags, flush, multi-conn */
            option_reply(fd, option, REPLY_INFO, buffer, 12);
            option_reply(fd, option, REPLY_ACK, NULL, 0);
            return 1;
        }
        option_reply(fd, option, 0x80000001u, NULL, 0);
    }
}

/* Does one request at `at`; appends the reply at `out`. Bytes appended. */
static size_t serve(const unsigned char *at, unsigned char *out)
{
    uint32_t length = load_be32(at + 24);
    uint64_t offset = load_be64(at + 16);
    size_t size = REPLY_BYTES;

    store_be32(out, 0x67446698);
    store_be32(out + 4, 0);
    memcpy(out + 8, at + 8, 8);
    if (load_be16(at + 6) == COMMAND_READ) {
        must(pread(file, out + REPLY_BYTES, length, (off_t)offset) == (ssize_t)length, "pread");
        size += length;
    } else if (load_be16(at + 6) == COMMAND_WRITE) {
        must(pwrite(file, at + REQUEST_BYTES, length, (off_t)offset) == (ssize_t)length, "pwrite");
    }
    return size;
}

static void send_all(int fd, const unsigned char *from, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, from, size, MSG_NOSIGNAL);

        if (sent <= 0)
            return;
        from += sent;
        size -= (size_t)sent;
    }
}

static size_t request_size(const unsigned char *at)
{
    return REQUEST_BYTES + (load_be16(at + 6) == COMMAND_WRITE ? load_be32(at + 24) : 0);
}

static void *connection(void *opaque)
{
    int fd = (int)(intptr_t)opaque;
    unsigned char *in = malloc(INPUT_BYTES);
    unsigned char *out = malloc(OUTPUT_BYTES);
    size_t have = 0;
    int open = negotiate(fd);

    while (open) {
        ssize_t got = recv(fd, in + have, INPUT_BYTES - have, 0);
        size_t at = 0;
        size_t filled = 0;

        if (got <= 0)
            break;
        have += (size_t)got;
        while (have - at >= REQUEST_BYTES && have - at >= request_size(in + at)) {
            if (load_be16(in + at + 6) == COMMAND_DISCONNECT)
                open = 0;
            if (filled + REPLY_BYTES + load_be32(in + at + 24) > OUTPUT_BYTES) {
                send_all(fd, out, filled);
                filled = 0;
            }
            filled += serve(in + at, out + filled);
            at += request_size(in + at);
        }
        send_all(fd, out, filled);
        memmove(in, in + at, have - at);
        have -= at;
    }
    free(in);
    free(out);
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat stat;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    if (argc != 3 || strlen(argv[1]) >= sizeof(address.sun_path)) {
        (void)fprintf(stderr, "usage: nbd-floor SOCKET FILE\n");
        return 1;
    }
    memcpy(address.sun_path, argv[1], strlen(argv[1]));
    file = open(argv[2], O_RDWR);
    must(file >= 0 && !fstat(file, &stat), argv[2]);
    file_bytes = (uint64_t)stat.st_size;
    must(!bind(listener, (struct sockaddr *)&address, sizeof(address)) && !listen(listener, 16), argv[1]);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;

        must(fd >= 0, "accept");
        must(!pthread_create(&thread, NULL, connection, (void *)(intptr_t)fd), "pthread_create");
        pthread_detach(thread);
    }
}
