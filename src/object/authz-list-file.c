/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * authz-listfile: rules that are read from a file. With refresh it is read at each question, so what stands in the file
 * holds, without anyone watching it; while that is not valid, everyone is refused.
 */
#include "base/error.h"
#include "loop/file.h"
#include "object/authz-internal.h"
#include "schema/json.h"

enum { LIST_FILE_BYTES_MAX = 16 << 20 };

struct authz_list_file {
    char *path;
    bool refresh;
    struct auth_z_list_properties *list; /* as it was at the start; used without refresh */
};

struct auth_z_list_properties *authz_list_file_parse(const char *text, size_t size, struct error **err)
{
    AUTO(json) json = json_parse(text, size, err);

    return json ? auth_z_list_properties_parse(json, err) : NULL;
}

static struct auth_z_list_properties *CO_FN co_load(const char *path, struct error **err)
{
    g_autofree char *text = NULL;
    size_t size;

    if (!co_file_load(path, LIST_FILE_BYTES_MAX, &text, &size, err))
        return NULL;
    struct auth_z_list_properties *list = authz_list_file_parse(text, size, err);
    if (!list)
        (void)error_prefix(err, "Authorization list '%s': ", path);
    return list;
}

static bool CO_FN file_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct authz_list_file *state = object_state(object);
    const struct auth_z_list_file_properties *wish = &options->u.authz_listfile;

    state->list = co_load(wish->filename, err);
    if (!state->list)
        return false;
    state->path = g_strdup(wish->filename);
    state->refresh = wish->has_refresh ? wish->refresh : true;
    return true;
}

static void CO_FN file_co_destroy(struct object *object)
{
    struct authz_list_file *state = object_state(object);

    auth_z_list_properties_free(state->list);
    g_free(state->path);
}

bool co_authz_list_file_decide(struct object *object, const char *identity, bool *ret, struct error **err)
{
    const struct authz_list_file *state = object_state(object);

    if (!state->refresh) {
        *ret = authz_list_allows(state->list, identity);
        return true;
    }
    AUTO(auth_z_list_properties) list = co_load(state->path, err);
    if (!list)
        return false;
    *ret = authz_list_allows(list, identity);
    return true;
}

static struct json *get_filename(struct object *object, const struct object_property *property)
{
    const struct authz_list_file *state = object_state(object);

    return json_string(state->path);
}

static struct json *get_refresh(struct object *object, const struct object_property *property)
{
    const struct authz_list_file *state = object_state(object);

    return json_bool(state->refresh);
}

static const struct object_property properties[] = {
    {.name = "filename", .type = "string", .description = "path of the list", .get = get_filename},
    {.name = "refresh", .type = "bool", .description = "whether changes of the file count", .get = get_refresh},
    {.name = NULL},
};

const struct object_class authz_list_file_class = {
    .type = OBJECT_TYPE_AUTHZ_LISTFILE,
    .state_size = sizeof(struct authz_list_file),
    .properties = properties,
    .may_outlive_name = true,
    .co_create = file_co_create,
    .co_destroy = file_co_destroy,
};
