/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/psk-file.h"

#include <glib.h>
#include <string.h>

char *psk_file_find(const char *text, size_t size, const char *username)
{
    const char *end = text + size;
    size_t name_size = strlen(username);

    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *line_end = newline ? newline : end;
        size_t line_size = (size_t)(line_end - text);

        if (line_size > name_size && text[name_size] == ':' && !memcmp(text, username, name_size)) {
            const char *key = text + name_size + 1;
            size_t key_size = (size_t)(line_end - key);

            while (key_size && g_ascii_isspace(key[key_size - 1]))
                key_size--;
            return memchr(key, '\0', key_size) ? NULL : g_strndup(key, key_size);
        }
        text = newline ? newline + 1 : end;
    }
    return NULL;
}
