/* Slots: the twin of _packets/slots.py, which says what each method promises and why.
 *
 * What is faster here: objects that nobody else refers to are used again. A Packet, or the view
 * of one, to which Slots has the only reference can't be seen by anyone, so it becomes the next
 * packet's. One that a consumer kept is invalidated instead, and a new one is made.
 */

#include "compiled.h"

#define SCRIBBLE 0xDD /* as in slots.py */

/* Slots: making and ending */

static PyObject *
slots_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"memory", "capacity", "slot_size", "engine", "scribble", NULL};
    PyObject *memory, *engine = NULL, *whole;
    Py_ssize_t capacity, slot_size;
    int scribble = 0;
    Slots *self;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Onn|Up", names, &memory, &capacity,
                                     &slot_size, &engine, &scribble)) {
        return NULL;
    }
    self = (Slots *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state_of_type(type);
    if (self->state == NULL || PyObject_GetBuffer(memory, &self->buffer, PyBUF_WRITABLE) < 0) {
        goto failed;
    }
    if (capacity < 1 || slot_size < 1 || capacity > PY_SSIZE_T_MAX / slot_size
        || capacity * slot_size != self->buffer.len) {
        PyErr_Format(PyExc_ValueError, "%zd slots of %zd bytes in %zd", capacity, slot_size,
                     self->buffer.len);
        goto failed;
    }
    self->capacity = capacity;
    self->slot_size = slot_size;
    self->scribble = (char)scribble;
    Py_INCREF(memory);
    self->memory = memory;
    whole = PyMemoryView_FromObject(memory);
    if (whole == NULL) {
        goto failed;
    }
    self->view = PyObject_CallMethod(whole, "toreadonly", NULL);
    Py_DECREF(whole);
    self->engine = engine == NULL ? PyUnicode_FromString("auto") : Py_NewRef(engine);
    self->source = Py_NewRef(Py_None);
    self->record = Py_NewRef(Py_None);
    self->filler = Py_NewRef(Py_None);
    self->borrower = Py_NewRef(Py_None);
    if (self->view == NULL || self->engine == NULL) {
        goto failed;
    }
    self->wire_sizes = PyMem_Calloc((size_t)capacity, sizeof(*self->wire_sizes));
    self->packets = PyMem_Calloc((size_t)capacity, sizeof(*self->packets));
    if (self->wire_sizes == NULL || self->packets == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static int
slots_traverse(Slots *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->memory);
    Py_VISIT(self->source);
    Py_VISIT(self->record);
    Py_VISIT(self->filler);
    Py_VISIT(self->borrower);
    return 0;
}

/* To break cycles: what can be part of one. The memory stays, as `buffer` points into it. */
static int
slots_clear(Slots *self)
{
    Py_CLEAR(self->source);
    Py_CLEAR(self->record);
    Py_CLEAR(self->filler);
    Py_CLEAR(self->borrower);
    return 0;
}

static void
slots_dealloc(Slots *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_ssize_t slot;
    PyObject_GC_UnTrack(self);
    slots_clear(self);
    if (self->packets != NULL) {
        for (slot = 0; slot < self->capacity; slot++) {
            Py_XDECREF(self->packets[slot]);
        }
    }
    PyMem_Free(self->packets);
    PyMem_Free(self->wire_sizes);
    Py_XDECREF(self->engine);
    Py_XDECREF(self->view);
    PyBuffer_Release(&self->buffer);
    Py_XDECREF(self->memory);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Whether a task is receiving into these slots: its coroutine runs, or is suspended. */
static PyObject *
slots_filling(Slots *self, void *Py_UNUSED(closure))
{
    static const char *const states[] = {"cr_running", "cr_await"};
    size_t i;
    if (self->filler == Py_None || self->filler == NULL) {
        Py_RETURN_FALSE;
    }
    for (i = 0; i < 2; i++) {
        PyObject *answer = PyObject_GetAttrString(self->filler, states[i]);
        int yes = answer == NULL ? -1 : answer != Py_None && answer != Py_False;
        Py_XDECREF(answer);
        if (yes != 0) {
            return yes < 0 ? NULL : PyBool_FromLong(yes);
        }
    }
    Py_RETURN_FALSE;
}

/* free -> held */

static PyObject *
slots_free_run(Slots *self, PyObject *argument)
{
    long long held = self->tail - self->head;
    Py_ssize_t first, count = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
    if (count == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (held == 0) {
        self->base = self->tail;
    }
    first = slot_of(self, self->tail);
    count = Py_MIN(count, Py_MIN(self->capacity - (Py_ssize_t)held, self->capacity - first));
    return Py_BuildValue("nn", first, count);
}

static PyObject *
slots_commit(Slots *self, PyObject *sizes)
{
    Py_ssize_t first, count, i;
    long long held = self->tail - self->head;
    if (!PyList_Check(sizes)) {
        PyErr_SetString(PyExc_TypeError, "commit takes a list of lengths");
        return NULL;
    }
    count = PyList_GET_SIZE(sizes);
    first = slot_of(self, self->tail);
    if (count > self->capacity - (Py_ssize_t)held || count > self->capacity - first) {
        PyErr_Format(PyExc_ValueError, "commit of %zd packets into fewer free slots", count);
        return NULL;
    }
    for (i = 0; i < count; i++) {
        unsigned long size = PyLong_AsUnsignedLong(PyList_GET_ITEM(sizes, i));
        if (size == (unsigned long)-1 && PyErr_Occurred()) {
            return NULL;
        }
        self->wire_sizes[first + i] = (uint32_t)Py_MIN(size, UINT32_MAX);
    }
    self->tail += count;
    Py_RETURN_NONE;
}

/* What is held */

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

static PyObject *
slots_held_runs(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t start, stop, first, last;
    PyObject *runs, *range;
    if (held_range(self, args, nargs, &start, &stop) < 0) {
        return NULL;
    }
    runs = PyList_New(0);
    first = slot_of(self, self->head + start);
    last = first + stop - start;
    while (runs != NULL) {
        range = PyObject_CallFunction((PyObject *)&PyRange_Type, "nn", first,
                                      Py_MIN(last, self->capacity));
        if (range == NULL || PyList_Append(runs, range) < 0) {
            Py_CLEAR(runs);
        }
        Py_XDECREF(range);
        if (last <= self->capacity) {
            break;
        }
        first = 0;
        last -= self->capacity;
    }
    return runs;
}

static PyObject *
slots_wire_sizes(Slots *self, PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t i, held = (Py_ssize_t)(self->tail - self->head);
    PyObject *list = PyList_New(held);
    for (i = 0; list != NULL && i < held; i++) {
        uint32_t size = self->wire_sizes[slot_of(self, self->head + i)];
        PyObject *number = PyLong_FromUnsignedLong(size);
        if (number == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, i, number);
        }
    }
    return list;
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

/* Have all packets in a range know their senders. */
static int
learn_addresses(Slots *self, Py_ssize_t start, Py_ssize_t stop)
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

/* The columns of a range: which attribute of each packet, or the packet. */
enum column { PACKETS, PAYLOADS, ADDRESSES };

static PyObject *
column(Slots *self, PyObject *const *args, Py_ssize_t nargs, enum column which)
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
    if (known && start < stop && learn_addresses(self, start, stop) < 0) {
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

static PyObject *
slots_hand_out(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    return column(self, args, nargs, PACKETS);
}

static PyObject *
slots_payloads(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    return column(self, args, nargs, PAYLOADS);
}

static PyObject *
slots_addresses(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    return column(self, args, nargs, ADDRESSES);
}

static PyObject *
slots_plug(Slots *self, PyObject *source)
{
    Py_ssize_t held = (Py_ssize_t)(self->tail - self->head);
    /* Their senders are known to the last source alone. */
    if (held > 0 && learn_addresses(self, 0, held) < 0) {
        return NULL;
    }
    Py_INCREF(source);
    Py_XSETREF(self->source, source);
    Py_RETURN_NONE;
}

/* held -> free */

/* Have what was handed out for a slot raise ValueError; -1 and an error if it is in use. */
static int
kill(Slots *self, Py_ssize_t slot)
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

static PyObject *
slots_take_back(Slots *self, PyObject *argument)
{
    long long number, first = self->head;
    Py_ssize_t count = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
    if (count == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (count < 0 || count > (Py_ssize_t)(self->tail - self->head)) {
        PyErr_Format(PyExc_ValueError, "%zd of %lld packets taken back", count,
                     self->tail - self->head);
        return NULL;
    }
    if (self->pins > 0 && count > 0) {
        PyObject *none = PyLong_FromLong(0);
        if (none != NULL) {
            PyErr_SetObject(PyExc_BufferError, none);
            Py_DECREF(none);
        }
        return NULL;
    }
    /* `head` follows each packet. What runs during a kill (a callback of a weak reference) may
     * release some itself, so `head` is what says where to go on. */
    while ((number = self->head) < first + count) {
        Py_ssize_t slot = slot_of(self, number);
        if (kill(self, slot) < 0) {
            PyObject *type, *error, *trace;
            if (!PyErr_ExceptionMatches(PyExc_BufferError)) {
                return NULL;
            }
            PyErr_Fetch(&type, &error, &trace);
            Py_XDECREF(type);
            Py_XDECREF(error);
            Py_XDECREF(trace);
            argument = PyLong_FromLongLong(number - first);
            if (argument != NULL) {
                PyErr_SetObject(PyExc_BufferError, argument);
                Py_DECREF(argument);
            }
            return NULL;
        }
        if (self->head == number) {
            if (self->scribble) {
                memset((char *)self->buffer.buf + slot * self->slot_size, SCRIBBLE,
                       (size_t)size_in_slot(self, slot));
            }
            self->head = number + 1;
        }
    }
    Py_RETURN_NONE;
}

static PyMemberDef slots_members[] = {
    {"memory", T_OBJECT_EX, offsetof(Slots, memory), READONLY, NULL},
    {"capacity", T_PYSSIZET, offsetof(Slots, capacity), READONLY, NULL},
    {"slot_size", T_PYSSIZET, offsetof(Slots, slot_size), READONLY, NULL},
    {"engine", T_OBJECT_EX, offsetof(Slots, engine), READONLY, NULL},
    {"head", T_LONGLONG, offsetof(Slots, head), READONLY, NULL},
    {"tail", T_LONGLONG, offsetof(Slots, tail), READONLY, NULL},
    {"source", T_OBJECT, offsetof(Slots, source), READONLY, NULL},
    {"record", T_OBJECT, offsetof(Slots, record), 0, NULL},
    {"filler", T_OBJECT, offsetof(Slots, filler), 0, NULL},
    {"borrower", T_OBJECT, offsetof(Slots, borrower), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef slots_getset[] = {
    {"filling", (getter)slots_filling, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef slots_methods[] = {
    {"free_run", (PyCFunction)slots_free_run, METH_O, NULL},
    {"commit", (PyCFunction)slots_commit, METH_O, NULL},
    {"plug", (PyCFunction)slots_plug, METH_O, NULL},
    {"held_runs", FAST(slots_held_runs), NULL},
    {"wire_sizes", (PyCFunction)slots_wire_sizes, METH_NOARGS, NULL},
    {"hand_out", FAST(slots_hand_out), NULL},
    {"payloads", FAST(slots_payloads), NULL},
    {"addresses", FAST(slots_addresses), NULL},
    {"take_back", (PyCFunction)slots_take_back, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots_slots[] = {
    {Py_tp_doc, "The memory of a ring and the state of its slots. See _packets/slots.py."},
    {Py_tp_new, slots_new},
    {Py_tp_dealloc, slots_dealloc},
    {Py_tp_traverse, slots_traverse},
    {Py_tp_clear, slots_clear},
    {Py_tp_members, slots_members},
    {Py_tp_getset, slots_getset},
    {Py_tp_methods, slots_methods},
    {0, NULL},
};

static PyType_Spec slots_spec = {
    .name = "anyio_mmsg._compiled.Slots",
    .basicsize = sizeof(Slots),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots_slots,
};

int
slots_add_types(PyObject *module, State *state)
{
    state->slots = (PyTypeObject *)PyType_FromModuleAndSpec(module, &slots_spec, NULL);
    state->release = PyObject_GetAttrString((PyObject *)&PyMemoryView_Type, "release");
    if (state->slots == NULL || state->release == NULL) {
        return -1;
    }
    return PyModule_AddType(module, state->slots);
}
