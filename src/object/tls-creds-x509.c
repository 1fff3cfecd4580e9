/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tls-creds-x509: certificates. A server must have its own; a client may. */
#include "base/error.h"
#include "object/secret.h"
#include "object/tls-creds-internal.h"

static bool CO_FN co_load_files(const struct tls_creds_object *state, struct tls_creds_options *make,
                                struct error **err)
{
    bool is_server = state->endpoint == Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    const char *certificate = is_server ? "server-cert.pem" : "client-cert.pem";
    const char *key = is_server ? "server-key.pem" : "client-key.pem";

    return co_tls_creds_load(state, "ca-cert.pem", true, &make->ca, err) &&
           co_tls_creds_load(state, certificate, is_server, &make->certificate, err) &&
           co_tls_creds_load(state, key, is_server, &make->key, err) &&
           co_tls_creds_load(state, "ca-crl.pem", false, &make->crl, err) &&
           (!is_server || co_tls_creds_load(state, "dh-params.pem", false, &make->dh_params, err));
}

static bool CO_FN co_make(struct object *object, struct tls_creds_options *make, struct error **err)
{
    struct tls_creds_object *state = object_state(object);
    uint8_t *password;
    size_t password_size;

    if (!state->passwordid)
        return co_tls_creds_make(state, make, err);
    if (!secret_get(object_get_registry(object), state->passwordid, &password, &password_size, err))
        return false;
    make->password = (const char *)password;
    bool ok = co_tls_creds_make(state, make, err);
    secret_free(password, password_size);
    return ok;
}

static bool CO_FN x509_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct tls_creds_object *state = object_state(object);
    const struct tls_creds_x509_properties *wish = &options->u.tls_creds_x509;
    struct tls_creds_options make = {0};

    tls_creds_object_init(state, TLS_CREDS_X509, wish->dir, wish->priority);
    state->verify_peer = wish->has_verify_peer ? wish->verify_peer : true;
    state->endpoint = wish->has_endpoint ? wish->endpoint : Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT;
    state->sanity_check = wish->has_sanity_check ? wish->sanity_check : true;
    state->passwordid = g_strdup(wish->passwordid);
    make.sanity_check = state->sanity_check;
    bool ok = state->dir || error_set(err, "Missing 'dir' property value");
    ok = ok && co_load_files(state, &make, err) && co_make(object, &make, err);
    tls_file_clear(&make.ca);
    tls_file_clear(&make.certificate);
    tls_file_clear(&make.key);
    tls_file_clear(&make.crl);
    tls_file_clear(&make.dh_params);
    if (!ok)
        tls_creds_object_clear(state);
    return ok;
}

static const struct object_property properties[] = {
    TLS_CREDS_COMMON_PROPERTIES,
    TLS_CREDS_LOADED_PROPERTY,
    TLS_CREDS_PROPERTY(TLS_CREDS_PROPERTY_SANITY_CHECK, "sanity-check", "bool",
                       "whether certificates are examined at once"),
    TLS_CREDS_PROPERTY(TLS_CREDS_PROPERTY_PASSWORDID, "passwordid", "string", "secret that decrypts the key's file"),
    {.name = NULL},
};

const struct object_class tls_creds_x509_class = {
    .type = OBJECT_TYPE_TLS_CREDS_X509,
    .state_size = sizeof(struct tls_creds_object),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = x509_co_create,
    .co_destroy = tls_creds_object_co_destroy,
};
