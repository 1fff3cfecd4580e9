/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the system keeps of files in memory, which other hosts may have made stale. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "loop/file.h"
#include "loop/loop.h"

/* File systems that several hosts may write to (statfs(2)). */
static const unsigned long shared_types[] = {
    0x6969,     /* NFS */
    0x517b,     /* SMB */
    0xfe534d42, /* SMB 2 and later */
    0xff534d42, /* CIFS */
    0x65735546, /* FUSE: GlusterFS and others */
    0x00c36400, /* Ceph */
    0x01161970, /* GFS2 */
    0x7461636f, /* OCFS2 */
    0x01021997, /* 9P */
    0x0bd00bd0, /* Lustre */
    0x47504653, /* GPFS */
    0x5346414f, /* AFS */
    0x6b414653, /* AFS, the kernel's own */
    0x73757245, /* Coda */
    0x20030528, /* OrangeFS */
    0x19830326, /* BeeGFS */
    0x786f4256, /* folders of VirtualBox's host */
    0xbacbacbc, /* ... of VMware's */
};

/*
 * Here a buffered write into a hole reserves room and counts it block by block of 4 KiB; that is half of its cost, and
 * much more than allocating the run in one call (measured on Linux 6.18). ext2 and ext3 have the same number, and no
 * such call.
 */
static const unsigned long ext4_type = 0xef53;

struct page_cache_call {
    int fd;
    int64_t result;
};

int file_traits_blocking(int fd)
{
    struct statfs status;

    if (fstatfs(fd, &status))
        return -errno;
    for (size_t i = 0; i < sizeof(shared_types) / sizeof(shared_types[0]); i++) {
        if ((unsigned long)status.f_type == shared_types[i])
            return FILE_IS_SHARED;
    }
    return (unsigned long)status.f_type == ext4_type ? FILE_ALLOCATES_CHEAPLY : 0;
}

static int traits_work(void *opaque)
{
    const struct page_cache_call *call = opaque;

    return file_traits_blocking(call->fd);
}

static int write_back_work(void *opaque)
{
    const struct page_cache_call *call = opaque;

    /* All of it; what fails is told by the flush that follows. */
    return sync_file_range(call->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static int drop_work(void *opaque)
{
    const struct page_cache_call *call = opaque;

    /* What has not been written yet cannot be dropped. */
    if (fdatasync(call->fd))
        return -errno;
    return -posix_fadvise(call->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* How much of [offset, offset + bytes) is in memory, or -errno. */
static int64_t count_cached(int fd, off_t offset, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pages = (bytes + page - 1) / page;
    g_autofree unsigned char *present = g_malloc(pages);
    void *mapping = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, offset);
    int64_t count = 0;

    if (mapping == MAP_FAILED)
        return -errno;
    if (mincore(mapping, bytes, present))
        count = -errno;
    munmap(mapping, bytes);
    for (size_t i = 0; count >= 0 && i < pages; i++)
        count += present[i] & 1;
    return count < 0 ? count : count * (int64_t)page;
}

static int cached_work(void *opaque)
{
    enum { WINDOW = 1 << 30 };
    struct page_cache_call *call = opaque;
    struct stat status;

    if (fstat(call->fd, &status))
        return -errno;
    call->result = 0;
    for (off_t at = 0; at < status.st_size; at += WINDOW) {
        off_t left = status.st_size - at;
        int64_t found = count_cached(call->fd, at, left < WINDOW ? (size_t)left : (size_t)WINDOW);

        if (found < 0)
            return (int)found;
        call->result += found;
    }
    return 0;
}

static bool is_simulated(void)
{
    return loop_get_backend(loop_current()) == LOOP_SIM;
}

int CO_FN co_file_traits(int fd)
{
    struct page_cache_call call = {.fd = fd};

    return is_simulated() ? 0 : co_worker_run(traits_work, &call);
}

void CO_FN co_file_write_back(int fd)
{
    struct page_cache_call call = {.fd = fd};

    if (!is_simulated())
        (void)co_worker_run(write_back_work, &call);
}

int CO_FN co_file_drop_cache(int fd)
{
    struct page_cache_call call = {.fd = fd};

    return is_simulated() ? 0 : co_worker_run(drop_work, &call);
}

int64_t CO_FN co_file_cached_bytes(int fd)
{
    struct page_cache_call call = {.fd = fd};
    int result = is_simulated() ? 0 : co_worker_run(cached_work, &call);

    return result < 0 ? result : call.result;
}
