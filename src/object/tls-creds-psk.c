/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tls-creds-psk: both sides share a key, which stands in DIR/keys.psk. */
#include "base/error.h"
#include "crypto/psk-file.h"
#include "crypto/secure-memory.h"
#include "object/tls-creds-internal.h"

#define USERNAME_DEFAULT "qemu"

static bool CO_FN co_make_client(struct tls_creds_object *state, struct tls_creds_options *make,
                                 const struct tls_file *keys, struct error **err)
{
    const char *username = state->username ? state->username : USERNAME_DEFAULT;
    char *key = psk_file_find(keys->data, keys->size, username);

    if (!key)
        return error_set(err, "Username %s not found in PSK file %s", username, keys->path);
    make->username = username;
    make->psk_hex = key;
    bool ok = co_tls_creds_make(state, make, err);
    secure_memory_wipe(key, strlen(key));
    g_free(key);
    return ok;
}

static bool CO_FN co_make(struct tls_creds_object *state, struct error **err)
{
    struct tls_creds_options make = {0};
    struct tls_file keys;
    bool ok;

    if (!state->dir)
        return error_set(err, "Missing 'dir' property value");
    if (state->endpoint == Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER && state->username)
        return error_set(err, "username should not be set when endpoint=server");
    if (!co_tls_creds_load(state, "keys.psk", true, &keys, err))
        return false;
    if (state->endpoint == Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER)
        ok = co_tls_creds_load(state, "dh-params.pem", false, &make.dh_params, err) &&
             co_tls_creds_make(state, &make, err);
    else
        ok = co_make_client(state, &make, &keys, err);
    tls_file_clear(&make.dh_params);
    tls_file_clear(&keys);
    return ok;
}

static bool CO_FN psk_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct tls_creds_object *state = object_state(object);
    const struct tls_creds_psk_properties *wish = &options->u.tls_creds_psk;

    tls_creds_object_init(state, TLS_CREDS_PSK, wish->dir, wish->priority);
    state->verify_peer = wish->has_verify_peer ? wish->verify_peer : true;
    state->endpoint = wish->has_endpoint ? wish->endpoint : Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT;
    state->username = g_strdup(wish->username);
    bool ok = co_make(state, err);
    if (!ok)
        tls_creds_object_clear(state);
    return ok;
}

static const struct object_property properties[] = {
    TLS_CREDS_COMMON_PROPERTIES,
    TLS_CREDS_LOADED_PROPERTY,
    TLS_CREDS_PROPERTY(TLS_CREDS_PROPERTY_USERNAME, "username", "string", "whose key a client uses"),
    {.name = NULL},
};

const struct object_class tls_creds_psk_class = {
    .type = OBJECT_TYPE_TLS_CREDS_PSK,
    .state_size = sizeof(struct tls_creds_object),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = psk_co_create,
    .co_destroy = tls_creds_object_co_destroy,
};
