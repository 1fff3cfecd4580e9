/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The thread-context object: a thread whose processors can be chosen, for what is made in it to inherit them. */
#pragma once

extern const struct object_class thread_context_class;
