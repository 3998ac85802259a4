/* What the files of the compiled module share. module.c has the map. */

#ifndef ANYIO_MMSG_COMPILED_H
#define ANYIO_MMSG_COMPILED_H

#ifdef PYPY_VERSION
#error "PyPy runs the plain Python path: its memoryviews and reference counts are others"
#endif

#ifdef __linux__
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* recvmmsg, sendmmsg; as pyconfig.h has it */
#endif
#endif

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>

#ifdef Py_GIL_DISABLED
#error "free-threaded builds run the plain Python path: the GIL guards what is here"
#endif

/* Bytes of sockaddr_storage: room for the address of any family (RFC 3493 section 3.10). */
#define SOCKADDR_SIZE 128

/* Senders that are remembered with their decoded address; a power of two. The number is that of
 * the caches in _system/addresses.py. An entry is overwritten by the next sender with its hash,
 * so forged senders cost a conversion each, not memory. */
#define RECENT_SENDERS 4096

/* Bytes of the sockaddrs that are remembered: up to sockaddr_in6's. */
#define RECENT_SIZE 28

typedef struct {
    PyObject *address; /* owned; NULL: the entry is empty */
    uint32_t length;
    unsigned char raw[RECENT_SIZE];
} Recent;

/* Of one module object, that is of one interpreter. Nothing here is static: subinterpreters have
 * their own. Objects below have a pointer to it; it lives as long as the module, the module as
 * long as their types, these as long as their instances. */
typedef struct {
    PyTypeObject *packet;    /* Packet */
    PyTypeObject *undecoded; /* a Packet whose address nobody has asked for */
    PyTypeObject *released;  /* a Packet whose slot was given back */
    PyTypeObject *slots;     /* Slots */
    PyTypeObject *recvmmsg;  /* Recvmmsg, Linux only */
    PyTypeObject *sendmmsg;  /* Sendmmsg, Linux only */
    PyTypeObject *record;    /* Record, Linux only */
    PyObject *release;       /* memoryview.release, the method */
    PyObject *fileno;        /* "fileno" */
    Recent *recent;          /* RECENT_SENDERS entries */
} State;

/* One datagram. `data` and `address` are members that can't be set; which attributes raise is
 * said by the type, as in _packets/packet.py. It has no cycles: none of these refers to it. */
typedef struct {
    PyObject_HEAD
    PyObject *data;    /* a memoryview of the slot, cut to the datagram; NULL: none was made */
    PyObject *address; /* NULL: not decoded */
    PyObject *source;  /* who decodes it: a Recvmmsg, or a Python object, or NULL */
    Py_ssize_t slot;
    uint32_t wire_size;
    char live; /* held and handed out; 0: a spare that only Slots refers to */
} Packet;

/* The twin of Slots in _packets/slots.py. */
typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *memory;
    Py_buffer buffer; /* an export of `memory` until this object is gone: it can't move */
    PyObject *view;   /* of all of it, read-only; the packets' views are cut from it */
    Py_ssize_t capacity;
    Py_ssize_t slot_size;
    long long head, tail, base;
    uint32_t *wire_sizes; /* by slot */
    Packet **packets;     /* by slot: a live one, a spare, or NULL */
    PyObject *source;
    PyObject *engine;   /* its name, a str */
    PyObject *record;   /* for the engine in Python */
    PyObject *filler;   /* the coroutine that fills, or None */
    PyObject *borrower; /* for a pool */
    Py_ssize_t pins;    /* sends that are under way with what is held: nothing is released */
    char reading;       /* a thread is in a system call that writes to free slots */
    char scribble;
} Slots;

/* The Linux engine: one recvmmsg(2) a call. The twin of RecvfromInto. */
typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *decode;        /* a mapping from sockaddrs, as bytes, to addresses */
    PyObject *families;      /* a frozenset of those whose addresses it decodes */
    PyObject *memory;        /* that of its Slots */
    Py_buffer buffer;        /* an export of it: what the iovecs point into */
    void *headers;           /* struct mmsghdr, by slot */
    void *iovecs;            /* struct iovec, by slot */
    unsigned char *names;    /* SOCKADDR_SIZE bytes, by slot */
    Py_ssize_t capacity;
    Py_ssize_t used;         /* no slot from here on was used since its header was armed */
    PyObject *error;         /* the OSError that ended the last fill, or None */
    char wanted;             /* whether anyone ever asked a packet for its address */
    char refused;            /* whether the system refuses the call */
} Recvmmsg;

/* What has become of the packets of one send: the twin of Record in _send/record.py. */
typedef struct {
    PyObject_HEAD
    long long sent;     /* without those in `taken` */
    PyObject *taken;    /* a list with an item for each packet that a Python sender sent, or NULL */
    PyObject *failures; /* a list */
} Record;

static inline Py_ssize_t
slot_of(const Slots *self, long long number)
{
    return (Py_ssize_t)((number - self->base) % self->capacity);
}

/* The bytes of a packet in a slot: never beyond the slot, whatever length an engine reported. */
static inline Py_ssize_t
size_in_slot(const Slots *self, Py_ssize_t slot)
{
    return Py_MIN((Py_ssize_t)self->wire_sizes[slot], self->slot_size);
}

/* Whether a memoryview was released. */
static inline int
view_is_dead(PyObject *view)
{
    return (((PyMemoryViewObject *)view)->flags & _Py_MEMORYVIEW_RELEASED) != 0;
}

/* module.c: the descriptor of a socket, -1 if it is closed; or -1 as a result and an error. */
int descriptor_of(const State *state, PyObject *sock, int *fd);

/* The state of the module that made a type, or one of its bases; NULL and an error. */
State *state_of_type(PyTypeObject *type);

/* packet.c */
int packet_add_types(PyObject *module, State *state);
/* Have a packet be in another state. */
void packet_become(Packet *self, PyTypeObject *type);

/* slots.c */
int slots_add_types(PyObject *module, State *state);

#ifdef __linux__
/* recvmmsg.c */
int recvmmsg_add_types(PyObject *module, State *state);
/* The address of who sent the packet in a slot: a new reference, or NULL and an error. */
PyObject *recvmmsg_address(Recvmmsg *self, Py_ssize_t slot);
/* The same as the system has it: the bytes lie in `self->names` until the slot is filled anew. */
const unsigned char *recvmmsg_sockaddr(const Recvmmsg *self, Py_ssize_t slot, uint32_t *length);
/* sendmmsg.c */
int sendmmsg_add_types(PyObject *module, State *state);
/* record.c */
int record_add_types(PyObject *module, State *state);
#endif

#endif
