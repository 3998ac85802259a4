/* Rows: memory as an array of a format and a shape, of which memoryviews are made. `cast` of a
 * memoryview does the same; but it is called by name and parses its arguments, for each column of
 * each batch.
 *
 * The memory is that of `owner`, which this object keeps alive: a bytes object, or a memoryview that
 * nobody releases before it is gone. A memoryview keeps the Rows that it shows.
 */

#include "compiled.h"

typedef struct {
    PyObject_HEAD
    PyObject *owner;
    const char *start;
    const char *format;
    int dimensions; /* 1 or 2 */
    Py_ssize_t item;
    Py_ssize_t shape[2];
    Py_ssize_t strides[2];
} Rows;

static int
rows_traverse(Rows *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    return 0;
}

static void
rows_dealloc(Rows *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->owner);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static int
rows_getbuffer(Rows *self, Py_buffer *view, int flags)
{
    view->obj = NULL;
    if (flags & PyBUF_WRITABLE) {
        PyErr_SetString(PyExc_BufferError, "columns are read-only");
        return -1;
    }
    view->buf = (void *)self->start;
    view->obj = Py_NewRef(self);
    view->len = self->shape[0] * self->strides[0];
    view->itemsize = self->item;
    view->readonly = 1;
    view->ndim = self->dimensions;
    view->format = (flags & PyBUF_FORMAT) ? (char *)self->format : NULL;
    view->shape = (flags & PyBUF_ND) ? self->shape : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? self->strides : NULL;
    view->suboffsets = NULL;
    view->internal = NULL;
    return 0;
}

PyObject *
rows_view(State *state, PyObject *owner, const char *start, const char *format, Py_ssize_t item,
          Py_ssize_t rows, Py_ssize_t width)
{
    Rows *self = owner == NULL ? NULL : (Rows *)state->rows->tp_alloc(state->rows, 0);
    PyObject *view;
    if (self == NULL) {
        Py_XDECREF(owner);
        return NULL;
    }
    self->owner = owner;
    self->start = start;
    self->format = format;
    self->item = item;
    self->dimensions = width == 0 ? 1 : 2;
    self->shape[0] = rows;
    self->shape[1] = width;
    self->strides[0] = width == 0 ? item : width * item;
    self->strides[1] = item;
    view = PyMemoryView_FromObject((PyObject *)self);
    Py_DECREF(self);
    return view;
}

static PyType_Slot rows_slots[] = {
    {Py_tp_dealloc, rows_dealloc},
    {Py_tp_traverse, rows_traverse},
    {Py_bf_getbuffer, rows_getbuffer},
    {0, NULL},
};

static PyType_Spec rows_spec = {
    .name = "anyio_mmsg._compiled.Rows",
    .basicsize = sizeof(Rows),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = rows_slots,
};

int
rows_add_types(PyObject *module, State *state)
{
    state->rows = (PyTypeObject *)PyType_FromModuleAndSpec(module, &rows_spec, NULL);
    return state->rows == NULL ? -1 : 0;
}
