/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/permissions.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "pool/pool-error.h"
#include "pool/xml/document.h"

enum { LABEL_MAX = 4096, MODE_MAX = 0777 };

void permissions_init(struct permissions *permissions)
{
    *permissions = (struct permissions)PERMISSIONS_NONE;
}

void permissions_clear(struct permissions *permissions)
{
    g_free(permissions->label);
    permissions_init(permissions);
}

void permissions_copy(struct permissions *to, const struct permissions *from)
{
    g_free(to->label);
    *to = *from;
    to->label = g_strdup(from->label);
}

/* An id as XML has it; -1 stands for none. */
static bool parse_id(const char *text, int64_t *ret)
{
    char *end;
    int64_t value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < -1 || value > UINT32_MAX)
        return false;
    *ret = value == UINT32_MAX ? -1 : value;
    return true;
}

static bool parse_mode(const char *text, int32_t *ret)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 8);
    if (errno || end == text || *end || value < 0 || value > MODE_MAX)
        return false;
    *ret = (int32_t)value;
    return true;
}

bool permissions_parse(struct permissions *ret, const void *node, struct pool_error **err)
{
    const xmlNode *element = xml_find(node, "permissions");
    g_autofree char *mode = xml_text(element, "mode");
    g_autofree char *owner = xml_text(element, "owner");
    g_autofree char *group = xml_text(element, "group");

    permissions_clear(ret);
    if (mode && !parse_mode(mode, &ret->mode))
        return pool_error_set(err, POOL_ERROR_XML, "malformed octal mode");
    if (owner && !parse_id(owner, &ret->owner))
        return pool_error_set(err, POOL_ERROR_XML, "malformed owner element");
    if (group && !parse_id(group, &ret->group))
        return pool_error_set(err, POOL_ERROR_XML, "malformed group element");
    ret->label = xml_text(element, "label");
    return true;
}

void permissions_append(const struct permissions *permissions, struct xml_writer *writer)
{
    if (permissions->mode < 0 && permissions->owner < 0 && permissions->group < 0 && !permissions->label)
        return;
    xml_begin(writer, "<permissions>");
    if (permissions->mode >= 0)
        xml_line(writer, "<mode>0%o</mode>", (unsigned)permissions->mode);
    if (permissions->owner >= 0)
        xml_line(writer, "<owner>%lld</owner>", (long long)permissions->owner);
    if (permissions->group >= 0)
        xml_line(writer, "<group>%lld</group>", (long long)permissions->group);
    xml_element(writer, "label", permissions->label);
    xml_end(writer, "permissions");
}

void permissions_from_stat(struct permissions *permissions, const struct stat *status)
{
    permissions->mode = (int32_t)(status->st_mode & MODE_MAX);
    permissions->owner = status->st_uid;
    permissions->group = status->st_gid;
}

char *file_label(const char *path)
{
    char text[LABEL_MAX];
    ssize_t size = getxattr(path, "security.selinux", text, sizeof(text));

    if (size > 0 && !text[size - 1])
        size--;
    if (size <= 0)
        return NULL;
    return g_utf8_make_valid(text, size);
}
