/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/fuse/ring.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "export/fuse/session.h"
#include "loop/command-ring.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/loop.h"

enum {
    PAGE_BYTES = 4096,
    SLOT_BYTES = PAGE_BYTES + FUSE_WRITE_BYTES_MAX,
    SLOTS_WANTED = 256, /* in all; each of the kernel's queues has some of its own, busy or not */
    SLOTS_LEAST = 4,
    SLOTS_MOST = 32, /* of one queue */
    PROCESSORS_MAX = 4096,
};
enum slot_command { SLOT_REGISTER = 1, SLOT_COMMIT_AND_FETCH = 2 };

/* What a command has for the driver. */
struct slot_command_data {
    uint64_t flags;
    uint64_t commit_id;
    uint16_t kernel_queue;
    uint8_t padding[6];
};
static_assert(sizeof(struct slot_command_data) <= COMMAND_RING_DATA_BYTES, "an entry holds it");
static_assert(sizeof(struct fuse_slot_head) <= PAGE_BYTES, "a page holds it");

/* --- how many there are --- */

/* The processors that a list like "0-3,8" names; 0: it is none. */
static unsigned count_processors(const char *list)
{
    unsigned long count = 0;

    while (g_ascii_isdigit(*list)) {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;

        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        if (last < first || last >= PROCESSORS_MAX)
            return 0;
        count += last - first + 1;
        list = *end == ',' ? end + 1 : end;
    }
    return *list && *list != '\n' ? 0 : (unsigned)MIN(count, (unsigned long)PROCESSORS_MAX);
}

/* The kernel has a queue for each processor that there may ever be. */
static unsigned CO_FN co_count_kernel_queues(void)
{
    g_autofree char *list = NULL;
    AUTO(error) why = NULL;
    size_t size;

    return co_file_load("/sys/devices/system/cpu/possible", PAGE_BYTES, &list, &size, &why) ? count_processors(list)
                                                                                            : 0;
}

/* --- making them --- */

static bool ring_init(struct fuse_queue *queue, unsigned index, unsigned kernel_queues)
{
    struct fuse_ring *ring = &queue->ring;
    unsigned step = queue->file->queue_count;
    unsigned mine = kernel_queues / step + (index < kernel_queues % step);
    unsigned each = MAX(MIN(SLOTS_WANTED / kernel_queues, SLOTS_MOST), SLOTS_LEAST);
    AUTO(error) why = NULL;

    if (!mine)
        return true;
    ring->slot_count = mine * each;
    ring->memory_bytes = (size_t)ring->slot_count * SLOT_BYTES;
    ring->memory =
        mmap(NULL, ring->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ring->memory == MAP_FAILED) {
        ring->memory = NULL;
        return false;
    }
    ring->commands = command_ring_new(ring->slot_count, &why);
    if (!ring->commands) {
        TRACE(fuse_ring_refused, "%s", error_message(why));
        return false;
    }
    ring->slots = g_new0(struct fuse_slot, ring->slot_count);
    for (unsigned i = 0; i < ring->slot_count; i++) {
        uint8_t *place = ring->memory + (size_t)i * SLOT_BYTES;

        ring->slots[i] = (struct fuse_slot){.queue = queue,
                                            .head = (struct fuse_slot_head *)(void *)place,
                                            .payload = place + PAGE_BYTES,
                                            .kernel_queue = (uint16_t)(index + i / each * step)};
    }
    return true;
}

bool co_fuse_rings_prepare(struct fuse_file *file)
{
    struct loop *home = loop_current();
    unsigned kernel_queues = co_count_kernel_queues();
    bool done = kernel_queues && file->queue_count && !file->queues[0].ring.memory;

    for (unsigned i = 0; i < file->queue_count && done; i++) {
        co_move_to(file->queues[i].loop);
        done = ring_init(&file->queues[i], i, kernel_queues);
    }
    co_move_to(home);
    if (!done)
        co_fuse_rings_stop(file);
    return done;
}

/* --- working --- */

static void handle(struct fuse_slot *slot)
{
    const struct fuse_in_header *header = (const struct fuse_in_header *)(const void *)slot->head->header;
    struct fuse_request request = {
        .file = slot->queue->file,
        .queue = slot->queue,
        .slot = slot,
        .in = slot->head->header,
        .size = header->len,
        .argument = slot->head->argument,
        .data = slot->payload,
        .data_bytes = MIN(slot->head->payload_bytes, (uint32_t)FUSE_WRITE_BYTES_MAX),
    };

    if (header->len > sizeof(*header))
        request.argument_bytes = MIN(header->len - sizeof(*header), sizeof(slot->head->argument));
    co_fuse_handle(&request);
}

void fuse_slot_answer(struct fuse_slot *slot, const struct fuse_out_header *header, const void *payload, size_t bytes)
{
    assert(bytes <= FUSE_WRITE_BYTES_MAX);
    memcpy(slot->head->header, header, sizeof(*header));
    if (bytes && payload != slot->payload)
        memcpy(slot->payload, payload, bytes);
    slot->head->payload_bytes = (uint32_t)bytes;
}

static int CO_FN co_slot_command(struct fuse_slot *slot, enum slot_command operation, const struct iovec *parts)
{
    struct slot_command_data data = {.kernel_queue = slot->kernel_queue, .commit_id = slot->head->commit_id};
    struct ring_command command = {
        .fd = slot->queue->fd, .operation = operation, .address = (uintptr_t)parts, .length = parts ? 2 : 0};

    memcpy(command.data, &data, sizeof(data));
    return co_ring_command(slot->queue->ring.commands, &command);
}

/*
 * When one slot cannot be registered, the kernel gives its rings up, unless all of its queues have got another one:
 * what has been registered is as good as before, and everything else comes by the device.
 */
static void note_refusal(const struct fuse_slot *slot, int result)
{
    /* Rings have been turned off between the kernel's offer and our answer. */
    if (result == -EOPNOTSUPP)
        TRACE(fuse_ring_turned_off, "queue %u of the kernel", slot->kernel_queue);
    else if (!atomic_exchange(&slot->queue->file->ring_refused, true))
        log_warning("FUSE over io_uring: queue %u of the kernel: %s; requests come by the device", slot->kernel_queue,
                    g_strerror(-result));
}

/* Who has unmounted or shut down the file is for the readers to tell. */
static bool is_end(int result)
{
    return result == -ECANCELED || result == -ENOTCONN || result == -ECONNABORTED;
}

static void slot_run(void *opaque)
{
    struct fuse_slot *slot = opaque;
    struct fuse_file *file = slot->queue->file;
    struct iovec parts[2] = {{.iov_base = slot->head, .iov_len = sizeof(*slot->head)},
                             {.iov_base = slot->payload, .iov_len = FUSE_WRITE_BYTES_MAX}};
    int result = co_slot_command(slot, SLOT_REGISTER, parts);
    bool registered = result >= 0;

    while (result >= 0) {
        handle(slot);
        result = co_slot_command(slot, SLOT_COMMIT_AND_FETCH, NULL);
    }
    if (!is_end(result) && !registered) {
        note_refusal(slot, result);
    } else if (!is_end(result) && !atomic_exchange(&file->gone, true)) {
        /* An answer is lost, and whoever asked would wait for ever. */
        log_warning("FUSE over io_uring: queue %u of the kernel: %s", slot->kernel_queue, g_strerror(-result));
        file->unmounted(file);
    }
    co_group_done(&slot->queue->ring.running);
}

void co_fuse_rings_start(struct fuse_file *file)
{
    struct loop *home = loop_current();

    for (unsigned i = 0; i < file->queue_count; i++) {
        struct fuse_ring *ring = &file->queues[i].ring;

        co_move_to(file->queues[i].loop);
        co_group_add(&ring->running, ring->slot_count);
        for (unsigned slot = 0; slot < ring->slot_count; slot++)
            co_spawn(file->queues[i].loop, slot_run, &ring->slots[slot]);
        TRACE(fuse_ring, "%u slots", ring->slot_count);
    }
    co_move_to(home);
}

/* --- the end --- */

void co_fuse_rings_stop(struct fuse_file *file)
{
    struct loop *home = loop_current();

    for (unsigned i = 0; i < file->queue_count; i++) {
        struct fuse_ring *ring = &file->queues[i].ring;

        if (!ring->commands)
            continue;
        co_move_to(file->queues[i].loop);
        co_command_ring_close(ring->commands);
        co_group_wait(&ring->running);
        command_ring_free(TAKE(ring->commands));
    }
    co_move_to(home);
}

void fuse_rings_free(struct fuse_file *file)
{
    for (unsigned i = 0; i < file->queue_count; i++) {
        struct fuse_ring *ring = &file->queues[i].ring;

        assert(!ring->commands);
        if (ring->memory)
            (void)munmap(ring->memory, ring->memory_bytes);
        g_free(ring->slots);
    }
}
