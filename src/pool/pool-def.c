/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/pool-def.h"

#include <glib.h>
#include <string.h>

static void clear_adapter(struct pool_adapter *adapter)
{
    g_free(adapter->name);
    g_free(adapter->parent);
    g_free(adapter->parent_wwnn);
    g_free(adapter->parent_wwpn);
    g_free(adapter->parent_fabric_wwn);
    g_free(adapter->wwnn);
    g_free(adapter->wwpn);
}

void pool_source_clear(struct pool_source *source)
{
    for (size_t i = 0; i < source->host_count; i++)
        g_free(source->hosts[i].name);
    for (size_t i = 0; i < source->device_count; i++) {
        g_free(source->devices[i].path);
        g_free(source->devices[i].free_extents);
    }
    g_free(source->hosts);
    g_free(source->devices);
    clear_adapter(&source->adapter);
    g_free(source->dir);
    g_free(source->name);
    g_free(source->initiator);
    g_free(source->auth.username);
    g_free(source->auth.secret_type);
    g_free(source->auth.secret.usage);
    g_free(source->protocol_version);
    g_free(source->vendor);
    g_free(source->product);
    memset(source, 0, sizeof(*source));
}

void pool_def_free(struct pool_def *def)
{
    if (!def)
        return;
    pool_source_clear(&def->source);
    permissions_clear(&def->permissions);
    for (size_t i = 0; i < def->option_count; i++) {
        g_free(def->options[i].name);
        g_free(def->options[i].value);
    }
    g_free(def->options);
    g_free(def->name);
    g_free(def->target_path);
    g_free(def);
}

char *path_squeeze(const char *path)
{
    GString *squeezed = g_string_new(NULL);

    for (const char *p = path; *p; p++) {
        if (*p != '/' || !squeezed->len || squeezed->str[squeezed->len - 1] != '/')
            g_string_append_c(squeezed, *p);
    }
    if (squeezed->len > 1 && squeezed->str[squeezed->len - 1] == '/')
        g_string_truncate(squeezed, squeezed->len - 1);
    return g_string_free(squeezed, FALSE);
}
