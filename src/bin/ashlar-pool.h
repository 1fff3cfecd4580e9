/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar pool: what its commands share. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "cli/terminal.h"
#include "pool/storage.h"

struct error;
struct json;
struct option;
struct option_list;
struct rpc_caller;

/* --- what was asked for --- */

enum pool_export_kind { POOL_EXPORT_NONE, POOL_EXPORT_NBD, POOL_EXPORT_VHOST_USER, POOL_EXPORT_FUSE };

struct pool_program {
    const char *name; /* for messages and help */
    const struct pool_command *command;
    const struct option_list *options;
    struct terminal terminal;

    /* borrowed from the command line; NULL: not given */
    const char *words[2];
    unsigned word_count;
    const char *socket;
    const char *qmp;
    const char *export_name;
    const char *where; /* address, socket or mountpoint */
    enum pool_export_kind kind;
    bool json, read_only, stop, force;
};

struct pool_command {
    const char *name;
    const char *words; /* as the help shows them */
    unsigned words_min, words_max;
    const char *help;
    const struct option *options;
    bool (*co_run)(struct pool_program *program, struct error **err);
};

/* A NULL name is the end. */
extern const struct pool_command pool_commands[];

/* Runs "ashlar pool"; `argv[0]` is "pool". The status to end with. */
int pool_main(const char *name, int argc, char **argv);

bool CO_FN co_pool_list(struct pool_program *program, struct error **err);
bool CO_FN co_pool_tree(struct pool_program *program, struct error **err);
bool CO_FN co_pool_export(struct pool_program *program, struct error **err);
bool CO_FN co_pool_unexport(struct pool_program *program, struct error **err);

/* --- what the pool daemon says: ashlar-pool-view.c --- */

struct volume_view;

struct pool_view {
    struct pool_id *id;
    struct pool_info info;
    bool autostart, persistent;
    GPtrArray *volumes; /* of struct volume_view; NULL: not asked for */
};

struct volume_view {
    char *pool, *name;
    char *path;                    /* NULL: the daemon does not say */
    char *format;                  /* "raw" where the pool's type knows no formats */
    char *type;                    /* "file", "block", ... */
    uint64_t capacity, allocation; /* bytes */
    bool encrypted;
    bool has_secret;
    uint8_t secret[STORAGE_UUID_SIZE];
    char *secret_usage; /* of a secret that is known by its usage */
    char *backing_path; /* NULL: none */
    char *backing_format;
};

void pool_view_free(struct pool_view *view);
AUTO_DEFINE(pool_view, struct pool_view *, pool_view_free)
void volume_view_free(struct volume_view *view);
AUTO_DEFINE(volume_view, struct volume_view *, volume_view_free)

const char *pool_state_word(enum pool_state state);

/* A connection for `driver` ("storage", "secret"), to the socket that was named or where the daemon's are. */
struct rpc_caller *CO_FN co_pool_connect(const struct pool_program *program, const char *driver, bool read_only,
                                         struct error **err) MUST_CHECK;

/* All pools, by name; or the one that is called `name`. Pools and volumes that go meanwhile are left out. Owned. */
GPtrArray *CO_FN co_pool_views(struct rpc_caller *caller, const char *name, struct error **err) MUST_CHECK;
/* Fills in view->volumes, by name; of a pool that does not run there are none. */
bool CO_FN co_pool_view_volumes(struct rpc_caller *caller, struct pool_view *view, struct error **err) MUST_CHECK;
/* Owned; NULL: *err. */
struct volume_view *CO_FN co_volume_view(struct rpc_caller *caller, const char *pool, const char *name,
                                         struct error **err) MUST_CHECK;
/* The volume at that path, in any pool; owned; NULL: there is none. */
struct volume_view *CO_FN co_volume_view_at(struct rpc_caller *caller, const char *path);
/* The value of the secret of an encrypted volume, in base64; owned. */
char *CO_FN co_volume_view_secret(const struct pool_program *program, const struct volume_view *volume,
                                  struct error **err) MUST_CHECK;
