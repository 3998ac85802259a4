/* What Slots hands out for the packets held: the packets, their payloads, their addresses.
 *
 * It is faster than Python because it uses objects again that nobody else refers to. If Slots has
 * the only reference to a Packet, or to its view, no consumer can see it, so it becomes the next
 * packet's. An object that a consumer kept is invalidated instead, and a new one is made.
 */

#include "compiled.h"

/* Parse the arguments (start, stop) of a range of held packets; -1 and an error if they are wrong. */
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
place_of(Slots *self, long long number)
{
    Py_ssize_t position = (Py_ssize_t)(number - self->oldest), count, tries;
    Place place = {slot_of(self, self->head), self->skip + position};
    if (self->segments == NULL) {
        place.slot = slot_of(self, self->head + position);
        place.index = 0;
        return place;
    }
    if (self->near >= self->oldest && self->near <= number) {
        place = self->near_place;
        place.index += (Py_ssize_t)(number - self->near);
    }
    for (tries = 0; tries < self->capacity; tries++) {
        count = packets_in(self, place.slot);
        if (place.index < count) {
            break;
        }
        place.index -= count;
        place.slot = place.slot + 1 == self->capacity ? 0 : place.slot + 1;
    }
    if (number < self->oldest + self->held) {
        self->near = number;
        self->near_place = place;
    }
    return place;
}

Place
next_place(const Slots *self, Place place)
{
    Py_ssize_t tries;
    if (self->segments == NULL) {
        place.slot = place.slot + 1 == self->capacity ? 0 : place.slot + 1;
        return place;
    }
    place.index++;
    for (tries = 0; tries < self->capacity && place.index >= packets_in(self, place.slot);
         tries++) {
        place.index = 0;
        place.slot = place.slot + 1 == self->capacity ? 0 : place.slot + 1;
    }
    return place;
}

/* The packet that is kept at a place, live or a spare, or NULL. */
static Packet *
kept_there(const Slots *self, Place place)
{
    const Handed *handed = &self->handed[place.slot];
    if (place.index > handed->room) {
        return NULL;
    }
    return place.index == 0 ? handed->first : handed->rest[place.index - 1];
}

Packet *
live_at(const Slots *self, Place place)
{
    Packet *packet = kept_there(self, place);
    return packet != NULL && packet->live ? packet : NULL;
}

Py_ssize_t
size_at(const Slots *self, Place place, Py_ssize_t *offset)
{
    Py_ssize_t size = size_in_slot(self, place.slot);
    Py_ssize_t segment = self->segments == NULL ? 0 : (Py_ssize_t)self->segments[place.slot];
    *offset = segment * place.index;
    return segment == 0 ? size : Py_MIN(segment, size - *offset);
}

/* A new memoryview of the whole ring; `show` has it show the bytes at a place. */
static PyObject *
new_view(Slots *self)
{
    return PyMemoryView_FromObject(self->view);
}

/* Have a memoryview of the ring, which nobody else has, show the bytes at a place. */
static void
show(Slots *self, PyObject *view, Place place)
{
    Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
    Py_ssize_t offset, size = size_at(self, place, &offset);
    buffer->buf = (char *)self->buffer.buf + place.slot * self->slot_size + offset;
    buffer->len = size;
    buffer->shape[0] = size;
    ((PyMemoryViewObject *)view)->hash = -1;
}

/* Where the packet of a place is kept; NULL and MemoryError if that can't be allocated. */
static Packet **
kept_at(Slots *self, Place place)
{
    Handed *handed = &self->handed[place.slot];
    if (place.index == 0) {
        return &handed->first;
    }
    if (place.index > handed->room) {
        Py_ssize_t room = Py_MAX(place.index, packets_in(self, place.slot) - 1);
        Packet **rest = PyMem_Realloc(handed->rest, (size_t)room * sizeof(*rest));
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

/* Have a packet, whose view nobody else has, be the live one of a place. */
static void
put(Slots *self, Packet *packet, Place place)
{
    Py_ssize_t offset, size = size_at(self, place, &offset);
    uint32_t segment = self->segments == NULL ? 0 : self->segments[place.slot];
    packet->slot = place.slot;
    packet->wire_size = segment == 0 ? self->wire_sizes[place.slot] : (uint32_t)size;
    packet->live = 1;
    show(self, packet->data, place);
}

/* Have a spare packet, or a new one, show what is at a place; -1 and an error, or 0. Making a view
 * may run the garbage collector, whose finalizers may use the same slots: release this packet, or
 * make it live. So the view comes first. What is looked up after it holds, as no Python runs. */
static int
enliven(Slots *self, long long number, Place place)
{
    Packet **kept = kept_at(self, place), *packet;
    Recvmmsg *lazy;
    PyObject *view = NULL, *source, *old[3] = {NULL, NULL, NULL};
    if (kept == NULL) {
        return -1;
    }
    packet = *kept;
    if (packet == NULL || packet->data == NULL || !is_ours_alone(packet->data)) {
        view = new_view(self);
        if (view == NULL) {
            return -1;
        }
        kept = kept_at(self, place);
        packet = kept == NULL ? NULL : *kept;
        if (kept == NULL || number < self->oldest || (packet != NULL && packet->live)) {
            Py_DECREF(view);
            return kept == NULL ? -1 : 0;
        }
    }
    if (packet == NULL) {
        packet = PyObject_New(Packet, self->state->undecoded); /* which the collector ignores */
        if (packet == NULL) {
            Py_XDECREF(view);
            return -1;
        }
        packet->data = packet->address = packet->source = NULL;
        *kept = packet;
    }
    if (view != NULL) {
        old[0] = packet->data;
        packet->data = view;
    }
    put(self, packet, place);
    lazy = recvmmsg_of(self, place.slot);
    source = lazy != NULL ? (PyObject *)lazy : self->handed[place.slot].control;
    old[1] = packet->source;
    packet->source = Py_XNewRef(source);
    old[2] = packet->address;
    packet->address = lazy != NULL ? NULL : Py_XNewRef(self->handed[place.slot].sender);
    packet_become(packet, lazy != NULL ? self->state->undecoded : self->state->packet);
    Py_XDECREF(old[0]);
    Py_XDECREF(old[1]);
    Py_XDECREF(old[2]);
    return 0;
}

Packet *
packet_of(Slots *self, long long number, Place place)
{
    while (number >= self->oldest) {
        Packet *packet = live_at(self, place);
        if (packet != NULL) {
            return (Packet *)Py_NewRef(packet);
        }
        if (enliven(self, number, place) < 0) {
            return NULL;
        }
    }
    return NULL;
}

/* The packet at a place if it is live, or if a spare can become it without running Python, as is
 * usual: a new reference, or NULL. `known`: with its address. */
static Packet *
ready_at(Slots *self, Place place, int known)
{
    Packet *packet = kept_there(self, place);
    Recvmmsg *lazy = recvmmsg_of(self, place.slot);
    PyObject *old, *source, *address = NULL;
    if (packet == NULL || (packet->live && known && packet->address == NULL)) {
        return NULL;
    }
    if (packet->live) {
        return (Packet *)Py_NewRef(packet);
    }
    source = lazy != NULL ? (PyObject *)lazy : self->handed[place.slot].control;
    if (packet->source != source || packet->data == NULL || !is_ours_alone(packet->data)) {
        return NULL;
    }
    if (lazy == NULL) {
        address = self->handed[place.slot].sender;
    }
#ifdef __linux__
    else if (known || lazy->wanted) {
        address = recvmmsg_remembered(lazy, place.slot);
    }
#endif
    if (known && address == NULL) {
        return NULL;
    }
    put(self, packet, place);
    Py_INCREF(packet);
    old = packet->address;
    packet_become(packet, address != NULL ? self->state->packet : self->state->undecoded);
    if (old != address) {
        packet->address = Py_XNewRef(address);
        Py_XDECREF(old);
    }
    return packet;
}

PyObject *
slots_column(Slots *self, PyObject *const *args, Py_ssize_t nargs, enum column which)
{
    Py_ssize_t count = 0, start, stop;
    long long number, last;
    Place place, next;
    PyObject *list;
    if (held_range(self, args, nargs, &start, &stop) < 0) {
        return NULL;
    }
    /* By number, as the calls below may run Python, which may release some packets. */
    number = self->oldest + start;
    last = self->oldest + stop;
    list = PyList_New(stop - start);
    number = Py_MAX(number, self->oldest);
    place = place_of(self, number);
    while (list != NULL && number < last) {
        Recvmmsg *lazy = recvmmsg_of(self, place.slot);
        int known = which == ADDRESSES || (which == PACKETS && lazy != NULL && lazy->wanted);
        Packet *packet = ready_at(self, place, known);
        PyObject *item;
        next = next_place(self, place); /* before Python may run, as it is sure now */
        if (packet == NULL) {
            packet = packet_of(self, number, place);
            if (packet == NULL ? PyErr_Occurred() != NULL
                               : known && packet->live && packet->address == NULL
                                     && packet_learn(packet) < 0) {
                Py_XDECREF(packet);
                Py_CLEAR(list);
                break;
            }
        }
        item = (PyObject *)packet;
        if (packet != NULL && which != PACKETS) {
            item = Py_XNewRef(which == PAYLOADS ? packet->data : packet->address);
            Py_DECREF(packet);
        }
        if (item != NULL) {
            PyList_SET_ITEM(list, count++, item);
        }
        place = next;
        if (++number < self->oldest) { /* released meanwhile */
            number = self->oldest;
            place = place_of(self, number);
        }
    }
    if (list != NULL && count < stop - start
        && PyList_SetSlice(list, count, stop - start, NULL) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

PyObject *
slots_copies(Slots *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(self->held); /* which may run finalizers; from here on no Python */
    Py_ssize_t i, made = list == NULL ? 0 : PyList_GET_SIZE(list);
    Py_ssize_t count = Py_MIN(made, self->held);
    Place place = place_of(self, self->oldest);
    for (i = 0; i < count; i++) {
        Py_ssize_t offset, size = size_at(self, place, &offset);
        const char *start = (char *)self->buffer.buf + place.slot * self->slot_size + offset;
        PyObject *copy = PyBytes_FromStringAndSize(start, size);
        if (copy == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, copy);
        place = next_place(self, place);
    }
    if (list != NULL && count < made && PyList_SetSlice(list, count, made, NULL) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

int
slots_kill(Slots *self, Place place, PyObject **leftover)
{
    Packet *packet = live_at(self, place);
    PyObject *view;
    *leftover = NULL;
    if (packet == NULL) {
        return 0;
    }
    view = packet->data;
    if (Py_REFCNT(packet) == 1 && is_ours_alone(view)) {
        packet->live = 0;                /* both are spares now */
        if (place.index > MOST_SPARES) { /* unless there are too many */
            self->handed[place.slot].rest[place.index - 1] = NULL;
            *leftover = (PyObject *)packet;
        }
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
        if (place.index == 0) {
            self->handed[place.slot].first = NULL;
        }
        else {
            self->handed[place.slot].rest[place.index - 1] = NULL;
        }
        packet_become(packet, self->state->released);
        *leftover = (PyObject *)packet;
    }
    return 0;
}
