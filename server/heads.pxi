# SPDX-License-Identifier: MIT
# Remembered heads: a table from the exact bytes of a request head to its decision, bounded in entries and in bytes.
# Refusals that follow from the head alone are remembered like files; a 404 with the name that was missing, which is
# looked up again as a file is (file_fresh). Included by http.pyx.
#
# A chain for each bucket, keyed SipHash so that nobody can aim at one bucket, and CLOCK eviction (second chance): a
# flood of heads that differ pushes out only its own.


cdef enum:
    MAX_METHOD_BYTES = 32               # as request.py has it
    VERSION_BYTES = 11                  # " HTTP/1.1" and its line end


cdef size_t head_end(const uint8_t *data, size_t length, size_t start, bint *broken) noexcept nogil:
    """Octets up to and including the first empty line; 0 if it has not come. Lines before `start` were looked at.

    broken: a line ends without a carriage return there (a recipient may accept it, RFC 9112 section 2.2, and two that
    differ in this can be played off against each other: it is refused).
    """
    cdef const uint8_t *found
    cdef size_t at = start
    broken[0] = False
    while at < length:
        found = <const uint8_t *>memchr(data + at, c'\n', length - at)
        if found == NULL:
            return 0
        at = <size_t>(found - data)
        if at == 0 or data[at - 1] != c'\r':
            broken[0] = True
            return at + 1
        if at >= 2 and data[at - 2] == c'\n':
            return at + 1
        at += 1
    return 0


cdef int line_fault(server_t *server, const uint8_t *data, size_t length, bint *complete) noexcept nogil:
    """What is wrong with the first line of an unfinished head, as a status; 0: nothing that can be seen yet.

    The grammar is that of request.py's _REQUEST_LINE, which judges whole heads; waiting for the rest of a head whose
    first line is none would only end in a 408. complete: the line has come, and needs no other look.
    """
    cdef size_t at = 0, line_length
    cdef const uint8_t *end
    complete[0] = False
    while at < length and is_token(data[at]):
        at += 1
        if at > MAX_METHOD_BYTES:
            return 501                  # longer than every method (RFC 9112 section 3)
    if at == length:
        return 0
    if at == 0 or data[at] != c' ':
        return 400
    end = <const uint8_t *>memchr(data, c'\n', length)
    if end == NULL:
        return 0
    line_length = <size_t>(end - data) + 1
    if line_length > <size_t>server.max_request_line_bytes + 2:
        return 414
    complete[0] = True
    if line_length < at + 1 + VERSION_BYTES + 1:
        return 400
    end = data + line_length - VERSION_BYTES
    if (memcmp(end, b" HTTP/", 6) != 0 or not c'0' <= end[6] <= c'9' or end[7] != c'.' or not c'0' <= end[8] <= c'9'
            or end[9] != c'\r'):
        return 400
    if not is_request_target(data + at + 1, line_length - VERSION_BYTES - at - 1):
        return 400
    return 0 if end[6] == c'1' else 505


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


cdef bint head_remember(server_t *server, decision_t *decision, const uint8_t *head, size_t length,
                        uint64_t hashed) noexcept nogil:
    """Give the decision to the table. False: it stays the caller's."""
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
    decision.head = <uint8_t *>malloc(length)
    if decision.head == NULL:
        return False
    while server.decision_count == server.decision_limit or server.decision_bytes + cost > server.max_decision_bytes:
        if server.decision_hand >= server.decision_count:
            server.decision_hand = 0
        if server.decisions[server.decision_hand].referenced:
            server.decisions[server.decision_hand].referenced = 0
            server.decision_hand += 1
        else:
            head_forget(server, server.decision_hand)
    memcpy(decision.head, head, length)
    decision.head_length = <uint32_t>length
    decision.hash = hashed
    decision.flags |= D_REMEMBERED
    decision.cost_bytes = <uint32_t>cost
    server.decision_bytes += cost
    bucket = &server.buckets[hashed & server.bucket_mask]
    decision.next = bucket[0]
    server.decisions[server.decision_count] = decision
    server.decision_count += 1
    bucket[0] = server.decision_count
    return True


cdef void head_drop(server_t *server, decision_t *decision) noexcept nogil:
    """Forget a remembered decision, wherever it is."""
    head_forget(server, head_link(server, decision)[0] - 1)
