/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Decoding the first bytes of any file. */
#include <assert.h>

#include "pool/image-header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image_header header;
    size_t wanted = image_header_decode(data, size, &header);

    assert(!wanted || wanted > size);
    assert(wanted <= IMAGE_HEADER_BYTES_MAX);
    assert(!header.has_capacity || header.capacity <= INT64_MAX);
    image_header_clear(&header);
    return 0;
}
