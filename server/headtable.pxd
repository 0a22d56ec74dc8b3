# SPDX-License-Identifier: MIT
# Remembered heads: a table from the exact bytes of a request head to its decision, bounded in entries and in bytes.
#
# Refusals that follow from the head alone are remembered like files; a 404 with the name that was missing, which is
# looked up again as a file is (filetable.pxd, file_fresh). A chain for each bucket, keyed SipHash so that nobody can
# aim at one bucket, and CLOCK eviction (second chance): a flood of heads that differ pushes out only its own.
#
# A decision_t that is DECISION_REMEMBERED belongs to the table; every other one to who asked for it.
#
# Above: filetable (makes room), exchange, decide, plainheads, receiving. Below: records, ready.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.server.records cimport decision_t, server_t

cdef int heads_begin(server_t *server, uint32_t limit) noexcept nogil       # 0, or -1 without memory
cdef void heads_end(server_t *server) noexcept nogil                        # idempotent
cdef void decision_free(decision_t *decision) noexcept nogil
# hashed: SipHash-1-3 of the head under server.hash_key. NULL: not remembered.
cdef decision_t *head_lookup(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept nogil
# Give the decision to the table. False: it stays the caller's.
cdef bint head_remember(server_t *server, decision_t *decision, const uint8_t *head, size_t length,
                        uint64_t hashed) noexcept nogil
cdef void head_forget(server_t *server, uint32_t index) noexcept nogil      # the one in this slot; it is freed
cdef void head_drop(server_t *server, decision_t *decision) noexcept nogil  # a remembered one, wherever it is
# Take out one decision that was not asked for again: CLOCK. The table must not be empty.
cdef void head_evict(server_t *server) noexcept nogil
