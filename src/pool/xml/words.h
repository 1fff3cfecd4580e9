/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attributes whose values are words or numbers, with the errors for others. Any thread. */
#pragma once

#include <libxml/tree.h>

#include "base/compiler.h"
#include "pool/pool-def.h"

struct pool_error;

/* "Invalid value for attribute 'a' in element 'e': 'v'." and what `expected` adds (may be NULL); returns false. */
bool xml_invalid_attribute(struct pool_error **err, const xmlNode *node, const char *attribute, const char *value,
                           const char *expected);

/* "yes" and "no"; *ret is left where the attribute is not there. `node` may be NULL. */
bool xml_get_tristate(const xmlNode *node, const char *attribute, enum tristate *ret, struct pool_error **err);

/* An integer of at most `max`, also in hexadecimal with "0x"; *ret is left where the attribute is not there. */
bool xml_get_number(const xmlNode *node, const char *attribute, unsigned max, unsigned *ret, struct pool_error **err);

/* A reference by "uuid" or "usage", exactly one of them. */
bool xml_get_secret_reference(const xmlNode *node, struct secret_reference *ret, struct pool_error **err);
/* What the element says of it, as attributes with a blank before: owned, escaped. */
char *xml_secret_attributes(const struct secret_reference *secret);

const char *tristate_name(enum tristate value); /* "yes", "no" */
