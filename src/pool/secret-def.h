/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a secret is for, and its XML. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct pool_error;

enum secret_def_usage {
    SECRET_FOR_NOTHING,
    SECRET_FOR_VOLUME,
    SECRET_FOR_CEPH,
    SECRET_FOR_ISCSI,
    SECRET_FOR_TLS,
    SECRET_FOR_VTPM,
    SECRET_FOR__MAX,
};

struct secret_def {
    uint8_t uuid[16];
    bool ephemeral; /* in no file */
    bool private;   /* clients do not get the value */
    char *description;
    enum secret_def_usage usage_type;
    char *usage;
};

/* A definition without uuid gets a new one. NULL: *err. */
struct secret_def *secret_def_parse(const char *xml, struct pool_error **err);
/* Owned. */
char *secret_def_format(const struct secret_def *def);
void secret_def_free(struct secret_def *def);
AUTO_DEFINE(secret_def, struct secret_def *, secret_def_free)
