# SPDX-License-Identifier: MIT
# Selective acknowledgment, the receiver's half: which islands beyond rcv_nxt to report (RFC 2018 section 4).

from libc.stdint cimport uint32_t

from ustack.tcp.tcb cimport tcb_t, tcp_t
from ustack.wire.tcp cimport sack_block_t

# Fills at most `max_blocks` blocks: the island of the latest segment first, then those reported before. Returns how
# many.
cdef uint32_t sack_blocks(const tcp_t *tcp, const tcb_t *tcb, sack_block_t *blocks, uint32_t max_blocks) noexcept nogil
