/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What went wrong, as libvirt's clients know it: a code, the domain that raised it, the whole text, and the parts that
 * some clients read. Used as struct error is: functions return bool (or NULL) and fill *err, which the caller owns.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;

enum pool_error_code {
    POOL_ERROR_INTERNAL = 1,
    POOL_ERROR_NO_MEMORY = 2,
    POOL_ERROR_NO_SUPPORT = 3,
    POOL_ERROR_NO_CONNECT = 5,
    POOL_ERROR_INVALID_ARG = 8,
    POOL_ERROR_OPERATION_FAILED = 9,
    POOL_ERROR_XML = 27,
    POOL_ERROR_OPERATION_DENIED = 29,
    POOL_ERROR_XML_DETAIL = 35,
    POOL_ERROR_SYSTEM = 38,
    POOL_ERROR_RPC = 39,
    POOL_ERROR_AUTH_FAILED = 45,
    POOL_ERROR_NO_POOL = 49,
    POOL_ERROR_NO_VOLUME = 50,
    POOL_ERROR_OPERATION_INVALID = 55,
    POOL_ERROR_INVALID_SECRET = 65,
    POOL_ERROR_NO_SECRET = 66,
    POOL_ERROR_CONFIG_UNSUPPORTED = 67,
    POOL_ERROR_TIMEOUT = 68,
    POOL_ERROR_ARGUMENT_UNSUPPORTED = 74,
    POOL_ERROR_PROBE_FAILED = 75,
    POOL_ERROR_POOL_BUILT = 76,
    POOL_ERROR_ABORTED = 78,
    POOL_ERROR_AUTH_CANCELLED = 79,
    POOL_ERROR_OVERFLOW = 82,
    POOL_ERROR_OPERATION_UNSUPPORTED = 84,
    POOL_ERROR_BUSY = 87,
    POOL_ERROR_ACCESS_DENIED = 88,
    POOL_ERROR_VOLUME_EXISTS = 90,
    POOL_ERROR_XML_SCHEMA = 92,
    POOL_ERROR_AUTH_UNAVAILABLE = 94,
    POOL_ERROR_NO_SERVER = 95,
    POOL_ERROR_NO_CLIENT = 96,
};

enum pool_error_domain {
    POOL_DOMAIN_NONE = 0,
    POOL_DOMAIN_XML = 5,
    POOL_DOMAIN_RPC = 7,
    POOL_DOMAIN_CONFIG = 9,
    POOL_DOMAIN_STORAGE = 18,
    POOL_DOMAIN_NETWORK = 19,
    POOL_DOMAIN_DOMAIN = 20,
    POOL_DOMAIN_NODE_DEVICE = 22,
    POOL_DOMAIN_INTERFACE = 26,
    POOL_DOMAIN_SECRET = 30,
    POOL_DOMAIN_FILTER = 33,
    POOL_DOMAIN_SNAPSHOT = 35,
    POOL_DOMAIN_STREAMS = 38,
    POOL_DOMAIN_URI = 45,
    POOL_DOMAIN_ACCESS = 55,
    POOL_DOMAIN_POLKIT = 60,
    POOL_DOMAIN_ADMIN = 62,
    POOL_DOMAIN_CHECKPOINT = 69,
};

/* All strings are owned; str1 to str3 may be NULL. */
struct pool_error {
    enum pool_error_code code;
    enum pool_error_domain domain;
    char *message; /* whole, as shown to people */
    char *str1;    /* the template of the code, as the newest libvirt sends it; see the constructors for others */
    char *str2;    /* the detail put into it */
    char *str3;
    int int1, int2;
};

/* Sets *err (which must hold NULL, or `err` be NULL) from a code of the domain "storage" and a detail, with the code's
 * template around it; returns false. */
bool pool_error_set(struct pool_error **err, enum pool_error_code code, const char *format, ...) PRINTF_LIKE(3, 4);
bool pool_error_set_domain(struct pool_error **err, enum pool_error_domain domain, enum pool_error_code code,
                           const char *format, ...) PRINTF_LIKE(4, 5);

/* POOL_ERROR_SYSTEM: the detail, ": " and the text of `errno_value` (of either sign), which is int1 as well. */
bool pool_error_set_errno(struct pool_error **err, int errno_value, const char *format, ...) PRINTF_LIKE(3, 4);

/* What the checks of libvirt's public functions say: code INVALID_ARG, the text without its template, str1 the
 * function, str2 the argument, int1 and int2 0. */
bool pool_error_set_argument(struct pool_error **err, const char *function, const char *argument, const char *format,
                             ...) PRINTF_LIKE(4, 5);

/* True where `flags` has no bits but `allowed`; else the error that names the others and `function`. */
bool pool_error_check_flags(struct pool_error **err, unsigned flags, unsigned allowed, const char *function);

/* Makes *err of what a block function said: POOL_ERROR_SYSTEM where it has an errno, else POOL_ERROR_INTERNAL.
 * `error` is taken. Returns false. */
bool pool_error_from(struct pool_error **err, struct error *error);

/* Hands `error` (taken) to *err, or frees it where err is NULL; returns false. */
bool pool_error_move(struct pool_error **err, struct pool_error *error);

void pool_error_free(struct pool_error *error);
AUTO_DEFINE(pool_error, struct pool_error *, pool_error_free)
