/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that drive replication nodes. */
#include "base/error.h"
#include "driver/filter/replication.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "qmp/daemon.h"

bool CO_FN co_qmp_xen_set_replication(struct daemon *daemon, const struct xen_set_replication_arg *arg,
                                      struct error **err)
{
    enum replication_mode mode = arg->primary ? REPLICATION_MODE_PRIMARY : REPLICATION_MODE_SECONDARY;

    if (arg->enable && arg->has_failover)
        return error_set(err, "Parameter 'failover' is for ending replication, not for starting it");
    if (arg->enable)
        return co_replication_start_all(daemon->graph, mode, err);
    return co_replication_stop_all(daemon->graph, arg->has_failover && arg->failover, err);
}

bool CO_FN co_qmp_query_xen_replication_status(struct daemon *daemon, struct replication_status **ret,
                                               struct error **err)
{
    AUTO(error) failure = NULL;

    *ret = g_new0(struct replication_status, 1);
    (*ret)->error = !replication_check_all(daemon->graph, &failure);
    if ((*ret)->error)
        (*ret)->desc = g_strdup(error_message(failure));
    return true;
}

bool CO_FN co_qmp_xen_colo_do_checkpoint(struct daemon *daemon, struct error **err)
{
    return co_replication_checkpoint_all(daemon->graph, err);
}
