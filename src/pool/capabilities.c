/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this build can do, as XML, and what it finds on hosts. */
#include <string.h>

#include "pool/pool-error.h"
#include "pool/storage-internal.h"
#include "pool/xml/document.h"

char *storage_capabilities(const struct storage *storage)
{
    struct xml_writer writer = {0};

    xml_begin(&writer, "<capabilities>");
    g_string_append_c(writer.text, '\n');
    xml_begin(&writer, "<pool>");
    xml_begin(&writer, "<enum name='type'>");
    for (const struct pool_backend *const *backend = pool_backends; *backend; backend++)
        xml_element(&writer, "value", pool_type_info((*backend)->type)->name);
    xml_end(&writer, "enum");
    xml_end(&writer, "pool");
    g_string_append_c(writer.text, '\n');
    xml_end(&writer, "capabilities");
    return xml_writer_take(&writer);
}

static void append_formats(struct xml_writer *writer, const char *element, const char *name, const char *const *formats,
                           int default_format, bool hidden)
{
    xml_begin(writer, "<%s>", element);
    xml_line(writer, "<defaultFormat type='%s'/>", formats[default_format]);
    xml_begin(writer, "<enum name='%s'>", name);
    for (; !hidden && *formats; formats++)
        xml_element(writer, "value", *formats);
    xml_end(writer, "enum");
    xml_end(writer, element);
}

char *storage_pool_capabilities(const struct storage *storage, unsigned flags, struct pool_error **err)
{
    struct xml_writer writer = {0};

    if (!pool_error_check_flags(err, flags, 0, "storageConnectGetStoragePoolCapabilities"))
        return NULL;
    xml_begin(&writer, "<storagepoolCapabilities>");
    for (int i = 0; i < POOL_TYPE__MAX; i++) {
        const struct pool_type_info *info = pool_type_info((enum pool_type)i);

        xml_begin(&writer, "<pool type='%s' supported='%s'>", info->name,
                  pool_backend_find((enum pool_type)i) ? "yes" : "no");
        if (info->source_formats)
            append_formats(&writer, "poolOptions", "sourceFormatType", info->source_formats,
                           info->source_format_default, false);
        if (info->volume_formats)
            append_formats(&writer, "volOptions", "targetFormatType", info->volume_formats, info->volume_format_default,
                           info->hides_volume_formats);
        xml_end(&writer, "pool");
    }
    xml_end(&writer, "storagepoolCapabilities");
    return xml_writer_take(&writer);
}

/* --- finding sources --- */

static void free_source(void *opaque)
{
    pool_source_clear(opaque);
    g_free(opaque);
}

static char *format_sources(const GPtrArray *sources, enum pool_type type)
{
    struct xml_writer writer = {0};

    xml_begin(&writer, "<sources>");
    for (guint i = 0; i < sources->len; i++)
        pool_source_append(g_ptr_array_index(sources, i), type, &writer);
    xml_end(&writer, "sources");
    return xml_writer_take(&writer);
}

/* Who minds flags that mean nothing, as clients know it. */
static const char *finder_name(enum pool_type type)
{
    switch (type) {
    case POOL_NETFS:
        return "virStorageBackendFileSystemNetFindPoolSources";
    case POOL_LOGICAL:
        return "virStorageBackendLogicalFindPoolSources";
    case POOL_ISCSI:
        return "virStorageBackendISCSIFindPoolSources";
    case POOL_ISCSI_DIRECT:
        return "virStorageBackendISCSIDirectFindPoolSources";
    default:
        return "storageConnectFindStoragePoolSources";
    }
}

char *CO_FN co_storage_find_sources(struct storage *storage, const char *type, const char *spec, unsigned flags,
                                    struct pool_error **err)
{
    int value = pool_type_value(type);
    const struct pool_backend *backend;
    struct pool_source source = {0};
    GPtrArray *sources;
    char *text = NULL;

    if (value < 0) {
        pool_error_set(err, POOL_ERROR_INTERNAL, "unknown storage pool type %s", type);
        return NULL;
    }
    backend = pool_backend_find((enum pool_type)value);
    if (!backend) {
        storage_no_backend((enum pool_type)value, err);
        return NULL;
    }
    if (!backend->co_find_sources) {
        pool_error_set(err, POOL_ERROR_NO_SUPPORT, "pool type '%s' does not support source discovery", type);
        return NULL;
    }
    if (!pool_error_check_flags(err, flags, 0, finder_name(backend->type)))
        return NULL;
    /* A specification that the type has no use for need not even be one. */
    if (spec && value != POOL_LOGICAL && !pool_source_parse(spec, (enum pool_type)value, &source, err))
        return NULL;
    sources = g_ptr_array_new_with_free_func(free_source);
    storage->busy++;
    if (backend->co_find_sources(storage, spec && *spec ? &source : NULL, sources, err))
        text = format_sources(sources, (enum pool_type)value);
    storage->busy--;
    g_ptr_array_free(sources, TRUE);
    pool_source_clear(&source);
    return text;
}
