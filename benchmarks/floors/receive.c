/* The floor: recvmmsg(2) and nothing else, in C. Speaks the line protocol of workers/receive.py:
 *
 *   (at start)                                     -> {"port": P}
 *   buffer BYTES                                   -> {"granted": BYTES}
 *   drain COUNT PAYLOAD PAYLOAD 1 received TIMES   -> {"queued": N, "lost": N, "ns": [N, ...]}
 *
 * It ends with its standard input. Usage: receive VLEN
 */
#include "floor.h"

#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#define SLOT 1232
#define DEADLINE 5000000000LL /* nanoseconds; a drain takes milliseconds */

static unsigned drops(int sock)
{
    uint32_t info[9] = {0};
    socklen_t size = sizeof info;
    getsockopt(sock, SOL_SOCKET, SO_MEMINFO, info, &size);
    return info[8];
}

/* Sends `count` datagrams; returns how many fit into the receiver's buffer. */
static int fill(int sender, int receiver, int count, int payload)
{
    static char data[65536];
    unsigned before = drops(receiver);
    for (int i = 0; i < count; i++)
        check(send(sender, data, (size_t)payload, 0) < 0, "send");
    return count - (int)(drops(receiver) - before);
}

int main(int argc, char **argv)
{
    unsigned vlen = argc > 1 ? (unsigned)atoi(argv[1]) : 64;
    struct mmsghdr *headers = calloc(vlen, sizeof *headers);
    struct iovec *iovecs = calloc(vlen, sizeof *iovecs);
    struct sockaddr_storage *names = calloc(vlen, sizeof *names);
    char *ring = malloc((size_t)vlen * SLOT);
    check(!vlen || !headers || !iovecs || !names || !ring, "memory");
    memset(ring, 0, (size_t)vlen * SLOT);
    for (unsigned i = 0; i < vlen; i++) {
        iovecs[i] = (struct iovec){ring + (size_t)i * SLOT, SLOT};
        headers[i].msg_hdr.msg_name = &names[i];
        headers[i].msg_hdr.msg_iov = &iovecs[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }

    struct sockaddr_in at;
    int sock = open_socket(&at), sender = socket(AF_INET, SOCK_DGRAM, 0);
    check(sender < 0, "socket");
    check(connect(sender, (struct sockaddr *)&at, sizeof at), "connect");
    printf("{\"port\": %d}\n", ntohs(at.sin_port));
    fflush(stdout);

    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        int bytes, count, payload, times;
        if (sscanf(line, "buffer %d", &bytes) == 1) {
            printf("{\"granted\": %d}\n", set_buffer(sock, bytes));
        } else if (sscanf(line, "drain %d %d %*d 1 received %d", &count, &payload, &times) == 3) {
            int fewest = count, lost = 0;
            for (int turn = 0; turn < times; turn++) {
                int queued = fill(sender, sock, count, payload), received = 0;
                int64_t start = now();
                while (received < queued) {
                    for (unsigned i = 0; i < vlen; i++)
                        headers[i].msg_hdr.msg_namelen = sizeof *names;
                    int got = recvmmsg(sock, headers, vlen, MSG_DONTWAIT, NULL);
                    if (got > 0)
                        received += got;
                    else if (errno != EAGAIN && errno != EINTR)
                        check(1, "recvmmsg");
                    else if (now() - start > DEADLINE)
                        break;
                }
                printf(turn ? ", %lld" : "{\"ns\": [%lld", (long long)(now() - start));
                fewest = queued < fewest ? queued : fewest;
                lost += queued - received;
            }
            printf("], \"queued\": %d, \"lost\": %d}\n", fewest, lost);
        } else {
            fprintf(stderr, "unknown command: %s", line);
            return 1;
        }
        fflush(stdout);
    }
    return 0;
}
