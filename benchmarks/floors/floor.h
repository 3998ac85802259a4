/* What the floors share. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void check(int failed, const char *what)
{
    if (failed) {
        perror(what);
        exit(1);
    }
}

/* Opens a socket that is bound to a free port of the loopback interface; reports its address. */
static int open_socket(struct sockaddr_in *at)
{
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t size = sizeof *at;
    check(sock < 0, "socket");
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(bind(sock, (struct sockaddr *)at, size), "bind");
    check(getsockname(sock, (struct sockaddr *)at, &size), "getsockname");
    return sock;
}

/* As set_buffer of udp.py. */
static int set_buffer(int sock, int bytes)
{
    int granted;
    socklen_t size = sizeof granted;
    if (setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes))
        setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    check(getsockopt(sock, SOL_SOCKET, SO_RCVBUF, &granted, &size), "SO_RCVBUF");
    return granted;
}
