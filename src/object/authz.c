/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asking an authz-* object, whatever its kind. Who cannot be judged is refused. */
#include "base/error.h"
#include "loop/loop.h"
#include "object/authz-internal.h"
#include "object/tls-creds.h"

static const struct {
    const struct object_class *class;
    bool (*co_decide)(struct object *object, const char *identity, bool *ret, struct error **err);
} kinds[] = {
    {&authz_simple_class, co_authz_simple_decide},
    {&authz_list_class, co_authz_list_decide},
    {&authz_list_file_class, co_authz_list_file_decide},
    {&authz_pam_class, co_authz_pam_decide},
};

/* On the loop of the registry. */
static bool CO_FN co_ask_here(struct object_registry *registry, const char *authz_id, const char *identity, bool *ret,
                              struct error **err)
{
    struct object *object = object_find(registry, authz_id);

    if (!object)
        return error_set(err, "Cannot find QAuthZ object ID %s", authz_id);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (object_get_class(object) != kinds[i].class)
            continue;
        object_hold(object);
        bool known = kinds[i].co_decide(object, identity, ret, err);
        object_release(object);
        return known;
    }
    return error_set(err, "Object '%s' is not a QAuthZ subclass", authz_id);
}

bool co_authz_ask(struct object_registry *registry, const char *authz_id, const char *identity, bool *ret,
                  struct error **err)
{
    struct loop *here = loop_current();
    struct loop *there = object_registry_loop(registry);

    if (there && there != here)
        co_move_to(there);
    bool ok = co_ask_here(registry, authz_id, identity, ret, err);
    if (there && there != here)
        co_move_to(here);
    return ok;
}

bool co_authz_check(struct object_registry *registry, const char *authz_id, const char *identity, struct error **err)
{
    bool allowed = false;

    return co_authz_ask(registry, authz_id, identity, &allowed, err) &&
           (allowed || error_set(err, "authz check for %s is denied by '%s'", identity, authz_id));
}
