/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* 'blockdev-backup': a copy of a node as it is when the job is made. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"
#include "job/place.h"

struct error;
struct job;

/* Whether the job itself could be made so now. */
bool backup_check_job(const struct job_place *place, const struct blockdev_backup *options,
                      struct error **err) MUST_CHECK;

/* A job that is 'created', from whose making on old data is saved; to be started or discarded. */
struct job *CO_FN co_backup_new(const struct job_place *place, const struct blockdev_backup *options,
                                struct error **err) MUST_CHECK;
