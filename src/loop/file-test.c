/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop-test.h"

enum { PIECE = 4096 };

/* A new file that holds PIECE bytes each of a, b, c, d. */
static int co_make_file(const char *path)
{
    int fd = co_file_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    char data[PIECE];

    g_assert_cmpint(fd, >=, 0);
    for (unsigned i = 0; i < 4; i++) {
        memset(data, 'a' + (int)i, PIECE);
        g_assert_cmpint(co_file_write_exact(fd, data, PIECE, i * PIECE), ==, 0);
    }
    return fd;
}

static void co_assert_bytes(int fd, uint64_t offset, size_t size, char expected)
{
    g_autofree char *data = g_malloc(size);

    g_assert_cmpint(co_file_read_exact(fd, data, size, offset), ==, 0);
    for (size_t i = 0; i < size; i++)
        g_assert_cmpint(data[i], ==, expected);
}

static void co_test_open(void *opaque)
{
    g_autofree char *path = loop_test_path("open");
    AUTO(fd) fd = -1;
    AUTO(fd) reader = -1;

    g_assert_cmpint(co_file_open(path, O_RDONLY, 0), ==, -ENOENT);
    fd = co_file_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(co_file_open(path, O_RDWR | O_CREAT | O_EXCL, 0600), ==, -EEXIST);
    reader = co_file_open(path, O_RDONLY, 0);
    g_assert_cmpint(reader, >=, 0);
    g_assert_cmpint(co_file_write_exact(reader, "x", 1, 0), ==, -EBADF);
    if (loop_get_backend(loop_current()) != LOOP_SIM)
        g_assert_cmpint(fcntl(fd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
    fd_close(-1);
}

static void co_test_data(void *opaque)
{
    g_autofree char *path = loop_test_path("data");
    AUTO(fd) fd = co_make_file(path);
    char one[100];
    char two[2 * PIECE];
    struct iovec iov[] = {{one, sizeof(one)}, {two, sizeof(two)}};
    struct stat st;

    g_assert_cmpint(co_file_stat(fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 4 * PIECE);
    g_assert_true(S_ISREG(st.st_mode));
    g_assert_cmpint(co_file_preadv(fd, iov, 2, PIECE - 50, FILE_ENGINE_DEFAULT), ==, 100 + 2 * PIECE);
    g_assert_cmpint(one[49], ==, 'a');
    g_assert_cmpint(one[50], ==, 'b');
    g_assert_cmpint(two[PIECE - 50], ==, 'c');
    /* Short at the end, nothing behind it. */
    g_assert_cmpint(co_file_preadv(fd, iov, 2, 4 * PIECE - 10, FILE_ENGINE_DEFAULT), ==, 10);
    g_assert_cmpint(co_file_preadv(fd, iov, 2, 5 * PIECE, FILE_ENGINE_DEFAULT), ==, 0);
    g_assert_cmpint(co_file_read_exact(fd, two, sizeof(two), 3 * PIECE), ==, -EIO);
    memset(one, 'x', sizeof(one));
    memset(two, 'x', sizeof(two));
    g_assert_cmpint(co_file_pwritev(fd, iov, 2, 10, 0, FILE_ENGINE_DEFAULT), ==, 100 + 2 * PIECE);
    g_assert_cmpint(co_file_pwritev(fd, iov, 1, 6 * PIECE, RWF_DSYNC, FILE_ENGINE_DEFAULT), ==, 100);
    co_assert_bytes(fd, 0, 10, 'a');
    co_assert_bytes(fd, 10, 100 + 2 * PIECE, 'x');
    co_assert_bytes(fd, 110 + 2 * PIECE, PIECE - 110, 'c');
    co_assert_bytes(fd, 4 * PIECE, 2 * PIECE, 0);
    g_assert_cmpint(co_file_sync(fd, false), ==, 0);
    g_assert_cmpint(co_file_sync(fd, true), ==, 0);
}

static void co_test_allocate(void *opaque)
{
    g_autofree char *path = loop_test_path("allocate");
    AUTO(fd) fd = co_make_file(path);
    struct stat st;

    g_assert_cmpint(co_file_allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PIECE, 2 * PIECE), ==, 0);
    co_assert_bytes(fd, 0, PIECE, 'a');
    co_assert_bytes(fd, PIECE, 2 * PIECE, 0);
    co_assert_bytes(fd, 3 * PIECE, PIECE, 'd');
    g_assert_cmpint(co_file_allocate(fd, FALLOC_FL_ZERO_RANGE, 100, 50), ==, 0);
    co_assert_bytes(fd, 0, 100, 'a');
    co_assert_bytes(fd, 100, 50, 0);
    co_assert_bytes(fd, 150, PIECE - 150, 'a');
    g_assert_cmpint(co_file_allocate(fd, 0, 0, 8 * PIECE), ==, 0);
    g_assert_cmpint(co_file_stat(fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 8 * PIECE);
    co_assert_bytes(fd, 3 * PIECE, PIECE, 'd');
    co_assert_bytes(fd, 4 * PIECE, 4 * PIECE, 0);
}

static void co_test_truncate_seek(void *opaque)
{
    g_autofree char *path = loop_test_path("truncate");
    AUTO(fd) fd = co_file_open(path, O_RDWR | O_CREAT, 0600);
    char data[16 * PIECE];

    g_assert_cmpint(co_file_truncate(fd, 1 << 20), ==, 0);
    memset(data, 'z', sizeof(data));
    g_assert_cmpint(co_file_write_exact(fd, data, sizeof(data), 512 << 10), ==, 0);
    g_assert_cmpint(co_file_seek(fd, 0, SEEK_END), ==, 1 << 20);
    g_assert_cmpint(co_file_seek(fd, 0, SEEK_HOLE), ==, 0);
    g_assert_cmpint(co_file_seek(fd, 0, SEEK_DATA), ==, 512 << 10);
    g_assert_cmpint(co_file_seek(fd, 600 << 10, SEEK_DATA), ==, -ENXIO);
    g_assert_cmpint(co_file_seek(fd, 512 << 10, SEEK_HOLE), ==, (512 << 10) + 16 * PIECE);
    g_assert_cmpint(co_file_truncate(fd, (512 << 10) + 100), ==, 0);
    g_assert_cmpint(co_file_truncate(fd, 1 << 20), ==, 0);
    co_assert_bytes(fd, 512 << 10, 100, 'z');
    co_assert_bytes(fd, (512 << 10) + 100, 8000, 0);
}

static void co_test_copy(void *opaque)
{
    g_autofree char *path = loop_test_path("copy-from");
    g_autofree char *other = loop_test_path("copy-to");
    AUTO(fd) from = co_make_file(path);
    AUTO(fd) to = co_file_open(other, O_RDWR | O_CREAT | O_TRUNC, 0600);

    g_assert_cmpint(co_file_copy_range(from, PIECE, to, 0, 2 * PIECE), ==, 2 * PIECE);
    co_assert_bytes(to, 0, PIECE, 'b');
    co_assert_bytes(to, PIECE, PIECE, 'c');
    g_assert_cmpint(co_file_copy_range(from, 9 * PIECE, to, 0, PIECE), ==, 0);
    g_assert_cmpint(co_file_advise(from, 0, 0, POSIX_FADV_DONTNEED), ==, 0);
    g_assert_cmpint(co_file_ioctl(from, 0x5401 /* TCGETS */, NULL), ==, -ENOTTY);
}

static void co_test_names(void *opaque)
{
    g_autofree char *path = loop_test_path("name");
    g_autofree char *other = loop_test_path("other-name");
    AUTO(fd) fd = co_make_file(path);
    AUTO(fd) again = -1;

    g_assert_cmpint(co_file_rename(path, other), ==, 0);
    g_assert_cmpint(co_file_rename(path, other), ==, -ENOENT);
    again = co_file_open(other, O_RDONLY, 0);
    co_assert_bytes(again, 0, PIECE, 'a');
    g_assert_cmpint(co_file_unlink(other), ==, 0);
    g_assert_cmpint(co_file_unlink(other), ==, -ENOENT);
    co_assert_bytes(fd, 0, PIECE, 'a'); /* who has it open keeps it */
}

static void co_test_locks(void *opaque)
{
    g_autofree char *path = loop_test_path("locks");
    AUTO(fd) a = co_make_file(path);
    AUTO(fd) b = co_file_open(path, O_RDWR, 0);
    pid_t pid = -1;

    g_assert_cmpint(file_lock_set(a, 100, 10, FILE_LOCK_SHARED), ==, 0);
    g_assert_cmpint(file_lock_set(b, 100, 1, FILE_LOCK_SHARED), ==, 0);
    g_assert_cmpint(file_lock_set(b, 105, 1, FILE_LOCK_EXCLUSIVE), ==, -EAGAIN);
    g_assert_cmpint(file_lock_test(b, 105, 1, FILE_LOCK_EXCLUSIVE, &pid), ==, 1);
    g_assert_cmpint(pid, ==, 0); /* such locks belong to no process */
    g_assert_cmpint(file_lock_test(b, 105, 1, FILE_LOCK_SHARED, &pid), ==, 0);
    g_assert_cmpint(file_lock_test(a, 105, 1, FILE_LOCK_EXCLUSIVE, NULL), ==, 0);
    g_assert_cmpint(file_lock_set(a, 104, 3, FILE_LOCK_NONE), ==, 0);
    g_assert_cmpint(file_lock_set(b, 105, 1, FILE_LOCK_EXCLUSIVE), ==, 0);
    g_assert_cmpint(file_lock_set(a, 105, 1, FILE_LOCK_SHARED), ==, -EAGAIN);
    g_assert_cmpint(file_lock_set(b, 108, 1, FILE_LOCK_EXCLUSIVE), ==, -EAGAIN);
    fd_close(a);
    a = -1;
    g_assert_cmpint(file_lock_set(b, 108, 1, FILE_LOCK_EXCLUSIVE), ==, 0);
}

static void co_test_load(void *opaque)
{
    g_autofree char *path = loop_test_path("load");
    g_autofree char *missing = loop_test_path("missing");
    AUTO(fd) fd = co_make_file(path);
    AUTO(error) err = NULL;
    g_autofree char *data = NULL;
    size_t size;

    g_assert_true(co_file_load(path, 4 * PIECE, &data, &size, NULL));
    g_assert_cmpuint(size, ==, 4 * PIECE);
    g_assert_cmpint(data[size - 1], ==, 'd');
    g_assert_cmpint(data[size], ==, 0);
    g_assert_false(co_file_load(path, 4 * PIECE - 1, &data, &size, &err));
    g_assert_true(g_str_has_suffix(error_message(err), "is larger than 16383 bytes"));
    error_free(TAKE(err));
    g_assert_false(co_file_load(missing, 100, &data, &size, &err));
    g_assert_true(g_str_has_suffix(error_message(err), "': No such file or directory"));
}

/* --- engines --- */

struct transfer {
    int fd;
    enum file_engine engine;
    uint64_t offset;
    struct co_group *group;
};

static void co_transfer(void *opaque)
{
    struct transfer *transfer = opaque;
    char *buffer = loop_buffer_get(PIECE);
    struct iovec iov = {buffer, PIECE};

    memset(buffer, (int)(transfer->offset / PIECE), PIECE);
    g_assert_cmpint(co_file_pwritev(transfer->fd, &iov, 1, transfer->offset, 0, transfer->engine), ==, PIECE);
    memset(buffer, 0xff, PIECE);
    g_assert_cmpint(co_file_preadv(transfer->fd, &iov, 1, transfer->offset, transfer->engine), ==, PIECE);
    g_assert_cmpint(buffer[0], ==, (char)(transfer->offset / PIECE));
    g_assert_cmpint(buffer[PIECE - 1], ==, (char)(transfer->offset / PIECE));
    loop_buffer_put(buffer, PIECE);
    co_group_done(transfer->group);
}

/* More at once than the kernel takes. */
static void co_use_engine(const char *path, int flags, enum file_engine engine)
{
    enum { COUNT = 600 };
    AUTO(fd) fd = co_file_open(path, O_RDWR | O_CREAT | flags, 0600);
    g_autofree struct transfer *transfers = g_new0(struct transfer, COUNT);
    struct co_group group = {0};
    AUTO(error) err = NULL;

    if (fd == -EINVAL && (flags & O_DIRECT)) {
        g_test_message("the file system of temporary files has no O_DIRECT");
        return;
    }
    g_assert_cmpint(fd, >=, 0);
    if (!file_engine_available(engine, &err)) {
        g_test_message("%s", error_message(err));
        return;
    }
    co_group_add(&group, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        transfers[i] = (struct transfer){.fd = fd, .engine = engine, .offset = i * PIECE, .group = &group};
        co_spawn(loop_current(), co_transfer, &transfers[i]);
    }
    co_group_wait(&group);
}

static void co_test_engines(void *opaque)
{
    g_autofree char *path = loop_test_path("engines");

    for (enum file_engine engine = FILE_ENGINE_DEFAULT; engine <= FILE_ENGINE_AT_ONCE; engine++) {
        co_use_engine(path, 0, engine);
        co_use_engine(path, O_DIRECT, engine);
    }
}

static void co_test_batch(void *opaque)
{
    g_autofree char *path = loop_test_path("batch");

    for (unsigned batch = 1; batch <= 8; batch *= 2) {
        struct loop_options options = {.aio_max_batch = batch};

        g_assert_true(loop_configure(loop_current(), &options, NULL));
        co_use_engine(path, 0, FILE_ENGINE_DEFAULT);
        co_use_engine(path, O_DIRECT, FILE_ENGINE_NATIVE);
        co_use_engine(path, 0, FILE_ENGINE_IO_URING);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add("file/open", co_test_open);
    loop_test_add("file/data", co_test_data);
    loop_test_add("file/allocate", co_test_allocate);
    loop_test_add("file/truncate-seek", co_test_truncate_seek);
    loop_test_add("file/copy", co_test_copy);
    loop_test_add("file/names", co_test_names);
    loop_test_add("file/locks", co_test_locks);
    loop_test_add("file/load", co_test_load);
    loop_test_add("file/engines", co_test_engines);
    loop_test_add("file/batch", co_test_batch);
    return loop_test_finish();
}
