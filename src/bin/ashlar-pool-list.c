/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar pool list: a line for each pool. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "bin/ashlar-pool.h"
#include "cli/size-text.h"
#include "pool/rpc/caller.h"
#include "pool/xml/document.h"
#include "schema/json.h"

enum { NAME_COLUMNS_MIN = 8, BAR_COLUMNS_MIN = 4, BAR_COLUMNS_MAX = 30, BAR_COLUMNS_FILE = 20 };
enum { SIZE_COLUMNS = 10, STATE_COLUMNS = 12, AUTOSTART_COLUMNS = 9, PERCENT_COLUMNS = 4, GAP = 2 };

/* All but the name and the bar, with a gap before each. */
enum { FIXED_COLUMNS = STATE_COLUMNS + AUTOSTART_COLUMNS + 2 * SIZE_COLUMNS + PERCENT_COLUMNS + 5 * GAP };

struct layout {
    unsigned name;
    unsigned bar; /* 0: no room for one */
};

static struct json *view_json(const struct pool_view *view)
{
    struct json *object = json_object();
    char uuid[XML_UUID_TEXT];

    uuid_format(view->id->uuid, uuid);
    json_set(object, "name", json_string(view->id->name));
    json_set(object, "uuid", json_string(uuid));
    json_set(object, "state", json_string(pool_state_word(view->info.state)));
    json_set(object, "autostart", json_bool(view->autostart));
    json_set(object, "persistent", json_bool(view->persistent));
    json_set(object, "capacity", json_uint(view->info.capacity));
    json_set(object, "allocation", json_uint(view->info.allocation));
    json_set(object, "available", json_uint(view->info.available));
    return object;
}

static void print_json(const GPtrArray *views)
{
    AUTO(json) list = json_array();
    g_autofree char *text = NULL;

    for (unsigned i = 0; i < views->len; i++)
        json_append(list, view_json(views->pdata[i]));
    text = json_format(list, true);
    printf("%s\n", text);
}

/* The bar gets what the names leave; where that is too little, the names are cut. */
static struct layout lay_out(const struct terminal *terminal, const GPtrArray *views)
{
    struct layout layout = {.name = NAME_COLUMNS_MIN, .bar = BAR_COLUMNS_FILE};
    unsigned room;

    for (unsigned i = 0; i < views->len; i++) {
        const struct pool_view *view = views->pdata[i];
        g_autofree char *name = text_printable(view->id->name);

        layout.name = MAX(layout.name, text_columns(name));
    }
    if (!terminal->there)
        return layout;
    room = terminal->columns > FIXED_COLUMNS ? terminal->columns - FIXED_COLUMNS : 0;
    layout.name = MIN(layout.name, MAX(room, NAME_COLUMNS_MIN));
    room = room > layout.name + GAP - 1 ? room - layout.name - (GAP - 1) : 0;
    layout.bar = room < BAR_COLUMNS_MIN ? 0 : MIN(room, BAR_COLUMNS_MAX);
    return layout;
}

static void print_head(const struct layout *layout)
{
    printf("%-*s  %-*s  %-*s  %*s  %*s  %s\n", (int)layout->name, "NAME", STATE_COLUMNS, "STATE", AUTOSTART_COLUMNS,
           "AUTOSTART", SIZE_COLUMNS, "CAPACITY", SIZE_COLUMNS, "ALLOCATION", layout->bar ? "USE" : " USE");
}

static void print_line(const struct terminal *terminal, const struct layout *layout, const struct pool_view *view)
{
    const struct pool_info *info = &view->info;
    bool known = info->state != POOL_INACTIVE;
    g_autofree char *printable = text_printable(view->id->name);
    g_autofree char *name = text_fit(terminal, printable, layout->name);
    g_autofree char *capacity = known ? size_text(info->capacity) : g_strdup("-");
    g_autofree char *allocation = known ? size_text(info->allocation) : g_strdup("-");
    g_autofree char *bar = usage_bar(terminal, info->allocation, info->capacity, layout->bar);
    g_autofree char *percent = usage_percent(info->allocation, info->capacity);

    printf("%s%*s  %-*s  %-*s  %*s  %*s  ", name, (int)(layout->name - text_columns(name)), "", STATE_COLUMNS,
           pool_state_word(info->state), AUTOSTART_COLUMNS, view->autostart ? "yes" : "no", SIZE_COLUMNS, capacity,
           SIZE_COLUMNS, allocation);
    if (known && layout->bar)
        printf("%s ", bar);
    printf("%s\n", known ? percent : "-");
}

bool co_pool_list(struct pool_program *program, struct error **err)
{
    AUTO(rpc_caller) caller = co_pool_connect(program, "storage", true, err);
    g_autoptr(GPtrArray) views = caller ? co_pool_views(caller, NULL, err) : NULL;
    struct layout layout;

    if (!views)
        return false;
    if (program->json) {
        print_json(views);
        return true;
    }
    layout = lay_out(&program->terminal, views);
    print_head(&layout);
    for (unsigned i = 0; i < views->len; i++)
        print_line(&program->terminal, &layout, views->pdata[i]);
    return true;
}
