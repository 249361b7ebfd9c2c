/* Asks a DNS server over TCP with prepared queries, and tells what came back.
 *
 *   load_tcp PORT FILE SECONDS persistent CONNECTIONS WINDOW
 *       keeps WINDOW queries in flight on each of CONNECTIONS: how many answers a second, and how long they take
 *   load_tcp PORT FILE SECONDS connect CONCURRENCY
 *       connects, asks one query, reads its answer and closes, CONCURRENCY at a time: how many connections a second
 *   load_tcp PORT FILE SECONDS idle CONNECTIONS
 *       opens CONNECTIONS, asks one query on each, leaves them idle for SECONDS, and asks once more on each.
 *       Says "holding" to standard error when the idle time begins.
 *
 * FILE holds queries, each behind its length in two bytes (what `dnsperf -B` reads). The server is at 127.0.0.1.
 * One thread and no blocking call. Queries that may go out together are one write, and answers are taken in whatever
 * order they come: the ID names the query. Prints one line of JSON; times in microseconds. `good` are answers with
 * NOERROR and a record. Connections come from many addresses of 127.0.0.0/8, so that neither ports nor a server's limit
 * for one source run out, and close by RST, which leaves no TIME_WAIT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { QUERY = 2048, ANSWER = 2 + 65535, READ = 256 << 10, LATENCIES = 8 << 20, EVENTS = 256 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *zeroed(size_t count, size_t each) {
    void *memory = calloc(count, each);
    if (!memory) fail("calloc");
    return memory;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static unsigned char *queries;
static long size, at;

/* The next query of the file behind its length, from the start again after the last. */
static size_t next_query(unsigned char *out, unsigned id) {
    if (at + 2 > size) at = 0;
    size_t length = queries[at] << 8 | queries[at + 1];
    if (length < 12 || length > QUERY - 2 || at + 2 + (long)length > size) {
        fprintf(stderr, "the file of queries is damaged\n");
        exit(1);
    }
    memcpy(out, queries + at, 2 + length);
    out[2] = id >> 8;
    out[3] = id;
    at += 2 + length;
    return 2 + length;
}

static void read_queries(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    queries = zeroed(size, 1);
    if (fread(queries, 1, size, file) != (size_t)size) fail(path);
    fclose(file);
    /* Each run begins elsewhere, so that no server finds its caches warm from the run of the other. */
    for (long skip = (now() - (long)now()) * 10000; skip > 0; skip--) {
        unsigned char unused[QUERY];
        next_query(unused, 0);
    }
}

static int poller;
static struct sockaddr_in server;

static void watch(int operation, int fd, unsigned events, unsigned number) {
    struct epoll_event event = {.events = events, .data.u32 = number};
    if (epoll_ctl(poller, operation, fd, &event)) fail("epoll_ctl");
}

/* Begins to connect; the source is address number SOURCE of some thousand. */
static int begin_connect(unsigned source) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0) fail("socket");
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(0x7f010000 | (source / 250 % 250) << 8 | (1 + source % 250));
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (bind(fd, (struct sockaddr *)&from, sizeof from)) fail("bind");
    if (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static int is_good(const unsigned char *message) {
    return (message[3] & 15) == 0 && (message[6] | message[7]) != 0;
}

/* A connection with many queries in flight. */
struct stream {
    int fd;
    /* What the socket has not taken yet, and what has come of an answer that is not whole. */
    unsigned char *out, *in;
    size_t out_from, out_to, in_held;
    int writable_awaited;
    /* IDs that are not in flight, as a stack. */
    unsigned short *free_ids;
    unsigned free_count;
    /* By ID; 0: not in flight. */
    double *sent_at;
};

static long sent, answered, good, in_flight, measured;
static float *latencies;
static unsigned window;

static void flush(struct stream *s, unsigned number) {
    while (s->out_from < s->out_to) {
        ssize_t n = send(s->fd, s->out + s->out_from, s->out_to - s->out_from, MSG_NOSIGNAL);
        if (n < 0) break; /* An error shows at the next read. */
        s->out_from += n;
    }
    int wanted = s->out_from < s->out_to;
    if (wanted != s->writable_awaited) {
        watch(EPOLL_CTL_MOD, s->fd, EPOLLIN | (wanted ? EPOLLOUT : 0), number);
        s->writable_awaited = wanted;
    }
}

/* Fills the window up and writes once. */
static void ask(struct stream *s, unsigned number) {
    if (s->out_from == s->out_to) {
        s->out_from = s->out_to = 0;
        double stamp = now();
        while (s->free_count > 0) {
            unsigned id = s->free_ids[--s->free_count];
            s->out_to += next_query(s->out + s->out_to, id);
            s->sent_at[id] = stamp;
            sent++;
            in_flight++;
        }
    }
    flush(s, number);
}

/* Takes what has come. False when the connection is over. */
static int take(struct stream *s, int counted) {
    ssize_t n = recv(s->fd, s->in + s->in_held, READ, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
    if (n <= 0) return 0;
    size_t end = s->in_held + n, from = 0;
    double t = now();
    while (end - from >= 2) {
        size_t length = s->in[from] << 8 | s->in[from + 1];
        if (end - from < 2 + length) break;
        const unsigned char *message = s->in + from + 2;
        unsigned id = length < 12 ? window : (unsigned)(message[0] << 8 | message[1]);
        if (id >= window || !s->sent_at[id] || !(message[2] & 0x80)) {
            fprintf(stderr, "an answer that was not asked for\n");
            exit(1);
        }
        if (counted) {
            answered++;
            good += is_good(message);
            if (measured < LATENCIES) latencies[measured++] = (t - s->sent_at[id]) * 1e6;
        }
        s->sent_at[id] = 0;
        s->free_ids[s->free_count++] = id;
        in_flight--;
        from += 2 + length;
    }
    s->in_held = end - from;
    memmove(s->in, s->in + from, s->in_held);
    return 1;
}

static void persistent(double seconds, unsigned connections) {
    struct stream *streams = zeroed(connections, sizeof *streams);
    latencies = zeroed(LATENCIES, sizeof *latencies);
    unsigned open = 0;
    for (unsigned i = 0; i < connections; i++) {
        struct stream *s = &streams[i];
        s->fd = begin_connect(i);
        if (s->fd < 0) fail("connect");
        s->out = zeroed(window, QUERY);
        s->in = zeroed(1, READ + ANSWER);
        s->free_ids = zeroed(window, sizeof *s->free_ids);
        s->sent_at = zeroed(window, sizeof *s->sent_at);
        for (unsigned id = 0; id < window; id++) s->free_ids[s->free_count++] = window - 1 - id;
        s->writable_awaited = 1;
        watch(EPOLL_CTL_ADD, s->fd, EPOLLIN | EPOLLOUT, i);
        open++;
    }
    double begin = now(), end = begin + seconds, t = begin, stop = 0;
    long lost = 0;
    /* Answers that come in the half second after the end are not counted, and not lost either. */
    while (open > 0 && (t < end || (in_flight > 0 && t < end + 0.5))) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poller, events, EVENTS, 20);
        t = now();
        int counted = t < end;
        if (!counted && !stop) stop = t;
        for (int i = 0; i < n; i++) {
            unsigned number = events[i].data.u32;
            struct stream *s = &streams[number];
            if (events[i].events & ~EPOLLOUT && !take(s, counted)) {
                /* Its queries stay unanswered; the others go on. */
                lost += window - s->free_count;
                in_flight -= window - s->free_count;
                close(s->fd);
                open--;
                continue;
            }
            if (counted) ask(s, number);
            else flush(s, number);
        }
    }
    if (!stop) stop = t;
    printf("{\"seconds\": %.4f, \"sent\": %ld, \"answered\": %ld, \"good\": %ld, \"lost\": %ld", stop - begin, sent, answered,
           good, lost + in_flight);
    qsort(latencies, measured, sizeof *latencies, by_value);
    if (measured)
        printf(", \"p50\": %.1f, \"p99\": %.1f", latencies[measured / 2], latencies[measured * 99 / 100]);
    printf("}\n");
}

/* A connection with at most one query in flight. */
struct single {
    int fd; /* -1: none */
    int asked;
    size_t held;
    double since;
    /* An answer of more bytes counts as a failure; prepared queries offer 1,232. */
    unsigned char in[2048];
};

static unsigned sources;

static void open_single(struct single *s, unsigned number) {
    s->asked = 0;
    s->held = 0;
    s->since = now();
    s->fd = begin_connect(sources++);
    /* By edges: one for the connection, one or more for the answer, and none has to be asked for again. */
    if (s->fd >= 0) watch(EPOLL_CTL_ADD, s->fd, EPOLLIN | EPOLLOUT | EPOLLET, number);
}

static void close_single(struct single *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

/* False when the connection failed. */
static int ask_single(struct single *s, unsigned number) {
    unsigned char query[QUERY];
    size_t length = next_query(query, number & 0xffff);
    if (send(s->fd, query, length, MSG_NOSIGNAL) != (ssize_t)length) return 0;
    s->asked = 1;
    s->held = 0;
    return 1;
}

/* 1: a good answer, 0: not whole yet, -1: failed. */
static int take_single(struct single *s, unsigned number) {
    ssize_t n = recv(s->fd, s->in + s->held, sizeof s->in - s->held, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) return -1;
    s->held += n;
    if (s->held < 2 || s->held < 2 + (size_t)(s->in[0] << 8 | s->in[1])) return s->held < sizeof s->in ? 0 : -1;
    unsigned char *message = s->in + 2;
    if (s->held < 14 || (message[0] << 8 | message[1]) != (int)(number & 0xffff) || !is_good(message)) return -1;
    s->asked = 0;
    return 1;
}

static void connect_each(double seconds, unsigned concurrency) {
    struct single *singles = zeroed(concurrency, sizeof *singles);
    long connections = 0, done = 0, failed = 0;
    for (unsigned i = 0; i < concurrency; i++) open_single(&singles[i], i);
    double begin = now(), end = begin + seconds, t = begin, swept = begin;
    while (t < end) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poller, events, EVENTS, 20);
        for (int i = 0; i < n; i++) {
            unsigned number = events[i].data.u32;
            struct single *s = &singles[number];
            int outcome = 0;
            if (s->asked) {
                outcome = take_single(s, number);
            } else if (events[i].events & (EPOLLERR | EPOLLHUP) || !ask_single(s, number)) {
                outcome = -1;
            } else {
                connections++;
            }
            if (outcome) {
                done += outcome > 0;
                failed += outcome < 0;
                close_single(s);
                open_single(s, number);
            }
        }
        t = now();
        if (t - swept < 0.1) continue;
        swept = t;
        for (unsigned i = 0; i < concurrency; i++) {
            if (singles[i].fd >= 0 && t - singles[i].since < 2) continue;
            failed++;
            close_single(&singles[i]);
            open_single(&singles[i], i);
        }
    }
    printf("{\"seconds\": %.4f, \"connections\": %ld, \"answered\": %ld, \"failed\": %ld}\n", t - begin, connections, done,
           failed);
}

/* Asks once on every connection that is open, opening those that never were when OPENING, at most 64 at a time. Closes
 * those that fail. Returns the answers. */
static unsigned ask_all(struct single *singles, unsigned connections, int opening) {
    unsigned begun = 0, pending = 0, done = 0;
    double last = now();
    while ((begun < connections || pending > 0) && now() - last < 5) {
        while (begun < connections && pending < 64) {
            struct single *s = &singles[begun];
            if (opening) {
                open_single(s, begun);
                pending += s->fd >= 0;
            } else if (s->fd >= 0) {
                if (ask_single(s, begun)) pending++;
                else close_single(s);
            }
            begun++;
        }
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poller, events, EVENTS, 20);
        for (int i = 0; i < n; i++) {
            unsigned number = events[i].data.u32;
            struct single *s = &singles[number];
            int outcome;
            if (s->asked) {
                outcome = take_single(s, number);
            } else if (opening && s->held == 0) {
                outcome = events[i].events & (EPOLLERR | EPOLLHUP) || !ask_single(s, number) ? -1 : 0;
            } else if (events[i].events & (EPOLLERR | EPOLLHUP | EPOLLIN)) {
                /* Closed by the server while it was idle. */
                close_single(s);
                continue;
            } else {
                continue;
            }
            if (!outcome) continue;
            last = now();
            pending--;
            done += outcome > 0;
            if (outcome < 0) close_single(s);
        }
    }
    return done;
}

static void idle(double seconds, unsigned connections) {
    struct single *singles = zeroed(connections, sizeof *singles);
    unsigned opened = ask_all(singles, connections, 1);
    fprintf(stderr, "holding\n");
    struct timespec rest = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&rest, NULL);
    unsigned after = ask_all(singles, connections, 0);
    printf("{\"opened\": %u, \"answered_after\": %u}\n", opened, after);
}

int main(int argc, char **argv) {
    const char *mode = argc > 4 ? argv[4] : "";
    int is_persistent = strcmp(mode, "persistent") == 0;
    if (argc != 6 + is_persistent || !(is_persistent || strcmp(mode, "connect") == 0 || strcmp(mode, "idle") == 0)) {
        fprintf(stderr, "usage: load_tcp PORT FILE SECONDS persistent CONNECTIONS WINDOW\n"
                        "       load_tcp PORT FILE SECONDS connect CONCURRENCY\n"
                        "       load_tcp PORT FILE SECONDS idle CONNECTIONS\n");
        return 2;
    }
    double seconds = atof(argv[3]);
    unsigned n = atoi(argv[5]);
    window = is_persistent ? atoi(argv[6]) : 1;
    if (n < 1 || window < 1 || window > 65535) {
        fprintf(stderr, "connections and queries in flight: at least 1, the latter at most 65,535\n");
        return 2;
    }
    read_queries(argv[2]);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < n + 16ul) {
        fprintf(stderr, "the limit of open files is too low: %lu\n", (unsigned long)files.rlim_cur);
        return 1;
    }
    poller = epoll_create1(0);
    if (poller < 0) fail("epoll_create1");
    if (is_persistent) persistent(seconds, n);
    else if (strcmp(mode, "connect") == 0) connect_each(seconds, n);
    else idle(seconds, n);
    return 0;
}
