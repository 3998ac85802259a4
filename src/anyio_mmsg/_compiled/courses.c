/* What is known of the sockets that packets go out by: Courses, a part of a Shortcut. It asks what may
 * change, and finds what does not: `Known` in _send/known.py has it, and C reads that at its
 * `__slots__`.
 */

#include "compiled.h"

#ifdef __linux__

#include "sendmmsg.h"

int
courses_make(Courses *self, PyObject *kind, PyObject *course, PyObject *known, PyObject *asked,
             PyObject *learn)
{
    self->kind = Py_NewRef(kind);
    self->course = (PyTypeObject *)Py_NewRef(course);
    self->known = Py_NewRef(known);
    self->asked = Py_NewRef(asked);
    self->learn = Py_NewRef(learn);
    if ((self->fileno = PyObject_GetAttrString(kind, "fileno")) == NULL
        || (self->gettimeout = PyObject_GetAttrString(kind, "gettimeout")) == NULL
        || (self->sock = slot_of_class(self->course, "_sock")) < 0
        || (self->family = slot_of_class(self->course, "family")) < 0
        || (self->most = slot_of_class(self->course, "most")) < 0
        || (self->sockaddrs = slot_of_class(self->course, "sockaddrs")) < 0
        || (self->reports = slot_of_class(self->course, "reports")) < 0
        || (self->segmentation = slot_of_class(self->course, "segmentation")) < 0) {
        return -1;
    }
    return 0;
}

int
courses_traverse(Courses *self, visitproc visit, void *arg)
{
    int i;
    Py_VISIT(self->kind);
    Py_VISIT(self->course);
    Py_VISIT(self->known);
    Py_VISIT(self->asked);
    Py_VISIT(self->learn);
    Py_VISIT(self->fileno);
    Py_VISIT(self->gettimeout);
    for (i = 0; i < RECENT_SOCKETS; i++) {
        Py_VISIT(self->recent[i]);
    }
    return 0;
}

void
courses_clear(Courses *self)
{
    int i;
    Py_CLEAR(self->kind);
    Py_CLEAR(self->course);
    Py_CLEAR(self->known);
    Py_CLEAR(self->asked);
    Py_CLEAR(self->learn);
    Py_CLEAR(self->fileno);
    Py_CLEAR(self->gettimeout);
    for (i = 0; i < RECENT_SOCKETS; i++) {
        Py_CLEAR(self->recent[i]);
    }
}

int
courses_descriptor(Courses *self, PyObject *sock)
{
    PyObject *number = PyObject_CallOneArg(self->fileno, sock);
    long fd = number == NULL ? -2 : PyLong_AsLong(number);
    Py_XDECREF(number);
    return (int)fd;
}

/* Whether a socket is of the kind, and nonblocking; -1 and an error. */
static int
is_nonblocking(Courses *self, PyObject *sock)
{
    PyObject *timeout;
    int is_zero;
    if ((PyObject *)Py_TYPE(sock) != self->kind) {
        return 0;
    }
    timeout = PyObject_CallOneArg(self->gettimeout, sock);
    if (timeout == NULL) {
        return -1;
    }
    is_zero = PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == 0.0;
    Py_DECREF(timeout);
    return is_zero;
}

/* The `Known` of a socket that can be used, a new reference, from `known`, or learned now; NULL
 * without an error if there is none. */
static PyObject *
look_up(Courses *self, PyObject *sock)
{
    PyObject *id = PyLong_FromVoidPtr(sock), *found; /* as id() */
    if (id == NULL) {
        return NULL;
    }
    found = PyDict_GetItemWithError(self->known, id);
    Py_DECREF(id);
    if (found != NULL) {
        return Py_NewRef(found);
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    found = PyObject_CallOneArg(self->learn, sock);
    if (found == Py_None) {
        Py_CLEAR(found);
    }
    return found;
}

PyObject *
courses_known(Courses *self, PyObject *sock)
{
    PyObject **entry, *known;
    int yes = is_nonblocking(self, sock);
    if (yes <= 0) {
        return NULL;
    }
    entry = &self->recent[((uintptr_t)sock >> 4) % RECENT_SOCKETS]; /* addresses are multiples */
    if (*entry != NULL) {
        PyObject *reference = *at_slot(*entry, self->sock);
        if (refers_to(reference, sock)) {
            return Py_NewRef(*entry);
        }
    }
    known = look_up(self, sock);
    if (known != NULL && Py_TYPE(known) != self->course) {
        Py_CLEAR(known);
    }
    if (known != NULL) {
        Py_INCREF(known);
        Py_XSETREF(*entry, known);
    }
    return known;
}

int
courses_read(Courses *self, PyObject *known, PyObject *sock, Course *course)
{
    PyObject *family = *at_slot(known, self->family), *most = *at_slot(known, self->most);
    PyObject *sockaddrs = *at_slot(known, self->sockaddrs);
    if (family == NULL || !PyLong_CheckExact(family) || most == NULL || !PyLong_CheckExact(most)
        || sockaddrs == NULL || !PyDict_Check(sockaddrs)) {
        return 0;
    }
    course->sockaddrs = sockaddrs;
    course->family = (int)PyLong_AsLong(family);
    course->most = PyLong_AsSsize_t(most);
    course->gso = *at_slot(known, self->segmentation) == Py_True;
    course->reports = *at_slot(known, self->reports) == Py_True;
    if (!course->reports && PyDict_GET_SIZE(self->asked) > 0) {
        PyObject *id = PyLong_FromVoidPtr(sock);
        int asked = id == NULL ? -1 : PyDict_Contains(self->asked, id);
        Py_XDECREF(id);
        course->reports = asked > 0;
        return asked < 0 ? -1 : 1;
    }
    return PyErr_Occurred() ? -1 : 1;
}

#endif
