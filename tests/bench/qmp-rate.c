/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A QMP client that does nothing but ask for the version, as fast as one connection can.
 *
 * usage: qmp-rate SOCKET ROUND-TRIPS DEPTH
 *
 * Sends DEPTH commands at once and waits for all replies, until ROUND-TRIPS are through; prints how many went a second.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char negotiation[] = "{\"execute\": \"qmp_capabilities\"}";
static const char command[] = "{\"execute\": \"query-version\"}";

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof(address.sun_path)) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    memcpy(address.sun_path, path, strlen(path));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    return fd;
}

static void send_all(int fd, const char *text, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);

        if (sent <= 0) {
            perror("send");
            exit(EXIT_FAILURE);
        }
        text += sent;
        size -= (size_t)sent;
    }
}

static void await_lines(int fd, unsigned count)
{
    char buffer[65536];

    while (count) {
        ssize_t size = recv(fd, buffer, sizeof(buffer), 0);

        if (size <= 0) {
            perror("recv");
            exit(EXIT_FAILURE);
        }
        for (const char *at = buffer; (at = memchr(at, '\n', (size_t)(buffer + size - at))); at++) {
            assert(count);
            count--;
        }
    }
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: qmp-rate SOCKET ROUND-TRIPS DEPTH\n");
        return EXIT_FAILURE;
    }

    int fd = connect_to(argv[1]);
    unsigned total = (unsigned)strtoul(argv[2], NULL, 10);
    unsigned depth = (unsigned)strtoul(argv[3], NULL, 10);
    size_t batch_bytes = depth * strlen(command);
    char *batch = malloc(batch_bytes + 1);

    assert(batch);
    assert(depth > 0);
    for (unsigned i = 0; i < depth; i++)
        memcpy(batch + i * strlen(command), command, strlen(command));
    await_lines(fd, 1);
    send_all(fd, negotiation, strlen(negotiation));
    await_lines(fd, 1);

    double started_s = now_s();
    unsigned done = 0;
    for (; done < total; done += depth) {
        send_all(fd, batch, batch_bytes);
        await_lines(fd, depth);
    }
    printf("%.0f\n", done / (now_s() - started_s));
    free(batch);
    close(fd);
    return EXIT_SUCCESS;
}
