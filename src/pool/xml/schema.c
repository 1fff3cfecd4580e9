/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/xml/schema.h"

#include <stddef.h>
#include <string.h>

#include "pool/pool-error.h"
#include "pool/xml/document.h"

/* What may stand in an element: names with blanks between and around. An element that is in no rule has no children. */
struct element_rule {
    const char *element;
    const char *children;
};

static const struct element_rule pool_rules[] = {
    {"pool", " name uuid capacity allocation available features source target refresh "},
    {"features", " cow "},
    {"source", " host device dir adapter name initiator format auth protocol vendor product "},
    {"device", " freeExtent "},
    {"adapter", " parentaddr "},
    {"parentaddr", " address "},
    {"initiator", " iqn "},
    {"auth", " secret "},
    {"target", " path permissions "},
    {"permissions", " mode owner group label "},
    {"refresh", " volume "},
    {NULL, NULL},
};

static const struct element_rule volume_rules[] = {
    {"volume", " name key source capacity allocation physical target backingStore "},
    {"source", " device "},
    {"device", " extent "},
    {"target", " path format permissions timestamps encryption compat nocow clusterSize features "},
    {"backingStore", " path format permissions timestamps compat clusterSize features "},
    {"permissions", " mode owner group label "},
    {"timestamps", " atime mtime ctime btime "},
    {"encryption", " secret cipher ivgen "},
    {"features", " lazy_refcounts extended_l2 "},
    {NULL, NULL},
};

static bool is_allowed(const struct element_rule *rules, const xmlNode *parent, const xmlNode *child)
{
    g_autofree char *word = g_strdup_printf(" %s ", (const char *)child->name);

    for (; rules->element; rules++) {
        if (!strcmp(rules->element, (const char *)parent->name))
            return strstr(rules->children, word);
    }
    return false;
}

/* The tree is as deep as the parser allows, so walking it does not go deeper than that either. */
static bool check(const struct element_rule *rules, const xmlNode *parent, struct pool_error **err)
{
    for (const xmlNode *child = xml_next_element(parent, NULL); child; child = xml_next_element(parent, child)) {
        /* Elements of namespaces are lists of options, which the parser checks. */
        if (child->ns)
            continue;
        if (!is_allowed(rules, parent, child))
            return pool_error_set_domain(err, POOL_DOMAIN_XML, POOL_ERROR_XML_SCHEMA,
                                         "Did not expect element %s in element %s, at line %ld",
                                         (const char *)child->name, (const char *)parent->name, xmlGetLineNo(child));
        if (!check(rules, child, err))
            return false;
    }
    return true;
}

static bool check_document(const char *xml, const char *root, const struct element_rule *rules, struct pool_error **err)
{
    AUTO(xml_document) document = xml_document_parse(xml, root, err);

    return document && check(rules, xmlDocGetRootElement(document), err);
}

bool xml_check_pool(const char *xml, struct pool_error **err)
{
    return check_document(xml, "pool", pool_rules, err);
}

bool xml_check_volume(const char *xml, struct pool_error **err)
{
    return check_document(xml, "volume", volume_rules, err);
}
