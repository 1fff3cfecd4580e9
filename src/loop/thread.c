/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loops in threads of their own. */
#include "loop/loop-internal.h"

#include <assert.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

struct loop_thread {
    pthread_t thread;
    struct loop *loop;
    int id;

    /* For the start. */
    const struct loop_options *options;
    struct error *error;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool started; /* mutex */

    bool ending; /* the loop's thread */
};

static void *thread_main(void *opaque)
{
    struct loop_thread *thread = opaque;
    struct loop *loop = loop_new(thread->options, &thread->error);

    pthread_mutex_lock(&thread->mutex);
    thread->loop = loop;
    thread->id = gettid();
    thread->started = true;
    pthread_cond_signal(&thread->changed);
    pthread_mutex_unlock(&thread->mutex);
    if (loop) {
        loop_run_until(loop, &thread->ending);
        loop_free(loop);
    }
    return NULL;
}

static void thread_free(struct loop_thread *thread)
{
    pthread_cond_destroy(&thread->changed);
    pthread_mutex_destroy(&thread->mutex);
    g_free(thread);
}

struct loop_thread *loop_thread_new(const struct loop_options *options, struct error **err)
{
    struct loop_thread *thread = g_new0(struct loop_thread, 1);
    const char *name = options && options->name ? options->name : "loop";
    char short_name[16]; /* the kernel's limit */
    sigset_t old;
    int failed;

    thread->options = options;
    pthread_mutex_init(&thread->mutex, NULL);
    pthread_cond_init(&thread->changed, NULL);
    thread_block_signals(&old);
    failed = pthread_create(&thread->thread, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        error_set_errno(err, failed, "Failed to start the thread '%s'", name);
        thread_free(thread);
        return NULL;
    }
    g_strlcpy(short_name, name, sizeof(short_name));
    pthread_setname_np(thread->thread, short_name);
    pthread_mutex_lock(&thread->mutex);
    while (!thread->started)
        pthread_cond_wait(&thread->changed, &thread->mutex);
    pthread_mutex_unlock(&thread->mutex);
    if (!thread->loop) {
        pthread_join(thread->thread, NULL);
        error_move(err, TAKE(thread->error));
        thread_free(thread);
        return NULL;
    }
    return thread;
}

static void thread_end_entry(void *opaque)
{
    struct loop_thread *thread = opaque;

    thread->ending = true;
}

static int thread_join_work(void *opaque)
{
    struct loop_thread *thread = opaque;

    return -pthread_join(thread->thread, NULL);
}

void co_loop_thread_free(struct loop_thread *thread)
{
    int result;

    CO_ASSERT();
    if (!thread)
        return;
    assert(thread->loop != loop_current());
    co_spawn(thread->loop, thread_end_entry, thread);
    result = co_worker_run(thread_join_work, thread);
    assert(!result);
    thread_free(thread);
}

struct loop *loop_thread_loop(struct loop_thread *thread)
{
    return thread->loop;
}

int loop_thread_id(const struct loop_thread *thread)
{
    return thread->id;
}
