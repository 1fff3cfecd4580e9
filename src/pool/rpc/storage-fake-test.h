/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A storage of one pool "p" with one volume "v", whose content is bytes in memory; for tests of what serves clients. */
#pragma once

#include <glib.h>

#include "pool/storage.h"

struct storage {
    GByteArray *content; /* of the volume */
    struct storage_listener *listener;
    unsigned closed;  /* streams */
    bool gate_shut;   /* refreshing the pool waits until it opens */
    unsigned waiting; /* calls that do */
};

struct storage *fake_storage_new(void);
void fake_storage_open_gate(struct storage *storage);
