/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The module authz-pam: account management only, so no conversation and no password. */
#include <glib.h>
#include <security/pam_appl.h>

#include "base/error.h"
#include "crypto/pam.h"

static int refuse_conversation(int count, const struct pam_message **messages, struct pam_response **replies,
                               void *opaque)
{
    return PAM_CONV_ERR;
}

static bool pam_ask(const char *service, const char *identity, bool *ret_allowed, struct error **err)
{
    const struct pam_conv conversation = {.conv = refuse_conversation};
    pam_handle_t *handle = NULL;
    int result = pam_start(service, identity, &conversation, &handle);

    if (result != PAM_SUCCESS)
        return error_set(err, "Unable to start PAM service '%s': %s", service, pam_strerror(handle, result));
    result = pam_acct_mgmt(handle, PAM_SILENT);
    bool fails = result == PAM_SYSTEM_ERR || result == PAM_SERVICE_ERR || result == PAM_BUF_ERR || result == PAM_ABORT;
    if (fails)
        error_set(err, "PAM service '%s' cannot judge '%s': %s", service, identity, pam_strerror(handle, result));
    *ret_allowed = result == PAM_SUCCESS;
    (void)pam_end(handle, result);
    return !fails;
}

extern const struct pam_engine ashlar_authz_pam;
const struct pam_engine ashlar_authz_pam = {
    .head = {.version = ASHLAR_VERSION},
    .ask = pam_ask,
};
