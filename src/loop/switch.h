/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Switching between stacks. A context is a place where execution stopped: of a thread's own stack, or of one made by
 * context_make(). Sanitizers and valgrind are told of every switch.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

#if defined(__SANITIZE_ADDRESS__)
#define ASHLAR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASHLAR_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define ASHLAR_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ASHLAR_TSAN 1
#endif
#endif
#ifndef ASHLAR_ASAN
#define ASHLAR_ASAN 0
#endif
#ifndef ASHLAR_TSAN
#define ASHLAR_TSAN 0
#endif

/* ASHLAR_UCONTEXT, set by the build for a test, takes the portable way on every machine. */
#if !defined(ASHLAR_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define ASHLAR_UCONTEXT 1
#endif

struct context {
    void *stack_pointer; /* or the ucontext_t */
#if ASHLAR_ASAN
    void *fake_stack;
    const void *stack_bottom;
    size_t stack_size;
#endif
#if ASHLAR_TSAN
    void *fiber;
#endif
};

/* The context of the calling thread's own stack, to be left by its first context_switch(). */
void context_adopt_thread(struct context *context);
void context_release_thread(struct context *context);

/*
 * Makes *context such that a switch to it calls `entry` on the stack [bottom, bottom + size). `entry` begins with
 * context_entered(), and never returns. A context made before on the same stack may be given again after it has been
 * left by context_leave().
 */
void context_make(struct context *context, void *bottom, size_t size, void (*entry)(void));
void context_entered(void);

/* Forgets what context_make() has allocated; the stack may be unmapped afterwards. Not for the running context. */
void context_done(struct context *context);

/* Stops here, to go on when somebody switches to `from`, and goes on at `to`. */
void context_switch(struct context *from, struct context *to);

/* The last switch away from a stack. */
NO_RETURN void context_leave(struct context *from, struct context *to);
