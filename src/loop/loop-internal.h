/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of this folder share: the loop's parts and the table that a back end fills in.
 *
 * A loop is owned by its thread. Other threads touch only its inbox and the fields marked so.
 */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/switch.h"

/* --- inbox: what other threads hand to a loop --- */

struct inbox_item {
    struct inbox_item *next;
    void (*deliver)(struct loop *loop, struct inbox_item *item); /* on the loop's thread */
};

/* A stack of items, newest first. A loop that sleeps is woken by who pushes. */
struct inbox {
    _Atomic(struct inbox_item *) newest;
    atomic_bool sleeping; /* the loop is, or is about to be, blocked in its back end */
    atomic_uint pushing;  /* threads inside inbox_push(): the loop must outlive them */
};
void inbox_push(struct loop *loop, struct inbox_item *item); /* any thread */
bool inbox_is_empty(struct loop *loop);
void inbox_deliver(struct loop *loop); /* oldest first */

/* --- coroutines --- */

enum {
    COROUTINE_NOTIFIED = 1,  /* woken since it last looked */
    COROUTINE_SUSPENDED = 2, /* not on the processor and in no queue */
};

struct coroutine {
    struct inbox_item item; /* in the inbox of its loop */
    struct coroutine *next; /* in a run queue */
    struct loop *loop;      /* changed by itself only, while it runs */
    atomic_uint state;
    atomic_bool cancelled;
    bool arriving;       /* its loop does not count it yet */
    struct stack *stack; /* NULL: has not run yet */
    struct co_deadline *deadline;
    struct co_task *task;
    co_entry *entry;
    void *opaque;
};

struct run_queue {
    struct coroutine *first;
    struct coroutine *last;
    uint32_t count;
};
void run_queue_push(struct run_queue *queue, struct coroutine *coroutine);
struct coroutine *run_queue_pop(struct run_queue *queue); /* NULL: it is empty */
struct coroutine *run_queue_pop_at(struct run_queue *queue, uint32_t position);
void run_queue_append(struct run_queue *queue, struct run_queue *other); /* `other` is empty then */

/*
 * The two halves of co_wake(). coroutine_claim() returns whether the caller has to queue the coroutine; until it does,
 * the coroutine stays suspended, and hence alive. Both may be called by any thread.
 */
bool coroutine_claim(struct coroutine *coroutine) MUST_CHECK;
void coroutine_queue(struct coroutine *coroutine);

/* Runs what is ready, from the loop's own stack. */
void coroutines_run(struct loop *loop);
void coroutine_fail_unless_active(const char *function);

/* Stops with a message when the caller is not in a coroutine: first statement of whatever may suspend. */
#define CO_ASSERT()                                                                                                    \
    do {                                                                                                               \
        if (unlikely(!co_active()))                                                                                    \
            coroutine_fail_unless_active(__func__);                                                                    \
    } while (0)

/* --- stacks --- */

struct stack {
    struct context context;
    struct stack *next; /* in the pool */
    char *mapping;
    size_t mapping_size;
    char *bottom; /* of what code runs on: after the guard page */
    unsigned valgrind_id;
};

struct stack_pool {
    struct stack *first;
    unsigned count;
    unsigned low;   /* the least count since the last trim: so many were not needed */
    unsigned used;  /* given out by this pool, or brought here by a coroutine that has moved */
    unsigned limit; /* of those in use; 0: as many as the system has memory for */
};
struct stack *stack_get(struct stack_pool *pool, void (*entry)(void)) MUST_CHECK; /* NULL: no memory */
void stack_put(struct stack_pool *pool, struct stack *stack);
void stack_pool_trim(struct stack_pool *pool); /* what has not been needed since the last time, and is too many */
void stack_pool_done(struct stack_pool *pool);

/* --- timers --- */

struct timer {
    int64_t at_ns;
    struct coroutine *coroutine; /* woken at that time */
    uint32_t index;              /* in the heap, plus one; 0: not in it */
    bool fired;
};

struct timer_heap {
    struct timer **items;
    uint32_t count;
    uint32_t capacity;
};
void timer_arm(struct timer *timer, int64_t at_ns); /* of the running coroutine */
void timer_disarm(struct timer *timer);
int64_t timer_heap_next_ns(const struct timer_heap *heap); /* INT64_MAX: none */
void timer_heap_fire(struct timer_heap *heap, int64_t now_ns);

/*
 * A cancellable wait of the running coroutine. cancellable_begin() returns -ECANCELED or -ETIMEDOUT where there is
 * nothing to wait for any more; then cancellable_end() must not be called. cancellable_reason(), after a wake, says
 * which of the two has come, or 0.
 */
struct cancellable {
    struct timer timer;
};
int cancellable_begin(struct cancellable *wait) MUST_CHECK;
int cancellable_reason(const struct cancellable *wait);
void cancellable_end(struct cancellable *wait);

/* --- worker threads --- */

struct work {
    struct inbox_item item;
    struct work *next;
    struct loop *loop;
    struct coroutine *coroutine;
    worker_fn *function;
    void *opaque;
    int result;
    bool done; /* loop's thread */
};

struct worker_pool {
    pthread_mutex_t mutex; /* all below */
    pthread_cond_t changed;
    pthread_cond_t ended;
    struct work *first;
    struct work *last;
    uint32_t queued;
    uint32_t threads;
    uint32_t idle;
    uint32_t threads_min;
    uint32_t threads_max;
    bool stopping;
    bool has_last; /* of those that have ended; the next one waits until it is gone */
    pthread_t last_ended;
};
enum { WORKER_THREADS_DEFAULT = 64 };
void worker_pool_init(struct worker_pool *pool);
void worker_pool_configure(struct worker_pool *pool, uint32_t threads_min, uint32_t threads_max); /* any thread */
void worker_pool_done(struct worker_pool *pool);
int CO_FN co_worker_pool_run(worker_fn *function, void *opaque);

/* --- other programs: see process.c --- */

struct process_stop;
void process_stop_free(struct process_stop *stop); /* no worker runs any more; NULL is allowed */

/* --- free lists --- */

enum { MEMORY_CLASSES = 32 };
struct memory_list {
    struct memory_free *first;
    uint32_t count;
    uint32_t low; /* the least count since the last trim: so many were not needed */
};
struct memory_lists {
    struct memory_list small[MEMORY_CLASSES];
    struct memory_list buffers[MEMORY_CLASSES];
    size_t buffer_bytes; /* in the lists */
    size_t small_bytes;
};
/* Gives back to the system what has not been needed since the last time, or everything. */
void memory_lists_trim(struct memory_lists *lists, bool all);

/* --- busy polling: see polling.c --- */

struct polling {
    _Atomic uint64_t max_ns; /* any thread */
    _Atomic uint64_t grow;
    _Atomic uint64_t shrink;
    uint64_t now_ns;    /* how long the next sleep is put off */
    int credit;         /* while it polls */
    uint32_t rest;      /* while it does not: how many more waits at least */
    uint32_t next_rest; /* how long the next one will be */
    bool crowded;       /* when it was judged last, the thread had to wait for a processor */
    int64_t judged_ns;
    uint64_t delay_ns; /* how much the thread had waited in all by then */
};

/*
 * Learns from a wait of `waited_ns`, its polling and its sleep together: one that polling might have bridged makes it
 * poll longer, up to `max_ns` and what being woken takes; when most of its polling finds nothing, it stops.
 */
void polling_adapt(struct polling *polling, uint64_t waited_ns, uint64_t max_ns);

/* Whether processors are short, so that polling would take them from others; asks the system now and then. */
bool polling_crowded(struct polling *polling, int64_t now_ns);
void polling_judge(struct polling *polling, int64_t now_ns, uint64_t delay_ns); /* the same, with its answer */

/* --- descriptors that the loop itself watches --- */

/* Calls `ready` on the loop's thread, from the loop's own stack, when `fd` becomes readable; at least once for each
 * time. */
struct watch {
    int fd;
    bool removable;
    bool ending; /* removable: by unwatch() */
    bool ended;  /* nothing refers to it any more; told by a last call of `ready` */
    int error;   /* why it ended by itself; 0: it has not */
    void (*ready)(struct watch *watch);
};

/* --- event sources: each of the two looks at all that are waited for, and wakes; whether it woke somebody --- */

struct event_source;
bool event_sources_look(struct loop *loop);
bool event_sources_rest(struct loop *loop);

/* --- back ends --- */

struct file_request {
    int fd;
    bool write;
    int rwf_flags;
    int iov_count;
    const struct iovec *iov;
    uint64_t offset;
};

struct socket_request {
    int fd;
    int flags; /* MSG_*; MSG_NOSIGNAL is added */
    bool write;
    struct msghdr *message; /* NULL: `data` */
    void *data;
    size_t size;
};

/* Files; the functions of the same names in file.h say what each does. */
struct loop_file_ops {
    int (*co_open)(const char *path, int flags, mode_t mode);
    void (*close)(int fd);
    ssize_t (*co_transfer)(const struct file_request *request, enum file_engine engine);
    bool (*engine_available)(struct loop *loop, enum file_engine engine, struct error **err);
    int (*co_sync)(int fd, bool data_only);
    int (*co_allocate)(int fd, int mode, uint64_t offset, uint64_t bytes);
    int (*co_truncate)(int fd, uint64_t length);
    int (*co_stat)(int fd, struct stat *ret);
    int64_t (*co_seek)(int fd, int64_t offset, int whence);
    ssize_t (*co_copy_range)(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t bytes);
    int (*co_advise)(int fd, uint64_t offset, uint64_t bytes, int advice);
    int (*co_ioctl)(int fd, unsigned long request, void *argument);
    int (*co_unlink)(const char *path);
    int (*co_rename)(const char *from, const char *to);
    int (*lock_set)(int fd, uint64_t start, uint64_t length, enum file_lock lock);
    int (*lock_test)(int fd, uint64_t start, uint64_t length, enum file_lock lock, pid_t *ret_pid);
};

/*
 * What a back end does. The co_ ones run in a coroutine of the loop; those of sockets and descriptors are cancellable,
 * and return only when the system no longer touches the memory they were given.
 */
struct loop_backend_ops {
    bool (*open)(struct loop *loop, const struct loop_options *options, struct error **err);
    void (*close)(struct loop *loop);

    /*
     * Hands over what the turn has produced and makes ready what has ended; where that is nothing, waits for it for up
     * to timeout_ns (0: not at all, negative: for ever).
     */
    void (*turn)(struct loop *loop, int64_t timeout_ns);
    /* Whether turn() would find something: for busy polling, so a few instructions. NULL: turn(0) has to be asked. */
    bool (*has_events)(struct loop *loop);
    void (*kick)(struct loop *loop); /* ends a turn() that sleeps; any thread */
    /*
     * Ends a turn() that sleeps after `delay_ns`, or before where one that was asked for earlier has not come yet:
     * cheaper than a limit for each turn, as nothing is started and stopped. NULL: turn() needs its limit.
     */
    void (*remind)(struct loop *loop, int64_t delay_ns);

    int64_t (*now_ns)(struct loop *loop);
    int64_t (*wall_time_us)(struct loop *loop);
    void (*random_bytes)(struct loop *loop, void *to, size_t size);
    struct coroutine *(*pick)(struct loop *loop); /* the next to run of the ready ones; NULL: the first */

    /* Until the loop ends, or it is taken back, which takes a while: see `ended`. 0 or -errno. Real ones only. */
    int (*watch)(struct loop *loop, struct watch *watch);
    void (*unwatch)(struct loop *loop, struct watch *watch);
    bool (*buffer_fails)(struct loop *loop); /* whether loop_buffer_get() is to say that there is no memory; or NULL */

    int (*co_accept)(int fd);
    int (*co_connect)(int fd, const struct sockaddr *address, socklen_t size);
    ssize_t (*co_transfer)(const struct socket_request *request);
    ssize_t (*co_read)(int fd, void *to, size_t size);
    ssize_t (*co_write)(int fd, const void *from, size_t size);
    int (*co_poll)(int fd, int events);
    void (*signal)(struct loop *loop, int fd, bool nonblocking); /* see event_signal() */
    void (*shutdown)(int fd, int how);                           /* shutdown(2); any thread */

    /* Where sockets are not the system's: a listening and a connected one, by the endpoint's name; or -errno. */
    int (*listen)(const char *name, int backlog);
    int (*co_dial)(const char *name);

    int (*co_work)(worker_fn *function, void *opaque);

    const struct loop_file_ops *file;
};

extern const struct loop_backend_ops uring_backend_ops;
extern const struct loop_backend_ops epoll_backend_ops;
extern const struct loop_backend_ops sim_backend_ops;

/* --- Linux AIO, shared by the real back ends; all of the loop's thread --- */

struct native_aio;
bool native_aio_available(struct loop *loop, struct error **err) MUST_CHECK;
ssize_t CO_FN co_native_aio_transfer(const struct file_request *request);
void native_aio_submit(struct native_aio *native); /* what the turn has produced; NULL is allowed */
void native_aio_free(struct native_aio *native);   /* NULL is allowed */

/* --- a ring for files alone, for the epoll back end; all of the loop's thread --- */

struct io_uring_sqe;
struct private_ring;
bool private_ring_available(struct loop *loop, struct error **err) MUST_CHECK;
ssize_t CO_FN co_private_ring_transfer(const struct file_request *request);
void private_ring_submit(struct private_ring *private_ring); /* what the turn has produced; NULL is allowed */
void private_ring_free(struct private_ring *private_ring);   /* NULL is allowed */

/* Fills in an entry for a request, all but its user_data. */
void uring_prepare_file(struct io_uring_sqe *sqe, const struct file_request *request);

/* --- writes that a loop makes itself: see write-pace.c --- */

struct loop_writes {
    int64_t now_ns;         /* when the last one ended */
    int64_t took_ns;        /* in this turn */
    int64_t waits;          /* of the thread, at some time in this turn before a write; -1: nobody has looked */
    int64_t watch_until_ns; /* a write has taken long lately: its like are looked at */
};
static inline void loop_writes_begin_turn(struct loop_writes *writes)
{
    writes->took_ns = 0;
    writes->waits = -1;
}

/* Of a write that has taken long and ended just now: whether the thread waited in it, and was not just kept from
 * running. */
bool loop_writes_waited(struct loop_writes *writes, int64_t end_ns);

/* Whether a write may be made now; and how one went, with the above. */
bool write_pace_may(const struct write_pace *pace, int64_t now_ns);
void write_pace_took(struct write_pace *pace, int64_t end_ns, int64_t took_ns, bool waited);

/* --- writes of several loops to one file: see write-line.c --- */

enum write_state {
    WRITE_WAITS,
    WRITE_DONE,     /* by another loop */
    WRITE_INHERITS, /* the others' turn is over: its coroutine is to try again, and to care for who waits behind it */
    WRITE_LEFT,     /* the file is not for such writes at present */
};

/* On the stack of the coroutine whose write it is. */
struct write_entry {
    struct write_entry *next; /* in one list of entries */
    struct coroutine *coroutine;
    const struct file_request *request;
    ssize_t result; /* of one that is done */
    enum write_state state;
};

/*
 * The running coroutine's write. Holds: its loop writes now; then write_line_wanted() gives the line back where nobody
 * waits, else the coroutine has to keep it until the next turn, to write for those, and to leave. Passes: its loop
 * holds the line already, and it just writes. Waited: its write waited for another loop's, and is in another state now.
 */
enum write_turn { WRITE_HOLDS, WRITE_PASSES, WRITE_WAITED };
enum write_turn CO_FN co_write_line_enter(struct write_line *line, struct write_entry *entry) MUST_CHECK;
bool write_line_wanted(struct write_line *line) MUST_CHECK;
struct write_entry *write_line_next(struct write_line *line) MUST_CHECK; /* NULL: there is none */
void write_line_leave(struct write_line *line, bool give_up); /* who waits inherits, or is left to the back end */

/* What has been written for others; and now they are told. */
void write_line_wrote(struct write_entries *written, struct write_entry *entry, ssize_t result);
void write_line_tell(struct write_line *line, struct write_entries *written);

/* --- the loop --- */

struct loop {
    const struct loop_backend_ops *ops;
    struct coroutine *current; /* NULL: the loop itself runs */
    struct run_queue ready;
    struct run_queue deferred;   /* have yielded: ready in the next turn */
    struct run_queue starved;    /* there was no memory for a stack: ready when one is given back */
    uint32_t budget;             /* how many more may run in this turn */
    struct coroutine *departing; /* has just stopped here, to go on on its new loop */
    uint32_t coroutines;         /* alive here */
    enum loop_backend backend;
    unsigned index;
    int64_t turn_time_ns; /* 0: nobody has asked in this turn */
    void *state;          /* the back end's */
    struct stack_pool stacks;
    struct timer_heap timers;
    struct event_source *sources; /* that are waited for */
    struct polling polling;
    struct memory_lists memory;
    struct native_aio *native;         /* NULL: not used yet */
    struct private_ring *private_ring; /* the same */
    _Atomic uint32_t aio_max_batch;    /* 0: no limit; any thread */
    uint32_t batch_hint;               /* the same for the next file request only */
    struct loop_writes writes;
    bool may_block;     /* as loop_options says */
    bool trimmed;       /* nothing has been pooled since the last trim */
    int64_t trimmed_ns; /* when that was */
    struct context context;
    struct worker_pool workers;
    struct process_stop *process_stop;               /* NULL: no program has been run yet */
    struct inbox inbox __attribute__((aligned(64))); /* any thread */
};

/* The calling thread's loop; asserts that there is one. */
struct loop *loop_self(void);

/* How many requests may gather once the one that is being made has been added; 0: no limit. Uses up the hint. */
static inline uint32_t loop_take_batch(struct loop *loop)
{
    uint32_t limit = atomic_load_explicit(&loop->aio_max_batch, memory_order_relaxed);
    uint32_t hint = loop->batch_hint;

    loop->batch_hint = 0;
    return hint && (!limit || hint < limit) ? hint : limit;
}

/* Makes the thread's loop known; NULL takes it back. */
void loop_set_current(struct loop *loop);

/* Runs turns until *done. */
void loop_run_until(struct loop *loop, const bool *done);

/* Blocks all signals that can be blocked; for threads of ours. *ret_old: the mask before. */
void thread_block_signals(sigset_t *ret_old);

/* --- shared by the real back ends --- */

int64_t clock_monotonic_ns(void);
int64_t clock_now_ns(struct loop *loop); /* the same, as a back end's now_ns() */
int64_t clock_wall_time_us(void);
void clock_random_bytes(void *to, size_t size);

void posix_socket_shutdown(int fd, int how);
ssize_t posix_socket_transfer(const struct socket_request *request); /* never waits: -EAGAIN */

/* On worker threads, or by a call that returns at once. */
ssize_t posix_transfer(const struct file_request *request); /* blocks */
ssize_t CO_FN co_posix_transfer(const struct file_request *request);
int CO_FN posix_co_file_open(const char *path, int flags, mode_t mode);
void posix_file_close(int fd);
int CO_FN posix_co_file_sync(int fd, bool data_only);
int CO_FN posix_co_file_allocate(int fd, int mode, uint64_t offset, uint64_t bytes);
int CO_FN posix_co_file_truncate(int fd, uint64_t length);
int CO_FN posix_co_file_stat(int fd, struct stat *ret);
int64_t CO_FN posix_co_file_seek(int fd, int64_t offset, int whence);
ssize_t CO_FN posix_co_file_copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t bytes);
int CO_FN posix_co_file_advise(int fd, uint64_t offset, uint64_t bytes, int advice);
int CO_FN posix_co_file_ioctl(int fd, unsigned long request, void *argument);
int CO_FN posix_co_file_unlink(const char *path);
int CO_FN posix_co_file_rename(const char *from, const char *to);
int posix_file_lock_set(int fd, uint64_t start, uint64_t length, enum file_lock lock);
int posix_file_lock_test(int fd, uint64_t start, uint64_t length, enum file_lock lock, pid_t *ret_pid);
