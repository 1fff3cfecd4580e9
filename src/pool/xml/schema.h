/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether XML has only elements that mean something where they stand: for clients that ask for validation, so that a
 * misspelt element is an error instead of being passed over. Any thread. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct pool_error;

bool xml_check_pool(const char *xml, struct pool_error **err) MUST_CHECK;
bool xml_check_volume(const char *xml, struct pool_error **err) MUST_CHECK;
