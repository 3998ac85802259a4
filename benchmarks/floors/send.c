/* The floor of sending: sendmmsg(2) and nothing else, in C. Speaks the protocol of workers/send.py:
 *
 *   (at start)                                 -> {"port": P}
 *   buffer BYTES                               -> {"granted": BYTES}
 *   send PAYLOAD DESTINATIONS CALL COUNT TIMES -> {"lost": N, "ns": [NANOSECONDS, ...]}
 *
 * It ends with its standard input. Usage: send [gso]
 * With gso each header is a run of datagrams that the kernel cuts (UDP_SEGMENT).
 */
#include "floor.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#define MOST_COUNT 4096
#define MOST_DESTINATIONS 1024
#define MOST_BYTES 65507 /* of a run: a datagram over IPv4, until it is cut */
#define MOST_SEGMENTS 64 /* linux/udp.h, UDP_MAX_SEGMENTS; 128 since Linux 6.9 */

static struct mmsghdr headers[MOST_COUNT];
static struct iovec iovecs[MOST_COUNT];
static struct sockaddr_in targets[MOST_DESTINATIONS];
static int sinks[MOST_DESTINATIONS];

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Receives what came to the sinks; returns how many came from `port`. Others may still send to
 * whoever had a sink's port before. */
static int drain(int destinations, in_port_t port)
{
    static char data[65536];
    int got = 0;
    for (int i = 0; i < destinations; i++)
        for (;;) {
            struct sockaddr_in from;
            socklen_t size = sizeof from;
            if (recvfrom(sinks[i], data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from,
                         &size) < 0)
                break;
            got += from.sin_port == port;
        }
    return got;
}

/* Lays headers for payloads that lie one after another, `most` in a run. Headers end where calls
 * end. Returns how many there are. */
static int fill_in(char *payloads, int payload, int destinations, int call, int count, int most)
{
    int used = 0;
    for (int i = 0; i < count;) {
        int run = least(most, least(call - i % call, count - i));
        iovecs[used] = (struct iovec){payloads + (size_t)i * payload, (size_t)run * payload};
        headers[used].msg_hdr = (struct msghdr){
            .msg_name = &targets[i % destinations],
            .msg_namelen = sizeof *targets,
            .msg_iov = &iovecs[used],
            .msg_iovlen = 1,
        };
        used++;
        i += run;
    }
    return used;
}

/* Sends `used` headers, `vlen` a call. */
static void send_all(int sock, int used, int vlen)
{
    for (int done = 0; done < used;) {
        int sent = sendmmsg(sock, headers + done, (unsigned)least(vlen, used - done),
                            MSG_DONTWAIT);
        check(sent < 0 && errno != EINTR && errno != EAGAIN, "sendmmsg");
        done += sent > 0 ? sent : 0;
    }
}

int main(int argc, char **argv)
{
    int gso = argc > 1 && !strcmp(argv[1], "gso"), buffer = 0;
    struct sockaddr_in at;
    int sock = open_socket(&at);
    printf("{\"port\": %d}\n", ntohs(at.sin_port));
    fflush(stdout);

    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        int payload, destinations, call, count, times;
        if (sscanf(line, "buffer %d", &buffer) == 1) {
            struct sockaddr_in any;
            int probe = open_socket(&any);
            printf("{\"granted\": %d}\n", set_buffer(probe, buffer));
            close(probe);
        } else if (sscanf(line, "send %d %d %d %d %d", &payload, &destinations, &call, &count,
                          &times) == 5) {
            check(destinations > MOST_DESTINATIONS || count > MOST_COUNT, "too many");
            for (int i = 0; i < destinations; i++)
                set_buffer(sinks[i] = open_socket(&targets[i]), buffer);
            char *payloads = malloc((size_t)count * payload);
            check(!payloads, "memory");
            /* Zero pages would be one page in the cache. */
            memset(payloads, 'x', (size_t)count * payload);
            int most = gso ? least(MOST_SEGMENTS, MOST_BYTES / payload) : 1;
            if (gso)
                check(setsockopt(sock, IPPROTO_UDP, UDP_SEGMENT, &payload, sizeof payload),
                      "UDP_SEGMENT");
            int used = fill_in(payloads, payload, destinations, call, count, most);
            int vlen = (call + most - 1) / most, lost = 0;
            printf("{\"ns\": [");
            for (int turn = 0; turn < times; turn++) {
                int64_t start = now();
                send_all(sock, used, vlen);
                printf(turn ? ", %lld" : "%lld", (long long)(now() - start));
                lost += count - drain(destinations, at.sin_port);
            }
            printf("], \"lost\": %d}\n", lost);
            free(payloads);
            for (int i = 0; i < destinations; i++)
                close(sinks[i]);
        } else {
            fprintf(stderr, "unknown command: %s", line);
            return 1;
        }
        fflush(stdout);
    }
    return 0;
}
