# SPDX-License-Identifier: MIT
# Whether new connections are let in now. What happens to it: tcp/admission. Below: nothing. Above: tcb.

from libc.stdint cimport uint8_t, uint32_t

ctypedef struct admission_t:
    uint8_t behind                          # more frames wait than the engine can soon take. writer: engine (poll)
    uint8_t refuses                         # the packet at hand may not open a connection: whoever could says RST
    uint32_t others                         # frames that cost their work, since a SYN was last let in while behind
