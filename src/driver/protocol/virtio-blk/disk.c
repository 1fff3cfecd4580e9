/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All queues lie in one piece of memory that the device has. Queue 0 belongs to the loop of the transport; each of the
 * others to the first loop that comes and has none, or needs it when nobody else does: loops come and go. Loops that
 * get none send their requests to queue 0.
 *
 * Keeps: (1) `lost` goes from false to true, once; (2) a queue's loop changes under `spin`, when it has no users; (3)
 * memory and queues stay until the last reference has gone, for requests and the coroutines of queues may outlast the
 * transport.
 */
#include "driver/protocol/virtio-blk/disk.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/trace.h"
#include "block/node.h"
#include "driver/protocol/virtio-blk/queue.h"
#include "driver/protocol/virtio-blk/transport.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/shared-memory.h"
#include "loop/socket.h"

enum { BLOCK_BYTES_MAX = 1 << 20, PAGE_BYTES = 4096, QUEUE_SIZE_MIN = 4 };

static const uint64_t wanted_features =
    VIRTIO_FEATURE(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_FEATURE(VIRTIO_BLK_F_RO) | VIRTIO_FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
    VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) | VIRTIO_FEATURE(VIRTIO_BLK_F_MQ) | VIRTIO_FEATURE(VIRTIO_BLK_F_DISCARD) |
    VIRTIO_FEATURE(VIRTIO_BLK_F_WRITE_ZEROES) | VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) |
    VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM) |
    VIRTIO_FEATURE(VIRTIO_F_RING_PACKED);

struct virtio_disk {
    atomic_uint references;
    struct virtio_transport *transport; /* its loop's; NULL: closed */
    struct loop *loop;                  /* const; of the transport */
    struct virtio_disk_info info;       /* const after opening */
    atomic_uint_fast64_t length;
    bool lost; /* any loop, atomic */
    void (*resized)(void *opaque, uint64_t length);
    void *opaque;
    struct shared_memory *memory;
    struct spin_lock spin; /* the queues' loops */
    unsigned queue_count;  /* of those that have been made */
    struct virtio_queue queues[VIRTIO_DISK_QUEUES_MAX];
};

static bool has(const struct virtio_disk *disk, enum virtio_feature feature)
{
    return disk->info.features & VIRTIO_FEATURE(feature);
}

/* --- life --- */

struct virtio_disk *virtio_disk_ref(struct virtio_disk *disk)
{
    unsigned before = atomic_fetch_add_explicit(&disk->references, 1, memory_order_relaxed);

    assert(before);
    return disk;
}

void virtio_disk_unref(struct virtio_disk *disk)
{
    if (!disk || atomic_fetch_sub_explicit(&disk->references, 1, memory_order_acq_rel) != 1)
        return;
    assert(!disk->transport);
    for (unsigned i = 0; i < disk->queue_count; i++)
        virtio_queue_done(&disk->queues[i]);
    shared_memory_unref(disk->memory);
    g_free(disk);
}

void virtio_disk_lose(struct virtio_disk *disk)
{
    __atomic_store_n(&disk->lost, true, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < disk->queue_count; i++)
        virtio_queue_wake(&disk->queues[i]);
}

void co_virtio_disk_close(struct virtio_disk *disk)
{
    struct virtio_transport *transport;

    if (!disk)
        return;
    assert(loop_current() == disk->loop);
    transport = TAKE(disk->transport);
    transport->ops->co_free(transport);
    virtio_disk_lose(disk);
    /* The signals are on their way before anybody closes the descriptors. */
    co_yield ();
    virtio_disk_unref(disk);
}

/* --- the configuration --- */

static bool read_info(struct virtio_disk *disk, const uint8_t config[VIRTIO_BLK_CONFIG_BYTES], struct error **err)
{
    struct virtio_disk_info *info = &disk->info;
    uint32_t block =
        has(disk, VIRTIO_BLK_F_BLK_SIZE) ? load_le32(config + VIRTIO_BLK_CONFIG_BLK_SIZE) : VIRTIO_BLK_SECTOR_BYTES;
    uint32_t segments = has(disk, VIRTIO_BLK_F_SEG_MAX) ? load_le32(config + VIRTIO_BLK_CONFIG_SEG_MAX) : 1;

    if (!is_power_of_two(block) || block < VIRTIO_BLK_SECTOR_BYTES || block > BLOCK_BYTES_MAX)
        return error_set(err, "the disk has blocks of %u bytes", block);
    info->block_size = block;
    info->data_segments = MAX(MIN(segments, (uint32_t)VIRTIO_QUEUE_DATA_SEGMENTS), 1);
    info->queues = has(disk, VIRTIO_BLK_F_MQ) ? load_le16(config + VIRTIO_BLK_CONFIG_QUEUES) : 1;
    if (has(disk, VIRTIO_BLK_F_DISCARD)) {
        uint64_t unit = load_le32(config + VIRTIO_BLK_CONFIG_DISCARD_ALIGNMENT);

        info->discard_max = load_le32(config + VIRTIO_BLK_CONFIG_DISCARD_SECTORS) * (uint64_t)VIRTIO_BLK_SECTOR_BYTES;
        unit *= VIRTIO_BLK_SECTOR_BYTES;
        info->discard_alignment = is_power_of_two(unit) && unit <= BLOCK_BYTES_MAX ? (uint32_t)unit : block;
    }
    if (has(disk, VIRTIO_BLK_F_WRITE_ZEROES)) {
        info->zeroes_max = load_le32(config + VIRTIO_BLK_CONFIG_ZEROES_SECTORS) * (uint64_t)VIRTIO_BLK_SECTOR_BYTES;
        info->zeroes_may_unmap = config[VIRTIO_BLK_CONFIG_ZEROES_UNMAP];
    }
    return true;
}

static bool read_length(struct virtio_disk *disk, const uint8_t config[VIRTIO_BLK_CONFIG_BYTES], struct error **err)
{
    uint64_t sectors = load_le64(config + VIRTIO_BLK_CONFIG_CAPACITY);

    if (sectors > NODE_LENGTH_MAX / VIRTIO_BLK_SECTOR_BYTES)
        return error_set(err, "the disk has %" PRIu64 " sectors", sectors);
    atomic_store(&disk->length, sectors * VIRTIO_BLK_SECTOR_BYTES);
    return true;
}

static void CO_FN co_config_changed(void *opaque)
{
    struct virtio_disk *disk = opaque;
    uint64_t before = virtio_disk_length(disk);
    uint8_t config[VIRTIO_BLK_CONFIG_BYTES];
    AUTO(error) error = NULL;

    if (!disk->transport || !disk->transport->ops->co_read_config(disk->transport, config, &error) ||
        !read_length(disk, config, &error)) {
        TRACE(virtio_disk_config_failed, "%s", error ? error_message(error) : "closed");
        return;
    }
    TRACE(virtio_disk_resized, "%" PRIu64 " bytes", virtio_disk_length(disk));
    if (disk->resized && virtio_disk_length(disk) != before)
        disk->resized(disk->opaque, virtio_disk_length(disk));
}

static void CO_FN co_device_lost(void *opaque, const char *why)
{
    virtio_disk_lose(opaque);
}

static const struct virtio_watcher watcher = {.co_config_changed = co_config_changed, .co_lost = co_device_lost};

/* --- opening --- */

static bool CO_FN co_agree(struct virtio_disk *disk, const struct virtio_disk_options *options, struct error **err)
{
    struct virtio_transport *transport = disk->transport;
    uint8_t config[VIRTIO_BLK_CONFIG_BYTES];

    disk->info.features = transport->offered & wanted_features & ~options->without;
    if (!has(disk, VIRTIO_F_VERSION_1))
        return error_set(err, "the device is not of virtio 1.0 or later");
    return transport->ops->co_set_features(transport, disk->info.features, err) &&
           transport->ops->co_read_config(transport, config, err) && read_info(disk, config, err) &&
           read_length(disk, config, err);
}

static unsigned choose_queue_count(const struct virtio_disk *disk, const struct virtio_disk_options *options)
{
    unsigned count = MIN(MAX(options->queues, 1), VIRTIO_DISK_QUEUES_MAX);

    return MAX(MIN(MIN(count, disk->transport->queues_max), disk->info.queues), 1);
}

/* Memory for `count` queues that the device gets, too; the size of one in *ret_bytes. */
static bool CO_FN co_share(struct virtio_disk *disk, unsigned count, size_t queue_bytes, struct error **err)
{
    struct virtio_transport *transport = disk->transport;
    size_t size = count * queue_bytes;
    bool done;
    int fd;

    if (!range_fits(transport->address_first, size, transport->address_last))
        return error_set(err, "the device can address less than %zu bytes", size);
    fd = shared_memory_file("virtio-disk", size);
    if (fd < 0)
        return error_set_errno(err, fd, "memory of %zu bytes to share with the device", size);
    disk->memory = shared_memory_map(fd, 0, size, err);
    done = disk->memory && transport->ops->co_share_memory(transport, fd, shared_memory_base(disk->memory),
                                                           transport->address_first, size, err);
    fd_close(fd);
    return done;
}

static bool CO_FN co_start_queues(struct virtio_disk *disk, const struct virtio_disk_options *options,
                                  struct error **err)
{
    struct virtio_transport *transport = disk->transport;
    unsigned count = choose_queue_count(disk, options);
    struct virtio_queue_setup setup = {
        .size = MIN(options->queue_size ? options->queue_size : VIRTIO_DISK_QUEUE_SIZE, transport->queue_size_max),
        .packed = has(disk, VIRTIO_F_RING_PACKED),
        .event_index = has(disk, VIRTIO_F_EVENT_IDX),
        .indirect = has(disk, VIRTIO_F_INDIRECT_DESC),
    };
    size_t bytes = align_up(virtio_queue_bytes(setup.size, setup.packed), PAGE_BYTES);

    if (setup.size < QUEUE_SIZE_MIN || !is_power_of_two(setup.size))
        return error_set(err, "the device has queues of %u places", setup.size);
    /* Without a table each segment takes a place, and so do header and status. */
    if (!setup.indirect)
        disk->info.data_segments = MIN(disk->info.data_segments, setup.size - 3u);
    if (!co_share(disk, count, bytes, err))
        return false;
    for (unsigned i = 0; i < count; i++) {
        struct virtio_queue_place place;

        setup.index = i;
        setup.memory = shared_memory_base(disk->memory) + i * bytes;
        setup.address = transport->address_first + i * bytes;
        if (!virtio_queue_init(&disk->queues[i], &setup, disk, &disk->lost, err))
            return false;
        disk->queue_count++;
        place = virtio_queue_place(&disk->queues[i]);
        if (!transport->ops->co_start_queue(transport, &place, err))
            return false;
    }
    disk->queues[0].loop = disk->loop;
    return transport->ops->co_go(transport, err);
}

struct virtio_disk *co_virtio_disk_open(struct virtio_transport *transport, const struct virtio_disk_options *options,
                                        struct error **err)
{
    struct virtio_disk *disk = g_new0(struct virtio_disk, 1);

    atomic_init(&disk->references, 1);
    disk->transport = transport;
    disk->loop = loop_current();
    disk->resized = options->resized;
    disk->opaque = options->opaque;
    transport->watcher_opaque = disk;
    transport->watcher = &watcher;
    if (co_agree(disk, options, err) && co_start_queues(disk, options, err))
        return disk;
    co_virtio_disk_close(disk);
    return NULL;
}

/* --- using --- */

const struct virtio_disk_info *virtio_disk_info(const struct virtio_disk *disk)
{
    return &disk->info;
}

uint64_t virtio_disk_length(const struct virtio_disk *disk)
{
    return atomic_load_explicit(&disk->length, memory_order_relaxed);
}

bool virtio_disk_is_lost(const struct virtio_disk *disk)
{
    return __atomic_load_n(&disk->lost, __ATOMIC_SEQ_CST);
}

struct virtio_queue *virtio_disk_queue(struct virtio_disk *disk, unsigned index)
{
    return index < disk->queue_count ? &disk->queues[index] : NULL;
}

/* The loop's own queue, else one that nobody uses; NULL: there is none. It has one more user. */
static struct virtio_queue *enter_queue(struct virtio_disk *disk)
{
    struct loop *loop = loop_current();
    struct virtio_queue *own = NULL;
    struct virtio_queue *idle = NULL;

    spin_lock(&disk->spin);
    for (unsigned i = 0; i < disk->queue_count && !own; i++) {
        struct virtio_queue *queue = &disk->queues[i];

        if (queue->loop == loop)
            own = queue;
        else if (i && !queue->users && (!idle || !queue->loop))
            idle = queue;
    }
    if (!own && idle) {
        own = idle;
        own->loop = loop;
    }
    if (own)
        own->users++;
    spin_unlock(&disk->spin);
    return own;
}

static void leave_queue(struct virtio_disk *disk, struct virtio_queue *queue)
{
    spin_lock(&disk->spin);
    assert(queue->users);
    queue->users--;
    spin_unlock(&disk->spin);
}

int co_virtio_disk_do(struct virtio_disk *disk, const struct virtio_request *request)
{
    struct loop *home = loop_current();
    struct virtio_queue *queue = enter_queue(disk);
    int result;

    if (queue) {
        result = co_virtio_queue_do(queue, request);
        leave_queue(disk, queue);
        return result;
    }
    co_move_to(disk->loop);
    result = co_virtio_queue_do(&disk->queues[0], request);
    co_move_to(home);
    return result;
}
