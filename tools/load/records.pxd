# SPDX-License-Identifier: MIT
# What a load client keeps: plain data, one writer per field. What happens to it is in client.
#
#     client_t    one connection's place: it is opened, asks, is closed, and is opened again
#     load_t      all of them, the schedule, what was counted
#
# Above: client, driver. Below: application, responses, schedule, histogram.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport application_t, conn_t, transport_t
from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_t
from ustack.tools.load.histogram cimport histogram_t
from ustack.tools.load.responses cimport reader_t, response_t
from ustack.tools.load.schedule cimport schedule_t

cdef enum client_state_t:
    CLIENT_CLOSED = 0           # in the list of those to be opened, now or later
    CLIENT_OPENING
    CLIENT_IDLE                 # open, and nothing is asked
    CLIENT_WAITING              # a request was sent
    CLIENT_PARTING              # nothing is counted any more; its connection has still to be ended

cdef enum client_flag_t:
    CLIENT_LISTED = 1           # in the list of the idle, though it may be so no more
    CLIENT_TIMED = 2            # the connection's timeout is on
    CLIENT_DUE = 4              # `due_ns` is that of a request which waits for the connection to be open
    CLIENT_BEHIND = 8           # a slow reader's: bytes have waited for its line ever since `read_at_ns`

# How a request ended, or a connection that was to carry one. Names: OUTCOMES in client.pyx.
cdef enum outcome_t:
    OUTCOME_OK = 0
    # the connection could not be opened
    OUTCOME_REFUSED
    OUTCOME_OPEN_TIMEOUT
    OUTCOME_UNREACHABLE
    OUTCOME_NO_PORT             # no free port of a source address was found
    OUTCOME_OPEN_FAILED         # memory, or anything else
    # it ended under the request
    OUTCOME_RESET
    OUTCOME_CLOSED              # in order, before a byte of the response
    OUTCOME_CUT                 # in order, within the response
    OUTCOME_TIMEOUT             # nothing complete within the time for a request
    # what came is no response to it
    OUTCOME_MALFORMED
    OUTCOME_HEAD_TOO_LONG
    OUTCOME_BAD_LENGTH
    OUTCOME_UNASKED             # bytes behind the response, or before any request
    # it is one, but not what was to come
    OUTCOME_STATUS
    OUTCOME_LENGTH
    OUTCOME_BODY
    # by the end of the run
    OUTCOME_UNANSWERED
    OUTCOME_UNSENT              # due by the schedule, and no connection ever free
    OUTCOME_KINDS

cdef enum:
    STATUS_CLASSES = 6

# One request that is asked again and again.
ctypedef struct question_t:
    lent_t *bytes
    uint64_t body_bytes         # of a good response; UINT64_MAX: the first one will say
    uint64_t hash               # of its body, if has_hash
    bint has_hash

ctypedef struct client_t:
    conn_t *conn                # NULL: closed
    uint64_t due_ns             # of the request under way: its latency begins here. CLOSED: when it may be opened again
    uint64_t asked_ns           # when it was handed to the transport; OPENING: when that began
    response_t response
    uint32_t question           # index of the question under way
    uint32_t next_closed        # lists, by index + 1; 0: the end
    uint32_t next_idle
    uint8_t state               # client_state_t
    uint8_t flags               # client_flag_t
    uint8_t ends                # connections that have ended since the last whole response, the one it came on included
    uint32_t step_left          # slow readers: bytes of the step that is being read
    uint64_t read_at_ns         # ... when `allowance` was last filled up
    double allowance            # ... bytes that may be read now, beside `step_left`

ctypedef struct list_t:
    uint32_t first              # index + 1
    uint32_t last

# What is counted from the beginning of a run, or of its measured part.
ctypedef struct tally_t:
    uint64_t requests           # handed to the transport
    uint64_t outcomes[OUTCOME_KINDS]
    uint64_t statuses[STATUS_CLASSES]       # of complete responses, by class
    uint64_t bytes              # of responses, heads included, complete or not, when they came
    uint64_t body_bytes         # of complete responses
    uint64_t opened             # connections established
    uint64_t closed_idle        # by the server, with no request under way

ctypedef struct load_t:
    application_t *app
    const transport_t *transport
    ip_addr_t server
    # ---- what to do. Writer: LoadClient, before it begins
    uint32_t count              # connections
    uint32_t question_count
    bint keeps_alive
    bint to_head                # the method is HEAD
    bint any_length             # lengths that differ are no error
    uint32_t hash_every         # one response in so many is hashed; 0: none
    uint64_t duration_ns        # of the measured part
    uint32_t openings_most      # handshakes under way at once
    uint64_t timeout_ns
    uint64_t ramp_ns
    uint64_t requests_most      # 0: no limit
    double read_per_ns          # bytes per ns that a connection reads; 0: as they come
    uint32_t step_bytes         # slow readers: at once
    uint32_t expected_status    # 0: any of class 2xx
    # ---- how it is
    client_t *clients
    uint64_t *readings          # slow readers: bytes that each has read in the measured part. NULL: they are not slow
    question_t *questions
    schedule_t schedule
    reader_t reader
    uint16_t port
    uint64_t now_ns             # of this turn
    uint64_t began_ns
    uint64_t measured_from_ns   # UINT64_MAX: not yet
    uint64_t until_ns           # no new request from here on
    uint32_t next_question
    uint32_t hash_left          # requests until the next one whose response is hashed
    uint64_t taken              # requests given to a connection, which may still have to open
    uint32_t opening
    uint32_t open               # established
    uint32_t waiting            # requests under way
    uint32_t most_open
    list_t closed               # to be opened, those that may be at once in front
    list_t later                # to be opened after a pause, the first one first
    list_t idle
    bint ending
    uint32_t parted             # while ending: clients whose connections have been ended
    tally_t all
    tally_t measured
    uint64_t in_time            # good responses that came within the measured part
    uint64_t hashed
    uint64_t latest_ns          # when the last complete response came
    histogram_t *latency        # of good responses to requests due in the measured part
    histogram_t *unanswered     # how long those without a response had waited when they failed, or at the end
    histogram_t *opened         # from SYN to established
