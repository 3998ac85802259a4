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
        PyErr_Format(PyExc_ValueError, "commit of %zd packets into %zd free slots", count,
                     Py_MIN(self->capacity - (Py_ssize_t)held, self->capacity - first));
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

static PyObject *
slots_plug(Slots *self, PyObject *source)
{
    Py_ssize_t held = (Py_ssize_t)(self->tail - self->head);
    /* Their senders are known to the last source alone. */
    if (held > 0 && slots_learn_addresses(self, 0, held) < 0) {
        return NULL;
    }
    Py_INCREF(source);
    Py_XSETREF(self->source, source);
    Py_RETURN_NONE;
}

/* held -> free */

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
    /* `head` follows each packet. What runs during a kill (a callback of a weak reference) may
     * release some itself, so `head` is what says where to go on. */
    while ((number = self->head) < first + count) {
        Py_ssize_t slot = slot_of(self, number);
        if (slots_kill(self, slot) < 0) {
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
