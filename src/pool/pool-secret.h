/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Values of secrets: of libvirt's secret daemon where one runs, else of the daemon's own files. On whose behalf a value
 * is asked for decides whether it may be had.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct pool_error;
struct pool_secrets;

enum secret_usage { SECRET_USAGE_NONE, SECRET_USAGE_VOLUME, SECRET_USAGE_CEPH, SECRET_USAGE_ISCSI };

/* The wiped-on-free value of a secret. */
struct secret_value {
    uint8_t *data;
    size_t size;
};

/* Gets the value of the secret with `uuid` (16 bytes), or where that is NULL, of the one for `usage` of `type`. May
 * suspend; main loop. NULL: *err, domain "secret" or "storage". */
struct secret_value *CO_FN co_pool_secret_get(struct pool_secrets *secrets, const uint8_t *uuid, enum secret_usage type,
                                              const char *usage, struct pool_error **err);

/* The uuid of the secret for `usage` of `type`; false: there is none. May suspend; main loop. */
bool CO_FN co_pool_secret_find(struct pool_secrets *secrets, enum secret_usage type, const char *usage,
                               uint8_t uuid[16]);

void secret_value_free(struct secret_value *value);
AUTO_DEFINE(secret_value, struct secret_value *, secret_value_free)
