/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iSCSI targets in user space: the table of the module "iscsi", which has libiscsi. All of it blocks, and is for worker
 * threads. Failing returns false and a text (owned) of what the target or the library said.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "crypto/module.h"

struct iscsi_login {
    const char *portal;    /* "host:port" */
    const char *target;    /* IQN; NULL: asking for targets */
    const char *initiator; /* IQN */
    const char *username;  /* CHAP; NULL: none */
    const char *password;
};

struct iscsi_unit {
    unsigned lun;
    bool is_ready;   /* else nothing more is known: it may be later */
    bool is_disk;    /* else it has no size */
    uint64_t blocks; /* all of them */
    uint32_t block_size;
};

struct iscsi_module {
    struct module_head head;
    /* Appends struct iscsi_unit to `units`. */
    bool (*list_units)(const struct iscsi_login *login, GArray *units, char **ret_message);
    /* Appends the targets' names (owned) to `targets`. */
    bool (*list_targets)(const struct iscsi_login *login, GPtrArray *targets, char **ret_message);
    /* Zeroes everywhere, on the disk when it returns. */
    bool (*wipe)(const struct iscsi_login *login, unsigned lun, char **ret_message);
};
