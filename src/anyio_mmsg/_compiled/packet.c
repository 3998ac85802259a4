/* Packet: the twin of _packets/packet.py, which says what each attribute promises. A packet's
 * state is its type: `undecoded` until its address is asked for, `Packet`, in the end
 * `released`.
 */

#include "compiled.h"

static const char RELEASED[] = "this packet was released: its slot may hold another one by now. "
                               "Read a packet before its release, or copy what must live longer";

static void
packet_dealloc(Packet *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->data);
    Py_XDECREF(self->address);
    Py_XDECREF(self->source);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

void
packet_become(Packet *self, PyTypeObject *type)
{
    PyTypeObject *old = Py_TYPE(self);
    if (old != type) {
        Py_INCREF(type);
        Py_SET_TYPE(self, type);
        Py_DECREF(old);
    }
}

void
packet_let_go(State *state, PyObject *thing)
{
    if (Py_TYPE(thing) == state->released) {
        Packet *packet = (Packet *)thing;
        PyObject *parts[3] = {packet->data, packet->address, packet->source};
        /* All at once: to drop one may run Python, which may find the packet. */
        packet->data = packet->address = packet->source = NULL;
        Py_XDECREF(parts[0]);
        Py_XDECREF(parts[1]);
        Py_XDECREF(parts[2]);
    }
    Py_DECREF(thing);
}

/* The bytes of a packet, or -1 and a ValueError if the consumer released its view. */
static Py_ssize_t
packet_nbytes(Packet *self)
{
    if (self->data == NULL || view_is_dead(self->data)) {
        PyErr_SetString(PyExc_ValueError, "operation forbidden on released memoryview object");
        return -1;
    }
    return PyMemoryView_GET_BUFFER(self->data)->len;
}

static PyObject *
packet_size(Packet *self, void *Py_UNUSED(closure))
{
    Py_ssize_t size = packet_nbytes(self);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

static PyObject *
packet_truncated(Packet *self, void *Py_UNUSED(closure))
{
    Py_ssize_t size = packet_nbytes(self);
    return size < 0 ? NULL : PyBool_FromLong((Py_ssize_t)self->wire_size > size);
}

static PyObject *
packet_wire_size(Packet *self, void *Py_UNUSED(closure))
{
    if (packet_nbytes(self) < 0) {
        return NULL;
    }
    if (self->wire_size == UNKNOWN_WIRE_SIZE) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(self->wire_size);
}

static PyObject *
packet_repr(Packet *self)
{
    PyObject *address, *text;
    Py_ssize_t size = packet_nbytes(self);
    if (size < 0) {
        PyErr_Clear();
    }
    address = PyObject_GetAttrString((PyObject *)self, "address");
    if (address == NULL) {
        return NULL;
    }
    if (size < 0) { /* its consumer has released the view */
        text = PyUnicode_FromFormat("<Packet from %R, its data was released>", address);
    }
    else {
        text = PyUnicode_FromFormat("<Packet of %zd bytes from %R%s>", size, address,
                                    (Py_ssize_t)self->wire_size > size ? ", truncated" : "");
    }
    Py_DECREF(address);
    return text;
}

static PyObject *
packet_reduce(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(PyExc_TypeError,
                    "a Packet is a view of its batch's memory: copy bytes(packet.data)");
    return NULL;
}

int
packet_learn(Packet *self)
{
    PyObject *address = NULL;
#ifdef __linux__
    Recvmmsg *engine = (Recvmmsg *)Py_NewRef(self->source);
    address = recvmmsg_address(engine, self->slot);
    Py_DECREF(engine);
#endif
    if (address == NULL) {
        return -1;
    }
    /* Meanwhile the garbage collector may have run, and with it Python that asked as well, or
     * released the packet. */
    if (self->live && self->address == NULL) {
        State *state = state_of_type(Py_TYPE(self));
        self->address = Py_NewRef(address);
        packet_become(self, state->packet);
    }
    Py_DECREF(address);
    return 0;
}

static PyObject *
undecoded_address(Packet *self, void *Py_UNUSED(closure))
{
#ifdef __linux__
    ((Recvmmsg *)self->source)->wanted = 1;
#endif
    if (packet_learn(self) < 0) {
        return NULL;
    }
    return PyObject_GetAttrString((PyObject *)self, "address"); /* or why there is none */
}

static const char NO_CONTROL[] =
    "this batch holds no control data; make it with PacketBatch(ancillary=True), and ask the "
    "socket for it: open_udp_socket(timestamps=True, destinations=True, ecn=True, "
    "hop_limits=True)";

/* An attribute that is read from control data; `closure` is which one. */
static PyObject *
packet_control(Packet *self, void *closure)
{
    enum control which = (enum control)(intptr_t)closure;
    PyObject *source, *value;
#ifdef __linux__
    State *state = state_of_type(Py_TYPE(self));
    if (self->source != NULL && Py_TYPE(self->source) == state->recvmmsg) {
        Recvmmsg *engine = (Recvmmsg *)self->source;
        if (engine->ancillary) {
            return control_attribute(engine, self->slot, which);
        }
        PyErr_SetString(PyExc_ValueError, NO_CONTROL);
        return NULL;
    }
#endif
    if (self->source == NULL || PyTuple_GET_SIZE(self->source) == 0) {
        PyErr_SetString(PyExc_ValueError, NO_CONTROL);
        return NULL;
    }
    source = Py_NewRef(self->source); /* Python that decodes may release the packet */
    value = PyObject_CallMethod(PyTuple_GET_ITEM(source, 0),
                                which == TIMESTAMP            ? "timestamp"
                                : which == HARDWARE_TIMESTAMP ? "hardware_timestamp"
                                                              : "control",
                                "(O)", source);
    Py_DECREF(source);
    if (value != NULL && which >= DESTINATION) {
        Py_SETREF(value, PySequence_GetItem(value, which));
    }
    return value;
}

static PyObject *
released_attribute(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    PyErr_SetString(PyExc_ValueError, RELEASED);
    return NULL;
}

static PyObject *
released_repr(PyObject *Py_UNUSED(self))
{
    return PyUnicode_FromString("<Packet, released>");
}

static PyMemberDef packet_members[] = {
    {"data", T_OBJECT_EX, offsetof(Packet, data), READONLY, NULL},
    {"address", T_OBJECT_EX, offsetof(Packet, address), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define CONTROL(name, which) \
    {#name, (getter)packet_control, NULL, DOC_Packet_##name, (void *)(intptr_t)which}

static PyGetSetDef packet_getset[] = {
    {"size", (getter)packet_size, NULL, DOC_Packet_size, NULL},
    {"truncated", (getter)packet_truncated, NULL, DOC_Packet_truncated, NULL},
    {"wire_size", (getter)packet_wire_size, NULL, DOC_Packet_wire_size, NULL},
    CONTROL(timestamp, TIMESTAMP),
    CONTROL(hardware_timestamp, HARDWARE_TIMESTAMP),
    CONTROL(destination, DESTINATION),
    CONTROL(interface, INTERFACE),
    CONTROL(ecn, ECN),
    CONTROL(hop_limit, HOP_LIMIT),
    {"_local", (getter)packet_control, NULL, NULL, (void *)(intptr_t)LOCAL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef packet_methods[] = {
    {"__reduce__", packet_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot packet_slots[] = {
    {Py_tp_doc, DOC_Packet},
    {Py_tp_dealloc, packet_dealloc},
    {Py_tp_members, packet_members},
    {Py_tp_getset, packet_getset},
    {Py_tp_methods, packet_methods},
    {Py_tp_repr, packet_repr},
    {0, NULL},
};

/* Immutable, as assigning to `__class__` is then refused: a state is not the consumer's to set. */
#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE)

static PyType_Spec packet_spec = {
    .name = "anyio_mmsg.Packet",
    .basicsize = sizeof(Packet),
    .flags = FLAGS | Py_TPFLAGS_BASETYPE, /* of the two below */
    .slots = packet_slots,
};

static PyGetSetDef undecoded_getset[] = {
    {"address", (getter)undecoded_address, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot undecoded_slots[] = {
    {Py_tp_dealloc, packet_dealloc},
    {Py_tp_getset, undecoded_getset},
    {0, NULL},
};

static PyType_Spec undecoded_spec = {
    .name = "anyio_mmsg.Packet",
    .basicsize = sizeof(Packet),
    .flags = FLAGS,
    .slots = undecoded_slots,
};

static PyGetSetDef released_getset[] = {
    {"data", released_attribute, NULL, NULL, NULL},
    {"address", released_attribute, NULL, NULL, NULL},
    {"size", released_attribute, NULL, NULL, NULL},
    {"truncated", released_attribute, NULL, NULL, NULL},
    {"wire_size", released_attribute, NULL, NULL, NULL},
    {"timestamp", released_attribute, NULL, NULL, NULL},
    {"hardware_timestamp", released_attribute, NULL, NULL, NULL},
    {"destination", released_attribute, NULL, NULL, NULL},
    {"interface", released_attribute, NULL, NULL, NULL},
    {"ecn", released_attribute, NULL, NULL, NULL},
    {"hop_limit", released_attribute, NULL, NULL, NULL},
    {"_local", released_attribute, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot released_slots[] = {
    {Py_tp_dealloc, packet_dealloc},
    {Py_tp_getset, released_getset},
    {Py_tp_repr, released_repr},
    {0, NULL},
};

static PyType_Spec released_spec = {
    .name = "anyio_mmsg.Packet",
    .basicsize = sizeof(Packet),
    .flags = FLAGS,
    .slots = released_slots,
};

int
packet_add_types(PyObject *module, State *state)
{
    PyObject *bases;
    state->packet = (PyTypeObject *)PyType_FromModuleAndSpec(module, &packet_spec, NULL);
    if (state->packet == NULL || (bases = PyTuple_Pack(1, state->packet)) == NULL) {
        return -1;
    }
    state->undecoded = (PyTypeObject *)PyType_FromModuleAndSpec(module, &undecoded_spec, bases);
    state->released = (PyTypeObject *)PyType_FromModuleAndSpec(module, &released_spec, bases);
    Py_DECREF(bases);
    /* From here on nobody inherits: a subclass would be of another layout. */
    state->packet->tp_flags &= ~Py_TPFLAGS_BASETYPE;
    if (state->undecoded == NULL || state->released == NULL) {
        return -1;
    }
    return PyModule_AddType(module, state->packet);
}
