/* Shortcut: the usual send by one step, of a list or a batch without options. It checks the
 * socket, fills in headers, makes the call and returns the result, as _send/functions.py and
 * _send/engine.py do for any send; they are the reference. Anything unusual is left to them before
 * anything was sent.
 */

#include "compiled.h"

#ifdef __linux__

#include "sendmmsg.h"

typedef struct {
    PyObject_HEAD
    State *state;
    PyTypeObject *result; /* SendResult */
    PyObject *failure;    /* SendFailure */
    PyObject *kind;       /* socket.socket: not a subclass, which may override methods */
    PyObject *known;      /* a dict: `Known` by id of the socket, whose entry goes with it */
    PyObject *asked;      /* a dict: by id, sockets whose errors come by the error queue */
    PyTypeObject *batch;  /* PacketBatch */
    PyObject *learn; /* makes the entry in `known` of a socket that can be used, or gives None */
    PyObject *fileno, *gettimeout; /* functions of sockets */
    PyObject *usual, *slots, *any; /* "usual", of a Known; "_slots", of a batch; "auto" */
} Shortcut;

/* Shortcut(SendResult, SendFailure, socket.socket, known, asked, PacketBatch, learn) */
static PyObject *
shortcut_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *result, *failure, *kind, *known, *asked, *batch, *learn;
    Shortcut *self;
    if (!PyArg_ParseTuple(args, "O!OOO!O!O!O", &PyType_Type, &result, &failure, &kind,
                          &PyDict_Type, &known, &PyDict_Type, &asked, &PyType_Type, &batch,
                          &learn)) {
        return NULL;
    }
    self = (Shortcut *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state_of_type(type);
    self->result = (PyTypeObject *)Py_NewRef(result);
    self->failure = Py_NewRef(failure);
    self->kind = Py_NewRef(kind);
    self->known = Py_NewRef(known);
    self->asked = Py_NewRef(asked);
    self->batch = (PyTypeObject *)Py_NewRef(batch);
    self->learn = Py_NewRef(learn);
    self->fileno = PyObject_GetAttrString(kind, "fileno");
    self->gettimeout = PyObject_GetAttrString(kind, "gettimeout");
    self->usual = PyUnicode_InternFromString("usual");
    self->slots = PyUnicode_InternFromString("_slots");
    self->any = PyUnicode_InternFromString("auto");
    if (self->state == NULL || self->fileno == NULL || self->gettimeout == NULL
        || self->usual == NULL || self->slots == NULL || self->any == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
shortcut_traverse(Shortcut *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->result);
    Py_VISIT(self->failure);
    Py_VISIT(self->kind);
    Py_VISIT(self->known);
    Py_VISIT(self->asked);
    Py_VISIT(self->batch);
    Py_VISIT(self->learn);
    Py_VISIT(self->fileno);
    Py_VISIT(self->gettimeout);
    return 0;
}

static int
shortcut_clear(Shortcut *self)
{
    Py_CLEAR(self->result);
    Py_CLEAR(self->failure);
    Py_CLEAR(self->kind);
    Py_CLEAR(self->known);
    Py_CLEAR(self->asked);
    Py_CLEAR(self->batch);
    Py_CLEAR(self->learn);
    Py_CLEAR(self->fileno);
    Py_CLEAR(self->gettimeout);
    return 0;
}

static void
shortcut_dealloc(Shortcut *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)shortcut_clear(self);
    Py_XDECREF(self->usual);
    Py_XDECREF(self->slots);
    Py_XDECREF(self->any);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The descriptor of a socket, -1 if it is closed; or -2 and an error. */
static int
descriptor(Shortcut *self, PyObject *sock)
{
    PyObject *number = PyObject_CallOneArg(self->fileno, sock);
    long fd = number == NULL ? -2 : PyLong_AsLong(number);
    Py_XDECREF(number);
    return (int)fd;
}

/* What is known of a socket that can be used as usual, if it is open, and its id, a new reference. It
 * is borrowed, and kept by the socket's entry in `known`. NULL: it can't, or there is an error. */
static PyObject *
known_of(Shortcut *self, PyObject *sock, PyObject **id)
{
    PyObject *timeout, *known;
    int is_zero;
    if ((PyObject *)Py_TYPE(sock) != self->kind) {
        return NULL;
    }
    timeout = PyObject_CallOneArg(self->gettimeout, sock);
    if (timeout == NULL) {
        return NULL;
    }
    is_zero = PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == 0.0;
    Py_DECREF(timeout);
    *id = is_zero ? PyLong_FromVoidPtr(sock) : NULL; /* as id() */
    if (*id == NULL) {
        return NULL;
    }
    known = PyDict_GetItemWithError(self->known, *id);
    if (known == NULL && !PyErr_Occurred()) { /* its first send */
        PyObject *learned = PyObject_CallOneArg(self->learn, sock);
        if (learned != NULL && learned != Py_None) {
            known = PyDict_GetItemWithError(self->known, *id);
        }
        Py_XDECREF(learned);
    }
    if (known == NULL) {
        Py_CLEAR(*id);
    }
    return known;
}

/* Read what is known of a socket: 1, or 0 if it is not as usual, or -1 and an error. `usual`, a new
 * reference, keeps what `course` has. */
static int
course_of(Shortcut *self, PyObject *known, PyObject *id, Course *course, PyObject **usual)
{
    int asked = 0;
    *usual = PyObject_GetAttr(known, self->usual);
    if (*usual == NULL || !PyTuple_CheckExact(*usual) || PyTuple_GET_SIZE(*usual) != 5) {
        return *usual == NULL ? -1 : 0;
    }
    course->sockaddrs = PyTuple_GET_ITEM(*usual, 0);
    course->family = (int)PyLong_AsLong(PyTuple_GET_ITEM(*usual, 1));
    course->most = PyLong_AsSsize_t(PyTuple_GET_ITEM(*usual, 2));
    course->gso = PyTuple_GET_ITEM(*usual, 3) == Py_True;
    course->reports = PyTuple_GET_ITEM(*usual, 4) == Py_True;
    if (PyErr_Occurred()) {
        return -1;
    }
    if (!course->reports && PyDict_GET_SIZE(self->asked) > 0) {
        asked = PyDict_Contains(self->asked, id);
        course->reports = asked > 0;
    }
    return asked < 0 ? -1 : 1;
}

/* Send, by a new Sendmmsg, which `result` or a new result reads: a SendResult if all is done, else
 * the Sendmmsg, whose `code` says why not. */
static PyObject *
send_by(Shortcut *self, Sendmmsg *sender, PyObject *sock, PyObject *result, int keep)
{
    PyObject *made;
    int fd;
    if (result != Py_None) {
        if (PyObject_SetAttr(result, self->state->progress, (PyObject *)sender) < 0) {
            return NULL;
        }
    }
    fd = descriptor(self, sock); /* now, as what was run since the checks may have closed it */
    if (fd < -1) {
        return NULL;
    }
    sender->code = sendmmsg_run(sender, fd, keep);
    if (sender->code != 0) {
        return sender->code < 0 ? NULL : Py_NewRef(sender);
    }
    if (result != Py_None) {
        return Py_NewRef(result);
    }
    made = self->result->tp_alloc(self->result, 0);
    if (made != NULL && PyObject_SetAttr(made, self->state->progress, (PyObject *)sender) < 0) {
        Py_CLEAR(made);
    }
    return made;
}

/* The packets that a call with arguments `args` sends, if it is usual: a list, or the slots of a
 * batch; a new reference, or NULL, perhaps with an error. */
static PyObject *
packets_of(Shortcut *self, PyObject *const *args)
{
    PyObject *packets = args[1], *result = args[7];
    if (args[3] != Py_False || args[4] != Py_None || args[5] != Py_None || args[6] != self->any
        || (result != Py_None && Py_TYPE(result) != self->result)) {
        return NULL;
    }
    if (PyList_CheckExact(packets)) {
        return Py_NewRef(packets);
    }
    if (!PyObject_TypeCheck(packets, self->batch)) {
        return NULL;
    }
    packets = PyObject_GetAttr(packets, self->slots);
    if (packets != NULL && Py_TYPE(packets) != self->state->slots) { /* it is closed */
        Py_CLEAR(packets);
    }
    return packets;
}

/* Arguments of send_mmsg. */
enum { ARGUMENTS = 8 };

/* usable(*arguments): whether `send` would send. */
static PyObject *
shortcut_usable(Shortcut *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *id = NULL, *packets = NULL;
    int fd = -1;
    if (nargs == ARGUMENTS) {
        packets = packets_of(self, args);
    }
    if (packets != NULL && known_of(self, args[0], &id) != NULL) {
        fd = descriptor(self, args[0]);
    }
    Py_XDECREF(id);
    Py_XDECREF(packets);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(fd >= 0);
}

/* send(*arguments, keep=False): see `Usual` in _send/engine.py. */
static PyObject *
shortcut_send(Shortcut *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *id = NULL, *usual = NULL, *packets, *known, *done = NULL;
    Sendmmsg *sender = NULL;
    Course course;
    int has_options = 0, is_usual = 0;
    if (nargs < ARGUMENTS || nargs > ARGUMENTS + 1) {
        PyErr_SetString(PyExc_TypeError, "send takes the arguments of send_mmsg, and `keep`");
        return NULL;
    }
    packets = packets_of(self, args);
    known = packets == NULL ? NULL : known_of(self, args[0], &id);
    if (known != NULL) {
        is_usual = course_of(self, known, id, &course, &usual);
    }
    if (is_usual > 0) {
        int gso =
            PyObject_IsTrue(args[2]); /* which may run anything, even end the socket's entry */
        course.gso = course.gso && gso > 0;
        sender = gso < 0 ? NULL
                         : sendmmsg_new(self->state, self->failure, packets, &course, NULL,
                                        Py_None, &has_options);
    }
    if (sender != NULL) {
        done = send_by(self, sender, args[0], args[7], nargs > ARGUMENTS && args[8] == Py_True);
        Py_DECREF(sender);
    }
    else if (!PyErr_Occurred()) {
        done = Py_NewRef(Py_None);
    }
    Py_XDECREF(packets);
    Py_XDECREF(id);
    Py_XDECREF(usual);
    return done;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef shortcut_methods[] = {
    {"usable", FAST(shortcut_usable), NULL},
    {"send", FAST(shortcut_send), NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shortcut_slots[] = {
    {Py_tp_new, shortcut_new},           {Py_tp_dealloc, shortcut_dealloc},
    {Py_tp_traverse, shortcut_traverse}, {Py_tp_clear, shortcut_clear},
    {Py_tp_methods, shortcut_methods},   {0, NULL},
};

static PyType_Spec shortcut_spec = {
    .name = "anyio_mmsg._compiled.Shortcut",
    .basicsize = sizeof(Shortcut),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = shortcut_slots,
};

int
shortcut_add_type(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &shortcut_spec, NULL);
    int done = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return done;
}

#endif
