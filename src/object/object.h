/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * User-creatable objects (secret, iothread, tls-creds-*, authz-*, throttle-group, ...), one file a type. They live in a
 * registry under their id, have properties, and can be held by users; a held one cannot be deleted. All on the main
 * loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct json;
struct object;

/* One property, for qom-list, qom-get, qom-set and the help. */
struct object_property {
    const char *name;
    const char *type;        /* as QOM names it: "string", "bool", "int", "uint64", an enum's name, ... */
    const char *description; /* one line */
    struct json *(*get)(struct object *object);                                       /* owned; NULL: write-only */
    bool (*set)(struct object *object, const struct json *value, struct error **err); /* NULL: read-only */
};

struct object_class {
    enum object_type type; /* its value in the schema */
    size_t state_size;
    const struct object_property *properties; /* ends with a NULL name */
    /* State is zero-filled before. On failure destroy() is not called. */
    bool (*co_create)(struct object *object, const struct object_options *options, struct error **err);
    void (*co_destroy)(struct object *object); /* optional */
    /* Whether it may go now, apart from holders; optional. */
    bool (*can_delete)(struct object *object, struct error **err);
};

struct object_registry;
struct object_registry *object_registry_new(void);
void CO_FN co_object_registry_free(struct object_registry *registry); /* destroys all, newest first */

/* object-add and object-del, with the reference's texts. */
bool CO_FN co_object_add(struct object_registry *registry, const struct object_options *options,
                         struct error **err) MUST_CHECK;
bool CO_FN co_object_delete(struct object_registry *registry, const char *id, struct error **err) MUST_CHECK;

/* Borrowed; NULL where there is none. */
struct object *object_find(struct object_registry *registry, const char *id);

/* By id and type, held: until object_release() it cannot be deleted. */
struct object *object_hold_typed(struct object_registry *registry, const char *id, const struct object_class *class,
                                 struct error **err) MUST_CHECK;
struct object *object_hold(struct object *object);
void object_release(struct object *object); /* NULL is allowed */

const char *object_id(const struct object *object);
const struct object_class *object_get_class(const struct object *object);
void *object_state(struct object *object);
struct object_registry *object_get_registry(struct object *object);

/* Every type that this build has; ends with NULL. */
extern const struct object_class *const object_classes[];
