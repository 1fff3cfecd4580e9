/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/xml/schema.h"

#include <stddef.h>
#include <string.h>

#include "pool/pool-def.h"
#include "pool/pool-error.h"
#include "pool/secret-def.h"
#include "pool/volume.h"
#include "pool/xml/document.h"
#include "pool/xml/size.h"

/* What the text of an element or attribute may be. Values that the reader of the XML checks itself are TEXT. */
enum value_kind { NOTHING, TEXT, NUMBER, SIZE, NAME, PATH, TIME, CHOICE };

/*
 * An element: which others may stand in it, and its attributes. Lists are words with blanks around; "+" before a word:
 * it has to be there, "*" after the name of an element: there may be several.
 */
struct element_rule {
    const char *element;
    const char *parent; /* NULL: any */
    enum value_kind text;
    const char *children;
    const char *attributes;
};

static const struct element_rule pool_rules[] = {
    {"pool", NULL, NOTHING, " +name uuid capacity allocation available features source target refresh ", " +type "},
    {"name", "pool", NAME, "", ""},
    {"name", NULL, TEXT, "", ""},
    {"uuid", NULL, TEXT, "", ""},
    {"capacity", NULL, SIZE, "", " unit "},
    {"allocation", NULL, SIZE, "", " unit "},
    {"available", NULL, SIZE, "", " unit "},
    {"features", NULL, NOTHING, " cow ", ""},
    {"cow", NULL, NOTHING, "", " +state "},
    {"source", NULL, NOTHING, " host* device* dir adapter name initiator format auth protocol vendor product ", ""},
    {"host", NULL, NOTHING, "", " +name port "},
    {"device", NULL, NOTHING, " freeExtent* ", " +path part_separator "},
    {"freeExtent", NULL, NOTHING, "", " +start +end "},
    {"dir", NULL, NOTHING, "", " +path "},
    {"adapter", NULL, NOTHING, " parentaddr ",
     " type name parent parent_wwnn parent_wwpn parent_fabric_wwn managed wwnn wwpn "},
    {"parentaddr", NULL, NOTHING, " +address ", " unique_id "},
    {"address", NULL, NOTHING, "", " domain bus slot function "},
    {"initiator", NULL, NOTHING, " +iqn ", ""},
    {"iqn", NULL, NOTHING, "", " +name "},
    {"format", NULL, NOTHING, "", " +type "},
    {"auth", NULL, NOTHING, " +secret ", " +type +username "},
    {"secret", NULL, NOTHING, "", " type uuid usage "},
    {"protocol", NULL, NOTHING, "", " +ver "},
    {"vendor", NULL, NOTHING, "", " +name "},
    {"product", NULL, NOTHING, "", " +name "},
    {"target", NULL, NOTHING, " +path permissions ", ""},
    {"path", NULL, PATH, "", ""},
    {"permissions", NULL, NOTHING, " mode owner group label ", ""},
    {"mode", NULL, TEXT, "", ""},
    {"owner", NULL, TEXT, "", ""},
    {"group", NULL, TEXT, "", ""},
    {"label", NULL, TEXT, "", ""},
    {"refresh", NULL, NOTHING, " +volume ", ""},
    {"volume", NULL, NOTHING, "", " +allocation "},
    {NULL, NULL, NOTHING, NULL, NULL},
};

static const struct element_rule volume_rules[] = {
    {"volume", NULL, NOTHING, " +name key source capacity allocation physical +target backingStore ", " type "},
    {"name", NULL, NAME, "", ""},
    {"key", NULL, TEXT, "", ""},
    {"capacity", NULL, SIZE, "", " unit "},
    {"allocation", NULL, SIZE, "", " unit "},
    {"physical", NULL, SIZE, "", " unit "},
    {"source", NULL, NOTHING, " device* ", ""},
    {"device", NULL, NOTHING, " extent* ", " +path "},
    {"extent", NULL, NOTHING, "", " +start +end "},
    {"target", NULL, NOTHING, " path format permissions timestamps encryption compat nocow clusterSize features ", ""},
    {"backingStore", NULL, NOTHING, " path format permissions timestamps compat clusterSize features ", ""},
    {"path", NULL, TEXT, "", ""},
    {"format", NULL, NOTHING, "", " +type "},
    {"permissions", NULL, NOTHING, " mode owner group label ", ""},
    {"mode", NULL, TEXT, "", ""},
    {"owner", NULL, TEXT, "", ""},
    {"group", NULL, TEXT, "", ""},
    {"label", NULL, TEXT, "", ""},
    {"timestamps", NULL, NOTHING, " atime mtime ctime btime ", ""},
    {"atime", NULL, TIME, "", ""},
    {"mtime", NULL, TIME, "", ""},
    {"ctime", NULL, TIME, "", ""},
    {"btime", NULL, TIME, "", ""},
    {"encryption", NULL, NOTHING, " secret* cipher ivgen ", " +format engine "},
    {"secret", NULL, NOTHING, "", " type uuid usage "},
    {"cipher", NULL, NOTHING, "", " +name +size mode hash "},
    {"ivgen", NULL, NOTHING, "", " +name hash "},
    {"compat", NULL, TEXT, "", ""},
    {"nocow", NULL, NOTHING, "", ""},
    {"clusterSize", NULL, SIZE, "", " unit "},
    {"features", NULL, NOTHING, " lazy_refcounts extended_l2 ", ""},
    {"lazy_refcounts", NULL, NOTHING, "", ""},
    {"extended_l2", NULL, NOTHING, "", ""},
    {NULL, NULL, NOTHING, NULL, NULL},
};

static const struct element_rule secret_rules[] = {
    {"secret", NULL, NOTHING, " uuid description usage ", " ephemeral private "},
    {"uuid", NULL, NAME, "", ""},
    {"description", NULL, TEXT, "", ""},
    {"usage", NULL, NOTHING, " volume name target ", " +type "},
    {"volume", NULL, TEXT, "", ""},
    {"name", NULL, TEXT, "", ""},
    {"target", NULL, TEXT, "", ""},
    {NULL, NULL, NOTHING, NULL, NULL},
};

struct attribute_rule {
    const char *attribute;
    const char *element;
    enum value_kind value;
    const char *choices;
};

static const struct attribute_rule attribute_rules[] = {
    {"port", "host", NUMBER, NULL},
    {"start", "freeExtent", NUMBER, NULL},
    {"end", "freeExtent", NUMBER, NULL},
    {"start", "extent", NUMBER, NULL},
    {"end", "extent", NUMBER, NULL},
    {"path", "dir", PATH, NULL},
    {"size", "cipher", NUMBER, NULL},
    {"state", "cow", CHOICE, " yes no "},
    {"managed", "adapter", CHOICE, " yes no "},
    {"allocation", "volume", CHOICE, " default capacity "},
    {"ephemeral", "secret", CHOICE, " yes no "},
    {"private", "secret", CHOICE, " yes no "},
    {"type", "usage", CHOICE, " volume ceph iscsi tls vtpm "},
};

static bool fails(struct pool_error **err, const char *format, ...) PRINTF_LIKE(2, 3);
static bool fails(struct pool_error **err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    return pool_error_set_domain(err, POOL_DOMAIN_XML, POOL_ERROR_XML_SCHEMA, "%s", text);
}

/* --- values --- */

static bool is_number(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

/* Seconds, and maybe their fraction. */
static bool is_time(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ".", 2);

    return parts[0] && is_number(parts[0]) && (!parts[1] || is_number(parts[1]));
}

static bool fits(enum value_kind kind, const char *choices, const char *text)
{
    g_autofree char *word = NULL;

    switch (kind) {
    case NOTHING:
        return !*text;
    case TEXT:
        break;
    case NUMBER:
    case SIZE:
        return is_number(text);
    case NAME:
        return *text && !strpbrk(text, "/\n");
    case PATH:
        return *text == '/';
    case TIME:
        return is_time(text);
    case CHOICE:
        word = g_strdup_printf(" %s ", text);
        return strstr(choices, word);
    }
    return true;
}

/* The text that stands in the element itself, without blanks around. */
static char *own_text(const xmlNode *node)
{
    GString *text = g_string_new(NULL);

    for (const xmlNode *child = node->children; child; child = child->next) {
        if (child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE)
            g_string_append(text, (const char *)child->content);
    }
    return g_strstrip(g_string_free(text, FALSE));
}

/* --- lists --- */

/* Where `word` stands in the list, with its marks around it; NULL: nowhere. */
static const char *find_word(const char *list, const char *word)
{
    size_t size = strlen(word);

    for (const char *at = strstr(list, word); at; at = strstr(at + 1, word)) {
        if ((at[-1] == ' ' || at[-1] == '+') && (at[size] == ' ' || at[size] == '*'))
            return at;
    }
    return NULL;
}

static const struct element_rule *find_rule(const struct element_rule *rules, const xmlNode *node)
{
    const char *parent = node->parent && node->parent->type == XML_ELEMENT_NODE ? (const char *)node->parent->name : "";

    for (; rules->element; rules++) {
        if (!strcmp(rules->element, (const char *)node->name) && (!rules->parent || !strcmp(rules->parent, parent)))
            return rules;
    }
    return NULL;
}

/* The first word of the list that has to be there, and of which `is_there` knows nothing; owned, NULL: none. */
static char *find_missing(const char *list, const xmlNode *node,
                          bool (*is_there)(const xmlNode *node, const char *name))
{
    g_auto(GStrv) words = g_strsplit(list, " ", -1);

    for (int i = 0; words[i]; i++) {
        if (*words[i] == '+' && !is_there(node, words[i] + 1))
            return g_strdup(words[i] + 1);
    }
    return NULL;
}

static bool has_child(const xmlNode *node, const char *name)
{
    return xml_find(node, name);
}

static bool has_attribute(const xmlNode *node, const char *name)
{
    return xmlHasProp(node, (const xmlChar *)name);
}

/* --- elements --- */

static bool check_attribute(const xmlNode *node, const xmlAttr *attribute, struct pool_error **err)
{
    const char *name = (const char *)attribute->name;
    const char *element = (const char *)node->name;
    g_autofree char *value = xml_attribute(node, NULL, name);

    for (size_t i = 0; i < G_N_ELEMENTS(attribute_rules); i++) {
        const struct attribute_rule *rule = &attribute_rules[i];

        if (!strcmp(rule->attribute, name) && !strcmp(rule->element, element) &&
            !fits(rule->value, rule->choices, value ? value : ""))
            return fails(err, "Invalid value '%s' of attribute %s of element %s, at line %ld", value ? value : "", name,
                         element, xmlGetLineNo(node));
    }
    return true;
}

static bool check_attributes(const struct element_rule *rule, const xmlNode *node, struct pool_error **err)
{
    g_autofree char *missing = find_missing(rule->attributes, node, has_attribute);

    if (missing)
        return fails(err, "Element %s lacks the attribute %s, at line %ld", rule->element, missing, xmlGetLineNo(node));
    for (const xmlAttr *attribute = node->properties; attribute; attribute = attribute->next) {
        if (!find_word(rule->attributes, (const char *)attribute->name))
            return fails(err, "Invalid attribute %s for element %s, at line %ld", (const char *)attribute->name,
                         rule->element, xmlGetLineNo(node));
        if (!check_attribute(node, attribute, err))
            return false;
    }
    return true;
}

static bool check_text(const struct element_rule *rule, const xmlNode *node, struct pool_error **err)
{
    g_autofree char *text = own_text(node);
    g_autofree char *unit = rule->text == SIZE ? xml_attribute(node, NULL, "unit") : NULL;

    if (!fits(rule->text, NULL, text))
        return fails(err, "Invalid content '%s' of element %s, at line %ld", text, rule->element, xmlGetLineNo(node));
    return rule->text != SIZE || size_unit(unit) ||
           fails(err, "Invalid unit '%s' of element %s, at line %ld", unit, rule->element, xmlGetLineNo(node));
}

static bool check_child(const struct element_rule *rule, const xmlNode *child, struct pool_error **err)
{
    const char *name = (const char *)child->name;
    const char *word = find_word(rule->children, name);

    if (!word)
        return fails(err, "Did not expect element %s in element %s, at line %ld", name, rule->element,
                     xmlGetLineNo(child));
    return word[strlen(name)] == '*' || !xml_next(child) ||
           fails(err, "Extra element %s in element %s, at line %ld", name, rule->element, xmlGetLineNo(child));
}

/* The tree is as deep as the parser allows, so walking it does not go deeper than that either. */
static bool check(const struct element_rule *rules, const xmlNode *node, struct pool_error **err)
{
    const struct element_rule *rule = find_rule(rules, node);
    g_autofree char *missing = NULL;

    if (!rule)
        return fails(err, "Did not expect element %s there, at line %ld", (const char *)node->name, xmlGetLineNo(node));
    if (!check_attributes(rule, node, err) || !check_text(rule, node, err))
        return false;
    missing = find_missing(rule->children, node, has_child);
    if (missing)
        return fails(err, "Expecting an element %s in element %s, at line %ld", missing, rule->element,
                     xmlGetLineNo(node));
    for (const xmlNode *child = xml_next_element(node, NULL); child; child = xml_next_element(node, child)) {
        /* Elements of namespaces are lists of options, which the reader checks. */
        if (!child->ns && (!check_child(rule, child, err) || !check(rules, child, err)))
            return false;
    }
    return true;
}

/* --- what depends on the type of the pool --- */

static bool uses(enum pool_type type, const char *element)
{
    static const struct {
        const char *element;
        unsigned part;
    } parts[] = {
        {"host", POOL_SOURCE_HOST}, {"device", POOL_SOURCE_DEVICE},       {"dir", POOL_SOURCE_DIR},
        {"name", POOL_SOURCE_NAME}, {"initiator", POOL_SOURCE_INITIATOR}, {"adapter", POOL_SOURCE_ADAPTER},
    };
    const struct pool_type_info *info = pool_type_info(type);

    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        if (!strcmp(parts[i].element, element))
            return info->parts & parts[i].part;
    }
    if (!strcmp(element, "format"))
        return info->source_formats;
    if (!strcmp(element, "auth"))
        return type == POOL_ISCSI || type == POOL_ISCSI_DIRECT || type == POOL_RBD;
    return strcmp(element, "protocol") != 0 || type == POOL_NETFS;
}

static bool check_source(const xmlNode *source, enum pool_type type, struct pool_error **err)
{
    if (!source)
        return true;
    for (const xmlNode *child = xml_next_element(source, NULL); child; child = xml_next_element(source, child)) {
        if (!uses(type, (const char *)child->name))
            return fails(err, "Did not expect element %s in the source of a pool of type '%s', at line %ld",
                         (const char *)child->name, pool_type_info(type)->name, xmlGetLineNo(child));
    }
    return true;
}

/* What reading the document finds wrong with its values is wrong by the schema, too. */
static bool take_reader_error(struct pool_error *error, struct pool_error **err)
{
    g_autofree char *text = g_strdup(error->message);

    if (error->code == POOL_ERROR_XML_DETAIL || error->code == POOL_ERROR_NO_MEMORY)
        return pool_error_move(err, error);
    pool_error_free(error);
    return fails(err, "%s", text);
}

bool xml_check_pool(const char *xml, struct pool_error **err)
{
    AUTO(xml_document) document = xml_document_parse(xml, "pool", err);
    AUTO(pool_def) def = NULL;
    struct pool_error *error = NULL;

    if (!document || !check(pool_rules, xmlDocGetRootElement(document), err))
        return false;
    def = pool_def_parse(xml, false, &error);
    return def ? check_source(xml_find(xmlDocGetRootElement(document), "source"), def->type, err)
               : take_reader_error(error, err);
}

bool xml_check_volume(const char *xml, enum pool_type type, bool capacity_optional, struct pool_error **err)
{
    AUTO(xml_document) document = xml_document_parse(xml, "volume", err);
    AUTO(volume) volume = NULL;
    struct pool_error *error = NULL;

    if (!document || !check(volume_rules, xmlDocGetRootElement(document), err))
        return false;
    volume = volume_parse(xml, type, capacity_optional, &error);
    return volume || take_reader_error(error, err);
}

bool xml_check_secret(const char *xml, struct pool_error **err)
{
    struct pool_error *error = NULL;
    AUTO(secret_def) def = secret_def_parse(xml, &error);
    AUTO(xml_document) document = NULL;
    const xmlNode *usage;
    const xmlNode *first;

    if (!def)
        return take_reader_error(error, err);
    document = xml_document_parse(xml, "secret", err);
    if (!document || !check(secret_rules, xmlDocGetRootElement(document), err))
        return false;
    usage = xml_find(xmlDocGetRootElement(document), "usage");
    first = usage ? xml_next_element(usage, NULL) : NULL;
    return !first || !xml_next_element(usage, first) ||
           fails(err, "Extra element %s in element usage, at line %ld",
                 (const char *)xml_next_element(usage, first)->name, xmlGetLineNo(usage));
}
