/* What a batch holds, added to the sums over batches: once a batch, in one step. The plain twin is
 * in _packets/slots.py, and _packets/sums.py says what the sums are. */

#include "compiled.h"

enum { PACKETS_SUM, BYTES_SUM, BATCHES_SUM, FULL_SUM, LARGEST, CUT_SUM, FILLS, SUMS };

/* What is held: bytes and cut packets; how many packets is in `held`. */
static void
held_in(const Slots *self, long long *bytes, long long *cut)
{
    long long message;
    *bytes = *cut = 0;
    /* Of the oldest message some may have been released; the others are whole. */
    for (message = self->head; message < self->tail; message++) {
        Py_ssize_t slot = slot_of(self, message);
        int is_train = self->segments != NULL && self->segments[slot] != 0;
        if (packets_in(self, slot) > 0) {
            *bytes += size_in_slot(self, slot);
            *cut += !is_train && (Py_ssize_t)self->wire_sizes[slot] > self->slot_size;
        }
    }
    if (self->skip > 0) {
        *bytes -= (long long)self->skip * self->segments[slot_of(self, self->head)];
    }
}

/* A list of ints with 1 added to an item: 0, or -1 and an error. */
static int
count_in(PyObject *list, Py_ssize_t item)
{
    long long value;
    PyObject *more;
    if (!PyList_Check(list) || item >= PyList_GET_SIZE(list)) {
        PyErr_BadArgument();
        return -1;
    }
    value = PyLong_AsLongLong(PyList_GET_ITEM(list, item));
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    more = PyLong_FromLongLong(value + 1);
    return more == NULL ? -1 : PyList_SetItem(list, item, more);
}

PyObject *
slots_tally(Slots *self, PyObject *const *args, Py_ssize_t nargs)
{
    long long bytes, cut, now[FILLS];
    Py_ssize_t free, spare, packets = self->held, bits = 0;
    PyObject *sums, *made;
    int each;
    if (nargs != 2 || !PyTuple_Check(args[0]) || PyTuple_GET_SIZE(args[0]) != SUMS) {
        PyErr_BadArgument();
        return NULL;
    }
    sums = args[0]; /* the caller has it */
    spare = PyLong_AsSsize_t(args[1]);
    for (each = 0; each < FILLS && !PyErr_Occurred(); each++) {
        now[each] = PyLong_AsLongLong(PyTuple_GET_ITEM(sums, each));
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    held_in(self, &bytes, &cut);
    free = self->capacity - (Py_ssize_t)(self->tail - self->head);
    now[PACKETS_SUM] += packets;
    now[BYTES_SUM] += bytes;
    now[BATCHES_SUM] += 1;
    now[FULL_SUM] += free <= spare;
    now[LARGEST] = Py_MAX(now[LARGEST], packets);
    now[CUT_SUM] += cut;
    made = PyTuple_New(SUMS);
    for (each = 0; made != NULL && each < FILLS; each++) {
        PyObject *number = PyLong_FromLongLong(now[each]);
        if (number == NULL) {
            Py_CLEAR(made);
        }
        else {
            PyTuple_SET_ITEM(made, each, number);
        }
    }
    if (made == NULL) {
        return NULL;
    }
    PyTuple_SET_ITEM(made, FILLS, Py_NewRef(PyTuple_GET_ITEM(sums, FILLS)));
    for (; packets > 0; packets >>= 1) {
        bits++;
    }
    if (count_in(PyTuple_GET_ITEM(made, FILLS), bits) < 0) {
        Py_CLEAR(made);
    }
    return made;
}
