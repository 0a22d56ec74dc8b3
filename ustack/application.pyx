# SPDX-License-Identifier: MIT
"""Owners of the two tables between an application and what carries its bytes. See application.pxd for the contract."""

from libc.stdint cimport UINT64_MAX
from libc.string cimport memset

from ustack.base.arguments cimport timeout_ns
from ustack.base.clock cimport clock_monotonic_ns
from ustack.link.gate cimport Gate

import errno

from ustack.errors import CallTimeout, StackError

# Of transport_t, in its order. In front of them stands the budget, behind them what may be NULL: files.
cdef tuple DOWNCALLS = (
    "send", "send_queued", "send_room", "want_writable", "receivable", "receive", "peek", "resume", "shutdown", "close",
    "abort", "want_hand_over", "set_timeout", "set_option", "option", "endpoints", "status", "reason", "state", "info",
    "each", "listen", "unlisten", "connect", "taken")


def reason_name(int reason) -> str:
    """Lower case, without the prefix: CLOSE_RESET gives 'reset'."""
    return close_reason_t(reason).name.removeprefix("CLOSE_").lower()


cdef void attachment_end(attachment_t *attachment) noexcept:
    if attachment.at != NULL:
        attachment.at[0] = attachment.next
        if attachment.next != NULL:
            attachment.next.at = attachment.at
        attachment.at = NULL
        attachment.next = NULL


cdef class Transport:
    """Base class of transports: owner of a table of downcalls (transport_t)."""

    def __dealloc__(self) -> None:
        cdef attachment_t *each
        while self.attached != NULL:        # it has ended without a word
            each = self.attached
            each.transport[0] = NULL
            each.come_up[0] = NULL
            each.orphaned = True
            attachment_end(each)

    cdef uint16_t register(self, Application application) except 0:
        raise NotImplementedError

    cdef int enter(self, str call) except -1:
        if not self.alive:
            raise ValueError("the transport is closed")
        return self.gate.enter(call)

    cdef int leave(self) except -1:
        self.gate.leave()
        return 0

    cdef uint64_t now(self) noexcept:
        return UINT64_MAX

    cdef uint32_t turn(self, uint64_t at_ns) noexcept:
        return 0

    cdef void push(self) noexcept:
        pass

    cdef void push_with_gil(self) noexcept:
        pass

    cdef int control_number(self, object name) except -1:
        if name is not None:
            raise ValueError(f"cc={name!r}: this transport has no congestion control to choose")
        return 0

    cdef object trace_of(self, conn_t *conn, uint32_t capacity):
        raise StackError("unsupported", "trace(): this transport keeps no records of its connections",
                         errno.EOPNOTSUPP)

    cdef int set_listener_option(self, const ip_addr_t *address, uint16_t port, int option, uint32_t value) noexcept:
        return CALL_UNSUPPORTED

    cdef object control_name(self, int number):
        return None

    cdef void call_later(self, object call, object argument) noexcept:
        pass

    cdef list missing_downcalls(self):
        cdef const void **entries = <const void **>self.table
        cdef size_t number
        if sizeof(transport_t) != (2 + len(DOWNCALLS)) * sizeof(void *):
            raise AssertionError("DOWNCALLS does not name the entries of transport_t")
        return [name for number, name in enumerate(("budget", *DOWNCALLS)) if entries[number] == NULL]

    cdef int ensure_usable(self, Application application) except -1:
        missing = application.missing_upcalls()
        if missing:
            raise ValueError(f"{type(application).__name__} has no {', '.join(missing)}: it fills its whole "
                             "table in __cinit__ (ustack/application.pxd, application_t)")
        application.ensure_free()
        application.gate.check("listen()")      # who is inside it must find the same gate when leaving
        return 0

    cdef int raise_parked_of(self, list applications) except -1:
        cdef Application application
        for application in applications:
            if application.parked is not None:
                error = application.parked
                application.parked = None
                raise error
        return 0

    cdef void wait_until(self, object condition, object timeout, str what) except *:
        cdef uint64_t limit_ns = timeout_ns(timeout), now_ns = clock_monotonic_ns()
        if not self.wait_for(condition, now_ns + limit_ns if limit_ns < UINT64_MAX - now_ns else UINT64_MAX, what):
            raise CallTimeout("call_timeout", f"{what} within {timeout} s", errno.ETIMEDOUT)

    cdef bint wait_for(self, object condition, uint64_t until_ns, str what) except -1:
        raise NotImplementedError

    cdef int step(self) except -1:
        raise NotImplementedError


cdef class Application:
    """Base class of applications: a table of nogil upcalls (application_t) and its owner.

    A subclass in Cython fills `self.c` in __cinit__, whole but for what may be NULL (on_more, the burst hooks,
    on_hand_over, on_file_read, on_urgent). One Application serves one transport at a time.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.c, 0, sizeof(application_t))
        self.gate = Gate()
        self.attachment.transport = &self.transport
        self.attachment.come_up = &self.come_up

    def __dealloc__(self) -> None:
        attachment_end(&self.attachment)

    cdef void park(self, object error) noexcept:
        if self.parked is None:
            self.parked = error
        if self.come_up != NULL:
            self.come_up[0] = True

    cdef int enter(self, str call) except -1:
        return self.gate.enter(call)

    cdef int leave(self) except -1:
        self.gate.leave()
        return 0

    cdef int attach(self, Transport transport, uint16_t index, bint *come_up) except -1:
        missing = transport.missing_downcalls()
        if missing:
            raise NotImplementedError(f"{type(transport).__name__} has no {', '.join(missing)} (transport_t)")
        self.transport = transport.table
        self.c.index = index
        self.come_up = come_up
        self.gate = transport.gate
        self.attachment.next = transport.attached
        if transport.attached != NULL:
            transport.attached.at = &self.attachment.next
        self.attachment.at = &transport.attached
        transport.attached = &self.attachment
        return 0

    cdef void detach(self) noexcept:
        self.transport = NULL
        self.c.index = 0
        self.come_up = NULL
        self.gate = Gate()
        attachment_end(&self.attachment)

    cdef int ensure_free(self) except -1:
        if self.transport != NULL:
            raise ValueError(f"this {type(self).__name__} is in use: it serves one stack at a time")
        if self.attachment.orphaned:
            raise ValueError(f"this {type(self).__name__} has served a stack that was never closed, whose connections "
                             "are still in it: make another")
        return 0

    cdef list missing_upcalls(self):
        cdef list missing = []
        if self.c.on_accept == NULL:
            missing.append("on_accept")
        if self.c.on_data == NULL:
            missing.append("on_data")
        if self.c.on_writable == NULL:
            missing.append("on_writable")
        if self.c.on_eof == NULL:
            missing.append("on_eof")
        if self.c.on_timeout == NULL:
            missing.append("on_timeout")
        if self.c.on_closed == NULL:
            missing.append("on_closed")
        return missing
