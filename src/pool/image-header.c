/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/image-header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "loop/file.h"

enum { SECTOR = 512, BACKING_NAME_MAX = 1023 };

/* What is looked at, and how much of it one would like to have. */
struct view {
    const uint8_t *data;
    size_t size;
    size_t wanted;
    struct image_header *ret;
};

/* The bytes at `offset`, or NULL: then more is wanted, unless that would be too much. */
static const uint8_t *at(struct view *view, uint64_t offset, uint64_t bytes)
{
    if (range_fits(offset, bytes, view->size))
        return view->data + offset;
    if (range_fits(offset, bytes, IMAGE_HEADER_BYTES_MAX))
        view->wanted = MAX(view->wanted, offset + bytes);
    return NULL;
}

static void set_capacity(struct view *view, uint64_t count, uint64_t unit)
{
    uint64_t bytes;

    if (__builtin_mul_overflow(count, unit, &bytes) || bytes > INT64_MAX)
        return;
    view->ret->capacity = bytes;
    view->ret->has_capacity = true;
}

static void take_backing(struct view *view, uint64_t offset, uint32_t size)
{
    const uint8_t *name = offset && size && size <= BACKING_NAME_MAX ? at(view, offset, size) : NULL;

    if (name && !memchr(name, 0, size))
        view->ret->backing_file = g_utf8_make_valid((const char *)name, size);
}

/* --- qcow2 --- */

enum {
    QCOW2_INCOMPAT_EXTENDED_L2 = 1u << 4,
    QCOW2_COMPAT_LAZY_REFCOUNTS = 1u << 0,
    QCOW2_EXTENSION_BACKING_FORMAT = 0xE2792ACA,
    QCOW2_HEADER_2 = 72,
    QCOW2_HEADER_3 = 104,
    QCOW2_EXTENSIONS_MAX = 64,
};

static void take_backing_format(struct view *view, const uint8_t *text, uint32_t size)
{
    g_autofree char *name = g_strndup((const char *)text, size);
    int value = format_value(volume_format_names, name);

    view->ret->backing_format = value > 0 ? value : -2;
}

/* They lie between the header and the end of the first cluster. */
static void qcow2_extensions(struct view *view, uint64_t offset, uint64_t end)
{
    for (unsigned i = 0; i < QCOW2_EXTENSIONS_MAX && range_fits(offset, 8, end); i++) {
        const uint8_t *extension = at(view, offset, 8);
        uint32_t type = extension ? load_be32(extension) : 0;
        uint32_t size = extension ? load_be32(extension + 4) : 0;
        const uint8_t *data;

        if (!type || !range_fits(offset + 8, size, end))
            return;
        data = at(view, offset + 8, size);
        if (type == QCOW2_EXTENSION_BACKING_FORMAT && data) {
            take_backing_format(view, data, size);
            return;
        }
        offset += 8 + align_up(size, 8);
    }
}

static bool qcow2_decode(struct view *view)
{
    struct image_header *ret = view->ret;
    const uint8_t *header = at(view, 0, QCOW2_HEADER_2);
    uint32_t version = header ? load_be32(header + 4) : 0;
    uint32_t cluster_bits = header ? load_be32(header + 20) : 0;
    uint32_t crypt = header ? load_be32(header + 32) : 0;
    uint64_t length = QCOW2_HEADER_2;

    if (version < 2 || version > 3)
        return false;
    ret->format = VOLUME_FORMAT_QCOW2;
    ret->compat = version == 2 ? "0.10" : "1.1";
    set_capacity(view, load_be64(header + 24), 1);
    if (cluster_bits >= 9 && cluster_bits <= 21)
        ret->cluster_size = UINT64_C(1) << cluster_bits;
    ret->encrypted = crypt == 1 || crypt == 2;
    ret->encryption = crypt == 2 ? ENCRYPTION_LUKS : ENCRYPTION_QCOW;
    if (version == 3) {
        header = at(view, 0, QCOW2_HEADER_3);
        if (!header)
            return true;
        length = load_be32(header + 100);
        if (load_be64(header + 72) & QCOW2_INCOMPAT_EXTENDED_L2)
            ret->features |= VOLUME_EXTENDED_L2;
        if (load_be64(header + 80) & QCOW2_COMPAT_LAZY_REFCOUNTS)
            ret->features |= VOLUME_LAZY_REFCOUNTS;
    }
    take_backing(view, load_be64(header + 8), load_be32(header + 16));
    /* Only what has a backing image says of what format that is. */
    if (load_be64(header + 8) && ret->cluster_size && length <= ret->cluster_size)
        qcow2_extensions(view, length, ret->cluster_size);
    return true;
}

/* --- the others --- */

static bool qcow_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 48);

    if (!header || load_be32(header + 4) != 1)
        return false;
    view->ret->format = VOLUME_FORMAT_QCOW;
    set_capacity(view, load_be64(header + 24), 1);
    view->ret->encrypted = load_be32(header + 36) == 1;
    view->ret->encryption = ENCRYPTION_QCOW;
    take_backing(view, load_be64(header + 8), load_be32(header + 16));
    return true;
}

static bool either_qcow_decode(struct view *view)
{
    return qcow2_decode(view) || qcow_decode(view);
}

enum { QED_BACKING_FILE = 1u << 0, QED_BACKING_IS_RAW = 1u << 2 };

static bool qed_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 64);

    if (!header)
        return false;
    view->ret->format = VOLUME_FORMAT_QED;
    set_capacity(view, load_le64(header + 48), 1);
    if (load_le64(header + 16) & QED_BACKING_FILE)
        take_backing(view, load_le32(header + 56), load_le32(header + 60));
    if (load_le64(header + 16) & QED_BACKING_IS_RAW)
        view->ret->backing_format = VOLUME_FORMAT_RAW;
    return true;
}

static bool vdi_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 376);

    if (!header)
        return false;
    view->ret->format = VOLUME_FORMAT_VDI;
    set_capacity(view, load_le64(header + 368), 1);
    return true;
}

/* The name of the parent stands in the descriptor, a text that is embedded in the file. */
static void vmdk_take_parent(struct view *view, uint64_t offset, uint64_t bytes)
{
    static const char key[] = "parentFileNameHint=\"";
    const uint8_t *text = bytes && bytes <= 64 * 1024 ? at(view, offset, bytes) : NULL;
    g_autofree char *descriptor = text ? g_strndup((const char *)text, bytes) : NULL;
    const char *found = descriptor ? strstr(descriptor, key) : NULL;
    const char *end = found ? strchr(found + strlen(key), '"') : NULL;

    if (!end || end == found + strlen(key))
        return;
    view->ret->backing_file = g_utf8_make_valid(found + strlen(key), end - found - (gssize)strlen(key));
    view->ret->backing_format = VOLUME_FORMAT_VMDK;
}

static bool vmdk_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 80);
    uint64_t offset = 0;
    uint64_t bytes = 0;

    if (!header)
        return false;
    view->ret->format = VOLUME_FORMAT_VMDK;
    set_capacity(view, load_le64(header + 12), SECTOR);
    if (!__builtin_mul_overflow(load_le64(header + 28), SECTOR, &offset) &&
        !__builtin_mul_overflow(load_le64(header + 36), SECTOR, &bytes))
        vmdk_take_parent(view, offset, bytes);
    return true;
}

static bool vpc_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 512);

    if (!header)
        return false;
    view->ret->format = VOLUME_FORMAT_VPC;
    set_capacity(view, load_be64(header + 48), 1);
    return true;
}

static bool bochs_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 96);
    bool first_version = header && load_le32(header + 64) == 0x10000;

    if (!header)
        return false;
    view->ret->format = VOLUME_FORMAT_BOCHS;
    set_capacity(view, load_le64(header + (first_version ? 84 : 88)), 1);
    return true;
}

static bool cloop_decode(struct view *view)
{
    const uint8_t *header = at(view, 128, 8);

    if (!header)
        return false;
    view->ret->format = VOLUME_FORMAT_CLOOP;
    set_capacity(view, load_be32(header + 4), load_be32(header));
    return true;
}

static bool ploop_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 48);

    if (!header)
        return false;
    view->ret->format = VOLUME_FORMAT_PLOOP;
    set_capacity(view, load_le64(header + 36), SECTOR);
    return true;
}

static bool cow_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 1044);
    size_t size;

    if (!header || load_be32(header + 4) != 2)
        return false;
    view->ret->format = VOLUME_FORMAT_COW;
    set_capacity(view, load_be64(header + 1036), 1);
    size = strnlen((const char *)header + 8, BACKING_NAME_MAX);
    if (size)
        view->ret->backing_file = g_utf8_make_valid((const char *)header + 8, (gssize)size);
    return true;
}

/* A disk that is encrypted as a whole is raw data with a header before it. */
static bool luks_decode(struct view *view)
{
    const uint8_t *header = at(view, 0, 208);
    uint16_t version = header ? load_be16(header + 6) : 0;

    if (version < 1 || version > 2)
        return false;
    view->ret->format = VOLUME_FORMAT_RAW;
    view->ret->encrypted = true;
    view->ret->encryption = version == 1 ? ENCRYPTION_LUKS : ENCRYPTION_LUKS2;
    if (version == 1)
        view->ret->payload_offset = (uint64_t)load_be32(header + 104) * SECTOR;
    return true;
}

static bool iso_decode(struct view *view)
{
    view->ret->format = VOLUME_FORMAT_ISO;
    return true;
}

/* --- which it is --- */

static const struct format_magic {
    const char *magic;
    size_t size;
    size_t offset;
    bool (*decode)(struct view *view); /* false: it is not such an image after all */
} magics[] = {
    {"QFI\xfb", 4, 0, either_qcow_decode},
    {"LUKS\xba\xbe", 6, 0, luks_decode},
    {"QED\0", 4, 0, qed_decode},
    {"KDMV", 4, 0, vmdk_decode},
    {"conectix", 8, 0, vpc_decode},
    {"\x7f\x10\xda\xbe", 4, 64, vdi_decode},
    {"Bochs Virtual HD Image", 22, 0, bochs_decode},
    {"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", 37, 0, cloop_decode},
    {"WithoutFreeSpace", 16, 0, ploop_decode},
    {"WithouFreSpacExt", 16, 0, ploop_decode},
    {"OOOM", 4, 0, cow_decode},
    {"CD001", 5, 32769, iso_decode},
};

enum { ISO_MAGIC_OFFSET = 32769, ISO_MAGIC_SIZE = 5 };

size_t image_header_decode(const uint8_t *head, size_t size, struct image_header *ret)
{
    struct view view = {.data = head, .size = size, .ret = ret};

    *ret = (struct image_header){.format = VOLUME_FORMAT_RAW, .backing_format = -1};
    for (size_t i = 0; i < G_N_ELEMENTS(magics); i++) {
        const struct format_magic *magic = &magics[i];

        if (!range_fits(magic->offset, magic->size, size) ||
            memcmp(head + magic->offset, magic->magic, magic->size) != 0)
            continue;
        if (magic->decode(&view))
            break;
        image_header_clear(ret);
        *ret = (struct image_header){.format = VOLUME_FORMAT_RAW, .backing_format = -1};
    }
    return view.wanted > size ? view.wanted : 0;
}

void image_header_clear(struct image_header *header)
{
    g_free(header->backing_file);
    header->backing_file = NULL;
}

/* The mark of an ISO image lies so far behind that it is read for itself. */
static int look_for_iso(int fd, struct image_header *ret)
{
    char mark[ISO_MAGIC_SIZE];
    ssize_t got = file_read_blocking(fd, mark, sizeof(mark), ISO_MAGIC_OFFSET);

    if (got < 0)
        return (int)got;
    if (got == ISO_MAGIC_SIZE && !memcmp(mark, "CD001", ISO_MAGIC_SIZE))
        ret->format = VOLUME_FORMAT_ISO;
    return 0;
}

int image_header_read(int fd, struct image_header *ret)
{
    uint8_t head[IMAGE_HEADER_BYTES];
    g_autofree uint8_t *more = NULL;
    ssize_t got = file_read_blocking(fd, head, sizeof(head), 0);

    if (got < 0)
        return (int)got;
    if (image_header_decode(head, (size_t)got, ret) && got == IMAGE_HEADER_BYTES) {
        image_header_clear(ret);
        more = g_malloc(IMAGE_HEADER_BYTES_MAX);
        got = file_read_blocking(fd, more, IMAGE_HEADER_BYTES_MAX, 0);
        if (got < 0)
            return (int)got;
        /* Where the file ends before what its header speaks of, what could be decoded is what there is. */
        (void)image_header_decode(more, (size_t)got, ret);
    }
    if (ret->format == VOLUME_FORMAT_RAW && !ret->encrypted && got >= IMAGE_HEADER_BYTES)
        return look_for_iso(fd, ret);
    return 0;
}
