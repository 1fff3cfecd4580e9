/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The client of the reservation helper, against a helper of ours that does as it is told. */
#include "object/pr-manager.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "loop/stream.h"
#include "object/object-test-run.h"

enum { REPLY_BYTES = 8 + PR_SENSE_BYTES };

/* What the helper does with its connections, one after the other. */
struct script {
    struct socket_listener *listener;
    unsigned hang_up_after; /* requests of the first connection; 0: at its greeting */
    bool in_mid_request;    /* the last one is read, and not answered */
    uint32_t status;
    uint32_t size; /* of the payload, as announced and sent */
    uint8_t cdb[PR_CDB_BYTES];
    uint8_t data[PR_DATA_BYTES_MAX];
    struct stat device; /* of the descriptor that came */
    unsigned requests;
};

/* The request's first bytes, with the descriptor; false at the end. */
static bool CO_FN co_take_request(struct script *script, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = script->cdb, .iov_len = PR_CDB_BYTES};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t got = co_socket_recv_message(fd, &message, MSG_CMSG_CLOEXEC);
    int device;

    if (got <= 0)
        return false;
    g_assert_cmpint(got, ==, PR_CDB_BYTES);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    g_assert_nonnull(header);
    memcpy(&device, CMSG_DATA(header), sizeof(device));
    g_assert_cmpint(fstat(device, &script->device), ==, 0);
    close(device);
    if (script->cdb[0] == PR_OPERATION_OUT)
        g_assert_cmpint(co_socket_recv(fd, script->data, load_be32(script->cdb + 5), MSG_WAITALL), ==,
                        load_be32(script->cdb + 5));
    script->requests++;
    return true;
}

static void CO_FN co_answer(struct script *script, int fd)
{
    uint8_t reply[REPLY_BYTES + PR_DATA_BYTES_MAX] = {0};

    store_be32(reply, script->status);
    store_be32(reply + 4, script->size);
    memset(reply + 8, 's', PR_SENSE_BYTES);
    memset(reply + REPLY_BYTES, 'd', script->size);
    g_assert_cmpint(co_socket_send(fd, reply, REPLY_BYTES + script->size, 0), ==, REPLY_BYTES + script->size);
}

static void CO_FN co_serve_connection(struct script *script, int fd, unsigned limit)
{
    static const uint8_t features[4];
    uint8_t wanted[4];

    g_assert_cmpint(co_socket_send(fd, features, 4, 0), ==, 4);
    if (co_socket_recv(fd, wanted, 4, 0) != 4)
        return;
    g_assert_cmpint(load_be32(wanted), ==, 0);
    while (limit-- && co_take_request(script, fd)) {
        if (!limit && script->in_mid_request)
            return;
        co_answer(script, fd);
    }
}

static void CO_FN co_helper(void *opaque)
{
    struct script *script = opaque;
    unsigned limit = script->hang_up_after;

    for (;; limit = UINT_MAX) {
        AUTO(fd) fd = co_socket_listener_accept(script->listener);

        if (fd < 0)
            return;
        co_serve_connection(script, fd, limit);
    }
}

struct stage {
    struct object_registry *registry;
    struct script script;
    struct co_task *helper;
    char *folder;
    struct object *object;
};

static void CO_FN co_set_up(struct stage *stage, struct object_registry *registry)
{
    stage->registry = registry;
    stage->folder = g_dir_make_tmp("ashlar-pr-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(stage->folder, "helper.sock", NULL);
    g_autofree char *members = g_strdup_printf("'qom-type': 'pr-manager-helper', 'id': 'p', 'path': '%s'", path);

    stage->script.listener = co_socket_listen(&(struct socket_endpoint){.family = SOCKET_UNIX, .path = path}, 5, NULL);
    g_assert_nonnull(stage->script.listener);
    stage->helper = co_task_start(loop_current(), co_helper, &stage->script);
    co_object_test_expect(registry, members, NULL);
    stage->object = pr_manager_hold(registry, "p", NULL);
    g_assert_nonnull(stage->object);
}

static void CO_FN co_tear_down(struct stage *stage)
{
    object_release(stage->object);
    g_assert_true(co_object_delete(stage->registry, "p", NULL));
    co_task_cancel(stage->helper);
    co_task_join(stage->helper);
    socket_listener_free(stage->script.listener);
    g_assert_cmpint(g_rmdir(stage->folder), ==, 0);
    g_free(stage->folder);
}

static struct pr_command reserve_in(uint8_t *data, uint16_t length)
{
    struct pr_command command = {.cdb = {PR_OPERATION_IN}, .data = data};

    store_be16(command.cdb + 7, length);
    return command;
}

static int CO_FN co_execute(struct stage *stage, struct pr_command *command)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int result = co_pr_manager_execute(stage->object, fd, command);

    close(fd);
    return result;
}

static void CO_FN co_test_in(struct object_registry *registry)
{
    struct stage stage = {.script = {.hang_up_after = UINT_MAX, .size = 24}};
    uint8_t data[100] = {0};
    struct pr_command command = reserve_in(data, sizeof(data));
    struct stat null;

    co_set_up(&stage, registry);
    g_assert_cmpint(co_execute(&stage, &command), ==, 0);
    g_assert_cmpint(command.data_size, ==, 24);
    g_assert_cmpint(data[23], ==, 'd');
    g_assert_cmpint(data[24], ==, 0);
    g_assert_cmpmem(stage.script.cdb, PR_CDB_BYTES, command.cdb, PR_CDB_BYTES);
    g_assert_cmpint(stat("/dev/null", &null), ==, 0);
    g_assert_cmpuint(stage.script.device.st_rdev, ==, null.st_rdev);
    co_tear_down(&stage);
}

static void CO_FN co_test_out(struct object_registry *registry)
{
    struct stage stage = {.script = {.hang_up_after = UINT_MAX, .status = 2}};
    uint8_t data[24] = "reservation key";
    struct pr_command command = {.cdb = {PR_OPERATION_OUT}, .data = data};

    store_be32(command.cdb + 5, sizeof(data));
    co_set_up(&stage, registry);
    g_assert_cmpint(co_execute(&stage, &command), ==, 2);
    g_assert_cmpint(command.sense[PR_SENSE_BYTES - 1], ==, 's');
    g_assert_cmpmem(stage.script.data, sizeof(data), data, sizeof(data));
    co_tear_down(&stage);
}

static void CO_FN co_test_not_allowed(struct object_registry *registry)
{
    struct stage stage = {.script = {.hang_up_after = UINT_MAX}};
    uint8_t data[1];
    struct pr_command read_command = {.cdb = {0x28}, .data = data};
    struct pr_command long_in = reserve_in(data, PR_DATA_BYTES_MAX + 1);
    struct pr_command long_out = {.cdb = {PR_OPERATION_OUT, 0, 0, 0, 0, 0xff}, .data = data};

    co_set_up(&stage, registry);
    g_assert_cmpint(co_execute(&stage, &read_command), ==, -EINVAL);
    g_assert_cmpint(co_execute(&stage, &long_in), ==, -EINVAL);
    g_assert_cmpint(co_execute(&stage, &long_out), ==, -EINVAL);
    g_assert_cmpint(stage.script.requests, ==, 0);
    co_tear_down(&stage);
}

/* A helper that announces more than the command asked for is not believed, and the next command starts afresh. */
static void CO_FN co_test_too_much(struct object_registry *registry)
{
    struct stage stage = {.script = {.hang_up_after = UINT_MAX, .size = 101}};
    uint8_t data[100];
    struct pr_command command = reserve_in(data, sizeof(data));

    co_set_up(&stage, registry);
    g_assert_cmpint(co_execute(&stage, &command), ==, -EIO);
    stage.script.size = 4;
    g_assert_cmpint(co_execute(&stage, &command), ==, 0);
    g_assert_cmpint(command.data_size, ==, 4);
    co_tear_down(&stage);
}

/* The helper was restarted between two commands. */
static void CO_FN co_test_reconnect(struct object_registry *registry)
{
    struct stage stage = {.script = {.hang_up_after = 1, .size = 8}};
    uint8_t data[100];
    struct pr_command command = reserve_in(data, sizeof(data));

    co_set_up(&stage, registry);
    g_assert_cmpint(co_execute(&stage, &command), ==, 0);
    co_yield ();
    int second = co_execute(&stage, &command);
    if (second == -EIO) /* it went out before we knew, and is not repeated */
        second = co_execute(&stage, &command);
    g_assert_cmpint(second, ==, 0);
    g_assert_cmpint(stage.script.requests, ==, 2);
    co_tear_down(&stage);
}

/* A command that the helper has seen is not sent again. */
static void CO_FN co_test_lost(struct object_registry *registry)
{
    struct stage stage = {.script = {.hang_up_after = 1, .in_mid_request = true}};
    uint8_t data[100];
    struct pr_command command = reserve_in(data, sizeof(data));

    co_set_up(&stage, registry);
    g_assert_cmpint(co_execute(&stage, &command), ==, -EIO);
    g_assert_cmpint(stage.script.requests, ==, 1);
    g_assert_cmpint(co_execute(&stage, &command), ==, 0);
    co_tear_down(&stage);
}

static void CO_FN co_test_nobody(struct object_registry *registry)
{
    AUTO(error) error = NULL;

    co_object_test_expect(registry, "'qom-type': 'pr-manager-helper', 'id': 'p', 'path': '/nowhere/at/all'",
                          "Failed to connect to '/nowhere/at/all': No such file or directory");
    g_assert_null(pr_manager_hold(registry, "p", &error));
    g_assert_cmpstr(error_message(error), ==, "No persistent reservation manager with id 'p'");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    object_test_add("/pr-manager/in", co_test_in);
    object_test_add("/pr-manager/out", co_test_out);
    object_test_add("/pr-manager/not-allowed", co_test_not_allowed);
    object_test_add("/pr-manager/too-much", co_test_too_much);
    object_test_add("/pr-manager/reconnect", co_test_reconnect);
    object_test_add("/pr-manager/lost", co_test_lost);
    object_test_add("/pr-manager/nobody", co_test_nobody);
    return g_test_run();
}
