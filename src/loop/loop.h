/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Event loops: one a thread. A turn of the loop runs what is ready, hands all I/O that this produced to the kernel in
 * one call, and reaps what has ended.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "loop/coroutine.h"

struct error;
struct loop;

enum loop_backend {
    LOOP_AUTO, /* what ASHLAR_LOOP names (io_uring, epoll), or else io_uring where the kernel lets us, or else epoll */
    LOOP_IO_URING,
    LOOP_EPOLL,
    LOOP_SIM,
};

/* What loops that serve somebody poll for, unless told otherwise. */
enum { LOOP_POLL_MAX_NS_DEFAULT = 32768 };

/* Zero is the default of each. */
struct loop_options {
    enum loop_backend backend;
    const char *name;            /* of the thread, for debuggers; NULL: "loop" */
    bool may_block;              /* nobody else waits for the thread: see FILE_ENGINE_AT_ONCE (file.h) */
    uint64_t poll_max_ns;        /* the waits that busy polling is to bridge; 0: none */
    uint64_t poll_grow;          /* factor; 0: the default */
    uint64_t poll_shrink;        /* divisor; 0: back to nothing at once */
    uint64_t aio_max_batch;      /* I/O requests handed over in one go, at most; 0: the loop's own limit */
    uint32_t worker_threads_min; /* kept alive when idle */
    uint32_t worker_threads_max; /* 0: 64 */
    uint64_t sim_seed;           /* LOOP_SIM only */
};

/* A loop for the calling thread, which must have none. Freed by loop_free() on the same thread. */
struct loop *loop_new(const struct loop_options *options, struct error **err) MUST_CHECK;
void loop_free(struct loop *loop);

/* The blocking form, for the start of programs and tests: runs `entry` as a coroutine and the loop until it has
 * returned. */
void co_run(struct loop *loop, co_entry *entry, void *opaque);

/* A loop in a thread of its own, for `iothread` objects. Freeing asks it to end and waits; nothing may be left on it.
 */
struct loop_thread;
struct loop_thread *loop_thread_new(const struct loop_options *options, struct error **err) MUST_CHECK;
void CO_FN co_loop_thread_free(struct loop_thread *thread);
struct loop *loop_thread_loop(struct loop_thread *thread);
int loop_thread_id(const struct loop_thread *thread); /* the kernel's id */

/* The calling thread's loop, NULL if it has none. */
struct loop *loop_current(void);
enum loop_backend loop_get_backend(const struct loop *loop);
const char *loop_backend_name(enum loop_backend backend);

/* A small number, unique among living loops, below LOOP_COUNT_MAX: an index for per-loop counters. */
enum { LOOP_COUNT_MAX = 256 };
unsigned loop_index(const struct loop *loop);

/* Changes what is meant to be changed live: polling, batch and worker thread limits. Any thread. */
bool loop_configure(struct loop *loop, const struct loop_options *options, struct error **err) MUST_CHECK;

/* Monotonic time of the loop (virtual on sim), and wall-clock time. */
int64_t loop_now_ns(void);

/* The same, read once a turn of the running loop: good enough for how long requests take, and nearly free. */
int64_t loop_turn_time_ns(void);
int64_t loop_wall_time_us(void);

/* Processor time that the calling thread has used, for measuring how fast it computes. Real on every back end. */
int64_t loop_thread_cpu_ns(void);

/* Fit for keys. Any thread. */
void loop_random_bytes(void *to, size_t size);

/* 0, or -ECANCELED or -ETIMEDOUT. */
int CO_FN co_sleep_ns(int64_t duration_ns);

/* Runs `work` on a worker thread of the calling coroutine's loop and returns its result. Not cancellable. */
typedef int worker_fn(void *opaque);
int CO_FN co_worker_run(worker_fn *work, void *opaque);

/*
 * Memory from the loop's free lists. loop_alloc(): a small object, 64-byte aligned, contents undefined.
 * loop_buffer_get(): I/O memory, aligned to `LOOP_BUFFER_ALIGNMENT`; NULL when the system has no more. What one loop
 * gave may be returned on another; `size` is the one asked for.
 */
/*
 * loop_table_get(): I/O memory that is kept for long, in small pieces: aligned for direct I/O to most disks only, and
 * so without a page of its own to lose. Not from the free lists. NULL when the system has no more.
 */
enum { LOOP_BUFFER_ALIGNMENT = 4096, LOOP_TABLE_ALIGNMENT = 512 };
void *loop_alloc(size_t size) MUST_CHECK;
void loop_release(void *object, size_t size);
void *loop_buffer_get(size_t size) MUST_CHECK;
void loop_buffer_put(void *buffer, size_t size);
void *loop_table_get(size_t size) MUST_CHECK;
void loop_table_put(void *table);
