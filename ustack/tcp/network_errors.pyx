# SPDX-License-Identifier: MIT
"""Errors from the network: what can be a routing transient is remembered (MUST-56), what cannot ends a connection that
is still being opened (SHLD-26), a smaller path MTU makes segments smaller. See network_errors.pxd.

In the synchronized states nothing that ICMP says ends a connection. RFC 1122 section 4.2.3.9 (and SHLD-26) asks for the
end at Destination Unreachable codes 2 to 4; but a peer whose segments arrive has both the protocol and the port, so the
message is forged, or a filter's on the way that may be gone in a second, and an attacker who sees nothing needs one
guess in as many bytes as are in flight. RFC 5927 section 5.2 and RFC 5461 section 3 therefore take them as soft there,
as Linux does. SYN-RECEIVED counts with them: the peer's SYN has arrived, so it is reachable and has the protocol. What
was said is the reason that the application reads if the connection times out without an ACK since.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.counters cimport DROP_ICMP_NO_CONNECTION, ICMP_SOFT_ERRORS, count
from ustack.tcp.ending cimport connection_end
from ustack.tcp.records.demux cimport FLOW_CONNECTION, FLOW_SYN_RECEIVED, flow_find, flow_t
from ustack.tcp.records.flight cimport flight_t
from ustack.tcp.records.state cimport CLOSE_HOST_UNREACHABLE, SYN_SENT, reason_of_icmp
from ustack.tcp.records.tcb cimport (
    TCB_REXMIT, flow_key_t, syn_at, tcb_at, tcb_t, tcp_t)
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.path cimport path_claimed, path_fragments
from ustack.tcp.recovery.repair cimport repair_resend
from ustack.tcp.recovery.transmissions cimport flight_of
from ustack.wire.octets cimport read_u16, read_u32
from ustack.wire.seq cimport seq_ge, seq_lt
from ustack.wire.tcp cimport TCP_HEADER_BYTES


cdef enum:
    ICMP_UNREACHABLE = 3
    ICMP_FRAGMENTATION_NEEDED = 4


cdef void tcp_error(tcp_t *tcp, const packet_t *packet, uint64_t now_ns) noexcept nogil:
    """Acted on only if the quoted sequence number is in flight, so that a blind attacker must guess it (RFC 5927
    section 4)."""
    cdef flow_key_t key
    cdef flow_t flow
    cdef tcb_t *tcb
    cdef uint32_t seq
    tcp.now_ns = now_ns
    if packet.payload_length < 8:
        count(tcp.counters, DROP_ICMP_NO_CONNECTION)
        return
    key.laddr = packet.src
    key.raddr = packet.dst
    key.lport = read_u16(packet.payload)
    key.rport = read_u16(packet.payload + 2)
    seq = read_u32(packet.payload + 4)
    flow = flow_find(tcp, &key)
    if flow.kind == FLOW_SYN_RECEIVED and seq == syn_at(tcp, flow.index).iss:
        count(tcp.counters, ICMP_SOFT_ERRORS)                           # nobody to tell; its time is bounded anyway
        return
    if flow.kind != FLOW_CONNECTION:
        count(tcp.counters, DROP_ICMP_NO_CONNECTION)
        return
    tcb = tcb_at(tcp, flow.index)
    if seq_lt(seq, tcb.snd_una) or seq_ge(seq, tcb.snd_max):
        count(tcp.counters, DROP_ICMP_NO_CONNECTION)
        return
    if packet.icmp_type == ICMP_UNREACHABLE and packet.icmp_code == ICMP_FRAGMENTATION_NEEDED:
        if path_claimed(tcp, tcb, packet.icmp_mtu, packet.icmp_quoted_length, seq):
            send_again(tcp, tcb)
    elif tcb.state == SYN_SENT and is_hard(packet.icmp_type, packet.icmp_code):
        connection_end(tcp, tcb, reason_of_icmp(packet.icmp_type, packet.icmp_code))
    else:
        tcb.soft_error = <uint8_t>(packet.icmp_type << 4 | (packet.icmp_code & 0x0F))   # MUST-56, MUST-47
        count(tcp.counters, ICMP_SOFT_ERRORS)


cdef void tcp_unreached(tcp_t *tcp, const packet_t *packet, uint64_t now_ns) noexcept nogil:
    """A failure of the link, seen by ourselves and not forged: it ends a connection that is being opened, as Linux does
    (arp_error_report, EHOSTUNREACH). One that was opened goes on: RFC 9293 section 3.9.2.2, MUST-56; the neighbour may
    come back within R2.
    """
    cdef flow_key_t key
    cdef flow_t flow
    cdef tcb_t *tcb
    tcp.now_ns = now_ns
    if packet.payload_length < TCP_HEADER_BYTES:
        return
    key.laddr = packet.src
    key.raddr = packet.dst
    key.lport = read_u16(packet.payload)
    key.rport = read_u16(packet.payload + 2)
    flow = flow_find(tcp, &key)
    if flow.kind != FLOW_CONNECTION:
        return
    tcb = tcb_at(tcp, flow.index)
    if tcb.state == SYN_SENT:
        if read_u32(packet.payload + 4) == tcb.snd_una:
            connection_end(tcp, tcb, CLOSE_HOST_UNREACHABLE)
    else:
        tcb.soft_error = <uint8_t>(packet.icmp_type << 4 | packet.icmp_code)


cdef inline bint is_hard(uint8_t type, uint8_t code) noexcept nogil:
    """Unreachable codes that cannot be a routing transient. RFC 1122 section 3.2.2.1 names those that can: 0, 1 and 5;
    11 and 12 say the same for one type of service; time exceeded and parameter problem count with them (section
    4.2.3.9). Linux's column `fatal` has the same list. A SYN is all that is in flight in SYN-SENT, so a blind attacker
    must guess 32 bits to get here."""
    return type == ICMP_UNREACHABLE and not (code == 0 or code == 1 or code == 5 or code == 11 or code == 12)


cdef void send_again(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Segments have become smaller: what was sent in larger ones goes again at once, without waiting for a timeout (RFC
    1191 section 6.4; once, however many routers complain: the next claim makes nothing smaller).

    It is no sign of congestion, and duplicates of what did arrive are no sign of loss, so there is no fast retransmit
    until all of this is acknowledged. RFC 1191 would send one segment only until its ACK comes; the window here holds
    no more segments than were in flight before.
    """
    cdef flight_t *flight = flight_of(tcp, tcb)
    if flight != NULL:
        repair_resend(tcp, tcb, flight, 0 if path_fragments(tcp, tcb) else tcb.smss)
    else:
        tcb.flags |= TCB_REXMIT
        work_add(tcp, tcb)
