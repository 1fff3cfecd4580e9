/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bin/storaged-options.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "chardev/chardev.h"
#include "cli/trace-option.h"
#include "export/export.h"
#include "gen/types.h"
#include "object/object.h"
#include "qmp/daemon.h"
#include "qmp/monitor.h"
#include "schema/json.h"
#include "schema/schema.h"

/* An option whose argument is a value of the schema. */
struct definition {
    enum storaged_option option;
    const char *implied_key; /* NULL: none */
    const struct schema_type *type;
    /* Whether this build has what goes by the value of the type's tag; NULL: always. */
    bool (*is_offered)(void *opaque, const char *value);
    bool (*co_apply)(struct daemon *daemon, const void *value, struct error **err);
};

static bool blockdev_offered(void *opaque, const char *value)
{
    for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, value))
            return true;
    }
    return false;
}

static bool export_offered(void *opaque, const char *value)
{
    int type = block_export_type_value(value);

    return type >= 0 && export_type_offered((enum block_export_type)type);
}

static bool object_offered(void *opaque, const char *value)
{
    for (const struct object_class *const *class = object_classes; *class; class ++) {
        if (!strcmp(object_type_name((*class)->type), value))
            return true;
    }
    return false;
}

static bool CO_FN co_apply_blockdev(struct daemon *daemon, const void *value, struct error **err)
{
    return co_graph_add(daemon->graph, value, err);
}

static bool CO_FN co_apply_export(struct daemon *daemon, const void *value, struct error **err)
{
    return co_export_add(daemon->exports, value, err);
}

static bool CO_FN co_apply_monitor(struct daemon *daemon, const void *value, struct error **err)
{
    return monitor_add(daemon->monitors, value, err);
}

static bool CO_FN co_apply_nbd_server(struct daemon *daemon, const void *value, struct error **err)
{
    return co_nbd_server_start(daemon->exports, value, err);
}

static bool CO_FN co_apply_object(struct daemon *daemon, const void *value, struct error **err)
{
    return co_object_add(daemon->objects, value, err);
}

static const struct definition definitions[] = {
    {STORAGED_BLOCKDEV, "driver", &blockdev_options_type, blockdev_offered, co_apply_blockdev},
    {STORAGED_EXPORT, "type", &block_export_options_type, export_offered, co_apply_export},
    {STORAGED_MONITOR, "chardev", &monitor_options_type, NULL, co_apply_monitor},
    {STORAGED_NBD_SERVER, NULL, &nbd_server_options_type, NULL, co_apply_nbd_server},
    {STORAGED_OBJECT, "qom-type", &object_options_type, object_offered, co_apply_object},
};

static bool CO_FN co_apply_definition(struct daemon *daemon, const struct definition *definition, const char *text,
                                      bool *ret_help, struct error **err)
{
    bool help = false;
    AUTO(json) json = keyval_parse(text, definition->implied_key, &help, err);

    if (!json)
        return false;
    if (help) {
        g_autofree char *explained = schema_help_text(definition->type, json, definition->is_offered, NULL, err);

        *ret_help = true;
        if (explained)
            printf("%s", explained);
        return explained;
    }

    void *value =
        text[0] == '{' ? schema_parse(definition->type, json, err) : schema_parse_keyval(definition->type, json, err);
    if (!value)
        return false;
    bool ok = definition->co_apply(daemon, value, err);
    schema_free(definition->type, value);
    return ok;
}

bool co_storaged_option_apply(struct daemon *daemon, const struct option_use *use, bool *ret_help, struct error **err)
{
    enum storaged_option option = use->option->id;

    if (option == STORAGED_TRACE)
        return co_trace_option_apply(use, ret_help, err);
    if (option == STORAGED_CHARDEV)
        return co_chardev_add_option(daemon->chardevs, use->value, ret_help, err);
    for (size_t i = 0; i < G_N_ELEMENTS(definitions); i++) {
        if (definitions[i].option == option)
            return co_apply_definition(daemon, &definitions[i], use->value, ret_help, err);
    }
    assert(!"an option that acts earlier");
    return false;
}

bool storaged_option_uses_streams(const struct option_use *use)
{
    if (use->option->id != STORAGED_CHARDEV)
        return false;

    AUTO(json) json = keyval_parse(use->value, "backend", NULL, NULL);
    const struct json *backend = json ? json_get(json, "backend") : NULL;
    if (backend && json_get_kind(backend) == JSON_OBJECT)
        backend = json_get(backend, "type");
    return backend && json_get_kind(backend) == JSON_STRING && !strcmp(json_get_string(backend), "stdio");
}

/* Where the value of the key "data" starts in the key=value list `text`; NULL: it has none. */
static const char *find_data(const char *text)
{
    static const char key[] = "data=";

    for (const char *c = text; (c = strstr(c, key)); c++) {
        if (c == text || c[-1] == ',')
            return c + strlen(key);
    }
    return NULL;
}

char *storaged_option_shown(const struct option_use *use)
{
    if (use->option->id != STORAGED_OBJECT)
        return g_strdup(use->shown);

    const char *start = use->value[0] == '{' ? strstr(use->value, "data") : find_data(use->value);
    if (!start)
        return g_strdup(use->shown);
    if (use->value[0] == '{')
        return g_strdup("--object {...}");

    /* To the next comma that is not doubled. */
    const char *end = start;
    while (*end && (*end != ',' || end[1] == ','))
        end += *end == ',' ? 2 : 1;
    g_autofree char *before = g_strndup(use->value, (gsize)(start - use->value));
    g_autofree char *whole = g_strdup_printf("--object %s...%s", before, end);
    return option_escape(whole);
}

const struct option storaged_options[] = {
    {.name = "help", .letter = 'h', .help = "display this help and exit", .id = STORAGED_HELP},
    {.name = "version", .letter = 'V', .help = "output version information and exit", .id = STORAGED_VERSION},
    {.name = "trace",
     .letter = 'T',
     .argument = "[[enable=]PATTERN][,events=FILE][,file=FILE]",
     .help = "switch trace points on: those whose name matches PATTERN\n"
             "('-' before it: off), or one of those in FILE, a line each;\n"
             "'help' lists the names",
     .id = STORAGED_TRACE},
    {.name = "blockdev",
     .argument = "[driver=]DRIVER[,node-name=NAME][,PROPERTY=VALUE...]",
     .help = "add a block node; 'help' lists drivers,\n"
             "'DRIVER,help' their properties",
     .id = STORAGED_BLOCKDEV},
    {.name = "chardev",
     .argument = "[backend=]BACKEND,id=ID[,PROPERTY=VALUE...]",
     .help = "add a character device; 'help' lists backends,\n"
             "'BACKEND,help' their properties",
     .id = STORAGED_CHARDEV},
    {.name = "daemonize",
     .help = "go into the background; the exit status tells whether\n"
             "everything could be started",
     .id = STORAGED_DAEMONIZE},
    {.name = "export",
     .argument = "[type=]TYPE,id=ID,node-name=NAME[,PROPERTY=VALUE...]",
     .help = "export a block node; 'help' lists types,\n"
             "'TYPE,help' their properties; type nbd needs --nbd-server",
     .id = STORAGED_EXPORT},
    {.name = "monitor",
     .argument = "[chardev=]ID[,mode=control][,pretty=on|off]",
     .help = "serve QMP on a character device",
     .id = STORAGED_MONITOR},
    {.name = "nbd-server",
     .argument = "addr.type=TYPE,...[,tls-creds=ID][,tls-authz=ID][,max-connections=N]",
     .help = "start the NBD server, on addr.type=inet,addr.host=HOST,\n"
             "addr.port=PORT; addr.type=unix,addr.path=PATH;\n"
             "addr.type=vsock,addr.cid=CID,addr.port=PORT; or\n"
             "addr.type=fd,addr.str=FD",
     .id = STORAGED_NBD_SERVER},
    {.name = "object",
     .argument = "[qom-type=]TYPE,id=ID[,PROPERTY=VALUE...]",
     .help = "create an object; 'help' lists types,\n"
             "'TYPE,help' their properties",
     .id = STORAGED_OBJECT},
    {.name = "pidfile",
     .argument = "PATH",
     .help = "write the process ID to a file once everything has started",
     .id = STORAGED_PIDFILE},
    {.name = NULL},
};
