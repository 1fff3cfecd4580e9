/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of ashlar-poold, which is that of libvirt's virtstoraged. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define POOLD_INTERFACE "11.3.0" /* of libvirt, that we follow */

/* Texts are borrowed from argv; NULL: not given. */
struct poold_options {
    const char *name;
    bool verbose;
    bool daemonize;
    const char *config;
    const char *pid_file;
    uint32_t timeout_s; /* 0: none */
};

/* False: there is nothing to be done, or it is wrong; that has been printed, and *ret_status is to end with. */
bool poold_options_parse(int argc, char **argv, bool privileged, struct poold_options *ret, int *ret_status);
