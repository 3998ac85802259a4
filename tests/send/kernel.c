/* Stands before the C library's sendmmsg(2), for tests: by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

typedef int (*handler_type)(int, struct mmsghdr *, unsigned int, int);

static handler_type handler;

/* Have a function answer from now on: how many messages, or -errno. NULL: the system does. */
void
answer_by(handler_type function)
{
    handler = function;
}

int
real_sendmmsg(int fd, struct mmsghdr *headers, unsigned int count, int flags)
{
    handler_type real = (handler_type)dlsym(RTLD_NEXT, "sendmmsg");
    int sent = real(fd, headers, count, flags);
    return sent < 0 ? -errno : sent;
}

int
sendmmsg(int fd, struct mmsghdr *headers, unsigned int count, int flags)
{
    int answer = (handler ? handler : real_sendmmsg)(fd, headers, count, flags);
    if (answer < 0) {
        errno = -answer;
        return -1;
    }
    return answer;
}
