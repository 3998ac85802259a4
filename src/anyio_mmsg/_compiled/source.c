/* What Slots asks its source, the engine that filled it: who sent the packets held, and to commit
 * what an interrupted fill has read before another source comes.
 *
 * To ask a source in Python may run anything, so that packets may be released meanwhile: what goes
 * on is known by number, and looked up anew.
 */

#include "compiled.h"

static void
set_address(Slots *self, Packet *packet, PyObject *address)
{
    if (packet->live && packet->address == NULL) {
        packet->address = Py_NewRef(address);
        packet_become(packet, self->state->packet);
    }
}

int
slots_decodes(const Slots *self)
{
    return self->state->recvmmsg != NULL && Py_TYPE(self->source) == self->state->recvmmsg;
}

/* Ask a source in Python for the senders of packets from `number` on: of one train, or of slots
 * that lie side by side, up to `last`. Returns the number of the next one, or -1 and an error. */
static long long
ask_source(Slots *self, long long number, long long last)
{
    Place place = place_of(self, number);
    int trains = self->segments != NULL;
    Py_ssize_t i, count = Py_MIN((Py_ssize_t)(last - number), self->capacity - place.slot);
    PyObject *run, *source = Py_NewRef(self->source);
    if (trains) {
        count = packets_in(self, place.slot) - place.index;
        count = Py_MIN((Py_ssize_t)(last - number), count);
    }
    run = PyObject_CallMethod(source, "addresses", "nn", place.slot, trains ? 1 : count);
    Py_DECREF(source);
    if (run != NULL && (!PyList_Check(run) || PyList_GET_SIZE(run) != (trains ? 1 : count))) {
        PyErr_SetString(PyExc_TypeError, "addresses() did not give what was asked for");
        Py_CLEAR(run);
    }
    /* Some may have been released meanwhile; the others are the same packets as before. */
    for (i = 0; run != NULL && i < count; i++) {
        Packet *packet = packet_of(self, number + i, place);
        if (packet != NULL) {
            set_address(self, packet, PyList_GET_ITEM(run, trains ? 0 : i));
            Py_DECREF(packet);
        }
        else if (PyErr_Occurred()) {
            Py_CLEAR(run);
        }
        place.slot += !trains;
        place.index += trains;
    }
    Py_XDECREF(run);
    return run == NULL ? -1 : number + count;
}

int
slots_learn_addresses(Slots *self, long long first, long long last)
{
    long long number = first;
    Place place, next = {0, 0};
    int there = 0; /* whether `next` is the place of `number` */
    while ((number = Py_MAX(number, self->oldest)) < last) {
        Packet *packet;
        int known;
        place = there && number > first ? next : place_of(self, number);
        next = next_place(self, place); /* before Python may run, as it is sure now */
        packet = packet_of(self, number, place);
        known = packet == NULL || packet->address != NULL;
        if (packet == NULL && PyErr_Occurred()) {
            return -1;
        }
#ifdef __linux__
        if (!known && slots_decodes(self)) {
            PyObject *source = Py_NewRef(self->source);
            PyObject *address = recvmmsg_address((Recvmmsg *)source, packet->slot);
            Py_DECREF(source);
            if (address == NULL) {
                Py_DECREF(packet);
                return -1;
            }
            set_address(self, packet, address);
            Py_DECREF(address);
            known = 1;
        }
#endif
        Py_XDECREF(packet);
        there = known && number >= self->oldest;
        first = number;
        if (known) {
            number++;
        }
        else if ((number = ask_source(self, number, last)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Have the source commit what it read. An error if it is in the middle of that. */
static int
settle(Slots *self)
{
    PyObject *done;
    if (!has_record(self)) {
        return 0;
    }
    done = PyObject_CallMethod(self->source, "settle", "O", self);
    Py_XDECREF(done);
    if (done != NULL && has_record(self)) {
        PyErr_SetString(PyExc_RuntimeError, READING);
        return -1;
    }
    return done == NULL ? -1 : 0;
}

int
slots_set_source(Slots *self, PyObject *source)
{
    long long tail;
    /* The senders of what is held are known to the last source alone. To ask it may run Python,
     * and that may fill more; in the end nothing comes between. */
    do {
        tail = self->tail;
        if (self->reading) {
            PyErr_SetString(PyExc_RuntimeError, READING);
            return -1;
        }
        if (settle(self) < 0
            || slots_learn_addresses(self, self->oldest, self->oldest + self->held) < 0) {
            return -1;
        }
    } while (tail != self->tail || self->reading || has_record(self));
    Py_INCREF(source);
    Py_XSETREF(self->source, source);
    return 0;
}
