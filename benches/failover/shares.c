/* Asks the same prepared queries once a second, and tells each second where they were sent.
 *
 *   shares PORT FILE PASSES
 *
 * FILE holds queries, each behind its length in two bytes; at most 32768. All of them go out evenly over one second, PASSES
 * times, to 127.0.0.1. As every pass asks for the same clients, what differs between two passes is what was moved, to the
 * single query, without the noise of sampling. Answers are told apart by the last byte of their first address.
 *
 * Prints a line of JSON for each pass, a second after its end, so that a late answer still counts:
 *   at        CLOCK_MONOTONIC of its begin
 *   sent, lost (without any answer), bad (an answer without an address), moved (another address group than the pass
 *   before; groups are the tens of the last byte), gap_ms (the longest time without any answer), by {last byte: answers}
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* Several sockets, since a server may spread its work over threads by the client's port. */
enum { SOCKETS = 8, MOST = 32768, SIZE = 512, NONE = 256, BAD = 257 };

static struct { size_t length; unsigned char bytes[SIZE]; } queries[MOST];
/* By the parity of the pass, and what the pass told last had. */
static unsigned short to[2][MOST], before[MOST];
static double began[2], gap[2];
static long count, told;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int behind_name(const unsigned char *message, int length, int at) {
    while (at < length && message[at] && message[at] < 0xc0) at += 1 + message[at];
    return at + (at < length && message[at] ? 2 : 1);
}

/* The last byte of the first address, or BAD. */
static unsigned short group(const unsigned char *message, int length) {
    int at = behind_name(message, length, 12) + 4, answers = message[6] << 8 | message[7];
    for (; answers > 0; answers--) {
        at = behind_name(message, length, at);
        if (at + 10 > length) return BAD;
        int type = message[at] << 8 | message[at + 1], size = message[at + 8] << 8 | message[at + 9];
        at += 10 + size;
        if (at > length) return BAD;
        if (type == 1 && size == 4) return message[at - 1];
    }
    return BAD;
}

static void tell(long pass) {
    unsigned short *now_ = to[pass & 1];
    long lost = 0, bad = 0, moved = 0, by[256] = {0};
    for (long i = 0; i < count; i++) {
        if (now_[i] == NONE) {
            lost++;
            continue; /* Where it would have been sent is not known; the one before stands. */
        }
        if (now_[i] == BAD) {
            bad++;
            continue;
        }
        by[now_[i]]++;
        moved += told > 0 && before[i] < NONE && before[i] / 10 != now_[i] / 10;
        before[i] = now_[i];
    }
    printf("{\"at\": %.6f, \"sent\": %ld, \"lost\": %ld, \"bad\": %ld, \"moved\": %ld, \"gap_ms\": %.3f, \"by\": {",
           began[pass & 1], count, lost, bad, moved, gap[pass & 1] * 1e3);
    const char *comma = "";
    for (int i = 0; i < 256; i++)
        if (by[i]) printf("%s\"%d\": %ld", comma, i, by[i]), comma = ", ";
    printf("}}\n");
    fflush(stdout);
    told++;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: shares PORT FILE PASSES\n");
        return 2;
    }
    FILE *file = fopen(argv[2], "rb");
    if (!file) fail(argv[2]);
    for (int high; count < MOST && (high = fgetc(file)) != EOF; count++) {
        size_t length = high << 8 | fgetc(file);
        if (length < 12 || length > SIZE || fread(queries[count].bytes, 1, length, file) != length) {
            fprintf(stderr, "the file of queries is damaged\n");
            return 1;
        }
        queries[count].length = length;
        before[count] = NONE;
    }
    long passes = atol(argv[3]);

    struct pollfd sockets[SOCKETS];
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int room = 4 << 20;
    for (int i = 0; i < SOCKETS; i++) {
        sockets[i] = (struct pollfd){socket(AF_INET, SOCK_DGRAM, 0), POLLIN, 0};
        /* Else answers could be lost on our side; FORCE beyond what a user may have. */
        setsockopt(sockets[i].fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
        if (connect(sockets[i].fd, (struct sockaddr *)&server, sizeof server)) fail("connect");
    }

    double begin = now(), last_answer = begin;
    long sent = 0, pass = -1;
    /* One second more than the passes take, for late answers. */
    for (double t = begin; t < begin + passes + 1; t = now()) {
        long due = (t - begin) * count;
        if (due > passes * count) due = passes * count;
        for (; sent < due; sent++) {
            long i = sent % count;
            if (i == 0) {
                pass = sent / count;
                /* The answers to the pass before last have had a whole second. */
                if (pass > 1) tell(pass - 2);
                for (long j = 0; j < count; j++) to[pass & 1][j] = NONE;
                began[pass & 1] = t, gap[pass & 1] = 0;
            }
            unsigned char *bytes = queries[i].bytes;
            unsigned id = i | (pass & 1) << 15;
            bytes[0] = id >> 8;
            bytes[1] = id;
            /* Refused while no server is there: one lost, which is the kind of thing to be counted. */
            if (send(sockets[i % SOCKETS].fd, bytes, queries[i].length, 0) < 0 && errno != ECONNREFUSED) fail("send");
        }
        ppoll(sockets, SOCKETS, &(struct timespec){0, 500000}, NULL);
        for (int i = 0; i < SOCKETS; i++) {
            unsigned char in[4096];
            ssize_t got;
            while ((got = recv(sockets[i].fd, in, sizeof in, MSG_DONTWAIT)) >= 0 || errno == ECONNREFUSED) {
                if (got < 12) continue;
                unsigned id = in[0] << 8 | in[1], place = id & 0x7fff, parity = id >> 15;
                if (place >= count || to[parity][place] != NONE) continue;
                to[parity][place] = group(in, got);
                double at = now();
                if (at - last_answer > gap[pass & 1]) gap[pass & 1] = at - last_answer;
                last_answer = at;
            }
        }
    }
    if (passes > 1) tell(passes - 2);
    if (passes > 0) tell(passes - 1);
    return 0;
}
