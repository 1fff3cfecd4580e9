/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any file of authorization rules. Where it is valid it judges anybody, and a rule without wildcards its own match. */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "object/authz-internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(error) error = NULL;
    AUTO(auth_z_list_properties) list = authz_list_file_parse((const char *)data, size, &error);

    assert(!list == !!error);
    if (!list)
        return 0;
    (void)authz_list_allows(list, "");
    (void)authz_list_allows(list, "O=Masons,CN=client");
    if (list->rules && list->rules->count) {
        const struct q_auth_z_list_rule *first = list->rules->items[0];

        if (!first->has_format || first->format == Q_AUTH_Z_LIST_FORMAT_EXACT)
            assert(authz_list_allows(list, first->match) == (first->policy == Q_AUTH_Z_LIST_POLICY_ALLOW));
    }
    return 0;
}
