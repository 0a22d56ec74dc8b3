# SPDX-License-Identifier: MIT
"""New data begins, or has not gone out. See progress.pxd."""

from libc.stdint cimport uint32_t

from ustack.tcp.cc.contract cimport cc_ops_t, cc_view_t
from ustack.tcp.recovery.ack cimport initial_window
from ustack.tcp.recovery.control cimport control_state, view_load, view_store
from ustack.tcp.recovery.transmissions cimport transmission_cancel
from ustack.tcp.send.segment cimport SEND_FAILED


cdef void congestion_on_idle(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef cc_view_t view
    view_load(tcp, tcb, &view)
    ops.on_idle(control_state(tcp, tcb, ops), &view, initial_window(tcp, tcb))
    view_store(tcb, &view)


cdef send_t note_unsent(tcp_t *tcp, tcb_t *tcb, uint32_t index, send_t sent) noexcept nogil:
    """New data has not gone out. Where the ring is full output comes again by itself, otherwise a timer asks it to."""
    transmission_cancel(tcp, tcb, index)
    if sent == SEND_FAILED and not deadline_is_set(tcb, DEADLINE_REXMIT):
        rexmit_start(tcp, tcb)
    return sent
