# SPDX-License-Identifier: MIT
# Buffers that the kernel receives into: one ring of them for all sockets, registered (IORING_REGISTER_PBUF_RING).
# Body: buffers.pyx.
#
#     in the ring     the kernel's: it takes the next one when bytes arrive for any socket
#     taken           ours: a completion has named it; until buffers_return
#
# A socket that waits needs no buffer. The first BUFFERS_FIRST are in the ring at the beginning, so that a small load
# stays in the cache; each shortage puts as many again into it, up to BUFFERS_MOST.
#
# It must not: know a socket. Above: slots, completions, strategy. Below: ring, abi.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.kernel.uring.abi cimport io_uring_buf
from ustack.kernel.uring.ring cimport ring_t

cdef enum:
    BUFFERS_MOST = 4096             # a power of two
    BUFFERS_FIRST = 256
    BUFFER_BYTES = 4096             # what one completion brings at most
    BUFFER_STRIDE = 4096 + 64       # of their addresses: not all in the same sets of a cache
    BUFFERS_GROUP = 0               # the name of the ring in requests

ctypedef struct buffers_t:
    io_uring_buf *entries           # the ring
    uint8_t *memory
    uint8_t *taken                  # by number: 1: ours
    uint32_t provided               # that were ever in the ring: the first ones
    uint32_t taken_count
    uint16_t tail

# 0, or -ENOMEM.
cdef int buffers_begin(buffers_t *buffers) noexcept nogil
# Register them with a ring, new or first: all but those that are taken are its. 0, or a negative errno.
cdef int buffers_register(buffers_t *buffers, ring_t *ring) noexcept nogil
cdef void buffers_end(buffers_t *buffers) noexcept nogil
# A completion has named it.
cdef void buffers_take(buffers_t *buffers, uint32_t number) noexcept nogil
cdef void buffers_return(buffers_t *buffers, uint32_t number) noexcept nogil
# There were too few.
cdef void buffers_grow(buffers_t *buffers) noexcept nogil


cdef inline const uint8_t *buffer_at(const buffers_t *buffers, uint32_t number) noexcept nogil:
    return buffers.memory + <size_t>number * BUFFER_STRIDE


cdef inline uint32_t buffers_left(const buffers_t *buffers) noexcept nogil:
    return buffers.provided - buffers.taken_count
