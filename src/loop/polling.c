/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a loop looks for events before it sleeps. Sleeping and being woken costs both sides many times what a few
 * looks do, and takes long: a wait that a sleeper measures is longer than the event was away. So who sleeps cannot know
 * what polling would have found; a wait that is not much longer than the limit is taken for one that might have been
 * bridged, and polling is tried. And for whom the limit is not enough it looks longer by what being woken takes: that
 * time is lost in any case, and who sleeps late once has the other side sleep, too, and is late again.
 *
 * Polling earns credit by what it finds within the limit. What it finds later costs as much, what it does not find
 * twice that. Without credit it rests, each time twice as long until it has proved good again. So of a client that
 * comes a little later each time than the limit, not one wait in a hundred is polled for in vain; and one that is late
 * now and then is served without sleeping.
 *
 * Where threads wait for processors, polling takes them from others, very likely from those whose events it looks for.
 * The system counts how long our own thread has been ready without running; while that is much, nobody polls.
 */
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/units.h"
#include "loop/loop-internal.h"

enum {
    FIRST_NS = 4000, /* where growing starts */
    GROW_DEFAULT = 2,
    WAKE_NS = 50 * 1000, /* what being woken may add to a wait: in a virtual machine a processor has to be started */
    CREDIT_FIRST = 16,   /* waits that come too late by turns need some time to become short */
    CREDIT_MAX = 32,
    LATE_COSTS = 1,
    MISSED_COSTS = 2,
    REST_MIN = 16, /* waits */
    REST_MAX = 4096,
    WINDOW_NS = 10 * NS_PER_MS, /* so long it is watched how the thread gets on, ... */
    CROWD_NS = 100 * NS_PER_MS, /* ... where it had to wait before */
    CROWDED_PART = 10,          /* of that time */
};

static uint64_t longer(const struct polling *polling, uint64_t max_ns)
{
    uint64_t grow = atomic_load_explicit(&polling->grow, memory_order_relaxed);
    uint64_t longer_ns;

    if (__builtin_mul_overflow(polling->now_ns, grow ? grow : GROW_DEFAULT, &longer_ns) || longer_ns >= max_ns)
        return max_ns + WAKE_NS;
    return longer_ns;
}

static void begin(struct polling *polling, uint64_t now_ns)
{
    if (polling->rest) {
        polling->rest--;
        return;
    }
    polling->now_ns = now_ns;
    polling->credit = CREDIT_FIRST;
}

static void found(struct polling *polling)
{
    polling->credit = MIN(polling->credit + 1, CREDIT_MAX);
    if (polling->credit == CREDIT_MAX)
        polling->next_rest = REST_MIN;
}

static void lose(struct polling *polling, int credit)
{
    uint64_t shrink = atomic_load_explicit(&polling->shrink, memory_order_relaxed);

    if (shrink) {
        polling->now_ns /= shrink;
        return;
    }
    polling->credit -= credit;
    if (polling->credit > 0)
        return;
    polling->now_ns = 0;
    polling->rest = MAX(polling->next_rest, REST_MIN);
    polling->next_rest = MIN(2 * polling->rest, REST_MAX);
}

void polling_adapt(struct polling *polling, uint64_t waited_ns, uint64_t max_ns)
{
    bool near = waited_ns <= max_ns || waited_ns - max_ns <= WAKE_NS;

    /* The limit may have been changed. */
    polling->now_ns = MIN(polling->now_ns, max_ns + WAKE_NS);
    if (!polling->now_ns) {
        if (near)
            begin(polling, waited_ns <= max_ns ? MIN((uint64_t)FIRST_NS, max_ns) : max_ns + WAKE_NS);
    } else if (waited_ns <= MIN(polling->now_ns, max_ns)) {
        found(polling);
    } else if (near && polling->now_ns < max_ns) {
        polling->now_ns = longer(polling, max_ns);
    } else {
        lose(polling, near ? LATE_COSTS : MISSED_COSTS);
    }
}

/*
 * How long the thread has been ready and not run, in ns; 0 where the system does not say. The file is not kept open: it
 * is asked for a hundred times a second at most, and descriptors are for clients.
 */
static uint64_t read_delay(void)
{
    int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    char text[64];
    char *second;
    ssize_t size;

    if (fd < 0)
        return 0;
    size = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[MAX(size, 0)] = '\0';
    /* Time on the processor, time ready, ... */
    (void)strtoull(text, &second, 10);
    return strtoull(second, NULL, 10);
}

void polling_judge(struct polling *polling, int64_t now_ns, uint64_t delay_ns)
{
    uint64_t passed_ns = (uint64_t)(now_ns - polling->judged_ns);

    polling->crowded = polling->judged_ns && delay_ns - polling->delay_ns > passed_ns / CROWDED_PART;
    polling->judged_ns = now_ns;
    polling->delay_ns = delay_ns;
}

bool polling_crowded(struct polling *polling, int64_t now_ns)
{
    if (now_ns - polling->judged_ns >= (polling->crowded ? CROWD_NS : WINDOW_NS))
        polling_judge(polling, now_ns, read_delay());
    return polling->crowded;
}
