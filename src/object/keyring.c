/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "object/keyring.h"

#include <errno.h>
#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "crypto/secure-memory.h"

/* The size of the key's whole payload, of which as much as fits is in `to`; or -1 with errno. */
static long read_key(int32_t serial, void *to, size_t size)
{
    return syscall(SYS_keyctl, KEYCTL_READ, serial, to, size, 0);
}

bool keyring_read(int32_t serial, size_t limit, uint8_t **ret_payload, size_t *ret_size, struct error **err)
{
    long size = read_key(serial, NULL, 0);

    if (size < 0)
        return error_set_errno(err, errno, "Unable to read serial key %08x", (unsigned)serial);
    if ((unsigned long)size > limit)
        return error_set(err, "Key %08x has %ld bytes, but at most %zu are allowed", (unsigned)serial, size, limit);

    size_t room = (size_t)size;
    uint8_t *payload = secure_memory_new(room + 1);
    if (!payload)
        return error_set(err, "No memory for the %zu bytes of key %08x", room, (unsigned)serial);
    long got = read_key(serial, payload, room);
    if (got == size) {
        *ret_payload = payload;
        *ret_size = room;
        return true;
    }
    int failure = got < 0 ? errno : EAGAIN; /* changed in between */
    secure_memory_free(payload, room + 1);
    return error_set_errno(err, failure, "Unable to read serial key %08x", (unsigned)serial);
}
