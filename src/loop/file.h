/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files. All return 0 or a count, or a negative errno; interrupted calls are repeated, short ones are not unless said.
 * Every descriptor is born close-on-exec and has one owner. On the sim back end paths name files of the simulated disk.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "loop/lock.h"

struct error;
struct loop;
struct write_entry;

/* The descriptor, or -errno. `flags` as for open(2). */
int CO_FN co_file_open(const char *path, int flags, mode_t mode);

/* Closes `fd`; -1 is allowed. May be called outside of coroutines too. */
void fd_close(int fd);
AUTO_DEFINE(fd, int, fd_close)

/*
 * How requests of a file travel; `aio` of the file driver. Zero: the fastest that the loop has. At once: writes by the
 * calling thread itself, where its loop may block, and else as by default. For the page cache that is the cheapest way:
 * the data is still in the processor's cache, and no other thread has to be woken.
 */
enum file_engine {
    FILE_ENGINE_DEFAULT,
    FILE_ENGINE_THREADS,
    FILE_ENGINE_NATIVE,
    FILE_ENGINE_IO_URING,
    FILE_ENGINE_AT_ONCE,
};

/* Whether the running loop and the kernel can do it; the error says why not. */
bool file_engine_available(enum file_engine engine, struct error **err) MUST_CHECK;

/* Bytes moved: less than asked at the end of the file or where the system cuts. `flags`: RWF_*. */
ssize_t CO_FN co_file_preadv(int fd, const struct iovec *iov, int count, uint64_t offset, enum file_engine engine);
ssize_t CO_FN co_file_pwritev(int fd, const struct iovec *iov, int count, uint64_t offset, int rwf_flags,
                              enum file_engine engine);

/* For the next transfer that the calling coroutine makes: with it, at most so many wait to be handed to the system. */
void file_limit_batch(uint32_t requests);

/* All of it, or -errno; -EIO where a file ends early. */
int CO_FN co_file_read_exact(int fd, void *to, size_t size, uint64_t offset);
int CO_FN co_file_write_exact(int fd, const void *from, size_t size, uint64_t offset);

int CO_FN co_file_sync(int fd, bool data_only);
int CO_FN co_file_allocate(int fd, int mode, uint64_t offset, uint64_t bytes); /* fallocate(2) */
int CO_FN co_file_truncate(int fd, uint64_t length);
int CO_FN co_file_stat(int fd, struct stat *ret);
int64_t CO_FN co_file_seek(int fd, int64_t offset, int whence); /* SEEK_DATA, SEEK_HOLE, SEEK_END */

/*
 * The same, where the file is near: while it answers quickly, without a worker. `pace`: how it has answered so far, one
 * for each file, zero-filled at first. Not for file systems whose other end may go away.
 */
struct file_pace {
    atomic_int credit;
};
int64_t CO_FN co_file_seek_paced(int fd, int64_t offset, int whence, struct file_pace *pace);

/*
 * A write into the page cache of a file that is near: made by the calling thread if it is small and while the file
 * takes such writes quickly, and else at once or by default as the loop may (enum file_engine). While another thread
 * makes one, that one makes it. `pace`: one for each file, zero-filled at first.
 */
struct write_entries {
    struct write_entry *first;
    struct write_entry *last;
};
struct write_line {
    struct spin_lock spin;         /* all below */
    _Atomic(struct loop *) holder; /* NULL: nobody */
    struct write_entries waiting;
};
struct write_pace {
    struct write_line line;
    _Atomic int64_t resting_until_ns; /* of the loop's time: it has let us wait */
    _Atomic int64_t rest_ns;          /* how long it rests, or has rested last; 0: it has been quick for long */
    atomic_uint quick;                /* writes since then */
};
ssize_t CO_FN co_file_pwritev_paced(int fd, const struct iovec *iov, int count, uint64_t offset,
                                    struct write_pace *pace);

ssize_t CO_FN co_file_copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t bytes);
int CO_FN co_file_advise(int fd, uint64_t offset, uint64_t bytes, int advice); /* posix_fadvise(3) */
int CO_FN co_file_ioctl(int fd, unsigned long request, void *argument);
int CO_FN co_file_unlink(const char *path);
int CO_FN co_file_rename(const char *from, const char *to);

/* Open-file-description locks on [start, start + length). Immediate: 0, or -EAGAIN where somebody else is in the way.
 */
enum file_lock { FILE_LOCK_NONE, FILE_LOCK_SHARED, FILE_LOCK_EXCLUSIVE };
int file_lock_set(int fd, uint64_t start, uint64_t length, enum file_lock lock);

/* Whether somebody else holds a lock that would refuse `lock`: 1 or 0, or -errno; the holder's pid (0: unknown) in
 * *ret_pid. */
int file_lock_test(int fd, uint64_t start, uint64_t length, enum file_lock lock, pid_t *ret_pid);

/* A process that holds a lock there by another descriptor than `fd`, and its name (owned); false where none is found.
 */
bool CO_FN co_file_lock_holder(int fd, uint64_t start, uint64_t length, pid_t *ret_pid, char **ret_command) MUST_CHECK;

/* Takes O_NONBLOCK from a file that was opened with it. */
int fd_set_blocking(int fd);

/* Whether it is open for writing; turns direct I/O on or off for what follows: 0, or -errno where it cannot be. */
bool fd_is_writable(int fd);
int fd_set_direct(int fd, bool direct);

/* What direct I/O demands of memory and of offsets and lengths, in bytes; -ENOTSUP where the system does not tell. */
int CO_FN co_file_direct_alignment(int fd, uint32_t *ret_memory, uint32_t *ret_offset);

/* What a file can expect, by the kind of its file system. */
enum file_traits {
    FILE_IS_SHARED = 1u << 0,         /* other hosts may write to it */
    FILE_ALLOCATES_CHEAPLY = 1u << 1, /* co_file_allocate() of a large run costs less than writing saves by it */
};

/* Of enum file_traits, or -errno. */
int CO_FN co_file_traits(int fd);

/* Begins to write back what the system has in memory of the file; not waited for, as far as it has room to note it. */
void CO_FN co_file_write_back(int fd);

/* Writes back and drops what the system has in memory of the file; and how many bytes that is now, or -errno. */
int CO_FN co_file_drop_cache(int fd);
int64_t CO_FN co_file_cached_bytes(int fd);

/* The whole file, NUL-terminated beyond *ret_size; owned. Refused when larger than `limit`. */
bool CO_FN co_file_load(const char *path, size_t limit, char **ret_data, size_t *ret_size,
                        struct error **err) MUST_CHECK;

/* For functions that run on worker threads: reads at `offset`, or -errno; fewer bytes than asked at the end. Blocks. */
ssize_t file_read_blocking(int fd, void *to, size_t size, uint64_t offset);

/* The same: makes the file `length` bytes long, of which the first `allocated` take up space. 0, or -errno: -EOPNOTSUPP
 * where it has its length, and the file system cannot give it space. */
int file_resize_blocking(int fd, uint64_t length, uint64_t allocated);

/* The same: of enum file_traits, or -errno. */
int file_traits_blocking(int fd);
