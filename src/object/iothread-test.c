/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The objects that are threads or loops: iothread, main-loop, thread-context. */
#include "object/iothread.h"

#include <glib.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "loop/loop.h"
#include "object/object-test-run.h"

static void CO_FN co_expect_set(struct object_registry *registry, const char *id, const char *name, const char *json,
                                const char *complaint)
{
    g_autofree char *got = co_object_test_set(registry, id, name, json);

    if (!complaint || !got || !g_str_has_prefix(got, complaint))
        g_assert_cmpstr(got, ==, complaint);
}

static void expect_get(struct object_registry *registry, const char *id, const char *name, const char *expected)
{
    g_autofree char *got = object_test_get(registry, id, name);

    g_assert_cmpstr(got, ==, expected);
}

static void CO_FN co_test_settings(struct object_registry *registry)
{
    co_object_test_expect(registry, "'qom-type': 'iothread', 'id': 'i', 'poll-max-ns': 5, 'thread-pool-min': 2", NULL);
    expect_get(registry, "i", "poll-max-ns", "5");
    expect_get(registry, "i", "thread-pool-min", "2");
    expect_get(registry, "i", "thread-pool-max", "64");
    expect_get(registry, "i", "type", "\"iothread\"");
    co_expect_set(registry, "i", "poll-max-ns", "0", NULL);
    expect_get(registry, "i", "poll-max-ns", "0");
    co_expect_set(registry, "i", "poll-max-ns", "-1", "poll-max-ns value must be in range [0, 9223372036854775807]");
    co_expect_set(registry, "i", "poll-max-ns", "'5'", "Invalid parameter type for 'poll-max-ns', expected: integer");
    co_expect_set(registry, "i", "thread-pool-max", "1", "bad thread-pool-min/thread-pool-max values");
    co_expect_set(registry, "i", "thread-pool-max", "0", "bad thread-pool-min/thread-pool-max values");
    co_expect_set(registry, "i", "thread-pool-max", "4611686018427387904",
                  "bad thread-pool-min/thread-pool-max values");
    expect_get(registry, "i", "thread-pool-max", "64");
    co_expect_set(registry, "i", "nope", "1", "Property 'iothread.nope' not found");
    co_expect_set(registry, "i", "type", "'x'", "Property 'iothread.type' is not writable");
}

static void CO_FN co_test_refused(struct object_registry *registry)
{
    co_object_test_expect(registry, "'qom-type': 'iothread', 'id': 'i', 'poll-grow': -1",
                          "poll-grow value must be in range [0, 9223372036854775807]");
    co_object_test_expect(registry, "'qom-type': 'iothread', 'id': 'i', 'thread-pool-min': 65",
                          "bad thread-pool-min/thread-pool-max values");
    co_object_test_expect(registry, "'qom-type': 'iothread', 'id': '1'", "Parameter 'id' expects an identifier");
    co_object_test_expect(registry, "'qom-type': 'can-bus', 'id': 'c'", "invalid object type: can-bus");
    g_assert_cmpint(object_count(registry), ==, 0);
}

static void CO_FN co_test_hold(struct object_registry *registry)
{
    AUTO(error) error = NULL;
    struct object *held = NULL;

    co_object_test_expect(registry, "'qom-type': 'iothread', 'id': 'i'", NULL);
    co_object_test_expect(registry, "'qom-type': 'iothread', 'id': 'i'",
                          "attempt to add duplicate property 'i' to object (type 'container')");
    struct loop *loop = iothread_hold_loop(registry, "i", &held, NULL);
    g_assert_nonnull(loop);
    g_assert_false(co_object_delete(registry, "i", &error));
    g_assert_cmpstr(error_message(error), ==, "object 'i' is in use, can not be deleted");
    object_release(held);
    g_assert_true(co_object_delete(registry, "i", NULL));
    g_clear_pointer(&error, error_free);
    g_assert_null(iothread_hold_loop(registry, "i", &held, &error));
    g_assert_cmpstr(error_message(error), ==, "iothread \"i\" not found");
    g_clear_pointer(&error, error_free);
    g_assert_false(co_object_delete(registry, "i", &error));
    g_assert_cmpstr(error_message(error), ==, "object 'i' not found");
}

static int count_worker(void *opaque)
{
    atomic_uint *most = opaque;
    g_autofree char *status = NULL;

    g_assert_true(g_file_get_contents("/proc/self/status", &status, NULL, NULL));
    unsigned threads = (unsigned)g_ascii_strtoull(strstr(status, "Threads:") + strlen("Threads:"), NULL, 10);
    if (threads > *most)
        *most = threads;
    return 0;
}

struct job {
    atomic_uint most;
};

static void CO_FN co_job(void *opaque)
{
    struct job *job = opaque;

    (void)co_worker_run(count_worker, &job->most);
}

/* A limit that is set while the thread runs holds from then on. */
static void CO_FN co_test_live(struct object_registry *registry)
{
    enum { JOBS = 40 };
    struct co_task *tasks[JOBS];
    struct object *held;
    struct job job = {0};
    atomic_uint before = 0;

    co_object_test_expect(registry, "'qom-type': 'iothread', 'id': 'i'", NULL);
    co_expect_set(registry, "i", "thread-pool-max", "1", NULL);
    struct loop *loop = iothread_hold_loop(registry, "i", &held, NULL);
    (void)count_worker(&before);
    for (unsigned i = 0; i < JOBS; i++)
        tasks[i] = co_task_start(loop, co_job, &job);
    for (unsigned i = 0; i < JOBS; i++)
        co_task_join(tasks[i]);
    g_assert_cmpint(job.most, <=, before + 1);
    object_release(held);
}

static void CO_FN co_test_main_loop(struct object_registry *registry)
{
    AUTO(error) error = NULL;

    co_object_test_expect(registry, "'qom-type': 'main-loop', 'id': 'm', 'thread-pool-max': 3", NULL);
    co_object_test_expect(registry, "'qom-type': 'main-loop', 'id': 'n'", "only one main-loop instance allowed");
    expect_get(registry, "m", "thread-pool-max", "3");
    co_expect_set(registry, "m", "aio-max-batch", "7", NULL);
    expect_get(registry, "m", "aio-max-batch", "7");
    co_expect_set(registry, "m", "thread-pool-min", "4", "bad thread-pool-min/thread-pool-max values");
    g_assert_false(co_object_delete(registry, "m", &error));
    g_assert_cmpstr(error_message(error), ==, "object 'm' is in use, can not be deleted");
}

static void expect_processors(int thread_id, int expected)
{
    cpu_set_t set;

    g_assert_cmpint(sched_getaffinity(thread_id, sizeof(set), &set), ==, 0);
    g_assert_cmpint(CPU_COUNT(&set), ==, expected);
}

static void CO_FN co_test_thread_context(struct object_registry *registry)
{
    cpu_set_t own;
    int first = 0;

    g_assert_cmpint(sched_getaffinity(0, sizeof(own), &own), ==, 0);
    while (!CPU_ISSET(first, &own))
        first++;
    g_autofree char *members = g_strdup_printf("'qom-type': 'thread-context', 'id': 't', 'cpu-affinity': [%d]", first);
    g_autofree char *list = g_strdup_printf("[%d]", first);

    co_object_test_expect(registry, members, NULL);
    g_autofree char *id = object_test_get(registry, "t", "thread-id");
    int thread_id = (int)g_ascii_strtoll(id, NULL, 10);
    g_assert_cmpint(thread_id, >, 0);
    expect_processors(thread_id, 1);
    g_autofree char *cpus = object_test_get(registry, "t", "cpu-affinity");
    g_assert_cmpstr(cpus, ==, list);
    g_assert_null(object_test_get(registry, "t", "node-affinity"));

    co_object_test_expect(registry, "'qom-type': 'thread-context', 'id': 'u'", NULL);
    g_autofree char *other = object_test_get(registry, "u", "thread-id");
    expect_processors((int)g_ascii_strtoll(other, NULL, 10), CPU_COUNT(&own));
    co_expect_set(registry, "u", "cpu-affinity", list, NULL);
    expect_processors((int)g_ascii_strtoll(other, NULL, 10), 1);
    co_expect_set(registry, "u", "cpu-affinity", "[]", "CPU list is empty");
    co_expect_set(registry, "u", "cpu-affinity", "[60000]", "Setting CPU affinity failed");
    co_expect_set(registry, "u", "cpu-affinity", "[1023]", "Setting CPU affinity failed: Invalid argument");
    co_expect_set(registry, "u", "node-affinity", "[]", "Node list is empty");
    co_expect_set(registry, "u", "node-affinity", "[60000]", "The nodes select no CPUs");
    co_expect_set(registry, "u", "thread-id", "1", "Property 'thread-context.thread-id' is not writable");
    co_object_test_expect(registry,
                          "'qom-type': 'thread-context', 'id': 'v', 'cpu-affinity': [0], 'node-affinity': [0]",
                          "Mixing CPU and node affinity not supported");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    object_test_add("/iothread/settings", co_test_settings);
    object_test_add("/iothread/refused", co_test_refused);
    object_test_add("/iothread/hold", co_test_hold);
    object_test_add("/iothread/live", co_test_live);
    object_test_add("/iothread/main-loop", co_test_main_loop);
    object_test_add("/iothread/thread-context", co_test_thread_context);
    return g_test_run();
}
