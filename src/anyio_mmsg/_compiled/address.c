/* Addresses in Python's form: the twin of `decode_sockaddr` in _system/sockaddr.py, for
 * the families whose addresses anybody can forge in any number. */

#include "compiled.h"

#ifdef __linux__

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

/* A number of 8 bits in decimals; returns the end. */
static char *
put_byte(char *at, unsigned int number)
{
    if (number >= 100) {
        *at++ = (char)('0' + number / 100);
    }
    if (number >= 10) {
        *at++ = (char)('0' + number / 10 % 10);
    }
    *at++ = (char)('0' + number % 10);
    return at;
}

PyObject *
inet_host(const unsigned char *raw, size_t size)
{
    char host[INET6_ADDRSTRLEN], *at = host;
    size_t i;
    if (size == 16) {
        inet_ntop(AF_INET6, raw, host, sizeof(host)); /* can't fail: there is room */
        return PyUnicode_FromString(host);
    }
    for (i = 0; i < 4; i++) {
        at = put_byte(at, raw[i]);
        *at++ = '.';
    }
    return PyUnicode_FromStringAndSize(host, at - 1 - host);
}

/* A tuple of its own references, NULL for none; NULL and an error if one is missing. */
static PyObject *
pack(PyObject *const *parts, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    Py_ssize_t i;
    for (i = 0; i < count; i++) {
        if (tuple != NULL && parts[i] != NULL) {
            PyTuple_SET_ITEM(tuple, i, parts[i]);
        }
        else {
            Py_XDECREF(parts[i]);
            Py_CLEAR(tuple);
        }
    }
    return tuple;
}

PyObject *
inet_address(const unsigned char *raw, uint32_t length)
{
    sa_family_t family;
    uint16_t port; /* in both it stands behind the family */
    if (length < sizeof(family) + sizeof(port)) {
        return NULL;
    }
    memcpy(&family, raw, sizeof(family));
    memcpy(&port, raw + 2, sizeof(port));
    if (family == AF_INET && length >= 16) { /* with the padding */
        PyObject *parts[2] = {inet_host(raw + 4, 4), PyLong_FromLong(ntohs(port))};
        return pack(parts, 2);
    }
    if (family == AF_INET6 && length >= 28) {
        uint32_t flowinfo, scope_id;
        PyObject *parts[4];
        memcpy(&flowinfo, raw + 4, sizeof(flowinfo));
        memcpy(&scope_id, raw + 24, sizeof(scope_id));
        parts[0] = inet_host(raw + 8, 16);
        parts[1] = PyLong_FromLong(ntohs(port));
        parts[2] = PyLong_FromUnsignedLong(ntohl(flowinfo));
        parts[3] = PyLong_FromUnsignedLong(scope_id); /* in the host's order, unlike the rest */
        return pack(parts, 4);
    }
    return NULL;
}

#endif
