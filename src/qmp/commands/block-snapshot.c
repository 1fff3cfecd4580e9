/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands on snapshots: those that take one are transactions of one action. */
#include "block/snapshot.h"
#include "block/transaction.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "qmp/daemon.h"

bool CO_FN co_qmp_blockdev_snapshot(struct daemon *daemon, const struct blockdev_snapshot *arg, struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, co_snapshot_do(transaction, daemon->graph, arg, err));
}

bool CO_FN co_qmp_blockdev_snapshot_sync(struct daemon *daemon, const struct blockdev_snapshot_sync *arg,
                                         struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, co_snapshot_do_sync(transaction, daemon->graph, arg, err));
}

bool CO_FN co_qmp_blockdev_snapshot_internal_sync(struct daemon *daemon, const struct blockdev_snapshot_internal *arg,
                                                  struct error **err)
{
    struct transaction *transaction = transaction_new();

    return co_transaction_end(transaction, co_snapshot_do_internal(transaction, daemon->graph, arg, err));
}

bool CO_FN co_qmp_blockdev_snapshot_delete_internal_sync(struct daemon *daemon,
                                                         const struct blockdev_snapshot_delete_internal_sync_arg *arg,
                                                         struct snapshot_info **ret, struct error **err)
{
    *ret = co_snapshot_delete_internal(daemon->graph, arg->device, arg->id, arg->name, err);
    return *ret;
}

bool CO_FN co_qmp_change_backing_file(struct daemon *daemon, const struct change_backing_file_arg *arg,
                                      struct error **err)
{
    return co_change_backing_file(daemon->graph, arg, err);
}
