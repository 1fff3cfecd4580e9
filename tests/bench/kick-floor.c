/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a request at depth 1 costs whoever serves it: two processes, two event descriptors and a page of memory that
 * they share. The server does nothing but sleep in read(2) until it is kicked, make one call on the file, and call
 * back; the client sleeps in poll(2), as vhost-bench does. Prints a line of JSON.
 *
 * usage: kick-floor FILE read|write SECONDS
 */
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096 };

struct floor {
    int file;
    int kick;
    int call;
    bool write;
    struct shared {
        _Atomic uint64_t block;
        atomic_bool stop;
        char data[BLOCK_BYTES];
    } * shared;
};

static void must(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void ring(int fd)
{
    uint64_t one = 1;

    must(write(fd, &one, sizeof(one)) == sizeof(one), "write to an event descriptor");
}

static void serve(struct floor *floor)
{
    struct shared *shared = floor->shared;
    uint64_t count;

    while (read(floor->kick, &count, sizeof(count)) == sizeof(count) && !atomic_load(&shared->stop)) {
        off_t offset = (off_t)atomic_load(&shared->block) * BLOCK_BYTES;
        ssize_t moved = floor->write ? pwrite(floor->file, shared->data, BLOCK_BYTES, offset)
                                     : pread(floor->file, shared->data, BLOCK_BYTES, offset);

        must(moved == BLOCK_BYTES, "the file");
        ring(floor->call);
    }
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Kicks until the time is over; how often. */
static uint64_t ask(struct floor *floor, uint64_t blocks, double seconds)
{
    double end_s = now_s() + seconds;
    uint64_t dice = 88172645463325252;
    uint64_t done = 0;
    uint64_t count;

    while (now_s() < end_s) {
        struct pollfd wait = {.fd = floor->call, .events = POLLIN};

        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        atomic_store(&floor->shared->block, dice % blocks);
        ring(floor->kick);
        must(poll(&wait, 1, 10000) == 1, "the server hangs");
        must(read(floor->call, &count, sizeof(count)) == sizeof(count), "read of an event descriptor");
        done++;
    }
    atomic_store(&floor->shared->stop, true);
    ring(floor->kick);
    return done;
}

int main(int argc, char **argv)
{
    struct floor floor = {.kick = eventfd(0, EFD_CLOEXEC), .call = eventfd(0, EFD_CLOEXEC)};
    struct rusage usage;
    double took_s;
    uint64_t done;
    off_t length;

    must(argc == 4, "usage: kick-floor FILE read|write SECONDS");
    floor.write = !strcmp(argv[2], "write");
    floor.file = open(argv[1], O_RDWR | O_CLOEXEC);
    length = lseek(floor.file, 0, SEEK_END);
    must(floor.kick >= 0 && floor.call >= 0 && length >= BLOCK_BYTES, argv[1]);
    floor.shared = mmap(NULL, sizeof(*floor.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(floor.shared != MAP_FAILED, "memory");
    if (!fork()) {
        serve(&floor);
        _exit(0);
    }
    took_s = now_s();
    done = ask(&floor, (uint64_t)length / BLOCK_BYTES, strtod(argv[3], NULL));
    took_s = now_s() - took_s;
    must(wait(NULL) > 0, "the server");
    getrusage(RUSAGE_CHILDREN, &usage);
    printf("{\"iops\": %.0f, \"cpu us\": %.2f}\n", (double)done / took_s,
           ((double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
            (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec)) /
               (double)done);
    return 0;
}
