/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The length of a file or device, and changing it. */
#include <assert.h>
#include <errno.h>
#include <linux/fs.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "driver/protocol/file/file.h"
#include "loop/loop.h"

enum { ZEROES_BYTES = 1024 * 1024 };

/* The error goes to *err, its number to the caller. */
static int fail(struct error **err, int result, const char *text)
{
    error_set_errno(err, result, "%s", text);
    return result;
}

/* Writes zeroes from `from` to the new end: whole sectors, as the descriptor may ask for them. */
static int CO_FN co_write_zeroes(struct file_node *file, uint64_t from, uint64_t length)
{
    uint64_t end = align_up(length, file->request_alignment);
    void *zeroes = loop_buffer_get(ZEROES_BYTES);
    int result = 0;

    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, ZEROES_BYTES);
    from = align_up(from, file->request_alignment);
    while (result == 0 && from < end) {
        size_t bytes = end - from < ZEROES_BYTES ? end - from : ZEROES_BYTES;

        result = co_file_write_exact(file->fd, zeroes, bytes, from);
        from += bytes;
    }
    loop_buffer_put(zeroes, ZEROES_BYTES);
    return result < 0 || end == length ? result : co_file_truncate(file->fd, length);
}

/* Grows a file from `length` on, with space for all that is new. */
static int CO_FN co_grow_allocated(struct file_node *file, uint64_t length, const struct truncate_request *request,
                                   struct error **err)
{
    int result;

    if (request->preallocation == PREALLOC_MODE_FALLOC) {
        result = co_file_allocate(file->fd, 0, length, request->length - length);
        if (result == 0)
            return 0;
        if (result != -EOPNOTSUPP)
            return fail(err, result, "Could not preallocate new data");
    }
    result = co_write_zeroes(file, length, request->length);
    return result < 0 ? fail(err, result, "Could not write zeros for preallocation") : 0;
}

static int CO_FN co_truncate_regular(struct file_node *file, const struct truncate_request *request, struct error **err)
{
    struct stat stat;
    uint64_t length;
    int result = co_file_stat(file->fd, &stat);

    if (result < 0)
        return fail(err, result, "Could not stat file");
    length = (uint64_t)stat.st_size;
    if (request->preallocation != PREALLOC_MODE_OFF && request->length < length) {
        error_set(err, "Cannot use preallocation for shrinking files");
        return -ENOTSUP;
    }
    if (request->preallocation == PREALLOC_MODE_OFF || request->length == length) {
        result = co_file_truncate(file->fd, request->length);
        return result < 0 ? fail(err, result, "Could not resize file") : 0;
    }
    result = co_grow_allocated(file, length, request, err);
    /* Back to what it was; should that fail too, the error is the same and the file just longer. */
    if (result < 0)
        (void)co_file_truncate(file->fd, length);
    return result;
}

/* A device has the size that it has. */
static int CO_FN co_truncate_device(struct node *node, const struct truncate_request *request, struct error **err)
{
    int64_t length = file_co_length(node);

    if (length < 0)
        return fail(err, (int)length, "Could not inquire the length of the device");
    if (request->preallocation != PREALLOC_MODE_OFF) {
        error_set(err, "Preallocation mode '%s' unsupported for this non-regular file",
                  prealloc_mode_name(request->preallocation));
        return -ENOTSUP;
    }
    if (request->length > (uint64_t)length) {
        error_set(err, "Cannot grow device files");
        return -EINVAL;
    }
    if (request->exact && request->length != (uint64_t)length) {
        error_set(err, "Cannot resize device files");
        return -ENOTSUP;
    }
    return 0;
}

int CO_FN file_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    struct file_node *file = node_state(node);
    int result;

    if (file->kind != FILE_REGULAR)
        return co_truncate_device(node, request, err);
    if (request->preallocation == PREALLOC_MODE_METADATA) {
        error_set(err, "Unsupported preallocation mode: %s", prealloc_mode_name(request->preallocation));
        return -ENOTSUP;
    }
    co_rwlock_write_lock(&file->growth);
    result = co_truncate_regular(file, request, err);
    (void)file_co_length(node);
    co_rwlock_unlock(&file->growth);
    file_status_forget(file);
    return result;
}

static int64_t CO_FN co_ask_length(struct file_node *file)
{
    uint64_t bytes;
    struct stat stat;
    int result;

    switch (file->kind) {
    case FILE_REGULAR:
        result = co_file_stat(file->fd, &stat);
        return result < 0 ? result : stat.st_size;
    case FILE_BLOCK_DEVICE:
        result = co_file_ioctl(file->fd, BLKGETSIZE64, &bytes);
        return result < 0 ? result : (int64_t)bytes;
    default:
        return co_file_seek(file->fd, 0, SEEK_END);
    }
}

int64_t CO_FN file_co_length(struct node *node)
{
    struct file_node *file = node_state(node);
    int64_t length = co_ask_length(file);

    if (length >= 0)
        atomic_store_explicit(&file->length, (uint64_t)length, memory_order_relaxed);
    return length;
}

void file_raise_length(struct file_node *file, uint64_t length)
{
    uint_fast64_t known = file_known_length(file);

    while (known < length && !atomic_compare_exchange_weak_explicit(&file->length, &known, length, memory_order_relaxed,
                                                                    memory_order_relaxed))
        ;
}

int64_t CO_FN file_co_allocated_size(struct node *node)
{
    struct file_node *file = node_state(node);
    struct stat stat;
    int result = co_file_stat(file->fd, &stat);

    return result < 0 ? result : (int64_t)stat.st_blocks * 512;
}
