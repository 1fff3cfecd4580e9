/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A plan gives out pieces in the order of their places: data to be read, zeroes to be written, and what needs nothing
 * is passed by. Workers, several on each of two loops, take pieces and carry them out, each from reading to writing:
 * what has just been read is in the cache of that processor.
 *
 * Keeps: (1) each byte of the source is in one piece, or passed by; (2) data pieces lie in one source, and begin at
 * multiples of `unit`; (3) unless any order will do, the write of a piece starts when those of all pieces before it
 * have started, so that formats that allocate lay data out in order.
 */
#include "bin/img-copy.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/io-vector.h"
#include "base/log.h"
#include "base/units.h"
#include "block/handle.h"
#include "cli/progress.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum {
    PIECE_BYTES = 1024 * 1024, /* smaller ones cost more calls and smaller folios of the page cache */
    COROUTINES_DEFAULT = 8,
    TURNS = 16, /* as many as pieces at the same time, at least */
    SECTOR = 512,
};
/* Below this, another thread costs more than it brings. */
#define SECOND_LOOP_BYTES (UINT64_C(16) << 20)
#define ZEROES_BYTES_MAX (UINT64_C(1) << 30)
#define STATUS_BYTES_MAX (UINT64_C(1) << 40)
/* Of room that is asked for beforehand. */
#define RESERVE_BYTES_FIRST (UINT64_C(4) << 20)
#define RESERVE_BYTES_MAX (UINT64_C(64) << 20)

enum piece_kind { PIECE_DATA, PIECE_ZEROES, PIECE_NOTHING };

struct piece {
    enum piece_kind kind;
    struct handle *source;
    uint64_t source_offset;
    uint64_t offset; /* in the target */
    uint64_t bytes;
    uint64_t number; /* of pieces that write */
    bool holds_room; /* the target holds room for it: what is not written wants to be zeroed */
};

/* What failed, for the message. */
enum failure { FAILURE_NONE, FAILURE_STATUS, FAILURE_READ, FAILURE_WRITE };

struct run {
    const struct img_copy *copy;
    uint64_t piece_bytes;
    struct loop *main_loop;
    int64_t started_ns;

    struct co_mutex lock;             /* of the following, to `failed_at` */
    uint64_t at;                      /* how far pieces have been given out */
    unsigned source;                  /* `at` lies in it ... */
    uint64_t source_start;            /* ... which starts here */
    struct piece extent;              /* from `at` on, known already; bytes 0: nothing */
    uint64_t numbers;                 /* given out */
    uint64_t started;                 /* writes of all pieces below have started */
    struct co_condition turns[TURNS]; /* of the pieces by number: each wakes the next alone */
    uint64_t reserved_to;             /* room has been asked for up to there ... */
    bool holds_room;                  /* ... and lies there */
    bool no_reserve;                  /* it has been tried in vain */
    enum failure failure;
    int result;
    uint64_t failed_at;

    uint64_t done;   /* atomic, bytes */
    uint64_t clean;  /* atomic: bytes of data since the last in which zeroes were found */
    bool no_offload; /* atomic: it has been tried in vain */
};

/* --- the plan; all under run->lock --- */

static void fail(struct run *run, enum failure failure, int result, uint64_t offset)
{
    if (run->failure == FAILURE_NONE) {
        run->failure = failure;
        run->result = result;
        run->failed_at = offset;
    }
    for (unsigned i = 0; i < TURNS; i++)
        co_condition_broadcast(&run->turns[i]);
}

static bool skip_to_source(struct run *run)
{
    const struct img_copy *copy = run->copy;

    while (run->source < copy->source_count &&
           run->at >= run->source_start + handle_length(copy->sources[run->source])) {
        run->source_start += handle_length(copy->sources[run->source]);
        run->source++;
    }
    return run->source < copy->source_count;
}

static bool is_zero_already(const struct img_copy *copy, uint64_t offset)
{
    return copy->target_is_zero && offset >= copy->backing_length;
}

/* Whether one of the layers that are copied has the place; its length in *bytes. */
static int CO_FN co_is_in_layers(struct run *run, struct handle *source, uint64_t offset, uint64_t *bytes)
{
    uint64_t length;
    int depth = co_handle_allocation_depth(source, offset, *bytes, &length);

    if (depth < 0)
        return depth;
    *bytes = MIN(*bytes, length);
    return depth >= 1 && (unsigned)depth <= run->copy->layers;
}

/* What the bytes at run->at are, up to `bytes` of them. */
static int CO_FN co_find_kind(struct run *run, struct handle *source, uint64_t offset, uint64_t bytes,
                              enum piece_kind *ret_kind, uint64_t *ret_bytes)
{
    const struct img_copy *copy = run->copy;
    struct block_extent extent;
    int result;

    if (run->at < copy->backing_length)
        bytes = MIN(bytes, copy->backing_length - run->at);
    if (copy->layers && run->at < copy->backing_length) {
        result = co_is_in_layers(run, source, offset, &bytes);
        if (result < 0)
            return result;
        if (!result) {
            *ret_kind = PIECE_NOTHING;
            *ret_bytes = bytes;
            return 0;
        }
    }
    result = co_handle_block_status(source, offset, bytes, &extent);
    if (result < 0)
        return result;
    *ret_bytes = extent.bytes;
    *ret_kind = PIECE_DATA;
    if (extent.flags & BLOCK_ZERO && copy->sparse)
        *ret_kind = is_zero_already(copy, run->at) ? PIECE_NOTHING : PIECE_ZEROES;
    return 0;
}

/* Fills run->extent with what lies at run->at. Where there is a unit, an extent ends at one of its multiples, with data
 * where a part of that is data. */
static int CO_FN co_look(struct run *run)
{
    const struct img_copy *copy = run->copy;
    struct handle *source = copy->sources[run->source];
    uint64_t offset = run->at - run->source_start;
    uint64_t left = MIN(handle_length(source) - offset, copy->length - run->at);
    enum piece_kind kind;
    uint64_t bytes;
    int result = co_find_kind(run, source, offset, MIN(left, STATUS_BYTES_MAX), &kind, &bytes);

    if (result == -ENOMEM || (result < 0 && !copy->salvage))
        return result;
    if (result < 0) {
        kind = PIECE_DATA;
        bytes = MIN(left, run->piece_bytes);
    }
    if (copy->unit && bytes < left) {
        uint64_t end = align_down(run->at + bytes, copy->unit);

        if (end <= run->at) {
            kind = PIECE_DATA;
            end = run->at + copy->unit;
        }
        bytes = MIN(end - run->at, left);
    }
    run->extent = (struct piece){
        .kind = kind,
        .source = source,
        .source_offset = offset,
        .offset = run->at,
        .bytes = bytes,
    };
    return 0;
}

static void note_done(struct run *run, uint64_t bytes)
{
    __atomic_fetch_add(&run->done, bytes, __ATOMIC_RELAXED);
}

/*
 * Room for the data from `piece` on, as far as that is known to go on: for the target that is cheaper than to take it
 * bit by bit. The more zeroes turn up in the data, the less is asked for, since what stays unused must be given back.
 */
static void CO_FN co_reserve(struct run *run, struct piece *piece)
{
    const struct img_copy *copy = run->copy;
    uint64_t bytes = MIN(piece->bytes + run->extent.bytes, RESERVE_BYTES_MAX);
    int result;

    if (piece->offset >= run->reserved_to && !run->no_reserve) {
        bytes = MIN(bytes, __atomic_load_n(&run->clean, __ATOMIC_RELAXED));
        result = bytes ? co_handle_reserve(copy->target, piece->offset, bytes) : 0;
        run->no_reserve = result < 0;
        run->holds_room = result > 0;
        run->reserved_to = piece->offset + bytes;
    }
    piece->holds_room = run->holds_room && piece->offset < run->reserved_to;
}

/* The next piece that asks for work; false: there is none, or something has failed. */
static bool CO_FN co_next_piece(struct run *run, struct piece *ret)
{
    const struct img_copy *copy = run->copy;
    uint64_t limit;

    while (run->at < copy->length && run->failure == FAILURE_NONE) {
        if (!run->extent.bytes) {
            int result = skip_to_source(run) ? co_look(run) : -EIO;

            if (result < 0) {
                fail(run, FAILURE_STATUS, result, run->at);
                return false;
            }
        }
        *ret = run->extent;
        limit = ret->kind == PIECE_DATA ? run->piece_bytes : ret->kind == PIECE_ZEROES ? ZEROES_BYTES_MAX : UINT64_MAX;
        if (ret->bytes > limit)
            ret->bytes = limit - (ret->kind == PIECE_DATA ? ret->offset % limit : 0);
        run->at += ret->bytes;
        run->extent.bytes -= ret->bytes;
        run->extent.offset += ret->bytes;
        run->extent.source_offset += ret->bytes;
        if (ret->kind == PIECE_DATA && is_zero_already(copy, ret->offset) && !copy->compressed && !copy->offload)
            co_reserve(run, ret);
        if (ret->kind != PIECE_NOTHING) {
            ret->number = run->numbers++;
            return true;
        }
        note_done(run, ret->bytes);
    }
    return false;
}

/* --- carrying out --- */

static bool CO_FN co_take_piece(struct run *run, struct piece *ret)
{
    bool found;

    co_mutex_lock(&run->lock);
    found = co_next_piece(run, ret);
    co_mutex_unlock(&run->lock);
    return found;
}

static void CO_FN co_note_failure(struct run *run, enum failure failure, int result, uint64_t offset)
{
    co_mutex_lock(&run->lock);
    fail(run, failure, result, offset);
    co_mutex_unlock(&run->lock);
}

/* Until all pieces before have started; false: something has failed. */
static bool CO_FN co_await_turn(struct run *run, const struct piece *piece)
{
    bool ok;

    if (run->copy->any_order)
        return true;
    co_mutex_lock(&run->lock);
    while (run->started != piece->number && run->failure == FAILURE_NONE)
        co_condition_wait_always(&run->turns[piece->number % TURNS], &run->lock);
    ok = run->failure == FAILURE_NONE;
    if (ok) {
        run->started++;
        co_condition_signal(&run->turns[run->started % TURNS]);
    }
    co_mutex_unlock(&run->lock);
    return ok;
}

static int CO_FN co_write_zeroes(struct run *run, uint64_t offset, uint64_t bytes)
{
    return co_handle_pwrite_zeroes(run->copy->target, offset, bytes, IO_MAY_UNMAP);
}

/* The length of the run of units at `data`, all of the same kind; whether they are zero in *ret_zero. */
static uint64_t run_length(const uint8_t *data, uint64_t bytes, uint64_t unit, bool *ret_zero)
{
    uint64_t length = MIN(unit, bytes);
    bool zero = memory_is_zero(data, length);

    while (length < bytes && memory_is_zero(data + length, MIN(unit, bytes - length)) == zero)
        length += MIN(unit, bytes - length);
    *ret_zero = zero;
    return length;
}

/* Zero runs become holes, or stay them. */
static int CO_FN co_write_data(struct run *run, const struct piece *piece, const uint8_t *data)
{
    const struct img_copy *copy = run->copy;
    uint64_t unit = MAX(copy->sparse, copy->unit);
    bool only_data = true;
    uint64_t done = 0;

    while (done < piece->bytes) {
        uint64_t bytes = piece->bytes - done;
        bool zero = false;
        int result = 0;

        if (copy->sparse)
            bytes = run_length(data + done, bytes, unit, &zero);
        if (!zero)
            result = co_handle_pwrite(copy->target, piece->offset + done, bytes, data + done,
                                      copy->compressed ? IO_COMPRESSED : 0);
        else if (piece->holds_room || !is_zero_already(copy, piece->offset + done))
            result = co_write_zeroes(run, piece->offset + done, bytes);
        if (result < 0)
            return result;
        only_data &= !zero;
        done += bytes;
    }
    if (only_data)
        __atomic_fetch_add(&run->clean, piece->bytes, __ATOMIC_RELAXED);
    else
        __atomic_store_n(&run->clean, 0, __ATOMIC_RELAXED);
    return 0;
}

/* Sector by sector, as far as it can be read. */
static void CO_FN co_read_salvaging(struct run *run, const struct piece *piece, uint8_t *to)
{
    for (uint64_t done = 0; done < piece->bytes; done += SECTOR) {
        uint64_t bytes = MIN(SECTOR, piece->bytes - done);
        int result = co_handle_pread(piece->source, piece->source_offset + done, bytes, to + done, 0);

        if (!result)
            continue;
        if (!run->copy->quiet) {
            if (run->copy->progress)
                progress_make_way(run->copy->progress, false);
            log_warning("error while reading offset %" PRIu64 ": %s", piece->offset + done, g_strerror(-result));
        }
        memset(to + done, 0, bytes);
    }
}

static bool CO_FN co_copy_data(struct run *run, const struct piece *piece, uint8_t *buffer)
{
    int result = co_handle_pread(piece->source, piece->source_offset, piece->bytes, buffer, 0);

    if (result < 0 && run->copy->salvage)
        co_read_salvaging(run, piece, buffer);
    if (result < 0 && !run->copy->salvage) {
        co_note_failure(run, FAILURE_READ, result, piece->offset);
        return false;
    }
    if (!co_await_turn(run, piece))
        return false;
    result = co_write_data(run, piece, buffer);
    if (result < 0)
        co_note_failure(run, FAILURE_WRITE, result, piece->offset);
    return !result;
}

/* Where the storage copies by itself: 0, or else -errno and nothing is known of the range. */
static int CO_FN co_offload(struct run *run, const struct piece *piece)
{
    int result;

    if (!run->copy->offload || __atomic_load_n(&run->no_offload, __ATOMIC_RELAXED))
        return -ENOTSUP;
    result = co_handle_copy_range(piece->source, piece->source_offset, run->copy->target, piece->offset, piece->bytes,
                                  IO_NO_FALLBACK);
    if (result < 0)
        __atomic_store_n(&run->no_offload, true, __ATOMIC_RELAXED);
    return result;
}

static bool CO_FN co_do_piece(struct run *run, const struct piece *piece, uint8_t *buffer)
{
    int result;

    assert(piece->kind != PIECE_NOTHING);
    if (piece->kind == PIECE_ZEROES) {
        if (!co_await_turn(run, piece))
            return false;
        result = co_write_zeroes(run, piece->offset, piece->bytes);
        if (result < 0)
            co_note_failure(run, FAILURE_WRITE, result, piece->offset);
        return !result;
    }
    if (run->copy->offload && !co_offload(run, piece))
        return co_await_turn(run, piece);
    return co_copy_data(run, piece, buffer);
}

/* So long that what has been done took as long as the rate says. */
static void CO_FN co_keep_rate(struct run *run)
{
    uint64_t done = __atomic_load_n(&run->done, __ATOMIC_RELAXED);
    double due_ns = (double)done / (double)run->copy->rate * (double)NS_PER_S;
    int64_t ahead_ns = run->started_ns + (int64_t)due_ns - loop_now_ns();

    if (ahead_ns > 0)
        (void)!co_sleep_ns(ahead_ns);
}

/* On the main loop, which has its part of the pieces. */
static void show_progress(struct run *run)
{
    uint64_t done = __atomic_load_n(&run->done, __ATOMIC_RELAXED);

    if (run->copy->progress && loop_current() == run->main_loop && done > run->copy->progress->done)
        progress_add(run->copy->progress, done - run->copy->progress->done);
}

static void CO_FN co_work(void *opaque)
{
    struct run *run = opaque;
    uint8_t *buffer = loop_buffer_get(run->piece_bytes);
    struct piece piece;

    if (!buffer)
        co_note_failure(run, FAILURE_READ, -ENOMEM, 0);
    while (buffer && co_take_piece(run, &piece)) {
        if (!co_do_piece(run, &piece, buffer))
            break;
        note_done(run, piece.bytes);
        show_progress(run);
        if (run->copy->rate)
            co_keep_rate(run);
    }
    if (buffer)
        loop_buffer_put(buffer, run->piece_bytes);
}

/* --- the whole --- */

static bool report(const struct run *run, struct error **err)
{
    switch (run->failure) {
    case FAILURE_NONE:
        return true;
    case FAILURE_STATUS:
        return error_set_errno(err, run->result, "error while reading block status at offset %" PRIu64, run->failed_at);
    case FAILURE_READ:
        return error_set_errno(err, run->result, "error while reading at byte %" PRIu64, run->failed_at);
    case FAILURE_WRITE:
        return error_set_errno(err, run->result, "error while writing at byte %" PRIu64, run->failed_at);
    }
    assert(!"a failure");
    return false;
}

static bool second_thread_pays(const struct img_copy *copy)
{
    return copy->length >= SECOND_LOOP_BYTES && copy->coroutines != 1 && sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

static void CO_FN co_run_workers(struct run *run)
{
    unsigned count = run->copy->coroutines ? run->copy->coroutines : COROUTINES_DEFAULT;
    g_autofree struct co_task **tasks = g_new0(struct co_task *, count);
    struct loop_options options = {.name = "copy", .may_block = true};
    struct loop_thread *thread = second_thread_pays(run->copy) ? loop_thread_new(&options, NULL) : NULL;

    for (unsigned i = 0; i < count; i++)
        tasks[i] = co_task_start(thread && i % 2 ? loop_thread_loop(thread) : run->main_loop, co_work, run);
    for (unsigned i = 0; i < count; i++)
        co_task_join(tasks[i]);
    if (thread)
        co_loop_thread_free(thread);
}

bool CO_FN co_img_copy(const struct img_copy *copy, struct error **err)
{
    struct run run = {
        .copy = copy,
        .piece_bytes = MAX(PIECE_BYTES, copy->unit),
        .main_loop = loop_current(),
        .started_ns = loop_now_ns(),
        .clean = RESERVE_BYTES_FIRST,
    };

    assert(!copy->unit || is_power_of_two(copy->unit));
    assert(copy->coroutines <= TURNS);
    if (copy->compressed && copy->unit)
        run.piece_bytes = copy->unit;
    co_run_workers(&run);
    if (run.failure == FAILURE_NONE)
        show_progress(&run);
    co_mutex_done(&run.lock);
    for (unsigned i = 0; i < TURNS; i++)
        co_condition_done(&run.turns[i]);
    return report(&run, err);
}
