/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The iothread object: a loop in a thread of its own. */
#pragma once

#include "base/compiler.h"

struct error;
struct loop;
struct object;
struct object_registry;

extern const struct object_class iothread_class;

/* The loop of the iothread `id`, whose object is held in *ret_object; NULL and the error where there is none. */
struct loop *iothread_hold_loop(struct object_registry *registry, const char *id, struct object **ret_object,
                                struct error **err) MUST_CHECK;
struct loop *iothread_loop(struct object *object);
