/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Volumes out of XML, and as XML. */
#include "pool/volume.h"

#include <assert.h>
#include <string.h>

#include "pool/pool-error.h"
#include "pool/xml/document.h"
#include "pool/xml/encryption.h"
#include "pool/xml/size.h"

static const char *const type_names[] = {"file", "block", "dir", "network", "netdir", "ploop", NULL};

/* --- reading --- */

static bool parse_format(const xmlNode *node, enum pool_type type, int *ret, struct pool_error **err)
{
    const struct pool_type_info *info = pool_type_info(type);
    g_autofree char *format = xml_attribute(node, "format", "type");
    int value;

    *ret = info->volume_format_default;
    if (!info->volume_formats || !format)
        return true;
    value = format_value(info->volume_formats, format);
    if (value < 0 || (value == 0 && info->volume_features))
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "unknown volume format type %s", format);
    *ret = value;
    return true;
}

/* "N.M" */
static bool parse_compat(const xmlNode *node, struct volume_target *target, struct pool_error **err)
{
    target->compat = xml_text(node, "compat");
    if (target->compat && target->compat[strspn(target->compat, "0123456789.")])
        return pool_error_set(err, POOL_ERROR_XML, "forbidden characters in 'compat' attribute");
    if (target->compat && (!strchr(target->compat, '.') || strlen(target->compat) < 3))
        return pool_error_set(err, POOL_ERROR_XML, "malformed 'compat' attribute '%s'", target->compat);
    return true;
}

static bool parse_features(const xmlNode *node, struct volume_target *target, struct pool_error **err)
{
    const xmlNode *features = xml_find(node, "features");

    if (!features)
        return true;
    target->has_features = true;
    if (!target->compat)
        target->compat = g_strdup("1.1");
    for (const xmlNode *item = xml_next_element(features, NULL); item; item = xml_next_element(features, item)) {
        if (!strcmp((const char *)item->name, "lazy_refcounts"))
            target->features |= VOLUME_LAZY_REFCOUNTS;
        else if (!strcmp((const char *)item->name, "extended_l2"))
            target->features |= VOLUME_EXTENDED_L2;
        else
            return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "unsupported feature %s",
                                  (const char *)item->name);
    }
    return true;
}

static bool parse_target(const xmlNode *node, enum pool_type type, struct volume_target *target,
                         struct pool_error **err)
{
    const xmlNode *encryption = xml_find(node, "encryption");
    bool found;

    if (!parse_format(node, type, &target->format, err) || !permissions_parse(&target->permissions, node, err))
        return false;
    if (encryption) {
        target->encryption = encryption_parse(encryption, err);
        if (!target->encryption)
            return false;
    }
    target->nocow = xml_find(node, "nocow");
    return parse_compat(node, target, err) && parse_features(node, target, err) &&
           xml_get_size(node, "clusterSize", &target->cluster_size, &found, err);
}

static bool parse_backing(const xmlNode *node, enum pool_type type, struct volume *volume, struct pool_error **err)
{
    const xmlNode *backing = xml_find(node, "backingStore");
    g_autofree char *path = xml_text(backing, "path");

    if (!path)
        return true;
    volume->backing = volume_target_new();
    volume->backing->path = TAKE(path);
    return parse_format(backing, type, &volume->backing->format, err) &&
           permissions_parse(&volume->backing->permissions, backing, err);
}

static bool parse_sizes(const xmlNode *node, bool capacity_optional, struct volume *volume, struct pool_error **err)
{
    if (!xml_get_size(node, "capacity", &volume->capacity, &volume->has_capacity, err))
        return false;
    if (!volume->has_capacity && !capacity_optional && !volume->backing)
        return pool_error_set(err, POOL_ERROR_XML, "missing capacity element");
    if (!xml_get_size(node, "allocation", &volume->allocation, &volume->has_allocation, err))
        return false;
    if (!volume->has_allocation)
        volume->allocation = volume->capacity;
    return true;
}

static bool parse_type(const xmlNode *node, struct volume *volume, struct pool_error **err)
{
    g_autofree char *type = xml_attribute(node, NULL, "type");
    int value = type ? format_value(type_names, type) : VOLUME_FILE;

    if (value < 0)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "unknown volume type '%s'", type);
    volume->type = (enum volume_type)value;
    return true;
}

struct volume *volume_parse(const char *xml, enum pool_type type, bool capacity_optional, struct pool_error **err)
{
    AUTO(xml_document) document = xml_document_parse(xml, "volume", err);
    AUTO(volume) volume = NULL;
    const xmlNode *node;

    if (!document)
        return NULL;
    node = xmlDocGetRootElement(document);
    volume = volume_new();
    volume->name = xml_text(node, "name");
    if (!volume->name) {
        pool_error_set(err, POOL_ERROR_XML, "missing volume name element");
        return NULL;
    }
    if (!parse_type(node, volume, err) || !parse_backing(node, type, volume, err) ||
        !parse_sizes(node, capacity_optional, volume, err) ||
        !parse_target(xml_find(node, "target"), type, &volume->target, err))
        return NULL;
    return TAKE(volume);
}

/* --- writing --- */

static void append_extents(const struct volume *volume, struct xml_writer *writer)
{
    const char *device = NULL;

    xml_begin(writer, "<source>");
    for (size_t i = 0; i < volume->extent_count; i++) {
        const struct volume_extent *extent = &volume->extents[i];

        if (!device || strcmp(device, extent->device) != 0) {
            if (device)
                xml_end(writer, "device");
            xml_begin(writer, "<device path='%s'>", extent->device);
        }
        device = extent->device;
        xml_line(writer, "<extent start='%llu' end='%llu'/>", (unsigned long long)extent->start,
                 (unsigned long long)extent->end);
    }
    if (device)
        xml_end(writer, "device");
    xml_end(writer, "source");
}

static void append_time(struct xml_writer *writer, const char *name, const struct timespec *time)
{
    if (time->tv_nsec)
        xml_line(writer, "<%s>%lld.%09ld</%s>", name, (long long)time->tv_sec, time->tv_nsec, name);
    else
        xml_line(writer, "<%s>%lld</%s>", name, (long long)time->tv_sec, name);
}

static void append_timestamps(const struct volume_timestamps *timestamps, struct xml_writer *writer)
{
    if (!timestamps->known)
        return;
    xml_begin(writer, "<timestamps>");
    append_time(writer, "atime", &timestamps->atime);
    append_time(writer, "mtime", &timestamps->mtime);
    append_time(writer, "ctime", &timestamps->ctime);
    xml_line(writer, "<btime>0</btime>");
    xml_end(writer, "timestamps");
}

static void append_features(const struct volume_target *target, struct xml_writer *writer)
{
    if (!target->has_features)
        return;
    if (!target->features) {
        xml_line(writer, "<features/>");
        return;
    }
    xml_begin(writer, "<features>");
    if (target->features & VOLUME_LAZY_REFCOUNTS)
        xml_line(writer, "<lazy_refcounts/>");
    if (target->features & VOLUME_EXTENDED_L2)
        xml_line(writer, "<extended_l2/>");
    xml_end(writer, "features");
}

static void append_target(const struct volume_target *target, const char *element, const char *const *formats,
                          struct xml_writer *writer)
{
    xml_begin(writer, "<%s>", element);
    xml_element(writer, "path", target->path);
    if (formats)
        xml_line(writer, "<format type='%s'/>", formats[target->format]);
    permissions_append(&target->permissions, writer);
    append_timestamps(&target->timestamps, writer);
    if (target->encryption)
        encryption_append(target->encryption, writer);
    xml_element(writer, "compat", target->compat);
    if (target->cluster_size)
        xml_line(writer, "<clusterSize unit='B'>%llu</clusterSize>", (unsigned long long)target->cluster_size);
    append_features(target, writer);
    xml_end(writer, element);
}

char *volume_format_xml(const struct volume *volume, enum pool_type type)
{
    const char *const *formats = pool_type_info(type)->volume_formats;
    struct xml_writer writer = {0};

    assert(volume->name);
    xml_begin(&writer, "<volume type='%s'>", type_names[volume->type]);
    xml_element(&writer, "name", volume->name);
    xml_element(&writer, "key", volume->key);
    if (volume->extent_count)
        append_extents(volume, &writer);
    xml_line(&writer, "<capacity unit='bytes'>%llu</capacity>", (unsigned long long)volume->capacity);
    xml_line(&writer, "<allocation unit='bytes'>%llu</allocation>", (unsigned long long)volume->allocation);
    if (volume->physical)
        xml_line(&writer, "<physical unit='bytes'>%llu</physical>", (unsigned long long)volume->physical);
    append_target(&volume->target, "target", formats, &writer);
    if (volume->backing)
        append_target(volume->backing, "backingStore", formats ? formats : NULL, &writer);
    xml_end(&writer, "volume");
    return xml_writer_take(&writer);
}
