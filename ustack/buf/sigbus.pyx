# SPDX-License-Identifier: MIT
"""Reading a mapped file whose pages are gone: one SIGBUS handler for the process. The contract is in sigbus.pxd.

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

It must not call the interpreter from the handler, nor take a lock there. Below: nothing. Above: lent.
"""

from libc.stdint cimport uint8_t, uint64_t


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
    """
    int take_sigbus "ustack_take_sigbus"() noexcept nogil
    uint64_t repairs "ustack_sigbus_repairs"
    void *range_register "ustack_range_register"(const void *start, size_t length, uint8_t *damaged) noexcept nogil
    void range_forget "ustack_range_forget"(void *range) noexcept nogil


cdef int sigbus_take() noexcept nogil:
    return take_sigbus()


cdef void *sigbus_register(const void *start, size_t length, uint8_t *damaged) noexcept nogil:
    return range_register(start, length, damaged)


cdef void sigbus_forget(void *range) noexcept nogil:
    range_forget(range)


cdef uint64_t sigbus_repairs_made() noexcept nogil:
    return repairs
