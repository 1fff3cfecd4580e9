/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pools and volumes from definition to removal, in a directory of the test's own. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "block/graph.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "object/object.h"
#include "pool/pool-error.h"
#include "pool/pool-secret.h"
#include "pool/storage.h"

/* --- secrets: there are none --- */

struct secret_value *CO_FN co_pool_secret_get(struct pool_secrets *secrets, const uint8_t *uuid, enum secret_usage type,
                                              const char *usage, struct pool_error **err)
{
    pool_error_set(err, POOL_ERROR_NO_SECRET, "no secret");
    return NULL;
}

bool CO_FN co_pool_secret_find(struct pool_secrets *secrets, enum secret_usage type, const char *usage,
                               uint8_t uuid[16])
{
    return false;
}

void secret_value_free(struct secret_value *value)
{
    g_free(value);
}

/* --- a daemon's worth of storage --- */

struct fixture {
    char *top, *config, *state, *target;
    struct object_registry *objects;
    struct graph *graph;
    struct storage *storage;
    GString *events;
    struct storage_listener listener;
};

static struct fixture *current;

static void heard(struct storage_listener *listener, const struct pool_id *pool, enum pool_event event)
{
    g_string_append_printf(current->events, "%s:%d ", pool->name, event);
}

static void heard_refresh(struct storage_listener *listener, const struct pool_id *pool)
{
    g_string_append_printf(current->events, "%s:refresh ", pool->name);
}

static void open_storage(struct fixture *fixture)
{
    struct storage_config config = {fixture->config, fixture->state, true};
    AUTO(pool_error) error = NULL;

    fixture->storage = storage_new(&config, fixture->graph, NULL, &error);
    g_assert_nonnull(fixture->storage);
    storage_listen(fixture->storage, &fixture->listener);
    co_storage_load(fixture->storage);
}

static void close_storage(struct fixture *fixture)
{
    storage_stop(fixture->storage);
    co_storage_close(fixture->storage);
    storage_free(fixture->storage);
}

static void run_shell(const char *command)
{
    int status = 0;

    g_assert_true(g_spawn_command_line_sync(command, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
}

static void begin(struct fixture *fixture)
{
    *fixture = (struct fixture){.listener = {heard, heard_refresh}};
    current = fixture;
    fixture->top = g_dir_make_tmp("ashlar-pool-XXXXXX", NULL);
    fixture->config = g_build_filename(fixture->top, "etc", "storage", NULL);
    fixture->state = g_build_filename(fixture->top, "run", "storage", NULL);
    fixture->target = g_build_filename(fixture->top, "images", NULL);
    fixture->events = g_string_new(NULL);
    fixture->objects = object_registry_new();
    fixture->graph = graph_new(fixture->objects, NULL);
    open_storage(fixture);
}

static void finish(struct fixture *fixture)
{
    g_autofree char *remove = g_strdup_printf("rm -rf %s", fixture->top);

    close_storage(fixture);
    co_graph_free(fixture->graph);
    co_object_registry_free(fixture->objects);
    run_shell(remove);
    g_string_free(fixture->events, TRUE);
    g_free(fixture->top);
    g_free(fixture->config);
    g_free(fixture->state);
    g_free(fixture->target);
}

static char *pool_xml(const struct fixture *fixture, const char *name)
{
    return g_strdup_printf("<pool type='dir'><name>%s</name><target><path>%s</path></target></pool>", name,
                           fixture->target);
}

static struct pool_id *start_pool(struct fixture *fixture, const char *name)
{
    g_autofree char *xml = pool_xml(fixture, name);
    AUTO(pool_error) error = NULL;
    struct pool_id *id = co_storage_pool_define_xml(fixture->storage, xml, 0, &error);

    g_assert_nonnull(id);
    g_assert_true(co_storage_pool_start(fixture->storage, id, 1, &error));
    return id;
}

static void expect(struct pool_error **error, const char *message)
{
    g_assert_nonnull(*error);
    g_assert_cmpstr((*error)->message, ==, message);
    pool_error_free(*error);
    *error = NULL;
}

/* --- pools --- */

static void co_pool_life(void *opaque)
{
    struct fixture fixture;
    struct pool_error *error = NULL;
    AUTO(pool_id) id = NULL;
    AUTO(pool_id_array) list = NULL;
    g_autofree char *xml = NULL;
    g_autofree char *config_file = NULL;
    g_autofree char *again = NULL;
    struct pool_info info;
    bool autostart = false;

    begin(&fixture);
    id = start_pool(&fixture, "demo");
    config_file = g_build_filename(fixture.config, "demo.xml", NULL);
    g_assert_true(g_file_test(config_file, G_FILE_TEST_IS_REGULAR));
    g_assert_true(storage_pool_get_info(fixture.storage, id, &info, NULL));
    g_assert_cmpint(info.state, ==, POOL_RUNNING);
    g_assert_cmpuint(info.capacity, >, 0);
    g_assert_cmpuint(info.capacity, ==, info.allocation + info.available);
    g_assert_false(co_storage_pool_start(fixture.storage, id, 0, &error));
    expect(&error, "Requested operation is not valid: storage pool 'demo' is already active");
    g_assert_true(co_storage_pool_set_autostart(fixture.storage, id, true, NULL));

    /* What runs goes on running when the daemon is started again. */
    close_storage(&fixture);
    open_storage(&fixture);
    list = storage_pool_list(fixture.storage, 2, NULL);
    g_assert_cmpuint(list->count, ==, 1);
    g_assert_true(storage_pool_get_autostart(fixture.storage, id, &autostart, NULL));
    g_assert_true(autostart);

    xml = storage_pool_get_xml(fixture.storage, id, 0, NULL);
    g_assert_nonnull(strstr(xml, "  <source>\n  </source>\n  <target>\n    <path>"));
    again = pool_xml(&fixture, "other");
    g_assert_null(co_storage_pool_define_xml(fixture.storage, again, 0, &error));
    expect(&error, "operation failed: Storage source conflict with pool: 'demo'");

    g_assert_true(co_storage_pool_destroy(fixture.storage, id, NULL));
    g_assert_false(co_storage_pool_destroy(fixture.storage, id, &error));
    expect(&error, "Requested operation is not valid: storage pool 'demo' is not active");
    g_assert_true(co_storage_pool_delete(fixture.storage, id, 0, NULL));
    g_assert_false(g_file_test(fixture.target, G_FILE_TEST_EXISTS));
    g_assert_true(co_storage_pool_undefine(fixture.storage, id, NULL));
    g_assert_false(g_file_test(config_file, G_FILE_TEST_EXISTS));
    g_assert_cmpstr(fixture.events->str, ==, "demo:0 demo:2 demo:3 demo:5 demo:1 ");
    finish(&fixture);
}

static void co_redefined_while_running(void *opaque)
{
    struct fixture fixture;
    AUTO(pool_id) id = NULL;
    AUTO(pool_id) same = NULL;
    g_autofree char *xml = NULL;
    g_autofree char *changed = NULL;
    g_autofree char *inactive = NULL;
    g_autofree char *running = NULL;
    g_autofree char *stopped = NULL;
    GString *text;

    begin(&fixture);
    id = start_pool(&fixture, "demo");
    xml = storage_pool_get_xml(fixture.storage, id, 0, NULL);
    text = g_string_new(xml);
    g_string_replace(text, "/images</path>", "/elsewhere</path>", 0);
    changed = g_string_free(text, FALSE);
    same = co_storage_pool_define_xml(fixture.storage, changed, 0, NULL);
    g_assert_nonnull(same);
    running = storage_pool_get_xml(fixture.storage, id, 0, NULL);
    inactive = storage_pool_get_xml(fixture.storage, id, 1, NULL);
    g_assert_nonnull(strstr(running, "/images</path>"));
    g_assert_nonnull(strstr(inactive, "/elsewhere</path>"));
    g_assert_true(co_storage_pool_destroy(fixture.storage, id, NULL));
    stopped = storage_pool_get_xml(fixture.storage, id, 0, NULL);
    g_assert_nonnull(strstr(stopped, "/elsewhere</path>"));
    finish(&fixture);
}

static void co_transient_pool(void *opaque)
{
    struct fixture fixture;
    struct pool_error *error = NULL;
    g_autofree char *xml = NULL;
    AUTO(pool_id) id = NULL;
    bool persistent = true;

    begin(&fixture);
    xml = pool_xml(&fixture, "fleeting");
    g_assert_null(co_storage_pool_create_xml(fixture.storage, xml, 0, &error));
    g_assert_cmpint(error->code, ==, POOL_ERROR_SYSTEM);
    pool_error_free(TAKE(error));
    g_assert_null(storage_pool_by_name(fixture.storage, "fleeting", NULL));
    id = co_storage_pool_create_xml(fixture.storage, xml, 1, NULL);
    g_assert_nonnull(id);
    g_assert_true(storage_pool_is_persistent(fixture.storage, id, &persistent, NULL));
    g_assert_false(persistent);
    g_assert_false(co_storage_pool_set_autostart(fixture.storage, id, true, &error));
    expect(&error, "internal error: pool has no config file");
    close_storage(&fixture);
    open_storage(&fixture);
    g_assert_true(co_storage_pool_destroy(fixture.storage, id, NULL));
    g_assert_null(storage_pool_by_name(fixture.storage, "fleeting", NULL));
    finish(&fixture);
}

static void co_second_daemon(void *opaque)
{
    struct fixture fixture;
    struct pool_error *error = NULL;
    struct storage_config config;

    begin(&fixture);
    config = (struct storage_config){fixture.config, fixture.state, true};
    g_assert_null(storage_new(&config, fixture.graph, NULL, &error));
    g_assert_cmpint(error->code, ==, POOL_ERROR_OPERATION_FAILED);
    pool_error_free(error);
    finish(&fixture);
}

struct rival {
    char *path;
    int end; /* atomic */
};

/* Daemons that come to an end as soon as they have begun. */
static void *begin_and_end(void *opaque)
{
    struct rival *rival = opaque;

    while (!g_atomic_int_get(&rival->end)) {
        AUTO(fd) fd = open(rival->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        struct stat ours;
        struct stat named;

        if (fd >= 0 && !file_lock_set(fd, 0, 1, FILE_LOCK_EXCLUSIVE) && !fstat(fd, &ours) &&
            !stat(rival->path, &named) && ours.st_ino == named.st_ino)
            unlink(rival->path);
    }
    return NULL;
}

/* Whoever begins while another one ends keeps a third one away, too. */
static void co_daemons_change(void *opaque)
{
    enum { TIMES = 300 };
    struct fixture fixture;
    struct storage_config config;
    struct rival rival = {0};
    GThread *thread;

    begin(&fixture);
    close_storage(&fixture);
    config = (struct storage_config){fixture.config, fixture.state, true};
    rival.path = g_build_filename(fixture.state, "driver.pid", NULL);
    thread = g_thread_new("rival", begin_and_end, &rival);
    for (int begun = 0; begun < TIMES;) {
        AUTO(fd) third = -1;

        fixture.storage = storage_new(&config, fixture.graph, NULL, NULL);
        if (!fixture.storage)
            continue;
        third = open(rival.path, O_RDWR | O_CLOEXEC);
        g_assert_cmpint(third, >=, 0);
        g_assert_cmpint(file_lock_set(third, 0, 1, FILE_LOCK_EXCLUSIVE), ==, -EAGAIN);
        close_storage(&fixture);
        begun++;
    }
    g_atomic_int_set(&rival.end, 1);
    g_thread_join(thread);
    open_storage(&fixture);
    finish(&fixture);
    g_free(rival.path);
}

/* A refresh that fails stops the pool. */
static void co_lost_directory(void *opaque)
{
    struct fixture fixture;
    struct pool_error *error = NULL;
    AUTO(pool_id) id = NULL;
    bool active = true;

    begin(&fixture);
    id = start_pool(&fixture, "demo");
    g_assert_cmpint(g_rmdir(fixture.target), ==, 0);
    g_assert_false(co_storage_pool_refresh(fixture.storage, id, 0, &error));
    g_assert_cmpint(error->code, ==, POOL_ERROR_SYSTEM);
    pool_error_free(TAKE(error));
    g_assert_true(storage_pool_is_active(fixture.storage, id, &active, NULL));
    g_assert_false(active);
    g_assert_cmpstr(fixture.events->str, ==, "demo:0 demo:2 demo:3 ");
    finish(&fixture);
}

/* --- volumes --- */

static struct volume_id *make(struct fixture *fixture, const struct pool_id *pool, const char *name, const char *rest)
{
    g_autofree char *xml = g_strdup_printf("<volume><name>%s</name>%s</volume>", name, rest);
    struct pool_error *error = NULL;
    struct volume_id *id = co_storage_volume_create_xml(fixture->storage, pool, xml, 0, &error);

    if (error)
        g_test_message("%s", error->message);
    g_assert_null(error);
    return id;
}

static void co_volume_life(void *opaque)
{
    struct fixture fixture;
    struct pool_error *error = NULL;
    AUTO(pool_id) pool = NULL;
    AUTO(volume_id) raw = NULL;
    AUTO(volume_id) found = NULL;
    AUTO(volume_id) image = NULL;
    AUTO(volume_id) copy = NULL;
    g_autofree char *path = NULL;
    g_autofree char *xml = NULL;
    struct volume_info info;

    begin(&fixture);
    pool = start_pool(&fixture, "demo");
    raw = make(&fixture, pool, "a.raw", "<capacity unit='M'>8</capacity><allocation>0</allocation>");
    g_assert_true(co_storage_volume_get_info(fixture.storage, raw, 0, &info, NULL));
    g_assert_cmpuint(info.capacity, ==, 8 << 20);
    g_assert_cmpuint(info.allocation, ==, 0);
    path = storage_volume_get_path(fixture.storage, raw, NULL);
    g_assert_cmpstr(path, ==, raw->key);
    found = co_storage_volume_by_path(fixture.storage, path, NULL);
    g_assert_cmpstr(found->name, ==, "a.raw");

    image = make(&fixture, pool, "b.qcow2", "<capacity unit='M'>64</capacity><target><format type='qcow2'/></target>");
    g_assert_true(co_storage_volume_resize(fixture.storage, image, 128 << 20, 0, NULL));
    g_assert_true(co_storage_volume_get_info(fixture.storage, image, 0, &info, NULL));
    g_assert_cmpuint(info.capacity, ==, 128 << 20);
    g_assert_false(co_storage_volume_resize(fixture.storage, image, 64 << 20, 0, &error));
    expect(&error,
           "invalid argument: Can't shrink capacity below current capacity unless shrink flag explicitly specified");
    copy = co_storage_volume_create_xml_from(
        fixture.storage, pool,
        "<volume><name>c.raw</name><allocation>0</allocation><target><format type='raw'/></target></volume>", image, 0,
        &error);
    g_assert_null(error);
    g_assert_true(co_storage_pool_refresh(fixture.storage, pool, 0, NULL));
    xml = co_storage_volume_get_xml(fixture.storage, image, 0, NULL);
    g_assert_nonnull(strstr(xml, "    <compat>1.1</compat>\n    <clusterSize unit='B'>65536</clusterSize>\n"
                                 "    <features/>\n"));
    g_assert_true(co_storage_volume_wipe(fixture.storage, image, 0, 0, NULL));
    g_assert_false(co_storage_volume_delete(fixture.storage, image, 2, &error));
    expect(&error, "unsupported flags (0x2) in function virStorageBackendVolDeleteLocal");
    g_assert_true(co_storage_volume_delete(fixture.storage, image, 0, NULL));
    g_assert_true(co_storage_volume_delete(fixture.storage, copy, 0, NULL));
    g_assert_false(co_storage_volume_delete(fixture.storage, copy, 0, &error));
    expect(&error, "Storage volume not found: no storage vol with matching name 'c.raw'");
    finish(&fixture);
}

static void co_bad_volumes(void *opaque)
{
    static const struct {
        const char *xml, *message;
    } cases[] = {
        {"<volume><name>../x</name><capacity>1</capacity></volume>",
         "Requested operation is not valid: volume name '../x' cannot contain '/'"},
        {"<volume><name>a&#10;b</name><capacity>1</capacity></volume>",
         "Requested operation is not valid: volume name 'a\nb' cannot contain control characters"},
        {"<volume><capacity>1</capacity></volume>", "XML error: missing volume name element"},
        {"<volume><name>a</name><capacity>x</capacity></volume>", "XML error: malformed capacity element"},
        {"<volume><name>a</name><capacity unit='zorks'>1</capacity></volume>",
         "invalid argument: unknown suffix 'zorks'"},
        {"<volume><name>a</name><capacity unit='E'>99</capacity></volume>", "numerical overflow: value too large: 99E"},
        {"<volume><name>a</name><capacity>1</capacity><target><format type='zork'/></target></volume>",
         "unsupported configuration: unknown volume format type zork"},
        {"<volume><name>a</name><capacity>1</capacity><target><format type='vdi'/></target></volume>",
         "unsupported configuration: volume 'a' cannot be made: there is no driver that writes images of format "
         "'vdi'"},
        {"<volume><name>link</name><capacity>1</capacity></volume>", NULL},
    };
    struct fixture fixture;
    AUTO(pool_id) pool = NULL;
    g_autofree char *link = NULL;

    begin(&fixture);
    pool = start_pool(&fixture, "demo");
    link = g_build_filename(fixture.target, "link", NULL);
    g_assert_cmpint(symlink("/nowhere/at/all", link), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct pool_error *error = NULL;

        g_assert_null(co_storage_volume_create_xml(fixture.storage, pool, cases[i].xml, 0, &error));
        if (cases[i].message)
            g_assert_cmpstr(error->message, ==, cases[i].message);
        g_assert_nonnull(error);
        pool_error_free(error);
    }
    finish(&fixture);
}

static void co_streams(void *opaque)
{
    struct fixture fixture;
    struct pool_error *error = NULL;
    AUTO(pool_id) pool = NULL;
    AUTO(volume_id) id = NULL;
    struct volume_stream *stream;
    char text[] = "0123456789";
    const struct iovec halves[] = {{text, 5}, {text + 5, 5}};
    uint64_t hole;

    begin(&fixture);
    pool = start_pool(&fixture, "demo");
    id = make(&fixture, pool, "a.raw", "<capacity unit='M'>1</capacity><allocation>0</allocation>");
    stream = co_storage_volume_upload(fixture.storage, id, 0, 10, 0, NULL);
    g_assert_true(co_volume_stream_write(stream, halves, 2, NULL));
    g_assert_false(co_volume_stream_write(stream, halves, 1, &error));
    expect(&error, "cannot write to stream: No space left on device");
    g_assert_false(co_volume_stream_write_hole(stream, 5, &error));
    expect(&error, "internal error: unexpected stream hole");
    g_assert_true(co_volume_stream_finish(stream, NULL));
    co_volume_stream_close(stream);

    stream = co_storage_volume_download(fixture.storage, id, 2, 0, 1, NULL);
    g_assert_nonnull(stream);
    memset(text, 0, sizeof(text));
    g_assert_cmpint(co_volume_stream_read(stream, text, 4, &hole, NULL), ==, 4);
    g_assert_cmpstr(text, ==, "2345");
    do {
        char rest[65536];
        int64_t got = co_volume_stream_read(stream, rest, sizeof(rest), &hole, NULL);

        g_assert_cmpint(got, >=, 0);
        if (!got)
            break;
    } while (true);
    g_assert_cmpuint(hole, >, 0);
    co_volume_stream_close(stream);
    finish(&fixture);
}

/* --- what a daemon that died has left --- */

static void co_leftovers(void *opaque)
{
    struct fixture fixture;
    AUTO(pool_id) pool = NULL;
    AUTO(volume_id_array) volumes = NULL;
    g_autofree char *idle = NULL;
    g_autofree char *busy = NULL;
    g_autofree char *folder = NULL;
    AUTO(fd) fd = -1;

    begin(&fixture);
    pool = start_pool(&fixture, "demo");
    idle = g_build_filename(fixture.target, ".ashlar-new-0123456789abcdef", NULL);
    busy = g_build_filename(fixture.target, ".ashlar-new-1123456789abcdef", NULL);
    folder = g_build_filename(fixture.target, ".ashlar-new-2123456789abcdef", NULL);
    g_assert_true(g_file_set_contents(idle, "half", -1, NULL));
    g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
    fd = open(busy, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(file_lock_set(fd, 0, 1, FILE_LOCK_EXCLUSIVE), ==, 0);
    g_assert_true(co_storage_pool_refresh(fixture.storage, pool, 0, NULL));
    volumes = storage_volume_list(fixture.storage, pool, 0, NULL);
    g_assert_cmpuint(volumes->count, ==, 0);
    g_assert_false(g_file_test(idle, G_FILE_TEST_EXISTS));
    g_assert_false(g_file_test(folder, G_FILE_TEST_EXISTS));
    g_assert_true(g_file_test(busy, G_FILE_TEST_EXISTS));
    finish(&fixture);
}

/* --- looking again --- */

static uint64_t capacity_of(struct fixture *fixture, const struct volume_id *id)
{
    struct volume_info info = {0};

    g_assert_true(co_storage_volume_get_info(fixture->storage, id, 0, &info, NULL));
    return info.capacity;
}

/* What others do to a file shows at once, however soon after our own look it comes. */
static void co_changes_by_others(void *opaque)
{
    struct fixture fixture;
    AUTO(pool_id) pool = NULL;
    AUTO(volume_id) id = NULL;
    g_autofree char *path = NULL;
    struct volume_info info;

    begin(&fixture);
    pool = start_pool(&fixture, "demo");
    id = make(&fixture, pool, "a.raw", "<capacity>65536</capacity>");
    path = g_build_filename(fixture.target, "a.raw", NULL);
    for (int i = 1; i < 50; i++) {
        g_assert_cmpint(truncate(path, i * 4096), ==, 0);
        g_assert_cmpuint(capacity_of(&fixture, id), ==, i * 4096);
    }
    g_assert_true(co_storage_pool_refresh(fixture.storage, pool, 0, NULL));
    /* Long enough for what was seen to be believed the next time. */
    g_assert_cmpint(co_sleep_ns(INT64_C(200) * 1000 * 1000), ==, 0);
    g_assert_cmpuint(capacity_of(&fixture, id), ==, 49 * 4096);
    g_assert_cmpuint(capacity_of(&fixture, id), ==, 49 * 4096);
    g_assert_cmpint(truncate(path, 512), ==, 0);
    g_assert_cmpuint(capacity_of(&fixture, id), ==, 512);
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_false(co_storage_volume_get_info(fixture.storage, id, 0, &info, NULL));
    finish(&fixture);
}

/* --- what takes long --- */

/* A piece of work on the volume "a.raw" by a coroutine of its own. */
struct long_work {
    struct fixture *fixture;
    const struct pool_id *pool;
    const struct volume_id *id;
    bool done;
    bool ok;
    struct pool_error *error;
};

static void CO_FN co_resize_slowly(void *opaque)
{
    struct long_work *work = opaque;

    work->ok = co_storage_volume_resize(work->fixture->storage, work->id, 1 << 20, 0, &work->error);
    work->done = true;
}

static void CO_FN co_clone_slowly(void *opaque)
{
    struct long_work *work = opaque;
    AUTO(volume_id)
    copy = co_storage_volume_create_xml_from(work->fixture->storage, work->pool,
                                             "<volume><name>copy.raw</name><capacity>65536</capacity></volume>",
                                             work->id, 2, &work->error);

    work->ok = copy;
    work->done = true;
}

/* While somebody's open file keeps the work waiting, others make, look at and delete volumes of the same pool. */
static void CO_FN co_others_go_on(co_entry *entry, bool clone)
{
    struct fixture fixture;
    AUTO(pool_id) pool = NULL;
    AUTO(volume_id) id = NULL;
    AUTO(volume_id) other = NULL;
    struct long_work work = {.fixture = &fixture};
    struct pool_error *error = NULL;
    struct volume_info info;
    struct co_task *task;
    AUTO(fd) fd = -1;

    begin(&fixture);
    pool = start_pool(&fixture, "demo");
    id = make(&fixture, pool, "a.raw", "<capacity>65536</capacity>");
    work.pool = pool;
    work.id = id;
    /* What is known of the file is good after a while, and need not be read again. */
    g_assert_cmpint(co_sleep_ns(INT64_C(200) * 1000 * 1000), ==, 0);
    g_assert_true(co_storage_volume_get_info(fixture.storage, id, 0, &info, NULL));
    /* The system lets nobody open the file before we have agreed, or a long time has passed. */
    fd = open(id->key, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(fcntl(fd, F_SETLEASE, F_WRLCK), ==, 0);
    task = co_task_start(loop_current(), entry, &work);
    other = make(&fixture, pool, "b.raw", "<capacity>4096</capacity>");
    g_assert_true(co_storage_volume_get_info(fixture.storage, other, 0, &info, NULL));
    g_assert_true(co_storage_volume_resize(fixture.storage, other, 8192, 0, NULL));
    g_assert_true(co_storage_volume_delete(fixture.storage, other, 0, NULL));
    g_assert_false(work.done);
    g_assert_false(co_storage_volume_delete(fixture.storage, id, 0, &error));
    expect(&error, "Requested operation is not valid: volume 'a.raw' is still in use.");
    g_assert_false(co_storage_pool_destroy(fixture.storage, pool, &error));
    expect(&error, "internal error: pool 'demo' has asynchronous jobs running.");
    g_assert_cmpint(fcntl(fd, F_SETLEASE, F_UNLCK), ==, 0);
    co_task_join(task);
    /* Not every file system shares blocks, and that is all that may be wrong. */
    g_assert_true(work.ok || (clone && strstr(work.error->message, "failed to clone files")));
    pool_error_free(work.error);
    g_assert_true(co_storage_volume_delete(fixture.storage, id, 0, NULL));
    finish(&fixture);
}

static void co_slow_resize(void *opaque)
{
    co_others_go_on(co_resize_slowly, false);
}

static void co_slow_clone(void *opaque)
{
    co_others_go_on(co_clone_slowly, true);
}

static void CO_FN co_wipe_slowly(void *opaque)
{
    struct long_work *work = opaque;

    work->ok = co_storage_volume_wipe(work->fixture->storage, work->id, 8, 0, &work->error);
    work->done = true;
}

/* A wipe writes many pieces, and between any two of them the pool's lock is free. */
static void co_slow_wipe(void *opaque)
{
    struct fixture fixture;
    AUTO(pool_id) pool = NULL;
    AUTO(volume_id) id = NULL;
    struct long_work work = {.fixture = &fixture};
    struct co_task *task;
    unsigned made = 0;

    begin(&fixture);
    pool = start_pool(&fixture, "demo");
    id = make(&fixture, pool, "a.raw", "<capacity unit='M'>64</capacity>");
    work.id = id;
    task = co_task_start(loop_current(), co_wipe_slowly, &work);
    while (!work.done) {
        struct volume_id *other = make(&fixture, pool, "b.raw", "<capacity>4096</capacity>");

        g_assert_true(co_storage_volume_delete(fixture.storage, other, 0, NULL));
        volume_id_free(other);
        made += !work.done;
    }
    co_task_join(task);
    g_assert_true(work.ok);
    g_assert_cmpuint(made, >, 0);
    finish(&fixture);
}

/* --- running them --- */

static void run(const void *data)
{
    struct loop_options options = {0};
    AUTO(error) error = NULL;
    struct loop *loop = loop_new(&options, &error);
    co_entry *const *entry = data;

    g_assert_nonnull(loop);
    co_run(loop, *entry, NULL);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        co_entry *entry;
    } cases[] = {
        {"/pool/life", co_pool_life},
        {"/pool/redefined", co_redefined_while_running},
        {"/pool/transient", co_transient_pool},
        {"/pool/second-daemon", co_second_daemon},
        {"/pool/daemons-change", co_daemons_change},
        {"/pool/lost-directory", co_lost_directory},
        {"/volume/life", co_volume_life},
        {"/volume/bad", co_bad_volumes},
        {"/volume/streams", co_streams},
        {"/volume/leftovers", co_leftovers},
        {"/volume/changed-by-others", co_changes_by_others},
        {"/volume/slow/resize", co_slow_resize},
        {"/volume/slow/clone", co_slow_clone},
        {"/volume/slow/wipe", co_slow_wipe},
    };

    g_test_init(&argc, &argv, NULL);
    signal(SIGIO, SIG_IGN); /* by which the system asks for a file back */
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        g_test_add_data_func(cases[i].name, &cases[i].entry, run);
    return g_test_run();
}
