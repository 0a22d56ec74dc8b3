# SPDX-License-Identifier: MIT
# The link contract: packet I/O behind one small table of C functions.
#
# Receive: rx_burst lends views of up to `max` frames; rx_release gives the oldest `n` of them back. Frames
# are released in the order they came. Transmit: tx_reserve lends a slot with room for `length` bytes;
# the caller writes a whole Ethernet frame; tx_commit queues it; tx_submit hands everything queued to the
# device with one system call where the medium allows it. NULL from tx_reserve means that the ring is full: submit, then
# try after the next poll. At most one slot is reserved and not committed; reserving again gives the same slot.
# A link may have tx_gather as well, for long frames whose payload lies elsewhere: it need not go through a slot.
#
# Nothing here reads a clock: the engine writes link.now_ns before each call that could need it (sim, tee).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.posix cimport iovec
from ustack.buf.frame cimport frame_t
from ustack.link.gate cimport Gate
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES

cdef enum:
    GATHER_PIECES_MAX = 16

# What the sender leaves to the device for one frame. All zero: the frame is complete as it stands.
ctypedef struct offload_t:
    uint16_t csum_start      # from the frame's first byte to the transport header; 0: no checksum to fill in
    uint16_t csum_offset     # from csum_start to the checksum field, which holds the pseudo-header sum
    uint16_t gso_size        # payload bytes of each segment; 0: not a super-frame
    uint16_t header_length   # Ethernet + IP + TCP bytes that each segment repeats
    uint8_t gso_family       # 4 or 6 when gso_size is not 0

ctypedef struct link_caps_t:
    uint32_t mtu             # largest IP packet of an ordinary frame
    uint32_t max_frame       # largest frame tx_reserve accepts (with segmentation: a super-frame)
    uint8_t tx_checksum      # csum_start is honoured
    uint8_t tx_segmentation  # gso_size is honoured
    uint8_t rx_checksum      # frames may arrive CHECKSUM_VERIFIED or CHECKSUM_PARTIAL

ctypedef struct link_counters_t:
    uint64_t rx_frames
    uint64_t rx_bytes
    uint64_t rx_dropped      # by the ring or the queue before the stack saw them
    uint64_t rx_truncated
    uint64_t tx_frames
    uint64_t tx_bytes
    uint64_t tx_dropped      # refused by the device
    uint64_t tx_submits      # system calls
    uint64_t waits           # times the engine slept

ctypedef struct link_ops_t:
    uint32_t (*rx_burst)(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil
    void (*rx_release)(link_t *link, uint32_t n) noexcept nogil
    # Whether at least `frames` wait that were not lent, or so many that others will soon be lost; with `still`, whether
    # half as many do. A few looks, however many wait. frames 0: as many as the device finds too many, half of its ring;
    # in memory, where nothing comes while the engine works, none are. NULL: this link cannot tell.
    bint (*rx_behind)(link_t *link, uint32_t frames, bint still) noexcept nogil
    uint8_t *(*tx_reserve)(link_t *link, uint32_t length) noexcept nogil
    void (*tx_commit)(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil
    # Instead of tx_commit, for a frame of `length` bytes whose first `head_bytes` are in the slot; the others lie in
    # pieces[0 .. count), count <= GATHER_PIECES_MAX, and are the caller's again when this returns. It goes out behind
    # whatever was committed before. Returns 0; or -errno: it was not taken, the slot is still reserved, the caller
    # copies and commits (-EFAULT: a piece's memory is gone). NULL: this link only takes frames that are in one piece.
    int (*tx_gather)(link_t *link, uint32_t length, uint32_t head_bytes, const offload_t *offload,
                     const iovec *pieces, uint32_t count) noexcept nogil
    # Bytes handed over are the device's. Returns 0, or -errno when the device is gone (ENETDOWN, ENXIO, ...).
    int (*tx_submit)(link_t *link) noexcept nogil
    # Sleep until a frame may be there, the deadline (monotonic, ns) or a signal. Spins first when
    # link.spin_ns is not 0. Returns 0, or -errno when the device is gone.
    int (*wait)(link_t *link, uint64_t deadline_ns) noexcept nogil
    # Fetch counters that only the device knows (tp_drops) into link.counters.
    void (*refresh_counters)(link_t *link) noexcept nogil

ctypedef struct link_t:
    const link_ops_t *ops
    void *impl               # the implementation's own state
    link_caps_t caps         # writer: the implementation, when it opens
    link_counters_t counters  # writer: the implementation
    uint64_t now_ns          # writer: the engine
    uint64_t spin_ns         # writer: the owner. 0: never spin; UINT64_MAX: never sleep
    uint8_t mac[6]           # our station address
    int wake_fd              # writer: the owner. A sleep ends when it can be read, too; -1: none


# Whether a device with these capabilities takes the frame as it is described; it drops what they do not cover.
cdef inline bint device_accepts(const link_caps_t *caps, uint32_t length, const offload_t *offload) noexcept nogil:
    if offload.csum_start != 0:
        if not caps.tx_checksum or <uint32_t>offload.csum_start + offload.csum_offset + 2 > length:
            return False
    if offload.gso_size != 0:
        return caps.tx_segmentation and offload.csum_start != 0 and offload.header_length < length
    return length <= caps.mtu + ETHERNET_HEADER_BYTES


# The mark that rx_behind holds a link with so many slots to: one that is beyond three quarters of them would be passed
# by frames that are lost already, and never be seen.
cdef inline uint32_t backlog_mark(uint32_t slots, uint32_t frames) noexcept nogil:
    cdef uint32_t most = slots - slots // 4
    return frames if frames < most else most


# rx_behind for a link that counts what waits.
cdef inline bint backlog_reaches(uint64_t waiting, uint32_t slots, uint32_t frames, bint still) noexcept nogil:
    cdef uint32_t mark = backlog_mark(slots, frames)
    if still:
        mark //= 2
    return frames > 0 and waiting > 0 and waiting >= mark


# Owner of a link on the Python side. A subclass opens it in __init__ and fills `c`; close() is idempotent.
# Whoever uses `c` keeps a reference to the Link.
cdef class Link:
    cdef link_t c
    cdef readonly bint closed
    cdef bint in_use                 # writer: LinkUse
    cdef Gate gate                   # who is inside; a subclass may share another link's
    cdef bint warns                  # dropped unclosed it gives a ResourceWarning: it holds the system's things
    cpdef void close(self) except *
    # Raise what Python code on the data path (a filter, a stream) has raised since the last call. The engine's owner
    # asks after each turn.
    cdef void raise_parked(self) except *
