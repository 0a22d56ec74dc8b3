# SPDX-License-Identifier: MIT
# Heads that Python has to decide: all of a turn in one hand-over, with the GIL taken once (application.pxd).
#
#     receiving                          hand-over                                 output
#     on_data: head kept,         ──▶    GIL; for each head, oldest first:   ──▶   nobody holds the GIL
#     PHASE_UNDECIDED                    recall, decide_learning, decide_unseen
#                                        answer; the connection is read on
#
# A hand-over decides at least one head, and no more than HAND_OVER_MAX_UNITS pay for: half of what a turn's second
# stage has, the other half is output's. The rest is for the next turn, which comes without a sleep before it. Heads are
# decided in the order in which they came, in turn with those whose file has come (fetching); each connection waits with
# one, whatever it sends.
#
# A hand-over in a turn without an upcall has the time of the burst before: the clock is not read for it.
#
# Above: http. Below: receiving, plainheads, decide, connection, exchange.

from libc.stdint cimport uint32_t

from ustack.application cimport transport_t
from ustack.server.records cimport server_t

# With the GIL. Returns how many heads were decided.
cdef uint32_t decide_waiting(server_t *server, const transport_t *transport) noexcept
