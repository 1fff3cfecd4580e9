/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A cheap client for vhost-user-blk back ends: keeps a number of requests of 4 KiB under way on each queue and prints a
 * line of JSON. One thread works on all rings, and does nothing else; it sleeps when nothing has ended, or with --poll
 * looks all the time and wants no signals.
 *
 * usage: vhost-bench SOCKET read|write DEPTH QUEUES SECONDS [--poll] [--split] [--bytes N]
 */
#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "driver/protocol/virtio-blk/disk.h"
#include "driver/protocol/virtio-blk/queue.h"
#include "driver/protocol/virtio-blk/ring.h"
#include "driver/protocol/virtio-blk/transport.h"
#include "driver/protocol/virtio-blk/vhost-user.h"
#include "loop/loop.h"

enum { QUEUES_MAX = 8, SAMPLES_MAX = 1 << 22, SAMPLE_EVERY = 8, CLOCK_EVERY = 64, DEPTH_MAX = VIRTIO_DISK_QUEUE_SIZE };

struct bench {
    const char *path;
    bool write;
    bool polling;
    bool split;
    unsigned depth;
    unsigned queue_count;
    uint32_t bytes;
    double seconds;
    struct virtio_disk *disk;
    struct virtio_queue *queues[QUEUES_MAX];
    uint64_t blocks;
    uint64_t dice;
    uint64_t done;
    uint64_t began_ns[QUEUES_MAX][DEPTH_MAX]; /* of sampled requests; 0: the one in this slot is not */
    uint32_t *samples;
    unsigned sample_count;
};

static void must(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "vhost-bench: %s\n", what);
        exit(1);
    }
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t roll(struct bench *bench)
{
    bench->dice ^= bench->dice << 13;
    bench->dice ^= bench->dice >> 7;
    bench->dice ^= bench->dice << 17;
    return bench->dice;
}

static void connect_run(void *opaque)
{
    struct bench *bench = opaque;
    struct virtio_disk_options options = {.queues = bench->queue_count,
                                          .without = bench->split ? VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) : 0};
    AUTO(error) error = NULL;
    struct virtio_transport *transport = co_vhost_user_connect(bench->path, &error);

    bench->disk = transport ? co_virtio_disk_open(transport, &options, &error) : NULL;
    must(bench->disk != NULL, error ? error_message(error) : "");
}

static void close_run(void *opaque)
{
    co_virtio_disk_close(((struct bench *)opaque)->disk);
}

/* The slot's header and table; data lies in its place of the queue's memory. */
static void submit(struct bench *bench, unsigned q, uint16_t token)
{
    struct virtio_queue *queue = bench->queues[q];
    struct virtio_slot slot = virtio_queue_slot(queue, token);
    uint64_t data = queue->setup.address + queue->pieces_offset + (uint64_t)token * bench->bytes;
    struct vring_segment segments[] = {
        {slot.address, VIRTIO_BLK_HEADER_BYTES}, {data, bench->bytes}, {slot.address + (slot.status - slot.header), 1}};
    struct vring_request request = {.segments = segments,
                                    .readable = bench->write ? 2 : 1,
                                    .writable = bench->write ? 1 : 2,
                                    .table = slot.table,
                                    .table_address = slot.address + (slot.table - slot.header),
                                    .token = token};
    uint64_t sector = roll(bench) % bench->blocks * (bench->bytes / VIRTIO_BLK_SECTOR_BYTES);

    store_le32(slot.header, bench->write ? VIRTIO_BLK_OUT : VIRTIO_BLK_IN);
    store_le64(slot.header + VIRTIO_BLK_HEADER_SECTOR, sector);
    *slot.status = VIRTIO_BLK_IOERR;
    bench->began_ns[q][token] = roll(bench) % SAMPLE_EVERY ? 0 : now_ns();
    vring_add(queue->ring, &request);
}

static void kick(struct virtio_queue *queue)
{
    uint64_t one = 1;

    if (vring_must_kick(queue->ring))
        must(write(queue->kick_fd, &one, sizeof(one)) == sizeof(one), "kick");
}

/* Takes what has ended and, as long as it goes on, puts the same again; how many there were. */
static unsigned reap(struct bench *bench, unsigned q, bool more)
{
    struct virtio_queue *queue = bench->queues[q];
    unsigned count = 0;
    uint32_t written;
    uint16_t token;
    int result;

    while ((result = vring_get(queue->ring, &token, &written)) == 1) {
        must(*virtio_queue_slot(queue, token).status == VIRTIO_BLK_OK, "a request failed");
        if (bench->began_ns[q][token] && bench->sample_count < SAMPLES_MAX)
            bench->samples[bench->sample_count++] = (uint32_t)(now_ns() - bench->began_ns[q][token]);
        bench->done++;
        count++;
        if (more)
            submit(bench, q, token);
    }
    must(!result, "the ring is broken");
    kick(queue);
    return count;
}

static void sleep_until_called(struct bench *bench)
{
    struct pollfd waits[QUEUES_MAX];
    bool ready = false;

    for (unsigned i = 0; i < bench->queue_count; i++) {
        vring_want_calls(bench->queues[i]->ring, true);
        ready |= vring_has_done(bench->queues[i]->ring);
        waits[i] = (struct pollfd){.fd = bench->queues[i]->call_fd, .events = POLLIN};
    }
    if (!ready)
        must(poll(waits, bench->queue_count, 10000) > 0, "the back end hangs");
    for (unsigned i = 0; i < bench->queue_count; i++) {
        uint64_t calls;

        if (!ready && waits[i].revents)
            (void)!read(waits[i].fd, &calls, sizeof(calls));
        vring_want_calls(bench->queues[i]->ring, false);
    }
}

static double work(struct bench *bench)
{
    uint64_t began = now_ns();
    uint64_t end = began + (uint64_t)(bench->seconds * 1e9);
    uint64_t now = began;
    unsigned under_way = 1;

    for (unsigned q = 0; q < bench->queue_count; q++) {
        vring_want_calls(bench->queues[q]->ring, false);
        for (unsigned i = 0; i < bench->depth; i++)
            submit(bench, q, (uint16_t)i);
        kick(bench->queues[q]);
    }
    for (unsigned turn = 0; under_way; turn++) {
        unsigned count = 0;

        if (!bench->polling || turn % CLOCK_EVERY == 0)
            now = now_ns();
        under_way = 0;
        for (unsigned q = 0; q < bench->queue_count; q++) {
            count += reap(bench, q, now < end);
            under_way += vring_outstanding(bench->queues[q]->ring);
        }
        if (!count && under_way && !bench->polling)
            sleep_until_called(bench);
    }
    return (double)(now_ns() - began) / 1e9;
}

static int by_value(const void *a, const void *b)
{
    uint32_t first = *(const uint32_t *)a;
    uint32_t second = *(const uint32_t *)b;

    return first < second ? -1 : first > second;
}

static double percentile_us(const struct bench *bench, double part)
{
    return bench->sample_count ? bench->samples[(unsigned)(part * (bench->sample_count - 1))] / 1000.0 : 0;
}

static void report(struct bench *bench, double took_s)
{
    struct rusage usage;
    double cpu_s;

    getrusage(RUSAGE_SELF, &usage);
    cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
            (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    qsort(bench->samples, bench->sample_count, sizeof(bench->samples[0]), by_value);
    printf("{\"requests\": %" G_GUINT64_FORMAT ", \"iops\": %.0f, \"p50 us\": %.1f, \"p99 us\": %.1f, "
           "\"client cpu us\": %.2f, \"packed\": %s}\n",
           bench->done, (double)bench->done / took_s, percentile_us(bench, 0.5), percentile_us(bench, 0.99),
           cpu_s / (double)bench->done * 1e6, bench->queues[0]->setup.packed ? "true" : "false");
}

static void parse(struct bench *bench, int argc, char **argv)
{
    must(argc >= 6, "usage: vhost-bench SOCKET read|write DEPTH QUEUES SECONDS [--poll] [--split] [--bytes N]");
    bench->path = argv[1];
    bench->write = !strcmp(argv[2], "write");
    bench->depth = (unsigned)strtoul(argv[3], NULL, 10);
    bench->queue_count = (unsigned)strtoul(argv[4], NULL, 10);
    bench->seconds = strtod(argv[5], NULL);
    for (int i = 6; i < argc; i++) {
        bench->polling |= !strcmp(argv[i], "--poll");
        bench->split |= !strcmp(argv[i], "--split");
        if (!strcmp(argv[i], "--bytes") && i + 1 < argc)
            bench->bytes = (uint32_t)strtoul(argv[++i], NULL, 10);
    }
    must(bench->depth && bench->depth <= DEPTH_MAX, "depth");
    must(bench->queue_count && bench->queue_count <= QUEUES_MAX, "queues");
    must(bench->bytes && bench->bytes % VIRTIO_BLK_SECTOR_BYTES == 0 &&
             (uint64_t)bench->bytes * bench->depth <= VIRTIO_QUEUE_PIECES * VIRTIO_QUEUE_PIECE_BYTES,
         "bytes");
}

int main(int argc, char **argv)
{
    static struct bench bench = {.bytes = 4096, .dice = 88172645463325252};
    struct loop *loop;
    double took_s;

    parse(&bench, argc, argv);
    bench.samples = g_new(uint32_t, SAMPLES_MAX);
    loop = loop_new(NULL, NULL);
    must(loop != NULL, "no event loop");
    co_run(loop, connect_run, &bench);
    for (unsigned i = 0; i < bench.queue_count; i++) {
        bench.queues[i] = virtio_disk_queue(bench.disk, i);
        must(bench.queues[i] != NULL, "the back end has fewer queues");
    }
    bench.blocks = virtio_disk_length(bench.disk) / bench.bytes;
    took_s = work(&bench);
    report(&bench, took_s);
    co_run(loop, close_run, &bench);
    loop_free(loop);
    g_free(bench.samples);
    return 0;
}
