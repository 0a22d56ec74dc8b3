# SPDX-License-Identifier: MIT
"""The receive queues of several connections without an engine, for tests with plain numbers.

Nothing here decides anything: each method is one call of tcp/reassembly or tcp/sack, on records made for it alone. Read
first: tcp/receive/reassembly.pxd, tcp/records/rx_queue.pxd, tcp/receive/pressure.pxd. Above: tests. Below: tcp.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.counters cimport CONNECTIONS_MEMORY_ABORTED, REASSEMBLY_STEPS, SACK_RENEGED, counters_t
from ustack.buf.chunks cimport chunk_held_bytes
from ustack.tcp.receive.reassembly cimport (
    reassembly_advance, reassembly_append, reassembly_consume, reassembly_insert, reassembly_keep, reassembly_peek)
from ustack.tcp.receive.sack_blocks cimport sack_blocks
from ustack.tcp.receive.window cimport tcb_receive_window
from ustack.tcp.records.configuration cimport tcp_config_defaults, tcp_config_t
from ustack.tcp.records.life cimport tcb_alloc, tcb_release, tcp_destroy, tcp_init
from ustack.tcp.records.moves cimport take_over_state
from ustack.tcp.records.runs cimport run_t, runs_above, runs_lowest, runs_view_t
from ustack.tcp.records.rx_queue cimport rx_queue_t, rx_runs_view
from ustack.tcp.records.state cimport ESTABLISHED, SYN_RECEIVED
from ustack.tcp.records.tcb cimport TCB_ABORT, TCB_FIN_RECEIVED, rx_queue_of, tcb_at, tcb_t, tcp_t
from ustack.tcp.records.work cimport work_take
from ustack.wire.tcp cimport sack_block_t


cdef class Receivers:
    """Connections that share one receive memory. A connection is a number from 1.

    rcv_buffer_bytes, rx_memory_bytes: as in tcp_config_t.   rcv_nxt: of each connection at first.   now_ms: settable.
    """

    cdef tcp_t c
    cdef counters_t counted
    cdef bint open

    def __init__(self, uint32_t connections=1, *, uint32_t rcv_buffer_bytes=512 * 1024,
                 uint32_t rx_memory_bytes=512 << 20, uint32_t rcv_nxt=0xFFFFFF00, uint64_t seed=1):
        cdef tcp_config_t config
        cdef tcb_t *tcb
        tcp_config_defaults(&config)
        config.rcv_buffer_bytes = rcv_buffer_bytes
        config.rcv_buffer_max_bytes = rcv_buffer_bytes
        config.rx_memory_bytes = rx_memory_bytes
        if self.open or tcp_init(&self.c, NULL, &self.counted, &config, seed, 1000000000000) != 0:
            raise MemoryError
        self.open = True
        for _ in range(connections):
            tcb = tcb_alloc(&self.c)
            if tcb == NULL:
                raise MemoryError
            take_over_state(&self.c, tcb, SYN_RECEIVED, ESTABLISHED)
            tcb.rcv_nxt = rcv_nxt
            tcb.rcv_adv = rcv_nxt + rcv_buffer_bytes
            tcb.smss = 1460

    def __dealloc__(self) -> None:
        if self.open:
            tcp_destroy(&self.c)

    cdef tcb_t *at(self, uint32_t conn) except NULL:
        if not 0 < conn <= self.c.tcbs.in_use:
            raise IndexError(conn)
        return tcb_at(&self.c, conn)

    # ------------------------------------------------------------ one connection

    def insert(self, uint32_t conn, uint32_t seq, bytes data, *, bint fin=False) -> bool:
        """A segment beyond rcv_nxt; whether it was taken."""
        return reassembly_insert(&self.c, self.at(conn), seq, <const uint8_t *><char *>data, <uint32_t>len(data),
                                 fin) == 0

    def append(self, uint32_t conn, bytes data) -> tuple[int, bool]:
        """Data at rcv_nxt, behind what is held, and what it makes whole: (bytes kept, whether a FIN came in order)."""
        cdef tcb_t *tcb = self.at(conn)
        cdef uint32_t kept = reassembly_append(&self.c, tcb, <const uint8_t *><char *>data, <uint32_t>len(data))
        tcb.rcv_nxt += kept
        return kept, reassembly_advance(&self.c, tcb)

    def straight(self, uint32_t conn, bytes data, uint32_t used) -> None:
        """Data at rcv_nxt of which the application uses `used` bytes at once; the queue must be empty."""
        cdef tcb_t *tcb = self.at(conn)
        tcb.rcv_nxt += <uint32_t>len(data)
        if tcb.rx:
            reassembly_advance(&self.c, tcb)
        if used < <uint32_t>len(data):
            reassembly_keep(&self.c, tcb, <const uint8_t *><char *>data + used, <uint32_t>(len(data) - used))

    def read(self, uint32_t conn, size_t most=1 << 40) -> bytes:
        """Consume up to `most` bytes of the queue."""
        cdef tcb_t *tcb = self.at(conn)
        cdef const uint8_t *data
        cdef uint32_t length
        parts = []
        while most > 0:
            data = reassembly_peek(&self.c, tcb, 0, &length)
            if data == NULL:
                break
            if length > most:
                length = <uint32_t>most
            parts.append(data[:length])
            reassembly_consume(&self.c, tcb, length)
            most -= length
        return b"".join(parts)

    def sack(self, uint32_t conn, uint32_t most=4) -> list[tuple[int, int]]:
        """The blocks that an ACK would carry now."""
        cdef sack_block_t blocks[8]
        cdef uint32_t i, n
        if most > 8:
            raise ValueError("at most 8 blocks")
        n = sack_blocks(&self.c, self.at(conn), blocks, most)
        return [(blocks[i].left, blocks[i].right) for i in range(n)]

    def advertise(self, uint32_t conn, uint32_t edge) -> None:
        """The right edge of the window that the peer knows."""
        self.at(conn).rcv_adv = edge

    def scale(self, uint32_t conn, uint8_t shift) -> None:
        """The scale of the window that is announced."""
        self.at(conn).rcv_wscale = shift

    def window(self, uint32_t conn) -> int:
        """What the next segment would announce, in bytes."""
        return tcb_receive_window(&self.c, self.at(conn))

    def rcv_nxt(self, uint32_t conn) -> int:
        """The next byte expected."""
        return self.at(conn).rcv_nxt

    def finish(self, uint32_t conn) -> None:
        """Count a FIN at rcv_nxt as received."""
        cdef tcb_t *tcb = self.at(conn)
        tcb.rcv_nxt += 1
        tcb.flags |= TCB_FIN_RECEIVED

    def aborted(self, uint32_t conn) -> bool:
        """Whether it is to be reset."""
        return self.at(conn).flags & TCB_ABORT != 0

    def status(self, uint32_t conn) -> dict[str, int]:
        """queued_bytes, ooo_bytes, held_bytes and runs of the connection."""
        cdef rx_queue_t *rx = rx_queue_of(&self.c, self.at(conn))
        cdef runs_view_t view
        cdef run_t *run
        cdef uint32_t beyond = 0
        if rx == NULL:
            return {"queued_bytes": 0, "ooo_bytes": 0, "held_bytes": 0, "runs": 0}
        rx_runs_view(&self.c.rx, rx, &view)
        run = runs_lowest(&view)
        while run != NULL:
            beyond += run.right - run.left
            run = runs_above(&view, run.left)
        return {"queued_bytes": rx.queued_bytes, "ooo_bytes": beyond, "held_bytes": rx.held_bytes,
                "runs": rx.runs.count}

    # ------------------------------------------------------------ all of them

    def wait(self, uint64_t ms) -> None:
        """Let time pass."""
        self.c.now_ns += ms * 1000000

    @property
    def steps(self) -> int:
        """Runs looked at so far."""
        return self.counted.value[<int>REASSEMBLY_STEPS]

    @property
    def reneged(self) -> int:
        """How often data beyond a hole was given up."""
        return self.counted.value[<int>SACK_RENEGED]

    @property
    def memory_aborts(self) -> int:
        """Connections that were ended for their memory."""
        return self.counted.value[<int>CONNECTIONS_MEMORY_ABORTED]

    @property
    def held_bytes(self) -> int:
        """Memory behind all queues, in whole pages."""
        return chunk_held_bytes(&self.c.rx.chunks)

    @property
    def chunks(self) -> int:
        """Chunks out of the pool."""
        return self.c.rx.chunks.chunks_in_use

    @property
    def queues(self) -> int:
        """Records of connections that hold something."""
        return self.c.rx.queues.in_use

    def close(self) -> None:
        """Release every connection; what is left then has leaked."""
        cdef uint32_t i, n = self.c.tcbs.in_use
        while work_take(&self.c) != NULL:
            pass
        for i in range(1, n + 1):
            tcb_release(&self.c, tcb_at(&self.c, i))
