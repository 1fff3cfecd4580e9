/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel asks for three things: that the device follows its status, where a queue stands, and that memory is
 * looked up anew. It waits for each answer, half a minute at most.
 */
#include "export/vduse/device.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/vduse.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "export/vduse/iotlb.h"
#include "export/vduse/log.h"
#include "export/virtio/blk.h"
#include "export/virtio/memory.h"
#include "export/virtio/queue.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

/* Bits of the status (virtio 1.2, section 2.1). */
enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };

enum { USED_INDEX_OFFSET = 2, WRAP_SHIFT = 15, INDEX_MASK = 0x7fff };

#define NEEDED_FEATURES (VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM))

uint64_t vduse_device_offered(const struct virtio_blk *blk)
{
    return (virtio_blk_offered(blk) & ~VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE)) |
           VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM);
}

/* --- queues --- */

static void CO_FN co_interrupt(struct virtio_blk_queue *work)
{
    struct vduse_queue *queue = container_of(work, struct vduse_queue, work);
    uint32_t index = work->index;

    (void)vduse_call(&queue->device->kernel, VDUSE_VQ_INJECT_IRQ, &index);
}

/* The interface has no word for it: the log of the daemon has said so. */
static void CO_FN co_broken(struct virtio_blk_queue *work)
{
    TRACE(vduse_broken, "%s queue %u", work->name, work->index);
}

static const struct virtio_blk_queue_ops queue_ops = {.co_interrupt = co_interrupt, .co_broken = co_broken};

struct vduse_device *vduse_device_new(struct virtio_blk *blk, const char *name, const struct vduse_kernel *kernel,
                                      struct vduse_log *log, struct loop *const *loops, unsigned loop_count)
{
    struct vduse_device *device = g_new0(struct vduse_device, 1);

    assert(loop_count);
    device->blk = blk;
    device->name = name;
    device->kernel = *kernel;
    device->log = log;
    device->map = guest_map_new();
    device->queue_count = blk->queues;
    device->queues = g_new0(struct vduse_queue, blk->queues);
    for (unsigned i = 0; i < device->queue_count; i++) {
        device->queues[i].device = device;
        device->queues[i].work = (struct virtio_blk_queue){.blk = blk,
                                                           .name = name,
                                                           .index = i,
                                                           .loop = loops[i % loop_count],
                                                           .ops = &queue_ops,
                                                           .fragile = true,
                                                           .kick_fd = -1};
    }
    return device;
}

static struct guest_map *grow_map(void *opaque, const struct guest_map *map, uint64_t address)
{
    struct vduse_device *device = opaque;

    return vduse_iotlb_grow(&device->kernel, map, address);
}

static bool is_packed(const struct vduse_device *device)
{
    return device->features & VIRTIO_FEATURE(VIRTIO_F_RING_PACKED);
}

static uint32_t packed_base(const struct vduse_vq_state_packed *from)
{
    uint32_t avail = (from->last_avail_idx & INDEX_MASK) | (uint32_t)(from->last_avail_counter & 1) << WRAP_SHIFT;
    uint32_t used = (from->last_used_idx & INDEX_MASK) | (uint32_t)(from->last_used_counter & 1) << WRAP_SHIFT;

    return avail | used << 16;
}

/*
 * Where a queue begins. The kernel knows where the driver had it begin. A log that has been used belongs to a queue
 * that was at work: what a split ring shows as used and the log as in flight says where it was; of a packed one the
 * log says all.
 */
static bool find_base(struct vduse_device *device, const struct vduse_vq_info *info, uint32_t *ret, struct error **err)
{
    uint8_t index[2];

    if (is_packed(device)) {
        *ret = packed_base(&info->packed);
        return true;
    }
    *ret = info->split.avail_index;
    if (!vduse_log_used(device->log, info->index, false))
        return true;
    if (!guest_map_read(device->map, info->device_addr + USED_INDEX_OFFSET, index, sizeof(index)))
        return error_set(err, "its used ring at 0x%" PRIx64 " is in no memory region", (uint64_t)info->device_addr);
    *ret = load_le16(index);
    return true;
}

static struct virtqueue *make_ring(struct vduse_device *device, const struct vduse_vq_info *info, struct error **err)
{
    struct virtqueue_setup setup = {
        .size = (uint16_t)info->num,
        .packed = is_packed(device),
        .event_index = device->features & VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX),
        .indirect = device->features & VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC),
        .in_order = device->features & VIRTIO_FEATURE(VIRTIO_F_IN_ORDER),
        .descriptors = info->desc_addr,
        .driver_area = info->driver_addr,
        .device_area = info->device_addr,
        .inflight = vduse_log_table(device->log, info->index),
        .grow_map = grow_map,
        .grow_opaque = device,
    };

    if (!info->num || info->num > vduse_log_queue_size(device->log)) {
        error_set(err, "it has %u places, not up to %u", info->num, vduse_log_queue_size(device->log));
        return NULL;
    }
    if (!find_base(device, info, &setup.base, err))
        return NULL;
    return virtqueue_new(&setup, device->map, err);
}

static bool set_kicks(struct vduse_device *device, unsigned index, int fd, struct error **err)
{
    struct vduse_vq_eventfd argument = {.index = index, .fd = fd};
    int result = vduse_call(&device->kernel, VDUSE_VQ_SETUP_KICKFD, &argument);

    return result >= 0 || error_set_errno(err, result, "cannot set up the descriptor for its kicks");
}

static void CO_FN co_stop_queue(struct vduse_queue *queue)
{
    if (!queue->work.started)
        return;
    (void)set_kicks(queue->device, queue->work.index, VDUSE_EVENTFD_DEASSIGN, NULL);
    queue->base = co_virtio_blk_queue_stop(&queue->work);
    fd_close(TAKE_FD(queue->work.kick_fd));
}

static void CO_FN co_stop_queues(struct vduse_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        co_stop_queue(&device->queues[i]);
}

/* Starts a queue where the driver has made it ready. */
static bool CO_FN co_start_queue(struct vduse_device *device, struct vduse_queue *queue, struct error **err)
{
    struct vduse_vq_info info = {.index = queue->work.index};
    struct virtqueue *ring;
    int result = vduse_call(&device->kernel, VDUSE_VQ_GET_INFO, &info);

    if (result < 0)
        return error_set_errno(err, result, "queue %u", queue->work.index);
    info.index = queue->work.index;
    if (!info.ready || queue->work.started)
        return true;
    ring = make_ring(device, &info, err);
    if (!ring)
        return error_prefix(err, "queue %u: ", queue->work.index);
    queue->work.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->work.kick_fd < 0 || !set_kicks(device, queue->work.index, queue->work.kick_fd, err)) {
        if (queue->work.kick_fd < 0)
            error_set_errno(err, errno, "descriptor for its kicks");
        fd_close(TAKE_FD(queue->work.kick_fd));
        virtqueue_free(ring);
        return error_prefix(err, "queue %u: ", queue->work.index);
    }
    co_virtio_blk_queue_start(&queue->work, ring);
    return true;
}

static bool CO_FN co_start_queues(struct vduse_device *device, struct error **err)
{
    guest_map_unref(device->map);
    device->map = vduse_iotlb_map(&device->kernel);
    virtio_blk_accept(device->blk, device->features);
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (!co_start_queue(device, &device->queues[i], err)) {
            co_stop_queues(device);
            return false;
        }
    }
    return true;
}

/* --- status --- */

/* Takes the features that the driver has accepted. */
static bool take_features(struct vduse_device *device, struct error **err)
{
    uint64_t offered = vduse_device_offered(device->blk);
    uint64_t features = 0;
    int result = vduse_call(&device->kernel, VDUSE_DEV_GET_FEATURES, &features);

    if (result < 0)
        return error_set_errno(err, result, "cannot get the features");
    if (features & ~offered)
        return error_set(err, "features 0x%" PRIx64 " were not offered", features & ~offered);
    if (~features & NEEDED_FEATURES)
        return error_set(err, "features 0x%" PRIx64 " are missing", ~features & NEEDED_FEATURES);
    device->features = features;
    return true;
}

static void CO_FN co_reset(struct vduse_device *device)
{
    co_stop_queues(device);
    for (unsigned i = 0; i < device->queue_count; i++)
        device->queues[i].base = 0;
    guest_map_unref(device->map);
    device->map = guest_map_new();
    device->features = 0;
    device->status = 0;
    virtio_blk_reset(device->blk);
}

static bool CO_FN co_set_status(struct vduse_device *device, uint8_t status, struct error **err)
{
    uint8_t fresh = status & (uint8_t)~device->status;

    TRACE(vduse_status, "%s 0x%x, was 0x%x", device->name, status, device->status);
    if (!status) {
        co_reset(device);
        return true;
    }
    /*
     * Not before the kernel has the answer to the reset: until then the queues are ready, and who follows us needs the
     * log to know that all of them has been done.
     */
    if (!device->status)
        vduse_log_clear(device->log);
    if (fresh & STATUS_FEATURES_OK && !take_features(device, err))
        return false;
    if (fresh & STATUS_DRIVER_OK && (!take_features(device, err) || !co_start_queues(device, err)))
        return false;
    device->status = status;
    return true;
}

/* --- messages --- */

static bool CO_FN co_get_queue_state(struct vduse_device *device, uint32_t index, struct vduse_vq_state *ret,
                                     struct error **err)
{
    struct vduse_queue *queue;
    uint32_t base;

    if (index >= device->queue_count)
        return error_set(err, "queue %u of %u", index, device->queue_count);
    queue = &device->queues[index];
    base = queue->work.started ? co_virtio_blk_queue_base(&queue->work) : queue->base;
    ret->index = index;
    if (is_packed(device)) {
        ret->packed.last_avail_idx = base & INDEX_MASK;
        ret->packed.last_avail_counter = base >> WRAP_SHIFT & 1;
        ret->packed.last_used_idx = base >> 16 & INDEX_MASK;
        ret->packed.last_used_counter = (uint16_t)(base >> (16 + WRAP_SHIFT));
    } else {
        ret->split.avail_index = (uint16_t)base;
    }
    return true;
}

/* Regions have come, gone or moved: all that are needed are looked up again, and requests in flight keep the old. */
static void CO_FN co_update_memory(struct vduse_device *device)
{
    guest_map_unref(device->map);
    device->map = vduse_iotlb_map(&device->kernel);
    for (unsigned i = 0; i < device->queue_count; i++) {
        AUTO(error) why = NULL;

        if (co_virtio_blk_queue_set_map(&device->queues[i].work, device->map, &why))
            continue;
        log_warning("export '%s': queue %u stops, as its memory goes: %s", device->name, i, error_message(why));
        co_stop_queue(&device->queues[i]);
    }
}

static bool CO_FN co_do(struct vduse_device *device, const struct vduse_dev_request *request,
                        struct vduse_dev_response *ret, struct error **err)
{
    switch (request->type) {
    case VDUSE_GET_VQ_STATE:
        return co_get_queue_state(device, request->vq_state.index, &ret->vq_state, err);
    case VDUSE_SET_STATUS:
        return co_set_status(device, request->s.status, err);
    case VDUSE_UPDATE_IOTLB:
        co_update_memory(device);
        return true;
    default:
        return error_set(err, "unknown");
    }
}

void co_vduse_device_handle(struct vduse_device *device, const struct vduse_dev_request *request,
                            struct vduse_dev_response *ret)
{
    AUTO(error) why = NULL;

    *ret = (struct vduse_dev_response){.request_id = request->request_id, .result = VDUSE_REQ_RESULT_OK};
    TRACE(vduse_message, "%s type %u", device->name, request->type);
    if (co_do(device, request, ret, &why))
        return;
    ret->result = VDUSE_REQ_RESULT_FAILED;
    log_warning("export '%s': message of type %u refused: %s", device->name, request->type, error_message(why));
}

static void serve_run(void *opaque)
{
    struct vduse_device *device = opaque;

    while (!co_cancelled()) {
        struct vduse_dev_request request;
        struct vduse_dev_response response;
        ssize_t got = co_fd_read(device->kernel.fd, &request, sizeof(request));

        if (got == -ECANCELED)
            return;
        if (got != sizeof(request)) {
            log_warning("export '%s': no more messages from the kernel: %s", device->name,
                        got < 0 ? g_strerror((int)-got) : "short read");
            return;
        }
        co_vduse_device_handle(device, &request, &response);
        (void)!co_fd_write(device->kernel.fd, &response, sizeof(response));
    }
}

void vduse_device_serve(struct vduse_device *device)
{
    assert(!device->server);
    device->server = co_task_start(loop_current(), serve_run, device);
}

/* --- coming and going --- */

bool vduse_kernel_in_use(const struct vduse_kernel *kernel, unsigned queues)
{
    for (unsigned i = 0; i < queues; i++) {
        struct vduse_vq_info info = {.index = i};

        if (vduse_call(kernel, VDUSE_VQ_GET_INFO, &info) >= 0 && info.ready)
            return true;
    }
    return false;
}

bool co_vduse_device_resume(struct vduse_device *device, struct error **err)
{
    if (!take_features(device, err) || !co_start_queues(device, err))
        return error_prefix(err, "Cannot go on with the device: ");
    device->status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
    vduse_device_changed(device);
    /* The predecessor may have gone between a request's end and the word about it. */
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (device->queues[i].work.started)
            co_interrupt(&device->queues[i].work);
    }
    return true;
}

void vduse_device_changed(struct vduse_device *device)
{
    g_autofree struct vduse_config_data *data = g_malloc0(sizeof(*data) + VIRTIO_BLK_CONFIG_BYTES);
    int result;

    data->length = VIRTIO_BLK_CONFIG_BYTES;
    virtio_blk_config(device->blk, data->buffer);
    result = vduse_call(&device->kernel, VDUSE_DEV_SET_CONFIG, data);
    if (result >= 0)
        result = vduse_call(&device->kernel, VDUSE_DEV_INJECT_CONFIG_IRQ, NULL);
    if (result < 0)
        log_warning("export '%s': the driver does not hear of the new configuration: %s", device->name,
                    g_strerror(-result));
}

bool vduse_device_in_use(const struct vduse_device *device)
{
    return device->status & STATUS_DRIVER_OK;
}

void co_vduse_device_free(struct vduse_device *device)
{
    if (!device)
        return;
    if (device->server) {
        co_task_cancel(device->server);
        co_task_join(TAKE(device->server));
    }
    co_stop_queues(device);
    for (unsigned i = 0; i < device->queue_count; i++)
        co_condition_done(&device->queues[i].work.idle);
    guest_map_unref(device->map);
    g_free(device->queues);
    g_free(device);
}
