/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/storage-fake-test.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "loop/loop.h"
#include "pool/pool-error.h"

enum { READ_MAX = 100000, ZEROES_MIN = 4096 };

struct volume_stream {
    struct storage *storage;
    uint64_t at, end;
    bool sparse;
};

struct storage *fake_storage_new(void)
{
    struct storage *storage = g_new0(struct storage, 1);

    storage->content = g_byte_array_new();
    return storage;
}

void storage_free(struct storage *storage)
{
    if (!storage)
        return;
    g_byte_array_unref(storage->content);
    g_free(storage);
}

void fake_storage_open_gate(struct storage *storage)
{
    storage->gate_shut = false;
}

struct storage *storage_new(const struct storage_config *config, struct graph *graph, struct pool_secrets *secrets,
                            struct pool_error **err)
{
    return fake_storage_new();
}

void co_storage_load(struct storage *storage)
{
}

void co_storage_reload(struct storage *storage)
{
}

void storage_stop(struct storage *storage)
{
}

void co_storage_close(struct storage *storage)
{
}

bool storage_is_busy(const struct storage *storage)
{
    return false;
}

void storage_listen(struct storage *storage, struct storage_listener *listener)
{
    storage->listener = listener;
}

void storage_unlisten(struct storage *storage, struct storage_listener *listener)
{
    storage->listener = NULL;
}

char *storage_capabilities(const struct storage *storage)
{
    return g_strdup("<capabilities/>");
}

char *storage_pool_capabilities(const struct storage *storage, unsigned flags, struct pool_error **err)
{
    return pool_error_check_flags(err, flags, 0, "storageConnectGetStoragePoolCapabilities")
               ? g_strdup("<storagepoolCapabilities/>")
               : NULL;
}

static struct pool_id *the_pool(void)
{
    struct pool_id *id = g_new0(struct pool_id, 1);

    id->name = g_strdup("p");
    memset(id->uuid, 0x11, sizeof(id->uuid));
    return id;
}

static struct volume_id *the_volume(void)
{
    struct volume_id *id = g_new0(struct volume_id, 1);

    id->pool = g_strdup("p");
    id->name = g_strdup("v");
    id->key = g_strdup("/p/v");
    return id;
}

static bool refuse(struct pool_error **err)
{
    return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "fake");
}

static bool is_pool(const struct pool_id *pool, struct pool_error **err)
{
    if (pool->uuid[0] == 0x11)
        return true;
    return pool_error_set(err, POOL_ERROR_NO_POOL, "no storage pool with matching uuid (%s)", pool->name);
}

struct pool_id_array *storage_pool_list(struct storage *storage, unsigned flags, struct pool_error **err)
{
    struct pool_id_array *array = g_new0(struct pool_id_array, 1);

    array->items = g_new0(struct pool_id *, 1);
    array->items[array->count++] = the_pool();
    return array;
}

struct pool_id *storage_pool_by_name(struct storage *storage, const char *name, struct pool_error **err)
{
    if (!strcmp(name, "p"))
        return the_pool();
    pool_error_set(err, POOL_ERROR_NO_POOL, "no storage pool with matching name '%s'", name);
    return NULL;
}

struct pool_id *storage_pool_by_uuid(struct storage *storage, const uint8_t *uuid, struct pool_error **err)
{
    return the_pool();
}

struct pool_id *storage_pool_by_volume(struct storage *storage, const struct volume_id *volume, struct pool_error **err)
{
    return storage_pool_by_name(storage, volume->pool, err);
}

struct pool_id *storage_pool_by_target_path(struct storage *storage, const char *path, struct pool_error **err)
{
    return the_pool();
}

char *co_storage_find_sources(struct storage *storage, const char *type, const char *spec, unsigned flags,
                              struct pool_error **err)
{
    refuse(err);
    return NULL;
}

struct pool_id *co_storage_pool_create_xml(struct storage *storage, const char *xml, unsigned flags,
                                           struct pool_error **err)
{
    refuse(err);
    return NULL;
}

struct pool_id *co_storage_pool_define_xml(struct storage *storage, const char *xml, unsigned flags,
                                           struct pool_error **err)
{
    AUTO(pool_id) id = the_pool();

    if (storage->listener)
        storage->listener->lifecycle(storage->listener, id, POOL_EVENT_DEFINED);
    return TAKE(id);
}

bool co_storage_pool_start(struct storage *storage, const struct pool_id *pool, unsigned flags, struct pool_error **err)
{
    return is_pool(pool, err);
}

bool co_storage_pool_build(struct storage *storage, const struct pool_id *pool, unsigned flags, struct pool_error **err)
{
    return is_pool(pool, err);
}

bool co_storage_pool_destroy(struct storage *storage, const struct pool_id *pool, struct pool_error **err)
{
    return is_pool(pool, err);
}

bool co_storage_pool_delete(struct storage *storage, const struct pool_id *pool, unsigned flags,
                            struct pool_error **err)
{
    return is_pool(pool, err);
}

bool co_storage_pool_undefine(struct storage *storage, const struct pool_id *pool, struct pool_error **err)
{
    return is_pool(pool, err);
}

bool co_storage_pool_refresh(struct storage *storage, const struct pool_id *pool, unsigned flags,
                             struct pool_error **err)
{
    storage->waiting++;
    while (storage->gate_shut)
        co_yield ();
    storage->waiting--;
    if (!is_pool(pool, err))
        return false;
    if (storage->listener)
        storage->listener->refreshed(storage->listener, pool);
    return true;
}

bool storage_pool_get_info(struct storage *storage, const struct pool_id *pool, struct pool_info *ret,
                           struct pool_error **err)
{
    *ret = (struct pool_info){.state = POOL_RUNNING, .capacity = 3, .allocation = 1, .available = 2};
    return is_pool(pool, err);
}

char *storage_pool_get_xml(struct storage *storage, const struct pool_id *pool, unsigned flags, struct pool_error **err)
{
    return is_pool(pool, err) ? g_strdup("<pool/>") : NULL;
}

bool storage_pool_get_autostart(struct storage *storage, const struct pool_id *pool, bool *ret, struct pool_error **err)
{
    *ret = true;
    return is_pool(pool, err);
}

bool co_storage_pool_set_autostart(struct storage *storage, const struct pool_id *pool, bool autostart,
                                   struct pool_error **err)
{
    return is_pool(pool, err);
}

bool storage_pool_is_active(struct storage *storage, const struct pool_id *pool, bool *ret, struct pool_error **err)
{
    *ret = true;
    return is_pool(pool, err);
}

bool storage_pool_is_persistent(struct storage *storage, const struct pool_id *pool, bool *ret, struct pool_error **err)
{
    *ret = true;
    return is_pool(pool, err);
}

struct volume_id_array *storage_volume_list(struct storage *storage, const struct pool_id *pool, unsigned flags,
                                            struct pool_error **err)
{
    struct volume_id_array *array;

    if (!is_pool(pool, err))
        return NULL;
    array = g_new0(struct volume_id_array, 1);
    array->items = g_new0(struct volume_id *, 1);
    array->items[array->count++] = the_volume();
    return array;
}

struct volume_id *storage_volume_by_name(struct storage *storage, const struct pool_id *pool, const char *name,
                                         struct pool_error **err)
{
    return is_pool(pool, err) ? the_volume() : NULL;
}

struct volume_id *storage_volume_by_key(struct storage *storage, const char *key, struct pool_error **err)
{
    pool_error_set(err, POOL_ERROR_NO_VOLUME, "no storage vol with matching key %s", key);
    return NULL;
}

struct volume_id *co_storage_volume_by_path(struct storage *storage, const char *path, struct pool_error **err)
{
    return the_volume();
}

char *storage_volume_get_path(struct storage *storage, const struct volume_id *volume, struct pool_error **err)
{
    return g_strdup("/p/v");
}

bool co_storage_volume_get_info(struct storage *storage, const struct volume_id *volume, unsigned flags,
                                struct volume_info *ret, struct pool_error **err)
{
    *ret = (struct volume_info){.type = VOLUME_FILE, .capacity = storage->content->len, .allocation = 1};
    return true;
}

char *co_storage_volume_get_xml(struct storage *storage, const struct volume_id *volume, unsigned flags,
                                struct pool_error **err)
{
    return g_strdup("<volume/>");
}

struct volume_id *co_storage_volume_create_xml(struct storage *storage, const struct pool_id *pool, const char *xml,
                                               unsigned flags, struct pool_error **err)
{
    return the_volume();
}

struct volume_id *co_storage_volume_create_xml_from(struct storage *storage, const struct pool_id *pool,
                                                    const char *xml, const struct volume_id *source, unsigned flags,
                                                    struct pool_error **err)
{
    return the_volume();
}

bool co_storage_volume_delete(struct storage *storage, const struct volume_id *volume, unsigned flags,
                              struct pool_error **err)
{
    return true;
}

bool co_storage_volume_wipe(struct storage *storage, const struct volume_id *volume, unsigned algorithm, unsigned flags,
                            struct pool_error **err)
{
    return true;
}

bool co_storage_volume_resize(struct storage *storage, const struct volume_id *volume, uint64_t capacity,
                              unsigned flags, struct pool_error **err)
{
    return true;
}

/* --- content --- */

static struct volume_stream *stream_new(struct storage *storage, uint64_t offset, uint64_t length, unsigned flags)
{
    struct volume_stream *stream = g_new0(struct volume_stream, 1);

    stream->storage = storage;
    stream->at = offset;
    stream->end = length ? offset + length : UINT64_MAX;
    stream->sparse = flags & 1;
    return stream;
}

struct volume_stream *co_storage_volume_download(struct storage *storage, const struct volume_id *volume,
                                                 uint64_t offset, uint64_t length, unsigned flags,
                                                 struct pool_error **err)
{
    return stream_new(storage, offset, length, flags);
}

struct volume_stream *co_storage_volume_upload(struct storage *storage, const struct volume_id *volume, uint64_t offset,
                                               uint64_t length, unsigned flags, struct pool_error **err)
{
    return stream_new(storage, offset, length, flags);
}

static size_t zeroes_at(const GByteArray *content, uint64_t at)
{
    size_t count = 0;

    while (at + count < content->len && !content->data[at + count])
        count++;
    return count;
}

int64_t co_volume_stream_read(struct volume_stream *stream, void *buffer, size_t size, uint64_t *hole,
                              struct pool_error **err)
{
    const GByteArray *content = stream->storage->content;
    uint64_t end = MIN(stream->end, content->len);
    size_t zeroes = stream->sparse ? zeroes_at(content, stream->at) : 0;

    *hole = 0;
    if (stream->at >= end)
        return 0;
    if (zeroes >= ZEROES_MIN) {
        *hole = MIN(zeroes, end - stream->at);
        stream->at += *hole;
        return 0;
    }
    size = MIN(MIN(size, READ_MAX), (size_t)(end - stream->at));
    for (size_t i = 1; stream->sparse && i < size; i++) {
        if (zeroes_at(content, stream->at + i) >= ZEROES_MIN)
            size = i;
    }
    memcpy(buffer, content->data + stream->at, size);
    stream->at += size;
    return (int64_t)size;
}

static bool write_data(struct volume_stream *stream, const void *buffer, size_t size, struct pool_error **err)
{
    GByteArray *content = stream->storage->content;
    guint old = content->len;

    if (size > stream->end - stream->at)
        return pool_error_set_errno(err, ENOSPC, "cannot write to stream");
    if (stream->at + size > old) {
        g_byte_array_set_size(content, (guint)(stream->at + size));
        memset(content->data + old, 0, content->len - old);
    }
    memcpy(content->data + stream->at, buffer, size);
    stream->at += size;
    return true;
}

bool co_volume_stream_write(struct volume_stream *stream, const struct iovec *segments, int count,
                            struct pool_error **err)
{
    for (int i = 0; i < count; i++) {
        if (!write_data(stream, segments[i].iov_base, segments[i].iov_len, err))
            return false;
    }
    return true;
}

bool co_volume_stream_write_hole(struct volume_stream *stream, uint64_t length, struct pool_error **err)
{
    g_autofree uint8_t *zeroes = g_malloc0(length);

    return write_data(stream, zeroes, length, err);
}

bool co_volume_stream_finish(struct volume_stream *stream, struct pool_error **err)
{
    (void)stream;
    (void)err;
    return true;
}

void co_volume_stream_close(struct volume_stream *stream)
{
    stream->storage->closed++;
    g_free(stream);
}
