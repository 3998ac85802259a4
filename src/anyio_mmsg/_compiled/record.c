/* Record: the twin of _send/record.py, which says what each method promises. The sender in C adds
 * to `sent` in the function that makes the system call, without an allocation that could fail.
 */

#include "compiled.h"

#ifdef __linux__

static PyObject *
record_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Record *self = (Record *)type->tp_alloc(type, 0);
    if (self != NULL && (self->failures = PyList_New(0)) == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
record_init(Record *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sent", "failures", NULL};
    long long sent = 0;
    PyObject *failures = NULL;
    if (PyTuple_GET_SIZE(args) == 0 && kwargs == NULL && self->sent == 0 && self->taken == NULL
        && PyList_GET_SIZE(self->failures) == 0) {
        return 0;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|LO!", names, &sent, &PyList_Type,
                                     &failures)) {
        return -1;
    }
    failures = failures == NULL ? PyList_New(0) : Py_NewRef(failures);
    if (failures == NULL) {
        return -1;
    }
    self->sent = sent;
    Py_CLEAR(self->taken);
    Py_SETREF(self->failures, failures);
    return 0;
}

static int
record_traverse(Record *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->taken);
    Py_VISIT(self->failures);
    return 0;
}

/* `failures` stays, as it is always a list; it breaks its own cycles. */
static int
record_clear(Record *self)
{
    Py_CLEAR(self->taken);
    return 0;
}

static void
record_dealloc(Record *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->taken);
    Py_CLEAR(self->failures);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static long long
all_sent(Record *self)
{
    return self->sent + (self->taken == NULL ? 0 : PyList_GET_SIZE(self->taken));
}

static PyObject *
record_sent(Record *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(all_sent(self));
}

static PyObject *
record_restart(Record *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *failures = PyList_New(0);
    if (failures == NULL) {
        return NULL;
    }
    self->sent = 0;
    Py_CLEAR(self->taken);
    Py_SETREF(self->failures, failures);
    Py_RETURN_NONE;
}

static PyObject *
record_watch(Record *self, PyObject *taken)
{
    if (!PyList_CheckExact(taken)) {
        PyErr_SetString(PyExc_TypeError, "a record watches a list");
        return NULL;
    }
    self->sent = all_sent(self);
    Py_INCREF(taken);
    Py_XSETREF(self->taken, taken);
    Py_RETURN_NONE;
}

static PyGetSetDef record_getset[] = {
    {"sent", (getter)record_sent, NULL, "How many packets the system took.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef record_members[] = {
    {"failures", T_OBJECT_EX, offsetof(Record, failures), READONLY,
     "The packets that it refused, in order."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef record_methods[] = {
    {"_restart", (PyCFunction)record_restart, METH_NOARGS, NULL},
    {"_watch", (PyCFunction)record_watch, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot record_slots[] = {
    {Py_tp_doc, "What has become of the packets of one send. See _send/record.py."},
    {Py_tp_new, record_new},
    {Py_tp_init, record_init},
    {Py_tp_dealloc, record_dealloc},
    {Py_tp_traverse, record_traverse},
    {Py_tp_clear, record_clear},
    {Py_tp_getset, record_getset},
    {Py_tp_members, record_members},
    {Py_tp_methods, record_methods},
    {0, NULL},
};

static PyType_Spec record_spec = {
    .name = "anyio_mmsg._compiled.Record",
    .basicsize = sizeof(Record),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = record_slots,
};

int
record_add_types(PyObject *module, State *state)
{
    state->record = (PyTypeObject *)PyType_FromModuleAndSpec(module, &record_spec, NULL);
    return state->record == NULL ? -1 : PyModule_AddType(module, state->record);
}

#endif
