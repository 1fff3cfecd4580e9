/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pools and volumes, as the pool daemon tells of them. */
#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/units.h"
#include "bin/ashlar-pool.h"
#include "pool/paths.h"
#include "pool/pool-error.h"
#include "pool/pool-secret.h"
#include "pool/rpc/caller.h"
#include "pool/rpc/value.h"
#include "pool/xml/document.h"
#include "pool/xml/size.h"

/* Of the remote program. */
enum {
    POOL_BY_NAME = 84,
    POOL_INFO = 87,
    POOL_AUTOSTART = 89,
    POOL_PERSISTENT = 155,
    POOL_LIST = 281,
    VOLUME_LIST = 282,
    VOLUME_BY_NAME = 95,
    VOLUME_BY_PATH = 97,
    VOLUME_XML = 99,
    SECRET_BY_UUID = 141,
    SECRET_VALUE = 145,
    SECRET_BY_USAGE = 147,
};

/* For each answer: the daemon may be busy, but one that hangs does not hang us. */
static const int64_t patience_ns = 60 * NS_PER_S;

static const char *const state_words[] = {"inactive", "building", "running", "degraded", "inaccessible"};

const char *pool_state_word(enum pool_state state)
{
    return (unsigned)state < G_N_ELEMENTS(state_words) ? state_words[state] : "unknown";
}

void volume_view_free(struct volume_view *view)
{
    if (!view)
        return;
    g_free(view->pool);
    g_free(view->name);
    g_free(view->path);
    g_free(view->format);
    g_free(view->type);
    g_free(view->secret_usage);
    g_free(view->backing_path);
    g_free(view->backing_format);
    g_free(view);
}

void pool_view_free(struct pool_view *view)
{
    if (!view)
        return;
    pool_id_free(view->id);
    if (view->volumes)
        g_ptr_array_unref(view->volumes);
    g_free(view);
}

static bool refuse(struct error **err, const struct pool_error *error)
{
    return error_set(err, "%s", error->message);
}

/* --- connecting --- */

/* Where the daemon listens: a user's own one first, then the system's. Owned. */
static char *default_socket(const char *file, bool read_only)
{
    bool root = geteuid() == 0;
    AUTO(pool_paths) own = pool_paths_new(root);
    AUTO(pool_paths) system = pool_paths_new(true);
    g_autofree char *path = g_build_filename(own->socket_directory, file, NULL);

    if (root || g_file_test(path, G_FILE_TEST_EXISTS))
        return TAKE(path);
    return g_strdup_printf("%s/%s%s", system->socket_directory, file, read_only ? "-ro" : "");
}

static struct rpc_caller *CO_FN co_connect(const char *socket, const char *driver, bool read_only, struct error **err)
{
    const struct rpc_caller_options options = {
        .socket = socket,
        .peer = "the pool daemon",
        .driver = driver,
        .session = geteuid() != 0,
        .either = true,
        .read_only = read_only,
        .patience_ns = patience_ns,
    };
    AUTO(pool_error) error = NULL;
    struct rpc_caller *caller = co_rpc_caller_new(&options, &error);

    if (caller)
        return caller;
    refuse(err, error);
    error_hint(err, "Does ashlar-poold run? --socket says where it listens.");
    return NULL;
}

struct rpc_caller *co_pool_connect(const struct pool_program *program, const char *driver, bool read_only,
                                   struct error **err)
{
    g_autofree char *socket =
        program->socket ? g_strdup(program->socket) : default_socket("virtstoraged-sock", read_only);

    return co_connect(socket, driver, read_only, err);
}

/* --- pools --- */

static bool is_gone(const struct pool_error *error)
{
    return error->code == POOL_ERROR_NO_POOL || error->code == POOL_ERROR_NO_VOLUME ||
           error->code == POOL_ERROR_OPERATION_INVALID;
}

static bool CO_FN co_ask_flag(struct rpc_caller *caller, int32_t procedure, struct pool_id *id, bool *ret,
                              struct pool_error **err)
{
    union rpc_value arg = {.pool = id};
    union rpc_value result = {0};

    if (!co_rpc_call(caller, procedure, &arg, &result, err))
        return false;
    *ret = result.i;
    return true;
}

/* Takes `id`. */
static struct pool_view *CO_FN co_pool_view(struct rpc_caller *caller, struct pool_id *id, struct pool_error **err)
{
    AUTO(pool_view) view = g_new0(struct pool_view, 1);
    union rpc_value arg = {.pool = id};
    union rpc_value results[4] = {0};

    view->id = id;
    if (!co_rpc_call(caller, POOL_INFO, &arg, results, err))
        return NULL;
    view->info = (struct pool_info){(enum pool_state)results[0].u, results[1].h, results[2].h, results[3].h};
    if (!co_ask_flag(caller, POOL_AUTOSTART, id, &view->autostart, err) ||
        !co_ask_flag(caller, POOL_PERSISTENT, id, &view->persistent, err))
        return NULL;
    return TAKE(view);
}

static int compare_pools(gconstpointer a, gconstpointer b)
{
    const struct pool_view *const *first = a;
    const struct pool_view *const *second = b;

    return strcmp((*first)->id->name, (*second)->id->name);
}

static int compare_volumes(gconstpointer a, gconstpointer b)
{
    const struct volume_view *const *first = a;
    const struct volume_view *const *second = b;

    return strcmp((*first)->name, (*second)->name);
}

static bool CO_FN co_one_pool(struct rpc_caller *caller, const char *name, GPtrArray *views, struct pool_error **err)
{
    g_autofree char *copy = g_strdup(name);
    union rpc_value arg = {.string = copy};
    union rpc_value result = {0};
    struct pool_view *view;

    if (!co_rpc_call(caller, POOL_BY_NAME, &arg, &result, err))
        return false;
    view = co_pool_view(caller, result.pool, err);
    if (view)
        g_ptr_array_add(views, view);
    return view;
}

static bool CO_FN co_all_pools(struct rpc_caller *caller, GPtrArray *views, struct pool_error **err)
{
    union rpc_value args[] = {{.u = 1}, {.u = 0}};
    union rpc_value results[2] = {0};
    bool ok = co_rpc_call(caller, POOL_LIST, args, results, err);
    struct pool_id_array *pools = results[0].pools;

    for (size_t i = 0; ok && pools && i < pools->count; i++) {
        AUTO(pool_error) error = NULL;
        struct pool_view *view = co_pool_view(caller, TAKE(pools->items[i]), &error);

        if (view)
            g_ptr_array_add(views, view);
        else if (!is_gone(error))
            ok = pool_error_move(err, TAKE(error));
    }
    pool_id_array_free(pools);
    return ok;
}

GPtrArray *co_pool_views(struct rpc_caller *caller, const char *name, struct error **err)
{
    g_autoptr(GPtrArray) views = g_ptr_array_new_with_free_func((GDestroyNotify)pool_view_free);
    AUTO(pool_error) error = NULL;

    if (!(name ? co_one_pool(caller, name, views, &error) : co_all_pools(caller, views, &error))) {
        refuse(err, error);
        return NULL;
    }
    g_ptr_array_sort(views, compare_pools);
    return g_steal_pointer(&views);
}

/* --- volumes --- */

static void look_at_encryption(const xmlNode *target, struct volume_view *view)
{
    const xmlNode *encryption = xml_find(target, "encryption");
    g_autofree char *uuid = xml_attribute(encryption, "secret", "uuid");

    view->encrypted = encryption;
    view->has_secret = uuid && uuid_parse_text(uuid, view->secret);
    view->secret_usage = xml_attribute(encryption, "secret", "usage");
}

/* Takes what is of use out of the XML and passes over the rest, so that other daemons may say more. */
static struct volume_view *parse_volume(const char *pool, const char *xml, struct pool_error **err)
{
    AUTO(xml_document) document = xml_document_parse(xml, "volume", err);
    AUTO(volume_view) view = g_new0(struct volume_view, 1);
    const xmlNode *node;
    bool found;

    if (!document)
        return NULL;
    node = xmlDocGetRootElement(document);
    view->pool = g_strdup(pool);
    view->name = xml_text(node, "name");
    view->type = xml_attribute(node, NULL, "type");
    view->path = xml_text(node, "target/path");
    view->format = xml_attribute(node, "target/format", "type");
    view->backing_path = xml_text(node, "backingStore/path");
    view->backing_format = xml_attribute(node, "backingStore/format", "type");
    look_at_encryption(xml_find(node, "target"), view);
    if (!xml_get_size(node, "capacity", &view->capacity, &found, err) ||
        !xml_get_size(node, "allocation", &view->allocation, &found, err))
        return NULL;
    if (!view->name) {
        pool_error_set(err, POOL_ERROR_XML, "missing volume name element");
        return NULL;
    }
    if (!view->format)
        view->format = g_strdup("raw");
    if (!view->type)
        view->type = g_strdup("file");
    return TAKE(view);
}

static struct volume_view *CO_FN co_view(struct rpc_caller *caller, struct volume_id *id, struct pool_error **err)
{
    union rpc_value args[] = {{.volume = id}, {.u = 0}};
    union rpc_value result = {0};
    struct volume_view *view;

    if (!co_rpc_call(caller, VOLUME_XML, args, &result, err))
        return NULL;
    view = parse_volume(id->pool, result.string, err);
    rpc_caller_clear(VOLUME_XML, &result);
    return view;
}

static bool CO_FN co_list_volumes(struct rpc_caller *caller, struct pool_view *view, struct pool_error **err)
{
    union rpc_value args[] = {{.pool = view->id}, {.u = 1}, {.u = 0}};
    union rpc_value results[2] = {0};
    bool ok = co_rpc_call(caller, VOLUME_LIST, args, results, err);
    const struct volume_id_array *volumes = results[0].volumes;

    for (size_t i = 0; ok && volumes && i < volumes->count; i++) {
        AUTO(pool_error) error = NULL;
        struct volume_view *volume = co_view(caller, volumes->items[i], &error);

        if (volume)
            g_ptr_array_add(view->volumes, volume);
        else if (!is_gone(error))
            ok = pool_error_move(err, TAKE(error));
    }
    volume_id_array_free(results[0].volumes);
    return ok;
}

bool co_pool_view_volumes(struct rpc_caller *caller, struct pool_view *view, struct error **err)
{
    AUTO(pool_error) error = NULL;

    view->volumes = g_ptr_array_new_with_free_func((GDestroyNotify)volume_view_free);
    if (view->info.state == POOL_INACTIVE)
        return true;
    if (!co_list_volumes(caller, view, &error) && !is_gone(error))
        return refuse(err, error);
    g_ptr_array_sort(view->volumes, compare_volumes);
    return true;
}

static struct volume_view *CO_FN co_find(struct rpc_caller *caller, const char *pool, const char *name,
                                         struct pool_error **err)
{
    g_autofree char *pool_name = g_strdup(pool);
    g_autofree char *volume_name = g_strdup(name);
    union rpc_value arg = {.string = pool_name};
    union rpc_value found = {0};
    union rpc_value volume = {0};
    struct volume_view *view;
    bool ok;

    if (!co_rpc_call(caller, POOL_BY_NAME, &arg, &found, err))
        return NULL;
    union rpc_value args[] = {{.pool = found.pool}, {.string = volume_name}};
    ok = co_rpc_call(caller, VOLUME_BY_NAME, args, &volume, err);
    rpc_caller_clear(POOL_BY_NAME, &found);
    if (!ok)
        return NULL;
    view = co_view(caller, volume.volume, err);
    rpc_caller_clear(VOLUME_BY_NAME, &volume);
    return view;
}

struct volume_view *co_volume_view(struct rpc_caller *caller, const char *pool, const char *name, struct error **err)
{
    AUTO(pool_error) error = NULL;
    struct volume_view *view = co_find(caller, pool, name, &error);

    if (!view)
        refuse(err, error);
    return view;
}

struct volume_view *co_volume_view_at(struct rpc_caller *caller, const char *path)
{
    g_autofree char *copy = g_strdup(path);
    union rpc_value arg = {.string = copy};
    union rpc_value found = {0};
    struct volume_view *view;

    if (!co_rpc_call(caller, VOLUME_BY_PATH, &arg, &found, NULL))
        return NULL;
    view = co_view(caller, found.volume, NULL);
    rpc_caller_clear(VOLUME_BY_PATH, &found);
    return view;
}

/* --- secrets --- */

static char *CO_FN co_secret_value(struct rpc_caller *caller, const struct volume_view *volume, struct pool_error **err)
{
    union rpc_value by_usage[] = {{.i = SECRET_USAGE_VOLUME}, {.string = volume->secret_usage}};
    int32_t procedure = volume->has_secret ? SECRET_BY_UUID : SECRET_BY_USAGE;
    union rpc_value by_uuid = {0};
    union rpc_value found = {0};
    union rpc_value value = {0};
    char *text;
    bool ok;

    memcpy(by_uuid.uuid, volume->secret, sizeof(by_uuid.uuid));
    if (!co_rpc_call(caller, procedure, volume->has_secret ? &by_uuid : by_usage, &found, err))
        return NULL;
    union rpc_value args[] = {{.secret = found.secret}, {.u = 0}};
    ok = co_rpc_call(caller, SECRET_VALUE, args, &value, err);
    rpc_caller_clear(procedure, &found);
    if (!ok)
        return NULL;
    text = g_base64_encode(value.bytes->data, value.bytes->size);
    rpc_caller_clear(SECRET_VALUE, &value);
    return text;
}

char *co_volume_view_secret(const struct pool_program *program, const struct volume_view *volume, struct error **err)
{
    g_autofree char *pool_socket =
        program->socket ? g_strdup(program->socket) : default_socket("virtstoraged-sock", false);
    g_autofree char *folder = g_path_get_dirname(pool_socket);
    g_autofree char *other = g_build_filename(folder, "virtsecretd-sock", NULL);
    AUTO(rpc_caller) caller = NULL;
    AUTO(pool_error) error = NULL;
    char *value;

    if (!volume->has_secret && !volume->secret_usage) {
        error_set(err, "volume '%s' is encrypted, and the pool daemon does not know with which secret", volume->name);
        error_hint(err, "Define a secret for its path, and refresh the pool.");
        return NULL;
    }
    /* Where libvirt's secret daemon runs, the pool daemon keeps none itself. */
    caller = co_connect(g_file_test(other, G_FILE_TEST_EXISTS) ? other : pool_socket, "secret", false, err);
    if (!caller)
        return NULL;
    value = co_secret_value(caller, volume, &error);
    if (!value)
        error_set(err, "the secret of volume '%s': %s", volume->name, error->message);
    return value;
}
