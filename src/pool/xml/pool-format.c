/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pools as XML, in the order in which libvirt prints them. */
#include <glib.h>
#include <stddef.h>

#include "pool/pool-def.h"
#include "pool/xml/document.h"
#include "pool/xml/namespaces.h"
#include "pool/xml/words.h"

static const struct xml_namespace fs_namespace = {
    .prefix = "fs",
    .uri = "http://libvirt.org/schemas/storagepool/fs/1.0",
    .list = "mount_opts",
};
static const struct xml_namespace rbd_namespace = {
    .prefix = "rbd",
    .uri = "http://libvirt.org/schemas/storagepool/rbd/1.0",
    .list = "config_opts",
    .values = true,
};

const struct xml_namespace *xml_namespace_of(enum pool_type type)
{
    if (type == POOL_FS || type == POOL_NETFS)
        return &fs_namespace;
    return type == POOL_RBD ? &rbd_namespace : NULL;
}

/* --- the source --- */

static void append_hosts(const struct pool_source *source, struct xml_writer *writer)
{
    for (size_t i = 0; i < source->host_count; i++) {
        const struct pool_host *host = &source->hosts[i];

        if (host->port)
            xml_line(writer, "<host name='%s' port='%d'/>", host->name, host->port);
        else
            xml_line(writer, "<host name='%s'/>", host->name);
    }
}

/* " name='value'", escaped, or nothing. */
static void add_attribute(GString *to, const char *name, const char *value)
{
    g_autofree char *text = value ? g_markup_printf_escaped(" %s='%s'", name, value) : NULL;

    if (text)
        g_string_append(to, text);
}

/* A line that is XML already. */
static void append_raw(struct xml_writer *writer, const char *line)
{
    xml_line(writer, "%s", "");
    g_string_truncate(writer->text, writer->text->len - 1);
    g_string_append(writer->text, line);
    g_string_append_c(writer->text, '\n');
}

static void append_device(const struct pool_device *device, struct xml_writer *writer)
{
    GString *line = g_string_new("<device");

    add_attribute(line, "path", device->path);
    if (device->part_separator != TRISTATE_ABSENT)
        add_attribute(line, "part_separator", tristate_name(device->part_separator));
    g_string_append(line, device->free_extent_count ? ">" : "/>");
    append_raw(writer, line->str);
    g_string_free(line, TRUE);
    if (!device->free_extent_count)
        return;
    writer->depth++;
    for (size_t i = 0; i < device->free_extent_count; i++)
        xml_line(writer, "<freeExtent start='%llu' end='%llu'/>", (unsigned long long)device->free_extents[i].start,
                 (unsigned long long)device->free_extents[i].end);
    xml_end(writer, "device");
}

static void append_parent_address(const struct pool_adapter *adapter, struct xml_writer *writer)
{
    xml_begin(writer, "<adapter type='scsi_host'>");
    xml_begin(writer, "<parentaddr unique_id='%u'>", adapter->unique_id);
    xml_line(writer, "<address domain='0x%04x' bus='0x%02x' slot='0x%02x' function='0x%x'/>", adapter->domain,
             adapter->bus, adapter->slot, adapter->function);
    xml_end(writer, "parentaddr");
    xml_end(writer, "adapter");
}

static void append_adapter(const struct pool_adapter *adapter, struct xml_writer *writer)
{
    GString *line;

    if (adapter->type == POOL_ADAPTER_NONE)
        return;
    if (adapter->has_parent_address) {
        append_parent_address(adapter, writer);
        return;
    }
    if (adapter->type == POOL_ADAPTER_SCSI_HOST) {
        xml_line(writer, "<adapter type='scsi_host' name='%s'/>", adapter->name);
        return;
    }
    line = g_string_new("<adapter type='fc_host'");
    add_attribute(line, "parent", adapter->parent);
    add_attribute(line, "parent_wwnn", adapter->parent_wwnn);
    add_attribute(line, "parent_wwpn", adapter->parent_wwpn);
    add_attribute(line, "parent_fabric_wwn", adapter->parent_fabric_wwn);
    if (adapter->managed != TRISTATE_ABSENT)
        add_attribute(line, "managed", tristate_name(adapter->managed));
    add_attribute(line, "wwnn", adapter->wwnn);
    add_attribute(line, "wwpn", adapter->wwpn);
    g_string_append(line, "/>");
    append_raw(writer, line->str);
    g_string_free(line, TRUE);
}

static void append_auth(const struct pool_auth *auth, struct xml_writer *writer)
{
    GString *line;
    g_autofree char *secret = NULL;

    if (auth->type == POOL_AUTH_NONE)
        return;
    xml_begin(writer, "<auth type='%s' username='%s'>", auth->type == POOL_AUTH_CHAP ? "chap" : "ceph", auth->username);
    line = g_string_new("<secret");
    add_attribute(line, "type", auth->secret_type);
    secret = xml_secret_attributes(&auth->secret);
    g_string_append(line, secret);
    g_string_append(line, "/>");
    append_raw(writer, line->str);
    g_string_free(line, TRUE);
    xml_end(writer, "auth");
}

void pool_source_append(const struct pool_source *source, enum pool_type type, struct xml_writer *writer)
{
    const struct pool_type_info *info = pool_type_info(type);

    xml_begin(writer, "<source>");
    if (info->parts & POOL_SOURCE_HOST)
        append_hosts(source, writer);
    for (size_t i = 0; info->parts & POOL_SOURCE_DEVICE && i < source->device_count; i++)
        append_device(&source->devices[i], writer);
    if (info->parts & POOL_SOURCE_DIR && source->dir)
        xml_line(writer, "<dir path='%s'/>", source->dir);
    if (info->parts & POOL_SOURCE_ADAPTER)
        append_adapter(&source->adapter, writer);
    if (info->parts & POOL_SOURCE_NAME)
        xml_element(writer, "name", source->name);
    if (info->parts & POOL_SOURCE_INITIATOR && source->initiator) {
        xml_begin(writer, "<initiator>");
        xml_line(writer, "<iqn name='%s'/>", source->initiator);
        xml_end(writer, "initiator");
    }
    if (info->source_formats)
        xml_line(writer, "<format type='%s'/>", info->source_formats[source->format]);
    append_auth(&source->auth, writer);
    if (source->protocol_version)
        xml_line(writer, "<protocol ver='%s'/>", source->protocol_version);
    if (source->vendor)
        xml_line(writer, "<vendor name='%s'/>", source->vendor);
    if (source->product)
        xml_line(writer, "<product name='%s'/>", source->product);
    xml_end(writer, "source");
}

/* --- the pool --- */

static void append_options(const struct pool_def *def, struct xml_writer *writer)
{
    const struct xml_namespace *namespace = xml_namespace_of(def->type);

    if (!def->has_options)
        return;
    xml_begin(writer, "<%s:%s>", namespace->prefix, namespace->list);
    for (size_t i = 0; i < def->option_count; i++) {
        const struct pool_option *option = &def->options[i];

        if (namespace->values)
            xml_line(writer, "<%s:option name='%s' value='%s'/>", namespace->prefix, option->name, option->value);
        else
            xml_line(writer, "<%s:option name='%s'/>", namespace->prefix, option->name);
    }
    writer->depth--;
    xml_line(writer, "</%s:%s>", namespace->prefix, namespace->list);
}

static void append_target(const struct pool_def *def, struct xml_writer *writer)
{
    if (pool_type_info(def->type)->target == POOL_TARGET_NONE)
        return;
    xml_begin(writer, "<target>");
    xml_element(writer, "path", def->target_path);
    permissions_append(&def->permissions, writer);
    xml_end(writer, "target");
}

void pool_def_append(const struct pool_def *def, struct xml_writer *writer)
{
    const struct pool_type_info *info = pool_type_info(def->type);
    const struct xml_namespace *namespace = def->has_options ? xml_namespace_of(def->type) : NULL;
    char uuid[XML_UUID_TEXT];

    if (namespace)
        xml_begin(writer, "<pool type='%s' xmlns:%s='%s'>", info->name, namespace->prefix, namespace->uri);
    else
        xml_begin(writer, "<pool type='%s'>", info->name);
    uuid_format(def->uuid, uuid);
    xml_element(writer, "name", def->name);
    xml_element(writer, "uuid", uuid);
    xml_line(writer, "<capacity unit='bytes'>%llu</capacity>", (unsigned long long)def->capacity);
    xml_line(writer, "<allocation unit='bytes'>%llu</allocation>", (unsigned long long)def->allocation);
    xml_line(writer, "<available unit='bytes'>%llu</available>", (unsigned long long)def->available);
    if (def->cow != TRISTATE_ABSENT) {
        xml_begin(writer, "<features>");
        xml_line(writer, "<cow state='%s'/>", tristate_name(def->cow));
        xml_end(writer, "features");
    }
    pool_source_append(&def->source, def->type, writer);
    append_target(def, writer);
    if (def->refresh_allocation != POOL_REFRESH_ABSENT) {
        xml_begin(writer, "<refresh>");
        xml_line(writer, "<volume allocation='%s'/>",
                 def->refresh_allocation == POOL_REFRESH_DEFAULT ? "default" : "capacity");
        xml_end(writer, "refresh");
    }
    append_options(def, writer);
    xml_end(writer, "pool");
}

char *pool_def_format(const struct pool_def *def)
{
    struct xml_writer writer = {0};

    pool_def_append(def, &writer);
    return xml_writer_take(&writer);
}
