/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any bytes as a compressed cluster: they are refused, or give exactly a cluster. The first byte says which kind and
 * which size of cluster.
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "driver/format/qcow2/compress.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { GUARD = 64, GUARD_BYTE = 0x5a };
    enum qcow2_compression type;
    g_autofree uint8_t *to = NULL;
    g_autofree uint8_t *from = NULL;
    size_t cluster;
    int ret;

    if (!size || size > QCOW2_CLUSTER_SIZE_MAX)
        return 0;
    type = data[0] & 1 ? QCOW2_COMPRESSION_ZSTD : QCOW2_COMPRESSION_ZLIB;
    cluster = (size_t)512 << (data[0] >> 1) % 8;
    to = g_malloc(cluster + GUARD);
    memset(to, GUARD_BYTE, cluster + GUARD);
    from = g_memdup2(data + 1, size - 1);
    ret = qcow2_decompress(type, from, size - 1, to, cluster);
    assert(ret == 0 || ret == -EIO || ret == -ENOTSUP || ret == -ENOMEM);
    for (size_t i = 0; i < GUARD; i++)
        assert(to[cluster + i] == GUARD_BYTE);
    return 0;
}
