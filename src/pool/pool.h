/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A pool as it lives in the daemon: its definition, its state, and its volumes, which are found by name, key and path.
 *
 * All on the main loop. `lock` is held by whoever changes the pool's state or its set of volumes and suspends
 * meanwhile; who only reads takes no lock, because each change becomes visible between two suspensions. Long work on a
 * volume is done without the lock: the volume's marks (in_use, building) and the pool's count of jobs keep others off.
 *
 * Keeps: (1) volumes only while active; (2) names, keys and paths of volumes are unique; (3) a pending definition only
 * while active; (4) jobs only while active.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "loop/lock.h"
#include "pool/pool-def.h"
#include "pool/volume.h"

struct pool_backend;
struct pool_error;
struct pool_watch;
struct storage;

struct pool {
    struct storage *storage;            /* const */
    const struct pool_backend *backend; /* const while active */
    struct pool_def *def;               /* the one that it runs on */
    struct pool_def *pending;           /* takes its place when the pool stops; NULL: none */
    char *config_path;                  /* NULL: transient */
    bool active;
    bool starting;
    bool removed; /* nobody finds it any more; seen by those who waited for the lock */
    bool autostart;
    unsigned jobs; /* on its volumes */
    unsigned references;
    struct co_mutex lock;

    GPtrArray *volumes; /* owns a reference of each */
    GHashTable *by_name, *by_key, *by_path;
    struct pool_watch *watch; /* of its directory; NULL: nobody watches */
    void *backend_state;      /* of the backend, while active; freed by its co_stop() */
};

/* Takes `def`. One reference. */
struct pool *pool_new(struct storage *storage, const struct pool_backend *backend, struct pool_def *def);
struct pool *pool_ref(struct pool *pool);
void pool_unref(struct pool *pool); /* NULL is allowed */
AUTO_DEFINE(pool, struct pool *, pool_unref)

/* Adds `volume` (taken); false and a message where its name, key or path is there already, or lacks one. */
bool pool_add_volume(struct pool *pool, struct volume *volume, struct pool_error **err) MUST_CHECK;
/* Takes it out, and drops the pool's reference. */
void pool_remove_volume(struct pool *pool, struct volume *volume);
void pool_clear_volumes(struct pool *pool);

/* Borrowed; NULL: none. */
struct volume *pool_find_volume(const struct pool *pool, const char *name);
struct volume *pool_find_key(const struct pool *pool, const char *key);
struct volume *pool_find_path(const struct pool *pool, const char *path);
size_t pool_volume_count(const struct pool *pool);
struct volume *pool_volume_at(const struct pool *pool, size_t index);

/* A volume's bytes come to the pool's numbers, or go. */
void pool_count_allocation(struct pool *pool, int64_t bytes);
