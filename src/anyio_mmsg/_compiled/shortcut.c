/* Shortcut: the usual send by one step, of a list, a tuple or a batch without options. It checks the
 * socket, fills in headers, makes the call and returns the result, as _send/functions.py and
 * _send/engine.py do for any send; they are the reference. Anything unusual is left to them, before
 * anything was sent.
 */

#include "compiled.h"

#ifdef __linux__

#include <errno.h>

#include "sendmmsg.h"

typedef struct {
    PyObject_HEAD
    State *state;
    PyTypeObject *result; /* SendResult */
    PyObject *failure;    /* SendFailure */
    PyTypeObject *batch;  /* PacketBatch */
    PyObject *refused;    /* the class Refused */
    PyObject *refuse;     /* refuse_usual: raises the error of a packet that can't be sent */
    PyObject *conclude;   /* deals with what ended a send before all was sent */
    PyObject *nothing;    /* NOTHING: the progress of a send that has not begun */
    Courses courses;
    /* The last send and its result, to be used again if nobody else refers to them; and memory that
     * the last one had. A send that is under way has taken all this away. */
    Sendmmsg *spare;
    PyObject *spare_result;
    Room room;
    Py_ssize_t progress; /* of a SendResult, as by slot_of_class */
    PyObject *slots, *any, *sendmmsg, *gso_name, *result_name; /* interned */
} Shortcut;

static int
shortcut_traverse(Shortcut *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->result);
    Py_VISIT(self->failure);
    Py_VISIT(self->batch);
    Py_VISIT(self->refused);
    Py_VISIT(self->refuse);
    Py_VISIT(self->conclude);
    Py_VISIT(self->nothing);
    Py_VISIT(self->spare);
    Py_VISIT(self->spare_result);
    return courses_traverse(&self->courses, visit, arg);
}

static int
shortcut_clear(Shortcut *self)
{
    Py_CLEAR(self->result);
    Py_CLEAR(self->failure);
    Py_CLEAR(self->batch);
    Py_CLEAR(self->refused);
    Py_CLEAR(self->refuse);
    Py_CLEAR(self->conclude);
    Py_CLEAR(self->nothing);
    Py_CLEAR(self->spare);
    Py_CLEAR(self->spare_result);
    courses_clear(&self->courses);
    return 0;
}

static void
shortcut_dealloc(Shortcut *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)shortcut_clear(self);
    room_free(&self->room);
    Py_XDECREF(self->slots);
    Py_XDECREF(self->any);
    Py_XDECREF(self->sendmmsg);
    Py_XDECREF(self->gso_name);
    Py_XDECREF(self->result_name);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Shortcut(SendResult, SendFailure, socket.socket, PacketBatch, Known, Refused, known, asked, learn,
 * refuse_usual, conclude, NOTHING) */
static PyObject *
shortcut_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *result, *failure, *kind, *batch, *course, *refused, *known, *asked, *learn;
    PyObject *refuse, *conclude, *nothing;
    Shortcut *self;
    if (!PyArg_ParseTuple(args, "O!OO!O!O!OO!O!OOOO", &PyType_Type, &result, &failure,
                          &PyType_Type, &kind, &PyType_Type, &batch, &PyType_Type, &course,
                          &refused, &PyDict_Type, &known, &PyDict_Type, &asked, &learn, &refuse,
                          &conclude, &nothing)) {
        return NULL;
    }
    self = (Shortcut *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state_of_type(type);
    self->result = (PyTypeObject *)Py_NewRef(result);
    self->failure = Py_NewRef(failure);
    self->batch = (PyTypeObject *)Py_NewRef(batch);
    self->refused = Py_NewRef(refused);
    self->refuse = Py_NewRef(refuse);
    self->conclude = Py_NewRef(conclude);
    self->nothing = Py_NewRef(nothing);
    if ((self->slots = PyUnicode_InternFromString("_slots")) == NULL
        || (self->any = PyUnicode_InternFromString("auto")) == NULL
        || (self->sendmmsg = PyUnicode_InternFromString("sendmmsg")) == NULL
        || (self->gso_name = PyUnicode_InternFromString("gso")) == NULL
        || (self->result_name = PyUnicode_InternFromString("result")) == NULL
        || (self->progress = slot_of_class(self->result, "_progress")) < 0
        || courses_make(&self->courses, kind, course, known, asked, learn) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* Arguments of a usual send. `keep`: whether to go on later, as in `Sender.send`. */
typedef struct {
    PyObject *sock, *packets;
    PyObject *data;   /* one payload for `packets`, which are addresses then; or None */
    PyObject *result; /* a SendResult that was given, or None */
    int gso, keep;
} Call;

/* What a call sends if it is usual: a list, a tuple, or the slots of a batch; a new reference, or NULL,
 * perhaps with an error. */
static PyObject *
packets_of(Shortcut *self, const Call *call)
{
    PyObject *slots, *refused = PyObject_GetAttr(self->refused, self->sendmmsg);
    Py_XDECREF(refused); /* compared only */
    if (refused != Py_False
        || (call->result != Py_None && Py_TYPE(call->result) != self->result)) {
        return NULL;
    }
    if (PyList_CheckExact(call->packets) || PyTuple_CheckExact(call->packets)) {
        if (call->data == Py_None) {
            return Py_NewRef(call->packets);
        }
        if (PySequence_Fast_GET_SIZE(call->packets) == 0) {
            return NULL; /* data for nobody is checked too */
        }
        return PySequence_Tuple(call->packets); /* addresses may change while they are encoded */
    }
    if (call->data != Py_None || !PyObject_TypeCheck(call->packets, self->batch)) {
        return NULL;
    }
    slots = PyObject_GetAttr(call->packets, self->slots);
    if (slots != NULL && Py_TYPE(slots) != self->state->slots) { /* it is closed */
        Py_CLEAR(slots);
    }
    return slots;
}

/* Take what an earlier send left to be used again. Whatever somebody else refers to is left to them,
 * and NULL in its place. */
static Sendmmsg *
take_spares(Shortcut *self, PyObject **result)
{
    Sendmmsg *spare = self->spare;
    *result = self->spare_result;
    self->spare = NULL;
    self->spare_result = NULL;
    if (*result != NULL && Py_REFCNT(*result) > 1) {
        Py_CLEAR(*result); /* somebody has it */
    }
    if (*result != NULL) {
        PyObject **progress = at_slot(*result, self->progress);
        Py_XSETREF(*progress, NULL);
    }
    if (spare != NULL && Py_REFCNT(spare) > 1) {
        Py_CLEAR(spare);
    }
    return spare;
}

/* Keep for the next send what this one had, if it is over; takes both references. */
static void
keep_spares(Shortcut *self, Sendmmsg *sender, PyObject *result)
{
    if (sender->headers == NULL && sender->room.packets <= KEPT_ROOM
        && self->room.headers == NULL) {
        self->room = sender->room;
        memset(&sender->room, 0, sizeof(sender->room));
    }
    else if (sender->headers == NULL) {
        room_free(&sender->room);
    }
    if (self->spare == NULL && self->spare_result == NULL) {
        self->spare = sender;
        self->spare_result = result;
    }
    else { /* a send in between, of a signal handler or a thread, has left its own */
        Py_DECREF(sender);
        Py_XDECREF(result);
    }
}

/* Have the error that is set say which packet can't be sent. */
static void
refuse(Shortcut *self, const Call *call)
{
    PyObject *type, *error, *trace, *done;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    done = PyObject_CallFunctionObjArgs(self->refuse, call->sock, call->packets, call->data,
                                        call->result, error, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    Py_XDECREF(done); /* it raises */
}

/* Fill in headers for packets to go out by a socket: 0, or 1 if that is not usual; or -1 and an error. */
static int
begin(Shortcut *self, Sendmmsg *sender, const Call *call, PyObject *known, PyObject *packets)
{
    Course course;
    int done = courses_read(&self->courses, known, call->sock, &course);
    if (done <= 0) {
        return done < 0 ? -1 : 1;
    }
    course.gso = course.gso && call->gso;
    sender->room = self->room;
    memset(&self->room, 0, sizeof(self->room));
    done = sendmmsg_begin(sender, packets, &course, call->data == Py_None ? NULL : call->data,
                          Py_None);
    if (done < 0
        && (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_ValueError)
            || PyErr_ExceptionMatches(PyExc_BufferError))) {
        refuse(self, call);
    }
    return done;
}

/* Send by a send whose headers are filled in. 0, and `sender->code` says what ended it; or -1 and an
 * error. `result`, which reads its progress, is what the call gave, or a new one if that is NULL. */
static int
run(Shortcut *self, Sendmmsg *sender, const Call *call, PyObject **result)
{
    PyObject **progress;
    int fd;
    if (*result == NULL) {
        *result = self->result->tp_alloc(self->result, 0);
        if (*result == NULL) {
            return -1;
        }
    }
    progress = at_slot(*result, self->progress);
    Py_INCREF(sender);
    Py_XSETREF(*progress, (PyObject *)sender);
    /* Now: what was run since the checks may have closed it. */
    fd = courses_descriptor(&self->courses, call->sock);
    if (fd < -1) {
        return -1;
    }
    sender->code = sendmmsg_run(sender, fd, call->keep);
    return sender->code < 0 ? -1 : 0;
}

/* Check, and send. 1, with `sender` and `result`, new references; 0: it is not usual, and nothing was
 * sent; or -1 and an error. */
static int
send_usual(Shortcut *self, const Call *call, Sendmmsg **sender, PyObject **result)
{
    PyObject *packets = packets_of(self, call), *known = NULL;
    int done;
    *sender = NULL;
    *result = NULL;
    if (packets != NULL) {
        known = courses_known(&self->courses, call->sock);
    }
    if (known == NULL) {
        Py_XDECREF(packets);
        return PyErr_Occurred() ? -1 : 0;
    }
    if (call->result != Py_None) { /* which lets go of the send that it reads */
        PyObject **progress = at_slot(call->result, self->progress);
        Py_INCREF(self->nothing);
        Py_XSETREF(*progress, self->nothing);
    }
    *sender = take_spares(self, result);
    if (call->result != Py_None) {
        Py_INCREF(call->result);
        Py_XSETREF(*result, call->result);
    }
    if (*sender == NULL) {
        *sender = sendmmsg_new(self->state, self->failure);
    }
    done = *sender == NULL ? -1 : begin(self, *sender, call, known, packets);
    Py_DECREF(known);
    Py_DECREF(packets);
    if (done == 0 && run(self, *sender, call, result) == 0) {
        return 1;
    }
    if (*sender != NULL) {
        sendmmsg_end(*sender); /* the result that was given may keep it */
    }
    Py_CLEAR(*sender);
    Py_CLEAR(*result);
    return done > 0 ? 0 : -1;
}

/* What a send gives that is over, or goes on; takes both references. */
static PyObject *
give(Shortcut *self, Sendmmsg *sender, PyObject *result)
{
    keep_spares(self, sender, Py_NewRef(result));
    return result;
}

/* Arguments of send_mmsg. */
enum { ARGUMENTS = 8 };

/* Read the arguments of send_mmsg: whether they are usual. */
static int
usual_arguments(Shortcut *self, PyObject *const *args, Py_ssize_t nargs, Call *call)
{
    if (nargs < ARGUMENTS || args[3] != Py_False || args[4] != Py_None || args[5] != Py_None
        || args[6] != self->any || !PyBool_Check(args[2])) {
        return 0;
    }
    call->sock = args[0];
    call->packets = args[1];
    call->data = Py_None;
    call->gso = args[2] == Py_True;
    call->result = args[7];
    call->keep = 1;
    return 1;
}

/* usable(*arguments): whether `send` would send. */
static PyObject *
shortcut_usable(Shortcut *self, PyObject *const *args, Py_ssize_t nargs)
{
    Call call;
    PyObject *packets = NULL, *known = NULL;
    int fd = -1;
    if (usual_arguments(self, args, nargs, &call)) {
        packets = packets_of(self, &call);
    }
    if (packets != NULL && (known = courses_known(&self->courses, call.sock)) != NULL) {
        fd = courses_descriptor(&self->courses, call.sock);
    }
    Py_XDECREF(known);
    Py_XDECREF(packets);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(fd >= 0);
}

/* Send. Returns the result if all packets were handled, and the sender if some have to wait for room.
 * Returns None if the call is not usual; then nothing was sent. */
static PyObject *
send_on(Shortcut *self, const Call *call)
{
    Sendmmsg *sender;
    PyObject *result;
    int done = send_usual(self, call, &sender, &result);
    if (done <= 0) {
        return done < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (sender->code != 0) {
        Py_DECREF(result);
        return (PyObject *)sender;
    }
    return give(self, sender, result);
}

/* send(*arguments): see `Usual` in _send/usual.py, also for the next ones. */
static PyObject *
shortcut_send(Shortcut *self, PyObject *const *args, Py_ssize_t nargs)
{
    Call call;
    return usual_arguments(self, args, nargs, &call) ? send_on(self, &call) : Py_NewRef(Py_None);
}

/* fan(sock, data, addresses, result) */
static PyObject *
shortcut_fan(Shortcut *self, PyObject *const *args, Py_ssize_t nargs)
{
    Call call;
    if (nargs != 4) {
        return PyErr_Format(PyExc_TypeError, "fan takes a socket, data, addresses, a result");
    }
    call = (Call){args[0], args[2], args[1], args[3], 0, 1};
    return args[1] == Py_None ? Py_NewRef(Py_None) : send_on(self, &call);
}

/* Whether a keyword of send_mmsg_nowait is given what it is without it. */
static int
is_default(Shortcut *self, PyObject *name, PyObject *value)
{
    static const char *const names[] = {"source", "ecn", "reply_from_destination", "engine"};
    PyObject *defaults[] = {Py_None, Py_None, Py_False, self->any};
    size_t i;
    for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (value == defaults[i] && PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

/* nowait(sock, packets, *, gso=False, result=None), and the other keywords with their defaults */
static PyObject *
shortcut_nowait(Shortcut *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Call call = {NULL, NULL, Py_None, Py_None, 0, 0};
    Sendmmsg *sender;
    PyObject *result, *done;
    Py_ssize_t i, named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    int yes = nargs == 2;
    for (i = 0; yes && i < named; i++) {
        PyObject *value = args[nargs + i], *name = PyTuple_GET_ITEM(names, i);
        if (name == self->gso_name && PyBool_Check(value)) {
            call.gso = value == Py_True;
        }
        else if (name == self->result_name) {
            call.result = value;
        }
        else {
            yes = is_default(self, name, value);
        }
    }
    if (yes) {
        call.sock = args[0];
        call.packets = args[1];
        yes = send_usual(self, &call, &sender, &result);
    }
    if (yes <= 0) {
        return yes < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    if (sender->code == 0 || (sender->code == EAGAIN && sender->handled > 0)) {
        return give(self, sender, result);
    }
    done = PyObject_CallFunction(self->conclude, "OOiO", call.sock, sender, sender->code,
                                 call.result);
    Py_DECREF(sender);
    Py_DECREF(result);
    return done;
}

#define FAST(function, flags) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | (flags)

static PyMethodDef shortcut_methods[] = {
    {"usable", FAST(shortcut_usable, 0), NULL},
    {"send", FAST(shortcut_send, 0), NULL},
    {"fan", FAST(shortcut_fan, 0), NULL},
    {"nowait", FAST(shortcut_nowait, METH_KEYWORDS), NULL},
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
