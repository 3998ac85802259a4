/* What the files share that send; module.c has the map. */

#ifndef ANYIO_MMSG_SENDMMSG_H
#define ANYIO_MMSG_SENDMMSG_H

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* The kernel cuts a larger number of messages to this in silence (UIO_MAXIOV). It is also the
 * most iovecs of a message. */
#define MOST_MESSAGES 1024

/* What keeps alive what a packet's header points to. */
typedef struct {
    PyObject *data; /* owned: the bytes that are the payload, or NULL */
    PyObject *name; /* owned: the sockaddr, as bytes, or the Recvmmsg that has it; or NULL */
} Held;

/* Packets by runs: those of one run are one message, which the kernel or the device cuts. The
 * arrays lie behind it, in one piece of memory. */
typedef struct {
    Py_ssize_t room; /* messages that fit in */
    struct mmsghdr *headers;
    struct iovec *wholes; /* of a run that lies in one piece */
    char *controls;       /* with the size of segments, `control_size` bytes for each */
    size_t control_size;  /* a multiple of a cmsghdr's alignment */
    int *lengths;         /* in packets */
} Runs;

/* Memory for headers, which one send after another can use. */
typedef struct {
    char *headers;      /* owned: for `packets`, with their iovecs and `Held`; or NULL */
    Py_ssize_t packets; /* that fit in */
    Runs *runs;         /* owned: for segmentation offload, made when it is used; or NULL */
} Room;

/* Packets whose room is kept for the next send: 26 KB of it. Arbitrary: twice the usual batch. */
#define KEPT_ROOM 128

/* One send: headers for packets, and how many of them were handled. */
typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *failure;  /* the class of what is reported of a packet that was refused */
    PyObject *failures; /* owned: a list of those, or NULL; it stays when the send is over */
    Py_ssize_t count;   /* packets */
    Py_ssize_t handled; /* of them sent or refused */
    Room room;
    struct mmsghdr *headers; /* by packet, in `room`, as the next two; NULL: the send is over */
    struct iovec *iovecs;    /* by packet */
    Held *held;              /* by packet */
    Py_ssize_t laid;         /* packets that `held` was begun for */
    Py_buffer *buffers; /* exports of payloads that are not bytes, `exports` of `count`; or NULL */
    Py_ssize_t exports;
    Slots *slots;       /* the ring that is pinned, or NULL */
    PyObject *kept;     /* borrowed: the last Recvmmsg that `held` got */
    PyObject *controls; /* owned: control data, see sendcontrol.c; NULL: packets have none */
    int code;           /* what ended the send of a Shortcut */
    char gso;           /* whether to use that */
    char busy;          /* a thread is in the system call, or fills in headers */
    char reports;       /* whether the network's errors come by the socket's error queue */
    char refused;       /* whether the system refuses the call */
} Sendmmsg;

/* What is known of a socket that packets go out by. */
typedef struct {
    PyObject *sockaddrs; /* borrowed: a dict of them by address, which encodes what it lacks */
    int family;
    Py_ssize_t most;   /* bytes of a payload */
    char gso, reports; /* as in Sendmmsg */
} Course;

/* Sockets whose `Known` is found at once; a power of two. An entry is overwritten by the next socket
 * with its hash, so more sockets cost a look into a dict each. */
#define RECENT_SOCKETS 64

/* What is known of sockets. All objects are owned. */
typedef struct {
    PyObject *kind;       /* socket.socket: not a subclass, which may override methods */
    PyTypeObject *course; /* Known */
    PyObject *known;      /* a dict: `Known` by id of the socket, whose entry goes with it */
    PyObject *asked;      /* a dict: by id, sockets whose errors come by the error queue */
    PyObject *learn; /* makes the entry in `known` of a socket that can be used, or gives None */
    PyObject *fileno, *gettimeout;    /* functions of sockets */
    PyObject *recent[RECENT_SOCKETS]; /* those of `known` that were looked up last */
    Py_ssize_t sock, family, most, sockaddrs, reports, segmentation; /* as by slot_of_class */
} Courses;

/* courses.c: -1 and an error. */
int courses_make(Courses *self, PyObject *kind, PyObject *course, PyObject *known, PyObject *asked,
                 PyObject *learn);
int courses_traverse(Courses *self, visitproc visit, void *arg);
void courses_clear(Courses *self);
/* The `Known` of a socket of the kind, if it is nonblocking and can be used: a new reference. NULL,
 * perhaps with an error. */
PyObject *courses_known(Courses *self, PyObject *sock);
/* Read a `Known`, which keeps what `course` has: 1, or 0 if there is something else in it, or -1 and
 * an error. */
int courses_read(Courses *self, PyObject *known, PyObject *sock, Course *course);
/* The descriptor of a socket of the kind, -1 if it is closed; or -2 and an error. */
int courses_descriptor(Courses *self, PyObject *sock);

/* sendmmsg.c: a new send, of nothing yet. */
Sendmmsg *sendmmsg_new(State *state, PyObject *failure);
/* Begin a send by a new one, or by one that is over and that nobody else refers to. 0; 1 if packets
 * have options that `controls` does not have; -1 and an error. `data` is one payload for addresses,
 * or NULL; `controls` is for sendmmsg_lay_control. */
int sendmmsg_begin(Sendmmsg *self, PyObject *packets, const Course *course, PyObject *data,
                   PyObject *controls);
/* Send what there is room for; return what `Sender.send` does, or -1 and an error. */
int sendmmsg_run(Sendmmsg *self, int fd, int keep);
/* End a send: let go of all that it keeps. An error that is set stays. */
void sendmmsg_end(Sendmmsg *self);
void room_free(Room *room);
/* shortcut.c */
int shortcut_add_type(PyObject *module);

/* outgoing.c: fill in headers for all packets; -1 and an error if one of them can't be sent; 1 if
 * one has options, unless the control data of each is given. */
int sendmmsg_lay(Sendmmsg *self, PyObject *packets, PyObject *sockaddrs, int family,
                 Py_ssize_t most, PyObject *data, int each);

/* Bytes of a packet's control data that _send/ancillary.py gives, at most: where it comes from over
 * IPv6 (40), and two numbers (24 each): its ECN codepoint in the form of IPv6 and of IPv4, or that
 * and its hop limit in one form. */
#define MOST_CONTROL 88

/* Bytes of the control message that says the size of segments, a 16-bit number. */
#define SEGMENT_SPACE CMSG_SPACE(sizeof(uint16_t))

/* sendcontrol.c: have each header point to its packet's part of `controls`, or to none, if that
 * is None; -1 and an error if it is not what it has to be. */
int sendmmsg_lay_control(Sendmmsg *self, PyObject *controls);
/* Whether two packets have the same control data. */
int same_control(const Sendmmsg *self, Py_ssize_t one, Py_ssize_t other);

/* runs.c: have room for as many runs as one call takes; -1 and an error. */
int runs_make(Sendmmsg *self);
/* Have a header for each run of packets from the next one on; return how many. */
int runs_lay(Sendmmsg *self);

/* How often a packet is sent again after an error that may be another packet's. The next such error is
 * the packet's own. The first number is for errors that this machine's routes give too, the second for
 * errors that only the network reports. _send/sendto.py says why. */
#define MOST_STRUCK 4
#define MOST_REPORTED 256

/* struck.c: how many messages of `count` to send by one call, where errors may strike. */
int struck_count(const Sendmmsg *self, int fd, const struct mmsghdr *headers, int count);
/* sendmmsg(2) where errors may strike: what it returns, or -errno. Called without the GIL. */
int struck_send(int fd, struct mmsghdr *headers, int count);
/* Whether an error is the first that may be what the network reported of an earlier packet: from
 * here on `self->reports`. */
int struck_first(Sendmmsg *self, int fd, int code);

#endif
