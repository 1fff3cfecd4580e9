/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/iscsi-record.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/replace-file.h"

/* Where distributions keep them. */
static const char *const databases[] = {"/etc/iscsi/nodes", "/var/lib/iscsi/nodes"};

struct record {
    const char *target, *portal, *interface;
    char *path;
    char *text;
};

/* --- finding it --- */

/* "[::1]:3260,1" -> "::1,3260,1": what the folder of a portal is called. The same one may have others, of other groups.
 */
static char *folder_of(const char *portal)
{
    const char *colon = strrchr(portal, ':');
    const char *bracket = *portal == '[' ? strchr(portal, ']') : NULL;
    const char *host = bracket ? portal + 1 : portal;
    const char *end = bracket ? bracket : colon;

    assert(colon);
    return g_strdup_printf("%.*s,%s", (int)(end - host), host, colon + 1);
}

static char *find_in(const char *database, const struct record *record)
{
    g_autofree char *folder = folder_of(record->portal);
    g_autofree char *path = g_build_filename(database, record->target, folder, record->interface, NULL);

    return g_file_test(path, G_FILE_TEST_IS_REGULAR) ? TAKE(path) : NULL;
}

static int load(void *opaque)
{
    struct record *record = opaque;

    for (size_t i = 0; i < G_N_ELEMENTS(databases) && !record->path; i++)
        record->path = find_in(databases[i], record);
    return record->path && g_file_get_contents(record->path, &record->text, NULL, NULL) ? 0 : -ENOENT;
}

/* --- changing it --- */

static bool is_line_of(const char *line, const char *name)
{
    size_t length = strlen(name);

    return !strncmp(line, name, length) && (line[length] == ' ' || line[length] == '=');
}

/* The lines with that one set: where it is, else at the end, before the comment that ends the record. */
static char *with_value(const char *text, const char *name, const char *value)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GString *changed = g_string_new("");
    bool written = false;

    for (char **line = lines; *line; line++) {
        bool is_end = g_str_has_prefix(*line, "# END") || !line[1];

        if (!written && (is_line_of(*line, name) || is_end)) {
            g_string_append_printf(changed, "%s = %s\n", name, value);
            written = true;
        }
        if (!is_line_of(*line, name))
            g_string_append_printf(changed, "%s%s", *line, line[1] ? "\n" : "");
    }
    return g_string_free(changed, FALSE);
}

static void forget(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    g_free(text);
}

bool co_iscsi_record_set(const char *target, const char *portal, const char *interface, const char *name,
                         const char *value, struct pool_error **err)
{
    struct record record = {.target = target, .portal = portal, .interface = interface};
    char *changed;
    bool ok;

    if (strpbrk(value, "\r\n"))
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "the value of '%s' has more than one line", name);
    if (strchr(target, '/') || strchr(portal, '/') || co_worker_run(load, &record)) {
        g_free(record.path);
        return pool_error_set(err, POOL_ERROR_INTERNAL,
                              "open-iscsi has no record of target '%s' at '%s' below %s or %s", target, portal,
                              databases[0], databases[1]);
    }
    changed = with_value(record.text, name, value);
    ok = co_replace_file(record.path, changed, strlen(changed), err);
    forget(changed);
    forget(record.text);
    g_free(record.path);
    return ok;
}
