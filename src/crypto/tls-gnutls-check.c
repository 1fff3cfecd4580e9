/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sanity check of certificates: mistakes show when the credentials are made, not at the first connection. A
 * restriction (key usage, purpose) that its certificate does not mark as critical is advice, and refuses nothing.
 */
#include <glib.h>
#include <gnutls/x509.h>
#include <string.h>

#include "base/error.h"
#include "crypto/tls-gnutls.h"

/* The certificates of a file. */
struct chain {
    gnutls_x509_crt_t *items; /* of GnuTLS's allocation */
    unsigned count;
};

static void chain_clear(struct chain *chain)
{
    for (unsigned i = 0; i < chain->count; i++)
        gnutls_x509_crt_deinit(chain->items[i]);
    gnutls_free(chain->items);
    *chain = (struct chain){0};
}

static int chain_load(struct chain *chain, const struct tls_file *file)
{
    gnutls_datum_t data = {.data = (unsigned char *)file->data, .size = (unsigned)file->size};

    return gnutls_x509_crt_list_import2(&chain->items, &chain->count, &data, GNUTLS_X509_FMT_PEM, 0);
}

/* What a certificate is there for, and how messages call it. */
struct purpose {
    const char *name;
    bool is_ca;
    bool is_server;
};

static bool check_times(gnutls_x509_crt_t certificate, const char *path, const struct purpose *purpose, int64_t now_s,
                        struct error **err)
{
    if (gnutls_x509_crt_get_expiration_time(certificate) < now_s)
        return error_set(err, "The %s certificate %s has expired", purpose->name, path);
    if (gnutls_x509_crt_get_activation_time(certificate) > now_s)
        return error_set(err, "The %s certificate %s is not yet active", purpose->name, path);
    return true;
}

static bool check_basic_constraints(gnutls_x509_crt_t certificate, const char *path, const struct purpose *purpose,
                                    struct error **err)
{
    int status = gnutls_x509_crt_get_basic_constraints(certificate, NULL, NULL, NULL);

    if (status > 0 && !purpose->is_ca)
        return error_set(err, "The certificate %s basic constraints show a CA, but we need one for a %s", path,
                         purpose->name);
    if (status == 0 && purpose->is_ca)
        return error_set(err, "The certificate %s basic constraints do not show a CA", path);
    if (status == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
        return !purpose->is_ca || error_set(err, "The certificate %s is missing basic constraints for a CA", path);
    return status >= 0 ||
           error_set(err, "Unable to query certificate %s basic constraints: %s", path, gnutls_strerror(status));
}

static bool check_key_usage(gnutls_x509_crt_t certificate, const char *path, const struct purpose *purpose,
                            struct error **err)
{
    unsigned usage = 0;
    unsigned critical = 0;
    int result = gnutls_x509_crt_get_key_usage(certificate, &usage, &critical);

    if (result == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
        return true;
    if (result < 0)
        return error_set(err, "Unable to query certificate %s key usage: %s", path, gnutls_strerror(result));
    unsigned needed = purpose->is_ca ? GNUTLS_KEY_KEY_CERT_SIGN : GNUTLS_KEY_DIGITAL_SIGNATURE;
    return (usage & needed) || !critical ||
           error_set(err, "Certificate %s usage does not permit %s", path,
                     purpose->is_ca ? "certificate signing" : "digital signature");
}

/* The object identifier of purpose number `index` of the certificate, owned; NULL: no more, or with *ret_result < 0. */
static char *purpose_oid(gnutls_x509_crt_t certificate, unsigned index, unsigned *ret_critical, int *ret_result)
{
    size_t size = 0;
    int result = gnutls_x509_crt_get_key_purpose_oid(certificate, index, NULL, &size, NULL);

    *ret_result = result == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE ? 0 : result;
    if (result != GNUTLS_E_SHORT_MEMORY_BUFFER)
        return NULL;
    g_autofree char *oid = g_malloc0(size + 1);
    *ret_result = gnutls_x509_crt_get_key_purpose_oid(certificate, index, oid, &size, ret_critical);
    return *ret_result < 0 ? NULL : g_steal_pointer(&oid);
}

static bool check_key_purpose(gnutls_x509_crt_t certificate, const char *path, const struct purpose *purpose,
                              struct error **err)
{
    const char *needed = purpose->is_server ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT;
    bool any_critical = false;
    bool found = false;

    for (unsigned index = 0;; index++) {
        unsigned critical = 0;
        int result;
        g_autofree char *oid = purpose_oid(certificate, index, &critical, &result);

        if (result < 0)
            return error_set(err, "Unable to query certificate %s key purpose: %s", path, gnutls_strerror(result));
        if (!oid) {
            found = found || index == 0; /* without any, all are allowed */
            break;
        }
        any_critical = any_critical || critical;
        found = found || !strcmp(oid, needed) || !strcmp(oid, GNUTLS_KP_ANY);
    }
    return found || !any_critical ||
           error_set(err, "Certificate %s purpose does not allow use with a TLS %s", path, purpose->name);
}

static bool check_certificate(gnutls_x509_crt_t certificate, const char *path, const struct purpose *purpose,
                              int64_t now_s, struct error **err)
{
    return check_times(certificate, path, purpose, now_s, err) &&
           check_basic_constraints(certificate, path, purpose, err) &&
           check_key_usage(certificate, path, purpose, err) &&
           (purpose->is_ca || check_key_purpose(certificate, path, purpose, err));
}

const char *tls_gnutls_status_text(unsigned status)
{
    static const struct {
        unsigned bit;
        const char *text;
    } table[] = {
        {GNUTLS_CERT_REVOKED, "The certificate has been revoked"},
        {GNUTLS_CERT_SIGNER_NOT_FOUND, "The certificate hasn't got a known issuer"},
        {GNUTLS_CERT_SIGNER_NOT_CA, "The certificate's issuer is not a CA"},
        {GNUTLS_CERT_INSECURE_ALGORITHM, "The certificate uses an insecure algorithm"},
        {GNUTLS_CERT_EXPIRED, "The certificate has expired"},
        {GNUTLS_CERT_NOT_ACTIVATED, "The certificate is not yet active"},
        {GNUTLS_CERT_SIGNATURE_FAILURE, "The certificate's signature is wrong"},
        {GNUTLS_CERT_UNEXPECTED_OWNER, "The certificate is made for somebody else"},
        {GNUTLS_CERT_PURPOSE_MISMATCH, "The certificate is made for another purpose"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        if (status & table[i].bit)
            return table[i].text;
    }
    return "The certificate is not trusted";
}

static bool check_signature(const struct chain *own, const struct chain *authorities,
                            const struct tls_creds_options *options, struct error **err)
{
    unsigned status = 0;
    int result = gnutls_x509_crt_list_verify(own->items, (int)own->count, authorities->items, (int)authorities->count,
                                             NULL, 0, 0, &status);

    if (result < 0)
        return error_set(err, "Unable to verify %s against %s: %s", options->certificate.path, options->ca.path,
                         gnutls_strerror(result));
    return !status || error_set(err, "Our own certificate %s failed validation against %s: %s",
                                options->certificate.path, options->ca.path, tls_gnutls_status_text(status));
}

static bool check_chains(const struct chain *own, const struct chain *authorities,
                         const struct tls_creds_options *options, struct error **err)
{
    const struct purpose ca = {.name = "CA", .is_ca = true};
    const struct purpose leaf = {.name = options->server ? "server" : "client", .is_server = options->server};

    if (own->count && !check_certificate(own->items[0], options->certificate.path, &leaf, options->now_s, err))
        return false;
    for (unsigned i = 0; i < authorities->count; i++) {
        if (!check_certificate(authorities->items[i], options->ca.path, &ca, options->now_s, err))
            return false;
    }
    return !own->count || check_signature(own, authorities, options, err);
}

bool tls_gnutls_certificates_check(const struct tls_creds_options *options, struct error **err)
{
    struct chain own = {0};
    struct chain authorities = {0};
    bool ok = false;
    int result = options->certificate.data ? chain_load(&own, &options->certificate) : 0;

    if (result < 0)
        error_set(err, "Unable to import %s certificate %s: %s", options->server ? "server" : "client",
                  options->certificate.path, gnutls_strerror(result));
    else if ((result = chain_load(&authorities, &options->ca)) < 0)
        error_set(err, "Unable to import CA certificate list %s: %s", options->ca.path, gnutls_strerror(result));
    else
        ok = check_chains(&own, &authorities, options, err);
    chain_clear(&own);
    chain_clear(&authorities);
    return ok;
}
