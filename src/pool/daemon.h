/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All state of the pool daemon; handlers of calls get at it by their server. Main loop.
 *
 * Sockets are made first, so that whoever comes early waits in their queues; clients are served when pools are loaded.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "loop/lock.h"
#include "pool/supervisor.h"

struct error;
struct graph;
struct object_registry;
struct pool_config;
struct pool_paths;
struct polkit;
struct pool_secrets;
struct remote_events;
struct rpc_server;
struct socket_listener;
struct storage;

struct pool_daemon {
    bool privileged; /* root's: "storage:///system" */
    struct object_registry *objects;
    struct graph *graph;
    struct pool_secrets *secrets;
    struct storage *storage;
    struct remote_events *events;
    struct polkit *polkit;
    struct polkit *access;  /* the same, where it is asked about single objects; else NULL */
    char **sasl_users;      /* patterns of those who may; NULL: all */
    const char *token_path; /* of the system's token; borrowed */
    struct rpc_server *main;
    struct rpc_server *admin;
    struct socket_listener *listeners[POOL_SOCKET__MAX][SUPERVISOR_SAME_MAX]; /* that have no server yet */

    bool serving;
    bool quit;
    struct co_condition changed; /* quit, the number of clients, or the timeout */
    uint32_t timeout_s;          /* without clients, until the daemon ends; 0: never */
    bool reloading;
};

/* What the daemon is made by; all is borrowed. */
struct pool_daemon_options {
    bool privileged;
    const struct pool_config *config;
    const struct pool_paths *paths;
    struct supervisor_sockets *sockets; /* its descriptors are taken */
    uint32_t timeout_s;
};

/* How starting can fail: exit statuses, as libvirt's daemons have them. */
enum pool_daemon_status {
    POOL_DAEMON_OK = 0,
    POOL_DAEMON_PID_FILE = 1,
    POOL_DAEMON_RUN_DIRECTORY = 2,
    POOL_DAEMON_INIT = 3,
    POOL_DAEMON_NETWORK = 6,
    POOL_DAEMON_DRIVER = 11,
};

/* Makes the folders of the sockets and of the user's PID file, which come before everything else. */
enum pool_daemon_status pool_daemon_make_folders(const struct pool_daemon_options *options, struct error **err);

/* Makes everything else and begins to serve. On failure what is there is to be freed all the same. */
enum pool_daemon_status CO_FN co_pool_daemon_start(struct pool_daemon *daemon,
                                                   const struct pool_daemon_options *options,
                                                   struct error **err) MUST_CHECK;

/* Until somebody asks for the end, or nobody has been there for the time of the timeout. */
void CO_FN co_pool_daemon_wait(struct pool_daemon *daemon);

/* Reads pools' definitions again, unless the daemon is still starting or that is under way. */
void CO_FN co_pool_daemon_reload(struct pool_daemon *daemon);

/* Asks the daemon to end, also one that is starting. What takes long is cut short from then on. */
void pool_daemon_quit(struct pool_daemon *daemon);

/* Answers the clients and drops them, waits for what is under way; pools stay as they are. */
void CO_FN co_pool_daemon_done(struct pool_daemon *daemon);
