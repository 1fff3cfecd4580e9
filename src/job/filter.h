/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The filter that a job puts above its source while it works, and the nodes it is told by name. Main loop. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct graph;
struct handle;
struct node;

struct job_filter {
    struct node *node;     /* opened, with the source as its filtered child */
    struct handle *handle; /* the job's, on it; keeps it; NULL: none yet */
    bool inserted;         /* it stands above the source */
    bool discards;         /* the job writes through the filter's edge to the source */
    GPtrArray *holds;      /* struct handle *: on nodes that the job occupies; NULL: none */
};

struct job_filter_options {
    const char *user; /* who: "block job 'j0'" */
    uint32_t perm;    /* what the handle uses */
};

/*
 * Puts the filter between `source` and all its parents. After a failure co_job_filter_give_up() is to follow, outside
 * of any drain in which this was called: the drain knows the filter.
 */
bool CO_FN co_job_filter_insert(struct job_filter *filter, struct node *source,
                                const struct job_filter_options *options, struct error **err) MUST_CHECK;

/* Undoes what was done of co_job_filter_hold(), opening and inserting. */
void CO_FN co_job_filter_give_up(struct job_filter *filter);

/* Gives its parents what it filters; closes it. No request of the job is under way. */
void CO_FN co_job_filter_remove(struct job_filter *filter);

/*
 * Keeps a node until the filter goes, and everybody from changing its place in the graph: other jobs, snapshots. False
 * where somebody occupies it already; what was held before is let go with the filter, or by co_job_filter_let_go().
 */
bool CO_FN co_job_filter_hold(struct job_filter *filter, struct node *node, enum job_type type,
                              struct error **err) MUST_CHECK;
void CO_FN co_job_filter_let_go(struct job_filter *filter);

/* A node for a command; borrowed; NULL and "Cannot find device='x' nor node-name='x'". */
struct node *job_find_node(struct graph *graph, const char *name, struct error **err) MUST_CHECK;
