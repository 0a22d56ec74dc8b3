# SPDX-License-Identifier: MIT
# The engine's TCP as a transport: the table of downcalls that its applications get (application.pxd).
#
# Each entry is a step from the application's words to TCP's: the transport is the engine_t that begins with it, the
# connection the tcb_t that begins with conn_t's word. No protocol here. Above: upcalls, owner. Below: application,
# engine's records, tcp/calls.

from ustack.application cimport conn_t, transport_t
from ustack.engine.records cimport engine_t
from ustack.tcp.records.tcb cimport tcb_t

# Fill engine.transport. Once, after tcp_init.
cdef void engine_transport_init(engine_t *engine) noexcept nogil


# What an application knows of a connection. conn_t's word is the record's first, so that this costs nothing: a pointer
# to a word further in would need an addition in every call.
cdef inline conn_t *conn_of(tcb_t *tcb) noexcept nogil:
    return <conn_t *>tcb


cdef inline tcb_t *tcb_of(const conn_t *conn) noexcept nogil:
    return <tcb_t *>conn


cdef inline engine_t *engine_of(const transport_t *transport) noexcept nogil:
    return <engine_t *>transport
