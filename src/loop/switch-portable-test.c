/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The portable way of switching, for the tests of coroutines to run on it, too, on machines that have a faster one. */
#ifndef ASHLAR_UCONTEXT
#define ASHLAR_UCONTEXT 1
#endif
#include "loop/switch.c"
