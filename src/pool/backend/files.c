/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding the volumes of a directory. The names are read first; then several worker threads look at the files, each at
 * a run of names, so that a large directory takes as long as its slowest part. Of a directory that is watched
 * (pool/watch.h) no names need be read, and files that are as the scan before has seen them are not opened.
 */
#include "pool/backend/files.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/backend/new-file.h"
#include "pool/image-header.h"
#include "pool/pool-error.h"
#include "pool/watch.h"
#include "pool/xml/document.h"
#include "schema/json.h"

enum {
    SCAN_WORKERS = 4,
    SCAN_RUN_MIN = 64,
    BLOCK = 512,
    SETTLED_MS = 100,         /* a change after another one shows, if file systems count in ticks of the clock */
    SETTLED_COARSE_MS = 3000, /* ... in seconds, or in two as FAT does */
};

/* Where files are looked at. */
struct place {
    int folder;     /* names are relative to it */
    bool near;      /* it is on this host's own disks */
    int64_t now_us; /* wall clock, from before the look */
};

/* --- one file --- */

/* A server may let only the owner read; a thread's own ids for files change nothing for other threads. */
static int open_as_owner(int folder, const char *name, const struct stat *status)
{
    int group = setfsgid(status->st_gid);
    int user = setfsuid(status->st_uid);
    int fd = openat(folder, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    int error = errno;

    setfsuid((uid_t)user);
    setfsgid((gid_t)group);
    return fd < 0 ? -error : fd;
}

static int open_to_look(int folder, const char *name, const struct stat *status)
{
    int fd = openat(folder, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    return (errno == EACCES || errno == EPERM) && !geteuid() ? open_as_owner(folder, name, status) : -errno;
}

static char *label_of(int fd)
{
    char text[4096];
    ssize_t size = fgetxattr(fd, "security.selinux", text, sizeof(text));

    if (size > 0 && !text[size - 1])
        size--;
    return size > 0 ? g_utf8_make_valid(text, size) : NULL;
}

static int device_size(int fd, uint64_t *ret)
{
    return ioctl(fd, BLKGETSIZE64, ret) ? -errno : 0;
}

static int take_sizes(struct volume *volume, int fd, const struct stat *status, const struct image_header *header)
{
    uint64_t size = (uint64_t)status->st_size;
    int ret = 0;

    volume->allocation = (uint64_t)status->st_blocks * BLOCK;
    if (S_ISBLK(status->st_mode)) {
        ret = device_size(fd, &size);
        volume->allocation = size;
    }
    volume->physical = size;
    if (header->has_capacity && (int)header->format == volume->target.format)
        volume->capacity = header->capacity;
    else if (volume->target.format == VOLUME_FORMAT_RAW || volume->target.format == VOLUME_FORMAT_ISO)
        volume->capacity = size - MIN(header->payload_offset, size);
    else if (!volume->capacity)
        volume->capacity = size;
    return ret;
}

static const char *text_in(const struct json *object, const char *key)
{
    const struct json *value = object && json_get_kind(object) == JSON_OBJECT ? json_get(object, key) : NULL;

    return value && json_get_kind(value) == JSON_STRING ? json_get_string(value) : NULL;
}

/* What "json:" is followed by, options of the block library: {"driver": "file", "filename": PATH}, or that below
 * "file", where the first is for a format. NULL: it is no file of this host. Owned. */
static char *path_in_json(const char *text)
{
    AUTO(json) options = json_parse(text, strlen(text), NULL);
    const struct json *object = options;
    const struct json *below = options;
    const char *driver;
    const char *path;

    while (below && json_get_kind(below) == JSON_OBJECT) {
        object = below;
        below = json_get(object, "file");
    }
    driver = text_in(object, "driver");
    path = text_in(object, "filename");
    if (!path) {
        driver = text_in(object, "file.driver");
        path = text_in(object, "file.filename");
    }
    if (!driver || !path || *path != '/')
        return NULL;
    return !strcmp(driver, "file") || !strcmp(driver, "host_device") ? g_strdup(path) : NULL;
}

/* Where the image below lies; NULL: not in a file of this host. Owned. */
static char *local_path(const char *name, const char *image)
{
    g_autofree char *folder = NULL;
    const char *colon = strpbrk(name, ":/");

    if (g_str_has_prefix(name, "json:"))
        return path_in_json(name + strlen("json:"));
    if (g_str_has_prefix(name, "file:")) {
        name += strlen("file:");
        if (g_str_has_prefix(name, "///"))
            name += 2;
        colon = NULL;
    }
    if (colon && *colon == ':')
        return NULL;
    if (*name == '/')
        return g_strdup(name);
    folder = g_path_get_dirname(image);
    return g_build_filename(folder, name, NULL);
}

/* What can be seen of a backing image; that it cannot be opened is no fault of the one above. */
static void look_at_backing(struct volume_target *backing, bool probe)
{
    struct stat status;
    AUTO(fd) fd = -1;
    struct image_header header;

    if (stat(backing->path, &status) || !(S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)))
        return;
    volume_target_from_stat(backing, &status);
    fd = open_to_look(AT_FDCWD, backing->path, &status);
    if (fd < 0)
        return;
    backing->permissions.label = label_of(fd);
    if (!probe || image_header_read(fd, &header))
        return;
    backing->format = header.format;
    image_header_clear(&header);
}

static void take_backing(struct volume *volume, const struct image_header *header)
{
    bool probe = header->backing_format == -1;
    char *path;

    volume_target_free(volume->backing);
    volume->backing = NULL;
    if (!header->backing_file || !xml_is_valid_text(header->backing_file))
        return;
    volume->backing = volume_target_new();
    volume->backing->format = header->backing_format > 0 ? header->backing_format : VOLUME_FORMAT_RAW;
    path = local_path(header->backing_file, volume->target.path);
    if (path) {
        volume->backing->path = path;
        look_at_backing(volume->backing, probe);
    } else {
        volume->backing->path = g_strdup(header->backing_file);
        volume->backing->format = VOLUME_FORMAT_RAW;
    }
}

static void take_format(struct volume *volume, const struct image_header *header)
{
    struct volume_target *target = &volume->target;

    target->format = header->format;
    g_free(target->compat);
    target->compat = g_strdup(header->compat);
    target->cluster_size = header->cluster_size;
    target->has_features = header->compat && !strcmp(header->compat, "1.1");
    target->features = header->features;
    if (!header->encrypted) {
        volume_encryption_free(TAKE(target->encryption));
    } else if (!target->encryption) {
        target->encryption = g_new0(struct volume_encryption, 1);
        target->encryption->format = header->encryption;
    }
    take_backing(volume, header);
}

/* On this host's own disks, as far as the folder and the file tell. */
static bool is_near(int fd)
{
    int traits = file_traits_blocking(fd);

    return traits >= 0 && !(traits & FILE_IS_SHARED);
}

static struct file_look look_of(const struct stat *status, bool near, int64_t now_us)
{
    int64_t changed_ms = (int64_t)status->st_ctim.tv_sec * 1000 + status->st_ctim.tv_nsec / 1000000;
    int64_t wait_ms = status->st_ctim.tv_nsec ? SETTLED_MS : SETTLED_COARSE_MS;

    return (struct file_look){
        .near = near && S_ISREG(status->st_mode),
        .settled = changed_ms + wait_ms < now_us / 1000,
        .device = status->st_dev,
        .inode = status->st_ino,
        .size = status->st_size,
        .changed = status->st_ctim,
    };
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool is_as_seen(const struct stat *status, const struct file_look *seen)
{
    return status->st_dev == seen->device && status->st_ino == seen->inode && status->st_size == seen->size &&
           same_time(&status->st_ctim, &seen->changed);
}

bool file_volume_is_as_seen(struct volume *volume, bool just_seen)
{
    const struct file_look *seen = &volume->seen;
    struct stat status;

    if (!seen->near || !(seen->settled || just_seen) || stat(volume->target.path, &status) ||
        !is_as_seen(&status, seen))
        return false;
    volume->target.timestamps.atime = status.st_atim;
    return true;
}

static int take_open_file(struct volume *volume, const struct place *place, int fd, const struct stat *status,
                          const struct image_header *header)
{
    volume->seen = look_of(status, place->near && is_near(fd), place->now_us);
    volume->type = S_ISBLK(status->st_mode) ? VOLUME_BLOCK : VOLUME_FILE;
    volume_target_from_stat(&volume->target, status);
    g_free(volume->target.permissions.label);
    volume->target.permissions.label = label_of(fd);
    return take_sizes(volume, fd, status, header);
}

static int take_file(struct volume *volume, const struct place *place, const char *name, const struct stat *found,
                     bool full)
{
    AUTO(fd) fd = open_to_look(place->folder, name, found);
    struct image_header header;
    struct stat status;
    int ret;

    if (fd < 0)
        return fd;
    if (fstat(fd, &status))
        return -errno;
    /* Somebody may have put another one there meanwhile. */
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return -EMEDIUMTYPE;
    ret = image_header_read(fd, &header);
    if (ret)
        return ret;
    if (full)
        take_format(volume, &header);
    ret = take_open_file(volume, place, fd, &status, &header);
    image_header_clear(&header);
    return ret;
}

int file_volume_take_empty(struct volume *volume, int fd, int64_t now_us)
{
    /* It lies in its folder itself, so it is as near as that. */
    const struct place place = {.folder = -1, .near = true, .now_us = now_us};
    const struct image_header nothing = {0};
    struct stat status;

    if (fstat(fd, &status))
        return -errno;
    return take_open_file(volume, &place, fd, &status, &nothing);
}

/* A directory with the two files that a ploop image consists of is one volume of that format. */
static void take_folder(struct volume *volume, const struct place *place, const char *name, const struct stat *status)
{
    g_autofree char *image = g_build_filename(name, "root.hds", NULL);
    g_autofree char *descriptor = g_build_filename(name, "DiskDescriptor.xml", NULL);
    struct stat inner;

    volume->type = VOLUME_DIR;
    volume->target.format = VOLUME_FORMAT_DIR;
    volume->capacity = 0;
    volume->allocation = 0;
    volume->physical = 0;
    if (!fstatat(place->folder, image, &inner, 0) && !faccessat(place->folder, descriptor, F_OK, 0) &&
        !take_file(volume, place, image, &inner, true)) {
        volume->type = VOLUME_PLOOP;
        volume->target.format = VOLUME_FORMAT_PLOOP;
    }
    volume_target_from_stat(&volume->target, status);
    volume->seen.near = false; /* it is about the image in the folder */
}

static int take_entry(struct volume *volume, const struct place *place, const char *name, bool full)
{
    struct stat status;

    if (fstatat(place->folder, name, &status, 0))
        return -errno;
    if (S_ISDIR(status.st_mode)) {
        take_folder(volume, place, name, &status);
        return 0;
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return -EMEDIUMTYPE;
    return take_file(volume, place, name, &status, full);
}

int file_volume_probe(struct volume *volume, bool full, int64_t now_us)
{
    g_autofree char *parent = g_path_get_dirname(volume->target.path);
    AUTO(fd) folder = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct place place = {.folder = AT_FDCWD, .near = folder >= 0 && is_near(folder), .now_us = now_us};

    return take_entry(volume, &place, volume->target.path, full);
}

/* --- a directory --- */

/* What the scan before has found under a name; a copy, because clients' calls go on meanwhile. */
struct known {
    struct volume *volume; /* referenced; NULL: nothing */
    struct file_look look;
    char *backing_path; /* NULL: none */
    bool backing_seen;
    struct timespec backing_modified, backing_changed;
    bool unchanged; /* and so it is now */
};

struct scan {
    const char *path;
    struct place place;
    struct stat status; /* of the directory */
    bool tolerant;      /* a file with a fault is no reason to stop */
    GPtrArray *names;
    struct known *known;     /* by the place of the name; NULL: nothing is */
    struct volume **volumes; /* by the place of the name; NULL: not one of ours */
    struct statvfs space;
    struct permissions permissions;
    guint next;
    int error;
    char *error_name;
};

/* A run of names, for one worker. */
struct scan_run {
    struct scan *scan;
    guint from, to;
    int error;
    guint error_at;
};

bool files_can_show(const char *name)
{
    return xml_is_valid_text(name) && !strpbrk(name, "\t\n\r\x7f");
}

static void add_name(struct scan *scan, const char *name)
{
    if (!files_can_show(name))
        log_warning("a file of '%s' has a name that cannot be shown, and is left out", scan->path);
    else
        g_ptr_array_add(scan->names, g_strdup(name));
}

static int open_folder(void *opaque)
{
    struct scan *scan = opaque;

    scan->place.folder = open(scan->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (scan->place.folder < 0 || fstatvfs(scan->place.folder, &scan->space) ||
        fstat(scan->place.folder, &scan->status))
        return -errno;
    scan->place.near = is_near(scan->place.folder);
    permissions_from_stat(&scan->permissions, &scan->status);
    scan->permissions.label = label_of(scan->place.folder);
    return 0;
}

static int read_names(void *opaque)
{
    struct scan *scan = opaque;
    const struct dirent *entry;
    DIR *directory;
    int copy;

    copy = fcntl(scan->place.folder, F_DUPFD_CLOEXEC, 0);
    directory = copy < 0 ? NULL : fdopendir(copy);
    if (!directory) {
        int error = errno;

        fd_close(copy);
        return -error;
    }
    errno = 0;
    while ((entry = readdir(directory))) {
        const char *name = entry->d_name;

        if (!strcmp(name, ".") || !strcmp(name, ".."))
            continue;
        if (new_file_has_such_name(name))
            new_file_clean_up(scan->place.folder, name);
        else
            add_name(scan, name);
    }
    closedir(directory);
    return 0;
}

static void know(struct known *known, struct volume *volume)
{
    const struct volume_target *backing = volume->backing;

    known->volume = volume_ref(volume);
    known->look = volume->scanned;
    known->look.near = known->look.near && !volume->target.encryption; /* what is known of its secret may change */
    known->backing_path = backing ? g_strdup(backing->path) : NULL;
    if (backing && backing->timestamps.known) {
        known->backing_seen = true;
        known->backing_modified = backing->timestamps.mtime;
        known->backing_changed = backing->timestamps.ctime;
    }
}

/* Instead of reading the directory: what the pool has, and what has changed. */
static void recall_names(struct scan *scan, const struct pool *pool, GHashTable *changed)
{
    size_t count = pool_volume_count(pool);
    GHashTableIter iter;
    void *name;

    scan->known = g_new0(struct known, count + g_hash_table_size(changed));
    for (size_t i = 0; i < count; i++) {
        struct volume *volume = pool_volume_at(pool, i);

        g_ptr_array_add(scan->names, g_strdup(volume->name));
        know(&scan->known[i], volume);
    }
    g_hash_table_iter_init(&iter, changed);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        if (!pool_find_volume(pool, name))
            add_name(scan, name);
    }
}

static bool is_backing_as_seen(const struct known *known)
{
    struct stat status;

    if (!known->backing_path)
        return true;
    if (stat(known->backing_path, &status))
        return !known->backing_seen;
    return known->backing_seen && same_time(&status.st_mtim, &known->backing_modified) &&
           same_time(&status.st_ctim, &known->backing_changed);
}

static bool is_as_scanned(const struct scan *scan, const char *name, const struct known *known)
{
    struct stat status;

    return known->volume && known->look.near && known->look.settled && !fstatat(scan->place.folder, name, &status, 0) &&
           is_as_seen(&status, &known->look) && is_backing_as_seen(known);
}

/* What cannot be looked at is not one of the pool's volumes; but a file that cannot be read has a fault. */
static bool is_passed_over(int error)
{
    return error == -ENOENT || error == -EACCES || error == -EPERM || error == -ELOOP || error == -EMEDIUMTYPE ||
           error == -ENXIO || error == -ENOTDIR || error == -ENAMETOOLONG;
}

static int scan_names(void *opaque)
{
    struct scan_run *run = opaque;
    const struct scan *scan = run->scan;

    for (guint i = run->from; i < run->to; i++) {
        const char *name = g_ptr_array_index(scan->names, i);
        struct volume *volume;
        int ret;

        if (new_file_has_such_name(name)) {
            new_file_clean_up(scan->place.folder, name);
            continue;
        }
        if (scan->known && is_as_scanned(scan, name, &scan->known[i])) {
            scan->known[i].unchanged = true;
            continue;
        }
        volume = volume_new();
        volume->name = g_strdup(name);
        volume->target.path = g_build_filename(scan->path, name, NULL);
        volume->key = g_strdup(volume->target.path);
        ret = take_entry(volume, &scan->place, name, true);
        if (!ret) {
            volume->scanned = volume->seen;
            scan->volumes[i] = volume;
            continue;
        }
        volume_unref(volume);
        if (scan->tolerant || is_passed_over(ret))
            continue;
        run->error_at = i;
        return ret;
    }
    return 0;
}

static void CO_FN co_scan_runs(void *opaque)
{
    struct scan *scan = opaque;
    guint piece = MAX(SCAN_RUN_MIN, scan->names->len / (SCAN_WORKERS * 4));

    while (!scan->error && scan->next < scan->names->len) {
        struct scan_run run = {.scan = scan, .from = scan->next};

        run.to = MIN(run.from + piece, scan->names->len);
        scan->next = run.to;
        run.error = co_worker_run(scan_names, &run);
        if (run.error && !scan->error) {
            scan->error = run.error;
            scan->error_name = g_strdup(g_ptr_array_index(scan->names, run.error_at));
        }
    }
}

static void CO_FN co_scan_all(struct scan *scan)
{
    struct co_task *tasks[SCAN_WORKERS] = {NULL};

    scan->volumes = g_new0(struct volume *, scan->names->len);
    if (scan->names->len <= SCAN_RUN_MIN) {
        co_scan_runs(scan);
        return;
    }
    for (unsigned i = 0; i < SCAN_WORKERS; i++)
        tasks[i] = co_task_start(loop_current(), co_scan_runs, scan);
    for (unsigned i = 0; i < SCAN_WORKERS; i++)
        co_task_join(tasks[i]);
}

static void take_result(struct scan *scan, struct pool_scan *ret)
{
    uint64_t unit = scan->space.f_frsize;

    for (guint i = 0; i < scan->names->len; i++) {
        if (scan->volumes[i])
            pool_scan_add(ret, TAKE(scan->volumes[i]));
        else if (scan->known && scan->known[i].unchanged)
            pool_scan_add(ret, TAKE(scan->known[i].volume));
    }
    ret->capacity = unit * scan->space.f_blocks;
    ret->available = unit * scan->space.f_bfree;
    ret->allocation = ret->capacity - MIN(ret->available, ret->capacity);
    ret->has_permissions = true;
    permissions_copy(&ret->permissions, &scan->permissions);
}

static void scan_done(struct scan *scan)
{
    for (guint i = 0; scan->volumes && i < scan->names->len; i++)
        volume_unref(scan->volumes[i]);
    g_free(scan->volumes);
    for (guint i = 0; scan->known && i < scan->names->len; i++) {
        volume_unref(scan->known[i].volume);
        g_free(scan->known[i].backing_path);
    }
    g_free(scan->known);
    g_ptr_array_free(scan->names, TRUE);
    permissions_clear(&scan->permissions);
    fd_close(scan->place.folder);
    g_free(scan->error_name);
}

static void scan_init(struct scan *scan, const struct pool *pool)
{
    *scan = (struct scan){
        .path = pool->def->target_path,
        .place = {.folder = -1, .now_us = loop_wall_time_us()},
        .names = g_ptr_array_new_with_free_func(g_free),
        .permissions = PERMISSIONS_NONE,
    };
}

/* Opens the directory and finds the names in it: 0 or -errno. Only the disks of this host tell of all changes. */
static int CO_FN co_find_names(struct scan *scan, struct pool *pool)
{
    int failed = co_worker_run(open_folder, scan);
    g_autoptr(GHashTable) changed = NULL;

    if (failed)
        return failed;
    if (scan->place.near)
        changed = pool_watch_begin(pool, scan->place.folder, &scan->status);
    else
        pool_watch_stop(pool);
    if (!changed)
        return co_worker_run(read_names, scan);
    recall_names(scan, pool, changed);
    return 0;
}

bool CO_FN co_files_refresh(struct pool *pool, struct pool_scan *ret, struct pool_error **err)
{
    struct scan scan;
    int failed;
    bool ok;

    scan_init(&scan, pool);
    failed = co_find_names(&scan, pool);
    ok = !failed;
    if (failed) {
        pool_error_set_errno(err, failed, "cannot open directory '%s'", scan.path);
        if (err)
            (*err)->domain = POOL_DOMAIN_NONE; /* who says so in libvirt's daemon knows nothing of storage */
    } else {
        co_scan_all(&scan);
        ok = !scan.error ||
             pool_error_set_errno(err, scan.error, "cannot read header '%s/%s'", scan.path, scan.error_name);
    }
    if (ok)
        take_result(&scan, ret);
    pool_watch_end(pool, ok);
    scan_done(&scan);
    return ok;
}

void CO_FN co_files_look(struct pool *pool, const char *const *names, guint count, GPtrArray *found)
{
    struct scan scan;

    scan_init(&scan, pool);
    scan.tolerant = true;
    for (guint i = 0; i < count; i++)
        g_ptr_array_add(scan.names, g_strdup(names[i]));
    if (!co_worker_run(open_folder, &scan))
        co_scan_all(&scan);
    for (guint i = 0; i < count; i++)
        g_ptr_array_add(found, scan.volumes ? TAKE(scan.volumes[i]) : NULL);
    scan_done(&scan);
}

/* --- the directory itself --- */

struct directory_change {
    const char *path;
    const struct permissions *permissions;
    bool cow; /* leave copying on write as it is */
    const char *failed;
};

/* Copying on write makes disk images slow; btrfs lets new files of a directory do without. */
static void set_no_cow(const char *path)
{
    AUTO(fd) fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int flags = 0;

    if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) || flags & FS_NOCOW_FL)
        return;
    flags |= FS_NOCOW_FL;
    (void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static int make_directory(void *opaque)
{
    struct directory_change *change = opaque;
    const struct permissions *wanted = change->permissions;
    g_autofree char *parent = g_path_get_dirname(change->path);
    mode_t mode = wanted->mode >= 0 ? (mode_t)wanted->mode : 0711;
    bool made;

    change->failed = "create";
    if (g_mkdir_with_parents(parent, 0777))
        return -errno;
    made = !mkdir(change->path, mode);
    if (!made && errno != EEXIST)
        return -errno;
    if (!made && !g_file_test(change->path, G_FILE_TEST_IS_DIR))
        return -ENOTDIR;
    change->failed = "change the owner of";
    if ((wanted->owner >= 0 || wanted->group >= 0) &&
        chown(change->path, wanted->owner >= 0 ? (uid_t)wanted->owner : (uid_t)-1,
              wanted->group >= 0 ? (gid_t)wanted->group : (gid_t)-1))
        return -errno;
    change->failed = "set the mode of";
    if ((made || wanted->mode >= 0) && chmod(change->path, mode))
        return -errno;
    if (!change->cow)
        set_no_cow(change->path);
    return 0;
}

bool CO_FN co_files_make_directory(struct pool *pool, struct pool_error **err)
{
    const struct pool_def *def = pool->def;
    struct directory_change change = {def->target_path, &def->permissions, def->cow == TRISTATE_YES, NULL};
    int ret;

    if (!strchr(def->target_path, '/'))
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "path '%s' is not absolute", def->target_path);
    ret = co_worker_run(make_directory, &change);
    return !ret || pool_error_set_errno(err, ret, "cannot %s path '%s'", change.failed, def->target_path);
}

static int remove_directory(void *opaque)
{
    return rmdir(opaque) ? -errno : 0;
}

bool CO_FN co_files_delete_pool(struct pool *pool, unsigned flags, struct pool_error **err)
{
    int ret;

    if (!pool_error_check_flags(err, flags, 0, "virStorageBackendDeleteLocal"))
        return false;
    ret = co_worker_run(remove_directory, pool->def->target_path);
    return !ret || pool_error_set_errno(err, ret, "failed to remove pool '%s'", pool->def->target_path);
}

static int is_directory(void *opaque)
{
    return g_file_test(opaque, G_FILE_TEST_IS_DIR);
}

bool CO_FN co_files_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    *ret_active = co_worker_run(is_directory, pool->def->target_path);
    return true;
}
