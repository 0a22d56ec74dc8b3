# SPDX-License-Identifier: MIT
"""The gate: one owner at a time. The rules are in gate.pxd.

Above: device, stacks. Below: errors, buf.lent.
"""

import threading

from ustack.buf.lent cimport lent_release_pending

from ustack.errors import OwnershipError


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil
    int PyErr_ResourceWarning(object source, Py_ssize_t stack_level, const char *format, ...) except -1


cdef class Gate:
    """Who is inside a stack and its link."""

    def __cinit__(self) -> None:
        self.deferred = []

    cdef int refuse(self, str call) except -1:
        if self.inside == PyThread_get_thread_ident():
            raise OwnershipError(
                "reentered", f"{call}: called from inside the stack's own {self.call}: a destructor, a callback or a "
                "signal handler may call stop() alone; have it leave word for the code that called the stack")
        raise OwnershipError(
            "thread", f"{call}: the stack is inside {self.call} in thread {thread_name(self.inside)}: one thread at a "
            "time; stop() ends run() there, and is allowed from anywhere")

    cdef int enter(self, str call) except -1:
        if self.inside != 0:
            self.refuse(call)
        self.inside = PyThread_get_thread_ident()
        self.call = call
        return 0

    cdef int check(self, str call) except -1:
        if self.inside != 0 and not (self.closing and self.inside == PyThread_get_thread_ident()):
            self.refuse(call)
        return 0

    cdef bint enter_to_close(self) except -1:
        if self.closing and self.inside == PyThread_get_thread_ident():
            return False
        self.enter("close()")
        self.closing = True
        return True

    cdef void leave_closed(self, bint entered) noexcept:
        if entered:
            self.closing = False
            self.leave()

    cdef void serve(self) noexcept:
        cdef list actions
        lent_release_pending()
        while self.deferred:
            actions = self.deferred
            self.deferred = []
            for action in actions:
                call_action(action)
            actions.clear()
            lent_release_pending()

    cdef void leave(self) noexcept:
        if self.inside != PyThread_get_thread_ident():
            return                          # it was opened for callbacks, and another thread has entered since
        self.serve()
        self.inside = 0

    cdef void defer(self, object action) noexcept:
        self.deferred.append(action)
        if self.inside == 0:
            self.inside = PyThread_get_thread_ident()
            self.call = "finalizer"
            self.leave()
        elif self.wake != NULL:
            self.wake(self.sleeper)


cdef void call_action(object action) noexcept:
    """What it raises goes to sys.unraisablehook: nobody is there to get it."""
    action()


cdef str thread_name(unsigned long ident):
    # Not threading.enumerate(): its lock may be held by the code that a destructor interrupts.
    thread = getattr(threading, "_active", {}).get(ident)
    return f"{ident}" if thread is None else f"{thread.name!r}"


cdef void warn_unclosed(object source) noexcept:
    """A warning that is an error goes to sys.unraisablehook, like everything that leaves a noexcept function."""
    message = f"unclosed {source!r}".encode()
    PyErr_ResourceWarning(source, 1, "%s", <const char *>message)
