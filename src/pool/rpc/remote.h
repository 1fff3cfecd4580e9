/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The program that everybody calls: connections, pools, volumes, secrets, events. Private to this folder. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "pool/rpc/program.h"
#include "pool/rpc/remote-access.h"

struct pool_daemon;
struct pool_error;
struct pool_secrets;
struct remote_sasl;
struct storage;

enum remote_driver { REMOTE_NOT_OPEN, REMOTE_STORAGE, REMOTE_SECRET };

/* What the program remembers of a connection. */
struct remote_session {
    struct rpc_client *client; /* borrowed: it holds us */
    enum remote_driver driver;
    char *uri;
    struct remote_sasl *sasl;        /* while the client authenticates itself by it; else NULL */
    bool asks_polkit;                /* whether it may come in at all */
    unsigned events_waiting;         /* until polkit has said whether it may know of them */
    struct remote_identity identity; /* where an access driver asks for it */
};

extern const struct rpc_program remote_program;

/* Of the daemon that the call's client is connected to. */
struct pool_daemon *remote_daemon(const struct rpc_call *call);
struct storage *remote_storage(const struct rpc_call *call);
struct pool_secrets *remote_secrets(const struct rpc_call *call);
struct remote_session *remote_session(const struct rpc_call *call);

/* A list call may be answered with so many names. `what` and `limit` as clients know them. */
bool remote_check_max(const char *what, int32_t count, const char *limit, struct pool_error **err);
/* The same for one that has `count` of them. */
bool remote_check_count(const char *what, size_t count, struct pool_error **err);

/* The handlers, by file. */

/* remote-connect.c */
bool CO_FN co_remote_open(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_close(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_get_type(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_get_capabilities(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_supports_feature(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_get_uri(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_is_secure(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_get_lib_version(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_close_callback(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_set_identity(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_capabilities(struct rpc_call *call, struct pool_error **err);

/* remote-auth.c */
bool CO_FN co_remote_auth_list(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_auth_polkit(struct rpc_call *call, struct pool_error **err);

/* remote-sasl.c */
bool CO_FN co_remote_sasl_init(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_sasl_step(struct rpc_call *call, struct pool_error **err);

/* remote-pool.c */
bool CO_FN co_remote_pool_count(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_names(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_list(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_find_sources(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_create_xml(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_define_xml(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_create(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_build(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_destroy(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_delete(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_undefine(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_refresh(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_by_name(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_by_uuid(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_by_volume(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_by_target_path(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_get_info(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_get_xml(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_get_autostart(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_set_autostart(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_is_active(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_is_persistent(struct rpc_call *call, struct pool_error **err);

/* remote-volume.c */
bool CO_FN co_remote_volume_count(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_names(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_list(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_create_xml(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_create_xml_from(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_delete(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_by_name(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_by_key(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_by_path(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_get_info(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_get_info_flags(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_get_xml(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_get_path(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_wipe(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_wipe_pattern(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_resize(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_upload(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_volume_download(struct rpc_call *call, struct pool_error **err);

/* remote-secret.c */
bool CO_FN co_remote_secret_count(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_uuids(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_list(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_by_uuid(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_by_usage(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_define_xml(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_get_xml(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_set_value(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_get_value(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_undefine(struct rpc_call *call, struct pool_error **err);

/* remote-events.c */
bool CO_FN co_remote_pool_event_register(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_pool_event_deregister(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_event_register(struct rpc_call *call, struct pool_error **err);
bool CO_FN co_remote_secret_event_deregister(struct rpc_call *call, struct pool_error **err);
