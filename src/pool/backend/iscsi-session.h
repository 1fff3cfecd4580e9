/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What iscsiadm and the kernel say of iSCSI sessions. Any thread. */
#pragma once

#include <glib.h>

/* Interfaces of open-iscsi that we make, each for one pool, have names that begin so. */
#define ISCSI_OWN_INTERFACE "ashlar-"

/*
 * Of the lines "tcp: [3] 192.0.2.1:3260,1 iqn.x:y (non-flash)" the number of the session with `target`; owned, NULL:
 * none. `initiator`: the name by which it has to be known to the target; NULL: whichever, but not those of interfaces
 * that we have made for other pools. The kernel shows both below `sysfs`; what it does not tell is taken as right.
 * Blocks.
 */
char *iscsi_session_find(const char *sysfs, const char *text, const char *target, const char *initiator);

/* Of the lines "192.0.2.1:3260,1 iqn.x:y" the targets, each once; the array frees them. */
GPtrArray *iscsi_session_targets(const char *text);

/* The SCSI host of that session, as the kernel shows it below `sysfs`. 0 or -errno. Blocks. */
int iscsi_session_host(const char *sysfs, const char *session, unsigned *ret);
