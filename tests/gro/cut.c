/* A recvmmsg that says of every second message that its control data was cut, with nothing left.
 * The kernel cuts from the end, where no test can have it cut off a segment size. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

int
recvmmsg(int fd, struct mmsghdr *headers, unsigned int count, int flags, struct timespec *timeout)
{
    int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *) = 0;
    int i, got;
    *(void **)&real = dlsym(RTLD_NEXT, "recvmmsg");
    got = real(fd, headers, count, flags, timeout);
    for (i = 1; i < got; i += 2) {
        headers[i].msg_hdr.msg_flags |= MSG_CTRUNC;
        headers[i].msg_hdr.msg_controllen = 0;
    }
    return got;
}
