/* Datagrams as bytes: copies of the packets held, with their senders, in one pass; and the receive
 * that gives nothing else. The plain twins are in _packets/slots.py and _receive/datagrams.py.
 *
 * Bytes are copied out of the ring's memory, of which Slots holds an export. Making a tuple may
 * run the garbage collector, and that may run finalizers that release packets. So a packet is
 * known by its number, and its bytes are copied in a step in which no Python runs.
 */

#include "compiled.h"

/* The sender of the message in a slot: a new reference, or NULL and an error. */
static PyObject *
sender_in(Slots *self, Py_ssize_t slot)
{
    PyObject *sender = self->handed[slot].sender;
#ifdef __linux__
    Recvmmsg *engine = recvmmsg_of(self, slot);
    if (engine != NULL) {
        sender = Py_XNewRef(recvmmsg_remembered(engine, slot));
        if (sender == NULL) {
            Py_INCREF(engine); /* Python that decodes may have the slots dropped */
            sender = recvmmsg_address(engine, slot);
            Py_DECREF(engine);
        }
        return sender;
    }
#endif
    return Py_NewRef(sender == NULL ? Py_None : sender);
}

/* A list of (bytes, address) of all packets held, oldest first, each cut to `most` bytes. */
static PyObject *
copy_held(Slots *self, Py_ssize_t most)
{
    long long number = self->oldest, last = number + self->held;
    Py_ssize_t count = 0, from = -1;
    PyObject *list = PyList_New(self->held), *address = NULL;
    Place place;
    number = Py_MAX(number, self->oldest);
    place = place_of(self, number);
    while (list != NULL && number < last) {
        Place next = next_place(self, place); /* before Python may run, as it is sure now */
        PyObject *pair, *data;
        if (place.slot != from) { /* a train has one sender */
            Py_XSETREF(address, sender_in(self, place.slot));
            from = place.slot;
        }
        pair = address == NULL ? NULL : PyTuple_New(2);
        if (pair == NULL) {
            Py_CLEAR(list);
            break;
        }
        if (number < self->oldest) { /* released meanwhile */
            number = self->oldest;
            place = place_of(self, number);
            from = -1;
        }
        else {
            Py_ssize_t offset, size = size_at(self, place, &offset);
            const char *start = (char *)self->buffer.buf + place.slot * self->slot_size + offset;
            data = PyBytes_FromStringAndSize(start, Py_MIN(size, most));
            if (data != NULL) {
                PyTuple_SET_ITEM(pair, 0, data);
                PyTuple_SET_ITEM(pair, 1, Py_NewRef(address));
                PyList_SET_ITEM(list, count++, pair);
                number++;
                place = next;
                continue;
            }
            Py_CLEAR(list);
        }
        Py_DECREF(pair);
    }
    Py_XDECREF(address);
    if (list != NULL && count < PyList_GET_SIZE(list)
        && PyList_SetSlice(list, count, PyList_GET_SIZE(list), NULL) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

PyObject *
slots_datagrams(Slots *self, PyObject *Py_UNUSED(ignored))
{
    return copy_held(self, PY_SSIZE_T_MAX);
}

#ifdef __linux__

/* Move what is held to the end of a list, as datagrams. If that fails, it is still held. */
static int
move_held(Slots *self, Py_ssize_t most, PyObject *list)
{
    PyObject *found;
    Py_ssize_t end;
    int moved;
    if (self->tail == self->head) {
        return 0;
    }
    found = copy_held(self, most);
    if (found == NULL) {
        return -1;
    }
    end = PyList_GET_SIZE(list);
    moved = PyList_SetSlice(list, end, end, found);
    Py_DECREF(found);
    if (moved == 0) { /* nothing was handed out for these slots that could be read on */
        self->head = self->tail;
        self->oldest += self->held;
        self->held = self->skip = 0;
    }
    return moved;
}

int
datagrams_read(Recvmmsg *self, Slots *slots, PyObject *sock, Py_ssize_t limit, Py_ssize_t most,
               PyObject *record)
{
    Py_ssize_t taken = 0;
    do {
        long long before = slots->tail;
        PyObject *type, *error, *trace;
        Py_ssize_t packets = 0;                               /* not asked */
        int fd, done = descriptor_of(self->state, sock, &fd); /* each time, as Python may run */
        if (done == 0) {
            done = recvmmsg_read(self, slots, fd, limit - taken, &packets);
        }
        taken += (Py_ssize_t)(slots->tail - before);
        PyErr_Fetch(&type, &error, &trace);
        if (move_held(slots, most, record) < 0) {
            if (type == NULL) {
                return -1;
            }
            PyErr_Clear(); /* an interrupt goes before it */
        }
        PyErr_Restore(type, error, trace);
        if (done < 0) {
            return -1;
        }
    } while (taken < limit && !self->dry);
    return 0;
}

/* datagrams(slots, sock, limit, most, record): see `DatagramReader` in _receive/engine.py. */
PyObject *
recvmmsg_datagrams(Recvmmsg *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t limit, most;
    Slots *slots;
    if (nargs != 5 || Py_TYPE(args[0]) != self->state->slots || !PyList_CheckExact(args[4])) {
        PyErr_SetString(PyExc_TypeError, "datagrams takes slots, a socket, two numbers, a list");
        return NULL;
    }
    slots = (Slots *)args[0];
    limit = PyNumber_AsSsize_t(args[2], NULL); /* clamped: no socket has as many */
    most = PyNumber_AsSsize_t(args[3], NULL);
    if (PyErr_Occurred() || !recvmmsg_fits(self, slots)
        || datagrams_read(self, slots, args[1], limit, most, args[4]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#endif
