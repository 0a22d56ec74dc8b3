# SPDX-License-Identifier: MIT
# Where a record that is not SACKed waits: in flight, by the time of its last sending, or lost, in the order in which it
# goes again.
#
# Each list's sum (pipe, lost_bytes) loses what leaves the list; what enters is added by who knows why it does. Constant
# time. It must not: decide what is lost. Read first: flight.pxd. Above: transmissions, delivered, losses. Below:
# flight.

from libc.stdint cimport uint32_t

from ustack.base.ilist cimport ilist_append, ilist_hook_t, ilist_insert, ilist_prepend, ilist_remove, ilist_t
from ustack.tcp.records.flight cimport TX_LOST, flight_t, transmission_at, transmission_bytes, transmission_t
from ustack.tcp.records.tcb cimport tcp_t

ctypedef struct records_t:                  # what an index of a record is looked up in
    const tcp_t *tcp
    const flight_t *flight


cdef inline ilist_hook_t *order_hook(const void *table, uint32_t index) noexcept nogil:
    cdef const records_t *records = <const records_t *>table
    return &transmission_at(records.tcp, records.flight, index).order


# Where one that is not SACKED is.
cdef inline ilist_t *list_of(flight_t *flight, const transmission_t *sent) noexcept nogil:
    return &flight.to_resend if sent.flags & TX_LOST else &flight.by_time


cdef inline void list_append(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil:
    cdef records_t records = [tcp, flight]
    ilist_append(list_of(flight, transmission_at(tcp, flight, index)), order_hook, &records, index)


cdef inline void list_prepend(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil:
    cdef records_t records = [tcp, flight]
    ilist_prepend(list_of(flight, transmission_at(tcp, flight, index)), order_hook, &records, index)


# Out of the list that it is in, and out of that list's sum.
cdef inline void list_remove(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil:
    cdef records_t records = [tcp, flight]
    cdef const transmission_t *sent = transmission_at(tcp, flight, index)
    ilist_remove(list_of(flight, sent), order_hook, &records, index)
    if sent.flags & TX_LOST:
        flight.lost_bytes -= transmission_bytes(sent)
    else:
        flight.pipe -= transmission_bytes(sent)
        if flight.duplicate_bytes > flight.pipe:
            flight.duplicate_bytes = flight.pipe


# Right behind one, into the list that it is in.
cdef inline void list_insert_newer(tcp_t *tcp, flight_t *flight, uint32_t index, uint32_t added) noexcept nogil:
    cdef records_t records = [tcp, flight]
    cdef const transmission_t *sent = transmission_at(tcp, flight, index)
    ilist_insert(list_of(flight, sent), order_hook, &records, added, sent.order.next)
