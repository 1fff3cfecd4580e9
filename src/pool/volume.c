/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/volume.h"

#include <assert.h>
#include <string.h>
#include <sys/stat.h>

void volume_encryption_free(struct volume_encryption *encryption)
{
    if (!encryption)
        return;
    for (size_t i = 0; i < encryption->secret_count; i++)
        g_free(encryption->secrets[i].usage);
    g_free(encryption->secrets);
    g_free(encryption->engine);
    g_free(encryption->cipher_name);
    g_free(encryption->cipher_mode);
    g_free(encryption->cipher_hash);
    g_free(encryption->ivgen_name);
    g_free(encryption->ivgen_hash);
    g_free(encryption);
}

struct volume_target *volume_target_new(void)
{
    struct volume_target *target = g_new0(struct volume_target, 1);

    permissions_init(&target->permissions);
    return target;
}

void volume_target_clear(struct volume_target *target)
{
    g_free(target->path);
    g_free(target->compat);
    permissions_clear(&target->permissions);
    volume_encryption_free(target->encryption);
    memset(target, 0, sizeof(*target));
    permissions_init(&target->permissions);
}

void volume_target_free(struct volume_target *target)
{
    if (!target)
        return;
    volume_target_clear(target);
    g_free(target);
}

struct volume *volume_new(void)
{
    struct volume *volume = g_new0(struct volume, 1);

    permissions_init(&volume->target.permissions);
    volume->references = 1;
    return volume;
}

struct volume *volume_ref(struct volume *volume)
{
    assert(volume->references > 0);
    volume->references++;
    return volume;
}

void volume_unref(struct volume *volume)
{
    if (!volume)
        return;
    assert(volume->references > 0);
    if (--volume->references)
        return;
    for (size_t i = 0; i < volume->extent_count; i++)
        g_free(volume->extents[i].device);
    g_free(volume->extents);
    g_free(volume->name);
    g_free(volume->key);
    g_free(volume->new_path);
    volume_target_clear(&volume->target);
    volume_target_free(volume->backing);
    g_free(volume);
}

void volume_add_extent(struct volume *volume, const char *device, uint64_t start, uint64_t end)
{
    assert(start <= end);
    volume->extents = g_renew(struct volume_extent, volume->extents, volume->extent_count + 1);
    volume->extents[volume->extent_count++] = (struct volume_extent){g_strdup(device), start, end};
}

void volume_target_from_stat(struct volume_target *target, const struct stat *status)
{
    permissions_from_stat(&target->permissions, status);
    target->timestamps = (struct volume_timestamps){
        .known = true,
        .atime = status->st_atim,
        .mtime = status->st_mtim,
        .ctime = status->st_ctim,
    };
}
