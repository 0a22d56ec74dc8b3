# SPDX-License-Identifier: MIT
# A server's limits and times: the bounds of each, and the field of server_t that it becomes. Body: settings.pyx.

from ustack.server.records cimport server_t

# Check every setting, and write those that are fields. given: values by the names of HttpServer's arguments; others in
# it are ignored. Raises ValueError for a value out of its range, and has written nothing then.
cdef int settings_apply(server_t *server, dict given) except -1
