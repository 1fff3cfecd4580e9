/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The TLS engine over GnuTLS: its sessions. */
#include "crypto/tls-gnutls.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <string.h>

#include "base/error.h"

enum { DECOY_KEY_BYTES = 32 };

struct tls_session {
    gnutls_session_t session;
    struct tls_creds *creds;
    struct tls_session_options options; /* host_name is our copy */
    char *host_name;
    char *user; /* PSK servers: whom the client says it is */
    bool is_unknown_user;
};

static ssize_t pull(gnutls_transport_ptr_t opaque, void *to, size_t size)
{
    struct tls_session *tls = opaque;
    ssize_t got = tls->options.pull(tls->options.opaque, to, size);

    if (got >= 0)
        return got;
    gnutls_transport_set_errno(tls->session, (int)-got);
    return -1;
}

static ssize_t push(gnutls_transport_ptr_t opaque, const void *from, size_t size)
{
    struct tls_session *tls = opaque;

    tls->options.push(tls->options.opaque, from, size);
    return (ssize_t)size;
}

/* A client whose name is unknown gets a key that nobody has, so it cannot find out which names exist. */
int tls_gnutls_find_psk(gnutls_session_t session, const char *username, gnutls_datum_t *ret_key)
{
    struct tls_session *tls = gnutls_session_get_ptr(session);
    char *hex = tls->options.find_psk ? tls->options.find_psk(tls->options.opaque, username) : NULL;

    g_free(tls->user);
    tls->user = g_strdup(username);
    tls->is_unknown_user = !hex;
    if (!hex) {
        ret_key->data = gnutls_malloc(DECOY_KEY_BYTES);
        ret_key->size = DECOY_KEY_BYTES;
        return ret_key->data ? gnutls_rnd(GNUTLS_RND_KEY, ret_key->data, DECOY_KEY_BYTES) : -1;
    }
    gnutls_datum_t text = {.data = (unsigned char *)hex, .size = (unsigned)strlen(hex)};
    int result = gnutls_hex_decode2(&text, ret_key);
    gnutls_memset(hex, 0, text.size);
    g_free(hex);
    return result < 0 ? -1 : 0;
}

static int set_credentials(struct tls_session *tls)
{
    struct tls_creds *creds = tls->creds;

    switch (creds->kind) {
    case TLS_CREDS_ANON:
        return gnutls_credentials_set(tls->session, GNUTLS_CRD_ANON,
                                      creds->server ? (void *)creds->u.anon_server : (void *)creds->u.anon_client);
    case TLS_CREDS_PSK:
        return gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK,
                                      creds->server ? (void *)creds->u.psk_server : (void *)creds->u.psk_client);
    default:
        assert(creds->kind == TLS_CREDS_X509);
        if (creds->server && creds->verify_peer)
            gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUEST);
        return gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, creds->u.x509);
    }
}

static void session_free(struct tls_session *tls)
{
    if (!tls)
        return;
    if (tls->session)
        gnutls_deinit(tls->session);
    g_free(tls->host_name);
    g_free(tls->user);
    g_free(tls);
}

/* Names go to the server, which may have several certificates; addresses are not allowed there. */
static void announce_host_name(struct tls_session *tls)
{
    if (!tls->creds->server && tls->host_name && !g_hostname_is_ip_address(tls->host_name))
        (void)gnutls_server_name_set(tls->session, GNUTLS_NAME_DNS, tls->host_name, strlen(tls->host_name));
}

static struct tls_session *session_new(struct tls_creds *creds, const struct tls_session_options *options,
                                       struct error **err)
{
    struct tls_session *tls = g_new0(struct tls_session, 1);
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;

    tls->creds = creds;
    tls->options = *options;
    tls->host_name = g_strdup(options->host_name);
    tls->options.host_name = tls->host_name;
    int result = gnutls_init(&tls->session, flags | (creds->server ? GNUTLS_SERVER : GNUTLS_CLIENT));
    if (result < 0) {
        tls->session = NULL;
        error_set(err, "Cannot allocate a TLS session: %s", gnutls_strerror(result));
    } else if (tls_gnutls_set_priority(creds, tls->session, err)) {
        result = set_credentials(tls);
        if (result >= 0) {
            gnutls_session_set_ptr(tls->session, tls);
            gnutls_transport_set_ptr(tls->session, tls);
            gnutls_transport_set_pull_function(tls->session, pull);
            gnutls_transport_set_push_function(tls->session, push);
            announce_host_name(tls);
            return tls;
        }
        error_set(err, "Cannot set session credentials: %s", gnutls_strerror(result));
    }
    session_free(tls);
    return NULL;
}

static int handshake_failed(struct tls_session *tls, int result, struct error **err)
{
    if (tls->user && tls->is_unknown_user)
        error_set(err, "TLS handshake failed: username '%s' is not in the PSK file", tls->user);
    else if (tls->user)
        error_set(err, "TLS handshake failed: the key of username '%s' is another: %s", tls->user,
                  gnutls_strerror(result));
    else if (result == GNUTLS_E_FATAL_ALERT_RECEIVED)
        error_set(err, "TLS handshake failed: %s (%s)", gnutls_strerror(result),
                  gnutls_alert_get_name(gnutls_alert_get(tls->session)));
    else
        error_set(err, "TLS handshake failed: %s", gnutls_strerror(result));
    if (result != GNUTLS_E_FATAL_ALERT_RECEIVED)
        (void)gnutls_alert_send_appropriate(tls->session, result);
    return -EPROTO;
}

static int session_handshake(struct tls_session *tls, struct error **err)
{
    for (;;) {
        int result = gnutls_handshake(tls->session);

        if (result == GNUTLS_E_SUCCESS)
            return 0;
        if (result == GNUTLS_E_AGAIN)
            return -EAGAIN;
        if (result < 0 && gnutls_error_is_fatal(result))
            return handshake_failed(tls, result, err);
    }
}

/* The name of the peer's certificate, in the order in which it stands there (as the reference has it); NULL and the
 * error. */
static char *peer_name(gnutls_x509_crt_t certificate, struct error **err)
{
    gnutls_datum_t name = {0};
    int result = gnutls_x509_crt_get_dn2(certificate, &name);

    if (result < 0) {
        error_set(err, "Cannot get the peer's distinguished name: %s", gnutls_strerror(result));
        return NULL;
    }
    char *copy = strlen((char *)name.data) == name.size ? g_strdup((char *)name.data) : NULL;
    gnutls_free(name.data);
    if (!copy)
        error_set(err, "The peer's distinguished name has a NUL in it");
    return copy;
}

/* Whether the certificate that the peer sent is for the host that a client wanted. */
static bool check_host(struct tls_session *tls, gnutls_x509_crt_t certificate, struct error **err)
{
    if (tls->creds->server)
        return true;
    if (!tls->host_name)
        return error_set(err, "No hostname for certificate validation");
    return gnutls_x509_crt_check_hostname(certificate, tls->host_name) ||
           error_set(err, "Certificate does not match the hostname %s", tls->host_name);
}

static bool verify_certificate(struct tls_session *tls, char **ret_identity, struct error **err)
{
    unsigned status = 0;
    unsigned count = 0;
    int result = gnutls_certificate_verify_peers2(tls->session, &status);

    if (result < 0)
        return error_set(err, "Verify failed: %s", gnutls_strerror(result));
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(tls->session, &count);
    if (!chain || !count || gnutls_certificate_type_get(tls->session) != GNUTLS_CRT_X509)
        return error_set(err, "Verify failed: the peer has sent no X.509 certificate");
    gnutls_x509_crt_t certificate;
    result = gnutls_x509_crt_init(&certificate);
    if (result < 0)
        return error_set(err, "Verify failed: %s", gnutls_strerror(result));
    result = gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER);
    g_autofree char *name = NULL;
    bool ok = result >= 0 || error_set(err, "Verify failed: %s", gnutls_strerror(result));
    ok = ok && (name = peer_name(certificate, err));
    if (ok && status)
        ok = error_set(err, "%s: '%s'", tls_gnutls_status_text(status), name);
    ok = ok && check_host(tls, certificate, err);
    gnutls_x509_crt_deinit(certificate);
    if (ok)
        *ret_identity = TAKE(name);
    return ok;
}

static void session_deny(struct tls_session *tls)
{
    (void)gnutls_alert_send(tls->session, GNUTLS_AL_FATAL, GNUTLS_A_ACCESS_DENIED);
}

static bool session_verify(struct tls_session *tls, char **ret_identity, struct error **err)
{
    *ret_identity = NULL;
    if (tls->creds->kind == TLS_CREDS_PSK && tls->creds->server) {
        const char *name = gnutls_psk_server_get_username(tls->session);

        /* One with a NUL in it is none that could be compared with others. */
        if (!name || !tls->user || strcmp(name, tls->user)) {
            session_deny(tls);
            return error_set(err, "The username of the TLS peer is not valid");
        }
        *ret_identity = g_strdup(name);
        return true;
    }
    if (tls->creds->kind != TLS_CREDS_X509 || !tls->creds->verify_peer)
        return true;
    if (verify_certificate(tls, ret_identity, err))
        return true;
    (void)gnutls_alert_send(tls->session, GNUTLS_AL_FATAL, GNUTLS_A_BAD_CERTIFICATE);
    return false;
}

/* An end of data, or of the session, as -errno. A peer that wants new terms in mid-session has broken ours. */
static ssize_t broken(int result)
{
    switch (result) {
    case GNUTLS_E_AGAIN:
        return -EAGAIN;
    case GNUTLS_E_PREMATURE_TERMINATION:
        return -ECONNABORTED;
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PULL_ERROR:
        return -EIO;
    default:
        return -EPROTO;
    }
}

static ssize_t session_read(struct tls_session *tls, void *to, size_t size)
{
    for (;;) {
        ssize_t got = gnutls_record_recv(tls->session, to, size);

        if (got >= 0)
            return got;
        if (got == GNUTLS_E_REHANDSHAKE || gnutls_error_is_fatal((int)got) || got == GNUTLS_E_AGAIN)
            return broken((int)got);
    }
}

static ssize_t session_write(struct tls_session *tls, const void *from, size_t size)
{
    assert(size > 0);
    ssize_t put = gnutls_record_send(tls->session, from, MIN(size, TLS_RECORD_BYTES));
    return put > 0 ? put : broken((int)put);
}

static void session_bye(struct tls_session *tls)
{
    (void)gnutls_bye(tls->session, GNUTLS_SHUT_WR);
}

extern const struct tls_engine ashlar_tls_gnutls;
const struct tls_engine ashlar_tls_gnutls = {
    .head = {.version = ASHLAR_VERSION},
    .creds_new = tls_gnutls_creds_new,
    .creds_free = tls_gnutls_creds_free,
    .session_new = session_new,
    .session_free = session_free,
    .handshake = session_handshake,
    .verify = session_verify,
    .deny = session_deny,
    .read = session_read,
    .write = session_write,
    .bye = session_bye,
};
