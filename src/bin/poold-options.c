/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bin/poold-options.h"

#include <getopt.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/paths.h"

enum { TIMEOUT_MAX_S = 2147483 };

static void print_help(const char *name, bool privileged)
{
    AUTO(pool_paths) paths = pool_paths_new(privileged);

    fprintf(stderr,
            "\n"
            "Usage:\n"
            "  %s [options]\n"
            "\n"
            "Options:\n"
            "  -h | --help            Display program help\n"
            "  -v | --verbose         Verbose messages\n"
            "  -d | --daemon          Run as a daemon & write PID file\n"
            "  -t | --timeout <secs>  Exit after timeout period\n"
            "  -f | --config <file>   Configuration file\n"
            "  -V | --version         Display version information\n"
            "  -p | --pid-file <file> Change name of PID file\n"
            "\n"
            "libvirt management daemon:\n"
            "\n"
            "  Default paths:\n"
            "\n"
            "    Configuration file (unless overridden by -f):\n"
            "      %s\n"
            "\n"
            "    Sockets:\n"
            "      %s/virtstoraged-sock\n",
            name, paths->config_file, paths->socket_directory);
    if (privileged)
        fprintf(stderr, "      %s/virtstoraged-sock-ro\n", paths->socket_directory);
    fprintf(stderr,
            "\n"
            "    PID file (unless overridden by -p):\n"
            "      %s\n"
            "\n",
            paths->pid_file);
}

static void print_version(const char *name)
{
    g_autofree char *base = g_path_get_basename(name);

    if (g_str_has_prefix(base, "ashlar"))
        printf("%s version %s (libvirt interface %s)\n", base, ASHLAR_VERSION, POOLD_INTERFACE);
    else
        printf("%s (libvirt) %s\n", name, POOLD_INTERFACE);
}

static bool parse_timeout(const char *text, uint32_t *ret)
{
    guint64 value;

    if (!g_ascii_string_to_unsigned(text, 10, 0, TIMEOUT_MAX_S, &value, NULL))
        return false;
    *ret = (uint32_t)value;
    return true;
}

/* One option; false: *ret_status is to end with. */
static bool apply(int letter, bool privileged, struct poold_options *options, int *ret_status)
{
    *ret_status = EXIT_SUCCESS;
    switch (letter) {
    case 'v':
        options->verbose = true;
        return true;
    case 'd':
        options->daemonize = true;
        return true;
    case 'f':
        options->config = optarg;
        return true;
    case 'p':
        options->pid_file = optarg;
        return true;
    case 't':
        if (parse_timeout(optarg, &options->timeout_s))
            return true;
        fprintf(stderr, "%s: Invalid value for timeout: '%s' is not a number of seconds from 0 to %d\n", options->name,
                optarg, TIMEOUT_MAX_S);
        *ret_status = EXIT_FAILURE;
        return false;
    case 'V':
        print_version(options->name);
        return false;
    case 'h':
        print_help(options->name, privileged);
        return false;
    default:
        print_help(options->name, privileged); /* getopt has said what is wrong */
        *ret_status = EXIT_FAILURE;
        return false;
    }
}

bool poold_options_parse(int argc, char **argv, bool privileged, struct poold_options *ret, int *ret_status)
{
    static const struct option table[] = {
        {"verbose", no_argument, NULL, 'v'},        {"daemon", no_argument, NULL, 'd'},
        {"config", required_argument, NULL, 'f'},   {"timeout", required_argument, NULL, 't'},
        {"pid-file", required_argument, NULL, 'p'}, {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0},
    };
    int letter;

    *ret = (struct poold_options){.name = argc > 0 ? argv[0] : "ashlar-poold"};
    while ((letter = getopt_long(argc, argv, "vdf:t:p:hV", table, NULL)) != -1) {
        if (!apply(letter, privileged, ret, ret_status))
            return false;
    }
    if (optind != argc) {
        fprintf(stderr, "%s: unexpected, non-option, command line arguments\n", ret->name);
        *ret_status = EXIT_FAILURE;
        return false;
    }
    return true;
}
