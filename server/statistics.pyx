# SPDX-License-Identifier: MIT
"""What a server counts and holds, as HttpServer.stats() gives it: http_stats_t by its fields, and what the tables hold.

It must not: change anything. Above: http. Below: exchange, records.
"""

import os

from libc.stdint cimport uint64_t

from ustack.server.exchange cimport exchanges_in_use
from ustack.server.records cimport STATUS_CLASSES


cdef dict statistics_of(server_t *server):
    cdef int index
    found = dict(server.stats)
    classes = found.pop("responses")
    for index in range(2, STATUS_CLASSES):
        found[f"responses_{index}xx"] = classes[index]
    found["log_lines"] = server.log.written_lines
    found["log_lost"] = server.log.lost_lines
    found["heads_remembered"] = server.decision_count
    found["files_open"] = server.file_count
    found["held_bytes"] = server.held_bytes
    found["copied_bytes"] = server.copied_bytes
    found["heads_bytes"] = server.decision_bytes
    found["request_bytes"] = server.request_bytes
    found["response_bytes"] = server.ledger.bytes if server.ledger != NULL else 0
    found["connections_busy"] = exchanges_in_use(server)
    found["busy_bytes"] = (<uint64_t>server.exchanges.in_use * server.exchanges.record_bytes
                           + <uint64_t>server.drains.in_use * server.drains.record_bytes)
    found["log_error"] = os.strerror(server.log.error) if server.log.error else None
    return found
