/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP: character devices. */
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "chardev/chardev.h"
#include "chardev/ringbuf.h"
#include "gen/commands.h"
#include "qmp/daemon.h"

bool co_qmp_chardev_add(struct daemon *daemon, const struct chardev_add_arg *arg, struct chardev_return **ret,
                        struct error **err)
{
    return co_chardev_add(daemon->chardevs, arg->id, arg->backend, ret, err);
}

bool co_qmp_chardev_change(struct daemon *daemon, const struct chardev_change_arg *arg, struct chardev_return **ret,
                           struct error **err)
{
    return co_chardev_change(daemon->chardevs, arg->id, arg->backend, ret, err);
}

bool co_qmp_chardev_remove(struct daemon *daemon, const struct chardev_remove_arg *arg, struct error **err)
{
    return co_chardev_remove(daemon->chardevs, arg->id, err);
}

bool co_qmp_chardev_send_break(struct daemon *daemon, const struct chardev_send_break_arg *arg, struct error **err)
{
    return co_chardev_send_break(daemon->chardevs, arg->id, err);
}

bool co_qmp_query_chardev(struct daemon *daemon, struct chardev_info_array **ret, struct error **err)
{
    *ret = chardev_query(daemon->chardevs);
    return true;
}

bool co_qmp_query_chardev_backends(struct daemon *daemon, struct chardev_backend_info_array **ret, struct error **err)
{
    *ret = chardev_query_backends();
    return true;
}

/* --- ring buffers --- */

/* The bytes that `data` stands for; owned. NULL and the error where it is no base64. */
static guchar *data_decode(const char *data, bool base64, gsize *ret_size, struct error **err)
{
    g_autofree char *again = NULL;
    guchar *bytes;

    if (!base64) {
        *ret_size = strlen(data);
        return (guchar *)g_strdup(data);
    }
    bytes = g_base64_decode(data, ret_size);
    /* The decoder skips what it does not know: only what can be made again from the bytes was base64 in whole. */
    again = g_base64_encode(bytes, *ret_size);
    if (strcmp(again, data)) {
        g_free(bytes);
        error_set(err, "Base64 data contains invalid characters");
        return NULL;
    }
    return bytes;
}

bool co_qmp_ringbuf_write(struct daemon *daemon, const struct ringbuf_write_arg *arg, struct error **err)
{
    bool base64 = arg->has_format && arg->format == DATA_FORMAT_BASE64;
    gsize size;
    g_autofree guchar *bytes = data_decode(arg->data, base64, &size, err);

    return bytes && chardev_ringbuf_append(daemon->chardevs, arg->device, bytes, size, err);
}

bool co_qmp_ringbuf_read(struct daemon *daemon, const struct ringbuf_read_arg *arg, char **ret, struct error **err)
{
    bool base64 = arg->has_format && arg->format == DATA_FORMAT_BASE64;
    struct ringbuf_read_options options = {.whole_characters = !base64};
    g_autofree uint8_t *bytes = NULL;
    size_t size;

    if (arg->size <= 0)
        return error_set(err, "size must be greater than zero");
    options.size = (uint64_t)arg->size;
    if (!chardev_ringbuf_take(daemon->chardevs, arg->device, &options, &bytes, &size, err))
        return false;
    *ret = base64 ? g_base64_encode(bytes, size) : g_utf8_make_valid((const char *)bytes, (gssize)size);
    return true;
}
