# SPDX-License-Identifier: MIT
"""A capture: passes every operation to another link and writes both directions to a pcapng file.

Packet blocks are laid out here, without the GIL, into a bounded buffer: written when it is half full at the end of a
burst, when it is full, at most every millisecond when the engine waits, and at the end. Traffic never waits for a
reader: what a pipe does not take stays in the buffer, and frames that find it full are counted as missed. When the
file cannot be written (a full disk, a reader that went away), the capture ends behind its last whole packet and traffic
goes on.

Frames are recorded as they cross the contract: a checksum that is left to the device is not filled in, and super-frames
are whole. Wireshark calls such checksums wrong on the sending host, as in any capture there, unless told not to look.

Read first: draft-ietf-opsawg-pcapng section 4. Below: any link. Above: ip, which sees an ordinary link.
"""

import io
import os
import stat

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EBADF, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from ustack.base.clock cimport clock_monotonic_ns, clock_wall_ns
from ustack.base.posix cimport POLLERR, POLLHUP, POLLOUT, SEEK_CUR, SEEK_SET, ftruncate, lseek, write
from ustack.buf.frame cimport frame_t
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, LinkUse, link_ops_t, link_t, link_use, offload_t
from ustack.link.interface cimport sleep_on

from ustack.errors import is_interruption
from ustack.link.pcapng import file_header


cdef enum:
    BUFFER_MIN = 262144                 # holds the largest frame several times
    BUFFER_MAX = 1073741824
    FLUSH_NS = 1000000
    PIPE_BYTES = 4096                   # PIPE_BUF: a pipe that is writable takes this much at once (pipe(7))
    CLOSE_PATIENCE_NS = 200000000       # at the end a reader may take this long for each piece
    # draft-ietf-opsawg-pcapng section 4.3, in this machine's byte order (as the section header says)
    ENHANCED_PACKET_BLOCK = 6
    OPTION_FLAGS = 2
    FLAGS_INBOUND = 1
    FLAGS_OUTBOUND = 2

ctypedef struct packet_block_t:         # 28 bytes; the frame follows, padded to a multiple of four
    uint32_t type
    uint32_t length
    uint32_t interface
    uint32_t timestamp_high
    uint32_t timestamp_low
    uint32_t captured_length
    uint32_t original_length

ctypedef struct packet_trailer_t:       # 16 bytes: one option, the end of options, the block's length again
    uint32_t option_code_length
    uint32_t flags
    uint32_t option_end
    uint32_t length


cdef inline tee_t *tee_of(link_t *link) noexcept nogil:
    return <tee_t *>link.impl


cdef inline link_t *inner_of(link_t *link) noexcept nogil:
    """The inner link, told what the engine and the owner have written into the outer one."""
    cdef link_t *inner = tee_of(link).inner
    inner.now_ns = link.now_ns
    inner.spin_ns = link.spin_ns
    return inner


# ---------------------------------------------------------------- recording
cdef void record(link_t *link, const uint8_t *data, uint32_t length, uint32_t wire_length,
                 uint32_t direction) noexcept nogil:
    cdef tee_t *tee = tee_of(link)
    cdef uint32_t padded = (length + 3) & ~<uint32_t>3
    cdef size_t needed = sizeof(packet_block_t) + padded + sizeof(packet_trailer_t)
    cdef uint64_t time_ns = tee.epoch_ns + link.now_ns
    cdef packet_block_t block
    cdef packet_trailer_t trailer
    cdef uint8_t *to
    if tee.ended or (tee.used + needed > tee.capacity and not make_room(tee, needed)):
        tee.missed += 1
        return
    block.type = ENHANCED_PACKET_BLOCK
    block.length = <uint32_t>needed
    block.interface = 0
    block.timestamp_high = <uint32_t>(time_ns >> 32)
    block.timestamp_low = <uint32_t>time_ns
    block.captured_length = length
    block.original_length = wire_length
    trailer.option_code_length = OPTION_FLAGS | (4 << 16)
    trailer.flags = direction
    trailer.option_end = 0
    trailer.length = <uint32_t>needed
    to = tee.buffer + tee.used
    memcpy(to, &block, sizeof(packet_block_t))
    to += sizeof(packet_block_t)
    memcpy(to, data, length)
    memset(to + length, 0, padded - length)
    memcpy(to + padded, &trailer, sizeof(packet_trailer_t))
    tee.used += needed
    tee.buffered_frames += 1


cdef bint make_room(tee_t *tee, size_t needed) noexcept nogil:
    """Write, then move what is left to the front if that is worth it: never more bytes than have been written."""
    flush(tee, 0)
    if tee.used + needed > tee.capacity and tee.boundary >= tee.capacity // 2:
        memmove(tee.buffer, tee.buffer + tee.boundary, tee.used - tee.boundary)
        tee.used -= tee.boundary
        tee.written -= tee.boundary
        tee.boundary = 0
    return not tee.ended and tee.used + needed <= tee.capacity


cdef void flush(tee_t *tee, uint64_t patience_ns) noexcept nogil:
    """Write what is buffered, or as much as a slow reader takes; wait for it up to patience_ns for each piece. On an
    error the capture ends."""
    if tee.written < tee.used and not tee.ended:
        if not (write_to_descriptor(tee, patience_ns) if tee.fd >= 0 else write_to_stream(tee)):
            cut_partial_block(tee)
            tee.missed += tee.buffered_frames
            tee.buffered_frames = 0
            tee.ended = True
    if tee.ended or tee.written == tee.used:
        tee.boundary = 0
        tee.written = 0
        tee.used = 0


cdef void note_written(tee_t *tee, size_t n) noexcept nogil:
    cdef uint32_t length
    tee.written += n
    while tee.boundary < tee.used:
        memcpy(&length, tee.buffer + tee.boundary + 4, 4)       # packet_block_t.length
        if tee.boundary + length > tee.written:
            return
        tee.boundary += length
        tee.recorded += 1
        tee.buffered_frames -= 1


cdef void cut_partial_block(tee_t *tee) noexcept nogil:
    """Take the part of a block that the file got out of it again. A pipe keeps it: what is in one cannot be undone."""
    cdef int64_t end
    if tee.fd >= 0 and tee.written > tee.boundary:
        end = lseek(tee.fd, 0, SEEK_CUR) - <int64_t>(tee.written - tee.boundary)
        if end >= 0 and ftruncate(tee.fd, end) == 0:
            lseek(tee.fd, end, SEEK_SET)


cdef bint write_to_descriptor(tee_t *tee, uint64_t patience_ns) noexcept nogil:
    cdef size_t wanted
    cdef ssize_t n
    while tee.written < tee.used:
        wanted = tee.used - tee.written
        if tee.may_be_full:
            if not reader_takes_more(tee, patience_ns):
                return tee.error == 0
            wanted = min(wanted, <size_t>PIPE_BYTES)
        n = write(tee.fd, tee.buffer + tee.written, wanted)
        if n >= 0:
            note_written(tee, <size_t>n)
        elif errno == EAGAIN and tee.may_be_full:
            return True                         # somebody else writes to this pipe as well
        elif errno != EINTR:
            tee.error = errno
            return False
    return True


cdef bint reader_takes_more(tee_t *tee, uint64_t patience_ns) noexcept nogil:
    cdef short revents = 0
    cdef uint64_t deadline_ns = clock_monotonic_ns() + patience_ns if patience_ns else 0
    cdef int error = sleep_on(tee.fd, POLLOUT, deadline_ns, &revents)
    if error < 0:
        tee.error = -error
        return False
    return revents & (POLLOUT | POLLERR | POLLHUP) != 0         # after an error write() says which


cdef bint write_to_stream(tee_t *tee) noexcept with gil:
    """A stream that raises ends the capture. What is no Exception (an interrupt) is kept for the next Python call."""
    cdef TeeLink owner = <TeeLink>tee.owner
    try:
        write_whole(owner.stream, PyBytes_FromStringAndSize(<char *>tee.buffer, tee.used))
    except BaseException as error:  # noqa: B036 - raised again by raise_parked
        owner.failure = error
        if is_interruption(error):
            owner.failure = OSError("interrupted")
            owner.parked = error
        return False
    note_written(tee, tee.used)
    return True


cdef int write_whole(object stream, bytes octets) except -1:
    """A raw stream may take less than it was given."""
    view = memoryview(octets)
    while len(view) > 0:
        taken = stream.write(view)
        if not isinstance(taken, int) or not 0 < taken <= len(view):
            raise OSError(f"the stream took {taken!r} of {len(view)} bytes")
        view = view[taken:]
    return 0


# ---------------------------------------------------------------- operations
cdef uint32_t tee_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    cdef uint32_t n = inner.ops.rx_burst(inner, frames, max_frames)
    cdef uint32_t i
    for i in range(n):
        record(link, frames[i].data, frames[i].length, frames[i].wire_length, FLAGS_INBOUND)
    return n


cdef void tee_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    inner.ops.rx_release(inner, n)


cdef uint8_t *tee_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    tee_of(link).reserved = inner.ops.tx_reserve(inner, length)
    return tee_of(link).reserved


cdef void tee_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    if tee_of(link).reserved != NULL:
        record(link, tee_of(link).reserved, length, length, FLAGS_OUTBOUND)
        tee_of(link).reserved = NULL
    inner.ops.tx_commit(inner, length, offload)


cdef int tee_tx_submit(link_t *link) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    cdef int status = inner.ops.tx_submit(inner)
    if tee_of(link).used > tee_of(link).capacity // 2:
        flush(tee_of(link), 0)
    return status


cdef int tee_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    cdef tee_t *tee = tee_of(link)
    cdef uint64_t now_ns
    if tee.used > 0:
        # A busy engine waits very often: write at most once a millisecond, and come back for what is left.
        now_ns = clock_monotonic_ns()
        if now_ns - tee.flushed_ns >= FLUSH_NS:
            flush(tee, 0)
            tee.flushed_ns = now_ns
        elif deadline_ns > tee.flushed_ns + FLUSH_NS:
            deadline_ns = tee.flushed_ns + FLUSH_NS
    inner.wake_fd = link.wake_fd
    return inner.ops.wait(inner, deadline_ns)


cdef void tee_refresh_counters(link_t *link) noexcept nogil:
    cdef link_t *inner = inner_of(link)
    inner.ops.refresh_counters(inner)
    link.counters = inner.counters


cdef link_ops_t TEE_OPS
TEE_OPS.rx_burst = tee_rx_burst
TEE_OPS.rx_release = tee_rx_release
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
        self.tee.fd = -1

    def __init__(self, Link inner not None, file: object, *, epoch_ns: int | None = None,
                 buffer_bytes: int = 4194304, interface_name: str | None = None) -> None:
        cdef LinkUse use
        if self.inner is not None:
            raise ValueError("a link is opened once")
        use = link_use(inner)
        if not BUFFER_MIN <= buffer_bytes <= BUFFER_MAX:
            raise ValueError(f"buffer_bytes {buffer_bytes}: must be {<int>BUFFER_MIN} to {<int>BUFFER_MAX}")
        if epoch_ns is None:
            epoch_ns = <int64_t>(clock_wall_ns() - clock_monotonic_ns())
        if not 0 <= epoch_ns < 1 << 63:
            raise ValueError(f"epoch_ns {epoch_ns}: must be 0 to 2**63 - 1")
        name = interface_name if interface_name is not None else str(getattr(inner, "ifname", "link"))
        self.tee.buffer = <uint8_t *>malloc(buffer_bytes)
        if self.tee.buffer == NULL:
            raise MemoryError
        self.tee.capacity = buffer_bytes
        self.tee.epoch_ns = epoch_ns
        self.tee.owner = <void *>self
        self.open_file(file, file_header(name))
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

    cdef int open_file(self, object file, bytes header) except -1:
        self.owns_stream = isinstance(file, (str, bytes, os.PathLike))
        if self.owns_stream:
            self.stream = open(file, "wb", buffering=0)
        elif isinstance(file, int) and not isinstance(file, bool) and file >= 0:
            self.stream = io.FileIO(file, "wb", closefd=False)
        elif callable(getattr(file, "write", None)):
            self.stream = file
        else:
            raise ValueError(f"file {file!r}: must be a path, a descriptor or a binary stream")
        try:
            write_whole(self.stream, header)
            if type(self.stream) is io.FileIO:      # nothing is kept back in it: write past it, without the GIL
                kind = os.fstat(self.stream.fileno()).st_mode
                self.tee.may_be_full = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or stat.S_ISCHR(kind)
                self.tee.fd = self.stream.fileno()
        except BaseException:
            if self.owns_stream:
                self.stream.close()
            self.stream = None
            raise
        return 0

    def flush(self) -> None:
        """Write what is buffered now; a slow reader is waited for. Raises nothing for a capture that has ended: see
        `error`."""
        if self.stream is not None:
            self.gate.enter("TeeLink.flush()")
            try:
                with nogil:
                    flush(&self.tee, CLOSE_PATIENCE_NS)
            finally:
                self.gate.leave()
            self.raise_parked()

    cdef void raise_parked(self) except *:
        parked = self.parked
        if parked is not None:
            self.parked = None
            raise parked
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
            if self.stream is not None:
                with nogil:
                    flush(&self.tee, CLOSE_PATIENCE_NS)
        finally:
            self.tee.missed += self.tee.buffered_frames     # of a reader that takes nothing any more
            self.tee.buffered_frames = 0
            self.tee.ended = True
            self.tee.fd = -1
            if self.owns_stream and self.stream is not None:
                self.stream.close()
            self.stream = None
            self.inner_use = None
            if self.inner is not None:
                self.inner.close()
        return 0

    def __dealloc__(self) -> None:
        free(self.tee.buffer)

    def fileno(self) -> int:
        """The inner link's descriptor."""
        if self.closed or self.inner is None:
            raise OSError(EBADF, "the link is closed")
        return self.inner.fileno()

    @property
    def recorded(self) -> int:
        """Frames in the file or on their way into it."""
        return self.tee.recorded + self.tee.buffered_frames

    @property
    def missed(self) -> int:
        """Frames that are not in the file: a slow reader left no room, or the capture had ended before they passed."""
        return self.tee.missed

    @property
    def error(self) -> str | None:
        """Why the capture ended before the link was closed; None when it did not."""
        if self.failure is not None:
            return str(self.failure) or type(self.failure).__name__
        return os.strerror(self.tee.error) if self.tee.error != 0 else None
