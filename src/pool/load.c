/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the daemon finds when it starts, and when it is told to look again. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/definition-list.h"
#include "pool/pool-error.h"
#include "pool/storage-internal.h"
#include "pool/xml/document.h"

/* For so long clients wait at the daemon's start for pools whose server, device or tool does not answer. */
static const int64_t load_patience_ns = 5 * NS_PER_S;

/* --- reading files --- */

/* The definition in NAME.xml of `directory`; NULL: what is wrong has been logged. */
static struct pool_def *CO_FN co_read(const char *directory, const char *name)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL);
    g_autofree char *path = g_build_filename(directory, file, NULL);
    g_autofree char *text = NULL;
    AUTO(pool_error) pool_error = NULL;
    AUTO(pool_def) def = NULL;
    AUTO(error) error = NULL;
    size_t size;

    if (!co_file_load(path, XML_TEXT_MAX, &text, &size, &error)) {
        log_error("%s", error_message(error));
        return NULL;
    }
    if (strlen(text) != size) {
        log_error("'%s' is not XML: it has a NUL byte", path);
        return NULL;
    }
    def = pool_def_parse(text, true, &pool_error);
    if (!def) {
        log_error("Failed to load '%s': %s", path, pool_error->message);
        return NULL;
    }
    if (strcmp(def->name, name) != 0) {
        log_error("XML error: Storage pool config filename '%s' does not match pool name '%s'", path, def->name);
        return NULL;
    }
    return TAKE(def);
}

static struct pool *find_same(struct storage *storage, const struct pool_def *def)
{
    struct pool *pool = g_hash_table_lookup(storage->by_uuid, def->uuid);
    const struct pool *named = g_hash_table_lookup(storage->by_name, def->name);

    return pool == named ? pool : NULL;
}

/* Whether another pool has its name or uuid; that is logged. */
static bool is_taken(struct storage *storage, const struct pool_def *def)
{
    AUTO(pool_error) error = NULL;
    struct pool *same;

    if (storage_check_duplicate(storage, def, false, &same, &error))
        return false;
    log_error("Failed to load pool '%s': %s", def->name, error->message);
    return true;
}

static void CO_FN co_load_state(struct storage *storage, const char *name)
{
    struct pool_def *def = co_read(storage->state_directory, name);
    g_autofree char *path = storage_state_path(storage, name);
    struct pool *pool;

    if (!def)
        return;
    if (access(path, F_OK)) {
        /* It has been stopped while its file was read, and is not to come back by that. */
        pool_def_free(def);
        return;
    }
    if (!pool_backend_find(def->type))
        log_error("Pool '%s' is of type '%s', which this build has no backend for", name,
                  pool_type_info(def->type)->name);
    if (!pool_backend_find(def->type) || find_same(storage, def) || is_taken(storage, def)) {
        pool_def_free(def);
        return;
    }
    pool = pool_new(storage, pool_backend_find(def->type), def);
    /* Until it has been looked at. */
    pool->active = true;
    storage_add_pool(storage, pool);
}

struct link_question {
    const char *link;
    const char *target;
};

static int is_link_to(void *opaque)
{
    const struct link_question *question = opaque;
    struct stat link;
    struct stat target;

    return !stat(question->link, &link) && !stat(question->target, &target) && link.st_dev == target.st_dev &&
           link.st_ino == target.st_ino;
}

static void CO_FN co_load_config(struct storage *storage, const char *name)
{
    struct pool_def *def = co_read(storage->config_directory, name);
    g_autofree char *path = storage_config_path(storage, name);
    g_autofree char *link = storage_autostart_path(storage, name);
    struct link_question question = {link, path};
    struct pool *pool;

    if (!def)
        return;
    pool = find_same(storage, def);
    if (!pool && is_taken(storage, def)) {
        pool_def_free(def);
        return;
    }
    if (!pool) {
        pool = pool_new(storage, pool_backend_find(def->type), def);
        storage_add_pool(storage, pool);
    } else if (pool->active || !co_mutex_try_lock(&pool->lock)) {
        pool_def_free(pool->pending);
        pool->pending = def;
    } else {
        storage_set_definition(pool, def);
        co_mutex_unlock(&pool->lock);
    }
    if (!pool->config_path)
        pool->config_path = TAKE(path);
    question.target = pool->config_path;
    pool->autostart = co_worker_run(is_link_to, &question);
}

static GStrv CO_FN co_list(const char *directory)
{
    GStrv names;
    int ret = co_definition_list(directory, &names);

    if (ret)
        log_error("cannot read the directory of pools '%s': %s", directory, g_strerror(-ret));
    return names;
}

/* Those that run first: a definition of the same pool waits for its end then. */
static void CO_FN co_load_files(struct storage *storage)
{
    g_auto(GStrv) states = co_list(storage->state_directory);
    g_auto(GStrv) configs = co_list(storage->config_directory);

    for (char **name = states; *name; name++)
        co_load_state(storage, *name);
    for (char **name = configs; *name; name++)
        co_load_config(storage, *name);
}

/* --- looking whether they are there --- */

/* Under the lock. */
static bool CO_FN co_is_there(struct pool *pool)
{
    AUTO(pool_error) error = NULL;
    bool active = false;

    if (!pool->backend)
        return false;
    if (!pool->backend->co_check)
        return pool->active;
    if (pool->backend->co_check(pool, &active, &error))
        return active;
    log_error("Failed to initialize storage pool '%s': %s", pool->def->name, error->message);
    return false;
}

/* Under the lock: it does not run any more. */
static void CO_FN co_forget_running(struct pool *pool)
{
    pool->active = false;
    co_storage_remove_state(pool->storage, pool->def->name);
    if (!pool->config_path)
        storage_remove_pool(pool);
}

static void CO_FN co_look_at(struct pool *pool)
{
    const struct storage *storage = pool->storage;
    AUTO(pool_error) error = NULL;
    bool was_active = pool->active;
    bool there;

    co_mutex_lock(&pool->lock);
    there = !pool->removed && co_is_there(pool);
    if (there && co_pool_refresh(pool, &error)) {
        pool->active = true;
    } else if (storage->closing) {
        /* Looking was cut short, so nobody knows, and the next daemon has to look again. */
    } else if (there) {
        log_error("Failed to restart storage pool '%s': %s", pool->def->name, error->message);
        co_pool_give_up(pool, false);
    } else if (was_active && !pool->removed) {
        co_forget_running(pool);
    }
    pool_unlock(pool);
}

/* A copy of the set with a reference of each, because looking at one may take it out. */
static GPtrArray *reference_all(struct storage *storage)
{
    GPtrArray *pools = g_ptr_array_new();

    for (guint i = 0; i < storage->pools->len; i++)
        g_ptr_array_add(pools, pool_ref(g_ptr_array_index(storage->pools, i)));
    return pools;
}

static void unreference_all(GPtrArray *pools)
{
    for (guint i = 0; i < pools->len; i++)
        pool_unref(g_ptr_array_index(pools, i));
    g_ptr_array_free(pools, TRUE);
}

/* --- starting by themselves --- */

static void CO_FN co_autostart(struct storage *storage)
{
    GPtrArray *pools = reference_all(storage);

    for (guint i = 0; i < pools->len; i++) {
        const struct pool *pool = g_ptr_array_index(pools, i);
        AUTO(pool_error) error = NULL;
        AUTO(pool_id) id = NULL;

        if (pool->removed || !pool->autostart || pool->active || pool->starting || storage->closing)
            continue;
        id = pool_get_id(pool);
        if (!co_pool_start_quietly(storage, id, &error))
            log_error("Failed to autostart storage pool '%s': %s", id->name, error->message);
    }
    unreference_all(pools);
}

static char *first_time_path(const struct storage *storage)
{
    return g_build_filename(storage->state_directory, "autostarted", NULL);
}

/* Whether this is the first time since the host was booted: the state directory does not outlive that. */
static bool CO_FN co_is_first_time(const struct storage *storage)
{
    g_autofree char *path = first_time_path(storage);
    AUTO(fd) fd = co_file_open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

    if (fd < 0 && fd != -EEXIST)
        log_error("Failed to create file '%s': %s", path, g_strerror(-fd));
    return fd >= 0;
}

static void CO_FN co_load_pool(void *opaque)
{
    co_look_at(opaque);
}

/* The end has come in between: the next daemon starts those that are left. */
static void CO_FN co_leave_first_time(const struct storage *storage)
{
    g_autofree char *path = first_time_path(storage);

    (void)co_file_unlink(path);
}

/* All at once, so that one that does not answer holds up no other. */
static void CO_FN co_load_pools(void *opaque)
{
    struct storage *storage = opaque;
    GPtrArray *pools = reference_all(storage);
    g_autofree struct co_task **tasks = g_new0(struct co_task *, pools->len);

    for (guint i = 0; i < pools->len; i++)
        tasks[i] = co_task_start(storage->loop, co_load_pool, g_ptr_array_index(pools, i));
    for (guint i = 0; i < pools->len; i++)
        co_task_join(tasks[i]);
    unreference_all(pools);
    if (!storage->closing && co_is_first_time(storage)) {
        co_autostart(storage);
        if (storage->closing)
            co_leave_first_time(storage);
    }
    storage->loading = false;
    co_condition_broadcast(&storage->loaded);
    co_group_done(&storage->work);
}

void CO_FN co_storage_load(struct storage *storage)
{
    struct co_deadline deadline;
    int ret = 0;

    storage->loading = true;
    co_mutex_lock(&storage->definitions);
    co_load_files(storage);
    co_mutex_unlock(&storage->definitions);
    co_group_add(&storage->work, 1);
    co_spawn(storage->loop, co_load_pools, storage);
    co_deadline_begin(&deadline, load_patience_ns);
    while (!ret && storage->loading)
        ret = co_condition_wait(&storage->loaded, NULL);
    co_deadline_end(&deadline);
    if (storage->loading)
        log_warning("some pools have not answered yet: clients are served while they are waited for");
}

void CO_FN co_storage_reload(struct storage *storage)
{
    GPtrArray *known;
    GPtrArray *pools;

    if (storage->loading) {
        log_warning("Still loading: the request to look again is ignored");
        return;
    }
    storage->loading = true;
    co_mutex_lock(&storage->definitions);
    known = reference_all(storage); /* under the lock, so that what clients make meanwhile is not taken for ours */
    co_load_files(storage);
    pools = reference_all(storage);
    co_mutex_unlock(&storage->definitions);
    /* What was there before goes on as it was; running pools that came by a file are looked at. */
    for (guint i = 0; i < pools->len; i++) {
        struct pool *pool = g_ptr_array_index(pools, i);

        if (pool->active && !g_ptr_array_find(known, pool, NULL))
            co_look_at(pool);
    }
    unreference_all(pools);
    unreference_all(known);
    co_autostart(storage);
    storage->loading = false;
}
