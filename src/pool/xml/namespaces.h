/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The elements of namespaces that some types of pools have: lists of options. */
#pragma once

#include <stdbool.h>

#include "pool/pool-type.h"

struct xml_namespace {
    const char *prefix;
    const char *uri;
    const char *list; /* the element; each element in it is an option */
    bool values;      /* which has a value beside its name */
};

/* NULL: the type has none. */
const struct xml_namespace *xml_namespace_of(enum pool_type type);
