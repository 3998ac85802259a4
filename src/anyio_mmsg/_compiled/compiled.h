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

#include "docstrings.h"

#ifdef Py_GIL_DISABLED
#error "free-threaded builds run the plain Python path: the GIL guards what is here"
#endif

/* Bytes of sockaddr_storage: room for the address of any family (RFC 3493 section 3.10). */
#define SOCKADDR_SIZE 128

/* In `wire_sizes`: the message was longer than its slot, and its length is unknown. */
#define UNKNOWN_WIRE_SIZE UINT32_MAX

/* Bytes of a slot's control data: 472, and a few so that slots begin in different cache lines. With
 * every option of a fixed size on, IPv6 brings most, in bytes with the headers: of the socket 200
 * (SO_TIMESTAMPNS 32, SO_TIMESTAMPING 64, its PKTINFO 32, RXQ_OVFL, RCVMARK and RCVPRIORITY 24
 * each), UDP_GRO 24, of IPv6 248 (PKTINFO in two forms 80, HOPLIMIT in two forms, TCLASS, FLOWINFO
 * and RECVFRAGSIZE 24 each, ORIGDSTADDR 48). IPv4 on a dual-stack socket brings 424. What senders
 * put into extension headers or IP options comes after all that. */
#define CONTROL_SIZE 480

/* Senders that are remembered with their decoded address; a power of two. The number is that of
 * the caches in _system/addresses.py. An entry is overwritten by the next sender with its hash,
 * so forged senders cost a conversion each, not memory. */
#define RECENT_SENDERS 4096

/* Of the RuntimeError that a second thread gets. */
#define READING \
    "another thread is receiving into this batch; a batch belongs to one event loop's thread"

/* Bytes of the sockaddrs that are remembered: up to sockaddr_in6's. */
#define RECENT_SIZE 28

typedef struct {
    PyObject *address; /* owned; NULL: the entry is empty */
    uint32_t length;
    unsigned char raw[RECENT_SIZE];
} Recent;

/* Names of attributes that again.c and loan.c ask for, interned. */
typedef struct {
    PyObject *slots, *gettimeout;
    PyObject *lent, *free, *size, *waiters, *some_are_lost, *self, *wake; /* of a pool */
    PyObject *append, *pop;                                               /* of a deque */
    PyObject *closed_slots, *close_slowly, *lose;                         /* of a LentBatch */
    PyObject *call_soon;                                                  /* of a loop */
} Names;

/* Of one module object, that is of one interpreter. Nothing here is static: subinterpreters have
 * their own. Objects below have a pointer to it; it lives as long as the module, the module as
 * long as their types, these as long as their instances. */
typedef struct {
    PyTypeObject *packet;    /* Packet */
    PyTypeObject *undecoded; /* a Packet whose address nobody has asked for */
    PyTypeObject *released;  /* a Packet whose slot was given back */
    PyTypeObject *slots;     /* Slots */
    PyTypeObject *rows;      /* Rows, of which views are made */
    PyTypeObject *recvmmsg;  /* Recvmmsg, Linux only */
    PyTypeObject *sendmmsg;  /* Sendmmsg, Linux only */
    PyTypeObject *outlook;   /* OutlookFields, Linux only */
    PyTypeObject *filler;    /* FillerFields, Linux only */
    PyTypeObject *loan;      /* LoanFields, Linux only */
    PyTypeObject *lent;      /* LentFields, Linux only */
    PyObject *release;       /* memoryview.release, the method */
    PyObject *fileno;        /* "fileno" */
    Names names;
    PyObject *context_only; /* ("context",): the name of an argument */
    PyObject *progress;     /* "_progress", of a SendResult */
    Recent *recent;         /* RECENT_SENDERS entries */
} State;

/* One datagram. `data` and `address` are members that can't be set; which attributes raise is
 * said by the type, as in _packets/packet.py. It has no cycles: none of these refers to it. */
typedef struct {
    PyObject_HEAD
    PyObject *data;    /* a memoryview of the slot, cut to the datagram; NULL: none was made */
    PyObject *address; /* NULL: not decoded */
    PyObject *source;  /* the Recvmmsg that has its sender and control data; or else a tuple, which
                        * is its control data: a decoder and what that needs; or NULL: none */
    Py_ssize_t slot;
    Py_ssize_t offset; /* in the slot: 0, but for the later packets of a train */
    uint32_t wire_size;
    char live; /* held and handed out; 0: a spare that only Slots refers to */
} Packet;

/* The length of a datagram that was cut, if the platform doesn't report it; see packet.py. */
#define UNKNOWN_WIRE_SIZE UINT32_MAX

/* The segment size of a train whose own was cut off: its packets can't be told apart. */
#define LOST UINT32_MAX

/* Of the later packets of a train, for how many a slot keeps spares: what the longest train has
 * that Linux makes (UDP_MAX_SEGMENTS, 128 since 6.9), some 35 KB of objects. */
#define MOST_SPARES 128

/* Where a packet lies: in which slot, and which of its packets it is. */
typedef struct {
    Py_ssize_t slot;
    Py_ssize_t index;
} Place;

/* What came with the message in a slot, and what was handed out for it. */
typedef struct {
    PyObject *sender;  /* owned: its address, or the Recvmmsg that has it; NULL: never filled */
    PyObject *control; /* owned: its control data, a tuple; NULL: none, or the Recvmmsg's */
    Packet *first;     /* owned, as those in `rest`: live packets, spares, or NULL */
    Packet **rest;     /* the later packets of a train, `room` of them */
    Py_ssize_t room;
} Handed;

/* A view of several packets that `columns` has handed out: it dies with the first of them. */
typedef struct Table {
    PyObject *view;        /* owned: a memoryview of the ring, or of a copy */
    long long first, last; /* the numbers of its packets, without `last` */
    struct Table *older;
} Table;

/* The twin of Slots in _packets/slots.py. `head` and `tail` number messages. */
typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *memory;
    Py_buffer buffer; /* an export of `memory` until this object is gone: it can't move */
    PyObject *view;   /* of all of it, read-only; the packets' views are cut from it */
    Py_ssize_t capacity;
    Py_ssize_t slot_size;
    long long head, tail, base;
    long long oldest; /* the number of the oldest packet held, counted by arrival */
    Py_ssize_t held;  /* packets */
    Py_ssize_t skip;  /* packets of the oldest message that were released */
    long long near;   /* the number of a packet whose place was looked up; if it is held, */
    Place near_place; /* this is its place: who asks for one after another finds each at once */
    uint32_t *wire_sizes; /* by slot: bytes of its message as sent */
    uint32_t *segments;   /* by slot: bytes of each packet but the last, 0: it is one packet,
                           * LOST: it is none; NULL: every message is one */
    Handed *handed;       /* by slot */
    Table *tables;        /* owned: the newest first */
    PyObject *engine;     /* its name, a str */
    PyObject *filler;     /* what the receive functions keep here, or None */
    Py_ssize_t pins;      /* sends that are under way with what is held: nothing is released */
    char reading;         /* a thread is in a system call that writes to free slots */
    char scribble;
    char ancillary; /* packets give their control data */
    char gro;       /* there are `segments` */
} Slots;

/* The attributes of a packet that are read from control data, in the order of `Control` in
 * _packets/packet.py; that has no timestamp. */
enum control { HARDWARE_TIMESTAMP = -2, TIMESTAMP, DESTINATION, INTERFACE, ECN, HOP_LIMIT, LOCAL };

/* The Linux engine: one recvmmsg(2) a call. The twin of RecvfromInto. */
typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *decode;           /* a mapping from sockaddrs, as bytes, to addresses */
    PyObject *families;         /* a frozenset: the families whose addresses it decodes */
    PyObject *memory;           /* that of its Slots */
    Py_buffer buffer;           /* an export of it: what the iovecs point into */
    void *headers;              /* struct mmsghdr, by slot */
    void *iovecs;               /* struct iovec, by slot */
    unsigned char *names;       /* SOCKADDR_SIZE bytes, by slot */
    unsigned char *control;     /* CONTROL_SIZE bytes, by slot; NULL: no control data is read */
    PyObject *host;             /* the last one that control data was decoded to, or NULL, */
    size_t host_size;           /* 4 or 16, */
    unsigned char host_key[16]; /* and its bytes: most packets have the same as the last */
    Py_ssize_t capacity;
    Py_ssize_t used; /* no slot from here on was used since its header was armed */
    PyObject *error; /* the OSError that ended the last fill, or None */
    char wanted;     /* whether anyone ever asked a packet for its address */
    char refused;    /* whether the system refuses the call */
    char cut;        /* whether it brought a message that is longer than a slot */
    char dry;        /* whether the last fill took all packets, or ended by an error */
    char ancillary;  /* whether packets give their control data */
} Recvmmsg;

/* The base of `Outlook` in _receive/outlook.py: what is known of a socket. Each is owned. */
typedef struct {
    PyObject_HEAD
    PyObject *sock;       /* a weak reference */
    PyObject *options;    /* compared only */
    PyObject *error;      /* an OSError, or None */
    PyObject *unreturned; /* a list */
    PyObject *spares;     /* a list of tuples, slots and their Recvmmsg; or None */
    long long receive_calls;
    char more, woken, reports_errors, struck;
} Outlook;

/* The base of `Filler` in _receive/engine.py: what the receive functions keep with a ring. */
typedef struct {
    PyObject_HEAD
    PyObject *task;    /* a coroutine, or None */
    PyObject *engine;  /* or None */
    PyObject *checked; /* the `options` of an Outlook, or None */
    PyObject *known;   /* an Outlook, or None */
} Filler;

/* The base of `Loan` in _stream/loans.py. */
typedef struct {
    PyObject_HEAD
    PyObject *pool;    /* owned: a weak reference; NULL: none yet */
    PyObject *dropped; /* owned: a Counter, or NULL */
    PyObject *holder;  /* owned: a Holder, or NULL */
    char lost;         /* the batch was collected, and had not been closed */
    char over;         /* or it was closed, or gave the loan up */
} Loan;

/* The base of `LentBatch` there. */
typedef struct {
    PyObject_HEAD
    State *state;
    Slots *slots;    /* owned; NULL: the batch is closed */
    PyObject *lease; /* owned: a Loan; NULL: it has none, or ended it */
} Lent;

static inline Py_ssize_t
slot_of(const Slots *self, long long number)
{
    return (Py_ssize_t)((number - self->base) % self->capacity);
}

/* The bytes in a slot: never beyond it, whatever length an engine reported. */
static inline Py_ssize_t
size_in_slot(const Slots *self, Py_ssize_t slot)
{
    return Py_MIN((Py_ssize_t)self->wire_sizes[slot], self->slot_size);
}

/* The next free slots that lie side by side: how many, of `most`; and the first. */
static inline Py_ssize_t
next_free_run(Slots *self, Py_ssize_t most, Py_ssize_t *first)
{
    Py_ssize_t used = (Py_ssize_t)(self->tail - self->head);
    if (used == 0) {
        self->base = self->tail; /* an empty ring starts again at slot 0, to need one run */
    }
    *first = slot_of(self, self->tail);
    return Py_MIN(most, Py_MIN(self->capacity - used, self->capacity - *first));
}

/* The Recvmmsg that has the sender of the message in a slot, a borrowed reference; or NULL. */
static inline Recvmmsg *
recvmmsg_of(const Slots *self, Py_ssize_t slot)
{
    PyObject *sender = self->handed[slot].sender;
    int lazy = sender != NULL && self->state->recvmmsg != NULL
               && Py_TYPE(sender) == self->state->recvmmsg;
    return lazy ? (Recvmmsg *)sender : NULL;
}

/* How many packets a slot's message is. */
static inline Py_ssize_t
packets_in(const Slots *self, Py_ssize_t slot)
{
    Py_ssize_t size, segment = self->segments == NULL ? 0 : (Py_ssize_t)self->segments[slot];
    if (segment == 0 || segment == LOST) {
        return segment == 0;
    }
    size = size_in_slot(self, slot);
    return size <= segment ? 1 : (size + segment - 1) / segment;
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

/* module.c: where objects of a class made in Python keep an attribute that is in its `__slots__`, in
 * bytes; -1 and an error. What C asks for at each call is read there, by `at_slot`, from objects of
 * exactly this class: the class in Python stays the only one. */
Py_ssize_t slot_of_class(PyTypeObject *type, const char *name);

/* The attribute there: NULL if it was never set. */
static inline PyObject **
at_slot(PyObject *thing, Py_ssize_t offset)
{
    return (PyObject **)((char *)thing + offset);
}

/* The object that a weak reference refers to: a new reference. Returns NULL, without an error, if the
 * object is gone, or if `reference` is NULL or something else. */
static inline PyObject *
referent(PyObject *reference)
{
    PyObject *found = NULL;
    if (reference != NULL && PyWeakref_Check(reference)) {
#if PY_VERSION_HEX >= 0x030D0000
        (void)PyWeakref_GetRef(reference, &found); /* fails only where the check above does */
#else
        found = PyWeakref_GetObject(reference);
        found = found == Py_None ? NULL : Py_NewRef(found);
#endif
    }
    return found;
}

/* Whether a thing is a weak reference to an object that the caller has. */
static inline int
refers_to(PyObject *reference, PyObject *thing)
{
    PyObject *found = referent(reference);
    Py_XDECREF(found); /* compared only, and the caller has `thing` */
    return found == thing;
}

/* entry.c */
int entry_add_type(PyObject *module);

/* packet.c */
int packet_add_types(PyObject *module, State *state);
/* Have a packet be in another state. */
void packet_become(Packet *self, PyTypeObject *type);

/* Have a packet know its sender, which its Recvmmsg has; -1 and an error. */
int packet_learn(Packet *self);

/* Drop a reference to a view, or to a packet and, if it was released, all that it refers to. */
void packet_let_go(State *state, PyObject *thing);

/* slots.c */
int slots_add_types(PyObject *module, State *state);
/* Take the next `count` free slots, from `first` on, as held: they were filled, with their lengths
 * and senders. Returns how many packets that are. */
Py_ssize_t slots_hold(Slots *self, Py_ssize_t first, Py_ssize_t count);

/* The method take_back(count). */
PyObject *slots_take_back(Slots *self, PyObject *count);

/* handout.c */
/* The place of a held packet, by its number. */
Place place_of(Slots *self, long long number);
/* The place of the next packet. Without one it means nothing, but is within the slots. */
Place next_place(const Slots *self, Place place);
/* The live packet at a place, a borrowed reference, or NULL. */
Packet *live_at(const Slots *self, Place place);
/* The live packet of this number and place, made now if there is none: a new reference. NULL
 * without an error if it was released meanwhile. Its address may be missing; it is then of a type
 * that can go without. */
Packet *packet_of(Slots *self, long long number, Place place);
/* The bytes of the packet at a place, and where they begin in its slot. */
Py_ssize_t size_at(const Slots *self, Place place, Py_ssize_t *offset);
/* Which attribute of each packet, or the packet. */
enum column { PACKETS, PAYLOADS, ADDRESSES };
/* A list of that for held packets `start` to `stop`, the arguments, counted from the oldest; to
 * the last one without `stop`. */
PyObject *slots_column(Slots *self, PyObject *const *args, Py_ssize_t nargs, enum column which);
/* The method copies(): the bytes of all packets held. */
PyObject *slots_copies(Slots *self, PyObject *ignored);
/* Have what was handed out for a place raise ValueError; -1 and an error if it is in use. No Python
 * runs, if the caller drops `leftover`, a reference or NULL, after the place is free: that may run
 * callbacks of weak references, which may use the slots. */
int slots_kill(Slots *self, Place place, PyObject **leftover);

/* wake.c */
int wake_add_types(PyObject *module);

/* datagrams.c */
/* The method datagrams(): (bytes, address) of all packets held. */
PyObject *slots_datagrams(Slots *self, PyObject *ignored);

/* tally.c */
/* The method tally(sums, spare): sums over batches with what is held. */
PyObject *slots_tally(Slots *self, PyObject *const *args, Py_ssize_t nargs);

/* rows.c */
int rows_add_types(PyObject *module, State *state);
/* A read-only memoryview of an array of `rows` items of `item` bytes each; or, with a `width`, of rows
 * of so many items. They lie from `start` on in the memory of `owner`, whose reference this steals, or
 * NULL, and the view keeps it. NULL and an error. `format` lives as long as the module. */
PyObject *rows_view(State *state, PyObject *owner, const char *start, const char *format,
                    Py_ssize_t item, Py_ssize_t rows, Py_ssize_t width);

/* columns.c */
/* The method columns(allocate): what `PacketBatch.columns` is made of. */
PyObject *slots_columns(Slots *self, PyObject *allocate);
/* Have the tables die that have packets before number `until`; -1 and an error if one is in use.
 * Callbacks of weak references may run, which may use the slots. */
int tables_end(Slots *self, long long until);
/* Forget the tables, for good. */
void tables_free(Slots *self);

/* control.c */
/* The method timestamps(): those of all packets held. */
PyObject *slots_timestamps(Slots *self, PyObject *ignored);

#ifdef __linux__
/* address.c */
/* The address of an AF_INET or AF_INET6 sockaddr: a new reference, or NULL and an error; NULL
 * without one for another family, and for one that is cut short. Runs no Python. */
PyObject *inet_address(const unsigned char *raw, uint32_t length);
/* The text of an IPv4 host of 4 bytes, or an IPv6 one of 16. Runs no Python. */
PyObject *inet_host(const unsigned char *raw, size_t size);
/* kept.c */
int kept_add_types(PyObject *module, State *state);
/* loan.c */
int loan_add_types(PyObject *module, State *state);
/* Give the slots back, if that was not done before; then have the pool serve who waits, which runs
 * Python. -1 and an error. */
int loan_end(const State *state, Loan *self);
/* lent.c */
int lent_add_types(PyObject *module, State *state);
/* A new batch of a type that derives from LentFields, which has neither slots nor a loan. */
PyObject *lent_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
/* again.c */
int again_add_functions(PyObject *module);
/* recvmmsg.c */
/* Read up to `limit` messages into free slots, and commit them; adds to `packets` how many packets
 * they are. -1 and an error: what was read is held. */
int recvmmsg_read(Recvmmsg *self, Slots *slots, int fd, Py_ssize_t limit, Py_ssize_t *packets);
int recvmmsg_add_types(PyObject *module, State *state);
/* Whether it was made for these slots; if not, an error. */
int recvmmsg_fits(const Recvmmsg *self, const Slots *slots);
/* The address of who sent the packet in a slot: a new reference, or NULL and an error. */
PyObject *recvmmsg_address(Recvmmsg *self, Py_ssize_t slot);
/* The same if it is remembered, without running Python: a borrowed reference, or NULL. */
PyObject *recvmmsg_remembered(const Recvmmsg *self, Py_ssize_t slot);
/* The same in the system's form: the bytes lie in `self->names` until the slot is filled again. */
const unsigned char *recvmmsg_sockaddr(const Recvmmsg *self, Py_ssize_t slot, uint32_t *length);
/* datagrams.c */
/* Read up to `limit` messages, and move them to the end of a list, as datagrams cut to `most` bytes.
 * Returns -1 with an error set. Then the list has what was read. If there was no memory to copy it,
 * the slots still hold it. */
int datagrams_read(Recvmmsg *self, Slots *slots, PyObject *sock, Py_ssize_t limit, Py_ssize_t most,
                   PyObject *record);
/* The method datagrams(slots, sock, limit, most, record) of Recvmmsg. */
PyObject *recvmmsg_datagrams(Recvmmsg *self, PyObject *const *args, Py_ssize_t nargs);
/* control.c */
/* Close the files that came with some messages of a unix socket: nobody here asks for them, and the
 * system has opened them. Once for each message. */
void control_close_files(const Recvmmsg *self, int fd, Py_ssize_t first, Py_ssize_t count);
/* The segment size that came with the message in a slot, 0 without; -1: it may have been cut off. */
int control_segment(const Recvmmsg *self, Py_ssize_t slot);
/* An attribute of a packet that is read from its slot's control data: a new reference, or NULL
 * and an error. */
PyObject *control_attribute(Recvmmsg *self, Py_ssize_t slot, enum control which);
/* sendmmsg.c */
int sendmmsg_add_types(PyObject *module, State *state);
#endif

#endif
