/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * luks: a disk encrypted sector by sector. Options:
 *  - file: the node with the data, and with the header in front of it, unless there is
 *  - header: the node with the header;
 *  - key-secret: id of the secret object with a passphrase of one of the header's key slots.
 *
 * Its length is that of the file, less what lies before the data, and follows it. What was never written reads as
 * noise. Holes and discards of the file are not passed through: they would tell where there is data.
 *
 * Keeps: (1) only sectors go to and from the file: whole ones, aligned; (2) plain text and keys are in memory only.
 */
#include "driver/format/luks.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/image.h"
#include "block/node.h"
#include "crypto/block-crypt.h"
#include "driver/format/luks-keys.h"
#include "driver/format/luks/luks.h"
#include "driver/format/luks/transfer.h"

static int CO_FN co_header_read(void *opaque, uint64_t offset, void *to, size_t size)
{
    return co_edge_pread(opaque, offset, size, to, 0);
}

static int CO_FN co_header_write(void *opaque, uint64_t offset, const void *from, size_t size)
{
    return co_edge_pwrite(opaque, offset, size, from, 0);
}

static int CO_FN co_header_flush(void *opaque)
{
    return co_edge_flush(opaque);
}

struct luks_io luks_node_io(struct luks_node *luks)
{
    return (struct luks_io){
        .co_read = co_header_read,
        .co_write = co_header_write,
        .co_flush = co_header_flush,
        .opaque = luks->header_file ? luks->header_file : luks->file,
        .detached = luks->header_file != NULL,
    };
}

static bool CO_FN co_add_children(struct node *node, const struct blockdev_options_luks *own, struct error **err)
{
    struct luks_node *luks = node_state(node);
    unsigned role = EDGE_DATA | EDGE_PRIMARY | (own->header ? 0 : EDGE_METADATA);

    luks->file = co_node_add_child(node, "file", own->file, role, err);
    if (!luks->file || !own->header)
        return luks->file;
    luks->header_file = co_node_add_child(node, "header", own->header, EDGE_METADATA, err);
    return luks->header_file;
}

/* What is cut off would read as zeroes, as if somebody had mistyped the passphrase. */
static bool check_lengths(const struct luks_node *luks, struct error **err)
{
    uint64_t file_length = node_length(edge_child(luks->file));
    uint64_t slots_end = luks_slots_end(&luks->header);

    if (luks->payload > file_length)
        return error_set(err, "LUKS payload begins at %" PRIu64 ", beyond the end of the file at %" PRIu64,
                         luks->payload, file_length);
    if (luks->header_file && slots_end > node_length(edge_child(luks->header_file)))
        return error_set(err, "LUKS keyslots end at %" PRIu64 ", beyond the end of the header's file at %" PRIu64,
                         slots_end, node_length(edge_child(luks->header_file)));
    return true;
}

static bool CO_FN luks_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_luks *own = &options->u.luks;
    struct luks_node *luks = node_state(node);

    if (!co_add_children(node, own, err))
        return false;
    struct luks_io io = luks_node_io(luks);
    if (!co_luks_load(&io, &luks->header, err))
        return false;
    luks->payload = luks->header.payload_offset;
    if (!check_lengths(luks, err))
        return false;
    node_set_flags(node, IO_FUA | IO_UNCHANGED, 0);
    if (node_metadata_only(node))
        return true;
    luks->crypt = co_luks_open_crypt(&io, &luks->header, node_objects(node), own->key_secret, "key-secret", err);
    return luks->crypt;
}

static void CO_FN luks_co_close(struct node *node)
{
    struct luks_node *luks = node_state(node);

    block_crypt_free(luks->crypt);
}

static uint64_t luks_length_by_child(const struct node *node, uint64_t child_length)
{
    const struct luks_node *luks = node_state(node);

    return child_length > luks->payload ? child_length - luks->payload : 0;
}

static bool CO_FN luks_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    (void)node;
    (void)err;
    if (limits->request_alignment < BLOCK_CRYPT_SECTOR)
        limits->request_alignment = BLOCK_CRYPT_SECTOR;
    return true;
}

/*
 * The header changes only while key slots do, which asks for PERM_WRITE_UNCHANGED of the node. Otherwise others may use
 * the file in the way in which they may use the data.
 */
static void luks_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm, uint32_t shared,
                                   uint32_t *ret_perm, uint32_t *ret_shared)
{
    uint32_t of_header = PERM_CONSISTENT_READ | (perm & PERM_WRITE_UNCHANGED ? PERM_WRITE : 0);

    (void)node;
    if (edge_role(edge) & EDGE_METADATA)
        perm = edge_role(edge) & EDGE_DATA ? perm | of_header : of_header;
    *ret_perm = perm;
    *ret_shared = edge_role(edge) & EDGE_DATA ? shared : PERM_ALL & ~(uint32_t)PERM_RESIZE;
}

static int CO_FN luks_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    const struct luks_node *luks = node_state(node);
    struct truncate_request of_file = *request;

    if (request->zero) {
        error_set(err, "What is added to a LUKS volume does not read as zeroes");
        return -ENOTSUP;
    }
    if (request->length > NODE_LENGTH_MAX - luks->payload) {
        error_set(err, "The requested file size is too large: %" PRIu64 " bytes after a header of %" PRIu64,
                  request->length, luks->payload);
        return -EFBIG;
    }
    of_file.length += luks->payload;
    return co_edge_truncate(luks->file, &of_file, err);
}

static char *luks_filename(const struct node *node)
{
    const struct luks_node *luks = node_state(node);

    /* Without the key or the header, the name does not say it all. */
    if (node_options(node)->u.luks.key_secret || luks->header_file)
        return NULL;
    return node_plain_filename(edge_child(luks->file));
}

static bool CO_FN luks_co_get_info(struct node *node, struct node_info *ret, struct error **err)
{
    (void)node;
    (void)err;
    *ret = (struct node_info){.encrypted = true};
    return true;
}

static struct image_info_specific *CO_FN luks_co_get_specific_info(struct node *node)
{
    const struct luks_node *luks = node_state(node);
    struct image_info_specific *info = g_new0(struct image_info_specific, 1);

    info->type = IMAGE_INFO_SPECIFIC_KIND_LUKS;
    info->u.luks.data = luks_header_describe(&luks->header, luks->header_file != NULL);
    return info;
}

static int luks_probe(const uint8_t *head, size_t size, const char *filename)
{
    static const uint8_t start[] = {'L', 'U', 'K', 'S', 0xba, 0xbe, 0, 1};

    (void)filename;
    return size >= sizeof(start) && !memcmp(head, start, sizeof(start)) ? 100 : 0;
}

static const struct block_driver_image luks_image = {
    .probe = luks_probe,
    .co_create = luks_co_create,
    .options = luks_image_options,
    .translate = luks_translate,
    .co_measure = luks_co_measure,
    .co_amend = luks_co_amend,
    .co_amend_image = luks_co_amend_image,
};

static const char *const luks_significant_options[] = {"key-secret", NULL};

/* It computes. */
static bool luks_is_near(const struct node *node)
{
    return false;
}

const struct block_driver luks_driver = {
    .name = "luks",
    .kind = BLOCK_DRIVER_FORMAT,
    .state_size = sizeof(struct luks_node),
    .co_open = luks_co_open,
    .co_close = luks_co_close,
    .co_preadv = luks_co_preadv,
    .co_pwritev = luks_co_pwritev,
    .co_truncate = luks_co_truncate,
    .is_near = luks_is_near,
    .length_by_child = luks_length_by_child,
    .co_refresh_limits = luks_co_refresh_limits,
    .child_permissions = luks_child_permissions,
    .filename = luks_filename,
    .significant_options = luks_significant_options,
    .co_get_info = luks_co_get_info,
    .co_get_specific_info = luks_co_get_specific_info,
    .image = &luks_image,
};
