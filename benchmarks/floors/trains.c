/* The floor of trains: recvmmsg(2), with or without UDP_GRO, in C; control messages are looked at
 * for the segment size, and nothing else. Speaks the line protocol of workers/trains.py.
 *
 * Usage: trains GRO
 */
#include "floor.h"
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#define VLEN 64
#define PAYLOAD 1232
#define SLOT 65535

static struct mmsghdr headers[VLEN];
static struct iovec iovecs[VLEN];
static struct sockaddr_storage names[VLEN];
static _Alignas(struct cmsghdr) char control[VLEN][CMSG_SPACE(sizeof(int))];

/* Sends `count` packets in trains. */
static void fill(int sender, int count, int train)
{
    static char data[SLOT];
    _Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(uint16_t))] = {0};
    for (int sent = 0; sent < count; sent += train) {
        int packets = train < count - sent ? train : count - sent;
        struct iovec part = {data, (size_t)packets * PAYLOAD};
        struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
        uint16_t segment = PAYLOAD;
        if (train > 1) {
            header.msg_control = space;
            header.msg_controllen = sizeof space;
            struct cmsghdr *message = CMSG_FIRSTHDR(&header);
            message->cmsg_level = IPPROTO_UDP;
            message->cmsg_type = UDP_SEGMENT;
            message->cmsg_len = CMSG_LEN(sizeof segment);
            memcpy(CMSG_DATA(message), &segment, sizeof segment);
        }
        check(sendmsg(sender, &header, 0) < 0, "sendmsg");
    }
}

static int packets_in(struct mmsghdr *header)
{
    struct cmsghdr *message = CMSG_FIRSTHDR(&header->msg_hdr);
    if (message && message->cmsg_level == IPPROTO_UDP && message->cmsg_type == UDP_GRO) {
        int segment;
        memcpy(&segment, CMSG_DATA(message), sizeof segment);
        return ((int)header->msg_len + segment - 1) / segment;
    }
    return 1;
}

static int take(int sock)
{
    int taken = 0, got;
    do {
        for (int i = 0; i < VLEN; i++) {
            headers[i].msg_hdr.msg_namelen = sizeof *names;
            headers[i].msg_hdr.msg_controllen = sizeof *control;
        }
        got = recvmmsg(sock, headers, VLEN, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++)
            taken += packets_in(&headers[i]);
    } while (got > 0 || errno == EINTR);
    return taken;
}

int main(int argc, char **argv)
{
    int on = argc > 1 && atoi(argv[1]);
    size_t slot = on ? SLOT : PAYLOAD;
    char *ring = calloc(VLEN, slot);
    check(!ring, "memory");
    for (int i = 0; i < VLEN; i++) {
        iovecs[i] = (struct iovec){ring + (size_t)i * slot, slot};
        headers[i].msg_hdr = (struct msghdr){
            .msg_name = &names[i], .msg_iov = &iovecs[i], .msg_iovlen = 1, .msg_control = control[i]};
    }
    struct sockaddr_in at;
    int sock = open_socket(&at), sender = socket(AF_INET, SOCK_DGRAM, 0);
    check(sender < 0, "socket");
    check(connect(sender, (struct sockaddr *)&at, sizeof at), "connect");
    if (on && setsockopt(sock, IPPROTO_UDP, UDP_GRO, &on, sizeof on)) {
        printf("{\"missing\": \"this kernel has no UDP_GRO\"}\n");
        return 0;
    }
    printf("{\"port\": %d}\n", ntohs(at.sin_port));
    fflush(stdout);

    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        int bytes, count, train, times;
        if (sscanf(line, "buffer %d", &bytes) == 1) {
            printf("{\"granted\": %d}\n", set_buffer(sock, bytes));
        } else if (sscanf(line, "drain %d %d %d", &count, &train, &times) == 3) {
            int lost = 0;
            for (int turn = 0; turn < times; turn++) {
                fill(sender, count, train);
                int64_t start = now();
                int taken = take(sock);
                printf(turn ? ", %lld" : "{\"ns\": [%lld", (long long)(now() - start));
                lost += count - taken;
            }
            printf("], \"lost\": %d}\n", lost);
        } else {
            fprintf(stderr, "unknown command: %s", line);
            return 1;
        }
        fflush(stdout);
    }
    return 0;
}
