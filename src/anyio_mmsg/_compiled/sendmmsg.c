#include "compiled.h"

#ifdef __linux__

int
sendmmsg_add_types(PyObject *module, State *Py_UNUSED(state))
{
    return PyModule_AddObjectRef(module, "Sendmmsg", Py_None);
}

#endif
