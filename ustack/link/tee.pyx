# SPDX-License-Identifier: MIT
"""A capture: passes every operation to another link and writes both directions to a pcapng file (capture).

Frames are recorded as they cross the contract: a checksum that is left to the device is not filled in, and super-frames
are whole. Wireshark calls such checksums wrong on the sending host, as in any capture there, unless told not to look.

It must not: change a frame, or hold one up. Below: capture (the file), any link. Above: ip, which sees a link as any.
"""

import os

from libc.errno cimport EBADF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ustack.buf.frame cimport frame_t
from ustack.link.capture cimport (
    CAPTURE_INBOUND, CAPTURE_OUTBOUND, Capture, capture_before_wait, capture_burst_ended, capture_frame)
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, link_ops_t, link_t, offload_t
from ustack.link.use cimport LinkUse, link_use


cdef inline tee_t *tee_of(link_t *link) noexcept nogil:
    return <tee_t *>link.impl


cdef inline link_t *inner_of(link_t *link) noexcept nogil:
    """The inner link, told what the engine and the owner have written into the outer one."""
    cdef link_t *inner = tee_of(link).inner
    inner.now_ns = link.now_ns
    inner.spin_ns = link.spin_ns
    return inner


# ---------------------------------------------------------------- operations
cdef uint32_t tee_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    cdef uint32_t n = inner.ops.rx_burst(inner, frames, max_frames)
    cdef uint32_t i
    for i in range(n):
        capture_frame(tee_of(link).capture, link.now_ns, frames[i].data, frames[i].length, frames[i].wire_length,
                      CAPTURE_INBOUND)
    return n


cdef void tee_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    inner.ops.rx_release(inner, n)


cdef bint tee_rx_behind(link_t *link, uint32_t frames, bint still) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    return inner.ops.rx_behind != NULL and inner.ops.rx_behind(inner, frames, still)


cdef uint8_t *tee_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    tee_of(link).reserved = inner.ops.tx_reserve(inner, length)
    return tee_of(link).reserved


cdef void tee_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    if tee_of(link).reserved != NULL:
        capture_frame(tee_of(link).capture, link.now_ns, tee_of(link).reserved, length, length, CAPTURE_OUTBOUND)
        tee_of(link).reserved = NULL
    inner.ops.tx_commit(inner, length, offload)


cdef int tee_tx_submit(link_t *link) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    cdef int status = inner.ops.tx_submit(inner)
    capture_burst_ended(tee_of(link).capture)
    return status


cdef int tee_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    inner.wake_fd = link.wake_fd
    return inner.ops.wait(inner, capture_before_wait(tee_of(link).capture, deadline_ns))


cdef void tee_refresh_counters(link_t *link) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    inner.ops.refresh_counters(inner)
    link.counters = inner.counters


cdef link_ops_t TEE_OPS
TEE_OPS.rx_burst = tee_rx_burst
TEE_OPS.rx_release = tee_rx_release
TEE_OPS.rx_behind = tee_rx_behind
TEE_OPS.tx_reserve = tee_tx_reserve
TEE_OPS.tx_commit = tee_tx_commit
TEE_OPS.tx_submit = tee_tx_submit
TEE_OPS.wait = tee_wait
TEE_OPS.refresh_counters = tee_refresh_counters


# ---------------------------------------------------------------- Python face
cdef class TeeLink(Link):
    """TeeLink(inner, file, *, epoch_ns=None, buffer_bytes=4194304, interface_name=None)
--

    Another link with a pcapng capture of all that passes, in both directions.

    file: a path; an open descriptor or a binary stream with write(), which stay the caller's. A pipe, a socket or a
    terminal behind a path or a descriptor is never waited for: see `missed`. epoch_ns: added to link.now_ns to make a
    time since 1970; by default what makes CLOCK_MONOTONIC the time of day. Pass 0 in a simulation: the same seed then
    gives the same file. buffer_bytes: how much is kept before it is written. interface_name: as it appears in the file.

    Closing it closes the inner link as well. Raises ValueError for a bad argument, OSError when the file cannot be
    opened or its header cannot be written.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.c.ops = closed_link_ops()
        self.capture = Capture()
        self.tee.capture = &self.capture.c

    def __init__(self, Link inner not None, file: object, *, epoch_ns: int | None = None,
                 buffer_bytes: int = 4194304, interface_name: str | None = None) -> None:
        cdef LinkUse use
        if self.inner is not None:
            raise ValueError("a link is opened once")
        use = link_use(inner)
        name = interface_name if interface_name is not None else str(getattr(inner, "ifname", "link"))
        self.capture.open(file, name, epoch_ns, buffer_bytes)
        self.inner = inner
        self.inner_use = use
        self.gate = inner.gate
        self.tee.inner = &inner.c
        self.c.caps = inner.c.caps
        self.c.spin_ns = inner.c.spin_ns
        self.c.now_ns = inner.c.now_ns
        memcpy(self.c.mac, inner.c.mac, 6)
        self.c.impl = &self.tee
        self.c.ops = &TEE_OPS
        self.warns = True

    def flush(self) -> None:
        """Write what is buffered now; a slow reader is waited for. Raises nothing for a capture that has ended: see
        `error`."""
        if self.capture.stream is not None:
            self.gate.enter("TeeLink.flush()")
            try:
                self.capture.flush()
            finally:
                self.gate.leave()
            self.raise_parked()

    cdef void raise_parked(self) except *:
        self.capture.raise_parked()
        if self.inner is not None:
            self.inner.raise_parked()

    cpdef void close(self) except *:
        """Write the rest, close the file if this link opened it, and close the inner link."""
        if self.closed:
            return
        cdef bint entered = self.gate.enter_to_close()
        try:
            self.close_all()
        finally:
            self.gate.leave_closed(entered)
        self.raise_parked()

    cdef int close_all(self) except -1:
        if self.inner is not None:
            tee_refresh_counters(&self.c)
        self.closed = True
        self.c.ops = closed_link_ops()
        self.c.impl = NULL
        try:
            self.capture.close()
        finally:
            self.inner_use = None
            if self.inner is not None:
                self.inner.close()
        return 0

    def fileno(self) -> int:
        """The inner link's descriptor."""
        if self.closed or self.inner is None:
            raise OSError(EBADF, "the link is closed")
        return self.inner.fileno()

    @property
    def recorded(self) -> int:
        """Frames in the file or on their way into it."""
        return self.capture.c.recorded + self.capture.c.buffered_frames

    @property
    def missed(self) -> int:
        """Frames that are not in the file: a slow reader left no room, or the capture had ended before they passed."""
        return self.capture.c.missed

    @property
    def error(self) -> str | None:
        """Why the capture ended before the link was closed; None when it did not."""
        if self.capture.failure is not None:
            return str(self.capture.failure) or type(self.capture.failure).__name__
        return os.strerror(self.capture.c.error) if self.capture.c.error != 0 else None
