# SPDX-License-Identifier: MIT
"""Who is served while the engine is behind. See admission.pxd.

It must not: look at a packet while the engine keeps up, answer anybody (opening does), or read a byte that has not been
checked to be there. A SYN is known by its flags alone; what it costs to be wrong about one that is damaged or belongs
to a connection is what any lost segment costs.
"""

from ustack.base.counters cimport BACKLOGS, DROP_TCP_BACKLOG, count
from ustack.wire.tcp cimport ACK, RST, SYN, TCP_HEADER_BYTES

cdef enum:
    FLAGS_AT = 13                           # RFC 9293 section 3.1


cdef void admission_note(tcp_t *tcp, bint behind) noexcept nogil:
    if behind and not tcp.admission.behind:
        count(tcp.counters, BACKLOGS)
    tcp.admission.behind = behind
    tcp.admission.refuses = False


cdef inline bint opens(const packet_t *packet) noexcept nogil:
    return (packet.payload_length >= TCP_HEADER_BYTES
            and packet.payload[FLAGS_AT] & (SYN | ACK | RST) == SYN)


cdef void admission_passes(tcp_t *tcp) noexcept nogil:
    if tcp.admission.others < ADMISSION_OTHERS:
        tcp.admission.others += 1


cdef bint admission_drops(tcp_t *tcp, const packet_t *packet) noexcept nogil:
    tcp.admission.refuses = False
    if not opens(packet):
        admission_passes(tcp)
        return False
    if tcp.admission.others == ADMISSION_OTHERS:
        tcp.admission.others = 0
        return False
    if tcp.config.admission == ADMISSION_RESETS:
        tcp.admission.refuses = True        # opening says so, to whom no record is found for
        admission_passes(tcp)               # which costs as much as any segment
        return False
    count(tcp.counters, DROP_TCP_BACKLOG)
    return True
