# SPDX-License-Identifier: MIT
# Python's bytes as memory, and back. With the GIL.
#
# Above: every Python face. Below: nothing.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t


# Good as long as the object lives. Raises TypeError for None.
cdef inline const uint8_t *data_of(bytes text) except NULL:
    return <const uint8_t *><const char *>text


# Raises TypeError for None.
cdef inline size_t size_of(bytes text) except? 0:
    return <size_t>len(text)


# A copy.
cdef inline bytes bytes_from(const void *data, size_t length):
    return PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>length)
