# SPDX-License-Identifier: MIT
# Selective acknowledgment, the receiver's half: which runs beyond rcv_nxt to report (RFC 2018 section 4).

from libc.stdint cimport uint32_t

from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.wire.tcp cimport sack_block_t

# Fills `max_blocks` blocks, fewer only if there are not that many: what has come twice (RFC 2883, records/duplicates;
# from now on it is reported), the run of the latest segment, those reported before, the runs nearest to rcv_nxt.
# All but the first are distinct. Returns how many.
cdef uint32_t sack_blocks(tcp_t *tcp, const tcb_t *tcb, sack_block_t *blocks, uint32_t max_blocks) noexcept nogil
