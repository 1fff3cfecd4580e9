/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Amending. All that is wanted is checked before anything is changed; then one step follows the other, what makes more
 * possible first: a newer version at the start, an older one at the end.
 */
#include "driver/format/qcow2/amend.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/image.h"
#include "block/node.h"
#include "driver/format/qcow2/crypt.h"
#include "driver/format/qcow2/info.h"
#include "driver/format/qcow2/qcow2.h"
#include "gen/types.h"
#include "schema/json.h"

enum { SECTOR = 512, PROGRESS_UNITS = 1000 };

struct amendment {
    struct qcow2_image *image;
    struct blockdev_create_options *options;          /* owned */
    const struct blockdev_create_options_qcow2 *want; /* of `options` */
    const struct json *encrypt;                       /* borrowed; NULL: none of it */
    bool has_size;
    unsigned version;
    unsigned refcount_order;
    bool force;
    struct qcow2_amend_progress progress;
};

void qcow2_amend_report(const struct qcow2_amend_progress *progress, uint64_t done, uint64_t total)
{
    uint64_t part = total ? done * PROGRESS_UNITS / total : 0;

    if (progress->progress)
        progress->progress->report(progress->progress, (uint64_t)progress->step * PROGRESS_UNITS + part,
                                   (uint64_t)progress->steps * PROGRESS_UNITS);
}

/* --- what is wanted --- */

/* The options as those of a new image, which knows their types. */
static bool parse_options(struct amendment *amendment, const struct json *given, struct error **err)
{
    AUTO(json) object = json_clone(given);
    const struct json *version = json_get(object, "version");

    amendment->encrypt = json_get(given, "encrypt");
    json_free(json_take(object, "encrypt"));
    if (version && json_get_kind(version) == JSON_STRING && blockdev_qcow2_version_value(json_get_string(version)) < 0)
        return error_set(err, "Unknown compatibility level %s", json_get_string(version));
    amendment->has_size = json_get(object, "size");
    if (!amendment->has_size)
        json_set(object, "size", json_uint(amendment->image->header->size));
    json_set(object, "file", json_string(""));
    json_set(object, "driver", json_string("qcow2"));
    amendment->options = blockdev_create_options_parse_keyval(object, err);
    if (!amendment->options)
        return false;
    amendment->want = &amendment->options->u.qcow2;
    return true;
}

static bool check_refcounts(struct amendment *amendment, struct error **err)
{
    const struct blockdev_create_options_qcow2 *want = amendment->want;
    int64_t bits = want->refcount_bits;

    amendment->version = amendment->image->header->version;
    if (want->has_version)
        amendment->version = want->version == BLOCKDEV_QCOW2_VERSION_V2 ? 2 : 3;
    amendment->refcount_order = amendment->image->header->refcount_order;
    if (want->has_refcount_bits) {
        if (bits < 1 || bits > 64 || !is_power_of_two((uint64_t)bits))
            return error_set(err, "Refcount width must be a power of two and may not exceed 64 bits");
        amendment->refcount_order = (unsigned)__builtin_ctzll((uint64_t)bits);
    }
    if (amendment->version < 3 && want->has_refcount_bits && amendment->refcount_order != QCOW2_REFCOUNT_ORDER_V2)
        return error_set(err, "Refcount widths other than 16 bits require compatibility level 1.1 or above (use "
                              "compat=1.1 or greater)");
    if (amendment->version < 3 && want->has_lazy_refcounts && want->lazy_refcounts)
        return error_set(err, "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or "
                              "greater)");
    return true;
}

/* Data would change with it; but who insists knows that. */
static bool check_backing(const struct amendment *amendment, struct error **err)
{
    const struct blockdev_create_options_qcow2 *want = amendment->want;
    const struct qcow2_header *header = amendment->image->header;
    const char *file = header->backing_file ? header->backing_file : "";
    const char *format = header->backing_format ? header->backing_format : "";

    if (amendment->force)
        return true;
    if ((!want->backing_file || !strcmp(want->backing_file, file)) &&
        (!want->has_backing_fmt || !strcmp(blockdev_driver_name(want->backing_fmt), format)))
        return true;
    error_set(err, "Cannot amend the backing file");
    error_hint(err, "You can use 'rebase' instead.");
    return false;
}

static bool check_data_file(const struct amendment *amendment, struct error **err)
{
    const struct blockdev_create_options_qcow2 *want = amendment->want;

    if (want->data_file && !amendment->image->has_data_file)
        return error_set(err, "data-file can only be set for images that use an external data file");
    if (want->has_data_file_raw && want->data_file_raw)
        return error_set(err, "data-file-raw cannot be set on existing images");
    return true;
}

static bool check(struct amendment *amendment, struct error **err)
{
    const struct qcow2_header *header = amendment->image->header;

    if (!check_refcounts(amendment, err) || !check_backing(amendment, err) || !check_data_file(amendment, err))
        return false;
    if (amendment->encrypt && header->crypt_method == QCOW2_CRYPT_NONE)
        return error_set(err, "Can't amend encryption options - encryption not present");
    if (amendment->has_size && amendment->want->size % SECTOR)
        return error_set(err, "The new size must be a multiple of %d", SECTOR);
    if (amendment->version < header->version)
        return qcow2_amend_downgrade_check(amendment->image, amendment->refcount_order, err);
    return true;
}

/* --- the steps --- */

static bool CO_FN co_set_lazy_refcounts(struct qcow2_image *image, bool lazy, struct error **err)
{
    uint64_t before = image->header->compatible_features;
    int ret = 0;

    if (!lazy) {
        ret = co_qcow2_settle(image);
        if (!ret)
            ret = co_qcow2_mark_clean(image);
    }
    if (!ret) {
        image->header->compatible_features =
            (before & ~(uint64_t)QCOW2_LAZY_REFCOUNTS) | (lazy ? QCOW2_LAZY_REFCOUNTS : 0);
        ret = co_qcow2_header_update_fields(image, true);
    }
    if (ret) {
        image->header->compatible_features = before;
        return error_set_errno(err, ret, "Could not change lazy refcounts");
    }
    image->settings.lazy_refcounts = lazy;
    return true;
}

/* The name alone: where the data is, nothing is changed. An empty one: none is stored. */
static bool CO_FN co_set_data_file(struct amendment *amendment, struct error **err)
{
    struct qcow2_header *header = amendment->image->header;
    const struct blockdev_ref *ref = amendment->want->data_file;
    const char *name = ref->kind == BLOCKDEV_REF_KIND_DEFINITION && ref->u.definition->driver == BLOCKDEV_DRIVER_FILE
                           ? ref->u.definition->u.file.filename
                           : NULL;
    g_autofree char *before = NULL;

    if (!name)
        return error_set(err, "data-file must be the name of a file");
    if (strlen(name) > QCOW2_DATA_FILE_BYTES_MAX)
        return error_set(err, "Name of the data file too long: it has %zu bytes, at most %d", strlen(name),
                         QCOW2_DATA_FILE_BYTES_MAX);
    before = header->data_file;
    header->data_file = *name ? g_strdup(name) : NULL;
    if (!co_qcow2_header_update(amendment->image, true, err))
        return true;
    g_free(header->data_file);
    header->data_file = TAKE(before);
    return false;
}

static bool CO_FN co_clear_data_file_raw(struct qcow2_image *image, struct error **err)
{
    uint64_t before = image->header->autoclear_features;
    int ret;

    image->header->autoclear_features &= ~(uint64_t)QCOW2_DATA_FILE_RAW;
    ret = co_qcow2_header_update_fields(image, true);
    if (ret) {
        image->header->autoclear_features = before;
        return error_set_errno(err, ret, "Could not change data-file-raw");
    }
    image->data_file_raw = false;
    return true;
}

static bool CO_FN co_set_backing(struct amendment *amendment, struct error **err)
{
    const struct blockdev_create_options_qcow2 *want = amendment->want;
    const struct qcow2_header *header = amendment->image->header;
    g_autofree char *file = g_strdup(want->backing_file ? want->backing_file : header->backing_file);
    g_autofree char *format =
        g_strdup(want->has_backing_fmt ? blockdev_driver_name(want->backing_fmt) : header->backing_format);

    return qcow2_co_change_backing_file(amendment->image->node, file, format, err);
}

/* What is a matter of the header. */
static bool CO_FN co_amend_header(struct amendment *amendment, struct error **err)
{
    const struct blockdev_create_options_qcow2 *want = amendment->want;
    struct qcow2_image *image = amendment->image;
    bool lazy = image->header->compatible_features & QCOW2_LAZY_REFCOUNTS;

    if (want->has_lazy_refcounts && want->lazy_refcounts != lazy &&
        !co_set_lazy_refcounts(image, want->lazy_refcounts, err))
        return false;
    if (want->has_data_file_raw && image->data_file_raw && !co_clear_data_file_raw(image, err))
        return false;
    if (want->data_file && !co_set_data_file(amendment, err))
        return false;
    return !(amendment->force && (want->backing_file || want->has_backing_fmt)) || co_set_backing(amendment, err);
}

static bool CO_FN co_run(struct amendment *amendment, struct error **err)
{
    struct qcow2_image *image = amendment->image;

    if (amendment->version > image->header->version && !co_qcow2_amend_upgrade(image, err))
        return false;
    if (amendment->encrypt && !co_qcow2_crypt_amend_image(image, amendment->encrypt, amendment->force, err))
        return false;
    if (amendment->refcount_order != image->header->refcount_order &&
        !co_qcow2_amend_refcount_order(image, amendment->refcount_order, &amendment->progress, err))
        return false;
    amendment->progress.step++;
    if (!co_amend_header(amendment, err))
        return false;
    if (amendment->has_size && amendment->want->size != image->header->size &&
        !co_node_resize(image->node, amendment->want->size, err))
        return false;
    if (amendment->version < image->header->version && !co_qcow2_amend_downgrade(image, &amendment->progress, err))
        return false;
    amendment->progress.step++;
    qcow2_amend_report(&amendment->progress, 0, 0);
    return true;
}

bool CO_FN qcow2_co_amend_image(struct node *node, const struct json *options, bool force,
                                struct image_progress *progress, struct error **err)
{
    struct amendment amendment = {
        .image = qcow2_image_of(node), .force = force, .progress = {.progress = progress, .steps = 2}};
    bool ok;

    if (!amendment.image->writable)
        return error_set(err, "Image is read-only: node '%s'", node_name(node));
    ok = parse_options(&amendment, options, err) && check(&amendment, err) && co_run(&amendment, err);
    blockdev_create_options_free(amendment.options);
    return ok;
}

bool CO_FN qcow2_co_amend(struct node *node, const struct blockdev_amend_options *options, bool force,
                          struct error **err)
{
    struct qcow2_image *image = qcow2_image_of(node);

    if (!options->u.qcow2.encrypt)
        return true;
    if (!image->writable)
        return error_set(err, "Image is read-only: node '%s'", node_name(node));
    return co_qcow2_crypt_amend(image, options->u.qcow2.encrypt, force, err);
}
