/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine's part of coroutines: saves the registers that a called function must keep, and the stack pointer.
 * Floating-point control words are not switched, since nothing here changes them.
 */
#include "loop/switch.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if ASHLAR_UCONTEXT
#include <ucontext.h>
#endif

#if ASHLAR_ASAN
void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack_save, const void **bottom_old, size_t *size_old);
#endif
#if ASHLAR_TSAN
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

#if !ASHLAR_UCONTEXT
/* Pushes the kept registers, stores the stack pointer in *from, loads it from `to` and pops. */
void ashlar_stack_switch(void **from, void *to);

#if defined(__x86_64__)
/* An indirect jump rather than a return: the processor's guess of where a return goes is always wrong here. */
__asm__(".text\n"
        ".p2align 4\n"
        ".globl ashlar_stack_switch\n"
        ".hidden ashlar_stack_switch\n"
        ".type ashlar_stack_switch, @function\n"
        "ashlar_stack_switch:\n"
        "    .cfi_startproc\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    popq %rcx\n"
        "    jmp *%rcx\n"
        "    .cfi_endproc\n"
        ".size ashlar_stack_switch, . - ashlar_stack_switch\n");

static void *stack_prepare(void *bottom, size_t size, void (*entry)(void))
{
    uintptr_t top = ((uintptr_t)bottom + size) & ~(uintptr_t)15;
    /* Six registers, the address to go to, and a zero return address, which ends backtraces and leaves the stack
     * aligned as after a call. */
    uintptr_t *frame = (uintptr_t *)top - 8;

    memset(frame, 0, 8 * sizeof(*frame));
    frame[6] = (uintptr_t)entry;
    return frame;
}

#elif defined(__aarch64__)
__asm__(".text\n"
        ".p2align 4\n"
        ".globl ashlar_stack_switch\n"
        ".hidden ashlar_stack_switch\n"
        ".type ashlar_stack_switch, %function\n"
        "ashlar_stack_switch:\n"
        "    .cfi_startproc\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    br x30\n"
        "    .cfi_endproc\n"
        ".size ashlar_stack_switch, . - ashlar_stack_switch\n");

static void *stack_prepare(void *bottom, size_t size, void (*entry)(void))
{
    uintptr_t top = ((uintptr_t)bottom + size) & ~(uintptr_t)15;
    uintptr_t *frame = (uintptr_t *)(top - 160);

    memset(frame, 0, 160);
    frame[11] = (uintptr_t)entry; /* x30 */
    return frame;
}
#endif
#endif /* !ASHLAR_UCONTEXT */

void context_adopt_thread(struct context *context)
{
    memset(context, 0, sizeof(*context));
#if ASHLAR_UCONTEXT
    context->stack_pointer = calloc(1, sizeof(ucontext_t));
    assert(context->stack_pointer);
#endif
#if ASHLAR_ASAN
    pthread_attr_t attributes;
    void *bottom;
    int failed = pthread_getattr_np(pthread_self(), &attributes);

    assert(!failed);
    failed = pthread_attr_getstack(&attributes, &bottom, &context->stack_size);
    assert(!failed);
    context->stack_bottom = bottom;
    pthread_attr_destroy(&attributes);
#endif
#if ASHLAR_TSAN
    context->fiber = __tsan_get_current_fiber();
#endif
}

void context_release_thread(struct context *context)
{
#if ASHLAR_UCONTEXT
    free(context->stack_pointer);
#endif
    memset(context, 0, sizeof(*context));
}

#if ASHLAR_UCONTEXT
/* Apart, so that no local changes in the function that calls getcontext(), which may return twice. */
static void machine_prepare(ucontext_t *machine, void *bottom, size_t size, void (*entry)(void))
{
    getcontext(machine);
    machine->uc_stack.ss_sp = bottom;
    machine->uc_stack.ss_size = size;
    machine->uc_link = NULL;
    makecontext(machine, entry, 0);
}
#endif

void context_make(struct context *context, void *bottom, size_t size, void (*entry)(void))
{
#if ASHLAR_UCONTEXT
    if (!context->stack_pointer)
        context->stack_pointer = calloc(1, sizeof(ucontext_t));
    assert(context->stack_pointer);
    machine_prepare(context->stack_pointer, bottom, size, entry);
#else
    context->stack_pointer = stack_prepare(bottom, size, entry);
#endif
#if ASHLAR_ASAN
    context->fake_stack = NULL;
    context->stack_bottom = bottom;
    context->stack_size = size;
#endif
#if ASHLAR_TSAN
    /* A fresh one each time: the entry function never returns, so the shadow call stack of the last would go on. */
    if (context->fiber)
        __tsan_destroy_fiber(context->fiber);
    context->fiber = __tsan_create_fiber(0);
#endif
}

void context_entered(void)
{
#if ASHLAR_ASAN
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
}

void context_done(struct context *context)
{
#if ASHLAR_UCONTEXT
    free(context->stack_pointer);
#endif
#if ASHLAR_TSAN
    if (context->fiber)
        __tsan_destroy_fiber(context->fiber);
#endif
    memset(context, 0, sizeof(*context));
}

static void machine_switch(struct context *from, struct context *to)
{
#if ASHLAR_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
#if ASHLAR_UCONTEXT
    swapcontext(from->stack_pointer, to->stack_pointer);
#else
    ashlar_stack_switch(&from->stack_pointer, to->stack_pointer);
#endif
}

void context_switch(struct context *from, struct context *to)
{
#if ASHLAR_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack_bottom, to->stack_size);
#endif
    machine_switch(from, to);
#if ASHLAR_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

void context_leave(struct context *from, struct context *to)
{
#if ASHLAR_ASAN
    __sanitizer_start_switch_fiber(NULL, to->stack_bottom, to->stack_size);
#endif
    machine_switch(from, to);
    abort(); /* nobody goes on with what has been left for good */
}
