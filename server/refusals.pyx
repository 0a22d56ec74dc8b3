# SPDX-License-Identifier: MIT
"""Refusals without Python (contract: refusals.pxd)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, strlen

from ustack.server.ready cimport counted_copy
from ustack.server.records cimport (
    DECISION_CLOSE, DECISION_LINGER, FORM_CLOSE, FULL_FORMS, NO_FILE, REFUSAL_UNITS, SHARED_STATUSES, decision_t,
    server_t)

cdef enum:
    LINE_BYTES = 1024                   # of what was sent, in the log: accesslog.MAX_TEXT_BYTES

cdef const char *BEHIND = b' "-" "-"\n'  # no referer, no user agent


cdef decision_t *refusal_decide(server_t *server, int status, const uint8_t *head, size_t length) noexcept nogil:
    cdef decision_t *decision
    cdef int index = 0
    server.units += REFUSAL_UNITS
    while server.shared_status[index] != status:
        index += 1
        if index == SHARED_STATUSES:
            return NULL
    index = index * FULL_FORMS + FORM_CLOSE
    if server.shared[index].lent == NULL:
        return NULL
    decision = <decision_t *>calloc(1, sizeof(decision_t))
    if decision == NULL:
        return NULL
    decision.file = NO_FILE
    decision.status = <uint16_t>status
    decision.form = FORM_CLOSE
    decision.flags = DECISION_CLOSE | DECISION_LINGER
    decision.shared = <uint8_t>(index + 1)
    if server.log.fd >= 0:
        note(server, decision, head, length)
    return decision


cdef void note(server_t *server, decision_t *decision, const uint8_t *head, size_t length) noexcept nogil:
    """Keep what the access log will say."""
    cdef uint8_t text[4 * LINE_BYTES + 16]
    cdef size_t at = 1, read = 0, behind = strlen(BEHIND)
    text[0] = c'"'
    if head == NULL:
        length = 0
    elif length > LINE_BYTES:
        length = LINE_BYTES
    while read < length and not (head[read] == c'\r' and read + 1 < length and head[read + 1] == c'\n'):
        at += escape(text + at, head[read])
        read += 1
    text[at] = c'"'
    text[at + 1] = c' '
    decision.log_split = <uint32_t>at + 2
    memcpy(text + decision.log_split, BEHIND, behind)
    decision.log_text = counted_copy(server, text, decision.log_split + behind)
    if decision.log_text == NULL:
        server.log.lost_lines += 1


cdef inline size_t escape(uint8_t *out, uint8_t byte) noexcept nogil:
    """One byte as accesslog.escape writes it; returns how many it takes."""
    if 0x20 <= byte <= 0x7e and byte != c'"' and byte != c'\\':
        out[0] = byte
        return 1
    out[0] = c'\\'
    out[1] = c'x'
    out[2] = b"0123456789ABCDEF"[byte >> 4]
    out[3] = b"0123456789ABCDEF"[byte & 15]
    return 4
