# SPDX-License-Identifier: MIT
"""Files read by POSIX AIO. See aio.pxd.

The C library makes it from threads, twenty at most, one at a time for each descriptor; its signal is queued for the
process and handled in any thread. The handler touches the reads_t, so that this goes only when every signal has come:
one that never comes costs its memory and a descriptor, which then stay. So do those of a read that does not end, with
what it reads into. A signal that somebody else sends is none of its: what it carries would be taken for a pointer.

Its threads are those of the process that has read first. A child of fork does not have them and the library does not
notice, so there files are read as with every other strategy.
"""

from libc.errno cimport EAGAIN, EINPROGRESS, ENOMEM, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from ustack.application cimport CALL_NO_MEMORY, CALL_OK, CALL_STATE, CALL_UNSUPPORTED, application_t, transport_t
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport (
    ECANCELED, EFD_CLOEXEC, EFD_NONBLOCK, SA_RESTART, SA_SIGINFO, SI_ASYNCIO, SIGEV_SIGNAL, SIGRTMIN, aio_cancel,
    aio_error, aio_read, aio_return, aio_suspend, aiocb, close_descriptor, errno_at, eventfd, getpid, ppoll, read,
    sigaction, sigaction_t, sigemptyset, siginfo_t, timespec, write)
from ustack.buf.lent cimport lent_ref, lent_t, lent_unref
from ustack.kernel.counters cimport (
    FILE_READS, FILE_READS_GIVEN_UP, FILE_READS_LATE, FILE_READS_REFUSED, FILE_READS_UNTOLD)
from ustack.kernel.epoll cimport epoll_level_ops
from ustack.kernel.readiness cimport READY_IN, readiness_ops_t, readiness_t
from ustack.kernel.records cimport READS_MOST, kernel_of, kernel_t, read_t, reads_t, reads_token, tally
from ustack.kernel.upcalls cimport burst_begin

cdef extern from *:
    void add_one "__atomic_fetch_add"(uint64_t *at, uint64_t one, int order) nogil
    uint64_t value_of "__atomic_load_n"(const uint64_t *at, int order) nogil
    const int RELEASE "__ATOMIC_RELEASE"
    const int ACQUIRE "__ATOMIC_ACQUIRE"

cdef enum:
    SIGNAL_OFFSET = 3               # from SIGRTMIN; threads has 4, rtsig those behind it
    LATE_NS = 1000000               # between looks for signals that are still to come, at the end
    LATE_LOOKS = 200
    END_LOOK_NS = 10000000          # the longest wait for a read, at the end
    END_LOOKS = 200                 # such waits that find nothing, of all reads together: two seconds
    SETTLE_LOOKS = 600              # of READS_LOOK_NS, with a manual clock: a minute

cdef int readers_process = 0        # whose the library's threads are; 0: nobody has read yet
cdef reads_t *left_behind = NULL    # of transports that have gone. Touched with the GIL held


# ---------------------------------------------------------------- the signal

cdef void on_signal(int number, siginfo_t *info, void *context) noexcept nogil:
    """In whichever thread was running: errno is its own."""
    cdef reads_t *reads = <reads_t *>info.si_value.sival_ptr
    cdef uint64_t one = 1
    cdef int before = errno
    if info.si_code != SI_ASYNCIO or info.si_pid != getpid():
        return
    write(reads.told_fd, &one, sizeof(one))
    add_one(&reads.notified, 1, RELEASE)        # the last that it touches: see collect
    errno_at()[0] = before


cdef void listen_to_signal() noexcept nogil:
    cdef sigaction_t action
    memset(&action, 0, sizeof(action))
    sigemptyset(&action.sa_mask)
    action.sa_sigaction = on_signal
    action.sa_flags = SA_SIGINFO | SA_RESTART
    sigaction(SIGRTMIN + SIGNAL_OFFSET, &action, NULL)


# ---------------------------------------------------------------- the beginning and the end

cdef int reads_begin(kernel_t *kernel) noexcept nogil:
    cdef reads_t *reads = <reads_t *>calloc(1, sizeof(reads_t))
    cdef int failed
    collect()
    if reads == NULL:
        return -ENOMEM
    reads.told_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if reads.told_fd < 0:
        failed = -errno
        free(reads)
        return failed
    failed = kernel.readiness.ops.add(kernel.readiness, reads.told_fd, reads_token(), READY_IN)
    if failed < 0:
        close_descriptor(reads.told_fd)
        free(reads)
        return failed
    reads.process = getpid()
    listen_to_signal()
    kernel.reads = reads
    kernel.files.read = read_file
    kernel.transport.files = &kernel.files
    return 0


cdef void reads_finish(kernel_t *kernel) noexcept nogil:
    cdef uint32_t index
    if kernel.reads == NULL or kernel.reads.in_flight == 0:
        return
    wait_for_all(kernel.reads)
    kernel.reads.told = True
    reads_tell(kernel)
    for index in range(<uint32_t>READS_MOST):
        if kernel.reads.reads[index].app != NULL:
            give_up(kernel, &kernel.reads.reads[index])


cdef void give_up(kernel_t *kernel, read_t *own) noexcept nogil:
    """Its place stays taken: the kernel may yet write there."""
    cdef application_t *app = own.app
    own.app = NULL
    kernel.reads.in_flight -= 1
    tally(kernel, FILE_READS_GIVEN_UP)
    burst_begin(kernel, app)
    app.on_file_read(app, &kernel.transport, own.token, -1, lent_ref(own.into), -ECANCELED)


cdef void wait_for_all(reads_t *reads) noexcept nogil:
    """What can be taken back is; for the rest, for a while."""
    cdef uint32_t index
    for index in range(<uint32_t>READS_MOST):
        if reads.reads[index].app != NULL:
            aio_cancel(reads.reads[index].block.aio_fildes, &reads.reads[index].block)
    wait_a_while(reads, END_LOOKS, END_LOOK_NS)


cdef bint wait_a_while(reads_t *reads, uint32_t most, uint64_t look_ns) noexcept nogil:
    """False: `most` waits have found nothing, and some have not ended."""
    cdef uint32_t index, looks = 0
    cdef uint64_t until_ns = clock_monotonic_ns() + most * look_ns
    cdef int failed
    for index in range(<uint32_t>READS_MOST):
        while reads.reads[index].app != NULL and is_under_way(&reads.reads[index]):
            if looks == most:
                return False
            failed = wait_for(&reads.reads[index].block, look_ns)
            if failed == EAGAIN:
                looks += 1
            elif failed != 0 and clock_monotonic_ns() >= until_ns:      # signals that never stop
                return False
    return True


cdef int wait_for(aiocb *block, uint64_t wait_ns) noexcept nogil:
    """0: it has ended. EAGAIN: not within that time. EINTR: a signal has come."""
    cdef const aiocb *blocks[1]
    cdef timespec moment
    moment.tv_sec = 0
    moment.tv_nsec = <int64_t>wait_ns
    blocks[0] = block
    return 0 if aio_suspend(blocks, 1, &moment) == 0 else errno


cdef inline bint is_under_way(const read_t *own) noexcept nogil:
    return aio_error(&own.block) == EINPROGRESS


# ---------------------------------------------------------------- what is left behind

cdef void reads_end(kernel_t *kernel) noexcept nogil:
    cdef reads_t *reads = kernel.reads
    if reads == NULL:
        return
    kernel.reads = NULL
    if reads.process != getpid():
        give_back(reads, True)              # the child's copies, which nobody else has closed
        close_descriptor(reads.told_fd)
        free(reads)
        return
    wait_for_all(reads)
    if give_back(reads, True):
        wait_for_signals(reads)
    leave_behind(reads)
    collect()


cdef void leave_behind(reads_t *reads) noexcept nogil:
    global left_behind
    reads.next = left_behind
    left_behind = reads


cdef void collect() noexcept nogil:
    """Everything that nobody touches any more. What a parent has left behind is a copy here: nobody reads into it, and
    its descriptors may have been closed, and their numbers be somebody else's, since."""
    cdef reads_t **at = &left_behind
    cdef reads_t *reads
    cdef bint ours
    while at[0] != NULL:
        reads = at[0]
        ours = reads.process == getpid()
        if give_back(reads, ours) and (not ours or all_notified(reads)):
            at[0] = reads.next
            if ours:
                close_descriptor(reads.told_fd)
            free(reads)
        else:
            at = &reads.next


cdef bint give_back(reads_t *reads, bint closes) noexcept nogil:
    """What reads have used that have ended, or that are another process's. False: some have not."""
    cdef bint ours = reads.process == getpid(), whole = True
    cdef read_t *own
    cdef uint32_t index
    for index in range(<uint32_t>READS_MOST):
        own = &reads.reads[index]
        if own.into == NULL:
            continue
        if ours and is_under_way(own):
            whole = False
            continue
        if closes:
            close_descriptor(own.block.aio_fildes)
        lent_unref(own.into)
        own.into = NULL
    return whole


cdef inline bint all_notified(const reads_t *reads) noexcept nogil:
    return value_of(&reads.notified, ACQUIRE) == reads.submitted


cdef void wait_for_signals(const reads_t *reads) noexcept nogil:
    cdef timespec moment
    cdef uint32_t looks = 0
    moment.tv_sec = 0
    moment.tv_nsec = LATE_NS
    while not all_notified(reads) and looks < LATE_LOOKS:
        ppoll(NULL, 0, &moment, NULL)
        looks += 1


# ---------------------------------------------------------------- reading

cdef int read_file(const transport_t *transport, application_t *app, int fd, lent_t *into, uint64_t at,
                   uint64_t length, uint64_t offset, uint32_t token) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    global readers_process
    cdef reads_t *reads = kernel.reads
    cdef uint32_t index = 0
    cdef read_t *own
    if kernel.ending:
        return CALL_STATE
    if app.on_file_read == NULL or readers_process not in (0, reads.process):
        return CALL_UNSUPPORTED
    while index < <uint32_t>READS_MOST and reads.reads[index].into != NULL:
        index += 1
    if index == <uint32_t>READS_MOST:
        tally(kernel, FILE_READS_REFUSED)
        return CALL_NO_MEMORY
    own = &reads.reads[index]
    memset(own, 0, sizeof(read_t))
    own.block.aio_fildes = fd
    own.block.aio_buf = <void *>(into.data + at)
    own.block.aio_nbytes = length
    own.block.aio_offset = <int64_t>offset
    own.block.aio_sigevent.sigev_notify = SIGEV_SIGNAL
    own.block.aio_sigevent.sigev_signo = SIGRTMIN + SIGNAL_OFFSET
    own.block.aio_sigevent.sigev_value.sival_ptr = reads
    readers_process = reads.process
    if aio_read(&own.block) < 0:
        tally(kernel, FILE_READS_REFUSED)
        return CALL_NO_MEMORY
    if reads.in_flight == 0:
        reads.looked_ns = kernel.now_ns
    own.into = into
    own.token = token
    own.app = app
    reads.in_flight += 1
    reads.submitted += 1
    tally(kernel, FILE_READS)
    return CALL_OK


cdef uint32_t reads_tell(kernel_t *kernel) noexcept nogil:
    cdef reads_t *reads = kernel.reads
    cdef uint32_t index, ended = 0
    cdef uint64_t count
    cdef bint by_signal
    if reads == NULL or not (reads.told or (reads.in_flight and kernel.now_ns - reads.looked_ns >= READS_LOOK_NS)):
        return 0
    by_signal = reads.told
    if by_signal:
        reads.told = False
        read(reads.told_fd, &count, sizeof(count))      # before the look: one that ends behind it tells again
    reads.looked_ns = kernel.now_ns
    for index in range(<uint32_t>READS_MOST):
        if reads.reads[index].app != NULL and not is_under_way(&reads.reads[index]):
            ended += 1
            if not by_signal:
                tally(kernel, FILE_READS_UNTOLD)
            tell_one(kernel, &reads.reads[index])
    return ended


cdef void tell_one(kernel_t *kernel, read_t *own) noexcept nogil:
    """Its place is free before the application hears of it, and may read on."""
    cdef application_t *app = own.app
    cdef lent_t *into = own.into
    cdef int fd = own.block.aio_fildes, failed = aio_error(&own.block)
    cdef int64_t taken = aio_return(&own.block)
    own.app = NULL
    own.into = NULL
    kernel.reads.in_flight -= 1
    burst_begin(kernel, app)
    app.on_file_read(app, &kernel.transport, own.token, fd, into, taken if failed == 0 else -failed)


cdef void reads_settle(kernel_t *kernel) noexcept nogil:
    if kernel.reads == NULL or kernel.reads.in_flight == 0:
        return
    if not wait_a_while(kernel.reads, SETTLE_LOOKS, READS_LOOK_NS):
        tally(kernel, FILE_READS_LATE)
    kernel.reads.told = True


# ---------------------------------------------------------------- the strategy

cdef readiness_t *begin(int *error) noexcept nogil:
    cdef readiness_t *sockets = epoll_level_ops().begin(error)
    if sockets != NULL:
        sockets.ops = &AIO
    return sockets


cdef readiness_ops_t AIO = epoll_level_ops()[0]
AIO.begin = begin
AIO.name = b"aio"
AIO.reads_files = True


cdef const readiness_ops_t *aio_ops() noexcept nogil:
    return &AIO
