# SPDX-License-Identifier: MIT
# A pcapng file that frames are recorded into, without the GIL and without waiting for its reader. Bodies: capture.pyx.
#
# Below: pcapng (the file's header), base. Above: tee.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.forks cimport Forked

cdef enum capture_direction_t:           # the values of pcapng's epb_flags
    CAPTURE_INBOUND = 1
    CAPTURE_OUTBOUND = 2

ctypedef struct capture_t:
    # pcapng blocks, one behind the other, from `boundary` on:
    #
    #     |  in the file  | the file has a part of this block |  not written  |  free  |
    #     0               boundary ........ written ..........................used     capacity
    uint8_t *buffer
    size_t boundary                  # the first block that the file does not have whole
    size_t written                   # up to here the file has it
    size_t used
    size_t capacity
    uint32_t buffered_frames         # blocks from `boundary` to `used`
    uint64_t epoch_ns                # added to the engine's time: time since 1970
    uint64_t flushed_ns              # monotonic
    uint64_t recorded
    uint64_t missed                  # frames that are not in the file
    int fd                           # written to directly; -1: through owner.stream, with the GIL
    int error                        # errno that ended the capture
    uint8_t ended                    # nothing more is recorded
    uint8_t may_be_full              # a pipe, a socket or a terminal: its reader may be slow, and is not waited for
    void *owner                      # the Capture


# Owner of the file and the buffer. One that was not opened records nothing. What is buffered when fork() is called is
# the parent's to write; the child's copy goes on behind it.
cdef class Capture(Forked):
    cdef capture_t c
    cdef object stream
    cdef object failure              # the exception that ended the capture
    cdef object parked               # an interruption that the stream's write() ended with, for who drives the engine
    cdef bint owns_stream            # opened here from a path
    # See TeeLink for the arguments.
    cdef int open(self, object file, str interface_name, object epoch_ns, object buffer_bytes) except -1
    cdef int write_header(self, bytes header) except -1
    # What is buffered, to a slow reader too.
    cdef void flush(self) noexcept
    # Write the rest, close the file if it was opened here. Idempotent.
    cdef int close(self) except -1
    # Raises `parked`, once.
    cdef void raise_parked(self) except *


# Record one frame as it was at now_ns. wire_length: more for one that was cut.
cdef void capture_frame(capture_t *capture, uint64_t now_ns, const uint8_t *data, uint32_t length, uint32_t wire_length,
                        capture_direction_t direction) noexcept nogil
# Write what is buffered, or as much as a slow reader takes; wait for it up to patience_ns for each piece. On an error
# the capture ends.
cdef void capture_flush(capture_t *capture, uint64_t patience_ns) noexcept nogil
# A burst has ended: write if the buffer is half full.
cdef void capture_burst_ended(capture_t *capture) noexcept nogil
# The engine is about to wait until deadline_ns: write, at most once a millisecond. Returns when to wait no longer.
cdef uint64_t capture_before_wait(capture_t *capture, uint64_t deadline_ns) noexcept nogil
