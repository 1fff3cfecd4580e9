/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making LUKS volumes: the space first, then keys, and the header last. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "driver/format/luks-keys.h"
#include "driver/format/luks/luks.h"
#include "schema/json.h"

struct creation {
    const struct blockdev_create_options_luks *options;
    struct q_crypto_block_create_options_luks keys; /* borrows from `options` */
    struct luks_header header;
    struct handle *file;        /* NULL: the header alone is made */
    struct handle *header_file; /* NULL: `file` */
};

static struct q_crypto_block_create_options_luks key_options(const struct blockdev_create_options_luks *options)
{
    return (struct q_crypto_block_create_options_luks){
        .key_secret = options->key_secret,
        .has_cipher_alg = options->has_cipher_alg,
        .cipher_alg = options->cipher_alg,
        .has_cipher_mode = options->has_cipher_mode,
        .cipher_mode = options->cipher_mode,
        .has_ivgen_alg = options->has_ivgen_alg,
        .ivgen_alg = options->ivgen_alg,
        .has_ivgen_hash_alg = options->has_ivgen_hash_alg,
        .ivgen_hash_alg = options->ivgen_hash_alg,
        .has_hash_alg = options->has_hash_alg,
        .hash_alg = options->hash_alg,
        .has_iter_time = options->has_iter_time,
        .iter_time = options->iter_time,
    };
}

static int CO_FN co_handle_io_read(void *opaque, uint64_t offset, void *to, size_t size)
{
    return co_handle_pread(opaque, offset, size, to, 0);
}

static int CO_FN co_handle_io_write(void *opaque, uint64_t offset, const void *from, size_t size)
{
    return co_handle_pwrite(opaque, offset, size, from, 0);
}

static int CO_FN co_handle_io_flush(void *opaque)
{
    return co_handle_flush(opaque);
}

/* Files lose what they held; of devices, which keep their length, the first `clear` bytes are zeroed. */
static bool CO_FN co_make_room(struct handle *handle, uint64_t length, uint64_t clear, enum prealloc_mode preallocation,
                               struct error **err)
{
    struct truncate_request empty = {.length = 0};
    struct truncate_request room = {.length = length, .preallocation = preallocation};

    if (co_handle_truncate_as(handle, &empty, err))
        return false;
    uint64_t stale = handle_length(handle);
    if (stale < length && co_handle_truncate_as(handle, &room, err))
        return false;
    int result = co_handle_pwrite_zeroes(handle, 0, stale < clear ? stale : clear, IO_MAY_UNMAP);
    return !result || error_set_errno(err, result, "Could not clear the space of the LUKS header");
}

static bool CO_FN co_creation_open(struct creation *creation, struct graph *graph, struct error **err)
{
    const struct blockdev_create_options_luks *options = creation->options;
    struct handle_options handle_options = {.name = "blockdev-create",
                                            .perm = PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE,
                                            .shared = PERM_ALL,
                                            .follows_length = true};

    if (options->file) {
        creation->file = co_graph_open(graph, options->file, &handle_options, err);
        if (!creation->file)
            return false;
    }
    if (options->header) {
        /* Two handles that resize the same node would be one volume writing over itself. */
        handle_options.shared = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED;
        creation->header_file = co_graph_open(graph, options->header, &handle_options, err);
    }
    return !options->header || creation->header_file;
}

static bool CO_FN co_creation_run(struct creation *creation, struct graph *graph, struct error **err)
{
    const struct blockdev_create_options_luks *options = creation->options;
    enum prealloc_mode preallocation = options->has_preallocation ? options->preallocation : PREALLOC_MODE_OFF;
    uint64_t end = luks_header_end(&creation->header);
    uint64_t payload = creation->header.payload_offset;
    struct luks_io io = {
        .co_read = co_handle_io_read,
        .co_write = co_handle_io_write,
        .co_flush = co_handle_io_flush,
        .opaque = creation->header_file ? creation->header_file : creation->file,
        .detached = creation->header_file != NULL,
    };

    /* The volume has no metadata that could be allocated. */
    if (preallocation == PREALLOC_MODE_METADATA)
        preallocation = PREALLOC_MODE_OFF;
    if (creation->file && !co_make_room(creation->file, payload + options->size, payload, preallocation, err))
        return error_prefix(err, "Could not resize the file: ");
    if (creation->header_file && !co_make_room(creation->header_file, end, end, PREALLOC_MODE_OFF, err))
        return error_prefix(err, "Could not resize the header's file: ");
    return co_luks_format_by_options(&io, &creation->header, &creation->keys, graph_objects(graph), "key-secret", err);
}

static bool check_options(const struct blockdev_create_options_luks *options, const struct luks_header *header,
                          struct error **err)
{
    if (!options->file && !options->header)
        return error_set(err, "Either the parameter 'header' or 'file' must be specified");
    if (!options->file && options->has_preallocation && options->preallocation != PREALLOC_MODE_OFF)
        return error_set(err, "Parameter 'preallocation' requires 'file' to be specified for formatting LUKS disk");
    if (options->size > NODE_LENGTH_MAX - header->payload_offset)
        return error_set_errno(err, EFBIG, "The requested file size is too large: %" PRIu64 " bytes", options->size);
    return true;
}

bool CO_FN luks_co_create(struct graph *graph, const struct blockdev_create_options *all, struct error **err)
{
    struct creation creation = {.options = &all->u.luks, .keys = key_options(&all->u.luks)};
    struct luks_secret secret = {0};

    /* Before anything is lost. */
    if (!luks_secret_get(graph_objects(graph), creation.keys.key_secret, "key-secret", &secret, err))
        return false;
    luks_secret_free(&secret);
    if (!luks_header_from_options(&creation.keys, creation.options->header != NULL, &creation.header, err) ||
        !check_options(creation.options, &creation.header, err))
        return false;
    bool ok = co_creation_open(&creation, graph, err) && co_creation_run(&creation, graph, err);
    co_handle_free(creation.header_file);
    co_handle_free(creation.file);
    return ok;
}

struct block_measure_info *CO_FN luks_co_measure(const struct blockdev_create_options *all, struct handle *source,
                                                 uint64_t size, struct error **err)
{
    const struct blockdev_create_options_luks *options = &all->u.luks;
    struct q_crypto_block_create_options_luks keys = key_options(options);
    struct luks_header header;

    if (!options->key_secret) {
        error_set(err, "Parameter 'key-secret' is required for cipher");
        return NULL;
    }
    if (!luks_header_from_options(&keys, options->header != NULL, &header, err))
        return NULL;
    if (source)
        size = handle_length(source);
    if (size > NODE_LENGTH_MAX - header.payload_offset) {
        error_set_errno(err, EFBIG, "The requested file size is too large: %" PRIu64 " bytes", size);
        return NULL;
    }
    struct block_measure_info *info = g_new0(struct block_measure_info, 1);
    info->required = (int64_t)(header.payload_offset + size);
    info->fully_allocated = info->required;
    return info;
}

/* "detached-header=on": the file that is made is the header, and there is no other. */
bool luks_translate(struct json *object, const char *name, const char *value, struct error **err)
{
    if (strcmp(name, "detached-header") != 0)
        return error_set(err, "Invalid parameter '%s'", name);
    if (!strcmp(value, "off"))
        return true;
    if (strcmp(value, "on") != 0)
        return error_set(err, "Parameter 'detached-header' expects 'on' or 'off'");
    struct json *file = json_take(object, "file");
    if (file)
        json_set(object, "header", file);
    return true;
}

const struct image_option luks_image_options[] = {
    {"size", IMAGE_OPTION_SIZE, "Virtual disk size", "size"},
    {"key-secret", IMAGE_OPTION_STRING, "ID of the secret that provides the keyslot passphrase", "key-secret"},
    {"cipher-alg", IMAGE_OPTION_STRING, "Name of encryption cipher algorithm", "cipher-alg"},
    {"cipher-mode", IMAGE_OPTION_STRING, "Name of encryption cipher mode", "cipher-mode"},
    {"ivgen-alg", IMAGE_OPTION_STRING, "Name of IV generator algorithm", "ivgen-alg"},
    {"ivgen-hash-alg", IMAGE_OPTION_STRING, "Name of IV generator hash algorithm", "ivgen-hash-alg"},
    {"hash-alg", IMAGE_OPTION_STRING, "Name of encryption hash algorithm", "hash-alg"},
    {"iter-time", IMAGE_OPTION_NUMBER, "Time to spend in PBKDF in milliseconds", "iter-time", .amendable = true},
    {"detached-header", IMAGE_OPTION_BOOL, "Create a detached LUKS header", NULL},
    {"state", IMAGE_OPTION_STRING, "Select new state of affected keyslots (active/inactive)", "state",
     .amendable = true, .amend_only = true},
    {"new-secret", IMAGE_OPTION_STRING, "New secret to set in the matching keyslots. Empty string to erase",
     "new-secret", .amendable = true, .amend_only = true},
    {"old-secret", IMAGE_OPTION_STRING, "Select all keyslots that match this password", "old-secret", .amendable = true,
     .amend_only = true},
    {"keyslot", IMAGE_OPTION_NUMBER, "Select a single keyslot to modify explicitly", "keyslot", .amendable = true,
     .amend_only = true},
    {NULL},
};
