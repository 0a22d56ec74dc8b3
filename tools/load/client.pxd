# SPDX-License-Identifier: MIT
# A load client: an application that opens connections to one server, asks, and judges what comes.
#
#     load_pump   between two turns: opens what is to be opened, sends what is due
#     upcalls     within a turn: a response is read; the next request follows it at once, if one is due
#
# Closed loop (no rate): a connection asks again when it has its answer. Open loop (a rate): requests are due by a
# schedule that the server has no say in (schedule.pxd), and the first free connection takes the oldest of them. Latency
# counts from when a request was due. Times are those of turns: a request is stamped with the beginning of the turn that
# sends it, a response with the beginning of the turn that finds it.
#
# A response counts as good when it is complete, has the status that was to come, and its body has the length (and, on
# a sample, the hash) of the file that was named, or of the first good one; everything else is counted by kind
# (outcome_t). Nothing is tried again in silence.
#
# It must not: know an engine, read a clock. Above: driver. Below: records, responses, schedule, histogram; application.

from libc.stdint cimport uint64_t

from ustack.application cimport Application, Transport
from ustack.tools.load.histogram cimport Histogram
from ustack.tools.load.records cimport load_t

# Returns when it has something to do next without a turn that brings something; now_ns: at once.
cdef uint64_t load_pump(load_t *load, uint64_t now_ns) noexcept nogil
cdef enum:
    PARTED_AT_ONCE = 256                    # a quarter of what a TAP device queues

# The time is over, or all requests were made, and nothing is under way or due any more; or it is over for as long as a
# request may take. As of the last pump or turn.
cdef bint load_is_over(const load_t *load) noexcept nogil
# Count what is left by kind; whatever comes later is not heard.
cdef void load_finish(load_t *load, uint64_t now_ns) noexcept nogil
# After it, with turns between: end PARTED_AT_ONCE connections, by a FIN, which is sent again where it is lost, or a RST
# where bytes wait unread; an answer that still comes is met by a RST. False: all have been ended.
cdef bint load_part(load_t *load) noexcept nogil


cdef class LoadClient(Application):
    cdef load_t load
    cdef Transport owner                    # that it has begun on
    cdef readonly Histogram latency
    cdef readonly Histogram unanswered
    cdef readonly Histogram opened
    cdef void begin_at(self, uint64_t now_ns, uint64_t duration_ns) except *
    cdef void make_questions(self, list requests, object bodies) except *
