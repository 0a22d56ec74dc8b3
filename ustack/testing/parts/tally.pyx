# SPDX-License-Identifier: MIT
"""One connection's counts without an engine, for tests with plain numbers. Each method is one call of
tcp/records/tally.

Above: tests. Below: tcp.
"""

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.counters cimport counters_t
from ustack.tcp.records.configuration cimport tcp_config_defaults, tcp_config_t
from ustack.tcp.records.life cimport tcb_alloc, tcb_release, tcp_destroy, tcp_init
from ustack.tcp.records.tally cimport (
    delivered_advance, delivered_retreat, rcv_nxt_advance, rcv_nxt_begin, rcv_nxt_retreat, tally_age_ns,
    tally_delivered, tally_received)
from ustack.tcp.records.tcb cimport tcb_t, tcp_t


cdef class Tally:
    """A connection whose peer began at `irs`, opened at `now_ns`. records: the limit of histories."""

    cdef tcp_t c
    cdef counters_t counted
    cdef bint open
    cdef tcb_t *tcb

    def __init__(self, uint32_t irs, *, uint64_t now_ns=0, uint32_t records=16):
        cdef tcp_config_t config
        tcp_config_defaults(&config)
        config.extra_records = records
        if self.open or tcp_init(&self.c, NULL, &self.counted, &config, 1, now_ns) != 0:
            raise MemoryError
        self.open = True
        self.tcb = tcb_alloc(&self.c)
        if self.tcb == NULL:
            raise MemoryError
        rcv_nxt_begin(&self.c, self.tcb, irs)

    def __dealloc__(self) -> None:
        if self.open:
            tcp_destroy(&self.c)

    def receive(self, uint32_t length) -> None:
        """So many bytes have come."""
        rcv_nxt_advance(&self.c, self.tcb, length)

    def lose(self, uint32_t length) -> None:
        """The last of them could not be kept."""
        rcv_nxt_retreat(&self.c, self.tcb, self.tcb.rcv_nxt - length)

    def deliver(self, uint32_t length) -> None:
        """So many of ours have arrived."""
        delivered_advance(&self.c, self.tcb, length)

    def renege(self, uint32_t length) -> None:
        """The peer has dropped the last of them."""
        delivered_retreat(&self.c, self.tcb, length)

    def end(self) -> None:
        """The connection ends."""
        tcb_release(&self.c, self.tcb)
        self.tcb = NULL

    @property
    def received(self) -> int:
        """Bytes received in all."""
        return tally_received(&self.c, self.tcb)

    @property
    def delivered(self) -> int:
        """Bytes delivered in all."""
        return tally_delivered(&self.c, self.tcb)

    def age_ns(self, uint64_t now_ns) -> int:
        """Since it was opened."""
        self.c.now_ns = now_ns
        return tally_age_ns(&self.c, self.tcb)

    @property
    def histories(self) -> int:
        """Records that were made."""
        return self.c.histories.in_use
