/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a driver can do with an image as such, beside serving requests: driver->image. All of it runs on the main loop;
 * what changes an open image runs inside a drain unless said otherwise. Every slot may be NULL: there is no such thing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct graph;
struct handle;
struct io_vector;
struct json;
struct node;

/*
 * One option of the short form by which tools and scripts set what a new image is like ("-o cluster_size=64k"). A table
 * of them ends with a NULL name.
 */
enum image_option_type { IMAGE_OPTION_STRING, IMAGE_OPTION_BOOL, IMAGE_OPTION_NUMBER, IMAGE_OPTION_SIZE };
struct image_option {
    const char *name; /* "cluster_size" */
    enum image_option_type type;
    const char *help;   /* one line for "-o help" */
    const char *member; /* dotted path of the member that it sets in the driver's BlockdevCreateOptions: "cluster-size";
                         * NULL: `translate` of the driver does it */
    bool amendable;
    const char *shown_default; /* what tools print as its value where none was given; NULL: nothing */
    bool amend_only;           /* not when an image is made */
};

/* How far a long operation is, in units of its own. */
struct image_progress {
    void (*report)(struct image_progress *progress, uint64_t done, uint64_t total);
};

/* Hears what an operation finds, a line of text without newline each. */
struct image_report {
    void (*line)(struct image_report *report, const char *text);
    /* Optional. How far it is, from 0 to 1, never less than before; false: it is to end, which is -ECANCELED. */
    bool (*go_on)(struct image_report *report, double done);
};

enum image_repair {
    IMAGE_REPAIR_LEAKS = 1u << 0,
    IMAGE_REPAIR_ERRORS = 1u << 1,
};

struct block_driver_image {
    /*
     * How sure it is, 0 (no) to 100, that what starts with `head` is an image of its format. `size`: at most
     * IMAGE_PROBE_BYTES, less where the file is shorter. Any thread.
     */
    int (*probe)(const uint8_t *head, size_t size, const char *filename);

    /* blockdev-create. Formats write to the node that `options` names or defines; protocols make the file. */
    bool (*co_create)(struct graph *graph, const struct blockdev_create_options *options, struct error **err);

    /* The short form of `options`, and what the table alone cannot say: changes `object`, the JSON that will be parsed
     * as BlockdevCreateOptions, for an option whose `member` is NULL. */
    const struct image_option *options;
    bool (*translate)(struct json *object, const char *name, const char *value, struct error **err);

    /* Its nodes take writes with IO_COMPRESSED. */
    bool compresses;

    /*
     * How large an image of `options` would be that holds what `source` has; `source` NULL: an empty one of `size`
     * bytes. Of `options` size and nodes do not matter, and may be NULL. Owned.
     */
    struct block_measure_info *(*co_measure)(const struct blockdev_create_options *options, struct handle *source,
                                             uint64_t size, struct error **err);

    /* x-blockdev-amend: no drain. `force`: also what may lose the image. */
    bool (*co_amend)(struct node *node, const struct blockdev_amend_options *options, bool force, struct error **err);

    /*
     * Changes what `options` has, members of the driver's BlockdevCreateOptions, and leaves the rest. No drain: nobody
     * else uses the image, which is open for writing and resizing.
     */
    bool (*co_amend_image)(struct node *node, const struct json *options, bool force, struct image_progress *progress,
                           struct error **err);

    /*
     * Fills in all members that begin with "check" and the counts: what is wrong and left so, and what was repaired.
     * `repair`: enum image_repair. `report` (may be NULL) hears of each finding and repair, as they should be shown.
     * After a repair the counts of clusters are of before: check again. False: could not be checked at all.
     */
    bool (*co_check)(struct node *node, unsigned repair, struct image_report *report, struct image_check *ret,
                     struct error **err);

    /*
     * The same for the image in `file`, without opening it: also for those that are too broken for that. With `repair`,
     * the handle must be allowed to write and to resize.
     */
    bool (*co_check_file)(struct handle *file, unsigned repair, struct image_report *report, struct image_check *ret,
                          struct error **err);

    /* Where the image names its backing image, as it stands in the header; owned, NULL: nowhere. The format likewise.
     */
    char *(*backing_file)(const struct node *node);
    char *(*backing_format)(const struct node *node);
    /* Both may be NULL: none. No drain. */
    bool (*co_change_backing_file)(struct node *node, const char *file, const char *format, struct error **err);

    /*
     * Internal snapshots. Owned results. create(): `info` has all but the id, which it fills in. `id` and `name` both
     * select; NULL: any. apply() takes the one whose id, or else whose name, is `selector`.
     */
    struct snapshot_info_array *(*co_snapshot_list)(struct node *node, struct error **err);
    bool (*co_snapshot_create)(struct node *node, struct snapshot_info *info, struct error **err);
    bool (*co_snapshot_apply)(struct node *node, const char *selector, struct error **err);
    struct snapshot_info *(*co_snapshot_delete)(struct node *node, const char *id, const char *name,
                                                struct error **err);
    /* From now on the node, which is open for reading only, shows what it held then. `id` and `name` as above. */
    bool (*co_snapshot_load)(struct node *node, const char *id, const char *name, struct error **err);

    /*
     * The state of a virtual machine, beside the disk: snapshots take it along. Bytes from `offset` on, as many as
     * `iov` has; what was never written reads as zeroes. Inside requests' time: no drain; 0 or -errno.
     */
    int (*co_vm_state_read)(struct node *node, uint64_t offset, const struct io_vector *iov);
    int (*co_vm_state_write)(struct node *node, uint64_t offset, const struct io_vector *iov);

    /* Gives up all that the top layer has, so that its backing image shows everywhere. Inside requests' time: no drain;
     * 0 or -errno. */
    int (*co_make_empty)(struct node *node);
};

enum { IMAGE_PROBE_BYTES = 2048 };
