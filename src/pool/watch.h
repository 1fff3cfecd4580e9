/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What others do in the directories of running pools, as far as the kernel tells (inotify): a refresh then looks at
 * what has changed only, and volumes that come and go are known before anybody asks for a refresh. Where there is no
 * watch, because the kernel has no more of them or the directory is not on a disk of this host, each refresh looks at
 * all.
 *
 * Clients are sent no events for it: a pool's list of volumes may be fresher than they think, and nothing else. Main
 * loop.
 *
 * Invariants: (1) one watch a directory; (2) a watch is good for something only after a scan that was begun under it
 * has succeeded, and until an event is lost; (3) names in `changed` are those of files of the directory, without
 * slashes.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "base/compiler.h"

struct pool;
struct pool_watch;
struct pool_watcher;
struct storage;

/*
 * A scan of the pool's directory begins, under the pool's lock: `folder` is open, and `status` is what the system says
 * of it. The names (a set, owned) of all that has changed since the scan before, and of files with passing names; NULL:
 * nobody knows, so all is to be looked at.
 */
GHashTable *pool_watch_begin(struct pool *pool, int folder, const struct stat *status) MUST_CHECK;
/* ... and has ended. Where it failed, the next one looks at all. */
void pool_watch_end(struct pool *pool, bool ok);

/* The directory is nobody's business any more. */
void pool_watch_stop(struct pool *pool);

/* Waits for the watching to end; before the storage is freed. NULL is allowed. */
void CO_FN co_pool_watcher_free(struct pool_watcher *watcher);
