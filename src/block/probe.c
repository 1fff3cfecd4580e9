/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Probing. Each format says how sure it is; the surest wins, raw is what is left. Formats that have a driver with a
 * probe of its own are known by that, the others by the table here, so that an image which cannot be opened is named
 * rather than shown as raw.
 */
#include "block/probe.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/handle.h"
#include "block/image.h"

/* What is being looked at. */
struct probe {
    const uint8_t *head;
    size_t size;
    const char *filename; /* may be NULL */
};

static bool has_at(const struct probe *probe, size_t offset, const char *bytes, size_t size)
{
    return offset + size <= probe->size && !memcmp(probe->head + offset, bytes, size);
}

/* The text with its NUL. */
static bool has_string_at(const struct probe *probe, size_t offset, const char *text)
{
    return has_at(probe, offset, text, strlen(text) + 1);
}

static uint32_t be32_at(const struct probe *probe, size_t offset)
{
    return offset + 4 <= probe->size ? load_be32(probe->head + offset) : 0;
}

static uint32_t le32_at(const struct probe *probe, size_t offset)
{
    return offset + 4 <= probe->size ? load_le32(probe->head + offset) : 0;
}

static bool is_qcow(const struct probe *probe)
{
    return has_at(probe, 0, "QFI\xfb", 4) && be32_at(probe, 4) == 1;
}

static bool is_qcow2(const struct probe *probe)
{
    return has_at(probe, 0, "QFI\xfb", 4) && be32_at(probe, 4) >= 2;
}

static bool is_qed(const struct probe *probe)
{
    return probe->size >= 64 && has_at(probe, 0, "QED\0", 4);
}

static bool is_vdi(const struct probe *probe)
{
    return le32_at(probe, 0x40) == 0xbeda107f;
}

static bool is_vhdx(const struct probe *probe)
{
    return has_at(probe, 0, "vhdxfile", 8);
}

/* Fixed ones have nothing but a trailer: they are raw for all that can be told from here. */
static bool is_vpc(const struct probe *probe)
{
    return has_at(probe, 0, "conectix", 8);
}

static bool is_parallels(const struct probe *probe)
{
    return (has_at(probe, 0, "WithoutFreeSpace", 16) || has_at(probe, 0, "WithouFreSpacExt", 16)) &&
           le32_at(probe, 16) == 2;
}

static bool is_luks(const struct probe *probe)
{
    return has_at(probe, 0, "LUKS\xba\xbe\0\1", 8);
}

static bool is_bochs(const struct probe *probe)
{
    uint32_t version = le32_at(probe, 64);

    return has_string_at(probe, 0, "Bochs Virtual HD Image") && has_string_at(probe, 32, "Redolog") &&
           has_string_at(probe, 48, "Growing") && (version == 0x00010000 || version == 0x00020000);
}

static bool is_cloop(const struct probe *probe)
{
    static const char start[] =
        "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

    return has_at(probe, 0, start, sizeof(start) - 1);
}

/* Its trailer is at the end: only the name tells. */
static bool is_dmg(const struct probe *probe)
{
    return probe->filename && g_str_has_suffix(probe->filename, ".dmg");
}

/* The line [*at, end of line) of a text, without what ends it; moves *at on. False: there is none that is whole. */
static bool next_line(const struct probe *probe, size_t *at, const char **ret_line, size_t *ret_length)
{
    const char *line = (const char *)probe->head + *at;
    const char *end = memchr(line, '\n', probe->size - *at);

    if (!end)
        return false;
    *ret_line = line;
    *ret_length = (size_t)(end - line);
    *at += *ret_length + 1;
    if (*ret_length && line[*ret_length - 1] == '\r')
        (*ret_length)--;
    return true;
}

/* The descriptor of a disk in several files: a text that begins, but for comments and empty lines, with its version. */
static bool is_vmdk_descriptor(const struct probe *probe)
{
    static const char *const versions[] = {"version=1", "version=2", "version=3"};
    size_t at = 0;
    size_t length;
    const char *line;

    while (next_line(probe, &at, &line, &length)) {
        if (line[0] == '#' || strspn(line, " \t") >= length)
            continue;
        for (size_t i = 0; i < G_N_ELEMENTS(versions); i++) {
            if (length == strlen(versions[i]) && !memcmp(line, versions[i], length))
                return true;
        }
        return false;
    }
    return false;
}

static bool is_vmdk(const struct probe *probe)
{
    return has_at(probe, 0, "KDMV", 4) || has_at(probe, 0, "COWD", 4) || is_vmdk_descriptor(probe);
}

/* By decreasing sureness. */
static const struct known {
    const char *name;
    int score;
    bool (*matches)(const struct probe *probe);
} known_formats[] = {
    {"qcow2", 100, is_qcow2}, {"qcow", 100, is_qcow},   {"qed", 100, is_qed},   {"vmdk", 100, is_vmdk},
    {"vdi", 100, is_vdi},     {"vhdx", 100, is_vhdx},   {"vpc", 100, is_vpc},   {"parallels", 100, is_parallels},
    {"luks", 100, is_luks},   {"bochs", 100, is_bochs}, {"cloop", 2, is_cloop}, {"dmg", 2, is_dmg},
};

const char *probe_format(const struct block_driver *const *drivers, const uint8_t *head, size_t size,
                         const char *filename)
{
    const struct probe probe = {.head = head, .size = size, .filename = filename};
    const char *best = "raw";
    int best_score = 1;

    assert(size <= IMAGE_PROBE_BYTES);
    for (; *drivers; drivers++) {
        const struct block_driver *driver = *drivers;
        int score = driver->image && driver->image->probe ? driver->image->probe(head, size, filename) : 0;

        if (score > best_score) {
            best = driver->name;
            best_score = score;
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(known_formats); i++) {
        const struct known *known = &known_formats[i];

        if (known->score > best_score && known->matches(&probe)) {
            best = known->name;
            best_score = known->score;
        }
    }
    return best;
}

const char *CO_FN co_probe_handle(struct handle *handle, const char *filename, struct error **err)
{
    uint8_t head[IMAGE_PROBE_BYTES];
    size_t size = MIN(handle_length(handle), sizeof(head));
    int result = co_handle_pread(handle, 0, size, head, 0);

    if (result < 0) {
        error_set_errno(err, result, "Could not read image for determining its format");
        return NULL;
    }
    return probe_format(block_drivers, head, size, filename);
}
