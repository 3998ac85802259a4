/* A receive that is like the last one: by the same socket into the same ring, with nothing left over
 * from before. One step here replaces the checks of _receive/functions.py. If anything has
 * changed, the receive is left to that file, which is the reference.
 */

#include "compiled.h"

#ifdef __linux__

/* The most bytes of a datagram that are copied; as in _receive/datagrams.py. */
#define MAX_SIZE 65535

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

/* Whether nothing is left over from the last receive on a socket. */
static int
is_clear(const Outlook *outlook, PyObject *sock)
{
    return is_none(outlook->error) && !outlook->reports_errors && !outlook->struck
           && refers_to(outlook->sock, sock);
}

/* Take note of a read that gave packets, as `conclude` in _receive/functions.py does. */
static void
account(Outlook *outlook, const Recvmmsg *engine)
{
    outlook->receive_calls++;
    outlook->more = !engine->dry;
    outlook->woken = 0;
}

/* Whether a socket is nonblocking; or -1 and an error. */
static int
is_nonblocking(State *state, PyObject *sock)
{
    PyObject *timeout = PyObject_CallMethodNoArgs(sock, state->names.gettimeout);
    int yes;
    if (timeout == NULL) {
        return -1;
    }
    yes = PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == 0;
    Py_DECREF(timeout);
    return yes;
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
        || filler->checked != outlook->options || !is_clear(outlook, sock)) {
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
    PyObject *slots;
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
    yes = *fd < 0 ? 0 : is_nonblocking(state, args[1]);
    return yes > 0 ? again->slots->tail - again->slots->head < again->slots->capacity : yes;
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
    account(again->outlook, engine);
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

/* Take the last of the spare slots off a list, with their engine: 1, and `spare` is the tuple that
 * keeps both, to be dropped by the caller; 0; or -1 and an error. */
static int
take_spare(State *state, PyObject *spares, PyObject **spare, Slots **slots, Recvmmsg **engine)
{
    Py_ssize_t count = PyList_CheckExact(spares) ? PyList_GET_SIZE(spares) : 0;
    PyObject *last = count > 0 ? PyList_GET_ITEM(spares, count - 1) : NULL;
    if (last == NULL || !PyTuple_CheckExact(last) || PyTuple_GET_SIZE(last) != 2) {
        return 0;
    }
    *slots = (Slots *)PyTuple_GET_ITEM(last, 0);
    *engine = (Recvmmsg *)PyTuple_GET_ITEM(last, 1);
    if (Py_TYPE(*slots) != state->slots || Py_TYPE(*engine) != state->recvmmsg
        || (*engine)->refused || (*engine)->memory != (*slots)->memory
        || (*engine)->capacity != (*slots)->capacity) {
        return 0;
    }
    *spare = Py_NewRef(last);
    return PyList_SetSlice(spares, count - 1, count, NULL) < 0 ? -1 : 1;
}

/* After an error, give spare slots back to their list; or, if there was no memory to copy what they
 * hold, put them into the record. As `_by_slots` in _receive/datagrams.py does. */
static void
give_back_after(PyObject *spares, PyObject *spare, Slots *slots, PyObject *record)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    if ((slots->held > 0 ? PyList_Append(record, (PyObject *)slots) : PyList_Append(spares, spare))
        < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, error, trace);
}

/* datagrams(outlook, sock, limit, most, record): check, and read into the record. None: nothing was
 * done; True: all is done; a tuple of spare slots and their engine: it has read, and the rest is left
 * to `_conclude` in _receive/datagrams.py, which gives them back. */
static PyObject *
again_datagrams(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    PyObject *sock, *record, *spares, *spare = NULL, *found = NULL;
    Outlook *outlook;
    Slots *slots;
    Recvmmsg *engine;
    Py_ssize_t limit, most, before;
    int yes;
    if (nargs != 5 || !PyList_CheckExact(args[4])) {
        PyErr_SetString(PyExc_TypeError, "datagrams takes slots, a socket, two numbers, a list");
        return NULL;
    }
    if (!PyObject_TypeCheck(args[0], state->outlook) || !PyLong_CheckExact(args[2])
        || !PyLong_CheckExact(args[3])) {
        Py_RETURN_NONE;
    }
    outlook = (Outlook *)args[0]; /* the caller keeps the arguments */
    sock = args[1];
    record = args[4];
    limit = PyNumber_AsSsize_t(args[2], NULL); /* clamped: no socket has as many */
    most = PyNumber_AsSsize_t(args[3], NULL);
    if (limit < 1 || most < 1 || most > MAX_SIZE || !is_clear(outlook, sock)
        || is_none(outlook->unreturned) || !PyList_CheckExact(outlook->unreturned)
        || PyList_GET_SIZE(outlook->unreturned) > 0) {
        Py_RETURN_NONE;
    }
    yes = is_nonblocking(state, sock);
    if (yes <= 0 || is_none(outlook->spares)) {
        return yes < 0 ? NULL : Py_NewRef(Py_None);
    }
    spares = Py_NewRef(outlook->spares);
    yes = take_spare(state, spares, &spare, &slots, &engine);
    before = PyList_GET_SIZE(record);
    if (yes == 0) {
        found = Py_NewRef(Py_None);
    }
    else if (yes > 0 && datagrams_read(engine, slots, sock, limit, most, record) < 0) {
        give_back_after(spares, spare, slots, record);
    }
    else if (yes > 0 && PyList_GET_SIZE(record) > before && engine->error == Py_None
             && !engine->refused) {
        account(outlook, engine);
        found = PyList_Append(spares, spare) < 0 ? NULL : Py_NewRef(Py_True);
    }
    else if (yes > 0) {
        found = Py_NewRef(spare);
    }
    Py_DECREF(spares);
    Py_XDECREF(spare);
    return found;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef functions[] = {
    {"again", FAST(again_receive), NULL},
    {"ready", FAST(again_ready), NULL},
    {"refill", FAST(again_refill), NULL},
    {"datagrams", FAST(again_datagrams), NULL},
    {NULL, NULL, 0, NULL},
};

int
again_add_functions(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}

#endif
