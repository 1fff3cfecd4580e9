/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The requests: virtio 1.2, section 5.2.6. What the guest wrote is copied before it is looked at. */
#include "export/virtio/blk.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/io-vector.h"
#include "block/handle.h"
#include "export/virtio/queue.h"

enum {
    BLOCK_SIZE_MAX = 2 * 1024 * 1024,
    RANGES_MAX = 32,
    RANGE_SECTORS_MAX = 1 << 22, /* 2 GiB at once */
};

bool virtio_blk_init(struct virtio_blk *blk, const struct virtio_blk_options *options, struct error **err)
{
    uint32_t size = options->block_size;

    if (!is_power_of_two(size) || size < VIRTIO_BLK_SECTOR_BYTES || size > BLOCK_SIZE_MAX)
        return error_set(err, "logical-block-size must be a power of two from %d to %d: it is %u",
                         VIRTIO_BLK_SECTOR_BYTES, BLOCK_SIZE_MAX, size);
    if (!options->queues)
        return error_set(err, "num-queues must be greater than 0");
    if (options->queues > VIRTIO_BLK_QUEUES_MAX)
        return error_set(err, "num-queues must be at most %d: it is %u", VIRTIO_BLK_QUEUES_MAX, options->queues);
    *blk = (struct virtio_blk){
        .handle = options->handle,
        .block_size = size,
        .queues = options->queues,
        .writable = options->writable,
        .writethrough = options->writethrough,
    };
    memcpy(blk->serial, options->serial, strnlen(options->serial, sizeof(blk->serial)));
    virtio_blk_reset(blk);
    return true;
}

void virtio_blk_reset(struct virtio_blk *blk)
{
    atomic_store(&blk->features, 0);
    atomic_store(&blk->write_back, !blk->writethrough);
}

uint64_t virtio_blk_offered(const struct virtio_blk *blk)
{
    uint64_t features = VIRTIO_FEATURE(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
                        VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) | VIRTIO_FEATURE(VIRTIO_BLK_F_TOPOLOGY) |
                        VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE) | VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) |
                        VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_F_VERSION_1) |
                        VIRTIO_FEATURE(VIRTIO_F_RING_PACKED) | VIRTIO_FEATURE(VIRTIO_F_IN_ORDER);

    if (blk->writable)
        features |= VIRTIO_FEATURE(VIRTIO_BLK_F_DISCARD) | VIRTIO_FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
    else
        features |= VIRTIO_FEATURE(VIRTIO_BLK_F_RO);
    if (blk->queues > 1)
        features |= VIRTIO_FEATURE(VIRTIO_BLK_F_MQ);
    return features;
}

void virtio_blk_accept(struct virtio_blk *blk, uint64_t features)
{
    atomic_store(&blk->features, features);
}

/* What the configuration says. Who may choose, but cannot flush, has no choice. */
static bool caches_writes(const struct virtio_blk *blk)
{
    uint64_t features = atomic_load_explicit(&blk->features, memory_order_relaxed);
    uint64_t both = VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) | VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE);

    return atomic_load_explicit(&blk->write_back, memory_order_relaxed) &&
           (features & both) != VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE);
}

static uint32_t alignment_exponent(const struct virtio_blk *blk)
{
    uint32_t physical = MAX(handle_limits(blk->handle)->request_alignment, blk->block_size);

    return (uint32_t)(__builtin_ctz(physical) - __builtin_ctz(blk->block_size));
}

void virtio_blk_config(const struct virtio_blk *blk, uint8_t to[VIRTIO_BLK_CONFIG_BYTES])
{
    const struct node_limits *limits = handle_limits(blk->handle);
    uint32_t sectors_per_block = blk->block_size / VIRTIO_BLK_SECTOR_BYTES;
    uint32_t discard_alignment = MAX(limits->discard_alignment, blk->block_size) / VIRTIO_BLK_SECTOR_BYTES;

    memset(to, 0, VIRTIO_BLK_CONFIG_BYTES);
    store_le64(to + VIRTIO_BLK_CONFIG_CAPACITY,
               align_down(handle_length(blk->handle), blk->block_size) / VIRTIO_BLK_SECTOR_BYTES);
    store_le32(to + VIRTIO_BLK_CONFIG_SEG_MAX, VIRTIO_BLK_SEGMENTS_MAX);
    store_le32(to + VIRTIO_BLK_CONFIG_BLK_SIZE, blk->block_size);
    to[24] = (uint8_t)alignment_exponent(blk);
    store_le16(to + 26, 1);
    store_le32(to + 28, limits->transfer_optimal / blk->block_size);
    to[VIRTIO_BLK_CONFIG_WRITEBACK] = caches_writes(blk);
    store_le16(to + VIRTIO_BLK_CONFIG_QUEUES, blk->queues);
    if (!blk->writable)
        return;
    store_le32(to + VIRTIO_BLK_CONFIG_DISCARD_SECTORS, (uint32_t)align_down(RANGE_SECTORS_MAX, sectors_per_block));
    store_le32(to + VIRTIO_BLK_CONFIG_DISCARD_SEGMENTS, RANGES_MAX);
    store_le32(to + VIRTIO_BLK_CONFIG_DISCARD_ALIGNMENT, discard_alignment);
    store_le32(to + VIRTIO_BLK_CONFIG_ZEROES_SECTORS, (uint32_t)align_down(RANGE_SECTORS_MAX, sectors_per_block));
    store_le32(to + VIRTIO_BLK_CONFIG_ZEROES_SEGMENTS, RANGES_MAX);
    to[VIRTIO_BLK_CONFIG_ZEROES_UNMAP] = 1;
}

bool virtio_blk_set_config(struct virtio_blk *blk, uint32_t offset, const uint8_t *from, uint32_t size)
{
    if (offset != VIRTIO_BLK_CONFIG_WRITEBACK || size != 1 || *from > 1)
        return false;
    atomic_store(&blk->write_back, *from);
    return true;
}

/* What writes need so that the guest gets what it was told. */
static unsigned write_flags(const struct virtio_blk *blk)
{
    uint64_t features = atomic_load_explicit(&blk->features, memory_order_relaxed);
    bool can_flush = features & VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH);
    bool chooses = features & VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE);

    return can_flush && (!chooses || caches_writes(blk)) ? 0 : IO_FUA;
}

static enum virtio_blk_status status_of(int result)
{
    return !result ? VIRTIO_BLK_OK : result == -ENOTSUP ? VIRTIO_BLK_UNSUPP : VIRTIO_BLK_IOERR;
}

/* A range of sectors in bytes; false: it is not on blocks or leaves the disk. */
static bool range_of(const struct virtio_blk *blk, uint64_t sector, uint64_t bytes, uint64_t *ret_offset)
{
    uint64_t length = handle_length(blk->handle);

    if (sector > length / VIRTIO_BLK_SECTOR_BYTES)
        return false;
    *ret_offset = sector * VIRTIO_BLK_SECTOR_BYTES;
    return range_fits(*ret_offset, bytes, length) && is_aligned(*ret_offset | bytes, blk->block_size);
}

static enum virtio_blk_status CO_FN co_read(struct virtio_blk *blk, uint64_t sector, const struct io_vector *data)
{
    uint64_t offset;

    if (!range_of(blk, sector, data->size, &offset))
        return VIRTIO_BLK_IOERR;
    return status_of(co_handle_preadv(blk->handle, offset, data->size, data, 0));
}

static enum virtio_blk_status CO_FN co_write(struct virtio_blk *blk, uint64_t sector, const struct io_vector *data)
{
    uint64_t offset;

    if (!blk->writable || !range_of(blk, sector, data->size, &offset))
        return VIRTIO_BLK_IOERR;
    return status_of(co_handle_pwritev(blk->handle, offset, data->size, data, write_flags(blk)));
}

/* Copied from the guest, so that what is checked is what is done. */
struct range_list {
    unsigned count;
    struct {
        uint64_t offset;
        uint64_t bytes;
        bool unmap;
    } items[RANGES_MAX];
};

static enum virtio_blk_status load_ranges(struct virtio_blk *blk, bool discard, const struct io_vector *data,
                                          struct range_list *ret)
{
    uint8_t raw[VIRTIO_BLK_RANGE_BYTES];

    if (!data->size || data->size % VIRTIO_BLK_RANGE_BYTES || data->size / VIRTIO_BLK_RANGE_BYTES > RANGES_MAX)
        return VIRTIO_BLK_IOERR;
    ret->count = (unsigned)(data->size / VIRTIO_BLK_RANGE_BYTES);
    for (unsigned i = 0; i < ret->count; i++) {
        uint32_t sectors;
        uint32_t flags;

        io_vector_read(data, (size_t)i * VIRTIO_BLK_RANGE_BYTES, raw, sizeof(raw));
        sectors = load_le32(raw + VIRTIO_BLK_RANGE_COUNT);
        flags = load_le32(raw + VIRTIO_BLK_RANGE_FLAGS);
        /* Unmap makes no sense for a discard, and the other bits are reserved. */
        if (flags & ~(uint32_t)(discard ? 0 : VIRTIO_BLK_RANGE_UNMAP))
            return VIRTIO_BLK_UNSUPP;
        ret->items[i].bytes = (uint64_t)sectors * VIRTIO_BLK_SECTOR_BYTES;
        ret->items[i].unmap = flags & VIRTIO_BLK_RANGE_UNMAP;
        if (sectors > RANGE_SECTORS_MAX || !range_of(blk, load_le64(raw), ret->items[i].bytes, &ret->items[i].offset))
            return VIRTIO_BLK_IOERR;
    }
    return VIRTIO_BLK_OK;
}

static enum virtio_blk_status CO_FN co_change_ranges(struct virtio_blk *blk, bool discard, const struct io_vector *data)
{
    struct range_list ranges;
    enum virtio_blk_status status = blk->writable ? load_ranges(blk, discard, data, &ranges) : VIRTIO_BLK_IOERR;

    for (unsigned i = 0; status == VIRTIO_BLK_OK && i < ranges.count; i++) {
        uint64_t offset = ranges.items[i].offset;
        uint64_t bytes = ranges.items[i].bytes;
        unsigned flags = write_flags(blk) | (ranges.items[i].unmap ? IO_MAY_UNMAP : 0);

        status = status_of(discard ? co_handle_pdiscard(blk->handle, offset, bytes)
                                   : co_handle_pwrite_zeroes(blk->handle, offset, bytes, flags));
    }
    return status;
}

static enum virtio_blk_status get_id(const struct virtio_blk *blk, const struct io_vector *data)
{
    if (data->size < sizeof(blk->serial))
        return VIRTIO_BLK_IOERR;
    io_vector_write(data, 0, blk->serial, sizeof(blk->serial));
    return VIRTIO_BLK_OK;
}

/* The header's part of the readable memory is cut off in `out`, the status byte in `in`. */
static enum virtio_blk_status CO_FN co_execute(struct virtio_blk *blk, const uint8_t header[VIRTIO_BLK_HEADER_BYTES],
                                               const struct io_vector *out, const struct io_vector *in,
                                               uint32_t *ret_written)
{
    uint64_t sector = load_le64(header + VIRTIO_BLK_HEADER_SECTOR);
    enum virtio_blk_status status;

    switch ((enum virtio_blk_request)load_le32(header)) {
    case VIRTIO_BLK_IN:
        *ret_written = (uint32_t)in->size;
        status = co_read(blk, sector, in);
        break;
    case VIRTIO_BLK_OUT:
        status = co_write(blk, sector, out);
        break;
    case VIRTIO_BLK_FLUSH:
        status = status_of(co_handle_flush(blk->handle));
        break;
    case VIRTIO_BLK_GET_ID:
        *ret_written = (uint32_t)MIN(in->size, sizeof(blk->serial));
        status = get_id(blk, in);
        break;
    case VIRTIO_BLK_DISCARD:
        status = co_change_ranges(blk, true, out);
        break;
    case VIRTIO_BLK_WRITE_ZEROES:
        status = co_change_ranges(blk, false, out);
        break;
    default:
        status = VIRTIO_BLK_UNSUPP;
    }
    return status;
}

bool co_virtio_blk_do(struct virtio_blk *blk, struct virtq_buffer *buffer, uint32_t *ret_written)
{
    struct io_vector readable = io_vector_of(buffer->segments, buffer->readable_count);
    struct io_vector writable = io_vector_of(buffer->segments + buffer->readable_count, buffer->writable_count);
    uint8_t header[VIRTIO_BLK_HEADER_BYTES];
    struct iovec segments[VIRTQ_SEGMENTS_MAX];
    enum virtio_blk_status status = VIRTIO_BLK_IOERR;
    uint32_t written = 0;

    if (!buffer->last_writable)
        return false;
    if (!buffer->bad && readable.size >= VIRTIO_BLK_HEADER_BYTES && writable.size && writable.size <= UINT32_MAX) {
        struct io_vector out;
        struct io_vector in;

        io_vector_read(&readable, 0, header, sizeof(header));
        out = io_vector_slice(&readable, VIRTIO_BLK_HEADER_BYTES, readable.size - VIRTIO_BLK_HEADER_BYTES, segments);
        in = io_vector_slice(&writable, 0, writable.size - 1, segments + out.count);
        status = co_execute(blk, header, &out, &in, &written);
        *buffer->last_writable = (uint8_t)status;
        /* The status is the last byte: of a short answer the driver is told only that there was one. */
        *ret_written = written + 1;
        return true;
    }
    *buffer->last_writable = (uint8_t)status;
    *ret_written = 1;
    return true;
}
