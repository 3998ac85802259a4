/* A preloaded stand-in for the C library's calls on datagram sockets, which now and then fail, do
 * less than asked, or lie, by a schedule that a seed makes. For test processes only.
 *
 * No packet is ever consumed by a call that reports an error, and none is sent: so what was really
 * handed over is what a caller was told, and every packet can be accounted for.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

static uint64_t state; /* 0: no faults */
static unsigned rate;  /* of 1000 calls, so many meet a fault */
static long faults;
static int told;       /* which lies are told */

enum { LIE_LENGTH = 1, LIE_NAME = 2, LIE_CONTROL = 4 };

void
shim_plan(uint64_t seed, unsigned thousandths, int lies)
{
    state = seed * 2654435761u + 88172645463325252u;
    rate = thousandths;
    told = lies;
    if (thousandths == 0) {
        state = 0;
    }
}

long
shim_faults(void)
{
    return faults;
}

static unsigned
dice(unsigned sides)
{
    state ^= state << 13; /* xorshift64 */
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state >> 11) % sides);
}

static int
strikes(void)
{
    if (state == 0 || dice(1000) >= rate) {
        return 0;
    }
    faults++;
    return 1;
}

static int
fail(const int *codes, unsigned count)
{
    errno = codes[dice(count)];
    return -1;
}

static const int RECEIVE[] = {EINTR, EINTR,        EAGAIN, ENOBUFS, ENOMEM,
                              ENOMEM, ECONNREFUSED, EPERM,  EHOSTUNREACH};
static const int SEND[] = {EINTR, EINTR, EAGAIN, EAGAIN, ENOBUFS, ENOMEM, ECONNREFUSED, EPERM};
#define COUNT(list) (sizeof(list) / sizeof(*(list)))

/* Tell of a message what is not so. */
static void
lie(struct msghdr *header, unsigned *length)
{
    if (told & LIE_LENGTH && length != NULL && dice(3) == 0) {
        static const unsigned beyond[] = {100, 65535, 70000, 0x7fffffff, 0xffffffff};
        *length = *length > 40 ? beyond[dice(5)] : *length;
    }
    if (told & LIE_NAME && header->msg_name != NULL && dice(2) == 0) {
        static const unsigned odd[] = {0, 1, 2, 3, 7, 129, 4096, 0xffffffff};
        header->msg_namelen = odd[dice(8)];
    }
    if (told & LIE_CONTROL && header->msg_control != NULL && dice(2) == 0) {
        static const unsigned cut[] = {0, 1, 7, 15, 16, 17, 23, 31, 100};
        unsigned less = cut[dice(9)];
        header->msg_controllen = less < header->msg_controllen ? less : header->msg_controllen;
        header->msg_flags |= MSG_CTRUNC;
    }
    else if (told & LIE_CONTROL && header->msg_control != NULL
             && header->msg_controllen >= sizeof(struct cmsghdr) && dice(2)) {
        struct cmsghdr *first = header->msg_control;
        static const size_t lengths[] = {0, 1, 15, 16, 17, 24, 200, 5000, (size_t)-1};
        first->cmsg_len = lengths[dice(9)];
        first->cmsg_level += (int)dice(2);
        first->cmsg_type += (int)dice(3);
    }
}

int
recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    static int (*real)(int, struct mmsghdr *, unsigned, int, struct timespec *);
    int got, i;
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "recvmmsg");
    }
    if (!strikes()) {
        return real(fd, messages, count, flags, timeout);
    }
    if (dice(3) == 0) {
        return fail(RECEIVE, COUNT(RECEIVE));
    }
    got = real(fd, messages, 1 + dice(count), flags, timeout);
    for (i = 0; i < got; i++) {
        if (dice(2)) {
            lie(&messages[i].msg_hdr, &messages[i].msg_len);
        }
    }
    return got;
}

ssize_t
recvfrom(int fd, void *buffer, size_t size, int flags, struct sockaddr *name, socklen_t *length)
{
    static ssize_t (*real)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "recvfrom");
    }
    if (strikes()) {
        if (dice(2)) {
            return fail(RECEIVE, COUNT(RECEIVE));
        }
        ssize_t got = real(fd, buffer, size, flags, name, length);
        if (got > 40 && told & LIE_LENGTH) {
            got += dice(100000); /* never less: the rest would be lost */
        }
        if (got >= 0 && told & LIE_NAME && length != NULL) {
            *length = 0;
        }
        return got;
    }
    return real(fd, buffer, size, flags, name, length);
}

ssize_t
recvmsg(int fd, struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, struct msghdr *, int);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "recvmsg");
    }
    if (strikes()) {
        unsigned length = 0;
        ssize_t got;
        if (dice(2)) {
            return fail(RECEIVE, COUNT(RECEIVE));
        }
        got = real(fd, message, flags);
        if (got >= 0) {
            length = (unsigned)got;
            lie(message, &length);
            got += length > got && length <= 0x7fffffff ? (ssize_t)length - got : 0;
        }
        return got;
    }
    return real(fd, message, flags);
}

int
sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    static int (*real)(int, struct mmsghdr *, unsigned, int);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "sendmmsg");
    }
    if (count > 0 && strikes()) { /* none is a question whether the call is allowed */
        return dice(2) ? fail(SEND, COUNT(SEND)) : real(fd, messages, 1 + dice(count), flags);
    }
    return real(fd, messages, count, flags);
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "sendmsg");
    }
    return strikes() ? fail(SEND, COUNT(SEND)) : real(fd, message, flags);
}

ssize_t
sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *name,
       socklen_t length)
{
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "sendto");
    }
    return strikes() ? fail(SEND, COUNT(SEND)) : real(fd, data, size, flags, name, length);
}
