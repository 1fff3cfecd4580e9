/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/watch.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>

#include "base/log.h"
#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "pool/backend/files.h"
#include "pool/backend/new-file.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"

enum {
    WATCHES_MAX = 1024, /* directories; beyond that, refreshes look at all */
    CHANGED_MAX = 4096, /* names; beyond that, looking at all costs less */
    READ_SIZE = 64 << 10,
};

/* Who makes many files is not asked about each: what has come by then is looked at together. */
static const int64_t gather_ns = 50 * NS_PER_MS;

static const uint32_t events_of_files =
    IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ATTRIB;
static const uint32_t events_of_folder = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED;

struct pool_watcher {
    struct storage *storage;
    int fd;
    GHashTable *pools; /* by watch descriptor; borrowed */
    struct co_task *task;
    bool full_said; /* that the kernel has no more watches */
};

struct pool_watch {
    struct pool_watcher *watcher;
    int descriptor;
    dev_t device;
    ino_t inode;
    bool scanned;        /* since the watch began, and with success */
    bool lost;           /* something that has happened since is not in `changed` */
    bool updating;       /* somebody is going to look at what is */
    GHashTable *changed; /* set of names, owned */
    GHashTable *passing; /* the same of files that are to get their names later (backend/new-file.h) */
};

static GHashTable *new_names(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

/* --- events --- */

/* All changes since the last scan are known. */
static bool is_whole(const struct pool_watch *watch)
{
    return watch->scanned && !watch->lost;
}

static void note_name(struct pool_watch *watch, GHashTable *names, const char *name)
{
    if (g_hash_table_size(names) >= CHANGED_MAX)
        watch->lost = true;
    else
        g_hash_table_add(names, g_strdup(name));
}

static void note_change(struct pool *pool, const char *name, bool gone)
{
    struct pool_watch *watch = pool->watch;
    const struct volume *known = pool_find_volume(pool, name);

    if (!files_can_show(name))
        return;
    if (new_file_has_such_name(name)) {
        gone ? (void)g_hash_table_remove(watch->passing, name) : note_name(watch, watch->passing, name);
        return;
    }
    /* What a client has had made stays as the client knows it until somebody refreshes the pool. */
    if (known && !known->scanned.near && !gone)
        return;
    /* It came and went: nobody has seen it, nor is about to. */
    if (!known && gone && watch->scanned && !watch->updating) {
        g_hash_table_remove(watch->changed, name);
        return;
    }
    note_name(watch, watch->changed, name);
}

static void lose_all(struct pool_watcher *watcher)
{
    GHashTableIter iter;
    void *pool;

    g_hash_table_iter_init(&iter, watcher->pools);
    while (g_hash_table_iter_next(&iter, NULL, &pool))
        ((struct pool *)pool)->watch->lost = true;
}

static void take_event(struct pool_watcher *watcher, const struct inotify_event *event)
{
    struct pool *pool = g_hash_table_lookup(watcher->pools, GINT_TO_POINTER(event->wd));

    if (event->mask & IN_Q_OVERFLOW)
        lose_all(watcher);
    else if (pool && event->mask & events_of_folder)
        pool->watch->lost = true;
    else if (pool && event->len)
        note_change(pool, event->name, event->mask & (IN_DELETE | IN_MOVED_FROM));
}

/* All that has come so far. Nothing suspends, so that who calls this knows of everything up to now. */
static void drain(struct pool_watcher *watcher)
{
    _Alignas(struct inotify_event) char buffer[READ_SIZE];
    ssize_t size;

    while ((size = fd_read_now(watcher->fd, buffer, sizeof(buffer))) > 0) {
        for (ssize_t at = 0; at < size;) {
            const struct inotify_event *event = (const struct inotify_event *)(const void *)(buffer + at);

            take_event(watcher, event);
            at += (ssize_t)(sizeof(*event) + event->len);
        }
    }
}

/* --- volumes that come and go --- */

/* What was found of a name; `volume` (owned) NULL: nothing that is a volume. */
static void take_name(struct pool *pool, const char *name, struct volume *volume)
{
    struct volume *known = pool_find_volume(pool, name);
    AUTO(pool_error) error = NULL;

    /* What a client is at work on, or has had made, is looked at by the next refresh. */
    if (known && (known->in_use || known->building || (volume && !known->scanned.near))) {
        volume_unref(volume);
        return;
    }
    if (known)
        pool_remove_volume(pool, known);
    if (volume && !pool_add_volume(pool, volume, &error))
        log_warning("%s", error->message);
}

static void CO_FN co_look(struct pool *pool)
{
    g_autoptr(GHashTable) names = TAKE(pool->watch->changed);
    GPtrArray *found = g_ptr_array_new();
    g_autofree void **keys = g_hash_table_get_keys_as_array(names, NULL);
    guint count = g_hash_table_size(names);

    pool->watch->changed = new_names();
    pool->watch->updating = true; /* again: what changes while we look is looked at once more */
    co_files_look(pool, (const char *const *)keys, count, found);
    for (guint i = 0; i < count; i++) {
        struct volume *volume = found->pdata[i];

        if (pool->watch)
            take_name(pool, keys[i], volume);
        else
            volume_unref(volume);
    }
    if (pool->watch)
        pool->watch->updating = false;
    g_ptr_array_free(found, TRUE);
}

/* Under the lock. */
static void CO_FN co_catch_up(struct pool *pool)
{
    AUTO(pool_error) error = NULL;

    if (!pool->active || !pool->watch)
        return;
    if (is_whole(pool->watch)) {
        co_look(pool);
    } else if (!pool->jobs && !co_pool_refresh(pool, &error)) {
        log_warning("pool '%s' has changed, and cannot be looked at: %s", pool->def->name, error->message);
        pool_watch_stop(pool); /* until somebody refreshes it */
    }
}

static void CO_FN co_update(void *opaque)
{
    struct pool *pool = opaque;
    struct storage *storage = pool->storage;

    if (co_pool_lock(pool, NULL)) {
        if (pool->watch)
            pool->watch->updating = false;
        co_catch_up(pool);
        pool_unlock(pool);
    } else if (pool->watch) {
        pool->watch->updating = false;
    }
    pool_unref(pool);
    co_group_done(&storage->work);
}

static void update_pools(struct pool_watcher *watcher)
{
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, watcher->pools);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct pool *pool = value;
        struct pool_watch *watch = pool->watch;

        if (watch->updating || (is_whole(watch) && !g_hash_table_size(watch->changed)))
            continue;
        watch->updating = true;
        co_group_add(&watcher->storage->work, 1);
        co_spawn(watcher->storage->loop, co_update, pool_ref(pool));
    }
}

static void CO_FN co_watch(void *opaque)
{
    struct pool_watcher *watcher = opaque;

    while (co_fd_poll(watcher->fd, POLLIN) >= 0 && !co_sleep_ns(gather_ns)) {
        drain(watcher);
        update_pools(watcher);
    }
}

/* --- watches --- */

static void say_full(struct pool_watcher *watcher, const char *path, int error)
{
    if (watcher->full_said)
        return;
    watcher->full_said = true;
    log_warning("'%s' cannot be watched (%s); refreshing such pools looks at all of their files", path,
                g_strerror(error));
}

static struct pool_watcher *watcher_of(struct storage *storage)
{
    struct pool_watcher *watcher = storage->watcher;

    if (watcher || storage->closing)
        return watcher;
    watcher = storage->watcher = g_new0(struct pool_watcher, 1);
    watcher->storage = storage;
    watcher->pools = g_hash_table_new(NULL, NULL);
    watcher->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watcher->fd < 0)
        say_full(watcher, storage->state_directory, errno);
    else
        watcher->task = co_task_start(storage->loop, co_watch, watcher);
    return watcher;
}

/* Of the open directory itself, whatever its path leads to by then. */
static void start(struct pool *pool, int folder, const struct stat *status)
{
    struct pool_watcher *watcher = watcher_of(pool->storage);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", folder);
    int descriptor;

    if (!watcher || watcher->fd < 0 || g_hash_table_size(watcher->pools) >= WATCHES_MAX)
        return;
    descriptor = inotify_add_watch(watcher->fd, path, events_of_files | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
    if (descriptor < 0) {
        say_full(watcher, pool->def->target_path, errno);
        return;
    }
    /* Another pool may have the same directory by another path; its watch tells of one of them. */
    if (g_hash_table_contains(watcher->pools, GINT_TO_POINTER(descriptor)))
        return;
    pool->watch = g_new0(struct pool_watch, 1);
    pool->watch->watcher = watcher;
    pool->watch->descriptor = descriptor;
    pool->watch->device = status->st_dev;
    pool->watch->inode = status->st_ino;
    pool->watch->changed = new_names();
    pool->watch->passing = new_names();
    g_hash_table_insert(watcher->pools, GINT_TO_POINTER(descriptor), pool);
}

static void watch_free(struct pool_watch *watch)
{
    (void)inotify_rm_watch(watch->watcher->fd, watch->descriptor); /* it may be gone with its directory */
    g_hash_table_destroy(watch->changed);
    g_hash_table_destroy(watch->passing);
    g_free(watch);
}

void pool_watch_stop(struct pool *pool)
{
    struct pool_watch *watch = TAKE(pool->watch);

    if (!watch)
        return;
    g_hash_table_remove(watch->watcher->pools, GINT_TO_POINTER(watch->descriptor));
    watch_free(watch);
}

static gboolean stop_one(void *descriptor, void *pool, void *opaque)
{
    watch_free(TAKE(((struct pool *)pool)->watch));
    return TRUE;
}

void co_pool_watcher_free(struct pool_watcher *watcher)
{
    if (!watcher)
        return;
    if (watcher->task)
        co_task_cancel(watcher->task);
    co_task_join(watcher->task);
    g_hash_table_foreach_steal(watcher->pools, stop_one, NULL);
    g_hash_table_destroy(watcher->pools);
    fd_close(watcher->fd);
    g_free(watcher);
}

static void add_copy(void *name, void *value, void *names)
{
    g_hash_table_add(names, g_strdup(name));
}

GHashTable *pool_watch_begin(struct pool *pool, int folder, const struct stat *status)
{
    struct pool_watch *watch = pool->watch;
    GHashTable *changed;
    bool whole;

    assert(status->st_ino);
    if (watch && (watch->device != status->st_dev || watch->inode != status->st_ino)) {
        pool_watch_stop(pool);
        watch = NULL;
    }
    if (watch)
        drain(watch->watcher);
    whole = watch && is_whole(watch);
    /* One that has lost something may have lost its directory. */
    if (watch && !whole)
        pool_watch_stop(pool);
    if (!whole) {
        start(pool, folder, status);
        return NULL;
    }
    changed = watch->changed;
    watch->changed = new_names();
    watch->scanned = false;
    g_hash_table_foreach(watch->passing, add_copy, changed);
    return changed;
}

void pool_watch_end(struct pool *pool, bool ok)
{
    if (pool->watch)
        pool->watch->scanned = ok;
}
