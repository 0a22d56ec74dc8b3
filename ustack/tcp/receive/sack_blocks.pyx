# SPDX-License-Identifier: MIT
"""Selective acknowledgment, the receiver's half (RFC 2018 section 4).

Nothing is stored for it but a byte of each of the latest segments' runs: blocks are read from the set of runs when an
ACK is built, in O(log n) each.
"""

from libc.stdint cimport uint32_t

from ustack.base.counters cimport REASSEMBLY_STEPS, count_add
from ustack.tcp.records.duplicates cimport duplicate_forget, duplicate_of
from ustack.tcp.records.runs cimport run_t, runs_above, runs_floor, runs_lowest, runs_view_t
from ustack.tcp.records.rx_queue cimport rx_queue_t, rx_runs_view
from ustack.tcp.records.tcb cimport duplicate_t, rx_queue_of
from ustack.wire.seq cimport seq_lt


cdef uint32_t sack_blocks(tcp_t *tcp, const tcb_t *tcb, sack_block_t *blocks, uint32_t max_blocks) noexcept nogil:
    cdef duplicate_t *duplicate = duplicate_of(tcp, tcb)
    if duplicate == NULL:
        return run_blocks(tcp, tcb, blocks, max_blocks)
    blocks[0].left = duplicate.left
    blocks[0].right = duplicate.right
    duplicate_forget(tcp, tcb)
    # RFC 2883 section 4: where it lies in a run, that is the next block. It is the latest segment's, too.
    return 1 + run_blocks(tcp, tcb, &blocks[1], max_blocks - 1)


cdef uint32_t run_blocks(tcp_t *tcp, const tcb_t *tcb, sack_block_t *blocks, uint32_t max_blocks) noexcept nogil:
    cdef rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef uint32_t count = 0, i
    cdef runs_view_t view
    cdef run_t *run
    if rx == NULL or rx.runs.count == 0:
        return 0
    rx_runs_view(&tcp.rx, rx, &view)
    for i in range(rx.sack_count):
        if count == max_blocks:
            break
        run = runs_floor(&view, rx.sack_recent[i])
        if run != NULL and seq_lt(rx.sack_recent[i], run.right) and not named(blocks, count, run.left):
            blocks[count].left = run.left
            blocks[count].right = run.right
            count += 1
    # "As many distinct SACK blocks as possible": which of the others were reported last is not known any more. The runs
    # nearest to rcv_nxt decide what the peer repairs next.
    run = runs_lowest(&view) if count < max_blocks and count < rx.runs.count else NULL
    while run != NULL and count < max_blocks:
        if not named(blocks, count, run.left):
            blocks[count].left = run.left
            blocks[count].right = run.right
            count += 1
        run = runs_above(&view, run.left)
    count_add(tcp.counters, REASSEMBLY_STEPS, view.steps)
    return count


cdef inline bint named(const sack_block_t *blocks, uint32_t count, uint32_t left) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if blocks[i].left == left:
            return True
    return False
