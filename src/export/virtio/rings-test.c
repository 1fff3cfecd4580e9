/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two sides of a ring on one another, without anything between: our driver's (driver/protocol/virtio-blk/ring.h)
 * and our device's. More often around than its indices can count; all kinds of rings; requests that end in another
 * order; and each side is told exactly when it has to be. A device that is killed after any of its instructions leaves
 * to the next what it has not done, and nothing else.
 */
#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "driver/protocol/virtio-blk/ring-format.h"
#include "driver/protocol/virtio-blk/ring.h"
#include "export/virtio/inflight.h"
#include "export/virtio/memory.h"
#include "export/virtio/queue.h"
#include "loop/file.h"
#include "loop/shared-memory.h"

enum {
    SIZE = 8,
    SEGMENTS = 3,
    MEMORY_BYTES = 1 << 16,
    TABLES = 1 << 12,
    DATA = 1 << 13,
    IN_FLIGHT = 1 << 14, /* the table of requests in flight; what comes after it, nobody may touch */
    ROUNDS = 70000,
    USED_INDEX = 2, /* in the device's area of a split ring */
};
enum kind { PACKED = 1, EVENT_INDEX = 2, INDIRECT = 4, IN_ORDER = 8, TABLE = 16 };
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

/* A device on the ring, new or after another, whose place in the ring is `base` as far as the front end knows. */
static struct virtqueue *new_device(struct pair *pair, unsigned kind, uint32_t base)
{
    struct vring_layout layout = vring_layout(SIZE, kind & PACKED);
    struct virtqueue_setup setup = {.size = SIZE,
                                    .packed = kind & PACKED,
                                    .event_index = kind & EVENT_INDEX,
                                    .indirect = kind & INDIRECT,
                                    .in_order = kind & IN_ORDER,
                                    .descriptors = GUEST_BASE,
                                    .driver_area = GUEST_BASE + layout.driver_offset,
                                    .device_area = GUEST_BASE + layout.device_offset,
                                    .base = base,
                                    .inflight = kind & TABLE ? pair->memory + IN_FLIGHT : NULL};
    struct virtqueue *device = virtqueue_new(&setup, pair->map, NULL);

    g_assert_nonnull(device);
    return device;
}

static void pair_init(struct pair *pair, unsigned kind)
{
    int file = shared_memory_file("rings", MEMORY_BYTES);
    struct vring_layout layout = vring_layout(SIZE, kind & PACKED);
    struct guest_region region = {.guest_address = GUEST_BASE, .user_address = GUEST_BASE, .size = MEMORY_BYTES};
    struct vring_setup driver = {
        .size = SIZE, .packed = kind & PACKED, .event_index = kind & EVENT_INDEX, .indirect = kind & INDIRECT};
    AUTO(guest_map) empty = guest_map_new();

    *pair = (struct pair){.indirect = kind & INDIRECT};
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
    pair->device = new_device(pair, kind, 0);
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
    int result;

    while ((result = virtqueue_pop(pair->device, &pair->out[pair->out_count])) == 1) {
        struct virtq_buffer *buffer = &pair->out[pair->out_count++];

        g_assert_false(buffer->bad);
        g_assert_cmpuint(buffer->readable_bytes, ==, 64);
        g_assert_cmpuint(buffer->writable_bytes, ==, 64 * (SEGMENTS - 1));
    }
    g_assert_cmpint(result, ==, 0);
    g_assert_false(virtqueue_has_available(pair->device));
    return pair->out_count - before;
}

/* The number of a request that the device has. */
static unsigned number_of(const struct virtq_buffer *buffer)
{
    unsigned number;

    memcpy(&number, buffer->segments[0].iov_base, sizeof(number));
    return number;
}

/* The device gives one back, of those that it has: the number that its data say is what it says to have written. */
static void push(struct pair *pair, unsigned index)
{
    virtqueue_push(pair->device, &pair->out[index], number_of(&pair->out[index]) % 128 + 1);
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

    pair_init(&pair, kind);
    run_rounds(&pair, kind & IN_ORDER);
    pair_done(&pair);
}

/* Who has said that he looks by himself is not told; who is about to sleep is, once, of the first thing that comes. */
static void test_signals(gconstpointer opaque)
{
    unsigned kind = GPOINTER_TO_UINT(opaque);
    struct pair pair;

    pair_init(&pair, kind);
    for (unsigned round = 0; round < 3 * SIZE; round++) {
        bool awake = round & 1;

        virtqueue_want_kicks(pair.device, !awake);
        vring_want_calls(pair.driver, !awake);
        add(&pair);
        if (!awake || !(kind & EVENT_INDEX))
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

/* --- who follows a device that was killed --- */

/* Under the thread sanitizer a store is hundreds of instructions, and a used descriptor three stores instead of one. */
#ifdef __SANITIZE_THREAD__
enum { IS_KILLED = 0 };
#else
enum { IS_KILLED = 1 };
#endif

/* A driver whose requests go around the ring's end; how many are under way. */
static unsigned begin(struct pair *pair, unsigned kind)
{
    pair_init(pair, kind);
    for (unsigned i = 0; i < (kind & INDIRECT ? SIZE - 1 : 2); i++) {
        add(pair);
        g_assert_cmpuint(pop_all(pair), ==, 1);
        push(pair, 0);
        g_assert_cmpuint(take_all(pair), ==, 1);
    }
    for (unsigned i = 0; i < 3 && has_room(pair); i++)
        add(pair);
    return vring_outstanding(pair->driver);
}

/* What front ends can know: of a split ring what was given back, of a packed one where it once began. Where there is no
 * table, they must know what they have had back: `count` requests since begin(). */
static uint32_t base_after(const struct pair *pair, unsigned kind, unsigned count)
{
    unsigned places = kind & INDIRECT ? SIZE - 1 + count : SEGMENTS * (2 + count);
    uint16_t place = (uint16_t)(places % SIZE | (places / SIZE % 2 ? 0 : 1 << 15));
    uint16_t used;

    if (kind & PACKED)
        return kind & TABLE ? 0 : (uint32_t)place << 16 | place;
    memcpy(&used, pair->memory + vring_layout(SIZE, false).device_offset + USED_INDEX, sizeof(used));
    return used;
}

/* What the device does until it is killed; `again`: after another one that was. */
static void serve(struct pair *pair, unsigned kind, bool again)
{
    if (again) {
        virtqueue_free(pair->device);
        pair->device = new_device(pair, kind, base_after(pair, kind, 0));
    }
    pop_all(pair);
    while (pair->out_count)
        push(pair, kind & IN_ORDER ? 0 : pair->out_count - 1);
}

/* The memory as a device has left it: each request gets to the driver, once, and the ring and the table are whole. */
static void check_successor(unsigned kind, const uint8_t *memory)
{
    struct pair pair;
    unsigned under_way = begin(&pair, kind);
    unsigned taken;

    virtqueue_free(pair.device);
    memcpy(pair.memory, memory, MEMORY_BYTES);
    taken = kind & TABLE ? 0 : take_all(&pair);
    pair.device = new_device(&pair, kind, base_after(&pair, kind, taken));
    pop_all(&pair);
    for (unsigned i = 1; i < pair.out_count; i++)
        g_assert_cmpuint(number_of(&pair.out[i - 1]), <, number_of(&pair.out[i]));
    while (pair.out_count)
        push(&pair, 0);
    g_assert_cmpuint(taken + take_all(&pair), ==, under_way);
    for (unsigned i = 0; i < 3 * SIZE; i++) {
        while (has_room(&pair))
            add(&pair);
        pop_all(&pair);
        while (pair.out_count)
            push(&pair, 0);
        take_all(&pair);
        g_assert_cmpuint(vring_outstanding(pair.driver), ==, 0);
    }
    pair_done(&pair);
}

/* A process that does serve(), and stops before it. */
static pid_t start_device(struct pair *pair, unsigned kind, bool again)
{
    pid_t child = fork();
    int status;

    g_assert_cmpint(child, >=, 0);
    if (!child) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(1);
        (void)raise(SIGSTOP);
        serve(pair, kind, again);
        _exit(0);
    }
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return child;
}

/* Lets it do one instruction; false: it has ended. */
static bool step(pid_t child)
{
    int status;

    g_assert_cmpint(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), ==, 0);
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    if (WIFSTOPPED(status)) {
        g_assert_cmpint(WSTOPSIG(status), ==, SIGTRAP);
        return true;
    }
    g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return false;
}

/*
 * After each instruction that has changed the ring or the table, a successor takes over. How many those are; the memory
 * after number `wanted` in *ret.
 */
static unsigned kill_everywhere(struct pair *pair, unsigned kind, bool again, unsigned wanted, uint8_t *ret)
{
    g_autofree uint8_t *memory = g_memdup2(pair->memory, MEMORY_BYTES);
    pid_t child = start_device(pair, kind, again);
    unsigned states = 0;

    check_successor(kind, memory);
    while (step(child)) {
        if (!memcmp(memory, pair->memory, TABLES) &&
            !memcmp(memory + IN_FLIGHT, pair->memory + IN_FLIGHT, inflight_region_size(SIZE, kind & PACKED)))
            continue;
        memcpy(memory, pair->memory, MEMORY_BYTES);
        check_successor(kind, memory);
        if (++states == wanted)
            memcpy(ret, memory, MEMORY_BYTES);
    }
    return states;
}

static void test_killed(gconstpointer opaque)
{
    unsigned kind = GPOINTER_TO_UINT(opaque);
    struct pair pair;

    begin(&pair, kind);
    g_assert_cmpuint(kill_everywhere(&pair, kind, false, 0, NULL), >=, kind & TABLE ? 10 : 2);
    pair_done(&pair);
}

/* One that is killed while it gives back its last request, and then its successor, while it finds that out. */
static void test_killed_again(gconstpointer opaque)
{
    unsigned kind = GPOINTER_TO_UINT(opaque);
    g_autofree uint8_t *memory = g_malloc(MEMORY_BYTES);
    struct pair pair;
    unsigned states;

    begin(&pair, kind);
    states = kill_everywhere(&pair, kind, false, 0, NULL);
    pair_done(&pair);
    for (unsigned before_end = 1; before_end <= 3; before_end++) {
        begin(&pair, kind);
        kill_everywhere(&pair, kind, false, states - before_end, memory);
        memcpy(pair.memory, memory, MEMORY_BYTES);
        g_assert_cmpuint(kill_everywhere(&pair, kind, true, 0, NULL), >=, 1);
        pair_done(&pair);
    }
}

/* --- who writes into the table beside us --- */

/* A successor with requests to be done again, from the table. */
static void begin_again(struct pair *pair, unsigned kind)
{
    struct pair before;

    begin(&before, kind);
    pop_all(&before);
    begin(pair, kind);
    virtqueue_free(pair->device);
    memcpy(pair->memory, before.memory, MEMORY_BYTES);
    pair->device = new_device(pair, kind, base_after(pair, kind, 0));
    while (before.out_count)
        push(&before, 0);
    pair_done(&before);
}

static void check_untouched(const struct pair *pair, unsigned kind)
{
    for (size_t i = IN_FLIGHT + inflight_region_size(SIZE, kind & PACKED); i < MEMORY_BYTES; i++)
        g_assert_cmpuint(pair->memory[i], ==, 0);
}

/* Lengths and links of the table change after they have been looked at: the queue breaks, and nothing else does. */
static void test_table_changes(void)
{
    struct pair pair;
    struct inflight_packed *table;

    begin_again(&pair, PACKED | TABLE);
    table = (void *)(pair.memory + IN_FLIGHT);
    for (uint16_t i = 0; i < SIZE; i++) {
        table->entries[i].count = 60000;
        table->entries[i].next = i;
    }
    g_assert_cmpint(virtqueue_pop(pair.device, &pair.out[0]), ==, -EIO);
    g_assert_nonnull(strstr(virtqueue_why(pair.device), "chain of 60000"));
    check_untouched(&pair, PACKED | TABLE);
    pair_done(&pair);
}

/* Where the table's free entries and used places are, we know by ourselves. */
static void test_table_is_not_believed(gconstpointer opaque)
{
    unsigned kind = GPOINTER_TO_UINT(opaque);
    size_t head = kind & PACKED ? offsetof(struct inflight_packed, free_head) : offsetof(struct inflight_split, count);
    size_t end = kind & PACKED ? offsetof(struct inflight_packed, padding) : offsetof(struct inflight_split, entries);
    struct pair pair;
    unsigned under_way;

    begin_again(&pair, kind);
    under_way = vring_outstanding(pair.driver);
    for (unsigned round = 0; round < 3; round++) {
        memset(pair.memory + IN_FLIGHT + head, 0xff, end - head);
        pop_all(&pair);
        memset(pair.memory + IN_FLIGHT + head, 0xff, end - head);
        while (pair.out_count)
            push(&pair, 0);
        g_assert_cmpuint(take_all(&pair), ==, under_way);
        under_way = 1;
        add(&pair);
    }
    check_untouched(&pair, kind);
    pair_done(&pair);
}

/* A table that comes when the ring is under way begins where that is. */
static void test_table_begins(void)
{
    const struct inflight_packed *table;
    struct pair pair;

    pair_init(&pair, PACKED);
    virtqueue_free(pair.device);
    pair.device = new_device(&pair, PACKED | TABLE, 5u << 16 | 5);
    table = (const void *)(pair.memory + IN_FLIGHT);
    g_assert_cmpuint(table->used.index, ==, 5);
    g_assert_cmpuint(table->used.old_index, ==, 5);
    g_assert_cmpuint(table->used.wrap, ==, 0);
    g_assert_cmpuint(table->used.old_wrap, ==, 0);
    virtqueue_free(pair.device);
    pair.device = new_device(&pair, PACKED | TABLE, 0);
    g_assert_cmphex(virtqueue_base(pair.device), ==, 5u << 16 | 5);
    pair_done(&pair);
}

/* --- what a driver can have from us at once --- */

enum { WIDE = 2048, WIDE_BYTES = 1 << 17, AT_ONCE = 1024 };

/* A split ring of many places: each descriptor, with `flags`, is a byte and leads to the next one, around and around.
 */
static void fill_wide(uint8_t *memory, const struct vring_layout *layout, uint16_t flags)
{
    for (uint16_t i = 0; i < WIDE; i++) {
        uint8_t *descriptor = memory + (size_t)i * VIRTQ_DESCRIPTOR_BYTES;

        store_le64(descriptor, GUEST_BASE + WIDE_BYTES - 1);
        store_le32(descriptor + 8, 1);
        store_le16(descriptor + 12, flags);
        store_le16(descriptor + 14, (uint16_t)((i + 1) % WIDE));
        store_le16(memory + layout->driver_offset + VIRTQ_SPLIT_ENTRIES + (size_t)i * VIRTQ_SPLIT_AVAIL_BYTES, i);
    }
}

static void test_bounds(void)
{
    struct vring_layout layout = vring_layout(WIDE, false);
    struct virtqueue_setup setup = {.size = WIDE,
                                    .descriptors = GUEST_BASE,
                                    .driver_area = GUEST_BASE + layout.driver_offset,
                                    .device_area = GUEST_BASE + layout.device_offset};
    int file = shared_memory_file("wide", WIDE_BYTES);
    AUTO(shared_memory) shared = shared_memory_map(file, 0, WIDE_BYTES, NULL);
    struct guest_region region = {
        .guest_address = GUEST_BASE, .user_address = GUEST_BASE, .size = WIDE_BYTES, .memory = shared};
    AUTO(guest_map) empty = guest_map_new();
    AUTO(guest_map) map = guest_map_add(empty, &region, NULL);
    g_autofree struct virtq_buffer *out = g_new(struct virtq_buffer, AT_ONCE + 1);
    struct virtqueue *device = virtqueue_new(&setup, map, NULL);
    uint8_t *memory = shared_memory_base(shared);
    unsigned count = 0;

    fd_close(file);
    g_assert_nonnull(device);
    fill_wide(memory, &layout, VIRTQ_WRITE);
    store_le16(memory + layout.driver_offset + VIRTQ_SPLIT_INDEX, WIDE);
    while (count <= AT_ONCE && virtqueue_pop(device, &out[count]) == 1)
        count++;
    g_assert_cmpuint(count, ==, AT_ONCE);
    g_assert_false(virtqueue_has_available(device));
    virtqueue_push(device, &out[0], 1);
    g_assert_true(virtqueue_has_available(device));
    g_assert_cmpint(virtqueue_pop(device, &out[0]), ==, 1);
    g_assert_cmpint(virtqueue_pop(device, &out[AT_ONCE]), ==, 0);
    while (count)
        virtqueue_push(device, &out[--count], 1);
    fill_wide(memory, &layout, VIRTQ_WRITE | VIRTQ_NEXT);
    g_assert_cmpint(virtqueue_pop(device, &out[0]), ==, -EIO);
    g_assert_nonnull(strstr(virtqueue_why(device), "after 1024 steps"));
    virtqueue_free(device);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned kind = 0; kind < 16; kind++) {
        g_autofree char *around = g_strdup_printf("/virtio-rings/around/%u", kind);
        g_autofree char *signals = g_strdup_printf("/virtio-rings/signals/%u", kind);
        g_autofree char *killed = g_strdup_printf("/virtio-rings/killed/%u", kind);
        g_autofree char *without = g_strdup_printf("/virtio-rings/killed/%u/without-a-table", kind);

        g_test_add_data_func(around, GUINT_TO_POINTER(kind), test_around);
        if (kind < 8)
            g_test_add_data_func(signals, GUINT_TO_POINTER(kind), test_signals);
        /* Who is told when does not change what is left behind. */
        if (IS_KILLED && !(kind & EVENT_INDEX))
            g_test_add_data_func(killed, GUINT_TO_POINTER(kind | TABLE), test_killed);
        if (IS_KILLED && kind & IN_ORDER && !(kind & EVENT_INDEX))
            g_test_add_data_func(without, GUINT_TO_POINTER(kind), test_killed);
    }
    if (IS_KILLED) {
        g_test_add_data_func("/virtio-rings/killed-again/split", GUINT_TO_POINTER(TABLE), test_killed_again);
        g_test_add_data_func("/virtio-rings/killed-again/packed", GUINT_TO_POINTER(PACKED | TABLE), test_killed_again);
    }
    g_test_add_func("/virtio-rings/bounds", test_bounds);
    g_test_add_func("/virtio-rings/table-begins", test_table_begins);
    g_test_add_func("/virtio-rings/table-changes", test_table_changes);
    g_test_add_data_func("/virtio-rings/table-is-not-believed/split", GUINT_TO_POINTER(TABLE),
                         test_table_is_not_believed);
    g_test_add_data_func("/virtio-rings/table-is-not-believed/packed", GUINT_TO_POINTER(PACKED | TABLE),
                         test_table_is_not_believed);
    return g_test_run();
}
