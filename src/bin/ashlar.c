/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar: commands about what the daemons keep. */
#include <glib.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bin/ashlar-pool.h"
#include "loop/daemonize.h"

static int print_help(const char *name)
{
    printf("Usage: %s SUBJECT COMMAND [options]\n\n"
           "Subjects:\n"
           "  pool                   storage pools and volumes, see `%s pool --help'\n\n"
           "Options:\n"
           "  -h, --help             display this help and exit\n"
           "  -V, --version          display the version and exit\n",
           name, name);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    g_autofree char *name = g_path_get_basename(argc > 0 ? argv[0] : "ashlar");
    const char *word = argc > 1 ? argv[1] : NULL;

    daemonize_ensure_streams();
    (void)setlocale(LC_CTYPE, "");
    log_set_program(name);
    if (!word)
        log_error("what about?");
    else if (!strcmp(word, "pool"))
        return pool_main(name, argc - 1, argv + 1);
    else if (!strcmp(word, "--help") || !strcmp(word, "-h"))
        return print_help(name);
    else if (!strcmp(word, "--version") || !strcmp(word, "-V"))
        return printf("%s version %s\n", name, ASHLAR_VERSION) > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    else {
        g_autofree char *shown = text_printable(word);

        log_error("unknown subject '%s'", shown);
    }
    log_error("Try `%s --help' for more information.", name);
    return EXIT_FAILURE;
}
