/* Headers for packets to be sent, filled in before the first send. sendmmsg.c says what keeps the
 * memory alive that they point to.
 *
 * Anything wrong with a packet raises here. _send/outgoing.py then finds out which packet it was,
 * and words the error, so that the message is the same for every sender.
 */

#include "compiled.h"

#ifdef __linux__

#include "sendmmsg.h"

/* The state that filling in headers needs, remembered from one packet to the next. */
typedef struct {
    Sendmmsg *self;
    PyObject *sockaddrs; /* a dict of them by address, which encodes the ones it lacks */
    int family;
    Py_ssize_t most;   /* bytes of a payload */
    PyObject *address; /* owned: the last one that was looked up, or NULL; and its sockaddr, */
    const char *name;  /* kept by the packet for which that was done */
    uint32_t length;
    int each; /* whether the control data of each packet is given */
} Laying;

static void
lay_payload(Sendmmsg *self, Py_ssize_t i, const void *start, Py_ssize_t size)
{
    self->iovecs[i].iov_base = (void *)start; /* which sendmmsg only reads */
    self->iovecs[i].iov_len = (size_t)size;
}

static void
lay_name(Sendmmsg *self, Py_ssize_t i, const void *name, uint32_t length)
{
    self->headers[i].msg_hdr.msg_name = (void *)name; /* likewise */
    self->headers[i].msg_hdr.msg_namelen = length;
}

/* Whether an export keeps the memory of an object in place: ctypes resizes its objects in spite of
 * exports. A class with `__buffer__` in Python may give such memory; what is asked for it then is a
 * `_buffer_wrapper` of CPython's (3.12). */
static int
keeps_still(PyObject *owner)
{
    PyTypeObject *type;
    if (owner != NULL && PyMemoryView_Check(owner)) {
        owner = PyMemoryView_GET_BASE(owner); /* of the first view, if it is one of a view */
    }
    if (owner == NULL || PyByteArray_CheckExact(owner)) {
        return 1;
    }
    for (type = Py_TYPE(owner); type != NULL; type = type->tp_base) {
        if (strncmp(type->tp_name, "_ctypes.", 8) == 0
            || strcmp(type->tp_name, "_buffer_wrapper") == 0) {
            return 0;
        }
    }
    return 1;
}

/* Fill in the payload of packet `i`, bytes: they never change, so a reference is enough. */
static Py_ssize_t
lay_bytes(Sendmmsg *self, Py_ssize_t i, PyObject *data)
{
    self->held[i].data = Py_NewRef(data); /* kept until `sendmmsg_drop` */
    lay_payload(self, i, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
    return PyBytes_GET_SIZE(data);
}

/* Fill in the payload of packet `i`. */
static int
lay_data(Laying *laying, Py_ssize_t i, PyObject *data)
{
    Sendmmsg *self = laying->self;
    Py_ssize_t size;
    if (PyBytes_CheckExact(data)) {
        size = lay_bytes(self, i, data);
    }
    else {
        Py_buffer *buffer;
        if (self->buffers == NULL) {
            self->buffers = PyMem_Calloc((size_t)self->count, sizeof(*self->buffers));
            if (self->buffers == NULL) {
                PyErr_NoMemory();
                return -1;
            }
        }
        /* An export: what it points to neither moves nor shrinks until `sendmmsg_drop`. */
        buffer = &self->buffers[self->exports];
        if (PyObject_GetBuffer(data, buffer, PyBUF_SIMPLE) < 0) {
            return -1;
        }
        if (keeps_still(buffer->obj)) {
            self->exports++;
            size = buffer->len;
            lay_payload(self, i, buffer->buf, size);
        }
        else {
            PyObject *copy = PyBytes_FromStringAndSize(buffer->buf, buffer->len);
            PyBuffer_Release(buffer);
            if (copy == NULL) {
                return -1;
            }
            size = lay_bytes(self, i, copy);
            Py_DECREF(copy);
        }
    }
    if (size > laying->most) {
        PyErr_Format(PyExc_ValueError, "a payload of %zd bytes", size);
        return -1;
    }
    return 0;
}

/* Fill in the destination of packet `i`, an address in Python's form. */
static int
lay_address(Laying *laying, Py_ssize_t i, PyObject *address)
{
    Sendmmsg *self = laying->self;
    PyObject *raw;
    if (address == laying->address) {
        lay_name(self, i, laying->name, laying->length);
        return 0;
    }
    if (address == Py_None) {
        lay_name(self, i, NULL, 0);
        return 0;
    }
    raw = PyDict_GetItemWithError(laying->sockaddrs, address);
    if (raw != NULL) {
        Py_INCREF(raw);
    }
    else if (PyErr_Occurred() || (raw = PyObject_GetItem(laying->sockaddrs, address)) == NULL) {
        return -1;
    }
    self->held[i].name = raw; /* kept until `sendmmsg_drop` */
    if (!PyBytes_CheckExact(raw) || PyBytes_GET_SIZE(raw) > SOCKADDR_SIZE) {
        PyErr_SetString(PyExc_TypeError, "a sockaddr is up to 128 bytes");
        return -1;
    }
    laying->name = PyBytes_AS_STRING(raw);
    laying->length = (uint32_t)PyBytes_GET_SIZE(raw);
    lay_name(self, i, laying->name, laying->length);
    Py_INCREF(address);
    Py_XSETREF(laying->address, address);
    return 0;
}

/* Fill in the destination of packet `i`: the sender of the packet in a slot, as it came. */
static int
lay_raw_sender(Laying *laying, Py_ssize_t i, Recvmmsg *source, Py_ssize_t slot, int pinned)
{
    Sendmmsg *self = laying->self;
    const unsigned char *raw;
    uint32_t length;
    sa_family_t family;
    if (slot < 0 || slot >= source->capacity) {
        PyErr_SetString(PyExc_IndexError, "slot out of range");
        return -1;
    }
    raw = recvmmsg_sockaddr(source, slot, &length);
    if (length >= sizeof(family)) {
        memcpy(&family, raw, sizeof(family));
    }
    if (length > 0 && (length < sizeof(family) || family != laying->family)) {
        PyErr_SetString(PyExc_ValueError, "a sender of another family");
        return -1;
    }
    if (pinned) {
        /* Until `sendmmsg_drop` the name stays where it is: there is a reference to the engine,
         * whose memory it is in; and its slot, which is pinned, is not filled again. */
        if (i == 0 || self->kept != (PyObject *)source) {
            self->held[i].name = Py_NewRef(source);
            self->kept = (PyObject *)source;
        }
        lay_name(self, i, raw, length);
        return 0;
    }
    /* The packet may be released before the send is over, so this is a copy. */
    self->held[i].name = PyBytes_FromStringAndSize((const char *)raw, (Py_ssize_t)length);
    if (self->held[i].name == NULL) {
        return -1;
    }
    lay_name(self, i, PyBytes_AS_STRING(self->held[i].name), length);
    return 0;
}

/* Fill in the destination of packet `i`: the sender of `packet`, from a pinned slot or not. */
static int
lay_sender(Laying *laying, Py_ssize_t i, Packet *packet, int pinned)
{
    State *state = laying->self->state;
    PyObject *address;
    int done;
    /* A packet that is being released may still have its engine: its attributes refuse. */
    if (packet->live && packet->source != NULL && Py_TYPE(packet->source) == state->recvmmsg) {
        return lay_raw_sender(laying, i, (Recvmmsg *)packet->source, packet->slot, pinned);
    }
    address = PyObject_GetAttrString((PyObject *)packet, "address"); /* raises if released */
    if (address == NULL) {
        return -1;
    }
    done = lay_address(laying, i, address);
    Py_DECREF(address);
    return done;
}

static int
lay_packet(Laying *laying, Py_ssize_t i, Packet *packet)
{
    PyObject *data = PyObject_GetAttrString((PyObject *)packet, "data"); /* likewise */
    int done;
    if (data == NULL) {
        return -1;
    }
    done = lay_data(laying, i, data);
    Py_DECREF(data);
    return done < 0 ? done : lay_sender(laying, i, packet, 1);
}

static int
lay_destination(Laying *laying, Py_ssize_t i, PyObject *address)
{
    if (address != Py_None && address != laying->address
        && PyObject_TypeCheck(address, laying->self->state->packet)) {
        return lay_sender(laying, i, (Packet *)address, 0);
    }
    return lay_address(laying, i, address);
}

/* Fill in packet `i`: a Packet, or a tuple of data, address and perhaps options. Returns 1 if it
 * has options that nobody has read. */
static int
lay_item(Laying *laying, Py_ssize_t i, PyObject *item)
{
    PyObject *tuple;
    Py_ssize_t size;
    int done;
    if (PyTuple_CheckExact(item)) {
        tuple = Py_NewRef(item);
    }
    else if (PyObject_TypeCheck(item, laying->self->state->packet)) {
        return lay_packet(laying, i, (Packet *)item);
    }
    else if ((tuple = PySequence_Tuple(item)) == NULL) {
        return -1;
    }
    size = PyTuple_GET_SIZE(tuple);
    if (size == 3 && PyTuple_GET_ITEM(tuple, 2) != Py_None && !laying->each) {
        done = 1;
    }
    else if (size != 2 && size != 3) {
        PyErr_SetString(PyExc_TypeError, "not a pair");
        done = -1;
    }
    else {
        done = lay_data(laying, i, PyTuple_GET_ITEM(tuple, 0));
        if (done == 0) {
            done = lay_destination(laying, i, PyTuple_GET_ITEM(tuple, 1));
        }
    }
    Py_DECREF(tuple);
    return done;
}

/* Begin packet `i`. */
static void
lay_header(Sendmmsg *self, Py_ssize_t i)
{
    struct mmsghdr *header = &self->headers[i];
    memset(header, 0, sizeof(*header));
    header->msg_hdr.msg_iov = &self->iovecs[i];
    header->msg_hdr.msg_iovlen = 1;
    self->held[i].data = self->held[i].name = NULL;
    self->laid = i + 1;
}

/* Fill in packet `i` if it is as most are: bytes, to the address of the one before. Runs no Python. */
static int
lay_like_last(Laying *laying, Py_ssize_t i, PyObject *item)
{
    PyObject *data;
    if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 2
        || PyTuple_GET_ITEM(item, 1) != laying->address || laying->address == NULL) {
        return 0;
    }
    data = PyTuple_GET_ITEM(item, 0);
    if (!PyBytes_CheckExact(data) || PyBytes_GET_SIZE(data) > laying->most) {
        return 0;
    }
    (void)lay_bytes(laying->self, i, data);
    lay_name(laying->self, i, laying->name, laying->length);
    return 1;
}

/* Fill in the items of a list or a tuple: packets; or, if there is a payload, addresses to send it
 * to. */
static int
lay_items(Laying *laying, PyObject *items, PyObject *data)
{
    Py_ssize_t i, count = laying->self->count;
    for (i = 0; i < count; i++) {
        PyObject *item;
        int done;
        if (PySequence_Fast_GET_SIZE(items) != count) { /* encoding an address may run anything */
            PyErr_SetString(PyExc_RuntimeError, "the packets changed while they were read");
            return -1;
        }
        item = PySequence_Fast_GET_ITEM(items, i);
        lay_header(laying->self, i);
        if (data == NULL && lay_like_last(laying, i, item)) {
            continue;
        }
        Py_INCREF(item);
        if (data == NULL) {
            done = lay_item(laying, i, item);
        }
        else {
            if (i > 0) { /* kept by the first packet */
                laying->self->iovecs[i] = laying->self->iovecs[0];
            }
            done = i > 0 ? 0 : lay_data(laying, i, data);
            done = done < 0 ? done : lay_destination(laying, i, item);
        }
        Py_DECREF(item);
        if (done != 0) {
            return done;
        }
    }
    return 0;
}

/* Fill in all packets that a ring holds now. They are pinned: none is released before
 * `sendmmsg_drop`, so the slots keep their bytes and the engine their senders. The ring's memory
 * is kept by `slots`, and can't be resized, as that has an export of it. */
static int
lay_ring(Laying *laying, Slots *slots)
{
    Sendmmsg *self = laying->self;
    Py_ssize_t i, offset, size;
    Place place;
    self->slots = (Slots *)Py_NewRef(slots);
    slots->pins++;
    place = place_of(slots, slots->oldest);
    for (i = 0; i < self->count; i++) { /* nothing is released, whatever Python runs */
        Packet *packet = live_at(slots, place);
        Recvmmsg *lazy = recvmmsg_of(slots, place.slot);
        int done;
        lay_header(self, i);
        if (packet != NULL && view_is_dead(packet->data)) {
            PyErr_SetString(PyExc_ValueError, "the view of a packet was released");
            return -1;
        }
        size = size_at(slots, place, &offset);
        lay_payload(self, i, (char *)slots->buffer.buf + place.slot * slots->slot_size + offset,
                    size);
        if (lazy != NULL) {
            done = lay_raw_sender(laying, i, lazy, place.slot, 1);
        }
        else {
            PyObject *sender = Py_NewRef(slots->handed[place.slot].sender);
            done = lay_address(laying, i, sender);
            Py_DECREF(sender);
        }
        if (done < 0) {
            return -1;
        }
        place = next_place(slots, place);
    }
    return 0;
}

/* Have room for the headers of all packets, their iovecs, and the references that keep their memory
 * alive, in one piece. */
static int
lay_room(Sendmmsg *self)
{
    const size_t each = sizeof(*self->headers) + sizeof(*self->iovecs) + sizeof(*self->held);
    size_t count = (size_t)self->count;
    if (self->room.packets < self->count) {
        PyMem_Free(self->room.headers);
        self->room.packets = 0;
        self->room.headers = count > PY_SSIZE_T_MAX / each ? NULL : PyMem_Malloc(count * each);
        if (self->room.headers == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->room.packets = self->count;
    }
    self->headers = (struct mmsghdr *)self->room.headers;
    self->iovecs = (struct iovec *)(self->headers + count);
    self->held = (Held *)(self->iovecs + count);
    return 0;
}

int
sendmmsg_lay(Sendmmsg *self, PyObject *packets, PyObject *sockaddrs, int family, Py_ssize_t most,
             PyObject *data, int each)
{
    Laying laying = {self, sockaddrs, family, most, NULL, NULL, 0, each};
    int done, is_ring = Py_TYPE(packets) == self->state->slots;
    if (!PyDict_Check(sockaddrs)
        || !(is_ring || PyList_CheckExact(packets) || PyTuple_CheckExact(packets))) {
        PyErr_SetString(PyExc_TypeError, "a list, a tuple or slots, and a dict of sockaddrs");
        return -1;
    }
    self->count = is_ring ? ((Slots *)packets)->held : PySequence_Fast_GET_SIZE(packets);
    if (self->count == 0) {
        return 0;
    }
    if (lay_room(self) < 0) {
        return -1;
    }
    done = is_ring ? lay_ring(&laying, (Slots *)packets) : lay_items(&laying, packets, data);
    Py_XDECREF(laying.address);
    return done;
}

#endif
