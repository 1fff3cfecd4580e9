/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the module tls-gnutls share. */
#pragma once

#include <gnutls/gnutls.h>

#include "crypto/tls.h"

struct tls_creds {
    enum tls_creds_kind kind; /* all const after creds_new() */
    bool server;
    bool verify_peer;
    char *priority; /* NULL: the system's */
    union {
        gnutls_anon_server_credentials_t anon_server;
        gnutls_anon_client_credentials_t anon_client;
        gnutls_psk_server_credentials_t psk_server;
        gnutls_psk_client_credentials_t psk_client;
        gnutls_certificate_credentials_t x509;
    } u;
    gnutls_dh_params_t dh_params; /* NULL: the standard's own groups */
};

struct tls_creds *tls_gnutls_creds_new(const struct tls_creds_options *options, struct error **err) MUST_CHECK;
void tls_gnutls_creds_free(struct tls_creds *creds); /* NULL is allowed */

/* Sets the protocols and ciphers of `session`, with those that the kind of credentials needs. */
bool tls_gnutls_set_priority(const struct tls_creds *creds, gnutls_session_t session, struct error **err) MUST_CHECK;

/* Called for the user name of a PSK client. */
int tls_gnutls_find_psk(gnutls_session_t session, const char *username, gnutls_datum_t *ret_key);

/* Examines the certificates of `options` as far as one can without a peer. */
bool tls_gnutls_certificates_check(const struct tls_creds_options *options, struct error **err) MUST_CHECK;

/* What is wrong with a certificate, from the bits of gnutls_certificate_status_t. */
const char *tls_gnutls_status_text(unsigned status);
