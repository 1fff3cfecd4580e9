/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/filter/blkdebug-rules.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"

enum { SECTOR_BYTES = 512, ERRNO_MAX = 4095, LINE_RULES_MAX = 4096 };

/* Questions for the state of a range fail only where a rule names them. */
#define IO_TYPES_DEFAULT (((1u << BLKDEBUG_IO_TYPE__MAX) - 1) & ~(1u << BLKDEBUG_IO_TYPE_BLOCK_STATUS))

void blkdebug_rules_init(struct blkdebug_rules *rules)
{
    *rules = (struct blkdebug_rules){.rules = g_array_new(false, true, sizeof(struct blkdebug_rule)), .state = 1};
}

void blkdebug_rules_done(struct blkdebug_rules *rules)
{
    if (rules->rules)
        g_array_free(rules->rules, true);
    rules->rules = NULL;
}

/* --- making them --- */

static bool add_inject(struct blkdebug_rules *rules, const struct blkdebug_inject_error_options *options,
                       struct error **err)
{
    struct blkdebug_rule rule = {
        .event = options->event,
        .state = options->has_state ? options->state : 0,
        .injects = true,
        .io_types = options->has_iotype ? 1u << options->iotype : IO_TYPES_DEFAULT,
        .error = EIO,
        .sector = options->has_sector ? options->sector : -1,
        .once = options->has_once && options->once,
        .immediately = options->has_immediately && options->immediately,
    };

    if (options->has_errno_ && (options->errno_ < 0 || options->errno_ > ERRNO_MAX))
        return error_set(err, "Parameter 'errno' expects an error number from 0 to %d: it is %" PRId64, ERRNO_MAX,
                         options->errno_);
    if (options->has_errno_)
        rule.error = (int)options->errno_;
    if (rule.sector < -1 || rule.sector > INT64_MAX / SECTOR_BYTES)
        return error_set(err, "Parameter 'sector' expects a sector, or -1 for any: it is %" PRId64, rule.sector);
    if (rules->rules->len >= LINE_RULES_MAX)
        return error_set(err, "blkdebug takes at most %d rules", LINE_RULES_MAX);
    g_array_append_val(rules->rules, rule);
    return true;
}

static bool add_set_state(struct blkdebug_rules *rules, const struct blkdebug_set_state_options *options,
                          struct error **err)
{
    struct blkdebug_rule rule = {
        .event = options->event,
        .state = options->has_state ? options->state : 0,
        .new_state = options->new_state,
    };

    if (rules->rules->len >= LINE_RULES_MAX)
        return error_set(err, "blkdebug takes at most %d rules", LINE_RULES_MAX);
    g_array_append_val(rules->rules, rule);
    return true;
}

bool blkdebug_rules_add_options(struct blkdebug_rules *rules, const struct blockdev_options_blkdebug *options,
                                struct error **err)
{
    for (size_t i = 0; options->inject_error && i < options->inject_error->count; i++) {
        if (!add_inject(rules, options->inject_error->items[i], err))
            return false;
    }
    for (size_t i = 0; options->set_state && i < options->set_state->count; i++) {
        if (!add_set_state(rules, options->set_state->items[i], err))
            return false;
    }
    return true;
}

/* --- from a file --- */

/* A section that is being read: its keys and values as the options of that name. */
struct section {
    bool injects;
    struct json *options; /* NULL: no section has begun */
    unsigned line;        /* where it begins */
};

static bool end_section(struct blkdebug_rules *rules, struct section *section, struct error **err)
{
    AUTO(json) options = TAKE(section->options);
    bool ok;

    if (!options)
        return true;
    if (section->injects) {
        AUTO(blkdebug_inject_error_options) inject = blkdebug_inject_error_options_parse_keyval(options, err);

        ok = inject && add_inject(rules, inject, err);
    } else {
        AUTO(blkdebug_set_state_options) set = blkdebug_set_state_options_parse_keyval(options, err);

        ok = set && add_set_state(rules, set, err);
    }
    if (!ok)
        error_prefix(err, "blkdebug config file, section of line %u: ", section->line);
    return ok;
}

static bool begin_section(struct section *section, const char *line, unsigned number, struct error **err)
{
    const char *end = strchr(line, ']');
    g_autofree char *name = end ? g_strndup(line + 1, (gsize)(end - line - 1)) : g_strdup(line + 1);

    /* A name of the section's own may stand behind the group. */
    name[strcspn(name, " \t")] = '\0';
    if (!end || (strcmp(name, "inject-error") != 0 && strcmp(name, "set-state") != 0))
        return error_set(err, "There is no option group '%s': blkdebug config file, line %u", name, number);
    section->injects = !strcmp(name, "inject-error");
    section->options = json_object();
    section->line = number;
    return true;
}

static bool add_line(struct section *section, const char *line, unsigned number, struct error **err)
{
    const char *equals = strchr(line, '=');
    g_autofree char *key = equals ? g_strstrip(g_strndup(line, (gsize)(equals - line))) : NULL;
    g_autofree char *value = equals ? g_strstrip(g_strdup(equals + 1)) : NULL;
    size_t length = value ? strlen(value) : 0;

    if (!section->options)
        return error_set(err, "no group defined: blkdebug config file, line %u", number);
    if (!equals || !*key || length < 2 || value[0] != '"' || value[length - 1] != '"')
        return error_set(err, "Invalid parameter '%s': blkdebug config file, line %u, expects KEY = \"VALUE\"", line,
                         number);
    value[length - 1] = '\0';
    json_set(section->options, key, json_string(value + 1));
    return true;
}

bool blkdebug_rules_add_text(struct blkdebug_rules *rules, const char *text, struct error **err)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    struct section section = {0};
    bool ok = g_utf8_validate(text, -1, NULL) || error_set(err, "blkdebug config file: it is not UTF-8 text");

    for (unsigned i = 0; ok && lines[i]; i++) {
        char *line = g_strstrip(lines[i]);

        if (!*line || *line == '#')
            continue;
        if (*line == '[')
            ok = end_section(rules, &section, err) && begin_section(&section, line, i + 1, err);
        else
            ok = add_line(&section, line, i + 1, err);
    }
    ok = ok && end_section(rules, &section, err);
    json_free(section.options);
    return ok;
}

/* --- using them --- */

void blkdebug_rules_event(struct blkdebug_rules *rules, enum blkdebug_event event)
{
    uint64_t turn;
    int64_t new_state;
    bool armed = false;

    spin_lock(&rules->spin);
    turn = ++rules->turn;
    new_state = rules->state;
    for (unsigned i = 0; i < rules->rules->len; i++) {
        struct blkdebug_rule *rule = &g_array_index(rules->rules, struct blkdebug_rule, i);

        if (rule->event != event || (rule->state && rule->state != rules->state))
            continue;
        if (rule->injects) {
            rule->armed_turn = turn;
            armed = true;
        } else {
            new_state = rule->new_state;
        }
    }
    for (unsigned i = 0; armed && i < rules->rules->len; i++) {
        struct blkdebug_rule *rule = &g_array_index(rules->rules, struct blkdebug_rule, i);

        if (rule->armed_turn < turn)
            rule->armed_turn = 0;
    }
    rules->state = new_state;
    spin_unlock(&rules->spin);
}

static bool rule_concerns(const struct blkdebug_rule *rule, enum blkdebug_io_type type, uint64_t offset, uint64_t bytes)
{
    uint64_t place = rule->sector < 0 ? 0 : (uint64_t)rule->sector * SECTOR_BYTES;

    if (!rule->injects || !rule->armed_turn || !(rule->io_types & 1u << type))
        return false;
    return rule->sector < 0 || (place >= offset && place - offset < bytes);
}

int blkdebug_rules_check(struct blkdebug_rules *rules, enum blkdebug_io_type type, uint64_t offset, uint64_t bytes,
                         bool *ret_immediately)
{
    int ret = 0;

    *ret_immediately = false;
    spin_lock(&rules->spin);
    for (unsigned i = 0; i < rules->rules->len; i++) {
        struct blkdebug_rule *rule = &g_array_index(rules->rules, struct blkdebug_rule, i);

        if (!rule_concerns(rule, type, offset, bytes))
            continue;
        ret = -rule->error;
        *ret_immediately = rule->immediately;
        if (rule->once)
            g_array_remove_index(rules->rules, i);
        break;
    }
    spin_unlock(&rules->spin);
    return ret;
}
