/* Entry: a public function whose usual calls are one step in C. It gives its arguments to `step`; if
 * that returns NotImplemented, nothing has happened, and the function in Python, the reference, is
 * called with the same arguments.
 *
 * To everybody else an Entry is that function: functools.update_wrapper gives it what inspect,
 * pickle, help() and Sphinx ask for, as it does for functools.lru_cache.
 */

#include "compiled.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *function; /* owned, as all here */
    PyObject *step;
    PyObject *attributes; /* a dict */
    PyObject *references; /* weak ones to this object */
} Entry;

static PyObject *
entry_call(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Entry *self = (Entry *)callable;
    PyObject *function, *done = PyObject_Vectorcall(self->step, args, nargsf, names);
    if (done != Py_NotImplemented) {
        return done;
    }
    Py_DECREF(done);
    function = Py_NewRef(self->function);
    done = PyObject_Vectorcall(function, args, nargsf, names);
    Py_DECREF(function);
    return done;
}

/* Entry(function, step) */
static PyObject *
entry_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *function, *step;
    Entry *self;
    if (!PyArg_ParseTuple(args, "OO", &function, &step)) {
        return NULL;
    }
    self = (Entry *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->call = entry_call;
        self->function = Py_NewRef(function);
        self->step = Py_NewRef(step);
    }
    return (PyObject *)self;
}

static int
entry_traverse(Entry *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->function);
    Py_VISIT(self->step);
    Py_VISIT(self->attributes);
    return 0;
}

static void
entry_dealloc(Entry *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Py_XDECREF(self->function);
    Py_XDECREF(self->step);
    Py_XDECREF(self->attributes);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
entry_repr(Entry *self)
{
    return PyObject_Repr(self->function);
}

/* As an attribute of a class, it is a method, as functions are. */
static PyObject *
entry_get(PyObject *self, PyObject *owner, PyObject *Py_UNUSED(type))
{
    return owner == NULL || owner == Py_None ? Py_NewRef(self) : PyMethod_New(self, owner);
}

/* By its name, as functions are pickled and copied. */
static PyObject *
entry_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyObject_GetAttrString(self, "__qualname__");
}

static PyMethodDef entry_methods[] = {
    {"__reduce__", entry_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef entry_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Entry, call), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(Entry, attributes), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Entry, references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef entry_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot entry_slots[] = {
    /* clang-format off */
    {Py_tp_new, entry_new},
    {Py_tp_dealloc, entry_dealloc},
    {Py_tp_traverse, entry_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, entry_repr},
    {Py_tp_descr_get, entry_get},
    {Py_tp_methods, entry_methods},
    {Py_tp_members, entry_members},
    {Py_tp_getset, entry_getset},
    {0, NULL},
    /* clang-format on */
};

static PyType_Spec entry_spec = {
    .name = "anyio_mmsg._compiled.Entry",
    .basicsize = sizeof(Entry),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
             | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = entry_slots,
};

int
entry_add_type(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &entry_spec, NULL);
    int done = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return done;
}
