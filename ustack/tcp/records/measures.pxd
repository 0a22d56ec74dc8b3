# SPDX-License-Identifier: MIT
# What a connection can be asked for with the setting `measure`: segments both ways, when data went and came, how long
# something held the sender back, at which rate data arrives.
#
# A record beside every tcb, by its index, and only in a stack that measures: in any other each hook is a test of
# tcp.config.measure. Nothing is decided by it. Below: tcb. Above: life, status, and where it happens: calls, input,
# output, recovery/ack, send.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.buf.slab cimport slab_at
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# What the sender waits for, as Linux tells them apart (enum tcp_chrono).
cdef enum wait_t:
    WAIT_NOTHING = 0                        # everything is acknowledged
    WAIT_BUSY                               # the network, the congestion window, the pacing
    WAIT_RWND                               # the peer's window has no room for the next segment
    WAIT_SNDBUF                             # the application for room in the send queue, all of which has gone
    WAITS

ctypedef struct measures_t:                 # two cache lines
    uint64_t waited_ns[<int>WAITS]          # 0   but for what is since `since_ns`
    uint64_t since_ns                       # 32  of `wait`
    uint64_t data_sent_ns                   # 40  the latest; 0: none yet
    uint64_t data_received_ns               # 48
    uint32_t segs_in                        # 56
    uint32_t segs_out                       # 60
    uint32_t data_segs_in                   # 64
    uint32_t data_segs_out                  # 68
    uint32_t rate_delivered                 # 72  bytes; the rate is over the interval
    uint32_t rate_interval_us               # 76  0: no rate yet
    uint16_t rcv_mss                        # 80  the peer's largest segment of data
    uint8_t wait                            # 82  wait_t
    uint8_t unused[45]                      # 83  a slab's records divide cache lines

# A segment has come, of `data` bytes; in frames put together, segments of `size` bytes (0: it is one).
cdef void note_segments_in(tcp_t *tcp, uint32_t index, uint32_t data, uint16_t size) noexcept nogil
# ... or gone.
cdef void note_segments_out(tcp_t *tcp, uint32_t index, uint32_t data, uint16_t size) noexcept nogil
# So many bytes have been delivered in so long (0: that says nothing). What was sent while the application was the limit
# says that the path carries no less (tcp_rate_gen).
cdef void note_rate(tcp_t *tcp, uint32_t index, uint32_t delivered, uint32_t interval_us,
                    bint app_limited) noexcept nogil
# There has been an output, or its application waits for room: what is the sender held back by from now on?
cdef void note_wait(tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# Nanoseconds of it so far.
cdef uint64_t waited_ns(const tcp_t *tcp, const measures_t *own, wait_t wait) noexcept nogil


# NULL: this stack does not measure.
cdef inline measures_t *measures_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return <measures_t *>slab_at(&tcp.measures, tcb.index) if tcp.config.measure else NULL
