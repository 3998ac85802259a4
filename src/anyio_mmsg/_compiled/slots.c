/* Slots: the twin of _packets/slots.py, which says what each method promises and why.
 *
 * handout.c makes what consumers get for a slot, and ends it.
 */

#include "compiled.h"

#define SCRIBBLE 0xDD /* as in slots.py */

/* Slots: making and ending */

static PyObject *
slots_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"memory",   "capacity",  "slot_size", "engine",
                            "scribble", "ancillary", "gro",       NULL};
    PyObject *memory, *engine = NULL, *whole;
    Py_ssize_t capacity, slot_size;
    int scribble = 0, ancillary = 0, gro = 0;
    Slots *self;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Onn|Uppp", names, &memory, &capacity,
                                     &slot_size, &engine, &scribble, &ancillary, &gro)) {
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
    self->near = -1;
    self->scribble = (char)scribble;
    self->ancillary = (char)ancillary;
    self->gro = (char)gro;
    Py_INCREF(memory);
    self->memory = memory;
    whole = PyMemoryView_FromObject(memory);
    if (whole == NULL) {
        goto failed;
    }
    self->view = PyObject_CallMethod(whole, "toreadonly", NULL);
    Py_DECREF(whole);
    self->engine = engine == NULL ? PyUnicode_FromString("auto") : Py_NewRef(engine);
    self->filler = Py_NewRef(Py_None);
    if (self->view == NULL || self->engine == NULL) {
        goto failed;
    }
    self->wire_sizes = PyMem_Calloc((size_t)capacity, sizeof(*self->wire_sizes));
    self->handed = PyMem_Calloc((size_t)capacity, sizeof(*self->handed));
    if (gro) {
        self->segments = PyMem_Calloc((size_t)capacity, sizeof(*self->segments));
    }
    if (self->wire_sizes == NULL || self->handed == NULL || (gro && self->segments == NULL)) {
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
    Py_VISIT(self->filler);
    return 0;
}

/* Break cycles: drop what can be part of one. The memory stays, as `buffer` points into it. */
static int
slots_clear(Slots *self)
{
    Py_CLEAR(self->filler);
    return 0;
}

static void
slots_dealloc(Slots *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_ssize_t slot, i;
    PyObject_GC_UnTrack(self);
    slots_clear(self);
    tables_free(self);
    if (self->handed != NULL) {
        for (slot = 0; slot < self->capacity; slot++) {
            Py_XDECREF(self->handed[slot].sender);
            Py_XDECREF(self->handed[slot].control);
            Py_XDECREF(self->handed[slot].first);
            for (i = 0; i < self->handed[slot].room; i++) {
                Py_XDECREF(self->handed[slot].rest[i]);
            }
            PyMem_Free(self->handed[slot].rest);
        }
    }
    PyMem_Free(self->handed);
    PyMem_Free(self->segments);
    PyMem_Free(self->wire_sizes);
    Py_XDECREF(self->engine);
    Py_XDECREF(self->view);
    PyBuffer_Release(&self->buffer);
    Py_XDECREF(self->memory);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* free -> held */

/* -1 and an error if another thread is in a system call that fills these slots. */
static int
ensure_not_reading(Slots *self)
{
    if (self->reading) {
        PyErr_SetString(PyExc_RuntimeError, READING);
        return -1;
    }
    return 0;
}

static PyObject *
slots_free_run(Slots *self, PyObject *argument)
{
    Py_ssize_t first, count = PyNumber_AsSsize_t(argument, NULL); /* clamped: no ring is larger */
    if ((count == -1 && PyErr_Occurred()) || ensure_not_reading(self) < 0) {
        return NULL;
    }
    count = next_free_run(self, count, &first);
    return Py_BuildValue("nn", first, count);
}

/* Copy a list of numbers of 32 bits; larger ones become the largest. */
static int
copy_numbers(PyObject *list, uint32_t *numbers, Py_ssize_t count)
{
    Py_ssize_t i;
    if (!PyList_Check(list) || PyList_GET_SIZE(list) != count) {
        PyErr_SetString(PyExc_TypeError, "commit takes lists of numbers, of one length");
        return -1;
    }
    for (i = 0; i < count; i++) {
        unsigned long number = PyLong_AsUnsignedLong(PyList_GET_ITEM(list, i));
        if (number == (unsigned long)-1 && PyErr_Occurred()) {
            return -1;
        }
        numbers[i] = (uint32_t)Py_MIN(number, UINT32_MAX);
    }
    return 0;
}

/* Free the oldest messages as long as they have no packets. */
static void
free_lost(Slots *self)
{
    while (self->head < self->tail && packets_in(self, slot_of(self, self->head)) == 0) {
        self->head++;
    }
}

Py_ssize_t
slots_hold(Slots *self, Py_ssize_t first, Py_ssize_t count)
{
    Py_ssize_t slot, packets = count;
    if (self->segments != NULL) {
        for (packets = 0, slot = first; slot < first + count; slot++) {
            packets += packets_in(self, slot);
        }
    }
    self->tail += count;
    self->held += packets;
    if (self->segments != NULL) {
        free_lost(self);
    }
    return packets;
}

/* A new list of what an argument of commit has, `count` items; or NULL and an error. */
static PyObject *
column_of(const Slots *self, PyObject *argument, Py_ssize_t count, PyTypeObject *item)
{
    PyObject *list = PySequence_List(argument);
    Py_ssize_t i;
    int wrong = list != NULL && PyList_GET_SIZE(list) != count;
    for (i = 0; list != NULL && !wrong && i < count; i++) {
        PyTypeObject *type = Py_TYPE(PyList_GET_ITEM(list, i));
        /* Nobody but Recvmmsg itself says which slots it has filled. */
        wrong = (item != NULL && type != item) || type == self->state->recvmmsg;
    }
    if (wrong) {
        PyErr_SetString(PyExc_TypeError, "commit takes columns of one length");
        Py_CLEAR(list);
    }
    return list;
}

/* commit(wire_sizes, addresses, controls=None, segments=None) */
static PyObject *
slots_commit(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *sizes, *senders, *controls = NULL, *done = NULL;
    PyObject *segments = nargs > 3 && args[3] != Py_None ? args[3] : NULL;
    Py_ssize_t i, count, used, first, room;
    if (nargs < 2 || nargs > 4 || !PyList_Check(args[0])) {
        return PyErr_Format(PyExc_TypeError, "commit takes a list of sizes, and senders");
    }
    /* The calls that may run Python come first. */
    sizes = args[0];
    count = PyList_GET_SIZE(sizes);
    senders = column_of(self, args[1], count, NULL);
    if (senders != NULL && nargs > 2 && args[2] != Py_None && self->ancillary) {
        controls = column_of(self, args[2], count, &PyTuple_Type);
    }
    if (senders == NULL || PyErr_Occurred() || ensure_not_reading(self) < 0) {
        goto end;
    }
    used = (Py_ssize_t)(self->tail - self->head);
    first = slot_of(self, self->tail);
    room = Py_MIN(self->capacity - used, self->capacity - first);
    if (count > room) {
        PyErr_Format(PyExc_ValueError, "commit of %zd packets into %zd free slots", count, room);
        goto end;
    }
    if (copy_numbers(sizes, self->wire_sizes + first, count) < 0) {
        goto end;
    }
    if (self->segments != NULL) {
        memset(self->segments + first, 0, (size_t)count * sizeof(*self->segments));
        if (segments != NULL && copy_numbers(segments, self->segments + first, count) < 0) {
            goto end;
        }
    }
    for (i = 0; i < count; i++) { /* the lists take the old ones, to drop them at the end */
        Handed *handed = &self->handed[first + i];
        PyObject *sender = handed->sender, *control = handed->control;
        handed->sender = PyList_GET_ITEM(senders, i);
        PyList_SET_ITEM(senders, i, sender == NULL ? Py_NewRef(Py_None) : sender);
        if (controls != NULL) {
            handed->control = PyList_GET_ITEM(controls, i);
            PyList_SET_ITEM(controls, i, control == NULL ? Py_NewRef(Py_None) : control);
        }
        else if (control != NULL) {
            handed->control = NULL;
            Py_DECREF(control);
        }
    }
    slots_hold(self, first, count);
    done = Py_NewRef(Py_None);
end:
    Py_XDECREF(senders);
    Py_XDECREF(controls);
    return done;
}

/* What is held */

/* The lengths of packets, as sent. For a packet of a train that is its size. */
static PyObject *
slots_wire_sizes(Slots *self, PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t i, offset, held = self->held;
    PyObject *list = PyList_New(held); /* which may run the collector: `held` is asked again */
    Place place = place_of(self, self->oldest); /* and from here on nothing runs Python */
    for (i = 0; list != NULL && i < Py_MIN(held, self->held); i++) {
        uint32_t size = self->wire_sizes[place.slot];
        PyObject *number;
        if (self->segments != NULL && self->segments[place.slot] != 0) {
            size = (uint32_t)size_at(self, place, &offset);
        }
        number = PyLong_FromUnsignedLong(size);
        if (number == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, i, number);
        }
        place = next_place(self, place);
    }
    if (list != NULL && i < held && PyList_SetSlice(list, i, held, NULL) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *
slots_hand_out(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    return slots_column(self, args, nargs, PACKETS);
}

static PyObject *
slots_payloads(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    return slots_column(self, args, nargs, PAYLOADS);
}

static PyObject *
slots_addresses(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    return slots_column(self, args, nargs, ADDRESSES);
}

/* held -> free */

/* Free the packet at a place, the oldest one. */
static void
free_oldest(Slots *self, Place place)
{
    if (self->scribble) {
        Py_ssize_t offset, size = size_at(self, place, &offset);
        char *start = (char *)self->buffer.buf + place.slot * self->slot_size + offset;
        memset(start, SCRIBBLE, (size_t)size);
    }
    self->oldest++;
    self->held--;
    self->skip++;
    if (self->skip == packets_in(self, place.slot)) {
        self->skip = 0;
        self->head++;
        free_lost(self);
    }
}

/* Raise the BufferError of `take_back`, instead of the one that is set. */
static void
raise_in_use(long long done)
{
    PyObject *type, *error, *trace, *number;
    if (PyErr_ExceptionMatches(PyExc_BufferError)) {
        PyErr_Fetch(&type, &error, &trace);
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(trace);
        number = PyLong_FromLongLong(done);
        if (number != NULL) {
            PyErr_SetObject(PyExc_BufferError, number);
            Py_DECREF(number);
        }
    }
}

PyObject *
slots_take_back(Slots *self, PyObject *argument)
{
    long long first, last;
    Py_ssize_t count = self->held;
    if (argument != Py_None) {
        count = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
        if (count == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (count < 0 || count > self->held) {
        return PyErr_Format(PyExc_ValueError, "%zd of %zd packets taken back", count, self->held);
    }
    first = self->oldest;
    last = first + count;
    if (self->tables != NULL && self->pins == 0 && tables_end(self, last) < 0) {
        raise_in_use(0);
        return NULL;
    }
    /* `oldest` follows each packet. What runs when a leftover goes (a callback of a weak reference)
     * may release some itself, so `oldest` is what says where to go on; or begin a send of the
     * others, which then stay. */
    while (self->oldest < last) {
        Place place = {slot_of(self, self->head), self->skip};
        PyObject *leftover;
        if (self->pins > 0) {
            PyErr_SetNone(PyExc_BufferError);
            raise_in_use(self->oldest - first);
            return NULL;
        }
        if (slots_kill(self, place, &leftover) < 0) {
            raise_in_use(self->oldest - first);
            return NULL;
        }
        free_oldest(self, place);
        if (leftover != NULL) {
            packet_let_go(self->state, leftover);
        }
    }
    Py_RETURN_NONE;
}

/* Slots that can take a message. */
static PyObject *
slots_free(Slots *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->capacity - (Py_ssize_t)(self->tail - self->head));
}

static PyMemberDef slots_members[] = {
    {"memory", T_OBJECT_EX, offsetof(Slots, memory), READONLY, NULL},
    {"capacity", T_PYSSIZET, offsetof(Slots, capacity), READONLY, NULL},
    {"slot_size", T_PYSSIZET, offsetof(Slots, slot_size), READONLY, NULL},
    {"ancillary", T_BOOL, offsetof(Slots, ancillary), READONLY, NULL},
    {"gro", T_BOOL, offsetof(Slots, gro), READONLY, NULL},
    {"engine", T_OBJECT_EX, offsetof(Slots, engine), READONLY, NULL},
    {"held", T_PYSSIZET, offsetof(Slots, held), READONLY, DOC_Slots_held},
    {"head", T_LONGLONG, offsetof(Slots, head), READONLY, DOC_Slots_head},
    {"tail", T_LONGLONG, offsetof(Slots, tail), READONLY, NULL},
    {"oldest", T_LONGLONG, offsetof(Slots, oldest), READONLY, DOC_Slots_oldest},
    {"filler", T_OBJECT, offsetof(Slots, filler), 0, NULL},
    {"reading", T_BOOL, offsetof(Slots, reading), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef slots_getset[] = {
    {"free", (getter)slots_free, NULL, DOC_Slots_free, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef slots_methods[] = {
    {"free_run", (PyCFunction)slots_free_run, METH_O, DOC_Slots_free_run},
    {"commit", FAST(slots_commit), DOC_Slots_commit},
    {"wire_sizes", (PyCFunction)slots_wire_sizes, METH_NOARGS, DOC_Slots_wire_sizes},
    {"tally", FAST(slots_tally), DOC_Slots_tally},
    {"hand_out", FAST(slots_hand_out), DOC_Slots_hand_out},
    {"timestamps", (PyCFunction)slots_timestamps, METH_NOARGS, DOC_Slots_timestamps},
    {"payloads", FAST(slots_payloads), DOC_Slots_payloads},
    {"addresses", FAST(slots_addresses), DOC_Slots_addresses},
    {"copies", (PyCFunction)slots_copies, METH_NOARGS, DOC_Slots_copies},
    {"datagrams", (PyCFunction)slots_datagrams, METH_NOARGS, DOC_Slots_datagrams},
    {"columns", (PyCFunction)slots_columns, METH_O, DOC_Slots_columns},
    {"take_back", (PyCFunction)slots_take_back, METH_O, DOC_Slots_take_back},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots_slots[] = {
    {Py_tp_doc, DOC_Slots},
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
