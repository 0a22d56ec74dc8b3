# SPDX-License-Identifier: MIT
"""Options of one connection that few have. See options.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport (
    CALL_NO_MEMORY, CALL_OK, CALL_STATE, CALL_UNSUPPORTED, OPTION_CORK, OPTION_FIN_WAIT_2_S, OPTION_KEEPALIVE_IDLE_S,
    OPTION_KEEPALIVE_INTERVAL_S, OPTION_KEEPALIVE_PROBES, OPTION_MAY_FRAGMENT, OPTION_MORE, OPTION_MSS,
    OPTION_QUICKACK, OPTION_RECEIVE_BUFFER, OPTION_SEND_BUFFER, OPTION_USER_TIMEOUT_MS)
from ustack.tcp.receive.window cimport rcv_limit
from ustack.tcp.records.deadlines cimport deadlines_arm
from ustack.tcp.records.life cimport sockopts_make, sockopts_settle
from ustack.tcp.records.marks cimport note_writable
from ustack.tcp.records.sockopts cimport (
    OWN_CORK, OWN_FRAGMENTS, OWN_MORE, OWN_QUICKACK, sockopts_flags, sockopts_t, tcb_fin_wait_2_ns,
    tcb_keepalive_idle_ns, tcb_keepalive_interval_ns, tcb_keepalive_probes, tcb_snd_queue, tcb_user_timeout_ns)
from ustack.tcp.records.state cimport CLOSED, SYN_SENT
from ustack.tcp.records.tcb cimport TCB_EV_WRITABLE, extra_at
from ustack.tcp.records.work cimport work_add


cdef enum:
    MS = 1000000
    SECOND = 1000000000


cdef inline uint8_t flag_of(int option) noexcept nogil:
    if option == OPTION_CORK:
        return OWN_CORK
    if option == OPTION_MORE:
        return OWN_MORE
    if option == OPTION_QUICKACK:
        return OWN_QUICKACK
    return OWN_FRAGMENTS if option == OPTION_MAY_FRAGMENT else 0


cdef void fix_receive_buffer(tcp_t *tcp, tcb_t *tcb, sockopts_t *own, uint32_t value) noexcept nogil:
    """autotune.limit_bytes is what the window goes by (rcv_limit). A smaller one takes nothing back that was promised
    (tcb_receive_window)."""
    own.rcv_buffer_bytes = value
    extra_at(tcp, tcb.extra).autotune.limit_bytes = value


cdef int tcp_option_set(tcp_t *tcp, tcb_t *tcb, int option, uint32_t value) noexcept nogil:
    cdef uint8_t flag = flag_of(option)
    cdef sockopts_t *own
    if not (flag or option == OPTION_USER_TIMEOUT_MS or OPTION_KEEPALIVE_IDLE_S <= option <= OPTION_FIN_WAIT_2_S
            or OPTION_SEND_BUFFER <= option <= OPTION_MSS):
        return CALL_UNSUPPORTED
    if tcb.state == CLOSED or (option == OPTION_MSS and (tcb.state != SYN_SENT or tcb.snd_nxt != tcb.snd_una)):
        return CALL_STATE
    own = sockopts_make(tcp, tcb)
    if own == NULL:
        return CALL_NO_MEMORY
    if flag:
        own.flags = <uint8_t>((own.flags | flag) if value else (own.flags & ~flag))
    elif option == OPTION_USER_TIMEOUT_MS:
        own.user_timeout_ms = value
    elif option == OPTION_KEEPALIVE_IDLE_S:
        own.keepalive_idle_s = <uint16_t>value
    elif option == OPTION_KEEPALIVE_INTERVAL_S:
        own.keepalive_interval_s = <uint16_t>value
    elif option == OPTION_KEEPALIVE_PROBES:
        own.keepalive_probes = <uint8_t>value
    elif option == OPTION_FIN_WAIT_2_S:
        own.fin_wait_2_s = <uint16_t>value
    elif option == OPTION_SEND_BUFFER:
        own.snd_queue_bytes = value if 0 < value < tcp.config.snd_queue_bytes else tcp.config.snd_queue_bytes
    elif option == OPTION_RECEIVE_BUFFER:
        fix_receive_buffer(tcp, tcb, own, value)
    else:
        own.mss = <uint16_t>value
    sockopts_settle(tcp, tcb)
    deadlines_arm(tcp, tcb)                 # keep-alive may be due earlier
    note_writable(tcp, tcb)
    if tcb.state != SYN_SENT or tcb.flags & TCB_EV_WRITABLE:
        work_add(tcp, tcb)                  # what was held back may go: a tail, an ACK, a larger window
    return CALL_OK


cdef inline uint32_t whole(uint64_t value_ns, uint32_t unit_ns) noexcept nogil:
    return <uint32_t>(value_ns // unit_ns)


cdef uint32_t tcp_option(const tcp_t *tcp, const tcb_t *tcb, int option) noexcept nogil:
    cdef uint8_t flag = flag_of(option)
    if flag:
        return sockopts_flags(tcp, tcb) & flag != 0
    if option == OPTION_USER_TIMEOUT_MS:
        return whole(tcb_user_timeout_ns(tcp, tcb), MS)
    if option == OPTION_KEEPALIVE_IDLE_S:
        return whole(tcb_keepalive_idle_ns(tcp, tcb), SECOND)
    if option == OPTION_KEEPALIVE_INTERVAL_S:
        return whole(tcb_keepalive_interval_ns(tcp, tcb), SECOND)
    if option == OPTION_KEEPALIVE_PROBES:
        return tcb_keepalive_probes(tcp, tcb)
    if option == OPTION_FIN_WAIT_2_S:
        return whole(tcb_fin_wait_2_ns(tcp, tcb), SECOND)
    if option == OPTION_SEND_BUFFER:
        return tcb_snd_queue(tcp, tcb)
    if option == OPTION_RECEIVE_BUFFER:
        return rcv_limit(tcp, tcb)
    return tcb.smss if option == OPTION_MSS else 0
