# SPDX-License-Identifier: MIT
# The strategies by name. A new one: its file, and a line in strategies.pyx. Above: transport.

from ustack.kernel.readiness cimport readiness_ops_t

# Raises ValueError, which names those that there are.
cdef const readiness_ops_t *strategy_named(str name) except NULL
