/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where a new job belongs. */
#pragma once

struct graph;
struct job_registry;
struct job_transaction;

struct job_place {
    struct job_registry *jobs;
    struct graph *graph;
    struct job_transaction *transaction; /* NULL: one of its own */
};
