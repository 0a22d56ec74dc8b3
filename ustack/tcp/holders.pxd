# SPDX-License-Identifier: MIT
# Connections whose peers hold what we have for them, and who gives up first when connections run short.
#
# A peer that acknowledges nothing, shuts its window or opens it by a byte at a time keeps a connection, its timers and
# all that its application has queued, for as long as it answers (RFC 9293 section 3.8.6.1, MUST-37; "Sockstress" does
# it on purpose). RFC 6429, to which that section refers, says that the system may end such connections when what they
# hold runs out. So:
#
#     fewer than 7/8 of config.max_connections      nobody is looked at
#     more                                          each handshake that is about to be complete looks at HOLDERS_LOOK
#                                                   connections, or HOLDERS_LOOK_SLOTS of the flow table, whichever
#                                                   comes first, and goes on where the last one stopped
#
# A connection that has something to send or not acknowledged is marked with its SND.UNA and the time. Found again, at
# least config.holder_interval_ns later, it is a holder if fewer bytes than config.holder_bytes_per_second, on average
# since the mark, were acknowledged. Holders end with a RST and CLOSE_NO_MEMORY. Who reads slowly, but faster than that,
# gets a new mark; who owes nothing is not looked at: how long an idle connection may stay is its application's matter.
#
# Half-open ones are not in it (cookies), nor are connections that an application has closed (config.max_orphans), nor
# what was received and not read (receive/pressure). Above: opening. Below: tcb, demux.

from libc.stdint cimport uint32_t

from ustack.tcp.records.tcb cimport tcp_t

cdef enum:
    HOLDERS_LOOK = 16
    HOLDERS_LOOK_SLOTS = 256

# Connections run short.
cdef inline bint holders_wanted(const tcp_t *tcp) noexcept nogil:
    return (tcp.tcbs.in_use >= tcp.tcbs.limit - tcp.tcbs.limit // 8 and tcp.config.holder_bytes_per_second != 0)


# Look on. Called when a connection is about to be made, before its record is asked for; does nothing without pressure.
cdef void holders_look(tcp_t *tcp) noexcept nogil
