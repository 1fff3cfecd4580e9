/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/secret-def.h"

#include <string.h>

#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/xml/document.h"

/* How each usage is called, the element that says for what, and what is said where that is missing. */
static const struct usage_words {
    const char *name, *element, *missing;
} usage_words[SECRET_FOR__MAX] = {
    [SECRET_FOR_NOTHING] = {"none", NULL, NULL},
    [SECRET_FOR_VOLUME] = {"volume", "volume", "volume usage specified, but volume path is missing"},
    [SECRET_FOR_CEPH] = {"ceph", "name", "Ceph usage specified, but name is missing"},
    [SECRET_FOR_ISCSI] = {"iscsi", "target", "iSCSI usage specified, but target is missing"},
    [SECRET_FOR_TLS] = {"tls", "name", "TLS usage specified, but name is missing"},
    [SECRET_FOR_VTPM] = {"vtpm", "name", "vTPM usage specified, but name is missing"},
};

static bool fail(struct pool_error **err, enum pool_error_code code, const char *text)
{
    return pool_error_set_domain(err, POOL_DOMAIN_SECRET, code, "%s", text);
}

static bool parse_yes_no(const xmlNode *root, const char *name, bool *ret, struct pool_error **err)
{
    g_autofree char *text = xml_attribute(root, NULL, name);

    if (text && strcmp(text, "yes") != 0 && strcmp(text, "no") != 0)
        return pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_XML, "invalid value of '%s'", name);
    *ret = text && !strcmp(text, "yes");
    return true;
}

static bool parse_uuid(const xmlNode *root, uint8_t uuid[16], struct pool_error **err)
{
    g_autofree char *text = xml_text(root, "uuid");

    if (text)
        return uuid_parse_text(text, uuid) || fail(err, POOL_ERROR_INTERNAL, "malformed uuid element");
    loop_random_bytes(uuid, 16);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 4122: version 4, chosen by chance */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    return true;
}

static bool parse_usage(const xmlNode *root, struct secret_def *def, struct pool_error **err)
{
    const xmlNode *node = xml_find(root, "usage");
    g_autofree char *type = NULL;

    if (!node)
        return true;
    type = xml_attribute(node, NULL, "type");
    if (!type)
        return fail(err, POOL_ERROR_XML, "unknown secret usage type");
    for (int i = 0; i < SECRET_FOR__MAX; i++) {
        if (strcmp(type, usage_words[i].name) != 0)
            continue;
        def->usage_type = (enum secret_def_usage)i;
        if (!usage_words[i].element)
            return true;
        def->usage = xml_text(node, usage_words[i].element);
        return def->usage || fail(err, POOL_ERROR_INTERNAL, usage_words[i].missing);
    }
    return pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_CONFIG_UNSUPPORTED, "unknown secret usage type %s",
                                 type);
}

struct secret_def *secret_def_parse(const char *xml, struct pool_error **err)
{
    AUTO(secret_def) def = g_new0(struct secret_def, 1);
    struct pool_error *error = NULL;
    AUTO(xml_document) document = xml_document_parse(xml, "secret", &error);

    if (!document) {
        if (error->domain == POOL_DOMAIN_STORAGE)
            error->domain = POOL_DOMAIN_SECRET;
        pool_error_move(err, error);
        return NULL;
    }

    const xmlNode *root = xmlDocGetRootElement(document);
    if (!parse_yes_no(root, "ephemeral", &def->ephemeral, err) || !parse_yes_no(root, "private", &def->private, err) ||
        !parse_uuid(root, def->uuid, err) || !parse_usage(root, def, err))
        return NULL;
    def->description = xml_text(root, "description");
    return TAKE(def);
}

char *secret_def_format(const struct secret_def *def)
{
    struct xml_writer writer = {.text = g_string_new(NULL)};
    const struct usage_words *words = &usage_words[def->usage_type];
    char uuid[XML_UUID_TEXT];

    uuid_format(def->uuid, uuid);
    xml_begin(&writer, "<secret ephemeral='%s' private='%s'>", def->ephemeral ? "yes" : "no",
              def->private ? "yes" : "no");
    xml_element(&writer, "uuid", uuid);
    xml_element(&writer, "description", def->description);
    if (words->element) {
        xml_begin(&writer, "<usage type='%s'>", words->name);
        xml_element(&writer, words->element, def->usage);
        xml_end(&writer, "usage");
    }
    xml_end(&writer, "secret");
    return xml_writer_take(&writer);
}

void secret_def_free(struct secret_def *def)
{
    if (!def)
        return;
    g_free(def->description);
    g_free(def->usage);
    g_free(def);
}
