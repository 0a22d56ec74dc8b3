# SPDX-License-Identifier: MIT
"""Buffers that an application lends to the send queue. The contract is in lent.pxd.

It must not look at the bytes, and must not be asked to make a writable object immutable: who lends a bytearray and
then writes into it sends what it wrote, also in retransmissions.

A file that is mapped can be cut short by anybody who may write to it. Reading the lost pages raises SIGBUS, which
would kill the server, so one handler serves every mapping (mmap(2), "SIGBUS"; POSIX lists no mmap among the
async-signal-safe functions, but on Linux it is a bare system call):

    fault at address ──▶ in a registered range? ── no ──▶ the previous handler, or death as if we were not here
                                 │ yes
                                 ▼
           damaged = 1, anonymous zero pages over [page of the fault, end of the range), return: the read goes on

Whoever installs a handler after us (faulthandler.enable(), a crash reporter) takes our place without knowing. So it
is looked at whenever a file is mapped, and before the first read of a mapping in each turn: another's handler goes
below ours, and gets every fault that is not ours.

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
    MADV_WILLNEED, MAP_FAILED, MAP_POPULATE, MAP_SHARED, PROT_READ, S_ISREG, fstat, madvise, mmap, munmap, stat_t)


cdef extern from "Python.h" nogil:
    bint Py_IsInitialized()


# The handler is plain C, because a Cython function may call the interpreter's tracing, and nothing of the interpreter
# may run in a signal handler.
cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <unistd.h>

    /* The registry: slots in blocks that are chained and never freed, so a handler may walk them at any moment.
     *
     * Writers hold the mutex; the handler takes no lock. A slot changes as a seqlock does: `version` is odd while its
     * fields are being written. The handler passes over a slot that is odd or has changed while it was read: that
     * cannot be the slot of the faulting range, which is registered before its first and forgotten after its last
     * access. */
    typedef struct {
        uint32_t version;
        uintptr_t start;                /* 0: free */
        size_t length;
        uint8_t *damaged;
    } ustack_range_t;

    #define USTACK_RANGES_A_BLOCK 127
    typedef struct ustack_range_block {
        struct ustack_range_block *next;
        ustack_range_t ranges[USTACK_RANGES_A_BLOCK];
    } ustack_range_block_t;

    static ustack_range_block_t ustack_first_block;
    static pthread_mutex_t ustack_range_mutex = PTHREAD_MUTEX_INITIALIZER;
    /* Free slots, last in first out, through `length` of each. Only writers use it. */
    static ustack_range_t *ustack_free_range;
    static int ustack_first_block_listed;
    static size_t ustack_system_page;
    static int64_t ustack_lent_count;

    #define ustack_lent_count_add(n) __atomic_fetch_add(&ustack_lent_count, (n), __ATOMIC_RELAXED)
    #define ustack_lent_count_read() __atomic_load_n(&ustack_lent_count, __ATOMIC_RELAXED)

    static void ustack_range_write(ustack_range_t *range, uintptr_t start, size_t length, uint8_t *damaged)
    {
        uint32_t version = range->version;
        __atomic_store_n(&range->version, version + 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        __atomic_store_n(&range->start, start, __ATOMIC_RELAXED);
        __atomic_store_n(&range->length, length, __ATOMIC_RELAXED);
        __atomic_store_n(&range->damaged, damaged, __ATOMIC_RELAXED);
        __atomic_store_n(&range->version, version + 2, __ATOMIC_RELEASE);
    }

    static void ustack_list_free_ranges(ustack_range_block_t *block)
    {
        for (int i = USTACK_RANGES_A_BLOCK - 1; i >= 0; i--) {
            block->ranges[i].length = (size_t)(uintptr_t)ustack_free_range;
            ustack_free_range = &block->ranges[i];
        }
    }

    /* Returns NULL without memory. */
    static void *ustack_range_register(const void *start, size_t length, uint8_t *damaged)
    {
        ustack_range_t *range;
        pthread_mutex_lock(&ustack_range_mutex);
        if (!ustack_first_block_listed) {
            ustack_first_block_listed = 1;
            ustack_list_free_ranges(&ustack_first_block);
        }
        if (ustack_free_range == NULL) {
            ustack_range_block_t *block = calloc(1, sizeof *block);
            if (block != NULL) {
                ustack_list_free_ranges(block);
                block->next = ustack_first_block.next;
                __atomic_store_n(&ustack_first_block.next, block, __ATOMIC_RELEASE);
            }
        }
        range = ustack_free_range;
        if (range != NULL) {
            ustack_free_range = (ustack_range_t *)(uintptr_t)range->length;
            ustack_range_write(range, (uintptr_t)start, length, damaged);
        }
        pthread_mutex_unlock(&ustack_range_mutex);
        return range;
    }

    static void ustack_range_forget(void *slot)
    {
        ustack_range_t *range = slot;
        pthread_mutex_lock(&ustack_range_mutex);
        ustack_range_write(range, 0, (size_t)(uintptr_t)ustack_free_range, NULL);
        ustack_free_range = range;
        pthread_mutex_unlock(&ustack_range_mutex);
    }

    /* In the handler. 1 if the slot's range holds the address and now has zeros from there to its end. */
    static int ustack_range_repair(ustack_range_t *range, uintptr_t address)
    {
        uint32_t version = __atomic_load_n(&range->version, __ATOMIC_ACQUIRE);
        uintptr_t start = __atomic_load_n(&range->start, __ATOMIC_RELAXED);
        size_t length = __atomic_load_n(&range->length, __ATOMIC_RELAXED);
        uint8_t *damaged = __atomic_load_n(&range->damaged, __ATOMIC_RELAXED);
        uintptr_t page;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if ((version & 1) || __atomic_load_n(&range->version, __ATOMIC_RELAXED) != version)
            return 0;
        /* A mapping ends with its page, not with the file. */
        length = (length + ustack_system_page - 1) & ~(ustack_system_page - 1);
        if (start == 0 || address < start || address - start >= length)
            return 0;
        __atomic_store_n(damaged, 1, __ATOMIC_RELAXED);
        page = address & ~(uintptr_t)(ustack_system_page - 1);
        return mmap((void *)page, start + length - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
            != MAP_FAILED;
    }

    /* The handlers below ours, the newest last: what we found in our place, now and later. A handler that has given up
     * (it raised the signal again, as faulthandler does after its report) is not called a second time. Only the handler
     * and ustack_take_sigbus write them; both at once would need a fault of somebody else's while a third installs a
     * handler, and the process is dying then. */
    #define USTACK_CHAIN_MAX 8
    static struct sigaction ustack_chain[USTACK_CHAIN_MAX];
    static volatile int ustack_chain_used;
    static void *volatile ustack_passed_address;
    static volatile int ustack_passed_times;
    static uint64_t ustack_sigbus_repairs;          /* times that the handler had to be put back */

    static void ustack_on_sigbus(int signal_number, siginfo_t *info, void *context);

    static int ustack_same_handler(const struct sigaction *a, const struct sigaction *b)
    {
        return (a->sa_flags & SA_SIGINFO) == (b->sa_flags & SA_SIGINFO)
            && ((a->sa_flags & SA_SIGINFO) ? a->sa_sigaction == b->sa_sigaction : a->sa_handler == b->sa_handler);
    }

    static int ustack_is_ours(const struct sigaction *action)
    {
        return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == ustack_on_sigbus;
    }

    /* Die as if this handler were not here. A fault comes again by itself when we return, and the kernel lets nobody
     * ignore one; a signal that somebody sent must be raised again, and is pending until then. */
    static void ustack_sigbus_default(int signal_number, const siginfo_t *info)
    {
        struct sigaction standard;
        memset(&standard, 0, sizeof standard);
        standard.sa_handler = SIG_DFL;
        sigaction(signal_number, &standard, NULL);
        if (info->si_code <= 0)
            raise(signal_number);
    }

    /* Not our fault: the newest handler below ours has it. */
    static void ustack_pass_on(int signal_number, siginfo_t *info, void *context)
    {
        const int fault = info->si_code > 0;
        const int used = ustack_chain_used;
        struct sigaction below;
        sigset_t pending;
        if (fault) {
            /* A handler that returns without having done anything (one that was disabled) is called again and again. */
            ustack_passed_times = ustack_passed_address == info->si_addr ? ustack_passed_times + 1 : 1;
            ustack_passed_address = info->si_addr;
        }
        if (used == 0 || (fault && ustack_passed_times > 16)) {
            ustack_sigbus_default(signal_number, info);
            return;
        }
        below = ustack_chain[used - 1];
        if (!(below.sa_flags & SA_SIGINFO) && below.sa_handler == SIG_IGN) {
            if (fault)
                ustack_sigbus_default(signal_number, info);
            return;
        }
        ustack_chain_used = used - 1;
        if (below.sa_flags & SA_SIGINFO)
            below.sa_sigaction(signal_number, info, context);
        else
            below.sa_handler(signal_number);
        if (sigpending(&pending) == 0 && sigismember(&pending, signal_number))
            return;                     /* it has handed the signal on: to the next one below */
        ustack_chain_used = used;
    }

    static void ustack_on_sigbus(int signal_number, siginfo_t *info, void *context)
    {
        const int saved_errno = errno;
        /* Only the kernel's own report of a fault has an address; kill(2) and raise(3) do not. */
        if (info->si_code > 0 && info->si_code != SI_KERNEL) {
            ustack_range_block_t *block = &ustack_first_block;
            for (; block != NULL; block = __atomic_load_n(&block->next, __ATOMIC_ACQUIRE))
                for (int i = 0; i < USTACK_RANGES_A_BLOCK; i++)
                    if (ustack_range_repair(&block->ranges[i], (uintptr_t)info->si_addr)) {
                        errno = saved_errno;
                        return;
                    }
        }
        ustack_pass_on(signal_number, info, context);
        errno = saved_errno;
    }

    /* Make our handler the process's, above the one that is there. Cheap when it is ours already: one system call.
     * 0, or -1 with errno. */
    static int ustack_take_sigbus(void)
    {
        struct sigaction ours, there;
        int failed, at, kept = 0;
        if (sigaction(SIGBUS, NULL, &there) != 0)
            return -1;
        if (ustack_is_ours(&there))
            return 0;
        pthread_mutex_lock(&ustack_range_mutex);
        failed = sigaction(SIGBUS, NULL, &there);
        if (!failed && !ustack_is_ours(&there)) {
            if (ustack_system_page == 0)
                ustack_system_page = (size_t)sysconf(_SC_PAGESIZE);
            else
                ustack_sigbus_repairs++;
            /* What is there now goes to the top; if it was in the chain before, it leaves its old place. The default
             * is the end of a chain: what lay below was put out of action by whoever set it. */
            if (!(there.sa_flags & SA_SIGINFO) && there.sa_handler == SIG_DFL) {
                ustack_chain_used = 0;
            } else {
                for (at = 0; at < ustack_chain_used; at++)
                    if (!ustack_same_handler(&ustack_chain[at], &there))
                        ustack_chain[kept++] = ustack_chain[at];
                if (kept == USTACK_CHAIN_MAX)
                    memmove(ustack_chain, ustack_chain + 1, --kept * sizeof ustack_chain[0]);
                ustack_chain[kept] = there;
                ustack_chain_used = kept + 1;
            }
            memset(&ours, 0, sizeof ours);
            ours.sa_sigaction = ustack_on_sigbus;
            /* SA_ONSTACK: a thread whose own stack is the trouble still reaches the handlers below. */
            ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
            sigemptyset(&ours.sa_mask);
            failed = sigaction(SIGBUS, &ours, NULL);
        }
        pthread_mutex_unlock(&ustack_range_mutex);
        return failed;
    }

    /* What a thread has put off, and who wants to know (lent_watch). */
    static __thread void *ustack_pending;
    static __thread int *ustack_wake;
    /* The time for which this thread has looked at the handler last. */
    static __thread uint64_t ustack_guarded_ns;
    """
    int take_sigbus "ustack_take_sigbus"() noexcept nogil
    uint64_t sigbus_repairs_count "ustack_sigbus_repairs"
    void *pending_head "ustack_pending"
    bint *wake "ustack_wake"
    uint64_t guarded_ns "ustack_guarded_ns"
    void *range_register "ustack_range_register"(const void *start, size_t length, uint8_t *damaged) noexcept nogil
    void range_forget "ustack_range_forget"(void *range) noexcept nogil
    void count_add "ustack_lent_count_add"(long amount) noexcept nogil
    uint64_t count_read "ustack_lent_count_read"() noexcept nogil


cdef enum:
    # Up to here a file is brought into the page tables when it is mapped, so that sending it never faults. A longer
    # one would block the caller for its whole length: the kernel is asked to read ahead and the rest faults in, 16
    # pages at a time.
    POPULATE_BYTES = 4 * 1024 * 1024


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
    free(lent)                          # the octets lie behind it in the same piece of memory
    count_add(-1)


cdef lent_t *lent_from_copy(const uint8_t *data, uint64_t length) noexcept nogil:
    cdef lent_t *lent
    cdef uint8_t *octets
    if length > SIZE_MAX - sizeof(lent_t):
        return NULL
    lent = <lent_t *>malloc(sizeof(lent_t) + <size_t>length)
    if lent == NULL:
        return NULL
    octets = <uint8_t *>lent + sizeof(lent_t)
    if length:
        memcpy(octets, data, <size_t>length)
    _set(lent, octets, length, _release_copy)
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
        range_forget(lent.owner)        # first: afterwards the addresses may be anybody's
        munmap(<void *>lent.data, <size_t>lent.length)
    free(lent)
    count_add(-1)


cdef lent_t *_map_file(int fd) noexcept nogil:
    """lent_from_file without the interpreter: NULL with errno."""
    cdef stat_t status
    cdef lent_t *lent
    cdef void *data = NULL
    cdef size_t length
    if take_sigbus() != 0 or fstat(fd, &status) != 0:
        return NULL
    if not S_ISREG(status.st_mode):
        c_errno.errno = c_errno.EINVAL
        return NULL
    if <uint64_t>status.st_size > SIZE_MAX:
        c_errno.errno = c_errno.EOVERFLOW
        return NULL
    lent = <lent_t *>malloc(sizeof(lent_t))
    if lent == NULL:
        return NULL
    length = <size_t>status.st_size
    if length:
        data = mmap(NULL, length, PROT_READ, MAP_SHARED | (MAP_POPULATE if length <= POPULATE_BYTES else 0), fd, 0)
        if data == MAP_FAILED:
            free(lent)
            return NULL
    _set(lent, <const uint8_t *>data, length, _release_file)
    if length:
        lent.owner = range_register(data, length, &lent.damaged)
        if lent.owner == NULL:
            munmap(data, length)
            free(lent)
            count_add(-1)
            c_errno.errno = c_errno.ENOMEM
            return NULL
        lent.mapped = 1
        if length > POPULATE_BYTES:
            madvise(data, length, MADV_WILLNEED)            # advice: nothing depends on its success
    return lent


cdef void lent_guard_mapping(uint64_t now_ns) noexcept nogil:
    """Somebody may have installed a handler of his own since the file was mapped (faulthandler.enable() does): one
    system call for each turn in which a mapping is read tells."""
    global guarded_ns
    if guarded_ns != now_ns:
        guarded_ns = now_ns
        take_sigbus()


cdef lent_t *lent_from_file(int fd) except NULL:
    cdef lent_t *lent
    with nogil:                         # populating reads the disk
        lent = _map_file(fd)
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
    return sigbus_repairs_count


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
        """Copy octets out as the send path does: with memcpy, into memory of its own."""
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
        """Where the octets lie."""
        self._check()
        return <size_t>self.c.data

    @property
    def length(self) -> int:
        """How many octets were lent."""
        self._check()
        return self.c.length

    @property
    def damaged(self) -> bool:
        """Whether pages were lost."""
        self._check()
        return bool(self.c.damaged)
