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

/* The bytes of a slot as a new memoryview; NULL and an error if there is no memory for it. */
static PyObject *
cut(Slots *self, Py_ssize_t slot)
{
    Py_ssize_t start = slot * self->slot_size;
    PyObject *view = NULL, *slice = NULL;
    PyObject *bounds[2] = {PyLong_FromSsize_t(start),
                           PyLong_FromSsize_t(start + size_in_slot(self, slot))};
    if (bounds[0] != NULL && bounds[1] != NULL) {
        slice = PySlice_New(bounds[0], bounds[1], NULL);
    }
    if (slice != NULL) {
        view = PyObject_GetItem(self->view, slice);
    }
    Py_XDECREF(slice);
    Py_XDECREF(bounds[0]);
    Py_XDECREF(bounds[1]);
    return view;
}

/* Have a spare packet, or a new one, show what is in a slot; -1 and an error, or 0. To make a view
 * may run the garbage collector, and this finalizers that use the same slots. So whether the slot
 * has no live packet yet is asked after that, and from then on no Python runs. */
static int
enliven(Slots *self, long long number)
{
    Py_ssize_t slot = slot_of(self, number);
    Packet *packet = self->packets[slot];
    PyObject *view = NULL, *old[3] = {NULL, NULL, NULL};
    if (packet == NULL || packet->data == NULL || !is_ours_alone(packet->data)) {
        view = cut(self, slot);
        if (view == NULL) {
            return -1;
        }
        packet = self->packets[slot];
        if (number < self->head || (packet != NULL && packet->live)) {
            Py_DECREF(view);
            return 0;
        }
    }
    if (packet == NULL) {
        packet = PyObject_New(Packet, self->state->undecoded); /* which the collector ignores */
        if (packet == NULL) {
            Py_XDECREF(view);
            return -1;
        }
        packet->data = packet->address = packet->source = NULL;
        packet->slot = slot;
        self->packets[slot] = packet;
    }
    if (view != NULL) {
        old[0] = packet->data;
        packet->data = view;
    }
    else { /* a spare, cut from this slot, that nobody has */
        Py_buffer *buffer = PyMemoryView_GET_BUFFER(packet->data);
        buffer->len = size_in_slot(self, slot);
        buffer->shape[0] = buffer->len;
        ((PyMemoryViewObject *)packet->data)->hash = -1;
    }
    if (packet->source != self->source) {
        old[1] = packet->source;
        packet->source = Py_NewRef(self->source);
    }
    old[2] = packet->address;
    packet->address = NULL;
    packet->wire_size = self->wire_sizes[slot];
    packet->live = 1;
    packet_become(packet, self->state->undecoded);
    Py_XDECREF(old[0]);
    Py_XDECREF(old[1]);
    Py_XDECREF(old[2]);
    return 0;
}

/* Return the live packet of this number, made now if there is none: a new reference. NULL without
 * an error if it was released meanwhile. Its address may be missing; it is then of a type that
 * can go without. */
static Packet *
packet_of(Slots *self, long long number)
{
    while (number >= self->head) {
        Packet *packet = self->packets[slot_of(self, number)];
        if (packet != NULL && packet->live) {
            return (Packet *)Py_NewRef(packet);
        }
        if (enliven(self, number) < 0) {
            return NULL;
        }
    }
    return NULL;
}

static void
set_address(Slots *self, Packet *packet, PyObject *address)
{
    if (packet->live && packet->address == NULL) {
        packet->address = Py_NewRef(address);
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

/* Ask a source in Python, for the packets from `number` on that lie side by side up to `last`;
 * the number of the next one, or -1 and an error. */
static long long
ask_source(Slots *self, long long number, long long last)
{
    Py_ssize_t slot = slot_of(self, number), i;
    Py_ssize_t count = Py_MIN((Py_ssize_t)(last - number), self->capacity - slot);
    PyObject *source = Py_NewRef(self->source);
    PyObject *run = PyObject_CallMethod(source, "addresses", "nn", slot, count);
    Py_DECREF(source);
    if (run != NULL && (!PyList_Check(run) || PyList_GET_SIZE(run) != count)) {
        PyErr_SetString(PyExc_TypeError, "addresses() did not give what was asked for");
        Py_CLEAR(run);
    }
    /* Meanwhile some may have been released, but those that are held are the same. */
    for (i = 0; run != NULL && i < count; i++) {
        Packet *packet = packet_of(self, number + i);
        if (packet != NULL) {
            set_address(self, packet, PyList_GET_ITEM(run, i));
            Py_DECREF(packet);
        }
        else if (PyErr_Occurred()) {
            Py_CLEAR(run);
        }
    }
    Py_XDECREF(run);
    return run == NULL ? -1 : number + count;
}

int
slots_learn_addresses(Slots *self, long long first, long long last)
{
    long long number = first;
    while ((number = Py_MAX(number, self->head)) < last) {
        Packet *packet = packet_of(self, number);
        int known = packet == NULL || packet->address != NULL;
        if (packet == NULL && PyErr_Occurred()) {
            return -1;
        }
#ifdef __linux__
        if (!known && decodes(self)) {
            PyObject *source = Py_NewRef(self->source);
            PyObject *address = recvmmsg_address((Recvmmsg *)source, packet->slot);
            Py_DECREF(source);
            if (address == NULL) {
                Py_DECREF(packet);
                return -1;
            }
            set_address(self, packet, address);
            Py_DECREF(address);
            known = 1;
        }
#endif
        Py_XDECREF(packet);
        if (known) {
            number++;
        }
        else if ((number = ask_source(self, number, last)) < 0) {
            return -1;
        }
    }
    return 0;
}

PyObject *
slots_column(Slots *self, PyObject *const *args, Py_ssize_t nargs, enum column which)
{
    Py_ssize_t count = 0, start, stop;
    long long number, last;
    PyObject *list;
    int known = which == ADDRESSES;
    if (held_range(self, args, nargs, &start, &stop) < 0) {
        return NULL;
    }
    /* By number, as what is called below may run Python, which may release some. */
    number = self->head + start;
    last = self->head + stop;
    if (which == PACKETS) {
        known = 1;
#ifdef __linux__
        known = !decodes(self) || ((Recvmmsg *)self->source)->wanted;
#endif
    }
    if (known && slots_learn_addresses(self, number, last) < 0) {
        return NULL;
    }
    list = PyList_New(stop - start);
    for (; list != NULL && number < last; number++) {
        Packet *packet = packet_of(self, number);
        PyObject *item = (PyObject *)packet;
        if (packet == NULL) {
            if (PyErr_Occurred()) {
                Py_CLEAR(list);
            }
            continue;
        }
        if (which != PACKETS) {
            item = Py_XNewRef(which == PAYLOADS ? packet->data : packet->address);
            Py_DECREF(packet);
        }
        if (item != NULL) {
            PyList_SET_ITEM(list, count++, item);
        }
    }
    if (list != NULL && count < stop - start
        && PyList_SetSlice(list, count, stop - start, NULL) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

int
slots_kill(Slots *self, Py_ssize_t slot, PyObject **leftover)
{
    Packet *packet = self->packets[slot];
    PyObject *view;
    *leftover = NULL;
    if (packet == NULL || !packet->live) {
        return 0;
    }
    view = packet->data;
    if (Py_REFCNT(packet) == 1 && is_ours_alone(view)) {
        packet->live = 0; /* both are spares now */
        return 0;
    }
    if (!view_is_dead(view)) {
        PyObject *done = PyObject_CallOneArg(self->state->release, view);
        if (done == NULL) {
            return -1;
        }
        Py_DECREF(done);
    }
    packet->live = 0;
    if (Py_REFCNT(packet) == 1) {
        packet->data = NULL;
        *leftover = view;
    }
    else {
        self->packets[slot] = NULL;
        packet_become(packet, self->state->released);
        *leftover = (PyObject *)packet;
    }
    return 0;
}
