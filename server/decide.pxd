# SPDX-License-Identifier: MIT
# What needs Python to answer a request: an unseen head goes through request.py, target.py and selection.py; response.py
# writes what is refused.
#
# The three functions below are called with the GIL, so by no code that runs without it: only the hand-over (asking)
# calls them. They raise nothing. What goes wrong in them is logged, and the client gets a 500. What a signal handler
# raises meanwhile (errors.is_interruption) is for who runs the stack, not for this client: it is parked for him
# (Application.park), and the decision begun again.
#
# Each charges its work to server.units. A decision that is not DECISION_REMEMBERED is the caller's.
#
# Above: plainheads, asking, http. Below: loading, filetable, headtable, refusals, ready; request, target, selection,
# response, accesslog (.py).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.server.loading cimport Loader
from ustack.server.records cimport NO_FILE, decision_t, ready_t, section_t, server_t, shape_t

# Parse and decide; remember what lasts. NULL: server.awaited says for what the head waits; or, 0, without memory: the
# connection is aborted.
cdef decision_t *decide_unseen(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept
# What a header section means, as plainheads remembers it. NULL: the head is decided the general way, and any error
# comes up there.
cdef section_t *section_learn(server_t *server, const uint8_t *data, size_t length, int minor) noexcept
cdef shape_t *shape_learn(server_t *server, const char *extension, size_t length, int form) noexcept
cdef void section_free(section_t *section) noexcept nogil
# Park what is not a failure of ours. False: it is one.
cdef bint interrupted(server_t *server, object error) noexcept

# What decides in Python for one server. Made, held and named in server.decider by HttpServer.
cdef class Decider:
    cdef server_t *s                    # of who owns this
    cdef Loader loader
    cdef object limits                  # request.Limits
    cdef bytes server_name

    cdef decision_t *decide_head(self, bytes head, uint64_t hashed) except NULL
    cdef int status_of(self, bytes head) except -1              # decided anew, and not remembered
    cdef decision_t *blank(self, int status, request, bint close) except NULL
    cdef decision_t *refusal(self, refusal, bytes head, request) except NULL
    cdef decision_t *build(self, request, uint32_t number, choice) except NULL
    cdef int prepare_refusal(self, ready_t *ready, int status, fields, int form, bint counted=*) except -1
    cdef int prepare(self, ready_t *ready, int status, fields, int form, bytes body, bint counted=*, uint32_t keep=*,
                     bint whole=*) except -1
    cdef int note(self, decision_t *decision, bytes head, request) except -1
    cdef int prepare_shared(self) except -1         # once: the responses of refusal_decide
    cdef int await_body(self, decision_t *decision, request, bytes head) except -1
    cdef section_t *learn_section(self, bytes text, int minor) except NULL
    cdef shape_t *learn_shape(self, bytes extension, int form) except? NULL
