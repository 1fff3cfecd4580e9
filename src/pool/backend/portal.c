/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/portal.h"

#include <assert.h>
#include <string.h>

#include "pool/backend.h"
#include "pool/pool-error.h"

enum { ISCSI_PORT = 3260 };

bool portal_check_host(const struct pool_source *source, struct pool_error **err)
{
    if (source->host_count != 1)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "Expected exactly 1 host for the storage pool");
    /* It goes onto command lines. */
    return *source->hosts[0].name != '-' ||
           pool_error_set(err, POOL_ERROR_INVALID_ARG, "'%s' is not the name of a host", source->hosts[0].name);
}

char *portal_of(const struct pool_source *source)
{
    const struct pool_host *host = &source->hosts[0];
    bool is_ipv6 = strchr(host->name, ':') && *host->name != '[';

    assert(source->host_count == 1);
    return g_strdup_printf("%s%s%s:%d", is_ipv6 ? "[" : "", host->name, is_ipv6 ? "]" : "",
                           host->port ? host->port : ISCSI_PORT);
}

void portal_add_found(GPtrArray *sources, enum pool_type type, const struct pool_source *asked, const char *target)
{
    struct pool_source *found = pool_sources_add(sources, type);

    found->hosts = g_new0(struct pool_host, 1);
    found->hosts[0] = (struct pool_host){g_strdup(asked->hosts[0].name), asked->hosts[0].port};
    found->host_count = 1;
    found->devices = g_new0(struct pool_device, 1);
    found->devices[0].path = g_strdup(target);
    found->device_count = 1;
    found->initiator = g_strdup(asked->initiator);
}
