/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing zeroes and discarding without moving data. File systems differ in what they can do; what one has refused is
 * not asked for again, and -ENOTSUP leaves the work to the core.
 */
#include <assert.h>
#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include "base/trace.h"
#include "driver/protocol/file/file.h"

static const int punch_mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
static const int zero_mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

/* fallocate(2); -ENOTSUP where that cannot be done here. */
static int CO_FN co_allocate(struct file_node *file, enum file_operation operation, int mode, uint64_t offset,
                             uint64_t bytes)
{
    int result;

    if (!file_supports(file, operation))
        return -ENOTSUP;
    result = co_file_allocate(file->fd, mode, offset, bytes);
    switch (result) {
    case -EOPNOTSUPP:
    case -ENOSYS:
    case -ENODEV:
        TRACE(file_unsupported, "%s: fallocate mode %d", file->shown_path, mode);
        file_set_unsupported(file, operation);
        return -ENOTSUP;
    case -EINVAL:
        /* Some can, but not for every range. */
        return -ENOTSUP;
    default:
        return result;
    }
}

/* Space for the range, whatever it reads as; that a file system knows no such thing is no failure. */
static int CO_FN co_reserve(struct file_node *file, uint64_t offset, uint64_t bytes)
{
    int result = co_allocate(file, FILE_ALLOCATE, FALLOC_FL_KEEP_SIZE, offset, bytes);

    return result == -ENOTSUP ? 0 : result;
}

/* Zeroes inside a regular file. */
static int CO_FN co_zero_range(struct file_node *file, uint64_t offset, uint64_t bytes, bool unmap)
{
    int result;

    if (unmap) {
        result = co_allocate(file, FILE_PUNCH_HOLE, punch_mode, offset, bytes);
        if (result != -ENOTSUP)
            return result;
    }
    result = co_allocate(file, FILE_ZERO_RANGE, zero_mode, offset, bytes);
    if (result != -ENOTSUP || unmap)
        return result;
    result = co_allocate(file, FILE_PUNCH_HOLE, punch_mode, offset, bytes);
    return result < 0 ? result : co_reserve(file, offset, bytes);
}

/* Zeroes that go beyond the end of a regular file: what is added by moving the end is zero already. */
static int CO_FN co_zero_growing(struct file_node *file, uint64_t offset, uint64_t bytes, bool unmap)
{
    uint64_t end = offset + bytes;
    uint64_t length;
    struct stat stat;
    int result = co_file_stat(file->fd, &stat);

    if (result < 0)
        return result;
    length = (uint64_t)stat.st_size;
    if (offset < length) {
        result = co_zero_range(file, offset, (end < length ? end : length) - offset, unmap);
        if (result < 0)
            return result;
    }
    if (end <= length)
        return 0;
    result = co_file_truncate(file->fd, end);
    if (result < 0 || unmap)
        return result;
    return offset < length ? co_reserve(file, length, end - length) : co_reserve(file, offset, bytes);
}

/* Zeroes on a block device, whose size is fixed. */
static int CO_FN co_zero_device(struct file_node *file, uint64_t offset, uint64_t bytes, unsigned flags)
{
    /* Punching asks the device to do it by unmapping, and fails where it can't; zeroing may end up writing. */
    if (flags & IO_MAY_UNMAP) {
        int result = co_allocate(file, FILE_PUNCH_HOLE, punch_mode, offset, bytes);

        if (result != -ENOTSUP)
            return result;
    }
    if (flags & IO_NO_FALLBACK)
        return -ENOTSUP;
    if (file_supports(file, FILE_ZERO_RANGE)) {
        uint64_t range[2] = {offset, bytes};
        int result = co_file_ioctl(file->fd, BLKZEROOUT, range);

        if (result != -ENOTTY && result != -EOPNOTSUPP)
            return result;
        file_set_unsupported(file, FILE_ZERO_RANGE);
    }
    return -ENOTSUP;
}

int CO_FN file_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct file_node *file = node_state(node);
    bool unmap = flags & IO_MAY_UNMAP;
    int result;

    switch (file->kind) {
    case FILE_REGULAR:
        if (offset + bytes > file_known_length(file)) {
            co_rwlock_write_lock(&file->growth);
            result = co_zero_growing(file, offset, bytes, unmap);
            if (result == 0)
                file_raise_length(file, offset + bytes);
            co_rwlock_unlock(&file->growth);
        } else {
            result = co_zero_range(file, offset, bytes, unmap);
        }
        break;
    case FILE_BLOCK_DEVICE:
        result = co_zero_device(file, offset, bytes, flags);
        break;
    default:
        return -ENOTSUP;
    }
    file_status_forget(file);
    return result;
}

static int CO_FN co_discard_device(struct file_node *file, uint64_t offset, uint64_t bytes)
{
    uint64_t range[2] = {offset, bytes};
    int result;

    if (!file_supports(file, FILE_DISCARD))
        return -ENOTSUP;
    result = co_file_ioctl(file->fd, BLKDISCARD, range);
    if (result != -EOPNOTSUPP && result != -ENOTTY)
        return result;
    file_set_unsupported(file, FILE_DISCARD);
    return -ENOTSUP;
}

int CO_FN file_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct file_node *file = node_state(node);
    struct file_discard_stats *stats = &file->discards;
    int result;

    if (file->kind == FILE_REGULAR)
        result = co_allocate(file, FILE_PUNCH_HOLE, punch_mode, offset, bytes);
    else if (file->kind == FILE_BLOCK_DEVICE)
        result = co_discard_device(file, offset, bytes);
    else
        result = -ENOTSUP;
    file_status_forget(file);
    if (result == 0) {
        atomic_fetch_add_explicit(&stats->ok, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&stats->bytes_ok, bytes, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&stats->failed, 1, memory_order_relaxed);
    }
    return result;
}
