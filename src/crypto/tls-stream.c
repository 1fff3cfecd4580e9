/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS over a lower stream: the engine works on buffers, and what is here moves them.
 *
 * Keeps: (1) `mutex` guards the session and `made`, and is not held while the lower stream is waited for; (2) only the
 * reader touches `in`; (3) only who holds `sending` writes to the lower stream, and what an earlier write left in
 * `out` goes before anything newer, so records are never torn or swapped, even by a cancelled write.
 */
#include "crypto/tls-stream.h"
#include "base/units.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "crypto/tls.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/stream.h"

enum {
    IN_BYTES = 64 << 10,      /* received at once */
    BATCH_BYTES = 256 << 10,  /* encrypted at once, before it is sent */
    MADE_BYTES_MAX = 1 << 20, /* not sent, because the peer asks for replies and does not read them */
    KEEP_BYTES = 32 << 10,    /* of memory for records, by a session that has nothing to send */
    GOODBYE_NS = NS_PER_S,    /* for the last words to a peer that does not listen */
};

struct tls_stream {
    struct stream base;
    struct stream *lower;
    const struct tls_engine *engine;
    struct tls_session *session; /* mutex */
    void (*done)(void *opaque);
    void *done_opaque;
    char *(*find_psk)(void *opaque, const char *username); /* during the handshake */
    void *opaque;

    struct co_mutex mutex;
    struct co_mutex sending;
    GByteArray *made; /* mutex: records that the session has made */
    GByteArray *out;  /* sending: records on their way */
    size_t out_sent;  /* sending: so much of `out` is gone */

    uint8_t *in; /* reader: records received; NULL: none yet */
    size_t in_start, in_end;
    size_t in_seen; /* where the session stopped last time, with bytes left */
    bool in_over;   /* the lower stream is at its end */
};

static ssize_t tls_pull(void *opaque, void *to, size_t size)
{
    struct tls_stream *tls = opaque;
    size_t part = MIN(size, tls->in_end - tls->in_start);

    if (!part)
        return tls->in_over ? 0 : -EAGAIN;
    memcpy(to, tls->in + tls->in_start, part);
    tls->in_start += part;
    return (ssize_t)part;
}

static void tls_push(void *opaque, const void *from, size_t size)
{
    struct tls_stream *tls = opaque;

    g_byte_array_append(tls->made, from, (guint)size);
}

static char *tls_find_psk(void *opaque, const char *username)
{
    struct tls_stream *tls = opaque;

    return tls->find_psk ? tls->find_psk(tls->opaque, username) : NULL;
}

/* Sends what is left in `out`. The caller holds `sending`. */
static int CO_FN co_send_rest(struct tls_stream *tls)
{
    while (tls->out_sent < tls->out->len) {
        struct iovec iov = {.iov_base = tls->out->data + tls->out_sent, .iov_len = tls->out->len - tls->out_sent};
        ssize_t sent = tls->lower->ops->co_writev(tls->lower, &iov, 1);

        if (sent < 0)
            return (int)sent;
        tls->out_sent += (size_t)sent;
    }
    tls->out_sent = 0;
    if (tls->out->len <= KEEP_BYTES) {
        g_byte_array_set_size(tls->out, 0);
    } else {
        g_byte_array_free(tls->out, TRUE);
        tls->out = g_byte_array_new();
    }
    return 0;
}

/* Sends all that the session has made. The caller holds `sending`. */
static int CO_FN co_send_made(struct tls_stream *tls)
{
    for (;;) {
        int result = co_send_rest(tls);

        if (result < 0)
            return result;
        co_mutex_lock(&tls->mutex);
        GByteArray *empty = tls->out;
        tls->out = tls->made;
        tls->made = empty;
        co_mutex_unlock(&tls->mutex);
        if (!tls->out->len)
            return 0;
    }
}

static int CO_FN co_flush(struct tls_stream *tls)
{
    co_mutex_lock(&tls->sending);
    int result = co_send_made(tls);
    co_mutex_unlock(&tls->sending);
    return result;
}

/*
 * Has the session go on: 0, also at the end; or -errno. Usually waits for more from the peer; but after a message of
 * the protocol's own, a session may say that it has nothing while there is more to look at. Reader only.
 */
static int CO_FN co_receive(struct tls_stream *tls)
{
    assert(tls->in_start <= tls->in_end);
    if (tls->in_start < tls->in_end) {
        bool moves = tls->in_start != tls->in_seen;

        tls->in_seen = tls->in_start;
        return moves ? 0 : -EPROTO;
    }
    if (!tls->in)
        tls->in = g_malloc(IN_BYTES);
    ssize_t got = co_stream_read(tls->lower, tls->in, IN_BYTES);
    if (got < 0)
        return (int)got;
    tls->in_start = 0;
    tls->in_seen = SIZE_MAX;
    tls->in_end = (size_t)got;
    tls->in_over = got == 0;
    return 0;
}

/*
 * Replies that the session itself has made while reading (to a change of keys, say). A writer that is at work takes
 * them along, so a reader never waits for one.
 */
static int CO_FN co_send_replies(struct tls_stream *tls)
{
    if (!co_mutex_try_lock(&tls->sending))
        return 0;
    int result = co_send_made(tls);
    co_mutex_unlock(&tls->sending);
    return result;
}

/* Fills as much of `iov` as what was received gives: a count, 0 at the end, -EAGAIN for nothing. */
static ssize_t read_received(struct tls_stream *tls, const struct iovec *iov, int count)
{
    ssize_t total = 0;

    for (int i = 0; i < count; i++) {
        for (size_t at = 0; at < iov[i].iov_len;) {
            ssize_t got = tls->engine->read(tls->session, (char *)iov[i].iov_base + at, iov[i].iov_len - at);

            if (got <= 0)
                return total ? total : got;
            at += (size_t)got;
            total += got;
        }
    }
    return total;
}

static ssize_t CO_FN tls_co_readv(struct stream *stream, const struct iovec *iov, int count)
{
    struct tls_stream *tls = (struct tls_stream *)stream;

    for (;;) {
        co_mutex_lock(&tls->mutex);
        ssize_t got = read_received(tls, iov, count);
        size_t replies = tls->made->len;
        co_mutex_unlock(&tls->mutex);
        if (replies > MADE_BYTES_MAX)
            return -EPROTO;
        int result = replies ? co_send_replies(tls) : 0;
        if (got != -EAGAIN)
            return got;
        if (result == 0)
            result = co_receive(tls);
        if (result < 0)
            return result;
    }
}

/* A place in an array of buffers. */
struct cursor {
    const struct iovec *iov;
    int count;
    size_t offset; /* in the first */
};

/* A record's worth of plain text: in place where one buffer has it all, else gathered in `room`. Its size; 0: no more.
 */
static size_t next_record(struct cursor *cursor, char room[TLS_RECORD_BYTES], const char **ret)
{
    size_t size = 0;

    while (cursor->count && size < TLS_RECORD_BYTES) {
        const char *data = (const char *)cursor->iov->iov_base + cursor->offset;
        size_t left = cursor->iov->iov_len - cursor->offset;
        size_t part = MIN(left, TLS_RECORD_BYTES - size);

        if (part == TLS_RECORD_BYTES || (size == 0 && cursor->count == 1)) {
            *ret = data;
            cursor->offset += part;
            return part;
        }
        memcpy(room + size, data, part);
        size += part;
        cursor->offset += part;
        if (part == left) {
            cursor->iov++;
            cursor->count--;
            cursor->offset = 0;
        }
    }
    *ret = room;
    return size;
}

/* Encrypts up to a batch of `iov` into `made`: how much, or -errno. The caller holds `mutex`. */
static ssize_t encrypt(struct tls_stream *tls, const struct iovec *iov, int count, char room[TLS_RECORD_BYTES])
{
    struct cursor cursor = {.iov = iov, .count = count};
    ssize_t total = 0;

    while (total < BATCH_BYTES) {
        const char *data;
        size_t size = next_record(&cursor, room, &data);

        if (!size)
            break;
        for (size_t at = 0; at < size;) {
            ssize_t put = tls->engine->write(tls->session, data + at, size - at);

            if (put <= 0)
                return put ? put : -EPROTO;
            at += (size_t)put;
        }
        total += (ssize_t)size;
    }
    return total;
}

static ssize_t CO_FN tls_co_writev(struct stream *stream, const struct iovec *iov, int count)
{
    struct tls_stream *tls = (struct tls_stream *)stream;
    g_autofree char *room = g_malloc(TLS_RECORD_BYTES);

    co_mutex_lock(&tls->sending);
    int result = co_send_rest(tls);
    ssize_t taken = result;
    if (result == 0) {
        co_mutex_lock(&tls->mutex);
        taken = encrypt(tls, iov, count, room);
        co_mutex_unlock(&tls->mutex);
        result = co_send_made(tls);
    }
    co_mutex_unlock(&tls->sending);
    return taken < 0 || result == 0 ? taken : result;
}

/* Sends what the session has to say last, to a peer that may have stopped listening. */
static void CO_FN co_last_words(struct tls_stream *tls)
{
    struct co_deadline deadline;

    co_deadline_begin(&deadline, GOODBYE_NS);
    (void)co_flush(tls);
    co_deadline_end(&deadline);
}

static void CO_FN tls_co_shutdown(struct stream *stream)
{
    struct tls_stream *tls = (struct tls_stream *)stream;

    co_mutex_lock(&tls->mutex);
    tls->engine->bye(tls->session);
    co_mutex_unlock(&tls->mutex);
    co_last_words(tls);
    co_stream_shutdown(tls->lower);
}

static void tls_abort(struct stream *stream)
{
    struct tls_stream *tls = (struct tls_stream *)stream;

    stream_abort(tls->lower);
}

static void tls_free(struct stream *stream)
{
    struct tls_stream *tls = (struct tls_stream *)stream;

    tls->engine->session_free(tls->session);
    stream_free(tls->lower);
    if (tls->done)
        tls->done(tls->done_opaque);
    g_byte_array_free(tls->made, TRUE);
    g_byte_array_free(tls->out, TRUE);
    co_mutex_done(&tls->mutex);
    co_mutex_done(&tls->sending);
    g_free(tls->in);
    g_free(tls);
}

static const struct stream_ops tls_stream_ops = {
    .co_readv = tls_co_readv,
    .co_writev = tls_co_writev,
    .co_shutdown = tls_co_shutdown,
    .abort = tls_abort,
    .free = tls_free,
};

/* Takes `lower`, whose owner the stream is even where this fails later. */
static struct tls_stream *stream_new(struct stream *lower, const struct tls_stream_options *options)
{
    struct tls_stream *tls = g_new0(struct tls_stream, 1);

    tls->base.ops = &tls_stream_ops;
    tls->base.fd = lower->fd;
    tls->lower = lower;
    tls->engine = options->engine;
    tls->find_psk = options->find_psk;
    tls->opaque = options->opaque;
    tls->done = options->done;
    tls->done_opaque = options->done_opaque;
    tls->made = g_byte_array_new();
    tls->out = g_byte_array_new();
    return tls;
}

static bool CO_FN co_shake_hands(struct tls_stream *tls, struct error **err)
{
    for (;;) {
        int state = tls->engine->handshake(tls->session, err);

        if (state < 0 && state != -EAGAIN)
            return false;
        int result = co_flush(tls);
        if (result == 0 && state == 0)
            return true;
        if (result == 0 && tls->in_over)
            return error_set(err, "TLS handshake failed: the peer hung up");
        if (result == 0)
            result = co_receive(tls);
        if (result < 0)
            return error_set_errno(err, result, "TLS handshake failed");
    }
}

static bool CO_FN co_check_peer(struct tls_stream *tls, const struct tls_stream_options *options, struct error **err)
{
    g_autofree char *identity = NULL;

    if (!tls->engine->verify(tls->session, &identity, err))
        return false;
    if (!options->co_admit || options->co_admit(options->opaque, identity, err))
        return true;
    tls->engine->deny(tls->session);
    return false;
}

struct stream *co_tls_stream_open(struct stream *lower, const struct tls_stream_options *options, struct error **err)
{
    struct tls_stream *tls = stream_new(lower, options);
    struct tls_session_options session = {
        .host_name = options->host_name,
        .pull = tls_pull,
        .push = tls_push,
        .find_psk = tls_find_psk,
        .opaque = tls,
    };

    tls->session = tls->engine->session_new(options->creds, &session, err);
    if (tls->session) {
        bool ok = co_shake_hands(tls, err) && co_check_peer(tls, options, err);

        tls->find_psk = NULL;
        tls->opaque = NULL;
        if (ok)
            return &tls->base;
        co_last_words(tls); /* the alert that says why */
    }
    stream_free(&tls->base);
    return NULL;
}
