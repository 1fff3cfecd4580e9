/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The TLS engine: credentials and sessions as functions over memory. It does no I/O of its own: files come in loaded,
 * and a session moves its records through two callbacks. What implements it is the module tls-gnutls.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "crypto/module.h"

struct error;
struct tls_creds;
struct tls_session;

enum tls_creds_kind { TLS_CREDS_ANON, TLS_CREDS_PSK, TLS_CREDS_X509 };

/* The loaded content of a file; `data` is NULL where there is none, and has a NUL beyond `size`. */
struct tls_file {
    char *path;
    char *data;
    size_t size;
};

/* All borrowed during tls_engine.creds_new() only. */
struct tls_creds_options {
    enum tls_creds_kind kind;
    bool server;
    bool verify_peer;            /* x509 */
    bool sanity_check;           /* x509 */
    int64_t now_s;               /* seconds since 1970, for the sanity check */
    const char *priority;        /* NULL: the system's */
    struct tls_file dh_params;   /* servers */
    struct tls_file ca;          /* x509 */
    struct tls_file crl;         /* x509 */
    struct tls_file certificate; /* x509 */
    struct tls_file key;         /* x509 */
    const char *password;        /* x509: of the key's file; NULL: none */
    const char *username;        /* PSK clients */
    const char *psk_hex;         /* PSK clients: the key in hexadecimal digits */
};

struct tls_session_options {
    const char *host_name; /* clients with certificates: what the server's must be made for */
    /* Bytes from the peer: their number, 0 at the end, -EAGAIN for none yet, or another -errno. */
    ssize_t (*pull)(void *opaque, void *to, size_t size);
    /* Bytes for the peer; all are taken. */
    void (*push)(void *opaque, const void *from, size_t size);
    /* PSK servers: the key of `username` in hexadecimal digits, owned; NULL: unknown. Within handshake(). */
    char *(*find_psk)(void *opaque, const char *username);
    void *opaque;
};

struct tls_engine {
    struct module_head head;
    struct tls_creds *(*creds_new)(const struct tls_creds_options *options, struct error **err);
    void (*creds_free)(struct tls_creds *creds);

    /* Of one thread at a time. `creds` must outlive it; strings are copied. */
    struct tls_session *(*session_new)(struct tls_creds *creds, const struct tls_session_options *options,
                                       struct error **err);
    void (*session_free)(struct tls_session *session);
    /* 0: done; -EAGAIN: send and receive, then again; -EPROTO with the error. */
    int (*handshake)(struct tls_session *session, struct error **err);
    /*
     * After the handshake: whether the peer is who the credentials ask for. Its proven name in *ret_identity (owned;
     * NULL: it has none).
     */
    bool (*verify)(struct tls_session *session, char **ret_identity, struct error **err);
    /* Tells the peer that it may not come in. */
    void (*deny)(struct tls_session *session);
    /* Bytes moved; read: 0 at the peer's goodbye; -EAGAIN: nothing there; -errno, after which it is broken. */
    ssize_t (*read)(struct tls_session *session, void *to, size_t size);
    ssize_t (*write)(struct tls_session *session, const void *from, size_t size);
    /* Says goodbye. */
    void (*bye)(struct tls_session *session);
};

enum { TLS_RECORD_BYTES = 16384 }; /* of plain text, at most */

/* The engine, loaded if need be; NULL and the error. */
const struct tls_engine *tls_engine_get(struct error **err) MUST_CHECK;
