/* Sendmmsg: sends by sendmmsg(2), the twin of _send/sendto.py. An object is one send.
 *
 * What the headers point to, and what keeps it alive until `sendmmsg_drop`, which ends the send:
 *
 *   payloads that are bytes      a reference to them
 *   other payloads               an export of their buffer
 *   payloads in a ring           a reference to its Slots, whose packets are pinned
 *   names                        a reference to the bytes, or to the engine that has them
 *   control data                 a reference to the bytes, or to the tuple of them
 *   headers, iovecs, runs        this object, which owns them (`Room`)
 *
 * The caller of `send` has a reference to this object for as long as the system call lasts, and
 * `busy` keeps other threads from it meanwhile. The kernel keeps no pointer.
 *
 * One C function makes the call, reads errno and records the outcome: no bytecode ends in between,
 * so no signal handler runs there.
 */

#include "compiled.h"

#ifdef __linux__

#include <errno.h>

#include "sendmmsg.h"

void
room_free(Room *room)
{
    PyMem_Free(room->headers);
    PyMem_Free(room->runs);
    memset(room, 0, sizeof(*room));
}

/* Let go of all that was kept, but the room. Code that this runs finds nothing here any more. */
static void
sendmmsg_drop(Sendmmsg *self)
{
    Py_ssize_t i, laid = self->laid, exports = self->exports;
    Held *held = self->held;
    Room room = self->room; /* where `held` is: taken away meanwhile */
    Py_buffer *buffers = self->buffers;
    Slots *slots = self->slots;
    PyObject *controls = self->controls;
    self->headers = NULL;
    self->iovecs = NULL;
    self->held = NULL;
    self->laid = 0;
    self->buffers = NULL;
    self->exports = 0;
    self->slots = NULL;
    self->kept = NULL;
    self->controls = NULL;
    memset(&self->room, 0, sizeof(self->room));
    for (i = 0; i < exports; i++) {
        PyBuffer_Release(&buffers[i]);
    }
    PyMem_Free(buffers);
    if (slots != NULL) {
        slots->pins--;
        Py_DECREF(slots);
    }
    for (i = 0; i < laid; i++) {
        Py_XDECREF(held[i].data);
        Py_XDECREF(held[i].name);
    }
    Py_XDECREF(controls);
    self->room = room;
}

/* The same when there may be an error, which stays. */
static void
drop_keeping_error(Sendmmsg *self)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    sendmmsg_drop(self);
    PyErr_Restore(type, error, trace);
}

void
sendmmsg_end(Sendmmsg *self)
{
    drop_keeping_error(self);
    room_free(&self->room);
}

/* What errors refer to, above all frames, may lead back to this object. */
static int
sendmmsg_traverse(Sendmmsg *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->failure);
    Py_VISIT(self->failures);
    return 0;
}

static int
sendmmsg_clear(Sendmmsg *self)
{
    Py_CLEAR(self->failures);
    return 0;
}

static void
sendmmsg_dealloc(Sendmmsg *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    sendmmsg_end(self);
    Py_XDECREF(self->failure);
    Py_XDECREF(self->failures);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

Sendmmsg *
sendmmsg_new(State *state, PyObject *failure)
{
    Sendmmsg *self = (Sendmmsg *)state->sendmmsg->tp_alloc(state->sendmmsg, 0);
    if (self != NULL) {
        self->state = state;
        self->failure = Py_NewRef(failure);
    }
    return self;
}

int
sendmmsg_begin(Sendmmsg *self, PyObject *packets, const Course *course, PyObject *data,
               PyObject *controls)
{
    int done;
    Py_CLEAR(self->failures);
    self->count = self->handled = 0;
    self->code = 0;
    self->refused = 0;
    self->gso = course->gso;
    self->reports = course->reports;
    self->busy = 1; /* code that is run here may find this object by gc.get_objects() */
    done = sendmmsg_lay(self, packets, course->sockaddrs, course->family, course->most, data,
                        PyTuple_CheckExact(controls));
    if (done == 0) {
        done = sendmmsg_lay_control(self, controls);
    }
    self->busy = 0;
    if (done != 0) {
        drop_keeping_error(self);
    }
    return done;
}

/* Sendmmsg(failure, packets, sockaddrs, family, most, flags, data=<one payload for addresses>,
 * controls=<control data>); the last two may be None. Flags: 1 for segmentation offload, 2 if the
 * socket's errors come by its error queue. None if packets have options, and `controls` is not a
 * tuple of what each has. A vectorcall, as it costs less. */
static PyObject *
sendmmsg_make(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *names)
{
    State *state = state_of_type((PyTypeObject *)type);
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    Course course;
    long flags;
    int done;
    Sendmmsg *self;
    if (state == NULL) {
        return NULL;
    }
    if (nargs < 6 || nargs > 8 || (names != NULL && PyTuple_GET_SIZE(names) > 0)) {
        PyErr_SetString(PyExc_TypeError, "Sendmmsg takes 6 to 8 positional arguments");
        return NULL;
    }
    course.sockaddrs = args[2];
    course.family = (int)PyLong_AsLong(args[3]);
    course.most = PyLong_AsSsize_t(args[4]);
    flags = PyLong_AsLong(args[5]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    course.gso = (flags & 1) != 0;
    course.reports = (flags & 2) != 0;
    self = sendmmsg_new(state, args[0]);
    if (self == NULL) {
        return NULL;
    }
    done = sendmmsg_begin(self, args[1], &course, nargs > 6 && args[6] != Py_None ? args[6] : NULL,
                          nargs > 7 ? args[7] : Py_None);
    if (done != 0) {
        Py_DECREF(self);
        return done > 0 ? Py_NewRef(Py_None) : NULL;
    }
    return (PyObject *)self;
}

/* Call sendmmsg without the GIL; return what it returned, or -errno. */
static int
call(Sendmmsg *self, int fd, struct mmsghdr *headers, int count)
{
    int sent;
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    if (self->reports) {
        sent = struck_send(fd, headers, count);
    }
    else {
        sent = sendmmsg(fd, headers, (unsigned int)count, MSG_DONTWAIT);
        sent = sent < 0 ? -errno : sent;
    }
    Py_END_ALLOW_THREADS
    self->busy = 0;
    return Py_MIN(sent, count);
}

/* Send the next packets by one call, and record it; return how many were sent, or -errno. */
static int
send_next(Sendmmsg *self, int fd, int *run)
{
    struct mmsghdr *headers = self->headers + self->handled;
    int i, sent, packets = 0, count = (int)Py_MIN(self->count - self->handled, MOST_MESSAGES);
    *run = 1;
    if (self->gso) {
        headers = self->room.runs->headers;
        count = runs_lay(self);
        *run = self->room.runs->lengths[0];
    }
    if (self->reports) {
        count = struck_count(self, fd, headers, count);
    }
    sent = call(self, fd, headers, count);
    if (sent <= 0) {
        return sent == 0 ? -EAGAIN : sent;
    }
    for (i = 0; self->gso && i < sent; i++) {
        packets += self->room.runs->lengths[i];
    }
    self->handled += self->gso ? packets : sent;
    return sent;
}

/* Whether ENOSYS or EPERM was for the call, and not for a packet: then an empty one gets it too.
 * A packet filter says EPERM for packets, a seccomp filter for calls. */
static int
is_forbidden(Sendmmsg *self, int fd)
{
    int answer = call(self, fd, self->headers, 0);
    return answer == -ENOSYS || answer == -EPERM;
}

/* The list of failures, made now if there is none: a borrowed reference, or NULL and an error. */
static PyObject *
failures_of(Sendmmsg *self)
{
    if (self->failures == NULL) {
        self->failures = PyList_New(0);
    }
    return self->failures;
}

/* Record that the next packet was refused. */
static int
refuse(Sendmmsg *self, int code)
{
    PyObject *failure, *error = PyObject_CallFunction(PyExc_OSError, "is", code, strerror(code));
    int done;
    if (error == NULL) {
        return -1;
    }
    failure = PyObject_CallFunction(self->failure, "nN", self->handled, error);
    if (failure == NULL) {
        return -1;
    }
    done = failures_of(self) == NULL ? -1 : PyList_Append(self->failures, failure);
    Py_DECREF(failure);
    if (done == 0) {
        self->handled++;
    }
    return done;
}

/* Send what there is room for; return what `Sender.send` in _send/engine.py does, or -1 and an
 * error. What was sent is recorded in each case. */
static int
send_all(Sendmmsg *self, int fd)
{
    int doubted = 0;
    while (self->handled < self->count) {
        int code, run, sent;
        if (self->headers == NULL) { /* perhaps by a signal handler, just now */
            PyErr_SetString(PyExc_RuntimeError, "this send is over");
            return -1;
        }
        if (self->gso && runs_make(self) < 0) {
            return -1;
        }
        sent = send_next(self, fd, &run);
        if (sent > 0 || sent == -EINTR) {
            /* Fewer than asked for: the next one met an error, and will again, if it is its own. */
            doubted = 0;
            if (self->handled < self->count && PyErr_CheckSignals() < 0) {
                return -1;
            }
            continue;
        }
        code = -sent;
        if (code == EAGAIN || code == EWOULDBLOCK || code == EBADF || code == ENOTSOCK) {
            return code;
        }
        else if ((code == ENOSYS || code == EPERM) && is_forbidden(self, fd)) {
            self->refused = 1;
            return code;
        }
        else if (code == ENOSYS && !doubted) {
            doubted = 1; /* it is not so: send again */
        }
        else if (struck_first(self, fd, code)) {
            continue; /* from here on what strikes is taken away, or sent again */
        }
        else if (run > 1 && (code == EIO || code == EINVAL || code == EMSGSIZE)) {
            /* How a route refuses segmentation: no checksums by its device, a segment above its
             * MTU, headers longer than usual. From here on without. */
            self->gso = 0;
        }
        else if (refuse(self, code) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
in_use(void)
{
    PyErr_SetString(PyExc_RuntimeError, "another thread is in this send");
    return NULL;
}

int
sendmmsg_run(Sendmmsg *self, int fd, int keep)
{
    int code;
    if (self->busy) {
        (void)in_use();
        return -1;
    }
    code = fd < 0 ? EBADF : send_all(self, fd);
    if (self->handled == self->count || (!keep && !self->refused)) {
        drop_keeping_error(self);
    }
    return code;
}

/* send(sock, result, keep): see `Sender.send` in _send/engine.py. */
static PyObject *
sendmmsg_send(Sendmmsg *self, PyObject *const *args, Py_ssize_t nargs)
{
    int fd, code;
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "send takes a socket, a result, and whether to go on");
        return NULL;
    }
    if ((args[1] != Py_None
         && PyObject_SetAttr(args[1], self->state->progress, (PyObject *)self) < 0)
        || descriptor_of(self->state, args[0], &fd) < 0) {
        return NULL;
    }
    code = sendmmsg_run(self, fd, args[2] == Py_True);
    if (self->headers == NULL) {
        room_free(&self->room);
    }
    return code < 0 ? NULL : PyLong_FromLong(code);
}

/* rest(): copies of what was not handled: a list of payloads, and one of sockaddrs. */
static PyObject *
sendmmsg_rest(Sendmmsg *self, PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t i, count = self->headers == NULL ? 0 : self->count - self->handled;
    PyObject *datas, *names, *both = NULL;
    if (self->busy) {
        return in_use();
    }
    datas = PyList_New(count);
    names = PyList_New(count);
    for (i = 0; datas != NULL && names != NULL && i < count; i++) {
        const struct iovec *iovec = &self->iovecs[self->handled + i];
        const struct msghdr *header = &self->headers[self->handled + i].msg_hdr;
        PyObject *data = PyBytes_FromStringAndSize(iovec->iov_base, (Py_ssize_t)iovec->iov_len);
        PyObject *name = PyBytes_FromStringAndSize(header->msg_name, header->msg_namelen);
        PyList_SET_ITEM(datas, i, data);
        PyList_SET_ITEM(names, i, name);
        if (data == NULL || name == NULL) {
            goto done;
        }
    }
    if (datas != NULL && names != NULL) {
        both = PyTuple_Pack(2, datas, names);
    }
done:
    Py_XDECREF(datas);
    Py_XDECREF(names);
    return both;
}

/* release(): let go of payloads and names; nothing can be sent any more. */
static PyObject *
sendmmsg_release(Sendmmsg *self, PyObject *Py_UNUSED(ignored))
{
    if (self->busy) {
        return in_use();
    }
    sendmmsg_end(self);
    Py_RETURN_NONE;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef sendmmsg_methods[] = {
    {"send", FAST(sendmmsg_send), DOC_Sendmmsg_send},
    {"rest", (PyCFunction)sendmmsg_rest, METH_NOARGS, NULL},
    {"release", (PyCFunction)sendmmsg_release, METH_NOARGS, DOC_Sendmmsg_release},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef sendmmsg_members[] = {
    {"count", T_PYSSIZET, offsetof(Sendmmsg, count), READONLY, NULL},
    {"handled", T_PYSSIZET, offsetof(Sendmmsg, handled), READONLY, NULL},
    {"refused", T_BOOL, offsetof(Sendmmsg, refused), READONLY, NULL},
    {"code", T_INT, offsetof(Sendmmsg, code), READONLY, NULL}, /* that of a Shortcut's send */
    {"controls", T_OBJECT, offsetof(Sendmmsg, controls), READONLY, NULL}, /* None without */
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
sendmmsg_failures(Sendmmsg *self, void *Py_UNUSED(closure))
{
    return Py_XNewRef(failures_of(self));
}

static PyObject *
sendmmsg_progress(Sendmmsg *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self);
}

static PyGetSetDef sendmmsg_getset[] = {
    {"progress", (getter)sendmmsg_progress, NULL, NULL, NULL},
    {"failures", (getter)sendmmsg_failures, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot sendmmsg_slots[] = {
    /* clang-format off */
    {Py_tp_doc, DOC_Sendmmsg},
    {Py_tp_dealloc, sendmmsg_dealloc},
    {Py_tp_traverse, sendmmsg_traverse},
    {Py_tp_clear, sendmmsg_clear},
    {Py_tp_getset, sendmmsg_getset},
    {Py_tp_methods, sendmmsg_methods},
    {Py_tp_members, sendmmsg_members},
    {0, NULL},
    /* clang-format on */
};

static PyType_Spec sendmmsg_spec = {
    .name = "anyio_mmsg._compiled.Sendmmsg",
    .basicsize = sizeof(Sendmmsg),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION, /* but by the vectorcall */
    .slots = sendmmsg_slots,
};

int
sendmmsg_add_types(PyObject *module, State *state)
{
    state->sendmmsg = (PyTypeObject *)PyType_FromModuleAndSpec(module, &sendmmsg_spec, NULL);
    if (state->sendmmsg == NULL) {
        return -1;
    }
    state->sendmmsg->tp_vectorcall = sendmmsg_make;
    return PyModule_AddType(module, state->sendmmsg) < 0 ? -1 : shortcut_add_type(module);
}

#endif
