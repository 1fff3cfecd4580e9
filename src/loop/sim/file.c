/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on files of the simulated disk, as the system's calls of the same names do them. */
#include "loop/sim/sim-internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "base/io-vector.h"

/*
 * The file behind `fd`, kept until file_leave(), for an operation that reads or writes. NULL: a descriptor that does
 * not allow it, -EBADF.
 */
static struct sim_handle *file_enter(int fd, bool write)
{
    struct sim_handle *handle = sim_handle_get(fd);
    int access;

    if (!handle || !handle->file)
        return NULL;
    access = handle->flags & O_ACCMODE;
    if (write ? access == O_RDONLY : access == O_WRONLY)
        return NULL;
    handle->users++;
    return handle;
}

static void file_leave(struct sim_handle *handle)
{
    assert(handle->users > 0);
    handle->users--;
}

/* Any descriptor of a file, whatever it allows. */
static struct sim_handle *file_enter_any(int fd)
{
    struct sim_handle *handle = sim_handle_get(fd);

    if (!handle || !handle->file)
        return NULL;
    handle->users++;
    return handle;
}

/* --- opening --- */

static int sim_co_open(const char *path, int flags, mode_t mode)
{
    struct sim *sim = sim_self();
    int result = co_sim_op(sim, SIM_OP_OPEN);
    struct sim_file *file;

    if (result < 0)
        return result;
    file = sim_disk_find(sim->disk, path);
    if (!file && !(flags & O_CREAT))
        return -ENOENT;
    if (file && (flags & O_CREAT) && (flags & O_EXCL))
        return -EEXIST;
    if (flags & O_DIRECTORY)
        return -ENOTDIR;
    if (!file)
        file = sim_disk_create(sim->disk, path, mode);
    if ((flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY) {
        struct sim_change *change = sim_change_new(SIM_CHANGE_RESIZE, 0, 0);

        sim_disk_change_begin(sim->disk, file, change);
        (void)sim_disk_change_complete(sim->disk, file, change);
        sim_change_unref(change);
    }
    return sim_handle_add(sim, &(struct sim_handle){.file = sim_file_ref(file), .flags = flags});
}

/* --- contents --- */

/* Lets the time of a change pass, and makes it. Takes `change`. */
static int CO_FN co_change(struct sim *sim, enum sim_op op, struct sim_handle *handle, struct sim_change *change)
{
    struct sim_file *file = handle->file;
    int result;

    sim_disk_change_begin(sim->disk, file, change);
    result = co_sim_op(sim, op);
    if (!result)
        result = sim_disk_change_complete(sim->disk, file, change);
    else if (sim->power_off)
        sim_disk_change_lose(file, change);
    else if (sim->fault.torn && change->kind == SIM_CHANGE_WRITE)
        sim_disk_change_tear(sim->disk, file, change, &sim->random);
    else
        sim_disk_change_drop(file, change);
    sim_change_unref(change);
    return result;
}

static ssize_t co_pread(struct sim *sim, struct sim_handle *handle, const struct file_request *request, size_t size)
{
    struct io_vector vector = io_vector_of(request->iov, (unsigned)request->iov_count);
    int result = co_sim_op(sim, SIM_OP_READ);
    const struct sim_image *image = &handle->file->current;
    g_autofree void *data = NULL;

    if (result < 0)
        return result;
    if (request->offset >= image->size)
        return 0;
    size = MIN(size, image->size - request->offset);
    data = g_malloc(size);
    sim_image_read(image, request->offset, data, size);
    io_vector_write(&vector, 0, data, size);
    return (ssize_t)size;
}

static ssize_t co_pwrite(struct sim *sim, struct sim_handle *handle, const struct file_request *request, size_t size)
{
    struct io_vector vector = io_vector_of(request->iov, (unsigned)request->iov_count);
    struct sim_change *change;
    int result;

    if (!size)
        return 0;
    if (size > INT64_MAX - request->offset)
        return -EFBIG;
    change = sim_change_new(SIM_CHANGE_WRITE, request->offset, size);
    change->lasting = request->rwf_flags & (RWF_DSYNC | RWF_SYNC) || handle->flags & O_DSYNC;
    io_vector_read(&vector, 0, change->data, size);
    result = co_change(sim, SIM_OP_WRITE, handle, change);
    return result < 0 ? result : (ssize_t)size;
}

static bool direct_fits(const struct file_request *request)
{
    uint64_t bits = request->offset;

    for (int i = 0; i < request->iov_count; i++)
        bits |= (uintptr_t)request->iov[i].iov_base | request->iov[i].iov_len;
    return bits % SIM_SECTOR == 0;
}

static ssize_t sim_co_file_transfer(const struct file_request *request, enum file_engine engine)
{
    struct sim *sim = sim_self();
    struct sim_handle *handle = file_enter(request->fd, request->write);
    struct io_vector vector = io_vector_of(request->iov, (unsigned)request->iov_count);
    ssize_t moved;

    if (!handle)
        return -EBADF;
    if ((handle->flags & O_DIRECT) && !direct_fits(request)) {
        moved = -EINVAL;
    } else {
        size_t size = sim->short_transfers ? sim_part(sim, vector.size, SIM_SECTOR) : vector.size;

        moved = request->write ? co_pwrite(sim, handle, request, size) : co_pread(sim, handle, request, size);
    }
    file_leave(handle);
    return moved;
}

ssize_t co_sim_file_stream(int fd, void *data, size_t size, bool write)
{
    struct sim_handle *handle = file_enter(fd, write);
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct file_request request = {.fd = fd, .write = write, .iov = &iov, .iov_count = 1};
    ssize_t moved;

    if (!handle)
        return -EBADF;
    request.offset = handle->position;
    moved = sim_co_file_transfer(&request, FILE_ENGINE_DEFAULT);
    if (moved > 0)
        handle->position += (uint64_t)moved;
    file_leave(handle);
    return moved;
}

static int sim_co_sync(int fd, bool data_only)
{
    struct sim *sim = sim_self();
    struct sim_handle *handle = file_enter_any(fd);
    uint64_t sequence;
    int result;

    if (!handle)
        return -EBADF;
    /* Only what had completed before is promised. */
    sequence = handle->file->sequence;
    result = co_sim_op(sim, SIM_OP_SYNC);
    if (!result)
        sim_disk_sync(sim->disk, handle->file, sequence);
    file_leave(handle);
    return result;
}

static int sim_co_allocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    bool punch = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    bool zero = (mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE;
    struct sim_handle *handle;
    struct sim_change *change;
    int result;

    if (!bytes || bytes > INT64_MAX - offset)
        return -EINVAL;
    if (!punch && !zero && (mode & ~FALLOC_FL_KEEP_SIZE))
        return -EOPNOTSUPP;
    handle = file_enter(fd, true);
    if (!handle)
        return -EBADF;
    if (punch || zero)
        change = sim_change_new(SIM_CHANGE_ZERO, offset, bytes);
    else
        change = sim_change_new(SIM_CHANGE_GROW, mode & FALLOC_FL_KEEP_SIZE ? 0 : offset + bytes, 0);
    change->keep_size = mode & FALLOC_FL_KEEP_SIZE;
    result = co_change(sim_self(), SIM_OP_ALLOCATE, handle, change);
    file_leave(handle);
    return result;
}

static int sim_co_truncate(int fd, uint64_t length)
{
    struct sim_handle *handle = file_enter(fd, true);
    int result;

    if (!handle)
        return -EBADF;
    if (length > INT64_MAX)
        result = -EINVAL;
    else
        result = co_change(sim_self(), SIM_OP_TRUNCATE, handle, sim_change_new(SIM_CHANGE_RESIZE, length, 0));
    file_leave(handle);
    return result;
}

static ssize_t sim_co_copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t bytes)
{
    struct sim *sim = sim_self();
    struct sim_handle *source = file_enter(from, false);
    struct sim_handle *target = file_enter(to, true);
    ssize_t moved = -EBADF;

    if (source && target) {
        const struct sim_image *image = &source->file->current;
        struct sim_change *change;

        bytes = from_offset < image->size ? MIN(bytes, image->size - from_offset) : 0;
        moved = 0;
        if (bytes) {
            change = sim_change_new(SIM_CHANGE_WRITE, to_offset, bytes);
            sim_image_read(image, from_offset, change->data, bytes);
            moved = co_change(sim, SIM_OP_COPY, target, change);
            moved = moved < 0 ? moved : (ssize_t)bytes;
        }
    }
    if (source)
        file_leave(source);
    if (target)
        file_leave(target);
    return moved;
}

/* --- what files are like --- */

static int sim_co_stat(int fd, struct stat *ret)
{
    struct sim_handle *handle = file_enter_any(fd);
    int result;

    if (!handle)
        return -EBADF;
    result = co_sim_op(sim_self(), SIM_OP_STAT);
    if (!result) {
        *ret = (struct stat){
            .st_dev = 1,
            .st_ino = handle->file->id + 1,
            .st_mode = S_IFREG | (handle->file->mode & 07777),
            .st_nlink = handle->file->links,
            .st_size = (off_t)handle->file->current.size,
            .st_blksize = SIM_PAGE,
            .st_blocks = (blkcnt_t)(handle->file->current.count * (SIM_PAGE / 512)),
        };
    }
    file_leave(handle);
    return result;
}

static int64_t sim_co_seek(int fd, int64_t offset, int whence)
{
    struct sim_handle *handle = file_enter_any(fd);
    int64_t result;

    if (!handle)
        return -EBADF;
    result = co_sim_op(sim_self(), SIM_OP_SEEK);
    if (!result) {
        const struct sim_image *image = &handle->file->current;

        if (whence == SEEK_DATA || whence == SEEK_HOLE)
            result = offset < 0 ? -ENXIO : sim_image_seek(image, (uint64_t)offset, whence == SEEK_DATA);
        else if (whence == SEEK_END)
            result = (int64_t)image->size + offset;
        else if (whence == SEEK_SET)
            result = offset;
        else
            result = -EINVAL;
        if (result >= 0)
            handle->position = (uint64_t)result;
    }
    file_leave(handle);
    return result;
}

static int sim_co_advise(int fd, uint64_t offset, uint64_t bytes, int advice)
{
    return sim_handle_get(fd) ? 0 : -EBADF;
}

static int sim_co_ioctl(int fd, unsigned long request, void *argument)
{
    return sim_handle_get(fd) ? -ENOTTY : -EBADF;
}

static int sim_co_unlink(const char *path)
{
    struct sim *sim = sim_self();
    int result = co_sim_op(sim, SIM_OP_UNLINK);

    if (result < 0)
        return result;
    if (!sim_disk_find(sim->disk, path))
        return -ENOENT;
    sim_disk_unlink(sim->disk, path);
    return 0;
}

static int sim_co_rename(const char *from, const char *to)
{
    struct sim *sim = sim_self();
    int result = co_sim_op(sim, SIM_OP_RENAME);

    if (result < 0)
        return result;
    if (!sim_disk_find(sim->disk, from))
        return -ENOENT;
    if (strcmp(from, to))
        sim_disk_rename(sim->disk, from, to);
    return 0;
}

static bool sim_engine_available(struct loop *loop, enum file_engine engine, struct error **err)
{
    return true;
}

const struct loop_file_ops sim_file_ops = {
    .co_open = sim_co_open,
    .close = sim_close,
    .co_transfer = sim_co_file_transfer,
    .engine_available = sim_engine_available,
    .co_sync = sim_co_sync,
    .co_allocate = sim_co_allocate,
    .co_truncate = sim_co_truncate,
    .co_stat = sim_co_stat,
    .co_seek = sim_co_seek,
    .co_copy_range = sim_co_copy_range,
    .co_advise = sim_co_advise,
    .co_ioctl = sim_co_ioctl,
    .co_unlink = sim_co_unlink,
    .co_rename = sim_co_rename,
    .lock_set = sim_lock_set,
    .lock_test = sim_lock_test,
};
