/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that make and amend images: 'blockdev-create', 'x-blockdev-amend'. Both stay concluded until dismissed. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct graph;
struct job_registry;

bool job_start_create(struct job_registry *jobs, struct graph *graph, const char *id,
                      const struct blockdev_create_options *options, struct error **err) MUST_CHECK;
bool CO_FN co_job_start_amend(struct job_registry *jobs, struct graph *graph, const struct x_blockdev_amend_arg *arg,
                              struct error **err) MUST_CHECK;
