/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any file of shared keys: a name, a NUL, and the file. A key that is found stands in the file, behind the name. */
#include <assert.h>
#include <glib.h>
#include <string.h>

#include "crypto/psk-file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, '\0', size);

    if (!end)
        return 0;
    const char *username = (const char *)data;
    const char *text = (const char *)end + 1;
    size_t text_size = size - strlen(username) - 1;
    g_autofree char *key = psk_file_find(text, text_size, username);

    if (key) {
        g_autofree char *line = g_strconcat(username, ":", key, NULL);
        assert(!strchr(key, '\n'));
        assert(memmem(text, text_size, line, strlen(line)));
    }
    return 0;
}
