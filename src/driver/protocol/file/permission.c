/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What parents do with the node, told to the rest of the world: image locks, and opening for writing when a writer
 * comes. A prepare takes locks in addition and opens; a commit takes over and lets go of what is not needed any more;
 * an abort goes back.
 */
#include <assert.h>

#include "base/error.h"
#include "driver/protocol/file/file.h"

static bool permissions_write(uint32_t perm)
{
    return perm & (PERM_WRITE | PERM_WRITE_UNCHANGED | PERM_RESIZE);
}

/* What is to be done once the locks are ours. */
static bool CO_FN co_prepare_file(struct file_node *file, struct error **err)
{
    if (!file->is_used && file->next.used && !file_co_take_over(file, err))
        return false;
    if (!file->dynamic || !permissions_write(file->next.used) || file->fd != file->lock_fd)
        return true;
    file->next.fd = file_co_open_writable(file, err);
    return file->next.fd >= 0;
}

static bool CO_FN file_co_permission_prepare(struct node *node, uint32_t perm, uint32_t shared, struct error **err)
{
    struct file_node *file = node_state(node);

    assert(file->next.fd == -1);
    file->next.used = perm & PERM_ALL;
    file->next.unshared = ~shared & PERM_ALL;
    file->next.locks_before = file->locks;
    if (!file_co_locks_acquire(file, file->next.used, file->next.unshared, err))
        return false;
    if (co_prepare_file(file, err))
        return true;
    file_locks_reduce(file, file->next.locks_before.used, file->next.locks_before.unshared);
    return false;
}

static void CO_FN file_co_permission_commit(struct node *node)
{
    struct file_node *file = node_state(node);

    if (file->next.fd >= 0) {
        assert(file->fd == file->lock_fd);
        file->fd = file->next.fd;
        file->next.fd = -1;
    } else if (file->dynamic && !permissions_write(file->next.used) && file->fd != file->lock_fd) {
        fd_close(file->fd);
        file->fd = file->lock_fd;
    }
    file->is_used = file->next.used;
    file_locks_reduce(file, file->next.used, file->next.unshared);
}

static void CO_FN file_co_permission_abort(struct node *node)
{
    struct file_node *file = node_state(node);

    fd_close(file->next.fd);
    file->next.fd = -1;
    file_locks_reduce(file, file->next.locks_before.used, file->next.locks_before.unshared);
}

const struct block_driver_permission file_permission = {
    .co_prepare = file_co_permission_prepare,
    .co_commit = file_co_permission_commit,
    .co_abort = file_co_permission_abort,
};
