/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A header and a table a queue, each as large as either kind of ring needs. The file lies in /dev/shm, where anybody
 * may make files: one that is not ours is not used.
 */
#include "export/vduse/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "export/virtio/inflight.h"
#include "loop/file.h"
#include "loop/shared-memory.h"

#define LOG_FOLDER "/dev/shm"

enum { HEADER_BYTES = 64, LOG_VERSION = 1 };
static const char log_magic[8] = "ASHVDUSE";

/* In the machine's own byte order, as the tables are. */
struct log_header {
    char magic[8];
    uint32_t version;
    uint16_t queues;
    uint16_t queue_size;
};
static_assert(sizeof(struct log_header) <= HEADER_BYTES, "the tables begin after the header");

struct vduse_log {
    char *path; /* NULL: none */
    int fd;     /* holds the lock; -1: none */
    uint16_t queues;
    uint16_t queue_size;
    size_t table_bytes;
    struct shared_memory *memory;
};

static size_t table_bytes(uint16_t queue_size)
{
    return MAX(inflight_region_size(queue_size, false), inflight_region_size(queue_size, true));
}

static size_t log_bytes(uint16_t queues, uint16_t queue_size)
{
    return HEADER_BYTES + queues * table_bytes(queue_size);
}

static struct log_header header_for(uint16_t queues, uint16_t queue_size)
{
    struct log_header header = {.version = LOG_VERSION, .queues = queues, .queue_size = queue_size};

    memcpy(header.magic, log_magic, sizeof(header.magic));
    return header;
}

static int CO_FN co_open_file(const char *path, struct error **err)
{
    AUTO(fd) fd = co_file_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    struct stat status;
    int result;

    result = fd < 0 ? fd : co_file_stat(fd, &status);
    if (result < 0) {
        error_set_errno(err, result, "Cannot open '%s', the log of requests in flight", path);
        return -1;
    }
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() || status.st_nlink != 1) {
        error_set(err, "'%s' is not a log of requests in flight of ours", path);
        return -1;
    }
    result = file_lock_set(fd, 0, 1, FILE_LOCK_EXCLUSIVE);
    if (result) {
        error_set_errno(err, result, "'%s', the log of requests in flight, is in use by another process", path);
        return -1;
    }
    return TAKE_FD(fd);
}

/* The log must be as it would be made now. */
static bool CO_FN co_check(int fd, const char *path, uint16_t queues, uint16_t queue_size, struct error **err)
{
    struct log_header wanted = header_for(queues, queue_size);
    struct log_header header;
    struct stat status;
    int result = co_file_stat(fd, &status);

    if (!result && !status.st_size)
        return error_set(err,
                         "The device is in use, but its log of requests in flight, '%s', is missing: take the device "
                         "off the vDPA bus first",
                         path);
    if (!result)
        result = co_file_read_exact(fd, &header, sizeof(header), 0);
    if (result)
        return error_set_errno(err, result, "Cannot read '%s'", path);
    if (memcmp(header.magic, wanted.magic, sizeof(header.magic)) || header.version != wanted.version)
        return error_set(err, "'%s' is no log of requests in flight of version %d", path, LOG_VERSION);
    if (header.queues != queues || header.queue_size != queue_size ||
        (uint64_t)status.st_size != log_bytes(queues, queue_size))
        return error_set(err, "The device is in use with %u queues of %u places, so it cannot have %u of %u",
                         header.queues, header.queue_size, queues, queue_size);
    return true;
}

static bool CO_FN co_begin(int fd, const char *path, uint16_t queues, uint16_t queue_size, struct error **err)
{
    struct log_header header = header_for(queues, queue_size);
    int result = co_file_truncate(fd, 0);

    if (!result)
        result = co_file_truncate(fd, log_bytes(queues, queue_size));
    /* All of it now, rather than a fault when a request comes and there is no memory. */
    if (!result)
        result = co_file_allocate(fd, 0, 0, log_bytes(queues, queue_size));
    if (!result)
        result = co_file_write_exact(fd, &header, sizeof(header), 0);
    return !result || error_set_errno(err, result, "Cannot make '%s', the log of requests in flight", path);
}

static struct vduse_log *log_of(int fd, uint16_t queues, uint16_t queue_size, struct error **err)
{
    struct shared_memory *memory = shared_memory_map(fd, 0, log_bytes(queues, queue_size), err);
    struct vduse_log *log;

    if (!memory)
        return NULL;
    log = g_new0(struct vduse_log, 1);
    log->fd = -1;
    log->queues = queues;
    log->queue_size = queue_size;
    log->table_bytes = table_bytes(queue_size);
    log->memory = memory;
    return log;
}

struct vduse_log *co_vduse_log_open(const char *name, uint16_t queues, uint16_t queue_size, bool keep,
                                    struct error **err)
{
    g_autofree char *path = g_strdup_printf(LOG_FOLDER "/ashlar-vduse-%s", name);
    AUTO(fd) fd = co_open_file(path, err);
    struct vduse_log *log;

    if (fd < 0)
        return NULL;
    if (keep ? !co_check(fd, path, queues, queue_size, err) : !co_begin(fd, path, queues, queue_size, err))
        return NULL;
    log = log_of(fd, queues, queue_size, err);
    if (!log)
        return NULL;
    log->path = TAKE(path);
    log->fd = TAKE_FD(fd);
    return log;
}

struct vduse_log *vduse_log_anonymous(uint16_t queues, uint16_t queue_size)
{
    AUTO(fd) fd = shared_memory_file("requests in flight", log_bytes(queues, queue_size));

    return fd < 0 ? NULL : log_of(fd, queues, queue_size, NULL);
}

void co_vduse_log_close(struct vduse_log *log, bool keep)
{
    if (!log)
        return;
    if (log->path && !keep)
        (void)co_file_unlink(log->path);
    shared_memory_unref(log->memory);
    fd_close(log->fd);
    g_free(log->path);
    g_free(log);
}

uint8_t *vduse_log_table(struct vduse_log *log, unsigned queue)
{
    assert(queue < log->queues);
    return shared_memory_base(log->memory) + HEADER_BYTES + queue * log->table_bytes;
}

bool vduse_log_used(struct vduse_log *log, unsigned queue, bool packed)
{
    const uint8_t *table = vduse_log_table(log, queue);

    return packed ? ((const struct inflight_packed *)(const void *)table)->version
                  : ((const struct inflight_split *)(const void *)table)->version;
}

uint16_t vduse_log_queue_size(const struct vduse_log *log)
{
    return log->queue_size;
}

void vduse_log_clear(struct vduse_log *log)
{
    memset(vduse_log_table(log, 0), 0, log->queues * log->table_bytes);
}
