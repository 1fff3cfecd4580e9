/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may do what with which pool, volume and secret, where access_drivers asks for it: polkit is asked about the
 * action org.libvirt.api.OBJECT.PERMISSION with the attributes of the object. Objects, permissions and attributes are
 * libvirt's, so its rules hold here. Main loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "pool/polkit.h"

struct pool_error;
struct pool_id;
struct rpc_call;
struct rpc_client;
struct secret_id;

/* For whom a connection speaks: whoever is at its other end, unless a daemon forwards the calls of others. */
struct remote_identity {
    bool known;
    bool elevated; /* a daemon of the system, by its token: nobody is asked */
    struct polkit_subject subject;
};

/* A client has come: who it is, as long as the number of its process surely is its own. */
void CO_FN co_remote_access_begin(struct rpc_client *client);

/* Before a call is made: whether its client may make it. Always true where no access driver is in use. */
bool CO_FN co_remote_access_before(struct rpc_call *call, struct pool_error **err);

/* After it: whether the client may see what the call has found. What it may not see of a list is taken out. */
bool CO_FN co_remote_access_after(struct rpc_call *call, struct pool_error **err);

/* Whether the client may know of the pool or of the secret that an event is about. */
bool CO_FN co_remote_access_event(struct rpc_client *client, const struct pool_id *pool,
                                  const struct secret_id *secret);

/* From now on the connection speaks for whom the parameters of CONNECT_SET_IDENTITY name. */
bool CO_FN co_remote_access_identify(struct rpc_call *call, struct pool_error **err);
