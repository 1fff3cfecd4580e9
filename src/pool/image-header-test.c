/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* First bytes of images, made by hand as their formats say. */
#include <glib.h>
#include <string.h>

#include "base/bytes.h"
#include "pool/image-header.h"

static uint8_t head[IMAGE_HEADER_BYTES];

static void begin(const char *magic, size_t size)
{
    memset(head, 0, sizeof(head));
    memcpy(head, magic, size);
}

static void qcow2(void)
{
    struct image_header header;

    begin("QFI\xfb", 4);
    store_be32(head + 4, 3);
    store_be64(head + 8, 512);
    store_be32(head + 16, 4);
    store_be32(head + 20, 16);
    store_be64(head + 24, 1 << 30);
    store_be32(head + 32, 2);
    store_be64(head + 72, 1 << 4);
    store_be64(head + 80, 1);
    store_be32(head + 100, 112);
    store_be32(head + 112, 0xE2792ACA);
    store_be32(head + 116, 5);
    memcpy(head + 120, "qcow2", 5);
    memcpy(head + 512, "base", 4);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_QCOW2);
    g_assert_cmpuint(header.capacity, ==, 1 << 30);
    g_assert_cmpstr(header.backing_file, ==, "base");
    g_assert_cmpint(header.backing_format, ==, VOLUME_FORMAT_QCOW2);
    g_assert_cmpstr(header.compat, ==, "1.1");
    g_assert_cmpuint(header.cluster_size, ==, 65536);
    g_assert_cmpuint(header.features, ==, VOLUME_LAZY_REFCOUNTS | VOLUME_EXTENDED_L2);
    g_assert_true(header.encrypted);
    g_assert_cmpint(header.encryption, ==, ENCRYPTION_LUKS);
    image_header_clear(&header);

    /* The name lies behind what was read: more is wanted, but never without end. */
    store_be64(head + 8, 8192);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 8196);
    image_header_clear(&header);
    store_be64(head + 8, UINT64_MAX - 1);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_null(header.backing_file);
    image_header_clear(&header);

    /* A version that nobody knows is no image. */
    store_be32(head + 4, 4);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_RAW);
    image_header_clear(&header);
}

static void others(void)
{
    struct image_header header;

    begin("LUKS\xba\xbe", 6);
    store_be16(head + 6, 1);
    store_be32(head + 104, 4096);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_RAW);
    g_assert_true(header.encrypted);
    g_assert_cmpuint(header.payload_offset, ==, 4096 * 512);

    begin("#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n", 80);
    store_be32(head + 128, 65536);
    store_be32(head + 132, 10);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_CLOOP);
    g_assert_cmpuint(header.capacity, ==, 655360);

    begin("KDMV", 4);
    store_le64(head + 12, 2048);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_VMDK);
    g_assert_cmpuint(header.capacity, ==, 1 << 20);

    begin("conectix", 8);
    store_be64(head + 48, 12345);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_VPC);
    g_assert_cmpuint(header.capacity, ==, 12345);

    begin("", 0);
    memcpy(head + 64, "\x7f\x10\xda\xbe", 4);
    store_le64(head + 368, 777);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_VDI);
    g_assert_cmpuint(header.capacity, ==, 777);

    begin("QED\0", 4);
    store_le64(head + 48, 99);
    g_assert_cmpuint(image_header_decode(head, sizeof(head), &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_QED);
    g_assert_cmpuint(header.capacity, ==, 99);

    begin("hello", 5);
    g_assert_cmpuint(image_header_decode(head, 5, &header), ==, 0);
    g_assert_cmpint(header.format, ==, VOLUME_FORMAT_RAW);
    g_assert_false(header.has_capacity);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/image-header/qcow2", qcow2);
    g_test_add_func("/image-header/others", others);
    return g_test_run();
}
