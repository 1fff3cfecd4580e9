/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* 'blockdev-mirror', 'block-commit' of the active layer: a copy that follows its source until it takes its place. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"
#include "job/place.h"
#include "job/pump.h"

struct error;
struct job;
struct node;

/* Zero is the default of each but the first three. */
struct mirror_options {
    enum job_type type; /* mirror or commit */
    struct node *source;
    struct node *target;
    const char *id;
    const char *filter_node_name;
    const char *replaces; /* NULL: the source */
    enum mirror_sync_mode sync;
    struct node *base;    /* 'top': nothing of this and below is copied; NULL: of the source's backing image */
    int64_t speed;        /* bytes a second; 0: no limit */
    uint64_t granularity; /* bytes; 0: chosen */
    int64_t buffer_bytes; /* that may be under way; 0: chosen */
    struct job_error_policy policy;
    bool keep_zeroes; /* zeroes are written, and leave no holes */
    bool target_is_zero;
    bool active;
    bool manual_finalize;
    bool manual_dismiss;

    bool takes_backing; /* in the end the target stands on the source's backing image, or ('none') on the source */
    bool one_shot;      /* it ends once all is copied, and is never ready */

    /* Before the copy takes the place of its source, which a false forbids; and when all is over. NULL: nothing. */
    bool (*co_before_swap)(void *opaque, struct node *filter, struct error **err);
    void (*co_done)(void *opaque, bool success);
    void *opaque; /* the job's, from its making on: co_done() frees it */
};

/* A job that is 'created'; to be started. */
struct job *CO_FN co_mirror_new(const struct job_place *place, const struct mirror_options *options,
                                struct error **err) MUST_CHECK;

/* What can be said of the options without a target; and all, then the job. */
bool mirror_check_options(const struct job_place *place, const struct mirror_options *options,
                          struct error **err) MUST_CHECK;
struct job *CO_FN co_mirror_checked_new(const struct job_place *place, const struct mirror_options *options,
                                        struct error **err) MUST_CHECK;

/* The command's options, checked. */
struct job *CO_FN co_blockdev_mirror_new(const struct job_place *place, const struct blockdev_mirror_arg *arg,
                                         struct error **err) MUST_CHECK;
