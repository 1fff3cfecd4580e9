/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of ashlar-nbd: what each option says, and which of them go together. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/units.h"
#include "bin/nbd.h"
#include "cli/object-option.h"
#include "cli/option.h"
#include "cli/tool.h"
#include "cli/trace-option.h"
#include "schema/json.h"

/* The first descriptor that a service manager hands over. */
enum { PASSED_FD = 3 };

const struct option nbd_options[] = {
    {"port", 'p', "PORT", "port or service to listen on (default: 10809)", NBD_OPTION_PORT},
    {"bind", 'b', "HOST", "address to listen on (default: 0.0.0.0)", NBD_OPTION_BIND},
    {"socket", 'k', "PATH", "listen on this Unix socket instead; an absolute path", NBD_OPTION_SOCKET},
    {"shared", 'e', "NUMBER", "clients at a time, 0: no limit (default: 1)", NBD_OPTION_SHARED},
    {"persistent", 't', NULL, "go on when the last client has gone", NBD_OPTION_PERSISTENT},
    {"handshake-limit", 0, "SECONDS", "time that a client has to choose the export, 0: no limit (default: 10)",
     NBD_OPTION_HANDSHAKE_LIMIT},
    {"export-name", 'x', "NAME", "name of the export (default: empty)", NBD_OPTION_EXPORT_NAME},
    {"description", 'D', "TEXT", "what lists of exports say of it", NBD_OPTION_DESCRIPTION},
    {"offset", 'o', "BYTES", "show the image from there on, a multiple of 512", NBD_OPTION_OFFSET},
    {"allocation-depth", 'A', NULL, "offer the metadata context qemu:allocation-depth", NBD_OPTION_ALLOCATION_DEPTH},
    {"bitmap", 'B', "NAME", "offer this dirty bitmap as metadata context; may be given several times",
     NBD_OPTION_BITMAP},
    {"tls-creds", 0, "ID", "use TLS, with the credentials of this object", NBD_OPTION_TLS_CREDS},
    {"tls-hostname", 0, "NAME", "with --list: name that the server's certificate must have", NBD_OPTION_TLS_HOSTNAME},
    {"tls-authz", 0, "ID", "let in whom this object admits", NBD_OPTION_TLS_AUTHZ},
    {"selinux-label", 0, "LABEL", "SELinux label of the socket (not in this build)", NBD_OPTION_SELINUX_LABEL},
    {"format", 'f', "FORMAT", "format of the image (default: by its content)", NBD_OPTION_FORMAT},
    {"image-opts", 0, NULL, "the image is given by options: key=value,...", NBD_OPTION_IMAGE_OPTS},
    {"read-only", 'r', NULL, "export for reading only", NBD_OPTION_READ_ONLY},
    {"snapshot", 's', NULL, "keep writes in a temporary image", NBD_OPTION_SNAPSHOT},
    {"load-snapshot", 'l', "SNAPSHOT",
     "export this internal snapshot, for reading only: ID_OR_NAME, or\nsnapshot.id=ID,snapshot.name=NAME",
     NBD_OPTION_LOAD_SNAPSHOT},
    {"nocache", 'n', NULL, "the same as --cache=none", NBD_OPTION_NO_CACHE},
    {"cache", 0, "MODE", "none, writeback, writethrough, directsync or unsafe (default: writeback)", NBD_OPTION_CACHE},
    {"aio", 0, "MODE", "threads, native or io_uring", NBD_OPTION_AIO},
    {"discard", 0, "MODE", "ignore or unmap (default: ignore)", NBD_OPTION_DISCARD},
    {"detect-zeroes", 0, "MODE", "off, on or unmap (default: off)", NBD_OPTION_DETECT_ZEROES},
    {"connect", 'c', "DEVICE", "connect the image to this NBD device of the kernel", NBD_OPTION_CONNECT},
    {"disconnect", 'd', NULL, "disconnect the NBD device", NBD_OPTION_DISCONNECT},
    {"list", 'L', NULL, "print what another server exports", NBD_OPTION_LIST},
    {"fork", 0, NULL, "go into the background once clients are served", NBD_OPTION_FORK},
    {"pid-file", 0, "PATH", "write the process id to this file", NBD_OPTION_PID_FILE},
    {"object", 0, "OBJECT", "make an object, such as TLS credentials: TYPE,id=ID,...", NBD_OPTION_OBJECT},
    {"trace", 'T', "TRACE", "[[enable=]PATTERN][,events=FILE][,file=FILE]: print what happens inside",
     NBD_OPTION_TRACE},
    {"verbose", 'v', NULL, "with --connect: stay in the foreground", NBD_OPTION_VERBOSE},
    {"help", 'h', NULL, "show this help and exit", NBD_OPTION_HELP},
    {"version", 'V', NULL, "show the version and exit", NBD_OPTION_VERSION},
    {0},
};

static bool is_one_of(const char *text, const char *const *words)
{
    while (*words && strcmp(*words, text) != 0)
        words++;
    return *words;
}

static void set_image_option(struct nbd_program *program, const char *key, const char *value)
{
    if (!program->image_options)
        program->image_options = json_object();
    json_set(program->image_options, key, json_string(value));
}

/* --- options with a meaning of their own --- */

static bool set_cache(struct nbd_program *program, const char *mode, struct error **err)
{
    if (program->has_cache)
        return error_set(err, "-n and --cache can only be specified once");
    program->has_cache = true;
    return cache_mode_parse(mode, &program->open.cache) || error_set(err, "Invalid cache mode `%s'", mode);
}

static bool set_aio(struct nbd_program *program, const char *mode, struct error **err)
{
    static const char *const modes[] = {"threads", "native", "io_uring", NULL};

    if (program->has_aio)
        return error_set(err, "--aio can only be specified once");
    program->has_aio = true;
    program->open.aio = mode;
    return is_one_of(mode, modes) || error_set(err, "Invalid aio mode '%s'", mode);
}

static bool set_discard(struct nbd_program *program, const char *mode, struct error **err)
{
    static const char *const on[] = {"unmap", "on", NULL}, *const off[] = {"ignore", "off", NULL};

    if (program->has_discard)
        return error_set(err, "--discard can only be specified once");
    program->has_discard = true;
    program->open.unmap = is_one_of(mode, on);
    return program->open.unmap || is_one_of(mode, off) || error_set(err, "Invalid discard mode `%s'", mode);
}

static bool set_detect_zeroes(struct nbd_program *program, const char *mode, struct error **err)
{
    static const char *const modes[] = {"off", "on", "unmap", NULL};

    if (!is_one_of(mode, modes))
        return error_set(err, "Failed to parse detect_zeroes mode: invalid parameter value: %s", mode);
    set_image_option(program, "detect-zeroes", mode);
    return true;
}

/* A number as in C: 0x makes it hexadecimal, a 0 octal; a sign and white space before it are no matter. */
static bool set_number(const char *what, const char *text, uint64_t max, uint64_t *ret, struct error **err)
{
    char *end;
    uint64_t value;

    errno = 0;
    value = g_ascii_strtoull(text, &end, 0);
    if (errno || end == text || *end || strchr(text, '-') || value > max)
        return error_set(err, "Invalid %s '%s'", what, text);
    *ret = value;
    return true;
}

/* A port may have the name of a service, which is looked up when it is needed. */
static bool set_port(struct nbd_program *program, const char *port, struct error **err)
{
    uint64_t value;

    program->port = port;
    return g_ascii_isalpha(*port) || (uint64_parse(port, &value) && value <= UINT16_MAX) ||
           error_set(err, "Invalid port '%s'", port);
}

static bool set_socket(struct nbd_program *program, const char *path, struct error **err)
{
    if (*path != '/')
        return error_set(err, "socket path must be absolute");
    program->socket = path;
    return true;
}

static bool apply_number(struct nbd_program *program, const struct option_use *use, struct error **err)
{
    uint64_t value = 0;

    switch (use->option->id) {
    case NBD_OPTION_PORT:
        return set_port(program, use->value, err);
    case NBD_OPTION_SHARED:
        if (!set_number("shared device number", use->value, INT32_MAX, &value, err))
            return false;
        program->clients_max = (uint32_t)value;
        return true;
    case NBD_OPTION_HANDSHAKE_LIMIT:
        if (!set_number("handshake limit", use->value, UINT32_MAX, &value, err))
            return false;
        program->handshake_seconds = (uint32_t)value;
        program->has_handshake_seconds = true;
        return true;
    default:
        program->has_offset = true;
        return set_number("offset", use->value, INT64_MAX, &program->offset, err);
    }
}

/* Options that only set something, or switch it on. */
static bool apply_plain(struct nbd_program *program, const struct option_use *use)
{
    switch (use->option->id) {
    case NBD_OPTION_ALLOCATION_DEPTH:
        program->allocation_depth = true;
        return true;
    case NBD_OPTION_BIND:
        program->bind = use->value;
        return true;
    case NBD_OPTION_BITMAP:
        if (!program->bitmaps)
            program->bitmaps = json_array();
        json_append(program->bitmaps, json_string(use->value));
        return true;
    case NBD_OPTION_CONNECT:
        program->device = use->value;
        return true;
    case NBD_OPTION_DESCRIPTION:
        program->description = use->value;
        return true;
    case NBD_OPTION_DISCONNECT:
        program->disconnect = true;
        return true;
    case NBD_OPTION_EXPORT_NAME:
        program->export_name = use->value;
        return true;
    case NBD_OPTION_FORK:
        program->fork = true;
        return true;
    case NBD_OPTION_FORMAT:
        program->open.format = use->value;
        return true;
    case NBD_OPTION_IMAGE_OPTS:
        program->open.image_opts = true;
        return true;
    case NBD_OPTION_LIST:
        program->list = true;
        return true;
    case NBD_OPTION_LOAD_SNAPSHOT:
        program->open.snapshot = use->value;
        program->open.writable = false;
        return true;
    case NBD_OPTION_PERSISTENT:
        program->persistent = true;
        return true;
    case NBD_OPTION_PID_FILE:
        program->pid_path = use->value;
        return true;
    case NBD_OPTION_READ_ONLY:
        program->open.writable = false;
        return true;
    case NBD_OPTION_SNAPSHOT:
        program->snapshot = true;
        return true;
    case NBD_OPTION_TLS_AUTHZ:
        program->tls_authz = use->value;
        return true;
    case NBD_OPTION_TLS_CREDS:
        program->tls_creds = use->value;
        return true;
    case NBD_OPTION_TLS_HOSTNAME:
        program->tls_hostname = use->value;
        return true;
    case NBD_OPTION_VERBOSE:
        program->verbose = true;
        return true;
    default:
        return false;
    }
}

static bool fail_count(const struct nbd_program *program, struct error **err)
{
    error_set(err, "Invalid number of arguments");
    error_hint(err, "Try `%s --help' for more information.", program->name);
    return false;
}

static bool CO_FN co_apply(struct nbd_program *program, const struct option_use *use, bool *ret_help,
                           struct error **err)
{
    if (!use->option) {
        if (program->image)
            return fail_count(program, err);
        program->image = use->value;
        return true;
    }
    if (apply_plain(program, use))
        return true;
    switch (use->option->id) {
    case NBD_OPTION_AIO:
        return set_aio(program, use->value, err);
    case NBD_OPTION_CACHE:
        return set_cache(program, use->value, err);
    case NBD_OPTION_NO_CACHE:
        return set_cache(program, "none", err);
    case NBD_OPTION_DETECT_ZEROES:
        return set_detect_zeroes(program, use->value, err);
    case NBD_OPTION_DISCARD:
        return set_discard(program, use->value, err);
    case NBD_OPTION_OBJECT:
        return co_object_option_apply(program->tool->objects, use->value, ret_help, err);
    case NBD_OPTION_SELINUX_LABEL:
        return error_set(err, "--selinux-label: SELinux support is not enabled in this build");
    case NBD_OPTION_SOCKET:
        return set_socket(program, use->value, err);
    case NBD_OPTION_TRACE:
        return co_trace_option_apply(use, ret_help, err);
    default:
        return apply_number(program, use, err);
    }
}

/* --- what goes together --- */

static bool check_list(const struct nbd_program *program, struct error **err)
{
    if (program->image)
        return error_set(err, "List mode is incompatible with a file name");
    if (program->export_name || program->description || program->has_offset || program->device || program->disconnect ||
        program->open.format || program->bitmaps || program->allocation_depth)
        return error_set(err, "List mode is incompatible with per-device settings");
    if (program->fork)
        return error_set(err, "List mode is incompatible with forking");
    return true;
}

static bool check_tls(const struct nbd_program *program, struct error **err)
{
    if (!program->tls_creds) {
        if (program->tls_authz)
            return error_set(err, "--tls-authz is not permitted without --tls-creds");
        return !program->tls_hostname || error_set(err, "--tls-hostname is not permitted without --tls-creds");
    }
    if (program->list)
        return !program->tls_authz || error_set(err, "TLS authorization is incompatible with export list");
    if (program->device)
        return error_set(err, "TLS is not supported with a host device");
    return !program->tls_hostname || error_set(err, "TLS hostname is only supported with export list");
}

static bool check_passed_socket(struct nbd_program *program, struct error **err)
{
    const char *pid = g_getenv("LISTEN_PID"), *count = g_getenv("LISTEN_FDS");
    uint64_t value;

    if (!pid || !count || !uint64_parse(pid, &value) || value != (uint64_t)getpid())
        return true;
    if (!uint64_parse(count, &value) || !value)
        return true;
    if (value != 1)
        return error_set(err,
                         "%s does not support socket activation with more than one listening file "
                         "descriptor (LISTEN_FDS=%s)",
                         program->name, count);
    if (program->socket || program->bind || program->port || program->device)
        return error_set(err, "Where to listen can't be set with socket activation");
    program->passed_fd = PASSED_FD;
    return true;
}

static bool check_detect_zeroes(const struct nbd_program *program, struct error **err)
{
    const struct json *mode = program->image_options ? json_get(program->image_options, "detect-zeroes") : NULL;

    if (mode && !strcmp(json_get_string(mode), "unmap") && !program->open.unmap)
        return error_set(err, "setting detect-zeroes to unmap is not allowed without setting discard operation to "
                              "unmap");
    return true;
}

static bool check(struct nbd_program *program, struct error **err)
{
    if (program->list ? !check_list(program, err) : !program->image && !fail_count(program, err))
        return false;
    if (!check_detect_zeroes(program, err) || !check_tls(program, err) || !check_passed_socket(program, err))
        return false;
    if (program->open.image_opts && program->open.format)
        return error_set(err, "--image-opts and -f are mutually exclusive");
    if (program->device && program->passed_fd >= 0)
        return error_set(err, "A device cannot be connected with socket activation");
    return true;
}

bool co_nbd_options_apply(struct nbd_program *program, bool *ret_help, struct error **err)
{
    for (size_t i = 0; i < program->options->count && !*ret_help; i++) {
        if (!co_apply(program, &program->options->items[i], ret_help, err))
            return false;
    }
    if (*ret_help)
        return true;
    if (!check(program, err))
        return false;
    if (program->device && !program->socket) {
        g_autofree char *base = g_path_get_basename(program->device);

        program->device_socket = g_strdup_printf("/var/lock/%s-%s", program->name, base);
        program->socket = program->device_socket;
    }
    if (!program->bind)
        program->bind = "0.0.0.0";
    if (!program->port)
        program->port = "10809";
    program->open.filename = program->image;
    program->open.options = program->image_options;
    program->open.plain_errors = true;
    return true;
}

void nbd_options_look(struct nbd_program *program)
{
    bool device = false, verbose = false, fork = false;

    for (size_t i = 0; i < program->options->count; i++) {
        const struct option *option = program->options->items[i].option;

        device |= option && option->id == NBD_OPTION_CONNECT;
        verbose |= option && option->id == NBD_OPTION_VERBOSE;
        fork |= option && option->id == NBD_OPTION_FORK;
    }
    program->fork = fork || (device && !verbose);
}

void nbd_options_clear(struct nbd_program *program)
{
    json_free(program->image_options);
    json_free(program->bitmaps);
    g_free(program->device_socket);
}
