/* The base of `LentBatch` in _stream/loans.py: what a lent batch does as one step when it is closed,
 * and when it is collected. If anything is unusual, `PacketBatch.close` does it.
 */

#include "compiled.h"

#ifdef __linux__

static Loan *
loan_of(const Lent *self)
{
    int has = self->lease != NULL && PyObject_TypeCheck(self->lease, self->state->loan);
    return has ? (Loan *)self->lease : NULL;
}

PyObject *
lent_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    State *state = state_of_type(type);
    Lent *self = state == NULL ? NULL : (Lent *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->state = state;
    }
    return (PyObject *)self;
}

static int
lent_traverse(Lent *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->slots);
    Py_VISIT(self->lease);
    return 0;
}

static int
lent_clear(Lent *self)
{
    Py_CLEAR(self->slots);
    Py_CLEAR(self->lease);
    return 0;
}

static void
lent_dealloc(Lent *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    lent_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The batch is collected. */
static void
lent_finalize(PyObject *object)
{
    Lent *self = (Lent *)object;
    Loan *loan = loan_of(self);
    Slots *slots = self->slots;
    PyObject *type, *error, *trace, *none;
    if (loan == NULL) {
        return;
    }
    PyErr_Fetch(&type, &error, &trace);
    Py_INCREF(loan);
    self->slots = NULL; /* they are somebody else's soon; another finalizer may have us */
    loan->over = 1;
    if (slots == NULL) { /* an interrupt kept it from ending its loan */
        if (loan_end(self->state, loan) < 0) {
            PyErr_WriteUnraisable(object);
        }
    }
    else if (!loan->lost) {
        loan->lost = 1;
        none = PyObject_CallMethodOneArg(object, self->state->names.lose, (PyObject *)loan);
        if (none == NULL) {
            PyErr_WriteUnraisable(object);
        }
        Py_XDECREF(none);
    }
    Py_XDECREF(slots);
    Py_DECREF(loan);
    PyErr_Restore(type, error, trace);
}

static PyObject *
lent_get_slots(Lent *self, void *Py_UNUSED(closure))
{
    if (self->slots == NULL) {
        return PyObject_GetAttr((PyObject *)self, self->state->names.closed_slots);
    }
    return Py_NewRef((PyObject *)self->slots);
}

static int
lent_set_slots(Lent *self, PyObject *slots, void *Py_UNUSED(closure))
{
    int open = slots != NULL && Py_TYPE(slots) == self->state->slots;
    Slots *old = self->slots;
    Loan *loan = loan_of(self);
    self->slots = open ? (Slots *)Py_NewRef(slots) : NULL;
    if (!open && loan != NULL) {
        loan->over = 1;
    }
    Py_XDECREF(old);
    return 0;
}

static PyObject *
lent_get_lease(Lent *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->lease == NULL ? Py_None : self->lease);
}

static int
lent_set_lease(Lent *self, PyObject *lease, void *Py_UNUSED(closure))
{
    PyObject *old = self->lease;
    Loan *loan = loan_of(self);
    if (loan != NULL) {
        loan->over = 1; /* nobody would end it any more */
    }
    self->lease = lease == NULL || lease == Py_None ? NULL : Py_NewRef(lease);
    Py_XDECREF(old);
    return 0;
}

/* Whether it is certain that nobody receives into these slots, and that all that was received is
 * held. */
static int
is_at_rest(const State *state, const Slots *slots)
{
    const Filler *filler = (const Filler *)slots->filler;
    if (slots->reading) {
        return 0;
    }
    if (filler == NULL || slots->filler == Py_None) {
        return 1;
    }
    return PyObject_TypeCheck(slots->filler, state->filler)
           && (filler->task == NULL || filler->task == Py_None)
           && (filler->engine == NULL || filler->engine == Py_None
               || Py_TYPE(filler->engine) == state->recvmmsg);
}

/* close(): see `PacketBatch`. Taking packets back may run callbacks of weak references. */
static PyObject *
lent_close(Lent *self, PyObject *Py_UNUSED(ignored))
{
    Slots *slots = self->slots;
    Loan *loan = loan_of(self);
    PyObject *none;
    int closed;
    if (slots == NULL || loan == NULL || !is_at_rest(self->state, slots)) {
        return PyObject_CallMethodNoArgs((PyObject *)self, self->state->names.close_slowly);
    }
    Py_INCREF(slots);
    none = slots_take_back(slots, Py_None);
    Py_XDECREF(none);
    if (none == NULL) {
        PyErr_Clear(); /* it is raised again, with its explanation */
    }
    closed = self->slots == slots && none != NULL && slots->head == slots->tail;
    if (!closed) {
        int by_a_callback = self->slots == NULL;
        Py_DECREF(slots);
        if (by_a_callback) {
            Py_RETURN_NONE;
        }
        return PyObject_CallMethodNoArgs((PyObject *)self, self->state->names.close_slowly);
    }
    Py_INCREF(loan);
    self->slots = NULL; /* its reference goes below */
    loan->over = 1;
    closed = loan_end(self->state, loan);
    if (closed == 0) {
        Py_CLEAR(self->lease);
    }
    Py_DECREF(loan);
    Py_DECREF(slots);
    Py_DECREF(slots);
    if (closed < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
lent_enter(Lent *self, PyObject *Py_UNUSED(ignored))
{
    if (self->slots == NULL) {
        return PyObject_CallMethodNoArgs((PyObject *)self, self->state->names.close_slowly);
    }
    return Py_NewRef((PyObject *)self);
}

static PyObject *
lent_exit(Lent *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return lent_close(self, NULL);
}

static PyGetSetDef lent_getset[] = {
    {"_lease", (getter)lent_get_lease, (setter)lent_set_lease, NULL, NULL},
    {"_slots", (getter)lent_get_slots, (setter)lent_set_slots, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef lent_methods[] = {
    {"close", (PyCFunction)lent_close, METH_NOARGS, NULL},
    {"__enter__", (PyCFunction)lent_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(lent_exit), NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lent_slots[] = {
    {Py_tp_new, lent_new},           {Py_tp_dealloc, lent_dealloc},
    {Py_tp_traverse, lent_traverse}, {Py_tp_clear, lent_clear},
    {Py_tp_finalize, lent_finalize}, {Py_tp_getset, lent_getset},
    {Py_tp_methods, lent_methods},   {0, NULL},
};

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC)

static PyType_Spec lent_spec = {
    .name = "anyio_mmsg._compiled.LentFields",
    .basicsize = sizeof(Lent),
    .flags = FLAGS,
    .slots = lent_slots,
};

int
lent_add_types(PyObject *module, State *state)
{
    state->lent = (PyTypeObject *)PyType_FromModuleAndSpec(module, &lent_spec, NULL);
    return state->lent == NULL ? -1 : PyModule_AddType(module, state->lent);
}

#endif
