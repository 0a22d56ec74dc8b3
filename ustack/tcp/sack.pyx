# SPDX-License-Identifier: MIT
"""Selective acknowledgment, the receiver's half (RFC 2018 section 4).

Nothing is stored for it but where the latest segments began: blocks are read from the reassembly list when an ACK is
built.
"""

from libc.stdint cimport uint32_t

from ustack.tcp.reassembly cimport reassembly_island
from ustack.tcp.tcb cimport rx_queue_of, rx_queue_t


cdef uint32_t sack_blocks(const tcp_t *tcp, const tcb_t *tcb, sack_block_t *blocks, uint32_t max_blocks) noexcept nogil:
    cdef const rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef uint32_t count = 0, i, j
    cdef sack_block_t block
    if rx == NULL or rx.ooo_head == 0:
        return 0
    for i in range(rx.sack_count):
        if count == max_blocks:
            break
        if not reassembly_island(tcp, rx, rx.sack_recent[i], &block.left, &block.right):
            continue
        for j in range(count):
            if blocks[j].left == block.left:
                break
        else:
            blocks[count] = block
            count += 1
    return count
