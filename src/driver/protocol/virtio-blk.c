/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-blk-vhost-user: the disk of a vhost-user-blk back end as a node. Options:
 *  - path: of the Unix socket on which the back end listens.
 * virtio-blk-vhost-vdpa: a disk that is a vDPA device of the kernel's. Options:
 *  - path: of its character device, /dev/vhost-vdpa-N.
 *
 * A back end that goes leaves what it has done in the ring, where it is found. What is still under way then, and what
 * comes next, connects again, and fails with -EIO where nobody answers. What the back end had acknowledged and not
 * flushed is lost only if its machine was, as with a disk.
 *
 * Keeps: `disk` is replaced on the main loop, under `spin`; requests hold a reference to the one that they use.
 */
#include "driver/protocol/virtio-blk.h"
#include "base/units.h"

#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/node.h"
#include "driver/protocol/virtio-blk/disk.h"
#include "driver/protocol/virtio-blk/queue.h"
#include "driver/protocol/virtio-blk/vhost-user.h"
#include "driver/protocol/virtio-blk/vhost-vdpa.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum { QUEUES_MAX = 8, RETRY_NS = 100 * NS_PER_MS };

struct virtio_node {
    struct spin_lock spin;
    struct virtio_disk *disk; /* spin; NULL: none is connected */
    struct loop *loop;        /* const; the main loop */
    struct virtio_disk_info info;
    struct co_mutex connecting; /* all about making another disk */
    int64_t retry_ns;           /* not before */
};

/* What the two drivers do not have in common. */
struct way {
    const char *title; /* for messages */
    const char *path;
    struct virtio_transport *(*co_connect)(const char *path, struct error **err);
};

static struct way way_of(const struct node *node)
{
    const struct blockdev_options *options = node_options(node);

    if (options->driver == BLOCKDEV_DRIVER_VIRTIO_BLK_VHOST_VDPA)
        return (struct way){"vhost-vdpa device", options->u.virtio_blk_vhost_vdpa.path, co_vhost_vdpa_connect};
    return (struct way){"vhost-user back end at", options->u.virtio_blk_vhost_user.path, co_vhost_user_connect};
}

/* --- connecting --- */

static void resized(void *opaque, uint64_t length)
{
    node_set_length(opaque, length);
}

static struct virtio_disk *CO_FN co_connect(struct node *node, struct error **err)
{
    struct virtio_disk_options options = {.queues = QUEUES_MAX, .resized = resized, .opaque = node};
    struct way way = way_of(node);
    struct virtio_transport *transport = way.co_connect(way.path, err);
    struct virtio_disk *disk = transport ? co_virtio_disk_open(transport, &options, err) : NULL;

    if (transport && !disk)
        error_prefix(err, "%s '%s': ", way.title, way.path);
    return disk;
}

/* Whether the disk can stand in for the one that was lost. */
static bool is_the_same(const struct virtio_node *own, const struct virtio_disk *disk, struct error **err)
{
    const struct virtio_disk_info *now = virtio_disk_info(disk);
    const uint64_t matters = VIRTIO_FEATURE(VIRTIO_BLK_F_RO) | VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH);

    if (now->block_size > own->info.block_size || now->data_segments < own->info.data_segments ||
        now->discard_max < own->info.discard_max || now->zeroes_max < own->info.zeroes_max ||
        (now->features ^ own->info.features) & matters)
        return error_set(err, "the disk is another one than before");
    return true;
}

static void put_disk(struct virtio_node *own, struct virtio_disk *disk)
{
    spin_lock(&own->spin);
    own->disk = disk;
    spin_unlock(&own->spin);
}

/* On the main loop, `connecting` held: in the place of the disk that was lost. */
static void CO_FN co_replace(struct node *node, struct virtio_node *own)
{
    struct virtio_disk *lost = own->disk;
    struct virtio_disk *disk;
    AUTO(error) error = NULL;

    put_disk(own, NULL);
    co_virtio_disk_close(lost);
    disk = co_connect(node, &error);
    if (disk && !is_the_same(own, disk, &error)) {
        co_virtio_disk_close(disk);
        disk = NULL;
    }
    if (!disk) {
        log_warning("node '%s': %s", node_name(node), error_message(error));
        own->retry_ns = loop_now_ns() + RETRY_NS;
        return;
    }
    node_set_length(node, virtio_disk_length(disk));
    put_disk(own, disk);
}

/* The disk with a reference; NULL: there is none. Any loop. */
static struct virtio_disk *get_disk(struct virtio_node *own)
{
    struct virtio_disk *disk;

    spin_lock(&own->spin);
    disk = own->disk && !virtio_disk_is_lost(own->disk) ? virtio_disk_ref(own->disk) : NULL;
    spin_unlock(&own->spin);
    return disk;
}

static struct virtio_disk *CO_FN co_get_disk(struct node *node)
{
    struct virtio_node *own = node_state(node);
    struct virtio_disk *disk = get_disk(own);
    struct loop *home = loop_current();

    if (likely(disk))
        return disk;
    co_move_to(own->loop);
    co_mutex_lock(&own->connecting);
    disk = get_disk(own);
    if (!disk && loop_now_ns() >= own->retry_ns) {
        co_replace(node, own);
        disk = get_disk(own);
    }
    co_mutex_unlock(&own->connecting);
    co_move_to(home);
    return disk;
}

/* --- opening --- */

static bool check_access(struct node *node, const struct virtio_disk *disk, struct error **err)
{
    struct way way = way_of(node);

    if (!(virtio_disk_info(disk)->features & VIRTIO_FEATURE(VIRTIO_BLK_F_RO)) || node_read_only(node))
        return true;
    if (!node_auto_read_only(node))
        return error_set_errno(err, EACCES, "the disk of the %s '%s' is read-only", way.title, way.path);
    node_set_read_only(node, true);
    return true;
}

static bool CO_FN virtio_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    struct virtio_node *own = node_state(node);

    own->loop = loop_current();
    own->disk = co_connect(node, err);
    if (!own->disk)
        return false;
    if (!check_access(node, own->disk, err)) {
        co_virtio_disk_close(own->disk);
        return false;
    }
    own->info = *virtio_disk_info(own->disk);
    node_set_flags(node, 0, own->info.zeroes_may_unmap ? IO_MAY_UNMAP : 0);
    node_set_length(node, virtio_disk_length(own->disk));
    return true;
}

static void CO_FN virtio_co_close(struct node *node)
{
    struct virtio_node *own = node_state(node);

    co_virtio_disk_close(own->disk);
    co_mutex_done(&own->connecting);
}

static bool CO_FN virtio_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct virtio_disk_info *info = &((struct virtio_node *)node_state(node))->info;
    uint64_t transfer_max = (uint64_t)info->data_segments * VIRTIO_QUEUE_PIECE_BYTES;

    limits->request_alignment = info->block_size;
    limits->memory_alignment = 1;
    limits->transfer_max = (uint32_t)MAX(align_down(transfer_max, info->block_size), info->block_size);
    limits->discard_max = align_down(info->discard_max, info->block_size);
    limits->zeroes_max = align_down(info->zeroes_max, info->block_size);
    limits->discard_alignment = MAX(info->discard_alignment, info->block_size);
    limits->zeroes_alignment = info->block_size;
    return true;
}

/* --- requests --- */

/* *ret_lost: it failed, and its disk has gone. */
static int CO_FN co_try(struct node *node, const struct virtio_request *request, bool *ret_lost)
{
    struct virtio_disk *disk = co_get_disk(node);
    int result;

    *ret_lost = false;
    if (!disk)
        return -EIO;
    result = co_virtio_disk_do(disk, request);
    *ret_lost = result == -EIO && virtio_disk_is_lost(disk);
    virtio_disk_unref(disk);
    return result;
}

/* Who was under way when the back end went tries its successor, once: every request may be done twice. */
static int CO_FN co_do(struct node *node, const struct virtio_request *request)
{
    bool lost;
    int result = co_try(node, request, &lost);

    return lost ? co_try(node, request, &lost) : result;
}

static int CO_FN virtio_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                  unsigned flags)
{
    struct virtio_request request = {.type = VIRTIO_BLK_IN, .sector = offset / VIRTIO_BLK_SECTOR_BYTES, .iov = iov};

    return co_do(node, &request);
}

static int CO_FN virtio_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                   unsigned flags)
{
    struct virtio_request request = {.type = VIRTIO_BLK_OUT, .sector = offset / VIRTIO_BLK_SECTOR_BYTES, .iov = iov};

    return co_do(node, &request);
}

static int CO_FN co_change_range(struct node *node, enum virtio_blk_request type, uint64_t offset, uint64_t bytes,
                                 unsigned flags)
{
    struct virtio_request request = {
        .type = type,
        .sector = offset / VIRTIO_BLK_SECTOR_BYTES,
        .sectors = (uint32_t)(bytes / VIRTIO_BLK_SECTOR_BYTES),
        .unmap = flags & IO_MAY_UNMAP,
    };

    return co_do(node, &request);
}

static int CO_FN virtio_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    const struct virtio_node *own = node_state(node);

    if (!own->info.zeroes_max)
        return -ENOTSUP;
    return co_change_range(node, VIRTIO_BLK_WRITE_ZEROES, offset, bytes, flags);
}

static int CO_FN virtio_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    const struct virtio_node *own = node_state(node);

    if (!own->info.discard_max)
        return -ENOTSUP;
    return co_change_range(node, VIRTIO_BLK_DISCARD, offset, bytes, 0);
}

/* A disk that knows no flushes writes through. */
static int CO_FN virtio_co_flush(struct node *node)
{
    const struct virtio_node *own = node_state(node);
    struct virtio_request request = {.type = VIRTIO_BLK_FLUSH};

    return own->info.features & VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) ? co_do(node, &request) : 0;
}

/* --- the rest --- */

static int CO_FN virtio_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    if (request->exact && request->length != node_length(node)) {
        error_set(err, "Cannot resize a virtio disk");
        return -ENOTSUP;
    }
    if (request->length > node_length(node)) {
        error_set(err, "Cannot grow a virtio disk");
        return -EINVAL;
    }
    return 0;
}

static int64_t CO_FN virtio_co_allocated_size(struct node *node)
{
    return -ENOTSUP;
}

static const char *const virtio_significant_options[] = {"path", NULL};

/* Both drivers. */
#define VIRTIO_BLK_DRIVER(its_name)                                                                                    \
    {                                                                                                                  \
        .name = (its_name), .kind = BLOCK_DRIVER_PROTOCOL, .state_size = sizeof(struct virtio_node),                   \
        .co_open = virtio_co_open, .co_close = virtio_co_close, .co_preadv = virtio_co_preadv,                         \
        .co_pwritev = virtio_co_pwritev, .co_pwrite_zeroes = virtio_co_pwrite_zeroes,                                  \
        .co_pdiscard = virtio_co_pdiscard, .co_flush = virtio_co_flush, .co_truncate = virtio_co_truncate,             \
        .co_allocated_size = virtio_co_allocated_size, .co_refresh_limits = virtio_co_refresh_limits,                  \
        .significant_options = virtio_significant_options,                                                             \
    }

const struct block_driver virtio_blk_vhost_user_driver = VIRTIO_BLK_DRIVER("virtio-blk-vhost-user");
const struct block_driver virtio_blk_vhost_vdpa_driver = VIRTIO_BLK_DRIVER("virtio-blk-vhost-vdpa");
