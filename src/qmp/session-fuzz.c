/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole QMP session on a daemon that has only the commands about the session itself. The input is what the client
 * sends; its first byte says into which pieces it is cut. Every line of output must be JSON of one of the known shapes.
 */
#include <assert.h>
#include <glib.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "chardev/chardev.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "object/object.h"
#include "qmp/command-set.h"
#include "qmp/daemon.h"
#include "qmp/monitor.h"
#include "schema/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OUTPUT_MAX = 64 << 20 };

struct input {
    const uint8_t *data;
    size_t size;
    size_t piece; /* sent at once */
    int fd;       /* our end */
};

static void CO_FN co_send_all(void *opaque)
{
    struct input *input = opaque;

    for (size_t done = 0; done < input->size;) {
        size_t piece = MIN(input->piece, input->size - done);
        ssize_t sent = co_socket_send(input->fd, input->data + done, piece, 0);

        if (sent < 0)
            break;
        done += (size_t)sent;
    }
    shutdown(input->fd, SHUT_WR);
}

static void check_line(const char *line, size_t size)
{
    AUTO(error) err = NULL;
    AUTO(json) message = json_parse(line, size, &err);

    assert(message);
    assert(json_get_kind(message) == JSON_OBJECT);
    assert(!!json_get(message, "QMP") + !!json_get(message, "return") + !!json_get(message, "error") == 1);
    for (size_t i = 0; i < size; i++)
        assert((unsigned char)line[i] < 0x80);
}

static void CO_FN co_check_output(int fd)
{
    g_autoptr(GString) output = g_string_new(NULL);
    g_autofree char *buffer = g_malloc(65536);

    for (;;) {
        ssize_t size = co_socket_recv(fd, buffer, 65536, 0);

        if (size <= 0)
            break;
        g_string_append_len(output, buffer, size);
        for (const char *end; (end = strstr(output->str, "\r\n"));) {
            check_line(output->str, (size_t)(end - output->str));
            g_string_erase(output, 0, end + 2 - output->str);
        }
        assert(output->len < OUTPUT_MAX);
    }
    assert(!output->len);
}

static void CO_FN co_session(void *opaque)
{
    static const char *const names[] = {"qmp_capabilities", "query-version", "query-commands"};
    struct input *input = opaque;
    struct qmp_command commands[G_N_ELEMENTS(names)];
    struct monitor_options options = {.chardev = (char[]){"c"}, .has_pretty = false};
    struct daemon daemon = {.main_loop = loop_current()};
    AUTO(qmp_command_set) all = qmp_command_set_new(qmp_commands, qmp_command_count);
    AUTO(error) err = NULL;
    bool help = false;
    int fds[2];

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        commands[i] = *qmp_command_set_find(all, names[i]);
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    input->fd = fds[0];
    g_autofree char *chardev = g_strdup_printf("socket,id=c,fd=%d", fds[1]);

    daemon.objects = object_registry_new();
    daemon.chardevs = chardev_registry_new(daemon.objects);
    daemon.commands = qmp_command_set_new(commands, G_N_ELEMENTS(commands));
    daemon.monitors = monitor_registry_new(&daemon, daemon.commands);
    assert(co_chardev_add_option(daemon.chardevs, chardev, &help, &err));
    assert(monitor_add(daemon.monitors, &options, &err));

    struct co_task *sender = co_task_start(loop_current(), co_send_all, input);
    co_check_output(input->fd);
    co_task_join(sender);

    co_monitor_registry_stop(daemon.monitors);
    co_monitor_registry_free(daemon.monitors);
    co_chardev_registry_free(daemon.chardevs);
    co_object_registry_free(daemon.objects);
    qmp_command_set_free(daemon.commands);
    fd_close(input->fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct loop *loop; /* one for all inputs: making one is slow */
    struct loop_options options = {.name = "fuzz"};

    if (!size)
        return 0;
    if (!loop)
        loop = loop_new(&options, NULL);
    assert(loop);

    struct input input = {.data = data + 1, .size = size - 1, .piece = data[0] ? data[0] : SIZE_MAX};
    co_run(loop, co_session, &input);
    return 0;
}
