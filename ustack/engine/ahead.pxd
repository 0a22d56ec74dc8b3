# SPDX-License-Identifier: MIT
# A look ahead over the frames of a burst: what their segments will touch is asked for before the first is processed.
#
# With many connections each segment finds its records outside of the caches: a slot of the flow table, three lines of
# the tcb, what is in flight, the piece of the send queue, the timer's node. One after the other those are a dozen waits
# for memory, as long as all the rest of a request. Their addresses follow from the frame's headers in three steps, each
# of which needs a line that the step before has asked for; so each step is made for all frames before the next one, and
# the memory answers many at once:
#
#     headers ─▶ the key's hash ─▶ slot ─▶ index ─▶ tcb ─▶ flight, send piece, timer node
#
# Nothing follows from it but prefetches and hashes. A frame that is not plain (a tag, IP options, another protocol) is
# passed over; a wrong guess (a hash that two keys share) costs a line of cache. So no bound and no check is here: they
# are where the frame is processed. It must not: write a record, count, trust a length beyond what it reads.
#
# Below: tcp/records, wire. Above: poll.

from libc.stdint cimport uint32_t

from ustack.buf.frame cimport frame_t
from ustack.tcp.records.tcb cimport flow_memo_t, tcp_t

cdef enum:
    # Connections (and half-open ones, and those in TIME-WAIT) whose records are in the second-level cache anyway: with
    # fewer, the look costs more than it saves.
    AHEAD_FLOWS_MIN = 1024

# memos[i]: the hash for frames[i], for flows.memo while it is processed; of what is no plain segment: anybody's.
# n: at most ENGINE_BURST.
cdef void look_ahead(const tcp_t *tcp, const frame_t *frames, uint32_t n, flow_memo_t *memos) noexcept nogil


cdef inline bint ahead_is_worth(const tcp_t *tcp, uint32_t n) noexcept nogil:
    return n > 1 and tcp.flows.used > AHEAD_FLOWS_MIN
