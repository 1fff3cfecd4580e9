/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What several commands of ashlar-img print for people. */
#pragma once

struct json;
struct snapshot_info_array;

/* "name: value" a line, containers indented below, names with blanks for dashes. `depth`: in units of four columns. */
void img_print_members(const struct json *container, unsigned depth);

/* A table with a head. */
void img_print_snapshots(const struct snapshot_info_array *snapshots);
