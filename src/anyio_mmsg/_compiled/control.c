/* Control data of received messages: the part that is read in C. The rest is decoded in Python, by
 * _system/control.py, and remembered there by its bytes.
 *
 * The kernel writes timestamps, which differ from packet to packet, before the data that is mostly
 * the same. The bytes lie in `Recvmmsg.control`, which that object owns; a slot's bytes are valid
 * until the slot is filled again.
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

static const struct msghdr *
header_of(const Recvmmsg *self, Py_ssize_t slot)
{
    return &((const struct mmsghdr *)self->headers)[slot].msg_hdr;
}

/* The first message, or NULL. CMSG_FIRSTHDR looks at msg_controllen, what the kernel wrote; an
 * odd one can't lead beyond the buffer, since it is compared with what was armed. */
static struct cmsghdr *
first_message(const struct msghdr *header)
{
    if (header->msg_control == NULL || header->msg_controllen > CONTROL_SIZE) {
        return NULL;
    }
    return CMSG_FIRSTHDR(header);
}

static size_t
bytes_in(const struct cmsghdr *message)
{
    return message->cmsg_len < CMSG_LEN(0) ? 0 : message->cmsg_len - CMSG_LEN(0);
}

/* Whether all of a message lies before the end of what the kernel wrote. */
static int
is_whole(const struct msghdr *header, const struct cmsghdr *message)
{
    size_t at = (size_t)((const char *)message - (const char *)header->msg_control);
    return message->cmsg_len >= CMSG_LEN(0) && message->cmsg_len <= header->msg_controllen - at;
}

void
control_close_files(const Recvmmsg *self, int fd, Py_ssize_t first, Py_ssize_t count)
{
    Py_ssize_t slot;
    for (slot = first; slot < first + count; slot++) {
        const struct msghdr *header = header_of(self, slot);
        struct cmsghdr *message;
        for (message = first_message(header); message != NULL && is_whole(header, message);
             message = CMSG_NXTHDR((struct msghdr *)header, message)) {
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
    struct cmsghdr *message;
    int lost = (header->msg_flags & MSG_CTRUNC) != 0;
    for (message = first_message(header); message != NULL && is_whole(header, message);
         message = CMSG_NXTHDR((struct msghdr *)header, message)) {
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
    size_t length;                 /* bytes of all of these, with what fills them up */
} Stamps;

static Stamps
stamps_in(const struct msghdr *header)
{
    Stamps stamps = {NULL, 1, NULL, 0};
    struct cmsghdr *message = first_message(header);
    for (; message != NULL && is_whole(header, message) && message->cmsg_level == SOL_SOCKET;
         message = CMSG_NXTHDR((struct msghdr *)header, message)) {
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
        stamps.length = Py_MIN(stamps.length + CMSG_SPACE(size), header->msg_controllen);
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

/* Some bytes, decoded: a new reference, or NULL and an error. */
static PyObject *
block_of(Recvmmsg *self, const char *start, size_t length)
{
    unsigned char copy[CONTROL_SIZE]; /* decoding may run Python, which may fill the slot again */
    PyObject *key, *block;
    if (self->block != NULL && self->block_size == length
        && memcmp(self->block_key, start, length) == 0) {
        return Py_NewRef(self->block);
    }
    memcpy(copy, start, length);
    key = PyBytes_FromStringAndSize((const char *)copy, (Py_ssize_t)length);
    if (key == NULL) {
        return NULL;
    }
    block = PyObject_GetItem(self->controls, key);
    Py_DECREF(key);
    if (block != NULL) {
        memcpy(self->block_key, copy, length);
        self->block_size = length;
        Py_XSETREF(self->block, Py_NewRef(block)); /* a tuple of str and int: no Python runs */
    }
    return block;
}

PyObject *
control_attribute(Recvmmsg *self, Py_ssize_t slot, enum control which)
{
    const struct msghdr *header = header_of(self, slot);
    Stamps stamps = stamps_in(header);
    const char *start = (const char *)header->msg_control + stamps.length;
    size_t length = first_message(header) == NULL ? 0 : header->msg_controllen - stamps.length;
    PyObject *block, *value;
    if (header->msg_flags & MSG_CTRUNC) {
        PyErr_Format(PyExc_ValueError,
                     "the control data of this packet was cut: it had more than the %d bytes "
                     "there are; ask the socket for fewer options",
                     CONTROL_SIZE);
        return NULL;
    }
    if (which == TIMESTAMP && stamps.arrival != NULL) {
        return nanoseconds(stamps.arrival, 1, 0, stamps.scale);
    }
    if (which == TIMESTAMP || which == HARDWARE_TIMESTAMP) {
        if (stamps.three == NULL) {
            Py_RETURN_NONE;
        }
        return nanoseconds(stamps.three, 3, which == TIMESTAMP ? 0 : 2, 1);
    }
    block = block_of(self, start, length);
    if (block == NULL) {
        return NULL;
    }
    value = PySequence_GetItem(block, which);
    Py_DECREF(block);
    return value;
}

#endif
