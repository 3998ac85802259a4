/* What the receive functions keep with a socket and with a ring, as fields that again.c reads: the
 * bases of `Outlook` and `Filler`, whose twins in _receive/outlook.py and _receive/engine.py say what
 * each field is. What Python does with them is written there.
 */

#include "compiled.h"

#ifdef __linux__

static int
outlook_traverse(Outlook *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->sock);
    Py_VISIT(self->options);
    Py_VISIT(self->error);
    Py_VISIT(self->unreturned);
    Py_VISIT(self->spares);
    return 0;
}

static int
outlook_clear(Outlook *self)
{
    Py_CLEAR(self->sock);
    Py_CLEAR(self->options);
    Py_CLEAR(self->error);
    Py_CLEAR(self->unreturned);
    Py_CLEAR(self->spares);
    return 0;
}

static void
outlook_dealloc(Outlook *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    outlook_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMemberDef outlook_members[] = {
    {"sock", T_OBJECT, offsetof(Outlook, sock), 0, NULL},
    {"options", T_OBJECT, offsetof(Outlook, options), 0, NULL},
    {"_error", T_OBJECT, offsetof(Outlook, error), 0, NULL},
    {"unreturned", T_OBJECT, offsetof(Outlook, unreturned), 0, NULL},
    {"spares", T_OBJECT, offsetof(Outlook, spares), 0, NULL},
    {"receive_calls", T_LONGLONG, offsetof(Outlook, receive_calls), 0, NULL},
    {"more", T_BOOL, offsetof(Outlook, more), 0, NULL},
    {"woken", T_BOOL, offsetof(Outlook, woken), 0, NULL},
    {"reports_errors", T_BOOL, offsetof(Outlook, reports_errors), 0, NULL},
    {"struck", T_BOOL, offsetof(Outlook, struck), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot outlook_slots[] = {
    {Py_tp_dealloc, outlook_dealloc},
    {Py_tp_traverse, outlook_traverse},
    {Py_tp_clear, outlook_clear},
    {Py_tp_members, outlook_members},
    {0, NULL},
};

static int
filler_traverse(Filler *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->task);
    Py_VISIT(self->engine);
    Py_VISIT(self->checked);
    Py_VISIT(self->known);
    return 0;
}

static int
filler_clear(Filler *self)
{
    Py_CLEAR(self->task);
    Py_CLEAR(self->engine);
    Py_CLEAR(self->checked);
    Py_CLEAR(self->known);
    return 0;
}

static void
filler_dealloc(Filler *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    filler_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMemberDef filler_members[] = {
    {"task", T_OBJECT, offsetof(Filler, task), 0, NULL},
    {"engine", T_OBJECT, offsetof(Filler, engine), 0, NULL},
    {"checked", T_OBJECT, offsetof(Filler, checked), 0, NULL},
    {"known", T_OBJECT, offsetof(Filler, known), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot filler_slots[] = {
    {Py_tp_dealloc, filler_dealloc},
    {Py_tp_traverse, filler_traverse},
    {Py_tp_clear, filler_clear},
    {Py_tp_members, filler_members},
    {0, NULL},
};

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC)

static PyType_Spec outlook_spec = {
    .name = "anyio_mmsg._compiled.OutlookFields",
    .basicsize = sizeof(Outlook),
    .flags = FLAGS,
    .slots = outlook_slots,
};

static PyType_Spec filler_spec = {
    .name = "anyio_mmsg._compiled.FillerFields",
    .basicsize = sizeof(Filler),
    .flags = FLAGS,
    .slots = filler_slots,
};

int
kept_add_types(PyObject *module, State *state)
{
    state->outlook = (PyTypeObject *)PyType_FromModuleAndSpec(module, &outlook_spec, NULL);
    state->filler = (PyTypeObject *)PyType_FromModuleAndSpec(module, &filler_spec, NULL);
    if (state->outlook == NULL || state->filler == NULL) {
        return -1;
    }
    return PyModule_AddType(module, state->outlook) < 0
                   || PyModule_AddType(module, state->filler) < 0
               ? -1
               : 0;
}

#endif
