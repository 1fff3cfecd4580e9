/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a loop looks for events before it sleeps. Sleeping and being woken costs both sides many times what a few
 * looks do, and takes long: a wait that a sleeper measures is longer than the event was away. So who sleeps cannot know
 * what polling would have found; a wait that is not much longer than the limit is taken for one that might have been
 * bridged, and polling is tried.
 *
 * Polling earns credit by what it finds and loses twice as much by what it does not. Without credit it rests, each time
 * twice as long until it has proved good again. So of a client that comes a little later each time than the limit, not
 * one wait in a hundred is polled for in vain; and one that is late now and then is served without sleeping.
 */
#include <glib.h>

#include "loop/loop-internal.h"

enum {
    FIRST_NS = 4000, /* where growing starts */
    GROW_DEFAULT = 2,
    WAKE_NS = 50 * 1000, /* what being woken may add to a wait: in a virtual machine a processor has to be started */
    CREDIT_FIRST = 4,
    CREDIT_MAX = 16,
    CREDIT_LOST = 2,
    REST_MIN = 16, /* waits */
    REST_MAX = 4096,
};

static uint64_t longer(const struct polling *polling, uint64_t max_ns)
{
    uint64_t grow = atomic_load_explicit(&polling->grow, memory_order_relaxed);
    uint64_t longer_ns;

    if (__builtin_mul_overflow(polling->now_ns, grow ? grow : GROW_DEFAULT, &longer_ns))
        return max_ns;
    return MIN(longer_ns, max_ns);
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

static void missed(struct polling *polling)
{
    uint64_t shrink = atomic_load_explicit(&polling->shrink, memory_order_relaxed);

    if (shrink) {
        polling->now_ns /= shrink;
        return;
    }
    polling->credit -= CREDIT_LOST;
    if (polling->credit > 0)
        return;
    polling->now_ns = 0;
    polling->rest = MAX(polling->next_rest, REST_MIN);
    polling->next_rest = MIN(2 * polling->rest, REST_MAX);
}

void polling_adapt(struct polling *polling, uint64_t waited_ns, uint64_t max_ns)
{
    bool near = waited_ns <= max_ns || waited_ns - max_ns <= WAKE_NS;

    if (!polling->now_ns) {
        if (near)
            begin(polling, waited_ns <= max_ns ? MIN((uint64_t)FIRST_NS, max_ns) : max_ns);
    } else if (waited_ns <= polling->now_ns) {
        found(polling);
    } else if (near && polling->now_ns < max_ns) {
        polling->now_ns = longer(polling, max_ns);
    } else {
        missed(polling);
    }
}
