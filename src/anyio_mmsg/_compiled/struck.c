/* Sends that are struck by the error of an earlier packet. On a socket whose errors come by its
 * error queue (IP_RECVERR), the kernel also leaves the last error with the socket, and reports it
 * instead of sending the next packet. The twin is in _send/sendto.py.
 */

#include "compiled.h"

#ifdef __linux__

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "sendmmsg.h"

/* Options of linux/in.h and in6.h; not each C library has them. */
#define RECVERR 11
#define MTU_DISCOVER 10
#define RECVERR6 25
#define MTU_DISCOVER6 23
#define DONT_FRAGMENT6 62
#define ALWAYS 2 /* IP_PMTUDISC_DO and IPV6_PMTUDISC_DO; PROBE is one more */
#define PROBE 3

/* Bytes of a payload that every path takes: 552, the least path MTU that Linux believes in
 * (net.ipv4.route.min_pmtu), less 28 for the headers of IPv4 and UDP, rounded down. */
#define FITS_EACH_PATH 512

static int
option_of(int fd, int level, int option)
{
    int value = 0;
    socklen_t size = sizeof(value);
    return getsockopt(fd, level, option, &value, &size) == 0 ? value : 0;
}

/* Whether a packet that is too long for its path is refused here, instead of sent in fragments. */
static int
refuses_long(int fd)
{
    int discover = option_of(fd, IPPROTO_IP, MTU_DISCOVER);
    int discover6 = option_of(fd, IPPROTO_IPV6, MTU_DISCOVER6);
    return discover == ALWAYS || discover == PROBE || discover6 == ALWAYS || discover6 == PROBE
           || option_of(fd, IPPROTO_IPV6, DONT_FRAGMENT6);
}

/* How many messages of `count`, which is at least 1, to send by one call, so that a packet that
 * may be too long is alone: in the middle of others its error would be lost, and the kernel would
 * queue a second report of it when it is sent again. */
static int
until_long(const Sendmmsg *self, const struct mmsghdr *headers, int count)
{
    int i;
    for (i = 0; i < count; i++) {
        int is_run = self->gso && self->room.runs->lengths[i] > 1; /* as long as many */
        if (!is_run && headers[i].msg_hdr.msg_iov->iov_len > FITS_EACH_PATH) {
            return Py_MAX(i, 1);
        }
    }
    return count;
}

int
struck_count(const Sendmmsg *self, int fd, const struct mmsghdr *headers, int count)
{
    return count > 1 && refuses_long(fd) ? until_long(self, headers, count) : count;
}

/* How often a packet is sent again after an error, as it may be another's; 0: it is its own. EMSGSIZE is
 * the packet's own, as what was pending before the call was taken away. */
static int
most_of(int code)
{
    switch (code) { /* Linux's icmp_err_convert and icmpv6_err_convert */
    case EACCES:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return MOST_STRUCK;
    case ECONNREFUSED:
    case EHOSTDOWN:
    case ENONET:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case EPROTO:
        return MOST_REPORTED;
    default:
        return 0;
    }
}

/* All is done without the GIL. To take it before a packet is sent again would put this thread in step
 * with one that sends by the same socket: that lets go of the GIL for the call that brings the next
 * error, and every second packet that was struck would be struck again. */
int
struck_send(int fd, struct mmsghdr *headers, int count)
{
    int reported = 0, doubtful = 0;
    for (;;) {
        int sent, most, *times;
        /* Take away an error that is pending, which would strike; its entry stays in the queue. */
        (void)option_of(fd, SOL_SOCKET, SO_ERROR);
        sent = sendmmsg(fd, headers, (unsigned int)count, MSG_DONTWAIT);
        if (sent >= 0) {
            return sent;
        }
        most = most_of(errno);
        times = most == MOST_STRUCK ? &doubtful : &reported;
        if ((*times)++ >= most) {
            return -errno;
        }
    }
}

int
struck_first(Sendmmsg *self, int fd, int code)
{
    if (self->reports || (most_of(code) == 0 && code != EMSGSIZE)) {
        return 0;
    }
    self->reports = option_of(fd, IPPROTO_IP, RECVERR) || option_of(fd, IPPROTO_IPV6, RECVERR6);
    return self->reports && code != EMSGSIZE;
}

#endif
