/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests for the state of a virtual machine that an image has beside the disk. */
#include <errno.h>

#include "base/io-vector.h"
#include "block/graph-internal.h"
#include "block/handle.h"
#include "block/image.h"

struct vm_state_request {
    uint64_t offset;
    const struct io_vector *iov;
};

/* Filters show what is in the image below them. */
static struct node *skip_filters(struct node *node)
{
    while (node->driver->kind == BLOCK_DRIVER_FILTER && node->primary)
        node = node->primary->child;
    return node;
}

static int CO_FN co_read(struct node *top, void *opaque)
{
    const struct vm_state_request *request = opaque;
    struct node *node = skip_filters(top);

    if (!node->driver->image || !node->driver->image->co_vm_state_read)
        return -ENOTSUP;
    return node->driver->image->co_vm_state_read(node, request->offset, request->iov);
}

static int CO_FN co_write(struct node *top, void *opaque)
{
    const struct vm_state_request *request = opaque;
    struct node *node = skip_filters(top);
    int ret;

    if (!node->driver->image || !node->driver->image->co_vm_state_write)
        return -ENOTSUP;
    if (node->read_only || __atomic_load_n(&node->hooks, __ATOMIC_RELAXED) & NODE_HOOK_FENCED)
        return -EPERM;
    ret = node->driver->image->co_vm_state_write(node, request->offset, request->iov);
    /* So that a flush of any node on the way has something to do. */
    for (struct node *at = top; at != node; at = at->primary->child)
        node_mark_dirty(at);
    node_mark_dirty(node);
    return ret;
}

int CO_FN co_handle_vm_state_read(struct handle *handle, uint64_t offset, const struct io_vector *iov)
{
    struct vm_state_request request = {.offset = offset, .iov = iov};

    return co_handle_call(handle, co_read, &request);
}

int CO_FN co_handle_vm_state_write(struct handle *handle, uint64_t offset, const struct io_vector *iov)
{
    struct vm_state_request request = {.offset = offset, .iov = iov};

    if (!(__atomic_load_n(&handle->perm, __ATOMIC_RELAXED) & PERM_WRITE))
        return -EPERM;
    return co_handle_call(handle, co_write, &request);
}
