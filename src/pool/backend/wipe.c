/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zeroes: a file with holes is cut to nothing and made as long again; else zeroes are written. The others are the
 * patterns of NNSA NAP-14.1-C, DoD 5220.22-M, the German BSI, Gutmann (1996), Schneier's "Applied Cryptography", and
 * Pfitzner.
 */
#include "pool/backend/wipe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>

#include "loop/file.h"
#include "loop/loop.h"
#include "pool/pool-error.h"

/* Divisible by three, so that patterns of three bytes go on from piece to piece. */
enum { PIECE_BYTES = 3 * 512 * 1024, BLOCK = 512, ZEROES_BYTES = 1024 * 1024 };

/* --- patterns --- */

static void add(struct wipe_pass *ret, size_t *count, struct wipe_pass pass, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        assert(*count < WIPE_PASSES_MAX);
        ret[(*count)++] = pass;
    }
}

static struct wipe_pass byte_pass(uint8_t value)
{
    return (struct wipe_pass){WIPE_BYTES, {value}, 1};
}

static const struct wipe_pass random_pass = {WIPE_RANDOM, {0}, 0};

/* Passes 5 to 31 of the 35: what upsets the encodings of old disks. */
static void add_gutmann(struct wipe_pass *ret, size_t *count)
{
    static const struct wipe_pass triples[] = {
        {WIPE_BYTES, {0x92, 0x49, 0x24}, 3},
        {WIPE_BYTES, {0x49, 0x24, 0x92}, 3},
        {WIPE_BYTES, {0x24, 0x92, 0x49}, 3},
    };
    static const struct wipe_pass last[] = {
        {WIPE_BYTES, {0x6D, 0xB6, 0xDB}, 3},
        {WIPE_BYTES, {0xB6, 0xDB, 0x6D}, 3},
        {WIPE_BYTES, {0xDB, 0x6D, 0xB6}, 3},
    };

    add(ret, count, random_pass, 4);
    add(ret, count, byte_pass(0x55), 1);
    add(ret, count, byte_pass(0xAA), 1);
    for (size_t i = 0; i < G_N_ELEMENTS(triples); i++)
        add(ret, count, triples[i], 1);
    for (unsigned value = 0; value <= 0xFF; value += 0x11)
        add(ret, count, byte_pass((uint8_t)value), 1);
    for (size_t i = 0; i < G_N_ELEMENTS(triples); i++)
        add(ret, count, triples[i], 1);
    for (size_t i = 0; i < G_N_ELEMENTS(last); i++)
        add(ret, count, last[i], 1);
    add(ret, count, random_pass, 4);
}

static void add_bsi(struct wipe_pass *ret, size_t *count)
{
    add(ret, count, byte_pass(0xFF), 1);
    for (unsigned bit = 0; bit < 8; bit++)
        add(ret, count, byte_pass((uint8_t) ~(1u << bit)), 1);
}

size_t wipe_passes(enum volume_wipe_algorithm algorithm, struct wipe_pass ret[WIPE_PASSES_MAX])
{
    static const struct wipe_pass verify_zeroes = {WIPE_VERIFY, {0}, 1};
    static const struct wipe_pass verify_ones = {WIPE_VERIFY, {0xFF}, 1};
    size_t count = 0;

    switch (algorithm) {
    case VOLUME_WIPE_NNSA:
        add(ret, &count, random_pass, 2);
        add(ret, &count, byte_pass(0), 1);
        add(ret, &count, verify_zeroes, 1);
        break;
    case VOLUME_WIPE_DOD:
        add(ret, &count, random_pass, 1);
        add(ret, &count, byte_pass(0), 1);
        add(ret, &count, byte_pass(0xFF), 1);
        add(ret, &count, verify_ones, 1);
        break;
    case VOLUME_WIPE_BSI:
        add_bsi(ret, &count);
        break;
    case VOLUME_WIPE_GUTMANN:
        add_gutmann(ret, &count);
        break;
    case VOLUME_WIPE_SCHNEIER:
        add(ret, &count, byte_pass(0), 1);
        add(ret, &count, byte_pass(0xFF), 1);
        add(ret, &count, random_pass, 5);
        break;
    case VOLUME_WIPE_PFITZNER7:
        add(ret, &count, random_pass, 7);
        break;
    case VOLUME_WIPE_PFITZNER33:
        add(ret, &count, random_pass, 33);
        break;
    case VOLUME_WIPE_RANDOM:
        add(ret, &count, random_pass, 1);
        break;
    default:
        add(ret, &count, byte_pass(0), 1);
        break;
    }
    return count;
}

void wipe_fill(const struct wipe_pass *pass, uint64_t offset, uint8_t *to, size_t size)
{
    if (pass->kind == WIPE_RANDOM) {
        loop_random_bytes(to, size);
        return;
    }
    if (pass->count == 1) {
        memset(to, pass->bytes[0], size);
        return;
    }
    for (size_t i = 0; i < size; i++)
        to[i] = pass->bytes[(offset + i) % pass->count];
}

/* --- writing --- */

struct wiping {
    const bool *stop;
    int fd;
    uint64_t size; /* bytes */
    uint8_t *buffer;
    uint8_t *expected;
};

struct fill {
    const struct wipe_pass *pass;
    uint64_t offset;
    uint8_t *to;
    size_t size;
};

static int fill(void *opaque)
{
    const struct fill *fill = opaque;

    wipe_fill(fill->pass, fill->offset, fill->to, fill->size);
    return 0;
}

static int CO_FN co_write_pass(const struct wiping *wiping, const struct wipe_pass *pass)
{
    int ret = 0;

    for (uint64_t done = 0; !ret && done < wiping->size; done += PIECE_BYTES) {
        if (*wiping->stop)
            return -ECANCELED;

        struct fill piece = {pass, done, wiping->buffer, MIN(PIECE_BYTES, wiping->size - done)};

        /* Random bytes take their time; a pattern is the same in each piece. */
        if (pass->kind == WIPE_RANDOM || !done)
            (void)co_worker_run(fill, &piece);
        ret = co_file_write_exact(wiping->fd, wiping->buffer, piece.size, done);
    }
    return ret ? ret : co_file_sync(wiping->fd, true);
}

static int CO_FN co_verify_pass(const struct wiping *wiping, const struct wipe_pass *pass)
{
    int ret = 0;

    (void)co_file_advise(wiping->fd, 0, wiping->size, POSIX_FADV_DONTNEED);
    memset(wiping->expected, pass->bytes[0], PIECE_BYTES);
    for (uint64_t done = 0; !ret && done < wiping->size; done += PIECE_BYTES) {
        size_t size = MIN(PIECE_BYTES, wiping->size - done);

        if (*wiping->stop)
            return -ECANCELED;
        ret = co_file_read_exact(wiping->fd, wiping->buffer, size, done);
        if (!ret && memcmp(wiping->buffer, wiping->expected, size) != 0)
            ret = -EIO;
    }
    return ret;
}

static int CO_FN co_run_passes(const struct wiping *wiping, enum volume_wipe_algorithm algorithm)
{
    struct wipe_pass passes[WIPE_PASSES_MAX];
    size_t count = wipe_passes(algorithm, passes);
    int ret = 0;

    for (size_t i = 0; !ret && i < count; i++) {
        if (passes[i].kind == WIPE_VERIFY)
            ret = co_verify_pass(wiping, &passes[i]);
        else
            ret = co_write_pass(wiping, &passes[i]);
    }
    return ret;
}

static int CO_FN co_wipe(struct wiping *wiping, enum volume_wipe_algorithm algorithm)
{
    int ret = -ENOMEM;

    wiping->buffer = loop_buffer_get(PIECE_BYTES);
    wiping->expected = loop_buffer_get(PIECE_BYTES);
    if (wiping->buffer && wiping->expected)
        ret = co_run_passes(wiping, algorithm);
    if (wiping->buffer)
        loop_buffer_put(wiping->buffer, PIECE_BYTES);
    if (wiping->expected)
        loop_buffer_put(wiping->expected, PIECE_BYTES);
    return ret;
}

int co_wipe_range(int fd, uint64_t offset, uint64_t bytes, const bool *stop)
{
    size_t piece = ZEROES_BYTES;
    void *zeroes = loop_buffer_get(piece);
    int ret = zeroes ? 0 : -ENOMEM;

    if (zeroes)
        memset(zeroes, 0, piece);
    for (uint64_t done = 0; !ret && done < bytes; done += piece)
        ret = stop && *stop ? -ECANCELED : co_file_write_exact(fd, zeroes, MIN(piece, bytes - done), offset + done);
    if (zeroes)
        loop_buffer_put(zeroes, piece);
    return ret;
}

/* A file with holes stays one. */
static int CO_FN co_empty(int fd, uint64_t size)
{
    int ret = co_file_truncate(fd, 0);

    if (!ret)
        ret = co_file_truncate(fd, size);
    return ret ? ret : co_file_sync(fd, false);
}

bool CO_FN co_wipe_path(const char *path, enum volume_wipe_algorithm algorithm, const bool *stop,
                        struct pool_error **err)
{
    AUTO(fd) fd = -1;
    struct wiping wiping;
    struct stat status;
    bool is_file;
    int ret;

    if (algorithm == VOLUME_WIPE_TRIM)
        return pool_error_set(err, POOL_ERROR_ARGUMENT_UNSUPPORTED, "'trim' algorithm not supported");
    fd = co_file_open(path, O_RDWR | O_NONBLOCK, 0);
    if (fd < 0)
        return pool_error_set_errno(err, fd, "Failed to open storage volume with path '%s'", path);
    ret = co_file_stat(fd, &status);
    if (ret)
        return pool_error_set_errno(err, ret, "Failed to stat storage volume with path '%s'", path);
    is_file = S_ISREG(status.st_mode);
    wiping = (struct wiping){.stop = stop, .fd = fd, .size = (uint64_t)status.st_size};
    if (!is_file) {
        ret = co_file_ioctl(fd, BLKGETSIZE64, &wiping.size);
        if (ret < 0)
            return pool_error_set_errno(err, ret, "Failed to find the size of '%s'", path);
    }
    if (algorithm == VOLUME_WIPE_ZERO && is_file && (uint64_t)status.st_blocks * BLOCK < wiping.size)
        ret = co_empty(fd, wiping.size);
    else
        ret = co_wipe(&wiping, algorithm);
    if (ret == -ECANCELED)
        return pool_error_set(err, POOL_ERROR_ABORTED, "'%s' is not wiped yet, and the daemon is about to end", path);
    return !ret || pool_error_set_errno(err, ret, "Failed to wipe storage volume with path '%s'", path);
}
