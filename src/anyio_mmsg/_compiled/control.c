/* Control data of received messages, decoded when somebody asks: the twin of _system/control.py and
 * _system/stamps.py. The bytes lie in `Recvmmsg.control`, which that object owns; a slot's bytes are
 * valid until the slot is filled again. Nothing here runs Python.
 */

#include "compiled.h"

PyObject *
slots_timestamps(Slots *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = slots_column(self, NULL, 0, PACKETS);
    Py_ssize_t i;
    for (i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *packet = PyList_GET_ITEM(list, i); /* the list is nobody else's */
        PyObject *timestamp = PyObject_GetAttrString(packet, "timestamp");
        if (timestamp == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, i, timestamp);
            Py_DECREF(packet);
        }
    }
    return list;
}

#ifdef __linux__

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104 /* linux/udp.h */
#endif

/* asm-generic/socket.h, of which C libraries have only the ones of their time type. See
 * _system/stamps.py. */
#define TIMESTAMP_OLD 29
#define TIMESTAMPNS_OLD 35
#define TIMESTAMPING_OLD 37
#define TIMESTAMPING_PKTINFO 58
#define TIMESTAMP_NEW 63
#define TIMESTAMPNS_NEW 64
#define TIMESTAMPING_NEW 65

/* linux/in.h and in6.h, of which not each C library has all. */
#define TOS 1
#define TTL 2
#define PKTINFO 8
#define PKTINFO6 50
#define HOPLIMIT6 52
#define TCLASS6 67

static const struct msghdr *
header_of(const Recvmmsg *self, Py_ssize_t slot)
{
    return &((const struct mmsghdr *)self->headers)[slot].msg_hdr;
}

/* The message that begins at an offset, if all of it lies before the end of what the kernel wrote;
 * or NULL. */
static const struct cmsghdr *
message_at(const struct msghdr *header, size_t at)
{
    const struct cmsghdr *message = (const void *)((const char *)header->msg_control + at);
    size_t left = at > header->msg_controllen ? 0 : header->msg_controllen - at;
    if (left < sizeof(*message) || message->cmsg_len < CMSG_LEN(0) || message->cmsg_len > left) {
        return NULL;
    }
    return message;
}

/* The first message, or NULL. An odd msg_controllen can't lead beyond the buffer, since it is
 * compared with what was armed. */
static const struct cmsghdr *
first_message(const struct msghdr *header)
{
    if (header->msg_control == NULL || header->msg_controllen > CONTROL_SIZE) {
        return NULL;
    }
    return message_at(header, 0);
}

/* The next message, or NULL: unlike CMSG_NXTHDR of some C libraries also one that ends without
 * what would fill up its last word. */
static const struct cmsghdr *
next_message(const struct msghdr *header, const struct cmsghdr *message)
{
    size_t at = (size_t)((const char *)message - (const char *)header->msg_control);
    return message_at(header, at + CMSG_ALIGN(message->cmsg_len));
}

static size_t
bytes_in(const struct cmsghdr *message)
{
    return message->cmsg_len - CMSG_LEN(0);
}

void
control_close_files(const Recvmmsg *self, int fd, Py_ssize_t first, Py_ssize_t count)
{
    Py_ssize_t slot;
    for (slot = first; slot < first + count; slot++) {
        const struct msghdr *header = header_of(self, slot);
        const struct cmsghdr *message;
        for (message = first_message(header); message != NULL;
             message = next_message(header, message)) {
            size_t at;
            int file, family = 0;
            socklen_t size = sizeof(family);
            if (message->cmsg_level != SOL_SOCKET || message->cmsg_type != SCM_RIGHTS
                || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0
                || family != AF_UNIX) {
                continue;
            }
            for (at = 0; at + sizeof(file) <= bytes_in(message); at += sizeof(file)) {
                memcpy(&file, CMSG_DATA(message) + at, sizeof(file));
                close(file);
            }
        }
    }
}

int
control_segment(const Recvmmsg *self, Py_ssize_t slot)
{
    const struct msghdr *header = header_of(self, slot);
    const struct cmsghdr *message;
    int lost = (header->msg_flags & MSG_CTRUNC) != 0;
    for (message = first_message(header); message != NULL;
         message = next_message(header, message)) {
        if (message->cmsg_level == IPPROTO_UDP && message->cmsg_type == UDP_GRO
            && bytes_in(message) >= sizeof(int)) {
            int size;
            memcpy(&size, CMSG_DATA(message), sizeof(size));
            return size > 0 && size <= 65535 ? size : 0;
        }
        if (message->cmsg_level == IPPROTO_IP || message->cmsg_level == IPPROTO_IPV6) {
            lost = 0; /* as in `segment_of`: the segment size would stand before it */
        }
    }
    return lost ? -1 : 0;
}

/* What control data says about when the packet came; NULL: nothing. */
typedef struct {
    const struct cmsghdr *arrival; /* seconds and a rest */
    long long scale;               /* nanoseconds in a unit of the rest */
    const struct cmsghdr *three;   /* of SO_TIMESTAMPING: by the kernel, unused, by the card */
} Stamps;

static Stamps
stamps_in(const struct msghdr *header)
{
    Stamps stamps = {NULL, 1, NULL};
    const struct cmsghdr *message = first_message(header);
    for (; message != NULL && message->cmsg_level == SOL_SOCKET;
         message = next_message(header, message)) {
        size_t size = bytes_in(message);
        int type = message->cmsg_type;
        if (type == TIMESTAMPNS_NEW || type == TIMESTAMPNS_OLD || type == TIMESTAMP_NEW
            || type == TIMESTAMP_OLD) {
            if (stamps.arrival == NULL && (size == 16 || size == 8)) {
                stamps.arrival = message;
                stamps.scale = type == TIMESTAMPNS_NEW || type == TIMESTAMPNS_OLD ? 1 : 1000;
            }
        }
        else if (type == TIMESTAMPING_NEW || type == TIMESTAMPING_OLD) {
            if (stamps.three == NULL && (size == 48 || size == 24)) {
                stamps.three = message;
            }
        }
        else if (type != TIMESTAMPING_PKTINFO) {
            break;
        }
    }
    return stamps;
}

/* A number times another: a new reference. */
static PyObject *
times(long long number, long long factor)
{
    PyObject *one = PyLong_FromLongLong(number), *other = PyLong_FromLongLong(factor);
    PyObject *product = one == NULL || other == NULL ? NULL : PyNumber_Multiply(one, other);
    Py_XDECREF(one);
    Py_XDECREF(other);
    return product;
}

/* Seconds and a rest in nanoseconds. A kernel's fit into 64 bits until 2262; any others are a
 * number too, as in plain Python. */
static PyObject *
sum_of(int64_t seconds, int64_t rest, long long scale)
{
    PyObject *whole, *part, *sum = NULL;
    long long large, small;
    if (!__builtin_mul_overflow(seconds, 1000000000LL, &large)
        && !__builtin_mul_overflow(rest, scale, &small)
        && !__builtin_add_overflow(large, small, &large)) {
        return PyLong_FromLongLong(large);
    }
    whole = times(seconds, 1000000000LL);
    part = times(rest, scale);
    if (whole != NULL && part != NULL) {
        sum = PyNumber_Add(whole, part);
    }
    Py_XDECREF(whole);
    Py_XDECREF(part);
    return sum;
}

/* Stamp `which` of a message that has `count`: two numbers of 64 bits each in the new form, two
 * longs in the old. With several, zeros stand for none. */
static PyObject *
nanoseconds(const struct cmsghdr *message, size_t count, size_t which, long long scale)
{
    const unsigned char *data = CMSG_DATA(message);
    int64_t wide[2];
    if (bytes_in(message) == 16 * count) {
        memcpy(wide, data + 16 * which, sizeof(wide));
    }
    else {
        int32_t parts[2];
        memcpy(parts, data + 8 * which, sizeof(parts));
        wide[0] = parts[0];
        wide[1] = parts[1];
    }
    if (count > 1 && wide[0] == 0 && wide[1] == 0) {
        Py_RETURN_NONE;
    }
    return sum_of(wide[0], wide[1], scale);
}

/* What control data says, except stamps; see `Control` in _packets/packet.py. */
typedef struct {
    const unsigned char *destination, *local; /* into the control data; NULL: it does not say */
    size_t destination_size, local_size;      /* 4 or 16 */
    int64_t interface;                        /* 0 if `knows_interface` is not set */
    int ecn, hop_limit;
    char knows_interface, knows_ecn, knows_hop_limit;
} Said;

/* A number that comes as 1 byte or as an int; returns whether there is one. */
static char
number_in(const struct cmsghdr *message, int *number)
{
    const unsigned char *data = CMSG_DATA((struct cmsghdr *)message);
    size_t size = bytes_in(message);
    if (size >= sizeof(*number)) {
        memcpy(number, data, sizeof(*number));
    }
    else if (size > 0) {
        *number = data[0];
    }
    return size > 0;
}

/* As `decode` in _system/control.py, with its rules for a dual-stack socket, which says both. */
static Said
said_in(const struct msghdr *header)
{
    Said said;
    const struct cmsghdr *message;
    memset(&said, 0, sizeof(said));
    for (message = first_message(header); message != NULL;
         message = next_message(header, message)) {
        const unsigned char *data = CMSG_DATA((struct cmsghdr *)message);
        size_t size = bytes_in(message);
        int is_ipv4 = message->cmsg_level == IPPROTO_IP, type = message->cmsg_type;
        if (!is_ipv4 && message->cmsg_level != IPPROTO_IPV6) {
            continue;
        }
        if (is_ipv4 && type == PKTINFO && size >= 12) {
            int32_t index;
            memcpy(&index, data, sizeof(index));
            said.interface = said.interface != 0 ? said.interface : index;
            said.knows_interface = 1;
            said.local = data + 4;
            said.local_size = 4;
            if (said.destination == NULL) {
                said.destination = data + 8;
                said.destination_size = 4;
            }
        }
        else if (!is_ipv4 && type == PKTINFO6 && size >= 20) {
            uint32_t index;
            memcpy(&index, data + 16, sizeof(index));
            said.interface = index;
            said.knows_interface = 1;
            said.destination = data;
            said.destination_size = 16;
            if (said.local == NULL) {
                said.local = data;
                said.local_size = 16;
            }
        }
        else if (type == (is_ipv4 ? TOS : TCLASS6)) {
            said.knows_ecn = number_in(message, &said.ecn);
        }
        else if (type == (is_ipv4 ? TTL : HOPLIMIT6)) {
            said.knows_hop_limit = number_in(message, &said.hop_limit);
        }
    }
    return said;
}

/* The text of a host: a new reference, None for NULL. */
static PyObject *
host_of(Recvmmsg *self, const unsigned char *raw, size_t size)
{
    if (raw == NULL) {
        Py_RETURN_NONE;
    }
    if (self->host == NULL || self->host_size != size || memcmp(self->host_key, raw, size) != 0) {
        PyObject *host = inet_host(raw, size);
        if (host == NULL) {
            return NULL;
        }
        memcpy(self->host_key, raw, size);
        self->host_size = size;
        Py_XSETREF(self->host, host); /* a str: no Python runs */
    }
    return Py_NewRef(self->host);
}

static PyObject *
number_or_none(char is_known, int64_t number)
{
    if (!is_known) {
        Py_RETURN_NONE;
    }
    return PyLong_FromLongLong(number);
}

PyObject *
control_attribute(Recvmmsg *self, Py_ssize_t slot, enum control which)
{
    const struct msghdr *header = header_of(self, slot);
    Stamps stamps;
    Said said;
    if (header->msg_flags & MSG_CTRUNC) {
        PyErr_Format(PyExc_ValueError,
                     "the control data of this packet was cut: it had more than the %d bytes "
                     "there are; ask the socket for fewer options",
                     CONTROL_SIZE);
        return NULL;
    }
    if (which == TIMESTAMP || which == HARDWARE_TIMESTAMP) {
        stamps = stamps_in(header);
        if (which == TIMESTAMP && stamps.arrival != NULL) {
            return nanoseconds(stamps.arrival, 1, 0, stamps.scale);
        }
        if (stamps.three == NULL) {
            Py_RETURN_NONE;
        }
        return nanoseconds(stamps.three, 3, which == TIMESTAMP ? 0 : 2, 1);
    }
    said = said_in(header);
    switch (which) {
    case DESTINATION:
        return host_of(self, said.destination, said.destination_size);
    case INTERFACE:
        return number_or_none(said.knows_interface, said.interface);
    case ECN:
        return number_or_none(said.knows_ecn, said.ecn & 3);
    case HOP_LIMIT:
        return number_or_none(said.knows_hop_limit, said.hop_limit);
    default:
        return host_of(self, said.local, said.local_size);
    }
}

#endif
