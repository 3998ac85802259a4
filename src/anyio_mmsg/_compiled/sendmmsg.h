/* What sendmmsg.c and outgoing.c share. */

#ifndef ANYIO_MMSG_SENDMMSG_H
#define ANYIO_MMSG_SENDMMSG_H

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* What keeps alive what a packet's header points to. */
typedef struct {
    PyObject *data; /* owned: the bytes that are the payload, or NULL */
    PyObject *name; /* owned: the bytes that are the sockaddr, or the Recvmmsg that has it; or NULL */
} Held;

typedef struct Runs Runs;

/* One send: headers for packets, and how many of them were handled. */
typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *failure;       /* the class of what is reported of a packet that was refused */
    Py_ssize_t count;        /* packets */
    Py_ssize_t handled;      /* of them sent or refused */
    struct mmsghdr *headers; /* by packet; first in the one piece of memory */
    struct iovec *iovecs;    /* by packet */
    Held *held;              /* by packet */
    Py_buffer *buffers;      /* exports of payloads that are not bytes, `exports` of `count`; or NULL */
    Py_ssize_t exports;
    Slots *slots;            /* the ring that is pinned, or NULL */
    PyObject *kept;          /* borrowed: the last Recvmmsg that `held` got */
    Runs *runs;              /* for segmentation offload, made when it is used */
    char gso;                /* whether to use that */
    char busy;               /* a thread is in the system call */
    char refused;            /* whether the system refuses the call */
} Sendmmsg;

/* outgoing.c: fill in headers for all packets; -1 and an error if one of them can't be sent. */
int sendmmsg_lay(Sendmmsg *self, PyObject *packets, PyObject *sockaddrs, int family,
                 Py_ssize_t most, PyObject *data);

#endif
