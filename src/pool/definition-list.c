/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/definition-list.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "loop/loop.h"

static const char ending[] = ".xml";

struct listing {
    const char *directory;
    GPtrArray *names;
};

static int list_names(void *opaque)
{
    struct listing *listing = opaque;
    DIR *directory = opendir(listing->directory);
    const struct dirent *entry;
    int error;

    if (!directory)
        return errno == ENOENT ? 0 : -errno;
    while (errno = 0, (entry = readdir(directory))) {
        size_t size = strlen(entry->d_name);

        if (size >= sizeof(ending) && g_str_has_suffix(entry->d_name, ending))
            g_ptr_array_add(listing->names, g_strndup(entry->d_name, size - strlen(ending)));
    }
    error = errno;
    closedir(directory);
    return -error;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int co_definition_list(const char *directory, GStrv *ret)
{
    struct listing listing = {directory, g_ptr_array_new()};
    int result = co_worker_run(list_names, &listing);

    g_ptr_array_sort(listing.names, compare_names);
    g_ptr_array_add(listing.names, NULL);
    *ret = (GStrv)g_ptr_array_free(listing.names, FALSE);
    return result;
}
