# SPDX-License-Identifier: MIT
"""Table of remembered heads (contract: headtable.pxd)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strlen

from ustack.buf.lent cimport lent_t, lent_unref
from ustack.server.ready cimport ready_free
from ustack.server.records cimport DECISION_REMEMBERED, decision_t, server_t


cdef int heads_begin(server_t *server, uint32_t limit) noexcept nogil:
    cdef uint32_t buckets = 2
    while buckets < limit * 2:
        buckets *= 2
    server.decision_limit = limit
    server.bucket_mask = buckets - 1
    server.decisions = <decision_t **>calloc(limit + 1, sizeof(void *))
    server.buckets = <uint32_t *>calloc(buckets, sizeof(uint32_t))
    return 0 if server.decisions != NULL and server.buckets != NULL else -1


cdef void heads_end(server_t *server) noexcept nogil:
    while server.decision_count:
        head_forget(server, server.decision_count - 1)
    free(server.decisions)
    free(server.buckets)
    server.decisions = NULL
    server.buckets = NULL


cdef void decision_free(decision_t *decision) noexcept nogil:
    ready_free(&decision.own)
    if decision.log_text != NULL:
        lent_unref(decision.log_text)
    free(decision.head)
    free(decision.missing)
    free(decision)


cdef decision_t *head_lookup(server_t *server, const uint8_t *head, size_t length, uint64_t hashed) noexcept nogil:
    cdef uint32_t slot = server.buckets[hashed & server.bucket_mask]
    cdef decision_t *decision
    while slot:
        decision = server.decisions[slot - 1]
        if (decision.hash == hashed and decision.head_length == length
                and memcmp(decision.head, head, length) == 0):
            return decision
        slot = decision.next
    return NULL


cdef void head_forget(server_t *server, uint32_t index) noexcept nogil:
    """Take the decision in this slot out and free it; the last slot's moves into its place."""
    cdef decision_t *decision = server.decisions[index]
    cdef decision_t *moved
    cdef uint32_t *link = head_link(server, decision)
    link[0] = decision.next
    server.decision_count -= 1
    server.decision_bytes -= decision.cost_bytes
    if index != server.decision_count:
        moved = server.decisions[server.decision_count]
        link = head_link(server, moved)
        link[0] = index + 1
        server.decisions[index] = moved
    if server.last == decision:
        server.last = NULL
    decision_free(decision)


cdef uint32_t *head_link(server_t *server, const decision_t *decision) noexcept nogil:
    """The word that names the decision's slot: its bucket, or `next` of the one before it."""
    cdef uint32_t *link = &server.buckets[decision.hash & server.bucket_mask]
    while server.decisions[link[0] - 1] != decision:
        link = &server.decisions[link[0] - 1].next
    return link


cdef void head_evict(server_t *server) noexcept nogil:
    while True:
        if server.decision_hand >= server.decision_count:
            server.decision_hand = 0
        if not server.decisions[server.decision_hand].referenced:
            head_forget(server, server.decision_hand)
            return
        server.decisions[server.decision_hand].referenced = 0
        server.decision_hand += 1


cdef bint head_remember(server_t *server, decision_t *decision, const uint8_t *head, size_t length,
                        uint64_t hashed) noexcept nogil:
    cdef uint32_t *bucket
    cdef uint64_t cost = sizeof(decision_t) + length
    if decision.own.lent != NULL:
        cost += sizeof(lent_t) + decision.own.lent.length
    if decision.log_text != NULL:
        cost += sizeof(lent_t) + decision.log_text.length
    if decision.missing != NULL:
        cost += strlen(decision.missing)
    if length > server.max_remembered_bytes or server.decision_limit == 0 or cost > server.max_decision_bytes:
        return False
    if server.log.fd >= 0 and decision.log_text == NULL:
        return False                        # its line had no room: answered from here, it would be missing each time
    decision.head = <uint8_t *>malloc(length)
    if decision.head == NULL:
        return False
    while server.decision_count == server.decision_limit or server.decision_bytes + cost > server.max_decision_bytes:
        head_evict(server)
    memcpy(decision.head, head, length)
    decision.head_length = <uint32_t>length
    decision.hash = hashed
    decision.flags |= DECISION_REMEMBERED
    decision.cost_bytes = <uint32_t>cost
    server.decision_bytes += cost
    bucket = &server.buckets[hashed & server.bucket_mask]
    decision.next = bucket[0]
    server.decisions[server.decision_count] = decision
    server.decision_count += 1
    bucket[0] = server.decision_count
    return True


cdef void head_drop(server_t *server, decision_t *decision) noexcept nogil:
    head_forget(server, head_link(server, decision)[0] - 1)
