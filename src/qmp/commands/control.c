/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands about the session and the daemon as such. */
#include <assert.h>

#include "base/error.h"
#include "gen/commands.h"
#include "qmp/command-set.h"
#include "qmp/daemon.h"
#include "qmp/dispatch.h"
#include "qmp/monitor.h"
#include "qmp/version.h"

bool co_qmp_qmp_capabilities(struct daemon *daemon, const struct qmp_capabilities_arg *arg, struct error **err)
{
    struct qmp_client *client = monitor_current_client(daemon->monitors);

    assert(client);
    assert(!client->negotiated);
    for (size_t i = 0; arg->enable && i < arg->enable->count; i++) {
        if (arg->enable->items[i] == QMP_CAPABILITY_OOB)
            client->oob = true;
    }
    client->negotiated = true;
    return true;
}

bool co_qmp_query_version(struct daemon *daemon, struct version_info **ret, struct error **err)
{
    *ret = version_info_new();
    return true;
}

bool co_qmp_query_commands(struct daemon *daemon, struct command_info_array **ret, struct error **err)
{
    const struct qmp_command_set *commands = monitor_commands(daemon->monitors);
    struct command_info_array *list = g_new0(struct command_info_array, 1);

    list->count = qmp_command_set_count(commands);
    list->items = g_new0(struct command_info *, list->count);
    for (size_t i = 0; i < list->count; i++) {
        list->items[i] = g_new0(struct command_info, 1);
        list->items[i]->name = g_strdup(qmp_command_set_at(commands, i)->name);
    }
    *ret = list;
    return true;
}

bool co_qmp_quit(struct daemon *daemon, struct error **err)
{
    daemon_quit(daemon);
    return true;
}
