/* A receive that is like the last one: by the same socket into the same ring, with nothing left over
 * from before. One step here replaces the checks of _receive/functions.py. If anything has
 * changed, the receive is left to that file, which is the reference.
 */

#include "compiled.h"

#ifdef __linux__

/* A receive that is like the last one, so far. All is NULL or owned, as a thread may change what they
 * were read from while the GIL is released. */
typedef struct {
    Slots *slots;
    Outlook *outlook;
    Recvmmsg *engine;
} Again;

static void
drop(Again *again)
{
    Py_XDECREF(again->slots);
    Py_XDECREF(again->outlook);
    Py_XDECREF(again->engine);
}

static int
is_none(PyObject *thing)
{
    return thing == NULL || thing == Py_None;
}

/* Whether a ring was filled from this socket before, and nothing is left over: with `again` filled in,
 * to be dropped by the caller in any case. */
static int
look(State *state, PyObject *ring, PyObject *sock, Again *again)
{
    Slots *slots = (Slots *)ring;
    Filler *filler;
    Outlook *outlook;
    Recvmmsg *engine;
    memset(again, 0, sizeof(*again));
    if (Py_TYPE(ring) != state->slots || slots->reading || is_none(slots->filler)
        || !PyObject_TypeCheck(slots->filler, state->filler)) {
        return 0;
    }
    filler = (Filler *)slots->filler;
    if (!is_none(filler->task) || is_none(filler->known) || is_none(filler->engine)
        || !PyObject_TypeCheck(filler->known, state->outlook)
        || Py_TYPE(filler->engine) != state->recvmmsg) {
        return 0;
    }
    outlook = (Outlook *)filler->known;
    engine = (Recvmmsg *)filler->engine;
    if (engine->refused || engine->memory != slots->memory || engine->capacity != slots->capacity
        || filler->checked != outlook->options || !is_none(outlook->error)
        || outlook->reports_errors || outlook->struck || !refers_to(outlook->sock, sock)) {
        return 0;
    }
    again->slots = (Slots *)Py_NewRef(slots);
    again->outlook = (Outlook *)Py_NewRef(outlook);
    again->engine = (Recvmmsg *)Py_NewRef(engine);
    return 1;
}

/* Whether a socket is open and nonblocking, and a batch has room: as `look`; or -1 and an error. */
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
    if (!yes) {
        return 0;
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

/* Read: how many packets, and all is done; or ~packets, if that is left to `_finish` there. */
static PyObject *
fill(const Again *again, int fd, Py_ssize_t limit)
{
    Py_ssize_t packets = 0;
    Recvmmsg *engine = again->engine;
    if (recvmmsg_read(engine, again->slots, fd, limit, &packets) < 0) {
        return NULL;
    }
    if (packets == 0 || engine->error != Py_None || engine->cut || engine->refused) {
        return PyLong_FromSsize_t(~packets);
    }
    again->outlook->receive_calls++; /* as `conclude` does there */
    again->outlook->more = !engine->dry;
    again->outlook->woken = 0;
    return PyLong_FromSsize_t(packets);
}

/* again(PacketBatch, sock, batch, limit): check and read. */
static PyObject *
again_receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Again again;
    Py_ssize_t limit;
    int fd, yes = look_closely(PyModule_GetState(module), args, nargs, &again, &limit, &fd);
    PyObject *packets = NULL;
    if (yes >= 0) {
        packets = yes ? fill(&again, fd, limit) : Py_NewRef(Py_None);
    }
    drop(&again);
    return packets;
}

/* ready(PacketBatch, sock, batch, limit): check; the Outlook, or None. */
static PyObject *
again_ready(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Again again;
    Py_ssize_t limit;
    int fd, yes = look_closely(PyModule_GetState(module), args, nargs, &again, &limit, &fd);
    PyObject *outlook = NULL;
    if (yes >= 0) {
        outlook = Py_NewRef(yes ? (PyObject *)again.outlook : Py_None);
    }
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
    int fd;
    PyObject *packets = NULL;
    if (nargs != 3) {
        return PyErr_Format(PyExc_TypeError, "fill takes slots, a socket and a limit");
    }
    limit = PyNumber_AsSsize_t(args[2], NULL);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (!look(state, args[0], args[1], &again)) {
        packets = Py_NewRef(Py_None);
    }
    else if (descriptor_of(state, args[1], &fd) == 0) {
        packets = fill(&again, fd, limit);
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
