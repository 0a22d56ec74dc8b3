# SPDX-License-Identifier: MIT
"""A server's limits and times: one table of bounds, one place where they become fields.

The defaults are HttpServer's (http.pyx), whose docstring says what each is for. To add one: an argument there, a line
in BOUNDS, its field in settings_apply.

It must not: allocate what a limit is about, or know a connection. Above: http. Below: records.
"""

from libc.stdint cimport uint64_t

cdef enum:
    LINGER_BYTES_MIN = 262144
    REMEMBERED_BYTES = 2048             # of the longest head that is remembered
    RESPONSE_BYTES_MIN = 1 << 20

cdef object RECORDS_MAX = 1 << 28       # of one kind that may be asked for: sizes in bytes are far from overflowing
cdef object UINT32_MAX = (1 << 32) - 1
cdef object BYTES_MAX = 1 << 60
cdef object SECONDS_MAX = 1_000_000_000
cdef object INSTANT_S = 1e-9            # a time that must not be 0

cdef dict BOUNDS = {
    "idle_timeout_s": (INSTANT_S, SECONDS_MAX),
    "head_timeout_s": (INSTANT_S, SECONDS_MAX),
    "send_timeout_s": (INSTANT_S, SECONDS_MAX),
    "linger_s": (INSTANT_S, SECONDS_MAX),
    "revalidate_s": (0, SECONDS_MAX),
    "checks_per_second": (0, UINT32_MAX),
    "max_head_bytes": (1, 1 << 20),
    "max_request_line_bytes": (1, 1 << 20),
    "max_header_count": (0, RECORDS_MAX),
    "max_body_bytes": (0, BYTES_MAX),
    "max_heads": (0, RECORDS_MAX),
    "max_heads_bytes": (0, BYTES_MAX),
    "max_files": (1, RECORDS_MAX),
    "max_held_bytes": (0, BYTES_MAX),
    "max_copied_bytes": (0, BYTES_MAX),
    "small_file_bytes": (0, 1 << 30),
    "max_queued_bytes": (0, UINT32_MAX),
    "max_busy": (1, RECORDS_MAX),
    "max_request_bytes": (0, BYTES_MAX),
    "max_response_bytes": (RESPONSE_BYTES_MIN, BYTES_MAX),
    "max_header_sections": (0, RECORDS_MAX),
    "log_lines": (2, 1 << 31),
}


cdef int check(dict given) except -1:
    for name, (low, high) in BOUNDS.items():
        if not low <= given[name] <= high:
            raise ValueError(f"{name}={given[name]!r} is out of its range, {low} to {high}")
    if given["max_request_line_bytes"] > given["max_head_bytes"]:
        raise ValueError("max_request_line_bytes is out of its range: a head holds its request line")
    if given["max_request_bytes"] < 2 * given["max_head_bytes"]:
        raise ValueError("max_request_bytes is out of its range: two heads of max_head_bytes must fit")
    if given["log_lines"] & (given["log_lines"] - 1):
        raise ValueError("log_lines must be a power of two")
    return 0


cdef inline uint64_t nanoseconds(object seconds) except? 0:
    return <uint64_t>(<double>seconds * 1e9)


cdef int settings_apply(server_t *server, dict given) except -1:
    check(given)
    server.idle_timeout_ns = nanoseconds(given["idle_timeout_s"])
    server.head_timeout_ns = nanoseconds(given["head_timeout_s"])
    server.send_timeout_ns = nanoseconds(given["send_timeout_s"])
    server.linger_ns = nanoseconds(given["linger_s"])
    server.revalidate_ns = nanoseconds(given["revalidate_s"])
    server.checks_per_second = given["checks_per_second"]
    server.max_head_bytes = given["max_head_bytes"]
    server.max_request_line_bytes = given["max_request_line_bytes"]
    server.max_remembered_bytes = REMEMBERED_BYTES
    server.max_body_bytes = given["max_body_bytes"]
    server.linger_bytes = max(<uint64_t>LINGER_BYTES_MIN, 4 * server.max_body_bytes)
    server.max_decision_bytes = given["max_heads_bytes"]
    server.max_held_bytes = given["max_held_bytes"]
    server.max_copied_bytes = given["max_copied_bytes"]
    server.small_file_bytes = given["small_file_bytes"]
    server.max_queued_bytes = given["max_queued_bytes"]
    server.max_request_bytes = given["max_request_bytes"]
    server.max_response_bytes = given["max_response_bytes"]
    return 0
