/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pools out of XML. */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "loop/loop.h"
#include "pool/pool-def.h"
#include "pool/pool-error.h"
#include "pool/xml/document.h"
#include "pool/xml/namespaces.h"
#include "pool/xml/words.h"

enum { LIST_MAX = 1024, PORT_MAX = 65535, WWN_DIGITS = 16 };

/* --- lists of the source --- */

/* How many elements of that name `node` has; refused where there are too many. */
static bool count_elements(const xmlNode *node, const char *name, size_t *ret, struct pool_error **err)
{
    *ret = 0;
    for (const xmlNode *item = xml_find(node, name); item; item = xml_next(item))
        ++*ret;
    return *ret <= LIST_MAX ||
           pool_error_set(err, POOL_ERROR_XML, "more than %d elements '%s' in the pool's source", LIST_MAX, name);
}

static bool parse_hosts(const xmlNode *node, struct pool_source *source, struct pool_error **err)
{
    size_t count;

    if (!count_elements(node, "host", &count, err))
        return false;
    source->hosts = g_new0(struct pool_host, count);
    for (const xmlNode *item = xml_find(node, "host"); item; item = xml_next(item)) {
        struct pool_host *host = &source->hosts[source->host_count];
        g_autofree char *port = xml_attribute(item, NULL, "port");
        int64_t number = 0;

        host->name = xml_attribute(item, NULL, "name");
        if (!host->name)
            return pool_error_set(err, POOL_ERROR_XML, "missing storage pool host name");
        source->host_count++;
        if (port && (!int64_parse(port, &number) || number < INT32_MIN || number > INT32_MAX))
            return xml_invalid_attribute(err, item, "port", port, "Expected integer value.");
        if (number < 0 || number > PORT_MAX)
            return pool_error_set(err, POOL_ERROR_XML, "port %lld of host '%s' is not between 0 and %d",
                                  (long long)number, host->name, PORT_MAX);
        host->port = (int)number;
    }
    return true;
}

static bool parse_devices(const xmlNode *node, struct pool_source *source, struct pool_error **err)
{
    size_t count;

    if (!count_elements(node, "device", &count, err))
        return false;
    source->devices = g_new0(struct pool_device, count);
    for (const xmlNode *item = xml_find(node, "device"); item; item = xml_next(item)) {
        struct pool_device *device = &source->devices[source->device_count];

        device->path = xml_attribute(item, NULL, "path");
        if (!device->path)
            return pool_error_set(err, POOL_ERROR_XML, "missing storage pool source device path");
        source->device_count++;
        if (!xml_get_tristate(item, "part_separator", &device->part_separator, err))
            return false;
    }
    return true;
}

/* --- adapter and auth --- */

static bool check_wwn(const char *name, const char *value, struct pool_error **err)
{
    size_t digits = 0;

    while (value && g_ascii_isxdigit(value[digits]))
        digits++;
    if (!value || (digits == WWN_DIGITS && !value[digits]))
        return true;
    return pool_error_set(err, POOL_ERROR_XML, "malformed %s '%s' of the adapter: %d hexadecimal digits are expected",
                          name, value, WWN_DIGITS);
}

static bool parse_parent_address(const xmlNode *node, struct pool_adapter *adapter, struct pool_error **err)
{
    const xmlNode *parent = xml_find(node, "parentaddr");
    const xmlNode *address = xml_find(parent, "address");

    if (!parent)
        return true;
    adapter->has_parent_address = true;
    if (!address)
        return pool_error_set(err, POOL_ERROR_XML, "Missing scsi_host PCI address element");
    return xml_get_number(parent, "unique_id", INT32_MAX, &adapter->unique_id, err) &&
           xml_get_number(address, "domain", 0xFFFFFFFF, &adapter->domain, err) &&
           xml_get_number(address, "bus", 0xFF, &adapter->bus, err) &&
           xml_get_number(address, "slot", 0x1F, &adapter->slot, err) &&
           xml_get_number(address, "function", 7, &adapter->function, err);
}

static bool parse_fc_host(const xmlNode *node, struct pool_adapter *adapter, struct pool_error **err)
{
    adapter->type = POOL_ADAPTER_FC_HOST;
    if (!adapter->wwnn || !adapter->wwpn)
        return pool_error_set(err, POOL_ERROR_XML, "'wwnn' and 'wwpn' must be specified for adapter type 'fc_host'");
    if (!adapter->parent_wwnn != !adapter->parent_wwpn)
        return pool_error_set(err, POOL_ERROR_XML,
                              "must supply both parent_wwnn and parent_wwpn not just one or the other");
    return xml_get_tristate(node, "managed", &adapter->managed, err) && check_wwn("wwnn", adapter->wwnn, err) &&
           check_wwn("wwpn", adapter->wwpn, err) && check_wwn("parent_wwnn", adapter->parent_wwnn, err) &&
           check_wwn("parent_wwpn", adapter->parent_wwpn, err) &&
           check_wwn("parent_fabric_wwn", adapter->parent_fabric_wwn, err);
}

static bool parse_scsi_host(const xmlNode *node, struct pool_adapter *adapter, struct pool_error **err)
{
    adapter->type = POOL_ADAPTER_SCSI_HOST;
    if (!parse_parent_address(node, adapter, err))
        return false;
    if (adapter->has_parent_address && adapter->name)
        return pool_error_set(err, POOL_ERROR_XML, "use of both 'name' and 'parentaddr' in the adapter");
    if (!adapter->has_parent_address && !adapter->name)
        return pool_error_set(err, POOL_ERROR_XML, "missing storage pool source adapter name or parent address");
    return true;
}

static bool parse_adapter(const xmlNode *source_node, struct pool_adapter *adapter, struct pool_error **err)
{
    const xmlNode *node = xml_find(source_node, "adapter");
    g_autofree char *type = node ? xml_attribute(node, NULL, "type") : NULL;

    if (!node)
        return true;
    adapter->name = xml_attribute(node, NULL, "name");
    adapter->parent = xml_attribute(node, NULL, "parent");
    adapter->parent_wwnn = xml_attribute(node, NULL, "parent_wwnn");
    adapter->parent_wwpn = xml_attribute(node, NULL, "parent_wwpn");
    adapter->parent_fabric_wwn = xml_attribute(node, NULL, "parent_fabric_wwn");
    adapter->wwnn = xml_attribute(node, NULL, "wwnn");
    adapter->wwpn = xml_attribute(node, NULL, "wwpn");
    if (type && !strcmp(type, "fc_host"))
        return parse_fc_host(node, adapter, err);
    if (type && strcmp(type, "scsi_host") != 0)
        return xml_invalid_attribute(err, node, "type", type, NULL);
    if (!type && (adapter->wwnn || adapter->wwpn || adapter->parent || xml_find(node, "parentaddr")))
        return pool_error_set(err, POOL_ERROR_XML,
                              "use of 'wwnn', 'wwpn', 'parent' or 'parentaddr' requires the adapter's 'type'");
    return parse_scsi_host(node, adapter, err);
}

static bool parse_auth(const xmlNode *source_node, struct pool_auth *auth, struct pool_error **err)
{
    const xmlNode *node = xml_find(source_node, "auth");
    const xmlNode *secret = xml_find(node, "secret");
    g_autofree char *type = node ? xml_attribute(node, NULL, "type") : NULL;

    if (!node)
        return true;
    auth->username = xml_attribute(node, NULL, "username");
    if (!auth->username)
        return pool_error_set(err, POOL_ERROR_XML, "missing username for auth");
    if (!type)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "storage pool missing auth type");
    if (!strcmp(type, "chap"))
        auth->type = POOL_AUTH_CHAP;
    else if (!strcmp(type, "ceph"))
        auth->type = POOL_AUTH_CEPH;
    else
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "unknown auth type '%s'", type);
    if (!secret)
        return pool_error_set(err, POOL_ERROR_XML, "missing secret element in auth");
    auth->secret_type = xml_attribute(secret, NULL, "type");
    return xml_get_secret_reference(secret, &auth->secret, err);
}

/* --- the source --- */

static bool parse_source_format(const xmlNode *node, enum pool_type type, struct pool_source *source,
                                struct pool_error **err)
{
    const struct pool_type_info *info = pool_type_info(type);
    g_autofree char *format = xml_attribute(node, "format", "type");

    source->format = info->source_format_default;
    if (!info->source_formats || !format)
        return true;
    source->format = format_value(info->source_formats, format);
    if (source->format >= 0)
        return true;
    source->format = info->source_format_default;
    return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "unknown pool format type %s", format);
}

static bool parse_protocol(const xmlNode *node, enum pool_type type, struct pool_source *source,
                           struct pool_error **err)
{
    source->protocol_version = xml_attribute(node, "protocol", "ver");
    if (!source->protocol_version)
        return true;
    if (source->format != NETFS_AUTO && source->format != NETFS_NFS)
        return pool_error_set(
            err, POOL_ERROR_CONFIG_UNSUPPORTED, "storage pool protocol ver unsupported for pool type '%s'",
            pool_type_info(type)->source_formats ? pool_type_info(type)->source_formats[source->format]
                                                 : pool_type_info(type)->name);
    if (strchr(source->protocol_version, ','))
        return pool_error_set_domain(err, POOL_DOMAIN_XML, POOL_ERROR_XML_DETAIL, "invalid char in nfs version: ,");
    return true;
}

static bool parse_source(const xmlNode *node, enum pool_type type, struct pool_source *source, struct pool_error **err)
{
    g_autofree char *dir = xml_attribute(node, "dir", "path");

    source->format = pool_type_info(type)->source_format_default;
    if (!node && type != POOL_RBD)
        return true;
    source->name = xml_text(node, "name");
    if (type == POOL_RBD && !source->name)
        return pool_error_set(err, POOL_ERROR_XML, "element 'name' is mandatory for RBD pool");
    if (!parse_source_format(node, type, source, err) || !parse_hosts(node, source, err) ||
        !parse_devices(node, source, err))
        return false;
    source->initiator = xml_attribute(node, "initiator/iqn", "name");
    source->dir = dir ? path_squeeze(dir) : NULL;
    if (!parse_adapter(node, &source->adapter, err) || !parse_auth(node, &source->auth, err) ||
        !parse_protocol(node, type, source, err))
        return false;
    source->vendor = xml_attribute(node, "vendor", "name");
    source->product = xml_attribute(node, "product", "name");
    return true;
}

bool pool_source_parse(const char *xml, enum pool_type type, struct pool_source *ret, struct pool_error **err)
{
    AUTO(xml_document) document = NULL;

    memset(ret, 0, sizeof(*ret));
    if (!xml)
        return true;
    document = xml_document_parse(xml, "source", err);
    if (!document)
        return false;
    if (parse_source(xmlDocGetRootElement(document), type, ret, err))
        return true;
    pool_source_clear(ret);
    return false;
}

/* --- what the type needs --- */

static bool check_gluster(const struct pool_source *source, struct pool_error **err)
{
    if (source->name && strchr(source->name, '/'))
        return pool_error_set(err, POOL_ERROR_XML, "gluster pool name '%s' must not contain /", source->name);
    if (*source->dir != '/')
        return pool_error_set(err, POOL_ERROR_XML, "gluster pool path '%s' must start with /", source->dir);
    return true;
}

static bool check_source(struct pool_def *def, struct pool_error **err)
{
    unsigned parts = pool_type_info(def->type)->parts;
    struct pool_source *source = &def->source;

    if (parts & POOL_SOURCE_HOST && !source->host_count)
        return pool_error_set(err, POOL_ERROR_XML, "missing storage pool source host name");
    if (def->type == POOL_ISCSI_DIRECT && !source->initiator)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "missing initiator IQN");
    if ((def->type == POOL_FS || def->type == POOL_DISK) && !source->device_count)
        return pool_error_set(err, POOL_ERROR_XML, "missing storage pool source device name");
    if (def->type == POOL_GLUSTER && !source->dir)
        source->dir = g_strdup("/");
    if (parts & POOL_SOURCE_DIR && !source->dir)
        return pool_error_set(err, POOL_ERROR_XML, "missing storage pool source path");
    if (def->type == POOL_GLUSTER && !check_gluster(source, err))
        return false;
    if (parts & POOL_SOURCE_ADAPTER && source->adapter.type == POOL_ADAPTER_NONE)
        return pool_error_set(err, POOL_ERROR_XML, "missing storage pool source adapter");
    if (parts & POOL_SOURCE_NAME && !source->name)
        source->name = g_strdup(def->name);
    return true;
}

static bool parse_name(struct pool_def *def, const xmlNode *node, struct pool_error **err)
{
    def->name = xml_text(node, "name");
    if (!def->name && pool_type_info(def->type)->named_by_source)
        def->name = g_strdup(def->source.name);
    if (!def->name)
        return pool_error_set(err, POOL_ERROR_XML, "missing pool source name element");
    if (strchr(def->name, '/'))
        return pool_error_set(err, POOL_ERROR_XML, "name %s cannot contain '/'", def->name);
    if (!strcmp(def->name, ".") || !strcmp(def->name, ".."))
        return pool_error_set(err, POOL_ERROR_XML, "name %s cannot be that of a file", def->name);
    return true;
}

static bool parse_uuid(struct pool_def *def, const xmlNode *node, struct pool_error **err)
{
    g_autofree char *uuid = xml_text(node, "uuid");

    if (uuid)
        return uuid_parse_text(uuid, def->uuid) || pool_error_set(err, POOL_ERROR_XML, "malformed uuid element");
    loop_random_bytes(def->uuid, sizeof(def->uuid));
    /* Version 4, variant 1 of RFC 4122. */
    def->uuid[6] = (uint8_t)((def->uuid[6] & 0x0F) | 0x40);
    def->uuid[8] = (uint8_t)((def->uuid[8] & 0x3F) | 0x80);
    return true;
}

static bool parse_target(struct pool_def *def, const xmlNode *node, struct pool_error **err)
{
    const struct pool_type_info *info = pool_type_info(def->type);
    g_autofree char *path = NULL;

    if (info->target == POOL_TARGET_NONE)
        return true;
    if (info->target == POOL_TARGET_SOURCE)
        path = g_strconcat(info->target_prefix, def->source.name, NULL);
    else
        path = xml_text(node, "target/path");
    if (!path)
        return pool_error_set(err, POOL_ERROR_XML, "missing storage pool target path");
    def->target_path = path_squeeze(path);
    return permissions_parse(&def->permissions, xml_find(node, "target"), err);
}

/* --- the rest --- */

static bool parse_features(struct pool_def *def, const xmlNode *node, struct pool_error **err)
{
    if (!xml_get_tristate(xml_find(node, "features/cow"), "state", &def->cow, err))
        return false;
    if (def->cow != TRISTATE_ABSENT && def->type != POOL_FS && def->type != POOL_DIR)
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "cow feature may only be used for 'fs' and 'dir' pools");
    return true;
}

static bool parse_refresh(struct pool_def *def, const xmlNode *node, struct pool_error **err)
{
    g_autofree char *allocation = xml_attribute(node, "refresh/volume", "allocation");

    if (!allocation || def->type != POOL_RBD)
        return true;
    if (!strcmp(allocation, "default"))
        def->refresh_allocation = POOL_REFRESH_DEFAULT;
    else if (!strcmp(allocation, "capacity"))
        def->refresh_allocation = POOL_REFRESH_CAPACITY;
    else
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "unknown storage pool volume refresh allocation type %s", allocation);
    return true;
}

static bool parse_option(struct pool_def *def, const xmlNode *item, bool values, struct pool_error **err)
{
    struct pool_option *option = &def->options[def->option_count++];

    option->name = xml_attribute(item, NULL, "name");
    if (!option->name)
        return pool_error_set(err, POOL_ERROR_XML, "no %s option name specified", values ? "rbd" : "fs mount");
    option->value = values ? xml_attribute(item, NULL, "value") : NULL;
    if (values && !option->value)
        return pool_error_set(err, POOL_ERROR_XML, "no rbd option value specified for option '%s'", option->name);
    return true;
}

static bool parse_options(struct pool_def *def, const xmlNode *node, struct pool_error **err)
{
    const struct xml_namespace *namespace = xml_namespace_of(def->type);
    const xmlNode *list = namespace ? xml_find_in(node, namespace->list, namespace->uri) : NULL;
    size_t count = 0;

    if (!list)
        return true;
    for (const xmlNode *item = xml_next_element(list, NULL); item; item = xml_next_element(list, item))
        count++;
    if (count > LIST_MAX)
        return pool_error_set(err, POOL_ERROR_XML, "more than %d options in '%s'", LIST_MAX, namespace->list);
    def->has_options = true;
    def->options = g_new0(struct pool_option, count);
    for (const xmlNode *item = xml_next_element(list, NULL); item; item = xml_next_element(list, item)) {
        if (!parse_option(def, item, namespace->values, err))
            return false;
    }
    return true;
}

static bool parse_type(struct pool_def *def, const xmlNode *node, struct pool_error **err)
{
    g_autofree char *type = xml_attribute(node, NULL, "type");
    int value;

    if (!type)
        return pool_error_set_domain(err, POOL_DOMAIN_XML, POOL_ERROR_XML,
                                     "Missing required attribute 'type' in element 'pool'");
    value = pool_type_value(type);
    if (value < 0)
        return xml_invalid_attribute(err, node, "type", type, NULL);
    def->type = (enum pool_type)value;
    return true;
}

static struct pool_def *parse_pool(const xmlNode *node, struct pool_error **err)
{
    AUTO(pool_def) def = g_new0(struct pool_def, 1);

    permissions_init(&def->permissions);
    if (!parse_type(def, node, err) || !parse_source(xml_find(node, "source"), def->type, &def->source, err) ||
        !parse_name(def, node, err) || !parse_uuid(def, node, err) || !parse_features(def, node, err) ||
        !check_source(def, err) || !parse_target(def, node, err) || !parse_refresh(def, node, err) ||
        !parse_options(def, node, err))
        return NULL;
    return TAKE(def);
}

struct pool_def *pool_def_parse(const char *xml, bool file, struct pool_error **err)
{
    AUTO(xml_document) document = xml_document_parse(xml, file ? NULL : "pool", err);
    xmlNode *node;

    if (!document)
        return NULL;
    node = xmlDocGetRootElement(document);
    if (file)
        node = xml_search(node, "pool");
    if (!node) {
        pool_error_set(err, POOL_ERROR_XML, "no element 'pool'");
        return NULL;
    }
    return parse_pool(node, err);
}
