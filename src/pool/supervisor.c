/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/supervisor.h"

#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/loop.h"
#include "loop/unix-datagram.h"
#include "pool/log.h"

enum { FIRST_FD = 3, FDS_MAX = 64 };

/* How systemd calls the sockets: by the units of libvirt, or of ours. */
static const char *const names[POOL_SOCKET__MAX][2] = {
    [POOL_SOCKET_MAIN] = {"virtstoraged.socket", "ashlar-poold.socket"},
    [POOL_SOCKET_READ_ONLY] = {"virtstoraged-ro.socket", "ashlar-poold-ro.socket"},
    [POOL_SOCKET_ADMIN] = {"virtstoraged-admin.socket", "ashlar-poold-admin.socket"},
};

static bool number_of(const char *variable, guint64 max, guint64 *ret)
{
    const char *text = g_getenv(variable);

    return text && g_ascii_string_to_unsigned(text, 10, 0, max, ret, NULL);
}

static bool claim(struct supervisor_sockets *sockets, const char *name, int fd)
{
    for (int i = 0; i < POOL_SOCKET__MAX; i++) {
        if (strcmp(name, names[i][0]) != 0 && strcmp(name, names[i][1]) != 0)
            continue;
        if (sockets->counts[i] == SUPERVISOR_SAME_MAX)
            return false;
        sockets->fds[i][sockets->counts[i]++] = fd;
        return true;
    }
    return false;
}

static bool claim_all(bool privileged, guint64 count, struct supervisor_sockets *ret, struct error **err)
{
    const char *list = g_getenv("LISTEN_FDNAMES");
    g_auto(GStrv) words = list ? g_strsplit(list, ":", -1) : NULL;

    if (!words || g_strv_length(words) != count) {
        pool_log_error("supervisor", "LISTEN_FDNAMES does not name the %d descriptors of LISTEN_FDS: they are not used",
                       (int)count);
        return true;
    }
    for (int i = 0; i < (int)count; i++) {
        if (fcntl(FIRST_FD + i, F_SETFD, FD_CLOEXEC) || !claim(ret, words[i], FIRST_FD + i))
            return error_set(err, "Some activation file descriptors are unclaimed: '%s'", words[i]);
    }
    ret->used = count;
    if (!privileged && ret->counts[POOL_SOCKET_READ_ONLY])
        return error_set(err, "Some activation file descriptors are unclaimed: '%s'", names[POOL_SOCKET_READ_ONLY][0]);
    return true;
}

bool supervisor_take_sockets(bool privileged, struct supervisor_sockets *ret, struct error **err)
{
    guint64 count;
    guint64 pid;
    bool ok = true;

    *ret = (struct supervisor_sockets){0};
    memset(ret->fds, -1, sizeof(ret->fds));
    if (number_of("LISTEN_PID", INT32_MAX, &pid) && (pid_t)pid == getpid() &&
        number_of("LISTEN_FDS", FDS_MAX, &count) && count)
        ok = claim_all(privileged, count, ret, err);
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    g_unsetenv("LISTEN_FDNAMES");
    return ok;
}

static void tell(const char *state)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    int result;

    if (!path || (*path != '/' && *path != '@'))
        return;
    result = unix_datagram_send(path, state, strlen(state));
    if (result)
        pool_log_warning("supervisor", "cannot tell '%s' to %s: %s", state, path, g_strerror(-result));
}

void supervisor_tell_ready(void)
{
    tell("READY=1\nSTATUS=serving");
}

void supervisor_tell_reloading(void)
{
    g_autofree char *text =
        g_strdup_printf("RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\nSTATUS=reloading", loop_now_ns() / 1000);

    tell(text);
}

void supervisor_tell_stopping(void)
{
    tell("STOPPING=1");
}
