/* The loans of a pool: making the usual one, and ending one, as one step each. If anything is
 * unusual, it is left to _stream/loans.py and _stream/pool.py, which are the reference. No Python
 * runs between the steps of a function here, but where it says so.
 */

#include "compiled.h"

#ifdef __linux__

static PyObject *
loan_new(PyTypeObject *type, PyObject *Py_UNUSED(batch), PyObject *Py_UNUSED(kwargs))
{
    return type->tp_alloc(type, 0);
}

static int
loan_traverse(Loan *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pool);
    Py_VISIT(self->dropped);
    Py_VISIT(self->holder);
    return 0;
}

static int
loan_clear(Loan *self)
{
    Py_CLEAR(self->pool);
    Py_CLEAR(self->dropped);
    Py_CLEAR(self->holder);
    return 0;
}

static void
loan_dealloc(Loan *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    loan_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Remove a loan from the dict of what is lent, and return a new reference to its slots. Returns NULL
 * without an error if the loan is not in the dict, and NULL with an error set if this fails. */
static PyObject *
take_off(PyObject *lent, Loan *self)
{
    PyObject *slots;
    if (!PyDict_CheckExact(lent)) {
        PyErr_SetString(PyExc_TypeError, "loans are in a dict");
        return NULL;
    }
    slots = PyDict_GetItemWithError(lent, (PyObject *)self); /* compares identities */
    Py_XINCREF(slots);
    if (slots != NULL && PyDict_DelItem(lent, (PyObject *)self) < 0) {
        Py_CLEAR(slots);
    }
    return slots;
}

static int
append(const State *state, PyObject *deque, PyObject *item)
{
    PyObject *none = PyObject_CallMethodOneArg(deque, state->names.append, item);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* Whether an attribute is true; -1 and an error. */
static int
is_true(PyObject *thing, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(thing, name);
    int yes = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return yes;
}

int
loan_end(const State *state, Loan *self)
{
    PyObject *pool = referent(self->pool), *lent = NULL, *free_ones = NULL, *slots = NULL, *none;
    int done = -1, waiting;
    if (pool == NULL) {
        return 0;
    }
    lent = PyObject_GetAttr(pool, state->names.lent);
    free_ones = PyObject_GetAttr(pool, state->names.free);
    if (lent == NULL || free_ones == NULL) {
        goto end;
    }
    slots = take_off(lent, self);
    if (slots == NULL ? PyErr_Occurred() != NULL : append(state, free_ones, slots) < 0) {
        goto end;
    }
    waiting = is_true(pool, state->names.waiters);
    done = waiting < 0 ? -1 : 0;
    if (waiting > 0) {
        none = PyObject_CallMethodNoArgs(pool, state->names.wake);
        done = none == NULL ? -1 : 0;
        Py_XDECREF(none);
    }
end:
    Py_XDECREF(slots);
    Py_XDECREF(free_ones);
    Py_XDECREF(lent);
    Py_DECREF(pool);
    return done;
}

static PyObject *
loan_end_method(Loan *self, PyObject *Py_UNUSED(slots))
{
    const State *state = state_of_type(Py_TYPE(self));
    if (state == NULL || loan_end(state, self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMemberDef loan_members[] = {
    {"pool", T_OBJECT, offsetof(Loan, pool), 0, NULL},
    {"dropped", T_OBJECT, offsetof(Loan, dropped), 0, NULL},
    {"holder", T_OBJECT, offsetof(Loan, holder), 0, NULL},
    {"lost", T_BOOL, offsetof(Loan, lost), READONLY, NULL},
    {"over", T_BOOL, offsetof(Loan, over), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef loan_methods[] = {
    {"end", (PyCFunction)loan_end_method, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loan_slots[] = {
    {Py_tp_new, loan_new},
    {Py_tp_dealloc, loan_dealloc},
    {Py_tp_traverse, loan_traverse},
    {Py_tp_clear, loan_clear},
    {Py_tp_members, loan_members},
    {Py_tp_methods, loan_methods},
    {0, NULL},
};

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC)

static PyType_Spec loan_spec = {
    .name = "anyio_mmsg._compiled.LoanFields",
    .basicsize = sizeof(Loan),
    .flags = FLAGS,
    .slots = loan_slots,
};

/* Lending */

/* Whether a pool has a batch to lend, and nothing else comes first; -1 and an error. */
static int
can_lend(const State *state, PyObject *pool, PyObject *lent, PyObject *free_ones)
{
    PyObject *size;
    int yes = is_true(pool, state->names.waiters);
    yes = yes == 0 ? is_true(pool, state->names.some_are_lost) : yes;
    if (yes != 0 || !PyDict_CheckExact(lent)) {
        return Py_MIN(yes, 0);
    }
    size = PyObject_GetAttr(pool, state->names.size);
    yes = size == NULL ? -1 : PyDict_GET_SIZE(lent) < PyNumber_AsSsize_t(size, NULL);
    Py_XDECREF(size);
    return yes > 0 ? PyObject_IsTrue(free_ones) : yes;
}

/* lend(pool, LentBatch, Loan): a batch; None: it is left to Python. */
static PyObject *
lend(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    PyObject *pool, *lent = NULL, *free_ones = NULL, *slots = NULL;
    Lent *batch = NULL;
    Loan *loan = NULL;
    int yes = -1;
    if (nargs != 3 || !PyType_Check(args[1]) || !PyType_Check(args[2])
        || !PyType_IsSubtype((PyTypeObject *)args[1], state->lent)
        || !PyType_IsSubtype((PyTypeObject *)args[2], state->loan)) {
        PyErr_SetString(PyExc_TypeError, "lend takes a pool and its classes");
        return NULL;
    }
    pool = args[0];
    batch =
        (Lent *)lent_new((PyTypeObject *)args[1], NULL, NULL); /* may collect, which runs Python */
    loan = batch == NULL ? NULL : (Loan *)loan_new((PyTypeObject *)args[2], NULL, NULL);
    if (loan == NULL) {
        goto end;
    }
    lent = PyObject_GetAttr(pool, state->names.lent);
    free_ones = PyObject_GetAttr(pool, state->names.free);
    loan->pool = PyObject_GetAttr(pool, state->names.self);
    if (lent == NULL || free_ones == NULL || loan->pool == NULL) {
        goto end;
    }
    yes = can_lend(state, pool, lent, free_ones);
    if (yes <= 0) {
        goto end;
    }
    slots = PyObject_CallMethodNoArgs(free_ones, state->names.pop);
    yes = slots == NULL ? -1 : Py_TYPE(slots) == state->slots;
    if (yes > 0 && ((Slots *)slots)->head != ((Slots *)slots)->tail) {
        yes = 0; /* read while another thread closed their last batch */
    }
    if (yes > 0 && PyDict_SetItem(lent, (PyObject *)loan, slots) < 0) {
        yes = -1;
    }
    if (yes > 0) { /* from here on the batch ends the loan */
        batch->slots = (Slots *)Py_NewRef(slots);
        batch->lease = Py_NewRef((PyObject *)loan);
    }
    else if (slots != NULL) {
        PyObject *type, *error, *trace;
        PyErr_Fetch(&type, &error, &trace);
        if (append(state, free_ones, slots) < 0) {
            PyErr_Clear(); /* the pool makes others */
        }
        PyErr_Restore(type, error, trace);
    }
end:
    Py_XDECREF(slots);
    Py_XDECREF(free_ones);
    Py_XDECREF(lent);
    Py_XDECREF(loan);
    if (yes <= 0) {
        Py_XDECREF(batch);
        return yes < 0 ? NULL : Py_NewRef(Py_None);
    }
    return (PyObject *)batch;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef functions[] = {
    {"lend", FAST(lend), NULL},
    {NULL, NULL, 0, NULL},
};

int
loan_add_types(PyObject *module, State *state)
{
    state->loan = (PyTypeObject *)PyType_FromModuleAndSpec(module, &loan_spec, NULL);
    if (state->loan == NULL || PyModule_AddType(module, state->loan) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}

#endif
