# SPDX-License-Identifier: MIT
"""When a connection's application may queue more. See marks.pxd."""

from libc.stdint cimport int32_t, uint32_t

from ustack.tcp.records.life cimport sockopts_make, sockopts_settle
from ustack.tcp.records.tcb cimport TCB_EV_WRITABLE
from ustack.tcp.records.work cimport work_add


cdef bint tcb_is_writable(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    # Below zero when our FIN is acknowledged.
    cdef int32_t queued = seq_diff(tcb.snd_end, tcb.snd_una)
    return queued <= <int32_t>tcb_low_water(tcp, tcb) and tcb_unsent(tcb) <= tcb_unsent_low_water(tcp, tcb)


cdef int marks_set(tcp_t *tcp, tcb_t *tcb, uint32_t low_water_bytes, uint32_t unsent_low_water_bytes) noexcept nogil:
    cdef sockopts_t *own
    if tcb_low_water(tcp, tcb) == low_water_bytes and tcb_unsent_low_water(tcp, tcb) == unsent_low_water_bytes:
        return 0                            # the usual ones need no record
    own = sockopts_make(tcp, tcb)
    if own == NULL:
        return -1
    own.low_water_bytes = low_water_bytes
    own.unsent_low_water_bytes = unsent_low_water_bytes
    sockopts_settle(tcp, tcb)
    note_writable(tcp, tcb)
    if tcb.flags & TCB_EV_WRITABLE:
        work_add(tcp, tcb)
    return 0
