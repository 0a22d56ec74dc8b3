# SPDX-License-Identifier: MIT
"""Drive a link from Python without a stack: every operation of the contract, for tests and measurements.

It keeps the frames of the last burst as they were lent, so that a test can look at them again before their release.
Below: link/device. Not for the data path.
"""

from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.base.bytestring cimport bytes_from
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport iovec
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_VERIFIED, frame_t
from ustack.link.device cimport GATHER_PIECES_MAX, Link, link_t, offload_t

cdef enum:
    BURST_MAX = 1024


class LentFrame(NamedTuple):
    """A copy of one lent frame and of what the link says about it."""

    data: bytes
    wire_length: int
    gso_size: int
    checksum: str


cdef object copy_of(const frame_t *frame):
    checksum = "partial" if frame.checksum == CHECKSUM_PARTIAL else (
        "verified" if frame.checksum == CHECKSUM_VERIFIED else "unknown")
    return LentFrame(bytes_from(frame.data, frame.length), frame.wire_length, frame.gso_size,
                     checksum)


cdef offload_t offload_of(uint16_t csum_start, uint16_t csum_offset, uint16_t gso_size, uint16_t header_length,
                          uint8_t gso_family):
    cdef offload_t offload
    memset(&offload, 0, sizeof(offload_t))
    offload.csum_start = csum_start
    offload.csum_offset = csum_offset
    offload.gso_size = gso_size
    offload.header_length = header_length
    offload.gso_family = gso_family
    return offload


cdef class LinkDriver:
    """The operations of `link`, with the GIL released during each."""

    cdef readonly Link link
    cdef link_t *c
    cdef frame_t frames[BURST_MAX]
    cdef uint32_t held
    cdef uint8_t *slot

    def __init__(self, Link link not None) -> None:
        self.link = link
        self.c = &link.c

    def burst(self, max_frames: int = 64) -> list[LentFrame]:
        """rx_burst: copies of the frames that it lent. They stay lent until release()."""
        cdef uint32_t room = min(max_frames, BURST_MAX - self.held)
        cdef uint32_t first = self.held
        cdef uint32_t n
        with nogil:
            n = self.c.ops.rx_burst(self.c, &self.frames[first], room)
        self.held += n
        return [copy_of(&self.frames[i]) for i in range(first, self.held)]

    def behind(self, frames: int, *, still: bool = False) -> bool | None:
        """rx_behind: whether so many frames wait, or with `still` half as many; None: the link cannot tell."""
        cdef uint32_t mark = frames
        cdef bint half = still
        cdef bint found
        if self.c.ops.rx_behind == NULL:
            return None
        with nogil:
            found = self.c.ops.rx_behind(self.c, mark, half)
        return bool(found)

    def lent(self) -> list[LentFrame]:
        """The frames on loan, read again where they lie."""
        return [copy_of(&self.frames[i]) for i in range(self.held)]

    def vlan_ids(self) -> list[int]:
        """Of the frames on loan: what the link says about a tag that is not in the frame; 0: none, or a priority."""
        return [self.frames[i].vlan_id for i in range(self.held)]

    def release(self, n: int | None = None) -> None:
        """rx_release of the oldest n frames on loan, by default of all."""
        cdef uint32_t given = self.held if n is None else n
        cdef uint32_t i
        if given > self.held:
            raise ValueError(f"{n} frames: only {self.held} are on loan")
        with nogil:
            self.c.ops.rx_release(self.c, given)
        self.held -= given
        for i in range(self.held):
            self.frames[i] = self.frames[i + given]

    def take(self, max_frames: int = 64) -> list[LentFrame]:
        """A burst, copied and released."""
        frames = self.burst(max_frames)
        self.release()
        return frames

    def reserve(self, length: int) -> bool:
        """tx_reserve. False: the ring is full."""
        cdef uint32_t octets = length
        with nogil:
            self.slot = self.c.ops.tx_reserve(self.c, octets)
        return self.slot != NULL

    def commit(self, frame: bytes, *, csum_start: int = 0, csum_offset: int = 0, gso_size: int = 0,
               header_length: int = 0, gso_family: int = 0) -> None:
        """Write `frame` into the reserved slot and tx_commit it."""
        cdef offload_t offload
        cdef uint32_t length = PyBytes_GET_SIZE(frame)
        if self.slot == NULL:
            raise ValueError("nothing is reserved")
        offload = offload_of(csum_start, csum_offset, gso_size, header_length, gso_family)
        memcpy(self.slot, PyBytes_AS_STRING(frame), length)
        self.slot = NULL
        with nogil:
            self.c.ops.tx_commit(self.c, length, &offload)

    def send(self, frame: bytes, **offload: int) -> bool:
        """Reserve and commit. False: the ring is full."""
        if not self.reserve(len(frame)):
            return False
        self.commit(frame, **offload)
        return True

    @property
    def gathers(self) -> bool:
        """Whether the link has tx_gather."""
        return self.c.ops.tx_gather != NULL

    def gather(self, head: bytes, *pieces: object, csum_start: int = 0, csum_offset: int = 0, gso_size: int = 0,
               header_length: int = 0, gso_family: int = 0) -> int:
        """tx_gather of a frame of which `head` is written into the reserved slot; 0 or -errno. The reservation stays
        after an error."""
        cdef iovec vector[GATHER_PIECES_MAX]
        cdef offload_t offload
        cdef uint32_t head_bytes = PyBytes_GET_SIZE(head)
        cdef uint32_t length = head_bytes
        cdef uint32_t n = 0
        cdef Py_buffer views[GATHER_PIECES_MAX]
        cdef int status
        cdef uint32_t i
        if self.slot == NULL:
            raise ValueError("nothing is reserved")
        if len(pieces) > GATHER_PIECES_MAX:
            raise ValueError(f"more than {GATHER_PIECES_MAX} pieces")
        offload = offload_of(csum_start, csum_offset, gso_size, header_length, gso_family)
        memcpy(self.slot, PyBytes_AS_STRING(head), head_bytes)
        try:
            for piece in pieces:
                PyObject_GetBuffer(piece, &views[n], PyBUF_SIMPLE)
                vector[n].iov_base = views[n].buf
                vector[n].iov_len = views[n].len
                length += <uint32_t>views[n].len
                n += 1
            with nogil:
                status = self.c.ops.tx_gather(self.c, length, head_bytes, &offload, vector, n)
        finally:
            for i in range(n):
                PyBuffer_Release(&views[i])
        if status == 0:
            self.slot = NULL
        return status

    def submit(self) -> int:
        """tx_submit: 0 or -errno."""
        cdef int status
        with nogil:
            status = self.c.ops.tx_submit(self.c)
        return status

    def wait(self, timeout_ns: int) -> int:
        """wait until so many ns from now: 0 or -errno."""
        cdef uint64_t deadline_ns = clock_monotonic_ns() + <uint64_t>timeout_ns
        cdef int status
        with nogil:
            status = self.c.ops.wait(self.c, deadline_ns)
        return status

    def sleep(self, wake_fd: int) -> int:
        """wait without a deadline, for frames or until wake_fd can be read: 0 or -errno."""
        cdef int status
        self.c.wake_fd = wake_fd
        with nogil:
            status = self.c.ops.wait(self.c, UINT64_MAX)
        self.c.wake_fd = -1
        return status

    def wait_frames(self, count: int, timeout_ns: int = 5_000_000_000) -> list[LentFrame]:
        """Wait, take and release until `count` frames have come or the time is over."""
        frames: list[LentFrame] = []
        deadline_ns = clock_monotonic_ns() + <uint64_t>timeout_ns
        while len(frames) < count and clock_monotonic_ns() < deadline_ns:
            self.wait(10_000_000)
            frames += self.take(min(64, count - len(frames)))
        return frames

    @property
    def now_ns(self) -> int:
        """link.now_ns, which an engine would write."""
        return self.c.now_ns

    @now_ns.setter
    def now_ns(self, now_ns: int) -> None:
        self.c.now_ns = now_ns

    @property
    def spin_ns(self) -> int:
        """link.spin_ns, which the link's owner may change."""
        return self.c.spin_ns

    @spin_ns.setter
    def spin_ns(self, spin_ns: int) -> None:
        self.c.spin_ns = spin_ns
