/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/temporary-image.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/handle.h"
#include "block/image.h"
#include "cli/image-open.h"
#include "cli/tool.h"
#include "gen/types.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "schema/json.h"

static const char format[] = "qcow2";

/* A new file that only we may use; its path, owned. */
static char *CO_FN co_make_file(struct error **err)
{
    const char *folder = g_getenv("TMPDIR");
    uint64_t random;
    g_autofree char *path = NULL;
    int fd;

    loop_random_bytes(&random, sizeof(random));
    path = g_strdup_printf("%s/ashlar-%016" PRIx64, folder && *folder == '/' ? folder : "/var/tmp", random);
    fd = co_file_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) {
        error_set_errno(err, fd, "Could not create temporary file '%s'", path);
        return NULL;
    }
    fd_close(fd);
    return TAKE(path);
}

static bool CO_FN co_make_image(struct tool *tool, const char *path, uint64_t size, struct error **err)
{
    const struct block_driver *const *driver = block_drivers;
    AUTO(blockdev_create_options) options = NULL;
    AUTO(json) json = json_object();
    struct json *file = json_object();

    while (*driver && strcmp((*driver)->name, format) != 0)
        driver++;
    if (!*driver || !(*driver)->image || !(*driver)->image->co_create) {
        json_free(file);
        return error_set(err, "This build has no driver '%s', in which temporary images are", format);
    }
    json_set(file, "driver", json_string("file"));
    json_set(file, "filename", json_string(path));
    json_set(json, "driver", json_string(format));
    json_set(json, "file", file);
    json_set(json, "size", json_uint(size));
    options = blockdev_create_options_parse(json, err);
    return options && (*driver)->image->co_create(tool->graph, options, err);
}

struct image *co_temporary_image_open(struct tool *tool, struct image *base, struct error **err)
{
    struct image_open how = {
        .format = format,
        .cache = {.no_flush = true},
        .writable = true,
        .unmap = true,
        .backing_node = base->name,
    };
    g_autofree char *path = co_make_file(err);
    struct image *image = NULL;

    if (!path)
        return NULL;
    how.filename = path;
    if (co_make_image(tool, path, handle_length(base->handle), err))
        image = co_image_open(tool, &how, err);
    (void)co_file_unlink(path);
    return image;
}
