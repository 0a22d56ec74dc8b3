# SPDX-License-Identifier: MIT
"""What has been received and not consumed: in order, and beyond a hole.

Bounds: a connection holds at most twice config.rcv_buffer_bytes of memory (small segments waste some), all of them
together config.rx_memory_bytes, of which islands may take half, so that strangers' islands never keep out data in
order; and an out-of-order list has at most REASSEMBLY_MAX_CHUNKS pieces, so that a peer that
sends every second octet costs a short walk, not a long one. Read first: RFC 9293 section 3.10.7.4, seventh step.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from ustack.base.counters cimport DROP_NO_MEMORY, DROP_TCP_REASSEMBLY_FULL
from ustack.buf.slab cimport slab_alloc, slab_release
from ustack.tcp.tcb cimport (TCP_SACK_BLOCKS, rx_chunk_at, rx_chunk_release, rx_queue_of)
from ustack.wire.seq cimport seq_between, seq_gt, seq_le, seq_lt


cdef enum:
    QUEUE_CHUNK_BYTES = 2048                # small pieces in order share a chunk
    ISLAND_CHUNK_BYTES = 256                # one octet beyond a hole must not pin much more
    REASSEMBLY_MAX_CHUNKS = 512


cdef rx_queue_t *queue_get(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.rx == 0:
        tcb.rx = slab_alloc(&tcp.rx_queues)
    return rx_queue_of(tcp, tcb)


cdef uint32_t chunk_new(tcp_t *tcp, rx_queue_t *rx, uint32_t seq, const uint8_t *data, uint32_t length,
                        uint32_t least) noexcept nogil:
    """A chunk of at least `least` octets with a copy of the data, counted as held; 0 without memory."""
    cdef uint32_t capacity = length if length > least else least
    cdef uint32_t index = slab_alloc(&tcp.rx_chunks)
    cdef rx_chunk_t *chunk
    if index == 0:
        return 0
    chunk = rx_chunk_at(tcp, index)
    chunk.data = <uint8_t *>malloc(capacity)
    if chunk.data == NULL:
        slab_release(&tcp.rx_chunks, index)
        return 0
    memcpy(chunk.data, data, length)
    chunk.seq = seq
    chunk.offset = 0
    chunk.length = length
    chunk.capacity = capacity
    chunk.next = 0
    tcp.rx_held_bytes += capacity
    rx.held_bytes += capacity
    return index


cdef void chunk_drop(tcp_t *tcp, rx_queue_t *rx, uint32_t index) noexcept nogil:
    rx.held_bytes -= rx_chunk_at(tcp, index).capacity
    rx_chunk_release(tcp, index)


cdef void queue_drop_if_empty(tcp_t *tcp, tcb_t *tcb, rx_queue_t *rx) noexcept nogil:
    """An idle connection holds nothing."""
    if rx.head == 0 and rx.ooo_head == 0 and not rx.fin_ooo:
        slab_release(&tcp.rx_queues, tcb.rx)
        tcb.rx = 0


# ---------------------------------------------------------------- in order

cdef int reassembly_append(tcp_t *tcp, tcb_t *tcb, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef rx_queue_t *rx = queue_get(tcp, tcb)
    cdef rx_chunk_t *tail
    cdef uint32_t room = 0, index = 0
    if rx == NULL:
        return -1
    if rx.tail:                             # small pieces share a chunk
        tail = rx_chunk_at(tcp, rx.tail)
        room = tail.capacity - tail.offset - tail.length
        if room > length:
            room = length
    if length > room:                       # before anything is changed: all of it is kept, or nothing
        index = chunk_new(tcp, rx, 0, data + room, length - room, QUEUE_CHUNK_BYTES)
        if index == 0:
            queue_drop_if_empty(tcp, tcb, rx)
            return -1
    if room > 0:
        memcpy(tail.data + tail.offset + tail.length, data, room)
        tail.length += room
    if index:
        if rx.tail:
            rx_chunk_at(tcp, rx.tail).next = index
        else:
            rx.head = index
        rx.tail = index
    rx.queued_bytes += length
    return 0


cdef const uint8_t *reassembly_peek(tcp_t *tcp, tcb_t *tcb, uint32_t *length) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef rx_chunk_t *chunk
    if rx == NULL or rx.head == 0:
        length[0] = 0
        return NULL
    chunk = rx_chunk_at(tcp, rx.head)
    length[0] = chunk.length
    return chunk.data + chunk.offset


cdef void reassembly_consume(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef rx_chunk_t *chunk
    cdef uint32_t step, index
    if rx == NULL:
        return
    while length > 0 and rx.head:
        index = rx.head
        chunk = rx_chunk_at(tcp, index)
        step = length if length < chunk.length else chunk.length
        chunk.offset += step
        chunk.length -= step
        rx.queued_bytes -= step
        length -= step
        if chunk.length == 0:
            rx.head = chunk.next
            if rx.head == 0:
                rx.tail = 0
            chunk_drop(tcp, rx, index)
    queue_drop_if_empty(tcp, tcb, rx)


# ---------------------------------------------------------------- out of order

cdef int reassembly_insert(tcp_t *tcp, tcb_t *tcb, uint32_t seq, const uint8_t *data, uint32_t length,
                           bint fin) noexcept nogil:
    cdef rx_queue_t *rx = queue_get(tcp, tcb)
    cdef uint32_t before = 0, at, index, pieces = 0, piece, end
    cdef uint32_t first = seq
    cdef rx_chunk_t *chunk
    if rx == NULL:
        return <int>DROP_NO_MEMORY
    at = rx.ooo_head
    if rx.fin_ooo and seq_gt(seq + length, rx.fin_seq):     # nothing can follow a FIN
        length = rx.fin_seq - seq if seq_lt(seq, rx.fin_seq) else 0
    elif fin and not rx.fin_ooo and not held_beyond(tcp, rx, seq + length):
        rx.fin_ooo = 1                      # a FIN before octets that are held is nobody's honest FIN
        rx.fin_seq = seq + length
    end = seq + length
    while seq_lt(seq, end):
        # Skip what lies wholly before seq; cut what is held already.
        while at:
            chunk = rx_chunk_at(tcp, at)
            if seq_gt(chunk.seq + chunk.length, seq):
                break
            before = at
            at = chunk.next
            pieces += 1
        if at:
            chunk = rx_chunk_at(tcp, at)
            if seq_le(chunk.seq, seq):
                data += chunk.seq + chunk.length - seq
                seq = chunk.seq + chunk.length
                continue
            piece = chunk.seq - seq if seq_lt(chunk.seq, end) else end - seq
        else:
            piece = end - seq
        if (pieces >= REASSEMBLY_MAX_CHUNKS or rx.held_bytes >= 2 * tcp.config.rcv_buffer_bytes
                or tcp.rx_held_bytes >= tcp.config.rx_memory_bytes // 2):
            queue_drop_if_empty(tcp, tcb, rx)
            return <int>DROP_TCP_REASSEMBLY_FULL
        if before and extend(tcp, rx, before, seq, data, piece):
            pass
        else:
            index = chunk_new(tcp, rx, seq, data, piece, ISLAND_CHUNK_BYTES)
            if index == 0:
                queue_drop_if_empty(tcp, tcb, rx)
                return <int>DROP_NO_MEMORY
            rx_chunk_at(tcp, index).next = at
            if before:
                rx_chunk_at(tcp, before).next = index
            else:
                rx.ooo_head = index
            before = index
            rx.ooo_bytes += piece
        data += piece
        seq += piece
    remember_recent(tcp, rx, first)
    return 0


cdef bint held_beyond(const tcp_t *tcp, const rx_queue_t *rx, uint32_t seq) noexcept nogil:
    cdef uint32_t at = rx.ooo_head
    cdef const rx_chunk_t *chunk
    while at:
        chunk = rx_chunk_at(tcp, at)
        if seq_gt(chunk.seq + chunk.length, seq):
            return True
        at = chunk.next
    return False


cdef bint extend(tcp_t *tcp, rx_queue_t *rx, uint32_t index, uint32_t seq, const uint8_t *data,
                 uint32_t length) noexcept nogil:
    """Append to the chunk before, if it ends at seq and has room: a run of small segments shares a chunk."""
    cdef rx_chunk_t *chunk = rx_chunk_at(tcp, index)
    if chunk.seq + chunk.length != seq or chunk.capacity - chunk.offset - chunk.length < length:
        return False
    memcpy(chunk.data + chunk.offset + chunk.length, data, length)
    chunk.length += length
    rx.ooo_bytes += length
    return True


cdef bint reassembly_island(const tcp_t *tcp, const rx_queue_t *rx, uint32_t seq, uint32_t *left,
                            uint32_t *right) noexcept nogil:
    cdef uint32_t at = rx.ooo_head
    cdef const rx_chunk_t *chunk
    while at:
        chunk = rx_chunk_at(tcp, at)
        left[0] = chunk.seq
        right[0] = chunk.seq + chunk.length
        at = chunk.next
        while at and rx_chunk_at(tcp, at).seq == right[0]:
            right[0] += rx_chunk_at(tcp, at).length
            at = rx_chunk_at(tcp, at).next
        if seq_lt(seq, right[0]):
            return seq_le(left[0], seq)
    return False


cdef void remember_recent(const tcp_t *tcp, rx_queue_t *rx, uint32_t seq) noexcept nogil:
    """RFC 2018 section 4: the first block tells of the latest segment, the others of the islands reported before."""
    cdef uint32_t left, right, i, kept = 1
    cdef uint32_t recent[TCP_SACK_BLOCKS]
    if not reassembly_island(tcp, rx, seq, &left, &right):
        return
    recent[0] = left
    for i in range(rx.sack_count):
        if kept < TCP_SACK_BLOCKS and not seq_between(rx.sack_recent[i], left, right):
            recent[kept] = rx.sack_recent[i]
            kept += 1
    for i in range(kept):
        rx.sack_recent[i] = recent[i]
    rx.sack_count = <uint8_t>kept


cdef bint reassembly_advance(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef rx_chunk_t *chunk
    cdef uint32_t index, stale
    cdef bint fin
    if rx == NULL:
        return False
    while rx.ooo_head:
        index = rx.ooo_head
        chunk = rx_chunk_at(tcp, index)
        if seq_gt(chunk.seq, tcb.rcv_nxt) or (rx.fin_ooo and rx.fin_seq == tcb.rcv_nxt):
            break
        rx.ooo_head = chunk.next
        rx.ooo_bytes -= chunk.length
        chunk.next = 0
        if rx.fin_ooo and seq_gt(chunk.seq + chunk.length, rx.fin_seq):
            chunk.length = rx.fin_seq - chunk.seq if seq_lt(chunk.seq, rx.fin_seq) else 0
        stale = tcb.rcv_nxt - chunk.seq
        if stale >= chunk.length:
            chunk_drop(tcp, rx, index)
            continue
        chunk.offset += stale
        chunk.length -= stale
        tcb.rcv_nxt += chunk.length
        rx.queued_bytes += chunk.length
        if rx.tail:
            rx_chunk_at(tcp, rx.tail).next = index
        else:
            rx.head = index
        rx.tail = index
    if rx.ooo_head == 0:
        rx.sack_count = 0
    fin = rx.fin_ooo and rx.fin_seq == tcb.rcv_nxt
    if fin:
        rx.fin_ooo = 0
    queue_drop_if_empty(tcp, tcb, rx)
    return fin
