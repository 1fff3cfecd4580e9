/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages of a bus that has lost its mind. */
#include "pool/dbus.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *message = g_memdup2(data, size); /* aligned, and its end is watched */
    struct dbus_reader body;
    struct dbus_header header;
    const char *text;
    size_t end;

    if (!dbus_header_parse(message, size, &header))
        return 0;
    assert(header.body <= size);
    assert(strlen(header.signature) <= UINT8_MAX);
    body = (struct dbus_reader){.data = message + header.body, .size = size - header.body};
    if (!dbus_get_array(&body, 8, &end))
        return 0;
    while (body.at < end && dbus_get_align(&body, 8) && dbus_get_text(&body, &text))
        assert(body.at <= body.size);
    return 0;
}
