/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sim back end: a machine in memory. Time stands still while coroutines run, and jumps to the next timer when all
 * wait; an operation is a timer that fires after a random while. What runs next is chosen at random from all that is
 * ready. Every choice comes from one sequence of random numbers, which the seed determines.
 */
#include "base/units.h"
#include "loop/sim/sim-internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DELAY_MIN_NS = NS_PER_US,
    DELAY_MAX_NS = 100 * NS_PER_US,
    SYNC_DELAY_MAX_NS = NS_PER_MS,
    PICK_WINDOW = 64,
};
#define SIM_EPOCH_US INT64_C(1700000000000000) /* wall-clock time at the start */

/* The splitmix64 generator. */
uint64_t sim_random_next(struct sim_random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t sim_random_below(struct sim_random *random, uint64_t limit)
{
    assert(limit > 0);
    /* The slight preference for small numbers does no harm here. */
    return sim_random_next(random) % limit;
}

struct sim *sim_of(struct loop *loop)
{
    assert(loop->backend == LOOP_SIM);
    return loop->state;
}

struct sim *sim_self(void)
{
    return sim_of(loop_self());
}

void sim_note(struct sim *sim, uint64_t what)
{
    struct sim_random mix = {.state = sim->fingerprint ^ what};

    sim->fingerprint = sim_random_next(&mix);
}

uint64_t sim_fingerprint(struct loop *loop)
{
    return sim_of(loop)->fingerprint;
}

/* --- operations --- */

int sim_op_count_in(struct sim *sim, enum sim_op op)
{
    const struct sim_fault *fault = &sim->fault;

    sim->counts[op]++;
    sim_note(sim, op);
    if (sim->power_off && (SIM_OP_BIT(op) & SIM_OPS_FILE))
        return -EIO;
    if (!fault->nth || !(fault->ops & SIM_OP_BIT(op)))
        return 0;
    sim->fault_seen++;
    return sim->fault_seen == fault->nth || (fault->lasting && sim->fault_seen > fault->nth) ? -fault->errno_value : 0;
}

int co_sim_op(struct sim *sim, enum sim_op op)
{
    int failure = sim_op_count_in(sim, op);
    int64_t range_ns = sim->delay_max_ns[op] - sim->delay_min_ns[op];
    struct timer timer = {0};

    timer_arm(&timer,
              sim->now_ns + sim->delay_min_ns[op] + (int64_t)sim_random_below(&sim->random, (uint64_t)range_ns + 1));
    while (!timer.fired)
        co_suspend();
    if (sim->power_off && (SIM_OP_BIT(op) & SIM_OPS_FILE))
        return -EIO;
    return failure;
}

size_t sim_part(struct sim *sim, size_t size, size_t unit)
{
    size_t units = size / unit;

    if (units < 2 || sim_random_below(&sim->random, 2))
        return size;
    return (1 + sim_random_below(&sim->random, units - 1)) * unit;
}

void sim_set_fault(struct loop *loop, const struct sim_fault *fault)
{
    sim_of(loop)->fault = *fault;
    sim_of(loop)->fault_seen = 0;
}

uint64_t sim_op_count(struct loop *loop, unsigned ops)
{
    uint64_t count = 0;

    for (unsigned op = 0; op < SIM_OP__MAX; op++) {
        if (ops & SIM_OP_BIT(op))
            count += sim_of(loop)->counts[op];
    }
    return count;
}

void sim_set_delay(struct loop *loop, unsigned ops, int64_t min_ns, int64_t max_ns)
{
    assert(min_ns >= 0);
    assert(min_ns <= max_ns);
    for (unsigned op = 0; op < SIM_OP__MAX; op++) {
        if (ops & SIM_OP_BIT(op)) {
            sim_of(loop)->delay_min_ns[op] = min_ns;
            sim_of(loop)->delay_max_ns[op] = max_ns;
        }
    }
}

void sim_set_short_transfers(struct loop *loop, bool on)
{
    sim_of(loop)->short_transfers = on;
}

void sim_power_off(struct loop *loop)
{
    sim_of(loop)->power_off = true;
}

struct sim_disk *sim_loop_disk(struct loop *loop)
{
    return sim_of(loop)->disk;
}

void sim_loop_set_disk(struct loop *loop, struct sim_disk *disk)
{
    sim_of(loop)->disk = disk;
}

static int sim_co_work(worker_fn *function, void *opaque)
{
    (void)co_sim_op(sim_self(), SIM_OP_WORK);
    return function(opaque);
}

static bool sim_buffer_fails(struct loop *loop)
{
    return sim_op_count_in(sim_of(loop), SIM_OP_BUFFER) < 0;
}

/* --- descriptors --- */

int sim_handle_add(struct sim *sim, const struct sim_handle *handle)
{
    struct sim_handle *added = g_memdup2(handle, sizeof(*handle));
    guint i;

    for (i = 0; i < sim->handles->len; i++) {
        if (!g_ptr_array_index(sim->handles, i)) {
            sim->handles->pdata[i] = added;
            return SIM_FD_BASE + (int)i;
        }
    }
    g_ptr_array_add(sim->handles, added);
    return SIM_FD_BASE + (int)i;
}

struct sim_handle *sim_handle_get(int fd)
{
    const struct sim *sim = sim_self();

    if (fd < SIM_FD_BASE || (guint)(fd - SIM_FD_BASE) >= sim->handles->len)
        return NULL;
    return g_ptr_array_index(sim->handles, fd - SIM_FD_BASE);
}

void sim_close(int fd)
{
    struct sim *sim = sim_self();
    struct sim_handle *handle;

    if (fd < SIM_FD_BASE) {
        posix_file_close(fd);
        return;
    }
    handle = sim_handle_get(fd);
    assert(handle);
    assert(!handle->users);
    sim->handles->pdata[fd - SIM_FD_BASE] = NULL;
    if (handle->file) {
        sim_lock_drop_all(handle);
        sim_file_unref(handle->file);
    }
    if (handle->socket)
        sim_socket_close(handle->socket);
    if (handle->listener)
        sim_listener_close(sim, handle->listener);
    g_free(handle);
}

/* --- the loop's side --- */

static bool sim_open(struct loop *loop, const struct loop_options *options, struct error **err)
{
    struct sim *sim = g_new0(struct sim, 1);

    sim->loop = loop;
    sim->seed = options->sim_seed;
    sim->random.state = options->sim_seed;
    sim->own_disk = sim_disk_new();
    sim->disk = sim->own_disk;
    sim->handles = g_ptr_array_new();
    sim->listeners = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    loop->state = sim;
    sim_set_delay(loop, SIM_OPS_ALL, DELAY_MIN_NS, DELAY_MAX_NS);
    sim_set_delay(loop, SIM_OP_BIT(SIM_OP_SYNC), DELAY_MIN_NS, SYNC_DELAY_MAX_NS);
    return true;
}

static void sim_shut(struct loop *loop)
{
    struct sim *sim = sim_of(loop);

    for (guint i = 0; i < sim->handles->len; i++)
        assert(!g_ptr_array_index(sim->handles, i)); /* whoever opened it has to close it */
    g_ptr_array_free(sim->handles, TRUE);
    g_hash_table_destroy(sim->listeners);
    sim_disk_free(sim->own_disk);
    g_free(sim);
    loop->state = NULL;
}

static void sim_turn(struct loop *loop, int64_t timeout_ns)
{
    if (timeout_ns > 0)
        sim_of(loop)->now_ns += timeout_ns;
    if (timeout_ns >= 0)
        return;
    fprintf(stderr, "sim: all coroutines wait for each other, and nothing is under way (seed %" PRIu64 ")\n",
            sim_of(loop)->seed);
    abort();
}

static void sim_kick(struct loop *loop)
{
    /* Its turns never sleep. */
}

static struct coroutine *sim_pick(struct loop *loop)
{
    struct sim *sim = sim_of(loop);
    uint32_t position;

    if (!loop->ready.count)
        return NULL;
    /* Among those that have waited longest, so that a crowd costs no more than it does elsewhere. */
    position = (uint32_t)sim_random_below(&sim->random, MIN(loop->ready.count, PICK_WINDOW));
    sim_note(sim, position);
    return run_queue_pop_at(&loop->ready, position);
}

static int64_t sim_now_ns(struct loop *loop)
{
    return sim_of(loop)->now_ns;
}

static int64_t sim_wall_time_us(struct loop *loop)
{
    return SIM_EPOCH_US + sim_of(loop)->now_ns / NS_PER_US;
}

static void sim_random_bytes(struct loop *loop, void *to, size_t size)
{
    unsigned char *at = to;

    while (size) {
        uint64_t value = sim_random_next(&sim_of(loop)->random);
        size_t part = MIN(size, sizeof(value));

        memcpy(at, &value, part);
        at += part;
        size -= part;
    }
}

const struct loop_backend_ops sim_backend_ops = {
    .open = sim_open,
    .close = sim_shut,
    .turn = sim_turn,
    .kick = sim_kick,
    .now_ns = sim_now_ns,
    .wall_time_us = sim_wall_time_us,
    .random_bytes = sim_random_bytes,
    .pick = sim_pick,
    .buffer_fails = sim_buffer_fails,
    .co_accept = sim_co_accept,
    .co_connect = sim_co_connect,
    .co_transfer = sim_co_transfer,
    .co_read = sim_co_read,
    .co_write = sim_co_write,
    .co_poll = sim_co_poll,
    .signal = sim_signal,
    .shutdown = sim_shutdown,
    .listen = sim_listen,
    .co_dial = sim_co_dial,
    .co_work = sim_co_work,
    .file = &sim_file_ops,
};
