# SPDX-License-Identifier: MIT
"""A thread for each connection. See threads.pxd."""

from libc.errno cimport ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from ustack.base.posix cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, IPPROTO_TCP, POLLIN, POLLOUT, PTHREAD_CREATE_DETACHED, SIGBUS, SIGFPE, SIGILL, SIGRTMIN,
    SIGSEGV, SIG_SETMASK, TCP_INFO, close_descriptor, eventfd, getsockopt, pollfd, ppoll, pthread_attr_destroy,
    pthread_attr_init, pthread_attr_setdetachstate, pthread_attr_setstacksize, pthread_attr_t, pthread_create,
    pthread_kill, pthread_sigmask, read, sem_destroy, sem_init, sigaction, sigaction_t, sigdelset, sigfillset,
    sigset_t, timespec)
from ustack.kernel.connections cimport conn_living, out_take, token_of, work_take
from ustack.kernel.polling cimport poll_ops
from ustack.kernel.readiness cimport READY_IN, SERVES_IN_THREADS, readiness_ops_t, readiness_t
from ustack.kernel.records cimport (
    BLOCKED, BLOCKED_IN, BLOCKED_OUT, DUE, KICKED, kernel_conn_t, kernel_lock, kernel_t, kernel_unlock, wake_token)

import resource
from pathlib import Path

CGROUP_FILE = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")

cdef enum:
    WAKE_OFFSET = 4             # from SIGRTMIN: the signal that ends a thread's sleep; rtsig has those from 5 on
    STACK_BYTES = 1 << 20       # of a thread, of which it touches some tens of KB: a head that Python decides, the most
    MAPPINGS = 2                # of a thread: its stack, and the page before it
    GIVE_WAY_NS = 20000
    INFO_BYTES_RECEIVED = 16    # the number of tcpi_bytes_received in struct tcp_info, counted in words of 64 bits
    INFO_WORDS = 17

cdef extern from *:
    """
    static __thread int ustack_own_thread;
    """
    bint own_thread "ustack_own_thread"

ctypedef void (*run_t)(kernel_t *kernel, uint64_t token) noexcept nogil

ctypedef struct start_t:
    kernel_t *kernel
    uint64_t token
    run_t run


cdef void woken(int number) noexcept nogil:
    pass                        # the system call that slept returns with EINTR: that is all


cdef void listen_to_wake() noexcept nogil:
    cdef sigaction_t action
    memset(&action, 0, sizeof(action))
    action.sa_handler = woken   # without SA_RESTART
    sigaction(SIGRTMIN + WAKE_OFFSET, &action, NULL)


cdef int threads_begin(kernel_t *kernel) noexcept nogil:
    cdef int failed
    kernel.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if kernel.wake_fd < 0:
        return -errno
    failed = kernel.readiness.ops.add(kernel.readiness, kernel.wake_fd, wake_token(), READY_IN)
    if failed != 0 or sem_init(&kernel.lock, 0, 0) < 0:
        return failed or -errno
    kernel.threaded = True
    listen_to_wake()
    return 0


cdef void threads_end(kernel_t *kernel) noexcept nogil:
    if kernel.threaded:
        kernel.threaded = False
        sem_destroy(&kernel.lock)
    if kernel.wake_fd >= 0:
        close_descriptor(kernel.wake_fd)
        kernel.wake_fd = -1


cdef void wake_drain(kernel_t *kernel) noexcept nogil:
    cdef uint64_t count
    read(kernel.wake_fd, &count, sizeof(count))


# ---------------------------------------------------------------- a thread

cdef bint in_own_thread() noexcept nogil:
    return own_thread


cdef void *thread_main(void *argument) noexcept nogil:
    global own_thread
    cdef start_t start = (<start_t *>argument)[0]
    free(argument)
    own_thread = True
    start.run(start.kernel, start.token)
    kernel_lock(start.kernel)
    start.kernel.alone -= 1
    kernel_unlock(start.kernel)         # the last that it touches: see threads_join
    return NULL


cdef int thread_start(kernel_t *kernel, kernel_conn_t *conn, run_t run) noexcept nogil:
    cdef start_t *start = <start_t *>malloc(sizeof(start_t))
    cdef pthread_attr_t attributes
    cdef sigset_t all_but_wake, before
    cdef int failed
    if start == NULL:
        return ENOMEM
    start.kernel = kernel
    start.token = token_of(conn)
    start.run = run
    sigfillset(&all_but_wake)
    sigdelset(&all_but_wake, SIGRTMIN + WAKE_OFFSET)
    sigdelset(&all_but_wake, SIGBUS)        # these are a thread's own doing; buf/sigbus handles the first
    sigdelset(&all_but_wake, SIGSEGV)
    sigdelset(&all_but_wake, SIGFPE)
    sigdelset(&all_but_wake, SIGILL)
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED)
    pthread_attr_setstacksize(&attributes, STACK_BYTES)
    pthread_sigmask(SIG_SETMASK, &all_but_wake, &before)    # inherited: signals of the process are the first thread's
    failed = pthread_create(&conn.thread, &attributes, thread_main, start)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    pthread_attr_destroy(&attributes)
    if failed != 0:
        free(start)
        return failed
    kernel.alone += 1
    return 0


# ---------------------------------------------------------------- others' turns

cdef void kick(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    if conn.flags & BLOCKED:            # else it will see what is due before it sleeps
        if not conn.flags & KICKED:
            conn.flags |= KICKED
            kernel.kicked += 1
        pthread_kill(conn.thread, SIGRTMIN + WAKE_OFFSET)


cdef uint32_t distribute(kernel_t *kernel, const kernel_conn_t *own) noexcept nogil:
    cdef kernel_conn_t *conn
    cdef uint32_t found = 0
    while kernel.work.first or kernel.out.first:
        conn = work_take(kernel)
        if conn == NULL:
            conn = out_take(kernel)
        if conn == NULL:
            break
        if conn.flags & DUE:
            continue
        conn.flags |= DUE
        found += 1
        if conn != own:
            kick(kernel, conn)
    return found


cdef void kick_again(kernel_t *kernel) noexcept nogil:
    cdef kernel_conn_t *conn
    cdef uint32_t index
    for index in range(kernel.generations_capacity):
        if kernel.kicked == 0:
            break
        conn = conn_living(kernel, index)
        if conn != NULL and conn.flags & KICKED:
            kick(kernel, conn)


cdef uint64_t arrived_bytes(int fd) noexcept nogil:
    """What the kernel has received for it, read or not."""
    cdef uint64_t info[INFO_WORDS]
    cdef unsigned int length = sizeof(info)
    memset(info, 0, sizeof(info))
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length)
    return info[INFO_BYTES_RECEIVED]


cdef bint sleeps(const kernel_conn_t *conn) noexcept nogil:
    """Nor has its thread taken bytes out of the socket, and waits for the lock with them in its hands."""
    cdef pollfd asked
    cdef timespec now
    if not conn.flags & BLOCKED or conn.flags & (KICKED | DUE):
        return False
    if not conn.flags & (BLOCKED_IN | BLOCKED_OUT):
        return True
    now.tv_sec = now.tv_nsec = 0
    asked.fd = conn.fd
    asked.events = (POLLIN if conn.flags & BLOCKED_IN else 0) | (POLLOUT if conn.flags & BLOCKED_OUT else 0)
    if ppoll(&asked, 1, &now, NULL) > 0:
        return False
    return not conn.flags & BLOCKED_IN or arrived_bytes(conn.fd) == conn.received_bytes


cdef bint all_sleep(kernel_t *kernel) noexcept nogil:
    cdef kernel_conn_t *conn
    cdef uint32_t index
    for index in range(kernel.generations_capacity):
        conn = conn_living(kernel, index)
        if conn != NULL and not sleeps(conn):
            return False
    return True


cdef void threads_join(kernel_t *kernel) noexcept nogil:
    while kernel.alone > 0:
        give_way(kernel)


cdef void give_way(kernel_t *kernel) noexcept nogil:
    cdef timespec moment
    moment.tv_sec = 0
    moment.tv_nsec = GIVE_WAY_NS
    if kernel.kicked:
        kick_again(kernel)
    kernel_unlock(kernel)
    ppoll(NULL, 0, &moment, NULL)
    kernel_lock(kernel)


# ---------------------------------------------------------------- how many

cdef tuple threads_most(bint processes):
    """Those that are there already have a part of each bound: a quarter is left to them."""
    found = []
    for path, each in ((Path("/proc/sys/kernel/threads-max"), 1), (Path("/proc/sys/kernel/pid_max"), 1),
                       *((path, 1) for path in pids_files()), (Path("/proc/sys/vm/max_map_count"), MAPPINGS)):
        if processes and each == MAPPINGS:
            continue
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            found.append((int(text) * 3 // 4 // each, path.name))
    for name in ("RLIMIT_NPROC", "RLIMIT_NOFILE"):      # a socket or a pidfd is a descriptor
        limit, _ = resource.getrlimit(getattr(resource, name))
        if limit != resource.RLIM_INFINITY:
            found.append((limit * 3 // 4, name))
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and not processes:
        found.append((limit // 2 // STACK_BYTES, "RLIMIT_AS"))
    return min(found, default=(1 << 15, "nothing known"))


cdef list pids_files():
    """pids.max of this process's control group and of those above it: each bounds what is below (cgroups(7))."""
    try:
        lines = CGROUP_FILE.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" or "pids" in controllers.split(","):   # version 2, or its hierarchy in version 1
            root = CGROUPS if number == "0" else CGROUPS / "pids"
            group = root / path.lstrip("/")
            found += [above / "pids.max" for above in (group, *group.parents) if above.is_relative_to(root)]
    return found


# ---------------------------------------------------------------- the strategy

cdef readiness_t *begin(int *error) noexcept nogil:
    cdef readiness_t *listeners = poll_ops().begin(error)
    if listeners != NULL:
        listeners.ops = &THREADS
    return listeners


cdef readiness_ops_t THREADS = poll_ops()[0]
THREADS.begin = begin
THREADS.name = b"threads"
THREADS.serves = SERVES_IN_THREADS


cdef const readiness_ops_t *thread_ops() noexcept nogil:
    return &THREADS
