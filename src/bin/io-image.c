/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands about the image as a whole: its length, what is allocated in it, what it is. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "bin/img-text.h"
#include "bin/io-request.h"
#include "bin/io.h"
#include "block/describe.h"
#include "block/driver.h"
#include "block/handle.h"
#include "block/node.h"
#include "cli/tool.h"
#include "gen/types.h"
#include "loop/loop.h"
#include "schema/json.h"

enum { SECTOR_BYTES = 512 };

/* How far from `offset` on the image itself has, or has not, what lies there: 1 or 0, or -errno. */
static int CO_FN co_is_allocated(struct handle *handle, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes)
{
    int depth = co_handle_allocation_depth(handle, offset, bytes, ret_bytes);

    return depth < 0 ? depth : depth == 1;
}

bool co_io_alloc(struct io_session *session, int count, char **words)
{
    struct handle *handle = session->image->handle;
    uint64_t offset, bytes = SECTOR_BYTES;
    uint64_t allocated = 0;
    g_autofree char *where = NULL;

    if (!io_parse_size(words[1], &offset) || (count > 2 && !io_parse_size(words[2], &bytes)))
        return false;
    bytes = MIN(bytes, handle_length(handle) - MIN(handle_length(handle), offset));
    for (uint64_t done = 0, extent; done < bytes; done += extent) {
        int ret = co_is_allocated(handle, offset + done, bytes - done, &extent);

        if (ret < 0) {
            printf("is_allocated failed: %s\n", g_strerror(-ret));
            return false;
        }
        allocated += ret ? extent : 0;
    }
    where = io_size_text((double)offset);
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", allocated, bytes, where);
    return true;
}

static void print_area(bool allocated, uint64_t offset, uint64_t bytes)
{
    g_autofree char *size = io_size_text((double)bytes);
    g_autofree char *where = io_size_text((double)offset);

    printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n", size, bytes,
           allocated ? "   " : "not", where, offset);
}

bool co_io_map(struct io_session *session, int count, char **words)
{
    struct handle *handle = session->image->handle;
    uint64_t length = handle_length(handle);
    uint64_t start = 0, extent;
    int state = -1;

    if (!length) {
        printf("Image has no data\n");
        return true;
    }
    for (uint64_t offset = 0; offset < length; offset += extent) {
        int ret = co_is_allocated(handle, offset, length - offset, &extent);

        if (ret < 0) {
            printf("Failed to get allocation status: %s\n", g_strerror(-ret));
            return false;
        }
        if (state >= 0 && ret != state) {
            print_area(state, start, offset - start);
            start = offset;
        }
        state = ret;
    }
    print_area(state, start, length - start);
    return true;
}

bool co_io_length(struct io_session *session, int count, char **words)
{
    g_autofree char *text = io_size_text((double)handle_length(session->image->handle));

    printf("%s\n", text);
    return true;
}

bool co_io_info(struct io_session *session, int count, char **words)
{
    /* What the filter for copy-on-read shows is the image beneath. */
    struct image *image = session->open.copy_on_read ? session->base : session->image;
    struct node *node = image->node;
    struct image_info *info = co_node_describe_image(node, false);
    AUTO(json) specific = info->format_specific ? image_info_specific_write(info->format_specific) : NULL;
    const struct json *data = specific ? json_get(specific, "data") : NULL;
    struct node_info facts = {0};
    g_autofree char *cluster = NULL, *vm_state = NULL;

    (void)co_node_get_info(node, &facts);
    cluster = io_size_text((double)facts.cluster_size);
    vm_state = io_size_text((double)facts.vm_state_offset);

    printf("format name: %s\n"
           "cluster size: %s\n"
           "vm state offset: %s\n",
           node_driver_name(node), cluster, vm_state);
    if (data && json_count(data)) {
        printf("Format specific information:\n");
        img_print_members(data, 1);
    }
    image_info_free(info);
    return true;
}

bool co_io_flush(struct io_session *session, int count, char **words)
{
    int ret = co_handle_flush(session->image->handle);

    if (ret < 0)
        printf("flush failed: %s\n", g_strerror(-ret));
    return ret == 0;
}

/* --- discard --- */

static bool parse_discard(struct io_words *words, struct io_report *report)
{
    bool quiet = false;
    int letter;

    while ((letter = io_option_next(words, "Cq")) != -1) {
        if (letter == 'C')
            report->machine = true;
        else if (letter == 'q')
            quiet = true;
        else
            return io_usage(words->words[0]);
    }
    if (words->first != words->count - 2)
        return io_usage(words->words[0]);
    if (!io_parse_size(words->words[words->first], &report->offset) ||
        !io_parse_size(words->words[words->first + 1], &report->requested))
        return false;
    if (report->requested > IO_REQUEST_BYTES_MAX) {
        printf("length cannot exceed %d, given %s\n", IO_REQUEST_BYTES_MAX, words->words[words->first + 1]);
        return false;
    }
    report->verb = quiet ? NULL : "discard";
    return true;
}

bool co_io_discard(struct io_session *session, int count, char **words)
{
    struct handle *handle = session->image->handle;
    struct io_words rest = {.count = count, .words = words};
    struct io_report report = {0};
    int64_t started_ns;
    int ret = -EIO;

    if (!parse_discard(&rest, &report))
        return false;
    started_ns = loop_now_ns();
    if (range_fits(report.offset, report.requested, handle_length(handle)))
        ret = co_handle_pdiscard(handle, report.offset, report.requested);
    report.duration_ns = loop_now_ns() - started_ns;
    report.done = report.requested;
    if (ret < 0) {
        printf("discard failed: %s\n", g_strerror(-ret));
        return false;
    }
    if (report.verb)
        io_report_print(&report);
    return true;
}

/* --- truncate --- */

static bool CO_FN co_resize(struct io_session *session, uint64_t length, enum prealloc_mode mode, struct error **err)
{
    struct handle *handle = session->image->handle;
    struct truncate_request request = {.length = length, .preallocation = mode};
    uint32_t perm = PERM_CONSISTENT_READ | PERM_WRITE;
    AUTO(error) unwanted = NULL;
    bool ok;

    /* Only for as long as it takes: others may have the image open. */
    if (!co_handle_set_permissions(handle, perm | PERM_RESIZE, PERM_ALL, err))
        return false;
    ok = co_handle_truncate_as(handle, &request, err) == 0;
    (void)!co_handle_set_permissions(handle, perm, PERM_ALL, &unwanted);
    return ok;
}

bool co_io_truncate(struct io_session *session, int count, char **words)
{
    struct io_words rest = {.count = count, .words = words};
    int mode = PREALLOC_MODE_OFF;
    AUTO(error) error = NULL;
    uint64_t length;
    int letter;

    while ((letter = io_option_next(&rest, "m:")) != -1) {
        if (letter != 'm')
            return io_usage(words[0]);
        mode = prealloc_mode_value(rest.value);
        if (mode < 0) {
            log_error("Invalid preallocation mode '%s'", rest.value);
            return false;
        }
    }
    if (rest.first == count)
        return io_usage(words[0]);
    if (!io_parse_size(words[rest.first], &length))
        return false;
    if (co_resize(session, length, (enum prealloc_mode)mode, &error))
        return true;
    tool_report(error);
    return false;
}
