/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the authz-* objects share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "gen/types.h"
#include "object/object.h"

extern const struct object_class authz_simple_class;
extern const struct object_class authz_list_class;
extern const struct object_class authz_list_file_class;
extern const struct object_class authz_pam_class;

/* Whether the object, of its own class, lets `identity` in; false with the error where it cannot say. Main loop. */
bool CO_FN co_authz_simple_decide(struct object *object, const char *identity, bool *ret, struct error **err);
bool CO_FN co_authz_list_decide(struct object *object, const char *identity, bool *ret, struct error **err);
bool CO_FN co_authz_list_file_decide(struct object *object, const char *identity, bool *ret, struct error **err);
bool CO_FN co_authz_pam_decide(struct object *object, const char *identity, bool *ret, struct error **err);

/* Asks the authz-* object `authz_id`, of whatever kind; on any loop. False with the error where it cannot say. */
bool CO_FN co_authz_ask(struct object_registry *registry, const char *authz_id, const char *identity, bool *ret,
                        struct error **err) MUST_CHECK;

/* Whether a list lets `identity` in: the first rule that matches decides, or else the policy. Any thread. */
bool authz_list_allows(const struct auth_z_list_properties *list, const char *identity);

/* The list that a file of an authz-listfile object holds; NULL and the error. Any thread. */
struct auth_z_list_properties *authz_list_file_parse(const char *text, size_t size, struct error **err) MUST_CHECK;
