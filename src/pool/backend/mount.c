/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/mount.h"

#include <glib.h>
#include <libmount.h>
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/pool.h"

/* libmount may run a helper program and wait for it, so all of it happens on a worker thread. */
struct mount_call {
    const struct mount_request *request;
    char message[512];
};

static int do_mount(void *opaque)
{
    struct mount_call *call = opaque;
    const struct mount_request *request = call->request;
    struct libmnt_context *context = mnt_new_context();
    int failed = !context;

    if (context) {
        failed = mnt_context_set_source(context, request->source) || mnt_context_set_target(context, request->target) ||
                 (request->type && mnt_context_set_fstype(context, request->type)) ||
                 mnt_context_set_options(context, request->options);
    }
    if (failed) {
        g_strlcpy(call->message, "out of memory", sizeof(call->message));
    } else {
        int ret = mnt_context_mount(context);

        /* An exit status as mount(8) has it, with the sentence that it would print. */
        failed = mnt_context_get_excode(context, ret, call->message, sizeof(call->message));
        if (failed && !*call->message)
            g_snprintf(call->message, sizeof(call->message), "mount failed with status %d", failed);
    }
    if (context)
        mnt_free_context(context);
    return failed ? -1 : 0;
}

/* By that very name. */
static bool is_in_table(const char *target)
{
    struct libmnt_table *table = mnt_new_table_from_file("/proc/self/mountinfo");
    bool found = table && mnt_table_find_target(table, target, MNT_ITER_BACKWARD);

    mnt_unref_table(table);
    return found;
}

static int do_unmount(void *opaque)
{
    struct mount_call *call = opaque;
    struct libmnt_context *context = mnt_new_context();
    int failed = -1;

    /* What is mounted there may not answer, so it is better not to look at it. */
    if (context && is_in_table(call->request->target))
        (void)mnt_context_disable_canonicalize(context, 1);
    if (context && !mnt_context_set_target(context, call->request->target)) {
        int ret = mnt_context_umount(context);

        failed = mnt_context_get_excode(context, ret, call->message, sizeof(call->message));
        if (failed && !*call->message)
            g_snprintf(call->message, sizeof(call->message), "umount failed with status %d", failed);
    }
    if (context)
        mnt_free_context(context);
    return failed ? -1 : 0;
}

bool CO_FN co_mount(const struct mount_request *request, struct pool_error **err)
{
    struct mount_call call = {.request = request};

    return !co_worker_run(do_mount, &call) || pool_error_set(err, POOL_ERROR_INTERNAL, "cannot mount '%s' on '%s': %s",
                                                             request->source, request->target, call.message);
}

bool CO_FN co_unmount(const char *target, struct pool_error **err)
{
    struct mount_request request = {.target = target};
    struct mount_call call = {.request = &request};

    return !co_worker_run(do_unmount, &call) ||
           pool_error_set(err, POOL_ERROR_INTERNAL, "cannot unmount '%s': %s", target, call.message);
}

/* Names of hosts and directories are no paths, and stay as they are. */
static char *resolve(const char *path)
{
    char *real = *path == '/' ? realpath(path, NULL) : NULL;
    char *copy = g_strdup(real ? real : path);

    free(real);
    return copy;
}

static bool is_mount_of(struct libmnt_fs *fs, const char *source, const char *target, bool resolved)
{
    const char *fs_source = mnt_fs_get_source(fs);
    const char *fs_target = mnt_fs_get_target(fs);
    g_autofree char *real = fs_source && resolved ? resolve(fs_source) : g_strdup(fs_source);

    return real && fs_target && !strcmp(fs_target, target) && !strcmp(real, source);
}

static bool has_mount(struct libmnt_table *table, const char *source, const char *target, bool resolved)
{
    struct libmnt_iter *iterator = mnt_new_iter(MNT_ITER_BACKWARD);
    struct libmnt_fs *fs;
    bool found = false;

    while (table && iterator && !found && !mnt_table_next_fs(table, iterator, &fs))
        found = is_mount_of(fs, source, target, resolved);
    mnt_free_iter(iterator);
    return found;
}

/* By the names first: to resolve a place where a server's directory is mounted waits for that server, however long it
 * does not answer. */
static int look_for_mount(void *opaque)
{
    const struct mount_request *request = ((const struct mount_call *)opaque)->request;
    struct libmnt_table *table = mnt_new_table_from_file("/proc/self/mountinfo");
    bool found = has_mount(table, request->source, request->target, false);

    if (!found) {
        g_autofree char *source = resolve(request->source);
        g_autofree char *target = resolve(request->target);

        found = has_mount(table, source, target, true);
    }
    mnt_unref_table(table);
    return found;
}

bool CO_FN co_is_mounted(const char *source, const char *target)
{
    struct mount_request request = {.source = source, .target = target};
    struct mount_call call = {.request = &request};

    return co_worker_run(look_for_mount, &call) == 1;
}

char *mount_options(const struct pool *pool, const char *more)
{
    const struct pool_def *def = pool->def;
    GString *options = g_string_new("nodev,nosuid,noexec");

    if (more)
        g_string_append_printf(options, ",%s", more);
    for (size_t i = 0; i < def->option_count; i++)
        g_string_append_printf(options, ",%s", def->options[i].name);
    return g_string_free(options, FALSE);
}
