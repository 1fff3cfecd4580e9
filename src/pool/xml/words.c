/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/xml/words.h"

#include <string.h>

#include "base/units.h"
#include "pool/pool-error.h"
#include "pool/xml/document.h"

bool xml_invalid_attribute(struct pool_error **err, const xmlNode *node, const char *attribute, const char *value,
                           const char *expected)
{
    return pool_error_set_domain(err, POOL_DOMAIN_XML, POOL_ERROR_XML,
                                 "Invalid value for attribute '%s' in element '%s': '%s'.%s%s", attribute,
                                 (const char *)node->name, value, expected ? " " : "", expected ? expected : "");
}

bool xml_get_tristate(const xmlNode *node, const char *attribute, enum tristate *ret, struct pool_error **err)
{
    g_autofree char *value = node ? xml_attribute(node, NULL, attribute) : NULL;

    if (!value)
        return true;
    if (!strcmp(value, "yes"))
        *ret = TRISTATE_YES;
    else if (!strcmp(value, "no"))
        *ret = TRISTATE_NO;
    else
        return xml_invalid_attribute(err, node, attribute, value, NULL);
    return true;
}

bool xml_get_number(const xmlNode *node, const char *attribute, unsigned max, unsigned *ret, struct pool_error **err)
{
    g_autofree char *value = node ? xml_attribute(node, NULL, attribute) : NULL;
    uint64_t number;

    if (!value)
        return true;
    if (!uint64_parse(value, &number) || number > max)
        return xml_invalid_attribute(err, node, attribute, value, "Expected integer value");
    *ret = (unsigned)number;
    return true;
}

bool xml_get_secret_reference(const xmlNode *node, struct secret_reference *ret, struct pool_error **err)
{
    g_autofree char *uuid = xml_attribute(node, NULL, "uuid");
    g_autofree char *usage = xml_attribute(node, NULL, "usage");

    if (!uuid && !usage)
        return pool_error_set(err, POOL_ERROR_XML, "missing secret uuid or usage attribute");
    if (uuid && usage)
        return pool_error_set(err, POOL_ERROR_XML, "either secret uuid or usage expected");
    if (uuid && !uuid_parse_text(uuid, ret->uuid))
        return pool_error_set(err, POOL_ERROR_XML, "invalid secret uuid '%s'", uuid);
    ret->has_uuid = uuid;
    ret->usage = TAKE(usage);
    return true;
}

char *xml_secret_attributes(const struct secret_reference *secret)
{
    char uuid[XML_UUID_TEXT];

    if (!secret->has_uuid)
        return g_markup_printf_escaped(" usage='%s'", secret->usage);
    uuid_format(secret->uuid, uuid);
    return g_markup_printf_escaped(" uuid='%s'", uuid);
}

const char *tristate_name(enum tristate value)
{
    return value == TRISTATE_YES ? "yes" : "no";
}
