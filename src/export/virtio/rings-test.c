/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two sides of a ring on one another, without anything between: our driver's (driver/protocol/virtio-blk/ring.h)
 * and our device's. More often around than its indices can count; all kinds of rings; requests that end in another
 * order; and each side is told exactly when it has to be.
 */
#include <glib.h>
#include <string.h>

#include "driver/protocol/virtio-blk/ring.h"
#include "export/virtio/memory.h"
#include "export/virtio/queue.h"
#include "loop/file.h"
#include "loop/shared-memory.h"

enum { SIZE = 8, SEGMENTS = 3, MEMORY_BYTES = 1 << 16, TABLES = 1 << 12, DATA = 1 << 13, ROUNDS = 70000 };
#define GUEST_BASE UINT64_C(0x100000000)

struct pair {
    uint8_t *memory;
    struct shared_memory *shared;
    struct guest_map *map;
    struct vring *driver;
    struct virtqueue *device;
    bool indirect;
    unsigned next;                 /* request */
    unsigned token_of[SIZE];       /* under way: the request's number */
    bool busy[SIZE];               /* tokens */
    struct virtq_buffer out[SIZE]; /* with the device */
    unsigned out_count;
};

static void pair_init(struct pair *pair, bool packed, bool event_index, bool indirect, bool in_order)
{
    int file = shared_memory_file("rings", MEMORY_BYTES);
    struct vring_layout layout = vring_layout(SIZE, packed);
    struct guest_region region = {.guest_address = GUEST_BASE, .user_address = GUEST_BASE, .size = MEMORY_BYTES};
    struct virtqueue_setup device = {.size = SIZE,
                                     .packed = packed,
                                     .event_index = event_index,
                                     .indirect = indirect,
                                     .in_order = in_order,
                                     .descriptors = GUEST_BASE,
                                     .driver_area = GUEST_BASE + layout.driver_offset,
                                     .device_area = GUEST_BASE + layout.device_offset};
    struct vring_setup driver = {.size = SIZE, .packed = packed, .event_index = event_index, .indirect = indirect};
    AUTO(guest_map) empty = guest_map_new();

    *pair = (struct pair){.indirect = indirect};
    pair->shared = region.memory = shared_memory_map(file, 0, MEMORY_BYTES, NULL);
    fd_close(file);
    g_assert_nonnull(pair->shared);
    g_assert_cmpuint(layout.bytes, <=, TABLES);
    pair->memory = shared_memory_base(pair->shared);
    pair->map = guest_map_add(empty, &region, NULL);
    driver.descriptors = pair->memory;
    driver.driver_area = pair->memory + layout.driver_offset;
    driver.device_area = pair->memory + layout.device_offset;
    pair->driver = vring_new(&driver);
    pair->device = virtqueue_new(&device, pair->map, NULL);
    g_assert_nonnull(pair->device);
}

static void pair_done(struct pair *pair)
{
    vring_free(pair->driver);
    virtqueue_free(pair->device);
    guest_map_unref(pair->map);
    shared_memory_unref(pair->shared);
}

static bool has_room(const struct pair *pair)
{
    return vring_has_room(pair->driver, SEGMENTS);
}

/* A request whose first segment says its number. */
static void add(struct pair *pair)
{
    uint16_t token = 0;
    struct vring_segment segments[SEGMENTS];
    struct vring_request request = {.segments = segments, .readable = 1, .writable = SEGMENTS - 1};

    while (pair->busy[token])
        token++;
    for (unsigned i = 0; i < SEGMENTS; i++)
        segments[i] = (struct vring_segment){.address = GUEST_BASE + DATA + token * 256u + i * 64u, .bytes = 64};
    memcpy(pair->memory + DATA + token * 256u, &pair->next, sizeof(pair->next));
    request.token = token;
    request.table = pair->memory + TABLES + token * vring_table_bytes(SEGMENTS);
    request.table_address = GUEST_BASE + TABLES + token * vring_table_bytes(SEGMENTS);
    vring_add(pair->driver, &request);
    pair->busy[token] = true;
    pair->token_of[token] = pair->next++;
}

/* The device takes what is there. */
static unsigned pop_all(struct pair *pair)
{
    unsigned before = pair->out_count;

    while (virtqueue_has_available(pair->device)) {
        struct virtq_buffer *buffer = &pair->out[pair->out_count];

        g_assert_cmpint(virtqueue_pop(pair->device, buffer), ==, 1);
        g_assert_false(buffer->bad);
        g_assert_cmpuint(buffer->readable_bytes, ==, 64);
        g_assert_cmpuint(buffer->writable_bytes, ==, 64 * (SEGMENTS - 1));
        pair->out_count++;
    }
    g_assert_cmpint(virtqueue_pop(pair->device, &pair->out[pair->out_count % SIZE]), ==, 0);
    return pair->out_count - before;
}

/* The device gives one back, of those that it has: the number that its data say is what it says to have written. */
static void push(struct pair *pair, unsigned index)
{
    unsigned number;

    memcpy(&number, pair->out[index].segments[0].iov_base, sizeof(number));
    virtqueue_push(pair->device, &pair->out[index], number % 128 + 1);
    memmove(&pair->out[index], &pair->out[index + 1], (--pair->out_count - index) * sizeof(pair->out[0]));
}

static unsigned take_all(struct pair *pair)
{
    unsigned taken = 0;
    uint16_t token;
    uint32_t written;

    while (vring_has_done(pair->driver)) {
        g_assert_cmpint(vring_get(pair->driver, &token, &written), ==, 1);
        g_assert_true(token < SIZE && pair->busy[token]);
        g_assert_cmpuint(written, ==, pair->token_of[token] % 128 + 1);
        pair->busy[token] = false;
        taken++;
    }
    g_assert_cmpint(vring_get(pair->driver, &token, &written), ==, 0);
    return taken;
}

static void run_rounds(struct pair *pair, bool in_order)
{
    GRand *random = g_rand_new_with_seed(1);

    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned wanted = g_rand_int(random) % SIZE + 1;

        for (unsigned i = 0; i < wanted && has_room(pair); i++)
            add(pair);
        pop_all(pair);
        for (unsigned left = g_rand_int(random) % (pair->out_count + 1); left; left--)
            push(pair, in_order ? 0 : g_rand_int(random) % pair->out_count);
        take_all(pair);
        g_assert_cmpuint(vring_outstanding(pair->driver), ==, pair->out_count);
    }
    while (pair->out_count)
        push(pair, 0);
    take_all(pair);
    g_assert_cmpuint(vring_outstanding(pair->driver), ==, 0);
    g_assert_cmpuint(virtqueue_outstanding(pair->device), ==, 0);
    g_rand_free(random);
}

static void test_around(gconstpointer opaque)
{
    unsigned kind = GPOINTER_TO_UINT(opaque);
    struct pair pair;

    pair_init(&pair, kind & 1, kind & 2, kind & 4, kind & 8);
    run_rounds(&pair, kind & 8);
    pair_done(&pair);
}

/* Who has said that he looks by himself is not told; who is about to sleep is, once, of the first thing that comes. */
static void test_signals(gconstpointer opaque)
{
    unsigned kind = GPOINTER_TO_UINT(opaque);
    struct pair pair;

    pair_init(&pair, kind & 1, kind & 2, kind & 4, false);
    for (unsigned round = 0; round < 3 * SIZE; round++) {
        bool awake = round & 1;

        virtqueue_want_kicks(pair.device, !awake);
        vring_want_calls(pair.driver, !awake);
        add(&pair);
        if (!awake || !(kind & 2))
            g_assert_cmpint(vring_must_kick(pair.driver), ==, !awake);
        else
            (void)vring_must_kick(pair.driver);
        g_assert_false(vring_must_kick(pair.driver));
        g_assert_cmpuint(pop_all(&pair), ==, 1);
        push(&pair, 0);
        if (!awake || round > 1)
            g_assert_cmpint(virtqueue_must_notify(pair.device), ==, !awake);
        else
            (void)virtqueue_must_notify(pair.device);
        g_assert_false(virtqueue_must_notify(pair.device));
        g_assert_cmpuint(take_all(&pair), ==, 1);
    }
    pair_done(&pair);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned kind = 0; kind < 16; kind++) {
        g_autofree char *around = g_strdup_printf("/virtio-rings/around/%u", kind);
        g_autofree char *signals = g_strdup_printf("/virtio-rings/signals/%u", kind);

        g_test_add_data_func(around, GUINT_TO_POINTER(kind), test_around);
        if (kind < 8)
            g_test_add_data_func(signals, GUINT_TO_POINTER(kind), test_signals);
    }
    return g_test_run();
}
