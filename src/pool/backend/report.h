/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reports of LVM's commands in JSON: {"report": [{"lv": [{"lv_name": "x", ...}, ...]}]}; all values are strings. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct json;

/* Rows of that kind; 0 where the report is not one. */
size_t report_count(const struct json *report, const char *kind);
const struct json *report_row(const struct json *report, const char *kind, size_t index);

/* "" and 0 where there is nothing, or something else. */
const char *report_text(const struct json *row, const char *column);
uint64_t report_number(const struct json *row, const char *column);
