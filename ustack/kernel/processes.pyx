# SPDX-License-Identifier: MIT
"""A process for each connection. See processes.pxd."""

from libc.errno cimport ENOMEM, errno
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport (
    F_DUPFD_CLOEXEC, ITIMER_REAL, MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, PR_SET_PDEATHSIG,
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1, SIG_DFL, SIG_IGN, SIG_SETMASK, SYS_pidfd_open, _exit,
    close_descriptor, fcntl, fork, getpid, getppid, itimerval, kill, mmap, munmap, prctl, pthread_sigmask, setitimer,
    sigaction, sigaction_t, sigemptyset, sigfillset, sigset_t, syscall, waitpid)
from ustack.base.wheel cimport wheel_next_ns
from ustack.kernel.connections cimport conn_end, conn_living, token_of
from ustack.kernel.counters cimport KERNEL_COUNTERS
from ustack.kernel.epoll cimport epoll_level_ops
from ustack.kernel.readiness cimport READY_IN, SERVES_IN_PROCESSES, readiness_ops_t, readiness_t
from ustack.kernel.records cimport CLOSED_BY_APP, KERNEL_LISTENERS, kernel_conn_t, kernel_t

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Child()
    void PyOS_AfterFork_Parent()

cdef extern from *:
    void add "__atomic_fetch_add"(uint64_t *at, uint64_t more, int order) nogil
    int RELAXED "__ATOMIC_RELAXED"

cdef enum:
    AGAIN_US = 10000            # a signal may come before the sleep that it was to end: the next one does

# Of the child alone.
cdef bint told = False
cdef uint64_t counted[KERNEL_COUNTERS]      # by the parent, before


cdef int processes_begin(kernel_t *kernel) noexcept nogil:
    cdef void *page = mmap(NULL, sizeof(counted), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
    if page == MAP_FAILED:
        return -errno
    kernel.board = <uint64_t *>page
    return 0


cdef void processes_end(kernel_t *kernel) noexcept nogil:
    if kernel.board != NULL:
        munmap(kernel.board, sizeof(counted))
        kernel.board = NULL


cdef const uint64_t *children_counters(const kernel_t *kernel) noexcept nogil:
    return kernel.board


# ---------------------------------------------------------------- the parent

cdef int serve_in_process(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef int pid, error, pidfd, parent = getpid()
    cdef int room = fcntl(conn.fd, F_DUPFD_CLOEXEC, 0)  # the pidfd will have its number
    cdef sigset_t every, before
    if room < 0:
        return errno
    sigfillset(&every)
    with gil:
        PyOS_BeforeFork()
        pthread_sigmask(SIG_SETMASK, &every, &before)   # none comes to a child that would handle it as its parent does
        kernel.forking = True
        pid = fork()
        error = errno
        if pid == 0:
            PyOS_AfterFork_Child()
        else:
            PyOS_AfterFork_Parent()
            pthread_sigmask(SIG_SETMASK, &before, NULL)
        kernel.forking = False
    close_descriptor(room)
    if pid == 0:
        child_begin(kernel, parent)
        return 0
    if pid < 0:
        return error
    pidfd = <int>syscall(SYS_pidfd_open, pid, 0)
    if pidfd < 0 or kernel.readiness.ops.add(kernel.readiness, pidfd, token_of(conn), READY_IN) != 0:
        kill(pid, SIGKILL)
        waitpid(pid, NULL, 0)
        if pidfd >= 0:
            close_descriptor(pidfd)
        return ENOMEM
    close_descriptor(conn.fd)
    conn.fd = pidfd
    conn.pid = pid
    kernel.established += 1
    return 0


cdef void child_reap(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    waitpid(conn.pid, NULL, 0)
    kernel.readiness.ops.remove(kernel.readiness, conn.fd)      # a younger child may still have a copy
    kernel.established -= 1
    if conn.flags & CLOSED_BY_APP:
        kernel.closing -= 1
    conn.pid = 0
    conn_end(kernel, conn)


cdef void children_signal(kernel_t *kernel, int number) noexcept nogil:
    cdef kernel_conn_t *conn
    cdef uint32_t index
    for index in range(kernel.generations_capacity):
        conn = conn_living(kernel, index)
        if conn == NULL or conn.pid == 0:
            continue
        kill(conn.pid, number)
        if not conn.flags & CLOSED_BY_APP:
            conn.flags |= CLOSED_BY_APP
            kernel.closing += 1
        if number == SIGKILL:
            child_reap(kernel, conn)


# ---------------------------------------------------------------- the child

cdef void woken(int number) noexcept nogil:
    pass                        # the system call that slept returns with EINTR: that is all


cdef void told_to_end(int number) noexcept nogil:
    global told
    told = True
    ring_after(AGAIN_US)


cdef void ring_after(uint64_t after_us) noexcept nogil:
    """The timer's signal, again and again from then on. 0: never."""
    cdef itimerval timer
    timer.it_interval.tv_sec = 0
    timer.it_interval.tv_usec = AGAIN_US
    timer.it_value.tv_sec = <long>(after_us // 1000000)
    timer.it_value.tv_usec = <long>(after_us % 1000000)
    setitimer(ITIMER_REAL, &timer, NULL)


cdef void on(int number, void (*handler)(int number) noexcept nogil) noexcept nogil:
    cdef sigaction_t action
    memset(&action, 0, sizeof(action))
    action.sa_handler = handler         # without SA_RESTART
    sigaction(number, &action, NULL)


cdef void child_begin(kernel_t *kernel, int parent) noexcept nogil:
    """What was the parent's goes: its listeners, its epoll, what its signals do. Every signal is blocked before."""
    cdef sigset_t none
    cdef int index
    kernel.in_child = True
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    if getppid() != parent:     # it had ended before
        _exit(0)
    on(SIGALRM, woken)
    on(SIGTERM, told_to_end)
    on(SIGINT, <void (*)(int number) noexcept nogil>SIG_IGN)    # Ctrl-C reaches the parent, which passes it on
    on(SIGHUP, <void (*)(int number) noexcept nogil>SIG_IGN)
    on(SIGUSR1, <void (*)(int number) noexcept nogil>SIG_IGN)
    on(SIGCHLD, <void (*)(int number) noexcept nogil>SIG_DFL)
    sigemptyset(&none)
    pthread_sigmask(SIG_SETMASK, &none, NULL)
    for index in range(KERNEL_LISTENERS):
        if kernel.listeners[index].fd >= 0:
            close_descriptor(kernel.listeners[index].fd)
            kernel.listeners[index].fd = -1
    close_pidfds(kernel)
    memcpy(counted, kernel.counters, sizeof(counted))
    kernel.established = kernel.closing = 0
    kernel.alarm_ns = UINT64_MAX


cdef void close_pidfds(kernel_t *kernel) noexcept nogil:
    """Of the others, whose records are nobody's here."""
    cdef kernel_conn_t *conn
    cdef uint32_t index
    for index in range(kernel.generations_capacity):
        conn = conn_living(kernel, index)
        if conn != NULL and conn.pid != 0:
            close_descriptor(conn.fd)
            conn.fd = -1


cdef void child_end(kernel_t *kernel) noexcept nogil:
    cdef int index
    for index in range(<int>KERNEL_COUNTERS):
        add(&kernel.board[index], kernel.counters[index] - counted[index], RELAXED)
    _exit(0)


cdef void child_alarm(kernel_t *kernel) noexcept nogil:
    cdef uint64_t at_ns = wheel_next_ns(&kernel.wheel), now_ns
    if at_ns == kernel.alarm_ns:
        return
    kernel.alarm_ns = at_ns
    now_ns = clock_monotonic_ns()
    ring_after(0 if at_ns == UINT64_MAX else (at_ns - now_ns) // 1000 + 1 if at_ns > now_ns else 1)


cdef bint child_told() noexcept nogil:
    global told
    cdef bint since = told
    told = False
    return since


# ---------------------------------------------------------------- the strategy

cdef readiness_t *begin(int *error) noexcept nogil:
    cdef readiness_t *listeners = epoll_level_ops().begin(error)
    if listeners != NULL:
        listeners.ops = &PROCESSES
    return listeners


cdef readiness_ops_t PROCESSES = epoll_level_ops()[0]
PROCESSES.begin = begin
PROCESSES.name = b"processes"
PROCESSES.serves = SERVES_IN_PROCESSES


cdef const readiness_ops_t *process_ops() noexcept nogil:
    return &PROCESSES
