/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar pool tree: pools, the volumes in them, and below each volume the images that it is based on. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "bin/ashlar-pool.h"
#include "cli/size-text.h"
#include "pool/rpc/caller.h"
#include "schema/json.h"

enum { CHAIN_MAX = 200, LABEL_COLUMNS_MIN = 12, BAR_COLUMNS = 10, FORMAT_COLUMNS = 7 };

/* "10.5 GiB of 10.5 GiB" and the gaps between columns. */
enum { SIZES_COLUMNS = 20, GAPS_COLUMNS = 6 };

/* An image that a volume is based on, directly or through others. */
struct link {
    const char *path;
    const char *format;               /* NULL: not known */
    const struct volume_view *volume; /* that is there; NULL: it is in no pool */
    bool again;                       /* it is in the chain already, which so has no end */
};

struct tree {
    struct rpc_caller *caller;
    const struct terminal *terminal;
    GHashTable *volumes; /* by path; borrowed from the pools or `others`; NULL: there is none */
    GPtrArray *others;   /* volumes of pools that are not shown */
    GPtrArray *lines;    /* of struct line */
};

struct line {
    char *label;  /* branches and a name */
    char *format; /* NULL: none */
    bool sizes;   /* `used` and `total` mean something */
    uint64_t used, total;
    const char *note; /* NULL: none */
};

static void line_free(struct line *line)
{
    g_free(line->label);
    g_free(line->format);
    g_free(line);
}

/* --- chains --- */

static const struct volume_view *CO_FN co_volume_at(struct tree *tree, const char *path)
{
    g_autofree char *plain = g_canonicalize_filename(path, "/");
    struct volume_view *volume;
    gpointer known;

    if (g_hash_table_lookup_extended(tree->volumes, plain, NULL, &known))
        return known;
    volume = co_volume_view_at(tree->caller, plain); /* by another name, or in a pool that is not shown */
    if (volume)
        g_ptr_array_add(tree->others, volume);
    g_hash_table_insert(tree->volumes, TAKE(plain), volume);
    return volume;
}

static bool is_in(const GArray *chain, const struct volume_view *top, const struct link *link)
{
    if (link->volume && link->volume == top)
        return true;
    for (unsigned i = 0; i < chain->len; i++) {
        const struct link *other = &g_array_index(chain, struct link, i);

        if (link->volume ? other->volume == link->volume : !strcmp(other->path, link->path))
            return true;
    }
    return false;
}

/* All that `volume` is based on, the nearest first; owned. */
static GArray *CO_FN co_chain(struct tree *tree, const struct volume_view *volume)
{
    GArray *chain = g_array_new(FALSE, FALSE, sizeof(struct link));
    const struct volume_view *above = volume;

    while (above && above->backing_path && chain->len < CHAIN_MAX) {
        struct link link = {.path = above->backing_path, .format = above->backing_format};

        link.volume = co_volume_at(tree, link.path);
        link.again = is_in(chain, volume, &link);
        g_array_append_val(chain, link);
        above = link.again ? NULL : link.volume;
    }
    return chain;
}

/* --- as JSON --- */

static void set_text(struct json *object, const char *key, const char *value)
{
    json_set(object, key, value ? json_string(value) : json_null());
}

static void set_sizes(struct json *object, const struct volume_view *volume)
{
    json_set(object, "capacity", json_uint(volume->capacity));
    json_set(object, "allocation", json_uint(volume->allocation));
    json_set(object, "encrypted", json_bool(volume->encrypted));
}

static struct json *link_json(const struct link *link)
{
    struct json *object = json_object();

    set_text(object, "path", link->path);
    set_text(object, "format", link->format);
    set_text(object, "pool", link->volume ? link->volume->pool : NULL);
    set_text(object, "volume", link->volume ? link->volume->name : NULL);
    if (link->volume)
        set_sizes(object, link->volume);
    if (link->again)
        json_set(object, "again", json_bool(true));
    return object;
}

static struct json *CO_FN co_volume_json(struct tree *tree, const struct volume_view *volume)
{
    g_autoptr(GArray) chain = co_chain(tree, volume);
    struct json *object = json_object();
    struct json *links = json_array();

    set_text(object, "name", volume->name);
    set_text(object, "type", volume->type);
    set_text(object, "path", volume->path);
    set_text(object, "format", volume->format);
    set_sizes(object, volume);
    for (unsigned i = 0; i < chain->len; i++)
        json_append(links, link_json(&g_array_index(chain, struct link, i)));
    json_set(object, "backing", links);
    return object;
}

static void CO_FN co_print_json(struct tree *tree, const GPtrArray *pools)
{
    AUTO(json) list = json_array();
    g_autofree char *text = NULL;

    for (unsigned i = 0; i < pools->len; i++) {
        const struct pool_view *pool = pools->pdata[i];
        g_autofree char *name = g_utf8_make_valid(pool->id->name, -1);
        struct json *object = json_object();
        struct json *volumes = json_array();

        set_text(object, "name", name);
        set_text(object, "state", pool_state_word(pool->info.state));
        json_set(object, "capacity", json_uint(pool->info.capacity));
        json_set(object, "allocation", json_uint(pool->info.allocation));
        json_set(object, "available", json_uint(pool->info.available));
        for (unsigned j = 0; j < pool->volumes->len; j++)
            json_append(volumes, co_volume_json(tree, pool->volumes->pdata[j]));
        json_set(object, "volumes", volumes);
        json_append(list, object);
    }
    text = json_format(list, true);
    printf("%s\n", text);
}

/* --- as text --- */

static const char *branch(const struct tree *tree, bool last)
{
    if (tree->terminal->unicode)
        return last ? "└─ " : "├─ ";
    return last ? "`- " : "|- ";
}

static const char *trunk(const struct tree *tree, bool last)
{
    return last ? "   " : tree->terminal->unicode ? "│  " : "|  ";
}

static struct line *add_line(struct tree *tree, const char *before, const char *name)
{
    struct line *line = g_new0(struct line, 1);
    g_autofree char *printable = text_printable(name);

    line->label = g_strconcat(before, printable, NULL);
    g_ptr_array_add(tree->lines, line);
    return line;
}

static void set_volume(struct line *line, const struct volume_view *volume)
{
    g_free(line->format);
    line->format = text_printable(volume->format);
    line->sizes = true;
    line->used = volume->allocation;
    line->total = volume->capacity;
    if (volume->encrypted)
        line->note = "encrypted";
}

static void add_link(struct tree *tree, const char *before, const struct link *link, const char *pool)
{
    const struct volume_view *volume = link->volume;
    g_autofree char *elsewhere =
        volume && strcmp(volume->pool, pool) != 0 ? g_strdup_printf("%s/%s", volume->pool, volume->name) : NULL;
    struct line *line = add_line(tree, before, elsewhere ? elsewhere : volume ? volume->name : link->path);

    if (volume)
        set_volume(line, volume);
    else
        line->format = link->format ? text_printable(link->format) : NULL;
    if (link->again)
        line->note = "again: the chain has no end";
    else if (!volume)
        line->note = "in no pool";
}

static void CO_FN co_add_volume(struct tree *tree, const struct volume_view *volume, bool last)
{
    g_autoptr(GArray) chain = co_chain(tree, volume);
    g_autoptr(GString) before = g_string_new(trunk(tree, last));

    set_volume(add_line(tree, branch(tree, last), volume->name), volume);
    for (unsigned i = 0; i < chain->len; i++) {
        g_autofree char *whole = g_strconcat(before->str, branch(tree, true), NULL);

        add_link(tree, whole, &g_array_index(chain, struct link, i), volume->pool);
        g_string_append(before, trunk(tree, true));
    }
}

static void CO_FN co_add_pool(struct tree *tree, const struct pool_view *pool)
{
    struct line *line = add_line(tree, "", pool->id->name);

    if (pool->info.state != POOL_RUNNING)
        line->note = pool_state_word(pool->info.state);
    line->sizes = pool->info.state != POOL_INACTIVE;
    line->used = pool->info.allocation;
    line->total = pool->info.capacity;
    for (unsigned i = 0; i < pool->volumes->len; i++)
        co_add_volume(tree, pool->volumes->pdata[i], i + 1 == pool->volumes->len);
}

static void print_line(const struct tree *tree, const struct line *line, unsigned label_columns, unsigned bar_columns)
{
    g_autofree char *label = text_fit(tree->terminal, line->label, label_columns);
    g_autoptr(GString) text = g_string_new(label);

    if (line->format || line->sizes || line->note)
        g_string_append_printf(text, "%*s  %-*s", (int)(label_columns - text_columns(label)), "", FORMAT_COLUMNS,
                               line->format ? line->format : "");
    if (line->sizes) {
        g_autofree char *bar = usage_bar(tree->terminal, line->used, line->total, bar_columns);
        g_autofree char *used = size_text(line->used);
        g_autofree char *total = size_text(line->total);

        g_string_append_printf(text, "  %s%s%s of %s", bar, bar_columns ? " " : "", used, total);
    }
    if (line->note)
        g_string_append_printf(text, "  (%s)", line->note);
    printf("%s\n", text->str);
}

static void print_lines(const struct tree *tree)
{
    unsigned fixed = FORMAT_COLUMNS + SIZES_COLUMNS + GAPS_COLUMNS;
    unsigned label = LABEL_COLUMNS_MIN;
    unsigned bar = BAR_COLUMNS;

    for (unsigned i = 0; i < tree->lines->len; i++)
        label = MAX(label, text_columns(((const struct line *)tree->lines->pdata[i])->label));
    if (tree->terminal->there) {
        unsigned columns = tree->terminal->columns;

        if (label + fixed + bar > columns && columns < LABEL_COLUMNS_MIN + fixed + bar)
            bar = 0;
        label = MIN(label, MAX(columns > fixed + bar ? columns - fixed - bar : 0, LABEL_COLUMNS_MIN));
    }
    for (unsigned i = 0; i < tree->lines->len; i++)
        print_line(tree, tree->lines->pdata[i], label, bar);
}

/* --- the command --- */

static bool CO_FN co_load(struct tree *tree, const GPtrArray *pools, struct error **err)
{
    for (unsigned i = 0; i < pools->len; i++) {
        struct pool_view *pool = pools->pdata[i];

        if (!co_pool_view_volumes(tree->caller, pool, err))
            return false;
        for (unsigned j = 0; j < pool->volumes->len; j++) {
            struct volume_view *volume = pool->volumes->pdata[j];

            if (volume->path)
                g_hash_table_insert(tree->volumes, g_strdup(volume->path), volume);
        }
    }
    return true;
}

bool co_pool_tree(struct pool_program *program, struct error **err)
{
    AUTO(rpc_caller) caller = co_pool_connect(program, "storage", true, err);
    g_autoptr(GPtrArray) pools = caller ? co_pool_views(caller, program->words[0], err) : NULL;
    g_autoptr(GHashTable) volumes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GPtrArray) others = g_ptr_array_new_with_free_func((GDestroyNotify)volume_view_free);
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func((GDestroyNotify)line_free);
    struct tree tree = {caller, &program->terminal, volumes, others, lines};

    if (!pools || !co_load(&tree, pools, err))
        return false;
    if (program->json) {
        co_print_json(&tree, pools);
        return true;
    }
    for (unsigned i = 0; i < pools->len; i++)
        co_add_pool(&tree, pools->pdata[i]);
    print_lines(&tree);
    return true;
}
