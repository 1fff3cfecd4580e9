/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the drivers for files and devices of the host share: the state of such a node, and its operations, one file a
 * noun. Kept:
 *  1. `lock_fd` is opened once, and image locks hang on it until the node closes.
 *  2. `fd` takes the requests. It is `lock_fd`, or a descriptor of the same file that was opened for writing when a
 *     writer came. It changes only where no request of a writer is in flight.
 *  3. Nothing beyond the descriptors, the status cache and the counters changes after opening but inside a drain.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "block/driver.h"
#include "block/node.h"
#include "gen/types.h"
#include "loop/file.h"
#include "loop/lock.h"

struct error;
struct graph;
struct object;

enum file_kind { FILE_REGULAR, FILE_BLOCK_DEVICE, FILE_CHARACTER_DEVICE };

/* What a file system or device may turn out not to support; it is not tried again then. */
enum file_operation {
    FILE_ZERO_RANGE = 1u << 0,
    FILE_PUNCH_HOLE = 1u << 1,
    FILE_ALLOCATE = 1u << 2,
    FILE_DISCARD = 1u << 3,
    FILE_SYNC_WRITE = 1u << 4,
    FILE_SEEK_HOLE = 1u << 5,
    FILE_COPY = 1u << 6,
};

/* The extent that was asked for last; see status.c. */
struct file_status_cache {
    struct spin_lock spin;
    atomic_bool watched; /* writers must look here: a hole is cached, or somebody is about to cache one */
    uint32_t fills;      /* spin: queries on their way */
    uint64_t changes;    /* spin: counts what may have made a query's answer stale */
    bool valid;          /* spin, as the rest */
    bool is_data;
    uint64_t start;
    uint64_t end;
};

struct file_discard_stats {
    atomic_uint_fast64_t ok;
    atomic_uint_fast64_t failed;
    atomic_uint_fast64_t bytes_ok;
};

/* Permission bits whose lock bytes are held: see lock.c. */
struct file_locks {
    bool enabled;
    uint32_t used;
    uint32_t unshared;
};

struct file_node {
    char *path;       /* const after open, as all up to `fd` */
    char *shown_path; /* as messages show it */
    enum file_kind kind;
    enum file_engine engine;
    bool direct;
    bool no_flush;
    bool is_shared;         /* other hosts may write to it */
    bool is_near;           /* a regular file of this host's: no other host can keep us waiting for its page cache */
    bool allocates_cheaply; /* see file_traits (loop/file.h) */
    bool dynamic;           /* open for writing only while somebody writes */
    bool drop_cache;        /* the host's page cache is not trusted when the image is taken over */
    bool check_cache_dropped;
    uint32_t batch_max; /* requests handed to the system in one go; 0: the loop's own limit */
    struct object *pr_manager;
    int lock_fd;
    int fd;                  /* see the invariants above */
    struct file_locks locks; /* main loop */
    bool is_used;            /* main loop: somebody uses the node */
    struct {                 /* main loop: between a prepare and its commit or abort */
        int fd;              /* to take over; -1: `fd` stays */
        uint32_t used;
        uint32_t unshared;
        struct file_locks locks_before;
    } next;
    struct {         /* main loop: between a prepare to reopen and its commit or abort */
        int fd;      /* to take over; -1: `fd` stays */
        bool direct; /* as before, both */
        bool dynamic;
    } reopen;
    uint32_t request_alignment;  /* as probed */
    atomic_uint_fast64_t length; /* bytes up to which the file must be there, as far as we know; nodes may be longer */
    atomic_uint unsupported;     /* enum file_operation */
    struct co_mutex copying;     /* by the system into the file, which keeps others out of it meanwhile */
    struct co_rwlock growth;     /* read: writing beyond the end; write: moving the end */
    struct file_status_cache status;
    atomic_uint_fast64_t reserved_to; /* room may be held up to there that nobody has written to; see reserve.c */
    struct file_pace pace;            /* of questions for data and holes */
    struct write_pace write_pace;
    struct file_discard_stats discards;
};

/* open.c. `device`: whether a device is asked for, or else a regular file. */
bool CO_FN file_co_open(struct node *node, const struct blockdev_options_file *options, bool device,
                        struct error **err) MUST_CHECK;
void CO_FN file_co_close(struct node *node);

/* Another descriptor of the same file, opened for writing; -1 and the error. */
int CO_FN file_co_open_writable(struct file_node *file, struct error **err) MUST_CHECK;

/* lock.c. Acquire: in addition to what is held; where it fails, nothing has changed. Reduce: to no more than these. */
bool CO_FN file_co_locks_open(struct file_node *file, bool required, struct error **err) MUST_CHECK;
bool CO_FN file_co_locks_acquire(struct file_node *file, uint32_t used, uint32_t unshared,
                                 struct error **err) MUST_CHECK;
void file_locks_reduce(struct file_node *file, uint32_t used, uint32_t unshared);

/* probe.c */
bool CO_FN file_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err);

/* transfer.c */
int CO_FN file_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags);
int CO_FN file_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags);
int CO_FN file_co_flush(struct node *node);
void CO_FN file_co_flush_soon(struct node *node);
bool file_is_near(const struct node *node);

/* copy.c */
int CO_FN file_co_copy_from(struct node *node, uint64_t offset, uint64_t bytes, struct node *from, uint64_t from_offset,
                            unsigned flags);

/* zeroes.c */
int CO_FN file_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags);
int CO_FN file_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes);

/* reserve.c */
int CO_FN file_co_reserve(struct node *node, uint64_t offset, uint64_t bytes);
void CO_FN file_co_release_reserved(struct file_node *file); /* before closing: what lies beyond the end */

/* status.c. The other two tell the cache what has been done to the file, after it has been done. */
int CO_FN file_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                               struct block_extent *ret);
void file_status_forget(struct file_node *file);
static inline void file_status_written(struct file_node *file)
{
    if (unlikely(atomic_load(&file->status.watched)))
        file_status_forget(file);
}

/* resize.c */
int CO_FN file_co_truncate(struct node *node, const struct truncate_request *request, struct error **err);
int64_t CO_FN file_co_length(struct node *node);
int64_t CO_FN file_co_allocated_size(struct node *node);
void file_raise_length(struct file_node *file, uint64_t length); /* after a write up to there; under `growth` */

/* page-cache.c: before the first use of a node that nobody has used. */
bool CO_FN file_co_take_over(struct file_node *file, struct error **err) MUST_CHECK;

/* info.c */
char *file_filename(const struct node *node); /* owned */
extern const char *const file_significant_options[];
bool CO_FN file_co_get_info(struct node *node, struct node_info *ret, struct error **err);
struct block_stats_specific_file file_get_discard_stats(struct file_node *file);

/* create.c */
bool CO_FN file_co_create(struct graph *graph, const struct blockdev_create_options *all, struct error **err);
extern const struct block_driver_image file_image;

/* reopen.c */
extern const struct block_driver_reopen file_reopen;

/* permission.c */
extern const struct block_driver_permission file_permission;

/* A file that ends before this has been cut by somebody else. */
static inline uint64_t file_known_length(const struct file_node *file)
{
    return atomic_load_explicit(&file->length, memory_order_relaxed);
}

static inline bool file_supports(const struct file_node *file, enum file_operation operation)
{
    return !(atomic_load_explicit(&file->unsupported, memory_order_relaxed) & operation);
}

static inline void file_set_unsupported(struct file_node *file, enum file_operation operation)
{
    atomic_fetch_or_explicit(&file->unsupported, operation, memory_order_relaxed);
}
