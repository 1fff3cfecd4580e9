/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Endpoints: what they are called, and the addresses behind their names. */
#include "loop/endpoint.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "base/error.h"
#include "loop/loop-internal.h"

void address_list_done(struct address_list list)
{
    g_free(list.items);
}

char *endpoint_name(const struct socket_endpoint *endpoint)
{
    switch (endpoint->family) {
    case SOCKET_UNIX:
        return g_strdup(endpoint->path);
    case SOCKET_INET:
        return strchr(endpoint->host, ':') ? g_strdup_printf("[%s]:%s", endpoint->host, endpoint->port)
                                           : g_strdup_printf("%s:%s", endpoint->host, endpoint->port);
    case SOCKET_VSOCK:
        return g_strdup_printf("%s:%s", endpoint->cid, endpoint->port);
    case SOCKET_FD:
        return g_strdup_printf("%d", endpoint->fd);
    }
    g_assert_not_reached();
}

static bool unix_resolve(const struct socket_endpoint *endpoint, struct address_list *ret, struct error **err)
{
    struct socket_address address = {.storage = {.ss_family = AF_UNIX}};
    struct sockaddr_un *un = (struct sockaddr_un *)&address.storage;
    size_t length = endpoint->path ? strlen(endpoint->path) : 0;

    if (!length && !endpoint->abstract)
        return error_set(err, "UNIX socket path is empty");
    if (length > UNIX_PATH_MAX_BYTES) {
        error_set(err, "UNIX socket path '%s' is too long: it has %zu bytes, the limit is %d", endpoint->path, length,
                  UNIX_PATH_MAX_BYTES);
        error_hint(err, "Path must be less than %d bytes", UNIX_PATH_MAX_BYTES + 1);
        return false;
    }
    memcpy(un->sun_path + endpoint->abstract, endpoint->path, length);
    address.size = sizeof(*un);
    if (endpoint->abstract && !endpoint->loose)
        address.size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    ret->items = g_memdup2(&address, sizeof(address));
    ret->count = 1;
    return true;
}

static bool vsock_number(const char *text, const char *what, unsigned *ret, struct error **err)
{
    guint64 value;

    if (!text || !g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX, &value, NULL))
        return error_set(err, "Failed to parse %s '%s'", what, text ? text : "");
    *ret = (unsigned)value;
    return true;
}

static bool vsock_resolve(const struct socket_endpoint *endpoint, struct address_list *ret, struct error **err)
{
    struct socket_address address = {.storage = {.ss_family = AF_VSOCK}, .size = sizeof(struct sockaddr_vm)};
    struct sockaddr_vm *vm = (struct sockaddr_vm *)&address.storage;

    if (!vsock_number(endpoint->cid, "cid", &vm->svm_cid, err) ||
        !vsock_number(endpoint->port, "port", &vm->svm_port, err))
        return false;
    ret->items = g_memdup2(&address, sizeof(address));
    ret->count = 1;
    return true;
}

struct inet_lookup {
    const char *host; /* NULL: any */
    const char *port;
    struct addrinfo hints;
    struct addrinfo *found;
    int errno_value; /* where the result is EAI_SYSTEM */
};

static int inet_lookup_work(void *opaque)
{
    struct inet_lookup *lookup = opaque;
    int result = getaddrinfo(lookup->host, lookup->port, &lookup->hints, &lookup->found);

    lookup->errno_value = errno;
    return result;
}

static bool CO_FN co_inet_resolve(const struct socket_endpoint *endpoint, bool passive, struct address_list *ret,
                                  struct error **err)
{
    struct inet_lookup lookup = {
        .host = *endpoint->host ? endpoint->host : NULL,
        .port = endpoint->port && *endpoint->port ? endpoint->port : "0",
        .hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0},
    };
    int result;

    if (endpoint->refuse_ipv4 && endpoint->refuse_ipv6)
        return error_set(err, "Cannot disable IPv4 and IPv6 at same time");
    if (endpoint->refuse_ipv4 || endpoint->refuse_ipv6)
        lookup.hints.ai_family = endpoint->refuse_ipv4 ? AF_INET6 : AF_INET;
    if (endpoint->numeric)
        lookup.hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
    result = co_worker_run(inet_lookup_work, &lookup);
    if (result) {
        g_autofree char *name = endpoint_name(endpoint);

        if (result == EAI_SYSTEM)
            return error_set_errno(err, lookup.errno_value, "address resolution failed for %s", name);
        return error_set(err, "address resolution failed for %s: %s", name, gai_strerror(result));
    }
    for (struct addrinfo *i = lookup.found; i; i = i->ai_next) {
        struct socket_address *address;

        ret->items = g_renew(struct socket_address, ret->items, ret->count + 1);
        address = &ret->items[ret->count++];
        *address = (struct socket_address){.size = i->ai_addrlen};
        address->protocol = endpoint->mptcp ? IPPROTO_MPTCP : IPPROTO_TCP;
        assert(i->ai_addrlen <= sizeof(address->storage));
        memcpy(&address->storage, i->ai_addr, i->ai_addrlen);
    }
    freeaddrinfo(lookup.found);
    assert(ret->count > 0);
    return true;
}

bool co_endpoint_resolve(const struct socket_endpoint *endpoint, bool passive, struct address_list *ret,
                         struct error **err)
{
    *ret = (struct address_list){0};
    switch (endpoint->family) {
    case SOCKET_UNIX:
        return unix_resolve(endpoint, ret, err);
    case SOCKET_INET:
        return co_inet_resolve(endpoint, passive, ret, err);
    case SOCKET_VSOCK:
        return vsock_resolve(endpoint, ret, err);
    case SOCKET_FD:
        break;
    }
    g_assert_not_reached();
}

int address_socket(const struct socket_address *address)
{
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);

    return fd < 0 ? -errno : fd;
}

void address_host(const struct socket_address *address, char host[NI_MAXHOST])
{
    int failed = getnameinfo((const struct sockaddr *)&address->storage, address->size, host, NI_MAXHOST, NULL, 0,
                             NI_NUMERICHOST);

    assert(!failed);
}

static uint16_t address_port(const struct socket_address *address)
{
    if (address->storage.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&address->storage)->sin6_port);
    return ntohs(((const struct sockaddr_in *)&address->storage)->sin_port);
}

char *socket_peer_name(int fd)
{
    struct socket_address address = {.size = sizeof(address.storage)};
    const struct sockaddr_vm *vm = (const struct sockaddr_vm *)&address.storage;
    struct ucred who;
    socklen_t size = sizeof(who);
    char host[NI_MAXHOST];

    if (getpeername(fd, (struct sockaddr *)&address.storage, &address.size))
        return g_strdup("unknown");
    switch (address.storage.ss_family) {
    case AF_INET:
    case AF_INET6:
        address_host(&address, host);
        return g_strdup_printf(strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, address_port(&address));
    case AF_UNIX:
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) || who.pid <= 0)
            return g_strdup("unknown");
        return g_strdup_printf("process %d", (int)who.pid);
    case AF_VSOCK:
        return g_strdup_printf("vsock %u:%u", vm->svm_cid, vm->svm_port);
    default:
        return g_strdup("unknown");
    }
}

static void set_unless_zero(int fd, int option, uint32_t value)
{
    int number = (int)MIN(value, (uint32_t)INT_MAX);

    if (value)
        (void)setsockopt(fd, IPPROTO_TCP, option, &number, sizeof(number));
}

void socket_widen(int fd, int bytes)
{
    struct sockaddr_storage address = {0};
    socklen_t address_size = sizeof(address), size = sizeof(int);
    int now = 0;

    assert(bytes > 0);
    if (getsockname(fd, (struct sockaddr *)&address, &address_size) || address.ss_family != AF_UNIX)
        return;
    if (!getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &now, &size) && now < bytes)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

void socket_prepare_connected(int fd, const struct socket_keep_alive *keep_alive)
{
    int on = 1;

    /* Not every family has both; a connection works without. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (!keep_alive->on)
        return;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    set_unless_zero(fd, TCP_KEEPCNT, keep_alive->count);
    set_unless_zero(fd, TCP_KEEPIDLE, keep_alive->idle_s);
    set_unless_zero(fd, TCP_KEEPINTVL, keep_alive->interval_s);
}

void fd_set_close_on_exec(int fd)
{
    int flags = fcntl(fd, F_GETFD);

    if (flags >= 0)
        (void)fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
}

void fd_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}
