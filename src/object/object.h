/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * User-creatable objects (secret, iothread, tls-creds-*, authz-*, throttle-group, ...), one file a type. They live in a
 * registry under their id, have properties, and can be held by users; a held one cannot be deleted, or only its name is
 * (see may_outlive_name). All on the main loop, but for object_hold() and object_release().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct json;
struct object;

/* One property, for qom-list, qom-get, qom-set and the help. The accessors get it, to serve several with one function.
 */
struct object_property {
    const char *name;
    const char *type;        /* as QOM names it: "string", "bool", "int", "uint64", an enum's name, ... */
    const char *description; /* one line */
    unsigned index;          /* the class's own */
    /* Owned; NULL: write-only. */
    struct json *(*get)(struct object *object, const struct object_property *property);
    /* NULL: read-only. */
    bool (*co_set)(struct object *object, const struct object_property *property, const struct json *value,
                   struct error **err);
};

struct object_class {
    enum object_type type; /* its value in the schema */
    size_t state_size;
    const struct object_property *properties; /* ends with a NULL name */
    /* object-del takes only the name of one that is held, which goes with its last holder; co_destroy() then may not
     * suspend, and runs on that holder's thread. */
    bool may_outlive_name;
    /* State is zero-filled before. On failure destroy() is not called. */
    bool (*co_create)(struct object *object, const struct object_options *options, struct error **err);
    void (*co_destroy)(struct object *object); /* optional */
    /* Whether it may go now, apart from holders; optional. */
    bool (*can_delete)(struct object *object, struct error **err);
};

struct loop;
struct object_registry;
struct object_registry *object_registry_new(void);
struct loop *object_registry_loop(const struct object_registry *registry); /* where it was made; NULL: on none */
void CO_FN co_object_registry_free(struct object_registry *registry);      /* destroys all, newest first */

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

/* All objects, in the order of their making. */
size_t object_count(struct object_registry *registry);
struct object *object_at(struct object_registry *registry, size_t index); /* borrowed; `index` below the count */

/* The class of that name in this build; NULL: none. */
const struct object_class *object_class_find(const char *type_name);

/* NULL: it has no such property. */
const struct object_property *object_class_property(const struct object_class *class, const char *name);

/* Whether `id` starts with a letter and goes on with letters, digits, '-', '.', '_'. */
bool object_id_well_formed(const char *id);

/* qom-get (owned; NULL with the error) and qom-set of one object; "type" is a property of every object. */
struct json *object_property_get(struct object *object, const char *name, struct error **err) MUST_CHECK;
bool CO_FN co_object_property_set(struct object *object, const char *name, const struct json *value,
                                  struct error **err) MUST_CHECK;

/* Every type that this build has; ends with NULL. */
extern const struct object_class *const object_classes[];
