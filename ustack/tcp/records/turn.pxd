# SPDX-License-Identifier: MIT
# What one turn of the engine (one engine_poll) may cost and has cost. Who spends it: work.pxd.
#
# Work is counted in units, not timed, so that the same frames always give the same turns. A unit stands for about
# 100 ns: a known small request is 3, a call into Python 300. A turn has two stages with a budget each, so that neither
# starves the other: frames in (with the upcalls they cause), then what is on the work list (upcalls and output). What
# a stage cannot afford stays where it is, frames in the link's ring and connections on the work list, and is first in
# the next turn. Below: application. Above: tcb, work, engine.

from libc.stdint cimport uint32_t

from ustack.application cimport turn_budget_t

cdef enum:
    TURN_STAGE_UNITS = 8192
    TURN_UPCALL_UNITS = 512                 # of them for one upcall: turn_spent says when they are used up
    UNIT_BYTES_SHIFT = 10                   # a unit for each 1,024 bytes that are copied

ctypedef struct turn_t:
    turn_budget_t budget                    # what applications see of it
    # ---- what this turn has done so far. Writers: engine, timers, demux
    uint32_t units
    uint32_t frames
    uint32_t upcalls
    uint32_t connections                    # taken from the work list
    uint32_t timers                         # that fired, and TIME-WAIT records that expired
    uint32_t moves                          # timers placed again in the wheel, flow slots moved to another table
