/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What went wrong, for people and QMP clients.
 *
 * A control function that can fail returns bool and takes `struct error **err` last. NULL means that the caller does
 * not want to know why. On failure it sets *err, which the caller then owns, and returns false; on success it leaves
 * *err alone. Nobody reads a caller's *err: who needs the reason passes an error of its own.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>

#include "base/cleanup.h"
#include "base/compiler.h"

/* The error classes of QMP. */
enum error_class {
    ERROR_GENERIC,
    ERROR_COMMAND_NOT_FOUND,
    ERROR_DEVICE_NOT_ACTIVE,
    ERROR_DEVICE_NOT_FOUND,
};

struct error;

/* Each sets *err, which must hold NULL, to a new error and returns false. The text has no newline and no full stop. */
bool error_set(struct error **err, const char *format, ...) PRINTF_LIKE(2, 3);
bool error_set_class(struct error **err, enum error_class class, const char *format, ...) PRINTF_LIKE(3, 4);

/* As error_set(), then ": " and the system's text for `errno_value` (positive or negative errno). */
bool error_set_errno(struct error **err, int errno_value, const char *format, ...) PRINTF_LIKE(3, 4);

/* Puts a text before the message of *err, where there is one; returns false, so that a caller can return it. */
bool error_prefix(struct error **err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Adds a sentence that helps a person; it goes to the terminal and not to QMP clients. */
void error_hint(struct error **err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Hands `error` (taken, may be NULL) to *err, or frees it where err is NULL; returns false. */
bool error_move(struct error **err, struct error *error);

const char *error_message(const struct error *error);
const char *error_hint_text(const struct error *error); /* NULL: none */
enum error_class error_get_class(const struct error *error);
int error_get_errno(const struct error *error);       /* positive, 0: none */
const char *error_class_name(enum error_class class); /* "GenericError", ... */

/* Frees `error`; NULL is allowed. */
void error_free(struct error *error);
AUTO_DEFINE(error, struct error *, error_free)
