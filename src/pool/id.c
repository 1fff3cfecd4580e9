/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of pools and volumes, and lists of them: their end. */
#include <glib.h>

#include "pool/storage.h"

void pool_id_free(struct pool_id *id)
{
    if (!id)
        return;
    g_free(id->name);
    g_free(id);
}

void volume_id_free(struct volume_id *id)
{
    if (!id)
        return;
    g_free(id->pool);
    g_free(id->name);
    g_free(id->key);
    g_free(id);
}

void pool_id_array_free(struct pool_id_array *array)
{
    if (!array)
        return;
    for (size_t i = 0; i < array->count; i++)
        pool_id_free(array->items[i]);
    g_free(array->items);
    g_free(array);
}

void volume_id_array_free(struct volume_id_array *array)
{
    if (!array)
        return;
    for (size_t i = 0; i < array->count; i++)
        volume_id_free(array->items[i]);
    g_free(array->items);
    g_free(array);
}
