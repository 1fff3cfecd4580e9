/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lists of named values, each with its type. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct pool_error;
struct xdr_reader;

enum typed_param_type {
    TYPED_PARAM_INT = 1,
    TYPED_PARAM_UINT,
    TYPED_PARAM_LLONG,
    TYPED_PARAM_ULLONG,
    TYPED_PARAM_DOUBLE,
    TYPED_PARAM_BOOLEAN,
    TYPED_PARAM_STRING,
};

/* At most so many are taken of a list; of answers and requests alike. */
enum { TYPED_PARAMS_MAX = 64 };

struct typed_param {
    char *name;
    enum typed_param_type type;
    uint64_t number; /* all but strings; of 32-bit types the low half, of doubles the bits */
    char *string;
};

struct typed_params {
    size_t count;
    struct typed_param items[TYPED_PARAMS_MAX];
};

struct typed_params *typed_params_new(void);
void typed_params_free(struct typed_params *params);
AUTO_DEFINE(typed_params, struct typed_params *, typed_params_free)

/* At most TYPED_PARAMS_MAX of them in all. `value` is copied. */
void typed_params_add_uint(struct typed_params *params, const char *name, uint32_t value);
void typed_params_add_int(struct typed_params *params, const char *name, int32_t value);
void typed_params_add_boolean(struct typed_params *params, const char *name, bool value);
void typed_params_add_llong(struct typed_params *params, const char *name, int64_t value);
void typed_params_add_ullong(struct typed_params *params, const char *name, uint64_t value);
void typed_params_add_string(struct typed_params *params, const char *name, const char *value);

/* The one of that name, borrowed; NULL: there is none. */
const struct typed_param *typed_params_find(const struct typed_params *params, const char *name);

/* One that may be there; a list of them ends with one without a name. */
struct typed_param_rule {
    const char *name;
    enum typed_param_type type;
};

/* Whether all are in `rules`, of the type that they have there, and none twice; else libvirt's error about it. */
bool typed_params_check(const struct typed_params *params, const struct typed_param_rule *rules,
                        struct pool_error **err);

bool typed_params_decode(struct xdr_reader *reader, struct typed_params **ret);
void typed_params_encode(const struct typed_params *params, GByteArray *to);
