/* Wake: what a receiver's task awaits on a loop of asyncio's kind, in the place of an asyncio.Future.
 *
 * asyncio's tasks wait for any object that has these methods and `_asyncio_future_blocking`. AnyIO
 * delivers a cancellation to a task by a callback of the loop. It spares a task whose Future is done,
 * and tries again in the next turn. uvloop calls readers before such callbacks, so packets that come
 * all the time would hide a cancellation. To any other object AnyIO delivers at once: the task is
 * cancelled, and what was read stays with the receiver.
 *
 * One task waits, once. In plain Python _stream/readiness.py has a Future, and asks before it waits.
 */

#include "compiled.h"

enum progress { PENDING, DONE, CANCELLED };

typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *loop;     /* owned, as the others */
    PyObject *callback; /* of the task that waits; NULL: none yet, or it was called */
    PyObject *context;  /* in which to call it */
    PyObject
        *outcome; /* the exception to raise, if it is DONE; a message, if CANCELLED; or NULL */
    enum progress progress;
    char blocking; /* asyncio's: it was yielded, and no task has noticed yet */
} Wake;

static PyObject *
wake_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Wake *self;
    PyObject *loop;
    if (!PyArg_ParseTuple(args, "O", &loop) || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "Wake takes a loop");
    }
    self = (Wake *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->state = state_of_type(type);
        self->loop = Py_NewRef(loop);
    }
    return (PyObject *)self;
}

static int
wake_traverse(Wake *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->outcome);
    return 0;
}

static int
wake_clear(Wake *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->outcome);
    return 0;
}

static void
wake_dealloc(Wake *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    wake_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Have the loop call the task's callback soon, if there is one. */
static int
schedule(Wake *self)
{
    PyObject *callback = self->callback, *context = self->context, *handle;
    if (callback == NULL || self->loop == NULL) {
        return 0;
    }
    self->callback = self->context = NULL; /* ours from here on */
    PyObject *args[] = {self->loop, callback, (PyObject *)self, context};
    handle = PyObject_VectorcallMethod(self->state->names.call_soon, args,
                                       3 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                       context == NULL ? NULL : self->state->context_only);
    Py_DECREF(callback);
    Py_XDECREF(context);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Be done, or cancelled. */
static PyObject *
become(Wake *self, enum progress progress, PyObject *outcome)
{
    if (self->progress != PENDING) {
        PyErr_SetString(PyExc_RuntimeError, "it is done");
        return NULL;
    }
    self->progress = progress;
    self->outcome = Py_XNewRef(outcome);
    if (schedule(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
wake_set_result(Wake *self, PyObject *Py_UNUSED(result))
{
    return become(self, DONE, NULL);
}

/* Be done, and have the task go on at once, not in the loop's next turn, which costs another look at
 * all descriptors. Only for a callback of the loop, in which no task runs. What the task raises out of
 * its step, such as SystemExit, is raised. */
static PyObject *
wake_resume(Wake *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *callback = self->callback, *context = self->context, *result;
    if (self->progress != PENDING || callback == NULL || context == NULL) {
        return become(self, DONE, NULL);
    }
    if (PyContext_Enter(context) < 0) { /* something runs in it */
        PyErr_Clear();
        return become(self, DONE, NULL);
    }
    self->progress = DONE;
    self->callback = self->context = NULL; /* ours from here on */
    result = PyObject_CallOneArg(callback, (PyObject *)self);
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(callback);
    Py_DECREF(context);
    return result;
}

static PyObject *
wake_set_exception(Wake *self, PyObject *error)
{
    if (!PyExceptionInstance_Check(error)) {
        return PyErr_Format(PyExc_TypeError, "an exception is to be raised");
    }
    return become(self, DONE, error);
}

/* cancel(msg=None) */
static PyObject *
wake_cancel(Wake *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", NULL};
    PyObject *message = NULL, *none;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &message)) {
        return NULL;
    }
    if (self->progress != PENDING) {
        Py_RETURN_FALSE;
    }
    none = become(self, CANCELLED, message == Py_None ? NULL : message);
    Py_XDECREF(none);
    return none == NULL ? NULL : Py_NewRef(Py_True);
}

/* add_done_callback(function, *, context=None) */
static PyObject *
wake_add_done_callback(Wake *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (nargs != 1 || named > 1
        || (named
            && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "context") != 0)) {
        return PyErr_Format(PyExc_TypeError, "a function, and context=");
    }
    if (self->callback != NULL) {
        return PyErr_Format(PyExc_RuntimeError, "another task waits");
    }
    self->callback = Py_NewRef(args[0]);
    self->context = named && args[1] != Py_None ? Py_NewRef(args[1]) : NULL;
    if (self->progress != PENDING && schedule(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
wake_result(Wake *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *asyncio, *class;
    if (self->progress == PENDING) {
        PyErr_SetString(PyExc_RuntimeError, "it is not done");
        return NULL;
    }
    if (self->progress == DONE) {
        if (self->outcome == NULL) {
            Py_RETURN_NONE;
        }
        PyErr_SetObject((PyObject *)Py_TYPE(self->outcome), self->outcome);
        return NULL;
    }
    asyncio = PyImport_ImportModule("asyncio");
    class = asyncio == NULL ? NULL : PyObject_GetAttrString(asyncio, "CancelledError");
    if (class != NULL && self->outcome == NULL) {
        PyErr_SetNone(class);
    }
    else if (class != NULL) {
        PyErr_SetObject(class, self->outcome);
    }
    Py_XDECREF(class);
    Py_XDECREF(asyncio);
    return NULL;
}

static PyObject *
wake_done(Wake *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->progress != PENDING);
}

static PyObject *
wake_cancelled(Wake *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->progress == CANCELLED);
}

static PyObject *
wake_get_loop(Wake *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->loop == NULL ? Py_None : self->loop);
}

static PyObject *
itself(PyObject *self)
{
    return Py_NewRef(self);
}

/* A step of the task that waits: it is given this object once, then goes on. */
static PyObject *
wake_next(Wake *self)
{
    PyObject *none;
    if (self->progress == PENDING && self->callback != NULL) {
        return PyErr_Format(PyExc_RuntimeError, "another task waits");
    }
    if (self->progress == PENDING) {
        self->blocking = 1;
        return Py_NewRef((PyObject *)self);
    }
    none = wake_result(self, NULL);
    Py_XDECREF(none); /* no more values, and no error: the end */
    return NULL;
}

static PyMemberDef wake_members[] = {
    {"_asyncio_future_blocking", T_BOOL, offsetof(Wake, blocking), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define WORDS(function) (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS

static PyMethodDef wake_methods[] = {
    {"get_loop", (PyCFunction)wake_get_loop, METH_NOARGS, NULL},
    {"add_done_callback", (PyCFunction)(void (*)(void))wake_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"cancel", WORDS(wake_cancel), NULL},
    {"cancelled", (PyCFunction)wake_cancelled, METH_NOARGS, NULL},
    {"done", (PyCFunction)wake_done, METH_NOARGS, NULL},
    {"result", (PyCFunction)wake_result, METH_NOARGS, NULL},
    {"resume", (PyCFunction)wake_resume, METH_NOARGS, NULL},
    {"set_result", (PyCFunction)wake_set_result, METH_O, NULL},
    {"set_exception", (PyCFunction)wake_set_exception, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot wake_slots[] = {
    {Py_tp_new, wake_new},           {Py_tp_dealloc, wake_dealloc},
    {Py_tp_traverse, wake_traverse}, {Py_tp_clear, wake_clear},
    {Py_tp_members, wake_members},   {Py_tp_methods, wake_methods},
    {Py_am_await, itself},           {Py_tp_iter, itself},
    {Py_tp_iternext, wake_next},     {0, NULL},
};

static PyType_Spec wake_spec = {
    .name = "anyio_mmsg._compiled.Wake",
    .basicsize = sizeof(Wake),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = wake_slots,
};

int
wake_add_types(PyObject *module)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &wake_spec, NULL);
    int added = type == NULL ? -1 : PyModule_AddType(module, type);
    Py_XDECREF(type);
    return added;
}
