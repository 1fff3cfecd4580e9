/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who we are, and which version of the interface we speak. */
#pragma once

#include "base/compiler.h"

struct version_info;

/* The version of the interface; ours is in version_package. */
enum { VERSION_INTERFACE_MAJOR = 9, VERSION_INTERFACE_MINOR = 1, VERSION_INTERFACE_MICRO = 1 };

/* "ashlar 0.1.0" */
extern const char version_package[];

/* What query-version and the greeting say; owned. */
struct version_info *version_info_new(void) MUST_CHECK;
