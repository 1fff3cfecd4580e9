/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each request does. The kernel checks permissions by the mode; here is checked what the image can bear. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/io-vector.h"
#include "base/trace.h"
#include "block/handle.h"
#include "block/node.h"
#include "export/fuse/session.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum { PAGE_BYTES = 4096, SECTOR_BYTES = 512, BACKGROUND_MAX = 128 };
/* In flags2 of FUSE_INIT: files opened for direct I/O may be mapped as shared memory (7.39). */
enum { SHARED_MAPPING = 1 << 4 };

/* What a handler gives: 0 and `size` bytes of `reply`, or a negative errno. */
struct answer {
    size_t size;
    union {
        struct fuse_init_out init;
        struct fuse_attr_out attributes;
        struct fuse_open_out open;
        struct fuse_write_out write;
        struct fuse_statfs_out statfs;
        struct fuse_lseek_out lseek;
    } reply;
};

/* By the device, `from` being the whole answer. */
static void send_answer(const struct fuse_request *request, const void *from, size_t size)
{
    /* ENOENT: nobody waits for it any more. */
    (void)!fd_write_now(request->queue->fd, from, size);
}

static const struct fuse_in_header *header_of(const struct fuse_request *request)
{
    return (const struct fuse_in_header *)(const void *)request->in;
}

/* The argument of the request, `size` bytes; NULL: it is too short. */
static const void *argument(const struct fuse_request *request, size_t size)
{
    return request->argument_bytes >= size ? request->argument : NULL;
}

/* --- attributes --- */

static struct timespec now(void)
{
    int64_t us = loop_wall_time_us();

    return (struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
}

static void touch(struct fuse_file *file, bool modified)
{
    struct timespec time = now();

    spin_lock(&file->spin);
    file->changed = time;
    if (modified)
        file->modified = time;
    spin_unlock(&file->spin);
}

static void CO_FN co_fill_attributes(struct fuse_file *file, struct fuse_attr *to)
{
    uint64_t length = handle_length(file->handle);
    int64_t allocated;

    *to = (struct fuse_attr){.ino = FUSE_ROOT_ID, .size = length, .nlink = 1, .blksize = PAGE_BYTES};
    spin_lock(&file->spin);
    to->mode = file->mode;
    to->uid = file->uid;
    to->gid = file->gid;
    to->atime = (uint64_t)file->accessed.tv_sec;
    to->atimensec = (uint32_t)file->accessed.tv_nsec;
    to->mtime = (uint64_t)file->modified.tv_sec;
    to->mtimensec = (uint32_t)file->modified.tv_nsec;
    to->ctime = (uint64_t)file->changed.tv_sec;
    to->ctimensec = (uint32_t)file->changed.tv_nsec;
    spin_unlock(&file->spin);
    allocated = co_handle_allocated_size(file->handle);
    to->blocks = allocated < 0 ? length / 512 : (uint64_t)allocated / 512;
}

static int CO_FN co_getattr(struct fuse_request *request, struct answer *answer)
{
    co_fill_attributes(request->file, &answer->reply.attributes.attr);
    answer->size = sizeof(answer->reply.attributes);
    return 0;
}

/* Changing the length takes a permission that is held only meanwhile, so that others can have it in between. */
static int CO_FN co_resize_on_main(struct fuse_file *file, uint64_t length)
{
    uint32_t perm = PERM_CONSISTENT_READ | PERM_WRITE;
    uint32_t shared = PERM_ALL & ~(uint32_t)PERM_RESIZE;
    AUTO(error) why = NULL;
    int result = 0;

    if (!file->growable && !co_handle_set_permissions(file->handle, perm | PERM_RESIZE, shared, &why))
        return -EPERM;
    result = co_handle_truncate(file->handle, length, &why);
    if (!file->growable)
        (void)!co_handle_set_permissions(file->handle, perm, shared, NULL);
    return result;
}

static int CO_FN co_resize(struct fuse_file *file, uint64_t length, bool only_grow)
{
    struct loop *home = loop_current();
    int result = 0;

    if (length > NODE_LENGTH_MAX)
        return -EFBIG;
    /* Disks have whole sectors. */
    length = align_up(length, SECTOR_BYTES);
    co_move_to(file->main);
    co_mutex_lock(&file->resizing);
    if (!only_grow || length > handle_length(file->handle))
        result = co_resize_on_main(file, length);
    co_mutex_unlock(&file->resizing);
    co_move_to(home);
    return result;
}

/* Others than the owner of the daemon may be let in by the mode only where they can come in at all. */
static int check_setattr(const struct fuse_file *file, const struct fuse_setattr_in *in)
{
    const uint32_t known = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME | FATTR_FH |
                           FATTR_ATIME_NOW | FATTR_MTIME_NOW | FATTR_LOCKOWNER | FATTR_CTIME | FATTR_KILL_SUIDGID;

    if (in->valid & ~known)
        return -ENOTSUP;
    if (in->valid & FATTR_SIZE && !file->writable)
        return -EACCES;
    if (in->valid & FATTR_MODE && in->mode & (S_IWUSR | S_IWGRP | S_IWOTH) && !file->writable)
        return -EROFS;
    if (in->valid & (FATTR_UID | FATTR_GID) && !file->may_chown)
        return -EPERM;
    return 0;
}

static void take_attributes(struct fuse_file *file, const struct fuse_setattr_in *in)
{
    struct timespec time = now();

    spin_lock(&file->spin);
    if (in->valid & FATTR_MODE)
        file->mode = S_IFREG | (in->mode & 07777);
    if (in->valid & FATTR_UID)
        file->uid = in->uid;
    if (in->valid & FATTR_GID)
        file->gid = in->gid;
    if (in->valid & FATTR_ATIME)
        file->accessed = in->valid & FATTR_ATIME_NOW
                             ? time
                             : (struct timespec){.tv_sec = (time_t)in->atime, .tv_nsec = in->atimensec};
    if (in->valid & FATTR_MTIME)
        file->modified = in->valid & FATTR_MTIME_NOW
                             ? time
                             : (struct timespec){.tv_sec = (time_t)in->mtime, .tv_nsec = in->mtimensec};
    file->changed = time;
    spin_unlock(&file->spin);
}

static int CO_FN co_setattr(struct fuse_request *request, struct answer *answer)
{
    const struct fuse_setattr_in *in = argument(request, sizeof(*in));
    int result = in ? check_setattr(request->file, in) : -EINVAL;

    if (!result && in->valid & FATTR_SIZE) {
        result = co_resize(request->file, in->size, false);
        touch(request->file, true);
    }
    if (result)
        return result;
    take_attributes(request->file, in);
    return co_getattr(request, answer);
}

/* --- files that are open --- */

/* Truncating is for truncate(2) alone: for a shell's ">" or dd it is a disk, which keeps its size. */
static int CO_FN co_open(struct fuse_request *request, struct answer *answer)
{
    const struct fuse_open_in *in = argument(request, sizeof(*in));

    if (!in)
        return -EINVAL;
    if ((in->flags & O_ACCMODE) != O_RDONLY && !request->file->writable)
        return -EACCES;
    atomic_fetch_add(&request->file->opened, 1);
    /* Others write to the image, too: what the kernel would keep of it would be stale. */
    answer->reply.open = (struct fuse_open_out){.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES};
    answer->size = sizeof(answer->reply.open);
    return 0;
}

static int CO_FN co_release(struct fuse_request *request, struct answer *answer)
{
    atomic_fetch_sub(&request->file->opened, 1);
    return 0;
}

static int CO_FN co_flush(struct fuse_request *request, struct answer *answer)
{
    return co_handle_flush(request->file->handle);
}

/* --- data --- */

/* Reads into a buffer with room for the header before the data, and answers with both. */
static int CO_FN co_read_by_device(struct fuse_request *request, uint64_t offset, size_t bytes,
                                   const struct fuse_out_header *header)
{
    uint8_t *buffer = loop_buffer_get(PAGE_BYTES + bytes);
    int result = 0;

    if (!buffer)
        return -ENOMEM;
    if (bytes)
        result = co_handle_pread(request->file->handle, offset, bytes, buffer + PAGE_BYTES, 0);
    if (!result) {
        memcpy(buffer + PAGE_BYTES - sizeof(*header), header, sizeof(*header));
        send_answer(request, buffer + PAGE_BYTES - sizeof(*header), header->len);
    }
    loop_buffer_put(buffer, PAGE_BYTES + bytes);
    return result;
}

static int CO_FN co_read_into_slot(struct fuse_request *request, uint64_t offset, size_t bytes,
                                   const struct fuse_out_header *header)
{
    struct fuse_slot *slot = request->slot;
    int result = bytes ? co_handle_pread(request->file->handle, offset, bytes, slot->payload, 0) : 0;

    if (!result)
        fuse_slot_answer(slot, header, slot->payload, bytes);
    return result;
}

/* Answers by itself, so that the data needs no copy. */
static int CO_FN co_read(struct fuse_request *request)
{
    const struct fuse_read_in *in = argument(request, sizeof(*in));
    const struct handle *handle = request->file->handle;
    struct fuse_out_header header = {.unique = header_of(request)->unique};
    size_t bytes;
    int result;

    if (!in || in->size > FUSE_WRITE_BYTES_MAX)
        return -EINVAL;
    /* Once more where the end has moved while the request waited. */
    do {
        uint64_t length = handle_length(handle);

        bytes = in->offset < length ? (size_t)MIN(in->size, length - in->offset) : 0;
        header.len = (uint32_t)(sizeof(header) + bytes);
        result = request->slot ? co_read_into_slot(request, in->offset, bytes, &header)
                               : co_read_by_device(request, in->offset, bytes, &header);
    } while (result == -EIO && in->offset + bytes > handle_length(handle));
    return result;
}

static int CO_FN co_write(struct fuse_request *request, struct answer *answer)
{
    const struct fuse_write_in *in = argument(request, sizeof(*in));
    struct fuse_file *file = request->file;
    uint64_t length = handle_length(file->handle);
    uint64_t bytes;
    int result = 0;

    if (!in || request->data_bytes < in->size)
        return -EINVAL;
    if (!file->writable)
        return -EACCES;
    if (!range_fits(in->offset, in->size, NODE_LENGTH_MAX))
        return -EFBIG;
    bytes = in->size;
    if (in->offset + bytes > length && file->growable) {
        result = co_resize(file, in->offset + bytes, true);
        if (result)
            return result;
    } else if (in->offset + bytes > length) {
        /* As on a device: what fits, and nothing at the end. */
        if (in->offset >= length)
            return -ENOSPC;
        bytes = length - in->offset;
    }
    /* O_SYNC has that bit, too; so have single writes with RWF_DSYNC. The kernel leaves it to us. */
    if (bytes)
        result = co_handle_pwrite(file->handle, in->offset, bytes, request->data, in->flags & O_DSYNC ? IO_FUA : 0);
    if (result)
        return result;
    touch(file, true);
    answer->reply.write = (struct fuse_write_out){.size = (uint32_t)bytes};
    answer->size = sizeof(answer->reply.write);
    return 0;
}

/* Allocating inside the file is nothing that an image could promise; beyond its end, it is growing, and said to be. */
static int CO_FN co_allocate_at_end(struct fuse_file *file, uint64_t offset, uint64_t bytes)
{
    return offset < handle_length(file->handle) ? -EOPNOTSUPP : co_resize(file, offset + bytes, true);
}

static int CO_FN co_zero(struct fuse_file *file, const struct fuse_fallocate_in *in)
{
    uint64_t length = handle_length(file->handle);
    uint64_t bytes = in->length;
    bool punch = in->mode & FALLOC_FL_PUNCH_HOLE;

    if (in->offset + bytes > length && !(in->mode & FALLOC_FL_KEEP_SIZE)) {
        int result = co_resize(file, in->offset + bytes, true);

        if (result)
            return result;
        length = handle_length(file->handle);
    }
    if (in->offset >= length)
        return 0;
    bytes = MIN(bytes, length - in->offset);
    return co_handle_pwrite_zeroes(file->handle, in->offset, bytes, punch ? IO_MAY_UNMAP : 0);
}

static int CO_FN co_fallocate(struct fuse_request *request, struct answer *answer)
{
    const struct fuse_fallocate_in *in = argument(request, sizeof(*in));
    struct fuse_file *file = request->file;
    int result;

    if (!in || !in->length)
        return -EINVAL;
    if (!file->writable)
        return -EACCES;
    if (!range_fits(in->offset, in->length, NODE_LENGTH_MAX))
        return -EFBIG;
    if (!in->mode)
        result = co_allocate_at_end(file, in->offset, in->length);
    else if (in->mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) || in->mode == FALLOC_FL_ZERO_RANGE ||
             in->mode == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
        result = co_zero(file, in);
    else
        result = -EOPNOTSUPP;
    if (!result)
        touch(file, true);
    return result;
}

static int CO_FN co_lseek(struct fuse_request *request, struct answer *answer)
{
    const struct fuse_lseek_in *in = argument(request, sizeof(*in));
    struct handle *handle = request->file->handle;
    uint64_t length = handle_length(handle);
    uint64_t at;

    if (!in || (in->whence != SEEK_DATA && in->whence != SEEK_HOLE))
        return -EINVAL;
    at = in->offset;
    if (at >= length)
        return -ENXIO;
    for (;;) {
        struct block_extent extent;
        int result = co_handle_block_status(handle, at, length - at, &extent);
        bool data;

        if (result)
            return result;
        data = extent.flags & BLOCK_DATA && !(extent.flags & BLOCK_ZERO);
        if (data == (in->whence == SEEK_DATA))
            break;
        at += extent.bytes;
        /* The end is a hole. */
        if (at >= length && in->whence == SEEK_DATA)
            return -ENXIO;
        if (at >= length)
            break;
    }
    answer->reply.lseek = (struct fuse_lseek_out){.offset = at};
    answer->size = sizeof(answer->reply.lseek);
    return 0;
}

/* --- the file system --- */

static int CO_FN co_init(struct fuse_request *request, struct answer *answer)
{
    const struct fuse_init_in *in = argument(request, FUSE_COMPAT_22_INIT_OUT_SIZE - sizeof(uint64_t));
    struct fuse_init_out *out = &answer->reply.init;

    if (!in)
        return -EINVAL;
    *out = (struct fuse_init_out){.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION};
    answer->size = sizeof(*out);
    /* A newer kernel asks again with our version; an older one cannot do what we need. */
    if (in->major > FUSE_KERNEL_VERSION)
        return 0;
    if (in->major < FUSE_KERNEL_VERSION || in->minor < 28)
        return -EPROTO;
    out->max_readahead = in->max_readahead;
    out->flags = in->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_ASYNC_DIO |
                              FUSE_PARALLEL_DIROPS | FUSE_ATOMIC_O_TRUNC);
    if (in->flags & FUSE_INIT_EXT && argument(request, sizeof(*in))) {
        out->flags |= FUSE_INIT_EXT;
        out->flags2 = in->flags2 & SHARED_MAPPING;
        if (in->flags2 & FUSE_RING_OFFER && co_fuse_rings_prepare(request->file))
            out->flags2 |= FUSE_RING_OFFER;
    }
    out->max_background = BACKGROUND_MAX;
    out->congestion_threshold = BACKGROUND_MAX * 3 / 4;
    out->max_write = FUSE_WRITE_BYTES_MAX;
    out->time_gran = 1;
    /* In the kernel's own pages. */
    out->max_pages = (uint16_t)(FUSE_WRITE_BYTES_MAX / sysconf(_SC_PAGESIZE));
    return 0;
}

static int CO_FN co_statfs(struct fuse_request *request, struct answer *answer)
{
    answer->reply.statfs.st = (struct fuse_kstatfs){.blocks = handle_length(request->file->handle) / PAGE_BYTES,
                                                    .bsize = PAGE_BYTES,
                                                    .frsize = PAGE_BYTES,
                                                    .files = 1,
                                                    .namelen = 255};
    answer->size = sizeof(answer->reply.statfs);
    return 0;
}

static int CO_FN co_execute(struct fuse_request *request, struct answer *answer)
{
    switch (header_of(request)->opcode) {
    case FUSE_INIT:
        return co_init(request, answer);
    case FUSE_GETATTR:
        return co_getattr(request, answer);
    case FUSE_SETATTR:
        return co_setattr(request, answer);
    case FUSE_OPEN:
        return co_open(request, answer);
    case FUSE_RELEASE:
        return co_release(request, answer);
    case FUSE_WRITE:
        return co_write(request, answer);
    case FUSE_FLUSH:
    case FUSE_FSYNC:
        return co_flush(request, answer);
    case FUSE_FALLOCATE:
        return co_fallocate(request, answer);
    case FUSE_LSEEK:
        return co_lseek(request, answer);
    case FUSE_STATFS:
        return co_statfs(request, answer);
    case FUSE_DESTROY:
        return 0;
    default:
        return -ENOSYS;
    }
}

/* These want no answer. */
static bool is_silent(uint32_t opcode)
{
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;
}

void co_fuse_handle(struct fuse_request *request)
{
    const struct fuse_in_header *header = header_of(request);
    struct {
        struct fuse_out_header header;
        struct answer answer;
    } out;
    struct answer answer = {.size = 0};
    int result;

    TRACE(fuse_request, "opcode %u of %zu bytes", header->opcode, request->size);
    if (is_silent(header->opcode))
        return;
    if (header->len != request->size || header->nodeid != FUSE_ROOT_ID) {
        result = header->opcode == FUSE_INIT || header->opcode == FUSE_STATFS ? co_execute(request, &answer) : -EIO;
    } else if (header->opcode == FUSE_READ) {
        result = co_read(request);
        if (!result)
            return;
    } else {
        result = co_execute(request, &answer);
    }
    if (result)
        answer.size = 0;
    out.header = (struct fuse_out_header){
        .unique = header->unique, .error = result, .len = (uint32_t)(sizeof(out.header) + answer.size)};
    if (request->slot) {
        fuse_slot_answer(request->slot, &out.header, &answer.reply, answer.size);
        return;
    }
    memcpy((uint8_t *)&out + sizeof(out.header), &answer.reply, answer.size);
    send_answer(request, &out, out.header.len);
    if (header->opcode == FUSE_INIT && !result && answer.reply.init.flags2 & FUSE_RING_OFFER)
        co_fuse_rings_start(request->file);
}
