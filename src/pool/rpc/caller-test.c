/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/caller.h"

#include <glib.h>
#include <glib/gstdio.h>

#include "base/units.h"
#include "loop/loop-test.h"
#include "loop/socket.h"
#include "pool/pool-error.h"

/* A daemon that takes us in and says nothing hangs itself only. */
static void CO_FN co_test_silence(void *opaque)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-caller-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "socket", NULL);
    const struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    struct socket_listener *listener = co_socket_listen(&endpoint, 1, NULL);
    const struct rpc_caller_options options = {
        .socket = path, .peer = "the daemon", .driver = "storage", .patience_ns = 20 * NS_PER_MS};
    AUTO(pool_error) error = NULL;

    g_assert_nonnull(listener);
    g_assert_null(co_rpc_caller_new(&options, &error));
    g_assert_cmpint(error->code, ==, POOL_ERROR_SYSTEM);
    g_assert_cmpstr(error->message, ==, "cannot talk with the daemon: Connection timed out");
    socket_listener_free(listener);
    (void)g_unlink(path); /* it may have gone with who listened */
    g_assert_cmpint(g_rmdir(folder), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("rpc-caller/silence", co_test_silence);
    return loop_test_finish();
}
