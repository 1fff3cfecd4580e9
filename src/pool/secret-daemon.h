/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Libvirt's secret daemon, asked by its protocol: a connection for each question, they are few. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct pool_error;
struct rpc_bytes;
struct secret_id;

struct secret_daemon {
    const char *socket;
    const char *token_path; /* the system's token: with it, private secrets are told, too */
    bool privileged;
};

/* The value of the secret with `uuid`, or where that is NULL, of the one for `usage`. Owned; NULL: *err. */
struct rpc_bytes *CO_FN co_secret_daemon_get(const struct secret_daemon *daemon, const uint8_t *uuid, int type,
                                             const char *usage, struct pool_error **err);

struct secret_id *CO_FN co_secret_daemon_find(const struct secret_daemon *daemon, int type, const char *usage,
                                              struct pool_error **err);
