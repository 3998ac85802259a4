/* A receive that is like the last one: by the same socket into the same ring, with nothing left over
 * from before. One step here replaces the checks of _receive/functions.py. If anything has
 * changed, the receive is left to that file, which is the reference.
 *
 * `Filler.known` is what Python has found out: a tuple of a weak reference to the socket, its
 * Outlook, the engine, and the Outlook's `options` at that time.
 */

#include "compiled.h"

#ifdef __linux__

/* A receive that is like the last one, so far: all borrowed but `slots` and `known`. */
typedef struct {
    Slots *slots;
    PyObject *known;
    PyObject *outlook;
    Recvmmsg *engine;
} Again;

static void
drop(Again *again)
{
    Py_XDECREF(again->slots);
    Py_XDECREF(again->known);
}

/* Whether an attribute is an object; -1 and an error. */
static int
has(PyObject *thing, PyObject *name, PyObject *wanted)
{
    PyObject *value = PyObject_GetAttr(thing, name);
    Py_XDECREF(value); /* compared only */
    return value == NULL ? -1 : value == wanted;
}

static int
refers_to(PyObject *reference, PyObject *thing)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found = NULL;
    int alive = PyWeakref_GetRef(reference, &found);
    Py_XDECREF(found); /* compared only, and the caller has `thing` */
    return alive < 0 ? -1 : found == thing;
#else
    return thing != Py_None && PyWeakref_GetObject(reference) == thing; /* None if it is dead */
#endif
}

/* Whether a ring was filled from this socket before, and nothing is left over: 1, with `again`
 * filled in, to be dropped by the caller; 0; or -1 and an error. */
static int
look(State *state, PyObject *slots, PyObject *sock, Again *again)
{
    PyObject *filler, *options;
    int yes;
    memset(again, 0, sizeof(*again));
    if (Py_TYPE(slots) != state->slots || ((Slots *)slots)->reading) {
        return 0;
    }
    again->slots = (Slots *)Py_NewRef(slots);
    filler = again->slots->filler;
    if (filler == NULL || filler == Py_None) {
        return 0;
    }
    Py_INCREF(filler);
    yes = has(filler, state->names.task, Py_None);
    if (yes > 0) {
        again->known = PyObject_GetAttr(filler, state->names.known);
        yes = again->known == NULL ? -1 : 1;
    }
    Py_DECREF(filler);
    if (yes <= 0 || !PyTuple_CheckExact(again->known) || PyTuple_GET_SIZE(again->known) != 4) {
        return Py_MIN(yes, 0);
    }
    again->outlook = PyTuple_GET_ITEM(again->known, 1);
    again->engine = (Recvmmsg *)PyTuple_GET_ITEM(again->known, 2);
    options = PyTuple_GET_ITEM(again->known, 3);
    if (Py_TYPE(again->engine) != state->recvmmsg || again->engine->refused
        || again->engine->memory != again->slots->memory
        || again->engine->capacity != again->slots->capacity
        || !PyWeakref_Check(PyTuple_GET_ITEM(again->known, 0))) {
        return 0;
    }
    yes = refers_to(PyTuple_GET_ITEM(again->known, 0), sock);
    if (yes > 0) {
        yes = has(again->outlook, state->names.options, options);
    }
    if (yes > 0) {
        yes = has(again->outlook, state->names.error, Py_None);
    }
    if (yes > 0) {
        yes = has(again->outlook, state->names.reports_errors, Py_False);
    }
    return yes;
}

/* Whether a socket is open and nonblocking, and a batch has room: as `look`. */
static int
look_closely(State *state, PyObject *const *args, Py_ssize_t nargs, Again *again,
             Py_ssize_t *limit, int *fd)
{
    PyObject *slots, *timeout;
    int yes;
    memset(again, 0, sizeof(*again));
    if (nargs != 4 || !PyType_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "fill takes slots, a socket and a limit");
        return -1;
    }
    if (!PyLong_CheckExact(args[3]) || !PyObject_TypeCheck(args[2], (PyTypeObject *)args[0])) {
        return 0;
    }
    *limit = PyNumber_AsSsize_t(args[3], NULL); /* clamped: no ring is larger */
    slots = PyObject_GetAttr(args[2], state->names.slots);
    if (slots == NULL) {
        return -1;
    }
    yes = *limit < 1 ? 0 : look(state, slots, args[1], again);
    Py_DECREF(slots);
    if (yes <= 0) {
        return yes;
    }
    if (descriptor_of(state, args[1], fd) < 0) {
        return -1;
    }
    timeout = PyObject_CallMethodNoArgs(args[1], state->names.gettimeout);
    if (timeout == NULL) {
        return -1;
    }
    yes = *fd >= 0 && PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == 0;
    Py_DECREF(timeout);
    return yes && again->slots->tail - again->slots->head < again->slots->capacity;
}

/* Take note of a read that gave packets, as `conclude` in _receive/functions.py does. */
static int
account(State *state, const Again *again)
{
    PyObject *calls = PyObject_GetAttr(again->outlook, state->names.receive_calls), *sum = NULL;
    int done = -1;
    if (calls != NULL && PyLong_CheckExact(calls)) {
        sum = PyLong_FromLongLong(PyLong_AsLongLong(calls) + 1);
    }
    if (sum != NULL) {
        done = PyObject_SetAttr(again->outlook, state->names.receive_calls, sum);
    }
    Py_XDECREF(calls);
    Py_XDECREF(sum);
    if (done == 0) {
        done = PyObject_SetAttr(again->outlook, state->names.more,
                                again->engine->dry ? Py_False : Py_True);
    }
    if (done == 0) {
        done = PyObject_SetAttr(again->outlook, state->names.woken, Py_False);
    }
    return done;
}

/* Read: how many packets, and all is done; or ~packets, if that is left to `_finish` there. */
static PyObject *
fill(State *state, const Again *again, int fd, Py_ssize_t limit)
{
    Py_ssize_t packets = 0;
    Recvmmsg *engine = again->engine; /* kept by `known` */
    if (recvmmsg_read(engine, again->slots, fd, limit, &packets) < 0) {
        return NULL;
    }
    if (packets == 0 || engine->error != Py_None || engine->cut || engine->refused) {
        return PyLong_FromSsize_t(~packets);
    }
    if (account(state, again) < 0) {
        return NULL;
    }
    return PyLong_FromSsize_t(packets);
}

/* again(PacketBatch, sock, batch, limit): check and read. */
static PyObject *
again_receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    Again again;
    Py_ssize_t limit;
    int fd, yes = look_closely(state, args, nargs, &again, &limit, &fd);
    PyObject *packets = NULL;
    if (yes > 0) {
        packets = fill(state, &again, fd, limit);
    }
    else if (yes == 0) {
        packets = Py_NewRef(Py_None);
    }
    drop(&again);
    return packets;
}

/* ready(PacketBatch, sock, batch, limit): check; the Outlook, or None. */
static PyObject *
again_ready(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    Again again;
    Py_ssize_t limit;
    int fd, yes = look_closely(state, args, nargs, &again, &limit, &fd);
    PyObject *outlook = yes < 0 ? NULL : Py_NewRef(yes > 0 ? again.outlook : Py_None);
    drop(&again);
    return outlook;
}

/* refill(slots, sock, limit): read. */
static PyObject *
again_refill(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    Again again;
    Py_ssize_t limit;
    int fd, yes;
    PyObject *packets = NULL;
    if (nargs != 3) {
        return PyErr_Format(PyExc_TypeError, "fill takes slots, a socket and a limit");
    }
    limit = PyNumber_AsSsize_t(args[2], NULL);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    yes = look(state, args[0], args[1], &again);
    if (yes > 0 && descriptor_of(state, args[1], &fd) == 0) {
        packets = fill(state, &again, fd, limit);
    }
    else if (yes == 0) {
        packets = Py_NewRef(Py_None);
    }
    drop(&again);
    return packets;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef functions[] = {
    {"again", FAST(again_receive), NULL},
    {"ready", FAST(again_ready), NULL},
    {"refill", FAST(again_refill), NULL},
    {NULL, NULL, 0, NULL},
};

int
again_add_functions(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}

#endif
