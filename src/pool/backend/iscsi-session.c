/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/iscsi-session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

char *iscsi_session_find(const char *text, const char *target)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) words = g_strsplit(*line, " ", -1);
        size_t length;

        if (g_strv_length(words) < 4 || strcmp(words[3], target) != 0)
            continue;
        length = strlen(words[1]);
        if (length > 2 && words[1][0] == '[' && words[1][length - 1] == ']')
            return g_strndup(words[1] + 1, length - 2);
    }
    return NULL;
}

GPtrArray *iscsi_session_targets(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);

    for (char **line = lines; *line; line++) {
        const char *target = strchr(g_strchomp(*line), ' ');

        if (target && !g_ptr_array_find_with_equal_func(targets, target + 1, g_str_equal, NULL))
            g_ptr_array_add(targets, g_strdup(target + 1));
    }
    return targets;
}

int iscsi_session_host(const char *sysfs, const char *session, unsigned *ret)
{
    g_autofree char *name = g_strconcat("session", session, NULL);
    g_autofree char *path = g_build_filename(sysfs, "class", "iscsi_session", name, "device", NULL);
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);
    const char *entry;

    while (folder && (entry = g_dir_read_name(folder))) {
        if (sscanf(entry, "target%u:", ret) == 1)
            return 0;
    }
    return -ENOENT;
}
