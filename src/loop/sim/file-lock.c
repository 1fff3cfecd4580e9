/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks on ranges of simulated files; as those of open file descriptions, each belongs to a handle. */
#include "loop/sim/sim-internal.h"

#include <assert.h>
#include <errno.h>

static const struct sim_lock_range *lock_conflict(const struct sim_handle *handle, uint64_t start, uint64_t end,
                                                  bool exclusive)
{
    const GArray *locks = handle->file->locks;

    for (guint i = 0; i < locks->len; i++) {
        const struct sim_lock_range *range = &g_array_index(locks, struct sim_lock_range, i);

        if (range->owner != handle && range->start < end && start < range->end && (exclusive || range->exclusive))
            return range;
    }
    return NULL;
}

/* Takes [start, end) out of what `handle` holds. */
static void lock_subtract(struct sim_handle *handle, uint64_t start, uint64_t end)
{
    GArray *locks = handle->file->locks;

    for (guint i = 0; i < locks->len;) {
        struct sim_lock_range range = g_array_index(locks, struct sim_lock_range, i);

        if (range.owner != handle || range.end <= start || end <= range.start) {
            i++;
            continue;
        }
        g_array_remove_index_fast(locks, i);
        if (range.start < start) {
            struct sim_lock_range before = range;

            before.end = start;
            g_array_append_val(locks, before);
        }
        if (end < range.end) {
            struct sim_lock_range after = range;

            after.start = end;
            g_array_append_val(locks, after);
        }
    }
}

static uint64_t lock_end(uint64_t start, uint64_t length)
{
    return length ? start + length : UINT64_MAX;
}

int sim_lock_set(int fd, uint64_t start, uint64_t length, enum file_lock lock)
{
    struct sim_handle *handle = sim_handle_get(fd);
    uint64_t end = lock_end(start, length);
    int result;

    if (!handle || !handle->file)
        return -EBADF;
    result = sim_op_count_in(sim_self(), SIM_OP_LOCK);
    if (result < 0)
        return result;
    if (lock != FILE_LOCK_NONE && lock_conflict(handle, start, end, lock == FILE_LOCK_EXCLUSIVE))
        return -EAGAIN;
    lock_subtract(handle, start, end);
    if (lock != FILE_LOCK_NONE) {
        struct sim_lock_range range = {
            .owner = handle, .start = start, .end = end, .exclusive = lock == FILE_LOCK_EXCLUSIVE};

        g_array_append_val(handle->file->locks, range);
    }
    return 0;
}

int sim_lock_test(int fd, uint64_t start, uint64_t length, enum file_lock lock, pid_t *ret_pid)
{
    struct sim_handle *handle = sim_handle_get(fd);
    int result;

    assert(lock != FILE_LOCK_NONE);
    if (!handle || !handle->file)
        return -EBADF;
    result = sim_op_count_in(sim_self(), SIM_OP_LOCK);
    if (result < 0)
        return result;
    if (!lock_conflict(handle, start, lock_end(start, length), lock == FILE_LOCK_EXCLUSIVE))
        return 0;
    if (ret_pid)
        *ret_pid = 0;
    return 1;
}

void sim_lock_drop_all(struct sim_handle *handle)
{
    lock_subtract(handle, 0, UINT64_MAX);
}
