/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a file demands of requests. Through the page cache anything goes. Direct I/O has to keep to an alignment, of the
 * offset and of the memory, which newer systems tell; otherwise reads with less and less alignment find it out.
 */
#include <assert.h>
#include <errno.h>
#include <linux/fs.h>

#include "base/checked.h"
#include "base/error.h"
#include "driver/protocol/file/file.h"
#include "loop/loop.h"

/* The most that one call of the system moves. */
#define TRANSFER_MAX (UINT32_C(0x80000000) - 4096)

enum { ALIGNMENT_MAX = 4096, SECTOR_SIZE = 512 };
static_assert((int)LOOP_BUFFER_ALIGNMENT >= (int)ALIGNMENT_MAX, "a buffer fits every probe");

static const uint32_t candidates[] = {1, SECTOR_SIZE, 1024, 2048, ALIGNMENT_MAX};

/* Whether a read of `bytes` from the start of the file into `to` finds nothing wrong with its alignment. */
static bool CO_FN co_read_is_aligned(struct file_node *file, char *to, uint32_t bytes)
{
    struct iovec iov = {to, bytes};

    return co_file_preadv(file->fd, &iov, 1, 0, FILE_ENGINE_THREADS) != -EINVAL;
}

/* By trying. An empty file takes any read, so that nothing can be learned from it. */
static void CO_FN co_probe_by_reading(struct file_node *file, uint64_t length, struct node_limits *limits)
{
    char *buffer = length ? loop_buffer_get(2 * ALIGNMENT_MAX) : NULL;

    limits->request_alignment = ALIGNMENT_MAX;
    limits->memory_alignment = ALIGNMENT_MAX;
    if (!buffer)
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(candidates); i++) {
        if (co_read_is_aligned(file, buffer, candidates[i])) {
            limits->request_alignment = candidates[i];
            break;
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(candidates); i++) {
        if (co_read_is_aligned(file, buffer + candidates[i], ALIGNMENT_MAX)) {
            limits->memory_alignment = candidates[i];
            break;
        }
    }
    loop_buffer_put(buffer, 2 * ALIGNMENT_MAX);
}

static bool CO_FN co_probe_direct(struct node *node, struct node_limits *limits, struct error **err)
{
    struct file_node *file = node_state(node);
    uint32_t memory;
    uint32_t offset;
    int64_t length = file_co_length(node);

    if (length < 0)
        return error_set_errno(err, (int)length, "Could not inquire the length of '%s'", file->shown_path);
    if (co_file_direct_alignment(file->fd, &memory, &offset) == 0 && is_power_of_two(memory) &&
        is_power_of_two(offset)) {
        limits->memory_alignment = memory;
        limits->request_alignment = offset;
        return true;
    }
    co_probe_by_reading(file, (uint64_t)length, limits);
    return true;
}

/* Of a block device: what its discards and zero writes have to keep to, and how large requests are best. */
static void CO_FN co_probe_device(struct file_node *file, struct node_limits *limits)
{
    int sector_size;
    unsigned optimal;

    if (co_file_ioctl(file->fd, BLKSSZGET, &sector_size) < 0 || !is_power_of_two((uint64_t)sector_size))
        sector_size = SECTOR_SIZE;
    limits->zeroes_alignment = (uint32_t)sector_size;
    limits->discard_alignment = (uint32_t)sector_size;
    if (co_file_ioctl(file->fd, BLKIOOPT, &optimal) == 0 && is_power_of_two(optimal))
        limits->transfer_optimal = optimal;
}

bool CO_FN file_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    struct file_node *file = node_state(node);

    limits->request_alignment = 1;
    limits->memory_alignment = 1;
    limits->transfer_max = TRANSFER_MAX;
    if (file->direct && !co_probe_direct(node, limits, err))
        return false;
    if (file->kind == FILE_BLOCK_DEVICE)
        co_probe_device(file, limits);
    file->request_alignment = limits->request_alignment;
    return true;
}
