/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any bitmap directory (after two bytes of nb_bitmaps): refused with a reason, or the same bytes come out again. */
#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "driver/format/qcow2/bitmap-directory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_promises(const struct qcow2_bitmap_entry *entry)
{
    assert(g_utf8_validate(entry->name, -1, NULL));
    if (entry->problem)
        return;
    assert(entry->granularity_bits >= QCOW2_BITMAP_GRANULARITY_BITS_MIN);
    assert(entry->granularity_bits <= QCOW2_BITMAP_GRANULARITY_BITS_MAX);
    assert(strlen(entry->name) == entry->name_bytes);
    assert(entry->name_bytes && entry->name_bytes <= QCOW2_BITMAP_NAME_MAX);
    assert(!(entry->flags & QCOW2_BITMAP_IN_USE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(qcow2_bitmap_directory) directory = NULL;
    AUTO(qcow2_bitmap_directory) again = NULL;
    AUTO(error) err = NULL;
    g_autofree uint8_t *bytes = NULL;
    size_t written;
    uint16_t count;

    if (size < 2)
        return 0;
    count = load_be16(data);
    directory = qcow2_bitmap_directory_parse(data + 2, size - 2, count, &err);
    assert(!directory != !err);
    if (!directory)
        return 0;
    assert(directory->entries->len == count);
    for (unsigned i = 0; i < count; i++)
        check_promises(g_ptr_array_index(directory->entries, i));
    bytes = qcow2_bitmap_directory_serialise(directory, &written);
    assert(written == size - 2);
    again = qcow2_bitmap_directory_parse(bytes, written, count, NULL);
    assert(again);
    return 0;
}
