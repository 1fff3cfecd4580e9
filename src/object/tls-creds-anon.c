/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tls-creds-anon: encryption without knowing who is at the other end. */
#include "base/error.h"
#include "object/tls-creds-internal.h"

static bool CO_FN anon_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct tls_creds_object *state = object_state(object);
    const struct tls_creds_anon_properties *wish = &options->u.tls_creds_anon;
    struct tls_creds_options make = {0};

    tls_creds_object_init(state, TLS_CREDS_ANON, wish->dir, wish->priority);
    state->verify_peer = wish->has_verify_peer ? wish->verify_peer : true;
    state->endpoint = wish->has_endpoint ? wish->endpoint : Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT;
    bool loads = state->dir && state->endpoint == Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    bool ok = (!loads || co_tls_creds_load(state, "dh-params.pem", false, &make.dh_params, err)) &&
              co_tls_creds_make(state, &make, err);
    tls_file_clear(&make.dh_params);
    if (!ok)
        tls_creds_object_clear(state);
    return ok;
}

static const struct object_property properties[] = {
    TLS_CREDS_COMMON_PROPERTIES,
    TLS_CREDS_LOADED_PROPERTY,
    {.name = NULL},
};

const struct object_class tls_creds_anon_class = {
    .type = OBJECT_TYPE_TLS_CREDS_ANON,
    .state_size = sizeof(struct tls_creds_object),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = anon_co_create,
    .co_destroy = tls_creds_object_co_destroy,
};
