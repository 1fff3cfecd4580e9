/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon's configuration file: what libvirt's virtstoraged.conf may hold, with its defaults. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;

struct pool_config {
    char *unix_sock_group;                                                 /* NULL: the daemon's own */
    char *unix_sock_ro_perms, *unix_sock_rw_perms, *unix_sock_admin_perms; /* octal; NULL: the default */
    char *unix_sock_dir;                                                   /* NULL: the default */
    char *auth_unix_ro, *auth_unix_rw;                                     /* "none", "polkit"; NULL: the default */
    GStrv access_drivers;                                                  /* NULL: none */
    GStrv sasl_allowed_username_list;
    uint32_t max_clients, max_queued_clients, max_anonymous_clients;
    uint32_t min_workers, max_workers, prio_workers, max_client_requests;
    uint32_t admin_min_workers, admin_max_workers, admin_max_clients, admin_max_queued_clients;
    uint32_t admin_max_client_requests;
    uint32_t log_level; /* 0: not set */
    char *log_filters, *log_outputs;
    uint32_t audit_level, audit_logging;
    char *host_uuid, *host_uuid_source;
    int32_t keepalive_interval, admin_keepalive_interval; /* seconds; 0 and below: clients are not pinged */
    uint32_t keepalive_count, admin_keepalive_count;
    uint32_t keepalive_required, admin_keepalive_required; /* libvirt has dropped them */
    uint32_t ovs_timeout;                                  /* of no use to a storage daemon */
    uint32_t poll_max_us;                                  /* looking for the next call without sleeping; 0: not */
    GPtrArray *warnings;                                   /* texts: what is not as it seems */
};

/* All defaults. */
struct pool_config *pool_config_new(void);

/* Takes what `text` says, which stands in the file `path`. False: *err names file, line and key. A key that does not
 * exist is a warning, because libvirt's daemons let them pass and their files hold some. */
bool pool_config_parse(struct pool_config *config, const char *text, const char *path, struct error **err);

/* The mode that text of a checked configuration stands for; NULL: `otherwise`. */
unsigned pool_config_mode(const char *text, unsigned otherwise);

void pool_config_free(struct pool_config *config);
AUTO_DEFINE(pool_config, struct pool_config *, pool_config_free)
