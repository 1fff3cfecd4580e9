/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated machine beneath a loop of the sim back end, for tests: virtual time, a scheduler driven by the loop's
 * seed, a disk that forgets what was not flushed, and sockets in memory. The same seed gives the same run.
 *
 * Everything here belongs to the thread of the loop it is used with, and may be called outside of coroutines.
 *
 * What the disk promises: a write is in the file, for whoever reads it, when it completes; it survives a power cut when
 * an fsync that was started after that has completed, or when it was made with RWF_DSYNC or RWF_SYNC. Any part of what
 * was written later, in units of 512 bytes, in any order, may survive, too. Making, removing and renaming files is
 * atomic and lasting at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct loop;

/* --- disks: files by path --- */

struct sim_disk;
struct sim_disk *sim_disk_new(void) MUST_CHECK;
void sim_disk_free(struct sim_disk *disk); /* NULL is allowed; nothing of it may be open */
AUTO_DEFINE(sim_disk, struct sim_disk *, sim_disk_free)

/* A copy of what running programs see; all of it is flushed there. Cheap: the data is shared until it is changed. */
struct sim_disk *sim_disk_clone(const struct sim_disk *disk) MUST_CHECK;

/* What a power cut at this moment may leave, chosen by `seed`. */
struct sim_disk *sim_disk_after_cut(const struct sim_disk *disk, uint64_t seed) MUST_CHECK;

/* A file's contents, flushed. get(): owned, NUL-terminated beyond *ret_size; NULL where there is no such file. */
void sim_disk_put(struct sim_disk *disk, const char *path, const void *data, size_t size);
char *sim_disk_get(const struct sim_disk *disk, const char *path, size_t *ret_size) MUST_CHECK;

/* Writes that would make the disk hold more than `bytes` fail with -ENOSPC; UINT64_MAX: no limit. */
void sim_disk_set_capacity(struct sim_disk *disk, uint64_t bytes);

/* The disk of the loop: its own, empty at first, until another is given, which is borrowed and must outlive it. */
struct sim_disk *sim_loop_disk(struct loop *loop);
void sim_loop_set_disk(struct loop *loop, struct sim_disk *disk);

/* --- crashes: after the fact, at every point of a run --- */

/* From here on `disk` keeps a record of all changes and flushes. */
void sim_disk_record(struct sim_disk *disk);

/* How many there have been: notes what had happened when a test saw something acknowledged. */
size_t sim_disk_recorded(const struct sim_disk *disk);

/*
 * Goes through the record: at position K the first K changes have happened. It borrows `disk`, which must not change
 * meanwhile. Steps forward are cheap, so try each position in one pass.
 */
struct sim_replay;
struct sim_replay *sim_replay_new(const struct sim_disk *disk) MUST_CHECK;
void sim_replay_free(struct sim_replay *replay);
AUTO_DEFINE(sim_replay, struct sim_replay *, sim_replay_free)
bool sim_replay_step(struct sim_replay *replay); /* false: at the end */
size_t sim_replay_position(const struct sim_replay *replay);

/* The disk at this position with everything on the medium; and what a power cut here may leave. */
struct sim_disk *sim_replay_disk(const struct sim_replay *replay) MUST_CHECK;
struct sim_disk *sim_replay_cut(const struct sim_replay *replay, uint64_t seed) MUST_CHECK;

/* --- crashes: now --- */

/* Every operation on files fails with -EIO from now on and changes nothing; sim_disk_after_cut() tells what is left. */
void sim_power_off(struct loop *loop);

/* --- faults, delays --- */

enum sim_op {
    SIM_OP_OPEN,
    SIM_OP_READ,
    SIM_OP_WRITE,
    SIM_OP_SYNC,
    SIM_OP_ALLOCATE,
    SIM_OP_TRUNCATE,
    SIM_OP_STAT,
    SIM_OP_SEEK,
    SIM_OP_COPY,
    SIM_OP_UNLINK,
    SIM_OP_RENAME,
    SIM_OP_LOCK,
    SIM_OP_SOCKET, /* accept, connect, send, receive, poll */
    SIM_OP_WORK,   /* only counted and delayed */
    SIM_OP_BUFFER, /* loop_buffer_get(): NULL */
    SIM_OP__MAX,
};
#define SIM_OP_BIT(op) (1u << (op))
#define SIM_OPS_ALL ((1u << SIM_OP__MAX) - 1)
#define SIM_OPS_FILE ((1u << SIM_OP_SOCKET) - 1)

struct sim_fault {
    unsigned ops;    /* bits of those that count */
    uint64_t nth;    /* which of them fails, the next is 1; 0: none */
    int errno_value; /* positive */
    bool lasting;    /* all after it fail, too */
    bool torn;       /* a write that fails has written some of its sectors */
};
void sim_set_fault(struct loop *loop, const struct sim_fault *fault);

/* How many operations of these kinds there have been. */
uint64_t sim_op_count(struct loop *loop, unsigned ops);

/* How long operations take: random between the two. Before: 1 µs to 100 µs for all, at most 1 ms for SIM_OP_SYNC. */
void sim_set_delay(struct loop *loop, unsigned ops, int64_t min_ns, int64_t max_ns);

/* Whether reading and writing files sometimes moves less than was asked, cut at a multiple of 512 bytes. Before: no. */
void sim_set_short_transfers(struct loop *loop, bool on);

/* --- sockets --- */

/*
 * Two connected ends, of the loop's own kind of descriptors. They hold `capacity` bytes a direction (0: 64 KiB) and
 * move random parts of what is asked. Listening and dialling work, too, among the coroutines of one loop.
 */
void sim_socket_pair(struct loop *loop, int ret_fds[2], size_t capacity);

/* --- the run --- */

/* A number that depends on all that has happened: two runs that are the same have the same. */
uint64_t sim_fingerprint(struct loop *loop);
