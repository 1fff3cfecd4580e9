/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ringbuf, once called memory: keeps the latest output in memory, for ringbuf-read. It has no input. */
#include "chardev/ringbuf.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "chardev/chardev-internal.h"

static const uint64_t ringbuf_size_default = 65536;
static const uint64_t ringbuf_size_max = 1024 * 1024 * 1024;

/* Positions count all bytes ever; they lie in `bytes` at their remainder by `size`. */
struct ringbuf_chardev {
    uint8_t *bytes;
    uint64_t size;
    uint64_t first; /* that is kept */
    uint64_t end;
};

static bool CO_FN co_ringbuf_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    const struct chardev_ringbuf *options =
        backend->type == CHARDEV_BACKEND_KIND_MEMORY ? backend->u.memory.data : backend->u.ringbuf.data;
    struct ringbuf_chardev *ring = chardev->state;

    ring->size = options->has_size && options->size ? options->size : ringbuf_size_default;
    if (!is_power_of_two(ring->size))
        return error_set(err, "size of ringbuf chardev must be power of two");
    if (ring->size > ringbuf_size_max)
        return error_set(err, "size of ringbuf chardev is %" PRIu64 ", it must be at most %" PRIu64, ring->size,
                         ringbuf_size_max);
    ring->bytes = g_try_malloc(ring->size);
    if (!ring->bytes)
        return error_set_errno(err, ENOMEM, "ring buffer of %" PRIu64 " bytes", ring->size);
    chardev_opened(chardev);
    return true;
}

static void CO_FN co_ringbuf_destroy(struct chardev *chardev)
{
    struct ringbuf_chardev *ring = chardev->state;

    g_free(ring->bytes);
}

static void ringbuf_append(struct ringbuf_chardev *ring, const uint8_t *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ring->bytes[(ring->end + i) & (ring->size - 1)] = from[i];
    ring->end += size;
    if (ring->end - ring->first > ring->size)
        ring->first = ring->end - ring->size;
    assert(ring->end >= ring->first);
}

static int CO_FN co_ringbuf_write(struct chardev *chardev, const void *from, size_t size)
{
    ringbuf_append(chardev->state, from, size);
    return 0;
}

/* The ring of a chardev; NULL and the error where it is another kind. */
static struct ringbuf_chardev *ringbuf_find(struct chardev_registry *registry, const char *id, struct error **err)
{
    struct chardev *chardev = chardev_find(registry, id);

    if (!chardev) {
        error_set(err, "Device '%s' not found", id);
        return NULL;
    }
    if (chardev->ops != &chardev_ringbuf_ops && chardev->ops != &chardev_memory_ops) {
        error_set(err, "%s is not a ringbuf device", id);
        return NULL;
    }
    return chardev->state;
}

bool chardev_ringbuf_append(struct chardev_registry *registry, const char *id, const void *from, size_t size,
                            struct error **err)
{
    struct ringbuf_chardev *ring = ringbuf_find(registry, id, err);

    if (!ring)
        return false;
    ringbuf_append(ring, from, size);
    return true;
}

/* How many of the last bytes are the beginning of a character whose rest is missing. */
static size_t utf8_cut_size(const uint8_t *bytes, size_t size)
{
    for (size_t back = 1; back <= MIN(size, (size_t)3); back++) {
        gunichar character;

        if ((bytes[size - back] & 0xc0) == 0x80)
            continue;
        character = g_utf8_get_char_validated((const char *)bytes + size - back, (gssize)back);
        return character == (gunichar)-2 ? back : 0;
    }
    return 0;
}

bool chardev_ringbuf_take(struct chardev_registry *registry, const char *id, const struct ringbuf_read_options *options,
                          uint8_t **ret_bytes, size_t *ret_size, struct error **err)
{
    struct ringbuf_chardev *ring = ringbuf_find(registry, id, err);
    uint8_t *bytes;
    size_t size;

    if (!ring)
        return false;
    size = MIN(options->size, ring->end - ring->first);
    bytes = g_malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        bytes[i] = ring->bytes[(ring->first + i) & (ring->size - 1)];
    if (options->whole_characters && size < ring->end - ring->first) {
        size_t cut = utf8_cut_size(bytes, size);

        /* Something has to come out, or nobody would ever get past it. */
        size -= cut < size ? cut : 0;
    }
    ring->first += size;
    bytes[size] = '\0';
    *ret_bytes = bytes;
    *ret_size = size;
    return true;
}

const struct chardev_ops chardev_ringbuf_ops = {
    .kind = CHARDEV_BACKEND_KIND_RINGBUF,
    .state_size = sizeof(struct ringbuf_chardev),
    .permanent = true,
    .co_create = co_ringbuf_create,
    .co_destroy = co_ringbuf_destroy,
    .co_write = co_ringbuf_write,
};

const struct chardev_ops chardev_memory_ops = {
    .kind = CHARDEV_BACKEND_KIND_MEMORY,
    .state_size = sizeof(struct ringbuf_chardev),
    .permanent = true,
    .co_create = co_ringbuf_create,
    .co_destroy = co_ringbuf_destroy,
    .co_write = co_ringbuf_write,
};
