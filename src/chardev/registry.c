/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The chardevs of a daemon: adding, changing, removing and listing them. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "loop/file.h"

const struct chardev_ops *const chardev_backends[] = {
    &chardev_file_ops,     &chardev_serial_ops,
    &chardev_parallel_ops, &chardev_pipe_ops,
    &chardev_socket_ops,   &chardev_udp_ops,
    &chardev_pty_ops,      &chardev_null_ops,
    &chardev_mux_ops,      &chardev_hub_ops,
    &chardev_stdio_ops,    &chardev_ringbuf_ops,
    &chardev_memory_ops,   NULL,
};

const struct chardev_ops *chardev_backend_find(enum chardev_backend_kind kind, struct error **err)
{
    for (const struct chardev_ops *const *ops = chardev_backends; *ops; ops++) {
        if ((*ops)->kind == kind)
            return *ops;
    }
    error_set(err, "'%s' is not a valid char driver name", chardev_backend_kind_name(kind));
    return NULL;
}

struct chardev_registry *chardev_registry_new(struct object_registry *objects)
{
    struct chardev_registry *registry = g_new0(struct chardev_registry, 1);

    registry->objects = objects;
    registry->chardevs = g_ptr_array_new();
    return registry;
}

void chardev_registry_set_quit(struct chardev_registry *registry, void (*quit)(void *opaque), void *opaque)
{
    registry->quit = quit;
    registry->quit_opaque = opaque;
}

static guint registry_index(const struct chardev_registry *registry, const struct chardev *chardev)
{
    guint index = 0;
    bool found = g_ptr_array_find(registry->chardevs, chardev, &index);

    assert(found);
    return index;
}

struct chardev *chardev_find(struct chardev_registry *registry, const char *id)
{
    for (guint i = 0; i < registry->chardevs->len; i++) {
        struct chardev *chardev = registry->chardevs->pdata[i];

        if (!strcmp(chardev->id, id))
            return chardev;
    }
    return NULL;
}

/* Frees what is around the backend's own state. */
static void chardev_free(struct chardev *chardev)
{
    assert(!chardev->frontend_count);
    co_condition_done(&chardev->changed);
    co_mutex_done(&chardev->write_mutex);
    fd_close(chardev->log_fd);
    g_free(chardev->pty);
    g_free(chardev->state);
    g_free(chardev->id);
    g_free(chardev);
}

static void CO_FN co_chardev_destroy(struct chardev *chardev)
{
    assert(!chardev->frontend_count);
    if (chardev->ops->co_destroy)
        chardev->ops->co_destroy(chardev);
    chardev_free(chardev);
}

/* Those that stand on others go first: they were made later. */
void co_chardev_registry_free(struct chardev_registry *registry)
{
    if (!registry)
        return;
    while (registry->chardevs->len)
        co_chardev_destroy(g_ptr_array_steal_index(registry->chardevs, registry->chardevs->len - 1));
    g_ptr_array_free(registry->chardevs, TRUE);
    g_free(registry);
}

/* --- making one --- */

struct log_options {
    const char *path; /* NULL: no log */
    bool append;
};

/* The options that all backends have. */
static struct log_options backend_log_options(const struct chardev_backend *backend)
{
#define LOG_OPTIONS_OF(data) ((struct log_options){(data)->logfile, (data)->has_logappend && (data)->logappend})
    switch (backend->type) {
    case CHARDEV_BACKEND_KIND_FILE:
        return LOG_OPTIONS_OF(backend->u.file.data);
    case CHARDEV_BACKEND_KIND_SERIAL:
        return LOG_OPTIONS_OF(backend->u.serial.data);
    case CHARDEV_BACKEND_KIND_PARALLEL:
        return LOG_OPTIONS_OF(backend->u.parallel.data);
    case CHARDEV_BACKEND_KIND_PIPE:
        return LOG_OPTIONS_OF(backend->u.pipe.data);
    case CHARDEV_BACKEND_KIND_SOCKET:
        return LOG_OPTIONS_OF(backend->u.socket.data);
    case CHARDEV_BACKEND_KIND_UDP:
        return LOG_OPTIONS_OF(backend->u.udp.data);
    case CHARDEV_BACKEND_KIND_PTY:
        return LOG_OPTIONS_OF(backend->u.pty.data);
    case CHARDEV_BACKEND_KIND_NULL:
        return LOG_OPTIONS_OF(backend->u.null.data);
    case CHARDEV_BACKEND_KIND_MUX:
        return LOG_OPTIONS_OF(backend->u.mux.data);
    case CHARDEV_BACKEND_KIND_HUB:
        return LOG_OPTIONS_OF(backend->u.hub.data);
    case CHARDEV_BACKEND_KIND_STDIO:
        return LOG_OPTIONS_OF(backend->u.stdio.data);
    case CHARDEV_BACKEND_KIND_RINGBUF:
        return LOG_OPTIONS_OF(backend->u.ringbuf.data);
    case CHARDEV_BACKEND_KIND_MEMORY:
        return LOG_OPTIONS_OF(backend->u.memory.data);
    default:
        return (struct log_options){0};
    }
#undef LOG_OPTIONS_OF
}

static bool CO_FN co_log_open(const struct log_options *options, int *ret_fd, struct error **err)
{
    int fd;

    *ret_fd = -1;
    if (!options->path)
        return true;
    /* Not to wait for the reader of a FIFO. It is emptied only when all else has gone well. */
    fd = co_file_open(options->path, O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | (options->append ? O_APPEND : 0),
                      0666);
    if (fd < 0)
        return error_set_errno(err, fd, "Could not create '%s'", options->path);
    *ret_fd = fd;
    return true;
}

/* A chardev that is in no registry's list yet. */
static struct chardev *CO_FN co_chardev_new(struct chardev_registry *registry, const char *id,
                                            const struct chardev_backend *backend, struct error **err)
{
    const struct chardev_ops *ops = chardev_backend_find(backend->type, err);
    struct log_options log = backend_log_options(backend);
    struct chardev *chardev;
    int log_fd;

    if (!ops || !co_log_open(&log, &log_fd, err))
        return NULL;
    chardev = g_new0(struct chardev, 1);
    chardev->registry = registry;
    chardev->id = g_strdup(id);
    chardev->ops = ops;
    chardev->log_fd = log_fd;
    chardev->state = g_malloc0(ops->state_size);
    if (!ops->co_create(chardev, backend, err)) {
        chardev_free(chardev);
        return NULL;
    }
    /* What is no regular file has nothing to empty. */
    if (log_fd >= 0 && !log.append)
        (void)co_file_truncate(log_fd, 0);
    return chardev;
}

bool co_chardev_create(struct chardev_registry *registry, const char *id, const struct chardev_backend *backend,
                       struct chardev **ret_chardev, struct error **err)
{
    struct chardev *chardev;

    if (!*id)
        return error_set(err, "the id is empty");
    if (chardev_find(registry, id))
        return error_set(err, "Chardev with id '%s' already exists", id);
    chardev = co_chardev_new(registry, id, backend, err);
    if (!chardev)
        return false;
    /* Making it may have taken a while. */
    if (chardev_find(registry, id)) {
        co_chardev_destroy(chardev);
        return error_set(err, "Chardev with id '%s' already exists", id);
    }
    g_ptr_array_add(registry->chardevs, chardev);
    if (ret_chardev)
        *ret_chardev = chardev;
    return true;
}

static struct chardev_return *chardev_result(const struct chardev *chardev)
{
    struct chardev_return *result = g_new0(struct chardev_return, 1);

    result->pty = g_strdup(chardev->pty);
    return result;
}

bool co_chardev_add(struct chardev_registry *registry, const char *id, const struct chardev_backend *backend,
                    struct chardev_return **ret, struct error **err)
{
    struct chardev *chardev;

    if (chardev_find(registry, id))
        return error_set(err, "Chardev with id '%s' already exists", id);
    if (!co_chardev_create(registry, id, backend, &chardev, err))
        return error_prefix(err, "Failed to add chardev '%s': ", id);
    *ret = chardev_result(chardev);
    return true;
}

/* --- what happens to it later --- */

bool co_chardev_change(struct chardev_registry *registry, const char *id, const struct chardev_backend *backend,
                       struct chardev_return **ret, struct error **err)
{
    struct chardev *old = chardev_find(registry, id);
    struct chardev *new;

    if (!old)
        return error_set(err, "Chardev '%s' does not exist", id);
    if (old->ops->kind == CHARDEV_BACKEND_KIND_MUX || backend->type == CHARDEV_BACKEND_KIND_MUX)
        return error_set(err, "Mux device hotswap not supported yet");
    if (old->frontend_count)
        return error_set(err, "Chardev user does not support chardev hotswap");
    new = co_chardev_new(registry, id, backend, err);
    if (!new)
        return error_prefix(err, "Failed to add chardev '%s': ", id);
    if (chardev_find(registry, id) != old || old->frontend_count) {
        co_chardev_destroy(new);
        return error_set(err, "Chardev '%s' is busy", id);
    }
    /* The new one may stand on others that are younger than the old one was: see co_chardev_registry_free(). */
    g_ptr_array_remove_index(registry->chardevs, registry_index(registry, old));
    g_ptr_array_add(registry->chardevs, new);
    co_chardev_destroy(old);
    *ret = chardev_result(new);
    return true;
}

bool co_chardev_remove(struct chardev_registry *registry, const char *id, struct error **err)
{
    struct chardev *chardev = chardev_find(registry, id);

    if (!chardev)
        return error_set(err, "Chardev '%s' not found", id);
    if (chardev->frontend_count)
        return error_set(err, "Chardev '%s' is busy", id);
    g_ptr_array_remove_index(registry->chardevs, registry_index(registry, chardev));
    co_chardev_destroy(chardev);
    return true;
}

bool co_chardev_send_break(struct chardev_registry *registry, const char *id, struct error **err)
{
    struct chardev *chardev = chardev_find(registry, id);

    if (!chardev)
        return error_set(err, "Chardev '%s' not found", id);
    if (chardev->ops->co_send_break)
        chardev->ops->co_send_break(chardev);
    return true;
}

const char *chardev_backend_of(struct chardev_registry *registry, const char *id)
{
    const struct chardev *chardev = chardev_find(registry, id);

    return chardev ? chardev_backend_kind_name(chardev->ops->kind) : NULL;
}

static struct chardev_info *chardev_query_one(const struct chardev *chardev)
{
    struct chardev_info *info = g_new0(struct chardev_info, 1);

    info->label = g_strdup(chardev->id);
    info->filename = chardev->ops->describe ? chardev->ops->describe(chardev)
                                            : g_strdup(chardev_backend_kind_name(chardev->ops->kind));
    info->frontend_open = chardev_in_use(chardev);
    return info;
}

struct chardev_info_array *chardev_query(struct chardev_registry *registry)
{
    struct chardev_info_array *array = g_new0(struct chardev_info_array, 1);

    array->count = registry->chardevs->len;
    array->items = g_new0(struct chardev_info *, array->count);
    for (size_t i = 0; i < array->count; i++)
        array->items[i] = chardev_query_one(registry->chardevs->pdata[i]);
    return array;
}

struct chardev_backend_info_array *chardev_query_backends(void)
{
    struct chardev_backend_info_array *array = g_new0(struct chardev_backend_info_array, 1);

    array->count = G_N_ELEMENTS(chardev_backends) - 1;
    array->items = g_new0(struct chardev_backend_info *, array->count);
    for (size_t i = 0; i < array->count; i++) {
        array->items[i] = g_new0(struct chardev_backend_info, 1);
        array->items[i]->name = g_strdup(chardev_backend_kind_name(chardev_backends[i]->kind));
    }
    return array;
}
