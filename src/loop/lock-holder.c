/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who holds a lock of a file. The system does not tell for locks that belong to open file descriptions; but it lists
 * each process' descriptors with their locks, as far as we may look there.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "loop/file.h"
#include "loop/loop.h"

struct holder_search {
    int own_fd; /* whose locks don't count */
    struct stat stat;
    uint64_t start;
    uint64_t end; /* inclusive */
    pid_t pid;
    char *command;
};

/* A "lock:" line of an fdinfo file: "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:10952731 100 101", or "... 0 EOF". */
static bool line_matches(const struct holder_search *search, const char *line)
{
    unsigned major_number;
    unsigned minor_number;
    uint64_t inode;
    uint64_t start;
    char end_text[32];
    uint64_t end;

    if (sscanf(line, "lock: %*d: %*s %*s %*s %*d %x:%x:%" SCNu64 " %" SCNu64 " %31s", &major_number, &minor_number,
               &inode, &start, end_text) != 5)
        return false;
    end = strcmp(end_text, "EOF") ? strtoull(end_text, NULL, 10) : UINT64_MAX;
    return inode == search->stat.st_ino && major_number == major(search->stat.st_dev) &&
           minor_number == minor(search->stat.st_dev) && start <= search->end && search->start <= end;
}

static bool descriptor_matches(const struct holder_search *search, const char *folder, const char *name)
{
    char path[64];
    char line[256];
    bool found = false;
    FILE *file;

    snprintf(path, sizeof(path), "%s/%.16s", folder, name);
    file = fopen(path, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof(line), file))
        found = line_matches(search, line);
    fclose(file);
    return found;
}

static bool process_matches(const struct holder_search *search, pid_t pid)
{
    char folder[32];
    bool found = false;
    const struct dirent *entry;
    DIR *descriptors;

    snprintf(folder, sizeof(folder), "/proc/%d/fdinfo", (int)pid);
    descriptors = opendir(folder);
    if (!descriptors)
        return false;
    while (!found && (entry = readdir(descriptors))) {
        if (!isdigit((unsigned char)*entry->d_name))
            continue;
        if (pid != getpid() || atoi(entry->d_name) != search->own_fd)
            found = descriptor_matches(search, folder, entry->d_name);
    }
    closedir(descriptors);
    return found;
}

/* The name of a process, "?" where it has ended. */
static char *process_command(pid_t pid)
{
    char path[32];
    char command[64] = "";
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    file = fopen(path, "re");
    if (file) {
        if (!fgets(command, sizeof(command), file))
            command[0] = 0;
        fclose(file);
    }
    g_strchomp(command);
    return g_strdup(*command ? command : "?");
}

static int search_work(void *opaque)
{
    struct holder_search *search = opaque;
    const struct dirent *entry;
    DIR *processes;

    if (fstat(search->own_fd, &search->stat))
        return -errno;
    processes = opendir("/proc");
    if (!processes)
        return -errno;
    while (!search->pid && (entry = readdir(processes))) {
        pid_t pid = (pid_t)atoi(entry->d_name);

        if (pid > 0 && process_matches(search, pid))
            search->pid = pid;
    }
    closedir(processes);
    if (!search->pid)
        return -ENOENT;
    search->command = process_command(search->pid);
    return 0;
}

bool CO_FN co_file_lock_holder(int fd, uint64_t start, uint64_t length, pid_t *ret_pid, char **ret_command)
{
    struct holder_search search = {.own_fd = fd, .start = start, .end = start + length - 1};

    if (loop_get_backend(loop_current()) == LOOP_SIM || co_worker_run(search_work, &search) < 0)
        return false;
    *ret_pid = search.pid;
    *ret_command = search.command;
    return true;
}
