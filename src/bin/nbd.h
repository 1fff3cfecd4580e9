/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-nbd: what its files share. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "cli/image-open.h"
#include "cli/option.h"

struct error;
struct json;
struct option;
struct option_list;
struct tool;

extern const struct option nbd_options[];

enum nbd_option_id {
    NBD_OPTION_AIO,
    NBD_OPTION_ALLOCATION_DEPTH,
    NBD_OPTION_BIND,
    NBD_OPTION_BITMAP,
    NBD_OPTION_CACHE,
    NBD_OPTION_CONNECT,
    NBD_OPTION_DESCRIPTION,
    NBD_OPTION_DETECT_ZEROES,
    NBD_OPTION_DISCARD,
    NBD_OPTION_DISCONNECT,
    NBD_OPTION_EXPORT_NAME,
    NBD_OPTION_FORK,
    NBD_OPTION_FORMAT,
    NBD_OPTION_HANDSHAKE_LIMIT,
    NBD_OPTION_HELP,
    NBD_OPTION_IMAGE_OPTS,
    NBD_OPTION_LIST,
    NBD_OPTION_LOAD_SNAPSHOT,
    NBD_OPTION_NO_CACHE,
    NBD_OPTION_OBJECT,
    NBD_OPTION_OFFSET,
    NBD_OPTION_PERSISTENT,
    NBD_OPTION_PID_FILE,
    NBD_OPTION_PORT,
    NBD_OPTION_READ_ONLY,
    NBD_OPTION_SELINUX_LABEL,
    NBD_OPTION_SHARED,
    NBD_OPTION_SNAPSHOT,
    NBD_OPTION_SOCKET,
    NBD_OPTION_TLS_AUTHZ,
    NBD_OPTION_TLS_CREDS,
    NBD_OPTION_TLS_HOSTNAME,
    NBD_OPTION_TRACE,
    NBD_OPTION_VERBOSE,
    NBD_OPTION_VERSION,
};

enum { NBD_CLIENTS_DEFAULT = 1 };

/* What the command line asks for. Strings are borrowed unless marked. */
struct nbd_program {
    const char *name;
    const struct option_list *options;
    struct tool *tool;

    const char *image; /* NULL: none */
    struct image_open open;
    bool has_cache;
    bool has_aio;
    bool has_discard;
    struct json *image_options; /* owned; besides the image's name; NULL: none */
    bool snapshot;
    uint64_t offset; /* bytes */
    bool has_offset;

    const char *bind;
    const char *port;
    const char *socket;
    char *device_socket; /* owned; NULL: none */
    int passed_fd;       /* a listening socket that a service manager handed over; -1: none */
    uint32_t clients_max;
    uint32_t handshake_seconds;
    bool has_handshake_seconds;
    bool persistent;
    bool verbose;
    const char *export_name;
    const char *description;
    bool allocation_depth;
    struct json *bitmaps; /* names, owned; NULL: none */
    const char *tls_creds;
    const char *tls_authz;
    const char *tls_hostname;

    const char *device; /* the kernel's device to connect or disconnect; NULL: none */
    bool disconnect;
    bool list;
    bool fork;
    const char *pid_path;

    int started_fd;   /* tells the parent that we serve; -1: nobody waits */
    sigset_t signals; /* that end us; blocked */
};

/* The options one by one, then whether they go together. In *ret_help whether one was a question, answered by now. */
bool CO_FN co_nbd_options_apply(struct nbd_program *program, bool *ret_help, struct error **err) MUST_CHECK;

/* What has to be known before there is a loop: whether to fork. */
void nbd_options_look(struct nbd_program *program);
void nbd_options_clear(struct nbd_program *program);

/* Serves the image until there is a reason to end. */
bool CO_FN co_nbd_serve(struct nbd_program *program, struct error **err) MUST_CHECK;

/* Prints what another server has. */
bool CO_FN co_nbd_list(struct nbd_program *program, struct error **err) MUST_CHECK;

/* The kernel's device: connects it to the server at program->socket, and returns when it is disconnected;
 * `connected` is called in between. Or disconnects it. */
bool CO_FN co_nbd_device_serve(struct nbd_program *program, bool (*connected)(void *opaque, struct error **err),
                               void *opaque, struct error **err) MUST_CHECK;
bool CO_FN co_nbd_device_disconnect(const char *device, struct error **err) MUST_CHECK;
