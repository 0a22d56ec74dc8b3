# SPDX-License-Identifier: MIT
# What an engine holds and what it has done, as dictionaries. It changes nothing.
#
# Above: owner, whose methods say what each name means. Below: records of the engine and of TCP.

from ustack.engine.records cimport engine_t

# Records in use, by pool.
cdef dict balance_of(engine_t *engine)
# What is filling up, of an engine that is alive.
cdef dict pressure_of(engine_t *engine)
# Moves between states that any connection has made: a set of pairs of names.
cdef set state_moves_of(engine_t *engine)
