/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parser beneath json_parse() and the reader. */
#pragma once

#include "schema/json.h"

/* 64 MiB of text, 1,024 levels, 2 Mi values. */
extern const struct json_limits json_limits_default;

/* As json_parse(), within `limits`. */
struct json *json_parse_limited(const char *text, size_t size, const struct json_limits *limits,
                                struct error **err) MUST_CHECK;
