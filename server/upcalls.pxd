# SPDX-License-Identifier: MIT
# The table of upcalls that a server is to its transport: which event goes where, by the phase of the exchange.
#
# Each charges what it did to the turn, and leaves what the turn does not pay for to the next one. It must not wait for
# anything, read a clock, or take the GIL outside of on_hand_over.
#
# Read first: ustack/application.pxd; the phases in records.pxd. Above: http. Below: receiving, asking, sending,
# connection, tables, wallclock.

from ustack.application cimport application_t, conn_t, transport_t

# app.context: the server_t.
cdef void upcalls_fill(application_t *app) noexcept
# HttpServer.finish, for each connection: one on which nothing is going on ends now.
cdef void finish_idle(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil
