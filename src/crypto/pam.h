/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The account rules of the host, as the module authz-pam asks them. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "crypto/module.h"

struct error;

struct pam_engine {
    struct module_head head;
    /* Whether `service` lets `identity` in; false with the error where it cannot say. Blocks; any thread. */
    bool (*ask)(const char *service, const char *identity, bool *ret_allowed, struct error **err);
};

/* The engine, loaded if need be; NULL and the error. */
const struct pam_engine *pam_engine_get(struct error **err) MUST_CHECK;
