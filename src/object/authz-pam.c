/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* authz-pam: the account rules of the host decide. */
#include <string.h>

#include "base/error.h"
#include "crypto/pam.h"
#include "loop/loop.h"
#include "object/authz-internal.h"
#include "schema/json.h"

struct authz_pam {
    const struct pam_engine *engine;
    char *service;
};

static bool CO_FN pam_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct authz_pam *pam = object_state(object);
    const char *service = options->u.authz_pam.service;

    /* It names a file of the host's PAM configuration. */
    if (!*service || strchr(service, '/'))
        return error_set(err, "Parameter 'service' expects the name of a PAM service, not '%s'", service);
    pam->engine = pam_engine_get(err);
    if (!pam->engine)
        return false;
    pam->service = g_strdup(service);
    return true;
}

static void CO_FN pam_co_destroy(struct object *object)
{
    struct authz_pam *pam = object_state(object);

    g_free(pam->service);
}

struct question {
    const struct authz_pam *pam;
    const char *identity;
    bool known;
    bool allowed;
    struct error *error;
};

static int ask_in_worker(void *opaque)
{
    struct question *question = opaque;

    question->known =
        question->pam->engine->ask(question->pam->service, question->identity, &question->allowed, &question->error);
    return 0;
}

bool co_authz_pam_decide(struct object *object, const char *identity, bool *ret, struct error **err)
{
    struct question question = {.pam = object_state(object), .identity = identity};

    (void)co_worker_run(ask_in_worker, &question);
    *ret = question.allowed;
    return question.known || error_move(err, question.error);
}

static struct json *get_service(struct object *object, const struct object_property *property)
{
    const struct authz_pam *pam = object_state(object);

    return json_string(pam->service);
}

static const struct object_property properties[] = {
    {.name = "service", .type = "string", .description = "PAM service that is asked", .get = get_service},
    {.name = NULL},
};

const struct object_class authz_pam_class = {
    .type = OBJECT_TYPE_AUTHZ_PAM,
    .state_size = sizeof(struct authz_pam),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = pam_co_create,
    .co_destroy = pam_co_destroy,
};
