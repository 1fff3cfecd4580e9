/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filter of jobs whose source is written to meanwhile. It stands above the source. For mirror and commit jobs,
 * every change that comes through is marked as to be copied, or (active) made on both sides at once; for stream jobs,
 * whose target is the source itself, it waits where the job copies just then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct block_copy;
struct edge;
struct error;
struct job;
struct node;

struct mirror_filter_options {
    const char *node_name; /* NULL: made up */
    bool is_commit;        /* how its driver is called */
    struct node *source;
    struct node *target;  /* NULL: the source itself */
    uint32_t granularity; /* bytes, a power of two */
    bool active;
};

/* A node with both as children, to be put above the source. NULL and the error. Main loop, as all but the requests. */
struct node *CO_FN co_mirror_filter_open(const struct mirror_filter_options *options, struct error **err) MUST_CHECK;

struct block_copy *mirror_filter_copy(const struct node *node);
struct edge *mirror_filter_target(const struct node *node);

/* Writes go to both sides from now on; they are acknowledged when both have them. */
void mirror_filter_set_active(struct node *node, bool active);
bool mirror_filter_active(const struct node *node);

/* The job to be woken when something is marked while it has asked for that; NULL: none any more. */
void mirror_filter_set_job(struct node *node, struct job *job);
void mirror_filter_ask(struct node *node);

/* The first failed write to the target since the last call, negative errno; 0: none. */
int mirror_filter_take_error(struct node *node);

/*
 * From now on changes that others make of the source, past the filter, are seen too; right after the filter has been
 * put above it, inside the same drain. They are marked, or (stream) wait where the job copies. `source`: the filter's,
 * or the image below other filters; it stays until the end of that, or until the filter has been taken out.
 */
void mirror_filter_watch(struct node *node, struct node *source);
void CO_FN co_mirror_filter_unwatch(struct node *node);

/* It passes on what its parents do, and uses its children for nothing else. Inside a drain, and before permissions are
 * computed. */
void mirror_filter_set_stopped(struct node *node, bool stopped);
