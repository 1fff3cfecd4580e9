/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's NBD client: a device /dev/nbdN is given a connection whose handshake we have done, and is served for as
 * long as one call to the kernel lasts.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "base/error.h"
#include "bin/nbd.h"
#include "driver/protocol/nbd/handshake.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"

/* The kernel's interface, linux/nbd.h; that header has names of the protocol which we have too. */
#define NBD_SET_SOCK _IO(0xab, 0)
#define NBD_SET_BLKSIZE _IO(0xab, 1)
#define NBD_DO_IT _IO(0xab, 3)
#define NBD_CLEAR_SOCK _IO(0xab, 4)
#define NBD_CLEAR_QUE _IO(0xab, 5)
#define NBD_SET_SIZE_BLOCKS _IO(0xab, 7)
#define NBD_DISCONNECT _IO(0xab, 8)
#define NBD_SET_FLAGS _IO(0xab, 10)

enum { DEVICE_BLOCK_BYTES = 512 };

static int CO_FN co_open_device(const char *device, const char *verb, struct error **err)
{
    int fd = co_file_open(device, O_RDWR, 0);

    if (fd >= 0)
        return fd;
    error_set_errno(err, fd, "%s %s", verb, device);
    if (fd == -ENOENT || fd == -ENXIO || fd == -ENODEV)
        error_hint(err, "The kernel of this machine offers no such NBD device; 'modprobe nbd' makes /dev/nbd0 and so "
                        "on where it has the module.");
    return -1;
}

bool co_nbd_device_disconnect(const char *device, struct error **err)
{
    AUTO(fd) fd = co_open_device(device, "Cannot open", err);

    if (fd < 0)
        return false;
    (void)co_file_ioctl(fd, NBD_CLEAR_QUE, NULL);
    (void)co_file_ioctl(fd, NBD_DISCONNECT, NULL);
    (void)co_file_ioctl(fd, NBD_CLEAR_SOCK, NULL);
    return true;
}

/* A connection in the transmission phase, as the kernel speaks it: simple replies. */
static struct stream *CO_FN co_connect(const struct nbd_program *program, struct nbd_handshake_result *ret,
                                       struct error **err)
{
    struct nbd_handshake_options options = {
        .export = program->export_name ? program->export_name : "",
        .simple_replies = true,
    };
    struct socket_endpoint endpoint = {.family = SOCKET_UNIX, .path = program->socket};
    AUTO(stream) stream = NULL;
    int fd = co_socket_dial(&endpoint, err);

    if (fd < 0)
        return NULL;
    stream = stream_new_socket(fd);
    return co_nbd_client_handshake(&stream, &options, ret, err) ? TAKE(stream) : NULL;
}

static void *as_argument(uint64_t value)
{
    return (void *)(uintptr_t)value;
}

/* Tells the device what it is; the kernel counts in blocks. */
static bool CO_FN co_set_up(int fd, const struct stream *stream, const struct nbd_export_info *info, struct error **err)
{
    int read_only = info->flags & NBD_FLAG_READ_ONLY ? 1 : 0;
    int ret;

    ret = co_file_ioctl(fd, NBD_SET_SOCK, as_argument((uint64_t)stream->fd));
    if (ret < 0)
        return error_set_errno(err, ret, "Failed to set NBD socket");
    ret = co_file_ioctl(fd, NBD_SET_BLKSIZE, as_argument(DEVICE_BLOCK_BYTES));
    if (ret < 0)
        return error_set_errno(err, ret, "Failed setting NBD block size");
    ret = co_file_ioctl(fd, NBD_SET_SIZE_BLOCKS, as_argument(info->size / DEVICE_BLOCK_BYTES));
    if (ret < 0)
        return error_set_errno(err, ret, "Failed setting size (in blocks)");
    ret = co_file_ioctl(fd, NBD_SET_FLAGS, as_argument(info->flags));
    if (ret == -ENOTTY && read_only)
        ret = co_file_ioctl(fd, BLKROSET, &read_only);
    if (ret < 0 && ret != -ENOTTY)
        return error_set_errno(err, ret, "Failed setting flags");
    return true;
}

static bool CO_FN co_run_device(int fd, const struct stream *stream, const struct nbd_export_info *info,
                                bool (*connected)(void *opaque, struct error **err), void *opaque, struct error **err)
{
    bool ok = co_set_up(fd, stream, info, err) && connected(opaque, err);
    int ret = 0;

    if (ok) {
        ret = co_file_ioctl(fd, NBD_DO_IT, NULL);
        /* How it ends when somebody disconnects it. */
        if (ret < 0 && ret != -EPIPE && ret != -ECONNRESET && ret != -ESHUTDOWN)
            ok = error_set_errno(err, ret, "The NBD device failed");
    }
    (void)co_file_ioctl(fd, NBD_CLEAR_QUE, NULL);
    (void)co_file_ioctl(fd, NBD_CLEAR_SOCK, NULL);
    return ok;
}

bool co_nbd_device_serve(struct nbd_program *program, bool (*connected)(void *opaque, struct error **err), void *opaque,
                         struct error **err)
{
    AUTO(fd) fd = co_open_device(program->device, "Failed to open", err);
    struct nbd_handshake_result result = {0};
    AUTO(stream) stream = NULL;
    bool ok;

    if (fd < 0)
        return false;
    stream = co_connect(program, &result, err);
    if (!stream)
        return false;
    ok = co_run_device(fd, stream, &result.info, connected, opaque, err);
    nbd_export_info_clear(&result.info);
    return ok;
}
