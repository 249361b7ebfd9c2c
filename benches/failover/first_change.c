/* Asks a DNS server every millisecond, does harm, and tells when the answer first changed.
 *
 *   first_change PORT NAME ADDRESS SECONDS PHASE_MS kill SIGNAL PID [PID]
 *   first_change PORT NAME ADDRESS SECONDS PHASE_MS run COMMAND...
 *
 * Asks 127.0.0.1 for NAME A over UDP. Once ADDRESS is answered it goes on for PHASE_MS, does the harm, and waits at most
 * SECONDS for an answer that holds anything else. Prints one line of JSON; `ms` counts from the instant before the harm
 * (so what `run` takes is part of it) to the arrival of the changed answer, by CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PERIOD_NS = 1000000 };
extern char **environ;

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static size_t write_query(unsigned char *out, const char *name) {
    memcpy(out, "\0\0\0\0\0\1\0\0\0\0\0\0", 12);
    size_t n = 12;
    while (*name) {
        size_t length = strcspn(name, ".");
        out[n++] = length;
        memcpy(out + n, name, length);
        n += length;
        name += length + (name[length] == '.');
    }
    memcpy(out + n, "\0\0\1\0\1", 5);
    return n + 5;
}

/* Behind the owner name at `at`, which ends with a pointer or the root (RFC 1035 section 4.1.4). */
static int behind_name(const unsigned char *message, int length, int at) {
    while (at < length && message[at] && message[at] < 0xc0) at += 1 + message[at];
    return at + (at < length && message[at] ? 2 : 1);
}

/* The first address of the answer and its TTL; 0 without any. */
static int first_address(const unsigned char *message, int length, struct in_addr *address, unsigned *ttl) {
    int at = behind_name(message, length, 12) + 4, count = message[6] << 8 | message[7];
    for (; count > 0; count--) {
        at = behind_name(message, length, at);
        if (at + 10 > length) return 0;
        int type = message[at] << 8 | message[at + 1], size = message[at + 8] << 8 | message[at + 9];
        memcpy(ttl, message + at + 4, 4);
        *ttl = ntohl(*ttl);
        at += 10;
        if (at + size > length) return 0;
        if (type == 1 && size == 4) return memcpy(address, message + at, 4), 1;
        at += size;
    }
    return 0;
}

static void harm(char **words) {
    if (strcmp(words[0], "kill") == 0) {
        for (int i = 2; words[i]; i++)
            if (kill(atoi(words[i]), atoi(words[1]))) perror("kill"), exit(1);
        return;
    }
    pid_t child;
    int status;
    if (posix_spawnp(&child, words[1], NULL, NULL, words + 1, environ)) perror(words[1]), exit(1);
    if (waitpid(child, &status, 0) < 0 || status) fprintf(stderr, "%s failed\n", words[1]), exit(1);
}

int main(int argc, char **argv) {
    if (argc < 8) {
        fprintf(stderr, "usage: first_change PORT NAME ADDRESS SECONDS PHASE_MS kill SIGNAL PID...|run COMMAND...\n");
        return 2;
    }
    struct in_addr healthy, found;
    if (inet_pton(AF_INET, argv[3], &healthy) != 1) return 2;
    long long patience = atof(argv[4]) * 1e9, phase = atof(argv[5]) * 1e6;
    int client = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(client, (struct sockaddr *)&server, sizeof server)) perror("connect"), exit(1);
    unsigned char query[512], answer[4096];
    size_t length = write_query(query, argv[2]);

    long long next = now_ns(), ready = 0, harmed = 0, begin = next;
    long asked = 0, answered = 0;
    unsigned ttl = 0;
    while (now_ns() < (harmed ? harmed : begin) + patience) {
        query[0] = asked >> 8;
        query[1] = asked;
        /* Refused while the server is not up yet: the next one may get through. */
        if (send(client, query, length, 0) == (ssize_t)length) asked++;
        next += PERIOD_NS;
        for (;;) {
            /* The harm is done at any moment between two queries: at one of them, the wait for the next would always be
             * part of the figure. */
            int harm_first = ready && !harmed && ready + phase < next;
            long long left = (harm_first ? ready + phase : next) - now_ns();
            if (left <= 0 && harm_first) {
                harmed = now_ns();
                harm(argv + 6);
                /* What was missed meanwhile is not made up for at once. */
                if (next < now_ns()) next = now_ns();
                continue;
            }
            if (left <= 0) break;
            /* Not SO_RCVTIMEO, which counts in the kernel's ticks of several milliseconds. */
            struct pollfd readable = {client, POLLIN, 0};
            if (ppoll(&readable, 1, &(struct timespec){0, left}, NULL) < 1) continue;
            ssize_t got = recv(client, answer, sizeof answer, MSG_DONTWAIT);
            if (got < 12) continue;
            long long at = now_ns();
            answered++;
            int some = first_address(answer, got, &found, &ttl);
            if (some && found.s_addr == healthy.s_addr) {
                if (!ready) ready = at;
            } else if (harmed) {
                char text[INET_ADDRSTRLEN] = "none";
                if (some) inet_ntop(AF_INET, &found, text, sizeof text);
                printf("{\"ms\": %.3f, \"to\": \"%s\", \"ttl\": %u, \"rcode\": %d, ", (at - harmed) * 1e-6, text,
                       some ? ttl : 0, answer[3] & 15);
                printf("\"asked\": %ld, \"answered\": %ld}\n", asked, answered);
                return 0;
            }
        }
    }
    printf("{\"ms\": null, \"ready\": %s, \"asked\": %ld, \"answered\": %ld}\n", ready ? "true" : "false", asked, answered);
    return 0;
}
