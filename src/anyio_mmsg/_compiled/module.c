/* The compiled module, an optional twin of plain Python: the same names, the same tests.
 *
 *   packet.c       Packet, and its states                               every platform
 *   slots.c        Slots: which slots are held                          every platform
 *   handout.c      what consumers get for a slot, and its end           every platform
 *   datagrams.c    copies of packets as bytes, with their senders       every platform
 *   rows.c         Rows: memory as an array                             every platform
 *   columns.c      packets as arrays                                    every platform
 *   wake.c         what a receiver's task awaits on asyncio's loops     every platform
 *   kept.c         what receives leave for the next one, as fields      Linux
 *   loan.c         the loans of a pool: making and ending them         Linux
 *   lent.c         what a lent batch does at its end                    Linux
 *   again.c        a receive that is like the last one                  Linux
 *   recvmmsg.c     Recvmmsg: fills slots by recvmmsg(2)                 Linux
 *   address.c      addresses, decoded                                   Linux
 *   control.c      control data of received messages, decoded           Linux
 *   sendmmsg.c     Sendmmsg: sends pairs, packets or a ring             Linux
 *   outgoing.c     headers of packets to be sent, before the first send Linux
 *   sendcontrol.c  the control data that goes out with packets          Linux
 *   runs.c         runs of packets, for segmentation offload            Linux
 *   struck.c       sends that an earlier packet's error strikes         Linux
 *   shortcut.c     Shortcut: the usual send by one step                 Linux
 *   courses.c      what is known of the sockets that it sends by        Linux
 *   entry.c        Entry: a public function whose usual call is in C    every platform
 *   compiled.h     what these files share
 *   sendmmsg.h     what the files that send share
 *   docstrings.h   what `help()` shows, written from the Python twins
 *
 * No rule lives only here: the Python twin of each name says what it promises.
 *
 * Supported: CPython 3.10 and later, with the GIL; subinterpreters, each with a state of its own
 * (multi-phase initialisation, heap types, nothing static that changes), also with a GIL of their
 * own. Free-threaded builds and PyPy don't build it, and run the plain Python path.
 */

#include "compiled.h"

State *
state_of_type(PyTypeObject *type)
{
    /* A subclass made in Python has no module; the base it came from has ours. */
    for (; type != NULL; type = type->tp_base) {
        if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)
            && ((PyHeapTypeObject *)type)->ht_module != NULL) {
            return PyType_GetModuleState(type);
        }
    }
    PyErr_SetString(PyExc_SystemError, "a type of no module");
    return NULL;
}

int
descriptor_of(const State *state, PyObject *sock, int *fd)
{
    PyObject *number = PyObject_CallMethodNoArgs(sock, state->fileno);
    if (number == NULL) {
        return -1;
    }
    *fd = (int)PyLong_AsLong(number);
    Py_DECREF(number);
    return *fd == -1 && PyErr_Occurred() ? -1 : 0;
}

Py_ssize_t
slot_of_class(PyTypeObject *type, const char *name)
{
    PyObject *found = PyObject_GetAttrString((PyObject *)type, name);
    const PyMemberDef *member = NULL;
    Py_ssize_t offset = -1;
    if (found != NULL && Py_TYPE(found) == &PyMemberDescr_Type) {
        member = ((PyMemberDescrObject *)found)->d_member;
    }
    if (member != NULL && member->type == T_OBJECT_EX) {
        offset = member->offset;
    }
    else if (found != NULL) {
        PyErr_Format(PyExc_TypeError, "%s is not in __slots__", name);
    }
    Py_XDECREF(found);
    return offset;
}

/* The fingerprint of these C files, which setup.py gives: _load.py compares it. */
#ifndef ANYIO_MMSG_SOURCES
#define ANYIO_MMSG_SOURCES unknown
#endif
#define TEXT_OF(name) #name
#define TEXT(macro) TEXT_OF(macro)

/* As `Names` has them. */
static const char *const names[] = {
    "_slots",   "gettimeout",     "_lent",         "_free", "_size",
    "_waiters", "_some_are_lost", "_self",         "_wake", "append",
    "pop",      "_closed_slots",  "_close_slowly", "_lose", "call_soon",
};
#define NAMES ((Py_ssize_t)(sizeof(names) / sizeof(*names)))
_Static_assert(sizeof(Names) == sizeof(PyObject *) * sizeof(names) / sizeof(*names), "names");

static PyObject **
name_of(State *state, Py_ssize_t i)
{
    return (PyObject **)&state->names + i;
}

static int
compiled_exec(PyObject *module)
{
    if (PyModule_AddStringConstant(module, "sources", TEXT(ANYIO_MMSG_SOURCES)) < 0) {
        return -1;
    }
    State *state = PyModule_GetState(module);
    state->fileno = PyUnicode_InternFromString("fileno");
    state->progress = PyUnicode_InternFromString("_progress");
    state->context_only = Py_BuildValue("(s)", "context");
    if (state->fileno == NULL || state->progress == NULL || state->context_only == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < NAMES; i++) {
        *name_of(state, i) = PyUnicode_InternFromString(names[i]);
        if (*name_of(state, i) == NULL) {
            return -1;
        }
    }
    state->recent = PyMem_Calloc(RECENT_SENDERS, sizeof(*state->recent));
    if (state->recent == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (entry_add_type(module) < 0 || packet_add_types(module, state) < 0
        || slots_add_types(module, state) < 0 || rows_add_types(module, state) < 0
        || wake_add_types(module) < 0) {
        return -1;
    }
#ifdef __linux__
    if (again_add_functions(module) < 0 || kept_add_types(module, state) < 0
        || loan_add_types(module, state) < 0 || lent_add_types(module, state) < 0
        || recvmmsg_add_types(module, state) < 0 || sendmmsg_add_types(module, state) < 0) {
        return -1;
    }
#endif
    return 0;
}

static int
compiled_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->packet);
    Py_VISIT(state->undecoded);
    Py_VISIT(state->released);
    Py_VISIT(state->slots);
    Py_VISIT(state->rows);
    Py_VISIT(state->recvmmsg);
    Py_VISIT(state->sendmmsg);
    Py_VISIT(state->outlook);
    Py_VISIT(state->filler);
    Py_VISIT(state->loan);
    Py_VISIT(state->lent);
    Py_VISIT(state->release);
    return 0;
}

static int
compiled_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_ssize_t i;
    for (i = 0; state->recent != NULL && i < RECENT_SENDERS; i++) {
        Py_CLEAR(state->recent[i].address);
    }
    Py_CLEAR(state->packet);
    Py_CLEAR(state->undecoded);
    Py_CLEAR(state->released);
    Py_CLEAR(state->slots);
    Py_CLEAR(state->rows);
    Py_CLEAR(state->recvmmsg);
    Py_CLEAR(state->sendmmsg);
    Py_CLEAR(state->outlook);
    Py_CLEAR(state->filler);
    Py_CLEAR(state->loan);
    Py_CLEAR(state->lent);
    Py_CLEAR(state->release);
    Py_CLEAR(state->fileno);
    for (i = 0; i < NAMES; i++) {
        Py_CLEAR(*name_of(state, i));
    }
    Py_CLEAR(state->progress);
    Py_CLEAR(state->context_only);
    return 0;
}

static void
compiled_free(void *module)
{
    State *state = PyModule_GetState(module);
    compiled_clear(module);
    PyMem_Free(state->recent);
    state->recent = NULL;
}

static PyModuleDef_Slot compiled_slots[] = {
    {Py_mod_exec, compiled_exec},
#ifdef Py_MOD_PER_INTERPRETER_GIL_SUPPORTED
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef compiled_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "anyio_mmsg._compiled",
    .m_doc = "The packets of anyio-mmsg and Linux's batch system calls, in C.",
    .m_size = sizeof(State),
    .m_slots = compiled_slots,
    .m_traverse = compiled_traverse,
    .m_clear = compiled_clear,
    .m_free = compiled_free,
};

PyMODINIT_FUNC
PyInit__compiled(void)
{
    return PyModuleDef_Init(&compiled_module);
}
