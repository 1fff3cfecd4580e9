/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a connected stream to an open export of an NBD server, or to the list of its exports. Main loop. */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "driver/protocol/nbd/message.h"

struct error;
struct object;
struct stream;

/* Strings and objects are borrowed. */
struct nbd_handshake_options {
    const char *export;       /* "": the default export */
    const char *context;      /* the metadata context that is wanted; NULL: none */
    struct object *tls_creds; /* held; NULL: no TLS */
    const char *tls_hostname; /* NULL: the certificate's name is not looked at */
    bool simple_replies;      /* neither structured replies nor extended headers */
    bool no_extended_headers;
};

struct nbd_handshake_result {
    enum nbd_mode mode;
    struct nbd_export_info info;
};

/*
 * *stream becomes one over TLS where that is wanted; it stays the caller's, also on failure (then it may be NULL).
 * False and the error: "Requested export not available", ...
 */
bool CO_FN co_nbd_client_handshake(struct stream **stream, const struct nbd_handshake_options *options,
                                   struct nbd_handshake_result *ret, struct error **err) MUST_CHECK;

/* An export as a server lists it. */
struct nbd_listed_export {
    char *name;
    struct nbd_export_info info;
    bool has_info;
    GPtrArray *contexts; /* names */
};
void nbd_listed_export_free(struct nbd_listed_export *export);

/* All exports, and what can be learned of each; the conversation with the server is over then. `export` and `context`
 * of the options do not count. NULL and the error. */
GPtrArray *CO_FN co_nbd_client_list(struct stream **stream, const struct nbd_handshake_options *options,
                                    struct error **err) MUST_CHECK;

void nbd_export_info_clear(struct nbd_export_info *info);
