/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any text as the name of an image, as one in the header of another, and as its first bytes: options that can be
 * parsed, or a reason; a name that has been resolved needs no base any more; a format that there is.
 */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/filename-options.h"
#include "block/filename.h"
#include "block/image.h"
#include "block/probe.h"
#include "gen/types.h"
#include "loop/loop.h"
#include "loop/sim.h"
#include "schema/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const char *filename;
    const char *base; /* the file name of the image that names it */
};

static void CO_FN co_open_as(const char *filename, const char *format)
{
    const struct image_name name = {.filename = filename, .format = format};
    AUTO(error) err = NULL;
    AUTO(json) options = co_image_options(&name, &err);
    AUTO(blockdev_options) parsed = NULL;
    AUTO(error) parse_err = NULL;

    if (!options) {
        assert(error_message(err)[0]);
        return;
    }
    if (json_get(options, "driver"))
        parsed = image_options_parse(options, &parse_err);
    assert(!json_get(options, "driver") || parsed || error_message(parse_err)[0]);
}

static void CO_FN co_one_input(void *opaque)
{
    const struct input *input = opaque;
    AUTO(error) err = NULL;
    g_autofree char *resolved = filename_resolve(input->base, input->filename, &err);
    g_autofree char *again = resolved ? filename_resolve(input->base, resolved, NULL) : NULL;

    assert(resolved || error_message(err)[0]);
    /* What has a protocol or is absolute stays as it is. */
    if (resolved && (resolved[0] == '/' || filename_protocol_length(resolved)))
        assert(!strcmp(resolved, again));
    co_open_as(input->filename, NULL);
    co_open_as(input->filename, "qcow2");
    co_open_as(input->filename, "nbd");
    if (resolved)
        co_open_as(resolved, "raw");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    const char *rest = size > strlen(text) ? (const char *)data + strlen(text) + 1 : "";
    g_autofree char *base = g_strndup(rest, size > strlen(text) ? size - strlen(text) - 1 : 0);
    struct input input = {.filename = text, .base = base[0] ? base : NULL};
    const char *format = probe_format(block_drivers, data, MIN(size, IMAGE_PROBE_BYTES), text);
    AUTO(sim_disk) disk = sim_disk_new();
    struct loop *loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = 1}, NULL);

    assert(blockdev_driver_value(format) >= 0);
    sim_loop_set_disk(loop, disk);
    co_run(loop, co_one_input, &input);
    loop_free(loop);
    return 0;
}
