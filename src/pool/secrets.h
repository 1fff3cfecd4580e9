/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's own secrets: definitions and values, in files of mode 0600 as libvirt's secret daemon keeps them, whose
 * folder is taken over as it is: "UUID.xml" and, in base64, "UUID.base64". Secrets that are ephemeral are in no file.
 * Main loop. Where libvirt's secret daemon runs, ours keep out of its way: pool-secret.h asks it. Strings that are
 * returned are owned by the caller.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct pool_error;
struct pool_secrets;
struct rpc_bytes;
struct secret_id;
struct secret_id_array;

enum secret_event { SECRET_EVENT_DEFINED, SECRET_EVENT_UNDEFINED, SECRET_EVENT_VALUE };

struct secrets_options {
    const char *directory;  /* of the files */
    const char *socket;     /* of libvirt's secret daemon; NULL: there is none to ask */
    const char *token_path; /* of the system's token, by which it tells daemons from users */
    bool privileged;
    /* Told of what happens to secrets; may be NULL. */
    void (*event)(void *opaque, const struct secret_id *secret, enum secret_event event);
    void *opaque;
};

struct pool_secrets *pool_secrets_new(const struct secrets_options *options);
/* Reads the files; what is wrong with one is logged, and it is left out. */
void CO_FN co_pool_secrets_load(struct pool_secrets *secrets);
void pool_secrets_free(struct pool_secrets *secrets);

/* Whether clients may define secrets here: nobody else keeps them. */
bool pool_secrets_are_own(const struct pool_secrets *secrets);

/* `flags`: the filter of list-all, 0: all. */
struct secret_id_array *pool_secrets_list(struct pool_secrets *secrets, unsigned flags, struct pool_error **err);
struct secret_id *pool_secrets_by_uuid(struct pool_secrets *secrets, const uint8_t *uuid, struct pool_error **err);
struct secret_id *pool_secrets_by_usage(struct pool_secrets *secrets, int type, const char *usage,
                                        struct pool_error **err);
struct secret_id *CO_FN co_pool_secrets_define(struct pool_secrets *secrets, const char *xml, unsigned flags,
                                               struct pool_error **err);
bool CO_FN co_pool_secrets_undefine(struct pool_secrets *secrets, const uint8_t *uuid, struct pool_error **err);
char *pool_secrets_get_xml(struct pool_secrets *secrets, const uint8_t *uuid, unsigned flags, struct pool_error **err);
bool CO_FN co_pool_secrets_set_value(struct pool_secrets *secrets, const uint8_t *uuid, const struct rpc_bytes *value,
                                     unsigned flags, struct pool_error **err);
/* `internal`: for our own use, so private ones too. */
struct rpc_bytes *pool_secrets_get_value(struct pool_secrets *secrets, const uint8_t *uuid, unsigned flags,
                                         bool internal, struct pool_error **err);
