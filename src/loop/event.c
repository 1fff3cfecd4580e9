/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/event.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "loop/loop-internal.h"

/* All is the loop's. In its list of sources while somebody waits. */
struct event_source {
    struct watch watch;
    struct loop *loop;
    const struct event_source_ops *ops;
    void *opaque;
    struct coroutine *waiter;
    bool signalled;
    struct event_source *previous;
    struct event_source *next;
};

static void source_signal(struct event_source *source)
{
    source->signalled = true;
    if (source->waiter)
        co_wake(source->waiter);
}

static void source_ready(struct watch *watch)
{
    source_signal((struct event_source *)watch);
}

/* Event descriptors are of no kind that stat(2) knows; files, which are always ready, are. */
static bool is_event(int fd)
{
    struct stat status;

    return !fstat(fd, &status) && !(status.st_mode & S_IFMT);
}

struct event_source *event_source_new(int fd, const struct event_source_ops *ops, void *opaque, struct error **err)
{
    struct loop *loop = loop_self();
    struct event_source *source;
    int result;

    if (!is_event(fd)) {
        error_set(err, "descriptor %d is no event descriptor", fd);
        return NULL;
    }
    source = g_new0(struct event_source, 1);
    source->watch = (struct watch){.fd = fd, .removable = true, .ready = source_ready};
    source->loop = loop;
    source->ops = ops;
    source->opaque = opaque;
    result = loop->ops->watch(loop, &source->watch);
    if (!result)
        return source;
    error_set_errno(err, result, "descriptor %d cannot be waited for", fd);
    g_free(source);
    return NULL;
}

static void arm(struct event_source *source)
{
    source->waiter = co_self();
    source->previous = NULL;
    source->next = source->loop->sources;
    if (source->next)
        source->next->previous = source;
    source->loop->sources = source;
}

static void disarm(struct event_source *source)
{
    if (source->next)
        source->next->previous = source->previous;
    if (source->previous)
        source->previous->next = source->next;
    else
        source->loop->sources = source->next;
    source->waiter = NULL;
}

int co_event_wait(struct event_source *source)
{
    struct cancellable wait;
    int result;

    CO_ASSERT();
    assert(source->loop == loop_current() && !source->waiter);
    result = cancellable_begin(&wait);
    if (result < 0)
        return result;
    arm(source);
    while (!source->signalled && !source->watch.ended && (result = cancellable_reason(&wait)) == 0)
        co_suspend();
    disarm(source);
    cancellable_end(&wait);
    if (source->signalled) {
        source->signalled = false;
        return source->watch.ended && source->watch.error ? source->watch.error : 0;
    }
    return source->watch.ended ? -EIO : result;
}

void co_event_source_free(struct event_source *source)
{
    if (!source)
        return;
    assert(source->loop == loop_current() && !source->waiter);
    source->waiter = co_self();
    source->watch.ending = true;
    if (!source->watch.ended)
        source->loop->ops->unwatch(source->loop, &source->watch);
    while (!source->watch.ended)
        co_suspend();
    g_free(source);
}

bool event_sources_look(struct loop *loop)
{
    bool found = false;

    for (struct event_source *source = loop->sources; source; source = source->next) {
        if (source->ops && !source->signalled && source->ops->look(source->opaque)) {
            source_signal(source);
            found = true;
        }
    }
    return found;
}

bool event_sources_rest(struct loop *loop)
{
    bool found = false;

    for (struct event_source *source = loop->sources; source; source = source->next) {
        if (source->ops && !source->signalled && source->ops->rest(source->opaque)) {
            source_signal(source);
            found = true;
        }
    }
    return found;
}

bool event_is_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && flags & O_NONBLOCK;
}

void event_signal(int fd, bool nonblocking)
{
    loop_self()->ops->signal(loop_self(), fd, nonblocking);
}
