# SPDX-License-Identifier: MIT
# What a transport over the kernel's sockets holds: connections, listeners, what waits in either direction.
#
# A connection's bytes are in three places. What the application has queued is a list of lent ranges, given to the
# kernel by sendmsg as its buffer takes them: there they are the kernel's, which answers for them, and the reference is
# given back. What has come stays in the kernel's buffer until on_data is called; what on_data leaves is copied
# (unread). Everything here belongs to the transport's thread; who writes a field says its line.
#
#     downcalls   note on the record what the application wants, and put it on a list
#     turns       look at who is on the lists: work (upcalls), out (output, the end, what is asked of the strategy)
#
# Above: connections, accepting, downcalls, turns. Below: application, base, buf, readiness.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport application_t, conn_t, endpoints_t, file_calls_t, transport_t, turn_budget_t
from ustack.base.iqueue cimport iqueue_t, iqueue_take
from ustack.base.posix cimport aiocb, pthread_t, sem_post, sem_t, sem_wait
from ustack.base.types cimport ip_addr_t
from ustack.base.wheel cimport wheel_t
from ustack.buf.lent cimport lent_t
from ustack.buf.slab cimport slab_at, slab_t
from ustack.kernel.counters cimport KERNEL_COUNTERS, kernel_counter_t
from ustack.kernel.readiness cimport COMPLETING_RANGES, READY_IN, READY_LISTENS, READY_ONE_OF_US, readiness_t, ready_t
from ustack.link.interface cimport spin_t

cdef enum:
    KERNEL_APPLICATIONS = 64        # the first index is never used
    KERNEL_LISTENERS = 64
    READY_MOST = 256                # descriptors that one wait tells about
    RECEIVE_BYTES = 16384           # read at once, and so the most that on_data can leave of one read
    UNREAD_STEP_BYTES = 64          # what is left is kept in a multiple of it
    CONTROLS_MOST = 32
    CONTROL_NAME_BYTES = 16         # TCP_CA_NAME_MAX
    RECORD_BYTES = 192              # of a connection, in its slab
    PIECE_BYTES = 32
    VECTOR_MOST = COMPLETING_RANGES     # ranges that one system call is offered
    SEND_MOST = 1 << 20             # ... bytes: a turn ends soon, however large the socket's buffer is
    SEND_UNITS = 10                 # ... of about 100 ns, without the bytes
    READS_MOST = 64                 # of files that are under way at once

# Bits of kernel_conn_t.flags.
cdef enum conn_flags_t:
    ACCEPTED = 1
    ACTIVE = 2                      # we opened it
    CONNECTING = 4
    PAUSED = 8                      # on_data left a rest
    OFFER = 16                      # ... which is offered again in the next turn
    RESUMED = 32                    # resume was called inside on_data
    OFFERING = 64                   # on_data has the bytes in its hands
    WANT_WRITABLE = 128
    TIMED_OUT = 256                 # its timeout has come and was not told yet
    FIN_QUEUED = 512                # shutdown or close
    FIN_SENT = 1024
    CLOSED_BY_APP = 2048
    ABORT = 4096
    PEER_FIN = 8192                 # behind everything unread
    EOF_TOLD = 16384
    WAITING = 1 << 15               # it counts against its listener's backlog
    ENDED = 1 << 16                 # on_closed has been called, or is being called
    IN_WORK = 1 << 17
    IN_OUT = 1 << 18
    READABLE = 1 << 19              # there may be something to read
    UNWRITABLE = 1 << 20            # the kernel's buffer was full
    LAST_READ = 1 << 21             # the strategy has told that the FIN is among what can be read
    UNWATCHED = 1 << 22             # the strategy does not know the descriptor
    NAMED = 1 << 23                 # ends.laddr and lport are known
    FIN_WAIT = 1 << 24              # its timeout is this transport's: how long the peer's FIN is waited for
    # Of those that a thread or a process has to itself (alone.pxd).
    DUE = 1 << 25                   # it is to have another turn
    KICKED = 1 << 26                # ... and was sent a signal to come to it
    BLOCKED = 1 << 27               # its thread sleeps, or is about to, or about to lock
    BLOCKED_IN = 1 << 28            # ... until there is something to read
    BLOCKED_OUT = 1 << 29           # ... until there is room to write
    HUNG_UP = 1 << 30               # poll tells of the end of both directions, again and again

ctypedef struct piece_t:            # 32 bytes: one lent range in a send queue
    lent_t *lent
    const uint8_t *data
    uint64_t length
    uint32_t next

ctypedef struct kernel_conn_t:
    uint64_t user_data              # conn_t
    application_t *app
    uint8_t *unread                 # received, left by on_data: unread[start:end]. NULL: nothing
    uint64_t timeout_at_ns          # 0: off. set_timeout
    pthread_t thread                # whose it is, with SERVES_IN_THREADS
    int pid                         # ... and with SERVES_IN_PROCESSES, in the parent: fd is the child's pidfd
    uint64_t received_bytes         # since the beginning
    endpoints_t ends
    uint32_t start
    uint32_t end
    uint32_t unread_capacity        # bytes that unread has room for, and that count against max_unread_bytes
    uint32_t flags
    int fd
    uint32_t index                  # in the slab
    uint32_t generation             # with the index, its token
    uint32_t interest               # what the strategy is asked for now
    uint32_t timer                  # in the wheel, at or before timeout_at_ns; TIMER_NONE: none
    uint32_t queued_bytes
    iqueue_t pieces
    uint32_t low_water_bytes
    uint32_t unsent_low_water_bytes
    iqueue_t held                   # pieces that were sent without a copy, and that the kernel has yet (zerocopy)
    uint32_t zerocopies             # sends of that kind: the number of the next one
    uint32_t work_next
    uint32_t out_next
    bint corked
    uint16_t user_timeout_s
    uint8_t reason                  # close_reason_t, once ABORT or ENDED is set
    uint8_t listener                # whose backlog it counts against, with WAITING

ctypedef struct listener_t:
    int fd                          # -1: nobody listens
    application_t *app
    ip_addr_t address
    uint16_t port
    uint32_t backlog
    uint32_t waiting                # connections that on_accept left waiting
    bint ready                      # there may be somebody to accept
    bint held                       # not asked about: its backlog, or this transport, is full
    bint shared                     # other processes take from it as well

# Files that are being read (aio.pyx). Those who notify are the C library's threads: `notified` is theirs.
ctypedef struct read_t:
    aiocb block
    application_t *app              # who is told of its end; NULL: nobody
    lent_t *into                    # NULL: in no use
    uint32_t token                  # the application's

ctypedef struct reads_t:
    reads_t *next                   # left behind (aio.pyx)
    int told_fd                     # an eventfd: some have ended
    int process                     # whose reads they are
    uint32_t in_flight
    bint told
    uint64_t looked_ns              # when the last look at all was
    uint64_t submitted
    uint64_t notified
    read_t reads[READS_MOST]

ctypedef struct orphan_t:           # a socket whose connection has ended before its sends without a copy (zerocopy)
    int fd
    iqueue_t held
    int unacked_bytes               # when it was last seen to have become less
    uint64_t until_ns               # from then

ctypedef struct kernel_t:
    transport_t transport           # first: see transport_t
    turn_budget_t budget
    uint64_t now_ns
    readiness_t *readiness
    slab_t conns
    slab_t pieces
    wheel_t wheel
    listener_t listeners[KERNEL_LISTENERS]
    application_t *applications[KERNEL_APPLICATIONS]
    uint32_t application_count
    uint64_t open_applications      # bit i: the burst of the application with that index has begun
    uint64_t hand_overs             # ... has asked for on_hand_over
    uint32_t *generations           # of each record by its index; 0: in no use
    uint32_t generations_capacity
    uint32_t generation             # the last one
    uint32_t established            # connections that applications own now
    uint32_t closing                # ... and have closed
    iqueue_t work                   # of connections, by work_next and out_next
    iqueue_t out
    uint32_t held                   # listeners that are not asked about
    uint32_t listeners_used         # the highest number of one, and one more
    uint32_t listeners_first        # which one is asked first in the next turn, modulo that
    uint16_t latest_port            # of the last listener that was made
    ip_addr_t latest_address
    bint ending                     # the transport goes: nothing new is opened
    bint manual                     # the clock: now_ns is what the transport is told
    # Those that serve one connection each (alone.pxd). The lock: whoever touches anything of this holds it.
    bint threaded
    sem_t lock
    # 0, or an errno: there is nobody to serve it.
    int (*serve_alone)(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
    uint32_t alone                  # threads that there are
    void (*serve_child)(kernel_t *kernel, uint64_t token) noexcept nogil        # to its end, and the process's
    void *owner                     # the KernelTransport
    void (*call_owner)(void *owner, const char *what) noexcept                  # its applications' method of that name
    file_calls_t files              # transport.files, where this does anything with them
    reads_t *reads                  # NULL: the strategy reads no files
    uint64_t *board                 # what children have counted: shared with them (processes.pxd)
    bint forking                    # the copy of this kernel_t in the child is to serve
    bint in_child                   # this is that copy
    uint64_t alarm_ns               # ... whose timer is set to this
    uint32_t kicked                 # connections with KICKED
    uint64_t alone_turns
    uint64_t asleep_until_ns        # the first thread waits for listeners, and wakes then; 0: it does not
    int wake_fd                     # ... or when this can be read. -1: none
    uint32_t ready_count
    spin_t spin                     # how long the next wait asks without sleeping
    int reserve_fd                  # kept for the moment when no other is left; -1: it could not be had again
    uint64_t starved_until_ns       # no listener is asked about before: not even that one was left
    # settings
    uint32_t send_queue_bytes
    uint32_t low_water_bytes
    uint32_t unsent_low_water_bytes
    uint64_t max_unread_bytes
    int sndbuf_bytes                # of each socket; 0: as the kernel chooses
    uint64_t spin_ns                # ... at most; 0: never
    bint cork                       # TCP_CORK for as long as something is queued
    bint zerocopy                   # MSG_ZEROCOPY for long sends
    int process                     # whose this is
    orphan_t *orphans
    uint32_t orphan_count
    uint32_t orphan_capacity
    uint32_t orphan_hand        # looked at next
    uint64_t orphans_looked_ns
    bint reuse_port                 # several processes listen, each with a queue of its own
    char cc[CONTROL_NAME_BYTES]     # congestion control of its sockets; empty: as the kernel chooses
    uint64_t unread_bytes           # held for all connections
    uint32_t control_count
    char controls[CONTROLS_MOST][CONTROL_NAME_BYTES]
    uint64_t counters[KERNEL_COUNTERS]
    ready_t ready[READY_MOST]
    uint8_t buffer[RECEIVE_BYTES]


cdef inline kernel_t *kernel_of(const transport_t *transport) noexcept nogil:
    return <kernel_t *>transport


cdef inline kernel_conn_t *own(const conn_t *conn) noexcept nogil:
    return <kernel_conn_t *>conn


cdef inline piece_t *piece_at(const kernel_t *kernel, uint32_t index) noexcept nogil:
    return <piece_t *>slab_at(&kernel.pieces, index)


cdef inline uint32_t *piece_link(const void *kernel, uint32_t index) noexcept nogil:
    return &piece_at(<const kernel_t *>kernel, index).next


# Of `length` bytes that have been sent: take the first piece off the queue, if they reach its end, and its bytes off
# them. Its number, with the reference that it holds, is the caller's. 0: nothing is left of them, or they have
# shortened the first piece, and are still told.
cdef inline uint32_t piece_take(kernel_t *kernel, kernel_conn_t *conn, uint64_t *length) noexcept nogil:
    cdef uint32_t index = conn.pieces.first
    cdef piece_t *piece
    if length[0] == 0:
        return 0
    piece = piece_at(kernel, index)
    if length[0] < piece.length:
        piece.data += length[0]
        piece.length -= length[0]
        return 0
    length[0] -= piece.length
    return iqueue_take(&conn.pieces, piece_link, kernel)


# What is locked is the whole kernel_t. A semaphore, which another thread than the one that took it may give back: the
# first thread holds it while it is in Python, whichever thread of Python's that is.
cdef inline void kernel_lock(kernel_t *kernel) noexcept nogil:
    while kernel.threaded and sem_wait(&kernel.lock) != 0:
        pass                        # a signal


cdef inline void kernel_unlock(kernel_t *kernel) noexcept nogil:
    if kernel.threaded:
        sem_post(&kernel.lock)


# Tokens: a record's generation and index, or the number of a listener. No record has the index 0, as the last two have.
cdef inline uint64_t listener_token(uint32_t number) noexcept nogil:
    return 1ULL << 63 | number


# What the strategy is asked about it.
cdef inline uint32_t listener_interest(const listener_t *listener) noexcept nogil:
    return READY_IN | READY_LISTENS | (READY_ONE_OF_US if listener.shared else 0)


cdef inline uint64_t wake_token() noexcept nogil:
    return 1ULL << 62


cdef inline uint64_t reads_token() noexcept nogil:
    return 1ULL << 61


cdef inline bint is_listener(uint64_t token) noexcept nogil:
    return token >> 63 != 0


cdef inline void tally(kernel_t *kernel, kernel_counter_t which) noexcept nogil:
    kernel.counters[<int>which] += 1


# Neither measure of the send queue is above its mark. They are one here: what the kernel has taken is its own matter.
cdef inline bint is_writable(const kernel_conn_t *conn) noexcept nogil:
    return conn.queued_bytes <= conn.low_water_bytes and conn.queued_bytes <= conn.unsent_low_water_bytes
