/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The main-loop object: the settings of the loop that the program's main thread runs. */
#pragma once

extern const struct object_class main_loop_class;
