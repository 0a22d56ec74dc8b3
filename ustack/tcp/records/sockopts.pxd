# SPDX-License-Identifier: MIT
# Options that a program has set on one connection and that few connections have: a record on demand.
#
# It is there from the first option that differs from the usual until the last is as usual again; its index is in
# extra_t. What most connections need of their options is a bit of tcb.flags, and tcp.config has what nobody has
# changed. Plain data; made and given back by life. Below: tcb. Above: life, marks.

from libc.stdint cimport uint32_t

from ustack.buf.slab cimport slab_at
from ustack.tcp.records.tcb cimport extra_at, tcb_t, tcp_t

ctypedef struct sockopts_t:                 # 8 bytes
    uint32_t low_water_bytes                # writer: marks. What they mean: marks.pxd
    uint32_t unsent_low_water_bytes


# NULL: all is as usual.
cdef inline sockopts_t *sockopts_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    if tcb.extra == 0 or extra_at(tcp, tcb.extra).sockopts == 0:
        return NULL
    return <sockopts_t *>slab_at(&tcp.sockopts, extra_at(tcp, tcb.extra).sockopts)
