/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands to a driver that takes any (that of /dev/null), and to one that takes none. */
#include "loop/command-ring.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop-test.h"

enum { DEPTH = 4, CALLERS = 25, ROUNDS = 10 };

struct scene {
    struct command_ring *ring;
    int fd;
    struct co_group callers;
    unsigned done;
};

static void call(void *opaque)
{
    struct scene *scene = opaque;

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct ring_command command = {.fd = scene->fd, .operation = i};

        g_assert_cmpint(co_ring_command(scene->ring, &command), ==, 0);
        scene->done++;
    }
    co_group_done(&scene->callers);
}

static void co_test_commands(void *opaque)
{
    struct scene scene = {.fd = co_file_open("/dev/null", O_RDWR, 0)};
    AUTO(error) why = NULL;
    struct ring_command wrong = {0};
    int pipe_fds[2];

    scene.ring = command_ring_new(DEPTH, &why);
    if (loop_get_backend(loop_current()) != LOOP_IO_URING) {
        g_assert_null(scene.ring);
        g_assert_cmpstr(error_message(why), ==, "the loop is not on io_uring");
        fd_close(scene.fd);
        return;
    }
    g_assert_nonnull(scene.ring);
    /* More at once than there are entries. */
    co_group_add(&scene.callers, CALLERS);
    for (unsigned i = 0; i < CALLERS; i++)
        co_spawn(loop_current(), call, &scene);
    co_group_wait(&scene.callers);
    g_assert_cmpuint(scene.done, ==, CALLERS * ROUNDS);
    /* A driver that knows no commands says so, and so does the ring when it is closed. */
    g_assert_cmpint(pipe(pipe_fds), ==, 0);
    wrong.fd = pipe_fds[0];
    g_assert_cmpint(co_ring_command(scene.ring, &wrong), ==, -EOPNOTSUPP);
    co_command_ring_close(scene.ring);
    g_assert_cmpint(co_ring_command(scene.ring, &wrong), ==, -ECANCELED);
    command_ring_free(scene.ring);
    fd_close(scene.fd);
    fd_close(pipe_fds[0]);
    fd_close(pipe_fds[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("command-ring", co_test_commands);
    return loop_test_finish();
}
