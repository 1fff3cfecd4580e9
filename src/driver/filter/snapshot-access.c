/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot-access: the disk as it was when a copy-before-write filter was opened. Options:
 *  - file: a node of that driver.
 *
 * What the filter has saved is read from its target, the rest from its file. Where the filter saves only what a bitmap
 * marks, reading anything else fails; so does everything once the saved state is lost.
 */
#include "driver/filter/snapshot-access.h"

#include <errno.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"
#include "driver/filter/copy-before-write.h"

static bool CO_FN snapshot_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    struct edge *file = co_node_add_child(node, "file", options->u.snapshot_access.file, EDGE_DATA | EDGE_PRIMARY, err);

    if (!file)
        return false;
    if (node_driver(edge_child(file)) != &copy_before_write_driver)
        return error_set(err, "Node '%s' has no snapshot to access: its driver is '%s', not '%s'",
                         node_name(edge_child(file)), node_driver_name(edge_child(file)),
                         copy_before_write_driver.name);
    node_set_length(node, node_length(edge_child(file)));
    return true;
}

static int CO_FN snapshot_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                    unsigned flags)
{
    return co_copy_before_write_read(edge_child(node_primary(node)), offset, bytes, iov);
}

/* The past does not change. */
static int CO_FN snapshot_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                     unsigned flags)
{
    return -EACCES;
}

static int CO_FN snapshot_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                          struct block_extent *ret)
{
    int result = co_copy_before_write_status(edge_child(node_primary(node)), offset, bytes, want_zero, ret);

    /* Where it lies changes as it is saved. */
    ret->flags &= (unsigned)(BLOCK_DATA | BLOCK_ZERO | BLOCK_EOF);
    ret->flags |= BLOCK_ALLOCATED;
    ret->host = NULL;
    return result;
}

static void snapshot_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                       uint32_t *ret_perm, uint32_t *ret_shared)
{
    *ret_perm = perm & PERM_CONSISTENT_READ;
    *ret_shared = PERM_ALL & ~(uint32_t)PERM_RESIZE;
}

const struct block_driver snapshot_access_driver = {
    .name = "snapshot-access",
    .kind = BLOCK_DRIVER_FORMAT,
    .nameless = true,
    .co_open = snapshot_co_open,
    .co_preadv = snapshot_co_preadv,
    .co_pwritev = snapshot_co_pwritev,
    .co_block_status = snapshot_co_block_status,
    .child_permissions = snapshot_child_permissions,
};
