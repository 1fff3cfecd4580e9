/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All types of pools that this build has. */
#include <assert.h>

#include "pool/backend.h"
#include "pool/backend/types.h"
#include "pool/backends-built.h"
#include "pool/pool-error.h"

const struct pool_backend *const pool_backends[] = {
    POOL_BACKENDS_BUILT,
    NULL,
};

const struct pool_backend *pool_backend_find(enum pool_type type)
{
    for (const struct pool_backend *const *backend = pool_backends; *backend; backend++) {
        if ((*backend)->type == type)
            return *backend;
    }
    return NULL;
}

bool check_build_flags(unsigned flags, const char *function, struct pool_error **err)
{
    if (!pool_error_check_flags(err, flags, POOL_BUILD_NO_OVERWRITE | POOL_BUILD_OVERWRITE, function))
        return false;
    if (flags == (POOL_BUILD_NO_OVERWRITE | POOL_BUILD_OVERWRITE))
        return pool_error_set_argument(err, function, "VIR_STORAGE_POOL_BUILD_OVERWRITE",
                                       "Flags '%s' and '%s' are mutually exclusive", "VIR_STORAGE_POOL_BUILD_OVERWRITE",
                                       "VIR_STORAGE_POOL_BUILD_NO_OVERWRITE");
    return true;
}

struct pool_source *pool_sources_add(GPtrArray *sources, enum pool_type type)
{
    struct pool_source *source = g_new0(struct pool_source, 1);

    source->format = pool_type_info(type)->source_format_default;
    g_ptr_array_add(sources, source);
    return source;
}
