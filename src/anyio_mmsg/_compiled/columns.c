/* Columns: the packets held as arrays. The plain twin is `Slots.columns` in _packets/slots.py.
 *
 * `data` is a memoryview of the ring's own memory where the packets lie side by side. It keeps
 * that memory alive, as the packets' views do, and Slots releases it with the first of its
 * packets: there is a Table for each view that may be alive. All else is copied: it stays valid.
 */

#include "compiled.h"

#ifdef __linux__
#include <arpa/inet.h>
#include <netinet/in.h>
#endif

/* What numpy calls NaT, not a time: for a packet without a timestamp. */
#define NO_TIME INT64_MIN

/* A copy may have SMALL bytes, or DENSE times the bytes of its packets. The system provides the
 * memory of a larger one only where it is written to, since senders choose the longest packet. */
#define DENSE 4
#define SMALL (1 << 20)

enum { SIZES, WIRE_SIZES, HOSTS, PORTS, TIMESTAMPS, COLUMNS };

static const char *const formats[COLUMNS] = {"I", "I", "B", "H", "q"};
static const Py_ssize_t widths[COLUMNS] = {4, 4, 16, 2, 8}; /* bytes of a row */

void
tables_free(Slots *self)
{
    while (self->tables != NULL) {
        Table *table = self->tables;
        self->tables = table->older;
        Py_DECREF(table->view);
        PyMem_Free(table);
    }
}

int
tables_end(Slots *self, long long until)
{
    Table **link = &self->tables;
    while (*link != NULL) {
        Table *table = *link;
        PyObject *view = table->view, *done;
        if (table->first >= until) {
            link = &table->older;
            continue;
        }
        done = PyObject_CallOneArg(self->state->release, view);
        if (done == NULL) {
            return -1;
        }
        Py_DECREF(done);
        *link = table->older;
        PyMem_Free(table);
        Py_DECREF(view); /* may run callbacks of weak references, which may make or end others */
        link = &self->tables;
    }
    return 0;
}

/* The part of the ring with slots from `first` on, a row each. */
static PyObject *
ring_rows(Slots *self, Py_ssize_t first, Py_ssize_t rows)
{
    const char *start = (const char *)self->buffer.buf + first * self->slot_size;
    return rows_view(self->state, Py_NewRef(self->view), start, "B", 1, rows, self->slot_size);
}

/* A bytes object as an array; steals the reference. NULL and an error. */
static PyObject *
array_of(State *state, PyObject *bytes, const char *format, Py_ssize_t item, Py_ssize_t rows,
         Py_ssize_t width)
{
    return rows_view(state, bytes, PyBytes_AS_STRING(bytes), format, item, rows, width);
}

/* Memory for a copy, of zeros: a bytes object, or what `allocate` gives. NULL and an error. */
static PyObject *
memory_for(PyObject *allocate, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t bytes)
{
    PyObject *memory;
    if (rows > PY_SSIZE_T_MAX / width) {
        return PyErr_NoMemory();
    }
    if (rows * width > SMALL && rows * width / DENSE > bytes) {
        return PyObject_CallFunction(allocate, "n", rows * width);
    }
    memory = PyBytes_FromStringAndSize(NULL, rows * width);
    if (memory != NULL) {
        memset(PyBytes_AS_STRING(memory), 0, (size_t)(rows * width));
    }
    return memory;
}

/* Where the rows of a copy go: the object's own memory, valid as long as that. A bytes object is
 * nobody else's yet, so it may be written to. */
static int
copy_rows(Slots *self, PyObject *memory, Py_ssize_t rows, Py_ssize_t width)
{
    Place place = place_of(self, self->oldest);
    Py_ssize_t i, offset;
    Py_buffer target;
    int is_bytes = PyBytes_CheckExact(memory);
    char *row;
    if (!is_bytes && PyObject_GetBuffer(memory, &target, PyBUF_WRITABLE) < 0) {
        return -1;
    }
    if (!is_bytes && target.len < rows * width) {
        PyBuffer_Release(&target);
        PyErr_SetString(PyExc_ValueError, "too little memory for a copy");
        return -1;
    }
    row = is_bytes ? PyBytes_AS_STRING(memory) : target.buf;
    for (i = 0; i < rows; i++, row += width) {
        Py_ssize_t size = size_at(self, place, &offset);
        memcpy(row, (char *)self->buffer.buf + place.slot * self->slot_size + offset,
               (size_t)Py_MIN(size, width));
        place = next_place(self, place);
    }
    if (!is_bytes) {
        PyBuffer_Release(&target);
    }
    return 0;
}

/* The memory of a copy, a row each; steals the reference. NULL and an error. */
static PyObject *
copied_rows(State *state, PyObject *memory, Py_ssize_t rows, Py_ssize_t width)
{
    PyObject *whole;
    if (PyBytes_CheckExact(memory)) {
        return array_of(state, memory, "B", 1, rows, width);
    }
    whole = PyMemoryView_FromObject(memory); /* an export, so that it can't move */
    Py_DECREF(memory);
    return rows_view(state, whole, whole == NULL ? NULL : PyMemoryView_GET_BUFFER(whole)->buf, "B",
                     1, rows, width);
}

/* The newest table if it has exactly these packets and is alive, or NULL. */
static Table *
table_of(const Slots *self, long long first, long long last)
{
    Table *table = self->tables;
    return table != NULL && table->first == first && table->last == last
                   && !view_is_dead(table->view)
               ? table
               : NULL;
}

/* The rows of all packets held, a new reference; 0 and NULL if some were released or came while it
 * was made; -1 and an error. */
static int
make_data(Slots *self, PyObject *allocate, PyObject **data)
{
    Py_ssize_t i, rows = self->held, width = 1, bytes = 0, offset;
    long long first = self->oldest, last = first + rows;
    Py_ssize_t start = slot_of(self, self->head);
    Table *table = table_of(self, first, last);
    PyObject *memory;
    *data = NULL;
    if (table != NULL) {
        *data = Py_NewRef(table->view);
        return 0;
    }
    if (self->segments == NULL && start + rows <= self->capacity) {
        *data = ring_rows(self, start, rows);
    }
    else {
        Place place = place_of(self, first);
        for (i = 0; i < rows; i++) {
            Py_ssize_t size = size_at(self, place, &offset);
            width = Py_MAX(width, size);
            bytes += size;
            place = next_place(self, place);
        }
        width = self->segments == NULL ? self->slot_size : width;
        memory = memory_for(allocate, rows, width, bytes);
        if (memory == NULL) {
            return -1;
        }
        if (self->oldest != first || self->held != rows) {
            Py_DECREF(memory);
            return 0;
        }
        if (copy_rows(self, memory, rows, width) < 0) {
            Py_DECREF(memory);
            return -1;
        }
        *data = copied_rows(self->state, memory, rows, width);
    }
    table = *data == NULL ? NULL : PyMem_Malloc(sizeof(*table));
    if (table == NULL) {
        Py_CLEAR(*data);
        return PyErr_Occurred() ? -1 : (PyErr_NoMemory(), -1);
    }
    if (self->oldest != first || self->held != rows) { /* to make a view may run finalizers */
        PyMem_Free(table);
        Py_CLEAR(*data);
        return 0;
    }
    table->view = Py_NewRef(*data);
    table->first = first;
    table->last = last;
    table->older = self->tables;
    self->tables = table;
    return 0;
}

/* Fill in the sizes of all packets held. No Python runs. */
static void
fill_sizes(Slots *self, uint32_t *sizes, uint32_t *wire_sizes)
{
    Place place = place_of(self, self->oldest);
    Py_ssize_t i, offset;
    for (i = 0; i < self->held; i++) {
        uint32_t wire_size = self->wire_sizes[place.slot];
        int is_train = self->segments != NULL && self->segments[place.slot] != 0;
        sizes[i] = (uint32_t)size_at(self, place, &offset);
        wire_sizes[i] = is_train || wire_size == UNKNOWN_WIRE_SIZE ? sizes[i] : wire_size;
        place = next_place(self, place);
    }
}

#ifdef __linux__

/* Fill in a sender's IPv6 address and port; they stay zeros for other families. */
static void
fill_sender(const unsigned char *raw, uint32_t length, unsigned char *host, uint16_t *port)
{
    sa_family_t family;
    if (length < sizeof(family)) {
        return;
    }
    memcpy(&family, raw, sizeof(family));
    if (family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        host[10] = host[11] = 0xff; /* mapped (RFC 4291 section 2.5.5.2) */
        memcpy(host + 12, raw + 4, 4);
    }
    else if (family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        memcpy(host, raw + 8, 16);
    }
    else {
        return;
    }
    memcpy(port, raw + 2, sizeof(*port)); /* in both it stands behind the family */
    *port = ntohs(*port);
}

/* Fill in what Recvmmsg has of all packets held; `times` may be NULL. 1, or 0 if another engine has
 * some, or -1 and an error. No Python runs. */
static int
fill_rest(Slots *self, unsigned char *hosts, uint16_t *ports, int64_t *times)
{
    Place place = place_of(self, self->oldest);
    Py_ssize_t i;
    for (i = 0; i < self->held; i++) {
        uint32_t length;
        Recvmmsg *engine = recvmmsg_of(self, place.slot);
        const unsigned char *raw;
        if (engine == NULL) {
            return 0;
        }
        raw = recvmmsg_sockaddr(engine, place.slot, &length);
        fill_sender(raw, length, hosts + 16 * i, ports + i);
        if (times != NULL) {
            PyObject *number = control_attribute(engine, place.slot, TIMESTAMP);
            int overflow = 0;
            if (number == NULL) {
                return -1;
            }
            times[i] = NO_TIME;
            if (number != Py_None) {
                long long time = PyLong_AsLongLongAndOverflow(number, &overflow);
                times[i] = overflow ? NO_TIME : time;
            }
            Py_DECREF(number);
        }
        place = next_place(self, place);
    }
    return 1;
}

#endif

/* columns(allocate): see `Slots.columns` in _packets/slots.py. */
PyObject *
slots_columns(Slots *self, PyObject *allocate)
{
    PyObject *data = NULL, *made[COLUMNS] = {NULL}, *views[COLUMNS] = {NULL}, *tuple = NULL;
    Py_ssize_t i, rows;
    int known = 0;
    do { /* until nothing changes between the rows and the other columns */
        if (self->held == 0) {
            PyErr_SetNone(PyExc_ValueError);
            return NULL;
        }
        if (make_data(self, allocate, &data) < 0) {
            return NULL;
        }
    } while (data == NULL);
    rows = PyMemoryView_GET_BUFFER(data)->shape[0];
    for (i = 0; i < COLUMNS; i++) { /* bytes: the collector ignores them */
        made[i] = PyBytes_FromStringAndSize(NULL, rows * widths[i]);
        if (made[i] == NULL) {
            goto end;
        }
        memset(PyBytes_AS_STRING(made[i]), 0, (size_t)(rows * widths[i]));
    }
    fill_sizes(self, (uint32_t *)PyBytes_AS_STRING(made[SIZES]),
               (uint32_t *)PyBytes_AS_STRING(made[WIRE_SIZES]));
#ifdef __linux__
    known = fill_rest(self, (unsigned char *)PyBytes_AS_STRING(made[HOSTS]),
                      (uint16_t *)PyBytes_AS_STRING(made[PORTS]),
                      self->ancillary ? (int64_t *)PyBytes_AS_STRING(made[TIMESTAMPS]) : NULL);
#endif
    for (i = 0; i < COLUMNS && known >= 0; i++) {
        int there = i <= WIRE_SIZES || (known && (i != TIMESTAMPS || self->ancillary));
        if (!there) {
            views[i] = Py_NewRef(Py_None);
            continue;
        }
        views[i] = array_of(self->state, made[i], formats[i], i == HOSTS ? 1 : widths[i], rows,
                            i == HOSTS ? 16 : 0);
        made[i] = NULL;
        if (views[i] == NULL) {
            goto end;
        }
    }
    if (known >= 0) {
        tuple = PyTuple_Pack(6, data, views[SIZES], views[WIRE_SIZES], views[HOSTS], views[PORTS],
                             views[TIMESTAMPS]);
    }
end:
    for (i = 0; i < COLUMNS; i++) {
        Py_XDECREF(made[i]);
        Py_XDECREF(views[i]);
    }
    Py_DECREF(data);
    return tuple;
}
