/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/trace-option.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "cli/option.h"
#include "loop/file.h"
#include "schema/json.h"
#include "schema/schema.h"

enum { TRACE_EVENTS_FILE_MAX = 1 << 20 };

static void print_trace_points(void)
{
    g_autofree const char **names = trace_names();

    for (const char **name = names; *name; name++)
        printf("%s\n", *name);
}

/* A name that stands for itself ought to be there; a pattern may match nothing. */
static void warn_unmatched(const struct option_use *use, const char *pattern)
{
    if (!strpbrk(pattern, "*?["))
        log_warning("%s: trace point '%s' does not exist", use->shown, pattern);
}

static bool CO_FN co_trace_events(const struct option_use *use, const char *path, struct error **err)
{
    g_autofree char *text = NULL;
    g_autofree char *unmatched = NULL;
    size_t size;

    if (!co_file_load(path, TRACE_EVENTS_FILE_MAX, &text, &size, err))
        return false;
    trace_enable_list(text, &unmatched);
    if (unmatched)
        warn_unmatched(use, unmatched);
    return true;
}

bool CO_FN co_trace_option_apply(const struct option_use *use, bool *ret_help, struct error **err)
{
    AUTO(json) json = keyval_parse(use->value, "enable", ret_help, err);

    if (!json)
        return false;
    for (size_t i = 0; i < json_count(json); i++) {
        const char *key;
        const struct json *value = json_member(json, i, &key);

        if (strcmp(key, "enable") && strcmp(key, "events") && strcmp(key, "file"))
            return error_set(err, "Invalid parameter '%s'", key);
        if (json_get_kind(value) != JSON_STRING)
            return error_set(err, "Parameter '%s' expects a string", key);
        if (!strcmp(json_get_string(value), "help"))
            *ret_help = true;
    }
    if (*ret_help) {
        print_trace_points();
        return true;
    }

    const struct json *file = json_get(json, "file");
    const struct json *events = json_get(json, "events");
    const struct json *enable = json_get(json, "enable");
    if (file && !trace_open(json_get_string(file), err))
        return false;
    if (events && !co_trace_events(use, json_get_string(events), err))
        return false;
    if (enable && !trace_enable(json_get_string(enable)))
        warn_unmatched(use, json_get_string(enable));
    return true;
}
