/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/report.h"

#include <assert.h>
#include <glib.h>

#include "schema/json.h"

static const struct json *member(const struct json *object, const char *key, enum json_kind kind)
{
    const struct json *value = object && json_get_kind(object) == JSON_OBJECT ? json_get(object, key) : NULL;

    return value && json_get_kind(value) == kind ? value : NULL;
}

static const struct json *rows_of(const struct json *report, const char *kind)
{
    const struct json *all = member(report, "report", JSON_ARRAY);

    return all && json_count(all) ? member(json_at(all, 0), kind, JSON_ARRAY) : NULL;
}

size_t report_count(const struct json *report, const char *kind)
{
    const struct json *rows = rows_of(report, kind);

    return rows ? json_count(rows) : 0;
}

const struct json *report_row(const struct json *report, const char *kind, size_t index)
{
    const struct json *rows = rows_of(report, kind);

    assert(rows && index < json_count(rows));
    return json_at(rows, index);
}

const char *report_text(const struct json *row, const char *column)
{
    const struct json *value = member(row, column, JSON_STRING);

    return value ? json_get_string(value) : "";
}

uint64_t report_number(const struct json *row, const char *column)
{
    return g_ascii_strtoull(report_text(row, column), NULL, 10);
}
