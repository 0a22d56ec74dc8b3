# SPDX-License-Identifier: MIT
# Segments for what is not (or no longer) a connection: nobody, a listener, a half-open record, a TIME-WAIT record.
#
# Above: input. Below: ack (ack_start), emit, ending, cookies, holders, throttle, demux, tcb.
# Read first: RFC 9293 sections 3.10.7.1, 3.10.7.2 and,
# for the two mini-records, 3.10.7.4; RFC 4987 (SYN floods), RFC 6191 (reuse of TIME-WAIT).

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.tcp.records.tcb cimport flow_key_t, tcb_t, tcp_t
from ustack.wire.tcp cimport segment_t

# No record has this key. iss_after: not 0: our ISN must lie beyond it (a TIME-WAIT record gave way).
# Not NULL: it completes a handshake by a cookie: the connection; seg is to be processed for it.
cdef tcb_t *listen_arrives(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, uint32_t iss_after) noexcept nogil
# For half-open record `index`. Not NULL: it has become this connection, and seg is to be processed for it.
cdef tcb_t *syn_received_arrives(tcp_t *tcp, uint32_t index, const segment_t *seg) noexcept nogil
cdef void time_wait_arrives(tcp_t *tcp, uint32_t index, const segment_t *seg) noexcept nogil
# tcb_options_t that a SYN offers and our configuration wants.
cdef uint8_t offered_options(const tcp_t *tcp, const segment_t *seg) noexcept nogil
# Write what both ends offered to the tcb: options, window scales, effective send MSS (MUST-16).
cdef void apply_negotiated(tcp_t *tcp, tcb_t *tcb, uint8_t options, uint16_t peer_mss,
                           uint8_t peer_wscale) noexcept nogil
