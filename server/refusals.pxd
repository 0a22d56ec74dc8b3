# SPDX-License-Identifier: MIT
# Refusals without Python: what is no complete, well-formed head, comes too late, or finds no memory. The connection
# ends.
#
# Their responses look alike for everybody and are made with the server (Decider.prepare_shared). What is left is the
# line of the access log, in which a client's bytes are escaped as accesslog.py has it.
#
# Above: decide (its 500), receiving. Below: records, ready; the text is accesslog.py's, the statuses response.py's.

from libc.stdint cimport uint8_t

from ustack.server.records cimport decision_t, server_t

# A decision of the caller's. head: for the log, up to its first line end; may be NULL. NULL: no memory.
cdef decision_t *refusal_decide(server_t *server, int status, const uint8_t *head, size_t length) noexcept nogil
