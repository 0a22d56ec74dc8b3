# SPDX-License-Identifier: MIT
# Buffers that an application lends to the send queue. They are immutable while lent; the stack reads them
# each time a segment is built, first or again, and gives its reference back when the peer has acknowledged
# the last byte. References are counted without locks: one engine's thread owns a lent_t.
#
# Data ownership: whoever creates a lent_t holds one reference. tcp_send takes one more for each queued
# piece. When the count falls to zero `release` runs once, in the engine's thread, possibly without the GIL.
#
# Giving a Python object back runs Python (a destructor, an exporter, weak references' callbacks), which must not
# happen while the stack has a queue half undone. So an object's `release` only puts it on the list of its thread, and
# whoever drives an engine calls lent_release_pending between two turns.

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
    uint8_t mapped                                   # data is a mapping of a file: call lent_guard before reading

# What lent_from_file makes.
ctypedef struct lent_file_t:
    lent_t lent
    int fd                                           # -1: none is kept

cdef inline lent_t *lent_ref(lent_t *lent) noexcept nogil:
    lent.refs += 1
    return lent

cdef inline void lent_unref(lent_t *lent) noexcept nogil:
    lent.refs -= 1
    if lent.refs == 0:
        lent.release(lent)

# A private copy of `length` bytes. NULL without memory.
cdef lent_t *lent_from_copy(const uint8_t *data, uint64_t length) noexcept nogil
# The same before anything is in it: its maker writes the bytes, and then lends it. NULL without memory.
cdef lent_t *lent_unfilled(uint64_t length) noexcept nogil
# Borrow any object with a contiguous buffer; it is kept alive and its buffer exported until release.
cdef lent_t *lent_from_object(object source) except NULL
# Map a whole file, read only. The descriptor may be closed afterwards. Raises OSError. An empty file gives length 0.
# A page lost to truncation is replaced by zeros and marks the lent_t damaged (never SIGBUS for the process).
# with_descriptor: it has one of its own as well, unless none is left.
cdef lent_t *lent_from_file(int fd, bint with_descriptor=*) except NULL

cdef uint64_t lent_alive() noexcept nogil            # lent_t of this process that are not yet released

# Give back the objects that this thread has put off. Runs arbitrary Python; keeps an exception that is set.
cdef void lent_release_pending() noexcept
# A turn begins: *flag becomes 1 when this thread puts an object off, so that a long one can end early. NULL: it ends.
cdef void lent_watch(bint *flag) noexcept nogil

# Called before a mapping is read at now_ns: puts the SIGBUS handler back if somebody has taken its place. It looks once
# for each turn (lent_watch) and each now_ns.
cdef inline void lent_guard(const lent_t *lent, uint64_t now_ns) noexcept nogil:
    if lent.mapped:
        lent_guard_mapping(now_ns)

# The descriptor of the file that is lent, for sendfile; -1: there is none.
cdef inline int lent_descriptor(const lent_t *lent) noexcept nogil:
    return (<const lent_file_t *>lent).fd if lent.mapped else -1

cdef void lent_guard_mapping(uint64_t now_ns) noexcept nogil
