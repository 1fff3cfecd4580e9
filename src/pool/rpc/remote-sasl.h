/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is kept of a connection that authenticates itself by SASL. Private to this folder. */
#pragma once

#include "base/cleanup.h"

struct remote_sasl;

void remote_sasl_free(struct remote_sasl *sasl); /* NULL is allowed */
