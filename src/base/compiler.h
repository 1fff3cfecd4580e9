/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Words for what the compiler should know of a function or a branch. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PRINTF_LIKE(format_index, first_arg) __attribute__((format(printf, format_index, first_arg)))
#define MUST_CHECK __attribute__((warn_unused_result))
#define NO_RETURN __attribute__((noreturn))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Marks a function that may suspend its coroutine; its name starts with co_ or contains _co_. */
#define CO_FN

/* The struct of type `type` whose member `member` is at `ptr`. */
#define container_of(ptr, type, member)                                                                                \
    ({                                                                                                                 \
        const __typeof__(((type *)0)->member) *inner_ = (ptr);                                                         \
        (type *)((char *)(uintptr_t)inner_ - offsetof(type, member));                                                  \
    })
