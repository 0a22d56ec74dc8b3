# SPDX-License-Identifier: MIT
# THE MAP. One engine = one thread = one link = one set of connections; no locks.
#
#     engine_poll(now):   rx_burst -> ip_input -> tcp_input -> upcalls     for each frame, at most 64
#                         ip_timers, tcp_timers -> upcalls
#                         hand-over, once, to applications that need Python
#                         tcp_output for each connection with work -> tx_submit, once
#
# A turn (one engine_poll) does a bounded amount of work, counted in units (tcp/records/turn.pxd): what it cannot
# afford is first in the next turn, and until it is done engine_next_deadline says "now".
#
# Above: owner, tools. Below: upcalls, tcp, ip, link.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.application cimport application_t
from ustack.engine.records cimport ENGINE_APPLICATIONS, ENGINE_BURST, engine_t, turn_stats_t

cdef uint32_t engine_poll(engine_t *engine, uint64_t now_ns) noexcept nogil      # frames taken
# Only the second half: what calls between two polls have left behind goes out.
cdef void engine_flush(engine_t *engine, uint64_t now_ns) noexcept nogil
# What upcalls have noted for applications that need Python since the turn's hand-over. With the GIL, before the
# caller's call returns to Python; there is some while engine.hand_overs is set, and a next turn hands it over as well.
cdef void engine_hand_over(engine_t *engine) noexcept nogil
cdef uint64_t engine_next_deadline(engine_t *engine) noexcept nogil              # monotonic ns, UINT64_MAX: none
# Sleep on the link until a frame may be there, the deadline or a signal.
cdef void engine_wait(engine_t *engine, uint64_t deadline_ns) noexcept nogil
# Poll until `until_ns`, *stop or a link error; sleeps on the link when nothing is to be done. It returns
# early after a sleep, so that its caller can run Python's signal handlers.
cdef void engine_run(engine_t *engine, uint64_t until_ns, const bint *stop) noexcept nogil
# Registers app (borrowed until the engine is destroyed); returns its index for tcp_listen and tcp_connect, 0 if the
# table is full.
cdef uint16_t engine_add_application(engine_t *engine, application_t *app) noexcept nogil
# One turn of ending everything: RST to every peer that something is still to be exchanged with, on_closed to every
# application, until no record is left. The link is served meanwhile, but nobody is let in any more. True: there is more
# to end; call it again, with the time then.
cdef bint engine_end_some(engine_t *engine, uint64_t now_ns) noexcept nogil
# Free every connection in one go; no frame, no upcall: the link and the applications may be gone.
cdef void engine_discard_all(engine_t *engine) noexcept nogil
