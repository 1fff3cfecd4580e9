/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * XML that clients send and that config files hold, read by libxml2 with everything turned off that reaches beyond the
 * text or makes more of it than it is: no document types (so no entities but the five of XML), no network, a size limit
 * and libxml2's own limit of depth. Any thread.
 *
 * Elements are libxml2's. A path is names with slashes between, below `node`; the first element that fits is taken.
 * Texts are owned; NULL where there is none or it is empty.
 */
#pragma once

#include <libxml/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct pool_error;

enum { XML_TEXT_MAX = 4 * 1024 * 1024 };

/* The document whose root element is `root` (NULL: any); freed by xml_document_free(). */
xmlDoc *xml_document_parse(const char *text, const char *root, struct pool_error **err) MUST_CHECK;
void xml_document_free(xmlDoc *document);
AUTO_DEFINE(xml_document, xmlDoc *, xml_document_free)

/* NULL where there is none; `node` may be NULL. */
xmlNode *xml_find(const xmlNode *node, const char *path);
/* The next element of the same name beside `node`. */
xmlNode *xml_next(const xmlNode *node);
/* The first element of that name and namespace. */
xmlNode *xml_find_in(const xmlNode *node, const char *name, const char *namespace);
/* The next element, whatever its name; `node` NULL: the first of `parent`. */
xmlNode *xml_next_element(const xmlNode *parent, const xmlNode *node);
/* The first of that name anywhere, `node` included. */
xmlNode *xml_search(xmlNode *node, const char *name);

char *xml_text(const xmlNode *node, const char *path);
/* Of the element itself where `path` is NULL. */
char *xml_attribute(const xmlNode *node, const char *path, const char *name);

/* Whether all characters of `text` can stand in XML. */
bool xml_is_valid_text(const char *text);

/* Text that grows, indented by two spaces a level. In lines, %s and %c are escaped for XML. */
struct xml_writer {
    GString *text;
    unsigned depth;
};
void xml_line(struct xml_writer *writer, const char *format, ...) PRINTF_LIKE(2, 3);
void xml_begin(struct xml_writer *writer, const char *format, ...) PRINTF_LIKE(2, 3); /* a line; deeper after it */
void xml_end(struct xml_writer *writer, const char *name);                            /* back, and "</name>" */
/* "<name>value</name>", or nothing where the value is NULL. */
void xml_element(struct xml_writer *writer, const char *name, const char *value);
/* The text, owned; the writer is empty after it. */
char *xml_writer_take(struct xml_writer *writer);
void xml_writer_done(struct xml_writer *writer);

/* Sixteen bytes as text and back: with or without dashes, either case; lower case with dashes on writing. */
enum { XML_UUID_TEXT = 37 };
bool uuid_parse_text(const char *text, uint8_t uuid[16]) MUST_CHECK;
void uuid_format(const uint8_t uuid[16], char ret[XML_UUID_TEXT]);
