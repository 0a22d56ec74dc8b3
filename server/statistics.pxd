# SPDX-License-Identifier: MIT
# What a server counts and holds, for Python. Body: statistics.pyx.

from ustack.server.records cimport server_t

# {name: number}; log_error: why the access log lost its last lines, None while it takes them.
cdef dict statistics_of(server_t *server)
