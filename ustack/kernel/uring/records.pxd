# SPDX-License-Identifier: MIT
# What the strategy keeps: a slot for each descriptor, what has come for it, what is on its way out.
#
#     slot_t       64 bytes for each descriptor that was added, from add until the last of its requests has completed:
#                  longer than the descriptor is open
#     item_t       what a completion has brought: a buffer with bytes, or a connection that was accepted
#     outgoing_t   what one send needs to stay as it is: the vector, and references to what was lent. From the request
#                  to its last completion, which with zero-copy is the peer's acknowledgment
#
# A request's user_data is its kind, its slot's generation and its slot's index (of a send: its outgoing_t's). A slot is
# used again when none of its requests is left in the kernel, so a completion always finds its own; the generation
# makes that sure where the kernel, or this, were wrong.
#
#     what is wanted ──todo list──▶ requests ──▶ kernel ──▶ completions ──ready list──▶ what is told
#
# Above: slots, requests, completions, strategy. Below: ring, buffers, readiness.

from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.iqueue cimport iqueue_t
from ustack.base.posix cimport iovec, msghdr
from ustack.buf.lent cimport lent_t
from ustack.buf.slab cimport slab_t
from ustack.kernel.readiness cimport readiness_t
from ustack.kernel.uring.buffers cimport buffers_t
from ustack.kernel.uring.ring cimport ring_t

cdef enum:
    SLOTS_MOST = 1 << 25
    ITEMS_MOST = 1 << 26
    QUEUE_MOST = 65536          # bytes that wait for one reader before its receive is cancelled
    ACCEPTED_MOST = 256         # the same for connections that wait to be taken
    VECTOR_MOST = 64            # ranges in one send
    SLOT_BYTES = 64
    ITEM_BYTES = 32
    OUTGOING_BYTES = 1664

# What a request is for: the highest four bits of its user_data.
cdef enum kind_t:
    KIND_SILENT = 0             # a cancel, a close: nobody waits for it
    KIND_RECEIVE
    KIND_ACCEPT
    KIND_POLL
    KIND_SEND

cdef enum slot_flags_t:
    LISTENS = 1
    RECEIVING = 2               # a receive, or an accept, is in the kernel
    CANCELLING = 4              # ... and was asked to come back
    POLLING = 8
    SEND_WAITS = 16             # an outgoing_t is to be handed over
    SENDING = 32                # ... and is in the kernel, or waits
    CLOSED = 64                 # its descriptor is closed, or is to be with the next requests
    CLOSE_ASKED = 128
    IN_READY = 256
    IN_TODO = 512
    SAW_EOF = 1024              # behind everything that waits
    FAILED = 2048               # the same: with `error`
    TOLD_OUT = 4096             # to be told: a send is over, a connect has ended
    TOLD_ERROR = 8192
    HUNG_UP = 1 << 14           # both directions have ended: poll would say so at once, for ever
    BY_HAND = 1 << 15           # a listener whose accept has failed: poll, then accept4
    SOMEBODY = 1 << 17          # ... and poll has said that somebody waits
    SENT_SHORT = 1 << 18
    SHARED = 1 << 19            # other processes take from it, too: always by hand
    STARVED = 1 << 16           # no buffer was left: on the list of those that wait for one

ctypedef struct slot_t:
    uint64_t token
    int32_t fd
    uint32_t generation         # 0: in no use
    uint32_t flags
    uint32_t index
    iqueue_t items
    uint32_t queued             # bytes, or connections, in them
    uint32_t next_ready
    uint32_t next_todo          # or free
    uint32_t next_starved
    uint32_t outgoing           # the send that is not over
    int32_t sent                # what the last one has come to: bytes, or a negative errno
    uint32_t in_flight          # requests in the kernel that have completions to come
    uint8_t interest            # READY_IN, READY_OUT
    uint8_t polled              # events that the poll in the kernel asks about
    int16_t error               # a negative errno, with FAILED

ctypedef struct item_t:
    uint8_t *copy               # NULL: the bytes are in the buffer
    uint32_t next
    uint32_t length
    uint32_t start
    int32_t number              # of the buffer, or an accepted descriptor

ctypedef struct outgoing_t:
    msghdr message
    iovec vector[VECTOR_MOST]
    lent_t *lent[VECTOR_MOST]
    uint64_t bytes
    uint32_t slot
    uint32_t generation         # the slot's; 0: in no use
    uint32_t count
    bint submitted
    bint notice                 # the result has come; the references are kept until the kernel says so
    bint plain                  # not without copying: there was no memory for that
    uint32_t next_free

ctypedef struct uring_t:
    readiness_t readiness       # first: see readiness_t
    ring_t ring
    buffers_t buffers
    slab_t slots
    slab_t items
    slab_t outgoings
    uint32_t *slot_of           # by descriptor; 0: none
    uint32_t fds
    uint32_t slots_high         # highest index in use so far
    uint32_t outgoings_high
    uint32_t slots_free         # lists of what was in use
    uint32_t outgoings_free
    uint32_t slots_in_use
    uint32_t requests           # in the kernel, that have completions to come
    uint32_t generation
    iqueue_t ready              # of slots, by next_ready and so on
    iqueue_t todo
    iqueue_t starved
    uint64_t copied_bytes       # in items that were copied, to give buffers back
    uint64_t thread             # that the ring belongs to; 0: nobody yet
    bint zerocopy


cdef inline uring_t *uring_of(readiness_t *readiness) noexcept nogil:
    return <uring_t *>readiness


cdef inline uint64_t user_data(kind_t kind, uint32_t generation, uint32_t index) noexcept nogil:
    return <uint64_t>kind << 60 | <uint64_t>(generation & 0xFFFFFFF) << 32 | index
