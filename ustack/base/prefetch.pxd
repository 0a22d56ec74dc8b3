# SPDX-License-Identifier: MIT
# Asking for memory before it is needed.
#
# A hint to the processor: it changes nothing, waits for nothing, and an address that is not mapped does no harm. Worth
# its instruction only where the line is cold, and something else can be done until it is there.

cdef extern from *:
    """
    /* The empty statement is there because GCC takes a function that only prefetches for one that does nothing at all,
       and leaves its calls out. */
    static inline void ustack_prefetch(const void *address)
    {
        __builtin_prefetch(address);
        __asm__ volatile ("");
    }
    """
    void prefetch "ustack_prefetch"(const void *address) noexcept nogil


# Every line of a record that begins one.
cdef inline void prefetch_lines(const void *record, size_t record_bytes) noexcept nogil:
    cdef size_t at
    for at in range(0, record_bytes, 64):
        prefetch(<const char *>record + at)
