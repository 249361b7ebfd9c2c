/* Asks a DNS server over UDP with prepared queries, and tells what came back.
 *
 *   load PORT FILE SECONDS window N     keep N queries in flight: how many answers a second
 *   load PORT FILE SECONDS rate R       send R queries a second, whatever comes back: how long answers take
 *   load PORT FILE SECONDS asleep R     the same, and leave the CPU to others meanwhile
 *
 * FILE holds queries, each behind its length in two bytes (what `dnsperf -B` reads). The server is at 127.0.0.1.
 * Queries go out and answers come in by batches, since dnsperf, which does one system call a message, is slower than
 * the servers measured here. Prints one line of JSON; latencies in microseconds, `cpu` in seconds of this process,
 * without what it waited.
 *
 * After the time nothing more is sent, and the last answers have a moment; `in_time` are those that came before.
 * An answer counts when a query with its id is out and unanswered, and it is good with NOERROR, records, and the
 * question's first bytes. Anything else is told as `strange`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, SIZE = 2048, LATENCIES = 4 << 20 };
/* Seconds between two looks for answers. */
static const double PAUSE = 5e-6;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static unsigned char *queries;
static long size, at;

/* The next query of the file, from the start again after the last. */
static size_t next_query(unsigned char *out, unsigned id) {
    if (at + 2 > size) at = 0;
    size_t length = queries[at] << 8 | queries[at + 1];
    if (length < 12 || length > SIZE || at + 2 + (long)length > size) {
        fprintf(stderr, "the file of queries is damaged\n");
        exit(1);
    }
    memcpy(out, queries + at + 2, length);
    out[0] = id >> 8;
    out[1] = id;
    at += 2 + length;
    return length;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: load PORT FILE SECONDS window|rate|asleep N\n");
        return 2;
    }
    double seconds = atof(argv[3]), n = atof(argv[5]);
    int asleep = strcmp(argv[4], "asleep") == 0, paced = asleep || strcmp(argv[4], "rate") == 0;
    FILE *file = fopen(argv[2], "rb");
    if (!file) fail(argv[2]);
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    queries = malloc(size);
    if (fread(queries, 1, size, file) != (size_t)size) fail(argv[2]);
    /* Each run begins elsewhere, so that no server finds its caches warm from the run of the other. */
    for (long skip = (now() - (long)now()) * 10000; skip > 0; skip--) {
        unsigned char unused[SIZE];
        next_query(unused, 0);
    }

    int socket_ = socket(AF_INET, SOCK_DGRAM, 0), room = 4 << 20;
    setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(socket_, (struct sockaddr *)&server, sizeof server)) fail("connect");

    static unsigned char out[BATCH][SIZE], in[BATCH][SIZE];
    struct iovec out_at[BATCH], in_at[BATCH];
    struct mmsghdr sends[BATCH] = {0}, receives[BATCH] = {0};
    for (int i = 0; i < BATCH; i++) {
        out_at[i] = (struct iovec){out[i], 0};
        in_at[i] = (struct iovec){in[i], SIZE};
        sends[i].msg_hdr = (struct msghdr){.msg_iov = &out_at[i], .msg_iovlen = 1};
        receives[i].msg_hdr = (struct msghdr){.msg_iov = &in_at[i], .msg_iovlen = 1};
    }

    /* By id; 0: no query with this id is out. */
    static double sent_at[65536];
    float *latencies = paced ? malloc(LATENCIES * sizeof *latencies) : NULL;
    long sent = 0, answered = 0, in_time = 0, good = 0, strange = 0, bytes = 0, in_flight = 0, measured = 0;
    double begin = now(), end = begin + seconds, t = begin, last = begin, waited = 0;
    while (t < end + (paced ? 0.1 : 0.03)) {
        long want = t >= end ? 0 : paced ? (long)((t - begin) * n) - sent : (long)n - in_flight;
        /* Small refills would make small batches of the server's, too. */
        if (want > BATCH) want = BATCH;
        if (want > 0 && (paced || want == BATCH || in_flight == 0)) {
            for (int i = 0; i < want; i++) out_at[i].iov_len = next_query(out[i], (unsigned)(sent + i) & 0xffff);
            double stamp = now();
            int done = sendmmsg(socket_, sends, want, 0);
            if (done < 0) fail("sendmmsg");
            for (int i = 0; i < done; i++) sent_at[(sent + i) & 0xffff] = stamp;
            sent += done;
            in_flight += done;
        }
        int got = recvmmsg(socket_, receives, BATCH, MSG_DONTWAIT, NULL);
        t = now();
        if (got < 0) {
            if (errno != EAGAIN && errno != EINTR) fail("recvmmsg");
            if (asleep && t < end) {
                struct pollfd either = {socket_, POLLIN, 0};
                struct timespec short_while = {0, 50000};
                ppoll(&either, 1, &short_while, NULL);
            }
            if (paced && t < end) continue;
            /* What got lost narrows the window for good, until all of it is. */
            if (t - last > 0.02) in_flight = 0;
            /* Asleep, it would have to be woken, at the server's expense. A pause lets answers gather. */
            double until = t + PAUSE;
            while (now() < until) {}
            waited += PAUSE; /* and not what passed, some of which may have been another process's */
            t = now();
            continue;
        }
        last = t;
        for (int i = 0; i < got; i++) {
            unsigned id = in[i][0] << 8 | in[i][1];
            if (receives[i].msg_len < 12 || !(in[i][2] & 0x80) || sent_at[id] == 0) {
                strange++;
                continue;
            }
            answered++;
            in_time += t < end;
            bytes += receives[i].msg_len;
            /* NOERROR with at least one answer record, and the same name's beginning. */
            good += (in[i][3] & 15) == 0 && (in[i][6] | in[i][7]) != 0 && memcmp(in[i] + 12, queries + 14, 4) == 0;
            if (paced && measured < LATENCIES) latencies[measured++] = (t - sent_at[id]) * 1e6;
            sent_at[id] = 0;
        }
        in_flight -= got < in_flight ? got : in_flight;
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = -waited + used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    printf("{\"sent\": %ld, \"answered\": %ld, \"in_time\": %ld, \"good\": %ld, \"strange\": %ld, \"bytes\": %ld, \"lost\": %ld, "
           "\"seconds\": %.4f, \"cpu\": %.4f",
           sent, answered, in_time, good, strange, bytes, sent - answered, seconds, cpu);
    if (measured) {
        qsort(latencies, measured, sizeof *latencies, by_value);
        printf(", \"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f", latencies[measured / 2], latencies[measured * 99 / 100],
               latencies[measured * 999 / 1000]);
    }
    printf("}\n");
    return 0;
}
