/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Credentials, over GnuTLS. */
#include <assert.h>
#include <glib.h>

#include "base/error.h"
#include "crypto/tls-gnutls.h"

static gnutls_datum_t file_datum(const struct tls_file *file)
{
    return (gnutls_datum_t){.data = (unsigned char *)file->data, .size = (unsigned)file->size};
}

static bool load_dh_params(struct tls_creds *creds, const struct tls_file *file, struct error **err)
{
    gnutls_datum_t data = file_datum(file);

    if (!file->data)
        return true;
    int result = gnutls_dh_params_init(&creds->dh_params);
    if (result >= 0)
        result = gnutls_dh_params_import_pkcs3(creds->dh_params, &data, GNUTLS_X509_FMT_PEM);
    return result >= 0 ||
           error_set(err, "Unable to load DH parameters from %s: %s", file->path, gnutls_strerror(result));
}

static bool make_anon(struct tls_creds *creds, const struct tls_creds_options *options, struct error **err)
{
    if (!creds->server) {
        int result = gnutls_anon_allocate_client_credentials(&creds->u.anon_client);
        return result >= 0 || error_set(err, "Cannot allocate credentials: %s", gnutls_strerror(result));
    }
    int result = gnutls_anon_allocate_server_credentials(&creds->u.anon_server);
    if (result < 0)
        return error_set(err, "Cannot allocate credentials: %s", gnutls_strerror(result));
    if (!load_dh_params(creds, &options->dh_params, err))
        return false;
    if (creds->dh_params)
        gnutls_anon_set_server_dh_params(creds->u.anon_server, creds->dh_params);
    else
        result = gnutls_anon_set_server_known_dh_params(creds->u.anon_server, GNUTLS_SEC_PARAM_MEDIUM);
    return result >= 0 || error_set(err, "Cannot set DH parameters: %s", gnutls_strerror(result));
}

static bool make_psk_client(struct tls_creds *creds, const struct tls_creds_options *options, struct error **err)
{
    gnutls_datum_t key = {.data = (unsigned char *)(uintptr_t)options->psk_hex,
                          .size = (unsigned)strlen(options->psk_hex)};
    int result = gnutls_psk_allocate_client_credentials(&creds->u.psk_client);

    if (result < 0)
        return error_set(err, "Cannot allocate credentials: %s", gnutls_strerror(result));
    result = gnutls_psk_set_client_credentials(creds->u.psk_client, options->username, &key, GNUTLS_PSK_KEY_HEX);
    return result >= 0 || error_set(err, "Cannot set PSK client credentials: %s", gnutls_strerror(result));
}

static bool make_psk(struct tls_creds *creds, const struct tls_creds_options *options, struct error **err)
{
    if (!creds->server)
        return make_psk_client(creds, options, err);
    int result = gnutls_psk_allocate_server_credentials(&creds->u.psk_server);
    if (result < 0)
        return error_set(err, "Cannot allocate credentials: %s", gnutls_strerror(result));
    gnutls_psk_set_server_credentials_function(creds->u.psk_server, tls_gnutls_find_psk);
    if (!load_dh_params(creds, &options->dh_params, err))
        return false;
    if (creds->dh_params)
        gnutls_psk_set_server_dh_params(creds->u.psk_server, creds->dh_params);
    else
        result = gnutls_psk_set_server_known_dh_params(creds->u.psk_server, GNUTLS_SEC_PARAM_MEDIUM);
    return result >= 0 || error_set(err, "Cannot set DH parameters: %s", gnutls_strerror(result));
}

static bool load_own_certificate(struct tls_creds *creds, const struct tls_creds_options *options, struct error **err)
{
    gnutls_datum_t certificate = file_datum(&options->certificate);
    gnutls_datum_t key = file_datum(&options->key);

    if (!certificate.data || !key.data)
        return true; /* a client may go without */
    int result = gnutls_certificate_set_x509_key_mem2(creds->u.x509, &certificate, &key, GNUTLS_X509_FMT_PEM,
                                                      options->password, 0);
    return result >= 0 || error_set(err, "Cannot load certificate '%s' & key '%s': %s", options->certificate.path,
                                    options->key.path, gnutls_strerror(result));
}

static bool make_x509(struct tls_creds *creds, const struct tls_creds_options *options, struct error **err)
{
    gnutls_datum_t ca = file_datum(&options->ca);
    gnutls_datum_t crl = file_datum(&options->crl);
    int result = gnutls_certificate_allocate_credentials(&creds->u.x509);

    if (result < 0)
        return error_set(err, "Cannot allocate credentials: %s", gnutls_strerror(result));
    result = gnutls_certificate_set_x509_trust_mem(creds->u.x509, &ca, GNUTLS_X509_FMT_PEM);
    if (result < 0)
        return error_set(err, "Cannot load CA certificate '%s': %s", options->ca.path, gnutls_strerror(result));
    if (!load_own_certificate(creds, options, err))
        return false;
    if (crl.data) {
        result = gnutls_certificate_set_x509_crl_mem(creds->u.x509, &crl, GNUTLS_X509_FMT_PEM);
        if (result < 0)
            return error_set(err, "Cannot load CRL '%s': %s", options->crl.path, gnutls_strerror(result));
    }
    if (!creds->server)
        return true;
    if (!load_dh_params(creds, &options->dh_params, err))
        return false;
    if (creds->dh_params)
        gnutls_certificate_set_dh_params(creds->u.x509, creds->dh_params);
    else
        result = gnutls_certificate_set_known_dh_params(creds->u.x509, GNUTLS_SEC_PARAM_MEDIUM);
    return result >= 0 || error_set(err, "Cannot set DH parameters: %s", gnutls_strerror(result));
}

/* Key exchanges that no default has. */
static const char *const extra_priority[] = {
    [TLS_CREDS_ANON] = "+ANON-ECDH:+ANON-DH",
    [TLS_CREDS_PSK] = "+ECDHE-PSK:+DHE-PSK:+PSK",
    [TLS_CREDS_X509] = NULL,
};

bool tls_gnutls_set_priority(const struct tls_creds *creds, gnutls_session_t session, struct error **err)
{
    const char *extra = extra_priority[creds->kind];
    const char *name = creds->priority ? creds->priority : "of the system";
    int result;

    if (creds->priority) {
        g_autofree char *whole = extra ? g_strdup_printf("%s:%s", creds->priority, extra) : g_strdup(creds->priority);
        result = gnutls_priority_set_direct(session, whole, NULL);
    } else if (extra) {
        result = gnutls_set_default_priority_append(session, extra, NULL, 0);
    } else {
        result = gnutls_set_default_priority(session);
    }
    return result >= 0 || error_set(err, "Unable to set TLS session priority %s: %s", name, gnutls_strerror(result));
}

/* A session that is thrown away shows whether the priority string is any good. */
static bool try_priority(const struct tls_creds *creds, struct error **err)
{
    gnutls_session_t session;
    int result = gnutls_init(&session, creds->server ? GNUTLS_SERVER : GNUTLS_CLIENT);

    if (result < 0)
        return error_set(err, "Cannot allocate a TLS session: %s", gnutls_strerror(result));
    bool ok = tls_gnutls_set_priority(creds, session, err);
    gnutls_deinit(session);
    return ok;
}

struct tls_creds *tls_gnutls_creds_new(const struct tls_creds_options *options, struct error **err)
{
    struct tls_creds *creds = g_new0(struct tls_creds, 1);
    bool ok = false;

    assert(options->kind != TLS_CREDS_X509 || options->ca.data);
    creds->kind = options->kind;
    creds->server = options->server;
    creds->verify_peer = options->verify_peer;
    creds->priority = g_strdup(options->priority);
    switch (creds->kind) {
    case TLS_CREDS_ANON:
        ok = make_anon(creds, options, err);
        break;
    case TLS_CREDS_PSK:
        ok = make_psk(creds, options, err);
        break;
    case TLS_CREDS_X509:
        ok = (!options->sanity_check || tls_gnutls_certificates_check(options, err)) && make_x509(creds, options, err);
        break;
    }
    if (ok && try_priority(creds, err))
        return creds;
    tls_gnutls_creds_free(creds);
    return NULL;
}

void tls_gnutls_creds_free(struct tls_creds *creds)
{
    if (!creds)
        return;
    if (creds->kind == TLS_CREDS_X509 && creds->u.x509)
        gnutls_certificate_free_credentials(creds->u.x509);
    else if (creds->kind == TLS_CREDS_PSK && creds->server && creds->u.psk_server)
        gnutls_psk_free_server_credentials(creds->u.psk_server);
    else if (creds->kind == TLS_CREDS_PSK && !creds->server && creds->u.psk_client)
        gnutls_psk_free_client_credentials(creds->u.psk_client);
    else if (creds->kind == TLS_CREDS_ANON && creds->server && creds->u.anon_server)
        gnutls_anon_free_server_credentials(creds->u.anon_server);
    else if (creds->kind == TLS_CREDS_ANON && !creds->server && creds->u.anon_client)
        gnutls_anon_free_client_credentials(creds->u.anon_client);
    if (creds->dh_params)
        gnutls_dh_params_deinit(creds->dh_params);
    g_free(creds->priority);
    g_free(creds);
}
