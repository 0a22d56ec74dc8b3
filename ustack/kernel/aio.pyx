# SPDX-License-Identifier: MIT
"""Files read by POSIX AIO. See aio.pxd.

The C library makes it from threads, twenty at most, one at a time for each descriptor; its signal is queued for the
process and handled in any thread. The handler touches the reads_t, so that this goes only when every signal has come:
one that never comes costs its memory and a descriptor, which then stay. A signal that somebody else sends is none of
its: what it carries would be taken for a pointer.

Its threads are those of the process that has read first. A child of fork does not have them and the library does not
notice, so there files are read as with every other strategy.
"""

from libc.errno cimport EINPROGRESS, ENOMEM, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from ustack.application cimport CALL_NO_MEMORY, CALL_OK, CALL_STATE, CALL_UNSUPPORTED, application_t, transport_t
from ustack.base.posix cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, SA_RESTART, SA_SIGINFO, SI_ASYNCIO, SIGEV_SIGNAL, SIGRTMIN, aio_cancel, aio_error,
    aio_read, aio_return, aio_suspend, aiocb, close_descriptor, errno_at, eventfd, getpid, ppoll, read, sigaction,
    sigaction_t, sigemptyset, siginfo_t, timespec, write)
from ustack.buf.lent cimport lent_t, lent_unref
from ustack.kernel.counters cimport FILE_READS, FILE_READS_REFUSED, FILE_READS_UNTOLD
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

cdef int readers_process = 0        # whose the library's threads are; 0: nobody has read yet


# ---------------------------------------------------------------- the signal

cdef void told(int number, siginfo_t *info, void *context) noexcept nogil:
    """In whichever thread was running: errno is its own."""
    cdef reads_t *reads = <reads_t *>info.si_value.sival_ptr
    cdef uint64_t one = 1
    cdef int before = errno
    if info.si_code != SI_ASYNCIO or info.si_pid != getpid():
        return
    write(reads.told_fd, &one, sizeof(one))
    add_one(&reads.notified, 1, RELEASE)        # the last that it touches: see release
    errno_at()[0] = before


cdef void listen_to_signal() noexcept nogil:
    cdef sigaction_t action
    memset(&action, 0, sizeof(action))
    sigemptyset(&action.sa_mask)
    action.sa_sigaction = told
    action.sa_flags = SA_SIGINFO | SA_RESTART
    sigaction(SIGRTMIN + SIGNAL_OFFSET, &action, NULL)


# ---------------------------------------------------------------- the beginning and the end

cdef int reads_begin(kernel_t *kernel) noexcept nogil:
    cdef reads_t *reads = <reads_t *>calloc(1, sizeof(reads_t))
    cdef int failed
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
    if kernel.reads != NULL and kernel.reads.in_flight:
        wait_for_all(kernel.reads)
        kernel.reads.told = True
        reads_tell(kernel)


cdef void reads_end(kernel_t *kernel) noexcept nogil:
    cdef reads_t *reads = kernel.reads
    cdef uint32_t index
    if reads == NULL:
        return
    kernel.reads = NULL
    if reads.process == getpid():
        wait_for_all(reads)
    for index in range(<uint32_t>READS_MOST):
        if reads.reads[index].app != NULL:
            close_descriptor(reads.reads[index].block.aio_fildes)
            lent_unref(reads.reads[index].into)
    release(reads)


cdef void wait_for_all(reads_t *reads) noexcept nogil:
    cdef uint32_t index
    for index in range(<uint32_t>READS_MOST):
        if reads.reads[index].app != NULL:
            aio_cancel(reads.reads[index].block.aio_fildes, &reads.reads[index].block)
            wait_for(&reads.reads[index].block)


cdef void wait_for(aiocb *block) noexcept nogil:
    cdef const aiocb *blocks[1]
    blocks[0] = block
    while aio_error(block) == EINPROGRESS:
        aio_suspend(blocks, 1, NULL)


cdef void release(reads_t *reads) noexcept nogil:
    cdef timespec moment
    cdef uint32_t looks = 0
    moment.tv_sec = 0
    moment.tv_nsec = LATE_NS
    if reads.process == getpid():
        while value_of(&reads.notified, ACQUIRE) != reads.submitted and looks < LATE_LOOKS:
            ppoll(NULL, 0, &moment, NULL)
            looks += 1
        if looks == LATE_LOOKS:
            return
    close_descriptor(reads.told_fd)
    free(reads)


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
    while index < <uint32_t>READS_MOST and reads.reads[index].app != NULL:
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
        if reads.reads[index].app != NULL and aio_error(&reads.reads[index].block) != EINPROGRESS:
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
    kernel.reads.in_flight -= 1
    burst_begin(kernel, app)
    app.on_file_read(app, &kernel.transport, own.token, fd, into, taken if failed == 0 else -failed)


cdef void reads_settle(kernel_t *kernel) noexcept nogil:
    cdef uint32_t index
    if kernel.reads == NULL or kernel.reads.in_flight == 0:
        return
    for index in range(<uint32_t>READS_MOST):
        if kernel.reads.reads[index].app != NULL:
            wait_for(&kernel.reads.reads[index].block)
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
