/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tests that make and change images: each in a loop, a graph and a folder of its own. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"

struct block_driver;
struct error;

struct image_scene {
    struct graph *graph;
    struct object_registry *objects;
    const char *folder;
};

/* Runs the case as a coroutine; the folder and what it holds go afterwards. */
void image_test_run(void (*co_case)(struct image_scene *scene), const struct block_driver *const *drivers);

/* "FOLDER/name"; owned. */
char *image_scene_path(const struct image_scene *scene, const char *name);

/* `text`: JSON, single quotes do; "@/" in it stands for the folder and "/". */
struct blockdev_create_options *image_scene_options(const struct image_scene *scene, const char *text);
void CO_FN co_image_scene_add(struct image_scene *scene, const char *text);
struct handle *CO_FN co_image_scene_open(struct image_scene *scene, const char *text, uint32_t perm);

/* Makes the image that `text` describes with `co_create`: NULL, or what was said against it; owned. */
char *CO_FN co_image_scene_create(struct image_scene *scene,
                                  bool (*co_create)(struct graph *, const struct blockdev_create_options *,
                                                    struct error **),
                                  const char *text);

/* The whole file of that name. Owned. */
uint8_t *image_scene_read(const struct image_scene *scene, const char *name, size_t *ret_size);
