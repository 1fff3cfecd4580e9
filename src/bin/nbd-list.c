/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-nbd --list: what another server exports. */
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "bin/nbd.h"
#include "cli/tool.h"
#include "driver/protocol/nbd/handshake.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "object/object.h"
#include "object/tls-creds.h"

static void print_flags(uint32_t flags)
{
    static const struct {
        uint32_t flag;
        const char *name;
    } names[] = {
        {NBD_FLAG_READ_ONLY, "readonly"},
        {NBD_FLAG_SEND_FLUSH, "flush"},
        {NBD_FLAG_SEND_FUA, "fua"},
        {NBD_FLAG_ROTATIONAL, "rotational"},
        {NBD_FLAG_SEND_TRIM, "trim"},
        {NBD_FLAG_SEND_WRITE_ZEROES, "zeroes"},
        {NBD_FLAG_SEND_DF, "df"},
        {NBD_FLAG_CAN_MULTI_CONN, "multi"},
        {1u << 9, "resize"},
        {NBD_FLAG_SEND_CACHE, "cache"},
        {NBD_FLAG_SEND_FAST_ZERO, "fast-zero"},
    };

    printf("  flags: 0x%" PRIx32 " (", flags);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (flags & names[i].flag)
            printf(" %s", names[i].name);
    }
    printf(" )\n");
}

static void print_export(const struct nbd_listed_export *export)
{
    const struct nbd_export_info *info = &export->info;

    printf(" export: '%s'\n", export->name);
    if (info->description && *info->description)
        printf("  description: %s\n", info->description);
    if (!export->has_info)
        return;
    printf("  size:  %" PRIu64 "\n", info->size);
    print_flags(info->flags);
    if (info->has_block_size) {
        printf("  min block: %" PRIu32 "\n", info->min_block);
        printf("  opt block: %" PRIu32 "\n", info->preferred_block);
        printf("  max block: %" PRIu32 "\n", info->max_block);
    }
    if (export->contexts->len) {
        printf("  available meta contexts: %u\n", export->contexts->len);
        for (unsigned i = 0; i < export->contexts->len; i++)
            printf("   %s\n", (const char *)g_ptr_array_index(export->contexts, i));
    }
}

static struct stream *CO_FN co_dial(const struct nbd_program *program, struct error **err)
{
    struct socket_endpoint endpoint = {.family = SOCKET_INET, .host = program->bind, .port = program->port};
    int fd;

    if (program->socket)
        endpoint = (struct socket_endpoint){.family = SOCKET_UNIX, .path = program->socket};
    fd = co_socket_dial(&endpoint, err);
    return fd < 0 ? NULL : stream_new_socket(fd);
}

bool co_nbd_list(struct nbd_program *program, struct error **err)
{
    struct nbd_handshake_options options = {.export = "", .no_extended_headers = true};
    AUTO(stream) stream = NULL;
    GPtrArray *exports = NULL;

    if (program->tls_creds) {
        options.tls_creds =
            tls_creds_hold(program->tool->objects, program->tls_creds, Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT, err);
        if (!options.tls_creds)
            return error_prefix(err, "Failed to get TLS creds: ");
        options.tls_hostname = program->tls_hostname;
        if (!options.tls_hostname && !program->socket)
            options.tls_hostname = program->bind;
    }
    stream = co_dial(program, err);
    if (stream)
        exports = co_nbd_client_list(&stream, &options, err);
    object_release(options.tls_creds);
    if (!exports)
        return false;
    printf("exports available: %u\n", exports->len);
    for (unsigned i = 0; i < exports->len; i++)
        print_export(g_ptr_array_index(exports, i));
    g_ptr_array_unref(exports);
    return true;
}
