# SPDX-License-Identifier: MIT
# Buffers that an application lends to the send queue. They are immutable while lent; the stack reads them
# each time a segment is built, first or again, and gives its reference back when the peer has acknowledged
# the last byte. References are counted without locks: one engine's thread owns a lent_t.
#
# Data ownership: whoever creates a lent_t holds one reference. tcp_send takes one more for each queued
# piece. When the count falls to zero `release` runs once, in the engine's thread, possibly without the GIL.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

ctypedef struct lent_t:
    const uint8_t *data                              # never NULL, not even for length 0
    uint64_t length
    void (*release)(lent_t *lent) noexcept nogil     # frees data, then the lent_t itself
    void *owner                                      # release's own: a PyObject *, a mapping, ...
    uint32_t refs
    # Set by the SIGBUS handler: the file behind a mapping was cut, its lost pages now read as zeros. Who sends
    # from it must abort rather than send made-up bytes.
    uint8_t damaged

cdef inline lent_t *lent_ref(lent_t *lent) noexcept nogil:
    lent.refs += 1
    return lent

cdef inline void lent_unref(lent_t *lent) noexcept nogil:
    lent.refs -= 1
    if lent.refs == 0:
        lent.release(lent)

# A private copy of `length` octets. NULL without memory.
cdef lent_t *lent_from_copy(const uint8_t *data, uint64_t length) noexcept nogil
# Borrow any object with a contiguous buffer; it is kept alive and its buffer exported until release.
cdef lent_t *lent_from_object(object source) except NULL
# Map a whole file, read only. The descriptor may be closed afterwards. Raises OSError. An empty file gives length 0.
# A page lost to truncation is replaced by zeros and marks the lent_t damaged (never SIGBUS for the process).
cdef lent_t *lent_from_file(int fd) except NULL

cdef uint64_t lent_alive() noexcept nogil            # lent_t not yet released; tests assert zero at the end
