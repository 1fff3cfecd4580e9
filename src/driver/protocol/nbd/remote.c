/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The first connection belongs to the main loop, and calls of other loops go there. Where the server says that its
 * connections see each other's writes and flushes (NBD_FLAG_CAN_MULTI_CONN), each further loop that makes calls gets a
 * connection of its own; until it is there, and when it breaks, the first one serves.
 *
 * When the first connection breaks, the connector makes a new one, again and again. Calls wait for `reconnect_delay_s`;
 * after that they fail at once, until there is a connection. All calls of the protocol can be made twice: each says
 * what a range is to hold. A flush that follows on the new connection covers what the server has acknowledged on the
 * old one, as long as the server has not lost it: nobody can tell a server that forgot what it had not flushed.
 *
 * Keeps: (1) `link` and all about connecting are the main loop's; (2) `extras` are guarded by `spin`, the link in one
 * is used on its loop only; (3) a lost link has left its place before anybody waits for the next one.
 */
#include "driver/protocol/nbd/remote.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/trace.h"
#include "base/units.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "object/object.h"
#include "schema/socket-address.h"

enum {
    EXTRAS_MAX = 15,
    ATTEMPTS_MAX = 16, /* of one call: one that brings the server down is not repeated for ever */
    RETRY_FIRST_MS = 50,
    RETRY_WAITING_MS = 500, /* at most, while calls wait */
    RETRY_MAX_MS = 16000,
    ATTEMPT_SECONDS = 30, /* for one connection to be made */
    GOODBYE_SECONDS = 2,
};

enum extra_state { EXTRA_FREE, EXTRA_CONNECTING, EXTRA_READY, EXTRA_FAILED };

/* The connection of a loop that is not the main loop. */
struct extra {
    struct nbd_remote *remote;
    struct loop *loop; /* NULL: the place was never used */
    enum extra_state state;
    struct nbd_link *link;
    struct co_task *task; /* makes, or has made, the connection */
};

struct nbd_remote {
    struct loop *loop;
    struct socket_address *server;
    char *export;
    char *context;
    struct object *tls_creds;
    char *tls_hostname;
    uint32_t reconnect_delay_s;
    struct nbd_handshake_result terms; /* const after the first connection */

    struct nbd_link *link; /* NULL: there is none */
    int64_t lost_ns;       /* when the last one broke */
    bool expired;          /* calls do not wait any more */
    bool hurried;
    bool closing;
    struct co_task *connector;
    struct co_condition changed; /* broadcast when `link` or `expired` changes */
    struct co_condition hurry;   /* wakes the connector */

    struct spin_lock spin;
    struct extra extras[EXTRAS_MAX];
};

const struct nbd_handshake_result *nbd_remote_terms(const struct nbd_remote *remote)
{
    return &remote->terms;
}

/* --- making a connection --- */

static struct nbd_link *CO_FN co_connect_now(struct nbd_remote *remote, struct loop *loop,
                                             struct nbd_handshake_result *ret_terms, struct error **err)
{
    struct nbd_handshake_options options = {
        .export = remote->export,
        .context = remote->context,
        .tls_creds = remote->tls_creds,
        .tls_hostname = remote->tls_hostname,
    };
    struct socket_endpoint endpoint;
    AUTO(stream) stream = NULL;
    int fd;

    if (!socket_address_endpoint(remote->server, &endpoint, err))
        return NULL;
    fd = co_socket_dial(&endpoint, err);
    if (fd < 0)
        return NULL;
    stream = stream_new_socket(fd);
    if (!co_nbd_client_handshake(&stream, &options, ret_terms, err))
        return NULL;
    return nbd_link_new(TAKE(stream), loop, ret_terms->mode, ret_terms->info.context_id);
}

static struct nbd_link *CO_FN co_connect(struct nbd_remote *remote, struct loop *loop, int64_t limit_ns,
                                         struct nbd_handshake_result *ret_terms, struct error **err)
{
    struct co_deadline deadline;
    struct nbd_link *link;

    co_deadline_begin(&deadline, limit_ns);
    link = co_connect_now(remote, loop, ret_terms, err);
    co_deadline_end(&deadline);
    return link;
}

/* Whether calls that were made for the first connection can go to one with these terms. */
static bool check_terms(const struct nbd_remote *remote, const struct nbd_handshake_result *terms, struct error **err)
{
    const uint32_t features = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |
                              NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO;
    const struct nbd_export_info *old = &remote->terms.info, *new = &terms->info;

    if (new->size != old->size)
        return error_set(err, "the size of the export has changed from %" PRIu64 " to %" PRIu64, old->size, new->size);
    if ((new->flags &NBD_FLAG_READ_ONLY) && !(old->flags & NBD_FLAG_READ_ONLY))
        return error_set(err, "the export has become read-only");
    if ((old->flags & ~new->flags &features) || terms->mode < remote->terms.mode ||
        new->has_context != old->has_context)
        return error_set(err, "the server can do less than before");
    if (new->has_block_size &&
        (!old->has_block_size || new->min_block > old->min_block || new->max_block < old->max_block))
        return error_set(err, "the block sizes of the export have changed");
    return true;
}

static struct nbd_link *CO_FN co_connect_again(struct nbd_remote *remote, struct loop *loop, int64_t limit_ns,
                                               struct error **err)
{
    struct nbd_handshake_result terms = {0};
    struct nbd_link *link = co_connect(remote, loop, limit_ns, &terms, err);

    if (link && !check_terms(remote, &terms, err)) {
        nbd_link_unref(link);
        link = NULL;
    }
    nbd_export_info_clear(&terms.info);
    return link;
}

/* --- the first connection --- */

static void expire(struct nbd_remote *remote)
{
    remote->expired = true;
    co_condition_broadcast(&remote->changed);
}

static int64_t waiting_left_ns(const struct nbd_remote *remote)
{
    return remote->lost_ns + remote->reconnect_delay_s * NS_PER_S - loop_now_ns();
}

/* Sleeps before the next attempt: not beyond the end of the calls' patience, and less while somebody waits. */
static void CO_FN co_pause(struct nbd_remote *remote, int64_t *backoff_ms)
{
    int64_t pause_ns = *backoff_ms * NS_PER_MS;
    struct co_deadline deadline;

    if (!remote->expired)
        pause_ns = MIN(MIN(pause_ns, RETRY_WAITING_MS * NS_PER_MS), MAX(waiting_left_ns(remote), 0) + 1);
    if (remote->hurried)
        pause_ns = MIN(pause_ns, RETRY_FIRST_MS * NS_PER_MS);
    *backoff_ms = MIN(*backoff_ms * 2, RETRY_MAX_MS);
    co_deadline_begin(&deadline, pause_ns);
    (void)!co_condition_wait(&remote->hurry, NULL);
    co_deadline_end(&deadline);
}

static void CO_FN co_run_connector(void *opaque)
{
    struct nbd_remote *remote = opaque;
    int64_t backoff_ms = RETRY_FIRST_MS;

    while (!co_cancelled()) {
        int64_t limit_ns = ATTEMPT_SECONDS * NS_PER_S;
        AUTO(error) error = NULL;

        if (!remote->expired)
            limit_ns = MIN(limit_ns, MAX(waiting_left_ns(remote), NS_PER_S));
        remote->link = co_connect_again(remote, remote->loop, limit_ns, &error);
        if (remote->link) {
            TRACE(nbd_client_reconnected, "remote %p", (void *)remote);
            remote->expired = false;
            co_condition_broadcast(&remote->changed);
            return;
        }
        TRACE(nbd_client_reconnect_failed, "remote %p: %s", (void *)remote, error_message(error));
        if (!remote->expired && waiting_left_ns(remote) <= 0)
            expire(remote);
        co_pause(remote, &backoff_ms);
    }
}

/* Extra connections that could not be made may be tried again. */
static void forgive_extras(struct nbd_remote *remote)
{
    spin_lock(&remote->spin);
    for (unsigned i = 0; i < EXTRAS_MAX; i++) {
        if (remote->extras[i].state == EXTRA_FAILED)
            remote->extras[i].state = EXTRA_FREE;
    }
    spin_unlock(&remote->spin);
}

/* `link` has broken: it is replaced, unless that has begun. */
static void give_up_link(struct nbd_remote *remote, struct nbd_link *link)
{
    if (remote->link != link)
        return;
    remote->link = NULL;
    nbd_link_unref(link);
    remote->lost_ns = loop_now_ns();
    remote->expired = !remote->reconnect_delay_s;
    forgive_extras(remote);
    co_condition_broadcast(&remote->changed);
    if (remote->connector)
        co_task_detach(TAKE(remote->connector));
    /* A connected descriptor that was handed over cannot be connected again. */
    if (remote->server->type == SOCKET_ADDRESS_TYPE_FD)
        expire(remote);
    else if (!remote->closing)
        remote->connector = co_task_start(remote->loop, co_run_connector, remote);
}

static bool CO_FN co_wait_for_link(struct nbd_remote *remote)
{
    while (!remote->link && !remote->expired)
        co_condition_wait_always(&remote->changed, NULL);
    return remote->link;
}

static int CO_FN co_call_first(struct nbd_remote *remote, struct nbd_transfer *transfer)
{
    for (unsigned i = 0; i < ATTEMPTS_MAX && co_wait_for_link(remote); i++) {
        struct nbd_link *link = nbd_link_ref(remote->link);
        int ret = co_nbd_link_call(link, transfer);

        if (ret == NBD_LINK_LOST)
            give_up_link(remote, link);
        nbd_link_unref(link);
        if (ret != NBD_LINK_LOST)
            return ret;
        if (!remote->reconnect_delay_s)
            break;
    }
    return -EIO;
}

/* --- extra connections --- */

static void CO_FN co_connect_extra(void *opaque)
{
    struct extra *extra = opaque;
    struct nbd_remote *remote = extra->remote;
    AUTO(error) error = NULL;
    struct nbd_link *link = co_connect_again(remote, extra->loop, ATTEMPT_SECONDS * NS_PER_S, &error);

    TRACE(nbd_client_extra, "remote %p: %s", (void *)remote, link ? "connected" : error_message(error));
    spin_lock(&remote->spin);
    assert(extra->state == EXTRA_CONNECTING);
    extra->link = link;
    extra->state = link ? EXTRA_READY : EXTRA_FAILED;
    spin_unlock(&remote->spin);
}

/* The place of the calling loop, a new one if need be; NULL: all are taken. Under `spin`. */
static struct extra *find_extra(struct nbd_remote *remote)
{
    struct loop *loop = loop_current();
    unsigned i;

    for (i = 0; i < EXTRAS_MAX && remote->extras[i].loop; i++) {
        if (remote->extras[i].loop == loop)
            return &remote->extras[i];
    }
    if (i == EXTRAS_MAX)
        return NULL;
    remote->extras[i].remote = remote;
    remote->extras[i].loop = loop;
    return &remote->extras[i];
}

/* The calling loop's own connection with a reference; NULL: it has none, but may get one. */
static struct nbd_link *acquire_extra(struct nbd_remote *remote)
{
    struct nbd_link *link = NULL;
    struct co_task *past = NULL;
    struct extra *extra;

    if (!(remote->terms.info.flags & NBD_FLAG_CAN_MULTI_CONN) || remote->server->type == SOCKET_ADDRESS_TYPE_FD)
        return NULL;
    spin_lock(&remote->spin);
    extra = find_extra(remote);
    if (extra && extra->state == EXTRA_READY) {
        link = nbd_link_ref(extra->link);
    } else if (extra && extra->state == EXTRA_FREE) {
        past = TAKE(extra->task);
        extra->state = EXTRA_CONNECTING;
        extra->task = co_task_start(remote->loop, co_connect_extra, extra);
    }
    spin_unlock(&remote->spin);
    if (past)
        co_task_detach(past);
    return link;
}

static void give_up_extra(struct nbd_remote *remote, struct nbd_link *link)
{
    struct nbd_link *lost = NULL;

    spin_lock(&remote->spin);
    for (unsigned i = 0; i < EXTRAS_MAX; i++) {
        if (remote->extras[i].link == link) {
            lost = TAKE(remote->extras[i].link);
            remote->extras[i].state = EXTRA_FREE;
        }
    }
    spin_unlock(&remote->spin);
    nbd_link_unref(lost);
}

int co_nbd_remote_call(struct nbd_remote *remote, struct nbd_transfer *transfer)
{
    struct loop *home = loop_current();
    struct nbd_link *link = home == remote->loop ? NULL : acquire_extra(remote);
    int ret;

    if (link) {
        ret = co_nbd_link_call(link, transfer);
        if (ret == NBD_LINK_LOST)
            give_up_extra(remote, link);
        nbd_link_unref(link);
        if (ret != NBD_LINK_LOST)
            return ret;
        if (!remote->reconnect_delay_s)
            return -EIO;
    }
    co_move_to(remote->loop);
    ret = co_call_first(remote, transfer);
    co_move_to(home);
    return ret;
}

/* --- the whole --- */

void nbd_remote_hurry(struct nbd_remote *remote, bool hurry)
{
    remote->hurried = hurry;
    if (hurry)
        co_condition_broadcast(&remote->hurry);
}

void nbd_remote_set_reconnect_delay(struct nbd_remote *remote, uint32_t seconds)
{
    assert(loop_current() == remote->loop);
    remote->reconnect_delay_s = seconds;
    if (!remote->link)
        remote->expired = waiting_left_ns(remote) <= 0;
}

static void remote_free(struct nbd_remote *remote)
{
    assert(!remote->link);
    nbd_export_info_clear(&remote->terms.info);
    co_condition_done(&remote->changed);
    co_condition_done(&remote->hurry);
    object_release(remote->tls_creds);
    socket_address_free(remote->server);
    g_free(remote->export);
    g_free(remote->context);
    g_free(remote->tls_hostname);
    g_free(remote);
}

static bool CO_FN co_open(struct nbd_remote *remote, uint32_t timeout_s, struct error **err)
{
    int64_t until_ns = loop_now_ns() + timeout_s * NS_PER_S;
    int64_t backoff_ms = RETRY_FIRST_MS;

    for (;;) {
        int64_t left_ns = until_ns - loop_now_ns();
        int64_t limit_ns = timeout_s ? MAX(left_ns, NS_PER_S) : ATTEMPT_SECONDS * NS_PER_S;
        AUTO(error) error = NULL;

        remote->link = co_connect(remote, remote->loop, limit_ns, &remote->terms, &error);
        if (remote->link)
            return true;
        left_ns = until_ns - loop_now_ns();
        if (left_ns <= 0 || co_sleep_ns(MIN(left_ns, backoff_ms * NS_PER_MS)) < 0)
            return error_move(err, TAKE(error));
        backoff_ms = MIN(backoff_ms * 2, RETRY_WAITING_MS);
    }
}

struct nbd_remote *co_nbd_remote_new(const struct nbd_remote_options *options, struct error **err)
{
    struct nbd_remote *remote = g_new0(struct nbd_remote, 1);

    remote->loop = loop_current();
    remote->server = socket_address_clone(options->server);
    remote->export = g_strdup(options->export);
    remote->context = g_strdup(options->context);
    remote->tls_creds = options->tls_creds ? object_hold(options->tls_creds) : NULL;
    remote->tls_hostname = g_strdup(options->tls_hostname);
    remote->reconnect_delay_s = options->reconnect_delay_s;
    if (co_open(remote, options->open_timeout_s, err))
        return remote;
    remote_free(remote);
    return NULL;
}

static void CO_FN co_end_link(struct nbd_link *link)
{
    struct co_deadline deadline;

    if (!link)
        return;
    co_deadline_begin(&deadline, GOODBYE_SECONDS * NS_PER_S);
    co_nbd_link_goodbye(link);
    co_deadline_end(&deadline);
    nbd_link_unref(link);
}

void co_nbd_remote_free(struct nbd_remote *remote)
{
    if (!remote)
        return;
    assert(loop_current() == remote->loop);
    remote->closing = true;
    if (remote->connector)
        co_task_cancel(remote->connector);
    co_task_join(TAKE(remote->connector));
    for (unsigned i = 0; i < EXTRAS_MAX; i++) {
        struct extra *extra = &remote->extras[i];

        if (extra->task)
            co_task_cancel(extra->task);
        co_task_join(TAKE(extra->task));
        co_end_link(TAKE(extra->link));
    }
    co_end_link(TAKE(remote->link));
    remote_free(remote);
}
