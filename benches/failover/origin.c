/* A toy stream origin over HTTP/1.1 that can be made to fail.
 *
 *   origin ADDRESS PORT
 *
 * /live/index.m3u8 is a multivariant playlist that leads to /live/media.m3u8, a live one of two-second segments; every
 * other path answers 200. SIGUSR1: everything is answered 500. SIGUSR2: the playlist stands still. SIGHUP: all is well
 * again. What SIGKILL and SIGSTOP do is the kernel's affair. One thread, no allocation; connections are kept.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 512, REQUEST = 4096, SEGMENT_S = 2, WINDOW = 6 };

static volatile sig_atomic_t failing;
static volatile long frozen_at;

/* Counted by a clock that all origins share, so a restarted one goes on where the live edge is. */
static long segment_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec / SEGMENT_S + WINDOW;
}

static void obey(int signal_) {
    if (signal_ == SIGUSR1) failing = 1;
    if (signal_ == SIGUSR2) frozen_at = segment_now();
    if (signal_ == SIGHUP) failing = 0, frozen_at = 0;
}

static int playlist(char *out, size_t size) {
    long newest = frozen_at ? frozen_at : segment_now();
    int n = snprintf(out, size, "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:%d\n#EXT-X-MEDIA-SEQUENCE:%ld\n",
                     SEGMENT_S, newest - WINDOW + 1);
    for (long i = newest - WINDOW + 1; i <= newest; i++)
        n += snprintf(out + n, size - n, "#EXTINF:%d.000,\nsegment%ld.ts\n", SEGMENT_S, i);
    return n;
}

static void answer(int client, const char *request) {
    char body[2048] = "ok\n", response[4096];
    const char *type = "text/plain";
    if (strncmp(request, "GET /live/", 10) == 0) type = "application/vnd.apple.mpegurl";
    if (strncmp(request, "GET /live/index.m3u8 ", 21) == 0)
        strcpy(body, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=5000000\nmedia.m3u8\n");
    else if (strncmp(request, "GET /live/media.m3u8 ", 21) == 0)
        playlist(body, sizeof body);
    int n = snprintf(response, sizeof response, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
                     failing ? "500 Internal Server Error" : "200 OK", type, strlen(body), body);
    /* Small enough for any socket's buffer; a reader who has gone is found by the next read. */
    if (send(client, response, n, MSG_NOSIGNAL) < 0) return;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: origin ADDRESS PORT\n");
        return 2;
    }
    signal(SIGUSR1, obey);
    signal(SIGUSR2, obey);
    signal(SIGHUP, obey);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &at.sin_addr) != 1) {
        fprintf(stderr, "%s is no address\n", argv[1]);
        return 2;
    }
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, CONNECTIONS)) {
        perror(argv[1]);
        return 1;
    }

    static char requests[CONNECTIONS][REQUEST];
    static size_t filled[CONNECTIONS];
    static struct pollfd polled[CONNECTIONS + 1];
    polled[0] = (struct pollfd){listener, POLLIN, 0};
    int count = 1;
    for (;;) {
        polled[0].events = count <= CONNECTIONS ? POLLIN : 0;
        if (poll(polled, count, -1) < 0) continue;
        if (polled[0].revents) {
            int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (client >= 0) {
                filled[count - 1] = 0;
                polled[count++] = (struct pollfd){client, POLLIN, 0};
            }
        }
        for (int i = 1; i < count; i++) {
            if (!polled[i].revents) continue;
            char *request = requests[i - 1];
            ssize_t got = read(polled[i].fd, request + filled[i - 1], REQUEST - 1 - filled[i - 1]);
            int done = got <= 0;
            if (!done) {
                request[filled[i - 1] += got] = 0;
                char *end;
                while (!done && (end = strstr(request, "\r\n\r\n"))) {
                    answer(polled[i].fd, request);
                    *end = 0;
                    /* gdnsd speaks 1.0 and waits for the end of the connection. */
                    done = strstr(request, " HTTP/1.0") || strcasestr(request, "\nConnection: close");
                    filled[i - 1] -= end + 4 - request;
                    memmove(request, end + 4, filled[i - 1] + 1);
                }
                done |= filled[i - 1] >= REQUEST - 1;
            }
            if (done) {
                close(polled[i].fd);
                count--;
                polled[i] = polled[count];
                filled[i - 1] = filled[count - 1];
                memcpy(requests[i - 1], requests[count - 1], REQUEST);
                i--;
            }
        }
    }
}
