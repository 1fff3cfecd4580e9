/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/xml/size.h"

#include <glib.h>
#include <string.h>

#include "base/units.h"
#include "pool/pool-error.h"
#include "pool/xml/document.h"

uint64_t size_unit(const char *unit)
{
    static const char letters[] = "KMGTPE";
    const char *letter;
    uint64_t base = 1024;
    uint64_t value = 1;

    if (!unit || !*unit || !g_ascii_strcasecmp(unit, "b") || !g_ascii_strcasecmp(unit, "byte") ||
        !g_ascii_strcasecmp(unit, "bytes"))
        return 1;
    letter = strchr(letters, g_ascii_toupper(*unit));
    if (!letter)
        return 0;
    if (unit[1] && !g_ascii_strcasecmp(unit + 1, "b"))
        base = 1000;
    else if (unit[1] && g_ascii_strcasecmp(unit + 1, "ib") != 0)
        return 0;
    for (const char *p = letters; p <= letter; p++)
        value *= base;
    return value;
}

/* Digits, with nothing before them but white space and a plus: false where it is anything else, or larger than fits. */
static bool parse_number(const char *text, uint64_t *ret)
{
    while (g_ascii_isspace(*text))
        text++;
    if (*text == '+')
        text++;
    return g_ascii_isdigit(*text) && g_ascii_string_to_unsigned(text, 10, 0, UINT64_MAX, ret, NULL);
}

bool xml_get_size(const xmlNode *node, const char *name, uint64_t *ret, bool *ret_found, struct pool_error **err)
{
    g_autofree char *text = xml_text(node, name);
    g_autofree char *unit = xml_attribute(node, name, "unit");
    uint64_t factor = size_unit(unit);
    uint64_t value;

    *ret_found = text;
    if (!text)
        return true;
    if (!parse_number(text, &value))
        return pool_error_set(err, POOL_ERROR_XML, "malformed %s element", name);
    if (!factor)
        return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_INVALID_ARG, "unknown suffix '%s'", unit);
    if (__builtin_mul_overflow(value, factor, &value) || value > INT64_MAX)
        return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_OVERFLOW, "value too large: %s%s", text,
                                     unit ? unit : "");
    *ret = value;
    return true;
}
