# SPDX-License-Identifier: MIT
"""A kernel_t from its first descriptor to its last. See life.pxd."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free
from libc.string cimport memset, strerror

from ustack.base.posix cimport O_CLOEXEC, O_RDONLY, close_descriptor, getpid, open_descriptor
from ustack.base.wheel cimport wheel_free, wheel_init
from ustack.buf.lent cimport lent_release_pending
from ustack.buf.slab cimport SLAB_MOST, slab_destroy, slab_init
from ustack.kernel.aio cimport reads_begin, reads_end
from ustack.kernel.alone cimport serve_alone, serve_child
from ustack.kernel.connections cimport conn_end, conn_living
from ustack.kernel.processes cimport processes_begin, processes_end, serve_in_process
from ustack.kernel.readiness cimport SERVES_IN_PROCESSES, SERVES_IN_THREADS, readiness_ops_t
from ustack.kernel.records cimport (
    ENDED, KERNEL_LISTENERS, PIECE_BYTES, RECORD_BYTES, UNWATCHED, kernel_conn_t, kernel_t, piece_t)
from ustack.kernel.threads cimport thread_start, threads_begin, threads_end
from ustack.kernel.zerocopy cimport orphans_end


cdef void kernel_clear(kernel_t *kernel) noexcept:
    cdef int index
    memset(kernel, 0, sizeof(kernel_t))
    kernel.reserve_fd = kernel.wake_fd = -1
    for index in range(KERNEL_LISTENERS):
        kernel.listeners[index].fd = -1


cdef int kernel_begin(kernel_t *kernel, const readiness_ops_t *ops, uint32_t max_connections) except -1:
    cdef const char *why = NULL
    cdef int failed = 0
    if sizeof(kernel_conn_t) > RECORD_BYTES or sizeof(piece_t) > PIECE_BYTES:
        raise AssertionError("records.pxd: a record is larger than its slab's")
    kernel.process = getpid()
    if (wheel_init(&kernel.wheel, kernel.now_ns) < 0 or slab_init(&kernel.conns, RECORD_BYTES, max_connections) < 0
            or slab_init(&kernel.pieces, PIECE_BYTES, SLAB_MOST) < 0):
        raise MemoryError
    kernel.readiness = ops.begin(&failed)
    if kernel.readiness == NULL:
        if ops.explain != NULL:
            why = ops.explain(failed)
        raise OSError(-failed, f"{ops.name.decode()}: {(why if why != NULL else strerror(-failed)).decode()}")
    if ops.reads_files:
        failed = reads_begin(kernel)
        if failed != 0:
            raise OSError(-failed, f"{ops.name.decode()}: {strerror(-failed).decode()}")
    if ops.serves == SERVES_IN_THREADS:
        failed = threads_begin(kernel)
        if failed != 0:
            raise OSError(-failed, f"{ops.name.decode()}: {strerror(-failed).decode()}")
        kernel.serve_alone = serve_in_thread
    if ops.serves == SERVES_IN_PROCESSES:
        failed = processes_begin(kernel)
        if failed != 0:
            raise OSError(-failed, f"{ops.name.decode()}: {strerror(-failed).decode()}")
        kernel.serve_alone = serve_in_process
        kernel.serve_child = serve_child
    kernel.reserve_fd = open_descriptor("/dev/null", O_RDONLY | O_CLOEXEC)
    return 0


cdef int serve_in_thread(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    return thread_start(kernel, conn, serve_alone)


cdef void kernel_free(kernel_t *kernel) noexcept:
    cdef int index
    for index in range(KERNEL_LISTENERS):
        if kernel.listeners[index].fd >= 0:
            close_descriptor(kernel.listeners[index].fd)
            kernel.listeners[index].fd = -1
    reads_end(kernel)
    orphans_end(kernel)
    if kernel.readiness != NULL:
        kernel.readiness.ops.end(kernel.readiness)
        kernel.readiness = NULL
    if kernel.reserve_fd >= 0:
        close_descriptor(kernel.reserve_fd)
        kernel.reserve_fd = -1
    threads_end(kernel)
    processes_end(kernel)
    wheel_free(&kernel.wheel)
    slab_destroy(&kernel.conns)
    slab_destroy(&kernel.pieces)
    free(kernel.generations)
    kernel.generations = NULL
    kernel.generations_capacity = 0
    lent_release_pending()


cdef void kernel_discard(kernel_t *kernel) noexcept:
    cdef kernel_conn_t *conn
    cdef uint32_t index
    for index in range(kernel.generations_capacity):
        conn = conn_living(kernel, index)
        if conn != NULL:
            conn.flags |= UNWATCHED     # the strategy hears nothing: in a child its descriptor is the parent's, too
            conn_end(kernel, conn)
    kernel_free(kernel)


cdef void kernel_abandon(kernel_t *kernel) noexcept:
    """Nothing is left to do, for whoever looks at it next: the turn in whose upcall fork() was called. Nobody hears."""
    cdef kernel_conn_t *conn
    cdef uint32_t index
    for index in range(kernel.generations_capacity):
        conn = conn_living(kernel, index)
        if conn != NULL:
            close_descriptor(conn.fd)
            conn.fd = -1
            conn.flags |= ENDED | UNWATCHED
    for index in range(<uint32_t>KERNEL_LISTENERS):
        if kernel.listeners[index].fd >= 0:
            close_descriptor(kernel.listeners[index].fd)
            kernel.listeners[index].fd = -1
    kernel.work.first = kernel.work.last = kernel.out.first = kernel.out.last = kernel.ready_count = 0
    kernel.hand_overs = kernel.open_applications = 0


cdef class Copy(Forked):
    cdef void forked(self) noexcept:
        if self.kernel == NULL or self.kernel.forking:      # a child that serves: processes.pxd
            return
        self.alive[0] = False
        if self.gate.inside != 0:
            kernel_abandon(self.kernel)     # its memory goes with the transport's: a turn may be under way in it
            self.come_up[0] = True
        else:
            kernel_discard(self.kernel)
            self.kernel = NULL
