/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scsi: the units of a SCSI host; one of Fibre Channel may be made for the pool, and goes with it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/log.h"
#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/backend.h"
#include "pool/backend/scsi-scan.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"

enum { PORT_WAIT_MS = 10000, PORT_STEP_MS = 200 };

struct finding {
    const struct pool_adapter *adapter;
    unsigned host;
};

static int find(void *opaque)
{
    struct finding *finding = opaque;

    return scsi_find_host("/sys", finding->adapter, &finding->host);
}

static int CO_FN co_find_host(const struct pool_adapter *adapter, unsigned *ret)
{
    struct finding finding = {.adapter = adapter};
    int result = co_worker_run(find, &finding);

    *ret = finding.host;
    return result;
}

static const char *name_of(const struct pool_adapter *adapter)
{
    if (adapter->type == POOL_ADAPTER_FC_HOST)
        return adapter->wwpn;
    return adapter->name ? adapter->name : "with the parent's address";
}

static bool CO_FN scsi_co_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    g_autofree char *path = NULL;
    unsigned host;

    *ret_active = false;
    if (co_find_host(&pool->def->source.adapter, &host))
        return true;
    path = g_strdup_printf("/sys/class/scsi_host/host%u", host);
    *ret_active = co_device_exists(path);
    return true;
}

static bool CO_FN scsi_co_refresh(struct pool *pool, struct pool_scan *scan, struct pool_error **err)
{
    unsigned host;
    int ret = co_find_host(&pool->def->source.adapter, &host);

    if (ret)
        return pool_error_set_errno(err, ret, "cannot find SCSI host %s", name_of(&pool->def->source.adapter));
    return co_scsi_scan(pool, host, scan, err);
}

/* --- ports of Fibre Channel --- */

static int find_parent(void *opaque)
{
    struct finding *finding = opaque;

    return scsi_find_parent("/sys", finding->adapter, &finding->host);
}

static bool CO_FN co_change_port(const struct pool_adapter *adapter, const char *file, struct pool_error **err)
{
    g_autofree char *names = g_strdup_printf("%s:%s", adapter->wwpn, adapter->wwnn);
    g_autofree char *path = NULL;
    struct finding parent = {.adapter = adapter};
    AUTO(fd) fd = -1;
    int ret = co_worker_run(find_parent, &parent);

    if (ret)
        return pool_error_set_errno(err, ret, "cannot find the parent of vport %s", adapter->wwpn);
    path = g_strdup_printf("/sys/class/fc_host/host%u/%s", parent.host, file);
    fd = co_file_open(path, O_WRONLY, 0);
    ret = fd < 0 ? fd : co_file_write_exact(fd, names, strlen(names), 0);
    return !ret || pool_error_set_errno(err, ret, "Write of '%s' to '%s'", names, path);
}

static bool CO_FN scsi_co_start(struct pool *pool, struct pool_error **err)
{
    struct pool_adapter *adapter = &pool->def->source.adapter;
    unsigned host;

    if (adapter->type != POOL_ADAPTER_FC_HOST || !co_find_host(adapter, &host))
        return true;
    if (!co_change_port(adapter, "vport_create", err))
        return false;
    /* Made by us, so it goes with the pool. */
    adapter->managed = TRISTATE_YES;
    for (unsigned waited = 0; waited < PORT_WAIT_MS; waited += PORT_STEP_MS) {
        if (!co_find_host(adapter, &host))
            return true;
        if (co_sleep_ns(PORT_STEP_MS * NS_PER_MS))
            break;
    }
    return pool_error_set_errno(err, ENODEV, "vport %s", adapter->wwpn);
}

static bool CO_FN scsi_co_stop(struct pool *pool, struct pool_error **err)
{
    const struct pool_adapter *adapter = &pool->def->source.adapter;
    unsigned host;

    if (adapter->type != POOL_ADAPTER_FC_HOST || adapter->managed != TRISTATE_YES || co_find_host(adapter, &host))
        return true;
    return co_change_port(adapter, "vport_delete", err);
}

static const struct pool_backend_volume scsi_volume_operations = {
    .co_refresh = co_device_volume_refresh,
    .co_wipe = co_device_volume_wipe,
};

const struct pool_backend scsi_backend = {
    .type = POOL_SCSI,
    .flags = BACKEND_STABLE_PATHS | BACKEND_TRANSFERS,
    .co_check = scsi_co_check,
    .co_start = scsi_co_start,
    .co_stop = scsi_co_stop,
    .co_refresh = scsi_co_refresh,
    .volume = &scsi_volume_operations,
};
