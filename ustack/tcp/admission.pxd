# SPDX-License-Identifier: MIT
# Admission control: who is served while the engine is behind.
#
# A connection that is refused costs its peer a second; one that is accepted and then starved has cost both of them
# everything that was done for it. So while config.admission_frames wait, or half of an interface's ring, a SYN is
# dropped before any state or answer, and what belongs to connections that are there takes its place (N. Provos, C.
# Lever, S. Tweedie, "Analyzing the overload behavior of a simple web server", 2000: what is dropped late is the load).
# The engine asks the link after a receive stage that left frames behind (engine_poll), and asks until half as many
# wait.
#
# Refusing costs a tenth of a microsecond, so a flood of SYNs alone is worked off in no time and SYNs are let in again:
# honest ones are then lost as often as flood and room have it, which the ring did before, to all frames alike. Frames
# that no refusal makes cheaper (of connections that are there, echo requests, SYNs that are answered with a RST) would
# keep new ones out for good: one SYN is let in for every ADMISSION_OTHERS of them.
#
# That one need not be honest: whether its SYN-ACK will be answered is known a round trip later, when the room that it
# took is spent. So nothing is earned by what a SYN comes to, and nothing lost: a flood takes part by its number, as it
# does in the ring. Its bound is that number, a SYN-ACK for each ADMISSION_OTHERS frames that had to be worked off
# anyway, and the records of config.syn_queue (beyond: cookies). A SYN that is dropped costs next to nothing and brings
# the trickle no nearer.
#
# Where the link cannot tell what waits (TAP), nothing is refused. Read first: RFC 4987 section 3. Below: records.
# Above: opening, engine.

from libc.stdint cimport uint32_t

from ustack.ip.layer cimport packet_t
from ustack.tcp.records.tcb cimport tcp_t

cdef enum:
    ADMISSION_OTHERS = 16
    # config.admission: what a SYN that is refused is answered
    ADMISSION_OFF = 0                       # none is
    ADMISSION_DROPS = 1                     # nothing: the peer asks again, a second later
    ADMISSION_RESETS = 2                    # a RST, as if nobody listened: the peer knows at once

# The engine is behind, or has caught up.
cdef void admission_note(tcp_t *tcp, bint behind) noexcept nogil
# While it is behind: a frame that is no TCP segment has been taken.
cdef void admission_passes(tcp_t *tcp) noexcept nogil
# While it is behind, before tcp_input: the packet is to be dropped, and is counted.
cdef bint admission_drops(tcp_t *tcp, const packet_t *packet) noexcept nogil
