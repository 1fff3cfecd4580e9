/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct error {
    enum error_class class;
    int errno_value; /* positive, 0: none */
    char *message;
    char *hint; /* NULL: none */
};

static bool set(struct error **err, enum error_class class, int errno_value, const char *format, va_list args)
{
    if (!err)
        return false;
    assert(!*err);

    g_autofree char *text = g_strdup_vprintf(format, args);
    struct error *error = g_new0(struct error, 1);

    error->class = class;
    error->errno_value = abs(errno_value);
    error->message = errno_value ? g_strdup_printf("%s: %s", text, g_strerror(abs(errno_value))) : TAKE(text);
    *err = error;
    return false;
}

bool error_set(struct error **err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set(err, ERROR_GENERIC, 0, format, args);
    va_end(args);
    return false;
}

bool error_set_class(struct error **err, enum error_class class, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set(err, class, 0, format, args);
    va_end(args);
    return false;
}

bool error_set_errno(struct error **err, int errno_value, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set(err, ERROR_GENERIC, errno_value, format, args);
    va_end(args);
    return false;
}

bool error_prefix(struct error **err, const char *format, ...)
{
    va_list args;

    if (!err || !*err)
        return false;
    va_start(args, format);
    g_autofree char *prefix = g_strdup_vprintf(format, args);
    va_end(args);

    g_autofree char *old = (*err)->message;
    (*err)->message = g_strconcat(prefix, old, NULL);
    return false;
}

void error_hint(struct error **err, const char *format, ...)
{
    va_list args;

    if (!err || !*err)
        return;
    va_start(args, format);
    g_free((*err)->hint);
    (*err)->hint = g_strdup_vprintf(format, args);
    va_end(args);
}

bool error_move(struct error **err, struct error *error)
{
    if (!err) {
        error_free(error);
        return false;
    }
    assert(!*err);
    *err = error;
    return false;
}

const char *error_message(const struct error *error)
{
    return error->message;
}

const char *error_hint_text(const struct error *error)
{
    return error->hint;
}

enum error_class error_get_class(const struct error *error)
{
    return error->class;
}

int error_get_errno(const struct error *error)
{
    return error->errno_value;
}

const char *error_class_name(enum error_class class)
{
    static const char *const names[] = {
        [ERROR_GENERIC] = "GenericError",
        [ERROR_COMMAND_NOT_FOUND] = "CommandNotFound",
        [ERROR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
        [ERROR_DEVICE_NOT_FOUND] = "DeviceNotFound",
    };

    assert((size_t) class < G_N_ELEMENTS(names));
    return names[class];
}

void error_free(struct error *error)
{
    if (!error)
        return;
    g_free(error->message);
    g_free(error->hint);
    g_free(error);
}
