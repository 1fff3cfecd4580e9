/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which pools cannot be beside each other: those that would work on the same thing, and those of the same name. */
#include <stdlib.h>
#include <string.h>

#include "pool/pool-error.h"
#include "pool/storage-internal.h"
#include "pool/xml/document.h"

static bool same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : !a && !b;
}

/* The port counts only where the new one names it. */
static bool same_host(const struct pool_source *a, const struct pool_source *new)
{
    return a->host_count == 1 && new->host_count == 1 && same_text(a->hosts[0].name, new->hosts[0].name) &&
           (!new->hosts[0].port || a->hosts[0].port == new->hosts[0].port);
}

static bool share_device(const struct pool_source *a, const struct pool_source *b)
{
    for (size_t i = 0; i < a->device_count; i++) {
        for (size_t j = 0; j < b->device_count; j++) {
            if (!strcmp(a->devices[i].path, b->devices[j].path))
                return true;
        }
    }
    return false;
}

/* The types whose devices are whole disks or partitions, and which take those for themselves. */
static bool owns_devices(enum pool_type type)
{
    return type == POOL_FS || type == POOL_LOGICAL || type == POOL_DISK || type == POOL_ZFS;
}

static bool same_iscsi(const struct pool_source *a, const struct pool_source *b)
{
    return share_device(a, b) && same_text(a->initiator, b->initiator);
}

/* "host5" and "scsi_host5" are the same. */
static const char *host_number(const char *name)
{
    if (g_str_has_prefix(name, "scsi_"))
        name += strlen("scsi_");
    return g_str_has_prefix(name, "host") ? name + strlen("host") : name;
}

static bool same_adapter(const struct pool_adapter *a, const struct pool_adapter *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == POOL_ADAPTER_FC_HOST)
        return same_text(a->wwnn, b->wwnn) && same_text(a->wwpn, b->wwpn);
    if (a->has_parent_address && b->has_parent_address)
        return a->unique_id == b->unique_id && a->domain == b->domain && a->bus == b->bus && a->slot == b->slot &&
               a->function == b->function;
    return a->name && b->name && !strcmp(host_number(a->name), host_number(b->name));
}

static bool conflicts(const struct pool_def *old, const struct pool_def *new)
{
    if (owns_devices(old->type) && owns_devices(new->type))
        return share_device(&old->source, &new->source);
    if (old->type != new->type)
        return false;
    switch (new->type) {
    case POOL_DIR:
        return same_text(old->target_path, new->target_path);
    case POOL_NETFS:
        return same_text(old->source.dir, new->source.dir) && same_host(&old->source, &new->source);
    case POOL_GLUSTER:
        return same_text(old->source.name, new->source.name) && same_text(old->source.dir, new->source.dir) &&
               same_host(&old->source, &new->source);
    case POOL_ISCSI:
        return same_iscsi(&old->source, &new->source);
    case POOL_SCSI:
        return same_adapter(&old->source.adapter, &new->source.adapter);
    case POOL_MPATH:
        return true;
    case POOL_VSTORAGE:
        return same_text(old->source.name, new->source.name);
    case POOL_SHEEPDOG:
        return same_host(&old->source, &new->source);
    default:
        return false;
    }
}

bool storage_check_source(struct storage *storage, const struct pool_def *def, struct pool_error **err)
{
    for (guint i = 0; i < storage->pools->len; i++) {
        const struct pool *pool = g_ptr_array_index(storage->pools, i);

        if (strcmp(pool->def->name, def->name) != 0 && conflicts(pool->def, def))
            return pool_error_set(err, POOL_ERROR_OPERATION_FAILED, "Storage source conflict with pool: '%s'",
                                  pool->def->name);
    }
    return true;
}

bool storage_check_duplicate(struct storage *storage, const struct pool_def *def, bool create, struct pool **ret_same,
                             struct pool_error **err)
{
    struct pool *pool = g_hash_table_lookup(storage->by_uuid, def->uuid);
    char uuid[XML_UUID_TEXT];

    *ret_same = NULL;
    if (pool) {
        uuid_format(def->uuid, uuid);
        if (strcmp(pool->def->name, def->name) != 0)
            return pool_error_set(err, POOL_ERROR_OPERATION_FAILED, "pool '%s' is already defined with uuid %s",
                                  pool->def->name, uuid);
        if (create && pool->active)
            return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "pool is already active as '%s'", pool->def->name);
        if (create && pool->starting)
            return pool_error_set(err, POOL_ERROR_OPERATION_INVALID, "pool '%s' is starting up", pool->def->name);
        *ret_same = pool;
        return true;
    }
    pool = g_hash_table_lookup(storage->by_name, def->name);
    if (!pool)
        return true;
    uuid_format(pool->def->uuid, uuid);
    return pool_error_set(err, POOL_ERROR_OPERATION_FAILED, "pool '%s' already exists with uuid %s", def->name, uuid);
}
