/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running tests of objects in a loop of their own. Private to the tests of this folder. */
#pragma once

#include "base/compiler.h"
#include "object/object.h"

/* A test case: runs as a coroutine, with an empty registry. */
typedef void object_test_case(struct object_registry *registry);
void object_test_add(const char *path, object_test_case *co_case);

/* Adds the object of these JSON members (single quotes do): NULL, or what was said against it, owned. */
char *CO_FN co_object_test_add(struct object_registry *registry, const char *members);

/* The same, and asserts the outcome: `complaint` is the start of it; NULL: success. */
void CO_FN co_object_test_expect(struct object_registry *registry, const char *members, const char *complaint);

/* The property as JSON text, owned; or sets it: NULL, or what was said against it, owned. */
char *object_test_get(struct object_registry *registry, const char *id, const char *name);
char *CO_FN co_object_test_set(struct object_registry *registry, const char *id, const char *name, const char *json);
