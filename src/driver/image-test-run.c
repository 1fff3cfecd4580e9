/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/image-test-run.h"

#include <glib/gstdio.h>
#include <string.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "object/object.h"
#include "schema/json.h"

struct run {
    struct image_scene scene;
    const struct block_driver *const *drivers;
    void (*co_case)(struct image_scene *scene);
};

static void CO_FN co_entry_point(void *opaque)
{
    struct run *run = opaque;

    run->scene.objects = object_registry_new();
    run->scene.graph = graph_new(run->scene.objects, NULL);
    graph_set_drivers(run->scene.graph, run->drivers);
    run->co_case(&run->scene);
    co_graph_free(run->scene.graph);
    co_object_registry_free(run->scene.objects);
}

static void remove_folder(const char *folder)
{
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);

        g_unlink(path);
    }
    if (dir)
        g_dir_close(dir);
    g_rmdir(folder);
}

void image_test_run(void (*co_case)(struct image_scene *scene), const struct block_driver *const *drivers)
{
    g_autofree char *folder = g_mkdtemp(g_strdup("/var/tmp/ashlar-image-XXXXXX"));
    struct run run = {.co_case = co_case, .drivers = drivers, .scene.folder = folder};
    AUTO(error) err = NULL;
    struct loop *loop = loop_new(&(struct loop_options){.backend = LOOP_AUTO}, &err);

    g_assert_nonnull(folder);
    g_assert_nonnull(loop);
    co_run(loop, co_entry_point, &run);
    loop_free(loop);
    remove_folder(folder);
}

char *image_scene_path(const struct image_scene *scene, const char *name)
{
    return g_build_filename(scene->folder, name, NULL);
}

static struct json *scene_json(const struct image_scene *scene, const char *text)
{
    g_auto(GStrv) pieces = g_strsplit(text, "@/", -1);
    g_autofree char *folder = g_strdup_printf("%s/", scene->folder);
    g_autofree char *whole = g_strjoinv(folder, pieces);
    AUTO(error) err = NULL;
    struct json *json = json_parse(whole, strlen(whole), &err);

    if (!json)
        g_error("%s: %s", whole, error_message(err));
    return json;
}

struct blockdev_create_options *image_scene_options(const struct image_scene *scene, const char *text)
{
    AUTO(error) err = NULL;
    AUTO(json) json = scene_json(scene, text);
    struct blockdev_create_options *options = blockdev_create_options_parse(json, &err);

    if (!options)
        g_error("%s: %s", text, error_message(err));
    return options;
}

void CO_FN co_image_scene_add(struct image_scene *scene, const char *text)
{
    AUTO(error) err = NULL;
    AUTO(json) json = scene_json(scene, text);
    AUTO(blockdev_options) options = blockdev_options_parse(json, &err);

    if (!options || !co_graph_add(scene->graph, options, &err))
        g_error("%s: %s", text, error_message(err));
}

struct handle *CO_FN co_image_scene_open(struct image_scene *scene, const char *text, uint32_t perm)
{
    struct handle_options options = {.name = "test", .perm = perm, .shared = PERM_ALL};
    AUTO(error) err = NULL;
    AUTO(json) json = scene_json(scene, text);
    AUTO(blockdev_ref) ref = blockdev_ref_parse(json, &err);
    struct handle *handle = ref ? co_graph_open(scene->graph, ref, &options, &err) : NULL;

    if (!handle)
        g_error("%s: %s", text, error_message(err));
    return handle;
}

char *CO_FN co_image_scene_create(struct image_scene *scene,
                                  bool (*co_create)(struct graph *, const struct blockdev_create_options *,
                                                    struct error **),
                                  const char *text)
{
    AUTO(blockdev_create_options) options = image_scene_options(scene, text);
    AUTO(error) err = NULL;

    if (co_create(scene->graph, options, &err)) {
        g_assert_null(err);
        return NULL;
    }
    g_assert_nonnull(err);
    return g_strdup(error_message(err));
}

uint8_t *image_scene_read(const struct image_scene *scene, const char *name, size_t *ret_size)
{
    g_autofree char *path = image_scene_path(scene, name);
    char *data;

    g_assert_true(g_file_get_contents(path, &data, ret_size, NULL));
    return (uint8_t *)data;
}
