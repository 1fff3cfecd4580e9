/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tls-cipher-suites: a priority string by itself. Virtual machines hand it to their firmware; here it can be made and
 * looked at, as in the reference, and is checked as that of credentials is.
 */
#include "base/error.h"
#include "object/tls-creds-internal.h"

static bool CO_FN suites_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct tls_creds_object *state = object_state(object);
    const struct tls_creds_properties *wish = &options->u.tls_cipher_suites;
    struct tls_creds_options make = {0};

    if (!wish->priority)
        return error_set(err, "'priority' property is not set");
    tls_creds_object_init(state, TLS_CREDS_ANON, wish->dir, wish->priority);
    state->verify_peer = wish->has_verify_peer ? wish->verify_peer : true;
    state->endpoint = wish->has_endpoint ? wish->endpoint : Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT;
    bool ok = co_tls_creds_make(state, &make, err);
    if (!ok)
        tls_creds_object_clear(state);
    return ok;
}

static const struct object_property properties[] = {
    TLS_CREDS_COMMON_PROPERTIES,
    {.name = NULL},
};

const struct object_class tls_cipher_suites_class = {
    .type = OBJECT_TYPE_TLS_CIPHER_SUITES,
    .state_size = sizeof(struct tls_creds_object),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = suites_co_create,
    .co_destroy = tls_creds_object_co_destroy,
};
