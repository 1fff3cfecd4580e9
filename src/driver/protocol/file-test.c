/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file driver under a real graph, on files in /var/tmp: a file system in memory would not show all it does. */
#include "driver/format/raw.h"
#include "driver/protocol/file.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "object/object.h"
#include "schema/json.h"

enum { MIB = 1 << 20 };

static const struct block_driver *const drivers[] = {&file_driver, &host_device_driver, &host_cdrom_driver, &raw_driver,
                                                     NULL};

struct scene {
    struct loop *loop;
    struct object_registry *objects;
    struct graph *graph;
    char *folder;
    char *path; /* of the image */
    struct handle *handle;
    void (*co_test)(struct scene *scene);
};

/* --- files from outside --- */

static void image_make(const struct scene *scene, const char *data, size_t size, off_t length)
{
    g_assert_true(g_file_set_contents(scene->path, data, (gssize)size, NULL));
    g_assert_cmpint(truncate(scene->path, length), ==, 0);
}

static char *image_read(const struct scene *scene, size_t *ret_size)
{
    char *data;

    g_assert_true(g_file_get_contents(scene->path, &data, ret_size, NULL));
    return data;
}

static int64_t image_allocated(const struct scene *scene)
{
    struct stat status;

    g_assert_cmpint(stat(scene->path, &status), ==, 0);
    return (int64_t)status.st_blocks * 512;
}

/* --- nodes --- */

static bool CO_FN co_add(struct scene *scene, const char *options, struct error **err)
{
    g_autofree char *text =
        g_strdup_printf("{'driver': 'file', 'node-name': 'n', 'filename': '%s'%s}", scene->path, options);
    AUTO(json) json = json_parse(text, strlen(text), err);
    AUTO(blockdev_options) parsed = json ? blockdev_options_parse(json, err) : NULL;

    return parsed && co_graph_add(scene->graph, parsed, err);
}

/* Opens the image with more options (", 'x': y"), for all uses. */
static void CO_FN co_open(struct scene *scene, const char *options)
{
    struct handle_options handle = {.name = "test", .perm = PERM_ALL, .shared = PERM_ALL};
    AUTO(error) error = NULL;

    if (!co_add(scene, options, &error))
        g_error("%s", error_message(error));
    scene->handle = co_handle_new(graph_find(scene->graph, "n", NULL), &handle, &error);
    if (!scene->handle)
        g_error("%s", error_message(error));
}

static void CO_FN co_close(struct scene *scene)
{
    AUTO(error) error = NULL;

    co_handle_free(scene->handle);
    scene->handle = NULL;
    if (!co_graph_delete(scene->graph, "n", &error))
        g_error("%s", error_message(error));
}

static void CO_FN co_scene(void *opaque)
{
    struct scene *scene = opaque;

    scene->objects = object_registry_new();
    scene->graph = graph_new(scene->objects, NULL);
    graph_set_drivers(scene->graph, drivers);
    scene->co_test(scene);
    co_handle_free(scene->handle);
    co_graph_free(scene->graph);
    co_object_registry_free(scene->objects);
}

static void scene_run(void (*co_test)(struct scene *scene), enum loop_backend backend, bool may_block)
{
    AUTO(error) error = NULL;
    struct scene scene = {.co_test = co_test};

    scene.loop = loop_new(&(struct loop_options){.backend = backend, .may_block = may_block}, &error);
    g_assert_nonnull(scene.loop);
    scene.folder = g_mkdtemp(g_strdup("/var/tmp/ashlar-file-XXXXXX"));
    g_assert_nonnull(scene.folder);
    scene.path = g_build_filename(scene.folder, "image", NULL);
    co_run(scene.loop, co_scene, &scene);
    loop_free(scene.loop);
    g_unlink(scene.path);
    g_rmdir(scene.folder);
    g_free(scene.path);
    g_free(scene.folder);
}

/* --- data --- */

static void CO_FN co_check_pattern(struct scene *scene, uint64_t offset, size_t size, char byte)
{
    g_autofree char *data = g_malloc(size);

    g_assert_cmpint(co_handle_pread(scene->handle, offset, size, data, 0), ==, 0);
    for (size_t i = 0; i < size; i++)
        g_assert_cmpint(data[i], ==, byte);
}

static void CO_FN co_write_pattern(struct scene *scene, uint64_t offset, size_t size, char byte, unsigned flags)
{
    g_autofree char *data = g_malloc(size);

    memset(data, byte, size);
    g_assert_cmpint(co_handle_pwrite(scene->handle, offset, size, data, flags), ==, 0);
}

static void CO_FN co_data_round_trip(struct scene *scene)
{
    static const char *const options[] = {
        "",
        ", 'aio': 'threads'",
        ", 'aio': 'io_uring', 'aio-max-batch': 1",
        ", 'cache': {'direct': true}",
        ", 'cache': {'direct': true}, 'aio': 'native'",
        ", 'cache': {'direct': true}, 'aio': 'threads'",
        ", 'cache': {'no-flush': true}",
        ", 'locking': 'off'",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        image_make(scene, "", 0, 2 * MIB);
        if (strstr(options[i], "io_uring") && loop_get_backend(scene->loop) != LOOP_IO_URING)
            continue;
        co_open(scene, options[i]);
        co_check_pattern(scene, 0, 2 * MIB, 0);
        co_write_pattern(scene, 4096, 8192, 'a', 0);
        co_write_pattern(scene, 1000, 24, 'b', IO_FUA);
        co_write_pattern(scene, MIB + 1, MIB - 1, 'c', 0);
        g_assert_cmpint(co_handle_flush(scene->handle), ==, 0);
        co_check_pattern(scene, 0, 1000, 0);
        co_check_pattern(scene, 1000, 24, 'b');
        co_check_pattern(scene, 1024, 3072, 0);
        co_check_pattern(scene, 4096, 8192, 'a');
        co_check_pattern(scene, MIB + 1, MIB - 1, 'c');
        co_close(scene);
    }
}

static void CO_FN co_odd_end(struct scene *scene)
{
    static const char *const options[] = {"", ", 'cache': {'direct': true}"};

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        g_autofree char *data = NULL;
        size_t size;

        image_make(scene, "0123456789", 10, 10);
        co_open(scene, options[i]);
        char end[10];
        g_assert_cmpuint(handle_length(scene->handle), >=, 10);
        g_assert_cmpint(co_handle_pread(scene->handle, 0, 10, end, 0), ==, 0);
        g_assert_cmpmem(end, 10, "0123456789", 10);
        for (uint64_t at = 10; at < handle_length(scene->handle); at++)
            co_check_pattern(scene, at, 1, 0);
        g_assert_cmpint(co_handle_pwrite(scene->handle, 2, 3, "abc", 0), ==, 0);
        co_close(scene);
        data = image_read(scene, &size);
        g_assert_cmpmem(data, 10, "01abc56789", 10);
    }
}

static void CO_FN co_cut_file(struct scene *scene)
{
    char byte;
    struct block_extent extent;

    image_make(scene, "x", 1, 4 * MIB);
    co_open(scene, "");
    g_assert_cmpint(truncate(scene->path, MIB), ==, 0);
    g_assert_cmpint(co_handle_pread(scene->handle, 2 * MIB, 1, &byte, 0), ==, -EIO);
    co_check_pattern(scene, MIB - 4096, 4096, 0);
    /* What is lost is not told to be zeroes. */
    g_assert_cmpint(co_handle_block_status(scene->handle, MIB, MIB, &extent), ==, 0);
    g_assert_true(extent.flags & BLOCK_DATA);
    g_assert_cmpint(co_handle_block_status(scene->handle, MIB / 2, MIB, &extent), ==, 0);
    g_assert_cmpuint(extent.bytes, <=, MIB / 2);
}

/* --- zeroes --- */

static void CO_FN co_zeroes(struct scene *scene)
{
    image_make(scene, "", 0, 4 * MIB);
    co_open(scene, ", 'discard': 'unmap'");
    co_write_pattern(scene, 0, 4 * MIB, 'x', 0);
    g_assert_cmpint(co_handle_flush(scene->handle), ==, 0);
    g_assert_cmpint(image_allocated(scene), >=, 4 * MIB);

    g_assert_cmpint(co_handle_pwrite_zeroes(scene->handle, MIB, MIB, IO_FUA), ==, 0);
    g_assert_cmpint(image_allocated(scene), >=, 4 * MIB);
    co_check_pattern(scene, MIB, MIB, 0);
    g_assert_cmpint(co_handle_pwrite_zeroes(scene->handle, 2 * MIB, MIB, IO_MAY_UNMAP | IO_NO_FALLBACK), ==, 0);
    g_assert_cmpint(image_allocated(scene), <, 4 * MIB);
    co_check_pattern(scene, 2 * MIB, MIB, 0);
    g_assert_cmpint(co_handle_pdiscard(scene->handle, 0, MIB), ==, 0);
    g_assert_cmpint(image_allocated(scene), <, 3 * MIB);
    co_check_pattern(scene, 3 * MIB, MIB, 'x');

    /* Odd borders. */
    g_assert_cmpint(co_handle_pwrite_zeroes(scene->handle, 3 * MIB + 1, 4097, IO_MAY_UNMAP), ==, 0);
    co_check_pattern(scene, 3 * MIB, 1, 'x');
    co_check_pattern(scene, 3 * MIB + 1, 4097, 0);
    co_check_pattern(scene, 3 * MIB + 4098, 4096, 'x');
}

/* The driver itself, past the core's bounds: as a format driver's growing writes come. */
static void CO_FN co_growth(struct scene *scene)
{
    struct node *node;
    size_t size;

    image_make(scene, "x", 1, 1);
    co_open(scene, "");
    node = handle_node(scene->handle);
    g_assert_cmpint(file_driver.co_pwrite_zeroes(node, 0, MIB, IO_MAY_UNMAP), ==, 0);
    g_assert_cmpint(file_driver.co_length(node), ==, MIB);
    g_assert_cmpint(image_allocated(scene), <, MIB);
    g_assert_cmpint(file_driver.co_pwrite_zeroes(node, 2 * MIB, MIB, 0), ==, 0);
    g_assert_cmpint(file_driver.co_length(node), ==, 3 * MIB);
    g_assert_cmpint(image_allocated(scene), >=, MIB);
    g_assert_cmpint(image_allocated(scene), <, 2 * MIB);

    g_autofree char *data = image_read(scene, &size);
    g_assert_cmpuint(size, ==, 3 * MIB);
    for (size_t i = 0; i < size; i++)
        g_assert_cmpint(data[i], ==, 0);
}

/* --- copying --- */

/* Another image under a raw window that begins at 4096, for all uses. */
static struct handle *CO_FN co_open_target(struct scene *scene, const char *path, const char *options)
{
    struct handle_options use = {.name = "target", .perm = PERM_ALL, .shared = PERM_ALL};
    g_autofree char *text =
        g_strdup_printf("{'driver': 'raw', 'node-name': 't', 'offset': 4096, 'discard': 'unmap', 'file': {'driver': "
                        "'file', 'discard': 'unmap', 'filename': '%s'%s}}",
                        path, options);
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    AUTO(blockdev_options) parsed = blockdev_options_parse(json, NULL);
    struct handle *handle;

    g_assert_true(co_graph_add(scene->graph, parsed, NULL));
    handle = co_handle_new(graph_find(scene->graph, "t", NULL), &use, NULL);
    g_assert_nonnull(handle);
    return handle;
}

static void CO_FN co_check_copy(struct scene *scene, const char *target_path, const char *options, unsigned flags)
{
    g_autofree char *data = g_malloc(2 * MIB);
    struct handle *target;

    image_make(scene, "", 0, 4 * MIB);
    co_open(scene, options);
    co_write_pattern(scene, MIB, 512 * 1024, 'x', 0);
    co_write_pattern(scene, 3 * MIB, 12345, 'y', 0);
    target = co_open_target(scene, target_path, options);
    g_assert_cmpint(co_handle_truncate(target, 4 * MIB, NULL), ==, 0);

    /* Everything, then a part to where it does not lie on the same borders. */
    g_assert_cmpint(co_handle_copy_range(scene->handle, 0, target, 0, 4 * MIB, flags), ==, 0);
    g_assert_cmpint(co_handle_pread(target, MIB, 2 * MIB, data, 0), ==, 0);
    for (int i = 0; i < 2 * MIB; i++)
        g_assert_cmpint(data[i], ==, i < 512 * 1024 ? 'x' : 0);
    if (!(flags & IO_NO_FALLBACK)) {
        g_assert_cmpint(co_handle_copy_range(scene->handle, 3 * MIB - 1, target, 777, 12347, flags), ==, 0);
        g_assert_cmpint(co_handle_pread(target, 776, 12349, data, 0), ==, 0);
        for (int i = 0; i < 12349; i++)
            g_assert_cmpint(data[i], ==, i >= 2 && i < 2 + 12345 ? 'y' : 0);
    }
    g_assert_cmpint(co_handle_copy_range(scene->handle, 4 * MIB, target, 0, 1, flags), ==, -EIO);
    co_handle_free(target);
    g_assert_true(co_graph_delete(scene->graph, "t", NULL));
    co_close(scene);
}

static void CO_FN co_copy(struct scene *scene)
{
    static const char *const options[] = {"", ", 'cache': {'direct': true}", ", 'aio': 'threads'"};
    g_autofree char *target_path = g_build_filename(scene->folder, "target", NULL);
    struct stat status;

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        g_assert_true(g_file_set_contents(target_path, "", 0, NULL));
        g_assert_cmpint(truncate(target_path, 4096), ==, 0);
        co_check_copy(scene, target_path, options[i], i ? 0 : IO_FUA);
        /* Holes stay holes. */
        g_assert_cmpint(stat(target_path, &status), ==, 0);
        g_assert_cmpint(status.st_blocks * 512, <, MIB);
    }
    /* By the system alone: both files are on one file system. */
    co_check_copy(scene, target_path, "", IO_NO_FALLBACK);
    g_unlink(target_path);
}

/* --- status --- */

/* The extent at `offset`: 'd' data, 'z' hole; its length in *ret. */
static char CO_FN co_status(struct scene *scene, uint64_t offset, uint64_t bytes, uint64_t *ret)
{
    struct block_extent extent;

    g_assert_cmpint(co_handle_block_status(scene->handle, offset, bytes, &extent), ==, 0);
    g_assert_cmpuint(extent.bytes, >, 0);
    g_assert_cmpuint(extent.bytes, <=, bytes);
    g_assert_true(extent.flags & BLOCK_OFFSET_VALID);
    g_assert_cmpuint(extent.host_offset, ==, offset);
    g_assert_true(!(extent.flags & BLOCK_DATA) != !(extent.flags & BLOCK_ZERO));
    *ret = extent.bytes;
    return extent.flags & BLOCK_DATA ? 'd' : 'z';
}

/* A letter for each 64 KiB of the image, asked for in steps of `step` bytes. */
static char *CO_FN co_map(struct scene *scene, uint64_t step)
{
    enum { UNIT = 65536 };
    uint64_t length = handle_length(scene->handle);
    char *map = g_strnfill(length / UNIT, '?');

    for (uint64_t at = 0; at < length;) {
        uint64_t bytes;
        char kind = co_status(scene, at, MIN(step, length - at), &bytes);

        for (uint64_t unit = at / UNIT; unit <= (at + bytes - 1) / UNIT; unit++)
            map[unit] = map[unit] == 'd' ? 'd' : kind;
        at += bytes;
    }
    return map;
}

static void CO_FN co_check_map(struct scene *scene, const char *expected)
{
    static const uint64_t steps[] = {1 << 30, 65536, 4096, 100000};

    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
        g_autofree char *map = co_map(scene, steps[i]);

        g_assert_cmpstr(map, ==, expected);
    }
}

static void CO_FN co_holes(struct scene *scene)
{
    image_make(scene, "", 0, MIB);
    co_open(scene, ", 'discard': 'unmap'");
    co_check_map(scene, "zzzzzzzzzzzzzzzz");
    co_write_pattern(scene, 0, 65536, 'x', 0);
    co_check_map(scene, "dzzzzzzzzzzzzzzz");
    co_write_pattern(scene, 15 * 65536, 65536, 'x', 0);
    co_check_map(scene, "dzzzzzzzzzzzzzzd");
    co_write_pattern(scene, 65536, 3 * 65536, 'x', 0);
    co_check_map(scene, "ddddzzzzzzzzzzzd");
    g_assert_cmpint(co_handle_pdiscard(scene->handle, 65536, 65536), ==, 0);
    co_check_map(scene, "dzddzzzzzzzzzzzd");
    g_assert_cmpint(co_handle_pwrite_zeroes(scene->handle, 0, 65536, IO_MAY_UNMAP), ==, 0);
    co_check_map(scene, "zzddzzzzzzzzzzzd");
    g_assert_cmpint(co_handle_truncate(scene->handle, 15 * 65536, NULL), ==, 0);
    co_check_map(scene, "zzddzzzzzzzzzzz");
}

/* Nobody sees a hole where a write has ended, whatever others ask at the same time. */
struct race {
    struct scene *scene;
    struct co_group running;
    bool over;
};

static void CO_FN co_race_ask(void *opaque)
{
    struct race *race = opaque;
    unsigned at = 0;

    while (!__atomic_load_n(&race->over, __ATOMIC_RELAXED)) {
        uint64_t offset = (uint64_t)(at++ * 7 % 16) * 65536;
        uint64_t bytes;

        co_status(race->scene, offset, MIB - offset, &bytes);
        co_yield ();
    }
    co_group_done(&race->running);
}

static void CO_FN co_race_write(void *opaque)
{
    struct race *race = opaque;

    for (int round = 0; round < 60; round++) {
        uint64_t at = (uint64_t)(round * 5 % 16) * 65536;
        uint64_t bytes;

        co_write_pattern(race->scene, at, 4096, 'x', 0);
        g_assert_cmpint(co_status(race->scene, at, 4096, &bytes), ==, 'd');
        g_assert_cmpint(co_handle_pdiscard(race->scene->handle, at, 65536), ==, 0);
    }
    __atomic_store_n(&race->over, true, __ATOMIC_RELAXED);
    co_group_done(&race->running);
}

static void CO_FN co_status_race(struct scene *scene)
{
    struct race race = {.scene = scene};
    struct loop_thread *threads[2];

    image_make(scene, "", 0, MIB);
    co_open(scene, ", 'discard': 'unmap'");
    /* Nobody else may write, so that holes are remembered. */
    g_assert_true(co_handle_set_permissions(scene->handle, PERM_ALL, PERM_ALL & ~PERM_WRITE, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = loop_thread_new(&(struct loop_options){.backend = loop_get_backend(scene->loop)}, NULL);
        co_group_add(&race.running, 2);
        co_spawn(loop_thread_loop(threads[i]), co_race_ask, &race);
        co_spawn(loop_thread_loop(threads[i]), co_race_ask, &race);
    }
    co_group_add(&race.running, 1);
    co_spawn(scene->loop, co_race_write, &race);
    co_group_wait(&race.running);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        co_loop_thread_free(threads[i]);
}

/* --- length --- */

static int CO_FN co_truncate(struct scene *scene, uint64_t length, enum prealloc_mode mode, char **ret_message)
{
    struct truncate_request request = {.length = length, .exact = true, .preallocation = mode};
    AUTO(error) error = NULL;
    int result = file_driver.co_truncate(handle_node(scene->handle), &request, &error);

    g_assert_true((result < 0) == (error != NULL));
    *ret_message = error ? g_strdup(error_message(error)) : NULL;
    return result;
}

static void CO_FN co_preallocation(struct scene *scene)
{
    static const enum prealloc_mode modes[] = {PREALLOC_MODE_FALLOC, PREALLOC_MODE_FULL};

    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        g_autofree char *message = NULL;
        g_autofree char *shrink_message = NULL;
        g_autofree char *metadata_message = NULL;
        size_t size;

        image_make(scene, "data", 4, 4);
        co_open(scene, i ? ", 'cache': {'direct': true}" : "");
        g_assert_cmpint(co_truncate(scene, 3 * MIB + 5, modes[i], &message), ==, 0);
        g_assert_cmpint(image_allocated(scene), >=, 3 * MIB);
        g_assert_cmpint(co_truncate(scene, MIB, modes[i], &shrink_message), ==, -ENOTSUP);
        g_assert_cmpstr(shrink_message, ==, "Cannot use preallocation for shrinking files");
        g_assert_cmpint(co_truncate(scene, 4 * MIB, PREALLOC_MODE_METADATA, &metadata_message), ==, -ENOTSUP);
        g_assert_cmpstr(metadata_message, ==, "Unsupported preallocation mode: metadata");
        co_close(scene);

        g_autofree char *data = image_read(scene, &size);
        g_assert_cmpuint(size, ==, 3 * MIB + 5);
        g_assert_cmpmem(data, 4, "data", 4);
        for (size_t at = 4; at < size; at++)
            g_assert_cmpint(data[at], ==, 0);
    }
}

static void CO_FN co_too_long(struct scene *scene)
{
    g_autofree char *message = NULL;
    g_autofree char *falloc_message = NULL;

    image_make(scene, "data", 4, 4);
    co_open(scene, "");
    g_assert_cmpint(co_truncate(scene, UINT64_C(1) << 62, PREALLOC_MODE_OFF, &message), ==, -EFBIG);
    g_assert_cmpstr(message, ==, "Could not resize file: File too large");
    g_assert_cmpint(co_truncate(scene, UINT64_C(1) << 62, PREALLOC_MODE_FALLOC, &falloc_message), ==, -EFBIG);
    g_assert_cmpstr(falloc_message, ==, "Could not preallocate new data: File too large");
    g_assert_cmpint(file_driver.co_length(handle_node(scene->handle)), ==, 4);
}

/* --- opening --- */

static void CO_FN co_refused(struct scene *scene)
{
    static const struct {
        const char *options;
        const char *complaint;
    } bad[] = {
        {", 'aio': 'native'", "aio=native was specified, but it requires cache.direct=on, which was not specified."},
        {", 'pr-manager': 'pr0'", "No persistent reservation manager with id 'pr0'"},
        {", 'aio-max-batch': -1", "aio-max-batch must be between 0 and 4294967295, and is -1"},
    };
    AUTO(error) missing = NULL;
    g_autofree char *missing_text = g_strdup_printf("Could not open '%s': No such file or directory", scene->path);

    g_assert_false(co_add(scene, "", &missing));
    g_assert_cmpstr(error_message(missing), ==, missing_text);
    image_make(scene, "data", 4, 4);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        AUTO(error) error = NULL;

        g_assert_false(co_add(scene, bad[i].options, &error));
        g_assert_cmpstr(error_message(error), ==, bad[i].complaint);
        g_assert_null(graph_find(scene->graph, "n", NULL));
    }
}

/* --- locks --- */

static bool byte_is_locked(const struct scene *scene, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int fd = g_open(scene->path, O_RDWR | O_CLOEXEC, 0);

    g_assert_cmpint(fcntl(fd, F_OFD_GETLK, &lock), ==, 0);
    close(fd);
    return lock.l_type != F_UNLCK;
}

/* The permissions whose bytes from `base` on are locked. */
static uint32_t locked_bits(const struct scene *scene, off_t base)
{
    uint32_t bits = 0;

    for (int b = 0; b < 4; b++)
        bits |= byte_is_locked(scene, base + b) ? 1u << b : 0;
    return bits;
}

static void CO_FN co_locks_follow_permissions(struct scene *scene)
{
    image_make(scene, "data", 4, MIB);
    co_open(scene, "");
    for (uint32_t perm = 0; perm <= PERM_ALL; perm++) {
        for (uint32_t shared = 0; shared <= PERM_ALL; shared++) {
            g_assert_true(co_handle_set_permissions(scene->handle, perm, shared, NULL));
            g_assert_cmpuint(locked_bits(scene, 100), ==, perm);
            g_assert_cmpuint(locked_bits(scene, 200), ==, PERM_ALL & ~shared);
        }
    }
    co_close(scene);
    g_assert_cmpuint(locked_bits(scene, 100) | locked_bits(scene, 200), ==, 0);
}

static void CO_FN co_locked_by_others(struct scene *scene)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
    AUTO(error) error = NULL;
    int fd;

    image_make(scene, "data", 4, MIB);
    co_open(scene, "");
    g_assert_true(co_handle_set_permissions(scene->handle, PERM_CONSISTENT_READ, PERM_ALL, NULL));
    fd = g_open(scene->path, O_RDWR | O_CLOEXEC, 0);
    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    g_assert_false(co_handle_set_permissions(scene->handle, PERM_ALL, PERM_ALL & ~PERM_RESIZE, &error));
    g_assert_true(g_str_has_prefix(error_message(error), "Failed to get \"write\" lock"));
    g_assert_nonnull(strstr(error_message(error), "in use by another node of this process"));
    g_assert_nonnull(strstr(error_hint_text(error), scene->path));
    g_assert_cmpuint(locked_bits(scene, 100), ==, PERM_CONSISTENT_READ);
    g_assert_false(byte_is_locked(scene, 203));
    close(fd);
    g_assert_true(co_handle_set_permissions(scene->handle, PERM_ALL, PERM_ALL & ~PERM_RESIZE, NULL));
}

/* With auto-read-only, requests go on working while the file is opened in another way. */
static void CO_FN co_auto_read_only(struct scene *scene)
{
    image_make(scene, "old", 3, MIB);
    co_open(scene, ", 'auto-read-only': true");
    for (int i = 0; i < 3; i++) {
        co_write_pattern(scene, 0, 4096, (char)('a' + i), 0);
        g_assert_true(co_handle_set_permissions(scene->handle, PERM_CONSISTENT_READ, PERM_ALL, NULL));
        co_check_pattern(scene, 0, 4096, (char)('a' + i));
        g_assert_cmpuint(locked_bits(scene, 100), ==, PERM_CONSISTENT_READ);
        g_assert_true(co_handle_set_permissions(scene->handle, PERM_ALL, PERM_ALL, NULL));
        g_assert_cmpuint(locked_bits(scene, 100), ==, PERM_ALL);
    }
}

/* What is in memory of an image goes when a node that nobody used becomes used. */
static void CO_FN co_page_cache(struct scene *scene)
{
    struct handle_options use = {.name = "test", .perm = PERM_ALL, .shared = PERM_ALL};
    size_t size;
    int fd;

    image_make(scene, "x", 1, MIB);
    fd = g_open(scene->path, O_RDONLY | O_CLOEXEC, 0);
    g_assert_true(co_add(scene, ", 'x-check-cache-dropped': true", NULL));
    g_free(image_read(scene, &size));
    g_assert_cmpint(co_file_cached_bytes(fd), >, 0);
    scene->handle = co_handle_new(graph_find(scene->graph, "n", NULL), &use, NULL);
    g_assert_nonnull(scene->handle);
    g_assert_cmpint(co_file_cached_bytes(fd), ==, 0);

    /* From then on it stays, and so it does by default on a file system of this host alone. */
    co_write_pattern(scene, 0, MIB, 'x', 0);
    g_assert_true(co_handle_set_permissions(scene->handle, PERM_CONSISTENT_READ, PERM_ALL, NULL));
    g_assert_cmpint(co_file_cached_bytes(fd), >=, MIB);
    co_close(scene);
    co_open(scene, "");
    g_assert_cmpint(co_file_cached_bytes(fd), >=, MIB);
    close(fd);
}

/* Room changes neither content nor length, and what lies unused beyond the end is gone when the node is. */
static void CO_FN co_reserve(struct scene *scene)
{
    struct block_extent extent;
    int64_t before;
    int result;

    image_make(scene, "", 0, 8 * MIB);
    co_open(scene, "");
    before = image_allocated(scene);
    result = co_handle_reserve(scene->handle, MIB, 4 * MIB);
    if (result > 0)
        g_assert_cmpint(image_allocated(scene), >=, before + 4 * MIB);
    else
        g_assert_cmpint(image_allocated(scene), ==, before);
    g_assert_cmpint(co_handle_block_status(scene->handle, 0, 8 * MIB, &extent), ==, 0);
    g_assert_true(extent.flags & BLOCK_ZERO);
    g_assert_cmpuint(extent.bytes, ==, 8 * MIB);
    co_check_pattern(scene, MIB, 4 * MIB, 0);
    co_write_pattern(scene, 2 * MIB, MIB, 'x', 0);
    co_check_pattern(scene, MIB, MIB, 0);
    co_check_pattern(scene, 2 * MIB, MIB, 'x');
    g_assert_cmpint(co_handle_pwrite_zeroes(scene->handle, MIB, MIB, IO_MAY_UNMAP), ==, 0);
    g_assert_cmpint(co_handle_pwrite_zeroes(scene->handle, 3 * MIB, 2 * MIB, IO_MAY_UNMAP), ==, 0);
    before = image_allocated(scene);

    /* The handle may let the file grow. */
    g_assert_cmpint(co_handle_reserve(scene->handle, 8 * MIB, 4 * MIB), ==, result);
    g_assert_cmpuint(handle_length(scene->handle), ==, 8 * MIB);
    co_write_pattern(scene, 8 * MIB, MIB, 'y', 0);
    co_close(scene);
    g_assert_cmpint(image_allocated(scene), <=, before + MIB + 64 * 1024);
    co_open(scene, "");
    g_assert_cmpuint(handle_length(scene->handle), ==, 9 * MIB);
}

/* A limit of the process is an error of the request's, however the write travels. */
static void CO_FN co_size_limit(struct scene *scene)
{
    static const char *const options[] = {"", ", 'aio': 'threads'", ", 'cache': {'direct': true}"};
    g_autofree char *data = g_malloc0(MIB);
    struct rlimit before, limit;

    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &before), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        image_make(scene, "", 0, 4 * MIB);
        co_open(scene, options[i]);
        limit = (struct rlimit){.rlim_cur = MIB, .rlim_max = before.rlim_max};
        g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
        co_write_pattern(scene, MIB - 8192, 8192, 'a', 0);
        g_assert_cmpint(co_handle_pwrite(scene->handle, MIB - 4096, 8192, data, 0), ==, -EFBIG);
        g_assert_cmpint(co_handle_pwrite(scene->handle, MIB, 4096, data, 0), ==, -EFBIG);
        g_assert_cmpint(co_handle_pwrite(scene->handle, MIB, MIB, data, 0), ==, -EFBIG);
        g_assert_cmpint(co_handle_pwrite(scene->handle, MIB + 1, 10, data, IO_FUA), ==, -EFBIG);
        co_write_pattern(scene, 0, 4096, 'b', 0);
        g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &before), ==, 0);
        co_check_pattern(scene, MIB - 8192, 4096, 'a');
        co_check_pattern(scene, MIB, 4096, 0);
        co_close(scene);
    }
}

/* Small writes and a flush from several coroutines, with others' reads among them: each sees what it wrote. */
struct small_writer {
    struct scene *scene;
    struct co_group *group;
    unsigned number;
};

static void small_writer_run(void *opaque)
{
    struct small_writer *writer = opaque;
    uint64_t base = writer->number * 64 * 1024;

    for (unsigned i = 0; i < 64; i++) {
        char byte = (char)(1 + (writer->number + i) % 100);

        co_write_pattern(writer->scene, base + (i % 16) * 4096, 4096, byte, i % 16 == 15 ? IO_FUA : 0);
        co_check_pattern(writer->scene, base + (i % 16) * 4096, 4096, byte);
        if (i % 8 == 7)
            g_assert_cmpint(co_handle_flush(writer->scene->handle), ==, 0);
    }
    co_group_done(writer->group);
}

static void CO_FN co_small_writes(struct scene *scene)
{
    enum { WRITERS = 8 };
    struct small_writer writers[WRITERS];
    struct co_group group = {0};

    image_make(scene, "", 0, MIB);
    co_open(scene, "");
    co_group_add(&group, WRITERS);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct small_writer){.scene = scene, .group = &group, .number = i};
        co_spawn(scene->loop, small_writer_run, &writers[i]);
    }
    co_group_wait(&group);
    co_close(scene);
}

#define TEST(name)                                                                                                     \
    static void test_##name(void)                                                                                      \
    {                                                                                                                  \
        scene_run(co_##name, LOOP_AUTO, false);                                                                        \
        scene_run(co_##name, LOOP_AUTO, true);                                                                         \
        scene_run(co_##name, LOOP_EPOLL, false);                                                                       \
    }
TEST(data_round_trip)
TEST(odd_end)
TEST(cut_file)
TEST(zeroes)
TEST(growth)
TEST(copy)
TEST(holes)
TEST(status_race)
TEST(preallocation)
TEST(too_long)
TEST(refused)
TEST(locks_follow_permissions)
TEST(locked_by_others)
TEST(auto_read_only)
TEST(page_cache)
TEST(reserve)
TEST(size_limit)
TEST(small_writes)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/file/data-round-trip", test_data_round_trip);
    g_test_add_func("/file/odd-end", test_odd_end);
    g_test_add_func("/file/cut-file", test_cut_file);
    g_test_add_func("/file/zeroes", test_zeroes);
    g_test_add_func("/file/growth", test_growth);
    g_test_add_func("/file/copy", test_copy);
    g_test_add_func("/file/holes", test_holes);
    g_test_add_func("/file/status-race", test_status_race);
    g_test_add_func("/file/preallocation", test_preallocation);
    g_test_add_func("/file/too-long", test_too_long);
    g_test_add_func("/file/refused", test_refused);
    g_test_add_func("/file/locks-follow-permissions", test_locks_follow_permissions);
    g_test_add_func("/file/locked-by-others", test_locked_by_others);
    g_test_add_func("/file/auto-read-only", test_auto_read_only);
    g_test_add_func("/file/page-cache", test_page_cache);
    g_test_add_func("/file/reserve", test_reserve);
    g_test_add_func("/file/size-limit", test_size_limit);
    g_test_add_func("/file/small-writes", test_small_writes);
    return g_test_run();
}
