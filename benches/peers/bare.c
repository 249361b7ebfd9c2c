/* The least that can answer DNS over UDP: a batch is received, each query gets the rest of a prepared answer, the batch
 * is sent. What it costs is what the kernel costs, so it is the floor under every server that uses these calls.
 *
 *   bare ADDRESS PORT TEMPLATES
 *
 * TEMPLATES holds pairs of a query and an answer, each behind its length in two bytes. A query gets the answer whose
 * query is as long as it is; id and question stay as they came, flags, counts and everything behind the question are
 * the template's. Anything else is dropped.
 *
 * Batches, socket options, time-outs and the handling of local addresses are those of src/server/mmsg.rs and
 * src/server/udp.rs; keep them alike.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

enum { BATCH = 32, SLOT = 21 * 64, HEADER = 12 };

struct template {
    unsigned char bytes[SLOT];
    size_t length;
};

static struct template *by_query_length[SLOT + 1];
static size_t question_end;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static size_t read_message(FILE *file, unsigned char *out) {
    int high = getc(file), low = getc(file);
    if (low == EOF) return 0;
    size_t length = high << 8 | low;
    if (length < HEADER || length > SLOT || fread(out, 1, length, file) != length) {
        fprintf(stderr, "the file of templates is damaged\n");
        exit(1);
    }
    return length;
}

static void read_templates(const char *path) {
    static unsigned char query[SLOT];
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    for (size_t length; (length = read_message(file, query)) > 0;) {
        struct template *template = malloc(sizeof *template);
        template->length = read_message(file, template->bytes);
        by_query_length[length] = template;
        /* All templates are for one question. */
        size_t at = HEADER;
        while (at < length && query[at]) at += 1 + query[at];
        question_end = at + 5;
        if (question_end > length || question_end > template->length) {
            fprintf(stderr, "a template without its question\n");
            exit(1);
        }
    }
    fclose(file);
}

static void option(int fd, int level, int name, const void *value, socklen_t length) {
    if (setsockopt(fd, level, name, value, length)) fail("setsockopt");
}

static int bind_socket(const char *address, int port, int *wildcard) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP);
    if (fd < 0) fail("socket");
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address, &local.sin_addr) != 1) {
        fprintf(stderr, "%s is no IPv4 address\n", address);
        exit(1);
    }
    *wildcard = local.sin_addr.s_addr == htonl(INADDR_ANY);
    if (bind(fd, (struct sockaddr *)&local, sizeof local)) fail("bind");
    int yes = 1, room = 1 << 20, omit = IP_PMTUDISC_OMIT;
    struct timeval patience = {.tv_usec = 50000};
    option(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    option(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    option(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    option(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    option(fd, IPPROTO_IP, IP_MTU_DISCOVER, &omit, sizeof omit);
    if (*wildcard) option(fd, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: bare ADDRESS PORT TEMPLATES\n");
        return 2;
    }
    read_templates(argv[3]);
    int wildcard, fd = bind_socket(argv[1], atoi(argv[2]), &wildcard);

    static unsigned char slots[BATCH][SLOT] __attribute__((aligned(64)));
    static struct sockaddr_in6 peers[BATCH];
    static union {
        struct cmsghdr header;
        unsigned char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
    } controls[BATCH];
    static struct iovec in_at[BATCH], out_at[BATCH];
    static struct mmsghdr in[BATCH], out[BATCH];
    for (int i = 0; i < BATCH; i++) {
        in_at[i] = (struct iovec){slots[i], SLOT};
        in[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_iov = &in_at[i], .msg_iovlen = 1};
    }

    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            in[i].msg_hdr.msg_namelen = sizeof peers[i];
            in[i].msg_hdr.msg_control = wildcard ? &controls[i] : NULL;
            in[i].msg_hdr.msg_controllen = wildcard ? sizeof controls[i] : 0;
        }
        int received = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL), answers = 0;
        for (int i = 0; i < received; i++) {
            const struct template *template = in[i].msg_len <= SLOT ? by_query_length[in[i].msg_len] : NULL;
            if (!template) continue;
            memcpy(slots[i] + 2, template->bytes + 2, HEADER - 2);
            memcpy(slots[i] + question_end, template->bytes + question_end, template->length - question_end);
            out_at[answers] = (struct iovec){slots[i], template->length};
            out[answers].msg_hdr = in[i].msg_hdr;
            out[answers].msg_hdr.msg_iov = &out_at[answers];
            if (wildcard) {
                struct cmsghdr *control = CMSG_FIRSTHDR(&out[answers].msg_hdr);
                /* From the address that was asked, by whatever interface routing says. */
                if (control && control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO)
                    ((struct in_pktinfo *)CMSG_DATA(control))->ipi_ifindex = 0;
            }
            answers++;
        }
        for (int next = 0; next < answers;) {
            int sent = sendmmsg(fd, out + next, answers - next, 0);
            if (sent > 0) next += sent;
            else if (errno == EAGAIN) break;
            else if (errno != EINTR) next++; /* the error is this datagram's alone */
        }
    }
}
