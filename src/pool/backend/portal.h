/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The address of an iSCSI target, which the two types of pools for such have in common. */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "pool/pool-def.h"

struct pool_error;

/* The source has exactly one host, by a name that is one. */
bool portal_check_host(const struct pool_source *source, struct pool_error **err);

/* "host:port" of the only host, the usual port where none is given; brackets around IPv6 addresses. Owned. */
char *portal_of(const struct pool_source *source);

/* A target that was found at `asked`, as one of `sources`. */
void portal_add_found(GPtrArray *sources, enum pool_type type, const struct pool_source *asked, const char *target);
