/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any list of processors: what is accepted has a processor, unless it is blank. */
#include <assert.h>
#include <glib.h>
#include <string.h>

#include "object/cpu-list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    struct cpu_list list = {0};

    if (cpu_list_parse(&list, text))
        assert(CPU_COUNT(&list.set) > 0 || !strpbrk(text, "0123456789,-"));
    return 0;
}
