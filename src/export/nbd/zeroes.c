/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Why not ask for the block status before reading: that costs a system call or two for every read, and most reads find
 * data. Looking at the first bytes of each unit costs next to nothing where there are data, and where there are zeroes
 * it saves both sides the copies. It finds zeroes that are stored, too.
 */
#include "export/nbd/zeroes.h"

#include <assert.h>
#include <glib.h>

#include "base/checked.h"
#include "base/io-vector.h"

/* A power of two of which at most NBD_PARTS_MAX - 1 make up `bytes`. */
static uint32_t unit_for(uint32_t bytes)
{
    uint32_t unit = NBD_PART_ALIGNMENT;

    while (bytes / unit >= NBD_PARTS_MAX - 1)
        unit *= 2;
    return unit;
}

unsigned nbd_parts_find(const uint8_t *data, uint32_t bytes, uint64_t offset, struct nbd_part parts[NBD_PARTS_MAX])
{
    uint32_t unit = unit_for(bytes);
    unsigned count = 0;

    for (uint32_t done = 0; done < bytes;) {
        uint32_t to_boundary = unit - (uint32_t)((offset + done) & (unit - 1));
        uint32_t here = MIN(to_boundary, bytes - done);
        bool is_zero = memory_is_zero(data + done, here);

        if (count && parts[count - 1].is_zero == is_zero) {
            parts[count - 1].bytes += here;
        } else {
            assert(count < NBD_PARTS_MAX);
            parts[count++] = (struct nbd_part){.offset = offset + done, .bytes = here, .is_zero = is_zero};
        }
        done += here;
    }
    return count;
}
