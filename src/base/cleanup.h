/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ownership of locals: g_autofree and AUTO() release on every way out of the scope, TAKE() hands ownership on. */
#pragma once

#include <glib.h>

/*
 * AUTO_DEFINE(name, type, release) stands after the declaration of `release`; then `AUTO(name) x = ...;` declares a
 * local of that type, on which `release` is called at the end of its scope.
 */
#define AUTO_DEFINE(name, type, release)                                                                               \
    typedef type auto_type_##name;                                                                                     \
    static inline void auto_release_##name(auto_type_##name *p)                                                        \
    {                                                                                                                  \
        release(*p);                                                                                                   \
    }
#define AUTO(name) __attribute__((cleanup(auto_release_##name), unused)) auto_type_##name

/* The value of the pointer variable `p`, which is NULL afterwards. */
#define TAKE(p)                                                                                                        \
    ({                                                                                                                 \
        __typeof__(p) taken_ = (p);                                                                                    \
        (p) = NULL;                                                                                                    \
        taken_;                                                                                                        \
    })

/* The value of the file-descriptor variable `fd`, which is -1 afterwards. */
#define TAKE_FD(fd)                                                                                                    \
    ({                                                                                                                 \
        int taken_ = (fd);                                                                                             \
        (fd) = -1;                                                                                                     \
        taken_;                                                                                                        \
    })
