/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the daemon's files are: libvirt's places, for root's daemon and for a user's. */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"

struct pool_paths {
    char *config_file;       /* of the daemon */
    char *storage_directory; /* persistent pools */
    char *state_directory;   /* running pools */
    char *secret_directory;
    char *socket_directory;
    char *pid_file;
    char *log_file;
    char *token;         /* by which daemons of the system know each other */
    char *secret_socket; /* of libvirt's secret daemon */
};

struct pool_paths *pool_paths_new(bool privileged);
void pool_paths_free(struct pool_paths *paths);
AUTO_DEFINE(pool_paths, struct pool_paths *, pool_paths_free)
