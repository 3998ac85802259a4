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
    Py_ssize_t held = self->held;
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

Place
place_of(const Slots *self, Py_ssize_t position)
{
    Place place = {slot_of(self, self->head), self->skip + position};
    Py_ssize_t count;
    if (self->segments == NULL) {
        place.slot = slot_of(self, self->head + position);
        place.index = 0;
        return place;
    }
    while (place.index >= (count = packets_in(self, place.slot))) {
        place.index -= count;
        place.slot = place.slot + 1 == self->capacity ? 0 : place.slot + 1;
    }
    return place;
}

Place
next_place(const Slots *self, Place place)
{
    Py_ssize_t tries; /* after the last packet there is no next one to find */
    place.index++;
    for (tries = 0; tries < self->capacity && place.index >= packets_in(self, place.slot);
         tries++) {
        place.index = 0;
        place.slot = place.slot + 1 == self->capacity ? 0 : place.slot + 1;
    }
    return place;
}

Py_ssize_t
size_at(const Slots *self, Place place, Py_ssize_t *offset)
{
    Py_ssize_t size = size_in_slot(self, place.slot);
    Py_ssize_t segment = self->segments == NULL ? 0 : (Py_ssize_t)self->segments[place.slot];
    *offset = segment * place.index;
    return segment == 0 ? size : Py_MIN(segment, size - *offset);
}

/* Have `packet` show the bytes at its place. */
static int
show(Slots *self, Packet *packet, Place place)
{
    Py_ssize_t offset, size = size_at(self, place, &offset);
    Py_ssize_t start = place.slot * self->slot_size + offset;
    PyObject *bounds[2], *slice = NULL;
    packet->slot = place.slot;
    packet->offset = offset;
    packet->wire_size = self->segments == NULL || self->segments[place.slot] == 0
                            ? self->wire_sizes[place.slot]
                            : (uint32_t)size;
    if (packet->data != NULL) { /* a spare that nobody has: its view becomes this packet's */
        Py_buffer *buffer = PyMemoryView_GET_BUFFER(packet->data);
        buffer->buf = (char *)self->buffer.buf + start;
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

/* Where the packet of a place is kept; NULL and an error if there is no memory for it. */
static Packet **
kept_at(Slots *self, Place place)
{
    Handed *handed = &self->handed[place.slot];
    if (place.index == 0) {
        return &handed->first;
    }
    if (place.index > handed->room) {
        Py_ssize_t room = packets_in(self, place.slot) - 1;
        Packet **rest = PyMem_Resize(handed->rest, Packet *, (size_t)room);
        if (rest == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        memset(rest + handed->room, 0, (size_t)(room - handed->room) * sizeof(*rest));
        handed->rest = rest;
        handed->room = room;
    }
    return &handed->rest[place.index - 1];
}

/* Return the live packet of a place, made now if there is none: a borrowed reference. Its address
 * is not set; it is of a type that can go without. */
static Packet *
packet_at(Slots *self, Place place)
{
    Packet **kept = kept_at(self, place), *packet;
    if (kept == NULL) {
        return NULL;
    }
    packet = *kept;
    if (packet == NULL) {
        packet = PyObject_New(Packet, self->state->undecoded);
        if (packet == NULL) {
            return NULL;
        }
        packet->data = packet->address = packet->source = NULL;
        packet->live = 0;
        *kept = packet;
    }
    if (!packet->live) {
        if (show(self, packet, place) < 0) {
            return NULL;
        }
        if (packet->source != self->source) {
            Py_INCREF(self->source);
            Py_XSETREF(packet->source, self->source);
        }
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
    Place place = place_of(self, start);
    PyObject *run = NULL; /* what a source in Python said of the slots from `first` on */
    Py_ssize_t i, first = 0, count = 0;
    for (i = start; i < stop; i++, place = next_place(self, place)) {
        Packet *packet = packet_at(self, place);
        if (packet == NULL) {
            goto failed;
        }
        if (packet->address != NULL) {
            continue;
        }
#ifdef __linux__
        if (decodes(self)) {
            PyObject *address = recvmmsg_address((Recvmmsg *)self->source, place.slot);
            if (address == NULL) {
                return -1;
            }
            set_address(self, packet, address);
            Py_DECREF(address);
            continue;
        }
#endif
        if (run == NULL || place.slot < first || place.slot >= first + count) {
            first = place.slot;
            count = self->segments != NULL ? 1 : Py_MIN(stop - i, self->capacity - first);
            Py_XDECREF(run);
            run = PyObject_CallMethod(self->source, "addresses", "nn", first, count);
            if (run == NULL || !PyList_Check(run) || PyList_GET_SIZE(run) != count) {
                if (run != NULL) {
                    PyErr_SetString(PyExc_TypeError, "addresses() did not give what was asked");
                }
                goto failed;
            }
        }
        set_address(self, packet, PyList_GET_ITEM(run, place.slot - first));
    }
    Py_XDECREF(run);
    return 0;
failed:
    Py_XDECREF(run);
    return -1;
}

PyObject *
slots_column(Slots *self, PyObject *const *args, Py_ssize_t nargs, enum column which)
{
    Py_ssize_t i, start, stop;
    Place place;
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
    if (list == NULL || start == stop) {
        return list;
    }
    for (i = start, place = place_of(self, start); i < stop;
         i++, place = next_place(self, place)) {
        Packet *packet = packet_at(self, place);
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
slots_kill(Slots *self, Place place)
{
    Handed *handed = &self->handed[place.slot];
    Packet **kept = place.index == 0 ? &handed->first : &handed->rest[place.index - 1];
    Packet *packet = place.index > handed->room ? NULL : *kept;
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
        *kept = NULL;
        packet->live = 0;
        packet_become(packet, self->state->released);
        Py_CLEAR(packet->data);
        Py_CLEAR(packet->address);
        Py_CLEAR(packet->source);
        Py_DECREF(packet);
    }
    return 0;
}
