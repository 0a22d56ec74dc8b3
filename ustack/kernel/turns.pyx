# SPDX-License-Identifier: MIT
"""One turn of a transport over the kernel's sockets. See turns.pxd."""

from libc.errno cimport EFAULT, ENOMEM
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from ustack.application cimport CLOSE_ABORTED, CLOSE_NO_MEMORY, CLOSE_NORMAL, CLOSE_TIMEOUT, close_reason_t
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport SHUT_WR, SIGKILL, socket_shutdown
from ustack.base.wheel cimport TIMER_NONE, timer_event_t, wheel_expire, wheel_next_ns
from ustack.buf.slab cimport slab_at
from ustack.kernel.aio cimport reads_finish, reads_tell, reads_timeout
from ustack.kernel.accepting cimport accept_some, listeners_release
from ustack.kernel.connections cimport (
    conn_living, conn_named, interest_sync, out_add, out_take, timeout_sync, watch_no_more, work_add, work_take)
from ustack.kernel.counters cimport EVENTS_STALE, EVENTS_TOLD, SPINS, SPINS_IN_VAIN, TURNS, WAITS
from ustack.kernel.downcalls cimport conn_fail
from ustack.kernel.readiness cimport (
    READY_EOF, READY_ERROR, READY_HANGUP, READY_IN, READY_OUT, SERVES_ALL, ready_t)
from ustack.kernel.records cimport (
    ABORT, CLOSED_BY_APP, CONNECTING, EOF_TOLD, FIN_QUEUED, FIN_SENT, FIN_WAIT, IN_WORK, LAST_READ,
    OFFER, PAUSED, PEER_FIN, READABLE, READY_MOST, TIMED_OUT, UNWRITABLE, WANT_WRITABLE, is_listener, is_writable,
    kernel_conn_t, kernel_lock, kernel_t, kernel_unlock, reads_token, tally, wake_token)
from ustack.kernel.processes cimport child_reap, children_signal
from ustack.kernel.sockets cimport socket_error, socket_flush
from ustack.kernel.threads cimport all_sleep, distribute, give_way, kick_again, threads_join, wake_drain
from ustack.kernel.upcalls cimport upcall_closed, upcalls_end_bursts, upcalls_hand_over, upcalls_make
from ustack.kernel.zerocopy cimport orphans_end, orphans_look, orphans_timeout, zerocopy_reap
from ustack.link.interface cimport spin_adapt, spin_for

cdef enum:
    STAGE_UNITS = 8192          # as the engine has it: see turn_spent
    TIMERS_MOST = 64            # taken from the wheel at once
    MOVES_MOST = 1024           # timers placed again in a turn
    CONNECTION_UNITS = 2        # taken from a list
    KICK_AGAIN_NS = 1000000     # signals that may have come before the sleep that they were to end
    ACCEPTS_UNITS = 240         # a listener's share of a turn that connections have used up: eight accepts

cdef uint64_t FIN_WAIT_2_NS = 60000000000   # as the engine has it: fin_wait_2_timeout_ns


cdef void kernel_wait(kernel_t *kernel, uint64_t timeout_ns) noexcept nogil:
    cdef int found
    listeners_release(kernel)
    timeout_ns = 0 if has_work(kernel) else orphans_timeout(kernel, reads_timeout(kernel, timeout_ns))
    if timeout_ns > 0 and kernel.spin_ns:
        found = wait_spinning(kernel, timeout_ns)
    else:
        found = ask(kernel, timeout_ns)
    kernel.ready_count = <uint32_t>found if found > 0 else 0
    kernel.counters[<int>EVENTS_TOLD] += kernel.ready_count


cdef inline int ask(kernel_t *kernel, uint64_t timeout_ns) noexcept nogil:
    cdef int found
    tally(kernel, WAITS)
    if not kernel.threaded:
        return kernel.readiness.ops.wait(kernel.readiness, kernel.ready, READY_MOST, timeout_ns)
    if kernel.kicked:
        kick_again(kernel)
        timeout_ns = min(timeout_ns, <uint64_t>KICK_AGAIN_NS)
    if timeout_ns > 0:
        kernel.asleep_until_ns = UINT64_MAX if timeout_ns == UINT64_MAX else kernel.now_ns + timeout_ns
    kernel_unlock(kernel)
    found = kernel.readiness.ops.wait(kernel.readiness, kernel.ready, READY_MOST, timeout_ns)
    kernel_lock(kernel)
    kernel.asleep_until_ns = 0
    return found


cdef int wait_spinning(kernel_t *kernel, uint64_t timeout_ns) noexcept nogil:
    """As the links of the engine wait: ask without sleeping as long as the last sleeps were short (spin_adapt)."""
    cdef uint64_t began_ns = clock_monotonic_ns(), spin_ns = spin_for(&kernel.spin, kernel.spin_ns), passed_ns = 0
    cdef int found
    if spin_ns > 0:
        tally(kernel, SPINS)
        while passed_ns < spin_ns and passed_ns < timeout_ns:
            found = ask(kernel, 0)
            if found > 0:
                return found
            passed_ns = clock_monotonic_ns() - began_ns
        tally(kernel, SPINS_IN_VAIN)
        if passed_ns >= timeout_ns:
            return 0
    found = ask(kernel, timeout_ns - passed_ns if timeout_ns != UINT64_MAX else UINT64_MAX)
    spin_adapt(&kernel.spin, kernel.spin_ns, clock_monotonic_ns() - began_ns, found > 0)
    return found


cdef bint has_work(const kernel_t *kernel) noexcept nogil:
    cdef uint32_t number
    if kernel.work.first or kernel.out.first or kernel.hand_overs:
        return True
    for number in range(kernel.listeners_used):
        if kernel.listeners[number].fd >= 0 and kernel.listeners[number].ready:
            return True
    return False


cdef uint64_t kernel_next_deadline(kernel_t *kernel) noexcept nogil:
    cdef uint64_t at_ns
    if has_work(kernel):
        return 0
    at_ns = wheel_next_ns(&kernel.wheel)
    return kernel.starved_until_ns if kernel.held and kernel.now_ns < kernel.starved_until_ns < at_ns else at_ns


# ---------------------------------------------------------------- what is due

cdef uint32_t note_ready(kernel_t *kernel) noexcept nogil:
    """Note on the records what the strategy has told. How many connections have something to do."""
    cdef const ready_t *ready
    cdef kernel_conn_t *conn
    cdef uint32_t index, found = 0
    for index in range(kernel.ready_count):
        ready = &kernel.ready[index]
        if is_listener(ready.token):
            kernel.listeners[<uint32_t>ready.token].ready = True
            continue
        if ready.token == wake_token():
            wake_drain(kernel)
            continue
        if ready.token == reads_token():
            kernel.reads.told = True
            continue
        conn = conn_named(kernel, ready.token)
        if conn == NULL:
            tally(kernel, EVENTS_STALE)
            continue
        if conn.pid != 0:
            child_reap(kernel, conn)
            found += 1
            continue
        found += note_events(kernel, conn, ready.events)
    kernel.ready_count = 0
    return found


cdef bint note_events(kernel_t *kernel, kernel_conn_t *conn, uint32_t events) noexcept nogil:
    """False: it is nothing that anybody waits for."""
    cdef int error
    cdef bint over
    if conn.flags & CONNECTING:
        work_add(kernel, conn)
        return True
    if events & READY_ERROR:
        over = conn.held.first != 0 and zerocopy_reap(kernel, conn) > 0
        error = socket_error(conn.fd)
        if error != 0:
            conn_fail(kernel, conn, error)
            return True
        if over:
            events &= ~<uint32_t>READY_ERROR
    if conn.held.first and events & READY_HANGUP:
        zerocopy_reap(kernel, conn)         # nothing is told of the others once nobody watches: they part at the end
    if events & READY_HANGUP and not kernel.readiness.ops.edge:
        watch_no_more(kernel, conn)         # it would be told for ever
    if events & READY_EOF:
        conn.flags |= LAST_READ
    if events & READY_OUT and conn.flags & UNWRITABLE:
        conn.flags &= ~<uint32_t>UNWRITABLE
        out_add(kernel, conn)
    if events & (READY_IN | READY_HANGUP | READY_ERROR):
        conn.flags |= READABLE
        if not conn.flags & (PAUSED | PEER_FIN):
            work_add(kernel, conn)
    return conn.flags & IN_WORK != 0


cdef uint32_t kernel_expire(kernel_t *kernel) noexcept nogil:
    cdef timer_event_t events[TIMERS_MOST]
    cdef kernel_conn_t *conn
    cdef uint32_t moves = MOVES_MOST, index, count = TIMERS_MOST, due = 0
    while count == TIMERS_MOST:
        count = wheel_expire(&kernel.wheel, kernel.now_ns, events, TIMERS_MOST, &moves)
        for index in range(count):          # before anything is armed: an id may name another timer then
            (<kernel_conn_t *>slab_at(&kernel.conns, events[index].owner)).timer = TIMER_NONE
        for index in range(count):
            conn = <kernel_conn_t *>slab_at(&kernel.conns, events[index].owner)
            if conn.timeout_at_ns == 0:
                continue
            if conn.timeout_at_ns > kernel.now_ns:
                timeout_sync(kernel, conn)  # it was moved meanwhile
                continue
            conn.timeout_at_ns = 0
            conn.flags |= TIMED_OUT
            work_add(kernel, conn)
            due += 1
    return due


# ---------------------------------------------------------------- a turn

cdef uint32_t kernel_turn(kernel_t *kernel, uint64_t now_ns) noexcept nogil:
    cdef uint32_t happened
    kernel.now_ns = now_ns
    tally(kernel, TURNS)
    turn_begin(kernel)
    happened = note_ready(kernel)
    happened += kernel_expire(kernel)
    if kernel.readiness.ops.serves == SERVES_ALL:
        happened += work(kernel)
    happened += reads_tell(kernel) + orphans_look(kernel)
    happened += welcome_some(kernel)
    if kernel.hand_overs:
        happened += upcalls_hand_over(kernel)
    turn_begin(kernel)
    happened += output(kernel)
    if kernel.open_applications:
        upcalls_end_bursts(kernel)
    return happened


cdef void turn_begin(kernel_t *kernel) noexcept nogil:
    kernel.budget.stage_left = STAGE_UNITS


cdef uint32_t work(kernel_t *kernel) noexcept nogil:
    """Upcalls of the connections that have something to do."""
    cdef uint32_t happened = 0, last
    cdef kernel_conn_t *conn
    last = kernel.work.last                 # what upcalls add behind it has its turn later
    while last and kernel.budget.stage_left > 0:
        conn = work_take(kernel)
        if conn == NULL:
            break
        if conn.index == last:
            last = 0
        kernel.budget.stage_left -= CONNECTION_UNITS
        happened += upcalls_make(kernel, conn)
        out_add(kernel, conn)
    return happened


cdef uint32_t kernel_settle(kernel_t *kernel) noexcept nogil:
    cdef uint64_t before = kernel.alone_turns
    while not all_sleep(kernel):
        give_way(kernel)
    return <uint32_t>(kernel.alone_turns - before)


cdef uint32_t welcome_some(kernel_t *kernel) noexcept nogil:
    """Accept from every listener that has somebody, another one first each time."""
    cdef uint32_t step, number, taken = 0
    for step in range(kernel.listeners_used):
        number = (kernel.listeners_first + step) % kernel.listeners_used
        if kernel.listeners[number].fd >= 0 and kernel.listeners[number].ready:
            if kernel.budget.stage_left < ACCEPTS_UNITS:
                kernel.budget.stage_left = ACCEPTS_UNITS
            taken += accept_some(kernel, number)
    kernel.listeners_first += 1
    return taken


cdef void kernel_flush(kernel_t *kernel, uint64_t now_ns) noexcept nogil:
    kernel.now_ns = now_ns
    turn_begin(kernel)
    output(kernel)
    if kernel.open_applications:
        upcalls_end_bursts(kernel)
    kernel_submit(kernel)


cdef void kernel_submit(kernel_t *kernel) noexcept nogil:
    if kernel.readiness.ops.flush != NULL:
        kernel.readiness.ops.flush(kernel.readiness)


cdef uint32_t output(kernel_t *kernel) noexcept nogil:
    """What goes out, and who has come to his end. Connections that the budget does not pay for stay on the list."""
    cdef uint32_t happened = 0, last = kernel.out.last
    cdef kernel_conn_t *conn
    cdef int changed
    if kernel.readiness.ops.serves != SERVES_ALL:
        return distribute(kernel, NULL)
    while last and kernel.budget.stage_left > 0:
        conn = out_take(kernel)
        if conn == NULL:
            break
        if conn.index == last:
            last = 0
        kernel.budget.stage_left -= CONNECTION_UNITS
        happened += kernel_depart(kernel, conn)
        if kernel_finish(kernel, conn):
            happened += 1
            continue
        changed = interest_sync(kernel, conn)
        if changed < 0:
            conn_fail(kernel, conn, ENOMEM)
        happened += changed != 0
    return happened


cdef bint kernel_depart(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    """What the kernel takes of the send queue, and the FIN behind it."""
    cdef int failed
    cdef bint sent = False
    if conn.flags & (ABORT | CONNECTING | UNWRITABLE):
        return False
    if conn.queued_bytes > 0:
        sent = True
        failed = socket_flush(kernel, conn)
        if failed == -EFAULT:
            conn.flags |= ABORT
            conn.reason = CLOSE_ABORTED
            return True
        if failed != 0:
            conn_fail(kernel, conn, -failed)
            return True
        if conn.queued_bytes > 0 and not conn.flags & UNWRITABLE:
            out_add(kernel, conn)           # the rest in the next turn, after others
        if conn.flags & WANT_WRITABLE and is_writable(conn):
            work_add(kernel, conn)
    if conn.flags & (FIN_QUEUED | FIN_SENT) == FIN_QUEUED and conn.queued_bytes == 0:
        conn.flags |= FIN_SENT
        if not (conn.flags & CLOSED_BY_APP and conn.flags & PEER_FIN):     # then close says it
            socket_shutdown(conn.fd, SHUT_WR)
        sent = True
    return sent


cdef bint kernel_finish(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    """on_closed, when nothing is left to come or to go."""
    if conn.flags & ABORT:
        upcall_closed(kernel, conn, <close_reason_t>conn.reason)
        return True
    if conn.flags & FIN_SENT and conn.flags & PEER_FIN and conn.flags & (EOF_TOLD | CLOSED_BY_APP) and not (
            conn.flags & OFFER):
        upcall_closed(kernel, conn, CLOSE_NORMAL)
        return True
    if conn.flags & (CLOSED_BY_APP | FIN_SENT) != CLOSED_BY_APP | FIN_SENT or conn.flags & PEER_FIN:
        return False
    if conn.flags & FIN_WAIT and conn.flags & TIMED_OUT:
        upcall_closed(kernel, conn, CLOSE_TIMEOUT)      # no reset: the kernel goes on with what it has not delivered
        return True
    if conn.timeout_at_ns == 0 and not conn.flags & TIMED_OUT:
        conn.flags |= FIN_WAIT
        conn.timeout_at_ns = kernel.now_ns + FIN_WAIT_2_NS
        if timeout_sync(kernel, conn) < 0:
            conn.flags |= ABORT
            upcall_closed(kernel, conn, CLOSE_NO_MEMORY)
            return True
    return False


# ---------------------------------------------------------------- who drives it

cdef void kernel_run(kernel_t *kernel, uint64_t until_ns, const bint *come_up) noexcept nogil:
    cdef uint64_t now_ns = clock_monotonic_ns(), deadline_ns
    while not come_up[0] and now_ns < until_ns:
        deadline_ns = kernel_next_deadline(kernel)
        if deadline_ns > until_ns:
            deadline_ns = until_ns
        kernel_wait(kernel, deadline_ns - now_ns if deadline_ns > now_ns else 0)
        now_ns = clock_monotonic_ns()
        kernel_turn(kernel, now_ns)
    kernel_submit(kernel)


cdef bint kernel_end_some(kernel_t *kernel, uint32_t most, uint64_t now_ns) noexcept nogil:
    cdef kernel_conn_t *conn
    cdef uint32_t index
    kernel.now_ns = now_ns
    kernel.ending = True
    children_signal(kernel, SIGKILL)
    kernel.budget.stage_left = STAGE_UNITS
    for index in range(kernel.generations_capacity):
        conn = conn_living(kernel, index)
        if conn == NULL:
            continue
        if most == 0:
            break
        if not conn.flags & ABORT:
            conn.reason = CLOSE_ABORTED
        conn.flags |= ABORT
        if kernel.readiness.ops.serves != SERVES_ALL:
            out_add(kernel, conn)           # its thread does it: all of them, since all are waited for
            continue
        most -= 1
        upcall_closed(kernel, conn, CLOSE_ABORTED)
    if kernel.threaded:
        distribute(kernel, NULL)
        threads_join(kernel)
    while out_take(kernel) != NULL or work_take(kernel) != NULL:
        pass
    if most > 0:
        reads_finish(kernel)                # behind the last connection: whoever waits for a file would read it at once
    orphans_end(kernel)
    if kernel.open_applications:
        upcalls_end_bursts(kernel)
    return most == 0
