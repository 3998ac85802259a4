/* Recvmmsg: fills slots by recvmmsg(2), the twin of _receive/recvfrom_into.py.
 *
 * Headers are built once. The memory that they point to stays alive as long as this object. The
 * iovecs point into the ring's memory, of which this object holds an export, so it can neither
 * move nor shrink; the names, the iovecs and the headers themselves are this object's own. The
 * caller of `fill` holds a reference to it during the system call. The kernel keeps no pointer.
 *
 * The call, errno, the lengths and the move of `tail` are one C function: no bytecode ends in
 * between, so no signal handler runs there.
 */

#include "compiled.h"

#ifdef __linux__

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* The kernel cuts a larger number of messages to this in silence (UIO_MAXIOV). */
#define MOST_MESSAGES 1024

/* No waiting, and msg_len reports the length as sent. */
#define FLAGS (MSG_DONTWAIT | MSG_TRUNC)

static PyObject *
recvmmsg_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"slots", "decode", "families", "ancillary", NULL};
    State *state = state_of_type(type);
    Recvmmsg *self;
    Slots *slots;
    PyObject *decode, *families;
    int ancillary;
    struct mmsghdr *headers;
    struct iovec *iovecs;
    Py_ssize_t i;
    if (state == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!OO!p", names, state->slots, &slots,
                                        &decode, &PyFrozenSet_Type, &families, &ancillary)) {
        return NULL;
    }
    self = (Recvmmsg *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->error = Py_NewRef(Py_None);
    self->decode = Py_NewRef(decode);
    self->families = Py_NewRef(families);
    self->ancillary = (char)ancillary;
    self->memory = Py_NewRef(slots->memory);
    self->capacity = slots->capacity;
    if (PyObject_GetBuffer(self->memory, &self->buffer, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->headers = headers = PyMem_Calloc((size_t)self->capacity, sizeof(*headers));
    self->iovecs = iovecs = PyMem_Calloc((size_t)self->capacity, sizeof(*iovecs));
    self->names = PyMem_Calloc((size_t)self->capacity, SOCKADDR_SIZE);
    if (ancillary || slots->segments != NULL) {
        self->control = PyMem_Calloc((size_t)self->capacity, CONTROL_SIZE);
        if (self->control == NULL) {
            Py_DECREF(self);
            return PyErr_NoMemory();
        }
    }
    if (headers == NULL || iovecs == NULL || self->names == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (i = 0; i < self->capacity; i++) {
        iovecs[i].iov_base = (char *)self->buffer.buf + i * slots->slot_size;
        iovecs[i].iov_len = (size_t)slots->slot_size;
        headers[i].msg_hdr.msg_name = self->names + i * SOCKADDR_SIZE;
        headers[i].msg_hdr.msg_namelen = SOCKADDR_SIZE;
        headers[i].msg_hdr.msg_iov = &iovecs[i];
        headers[i].msg_hdr.msg_iovlen = 1;
        if (self->control != NULL) {
            headers[i].msg_hdr.msg_control = self->control + i * CONTROL_SIZE;
            headers[i].msg_hdr.msg_controllen = CONTROL_SIZE;
        }
    }
    return (PyObject *)self;
}

static void
recvmmsg_dealloc(Recvmmsg *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(self->headers);
    PyMem_Free(self->iovecs);
    PyMem_Free(self->names);
    PyMem_Free(self->control);
    Py_XDECREF(self->decode);
    Py_XDECREF(self->families);
    Py_XDECREF(self->host);
    Py_XDECREF(self->error);
    PyBuffer_Release(&self->buffer);
    Py_XDECREF(self->memory);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static int
set_error(Recvmmsg *self, int code, const char *message)
{
    PyObject *error = PyObject_CallFunction(PyExc_OSError, "is", code, message);
    if (error == NULL) {
        return -1;
    }
    Py_XSETREF(self->error, error);
    return 0;
}

/* The kernel overwrites msg_namelen and msg_controllen, which also limit what it may write the
 * next time. */
static void
arm(Recvmmsg *self, Py_ssize_t first, Py_ssize_t stop)
{
    struct mmsghdr *headers = self->headers;
    Py_ssize_t slot, end = Py_MIN(stop, self->used);
    for (slot = first; slot < end; slot++) {
        headers[slot].msg_hdr.msg_namelen = SOCKADDR_SIZE;
        if (self->control != NULL) {
            headers[slot].msg_hdr.msg_controllen = CONTROL_SIZE;
            headers[slot].msg_hdr.msg_flags = 0;
        }
    }
    if (first < self->used && self->used <= stop) {
        self->used = first;
    }
}

/* Take what a call wrote about `count` messages; return how many packets they are. */
static Py_ssize_t
take(Recvmmsg *self, Slots *slots, Py_ssize_t first, Py_ssize_t count)
{
    struct mmsghdr *headers = self->headers;
    Py_ssize_t slot, packets, size;
    int lost = 0;
    for (slot = first; slot < first + count; slot++) {
        Handed *handed = &slots->handed[slot];
        if (handed->sender != (PyObject *)self) {
            PyObject *sender = handed->sender, *control = handed->control;
            handed->sender = Py_NewRef(self);
            handed->control = NULL;
            /* Drops an address, tuples of numbers and bytes, or another engine of this kind: no
             * Python runs. */
            Py_XDECREF(sender);
            Py_XDECREF(control);
        }
        size = headers[slot].msg_len;
        if ((headers[slot].msg_hdr.msg_flags & MSG_TRUNC) && size <= slots->slot_size) {
            size = UNKNOWN_WIRE_SIZE; /* a ping socket, which ignores MSG_TRUNC as an argument */
        }
        self->cut |= size > slots->slot_size;
        slots->wire_sizes[slot] = (uint32_t)size;
        if (slots->segments != NULL) {
            int segment = control_segment(self, slot);
            slots->segments[slot] = segment < 0 ? LOST : (uint32_t)segment;
            lost |= segment < 0;
        }
    }
    self->used = Py_MAX(self->used, first + count);
    packets = slots_hold(slots, first, count);
    if (lost
        && set_error(self, EMSGSIZE,
                     "the segment size of coalesced packets was cut off: they came with more "
                     "control data than there is room for; ask the socket for less")
               < 0) {
        PyErr_Clear(); /* out of memory: the loss goes unreported */
    }
    return packets;
}

/* Make one call for up to `count` slots from `first` on. Returns the number of messages, or
 * -errno; adds to `packets` how many packets they are. */
static int
call(Recvmmsg *self, Slots *slots, int fd, Py_ssize_t first, Py_ssize_t count, Py_ssize_t *packets)
{
    int got, code;
    struct mmsghdr *headers = self->headers;
    arm(self, first, first + count);
    slots->reading = 1;
    Py_BEGIN_ALLOW_THREADS
    /* No timeout: it is looked at only after a datagram came (recvmmsg(2), BUGS). */
    got = recvmmsg(fd, headers + first, (unsigned int)count, FLAGS, NULL);
    code = errno;
    Py_END_ALLOW_THREADS
    slots->reading = 0;
    if (got < 0) {
        return -code;
    }
    got = Py_MIN(got, (int)count);
    if (got > 0) {
        if (self->control != NULL) {
            control_close_files(self, fd, first, got);
        }
        *packets += take(self, slots, first, got);
    }
    return got;
}

int
recvmmsg_read(Recvmmsg *self, Slots *slots, int fd, Py_ssize_t limit, Py_ssize_t *packets)
{
    Py_ssize_t first, count, taken = 0;
    int refusals = 0;
    Py_INCREF(Py_None);
    Py_XSETREF(self->error, Py_None);
    self->cut = self->dry = 0;
    while (taken < limit) {
        int got;
        if (slots->reading) {
            PyErr_SetString(PyExc_RuntimeError, READING);
            return -1;
        }
        count = next_free_run(slots, Py_MIN(limit - taken, MOST_MESSAGES), &first);
        if (count <= 0) {
            break;
        }
        got = call(self, slots, fd, first, count, packets);
        if (got == -EINTR) {
            if (PyErr_CheckSignals() < 0) {
                return -1; /* what was taken is held */
            }
            continue;
        }
        if ((got == -ENOSYS || got == -EPERM) && ++refusals < 2) {
            continue; /* a refusal is permanent, so ask twice */
        }
        taken += Py_MAX(got, 0);
        if (got < count || self->error != Py_None) {
            self->dry = 1;
            if (refusals == 2) {
                self->refused = 1;
            }
            else if (got < 0 && got != -EAGAIN && got != -EWOULDBLOCK
                     && set_error(self, -got, strerror(-got)) < 0) {
                return -1;
            }
            break; /* an error after packets is kept by the kernel for the next call */
        }
    }
    return 0;
}

int
recvmmsg_fits(const Recvmmsg *self, const Slots *slots)
{
    if (slots->memory != self->memory || slots->capacity != self->capacity) {
        PyErr_SetString(PyExc_ValueError, "these are the slots of another engine");
        return 0;
    }
    return 1;
}

/* fill(slots, sock, limit): see `Engine.fill` in _receive/engine.py. */
static PyObject *
recvmmsg_fill(Recvmmsg *self, PyObject *const *args, Py_ssize_t nargs)
{
    Slots *slots;
    Py_ssize_t limit, packets = 0;
    int fd;
    if (nargs != 3 || Py_TYPE(args[0]) != self->state->slots) {
        PyErr_SetString(PyExc_TypeError, "fill takes slots, a socket and a limit");
        return NULL;
    }
    slots = (Slots *)args[0];
    limit = PyNumber_AsSsize_t(args[2], NULL); /* clamped: no ring is larger */
    if ((limit == -1 && PyErr_Occurred()) || descriptor_of(self->state, args[1], &fd) < 0) {
        return NULL;
    }
    if (!recvmmsg_fits(self, slots) || recvmmsg_read(self, slots, fd, limit, &packets) < 0) {
        return NULL;
    }
    return PyLong_FromSsize_t(packets);
}

/* takes(family): whether we know the addresses of a socket's family. */
static PyObject *
recvmmsg_takes(Recvmmsg *self, PyObject *family)
{
    int known = PySet_Contains(self->families, family);
    return known < 0 ? NULL : PyBool_FromLong(known);
}

/* busy(): to be interrupted in the middle, a fill would have to be in Python. */
static PyObject *
recvmmsg_busy(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

/* settle(slots): nothing is ever left to commit. */
static PyObject *
recvmmsg_settle(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(slots))
{
    Py_RETURN_NONE;
}

/* Senders */

const unsigned char *
recvmmsg_sockaddr(const Recvmmsg *self, Py_ssize_t slot, uint32_t *length)
{
    const struct mmsghdr *headers = self->headers;
    *length = Py_MIN(headers[slot].msg_hdr.msg_namelen, SOCKADDR_SIZE);
    return self->names + slot * SOCKADDR_SIZE;
}

/* Where a sender is remembered. The multipliers are those of 64-bit FNV and of Fibonacci hashing;
 * any that mix port and address do. */
static Recent *
remembered(State *state, const unsigned char *raw, uint32_t length)
{
    uint64_t hash = 0xcbf29ce484222325u, word;
    uint32_t at;
    for (at = 0; at + 8 <= length; at += 8) {
        memcpy(&word, raw + at, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    for (; at < length; at++) {
        hash = (hash ^ raw[at]) * 0x100000001b3u;
    }
    return &state->recent[(hash >> 20) & (RECENT_SENDERS - 1)];
}

PyObject *
recvmmsg_remembered(const Recvmmsg *self, Py_ssize_t slot)
{
    uint32_t length;
    const unsigned char *raw = recvmmsg_sockaddr(self, slot, &length);
    if (length == 0) {
        return Py_None;
    }
    if (length <= RECENT_SIZE) {
        const Recent *recent = remembered(self->state, raw, length);
        if (recent->address != NULL && recent->length == length
            && memcmp(recent->raw, raw, length) == 0) {
            return recent->address;
        }
    }
    return NULL;
}

/* Decode an address of a family that senders can't forge, such as a unix socket's. */
static PyObject *
decoded(const Recvmmsg *self, const unsigned char *raw, uint32_t length)
{
    PyObject *key = PyBytes_FromStringAndSize((const char *)raw, (Py_ssize_t)length), *address;
    if (key == NULL) {
        return NULL;
    }
    address = PyObject_GetItem(self->decode, key);
    Py_DECREF(key);
    return address;
}

PyObject *
recvmmsg_address(Recvmmsg *self, Py_ssize_t slot)
{
    uint32_t length;
    const unsigned char *raw = recvmmsg_sockaddr(self, slot, &length);
    PyObject *address;
    Recent *recent = NULL;
    unsigned char copy[RECENT_SIZE];
    if (length == 0) {
        Py_RETURN_NONE;
    }
    if (length <= RECENT_SIZE) {
        recent = remembered(self->state, raw, length);
        if (recent->address != NULL && recent->length == length
            && memcmp(recent->raw, raw, length) == 0) {
            return Py_NewRef(recent->address);
        }
        memcpy(copy, raw, length);
    }
    address = inet_address(raw, length);
    if (address == NULL && !PyErr_Occurred()) {
        address = decoded(self, raw, length); /* may run Python, hence the copy */
    }
    if (address != NULL && recent != NULL) {
        memcpy(recent->raw, copy, length);
        recent->length = length;
        Py_INCREF(address);
        Py_XSETREF(recent->address, address);
    }
    return address;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef recvmmsg_methods[] = {
    {"takes", (PyCFunction)recvmmsg_takes, METH_O, DOC_Recvmmsg_takes},
    {"fill", FAST(recvmmsg_fill), DOC_Recvmmsg_fill},
    {"datagrams", FAST(recvmmsg_datagrams), DOC_Recvmmsg_datagrams},
    {"busy", recvmmsg_busy, METH_NOARGS, DOC_Recvmmsg_busy},
    {"settle", recvmmsg_settle, METH_O, DOC_Recvmmsg_settle},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef recvmmsg_members[] = {
    {"error", T_OBJECT, offsetof(Recvmmsg, error), 0, NULL},
    {"refused", T_BOOL, offsetof(Recvmmsg, refused), READONLY, NULL},
    {"cut", T_BOOL, offsetof(Recvmmsg, cut), READONLY, NULL},
    {"dry", T_BOOL, offsetof(Recvmmsg, dry), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot recvmmsg_slots[] = {
    /* clang-format off */
    {Py_tp_doc, DOC_Recvmmsg},
    {Py_tp_new, recvmmsg_new},
    {Py_tp_dealloc, recvmmsg_dealloc},
    {Py_tp_methods, recvmmsg_methods},
    {Py_tp_members, recvmmsg_members},
    {0, NULL},
    /* clang-format on */
};

static PyType_Spec recvmmsg_spec = {
    .name = "anyio_mmsg._compiled.Recvmmsg",
    .basicsize = sizeof(Recvmmsg),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = recvmmsg_slots,
};

int
recvmmsg_add_types(PyObject *module, State *state)
{
    state->recvmmsg = (PyTypeObject *)PyType_FromModuleAndSpec(module, &recvmmsg_spec, NULL);
    return state->recvmmsg == NULL ? -1 : PyModule_AddType(module, state->recvmmsg);
}

#endif
