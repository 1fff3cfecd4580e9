/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the tls-creds-* objects share. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "crypto/tls.h"
#include "gen/types.h"
#include "object/object.h"

/* The state of every tls-creds-* object. All const after creation, so any thread may read it. */
struct tls_creds_object {
    const struct tls_engine *engine;
    struct tls_creds *creds;
    enum tls_creds_kind kind;
    enum q_crypto_tls_creds_endpoint endpoint;
    bool verify_peer;
    bool sanity_check; /* x509 */
    char *dir;         /* NULL: none */
    char *priority;    /* NULL: the system's */
    char *username;    /* PSK; NULL: not given */
    char *passwordid;  /* x509; NULL: none */
};

enum {
    TLS_FILE_BYTES_MAX = 4 << 20, /* of each file of credentials */
};

/* Takes over the members that every kind has; the rest is the caller's. */
void tls_creds_object_init(struct tls_creds_object *state, enum tls_creds_kind kind, const char *dir,
                           const char *priority);
void CO_FN tls_creds_object_co_destroy(struct object *object);
void tls_creds_object_clear(struct tls_creds_object *state);

/* The file `name` of the directory; one that is not there has no data, and is an error where `required`. */
bool CO_FN co_tls_creds_load(const struct tls_creds_object *state, const char *name, bool required,
                             struct tls_file *ret, struct error **err) MUST_CHECK;
void tls_file_clear(struct tls_file *file); /* wipes it too */

/* Gets the engine and makes `creds` of `options`, whose members that every kind has are filled in. */
bool CO_FN co_tls_creds_make(struct tls_creds_object *state, struct tls_creds_options *options,
                             struct error **err) MUST_CHECK;

enum tls_creds_property {
    TLS_CREDS_PROPERTY_LOADED,
    TLS_CREDS_PROPERTY_VERIFY_PEER,
    TLS_CREDS_PROPERTY_DIR,
    TLS_CREDS_PROPERTY_ENDPOINT,
    TLS_CREDS_PROPERTY_PRIORITY,
    TLS_CREDS_PROPERTY_USERNAME,
    TLS_CREDS_PROPERTY_SANITY_CHECK,
    TLS_CREDS_PROPERTY_PASSWORDID,
};
struct json *tls_creds_property_get(struct object *object, const struct object_property *property);

#define TLS_CREDS_PROPERTY(property, text, property_type, about)                                                       \
    {                                                                                                                  \
        .name = text, .type = property_type, .description = about, .index = property, .get = tls_creds_property_get    \
    }
#define TLS_CREDS_COMMON_PROPERTIES                                                                                    \
    TLS_CREDS_PROPERTY(TLS_CREDS_PROPERTY_VERIFY_PEER, "verify-peer", "bool",                                          \
                       "whether the peer must prove who it is"),                                                       \
        TLS_CREDS_PROPERTY(TLS_CREDS_PROPERTY_DIR, "dir", "string", "directory of the credential files"),              \
        TLS_CREDS_PROPERTY(TLS_CREDS_PROPERTY_ENDPOINT, "endpoint", "QCryptoTLSCredsEndpoint",                         \
                           "the side that they are for"),                                                              \
        TLS_CREDS_PROPERTY(TLS_CREDS_PROPERTY_PRIORITY, "priority", "string",                                          \
                           "protocols and ciphers, in GnuTLS's notation")
#define TLS_CREDS_LOADED_PROPERTY TLS_CREDS_PROPERTY(TLS_CREDS_PROPERTY_LOADED, "loaded", "bool", "always true")

extern const struct object_class tls_cipher_suites_class;
extern const struct object_class tls_creds_anon_class;
extern const struct object_class tls_creds_psk_class;
extern const struct object_class tls_creds_x509_class;
