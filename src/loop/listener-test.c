/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listening and dialling: every kind of address, and what is in the way. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/loop-test.h"
#include "loop/socket.h"

AUTO_DEFINE(listener, struct socket_listener *, socket_listener_free)

struct accepting {
    struct socket_listener *listener;
    int fd;
};

static void co_accept(void *opaque)
{
    struct accepting *accepting = opaque;

    accepting->fd = co_socket_listener_accept(accepting->listener);
}

/* Connects to `listener`, and sees a byte through. */
static void co_use(struct socket_listener *listener, const struct socket_endpoint *endpoint)
{
    struct accepting accepting = {.listener = listener, .fd = -1};
    struct co_task *task = co_task_start(loop_current(), co_accept, &accepting);
    AUTO(error) err = NULL;
    char data = 0;
    int fd;

    fd = co_socket_dial(endpoint, &err);
    g_assert_cmpstr(err ? error_message(err) : NULL, ==, NULL);
    g_assert_cmpint(fd, >=, 0);
    co_task_join(task);
    g_assert_cmpint(accepting.fd, >=, 0);
    g_assert_cmpint(co_socket_send(fd, "b", 1, 0), ==, 1);
    g_assert_cmpint(co_socket_recv(accepting.fd, &data, 1, 0), ==, 1);
    g_assert_cmpint(data, ==, 'b');
    if (loop_get_backend(loop_current()) != LOOP_SIM) {
        g_assert_cmpint(fcntl(accepting.fd, F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
        g_assert_cmpint(fcntl(accepting.fd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
    }
    fd_close(fd);
    fd_close(accepting.fd);
}

static struct socket_listener *co_listen(const struct socket_endpoint *endpoint)
{
    AUTO(error) err = NULL;
    struct socket_listener *listener = co_socket_listen(endpoint, 16, &err);

    g_assert_cmpstr(err ? error_message(err) : NULL, ==, NULL);
    g_assert_nonnull(listener);
    return listener;
}

static void co_assert_refused(const struct socket_endpoint *endpoint, const char *message)
{
    AUTO(error) err = NULL;
    struct socket_listener *listener = co_socket_listen(endpoint, 16, &err);

    g_assert_null(listener);
    g_assert_cmpstr(error_message(err), ==, message);
}

static void co_assert_not_dialled(const struct socket_endpoint *endpoint, const char *message)
{
    AUTO(error) err = NULL;

    g_assert_cmpint(co_socket_dial(endpoint, &err), ==, -1);
    g_assert_cmpstr(error_message(err), ==, message);
}

/* --- unix --- */

static void co_test_unix(void *opaque)
{
    g_autofree char *path = loop_test_path("sock");
    g_autofree char *address = g_strconcat("unix:", path, NULL);
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    AUTO(listener) listener = co_listen(&endpoint);

    g_assert_cmpstr(socket_listener_address(listener), ==, address);
    g_assert_cmpint(socket_listener_port(listener), ==, 0);
    co_use(listener, &endpoint);
    co_use(listener, &endpoint);
    socket_listener_free(TAKE(listener));
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static int send_buffer_of(int fd)
{
    int bytes = 0;
    socklen_t size = sizeof(bytes);

    g_assert_cmpint(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &size), ==, 0);
    return bytes;
}

/* Unix sockets grow and never shrink; others keep what they have. */
static void co_test_widen(void *opaque)
{
    int pair[2], inet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int small = 64 * 1024, before;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_assert_cmpint(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), ==, 0);
    before = send_buffer_of(pair[0]);
    socket_widen(pair[0], small / 2);
    g_assert_cmpint(send_buffer_of(pair[0]), ==, before);
    socket_widen(pair[0], 4 * small);
    g_assert_cmpint(send_buffer_of(pair[0]), >, before);
    before = send_buffer_of(inet);
    socket_widen(inet, 8 * before);
    g_assert_cmpint(send_buffer_of(inet), ==, before);
    fd_close(pair[0]);
    fd_close(pair[1]);
    fd_close(inet);
}

static void co_test_unix_stale(void *opaque)
{
    g_autofree char *path = loop_test_path("stale");
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};
    g_autofree char *gone = g_strdup_printf("Failed to connect to '%s': No such file or directory", path);
    struct socket_listener *first = co_listen(&endpoint);
    struct socket_listener *second = co_listen(&endpoint); /* takes the name over */

    socket_listener_free(first); /* must leave what is not its own any more */
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
    co_use(second, &endpoint);
    socket_listener_free(second);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    co_assert_not_dialled(&endpoint, gone);
}

static void co_test_unix_bad(void *opaque)
{
    g_autofree char *path = loop_test_path("not-a-socket");
    g_autofree char *inside = g_strconcat(path, "/x", NULL);
    g_autofree char *in_the_way =
        g_strdup_printf("Failed to bind socket to %s: there is a file of another kind in the way", path);
    g_autofree char *not_directory = g_strdup_printf("Failed to bind socket to %s: Not a directory", inside);
    char longest[108 + 1];
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = path};

    g_assert_true(g_file_set_contents(path, "precious", -1, NULL));
    co_assert_refused(&endpoint, in_the_way);
    g_assert_true(g_file_test(path, G_FILE_TEST_IS_REGULAR));
    endpoint.path = inside;
    co_assert_refused(&endpoint, not_directory);
    memset(longest, 'a', 108);
    longest[108] = 0;
    endpoint.path = longest;
    co_assert_refused(&endpoint,
                      "UNIX socket path 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' is too long: it has 108 bytes, the limit is 107");
    endpoint.path = "";
    co_assert_refused(&endpoint, "UNIX socket path is empty");
}

static void co_test_abstract(void *opaque)
{
    g_autofree char *name =
        g_strdup_printf("ashlar-test-%d-%s", getpid(), loop_backend_name(loop_get_backend(loop_current())));
    struct socket_endpoint tight = {.family = SOCKET_UNIX, .path = name, .abstract = true};
    struct socket_endpoint loose = {.family = SOCKET_UNIX, .path = name, .abstract = true, .loose = true};
    AUTO(listener) one = co_listen(&tight);
    AUTO(listener) two = co_listen(&loose); /* another name */
    g_autofree char *in_use = g_strdup_printf("Failed to bind socket to %s: Address already in use", name);

    g_assert_true(g_str_has_prefix(socket_listener_address(one), "unix:@ashlar-test-"));
    co_use(one, &tight);
    co_use(two, &loose);
    co_assert_refused(&tight, in_use);
}

/* --- inet --- */

static void co_test_inet(void *opaque)
{
    struct socket_endpoint endpoint = {
        .family = SOCKET_INET, .host = "127.0.0.1", .port = "0", .keep_alive = {.on = true, .count = 7}};
    AUTO(listener) listener = co_listen(&endpoint);
    g_autofree char *port = g_strdup_printf("%u", socket_listener_port(listener));
    g_autofree char *address = g_strdup_printf("inet:127.0.0.1:%s", port);
    struct accepting accepting = {.listener = listener, .fd = -1};
    g_autofree char *peer = NULL;
    struct co_task *task;
    socklen_t size = sizeof(int);
    int value = 0;
    int fd;

    g_assert_cmpstr(socket_listener_address(listener), ==, address);
    endpoint.port = port;
    co_use(listener, &endpoint);
    task = co_task_start(loop_current(), co_accept, &accepting);
    fd = co_socket_dial(&endpoint, NULL);
    co_task_join(task);
    g_assert_cmpint(getsockopt(accepting.fd, IPPROTO_TCP, TCP_NODELAY, &value, &size), ==, 0);
    g_assert_cmpint(value, ==, 1);
    g_assert_cmpint(getsockopt(accepting.fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size), ==, 0);
    g_assert_cmpint(value, ==, 1);
    g_assert_cmpint(getsockopt(accepting.fd, IPPROTO_TCP, TCP_KEEPCNT, &value, &size), ==, 0);
    g_assert_cmpint(value, ==, 7);
    peer = socket_peer_name(fd);
    g_assert_cmpstr(peer, ==, address + strlen("inet:"));
    fd_close(fd);
    fd_close(accepting.fd);
}

/* Of any host: one port, for IPv4 and, where the machine has it, IPv6. */
static void co_test_inet_any(void *opaque)
{
    struct socket_endpoint endpoint = {.family = SOCKET_INET, .host = "", .port = "0"};
    AUTO(listener) listener = co_listen(&endpoint);
    g_autofree char *port = g_strdup_printf("%u", socket_listener_port(listener));
    int six = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

    endpoint.port = port;
    for (unsigned i = 0; i < 3; i++) {
        endpoint.host = "127.0.0.1";
        co_use(listener, &endpoint);
        if (six >= 0 && !bind(six, (struct sockaddr *)&loopback, sizeof(loopback))) {
            endpoint.host = "::1";
            co_use(listener, &endpoint);
        }
        if (six >= 0)
            close(six);
        six = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
    if (six >= 0)
        close(six);
}

static void co_test_inet_range(void *opaque)
{
    struct socket_endpoint endpoint = {.family = SOCKET_INET, .host = "127.0.0.1", .port = "0"};
    AUTO(listener) first = co_listen(&endpoint);
    g_autofree char *port = g_strdup_printf("%u", socket_listener_port(first));
    g_autofree char *in_use =
        g_strdup_printf("Failed to find an available port for 127.0.0.1:%s: Address already in use", port);

    endpoint.port = port;
    co_assert_refused(&endpoint, in_use);
    if (socket_listener_port(first) <= UINT16_MAX - 100) {
        AUTO(listener) second = NULL;

        endpoint.port_to = (uint16_t)(socket_listener_port(first) + 100);
        second = co_listen(&endpoint);
        g_assert_cmpuint(socket_listener_port(second), >, socket_listener_port(first));
        g_assert_cmpuint(socket_listener_port(second), <=, endpoint.port_to);
    }
    endpoint.port = "2000";
    endpoint.port_to = 1999;
    co_assert_refused(&endpoint, "the range of ports from 2000 to 1999 is empty");
}

static void co_test_inet_bad(void *opaque)
{
    struct socket_endpoint endpoint = {.family = SOCKET_INET, .host = "localhost", .port = "1"};

    endpoint.numeric = true;
    co_assert_refused(&endpoint, "address resolution failed for localhost:1: Name or service not known");
    endpoint.host = "127.0.0.1";
    endpoint.port = "no-such-service-name";
    endpoint.numeric = false;
    co_assert_refused(&endpoint, "address resolution failed for 127.0.0.1:no-such-service-name: Servname not supported "
                                 "for ai_socktype");
    endpoint.port = "0";
    endpoint.refuse_ipv4 = true;
    endpoint.refuse_ipv6 = true;
    co_assert_refused(&endpoint, "Cannot disable IPv4 and IPv6 at same time");
    endpoint.refuse_ipv4 = false;
    endpoint.host = "192.0.2.1"; /* an address for documentation */
    endpoint.port = "7";
    co_assert_refused(&endpoint, "Failed to bind socket to 192.0.2.1:7: Cannot assign requested address");
}

static void co_test_inet_refused(void *opaque)
{
    struct socket_endpoint endpoint = {.family = SOCKET_INET, .host = "127.0.0.1", .port = "0"};
    struct socket_listener *listener = co_listen(&endpoint);
    g_autofree char *port = g_strdup_printf("%u", socket_listener_port(listener));
    g_autofree char *refused = g_strdup_printf("Failed to connect to '127.0.0.1:%s': Connection refused", port);

    endpoint.port = port;
    socket_listener_free(listener);
    co_assert_not_dialled(&endpoint, refused);
}

static void co_test_mptcp(void *opaque)
{
    struct socket_endpoint endpoint = {.family = SOCKET_INET, .host = "127.0.0.1", .port = "0", .mptcp = true};
    AUTO(error) err = NULL;
    AUTO(listener) listener = co_socket_listen(&endpoint, 16, &err);
    g_autofree char *port = NULL;

    if (!listener) {
        /* A kernel without it says so. */
        g_assert_true(g_str_has_prefix(error_message(err), "Failed to bind socket to 127.0.0.1:0: Protocol not "));
        return;
    }
    port = g_strdup_printf("%u", socket_listener_port(listener));
    endpoint.port = port;
    co_use(listener, &endpoint);
}

/* --- vsock --- */

static void co_test_vsock(void *opaque)
{
    struct socket_endpoint endpoint = {.family = SOCKET_VSOCK, .cid = "1", .port = "x"};
    AUTO(error) err = NULL;
    AUTO(listener) listener = NULL;

    co_assert_refused(&endpoint, "Failed to parse port 'x'");
    endpoint.port = "4294967296";
    co_assert_refused(&endpoint, "Failed to parse port '4294967296'");
    endpoint.port = "5555";
    endpoint.cid = "me";
    co_assert_refused(&endpoint, "Failed to parse cid 'me'");
    endpoint.cid = "1"; /* this machine itself; not every kernel has it */
    listener = co_socket_listen(&endpoint, 16, &err);
    if (listener) {
        g_assert_cmpstr(socket_listener_address(listener), ==, "vsock:1:5555");
        co_use(listener, &endpoint);
    } else {
        g_assert_true(strstr(error_message(err), "1:5555: "));
    }
}

/* --- passed descriptors --- */

static void co_test_fd(void *opaque)
{
    g_autofree char *path = loop_test_path("passed");
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct socket_endpoint endpoint = {.family = SOCKET_FD, .fd = socket(AF_UNIX, SOCK_STREAM, 0)};
    struct socket_endpoint dial = {.family = SOCKET_UNIX, .path = path};
    g_autofree char *not_listening = g_strdup_printf("File descriptor '%d' is not a listening socket", endpoint.fd);
    g_autofree char *address = g_strdup_printf("fd:%d", endpoint.fd);
    AUTO(listener) listener = NULL;

    co_assert_refused(&endpoint, not_listening);
    strcpy(un.sun_path, path);
    g_assert_cmpint(bind(endpoint.fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    g_assert_cmpint(listen(endpoint.fd, 5), ==, 0);
    listener = co_listen(&endpoint);
    g_assert_cmpint(fcntl(endpoint.fd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
    g_assert_cmpstr(socket_listener_address(listener), ==, address);
    co_use(listener, &dial);
    socket_listener_free(TAKE(listener));
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS)); /* not ours to remove */
}

static void co_test_fd_bad(void *opaque)
{
    g_autofree char *path = loop_test_path("file");
    struct socket_endpoint endpoint = {.family = SOCKET_FD, .fd = 1000000};
    g_autofree char *message = NULL;
    int fds[2];

    co_assert_refused(&endpoint, "File descriptor '1000000' cannot be used: Bad file descriptor");
    co_assert_not_dialled(&endpoint, "File descriptor '1000000' cannot be used: Bad file descriptor");
    endpoint.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    message = g_strdup_printf("File descriptor '%d' is not a socket", endpoint.fd);
    co_assert_refused(&endpoint, message);
    co_assert_not_dialled(&endpoint, message);
    fd_close(endpoint.fd);
    g_free(message);
    endpoint.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    message = g_strdup_printf("File descriptor '%d' is not a stream socket", endpoint.fd);
    co_assert_refused(&endpoint, message);
    co_assert_not_dialled(&endpoint, message);
    fd_close(endpoint.fd);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    endpoint.fd = fds[0];
    g_assert_cmpint(co_socket_dial(&endpoint, NULL), ==, fds[0]);
    g_assert_cmpint(fcntl(fds[0], F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

/* --- waiting --- */

static void co_test_cancel(void *opaque)
{
    struct socket_endpoint endpoint = {.family = SOCKET_INET, .host = "", .port = "0"};
    AUTO(listener) several = co_listen(&endpoint);
    struct accepting accepting = {.listener = several, .fd = -1};
    struct co_task *task = co_task_start(loop_current(), co_accept, &accepting);

    g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(accepting.fd, ==, -ECANCELED);
    endpoint.host = "127.0.0.1";
    AUTO(listener) one = co_listen(&endpoint);
    accepting.listener = one;
    task = co_task_start(loop_current(), co_accept, &accepting);
    g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(accepting.fd, ==, -ECANCELED);
}

/* The simulated machine's own sockets, by the same calls. */
static void co_test_sim(void *opaque)
{
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = "/run/sock"};
    AUTO(listener) listener = NULL;

    if (loop_get_backend(loop_current()) != LOOP_SIM)
        return;
    co_assert_not_dialled(&endpoint, "Failed to connect to '/run/sock': Connection refused");
    listener = co_listen(&endpoint);
    g_assert_cmpstr(socket_listener_address(listener), ==, "unix:/run/sock");
    co_assert_refused(&endpoint, "Failed to bind socket to /run/sock: Address already in use");
    co_use(listener, &endpoint);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("listener/unix", co_test_unix);
    loop_test_add_real("listener/widen", co_test_widen);
    loop_test_add_real("listener/unix-stale", co_test_unix_stale);
    loop_test_add_real("listener/unix-bad", co_test_unix_bad);
    loop_test_add_real("listener/abstract", co_test_abstract);
    loop_test_add_real("listener/inet", co_test_inet);
    loop_test_add_real("listener/inet-any", co_test_inet_any);
    loop_test_add_real("listener/inet-range", co_test_inet_range);
    loop_test_add_real("listener/inet-bad", co_test_inet_bad);
    loop_test_add_real("listener/inet-refused", co_test_inet_refused);
    loop_test_add_real("listener/mptcp", co_test_mptcp);
    loop_test_add_real("listener/vsock", co_test_vsock);
    loop_test_add_real("listener/fd", co_test_fd);
    loop_test_add_real("listener/fd-bad", co_test_fd_bad);
    loop_test_add_real("listener/cancel", co_test_cancel);
    loop_test_add("listener/sim", co_test_sim);
    return loop_test_finish();
}
