/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files that implement storage.h share. Main loop. */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "loop/lock.h"
#include "pool/backend.h"
#include "pool/pool.h"
#include "pool/storage.h"

struct graph;
struct loop;
struct pool_error;
struct pool_secrets;
struct pool_watcher;

struct storage {
    char *config_directory, *autostart_directory, *state_directory; /* const */
    bool privileged;                                                /* const */
    struct graph *graph;                                            /* const */
    struct pool_secrets *secrets;                                   /* const, may be NULL */
    struct loop *loop;                                              /* const */
    int lock_fd;

    GPtrArray *pools; /* owns a reference of each */
    GHashTable *by_name, *by_uuid;
    GPtrArray *listeners;
    struct co_mutex definitions; /* held while the set of pools changes, from the checks to the end; who holds it waits
                                    for no pool's lock, but it may be taken under one */
    struct co_group work;        /* whatever runs without a client waiting for it */
    unsigned busy;               /* operations under way that are to end before the daemon does */
    bool loading;
    struct co_condition loaded;
    bool closing;                 /* what fails now fails because the daemon ends */
    struct pool_watcher *watcher; /* NULL: nothing has been watched yet */
};

/* --- finding --- */

/* Borrowed; NULL and libvirt's error. `pool` by its uuid; a volume by its pool's name and its own. */
struct pool *storage_find_pool(struct storage *storage, const struct pool_id *pool, struct pool_error **err);
struct pool *storage_find_pool_named(struct storage *storage, const char *name, struct pool_error **err);
struct pool *storage_find_active_pool(struct storage *storage, const struct pool_id *pool, struct pool_error **err);
struct volume *storage_find_volume(struct storage *storage, const struct volume_id *id, struct pool **ret_pool,
                                   struct pool_error **err);

/* Owned. */
struct pool_id *pool_get_id(const struct pool *pool);
struct volume_id *volume_get_id(const struct pool *pool, const struct volume *volume);

/* --- changing --- */

/* Takes the reference of `pool`. */
void storage_add_pool(struct storage *storage, struct pool *pool);
/* Replaces the definition it runs on by `def` (taken), which has the same name. */
void storage_set_definition(struct pool *pool, struct pool_def *def);
/* The same, and hands the old one over. */
struct pool_def *storage_swap_definition(struct pool *pool, struct pool_def *def);
/* Nobody finds it any more; drops the storage's reference. */
void storage_remove_pool(struct pool *pool);

void storage_tell(struct storage *storage, const struct pool *pool, enum pool_event event);
void storage_tell_refreshed(struct storage *storage, const struct pool *pool);

/*
 * Takes the lock of a pool that is still there and not starting; the caller holds a reference. False: *err, and the
 * lock is not held. unlock: an inactive pool goes on with its pending definition, where it has one.
 */
bool CO_FN co_pool_lock(struct pool *pool, struct pool_error **err) MUST_CHECK;
void pool_unlock(struct pool *pool);

/* The pool can change as a whole: no jobs. */
bool pool_check_no_jobs(const struct pool *pool, struct pool_error **err);
bool pool_check_active(const struct pool *pool, struct pool_error **err);

/* Under the lock. A refresh that fails leaves the pool as it was. */
bool CO_FN co_pool_refresh(struct pool *pool, struct pool_error **err);
/* Under the lock: stops it after a failed refresh and such, as far as it goes; a transient pool is forgotten. */
void CO_FN co_pool_give_up(struct pool *pool, bool tell);
/* As a client would start it, but nobody is told. */
bool CO_FN co_pool_start_quietly(struct storage *storage, const struct pool_id *id, struct pool_error **err);
/* The pool is refreshed when it can be, without anybody waiting; failures are kept from clients. */
void pool_refresh_later(struct pool *pool);

/* --- files --- */

/* What lies in the directories: owned. */
char *storage_config_path(const struct storage *storage, const char *name);
char *storage_autostart_path(const struct storage *storage, const char *name);
char *storage_state_path(const struct storage *storage, const char *name);
bool CO_FN co_storage_write_config(const struct storage *storage, const struct pool_def *def, struct pool_error **err);
bool CO_FN co_storage_write_state(const struct storage *storage, const struct pool_def *def, struct pool_error **err);
void CO_FN co_storage_remove_state(const struct storage *storage, const char *name);

/* --- checks --- */

/* Whether a pool of that definition can be beside those that there are. */
bool storage_check_source(struct storage *storage, const struct pool_def *def, struct pool_error **err);
bool storage_check_duplicate(struct storage *storage, const struct pool_def *def, bool create, struct pool **ret_same,
                             struct pool_error **err);

/* Always false: this build has no backend for the type. */
bool storage_no_backend(enum pool_type type, struct pool_error **err);
/* The backend of the pool, or the error that there is none. */
const struct pool_backend *pool_get_backend(const struct pool *pool, struct pool_error **err);
