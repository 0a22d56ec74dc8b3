# SPDX-License-Identifier: MIT
"""What is fuzzed, and libFuzzer's driver around it. See target.pxd.

libFuzzer is in the process when __main__ has started it so (LD_PRELOAD); its functions come as addresses, so that the
same modules replay a corpus in an ordinary build. C that was built for it reports its branches by itself. What is
Python reports its lines through `watch_python`: a trace function counts each step from one line to the next.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint8_t, uint32_t, uintptr_t
from libc.stdio cimport fflush, stderr
from libc.stdlib cimport abort, calloc
from libc.string cimport memset

from ustack.base.bytestring cimport bytes_from, data_of

import traceback

cdef extern from "Python.h":
    ctypedef struct PyFrameObject
    ctypedef struct PyCodeObject
    ctypedef int (*Py_tracefunc)(PyObject *, PyFrameObject *, int, PyObject *)
    int PyTrace_LINE
    void PyEval_SetTrace(Py_tracefunc, PyObject *)
    int PyFrame_GetLineNumber(PyFrameObject *)
    PyCodeObject *PyFrame_GetCode(PyFrameObject *)
    Py_ssize_t hash_of_file "PyObject_Hash"(object)

cdef extern from *:
    """
    #define USTACK_FILE_OF(code) ((PyObject *)((PyCodeObject *)(code))->co_filename)
    #define USTACK_FIRST_LINE_OF(code) (((PyCodeObject *)(code))->co_firstlineno)
    """
    PyObject *file_of "USTACK_FILE_OF"(PyCodeObject *)
    int first_line_of "USTACK_FIRST_LINE_OF"(PyCodeObject *)

cdef enum:
    STEPS = 1 << 16                         # places for steps between Python's lines

ctypedef int (*one_t)(const uint8_t *data, size_t size) noexcept
ctypedef int (*driver_t)(int *argc, char ***argv, one_t one)
ctypedef void (*counters_init_t)(uint8_t *start, uint8_t *stop)
ctypedef void (*places_init_t)(const uintptr_t *start, const uintptr_t *stop)

cdef uint8_t *COUNTERS = NULL
cdef uint32_t LAST = 0
cdef Target FUZZED = None


cdef class Target:
    """Something that is fuzzed."""

    cdef int run(self, const uint8_t *data, size_t size) except -1:
        self.one(bytes_from(data, size))
        return 0

    def one(self, data: bytes) -> None:
        """Run one input. Raises AssertionError for what must not be."""
        self.run(data_of(data), len(data))


cdef int run_one(const uint8_t *data, size_t size) noexcept:
    global LAST
    LAST = 0
    try:
        FUZZED.run(data, size)
    except BaseException:
        traceback.print_exc()
        fflush(stderr)
        abort()                             # libFuzzer keeps the input
    return 0


cdef int note_step(PyObject *_unused, PyFrameObject *frame, int what, PyObject *_argument) noexcept:
    global LAST
    cdef PyCodeObject *code
    cdef uint32_t here, place
    if what == PyTrace_LINE:
        code = PyFrame_GetCode(frame)
        here = <uint32_t>hash_of_file(<object>file_of(code))
        here ^= <uint32_t>first_line_of(code) * 0x9E3779B1u
        here += <uint32_t>PyFrame_GetLineNumber(frame) * 0x85EBCA6Bu
        here ^= here >> 15
        Py_DECREF(<object>code)
        place = (here ^ LAST) % STEPS
        LAST = here >> 1
        if COUNTERS[place] < 255:
            COUNTERS[place] += 1
    return 0


def watch_python(counters_init: int, places_init: int) -> None:
    """From now on libFuzzer sees each step from a line of Python to another. Arguments: the addresses of
    __sanitizer_cov_8bit_counters_init and __sanitizer_cov_pcs_init."""
    global COUNTERS
    cdef uintptr_t *places = <uintptr_t *>calloc(2 * STEPS, sizeof(uintptr_t))
    cdef int i
    COUNTERS = <uint8_t *>calloc(STEPS, 1)
    if COUNTERS == NULL or places == NULL:
        raise MemoryError
    for i in range(STEPS):
        places[2 * i] = <uintptr_t>i + 1               # they only have to differ
    (<counters_init_t><uintptr_t>counters_init)(COUNTERS, COUNTERS + STEPS)
    (<places_init_t><uintptr_t>places_init)(places, places + 2 * STEPS)
    PyEval_SetTrace(note_step, NULL)
    memset(COUNTERS, 0, STEPS)


def drive(target: Target, driver: int, arguments: list[bytes]) -> int:
    """Hand the process to libFuzzer, which mostly ends it. driver: the address of LLVMFuzzerRunDriver."""
    global FUZZED
    cdef int count = <int>len(arguments)
    cdef char **argv = <char **>calloc(<size_t>count + 1, sizeof(void *))
    cdef int i
    if argv == NULL:
        raise MemoryError
    for i in range(count):
        argv[i] = <char *>data_of(<bytes>arguments[i])
    FUZZED = target
    return (<driver_t><uintptr_t>driver)(&count, &argv, run_one)
