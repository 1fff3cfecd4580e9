/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pools and volumes as those who serve clients use them. Each function that a client can call stands for one procedure
 * of the protocol and makes all of its checks but those of the connection (authentication, read-only), flags included.
 *
 * All of it runs on the main loop; what is named co_ may suspend, and what takes long works on other threads meanwhile,
 * so that no client waits for another's volume. A pool is found by its uuid, a volume by its pool's name and its own.
 * Strings and arrays that are returned are owned by the caller. False and NULL: *err says why.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct graph;
struct iovec;
struct pool_error;
struct pool_secrets;
struct storage;

enum { STORAGE_UUID_SIZE = 16, STORAGE_LIST_MAX = 16384, VOLUME_STREAM_SEGMENTS_MAX = 8 };

/* A pool as clients name it. */
struct pool_id {
    char *name;
    uint8_t uuid[STORAGE_UUID_SIZE];
};
void pool_id_free(struct pool_id *id);
AUTO_DEFINE(pool_id, struct pool_id *, pool_id_free)

/* A volume as clients name it. */
struct volume_id {
    char *pool; /* the pool's name */
    char *name;
    char *key;
};
void volume_id_free(struct volume_id *id);
AUTO_DEFINE(volume_id, struct volume_id *, volume_id_free)

struct pool_id_array {
    size_t count;
    struct pool_id **items;
};
void pool_id_array_free(struct pool_id_array *array);
AUTO_DEFINE(pool_id_array, struct pool_id_array *, pool_id_array_free)

struct volume_id_array {
    size_t count;
    struct volume_id **items;
};
void volume_id_array_free(struct volume_id_array *array);
AUTO_DEFINE(volume_id_array, struct volume_id_array *, volume_id_array_free)

enum pool_state { POOL_INACTIVE, POOL_BUILDING, POOL_RUNNING, POOL_DEGRADED, POOL_INACCESSIBLE };

/* Bytes. */
struct pool_info {
    enum pool_state state;
    uint64_t capacity, allocation, available;
};

enum volume_type { VOLUME_FILE, VOLUME_BLOCK, VOLUME_DIR, VOLUME_NETWORK, VOLUME_NETDIR, VOLUME_PLOOP };

/* Bytes; allocation is the physical size where the caller's flags ask for that. */
struct volume_info {
    enum volume_type type;
    uint64_t capacity, allocation;
};

/* --- the whole --- */

/* Where things are; see the table "Files and paths" of docs/pool-daemon.md. Copied. */
struct storage_config {
    const char *config_directory; /* persistent pools; autostart links in "autostart" below */
    const char *state_directory;  /* running pools, driver.pid, autostarted */
    bool privileged;              /* root's daemon */
};

/* Makes the directories and takes the lock of the state directory. `graph` opens images, `secrets` may be NULL. */
struct storage *storage_new(const struct storage_config *config, struct graph *graph, struct pool_secrets *secrets,
                            struct pool_error **err);
/* Loads what runs and what is defined, looks whether it is there, starts what is to start by itself. */
void CO_FN co_storage_load(struct storage *storage);
/* The same again, as for SIGHUP. */
void CO_FN co_storage_reload(struct storage *storage);
/* The end is near: what takes long comes to an end with an error, and no pool counts as stopped because of that. */
void storage_stop(struct storage *storage);
/* After that: waits for work under way; pools stay as they are. */
void CO_FN co_storage_close(struct storage *storage);
void storage_free(struct storage *storage);
/* Loading, volume jobs and the like under way. */
bool storage_is_busy(const struct storage *storage);

enum pool_event {
    POOL_EVENT_DEFINED,
    POOL_EVENT_UNDEFINED,
    POOL_EVENT_STARTED,
    POOL_EVENT_STOPPED,
    POOL_EVENT_CREATED,
    POOL_EVENT_DELETED,
};

/* Hears of what happens to pools, in order. Embedded in who listens. */
struct storage_listener {
    void (*lifecycle)(struct storage_listener *listener, const struct pool_id *pool, enum pool_event event);
    void (*refreshed)(struct storage_listener *listener, const struct pool_id *pool);
};
void storage_listen(struct storage *storage, struct storage_listener *listener);
void storage_unlisten(struct storage *storage, struct storage_listener *listener);

/* The answer of CONNECT_GET_CAPABILITIES and of pool capabilities. */
char *storage_capabilities(const struct storage *storage);
char *storage_pool_capabilities(const struct storage *storage, unsigned flags, struct pool_error **err);

/* --- pools --- */

/* `flags`: the filter of list-all, 0: all. */
struct pool_id_array *storage_pool_list(struct storage *storage, unsigned flags, struct pool_error **err);
struct pool_id *storage_pool_by_name(struct storage *storage, const char *name, struct pool_error **err);
struct pool_id *storage_pool_by_uuid(struct storage *storage, const uint8_t *uuid, struct pool_error **err);
struct pool_id *storage_pool_by_volume(struct storage *storage, const struct volume_id *volume,
                                       struct pool_error **err);
struct pool_id *storage_pool_by_target_path(struct storage *storage, const char *path, struct pool_error **err);

char *CO_FN co_storage_find_sources(struct storage *storage, const char *type, const char *spec, unsigned flags,
                                    struct pool_error **err);
struct pool_id *CO_FN co_storage_pool_create_xml(struct storage *storage, const char *xml, unsigned flags,
                                                 struct pool_error **err);
struct pool_id *CO_FN co_storage_pool_define_xml(struct storage *storage, const char *xml, unsigned flags,
                                                 struct pool_error **err);
bool CO_FN co_storage_pool_start(struct storage *storage, const struct pool_id *pool, unsigned flags,
                                 struct pool_error **err);
bool CO_FN co_storage_pool_build(struct storage *storage, const struct pool_id *pool, unsigned flags,
                                 struct pool_error **err);
bool CO_FN co_storage_pool_destroy(struct storage *storage, const struct pool_id *pool, struct pool_error **err);
bool CO_FN co_storage_pool_delete(struct storage *storage, const struct pool_id *pool, unsigned flags,
                                  struct pool_error **err);
bool CO_FN co_storage_pool_undefine(struct storage *storage, const struct pool_id *pool, struct pool_error **err);
bool CO_FN co_storage_pool_refresh(struct storage *storage, const struct pool_id *pool, unsigned flags,
                                   struct pool_error **err);
bool storage_pool_get_info(struct storage *storage, const struct pool_id *pool, struct pool_info *ret,
                           struct pool_error **err);
char *storage_pool_get_xml(struct storage *storage, const struct pool_id *pool, unsigned flags,
                           struct pool_error **err);
bool storage_pool_get_autostart(struct storage *storage, const struct pool_id *pool, bool *ret,
                                struct pool_error **err);
bool CO_FN co_storage_pool_set_autostart(struct storage *storage, const struct pool_id *pool, bool autostart,
                                         struct pool_error **err);
bool storage_pool_is_active(struct storage *storage, const struct pool_id *pool, bool *ret, struct pool_error **err);
bool storage_pool_is_persistent(struct storage *storage, const struct pool_id *pool, bool *ret,
                                struct pool_error **err);

/* --- volumes --- */

struct volume_id_array *storage_volume_list(struct storage *storage, const struct pool_id *pool, unsigned flags,
                                            struct pool_error **err);
struct volume_id *storage_volume_by_name(struct storage *storage, const struct pool_id *pool, const char *name,
                                         struct pool_error **err);
struct volume_id *storage_volume_by_key(struct storage *storage, const char *key, struct pool_error **err);
struct volume_id *CO_FN co_storage_volume_by_path(struct storage *storage, const char *path, struct pool_error **err);
char *storage_volume_get_path(struct storage *storage, const struct volume_id *volume, struct pool_error **err);

bool CO_FN co_storage_volume_get_info(struct storage *storage, const struct volume_id *volume, unsigned flags,
                                      struct volume_info *ret, struct pool_error **err);
char *CO_FN co_storage_volume_get_xml(struct storage *storage, const struct volume_id *volume, unsigned flags,
                                      struct pool_error **err);
struct volume_id *CO_FN co_storage_volume_create_xml(struct storage *storage, const struct pool_id *pool,
                                                     const char *xml, unsigned flags, struct pool_error **err);
struct volume_id *CO_FN co_storage_volume_create_xml_from(struct storage *storage, const struct pool_id *pool,
                                                          const char *xml, const struct volume_id *source,
                                                          unsigned flags, struct pool_error **err);
bool CO_FN co_storage_volume_delete(struct storage *storage, const struct volume_id *volume, unsigned flags,
                                    struct pool_error **err);
bool CO_FN co_storage_volume_wipe(struct storage *storage, const struct volume_id *volume, unsigned algorithm,
                                  unsigned flags, struct pool_error **err);
bool CO_FN co_storage_volume_resize(struct storage *storage, const struct volume_id *volume, uint64_t capacity,
                                    unsigned flags, struct pool_error **err);

/* --- a volume's content as a stream --- */

struct volume_stream;

/* `length` 0: to the end (download), without limit (upload). `flags` bit 0: holes are told apart. */
struct volume_stream *CO_FN co_storage_volume_download(struct storage *storage, const struct volume_id *volume,
                                                       uint64_t offset, uint64_t length, unsigned flags,
                                                       struct pool_error **err);
struct volume_stream *CO_FN co_storage_volume_upload(struct storage *storage, const struct volume_id *volume,
                                                     uint64_t offset, uint64_t length, unsigned flags,
                                                     struct pool_error **err);

/* Reads at most `size` bytes to `buffer`: their number, 0 at the end, -1: *err. Where a hole is next (only on streams
 * that tell holes), returns 0 and sets *hole to its length, else *hole is 0. */
int64_t CO_FN co_volume_stream_read(struct volume_stream *stream, void *buffer, size_t size, uint64_t *hole,
                                    struct pool_error **err);
/* Writes all that the segments (at most VOLUME_STREAM_SEGMENTS_MAX) hold, one behind the other. They are on their way
 * to the disk then. */
bool CO_FN co_volume_stream_write(struct volume_stream *stream, const struct iovec *segments, int count,
                                  struct pool_error **err);
bool CO_FN co_volume_stream_write_hole(struct volume_stream *stream, uint64_t length, struct pool_error **err);
/* The upload is whole: waits until all that has been written, and the name of the volume, are on the disk. */
bool CO_FN co_volume_stream_finish(struct volume_stream *stream, struct pool_error **err);
/* Ends the stream, finished or not, and frees it; after an upload the pool is refreshed in the background. */
void CO_FN co_volume_stream_close(struct volume_stream *stream);
