/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open-iscsi's records of targets: lines "name = value" in files that only root may read. Its tool takes a value only
 * as a word of its command line, which everybody may read; so passwords are put there by ourselves.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct pool_error;

/*
 * Sets `name` to `value` in the record of `target` at `portal` ("host:port,group", IPv6 in brackets) with that
 * interface. The file has the old content or the new. False: *err, which does not show the value; there is no such
 * record, or the value cannot stand in one.
 */
bool CO_FN co_iscsi_record_set(const char *target, const char *portal, const char *interface, const char *name,
                               const char *value, struct pool_error **err);
