/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Definitions in files, which hold the old one or the new one, whole. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "loop/file.h"
#include "loop/loop.h"
#include "pool/pool-error.h"
#include "pool/replace-file.h"
#include "pool/storage-internal.h"
#include "pool/xml/document.h"

static const char ending[] = ".xml";

/* --- paths --- */

static char *file_path(const char *directory, const char *name)
{
    g_autofree char *file = g_strconcat(name, ending, NULL);

    return g_build_filename(directory, file, NULL);
}

char *storage_config_path(const struct storage *storage, const char *name)
{
    return file_path(storage->config_directory, name);
}

char *storage_autostart_path(const struct storage *storage, const char *name)
{
    return file_path(storage->autostart_directory, name);
}

char *storage_state_path(const struct storage *storage, const char *name)
{
    return file_path(storage->state_directory, name);
}

/* --- writing --- */

static int make_directory(void *opaque)
{
    return g_mkdir_with_parents(opaque, 0777) ? -errno : 0;
}

/* What could not be read again when the daemon is started next is not written either. */
static bool check_length(const char *text, struct pool_error **err)
{
    size_t size = strlen(text);

    return size <= XML_TEXT_MAX ||
           pool_error_set(err, POOL_ERROR_XML_DETAIL, "the definition has %zu bytes in its file, more than %d", size,
                          XML_TEXT_MAX);
}

static bool CO_FN co_replace(const char *directory, const char *name, const char *text, struct pool_error **err)
{
    g_autofree char *path = file_path(directory, name);
    g_autofree char *folder = g_strdup(directory);
    int ret;

    if (!check_length(text, err))
        return false;
    ret = co_worker_run(make_directory, folder);
    if (ret)
        return pool_error_set_errno(err, ret, "cannot create config directory %s", directory);
    return co_replace_file(path, text, strlen(text), err);
}

/* What the comment calls the pool, so that the line can be typed as it is: nothing where no name is safe for that. */
static const char *name_in_comment(const struct pool_def *def, const char *uuid)
{
    static const char unsafe[] = "\t\n\r \"'\\`$&|;<>()*?[]{}!#~^%=";

    if (!strpbrk(def->name, unsafe) && !strstr(def->name, "--"))
        return def->name;
    return strstr(uuid, "--") ? "" : uuid;
}

static void append_comment(GString *text, const struct pool_def *def)
{
    char uuid[XML_UUID_TEXT];
    const char *name;

    uuid_format(def->uuid, uuid);
    name = name_in_comment(def, uuid);
    g_string_append_printf(text,
                           "<!--\n"
                           "WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE\n"
                           "OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:\n"
                           "  virsh pool-edit %s\n"
                           "or other application using the libvirt API.\n"
                           "-->\n\n",
                           name);
}

bool CO_FN co_storage_write_config(const struct storage *storage, const struct pool_def *def, struct pool_error **err)
{
    struct xml_writer writer = {.text = g_string_new(NULL)};
    g_autofree char *text = NULL;
    g_autofree char *name = g_strdup(def->name);

    append_comment(writer.text, def);
    pool_def_append(def, &writer);
    text = xml_writer_take(&writer);
    return co_replace(storage->config_directory, name, text, err);
}

bool CO_FN co_storage_write_state(const struct storage *storage, const struct pool_def *def, struct pool_error **err)
{
    struct xml_writer writer = {.text = g_string_new(NULL)};
    g_autofree char *text = NULL;
    g_autofree char *name = g_strdup(def->name);

    append_comment(writer.text, def);
    xml_begin(&writer, "<poolstate>");
    pool_def_append(def, &writer);
    xml_end(&writer, "poolstate");
    text = xml_writer_take(&writer);
    return co_replace(storage->state_directory, name, text, err);
}

void CO_FN co_storage_remove_state(const struct storage *storage, const char *name)
{
    g_autofree char *path = storage_state_path(storage, name);

    (void)co_file_unlink(path);
}
