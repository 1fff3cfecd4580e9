/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any first cluster: it is refused with a reason, or means the same once it has been written and read again. */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "driver/format/qcow2/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct qcow2_header *a, const struct qcow2_header *b)
{
    assert(a->version == b->version);
    assert(a->size == b->size);
    assert(a->l1_size == b->l1_size);
    assert(a->refcount_order == b->refcount_order);
    assert(a->incompatible_features == b->incompatible_features);
    assert(a->autoclear_features == b->autoclear_features);
    assert(!g_strcmp0(a->backing_file, b->backing_file));
    assert(!g_strcmp0(a->backing_format, b->backing_format));
    assert(!g_strcmp0(a->data_file, b->data_file));
    assert(a->has_bitmaps == b->has_bitmaps);
    assert(a->has_crypto == b->has_crypto);
    assert(a->unknown_fields_bytes == b->unknown_fields_bytes);
    assert(a->unknown_extensions_bytes == b->unknown_extensions_bytes);
    assert(!a->unknown_extensions_bytes ||
           !memcmp(a->unknown_extensions, b->unknown_extensions, a->unknown_extensions_bytes));
}

static void check_promises(const struct qcow2_header *header)
{
    uint64_t needed = qcow2_l1_entries(header->size, header->cluster_bits, qcow2_has_subclusters(header));

    assert(header->cluster_bits >= QCOW2_CLUSTER_BITS_MIN);
    assert(header->cluster_bits <= QCOW2_CLUSTER_BITS_MAX);
    assert(header->refcount_order <= QCOW2_REFCOUNT_ORDER_MAX);
    assert(header->l1_size >= needed);
    assert(!(header->incompatible_features & ~(uint64_t)QCOW2_INCOMPATIBLE_KNOWN));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(error) err = NULL;
    AUTO(error) too_large = NULL;
    AUTO(qcow2_header) in_file = qcow2_header_parse(data, size, size, NULL);
    AUTO(qcow2_header) header = qcow2_header_parse(data, size, UINT64_MAX, &err);
    AUTO(qcow2_header) again = NULL;
    g_autofree uint8_t *bytes = NULL;
    size_t written;

    assert(!header != !err);
    assert(!in_file || header);
    if (!header)
        return 0;
    check_promises(header);
    bytes = qcow2_header_serialise(header, &written, &too_large);
    assert(!bytes != !too_large);
    if (!bytes)
        return 0;
    assert(written <= qcow2_cluster_size(header));
    again = qcow2_header_parse(bytes, written, UINT64_MAX, NULL);
    assert(again);
    check_same(header, again);
    return 0;
}
