/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/format/qcow2/compress.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum { CLUSTER = 65536 };

static const enum qcow2_compression types[] = {QCOW2_COMPRESSION_ZLIB, QCOW2_COMPRESSION_ZSTD};

/* Text that repeats itself over longer and shorter ways. */
static uint8_t *sample_new(size_t size, uint32_t seed)
{
    uint8_t *data = g_malloc(size);

    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = i > 9000 && i % 3 ? data[i - 9000] : (uint8_t)("ashlar"[seed >> 30] + i / 4096);
    }
    return data;
}

static void check_round_trip(enum qcow2_compression type, size_t size)
{
    g_autofree uint8_t *data = sample_new(size, (uint32_t)size);
    g_autofree uint8_t *packed = g_malloc0(size + 512);
    g_autofree uint8_t *unpacked = g_malloc(size);
    size_t packed_size;

    g_assert_cmpint(qcow2_compress(type, data, size, packed, size, &packed_size), ==, 0);
    g_assert_cmpuint(packed_size, <, size);
    /* As it is read: up to the end of a sector, in which other things may follow. */
    memset(packed + packed_size, 0xa5, 512);
    g_assert_cmpint(qcow2_decompress(type, packed, packed_size + 300, unpacked, size), ==, 0);
    g_assert_cmpmem(unpacked, size, data, size);
    g_assert_cmpint(qcow2_decompress(type, packed, packed_size, unpacked, size), ==, 0);
    g_assert_cmpmem(unpacked, size, data, size);
    /* More or less than a cluster is none. */
    g_assert_cmpint(qcow2_decompress(type, packed, packed_size, unpacked, size - 1), ==, -EIO);
    g_assert_cmpint(qcow2_decompress(type, packed, packed_size, unpacked, size / 2), ==, -EIO);
    g_assert_cmpint(qcow2_decompress(type, packed, packed_size / 2, unpacked, size), ==, -EIO);
    g_assert_cmpint(qcow2_decompress(type, packed, 0, unpacked, size), ==, -EIO);
}

static void test_round_trip(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        for (size_t size = 4096; size <= QCOW2_CLUSTER_SIZE_MAX; size *= 8)
            check_round_trip(types[i], size);
    }
}

static void test_larger_than_wanted(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autofree uint8_t *data = sample_new(2 * CLUSTER, 1);
        g_autofree uint8_t *packed = g_malloc(2 * CLUSTER);
        g_autofree uint8_t *unpacked = g_malloc(2 * CLUSTER);
        size_t size;

        g_assert_cmpint(qcow2_compress(types[i], data, CLUSTER + 1, packed, CLUSTER, &size), ==, 0);
        g_assert_cmpint(qcow2_decompress(types[i], packed, size, unpacked, CLUSTER), ==, -EIO);
        g_assert_cmpint(qcow2_decompress(types[i], packed, size, unpacked, CLUSTER + 2), ==, -EIO);
        g_assert_cmpint(qcow2_decompress(types[i], packed, size, unpacked, CLUSTER + 1), ==, 0);
    }
}

static void test_no_gain(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autofree uint8_t *data = g_malloc(CLUSTER);
        g_autofree uint8_t *packed = g_malloc(CLUSTER);
        uint64_t state = 88172645463325252;
        size_t size = 1234;

        for (size_t at = 0; at < CLUSTER; at++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            data[at] = (uint8_t)(state >> 24);
        }
        g_assert_cmpint(qcow2_compress(types[i], data, CLUSTER, packed, CLUSTER - 1, &size), ==, -ENOSPC);
        g_assert_cmpuint(size, ==, 1234);
    }
}

static void test_damaged(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autofree uint8_t *data = sample_new(CLUSTER, 7);
        g_autofree uint8_t *packed = g_malloc(CLUSTER);
        g_autofree uint8_t *unpacked = g_malloc(CLUSTER);
        size_t size;

        g_assert_cmpint(qcow2_compress(types[i], data, CLUSTER, packed, CLUSTER, &size), ==, 0);
        for (size_t at = 0; at < size; at += 7) {
            int ret;

            packed[at] ^= 0x55;
            ret = qcow2_decompress(types[i], packed, size, unpacked, CLUSTER);
            g_assert_true(ret == 0 || ret == -EIO);
            packed[at] ^= 0x55;
        }
        memset(packed, 0xff, 64);
        g_assert_cmpint(qcow2_decompress(types[i], packed, size, unpacked, CLUSTER), ==, -EIO);
    }
}

/* --- many at a time --- */

enum { PARALLEL = 16 };

struct parallel {
    struct co_group group;
    unsigned next;
};

static void CO_FN co_one(void *opaque)
{
    struct parallel *parallel = opaque;
    unsigned number = parallel->next++;
    enum qcow2_compression type = types[number % G_N_ELEMENTS(types)];
    g_autofree uint8_t *data = sample_new(CLUSTER, number);
    g_autofree uint8_t *packed = g_malloc(CLUSTER);
    g_autofree uint8_t *unpacked = g_malloc(CLUSTER);
    size_t size;

    g_assert_cmpint(co_qcow2_compress(type, data, CLUSTER, packed, CLUSTER, &size), ==, 0);
    g_assert_cmpint(co_qcow2_decompress(type, packed, size, unpacked, CLUSTER), ==, 0);
    g_assert_cmpmem(unpacked, CLUSTER, data, CLUSTER);
    co_group_done(&parallel->group);
}

static void CO_FN co_many(void *opaque)
{
    struct parallel parallel = {0};

    co_group_add(&parallel.group, PARALLEL);
    for (unsigned i = 0; i < PARALLEL; i++)
        co_spawn(loop_current(), co_one, &parallel);
    co_group_wait(&parallel.group);
    g_assert_cmpuint(parallel.next, ==, PARALLEL);
}

static void test_many(void)
{
    struct loop *loop = loop_new(&(struct loop_options){.backend = LOOP_AUTO}, NULL);

    g_assert_nonnull(loop);
    co_run(loop, co_many, NULL);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        AUTO(error) err = NULL;

        if (!qcow2_compression_available(types[i], &err)) {
            g_print("Bail out! %s\n", error_message(err));
            return 1;
        }
    }
    g_test_add_func("/qcow2/compress/round-trip", test_round_trip);
    g_test_add_func("/qcow2/compress/larger-than-wanted", test_larger_than_wanted);
    g_test_add_func("/qcow2/compress/no-gain", test_no_gain);
    g_test_add_func("/qcow2/compress/damaged", test_damaged);
    g_test_add_func("/qcow2/compress/many", test_many);
    return g_test_run();
}
