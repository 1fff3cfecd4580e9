/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes for people. */
#pragma once

#include <stdint.h>

/* "512 B", "1.5 KiB", "118 MiB": three digits and the unit; owned. */
char *size_text(uint64_t bytes);
