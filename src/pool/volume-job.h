/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A client's work on a volume: begun and ended under the pool's lock, and maybe without it in between. Main loop. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct pool;
struct pool_error;
struct storage;
struct volume;
struct volume_id;

struct volume_job {
    struct pool *pool;     /* referenced */
    struct volume *volume; /* referenced */
};

/* Finds the volume and takes its pool's lock. False: *err, and nothing is held. */
bool CO_FN co_volume_begin(struct storage *storage, const struct volume_id *id, struct volume_job *ret,
                           struct pool_error **err) MUST_CHECK;
/* Gives all back; the lock is held. */
void volume_end(struct volume_job *job);

/* For work that takes long: marks the volume and leaves the lock; takes the lock and the mark away. */
void volume_job_go(struct volume_job *job);
void CO_FN co_volume_job_return(struct volume_job *job);

/* Nobody makes it any more; and nobody uses it either. */
bool volume_check_built(const struct volume *volume, struct pool_error **err);
bool volume_check_free(const struct volume *volume, struct pool_error **err);
