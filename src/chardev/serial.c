/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* serial: a terminal device of the host, most often a serial line: 115200 baud, 8 bits, no parity, one stop bit. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "base/error.h"
#include "chardev/chardev-internal.h"
#include "loop/file.h"
#include "loop/socket.h"

struct serial_chardev {
    int fd;
    bool is_terminal;
    struct termios saved;
};

/* Bytes as they are in both directions. */
static void serial_make_raw(const struct serial_chardev *serial)
{
    struct termios raw = serial->saved;

    cfmakeraw(&raw);
    raw.c_cflag &= ~(tcflag_t)(CSTOPB | CRTSCTS);
    raw.c_cflag |= CREAD | CLOCAL;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    cfsetspeed(&raw, B115200);
    (void)tcsetattr(serial->fd, TCSANOW, &raw);
}

static bool CO_FN co_serial_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    const char *path = backend->u.serial.data->device;
    struct serial_chardev *serial = chardev->state;

    serial->fd = co_file_open(path, O_RDWR | O_NOCTTY | O_NONBLOCK, 0);
    if (serial->fd < 0)
        return error_set_errno(err, serial->fd, "Could not open '%s'", path);
    serial->is_terminal = !tcgetattr(serial->fd, &serial->saved);
    if (serial->is_terminal)
        serial_make_raw(serial);
    chardev_opened(chardev);
    return true;
}

static void CO_FN co_serial_destroy(struct chardev *chardev)
{
    struct serial_chardev *serial = chardev->state;

    if (serial->is_terminal)
        (void)tcsetattr(serial->fd, TCSANOW, &serial->saved);
    fd_close(serial->fd);
}

static ssize_t CO_FN co_serial_read(struct chardev_frontend *frontend, void *to, size_t size)
{
    struct serial_chardev *serial = frontend->chardev->state;

    return co_fd_read(serial->fd, to, size);
}

static int CO_FN co_serial_write(struct chardev *chardev, const void *from, size_t size)
{
    struct serial_chardev *serial = chardev->state;

    return co_fd_write_all(serial->fd, from, size);
}

static void CO_FN co_serial_send_break(struct chardev *chardev)
{
    struct serial_chardev *serial = chardev->state;

    /* A quarter of a second; a device that knows no breaks says so, and that is that. */
    if (serial->is_terminal)
        (void)co_file_ioctl(serial->fd, TCSBRK, NULL);
}

const struct chardev_ops chardev_serial_ops = {
    .kind = CHARDEV_BACKEND_KIND_SERIAL,
    .state_size = sizeof(struct serial_chardev),
    .permanent = true,
    .co_create = co_serial_create,
    .co_destroy = co_serial_destroy,
    .co_read = co_serial_read,
    .co_write = co_serial_write,
    .co_send_break = co_serial_send_break,
};
