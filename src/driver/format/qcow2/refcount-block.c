/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts in the bytes of a refcount block, in each of their widths. */
#include "driver/format/qcow2/refcount-block.h"

#include <assert.h>

#include "base/bytes.h"
#include "driver/format/qcow2/header.h"

uint64_t qcow2_refcount_load(const uint8_t *block, unsigned order, uint64_t index)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned per_byte_bits = 3 - order, bits = 1u << order;
        unsigned shift = (unsigned)(index & ((1u << per_byte_bits) - 1)) * bits;

        return (block[index >> per_byte_bits] >> shift) & ((1u << bits) - 1);
    }
    case 3:
        return block[index];
    case 4:
        return load_be16(block + index * 2);
    case 5:
        return load_be32(block + index * 4);
    default:
        assert(order == QCOW2_REFCOUNT_ORDER_MAX);
        return load_be64(block + index * 8);
    }
}

void qcow2_refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t count)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned per_byte_bits = 3 - order, bits = 1u << order;
        unsigned shift = (unsigned)(index & ((1u << per_byte_bits) - 1)) * bits;
        uint8_t *byte = &block[index >> per_byte_bits];

        *byte = (uint8_t)((*byte & ~(((1u << bits) - 1) << shift)) | (unsigned)count << shift);
        break;
    }
    case 3:
        block[index] = (uint8_t)count;
        break;
    case 4:
        store_be16(block + index * 2, (uint16_t)count);
        break;
    case 5:
        store_be32(block + index * 4, (uint32_t)count);
        break;
    default:
        assert(order == QCOW2_REFCOUNT_ORDER_MAX);
        store_be64(block + index * 8, count);
        break;
    }
}
