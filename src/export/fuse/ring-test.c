/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests over io_uring with a stand-in for the kernel: the functions of loop/command-ring.h are this file's own, so
 * that a test decides which slots are registered, gives requests to them and sees what comes back. The device is a
 * socket. Meant for the thread sanitizer, too.
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "export/fuse/session.h"
#include "loop/command-ring.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum {
    QUEUES_MAX = 4,
    PLACES_USED = 128,
    MIB = 1 << 20,
    DISK_BYTES = 2 * MIB,
    FIRST_COMMIT_ID = 1000,
    SLOT_REGISTER = 1,
    INIT_EXT = 1 << 30, /* in flags of FUSE_INIT */
};

/* --- the stand-in --- */

struct command_ring {
    struct loop *loop;
    bool closed;
};

/* A slot that the kernel has. */
struct place {
    struct command_ring *ring;
    struct fuse_slot_head *head;
    struct iovec payload;
    uint64_t unique;
    bool asked;    /* a request is there, and not taken yet */
    bool answered; /* its answer is in the slot */
    struct co_condition changed;
};

static struct kernel {
    struct co_mutex mutex;
    struct co_condition tried;
    unsigned slots; /* that will be registered */
    unsigned tries;
    int (*registering)(unsigned number); /* 0 or -errno; NULL: all may be */
    int committing;                      /* 0 or -errno */
    uint64_t unique;
    GPtrArray *places;
} kernel;

struct command_ring *command_ring_new(unsigned depth, struct error **err)
{
    struct command_ring *ring = g_new0(struct command_ring, 1);

    ring->loop = loop_current();
    co_mutex_lock(&kernel.mutex);
    kernel.slots += depth;
    co_mutex_unlock(&kernel.mutex);
    return ring;
}

static int CO_FN co_register(struct command_ring *ring, const struct ring_command *command, struct place **ret)
{
    const struct iovec *parts = (const struct iovec *)(uintptr_t)command->address;
    int result;

    g_assert_cmpuint(command->length, ==, 2);
    g_assert_cmpuint(parts[0].iov_len, ==, sizeof(struct fuse_slot_head));
    g_assert_cmpuint(parts[1].iov_len, ==, FUSE_WRITE_BYTES_MAX);
    co_mutex_lock(&kernel.mutex);
    result = kernel.registering ? kernel.registering(kernel.tries) : 0;
    kernel.tries++;
    if (!result) {
        *ret = g_new0(struct place, 1);
        **ret = (struct place){.ring = ring, .head = parts[0].iov_base, .payload = parts[1]};
        g_ptr_array_add(kernel.places, *ret);
    }
    co_condition_broadcast(&kernel.tried);
    co_mutex_unlock(&kernel.mutex);
    return result;
}

static int CO_FN co_commit(struct command_ring *ring, const struct ring_command *command, struct place **ret)
{
    uint64_t commit_id;
    int result;

    memcpy(&commit_id, command->data + sizeof(uint64_t), sizeof(commit_id));
    co_mutex_lock(&kernel.mutex);
    result = ring->closed ? -ECANCELED : kernel.committing;
    if (!result) {
        g_assert_cmpuint(commit_id - FIRST_COMMIT_ID, <, kernel.places->len);
        *ret = g_ptr_array_index(kernel.places, commit_id - FIRST_COMMIT_ID);
        g_assert_true((*ret)->ring == ring && !(*ret)->answered);
        (*ret)->answered = true;
        co_condition_broadcast(&(*ret)->changed);
    }
    co_mutex_unlock(&kernel.mutex);
    return result;
}

int co_ring_command(struct command_ring *ring, const struct ring_command *command)
{
    struct place *place = NULL;
    int result;

    g_assert_true(loop_current() == ring->loop);
    result =
        command->operation == SLOT_REGISTER ? co_register(ring, command, &place) : co_commit(ring, command, &place);
    if (result)
        return result;
    co_mutex_lock(&kernel.mutex);
    while (!place->asked && !ring->closed)
        co_condition_wait_always(&place->changed, &kernel.mutex);
    result = ring->closed ? -ECANCELED : 0;
    place->asked = false;
    co_mutex_unlock(&kernel.mutex);
    return result;
}

void co_command_ring_close(struct command_ring *ring)
{
    g_assert_true(loop_current() == ring->loop);
    co_mutex_lock(&kernel.mutex);
    g_assert_false(ring->closed);
    ring->closed = true;
    for (unsigned i = 0; i < kernel.places->len; i++)
        co_condition_broadcast(&((struct place *)g_ptr_array_index(kernel.places, i))->changed);
    co_mutex_unlock(&kernel.mutex);
}

void command_ring_free(struct command_ring *ring)
{
    g_assert_true(!ring || ring->closed);
    g_free(ring);
}

/* --- what the kernel asks --- */

static void CO_FN co_ask(unsigned index, uint32_t opcode, const void *argument, size_t bytes, const void *data,
                         size_t data_bytes)
{
    struct fuse_in_header header = {.opcode = opcode, .nodeid = FUSE_ROOT_ID};
    struct place *place;

    co_mutex_lock(&kernel.mutex);
    place = g_ptr_array_index(kernel.places, index);
    g_assert_false(place->asked);
    header.unique = place->unique = ++kernel.unique;
    header.len = (uint32_t)(sizeof(header) + bytes + data_bytes);
    memcpy(place->head->header, &header, sizeof(header));
    memcpy(place->head->argument, argument, bytes);
    g_assert_cmpuint(data_bytes, <=, place->payload.iov_len);
    if (data_bytes)
        memcpy(place->payload.iov_base, data, data_bytes);
    place->head->payload_bytes = (uint32_t)data_bytes;
    place->head->commit_id = FIRST_COMMIT_ID + index;
    place->answered = false;
    place->asked = true;
    co_condition_broadcast(&place->changed);
    co_mutex_unlock(&kernel.mutex);
}

/* The answer, 0 or -errno, whose data of `bytes` are in *ret_data. */
static int CO_FN co_answer(unsigned index, size_t bytes, const void **ret_data)
{
    struct fuse_out_header header;
    struct place *place;

    co_mutex_lock(&kernel.mutex);
    place = g_ptr_array_index(kernel.places, index);
    while (!place->answered)
        co_condition_wait_always(&place->changed, &kernel.mutex);
    co_mutex_unlock(&kernel.mutex);
    memcpy(&header, place->head->header, sizeof(header));
    g_assert_cmpuint(header.unique, ==, place->unique);
    g_assert_cmpuint(header.len, ==, sizeof(header) + place->head->payload_bytes);
    g_assert_cmpuint(place->head->payload_bytes, ==, header.error ? 0 : bytes);
    *ret_data = place->payload.iov_base;
    return header.error;
}

static int CO_FN co_get(unsigned index, uint32_t opcode, const void *argument, size_t bytes, size_t expected,
                        const void **ret_data)
{
    co_ask(index, opcode, argument, bytes, NULL, 0);
    return co_answer(index, expected, ret_data);
}

static void CO_FN co_write(unsigned index, uint64_t offset, const uint8_t *data, size_t bytes)
{
    struct fuse_write_in in = {.offset = offset, .size = (uint32_t)bytes};
    const void *answer;

    co_ask(index, FUSE_WRITE, &in, sizeof(in), data, bytes);
    g_assert_cmpint(co_answer(index, sizeof(struct fuse_write_out), &answer), ==, 0);
    g_assert_cmpuint(((const struct fuse_write_out *)answer)->size, ==, bytes);
}

static void CO_FN co_expect(unsigned index, uint64_t offset, const uint8_t *data, size_t bytes)
{
    struct fuse_read_in in = {.offset = offset, .size = (uint32_t)bytes};
    const void *answer;

    g_assert_cmpint(co_get(index, FUSE_READ, &in, sizeof(in), bytes, &answer), ==, 0);
    g_assert_cmpmem(answer, bytes, data, bytes);
}

static int CO_FN co_fallocate(unsigned index, uint32_t mode, uint64_t offset, uint64_t bytes)
{
    struct fuse_fallocate_in in = {.mode = mode, .offset = offset, .length = bytes};
    const void *answer;

    return co_get(index, FUSE_FALLOCATE, &in, sizeof(in), 0, &answer);
}

static int64_t CO_FN co_seek(unsigned index, int whence, uint64_t offset)
{
    struct fuse_lseek_in in = {.offset = offset, .whence = (uint32_t)whence};
    const void *answer;
    int result = co_get(index, FUSE_LSEEK, &in, sizeof(in), sizeof(struct fuse_lseek_out), &answer);

    return result ? result : (int64_t)((const struct fuse_lseek_out *)answer)->offset;
}

static uint64_t CO_FN co_size(unsigned index)
{
    struct fuse_getattr_in in = {0};
    const void *answer;

    g_assert_cmpint(co_get(index, FUSE_GETATTR, &in, sizeof(in), sizeof(struct fuse_attr_out), &answer), ==, 0);
    return ((const struct fuse_attr_out *)answer)->attr.size;
}

/* --- the scene --- */

struct scene {
    struct fuse_file file;
    struct loop_thread *threads[QUEUES_MAX];
    unsigned thread_count;
    int device; /* the kernel's end */
    atomic_uint unmounts;
};

static void count_unmount(struct fuse_file *file)
{
    atomic_fetch_add(&container_of(file, struct scene, file)->unmounts, 1);
}

/* A request by the device, and the error in its answer; the answer's data, `bytes` of them, in `ret`. */
static int CO_FN co_ask_device(struct scene *scene, uint32_t opcode, const void *argument, size_t bytes, void *ret,
                               size_t ret_bytes)
{
    struct fuse_in_header header = {.opcode = opcode, .nodeid = FUSE_ROOT_ID, .unique = 77};
    struct fuse_out_header answer;
    uint8_t buffer[1024];
    ssize_t got;

    header.len = (uint32_t)(sizeof(header) + bytes);
    memcpy(buffer, &header, sizeof(header));
    memcpy(buffer + sizeof(header), argument, bytes);
    g_assert_cmpint(co_socket_send(scene->device, buffer, header.len, 0), ==, header.len);
    got = co_socket_recv(scene->device, buffer, sizeof(buffer), 0);
    g_assert_cmpint(got, >=, sizeof(answer));
    memcpy(&answer, buffer, sizeof(answer));
    g_assert_cmpuint(answer.unique, ==, header.unique);
    g_assert_cmpuint(answer.len, ==, got);
    g_assert_cmpint(got, ==, sizeof(answer) + (answer.error ? 0 : ret_bytes));
    memcpy(ret, buffer + sizeof(answer), (size_t)got - sizeof(answer));
    return answer.error;
}

static void CO_FN co_check_device(struct scene *scene)
{
    struct fuse_getattr_in in = {0};
    struct fuse_attr_out out;

    g_assert_cmpint(co_ask_device(scene, FUSE_GETATTR, &in, sizeof(in), &out, sizeof(out)), ==, 0);
    g_assert_cmpuint(out.attr.size, ==, DISK_BYTES);
}

/* Mounted, the offer taken, and all slots tried. */
static void CO_FN co_begin(struct scene *scene, struct graph *graph, unsigned loop_count)
{
    struct fuse_init_in in = {
        .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .flags = INIT_EXT, .flags2 = FUSE_RING_OFFER};
    g_autofree char *disk = g_strdup_printf("{'driver': 'null-co', 'node-name': 'disk', 'size': %d}", (int)DISK_BYTES);
    struct loop *loops[QUEUES_MAX] = {loop_current()};
    struct fuse_init_out out;
    int pair[2];

    kernel.places = g_ptr_array_new();
    scene->file.handle = co_test_handle(co_test_add_ok(graph, disk), PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE);
    scene->file.main = loop_current();
    scene->file.writable = scene->file.growable = true;
    scene->file.unmounted = count_unmount;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), ==, 0);
    scene->device = pair[1];
    for (; loop_count > 1 && scene->thread_count < loop_count; scene->thread_count++) {
        scene->threads[scene->thread_count] = loop_thread_new(&(struct loop_options){.name = "queue"}, NULL);
        g_assert_nonnull(scene->threads[scene->thread_count]);
        loops[scene->thread_count] = loop_thread_loop(scene->threads[scene->thread_count]);
    }
    co_fuse_file_open_queues(&scene->file, pair[0], loops, loop_count);
    g_assert_cmpuint(scene->file.queue_count, ==, loop_count);
    fuse_file_start(&scene->file);
    g_assert_cmpint(co_ask_device(scene, FUSE_INIT, &in, sizeof(in), &out, sizeof(out)), ==, 0);
    g_assert_cmpuint(out.flags & INIT_EXT, ==, INIT_EXT);
    g_assert_cmpuint(out.flags2, ==, FUSE_RING_OFFER);
    g_assert_cmpuint(out.max_pages * (unsigned)sysconf(_SC_PAGESIZE), ==, FUSE_WRITE_BYTES_MAX);
    co_mutex_lock(&kernel.mutex);
    while (kernel.tries < kernel.slots)
        co_condition_wait_always(&kernel.tried, &kernel.mutex);
    co_mutex_unlock(&kernel.mutex);
}

/* The end of all that runs; afterwards it is known how often somebody called the file unmounted. */
static void CO_FN co_finish(struct scene *scene)
{
    int device = scene->file.queues[0].fd;

    co_fuse_file_stop(&scene->file);
    fuse_file_close_queues(&scene->file);
    fuse_file_free_queues(&scene->file);
    co_mutex_done(&scene->file.resizing);
    fd_close(device);
    fd_close(scene->device);
    co_handle_free(scene->file.handle);
    for (unsigned i = 0; i < scene->thread_count; i++)
        co_loop_thread_free(scene->threads[i]);
    for (unsigned i = 0; i < kernel.places->len; i++) {
        struct place *place = g_ptr_array_index(kernel.places, i);

        co_condition_done(&place->changed);
        g_free(place);
    }
    g_ptr_array_unref(kernel.places);
    co_mutex_done(&kernel.mutex);
    co_condition_done(&kernel.tried);
    kernel = (struct kernel){0};
}

/* --- tests --- */

/* So many of the places at most, of all queues: machines with many processors have thousands. */
static unsigned step(void)
{
    return 1 + kernel.places->len / PLACES_USED;
}

/* A slot has one request after the other, of all kinds and up to the largest. */
static void CO_FN co_use(unsigned index)
{
    g_autofree uint8_t *data = g_malloc(MIB);
    uint64_t base = index % 2 * MIB;

    memset(data, (int)index + 1, MIB);
    co_write(index, base, data, MIB);
    co_expect(index, base, data, MIB);
    g_assert_cmpint(co_fallocate(index, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, base + 8192, 4096), ==, 0);
    memset(data + 8192, 0, 4096);
    co_expect(index, base, data, MIB);
    g_assert_cmpint(co_seek(index, SEEK_HOLE, base), ==, base + 8192);
    g_assert_cmpint(co_seek(index, SEEK_DATA, base + 8192), ==, base + 12288);
    g_assert_cmpint(co_seek(index, SEEK_DATA, DISK_BYTES), ==, -ENXIO);
    g_assert_cmpint(co_fallocate(index, 0, base, 4096), ==, -EOPNOTSUPP);
}

static void CO_FN co_grow(unsigned index)
{
    struct fuse_setattr_in back = {.valid = FATTR_SIZE, .size = DISK_BYTES};
    struct fuse_fsync_in sync = {0};
    const void *answer;

    g_assert_cmpint(co_fallocate(index, 0, DISK_BYTES, MIB), ==, 0);
    g_assert_cmpuint(co_size(index), ==, DISK_BYTES + MIB);
    g_assert_cmpint(co_get(index, FUSE_FSYNC, &sync, sizeof(sync), 0, &answer), ==, 0);
    g_assert_cmpint(co_get(index, FUSE_SETATTR, &back, sizeof(back), sizeof(struct fuse_attr_out), &answer), ==, 0);
    g_assert_cmpuint(co_size(index), ==, DISK_BYTES);
}

static void CO_FN co_test_requests(struct graph *graph, unsigned loop_count)
{
    struct scene scene = {0};

    co_begin(&scene, graph, loop_count);
    g_assert_cmpuint(kernel.places->len, ==, kernel.slots);
    for (unsigned i = 0; i < kernel.places->len; i += step())
        co_use(i);
    co_grow(0);
    co_grow(kernel.places->len - 1);
    co_check_device(&scene);
    co_finish(&scene);
    g_assert_cmpuint(scene.unmounts, ==, 0);
}

static void test_one_loop(struct graph *graph)
{
    co_test_requests(graph, 1);
}

static void test_four_loops(struct graph *graph)
{
    co_test_requests(graph, QUEUES_MAX);
}

static int turned_off(unsigned number)
{
    return -EOPNOTSUPP;
}

static int make_no_sense(unsigned number)
{
    return -EINVAL;
}

static int out_of_memory_at_times(unsigned number)
{
    return number % 2 ? -ENOMEM : 0;
}

/* The kernel has its reasons: the file stays, and the device serves it. */
static void CO_FN co_test_refusal(struct graph *graph, unsigned loop_count, int (*registering)(unsigned number))
{
    struct scene scene = {0};

    kernel.registering = registering;
    co_begin(&scene, graph, loop_count);
    g_assert_cmpuint(kernel.places->len, ==, 0);
    co_check_device(&scene);
    co_finish(&scene);
    g_assert_cmpuint(scene.unmounts, ==, 0);
}

static void test_turned_off(struct graph *graph)
{
    co_test_refusal(graph, 1, turned_off);
}

static void test_turned_off_four_loops(struct graph *graph)
{
    co_test_refusal(graph, QUEUES_MAX, turned_off);
}

static void test_no_sense(struct graph *graph)
{
    co_test_refusal(graph, 2, make_no_sense);
}

/* Those that could be registered serve, and so does the device. */
static void test_some_refused(struct graph *graph)
{
    struct scene scene = {0};

    kernel.registering = out_of_memory_at_times;
    co_begin(&scene, graph, 2);
    g_assert_cmpuint(kernel.places->len, >, 0);
    g_assert_cmpuint(kernel.places->len, <, kernel.slots);
    for (unsigned i = 0; i < kernel.places->len; i += step())
        co_use(i);
    co_check_device(&scene);
    co_finish(&scene);
    g_assert_cmpuint(scene.unmounts, ==, 0);
}

/* The file goes while a write is under way in many slots: those end, and nobody waits for what comes of their answers.
 */
static void test_end_with_requests(struct graph *graph)
{
    struct fuse_write_in in = {.size = MIB};
    g_autofree uint8_t *data = g_malloc0(MIB);
    struct scene scene = {0};

    memory_disk_options.yields = true;
    co_begin(&scene, graph, QUEUES_MAX);
    for (unsigned i = 0; i < kernel.places->len; i += step())
        co_ask(i, FUSE_WRITE, &in, sizeof(in), data, MIB);
    co_finish(&scene);
    g_assert_cmpuint(scene.unmounts, ==, 0);
}

/* An answer that the kernel does not take: whoever asked would wait for ever, so the file goes; it says so once. */
static void CO_FN co_test_lost_answers(struct graph *graph, int committing, unsigned unmounts)
{
    struct fuse_getattr_in in = {0};
    struct scene scene = {0};

    co_begin(&scene, graph, 2);
    co_mutex_lock(&kernel.mutex);
    kernel.committing = committing;
    co_mutex_unlock(&kernel.mutex);
    for (unsigned i = 0; i < kernel.places->len; i++)
        co_ask(i, FUSE_GETATTR, &in, sizeof(in), NULL, 0);
    /* It is known when nobody takes the requests: each coroutine of a slot has ended. */
    for (unsigned i = 0; i < scene.file.queue_count; i++)
        co_group_wait(&scene.file.queues[i].ring.running);
    co_finish(&scene);
    g_assert_cmpuint(scene.unmounts, ==, unmounts);
}

static void test_lost_answers(struct graph *graph)
{
    co_test_lost_answers(graph, -EINVAL, 1);
}

/* Who has unmounted it is told by the device. */
static void test_unmounted(struct graph *graph)
{
    co_test_lost_answers(graph, -ENOTCONN, 0);
}

static const struct {
    const char *name;
    graph_test *test;
} tests[] = {
    {"/fuse/ring/one-loop", test_one_loop},
    {"/fuse/ring/four-loops", test_four_loops},
    {"/fuse/ring/turned-off", test_turned_off},
    {"/fuse/ring/turned-off-four-loops", test_turned_off_four_loops},
    {"/fuse/ring/no-sense", test_no_sense},
    {"/fuse/ring/some-refused", test_some_refused},
    {"/fuse/ring/end-with-requests", test_end_with_requests},
    {"/fuse/ring/lost-answers", test_lost_answers},
    {"/fuse/ring/unmounted", test_unmounted},
};

static void run(const void *test)
{
    run_graph_test(*(graph_test *const *)test);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add_data_func(tests[i].name, &tests[i].test, run);
    return g_test_run();
}
