/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What systemd hands over is taken or refused as a whole, and hears how we are. */
#include "pool/supervisor.h"

#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/file.h"

enum { FIRST_FD = 3, FDS = 17 };

static void offer(const char *pid, const char *count, const char *names)
{
    g_autofree char *own = g_strdup_printf("%d", (int)getpid());

    g_setenv("LISTEN_PID", pid ? pid : own, true);
    g_setenv("LISTEN_FDS", count, true);
    if (names)
        g_setenv("LISTEN_FDNAMES", names, true);
    else
        g_unsetenv("LISTEN_FDNAMES");
}

static bool take(bool privileged, struct supervisor_sockets *ret, struct error **err)
{
    bool ok = supervisor_take_sockets(privileged, ret, err);

    /* Whatever came of it, children do not see it. */
    g_assert_null(g_getenv("LISTEN_PID"));
    g_assert_null(g_getenv("LISTEN_FDS"));
    g_assert_null(g_getenv("LISTEN_FDNAMES"));
    return ok;
}

static void test_named(void)
{
    struct supervisor_sockets sockets;

    offer(NULL, "3", "virtstoraged-admin.socket:ashlar-poold.socket:virtstoraged-ro.socket");
    g_assert_true(take(true, &sockets, NULL));
    g_assert_true(sockets.used);
    g_assert_cmpint(sockets.fds[POOL_SOCKET_ADMIN][0], ==, 3);
    g_assert_cmpint(sockets.fds[POOL_SOCKET_MAIN][0], ==, 4);
    g_assert_cmpint(sockets.fds[POOL_SOCKET_READ_ONLY][0], ==, 5);
    for (int fd = FIRST_FD; fd < FIRST_FD + 3; fd++)
        g_assert_cmpint(fcntl(fd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
}

static void test_not_for_us(void)
{
    static const char *const offers[][3] = {
        {"1", "1", "virtstoraged.socket"},   /* another process */
        {NULL, "0", ""},                     /* none */
        {NULL, "x", "virtstoraged.socket"},  /* no number */
        {NULL, "65", "virtstoraged.socket"}, /* more than anybody has */
        {NULL, "1", NULL},                   /* without names: as with libvirt's, that is no activation */
        {NULL, "2", "virtstoraged.socket"},  /* with too few */
        {NULL, "1", "virtstoraged.socket:ashlar-x.socket"}, /* with too many */
    };

    for (size_t i = 0; i < G_N_ELEMENTS(offers); i++) {
        struct supervisor_sockets sockets;

        offer(offers[i][0], offers[i][1], offers[i][2]);
        g_assert_true(take(true, &sockets, NULL));
        g_assert_false(sockets.used);
        for (int j = 0; j < POOL_SOCKET__MAX; j++)
            g_assert_cmpuint(sockets.counts[j], ==, 0);
    }
}

/* A unit that listens in several places. */
static void test_same_name(void)
{
    struct supervisor_sockets sockets;

    offer(NULL, "3", "virtstoraged.socket:virtstoraged-ro.socket:virtstoraged.socket");
    g_assert_true(take(true, &sockets, NULL));
    g_assert_cmpuint(sockets.counts[POOL_SOCKET_MAIN], ==, 2);
    g_assert_cmpint(sockets.fds[POOL_SOCKET_MAIN][0], ==, 3);
    g_assert_cmpint(sockets.fds[POOL_SOCKET_MAIN][1], ==, 5);
    g_assert_cmpuint(sockets.counts[POOL_SOCKET_READ_ONLY], ==, 1);
}

static void test_refused(void)
{
    static const char many[] =
        "virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:"
        "virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:"
        "virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:virtstoraged.socket:"
        "virtstoraged.socket:virtstoraged.socket";
    static const struct {
        const char *count, *names;
        bool privileged;
        const char *message;
    } cases[] = {
        {"1", "libvirtd.socket", true, "unclaimed: 'libvirtd.socket'"},
        {"17", many, true, "unclaimed: 'virtstoraged.socket'"},
        {"1", "virtstoraged-ro.socket", false, "unclaimed: 'virtstoraged-ro.socket'"},
        {"2", "virtstoraged.socket:", true, "unclaimed: ''"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct supervisor_sockets sockets;
        AUTO(error) error = NULL;

        offer(NULL, cases[i].count, cases[i].names);
        g_assert_false(take(cases[i].privileged, &sockets, &error));
        g_assert_nonnull(strstr(error_message(error), cases[i].message));
    }
}

static void expect_message(int fd, const char *beginning)
{
    char message[1024] = "";

    g_assert_cmpint(recv(fd, message, sizeof(message) - 1, MSG_DONTWAIT), >, 0);
    if (!g_str_has_prefix(message, beginning))
        g_error("'%s' does not begin with '%s'", message, beginning);
}

static void test_told(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    AUTO(fd) fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_autofree char *folder = g_dir_make_tmp("ashlar-notify-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "notify", NULL);

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    g_assert_cmpint(bind(fd, (const struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_setenv("NOTIFY_SOCKET", path, true);
    supervisor_tell_ready();
    expect_message(fd, "READY=1\n");
    supervisor_tell_reloading();
    expect_message(fd, "RELOADING=1\nMONOTONIC_USEC=");
    supervisor_tell_stopping();
    expect_message(fd, "STOPPING=1");
    /* Nobody there, or no path at all: nobody hears it, and nothing happens. */
    g_unlink(path);
    supervisor_tell_ready();
    g_setenv("NOTIFY_SOCKET", "relative", true);
    supervisor_tell_ready();
    g_unsetenv("NOTIFY_SOCKET");
    supervisor_tell_ready();
    g_rmdir(folder);
}

int main(int argc, char **argv)
{
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

    /* Before anything else has descriptors of these numbers. */
    for (int fd = FIRST_FD; fd < FIRST_FD + FDS; fd++)
        g_assert_cmpint(fd == nothing ? fd : dup2(nothing, fd), ==, fd);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pool/supervisor/named", test_named);
    g_test_add_func("/pool/supervisor/not-for-us", test_not_for_us);
    g_test_add_func("/pool/supervisor/same-name", test_same_name);
    g_test_add_func("/pool/supervisor/refused", test_refused);
    g_test_add_func("/pool/supervisor/told", test_told);
    return g_test_run();
}
