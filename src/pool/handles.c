/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How clients name pools and volumes, and lists of such names. */
#include <string.h>

#include "pool/pool-error.h"
#include "pool/storage-internal.h"

enum pool_list_flags {
    LIST_INACTIVE = 1u << 0,
    LIST_ACTIVE = 1u << 1,
    LIST_PERSISTENT = 1u << 2,
    LIST_TRANSIENT = 1u << 3,
    LIST_AUTOSTART = 1u << 4,
    LIST_NO_AUTOSTART = 1u << 5,
    LIST_TYPES = 0xFFFC0, /* a bit a type, from bit 6 */
    LIST_ALL = 0xFFFFF,
};

struct pool_id *pool_get_id(const struct pool *pool)
{
    struct pool_id *id = g_new0(struct pool_id, 1);

    id->name = g_strdup(pool->def->name);
    memcpy(id->uuid, pool->def->uuid, sizeof(id->uuid));
    return id;
}

struct volume_id *volume_get_id(const struct pool *pool, const struct volume *volume)
{
    struct volume_id *id = g_new0(struct volume_id, 1);

    id->pool = g_strdup(pool->def->name);
    id->name = g_strdup(volume->name);
    id->key = g_strdup(volume->key);
    return id;
}

/* libvirt's numbers of the types in this filter are not those of the types themselves. */
static unsigned type_flag(enum pool_type type)
{
    static const unsigned char bits[POOL_TYPE__MAX] = {
        [POOL_DIR] = 6,      [POOL_FS] = 7,    [POOL_NETFS] = 8,     [POOL_LOGICAL] = 9,       [POOL_DISK] = 10,
        [POOL_ISCSI] = 11,   [POOL_SCSI] = 12, [POOL_MPATH] = 13,    [POOL_RBD] = 14,          [POOL_SHEEPDOG] = 15,
        [POOL_GLUSTER] = 16, [POOL_ZFS] = 17,  [POOL_VSTORAGE] = 18, [POOL_ISCSI_DIRECT] = 19,
    };

    return 1u << bits[type];
}

/* A group of bits of which none is set lets everything through. */
static bool passes(unsigned flags, unsigned group, unsigned own)
{
    return !(flags & group) || flags & own;
}

static bool is_listed(const struct pool *pool, unsigned flags)
{
    return passes(flags, LIST_ACTIVE | LIST_INACTIVE, pool->active ? LIST_ACTIVE : LIST_INACTIVE) &&
           passes(flags, LIST_PERSISTENT | LIST_TRANSIENT, pool->config_path ? LIST_PERSISTENT : LIST_TRANSIENT) &&
           passes(flags, LIST_AUTOSTART | LIST_NO_AUTOSTART, pool->autostart ? LIST_AUTOSTART : LIST_NO_AUTOSTART) &&
           passes(flags, LIST_TYPES, type_flag(pool->def->type));
}

struct pool_id_array *storage_pool_list(struct storage *storage, unsigned flags, struct pool_error **err)
{
    struct pool_id_array *array;

    if (!pool_error_check_flags(err, flags, LIST_ALL, "storageConnectListAllStoragePools"))
        return NULL;
    array = g_new0(struct pool_id_array, 1);
    array->items = g_new0(struct pool_id *, storage->pools->len);
    for (guint i = 0; i < storage->pools->len; i++) {
        const struct pool *pool = g_ptr_array_index(storage->pools, i);

        if (is_listed(pool, flags))
            array->items[array->count++] = pool_get_id(pool);
    }
    return array;
}

struct volume_id_array *storage_volume_list(struct storage *storage, const struct pool_id *id, unsigned flags,
                                            struct pool_error **err)
{
    const struct pool *pool;
    struct volume_id_array *array;

    if (!pool_error_check_flags(err, flags, 0, "storagePoolListAllVolumes"))
        return NULL;
    pool = storage_find_active_pool(storage, id, err);
    if (!pool)
        return NULL;
    array = g_new0(struct volume_id_array, 1);
    array->count = pool_volume_count(pool);
    array->items = g_new0(struct volume_id *, array->count);
    for (size_t i = 0; i < array->count; i++)
        array->items[i] = volume_get_id(pool, pool_volume_at(pool, i));
    return array;
}
