# SPDX-License-Identifier: MIT
"""Buffers that an application lends to the send queue. The contract is in lent.pxd.

It must not look at the bytes, and must not be asked to make a writable object immutable: who lends a bytearray and
then writes into it sends what it wrote, also in retransmissions.

A file that is mapped can be cut short by anybody who may write to it: sigbus.pyx says what happens then. Whoever
installs a handler later (faulthandler.enable(), a crash reporter) takes its place without knowing. So it is looked at
whenever a file is mapped, and before the first read of a mapping in each turn.

What the handler cannot see: the file cut within its last page (the rest of the page reads as zeros without a fault)
or overwritten in place. Nor does a system call raise SIGBUS when it reads a lost page, it fails with EFAULT. So
`damaged` is read after the bytes were copied, and who lends files compares their size when it takes them anew.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_Fetch, PyErr_Restore, PyErr_SetFromErrno
from cpython.ref cimport PyObject
from libc cimport errno as c_errno
from libc.stdint cimport SIZE_MAX, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from ustack.base.posix cimport (
    F_DUPFD_CLOEXEC, MADV_WILLNEED, MAP_FAILED, MAP_POPULATE, MAP_SHARED, PROT_READ, RLIMIT_NOFILE, S_ISREG,
    close_descriptor, fcntl, fstat, getrlimit, madvise, mmap, munmap, rlimit, stat_t)
from ustack.buf.sigbus cimport sigbus_forget, sigbus_register, sigbus_repairs_made, sigbus_take


cdef extern from "Python.h" nogil:
    bint Py_IsInitialized()


cdef extern from *:
    """
    #include <stdint.h>

    static int64_t ustack_lent_count;
    #define ustack_lent_count_add(n) __atomic_fetch_add(&ustack_lent_count, (n), __ATOMIC_RELAXED)
    #define ustack_lent_count_read() __atomic_load_n(&ustack_lent_count, __ATOMIC_RELAXED)

    static uint64_t ustack_lent_descriptors;
    #define ustack_lent_descriptors_add(n) __atomic_add_fetch(&ustack_lent_descriptors, (n), __ATOMIC_RELAXED)

    /* What a thread has put off, and who wants to know (lent_watch). */
    static __thread void *ustack_pending;
    static __thread int *ustack_wake;
    /* The time for which this thread has looked at the handler last. */
    static __thread uint64_t ustack_guarded_ns;
    """
    void *pending_head "ustack_pending"
    bint *wake "ustack_wake"
    uint64_t guarded_ns "ustack_guarded_ns"
    void count_add "ustack_lent_count_add"(long amount) noexcept nogil
    uint64_t count_read "ustack_lent_count_read"() noexcept nogil
    uint64_t descriptors_add "ustack_lent_descriptors_add"(long amount) noexcept nogil


cdef enum:
    # Up to here a file is brought into the page tables when it is mapped, so that sending it never faults. A longer
    # one would block the caller for its whole length: the kernel is asked to read ahead and the rest faults in, 16
    # pages at a time.
    POPULATE_BYTES = 4 * 1024 * 1024
    DESCRIPTORS_MOST = 1024             # kept with files, or a quarter of what the process may have


ctypedef struct lent_object_t:
    lent_t lent
    Py_buffer view
    lent_object_t *next                 # while it is put off


cdef inline void _set(lent_t *lent, const uint8_t *data, uint64_t length,
                      void (*release)(lent_t *lent) noexcept nogil) noexcept nogil:
    memset(lent, 0, sizeof(lent_t))
    # Never NULL, so that copying or summing all of nothing is defined.
    lent.data = data if data != NULL else <const uint8_t *>lent
    lent.length = length
    lent.release = release
    lent.refs = 1
    count_add(1)


cdef uint64_t lent_alive() noexcept nogil:
    return count_read()


# -- a copy

cdef void _release_copy(lent_t *lent) noexcept nogil:
    free(lent)                          # the bytes lie behind it in the same piece of memory
    count_add(-1)


cdef lent_t *lent_unfilled(uint64_t length) noexcept nogil:
    cdef lent_t *lent
    if length > SIZE_MAX - sizeof(lent_t):
        return NULL
    lent = <lent_t *>malloc(sizeof(lent_t) + <size_t>length)
    if lent != NULL:
        _set(lent, <uint8_t *>lent + sizeof(lent_t), length, _release_copy)
    return lent


cdef lent_t *lent_from_copy(const uint8_t *data, uint64_t length) noexcept nogil:
    cdef lent_t *lent = lent_unfilled(length)
    if lent != NULL and length:
        memcpy(<uint8_t *>lent.data, data, <size_t>length)
    return lent


# -- an object

cdef void _release_object(lent_t *lent) noexcept nogil:
    # Put off: PyBuffer_Release may run any Python, and the caller is in the middle of a queue.
    global pending_head
    cdef lent_object_t *whole = <lent_object_t *>lent
    whole.next = <lent_object_t *>pending_head
    pending_head = whole
    if wake != NULL:
        wake[0] = True


cdef void lent_watch(bint *flag) noexcept nogil:
    global wake, guarded_ns
    wake = flag
    guarded_ns = 0
    if flag != NULL and pending_head != NULL:
        flag[0] = True


cdef void lent_release_pending() noexcept:
    global pending_head
    cdef lent_object_t *whole
    cdef lent_object_t *oldest = NULL
    cdef lent_object_t *following
    cdef PyObject *kind = NULL
    cdef PyObject *value = NULL
    cdef PyObject *trace = NULL
    if pending_head == NULL:
        return
    # A destructor that finds the caller's exception would take it for its own.
    PyErr_Fetch(&kind, &value, &trace)
    while pending_head != NULL:             # a destructor may put others off
        whole = <lent_object_t *>pending_head
        pending_head = NULL
        oldest = NULL
        while whole != NULL:                # the list is newest first; they are given back in the order they came
            following = whole.next
            whole.next = oldest
            oldest = whole
            whole = following
        while oldest != NULL:
            following = oldest.next
            # After the interpreter has gone, what the object held is gone with it.
            if Py_IsInitialized():
                PyBuffer_Release(&oldest.view)
            free(oldest)
            count_add(-1)
            oldest = following
    PyErr_Restore(kind, value, trace)


cdef lent_t *lent_from_object(object source) except NULL:
    cdef lent_object_t *whole = <lent_object_t *>malloc(sizeof(lent_object_t))
    if whole == NULL:
        raise MemoryError
    try:
        PyObject_GetBuffer(source, &whole.view, PyBUF_SIMPLE)
    except BaseException:
        free(whole)
        raise
    _set(&whole.lent, <const uint8_t *>whole.view.buf, <uint64_t>whole.view.len, _release_object)
    whole.lent.owner = <void *>whole.view.obj
    return &whole.lent


# -- a file

cdef void _release_file(lent_t *lent) noexcept nogil:
    if lent.length:
        sigbus_forget(lent.owner)        # first: afterwards the addresses may be anybody's
        munmap(<void *>lent.data, <size_t>lent.length)
    if (<lent_file_t *>lent).fd >= 0:
        close_descriptor((<lent_file_t *>lent).fd)
        descriptors_add(-1)
    free(lent)
    count_add(-1)


cdef int _descriptor_kept(int fd) noexcept nogil:
    """A copy of it; -1: none is left for files."""
    cdef rlimit limit
    cdef int kept = -1
    if getrlimit(RLIMIT_NOFILE, &limit) != 0:
        return -1
    if descriptors_add(1) <= min(<uint64_t>DESCRIPTORS_MOST, limit.rlim_cur // 4):
        kept = fcntl(fd, F_DUPFD_CLOEXEC, 0)
    if kept < 0:
        descriptors_add(-1)
    return kept


cdef lent_t *_map_file(int fd, bint with_descriptor) noexcept nogil:
    """lent_from_file without the interpreter: NULL with errno."""
    cdef stat_t status
    cdef lent_t *lent
    cdef void *data = NULL
    cdef size_t length
    if sigbus_take() != 0 or fstat(fd, &status) != 0:
        return NULL
    if not S_ISREG(status.st_mode):
        c_errno.errno = c_errno.EINVAL
        return NULL
    if <uint64_t>status.st_size > SIZE_MAX:
        c_errno.errno = c_errno.EOVERFLOW
        return NULL
    lent = <lent_t *>malloc(sizeof(lent_file_t))
    if lent == NULL:
        return NULL
    (<lent_file_t *>lent).fd = -1
    length = <size_t>status.st_size
    if length:
        data = mmap(NULL, length, PROT_READ, MAP_SHARED | (MAP_POPULATE if length <= POPULATE_BYTES else 0), fd, 0)
        if data == MAP_FAILED:
            free(lent)
            return NULL
    _set(lent, <const uint8_t *>data, length, _release_file)
    if length:
        lent.owner = sigbus_register(data, length, &lent.damaged)
        if lent.owner == NULL:
            munmap(data, length)
            free(lent)
            count_add(-1)
            c_errno.errno = c_errno.ENOMEM
            return NULL
        lent.mapped = 1
        if with_descriptor:
            (<lent_file_t *>lent).fd = _descriptor_kept(fd)
        if length > POPULATE_BYTES:
            madvise(data, length, MADV_WILLNEED)            # advice: nothing depends on its success
    return lent


cdef void lent_guard_mapping(uint64_t now_ns) noexcept nogil:
    """Somebody may have installed a handler of his own since the file was mapped (faulthandler.enable() does): one
    system call for each turn in which a mapping is read tells."""
    global guarded_ns
    if guarded_ns != now_ns:
        guarded_ns = now_ns
        sigbus_take()


cdef lent_t *lent_from_file(int fd, bint with_descriptor=False) except NULL:
    cdef lent_t *lent
    with nogil:                         # populating reads the disk
        lent = _map_file(fd, with_descriptor)
    if lent == NULL:
        PyErr_SetFromErrno(OSError)
    return lent


# -- test shim

def alive() -> int:
    """lent_alive."""
    return lent_alive()


def release_pending() -> None:
    """lent_release_pending."""
    lent_release_pending()


def sigbus_repairs() -> int:
    """How often the SIGBUS handler had to be put back since the start of the process."""
    return sigbus_repairs_made()


cdef class Lent:
    """One lent_t and the references that a test holds on it. For tests.

    kind: "copy" or "object" with a buffer as `source`, "file" with a descriptor.
    """

    cdef lent_t *c
    cdef readonly int refs

    def __cinit__(self, kind: str, source: object) -> None:
        cdef const uint8_t[::1] view
        if kind == "copy":
            view = source
            self.c = lent_from_copy(&view[0] if view.shape[0] else NULL, <uint64_t>view.shape[0])
            if self.c == NULL:
                raise MemoryError
        elif kind == "object":
            self.c = lent_from_object(source)
        elif kind == "file":
            self.c = lent_from_file(source)
        else:
            raise ValueError(f"nothing is lent from a {kind}")
        self.refs = 1

    def __dealloc__(self) -> None:
        while self.refs:
            self._drop()
        lent_release_pending()

    cdef void _drop(self) noexcept:
        self.refs -= 1
        with nogil:
            lent_unref(self.c)

    def _check(self) -> None:
        if self.refs == 0:
            raise ValueError("released")

    def ref(self) -> None:
        """Take one more reference."""
        self._check()
        lent_ref(self.c)
        self.refs += 1

    def unref(self) -> None:
        """Give one back, without the GIL as an engine does."""
        self._check()
        self._drop()
        lent_release_pending()

    def read(self, uint64_t offset, uint64_t length) -> bytes:
        """Copy bytes out as the send path does: with memcpy, into memory of its own."""
        cdef char *target
        self._check()
        if offset > self.c.length or length > self.c.length - offset:
            raise ValueError("outside of what was lent")
        out = bytearray(length)
        target = out
        lent_watch(NULL)                # each read() is a turn of its own
        with nogil:
            lent_guard(self.c, 1)
            memcpy(target, self.c.data + offset, <size_t>length)
        return bytes(out)

    @property
    def address(self) -> int:
        """Where the bytes lie."""
        self._check()
        return <size_t>self.c.data

    @property
    def length(self) -> int:
        """How many bytes were lent."""
        self._check()
        return self.c.length

    @property
    def damaged(self) -> bool:
        """Whether pages were lost."""
        self._check()
        return bool(self.c.damaged)
