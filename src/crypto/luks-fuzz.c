/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any bytes as the header of a LUKS volume: refused with a message, or something that is written as it was read. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "crypto/luks-header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t data[LUKS_HEADER_BYTES], bool detached)
{
    uint8_t written[LUKS_HEADER_BYTES], again[LUKS_HEADER_BYTES];
    struct luks_header header, parsed;
    AUTO(error) err = NULL;

    if (!luks_header_parse(data, detached, &header, &err)) {
        assert(err);
        return;
    }
    assert(header.key_bytes == block_crypt_key_bytes(&header.scheme));
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        assert(detached || header.slots[i].material_offset + luks_material_bytes(&header) <= header.payload_offset);
    luks_header_write(&header, written);
    assert(luks_header_parse(written, detached, &parsed, NULL));
    luks_header_write(&parsed, again);
    assert(!memcmp(written, again, sizeof(again)));
    q_crypto_block_info_luks_free(luks_header_describe(&header, detached));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t header[LUKS_HEADER_BYTES] = {0};

    memcpy(header, data, size < sizeof(header) ? size : sizeof(header));
    check(header, false);
    check(header, true);
    return 0;
}
