/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SASL, the server's side: the table of the module "sasl", which has Cyrus SASL. Its configuration is that of the
 * program "libvirt" (/etc/sasl2/libvirt.conf). All of it may block, and is for worker threads; a session is used by one
 * thread at a time. Failing returns a text (owned) for the log; clients are not told more than that it failed.
 */
#pragma once

#include <stddef.h>

#include "crypto/module.h"

struct sasl_exchange {
    const char *mechanism; /* of the first step; NULL: a later one */
    const void *input;     /* NULL: nothing, which is not the same as empty */
    size_t input_size;
    const char *output; /* borrowed from the session; NULL: nothing */
    size_t output_size;
};

enum sasl_outcome { SASL_OUTCOME_FAILED, SASL_OUTCOME_CONTINUES, SASL_OUTCOME_COMPLETE };

struct sasl_module {
    struct module_head head;
    void *(*session_new)(char **ret_message); /* NULL: *ret_message */
    void (*session_free)(void *session);
    char *(*mechanisms)(void *session, char **ret_message); /* with commas between; owned; NULL: *ret_message */
    enum sasl_outcome (*exchange)(void *session, struct sasl_exchange *exchange, char **ret_message);
    char *(*user)(void *session); /* after all is complete; owned; NULL: not known */
};
