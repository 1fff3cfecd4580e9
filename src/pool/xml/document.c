/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/xml/document.h"

#include <assert.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <string.h>

#include "pool/pool-error.h"

enum { EXCERPT_MAX = 80 };

/* --- parsing --- */

/* Entities come from document types alone, so whoever brings one gets no further. */
static void refuse_document_type(void *opaque, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
    xmlParserCtxt *context = opaque;

    context->_private = context;
    xmlStopParser(context);
}

/* The line of the text where it went wrong, and under it a mark at the column. */
static char *excerpt(const char *text, int line, int column)
{
    const char *end;
    g_autofree char *copy = NULL;
    int mark = column > 1 && column <= EXCERPT_MAX ? column - 1 : 0;

    for (int i = 1; i < line && text; i++) {
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    if (!text)
        return g_strdup("");
    end = strchr(text, '\n');
    copy = g_strndup(text, MIN(end ? (size_t)(end - text) : strlen(text), EXCERPT_MAX));
    return g_strdup_printf("\n%s\n%.*s^", copy, mark,
                           "--------------------------------------------------------------------------------");
}

static bool parse_failed(const xmlParserCtxt *context, const char *text, struct pool_error **err)
{
    const xmlError *error = xmlCtxtGetLastError((void *)(uintptr_t)context);
    g_autofree char *message = NULL;
    g_autofree char *where = NULL;

    if (context->_private)
        return pool_error_set(err, POOL_ERROR_XML_DETAIL, "at line %d: a document type is not allowed here",
                              context->input ? context->input->line : 1);
    if (!error || !error->message)
        return pool_error_set(err, POOL_ERROR_XML_DETAIL, "failed to parse xml document");
    message = g_utf8_make_valid(error->message, -1);
    where = excerpt(text, error->line, error->int2);
    return pool_error_set(err, POOL_ERROR_XML_DETAIL, "at line %d: %s%s", error->line, g_strchomp(message), where);
}

xmlDoc *xml_document_parse(const char *text, const char *root, struct pool_error **err)
{
    int options = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOCDATA | XML_PARSE_COMPACT;
    AUTO(xml_document) document = NULL;
    xmlParserCtxt *context;
    size_t size = strlen(text);

    if (size > XML_TEXT_MAX) {
        pool_error_set(err, POOL_ERROR_XML_DETAIL, "the document has %zu bytes, more than %d", size, XML_TEXT_MAX);
        return NULL;
    }
    if (!g_utf8_validate(text, -1, NULL)) {
        pool_error_set(err, POOL_ERROR_XML_DETAIL, "the document is not valid UTF-8");
        return NULL;
    }
    context = xmlNewParserCtxt();
    if (!context || !context->sax) {
        pool_error_set(err, POOL_ERROR_NO_MEMORY, "no parser");
        return NULL;
    }
    context->sax->internalSubset = refuse_document_type;
    document = xmlCtxtReadMemory(context, text, (int)size, NULL, "UTF-8", options);
    if (context->_private || !document) {
        parse_failed(context, text, err);
        xmlFreeParserCtxt(context);
        return NULL;
    }
    xmlFreeParserCtxt(context);
    if (!xmlDocGetRootElement(document)) {
        pool_error_set(err, POOL_ERROR_XML_DETAIL, "missing root element");
        return NULL;
    }
    if (root && strcmp((const char *)xmlDocGetRootElement(document)->name, root) != 0) {
        pool_error_set_domain(err, POOL_DOMAIN_XML, POOL_ERROR_XML, "expecting root element of '%s', not '%s'", root,
                              (const char *)xmlDocGetRootElement(document)->name);
        return NULL;
    }
    return TAKE(document);
}

void xml_document_free(xmlDoc *document)
{
    if (document)
        xmlFreeDoc(document);
}

/* --- finding --- */

static bool is_element(const xmlNode *node, const char *name, size_t size)
{
    return node->type == XML_ELEMENT_NODE && !node->ns && strlen((const char *)node->name) == size &&
           !memcmp(node->name, name, size);
}

xmlNode *xml_find(const xmlNode *node, const char *path)
{
    while (node && path) {
        const char *slash = strchr(path, '/');
        size_t size = slash ? (size_t)(slash - path) : strlen(path);

        node = node->children;
        while (node && !is_element(node, path, size))
            node = node->next;
        path = slash ? slash + 1 : NULL;
    }
    return (xmlNode *)(uintptr_t)node;
}

xmlNode *xml_next(const xmlNode *node)
{
    xmlNode *next = node->next;

    while (next && !is_element(next, (const char *)node->name, strlen((const char *)node->name)))
        next = next->next;
    return next;
}

xmlNode *xml_find_in(const xmlNode *node, const char *name, const char *namespace)
{
    xmlNode *child = node ? node->children : NULL;

    while (child && !(child->type == XML_ELEMENT_NODE && child->ns && child->ns->href &&
                      !strcmp((const char *)child->ns->href, namespace) && !strcmp((const char *)child->name, name)))
        child = child->next;
    return child;
}

xmlNode *xml_next_element(const xmlNode *parent, const xmlNode *node)
{
    xmlNode *next = node ? node->next : parent ? parent->children : NULL;

    while (next && next->type != XML_ELEMENT_NODE)
        next = next->next;
    return next;
}

xmlNode *xml_search(xmlNode *node, const char *name)
{
    xmlNode *top = node;

    while (node) {
        if (is_element(node, name, strlen(name)))
            return node;
        if (node->type == XML_ELEMENT_NODE && node->children) {
            node = node->children;
            continue;
        }
        while (node != top && !node->next)
            node = node->parent;
        node = node == top ? NULL : node->next;
    }
    return NULL;
}

static char *take_text(xmlChar *value)
{
    char *text = value && *value ? g_strdup((const char *)value) : NULL;

    if (value)
        xmlFree(value);
    return text;
}

char *xml_text(const xmlNode *node, const char *path)
{
    const xmlNode *found = xml_find(node, path);

    return found ? take_text(xmlNodeGetContent(found)) : NULL;
}

char *xml_attribute(const xmlNode *node, const char *path, const char *name)
{
    const xmlNode *found = path ? xml_find(node, path) : node;

    return found ? take_text(xmlGetNoNsProp(found, (const xmlChar *)name)) : NULL;
}

bool xml_is_valid_text(const char *text)
{
    if (!g_utf8_validate(text, -1, NULL))
        return false;
    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0xFFFE || c == 0xFFFF)
            return false;
    }
    return true;
}

/* --- writing --- */

static void write_line(struct xml_writer *writer, const char *format, va_list arguments)
{
    g_autofree char *line = g_markup_vprintf_escaped(format, arguments);

    if (!writer->text)
        writer->text = g_string_new(NULL);
    for (unsigned i = 0; i < writer->depth; i++)
        g_string_append(writer->text, "  ");
    g_string_append(writer->text, line);
    g_string_append_c(writer->text, '\n');
}

void xml_line(struct xml_writer *writer, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_line(writer, format, arguments);
    va_end(arguments);
}

void xml_begin(struct xml_writer *writer, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_line(writer, format, arguments);
    va_end(arguments);
    writer->depth++;
}

void xml_end(struct xml_writer *writer, const char *name)
{
    assert(writer->depth > 0);
    writer->depth--;
    xml_line(writer, "</%s>", name);
}

void xml_element(struct xml_writer *writer, const char *name, const char *value)
{
    if (value)
        xml_line(writer, "<%s>%s</%s>", name, value, name);
}

char *xml_writer_take(struct xml_writer *writer)
{
    GString *text = TAKE(writer->text);

    assert(writer->depth == 0);
    return text ? g_string_free(text, FALSE) : g_strdup("");
}

void xml_writer_done(struct xml_writer *writer)
{
    if (writer->text)
        g_string_free(TAKE(writer->text), TRUE);
}

/* --- uuids --- */

bool uuid_parse_text(const char *text, uint8_t uuid[16])
{
    uint8_t bytes[16];
    unsigned digits = 0;

    while (g_ascii_isspace(*text))
        text++;
    for (; *text && digits < 32; text++) {
        int value = g_ascii_xdigit_value(*text);

        if (*text == '-')
            continue;
        if (value < 0)
            return false;
        bytes[digits / 2] = (uint8_t)(digits % 2 ? bytes[digits / 2] | value : value << 4);
        digits++;
    }
    while (g_ascii_isspace(*text))
        text++;
    if (digits < 32 || *text)
        return false;
    memcpy(uuid, bytes, sizeof(bytes));
    return true;
}

void uuid_format(const uint8_t uuid[16], char ret[XML_UUID_TEXT])
{
    char *to = ret;

    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        *to++ = "0123456789abcdef"[uuid[i] >> 4];
        *to++ = "0123456789abcdef"[uuid[i] & 15];
    }
    *to = 0;
}
