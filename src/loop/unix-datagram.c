/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/unix-datagram.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "loop/file.h"

int unix_datagram_send(const char *path, const void *message, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    AUTO(fd) fd = -1;

    if (!length || length >= sizeof(address.sun_path))
        return -EINVAL;
    memcpy(address.sun_path, path, length);
    if (*path == '@')
        address.sun_path[0] = 0;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;

    socklen_t address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*path != '@'));
    ssize_t sent = sendto(fd, message, size, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, address_size);
    return sent < 0 ? -errno : 0;
}
