/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/pool-error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* What stands around the detail; clients get the template too, in the numbered form of libvirt since 10.1. */
struct error_template {
    enum pool_error_code code;
    const char *before, *after;
};

static const struct error_template templates[] = {
    {POOL_ERROR_INTERNAL, "internal error: ", ""},
    {POOL_ERROR_NO_MEMORY, "out of memory: ", ""},
    {POOL_ERROR_NO_SUPPORT, "this function is not supported by the connection driver: ", ""},
    {POOL_ERROR_NO_CONNECT, "no connection driver available for ", ""},
    {POOL_ERROR_INVALID_ARG, "invalid argument: ", ""},
    {POOL_ERROR_OPERATION_FAILED, "operation failed: ", ""},
    {POOL_ERROR_XML, "XML error: ", ""},
    {POOL_ERROR_OPERATION_DENIED, "operation forbidden: ", ""},
    {POOL_ERROR_AUTH_FAILED, "authentication failed: ", ""},
    {POOL_ERROR_NO_POOL, "Storage pool not found: ", ""},
    {POOL_ERROR_NO_VOLUME, "Storage volume not found: ", ""},
    {POOL_ERROR_OPERATION_INVALID, "Requested operation is not valid: ", ""},
    {POOL_ERROR_INVALID_SECRET, "Invalid secret: ", ""},
    {POOL_ERROR_NO_SECRET, "Secret not found: ", ""},
    {POOL_ERROR_CONFIG_UNSUPPORTED, "unsupported configuration: ", ""},
    {POOL_ERROR_TIMEOUT, "Timed out during operation: ", ""},
    {POOL_ERROR_ARGUMENT_UNSUPPORTED, "argument unsupported: ", ""},
    {POOL_ERROR_PROBE_FAILED, "Storage pool probe failed: ", ""},
    {POOL_ERROR_POOL_BUILT, "Storage pool already built: ", ""},
    {POOL_ERROR_ABORTED, "operation aborted: ", ""},
    {POOL_ERROR_AUTH_CANCELLED, "authentication cancelled: ", ""},
    {POOL_ERROR_OVERFLOW, "numerical overflow: ", ""},
    {POOL_ERROR_OPERATION_UNSUPPORTED, "Operation not supported: ", ""},
    {POOL_ERROR_BUSY, "resource busy: ", ""},
    {POOL_ERROR_ACCESS_DENIED, "access denied: ", ""},
    {POOL_ERROR_VOLUME_EXISTS, "storage volume ", " exists already"},
    {POOL_ERROR_XML_SCHEMA, "XML document failed to validate against schema: ", ""},
    {POOL_ERROR_AUTH_UNAVAILABLE, "authentication unavailable: ", ""},
    {POOL_ERROR_NO_SERVER, "Server not found: ", ""},
    {POOL_ERROR_NO_CLIENT, "Client not found: ", ""},
};

/* NULL: the detail is all of the text. */
static const struct error_template *template_of(enum pool_error_code code)
{
    for (size_t i = 0; i < G_N_ELEMENTS(templates); i++) {
        if (templates[i].code == code)
            return &templates[i];
    }
    return NULL;
}

/*
 * What clients have sent comes back in errors. They can ask for more of them than they read, and take no text of more
 * than four MiB; nobody reads so much of one either.
 */
enum { DETAIL_MAX = 64 << 10 };

/* `text` (taken), or its beginning. */
static char *limited(char *text)
{
    static const char more[] = "...";
    size_t end = DETAIL_MAX;

    if (strlen(text) <= DETAIL_MAX)
        return text;
    while (end > DETAIL_MAX - 4 && ((uint8_t)text[end] & 0xc0) == 0x80)
        end--; /* not amid a character */
    text = g_realloc(text, end + sizeof(more));
    memcpy(text + end, more, sizeof(more));
    return text;
}

/* `detail` is taken. */
static bool set(struct pool_error **err, enum pool_error_domain domain, enum pool_error_code code, char *detail)
{
    const struct error_template *template = template_of(code);

    if (!err) {
        g_free(detail);
        return false;
    }
    assert(!*err);
    detail = limited(detail);

    struct pool_error *error = g_new0(struct pool_error, 1);
    error->code = code;
    error->domain = domain;
    if (template) {
        error->message = g_strconcat(template->before, detail, template->after, NULL);
        error->str1 = g_strconcat(template->before, "%1$s", template->after, NULL);
    } else {
        error->message = g_strdup(detail);
        error->str1 = g_strdup("%s");
    }
    error->str2 = detail;
    error->int1 = -1;
    error->int2 = -1;
    *err = error;
    return false;
}

bool pool_error_set(struct pool_error **err, enum pool_error_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set(err, POOL_DOMAIN_STORAGE, code, g_strdup_vprintf(format, args));
    va_end(args);
    return false;
}

bool pool_error_set_domain(struct pool_error **err, enum pool_error_domain domain, enum pool_error_code code,
                           const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set(err, domain, code, g_strdup_vprintf(format, args));
    va_end(args);
    return false;
}

bool pool_error_set_errno(struct pool_error **err, int errno_value, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);

    set(err, POOL_DOMAIN_STORAGE, POOL_ERROR_SYSTEM, g_strdup_printf("%s: %s", what, g_strerror(abs(errno_value))));
    if (err)
        (*err)->int1 = abs(errno_value);
    return false;
}

bool pool_error_set_argument(struct pool_error **err, const char *function, const char *argument, const char *format,
                             ...)
{
    va_list args;

    if (!err)
        return false;
    assert(!*err);

    struct pool_error *error = g_new0(struct pool_error, 1);
    va_start(args, format);
    error->message = g_strdup_vprintf(format, args);
    va_end(args);
    error->code = POOL_ERROR_INVALID_ARG;
    error->domain = POOL_DOMAIN_STORAGE;
    error->str1 = g_strdup(function);
    error->str2 = g_strdup(argument);
    *err = error;
    return false;
}

bool pool_error_check_flags(struct pool_error **err, unsigned flags, unsigned allowed, const char *function)
{
    unsigned other = flags & ~allowed;

    if (!other)
        return true;
    return pool_error_set_argument(err, function, "flags", "unsupported flags (0x%x) in function %s", other, function);
}

bool pool_error_from(struct pool_error **err, struct error *error)
{
    int errno_value = error_get_errno(error);

    set(err, POOL_DOMAIN_STORAGE, errno_value ? POOL_ERROR_SYSTEM : POOL_ERROR_INTERNAL,
        g_strdup(error_message(error)));
    if (err && errno_value)
        (*err)->int1 = errno_value;
    error_free(error);
    return false;
}

bool pool_error_move(struct pool_error **err, struct pool_error *error)
{
    if (!err) {
        pool_error_free(error);
        return false;
    }
    assert(!*err);
    *err = error;
    return false;
}

void pool_error_free(struct pool_error *error)
{
    if (!error)
        return;
    g_free(error->message);
    g_free(error->str1);
    g_free(error->str2);
    g_free(error->str3);
    g_free(error);
}
