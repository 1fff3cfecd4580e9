/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pools whose volumes are the files of a directory: what dir, fs and netfs have in common. Slots of backend.h. */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "pool/backend.h"

/* The target directory: made with the wanted mode and owner, or given those where it is there. */
bool CO_FN co_files_make_directory(struct pool *pool, struct pool_error **err);
bool CO_FN co_files_delete_pool(struct pool *pool, unsigned flags, struct pool_error **err);
bool CO_FN co_files_refresh(struct pool *pool, struct pool_scan *scan, struct pool_error **err);
bool CO_FN co_files_check(struct pool *pool, bool *ret_active, struct pool_error **err);

/* Whether XML can show the name, so that the file can be a volume. Any thread. */
bool files_can_show(const char *name);

/* Looks at some files of the pool's directory: to `found` a volume for each, owned, or NULL where there is none. */
void CO_FN co_files_look(struct pool *pool, const char *const *names, guint count, GPtrArray *found);

/* Operations on volumes; the same for all such pools. */
extern const struct pool_backend_volume files_volume_operations;

/* Reads all that a file shows into `volume`, whose path is set: format, sizes, owner, backing image. Blocks, for
 * worker threads; 0 or -errno. `full`: also the format and what depends on it; else sizes, owner and times only.
 * `now_us`: loop_wall_time_us(). */
int file_volume_probe(struct volume *volume, bool full, int64_t now_us);

/* The same for a raw file that has just been made, is in its place and reads as zeroes: nothing of it is read, so
 * nothing gets into the page cache. `fd` is open on it. */
int file_volume_take_empty(struct volume *volume, int fd, int64_t now_us);

/* Whether the file is as it was when it was last looked at; the time of the last access is taken over. Immediate; false
 * where looking could wait for another host. `just_seen`: the look was so recent that nobody else can have known it. */
bool file_volume_is_as_seen(struct volume *volume, bool just_seen);

/* `volume` has what the look at its file (on a stand-in) has found, which loses it. `full` as for the look. */
void file_volume_take(struct volume *volume, struct volume *found, bool full);
