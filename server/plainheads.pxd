# SPDX-License-Identifier: MIT
# Unseen heads that are plain, decided without Python.
#
# A client asks for one path after the other with the same header section: the bytes behind the request line. What it
# decides (whether it is legal, how the connection goes on, whether gzip is accepted) is learned from request.py once,
# and remembered by its exact bytes; then only the target of a GET or HEAD is new, and to be decided here:
#
#     GET /a/b.css HTTP/1.1\r\n   Host: h\r\nAccept: */*\r\n\r\n
#         └── normal path ──┘     └── header section: in section_t? ──┘
#               │                          no, or not plain ──▶ NULL: decide.pyx decides the head
#               ▼
#     file_t? ── no ──▶ file_open (filetable) ──▶ 404, or a file_t ──▶ ready-made response, else from a shape_t
#
# Nothing is judged here that Python does not judge: which bytes make a normal path (target.py), what a section means
# (request.py) and how a head of a response looks (selection.py, response.py) all come from there, as tables. Whatever
# is not in them (a percent escape, a condition, a range, a body, a file with a .gz whose response is not made yet, an
# error) gives NULL, and the general way decides.
# tests/unit/server/test_plainheads.py has both ways decide the same heads.
#
# A section is learned when it comes the second time, so that a flood of ever other ones costs a hash each, and no call
# of Python beside the one that decides the head. All keys are SipHash: nobody can aim at a slot. Learning takes Python,
# and so waits for the hand-over, as the head does (asking).
#
# Read first: RFC 9112 section 3 (request line), RFC 9110 section 12.5.5 (Vary). Above: receiving (decide_plain), asking
# (decide_learning), http (plain_begin, plain_end). Below: decide (section_learn, shape_learn), headtable, filetable,
# headscan, ready, numerals.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.server.records cimport decision_t, server_t

# Make the tables from those of target.py. limit: of header sections; 0: every head is decided by decide.pyx.
cdef int plain_begin(server_t *server, uint32_t limit) except -1
cdef void plain_end(server_t *server) noexcept nogil        # idempotent
# Decide and remember an unseen head if it is plain. NULL: decide.pyx has to, or what is not known yet has to be learned
# first (server.unlearned), or its file is being read (server.awaited).
cdef decision_t *decide_plain(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept nogil
# With the GIL, after decide_plain has left something unlearned: learn it, and decide. NULL: decide.pyx has to.
cdef decision_t *decide_learning(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept
