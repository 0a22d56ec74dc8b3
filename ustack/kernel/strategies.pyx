# SPDX-License-Identifier: MIT
"""The strategies by name: how a transport over the kernel's sockets learns which of them are ready."""

from ustack.kernel.aio cimport aio_ops
from ustack.kernel.epoll cimport epoll_edge_ops, epoll_level_ops
from ustack.kernel.polling cimport poll_ops, select_ops
from ustack.kernel.processes cimport process_ops
from ustack.kernel.readiness cimport SERVES_ALL, SERVES_IN_PROCESSES, readiness_ops_t
from ustack.kernel.rtsig cimport rtsig_ops
from ustack.kernel.threads cimport thread_ops
from ustack.kernel.uring.strategy cimport uring_ops, uring_zerocopy_ops

cdef enum:
    STRATEGIES = 10

cdef const readiness_ops_t *TABLES[STRATEGIES]
TABLES[0] = epoll_level_ops()
TABLES[1] = epoll_edge_ops()
TABLES[2] = poll_ops()
TABLES[3] = select_ops()
TABLES[4] = rtsig_ops()
TABLES[5] = aio_ops()
TABLES[6] = uring_ops()
TABLES[7] = uring_zerocopy_ops()
TABLES[8] = thread_ops()
TABLES[9] = process_ops()


def names() -> tuple[str, ...]:
    """Every strategy, in the order in which they are named to users."""
    return tuple([TABLES[index].name.decode() for index in range(STRATEGIES)])


def in_one_process() -> tuple[str, ...]:
    """Those of them where connections, their application and its figures are all in the caller's process."""
    return tuple([TABLES[index].name.decode() for index in range(STRATEGIES)
                  if TABLES[index].serves != SERVES_IN_PROCESSES])


def in_one_thread() -> tuple[str, ...]:
    """Those of them where one thread serves all connections, in turns."""
    return tuple([TABLES[index].name.decode() for index in range(STRATEGIES) if TABLES[index].serves == SERVES_ALL])


cdef const readiness_ops_t *strategy_named(str name) except NULL:
    cdef int index
    for index in range(STRATEGIES):
        if TABLES[index].name.decode() == name:
            return TABLES[index]
    raise ValueError(f"no strategy {name!r}; there are: {', '.join(names())}")
