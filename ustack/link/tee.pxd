# SPDX-License-Identifier: MIT
# A link that records another link's frames. Body: tee.pyx.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.link.device cimport Link, LinkUse, link_t

ctypedef struct tee_t:
    link_t *inner
    uint8_t *reserved                # the inner link's slot, between tx_reserve and tx_commit
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
    uint64_t epoch_ns                # added to link.now_ns: time since 1970
    uint64_t flushed_ns              # monotonic
    uint64_t recorded
    uint64_t missed                  # frames that are not in the file
    int fd                           # written to directly; -1: through owner.stream, with the GIL
    int error                        # errno that ended the capture
    uint8_t ended                    # nothing more is recorded
    uint8_t may_be_full              # a pipe, a socket or a terminal: its reader may be slow, and is not waited for
    void *owner                      # the TeeLink


cdef class TeeLink(Link):
    cdef readonly Link inner
    cdef LinkUse inner_use
    cdef tee_t tee
    cdef object stream
    cdef object failure              # the exception that ended the capture
    cdef object parked               # an interruption that the stream's write() ended with, for who drives the engine
    cdef bint owns_stream            # opened here from a path
    cdef int open_file(self, object file, bytes header) except -1
    cdef int close_all(self) except -1
