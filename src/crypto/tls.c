/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/tls.h"

#include "base/cleanup.h"

const struct tls_engine *tls_engine_get(struct error **err)
{
    const struct module_head *head = module_table("tls-gnutls", "ashlar_tls_gnutls", "libgnutls30", err);

    return head ? container_of(head, struct tls_engine, head) : NULL;
}
