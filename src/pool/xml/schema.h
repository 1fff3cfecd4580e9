/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether XML has only elements, attributes and values that mean something where they stand: for clients that ask for
 * validation, so that what is misspelt is an error instead of being passed over. Any thread. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "pool/pool-type.h"

struct pool_error;

bool xml_check_pool(const char *xml, struct pool_error **err) MUST_CHECK;
/* As for volume_parse(). */
bool xml_check_volume(const char *xml, enum pool_type type, bool capacity_optional, struct pool_error **err) MUST_CHECK;
bool xml_check_secret(const char *xml, struct pool_error **err) MUST_CHECK;
