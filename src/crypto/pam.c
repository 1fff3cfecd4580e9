/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/pam.h"

#include "base/cleanup.h"

const struct pam_engine *pam_engine_get(struct error **err)
{
    const struct module_head *head = module_table("authz-pam", "ashlar_authz_pam", "libpam0g", err);

    return head ? container_of(head, struct pam_engine, head) : NULL;
}
