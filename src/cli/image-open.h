/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening images as the tools name them on their command lines. Main loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;
struct handle;
struct json;
struct node;
struct tool;

/* What "-t CACHE" says. Zero: writeback. */
struct cache_mode {
    bool direct;
    bool no_flush;
    bool writethrough;
};
/* "none", "writeback", "writethrough", "directsync", "unsafe" and their like; false: not one of them. */
bool cache_mode_parse(const char *text, struct cache_mode *ret) MUST_CHECK;

struct image_open {
    const char *filename;       /* a name of block/filename-options.h */
    bool image_opts;            /* `filename` is options: "driver=qcow2,file.filename=x" */
    const struct json *options; /* of the image, besides what the name says (it may be NULL then); borrowed; or NULL */
    const char *format;         /* NULL: by probing; not with image_opts */
    struct cache_mode cache;
    bool writable;
    bool resizable; /* with `writable`: may change its length */
    bool force_share;
    bool unmap; /* discards and holes reach the storage */
    const char
        *snapshot; /* show this internal snapshot, read-only: "ID_OR_NAME" or "snapshot.id=ID,snapshot.name=NAME" */
    const char *backing_node; /* a node to use as its backing image; NULL: what its header names */
    bool no_backing;          /* without its backing images */
    const char *aio;          /* of the file: "threads", "native", "io_uring"; NULL: the default */
    bool quiet;               /* no warning where writing to an image that is raw by guess */
    bool plain_errors;        /* without "Could not open 'FILENAME': " before them */
};

/* An open image. All borrowed. */
struct image {
    struct node *node;
    struct handle *handle;
    char *filename;  /* as it was given */
    char *name;      /* of the node */
    char *file_name; /* of the node below that was opened for probing; NULL: none */
    bool writethrough;
};

/* NULL and "Could not open 'FILENAME': ...". To be closed before the tool ends. */
struct image *CO_FN co_image_open(struct tool *tool, const struct image_open *open, struct error **err) MUST_CHECK;

/* Flushes and closes; NULL is allowed. */
void CO_FN co_image_close(struct tool *tool, struct image *image);
