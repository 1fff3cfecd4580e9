/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/command-set.h"

#include <assert.h>
#include <stdint.h>

struct qmp_command_set {
    const struct qmp_command *commands;
    size_t count;
    GHashTable *by_name;
};

struct qmp_command_set *qmp_command_set_new(const struct qmp_command *commands, size_t count)
{
    struct qmp_command_set *set = g_new0(struct qmp_command_set, 1);

    set->commands = commands;
    set->count = count;
    set->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    for (size_t i = 0; i < count; i++) {
        bool is_new =
            g_hash_table_insert(set->by_name, (gpointer)(uintptr_t)commands[i].name, (gpointer)(uintptr_t)&commands[i]);
        assert(is_new);
    }
    return set;
}

void qmp_command_set_free(struct qmp_command_set *set)
{
    if (!set)
        return;
    g_hash_table_destroy(set->by_name);
    g_free(set);
}

const struct qmp_command *qmp_command_set_find(const struct qmp_command_set *set, const char *name)
{
    return g_hash_table_lookup(set->by_name, name);
}

size_t qmp_command_set_count(const struct qmp_command_set *set)
{
    return set->count;
}

const struct qmp_command *qmp_command_set_at(const struct qmp_command_set *set, size_t index)
{
    assert(index < set->count);
    return &set->commands[index];
}
