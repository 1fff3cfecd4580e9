/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/units.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"

static bool is_hexadecimal(const char *text)
{
    return text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
}

/* The digits at the start of `text`; where they end in *ret_end. */
static bool parse_digits(const char *text, uint64_t *ret, const char **ret_end)
{
    char *end;
    bool hexadecimal = is_hexadecimal(text);

    if (!g_ascii_isdigit(text[0]) || (hexadecimal && !g_ascii_isxdigit(text[2])))
        return false;
    errno = 0;
    *ret = g_ascii_strtoull(text, &end, hexadecimal ? 16 : 10);
    *ret_end = end;
    return !errno;
}

bool uint64_parse(const char *text, uint64_t *ret)
{
    const char *end;
    uint64_t value;

    if (!parse_digits(text, &value, &end) || *end)
        return false;
    *ret = value;
    return true;
}

bool int64_parse(const char *text, int64_t *ret)
{
    bool negative = *text == '-';
    uint64_t value;

    if (!uint64_parse(text + negative, &value) || value > (uint64_t)INT64_MAX + negative)
        return false;
    *ret = negative ? (int64_t)-value : (int64_t)value;
    return true;
}

/* The factor of a suffix, which may be missing; 0: it is none. */
static uint64_t suffix_factor(const char *suffix)
{
    static const char letters[] = "BKMGTPE";

    if (!*suffix)
        return 1;
    const char *found = strchr(letters, g_ascii_toupper(*suffix));
    return found && !suffix[1] ? UINT64_C(1) << (10 * (found - letters)) : 0;
}

bool size_parse(const char *text, uint64_t *ret)
{
    const char *end;
    uint64_t whole;
    uint64_t bytes;
    double fraction = 0;

    if (*text == '+')
        text++;
    if (!parse_digits(text, &whole, &end))
        return false;
    if (*end == '.' && !is_hexadecimal(text)) {
        const char *digits = end + 1;
        g_autofree char *fraction_text = NULL;

        for (end = digits; g_ascii_isdigit(*end); end++)
            ;
        fraction_text = g_strdup_printf("0.%.*s", (int)(end - digits), digits);
        fraction = g_ascii_strtod(fraction_text, NULL);
    }
    uint64_t factor = suffix_factor(end);
    if (!factor || (fraction > 0 && factor == 1) || __builtin_mul_overflow(whole, factor, &bytes))
        return false;
    uint64_t rest = (uint64_t)llround(fraction * (double)factor);
    if (__builtin_add_overflow(bytes, rest, &bytes))
        return false;
    *ret = bytes;
    return true;
}
