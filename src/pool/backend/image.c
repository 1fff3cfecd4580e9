/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A volume's image as the block library sees it: options in JSON, as blockdev-create and blockdev-add take them. Keys
 * of encrypted images are secret objects that live as long as the operation.
 */
#include "pool/backend/image.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "block/permission.h"
#include "gen/types.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "object/object.h"
#include "pool/image-header.h"
#include "pool/pool-error.h"
#include "pool/pool-secret.h"
#include "pool/storage-internal.h"
#include "schema/json.h"

enum { KIB = 1024, COPY_WORKERS = 4, COPY_PIECE = 16 * 1024 * 1024, COPY_BUFFER = 1024 * 1024, COPY_UNIT = 16 * 1024 };

/* --- keys --- */

/* The id of a secret object with the value, to be given to co_drop_key(); owned. NULL: *err. */
static char *CO_FN co_add_key(struct storage *storage, const struct secret_value *value, struct pool_error **err)
{
    g_autofree char *data = g_base64_encode(value->data, value->size);
    struct object_options options = {.qom_type = OBJECT_TYPE_SECRET};
    struct error *error = NULL;
    uint64_t number;

    loop_random_bytes(&number, sizeof(number));
    options.id = g_strdup_printf("volume-key-%016llx", (unsigned long long)number);
    options.u.secret =
        (struct secret_properties){.has_format = true, .format = Q_CRYPTO_SECRET_FORMAT_BASE64, .data = data};
    if (!co_object_add(graph_objects(storage->graph), &options, &error)) {
        g_clear_pointer(&options.id, g_free);
        pool_error_from(err, error);
    }
    explicit_bzero(data, strlen(data));
    return options.id;
}

static void CO_FN co_drop_key(struct storage *storage, char *id)
{
    if (id)
        (void)!co_object_delete(graph_objects(storage->graph), id, NULL);
    g_free(id);
}

/* The key that opens `volume`. */
static char *CO_FN co_key_of(struct storage *storage, struct pool *pool, struct volume *volume, struct pool_error **err)
{
    const struct secret_reference *secret;
    AUTO(secret_value) value = NULL;

    co_image_find_secret(pool, volume);
    if (!storage->secrets || !volume->target.encryption->secret_count) {
        pool_error_set(err, POOL_ERROR_INVALID_ARG, "no secret is known for the encrypted volume '%s'", volume->name);
        return NULL;
    }
    secret = &volume->target.encryption->secrets[0];
    value = co_pool_secret_get(storage->secrets, secret->has_uuid ? secret->uuid : NULL, SECRET_USAGE_VOLUME,
                               secret->usage, err);
    return value ? co_add_key(storage, value, err) : NULL;
}

void CO_FN co_image_find_secret(struct pool *pool, struct volume *volume)
{
    struct volume_encryption *encryption = volume->target.encryption;
    struct pool_secrets *secrets = pool->storage->secrets;
    struct secret_reference found = {.has_uuid = true};

    if (!encryption || encryption->secret_count || !secrets ||
        !co_pool_secret_find(secrets, SECRET_USAGE_VOLUME, volume->target.path, found.uuid))
        return;
    /* Asking took its time, and somebody else may have asked as well. */
    encryption = volume->target.encryption;
    if (!encryption || encryption->secret_count)
        return;
    encryption->secrets = g_new0(struct secret_reference, 1);
    encryption->secrets[0] = found;
    encryption->secret_count = 1;
}

/* --- what may be made --- */

/* The name by which the block library knows the format; NULL: it is none of ours. */
static const struct block_driver *find_driver(const char *name)
{
    for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, name))
            return *driver;
    }
    return NULL;
}

static const char *format_name(const struct pool *pool, const struct volume *volume)
{
    const struct pool_type_info *info = pool_type_info(pool->def->type);

    return info->volume_features ? info->volume_formats[volume->target.format] : "raw";
}

static bool is_qcow2(const struct pool *pool, const struct volume *volume)
{
    return !strcmp(format_name(pool, volume), "qcow2");
}

static bool check_encryption(const struct pool *pool, const struct volume *volume, struct pool_error **err)
{
    const struct volume_encryption *encryption = volume->target.encryption;
    const char *format = format_name(pool, volume);

    if (!encryption)
        return true;
    if (encryption->format != ENCRYPTION_LUKS)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "creation of volume '%s': its encryption format is not 'luks'", volume->name);
    if (strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "volume encryption unsupported with format %s",
                              format);
    return encryption->secret_count == 1 ||
           pool_error_set(err, POOL_ERROR_INVALID_ARG,
                          "A single <secret type='passphrase'...> element is expected in encryption description");
}

static bool check_options(const struct pool *pool, const struct volume *volume, unsigned flags, struct pool_error **err)
{
    const struct volume_target *target = &volume->target;
    bool preallocate = flags & VOLUME_CREATE_PREALLOC_METADATA;

    if (preallocate && !is_qcow2(pool, volume))
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "metadata preallocation only available with qcow2");
    if (target->compat && !is_qcow2(pool, volume))
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "compatibility option only available with qcow2");
    if (target->has_features && !is_qcow2(pool, volume))
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "format features only available with qcow2");
    if (target->compat && strcmp(target->compat, "0.10") != 0 && strcmp(target->compat, "1.1") != 0)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "compatibility level '%s' of volume '%s' is unknown",
                              target->compat, volume->name);
    if (target->features && target->compat && !strcmp(target->compat, "0.10"))
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "format features are not available with compat level %s", target->compat);
    if (preallocate && volume->backing)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "metadata preallocation conflicts with backing store");
    return true;
}

/* The format by which the image below is read. */
static const char *backing_format(const struct pool *pool, const struct volume *volume)
{
    const char *format =
        pool_type_info(pool->def->type)->volume_features ? volume_format_names[volume->backing->format] : "raw";

    return strcmp(format, "iso") ? format : "raw";
}

/* A look at the image below. */
struct backing_look {
    const char *path;
    bool raw; /* whatever is in it, it is all data */
    uint64_t capacity;
    struct stat status;
};

static int look_at_backing(void *opaque)
{
    struct backing_look *look = opaque;
    AUTO(fd) fd = open(look->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct image_header header;
    int ret;

    if (fd < 0 || fstat(fd, &look->status))
        return -errno;
    ret = image_header_read(fd, &header);
    if (ret)
        return ret;
    look->capacity = header.has_capacity && !look->raw ? header.capacity : (uint64_t)look->status.st_size;
    image_header_clear(&header);
    return 0;
}

static bool CO_FN co_check_backing(const struct pool *pool, struct volume *volume, struct pool_error **err)
{
    g_autofree char *path = NULL;
    struct backing_look look;
    int ret;

    if (!volume->backing)
        return true;
    path = *volume->backing->path == '/' ? g_strdup(volume->backing->path)
                                         : g_build_filename(pool->def->target_path, volume->backing->path, NULL);
    look = (struct backing_look){.path = path, .raw = !strcmp(backing_format(pool, volume), "raw")};
    ret = co_worker_run(look_at_backing, &look);
    if (ret)
        return pool_error_set_errno(err, ret, "inaccessible backing store volume %s", volume->backing->path);
    volume_target_from_stat(volume->backing, &look.status);
    if (!volume->has_capacity)
        volume->capacity = look.capacity;
    return true;
}

bool CO_FN co_image_check(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err)
{
    const struct block_driver *driver = find_driver(format_name(pool, volume));

    if (!check_encryption(pool, volume, err) || !check_options(pool, volume, flags, err))
        return false;
    if (!driver || (strcmp(driver->name, "raw") != 0 && (!driver->image || !driver->image->co_create)))
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "volume '%s' cannot be made: there is no driver that writes images of format '%s'",
                              volume->name, format_name(pool, volume));
    if (volume->backing && !is_qcow2(pool, volume))
        return pool_error_set(err, POOL_ERROR_NO_SUPPORT, "backing storage not supported for %s volumes",
                              format_name(pool, volume));
    return co_check_backing(pool, volume, err);
}

/* --- making --- */

/* The file or device that holds the image. */
static struct json *file_options(const struct volume *volume)
{
    struct json *file = json_object();

    json_set(file, "driver", json_string(volume->type == VOLUME_BLOCK ? "host_device" : "file"));
    json_set(file, "filename", json_string(volume->new_path ? volume->new_path : volume->target.path));
    return file;
}

static void set_word(struct json *options, const char *member, const char *value)
{
    if (value)
        json_set(options, member, json_string(value));
}

/* What the volume says of its cipher, else what LUKS usually has. */
static void set_cipher(struct json *options, const struct volume_encryption *encryption)
{
    g_autofree char *cipher = NULL;

    if (encryption->cipher_name && strchr(encryption->cipher_name, '-'))
        cipher = g_strdup(encryption->cipher_name);
    else if (encryption->cipher_name)
        cipher = g_strdup_printf("%s-%u", encryption->cipher_name, encryption->cipher_size);
    set_word(options, "cipher-alg", cipher);
    set_word(options, "cipher-mode", encryption->cipher_mode);
    set_word(options, "hash-alg", encryption->cipher_hash);
    set_word(options, "ivgen-alg", encryption->ivgen_name);
    set_word(options, "ivgen-hash-alg", encryption->ivgen_hash);
}

static void set_backing(struct json *options, const struct pool *pool, const struct volume *volume)
{
    if (!volume->backing)
        return;
    json_set(options, "backing-file", json_string(volume->backing->path));
    json_set(options, "backing-fmt", json_string(backing_format(pool, volume)));
}

static struct json *qcow2_options(const struct pool *pool, const struct volume *volume, unsigned flags, const char *key)
{
    const struct volume_target *target = &volume->target;
    struct json *options = json_object();

    json_set(options, "driver", json_string("qcow2"));
    json_set(options, "version", json_string(target->compat && !strcmp(target->compat, "0.10") ? "v2" : "v3"));
    if (target->cluster_size)
        json_set(options, "cluster-size", json_uint(target->cluster_size));
    if (target->features & VOLUME_LAZY_REFCOUNTS)
        json_set(options, "lazy-refcounts", json_bool(true));
    if (target->features & VOLUME_EXTENDED_L2)
        json_set(options, "extended-l2", json_bool(true));
    if (flags & VOLUME_CREATE_PREALLOC_METADATA)
        json_set(options, "preallocation", json_string(volume->capacity > volume->allocation ? "metadata" : "falloc"));
    set_backing(options, pool, volume);
    if (key) {
        struct json *encrypt = json_object();

        json_set(encrypt, "format", json_string("luks"));
        json_set(encrypt, "key-secret", json_string(key));
        set_cipher(encrypt, target->encryption);
        json_set(options, "encrypt", encrypt);
    }
    return options;
}

static struct json *create_options(const struct pool *pool, const struct volume *volume, unsigned flags,
                                   const char *key)
{
    struct json *options;

    if (is_qcow2(pool, volume))
        return qcow2_options(pool, volume, flags, key);
    options = json_object();
    json_set(options, "driver", json_string(key ? "luks" : format_name(pool, volume)));
    if (key) {
        json_set(options, "key-secret", json_string(key));
        set_cipher(options, volume->target.encryption);
    }
    return options;
}

bool CO_FN co_image_make(struct pool *pool, struct volume *volume, unsigned flags, struct pool_error **err)
{
    struct storage *storage = pool->storage;
    char *key = volume->target.encryption ? co_key_of(storage, pool, volume, err) : NULL;
    AUTO(json) object = NULL;
    AUTO(blockdev_create_options) options = NULL;
    struct error *error = NULL;
    bool ok;

    if (volume->target.encryption && !key)
        return false;
    object = create_options(pool, volume, flags, key);
    json_set(object, "file", file_options(volume));
    json_set(object, "size", json_uint(align_up(volume->capacity, KIB)));
    options = blockdev_create_options_parse(object, &error);
    ok = options &&
         find_driver(json_get_string(json_get(object, "driver")))->image->co_create(storage->graph, options, &error);
    co_drop_key(storage, key);
    return ok || pool_error_from(err, error);
}

/* --- opening --- */

/* An image that is open, with the key that this took. */
struct open_image {
    struct storage *storage;
    struct handle *handle;
    char *key;
};

static void CO_FN co_close(struct open_image *image)
{
    co_handle_free(image->handle);
    co_drop_key(image->storage, image->key);
}

static struct json *open_options(const struct pool *pool, const struct volume *volume, const char *key, bool writable)
{
    const char *format = format_name(pool, volume);
    struct json *options = json_object();

    if (!strcmp(format, "iso"))
        format = "raw";
    if (key && !strcmp(format, "raw"))
        format = "luks";
    json_set(options, "driver", json_string(format));
    json_set(options, "file", file_options(volume));
    json_set(options, "read-only", json_bool(!writable));
    if (writable)
        json_set(options, "discard", json_string("unmap"));
    if (key && !strcmp(format, "luks")) {
        json_set(options, "key-secret", json_string(key));
    } else if (key) {
        struct json *encrypt = json_object();

        json_set(encrypt, "format", json_string("luks"));
        json_set(encrypt, "key-secret", json_string(key));
        json_set(options, "encrypt", encrypt);
    }
    return options;
}

static bool CO_FN co_open(struct pool *pool, struct volume *volume, bool writable, struct open_image *ret,
                          struct pool_error **err)
{
    struct storage *storage = pool->storage;
    struct handle_options how = {
        .name = "the volume",
        .perm = PERM_CONSISTENT_READ | (writable ? PERM_WRITE | PERM_RESIZE : 0),
        .shared = PERM_ALL,
        .follows_length = true,
    };
    AUTO(json) options = NULL;
    AUTO(blockdev_ref) ref = NULL;
    struct error *error = NULL;

    *ret = (struct open_image){.storage = storage};
    if (volume->target.encryption) {
        ret->key = co_key_of(storage, pool, volume, err);
        if (!ret->key)
            return false;
    }
    options = open_options(pool, volume, ret->key, writable);
    ref = blockdev_ref_parse(options, &error);
    ret->handle = ref ? co_graph_open(storage->graph, ref, &how, &error) : NULL;
    if (ret->handle)
        return true;
    co_drop_key(storage, TAKE(ret->key));
    error_prefix(&error, "volume '%s': ", volume->name);
    return pool_error_from(err, error);
}

/* --- resizing --- */

bool CO_FN co_image_resize(struct pool *pool, struct volume *volume, uint64_t capacity, struct pool_error **err)
{
    struct truncate_request request = {.length = align_up(capacity, NODE_LENGTH_ALIGNMENT), .exact = true};
    struct open_image image;
    struct error *error = NULL;
    int ret;

    if (!co_open(pool, volume, true, &image, err))
        return false;
    ret = co_handle_truncate_as(image.handle, &request, &error);
    if (!ret)
        ret = co_handle_flush(image.handle);
    co_close(&image);
    if (!ret)
        return true;
    return error ? pool_error_from(err, error)
                 : pool_error_set_errno(err, ret, "cannot resize volume '%s'", volume->name);
}

/* --- copying --- */

/* Shared by those who copy; all on the main loop. */
struct copying {
    const struct storage *storage;
    struct handle *from, *to;
    uint64_t length;
    uint64_t next;
    bool is_zero; /* the target reads as zeroes where nothing was written */
    bool sparse;  /* zeroes that the source has as data are looked for, too */
    int error;
};

static bool is_all_zero(const uint8_t *data, size_t size)
{
    return !data[0] && !memcmp(data, data + 1, size - 1);
}

/* The units of the buffer that are not zero, in runs. */
static int CO_FN co_write_runs(const struct copying *copying, const uint8_t *buffer, uint64_t offset, size_t size)
{
    size_t at = 0;
    int ret = 0;

    while (!ret && at < size) {
        size_t end = at;

        while (end < size && !is_all_zero(buffer + end, MIN(COPY_UNIT, size - end)))
            end += MIN(COPY_UNIT, size - end);
        if (end > at)
            ret = co_handle_pwrite(copying->to, offset + at, end - at, buffer + at, 0);
        at = end;
        while (at < size && is_all_zero(buffer + at, MIN(COPY_UNIT, size - at)))
            at += MIN(COPY_UNIT, size - at);
    }
    return ret;
}

static int CO_FN co_copy_looking(const struct copying *copying, uint64_t offset, uint64_t bytes)
{
    void *buffer = loop_buffer_get(COPY_BUFFER);
    int ret = buffer ? 0 : -ENOMEM;

    for (uint64_t done = 0; !ret && done < bytes; done += COPY_BUFFER) {
        size_t size = MIN(COPY_BUFFER, bytes - done);

        ret = co_handle_pread(copying->from, offset + done, size, buffer, 0);
        if (!ret)
            ret = co_write_runs(copying, buffer, offset + done, size);
    }
    if (buffer)
        loop_buffer_put(buffer, COPY_BUFFER);
    return ret;
}

static int CO_FN co_copy_piece(const struct copying *copying, uint64_t offset, uint64_t bytes)
{
    struct block_extent extent;
    int ret = 0;

    for (uint64_t done = 0; !ret && done < bytes; done += extent.bytes) {
        ret = co_handle_block_status(copying->from, offset + done, bytes - done, &extent);
        if (ret || (extent.flags & BLOCK_ZERO && copying->is_zero))
            continue;
        if (copying->sparse)
            ret = co_copy_looking(copying, offset + done, extent.bytes);
        else
            ret = co_handle_copy_range(copying->from, offset + done, copying->to, offset + done, extent.bytes, 0);
    }
    return ret;
}

static void CO_FN co_copy_pieces(void *opaque)
{
    struct copying *copying = opaque;

    while (!copying->error && copying->next < copying->length) {
        uint64_t offset = copying->next;
        uint64_t bytes = MIN(COPY_PIECE, copying->length - offset);
        int ret;

        copying->next += bytes;
        ret = copying->storage->closing ? -ECANCELED : co_copy_piece(copying, offset, bytes);
        if (ret && !copying->error)
            copying->error = ret;
    }
}

static int CO_FN co_copy_all(struct copying *copying)
{
    struct co_task *tasks[COPY_WORKERS];

    for (unsigned i = 0; i < COPY_WORKERS; i++)
        tasks[i] = co_task_start(loop_current(), co_copy_pieces, copying);
    for (unsigned i = 0; i < COPY_WORKERS; i++)
        co_task_join(tasks[i]);
    return copying->error ? copying->error : co_handle_flush(copying->to);
}

bool CO_FN co_image_copy(struct pool *pool, struct volume *volume, struct pool *source_pool, struct volume *source,
                         struct pool_error **err)
{
    struct open_image from;
    struct open_image to;
    /* A sparse logical volume has room for what its source has, not for zeroes; one that has an origin shows that. */
    bool is_empty = volume->type == VOLUME_FILE || (volume->sparse && !volume->backing);
    struct copying copying = {.is_zero = is_empty && !volume->target.encryption};
    int ret;

    if (!co_open(source_pool, source, false, &from, err))
        return false;
    if (!co_open(pool, volume, true, &to, err)) {
        co_close(&from);
        return false;
    }
    copying.storage = pool->storage;
    copying.from = from.handle;
    copying.to = to.handle;
    copying.length = handle_length(from.handle);
    copying.sparse = copying.is_zero && (is_qcow2(pool, volume) || volume->allocation < source->capacity);
    ret = co_copy_all(&copying);
    co_close(&to);
    co_close(&from);
    if (ret == -ECANCELED)
        return pool_error_set(err, POOL_ERROR_ABORTED, "volume '%s' is not copied yet, and the daemon is about to end",
                              source->name);
    return !ret ||
           pool_error_set_errno(err, ret, "cannot copy volume '%s' to '%s'", source->target.path, volume->target.path);
}
