/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The object types of this build, in the order in which help lists them. */
#include "object/authz-internal.h"
#include "object/iothread.h"
#include "object/main-loop.h"
#include "object/object.h"
#include "object/pr-manager.h"
#include "object/secret.h"
#include "object/thread-context.h"
#include "object/throttle-group.h"
#include "object/tls-creds-internal.h"

const struct object_class *const object_classes[] = {
    &authz_list_class,     &authz_list_file_class, &authz_pam_class,         &authz_simple_class,
    &iothread_class,       &main_loop_class,       &pr_manager_helper_class, &secret_class,
    &secret_keyring_class, &thread_context_class,  &throttle_group_class,    &tls_cipher_suites_class,
    &tls_creds_anon_class, &tls_creds_psk_class,   &tls_creds_x509_class,    NULL,
};
