/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Persistent reservations of SCSI devices, carried out by a privileged helper process. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;
struct object;
struct object_registry;

extern const struct object_class pr_manager_helper_class;

enum {
    PR_CDB_BYTES = 16,
    PR_SENSE_BYTES = 96,
    PR_DATA_BYTES_MAX = 8192,
    PR_OPERATION_IN = 0x5e,  /* PERSISTENT RESERVE IN: `data` is filled */
    PR_OPERATION_OUT = 0x5f, /* PERSISTENT RESERVE OUT: `data` is sent */
};

/* One command. */
struct pr_command {
    uint8_t cdb[PR_CDB_BYTES];
    uint8_t *data; /* of the length that the CDB names */
    /* The outcome: */
    size_t data_size; /* PERSISTENT RESERVE IN: bytes that came */
    uint8_t sense[PR_SENSE_BYTES];
};

/* The pr-manager-helper object `id`, held; NULL and the error. Main loop. */
struct object *pr_manager_hold(struct object_registry *registry, const char *id, struct error **err) MUST_CHECK;

/*
 * Has the helper carry out `command` on the device `fd`: the SCSI status, or -errno: -EINVAL for a command that the
 * protocol does not allow. A connection that broke is made again; -EIO where the helper is away, or went away in
 * mid-command, whose outcome is then unknown. On any loop; commands of one object wait for each other.
 */
int CO_FN co_pr_manager_execute(struct object *object, int fd, struct pr_command *command);
