# SPDX-License-Identifier: MIT
# The records of the HTTP server: plain data, and the words that are counted and remembered in it. No functions.
#
# One server_t per HttpServer, inside it. What a response costs once is a ready_t; what is answered to one head is a
# decision_t; a file is a file_t; only a connection in the middle of something has an exchange_t.
#
# Above: everything in server/ that runs without the GIL, and http. Below: chunks, logring; buf, application.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport application_t, conn_t, transport_t
from ustack.base.ilist cimport ilist_hook_t, ilist_t
from ustack.base.posix cimport stat_t
from ustack.buf.lent cimport lent_t
from ustack.buf.slab cimport slab_t
from ustack.server.chunks cimport chunks_t
from ustack.server.logring cimport log_t

cdef enum:
    FULL_FORMS = 3                  # PERSIST, PERSIST_ANNOUNCED, CLOSE of response.py
    FORM_CLOSE = 2                  # the last of them
    STATUS_CLASSES = 6
    INLINE_BYTES = 4096             # a body up to here is copied behind its head; a longer one is lent by itself
    # What requests cost beside their own frames, in units of a turn (about 100 ns; ustack/application.pxd, on_data)
    REQUEST_UNITS = 3               # answered from memory
    REFUSAL_UNITS = 8               # of what is no head
    TAKE_GIL_UNITS = 10             # once for all heads of a turn that need Python
    UNSEEN_UNITS = 80               # Python: parse and decide
    HEAD_BYTES_UNIT_SHIFT = 5       # a unit for each 32 bytes that are parsed
    BODY_BYTES_UNIT_SHIFT = 7       # a unit for each 128 bytes of a request's body that are read
    LOOK_UNITS = 8                  # one stat(2)
    SMALL_FILE_UNITS = 200          # opened, read, described
    PLAIN_UNITS = 8                 # a head that is decided without Python
    PLAIN_FILE_UNITS = 100          # a small file for it: opened, read, its response made
    FILE_UNITS = 500                # the same by files.py, or mapped
    UNDECIDED_RECORDS = 64          # beyond max_busy: a burst of unseen heads is answered when it is reached
    SHARED_STATUSES = 16            # refusals that look alike for everybody, and are kept once
    # Of plainheads
    PATH_BEGIN = 1                  # server_t.path_bytes: a segment of a normal path may begin with it
    PATH_GO_ON = 2                  # it may stand in a segment
    EXTENSION_BYTES = 15
    DRAIN_BYTES = 32                # of an exchange_t, rounded up to what a slab takes
    ENTITY_TAG_BYTES = 52           # three numbers of 64 bits in hexadecimal, in quotes
    SHAPES_MAX = 64
    SHAPE_BYTES = 1024
    PLAIN_LOG_BYTES = 4096

# conn.user_data: 0 for an idle connection, which owns nothing here.
#     63       62 .. 32                     31 .. 0
#     CLOSING  bytes queued when last       index of its exchange_t, 0: none; with the highest bit, DRAINING,
#              looked at, for stalls        in the slab of those that have only their first part
cdef extern from *:
    """
    #define USTACK_EXCHANGE_MASK UINT64_C(0xFFFFFFFF)
    #define USTACK_DRAINING UINT32_C(0x80000000)
    #define USTACK_CLOSING (UINT64_C(1) << 63)
    #define USTACK_SEEN_MASK UINT64_C(0x7FFFFFFF)
    #define USTACK_SEEN_SHIFT 32
    #define USTACK_NO_FILE UINT32_C(0xFFFFFFFF)
    """
    const uint64_t EXCHANGE_MASK "USTACK_EXCHANGE_MASK"
    const uint32_t DRAINING "USTACK_DRAINING"
    const uint64_t CLOSING "USTACK_CLOSING"
    const uint64_t SEEN_MASK "USTACK_SEEN_MASK"
    const int SEEN_SHIFT "USTACK_SEEN_SHIFT"
    const uint32_t NO_FILE "USTACK_NO_FILE"

# One response that can be lent as it is: a head, and often a body behind it. It is dated again when it is needed in
# another second than it was made for.
ctypedef struct ready_t:
    lent_t *lent                    # NULL: not made yet
    int64_t second                  # that its Date says
    uint32_t head_length
    uint32_t date_at

# What copies of responses and log lines take, also while only TCP still names them. Each lent_t counted here holds a
# reference, so that the last of them may outlive the server.
ctypedef struct ledger_t:
    uint64_t bytes
    uint64_t refs
    void (*release)(lent_t *lent) noexcept nogil    # of lent_from_copy

ctypedef struct identity_t:         # files.Identity
    uint64_t device
    uint64_t inode
    uint64_t size
    int64_t mtime_ns
    int64_t ctime_ns

ctypedef struct variant_t:
    char *path                      # below the root
    identity_t identity             # all zero: there is no such file
    lent_t *body                    # NULL: empty or absent
    uint8_t mapped                  # the body is the file itself, not a copy
    ready_t full[FULL_FORMS]        # 200, by how the connection goes on; with the body if that is INLINE_BYTES at most

# One resource that has been asked for. Found by the path of the request: decoded, below the root (file_lookup).
ctypedef struct file_t:
    uint32_t generation             # counts up when what is here changes: who remembers another one holds nothing
    uint8_t live
    uint8_t referenced              # since the clock hand came by
    uint8_t has_gzip                # variant[1] may be sent
    uint8_t described               # Loader.resources has it
    uint32_t next                   # chain of server.file_buckets, slot + 1
    uint32_t path_length            # of the request's path: with it begins variant[0].path
    uint64_t path_hash
    uint64_t checked_ns             # last compared with the disk
    variant_t variant[2]            # as it is; gzip

cdef enum load_state_t:
    LOAD_FREE = 0
    LOAD_READING
    LOAD_DONE                       # read, or failed; those who wait for it are answered

# A file that is being read while others go on: one for all who ask for it (fetching).
ctypedef struct load_t:
    uint8_t state
    uint8_t which                   # of the descriptors that is read
    uint8_t kept                    # `body` is the file's; else its bytes only pass through, to be in the page cache
    uint32_t path_length            # of the request's path: with it begins `name`
    uint64_t path_hash
    char *name                      # below the root
    stat_t found                    # what the file was when it was opened
    lent_t *body
    int fd[2]                       # the file, its .gz; -1: none, or the transport's while it reads
    uint64_t size[2]                # bytes to be read of each
    uint64_t at                     # of `which`
    ilist_t waiting                 # exchanges

cdef enum decision_flags_t:
    DECISION_HEAD_ONLY = 1          # HEAD
    DECISION_CLOSE = 2              # the response ends the connection
    DECISION_LINGER = 4             # where the request ends is not known: its body is not waited for
    DECISION_FULL = 8               # file.variant.full[form] instead of `own`
    DECISION_CHUNKED = 16           # a chunked body follows the head
    DECISION_CONTINUE = 32          # the client waits for 100 (RFC 9110 section 10.1.1)
    DECISION_REMEMBERED = 64        # in the head table, which owns it

# What is answered to one request head.
ctypedef struct decision_t:
    uint64_t hash
    uint8_t *head                   # exact bytes, NULL if not remembered
    uint32_t head_length
    uint32_t next                   # chain of the head table, slot + 1
    uint32_t file                   # NO_FILE: none
    uint32_t generation
    uint8_t variant
    uint8_t form
    uint8_t flags
    uint8_t referenced
    uint16_t status
    uint8_t shared                  # server.shared[shared - 1] instead of `own`; 0: none
    ready_t own
    char *missing                   # a 404: what was looked for, or NULL
    uint64_t checked_ns             # when it was last missing
    uint32_t cost_bytes             # in the head table, against max_heads_bytes
    uint64_t body_at                # of the variant's body, sent behind the ready-made part
    uint64_t body_length
    uint64_t request_body           # bytes of the request's body, to be read and discarded
    lent_t *log_text                # NULL: no access log
    uint32_t log_split

# ---- plainheads

# A request line taken apart. Its pointers are valid as long as the head is.
ctypedef struct plain_t:
    const uint8_t *path             # behind the first slash
    size_t path_length
    const uint8_t *section
    size_t section_length
    size_t line_length              # of the request line, its line end apart
    uint8_t head_only               # HEAD
    uint8_t is_directory            # the path is empty, or ends with a slash
    uint8_t quoted                  # the access log has to escape something
    uint8_t minor

# What a header section makes of a GET or HEAD, by its exact bytes and the minor version.
ctypedef struct section_t:
    uint64_t hash
    uint8_t *bytes
    uint32_t length
    uint8_t minor
    uint8_t is_plain                # 0: decide.pyx has to decide each head that has it
    uint8_t form                    # of the response
    uint8_t closes                  # the response ends the connection
    uint8_t accepts_gzip
    uint32_t log_length
    uint8_t *log_text               # behind status and size

# The head of a 200 to a whole file without a .gz, in four parts: between them its ETag, Last-Modified, Content-Length.
ctypedef struct shape_t:
    uint8_t extension[EXTENSION_BYTES]
    uint8_t extension_length        # with its dot
    uint8_t form
    uint32_t date_at
    uint32_t parts[4]               # bytes of each
    uint8_t *text                   # one behind the other

cdef enum phase_t:
    PHASE_HEAD = 1                  # part of a head is here
    PHASE_BODY                      # a request's body is being discarded; `pending` is answered then
    PHASE_SENDING                   # TCP has not accepted the whole response yet
    PHASE_DRAIN                     # it has, but a mapped file is being read until it is acknowledged
    PHASE_LINGER                    # our FIN is queued; what comes is discarded for a while (RFC 9112 section 9.6)
    PHASE_UNDECIDED                 # a whole head is here that Python has to decide, in the next hand-over
    PHASE_LOADING                   # ... that waits for its file to be read

cdef enum exchange_flags_t:
    EXCHANGE_CLOSE = 1
    EXCHANGE_MAPPED = 2             # `body` is a file, not a copy
    EXCHANGE_EOF = 4                # the peer has sent its FIN
    EXCHANGE_TAIL = 8               # on_writable has come since everything was queued
    EXCHANGE_CONTINUE = 16          # what is being sent is a 100; PHASE_BODY follows
    EXCHANGE_LINE = 32              # PHASE_HEAD: the request line is complete and well-formed
    # PHASE_UNDECIDED, PHASE_LOADING
    EXCHANGE_BODY_READ = 16         # decided once already; the request's body has been read
    EXCHANGE_UNLEARNED = 64         # it is plain, if plainheads learns something more
    EXCHANGE_GENERAL = 128          # file_open has left its file to files.py
    EXCHANGE_LOADED = 8             # its file was waited for: what is not in memory now is read at once

# What only a connection in the middle of something holds.
ctypedef struct exchange_t:
    # ---- all that PHASE_DRAIN needs, which lasts for as long as a client reads a large file: DRAIN_BYTES, in a slab of
    # its own (exchange_shrink)
    uint8_t phase
    uint8_t flags
    uint16_t status
    uint32_t file                   # of `body`
    uint32_t generation
    uint32_t log_split
    lent_t *body                    # a mapping, or NULL
    # ---- nothing from here on is touched in PHASE_DRAIN
    uint32_t head_length
    uint32_t head_capacity
    uint8_t *head
    lent_t *first                   # the ready-made part
    uint64_t first_at
    uint64_t first_left
    uint64_t body_at
    uint64_t body_left
    uint64_t body_bytes             # of the whole response
    uint64_t left                   # PHASE_BODY, PHASE_LINGER: bytes that may still come
    uint64_t progress_ns            # PHASE_LINGER: when seen_queued last became less
    uint32_t seen_queued            # PHASE_LINGER: bytes unacknowledged at the last look
    decision_t *pending             # owned
    chunks_t chunks                 # PHASE_BODY of a chunked body
    lent_t *log_text
    # ---- PHASE_HEAD, PHASE_BODY, PHASE_UNDECIDED, PHASE_LOADING: what of a request is kept, in server.request_bytes
    conn_t *conn
    uint32_t held_bytes
    uint32_t load                   # PHASE_LOADING: the number of its load_t
    ilist_hook_t order              # held_bytes != 0: in the list of its phase (exchange.pyx, request_list)

ctypedef struct http_stats_t:
    uint64_t requests
    uint64_t responses[STATUS_CLASSES]
    uint64_t bytes_queued
    uint64_t head_hits
    uint64_t head_misses
    uint64_t heads_plain            # of the misses: decided without Python
    uint64_t heads_asked            # left to a hand-over
    uint64_t heads_turned_away      # 503: too many waited for one (max_request_bytes)
    uint64_t hand_overs             # that had heads to decide
    uint64_t gil_taken              # of them, that had to take the GIL: those in the middle of a turn
    uint64_t connections
    uint64_t connections_open
    uint64_t connections_ending     # of the open ones: closed or aborted here, TCP has the rest
    uint64_t busy_refused           # no record was left (max_busy)
    uint64_t requests_displaced     # unfinished ones that made room for others (max_request_bytes)
    uint64_t responses_refused      # 503: copies took max_response_bytes already
    uint64_t put_off                # times that the rest of what a client sent waited for the next turn
    uint64_t dates_kept             # a response kept its older Date for the same reason
    uint64_t idle_closed
    uint64_t head_timeouts
    uint64_t stalled_aborted
    uint64_t damaged_aborted
    uint64_t files_changed
    uint64_t loads                  # of files, that were begun while others go on (fetching)
    uint64_t loads_failed           # ... and brought nothing: read at once then
    uint64_t internal_errors

ctypedef struct server_t:
    PyObject *owner                 # the Application (HttpServer), borrowed
    application_t *app              # its table
    PyObject *decider               # its Decider, borrowed (decide.pxd)
    PyObject *wall_clock            # its WallClock, borrowed (wallclock.pxd)
    uint8_t closing                 # every connection is to be aborted at its next event
    uint32_t units                  # of work that was done and is not charged to the turn yet
    uint8_t finishing               # no new connection; each ends with the response that is under way
    http_stats_t stats
    # ---- time (writer: wallclock): monotonic from the engine, wall clock as an offset to it, set by housekeeping
    uint64_t now_ns
    uint64_t next_second_ns         # monotonic time at which `second` ends
    int64_t wall_offset_ns
    uint8_t wall_known
    int64_t second                  # wall clock
    uint8_t date[32]
    # ---- limits (http, once)
    uint64_t idle_timeout_ns
    uint64_t head_timeout_ns
    uint64_t send_timeout_ns
    uint64_t linger_ns
    uint64_t revalidate_ns          # the longest that a change of a file goes unnoticed
    uint64_t linger_bytes
    uint32_t max_head_bytes
    uint32_t max_request_line_bytes
    uint32_t max_queued_bytes
    uint64_t max_body_bytes
    uint32_t max_remembered_bytes   # of one head
    uint32_t checks_per_second      # of files against the disk; see file_fresh
    uint32_t checks_left
    # ---- remembered heads (headtable; `last`: receiving)
    uint8_t hash_key[16]
    decision_t **decisions
    uint32_t *buckets               # slot + 1 of the first decision, 0: none
    uint32_t bucket_mask
    uint32_t decision_limit
    uint64_t decision_bytes
    uint64_t max_decision_bytes
    uint32_t decision_count
    uint32_t decision_hand
    decision_t *last                # answered last, or NULL
    # ---- files (filetable, loading), ready-made responses (ready)
    int root_fd
    file_t *files
    uint32_t file_limit
    uint32_t file_count
    uint32_t file_hand
    uint32_t *file_buckets          # slot + 1 of the first file, 0: none
    uint32_t file_bucket_mask
    uint32_t *free_files            # stack of the file_limit - file_count slots that are not live
    uint64_t held_bytes             # of all bodies and ready-made responses
    uint64_t full_bytes             # of the ready-made responses among them, in the ledger too
    uint64_t max_held_bytes
    uint64_t copied_bytes           # of all bodies that are copies: memory, where a mapping is page cache
    uint64_t max_copied_bytes
    uint64_t small_file_bytes
    uint8_t *read_buffer
    uint8_t plain_open              # openat2 does not work here: files.py opens everything
    uint8_t skip_file_open          # file_open has left the file of this head to files.py already
    # ---- files that are being read (fetching)
    const transport_t *transport    # of who asks now: it may read files
    load_t *loads                   # LOADS_END; NULL: none was ever needed
    uint32_t awaited                # the number of the load_t that the head just looked at waits for; 0: none
    uint8_t read_at_once            # whoever asks now does not wait (again)
    uint8_t admitted                # ... and has had his place in this queue; 0: in none
    uint8_t loads_first             # a head that waits for a file is decided next, if there is one
    ready_t shared[SHARED_STATUSES * FULL_FORMS]
    uint16_t shared_status[SHARED_STATUSES]     # which they are; 0: the rest is unused
    ledger_t *ledger
    uint64_t max_response_bytes
    # ---- plain heads (plainheads; shapes: decide)
    uint8_t path_bytes[256]         # PATH_BEGIN, PATH_GO_ON
    uint8_t index_name[16]
    uint32_t index_length
    section_t **sections            # by their hash; NULL: decide.pyx decides every head
    uint64_t *sections_seen         # hash of the last section that was looked for in vain
    uint32_t section_mask
    uint32_t max_section_bytes
    uint32_t max_log_text_bytes
    uint8_t shared_404              # where the first form of a 404 is in `shared`
    uint8_t unlearned               # decide_plain has said no for want of a section or of a shape
    uint8_t unlearned_form          # the shape is of this form,
    uint32_t unlearned_file         # for this file; NO_FILE: it was a section
    uint32_t shape_count
    uint32_t shape_hand             # replaced next, when there are SHAPES_MAX
    shape_t shapes[SHAPES_MAX]
    # ---- connections in the middle of something (exchange)
    slab_t exchanges
    slab_t drains                   # first parts of exchange_t
    uint32_t max_busy
    ilist_t request_order           # exchanges that keep a part of a request, for longest first
    ilist_t undecided               # exchanges whose heads Python has to decide, in the order in which they came
    uint64_t undecided_bytes        # of these heads: at most a quarter of max_request_bytes
    uint64_t loading_bytes          # of those that wait for a file: the same
    uint64_t request_bytes          # kept of requests, these heads included
    uint64_t max_request_bytes
    lent_t *continue_100
    log_t log
