/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stdio: the standard streams of the process. Where standard input is a terminal, it gives us bytes instead of lines
 * and does not echo, until the chardev goes.
 */
#include <errno.h>
#include <glib.h>
#include <termios.h>
#include <unistd.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "loop/socket.h"

struct stdio_chardev {
    bool is_terminal;
    struct termios saved; /* of the terminal */
};

/*
 * Whether the terminal, if it is one, is ours to change: who does it from the background is stopped by the kernel. A
 * terminal that does not control our session knows no background.
 */
static bool terminal_is_ours(void)
{
    pid_t foreground = tcgetpgrp(STDIN_FILENO);

    return foreground < 0 || foreground == getpgrp();
}

/* Bytes as they come, without echo; `signals`: Ctrl-C and the like still act on the process. */
static void terminal_make_raw(const struct termios *from, bool signals)
{
    struct termios raw = *from;

    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_oflag |= OPOST;
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    if (!signals)
        raw.c_lflag &= ~(tcflag_t)ISIG;
    raw.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
    raw.c_cflag |= CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

static bool CO_FN co_stdio_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    const struct chardev_stdio *options = backend->u.stdio.data;
    struct stdio_chardev *stdio = chardev->state;

    if (chardev->registry->stdio_in_use)
        return error_set(err, "cannot use stdio by multiple character devices");
    chardev->registry->stdio_in_use = true;
    stdio->is_terminal = terminal_is_ours() && !tcgetattr(STDIN_FILENO, &stdio->saved);
    if (stdio->is_terminal)
        terminal_make_raw(&stdio->saved, !options->has_signal || options->signal);
    chardev_opened(chardev);
    return true;
}

static void CO_FN co_stdio_destroy(struct chardev *chardev)
{
    struct stdio_chardev *stdio = chardev->state;

    if (stdio->is_terminal && terminal_is_ours())
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &stdio->saved);
    chardev->registry->stdio_in_use = false;
}

static ssize_t CO_FN co_stdio_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    return co_fd_read(STDIN_FILENO, to, size);
}

static int CO_FN co_stdio_write(struct chardev *chardev, const void *from, size_t size)
{
    return co_fd_write_all(STDOUT_FILENO, from, size);
}

const struct chardev_ops chardev_stdio_ops = {
    .kind = CHARDEV_BACKEND_KIND_STDIO,
    .state_size = sizeof(struct stdio_chardev),
    .permanent = true,
    .co_create = co_stdio_create,
    .co_destroy = co_stdio_destroy,
    .co_read = co_stdio_read,
    .co_write = co_stdio_write,
};
