/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the three kinds of TLS credentials have in common: their files, their properties, and the sessions.
 *
 * A session holds the object of its credentials, so deleting that object only takes its name away.
 */
#include "object/tls-creds.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "crypto/psk-file.h"
#include "crypto/secure-memory.h"
#include "crypto/tls-stream.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/stream.h"
#include "object/authz-internal.h"
#include "object/tls-creds-internal.h"
#include "schema/json.h"

static bool is_tls_creds(const struct object *object)
{
    const struct object_class *class = object_get_class(object);

    return class == &tls_creds_anon_class || class == &tls_creds_psk_class || class == &tls_creds_x509_class;
}

struct object *tls_creds_hold(struct object_registry *registry, const char *id,
                              enum q_crypto_tls_creds_endpoint endpoint, struct error **err)
{
    struct object *object = object_find(registry, id);

    if (!object) {
        error_set(err, "No TLS credentials with id '%s'", id);
        return NULL;
    }
    if (!is_tls_creds(object)) {
        error_set(err, "Object with id '%s' is not TLS credentials", id);
        return NULL;
    }
    const struct tls_creds_object *state = object_state(object);
    if (state->endpoint != endpoint) {
        error_set(err, "Expected TLS credentials for a %s endpoint", q_crypto_tls_creds_endpoint_name(endpoint));
        error_hint(err, "'%s' was made with endpoint=%s.", id, q_crypto_tls_creds_endpoint_name(state->endpoint));
        return NULL;
    }
    return object_hold(object);
}

/* --- files --- */

void tls_file_clear(struct tls_file *file)
{
    if (file->data)
        secure_memory_wipe(file->data, file->size);
    g_free(file->data);
    g_free(file->path);
    *file = (struct tls_file){0};
}

bool co_tls_creds_load(const struct tls_creds_object *state, const char *name, bool required, struct tls_file *ret,
                       struct error **err)
{
    g_autofree char *path = g_build_filename(state->dir, name, NULL);
    AUTO(error) failure = NULL;

    *ret = (struct tls_file){0};
    if (co_file_load(path, TLS_FILE_BYTES_MAX, &ret->data, &ret->size, &failure)) {
        ret->path = TAKE(path);
        return true;
    }
    int reason = error_get_errno(failure);
    if (reason == ENOENT && !required) {
        ret->path = TAKE(path);
        return true;
    }
    if (reason)
        return error_set_errno(err, reason, "Unable to access credentials %s", path);
    return error_set(err, "Unable to access credentials %s: %s", path, error_message(failure));
}

/* --- making and destroying --- */

void tls_creds_object_init(struct tls_creds_object *state, enum tls_creds_kind kind, const char *dir,
                           const char *priority)
{
    state->kind = kind;
    state->dir = g_strdup(dir);
    state->priority = g_strdup(priority);
}

void tls_creds_object_clear(struct tls_creds_object *state)
{
    if (state->creds)
        state->engine->creds_free(state->creds);
    g_free(state->dir);
    g_free(state->priority);
    g_free(state->username);
    g_free(state->passwordid);
    *state = (struct tls_creds_object){0};
}

void tls_creds_object_co_destroy(struct object *object)
{
    tls_creds_object_clear(object_state(object));
}

/* Loading the library and reading keys takes milliseconds, which the loop does not have. */
struct making {
    struct tls_creds_object *state;
    const struct tls_creds_options *options;
    struct error *error;
};

static int make_in_worker(void *opaque)
{
    struct making *making = opaque;
    struct tls_creds_object *state = making->state;

    state->engine = tls_engine_get(&making->error);
    if (state->engine)
        state->creds = state->engine->creds_new(making->options, &making->error);
    return 0;
}

bool co_tls_creds_make(struct tls_creds_object *state, struct tls_creds_options *options, struct error **err)
{
    struct making making = {.state = state, .options = options};

    assert(!state->creds);
    options->kind = state->kind;
    options->server = state->endpoint == Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    options->verify_peer = state->verify_peer;
    options->priority = state->priority;
    options->now_s = loop_wall_time_us() / 1000000;
    (void)co_worker_run(make_in_worker, &making);
    return state->creds || error_move(err, making.error);
}

struct json *tls_creds_property_get(struct object *object, const struct object_property *property)
{
    const struct tls_creds_object *state = object_state(object);

    switch ((enum tls_creds_property)property->index) {
    case TLS_CREDS_PROPERTY_LOADED:
        return json_bool(true);
    case TLS_CREDS_PROPERTY_VERIFY_PEER:
        return json_bool(state->verify_peer);
    case TLS_CREDS_PROPERTY_DIR:
        return json_string(state->dir ? state->dir : "");
    case TLS_CREDS_PROPERTY_ENDPOINT:
        return json_string(q_crypto_tls_creds_endpoint_name(state->endpoint));
    case TLS_CREDS_PROPERTY_PRIORITY:
        return json_string(state->priority ? state->priority : "");
    case TLS_CREDS_PROPERTY_USERNAME:
        return json_string(state->username ? state->username : "");
    case TLS_CREDS_PROPERTY_SANITY_CHECK:
        return json_bool(state->sanity_check);
    case TLS_CREDS_PROPERTY_PASSWORDID:
        return json_string(state->passwordid ? state->passwordid : "");
    }
    return NULL;
}

/* --- sessions --- */

/* What a handshake needs to know. */
struct meeting {
    struct object_registry *registry;
    const char *kind;     /* of credentials, for messages */
    const char *authz_id; /* NULL: everybody */
    struct tls_file keys; /* PSK servers */
};

static char *find_psk(void *opaque, const char *username)
{
    struct meeting *meeting = opaque;

    return meeting->keys.data ? psk_file_find(meeting->keys.data, meeting->keys.size, username) : NULL;
}

/*
 * A peer without a proven name (anonymous credentials, verify-peer off) cannot be authorized. The reference lets it in
 * unasked, which nobody can want who has named an authorization object.
 */
static bool CO_FN co_admit(void *opaque, const char *identity, struct error **err)
{
    struct meeting *meeting = opaque;

    if (!meeting->authz_id)
        return true;
    if (!identity)
        return error_set(err, "The TLS peer has no identity to be authorized by '%s'", meeting->authz_id);
    bool allowed = false;
    return co_authz_ask(meeting->registry, meeting->authz_id, identity, &allowed, err) &&
           (allowed ||
            error_set(err, "TLS %s authz check for %s is denied by '%s'", meeting->kind, identity, meeting->authz_id));
}

static void release_creds(void *opaque)
{
    object_release(opaque);
}

struct stream *co_tls_stream_new(struct stream *lower, struct object *creds, const char *host_name,
                                 const char *authz_id, struct error **err)
{
    const struct tls_creds_object *state = object_state(creds);
    struct meeting meeting = {.registry = object_get_registry(creds),
                              .authz_id = authz_id,
                              .kind = state->kind == TLS_CREDS_PSK ? "PSK" : "x509"};
    bool is_server = state->endpoint == Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER;

    assert(is_tls_creds(creds));
    /* The file is read each time, so users come and go without a restart. */
    if (is_server && state->kind == TLS_CREDS_PSK && !co_tls_creds_load(state, "keys.psk", true, &meeting.keys, err)) {
        stream_free(lower);
        return NULL;
    }
    struct tls_stream_options options = {
        .engine = state->engine,
        .creds = state->creds,
        .host_name = host_name,
        .find_psk = find_psk,
        .co_admit = co_admit,
        .opaque = &meeting,
        .done = release_creds,
        .done_opaque = object_hold(creds),
    };
    struct stream *stream = co_tls_stream_open(lower, &options, err);
    tls_file_clear(&meeting.keys);
    return stream;
}
