/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The "vduse-blk" export: a block device that the host's kernel gives to a driver of its own or to a virtual machine.
 */
#include "export/vduse/export.h"

#include <errno.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "export/export.h"
#include "export/vduse/control.h"
#include "export/vduse/device.h"
#include "export/vduse/log.h"
#include "export/virtio/blk.h"
#include "loop/file.h"
#include "loop/loop.h"

enum { BLOCK_SIZE_DEFAULT = 512, QUEUE_SIZE_DEFAULT = 256, QUEUE_SIZE_MIN = 4, QUEUE_SIZE_MAX = 1024 };

struct vduse_export {
    struct virtio_blk blk;
    char *name;
    int fd;
    struct vduse_log *log;
    struct vduse_device *device;
};

static bool set_up_disk(struct export *export, const struct block_export_options *options, struct error **err)
{
    struct vduse_export *own = export_state(export);
    const struct block_export_options_vduse_blk *from = &options->u.vduse_blk;
    struct virtio_blk_options blk = {
        .handle = export_handle(export),
        .serial = from->serial ? from->serial : "",
        .block_size = BLOCK_SIZE_DEFAULT,
        .queues = from->has_num_queues ? from->num_queues : 1,
        .writable = options->has_writable && options->writable,
        .writethrough = options->has_writethrough && options->writethrough,
    };
    uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);

    if (from->has_logical_block_size)
        blk.block_size = (uint32_t)MIN(from->logical_block_size, UINT32_MAX);
    if (!virtio_blk_init(&own->blk, &blk, err))
        return false;
    if (blk.block_size > page)
        return error_set(err, "logical-block-size must be at most %u, the size of a page: it is %u", page,
                         blk.block_size);
    return true;
}

static bool check_queue_size(uint16_t size, struct error **err)
{
    if (is_power_of_two(size) && size >= QUEUE_SIZE_MIN && size <= QUEUE_SIZE_MAX)
        return true;
    return error_set(err, "queue-size is invalid: %u is not a power of two from %d to %d", size, QUEUE_SIZE_MIN,
                     QUEUE_SIZE_MAX);
}

/* The device as it was made or found. */
static bool CO_FN co_serve(struct export *export, uint16_t queue_size, bool found, struct error **err)
{
    struct vduse_export *own = export_state(export);
    unsigned loop_count;
    struct loop *const *loops = export_loops(export, &loop_count);
    struct vduse_kernel kernel = {.fd = own->fd, .call = vduse_kernel_call};
    bool in_use = found && vduse_kernel_in_use(&kernel, own->blk.queues);

    own->log = co_vduse_log_open(own->name, own->blk.queues, queue_size, in_use, err);
    if (!own->log)
        return false;
    own->device = vduse_device_new(&own->blk, export_id(export), &kernel, own->log, loops, loop_count);
    if (found && !in_use)
        vduse_device_changed(own->device);
    if (in_use && !co_vduse_device_resume(own->device, err))
        return false;
    vduse_device_serve(own->device);
    TRACE(vduse_start, "%s as %s%s", export_id(export), own->name, in_use ? ", gone on with" : "");
    return true;
}

/* Takes the device away, unless a driver has it. */
static void CO_FN co_take_down(struct vduse_export *own, bool found)
{
    int result;

    co_vduse_device_free(TAKE(own->device));
    fd_close(TAKE_FD(own->fd));
    result = co_vduse_destroy(own->name);
    if (result == -EBUSY && !found)
        log_warning("VDUSE device '%s' stays, as it is on the vDPA bus: it waits for an export of that name, or for "
                    "'vdpa dev del %s'",
                    own->name, own->name);
    co_vduse_log_close(TAKE(own->log), result == -EBUSY);
    g_free(own->name);
}

static bool CO_FN co_start(struct export *export, const struct block_export_options *options, struct error **err)
{
    struct vduse_export *own = export_state(export);
    const struct block_export_options_vduse_blk *from = &options->u.vduse_blk;
    struct vduse_device_plan plan = {.name = from->name,
                                     .blk = &own->blk,
                                     .queue_size = from->has_queue_size ? from->queue_size : QUEUE_SIZE_DEFAULT};
    bool found;

    if (!vduse_name_check(from->name, err) || !check_queue_size(plan.queue_size, err) ||
        !set_up_disk(export, options, err) || !co_vduse_create(&plan, &own->fd, &found, err))
        return false;
    own->name = g_strdup(from->name);
    if (co_serve(export, plan.queue_size, found, err))
        return true;
    co_take_down(own, found);
    return false;
}

static bool in_use(struct export *export)
{
    const struct vduse_export *own = export_state(export);

    return vduse_device_in_use(own->device);
}

static void CO_FN co_stop(struct export *export)
{
    co_take_down(export_state(export), false);
}

static void resized(struct export *export, uint64_t length)
{
    const struct vduse_export *own = export_state(export);

    vduse_device_changed(own->device);
}

const struct export_driver vduse_export_driver = {
    .type = BLOCK_EXPORT_TYPE_VDUSE_BLK,
    .state_size = sizeof(struct vduse_export),
    .co_start = co_start,
    .in_use = in_use,
    .co_stop = co_stop,
    .resized = resized,
};
