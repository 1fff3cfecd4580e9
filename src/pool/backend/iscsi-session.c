/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/iscsi-session.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* One line of what the kernel shows of a session; owned, NULL: it does not tell. */
static char *session_says(const char *sysfs, const char *number, const char *file)
{
    g_autofree char *name = g_strconcat("session", number, NULL);
    g_autofree char *path = g_build_filename(sysfs, "class", "iscsi_session", name, file, NULL);
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    return g_strchomp(text);
}

static bool is_for(const char *sysfs, const char *number, const char *initiator)
{
    g_autofree char *said = session_says(sysfs, number, initiator ? "initiatorname" : "ifacename");

    if (!said)
        return true;
    return initiator ? !strcmp(said, initiator) : !g_str_has_prefix(said, ISCSI_OWN_INTERFACE);
}

char *iscsi_session_find(const char *sysfs, const char *text, const char *target, const char *initiator)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) words = g_strsplit(*line, " ", -1);
        g_autofree char *number = NULL;
        size_t length;

        if (g_strv_length(words) < 4 || strcmp(words[3], target) != 0)
            continue;
        length = strlen(words[1]);
        if (length <= 2 || words[1][0] != '[' || words[1][length - 1] != ']')
            continue;
        number = g_strndup(words[1] + 1, length - 2);
        if (is_for(sysfs, number, initiator))
            return TAKE(number);
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
