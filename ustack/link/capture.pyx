# SPDX-License-Identifier: MIT
"""A capture file: packet blocks are laid out without the GIL into a bounded buffer, and written when it is time.

That is when the buffer is half full at the end of a burst, when it is full, at most every millisecond when the engine
waits, and at the end. Traffic never waits for a reader: what a pipe does not take stays in the buffer, and frames that
find it full are counted as missed. When the file cannot be written (a full disk, a reader that went away), the capture
ends behind its last whole packet and traffic goes on.

It must not: know a link, or raise on the data path. Read first: draft-ietf-opsawg-pcapng section 4.
Below: pcapng, base. Above: tee.
"""

import io
import os
import stat

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from ustack.base.bytestring cimport bytes_from
from ustack.base.clock cimport clock_monotonic_ns, clock_wall_ns
from ustack.base.forks cimport Forked
from ustack.base.posix cimport POLLERR, POLLHUP, POLLOUT, SEEK_CUR, SEEK_SET, ftruncate, lseek, write
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


# ---------------------------------------------------------------- recording
cdef void capture_frame(capture_t *capture, uint64_t now_ns, const uint8_t *data, uint32_t length, uint32_t wire_length,
                        capture_direction_t direction) noexcept nogil:
    cdef uint32_t padded = (length + 3) & ~3u
    cdef size_t needed = sizeof(packet_block_t) + padded + sizeof(packet_trailer_t)
    cdef uint64_t time_ns = capture.epoch_ns + now_ns
    cdef packet_block_t block
    cdef packet_trailer_t trailer
    cdef uint8_t *to
    if capture.ended or (capture.used + needed > capture.capacity and not make_room(capture, needed)):
        capture.missed += 1
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
    to = capture.buffer + capture.used
    memcpy(to, &block, sizeof(packet_block_t))
    to += sizeof(packet_block_t)
    memcpy(to, data, length)
    memset(to + length, 0, padded - length)
    memcpy(to + padded, &trailer, sizeof(packet_trailer_t))
    capture.used += needed
    capture.buffered_frames += 1


cdef bint make_room(capture_t *capture, size_t needed) noexcept nogil:
    """Write, then move what is left to the front if that is worth it: never more bytes than have been written."""
    capture_flush(capture, 0)
    if capture.used + needed > capture.capacity and capture.boundary >= capture.capacity // 2:
        memmove(capture.buffer, capture.buffer + capture.boundary, capture.used - capture.boundary)
        capture.used -= capture.boundary
        capture.written -= capture.boundary
        capture.boundary = 0
    return not capture.ended and capture.used + needed <= capture.capacity


cdef void capture_flush(capture_t *capture, uint64_t patience_ns) noexcept nogil:
    if capture.written < capture.used and not capture.ended:
        if not (write_to_descriptor(capture, patience_ns) if capture.fd >= 0 else write_to_stream(capture)):
            cut_partial_block(capture)
            capture.missed += capture.buffered_frames
            capture.buffered_frames = 0
            capture.ended = True
    if capture.ended or capture.written == capture.used:
        capture.boundary = 0
        capture.written = 0
        capture.used = 0


cdef void note_written(capture_t *capture, size_t n) noexcept nogil:
    cdef uint32_t length
    capture.written += n
    while capture.boundary < capture.used:
        memcpy(&length, capture.buffer + capture.boundary + 4, 4)       # packet_block_t.length
        if capture.boundary + length > capture.written:
            return
        capture.boundary += length
        capture.recorded += 1
        capture.buffered_frames -= 1


cdef void cut_partial_block(capture_t *capture) noexcept nogil:
    """Take the part of a block that the file got out of it again. A pipe keeps it: what is in one cannot be undone."""
    cdef int64_t end
    if capture.fd >= 0 and capture.written > capture.boundary:
        end = lseek(capture.fd, 0, SEEK_CUR) - <int64_t>(capture.written - capture.boundary)
        if end >= 0 and ftruncate(capture.fd, end) == 0:
            lseek(capture.fd, end, SEEK_SET)


cdef bint write_to_descriptor(capture_t *capture, uint64_t patience_ns) noexcept nogil:
    cdef size_t wanted
    cdef ssize_t n
    while capture.written < capture.used:
        wanted = capture.used - capture.written
        if capture.may_be_full:
            if not reader_takes_more(capture, patience_ns):
                return capture.error == 0
            wanted = min(wanted, <size_t>PIPE_BYTES)
        n = write(capture.fd, capture.buffer + capture.written, wanted)
        if n >= 0:
            note_written(capture, <size_t>n)
        elif errno == EAGAIN and capture.may_be_full:
            return True                         # somebody else writes to this pipe as well
        elif errno != EINTR:
            capture.error = errno
            return False
    return True


cdef bint reader_takes_more(capture_t *capture, uint64_t patience_ns) noexcept nogil:
    cdef short revents = 0
    cdef uint64_t deadline_ns = clock_monotonic_ns() + patience_ns if patience_ns else 0
    cdef int error = sleep_on(capture.fd, POLLOUT, deadline_ns, &revents)
    if error < 0:
        capture.error = -error
        return False
    return revents & (POLLOUT | POLLERR | POLLHUP) != 0         # after an error write() says which


cdef bint write_to_stream(capture_t *capture) noexcept with gil:
    """A stream that raises ends the capture. What is no Exception (an interrupt) is kept for the next Python call."""
    cdef Capture owner = <Capture>capture.owner
    try:
        write_whole(owner.stream, bytes_from(capture.buffer, capture.used))
    except BaseException as error:  # noqa: B036 - raised again by raise_parked
        owner.failure = error
        if is_interruption(error):
            owner.failure = OSError("interrupted")
            owner.parked = error
        return False
    note_written(capture, capture.used)
    return True


# ---------------------------------------------------------------- when to write
cdef void capture_burst_ended(capture_t *capture) noexcept nogil:
    if capture.used > capture.capacity // 2:
        capture_flush(capture, 0)


cdef uint64_t capture_before_wait(capture_t *capture, uint64_t deadline_ns) noexcept nogil:
    cdef uint64_t now_ns
    if capture.used == 0:
        return deadline_ns
    # A busy engine waits very often: write at most once a millisecond, and come back for what is left.
    now_ns = clock_monotonic_ns()
    if now_ns - capture.flushed_ns >= FLUSH_NS:
        capture_flush(capture, 0)
        capture.flushed_ns = now_ns
    elif deadline_ns > capture.flushed_ns + FLUSH_NS:
        return capture.flushed_ns + FLUSH_NS
    return deadline_ns


# ---------------------------------------------------------------- the file
cdef int write_whole(object stream, bytes octets) except -1:
    """A raw stream may take less than it was given."""
    view = memoryview(octets)
    while len(view) > 0:
        taken = stream.write(view)
        if not isinstance(taken, int) or not 0 < taken <= len(view):
            raise OSError(f"the stream took {taken!r} of {len(view)} bytes")
        view = view[taken:]
    return 0


cdef class Capture(Forked):
    """A pcapng file and the buffer in front of it."""

    def __cinit__(self) -> None:
        self.c.fd = -1
        self.c.owner = <void *>self

    def __dealloc__(self) -> None:
        free(self.c.buffer)

    cdef int open(self, object file, str interface_name, object epoch_ns, object buffer_bytes) except -1:
        if not BUFFER_MIN <= buffer_bytes <= BUFFER_MAX:
            raise ValueError(f"buffer_bytes {buffer_bytes}: must be {BUFFER_MIN} to {BUFFER_MAX}")
        if epoch_ns is None:
            epoch_ns = <int64_t>(clock_wall_ns() - clock_monotonic_ns())
        if not 0 <= epoch_ns < 1 << 63:
            raise ValueError(f"epoch_ns {epoch_ns}: must be 0 to 2**63 - 1")
        free(self.c.buffer)                 # of an attempt that failed
        self.c.buffer = <uint8_t *>malloc(buffer_bytes)
        if self.c.buffer == NULL:
            raise MemoryError
        self.c.capacity = buffer_bytes
        self.c.epoch_ns = epoch_ns
        self.owns_stream = isinstance(file, (str, bytes, os.PathLike))
        if self.owns_stream:
            self.stream = open(file, "wb", buffering=0)
        elif isinstance(file, int) and not isinstance(file, bool) and file >= 0:
            self.stream = io.FileIO(file, "wb", closefd=False)
        elif callable(getattr(file, "write", None)):
            self.stream = file
        else:
            raise ValueError(f"file {file!r}: must be a path, a descriptor or a binary stream")
        return self.write_header(file_header(interface_name))

    cdef int write_header(self, bytes header) except -1:
        try:
            write_whole(self.stream, header)
            if type(self.stream) is io.FileIO:      # nothing is kept back in it: write past it, without the GIL
                kind = os.fstat(self.stream.fileno()).st_mode
                self.c.may_be_full = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or stat.S_ISCHR(kind)
                self.c.fd = self.stream.fileno()
        except BaseException:
            if self.owns_stream:
                self.stream.close()
            self.stream = None
            raise
        return 0

    cdef void flush(self) noexcept:
        with nogil:
            capture_flush(&self.c, CLOSE_PATIENCE_NS)

    cdef int close(self) except -1:
        if self.stream is not None:
            self.flush()
        self.c.missed += self.c.buffered_frames     # of a reader that takes nothing any more
        self.c.buffered_frames = 0
        self.c.ended = True
        self.c.fd = -1
        stream = self.stream
        self.stream = None
        if self.owns_stream and stream is not None:
            stream.close()
        return 0

    cdef void forked(self) noexcept:
        if self.c.written > self.c.boundary:
            self.c.ended = True             # nothing fits behind a part of a block but its rest
        self.c.boundary = 0
        self.c.written = 0
        self.c.used = 0
        self.c.buffered_frames = 0

    cdef void raise_parked(self) except *:
        parked = self.parked
        if parked is not None:
            self.parked = None
            raise parked
