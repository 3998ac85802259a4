/* What Slots hands out for the packets held: the packets, their payloads, their addresses.
 *
 * What is faster than in Python: objects that nobody else refers to are used again. A Packet, or
 * the view of one, to which Slots has the only reference can't be seen by anyone, so it becomes
 * the next packet's. One that a consumer kept is invalidated instead, and a new one is made.
 */

#include "compiled.h"

/* Parse the arguments (start, stop) of a range of held packets; -1 and an error if it is none. */
static int
held_range(Slots *self, PyObject *const *args, Py_ssize_t nargs, Py_ssize_t *start,
           Py_ssize_t *stop)
{
    Py_ssize_t held = (Py_ssize_t)(self->tail - self->head);
    *start = 0;
    *stop = held;
    if (nargs > 0) {
        *start = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    }
    if (nargs > 1 && args[1] != Py_None) {
        *stop = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    }
    if (PyErr_Occurred()) {
        return -1;
    }
    if (nargs > 2 || *start < 0 || *start > *stop || *stop > held) {
        PyErr_Format(PyExc_IndexError, "packets %zd to %zd of %zd", *start, *stop, held);
        return -1;
    }
    return 0;
}

/* Whether `view`, of which the caller has a reference, can become another packet's: nobody else
 * refers to it, strongly or weakly, and it is not dead. An export of it holds a reference. */
static int
is_ours_alone(PyObject *view)
{
    PyMemoryViewObject *object = (PyMemoryViewObject *)view;
    return Py_REFCNT(view) == 1 && object->weakreflist == NULL && !view_is_dead(view);
}

/* Have `packet` show the bytes in its slot. */
static int
show(Slots *self, Packet *packet)
{
    Py_ssize_t size = size_in_slot(self, packet->slot);
    Py_ssize_t start = packet->slot * self->slot_size;
    PyObject *bounds[2], *slice = NULL;
    if (packet->data != NULL) { /* a spare, cut from this slot, that nobody has */
        Py_buffer *buffer = PyMemoryView_GET_BUFFER(packet->data);
        buffer->len = size;
        buffer->shape[0] = size;
        ((PyMemoryViewObject *)packet->data)->hash = -1;
        return 0;
    }
    bounds[0] = PyLong_FromSsize_t(start);
    bounds[1] = PyLong_FromSsize_t(start + size);
    if (bounds[0] != NULL && bounds[1] != NULL) {
        slice = PySlice_New(bounds[0], bounds[1], NULL);
    }
    if (slice != NULL) {
        packet->data = PyObject_GetItem(self->view, slice);
    }
    Py_XDECREF(slice);
    Py_XDECREF(bounds[0]);
    Py_XDECREF(bounds[1]);
    return packet->data == NULL ? -1 : 0;
}

/* Return the live packet of a slot, made now if there is none: a borrowed reference. Its address
 * is not set; it is of a type that can go without. */
static Packet *
packet_in(Slots *self, Py_ssize_t slot)
{
    Packet *packet = self->packets[slot];
    if (packet == NULL) {
        packet = PyObject_New(Packet, self->state->undecoded);
        if (packet == NULL) {
            return NULL;
        }
        packet->data = packet->address = packet->source = NULL;
        packet->slot = slot;
        packet->live = 0;
        self->packets[slot] = packet;
    }
    if (!packet->live) {
        if (show(self, packet) < 0) {
            return NULL;
        }
        if (packet->source != self->source) {
            Py_INCREF(self->source);
            Py_XSETREF(packet->source, self->source);
        }
        packet->wire_size = self->wire_sizes[slot];
        packet->live = 1;
        Py_CLEAR(packet->address);
        packet_become(packet, self->state->undecoded);
    }
    return packet;
}

static void
set_address(Slots *self, Packet *packet, PyObject *address)
{
    if (packet->address == NULL) {
        Py_INCREF(address);
        packet->address = address;
        packet_become(packet, self->state->packet);
    }
}

/* Whether the addresses of packets are read from system memory, so that it pays to wait until
 * somebody asks. Other sources have them ready. */
static int
decodes(Slots *self)
{
    return self->state->recvmmsg != NULL && Py_TYPE(self->source) == self->state->recvmmsg;
}

int
slots_learn_addresses(Slots *self, Py_ssize_t start, Py_ssize_t stop)
{
    Py_ssize_t i, j, slot, count;
    for (i = start; i < stop; i += count) {
        PyObject *run;
        Packet *packet;
        slot = slot_of(self, self->head + i);
        count = 1;
        packet = packet_in(self, slot);
        if (packet == NULL) {
            return -1;
        }
        if (packet->address != NULL) {
            continue;
        }
#ifdef __linux__
        if (decodes(self)) {
            PyObject *address = recvmmsg_address((Recvmmsg *)self->source, slot);
            if (address == NULL) {
                return -1;
            }
            set_address(self, packet, address);
            Py_DECREF(address);
            continue;
        }
#endif
        count = Py_MIN(stop - i, self->capacity - slot);
        run = PyObject_CallMethod(self->source, "addresses", "nn", slot, count);
        if (run == NULL || !PyList_Check(run) || PyList_GET_SIZE(run) != count) {
            if (run != NULL) {
                PyErr_SetString(PyExc_TypeError, "addresses() did not give what was asked for");
            }
            Py_XDECREF(run);
            return -1;
        }
        for (j = 0; j < count; j++) {
            packet = packet_in(self, slot + j);
            if (packet == NULL) {
                Py_DECREF(run);
                return -1;
            }
            set_address(self, packet, PyList_GET_ITEM(run, j));
        }
        Py_DECREF(run);
    }
    return 0;
}

PyObject *
slots_column(Slots *self, PyObject *const *args, Py_ssize_t nargs, enum column which)
{
    Py_ssize_t i, start, stop;
    PyObject *list;
    int known = which == ADDRESSES;
    if (held_range(self, args, nargs, &start, &stop) < 0) {
        return NULL;
    }
    if (which == PACKETS) {
        known = 1;
#ifdef __linux__
        known = !decodes(self) || ((Recvmmsg *)self->source)->wanted;
#endif
    }
    if (known && start < stop && slots_learn_addresses(self, start, stop) < 0) {
        return NULL;
    }
    list = PyList_New(stop - start);
    for (i = start; list != NULL && i < stop; i++) {
        Packet *packet = packet_in(self, slot_of(self, self->head + i));
        PyObject *item = (PyObject *)packet;
        if (packet == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        item = which == PAYLOADS ? packet->data : which == ADDRESSES ? packet->address : item;
        PyList_SET_ITEM(list, i - start, Py_NewRef(item));
    }
    return list;
}

int
slots_kill(Slots *self, Py_ssize_t slot)
{
    Packet *packet = self->packets[slot];
    PyObject *view;
    if (packet == NULL || !packet->live) {
        return 0;
    }
    view = packet->data;
    if (!is_ours_alone(view)) {
        PyObject *done = PyObject_CallOneArg(self->state->release, view);
        if (done == NULL) {
            return -1;
        }
        Py_DECREF(done);
    }
    if (Py_REFCNT(packet) == 1) {
        packet->live = 0;
        if (!is_ours_alone(view)) {
            packet->data = NULL;
            Py_DECREF(view); /* last, as a weak reference to it may run anything */
        }
    }
    else {
        if (is_ours_alone(view)) { /* the consumer may still get it from the packet: not ours */
            Py_XDECREF(PyObject_CallOneArg(self->state->release, view));
        }
        self->packets[slot] = NULL;
        packet->live = 0;
        packet_become(packet, self->state->released);
        Py_CLEAR(packet->data);
        Py_CLEAR(packet->address);
        Py_CLEAR(packet->source);
        Py_DECREF(packet);
    }
    return 0;
}
