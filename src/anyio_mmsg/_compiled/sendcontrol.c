/* Control data that goes out with packets. _send/ancillary.py makes it, as bytes: whole control
 * messages, each padded to whole words (cmsg(3)). The headers here only point to it.
 *
 * `Sendmmsg.controls` is bytes, for all packets, or a tuple of bytes, one for each. Neither changes,
 * and a reference to it is kept until `sendmmsg_drop`, so what headers point to stays where it is.
 */

#include "compiled.h"

#ifdef __linux__

#include "sendmmsg.h"

int
sendmmsg_lay_control(Sendmmsg *self, PyObject *controls)
{
    Py_ssize_t i;
    int for_all = PyBytes_CheckExact(controls);
    if (controls == Py_None) {
        return 0;
    }
    if (!for_all && (!PyTuple_CheckExact(controls) || PyTuple_GET_SIZE(controls) != self->count)) {
        PyErr_SetString(PyExc_TypeError, "control data is bytes, or a tuple of bytes by packet");
        return -1;
    }
    self->controls = Py_NewRef(controls); /* kept until `sendmmsg_drop` */
    for (i = 0; i < self->count; i++) {
        PyObject *control = for_all ? controls : PyTuple_GET_ITEM(controls, i);
        struct msghdr *header = &self->headers[i].msg_hdr;
        Py_ssize_t size = PyBytes_CheckExact(control) ? PyBytes_GET_SIZE(control) : -1;
        if (size < 0 || size > MOST_CONTROL || size % (Py_ssize_t)sizeof(size_t) != 0) {
            PyErr_SetString(PyExc_TypeError, "control data is up to 88 bytes, in whole words");
            return -1;
        }
        header->msg_control = size == 0 ? NULL : PyBytes_AS_STRING(control); /* only read */
        header->msg_controllen = (size_t)size;
    }
    return 0;
}

int
same_control(const Sendmmsg *self, Py_ssize_t one, Py_ssize_t other)
{
    const struct msghdr *a = &self->headers[one].msg_hdr, *b = &self->headers[other].msg_hdr;
    return a->msg_controllen == b->msg_controllen
           && (a->msg_control == b->msg_control
               || memcmp(a->msg_control, b->msg_control, a->msg_controllen) == 0);
}

#endif
