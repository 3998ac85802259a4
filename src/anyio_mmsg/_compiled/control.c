/* Control data of received messages: what is read in C. The rest is decoded in Python, by
 * _system/control.py, and remembered there by its bytes.
 *
 * The kernel writes the timestamp first, so what differs from packet to packet stands before what
 * is mostly the same. The bytes lie in `Recvmmsg.control`, that object's own; a slot's are valid
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

#ifndef UDP_GRO
#define UDP_GRO 104 /* linux/udp.h */
#endif

/* asm-generic/socket.h, of which C libraries have only the one of their time type. */
#define TIMESTAMPNS_OLD 35
#define TIMESTAMPNS_NEW 64

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

static int
is_timestamp(const struct cmsghdr *message)
{
    return message->cmsg_level == SOL_SOCKET
           && (message->cmsg_type == TIMESTAMPNS_NEW || message->cmsg_type == TIMESTAMPNS_OLD);
}

/* Seconds and nanoseconds in nanoseconds. A kernel's fit into 64 bits until 2262; any others are a
 * number too, as in plain Python. */
static PyObject *
sum_of(int64_t seconds, int64_t rest)
{
    PyObject *numbers[3], *product, *sum = NULL;
    long long small;
    if (!__builtin_mul_overflow(seconds, 1000000000LL, &small)
        && !__builtin_add_overflow(small, rest, &small)) {
        return PyLong_FromLongLong(small);
    }
    numbers[0] = PyLong_FromLongLong(seconds);
    numbers[1] = PyLong_FromLongLong(1000000000LL);
    numbers[2] = PyLong_FromLongLong(rest);
    if (numbers[0] != NULL && numbers[1] != NULL && numbers[2] != NULL
        && (product = PyNumber_Multiply(numbers[0], numbers[1])) != NULL) {
        sum = PyNumber_Add(product, numbers[2]);
        Py_DECREF(product);
    }
    Py_XDECREF(numbers[0]);
    Py_XDECREF(numbers[1]);
    Py_XDECREF(numbers[2]);
    return sum;
}

/* Nanoseconds since the epoch: two numbers of 64 bits in the new form, two longs in the old. */
static PyObject *
nanoseconds(const struct cmsghdr *message)
{
    const unsigned char *data = CMSG_DATA(message);
    size_t size = bytes_in(message);
    if (size == 16) {
        int64_t parts[2];
        memcpy(parts, data, sizeof(parts));
        return sum_of(parts[0], parts[1]);
    }
    if (size == 8) {
        int32_t parts[2];
        memcpy(parts, data, sizeof(parts));
        return sum_of(parts[0], parts[1]);
    }
    Py_RETURN_NONE;
}

/* What some bytes are decoded to: a new reference, or NULL and an error. */
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
    struct cmsghdr *message = first_message(header);
    const char *start = header->msg_control;
    size_t length = message == NULL ? 0 : header->msg_controllen;
    PyObject *block, *value;
    if (header->msg_flags & MSG_CTRUNC) {
        PyErr_Format(PyExc_ValueError,
                     "the control data of this packet was cut: it had more than the %d bytes "
                     "there are; ask the socket for fewer options",
                     CONTROL_SIZE);
        return NULL;
    }
    if (message != NULL && is_whole(header, message) && is_timestamp(message)) {
        size_t stamp;
        if (which == TIMESTAMP) {
            return nanoseconds(message);
        }
        stamp = Py_MIN(CMSG_SPACE(bytes_in(message)), length);
        start += stamp;
        length -= stamp;
    }
    else if (which == TIMESTAMP) {
        Py_RETURN_NONE;
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
