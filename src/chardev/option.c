/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* --chardev on a command line. */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "chardev/flat-option.h"
#include "schema/json.h"

/* Makes one and says, where nobody could know, which terminal it is. */
static bool CO_FN co_create_and_tell(struct chardev_registry *registry, const char *id,
                                     const struct chardev_backend *backend, struct error **err)
{
    struct chardev *chardev;

    if (!co_chardev_create(registry, id, backend, &chardev, err))
        return false;
    if (chardev->pty) {
        printf("char device redirected to %s (label %s)\n", chardev->pty, id);
        fflush(stdout);
    }
    return true;
}

/* A mux `id` over the chardev "ID-base". */
static bool CO_FN co_create_with_mux(struct chardev_registry *registry, const char *id,
                                     const struct chardev_backend *backend, struct error **err)
{
    g_autofree char *base = g_strdup_printf("%s-base", id);
    struct chardev_mux options = {.chardev = base};
    struct chardev_backend mux = {.type = CHARDEV_BACKEND_KIND_MUX, .u.mux.data = &options};

    if (chardev_find(registry, id))
        return error_set(err, "Chardev with id '%s' already exists", id);
    if (!co_create_and_tell(registry, base, backend, err))
        return false;
    if (co_chardev_create(registry, id, &mux, NULL, err))
        return true;
    if (!co_chardev_remove(registry, base, NULL))
        g_assert_not_reached();
    return false;
}

static bool CO_FN co_add_flat(struct chardev_registry *registry, const char *text, bool *ret_help, struct error **err)
{
    struct flat_option option = {0};
    AUTO(chardev_backend) backend = NULL;
    bool done = false;

    if (!flat_option_parse(text, &option, err))
        return false;
    *ret_help = option.help;
    if (option.help) {
        g_autofree char *help = flat_option_help(option.type);

        if (help)
            fputs(help, stdout);
        done = help || error_set(err, "'%s' is not a valid char driver name", option.type);
    } else {
        backend = chardev_backend_parse(option.backend, err);
        if (backend)
            done = option.mux ? co_create_with_mux(registry, option.id, backend, err)
                              : co_create_and_tell(registry, option.id, backend, err);
    }
    flat_option_done(&option);
    return done;
}

/* {"id": ..., "backend": {...}}, as chardev-add takes it. */
static bool CO_FN co_add_json(struct chardev_registry *registry, const char *text, struct error **err)
{
    AUTO(json) json = json_parse(text, strlen(text), err);
    AUTO(chardev_add_arg) arg = json ? chardev_add_arg_parse(json, err) : NULL;

    return arg && co_create_and_tell(registry, arg->id, arg->backend, err);
}

bool co_chardev_add_option(struct chardev_registry *registry, const char *text, bool *ret_help, struct error **err)
{
    *ret_help = false;
    return *text == '{' ? co_add_json(registry, text, err) : co_add_flat(registry, text, ret_help, err);
}
