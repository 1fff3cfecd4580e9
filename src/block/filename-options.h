/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the names by which people and images call images to the options with which the graph opens them. A name is a
 * path, "file:PATH", a URL ("nbd://host:10809/export", "nbd+unix:///export?socket=path"), the old forms
 * "nbd:host:port[:exportname=x]" and "nbd:unix:path[:exportname=x]", "null-co://", "blkdebug:CONFIG:IMAGE" and
 * "blkverify:RAW:IMAGE" for tests (the parts are names too), or "json:{...}" with options as JSON, whose keys may have
 * dots instead of objects inside. Main loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct blockdev_options;
struct blockdev_ref;
struct edge;
struct error;
struct graph;
struct json;
struct node;

/* How an image is given. */
struct image_name {
    const char *filename;       /* NULL: `options` say it all */
    const struct json *options; /* borrowed; as of "--image-opts": strings for scalars; NULL: none */
    const char *format;         /* NULL: what the options say, or else to be found out */
};

/*
 * Options of the image, an object; owned. Where nothing says what the format is, "driver" is missing, "file" is not;
 * co_image_options_probe() finds it out. All other definitions inside have their drivers.
 */
struct json *CO_FN co_image_options(const struct image_name *name, struct error **err) MUST_CHECK;

/*
 * Sets the missing "driver" of such options by opening their "file" in `graph` for a look. In *ret_guessed_raw whether
 * it is "raw" because it looks like nothing else.
 */
bool CO_FN co_image_options_probe(struct graph *graph, struct json *options, bool *ret_guessed_raw,
                                  struct error **err) MUST_CHECK;

/* The same for definitions inside that lack their "driver" ("test" of blkverify); the outermost one is left alone. */
bool CO_FN co_image_options_probe_inside(struct graph *graph, struct json *options, struct error **err) MUST_CHECK;

/* The typed form of complete options; owned. */
struct blockdev_options *image_options_parse(const struct json *options, struct error **err) MUST_CHECK;

/*
 * What `filename`, as it stands in the header of the image `base`, means for the process: relative paths start in the
 * folder of `base` (path or URL; NULL: it has no such name, which is an error for relative ones). Owned.
 */
char *filename_resolve(const char *base, const char *filename, struct error **err) MUST_CHECK;

/* The path or URL from which relative names in the header of `node` start: its own, or else that of the child that
 * stands for it; owned; NULL: there is none. */
char *node_base_filename(const struct node *node);

/*
 * Adds the image that the header of `node` calls `filename` as its backing image ("backing", EDGE_COW), in co_open() or
 * inside a drain. `format` NULL: by probing; raw is then guarded, see node_guard_raw(). The edge as of
 * co_node_add_child(). NULL and the error: "Could not open backing file: ...".
 */
struct edge *CO_FN co_node_add_backing(struct node *node, const char *filename, const char *format,
                                       struct error **err) MUST_CHECK;

/* The same as options, complete; for children that a header names otherwise (external data files). Owned. */
struct blockdev_ref *CO_FN co_header_image(struct node *node, const char *filename, const char *format,
                                           bool *ret_guessed_raw, struct error **err) MUST_CHECK;

/*
 * `node` is raw because its format was guessed: from now on it refuses writes, with -EPERM, that would make it look
 * like another format; otherwise who writes to it, a guest perhaps, could have a backing file of its choice opened next
 * time. In open or inside a drain; a node of another driver is left alone.
 */
void node_guard_raw(struct node *node);
